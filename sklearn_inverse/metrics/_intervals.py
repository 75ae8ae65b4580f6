"""Are error bars honest? How often an interval holds the truth it was reported for."""

from numbers import Real
from statistics import NormalDist

import numpy as np

from sklearn_inverse.metrics._outputs import (
    as_columns,
    average_outputs,
    check_like,
    check_true,
)


def interval_coverage(true, lower, upper, *, multioutput="uniform_average"):
    """Fraction of true params that lie within their reported interval.

    Honest 90 % intervals hold 90 % of the truths: fewer means that the method is too
    sure of itself, more that it knows better than it says.

    Parameters
    ----------
    true : array-like of shape (n_samples, n_params)
        Params that produced the observations. One-dimensional input is one param.

    lower, upper : array-like of shape (n_samples, n_params)
        Ends of the intervals: from :func:`normal_interval`, or quantiles of an
        inverter's ``sample``. Must be finite; ends count as inside.

    multioutput : {"uniform_average", "raw_values"}, default="uniform_average"
        Whether to average over params, or to return one fraction per param.

    Returns
    -------
    coverage : float or ndarray of shape (n_params,)
        Between 0 and 1. Over n samples a fraction p is known to about
        ``sqrt(p * (1 - p) / n)``.

    Raises
    ------
    ValueError
        If shapes do not fit, a value is not finite, or a lower end exceeds its upper.

    See Also
    --------
    normal_interval : Ends from a mean and a standard deviation.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_inverse.metrics import interval_coverage, normal_interval
    >>> rng = np.random.default_rng(0)
    >>> mean, std = np.zeros((4000, 2)), np.ones((4000, 2))
    >>> true = rng.normal(mean, [1.0, 2.0])  # the second std is reported too small
    >>> lower, upper = normal_interval(mean, std, level=0.9)
    >>> interval_coverage(true, lower, upper, multioutput="raw_values").round(1)
    array([0.9, 0.6])
    """
    true = check_true(as_columns(true), axes=("n_samples", "n_params"))
    lower = check_like(as_columns(lower), true, name="lower")
    upper = check_like(as_columns(upper), true, name="upper")
    upside_down = lower > upper
    if upside_down.any():
        i, j = np.argwhere(upside_down)[0]
        raise ValueError(
            "`lower` must not exceed `upper`. Got "
            f"[{lower[i, j]:g}, {upper[i, j]:g}] for param {j} of sample {i}."
        )
    inside = (lower <= true) & (true <= upper)
    return average_outputs(inside.mean(axis=0), multioutput)


def normal_interval(mean, std, *, level=0.9):
    """Central interval of a normal distribution with this mean and spread.

    Parameters
    ----------
    mean, std : array-like of the same shape
        As returned by an inverter's ``predict(observations, return_std=True)``.

    level : float, default=0.9
        Probability that the interval holds the truth, between 0 and 1.

    Returns
    -------
    lower, upper : ndarray shaped like ``mean``
        Ends of the intervals, ``mean ± z * std``.

    Raises
    ------
    ValueError
        If a std is negative, shapes differ, or ``level`` is not between 0 and 1.

    Examples
    --------
    >>> from sklearn_inverse.metrics import normal_interval
    >>> lower, upper = normal_interval([10.0], [1.0], level=0.95)
    >>> lower.round(2), upper.round(2)
    (array([8.04]), array([11.96]))
    """
    if not (isinstance(level, Real) and 0 < level < 1):
        raise ValueError(f"`level` must lie between 0 and 1. Got {level!r} instead.")
    mean, std = np.asarray(mean, dtype=float), np.asarray(std, dtype=float)
    if mean.shape != std.shape:
        raise ValueError(
            "`mean` and `std` must have the same shape. Got "
            f"{mean.shape} and {std.shape}."
        )
    if (std < 0).any():
        raise ValueError(f"`std` must be >= 0. Got {std.min()} instead.")
    half_width = NormalDist().inv_cdf(0.5 + level / 2) * std
    return mean - half_width, mean + half_width
