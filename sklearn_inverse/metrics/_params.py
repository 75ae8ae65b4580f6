r"""Errors of recovered params, in units of their bounds.

With :math:`x(k)` the map of the bounds onto [0, 1], linear or by log10,

.. math:: \mathrm{MSE}_j = \frac1n \sum_i \big(x_j(\hat k_{ij}) - x_j(k_{ij})\big)^2

so that rate constants which differ by ten decades count equally. Always answering the
middle of a uniform prior scores 1/12 ≈ 0.083 (MSE) and 1/4 (MAE): anything above has
learned nothing.
"""

import numpy as np

from sklearn_inverse.metrics._outputs import (
    as_columns,
    average_outputs,
    check_like,
    check_true,
)
from sklearn_inverse.utils._scaling import ParamScaler
from sklearn_inverse.utils._validation import check_bounds


def param_mse(
    true, predicted, *, bounds, scale="linear", multioutput="uniform_average"
):
    """Mean squared error of scaled params.

    Parameters
    ----------
    true : array-like of shape (n_samples, n_params)
        Params that produced the observations, in their own units. One-dimensional
        input is one param.

    predicted : array-like of shape (n_samples, n_params)
        Recovered params. Must be finite: a failed sample is never skipped silently.

    bounds : array-like of shape (n_params, 2)
        Lower and upper bound of each param; errors are in units of their distance.

    scale : {"linear", "log10"} or list of them, default="linear"
        Scale on which that distance is measured.

    multioutput : {"uniform_average", "raw_values"}, default="uniform_average"
        Whether to average over params, or to return one error per param.

    Returns
    -------
    error : float or ndarray of shape (n_params,)
        0 is perfect; the middle of a uniform prior scores 1/12.

    Raises
    ------
    ValueError
        If shapes or bounds do not fit, a value is not finite, or a param on a log10
        scale is not positive.

    See Also
    --------
    param_mae : The same with absolute differences.

    Examples
    --------
    >>> from sklearn_inverse.metrics import param_mse
    >>> true = [[1.0, 1e-3], [3.0, 1e3]]
    >>> predicted = [[1.2, 1e-3], [3.0, 1e2]]
    >>> bounds, scale = [[1.0, 3.0], [1e-5, 1e5]], ["linear", "log10"]
    >>> errors = param_mse(
    ...     true, predicted, bounds=bounds, scale=scale, multioutput="raw_values"
    ... )
    >>> errors.round(4)  # (0.2 / 2)² / 2 and (1 decade / 10)² / 2
    array([0.005, 0.005])
    """
    errors = _scaled_differences(true, predicted, bounds=bounds, scale=scale) ** 2
    return average_outputs(errors.mean(axis=0), multioutput)


def param_mae(
    true, predicted, *, bounds, scale="linear", multioutput="uniform_average"
):
    """Mean absolute error of scaled params.

    Parameters
    ----------
    true : array-like of shape (n_samples, n_params)
        Params that produced the observations, in their own units. One-dimensional
        input is one param.

    predicted : array-like of shape (n_samples, n_params)
        Recovered params. Must be finite: a failed sample is never skipped silently.

    bounds : array-like of shape (n_params, 2)
        Lower and upper bound of each param; errors are in units of their distance.

    scale : {"linear", "log10"} or list of them, default="linear"
        Scale on which that distance is measured.

    multioutput : {"uniform_average", "raw_values"}, default="uniform_average"
        Whether to average over params, or to return one error per param.

    Returns
    -------
    error : float or ndarray of shape (n_params,)
        0 is perfect; the middle of a uniform prior scores 1/4.

    Raises
    ------
    ValueError
        If shapes or bounds do not fit, a value is not finite, or a param on a log10
        scale is not positive.

    See Also
    --------
    param_mse : The same with squared differences.

    Examples
    --------
    >>> from sklearn_inverse.metrics import param_mae
    >>> round(param_mae([1.0, 3.0], [1.2, 3.0], bounds=[[1.0, 3.0]]), 4)
    0.05
    """
    errors = np.abs(_scaled_differences(true, predicted, bounds=bounds, scale=scale))
    return average_outputs(errors.mean(axis=0), multioutput)


def _scaled_differences(true, predicted, *, bounds, scale):
    """Return ``x(predicted) - x(true)`` of shape (n_samples, n_params)."""
    true = check_true(as_columns(true), axes=("n_samples", "n_params"))
    predicted = check_like(as_columns(predicted), true, name="predicted")
    bounds = check_bounds(bounds, n_params=true.shape[1], scale=scale)
    scaler = ParamScaler(bounds, scale=scale)
    for name, params in (("true", true), ("predicted", predicted)):
        not_positive = scaler.is_log & (params <= 0)
        if not_positive.any():
            i, j = np.argwhere(not_positive)[0]
            raise ValueError(
                "A param on a log10 scale must be positive. Got "
                f"{params[i, j]:g} for param {j} of sample {i} in `{name}`."
            )
    return scaler.to_scaled(predicted) - scaler.to_scaled(true)
