"""Lotka-Volterra: hares, and the lynx that eat them."""

import numpy as np

from sklearn_inverse.ode import MassAction
from sklearn_inverse.systems._system import ODESystem
from sklearn_inverse.utils._validation import check_times

__all__ = ["lotka_volterra"]

# Posterior means for the Hudson's Bay Company's pelts, 1900 to 1920.
NOMINAL = {
    "alpha": 0.545,
    "beta": 0.028,
    "gamma": 0.803,
    "delta": 0.024,
    "hare0": 33.9,
    "lynx0": 5.95,
}

# Births, catches, deaths and growth as reactions, which have a compiled solver.
EFFECTS = np.array([[1, -1, 0, 0], [0, 0, -1, 1]])
ORDERS = np.array([[1, 1, 0, 1], [0, 1, 1, 1]])

BOUNDS = [[0.2, 1.6], [0.006, 0.15], [0.2, 1.6], [0.006, 0.15], [10, 100], [2, 20]]


def lotka_volterra(*, unknown_initial_state=False, bounds=None, times=None):
    r"""Return the Lotka-Volterra model of hares and lynx: 2 states, 4 or 6 params.

    Parameters
    ----------
    unknown_initial_state : bool, default=False
        Whether the first year's hares and lynx are params too, ``hare0`` and ``lynx0``.
        If False, they are 33.9 and 5.95.

    bounds : array-like of shape (n_params, 2), default=None
        Box of the params. If None, one that holds the estimates for Hudson's Bay with
        room to spare.

    times : array-like of shape (n_times,), default=None
        Output times in years. If None, 0, 1, …, 20.

    Returns
    -------
    system : ODESystem
        Thousands of pelts of ``hare`` and ``lynx``. Params on a log10 scale.

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
    >>> lotka_volterra(unknown_initial_state=True, times=range(1900, 1921))
    ODESystem('lotka_volterra', n_states=2, n_params=6, n_channels=2, n_times=21)
    """
    n_params = 6 if unknown_initial_state else 4
    nominal = list(NOMINAL.values())
    times = check_times(np.arange(21.0) if times is None else times)
    rates = ["1/year", "1/(year thousand pelts)"] * 2
    # The initial states are params of reactions that neither use nor make anything.
    silent = np.zeros((2, n_params - 4), dtype=int)
    rhs = MassAction(np.hstack([EFFECTS, silent]), np.hstack([ORDERS, silent]))
    return ODESystem(
        rhs,
        jac=rhs.jac,
        initial_state=initial_state if unknown_initial_state else nominal[4:],
        nominal=nominal[:n_params],
        bounds=BOUNDS[:n_params] if bounds is None else bounds,
        scale="log10",
        times=times,
        state_names=["hare", "lynx"],
        param_names=list(NOMINAL)[:n_params],
        units={
            "time": "year",
            "states": "thousand pelts",
            "params": [*rates, "thousand pelts", "thousand pelts"][:n_params],
        },
        name="lotka_volterra",
        reference=(
            times[0] + 20.0,
            [30.02134546327, 6.021080631407],
            "computed with SciPy: DOP853 and Radau at rtol 1e-13 agree to 1e-13",
        ),
    )


def initial_state(params):
    """Hares and lynx at the first time, when they are params."""
    return params[..., 4:]
