"""Lotka-Volterra: hares, and the lynx that eat them."""

from collections.abc import Mapping

import numpy as np

from sklearn_inverse.probability import LogUniform
from sklearn_inverse.systems._reactions import ReactionSystem
from sklearn_inverse.utils._validation import check_times

__all__ = ["lotka_volterra"]

# Posterior means for the Hudson's Bay Company's pelts, 1900 to 1920, and boxes.
VALUES = {
    "alpha": (0.545, 0.2, 1.6),
    "beta": (0.028, 0.006, 0.15),
    "gamma": (0.803, 0.2, 1.6),
    "delta": (0.024, 0.006, 0.15),
    "hare0": (33.9, 10, 100),
    "lynx0": (5.95, 2, 20),
}
NOMINAL = {name: value for name, (value, *_) in VALUES.items()}
BOUNDS = {name: tuple(box) for name, (_, *box) in VALUES.items()}


def lotka_volterra(*, unknown_initial_state=False, bounds=None, times=None):
    r"""Return the Lotka-Volterra model of hares and lynx: 2 states, 4 or 6 params.

    Parameters
    ----------
    unknown_initial_state : bool, default=False
        Whether the first year's hares and lynx are params too, ``hare0`` and ``lynx0``.
        If False, they are 33.9 and 5.95.

    bounds : dict or array-like of shape (n_params, 2), default=None
        Lowest and highest values of the params, or of some of them by name. If None, a
        box that holds the estimates for Hudson's Bay with room to spare.

    times : array-like of shape (n_times,), default=None
        Output times in years. If None, 0, 1, …, 20.

    Returns
    -------
    system : ReactionSystem
        Thousands of pelts of ``hare`` and ``lynx``. Params are log-uniform.

    Notes
    -----
    Hares :math:`u` multiply at rate :math:`\alpha` and are eaten at :math:`\beta v`;
    lynx :math:`v` die at rate :math:`\gamma` and multiply at :math:`\delta u`:

    .. math::

        u' &= (\alpha - \beta v)\, u \\
        v' &= (-\gamma + \delta u)\, v

    References
    ----------
    .. [1] Lotka, "Elements of Physical Biology", 1925.

    .. [2] Volterra, "Fluctuations in the abundance of a species considered
       mathematically", Nature 118 (1926) 558-560.

    .. [3] Carpenter, "Predator-Prey Population Dynamics: the Lotka-Volterra model in
       Stan", 2018. Source of the nominal values.

    Examples
    --------
    >>> from sklearn_inverse.problems import lotka_volterra
    >>> lotka_volterra().param_names
    ['alpha', 'beta', 'gamma', 'delta']
    >>> lotka_volterra(unknown_initial_state=True, bounds={"lynx0": (1, 30)}).bounds[5]
    array([ 1., 30.])
    """
    names = list(NOMINAL)[: 6 if unknown_initial_state else 4]
    if bounds is not None and not isinstance(bounds, Mapping):
        if np.shape(bounds) != (len(names), 2):
            raise ValueError(
                "`bounds` must be a dict or have one (lower, upper) row for each of "
                f"{names}. Got shape {np.shape(bounds)} instead."
            )
        bounds = dict(zip(names, bounds))
    bounds = {name: BOUNDS[name] for name in names} | dict(bounds or {})
    if len(bounds) > len(names):
        raise ValueError(
            f"`bounds` may hold {names}. Got {list(bounds)[len(names) :]}."
        )
    # The published values, and the reference there, go with boxes that hold them.
    holds = all(low <= NOMINAL[name] <= high for name, (low, high) in bounds.items())
    times = check_times(np.arange(21.0) if times is None else times)
    rates = ["1/year", "1/(year thousand pelts)"] * 2
    units = dict(zip(names, [*rates, "thousand pelts", "thousand pelts"]))
    source = "computed with SciPy: DOP853 and Radau at rtol 1e-13 agree to 1e-13"
    reference = times[0] + 20.0, [30.02134546327, 6.021080631407], source
    return ReactionSystem(
        {
            "hare -> 2 hare": "alpha",
            "hare + lynx -> lynx": "beta",
            "lynx ->": "gamma",
            "hare + lynx -> hare + 2 lynx": "delta",
        },
        initial={
            state: f"{state}0" if unknown_initial_state else NOMINAL[f"{state}0"]
            for state in ("hare", "lynx")
        },
        params={name: LogUniform(*pair) for name, pair in bounds.items()},
        nominal={name: NOMINAL[name] for name in names} if holds else None,
        times=times,
        units={"time": "year", "states": "thousand pelts", **units},
        name="lotka_volterra",
        reference=reference if holds else None,
    )
