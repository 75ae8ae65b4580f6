r"""Errors of trajectories, each observable in units of its own standard deviation.

.. math:: \mathrm{MSE}_c = \frac{1}{|M_c|} \sum_{(i, t) \in M_c}
          \left(\frac{\hat u_{itc} - u_{itc}}{\sigma_c}\right)^2

where :math:`M_c` holds the samples and times at which channel c was measured. Always
answering the observable's mean scores 1.
"""

import numpy as np

from sklearn_inverse.metrics._outputs import average_outputs, check_like, check_true
from sklearn_inverse.utils._scaling import ChannelScaler


def trajectory_mse(
    true, predicted, *, observable_std=None, multioutput="uniform_average"
):
    """Mean squared error of trajectories, standardized per observable.

    Parameters
    ----------
    true : array-like of shape (n_samples, n_times, n_channels)
        Measured or simulated trajectories; NaN where nothing was measured, which
        leaves that entry out.

    predicted : array-like of shape (n_samples, n_times, n_channels)
        Trajectories to judge. Must be finite everywhere: a failed sample is never
        skipped silently.

    observable_std : array-like of shape (n_channels,), default=None
        Standard deviation to measure each observable in: give that of the training data
        to compare results over different test sets. If None, that of ``true`` over
        samples and times; an observable that never varies is measured in its magnitude.

    multioutput : {"uniform_average", "raw_values"}, default="uniform_average"
        Whether to average over observables, or to return one error per observable.

    Returns
    -------
    error : float or ndarray of shape (n_channels,)
        0 is perfect, 1 is as good as the observable's mean. An observable never measured
        has error NaN, and stays out of the average.

    Raises
    ------
    ValueError
        If shapes do not fit, if ``predicted`` is not finite, or if nothing at all was
        measured.

    See Also
    --------
    trajectory_mae : The same with absolute differences.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_inverse.metrics import trajectory_mse
    >>> t = np.linspace(0, 1, 50)
    >>> true = np.stack([np.exp(-t), 1e-18 * np.exp(-t)], axis=-1)[None]
    >>> mean = np.broadcast_to(true.mean(axis=1, keepdims=True), true.shape)
    >>> round(trajectory_mse(true, mean), 6)  # however small an observable is
    1.0
    """
    errors = _standardized_differences(true, predicted, observable_std) ** 2
    return average_outputs(_mean_over_measured(errors), multioutput)


def trajectory_mae(
    true, predicted, *, observable_std=None, multioutput="uniform_average"
):
    """Mean absolute error of trajectories, standardized per observable.

    Parameters
    ----------
    true : array-like of shape (n_samples, n_times, n_channels)
        Measured or simulated trajectories; NaN where nothing was measured, which
        leaves that entry out.

    predicted : array-like of shape (n_samples, n_times, n_channels)
        Trajectories to judge. Must be finite everywhere: a failed sample is never
        skipped silently.

    observable_std : array-like of shape (n_channels,), default=None
        Standard deviation to measure each observable in: give that of the training data
        to compare results over different test sets. If None, that of ``true`` over
        samples and times; an observable that never varies is measured in its magnitude.

    multioutput : {"uniform_average", "raw_values"}, default="uniform_average"
        Whether to average over observables, or to return one error per observable.

    Returns
    -------
    error : float or ndarray of shape (n_channels,)
        0 is perfect. An observable never measured has error NaN, and stays out of the
        average.

    Raises
    ------
    ValueError
        If shapes do not fit, if ``predicted`` is not finite, or if nothing at all was
        measured.

    See Also
    --------
    trajectory_mse : The same with squared differences.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_inverse.metrics import trajectory_mae
    >>> true = np.array([[[1.0], [3.0], [np.nan]]])  # the last was not measured
    >>> trajectory_mae(true, true[:, :1] + np.zeros((1, 3, 1)), observable_std=[2.0])
    0.5
    """
    errors = np.abs(_standardized_differences(true, predicted, observable_std))
    return average_outputs(_mean_over_measured(errors), multioutput)


def _standardized_differences(true, predicted, observable_std):
    """Return (predicted - true) / std, NaN where nothing was measured."""
    axes = ("n_samples", "n_times", "n_channels")
    true = check_true(true, axes=axes, allow_nan=True)
    predicted = check_like(predicted, true, name="predicted")
    if np.isnan(true).all():
        raise ValueError("`true` must hold at least one measured value. Got only NaN.")
    if observable_std is None:
        std = ChannelScaler(true).std
    else:
        std = np.asarray(observable_std, dtype=float)
        if std.shape != true.shape[2:] or not (np.isfinite(std) & (std > 0)).all():
            raise ValueError(
                "`observable_std` must hold one positive, finite value per observable, "
                f"shape {true.shape[2:]}. Got {observable_std!r} instead."
            )
    return (predicted - true) / std


def _mean_over_measured(errors):
    """Average (n_samples, n_times, n_channels) over samples and times, NaN aside."""
    measured = ~np.isnan(errors)
    total = np.where(measured, errors, 0.0).sum(axis=(0, 1))
    count = measured.sum(axis=(0, 1))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
