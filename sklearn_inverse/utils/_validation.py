"""The one place that decides shapes and refuses bad input.

Observations are two-dimensional for scikit-learn, (n_samples, n_times * n_channels),
time-major, with NaN where nothing was measured; three dimensions are accepted at the
door and flattened here. Nothing else in the package knows this.
"""

import numbers

import numpy as np
from sklearn.utils.validation import check_array, validate_data

__all__ = [
    "check_bounds",
    "check_inputs",
    "check_n_observed",
    "check_noise_std",
    "check_observables",
    "check_observations",
    "check_params",
    "check_scale",
    "check_times",
    "column_names",
    "one_sample",
    "put_in_order",
    "to_trajectories",
]

SCALES = ("linear", "log10")


def check_observations(
    estimator, observations, *, n_channels=None, reset=False, ensure_min_samples=1
):
    """Validate observations for an estimator and give them their three dimensions.

    Parameters
    ----------
    estimator : estimator
        Gets ``n_features_in_`` (and ``feature_names_in_``) when ``reset``; otherwise
        observations must agree with those.

    observations : array-like of shape (n_samples, n_times * n_channels) or \
(n_samples, n_times, n_channels)
        Readings, time-major, NaN where nothing was measured.

    n_channels : int, default=None
        Number of channels. If None, taken from 3-D observations, and 1 for 2-D ones.

    reset : bool, default=False
        Whether this is the fit that decides the number of features.

    ensure_min_samples : int, default=1
        Fewest samples.

    Returns
    -------
    trajectories : ndarray of shape (n_samples, n_times, n_channels)
        The same readings in double precision.

    Raises
    ------
    ValueError
        If values are infinite or not real numbers, if shapes do not fit, or if a row
        holds no reading at all.
    """
    if isinstance(observations, np.ma.MaskedArray):
        observations = observations.astype(float).filled(np.nan)
    if not hasattr(observations, "shape"):
        observations = np.asarray(observations)
    shape = observations.shape
    if len(shape) == 3:
        if n_channels not in (None, shape[2]):
            raise ValueError(
                f"3-D observations must have n_channels={n_channels} entries on their "
                f"last axis. Got shape {shape} instead. The order is (n_samples, n_times, "
                "n_channels)."
            )
        n_channels = shape[2]
        observations = np.asarray(observations).reshape(shape[0], shape[1] * shape[2])
    flat = validate_data(
        estimator,
        observations,
        reset=reset,
        dtype=np.float64,
        order="C",  # tensors know no reversed views
        ensure_all_finite="allow-nan",
        ensure_min_samples=ensure_min_samples,
    )
    trajectories = to_trajectories(flat, n_channels=n_channels or 1)
    empty = np.isnan(flat).all(axis=1)
    if empty.any():
        raise ValueError(
            "Every sample needs at least one observation. Got nothing but NaN in "
            f"{empty.sum()} sample(s), the first at row {int(np.argmax(empty))}. Drop "
            "those rows."
        )
    return trajectories


def to_trajectories(flat, *, n_channels):
    """Give (n_samples, n_times * n_channels) its three dimensions.

    Raises
    ------
    ValueError
        If the number of columns is no multiple of ``n_channels``.
    """
    n_samples, n_features = flat.shape
    if n_features % n_channels:
        raise ValueError(
            "Observations must have n_times * n_channels columns, a multiple of "
            f"n_channels={n_channels}. Got {n_features} columns instead."
        )
    return flat.reshape(n_samples, n_features // n_channels, n_channels)


def check_params(params, *, n_samples=None, n_params=None, names=None):
    """Return params as a float ndarray of shape (n_samples, n_params), all finite.

    A one-dimensional ``params`` is one param for each of the samples. Columns of a data
    frame are put in the order of ``names``.
    """
    if params is None:
        raise ValueError(
            "`params` must be the params behind each row of observations. Got None: the "
            "estimator requires y to be passed, but the target y is None."
        )
    if not (_is_plain(params) and params.size and np.isfinite(params).all()):
        if names is not None:
            params = put_in_order(params, names)
        if isinstance(params, np.ma.MaskedArray):
            params = params.astype(float).filled(np.nan)
        if not hasattr(params, "shape"):
            params = np.asarray(params)
        params = check_array(
            params, ensure_2d=False, dtype=np.float64, input_name="params"
        )
    params = np.ascontiguousarray(params)  # tensors know no reversed views
    if params.ndim == 1:
        params = params[:, None]
    if n_samples is not None and len(params) != n_samples:
        raise ValueError(
            "`observations` and `params` must have the same number of samples. Got "
            f"{n_samples} and {len(params)}."
        )
    if n_params is not None and params.shape[1] != n_params:
        raise ValueError(
            f"`params` must have shape (n_samples, n_params) with n_params={n_params}. "
            f"Got {params.shape} instead."
        )
    return params


def one_sample(observations, shape):
    """Return the readings of one sample, given in any shape, as floats of this one."""
    array = np.asarray(observations, dtype=float)
    if array.size != shape[0] * shape[1]:
        raise ValueError(
            f"The observations of one sample must be {shape[0]} times of {shape[1]} "
            f"observables. Got shape {array.shape}."
        )
    return array.reshape(shape)


def check_inputs(inputs, *, n_samples, names):
    """Return inputs as a float ndarray of shape (n_samples, n_inputs), all finite.

    They may be given by name, in a dict or a data frame, each as one number for all
    samples or one for each of them. Other columns of a data frame are left alone.
    """
    names = list(names)
    if inputs is None:
        if not names:
            return np.empty((n_samples, 0))
        raise ValueError(
            f"`inputs` must hold {names} of each sample, which the model depends on. Got "
            "None. Give them as inputs={…}, or say what they are in the system."
        )
    columns = inputs if isinstance(inputs, dict) else column_names(inputs)
    if len(columns):
        is_frame = not isinstance(inputs, dict)
        if set(names) - set(columns) or not (is_frame or len(columns) == len(names)):
            raise ValueError(
                f"`inputs` must hold {names} of each sample. Got {list(columns)} instead."
            )
        parts = [_as_numbers(inputs[name]) for name in names]
        if any(part.shape not in ((), (1,), (n_samples,)) for part in parts):
            raise ValueError(
                f"`inputs` must be one number, or one for each of {n_samples} samples. Got "
                f"shapes {[part.shape for part in parts]} of {names}."
            )
        inputs = np.stack([np.broadcast_to(part, n_samples) for part in parts], axis=1)
    array = _as_numbers(inputs)
    if array.shape == (n_samples,) and len(names) == 1:
        array = array[:, None]
    array = np.ascontiguousarray(array)
    if array.shape != (n_samples, len(names)) or not np.isfinite(array).all():
        raise ValueError(
            f"`inputs` must be finite numbers of shape (n_samples, n_inputs) = "
            f"({n_samples}, {len(names)}), the columns {names}. Got shape {array.shape}"
            f"{'' if np.isfinite(array).all() else ', some of them not finite'}."
        )
    return array


def _as_numbers(inputs):
    try:
        return np.asarray(inputs, dtype=float)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"`inputs` of samples must be numbers. Got {inputs!r}. What varies with time "
            "is a Table in the system or in one of its experiments: inputs={'name': "
            "Table(times, values)}."
        ) from error


def _is_plain(array):
    return (
        type(array) is np.ndarray and array.dtype == np.float64 and array.ndim in (1, 2)
    )


def column_names(params):
    """Return the names of a data frame's columns, none of what has none."""
    return [c for c in getattr(params, "columns", ()) if isinstance(c, str)]


def put_in_order(params, names):
    """Return a data frame with its columns in the order of ``names``, others as given."""
    columns = column_names(params)
    if not columns:
        return params
    if sorted(columns) == sorted(names):
        return params[list(names)]
    if all(name[1:].isdigit() for name in names):  # k1, k2, …: nobody has named them
        return params
    raise ValueError(
        f"The columns of `params` must be the model's params {list(names)}. Got {columns} "
        "instead."
    )


def check_scale(scale, *, n_params):
    """Return the scale of each param as an array of "linear" and "log10"."""
    scales = np.full(n_params, scale) if isinstance(scale, str) else np.asarray(scale)
    if scales.shape != (n_params,) or not np.isin(scales, SCALES).all():
        raise ValueError(
            f"`scale` must be 'linear', 'log10', or a list of {n_params} of them, one "
            f"per param. Got {scale!r} instead."
        )
    return scales


def check_bounds(bounds, *, n_params=None, scale="linear"):
    """Return bounds as a float ndarray of shape (n_params, 2), lower below upper."""
    bounds = np.asarray(bounds, dtype=float)
    if bounds.ndim != 2 or bounds.shape[1] != 2 or n_params not in (None, len(bounds)):
        rows = "n_params" if n_params is None else n_params
        raise ValueError(
            f"`bounds` must have shape (n_params, 2) = ({rows}, 2): one (lower, upper) "
            f"row per param. Got shape {bounds.shape} instead."
        )
    if not np.isfinite(bounds).all():
        raise ValueError(f"`bounds` must be finite. Got {bounds.tolist()} instead.")
    upside_down = bounds[:, 0] >= bounds[:, 1]
    if upside_down.any():
        j = int(np.argmax(upside_down))
        raise ValueError(
            f"Every lower bound must be below its upper bound. Got {bounds[j]} for param "
            f"{j}."
        )
    log = check_scale(scale, n_params=len(bounds)) == "log10"
    if (bounds[log] <= 0).any():
        j = int(np.flatnonzero(log)[np.argmax((bounds[log] <= 0).any(axis=1))])
        raise ValueError(
            f"A param on a log10 scale must have positive bounds. Got {bounds[j]} for "
            f"param {j}. Raise its lower bound, or give it scale='linear'."
        )
    return bounds


def check_times(times, *, n_times=None):
    """Return times as a float ndarray of shape (n_times,), strictly increasing."""
    times = np.asarray(times, dtype=float)
    if times.ndim != 1 or len(times) == 0 or n_times not in (None, len(times)):
        expected = "n_times" if n_times is None else n_times
        raise ValueError(
            f"`times` must have shape ({expected},). Got shape {times.shape} instead."
        )
    if not np.isfinite(times).all() or (np.diff(times) <= 0).any():
        raise ValueError(
            f"`times` must be finite and strictly increasing. Got {times} instead."
        )
    return times


def check_noise_std(noise_std, *, shape):
    """Return the noise as an array that broadcasts to ``shape``.

    Parameters
    ----------
    noise_std : None, float or array-like
        Standard deviation of the noise in the units of the observations: one number,
        one per channel, or one per reading (flat or three-dimensional). None is zero.

    shape : tuple (n_samples, n_times, n_channels)
        Shape of the observations.

    Returns
    -------
    noise_std : ndarray broadcastable to ``shape``
        Non-negative and finite.

    Raises
    ------
    ValueError
        If negative, not finite, or of another shape.
    """
    if noise_std is None:
        return np.zeros(1)
    noise = np.asarray(noise_std, dtype=float)
    n_samples, n_times, n_channels = shape
    if noise.shape == (n_samples, n_times * n_channels):
        noise = noise.reshape(shape)
    if noise.shape not in {
        (),
        (1,),
        (n_channels,),
        (n_times, n_channels),
        tuple(shape),
    }:
        raise ValueError(
            f"`noise_std` must be a float, one value per channel ({n_channels},), or "
            f"shaped like the observations {tuple(shape)}. Got shape {noise.shape} "
            "instead."
        )
    if not np.isfinite(noise).all() or (noise < 0).any():
        worst = noise[~(noise >= 0) | ~np.isfinite(noise)].flat[0]
        raise ValueError(f"`noise_std` must be finite and >= 0. Got {worst} instead.")
    return noise if noise.ndim else noise[None]


def check_n_observed(n_observed, *, n_times):
    """Return (fewest, most) observed times per sample; None means all of them."""
    if n_observed is None:
        return n_times, n_times
    is_int = isinstance(n_observed, numbers.Integral)
    pair = (n_observed, n_observed) if is_int else tuple(n_observed)
    if len(pair) != 2 or not 1 <= pair[0] <= pair[1] <= n_times:
        raise ValueError(
            "`n_observed` must be an int or a (low, high) pair with 1 <= low <= high <= "
            f"n_times={n_times}. Got {n_observed!r} instead."
        )
    return int(pair[0]), int(pair[1])


def check_observables(observables, names):
    """Return which observables are chosen by name or index, as booleans.

    Parameters
    ----------
    observables : list of str or int, or None
        What is chosen; None is all of them.

    names : list
        Names of all observables.

    Returns
    -------
    chosen : ndarray of bool of shape (n_channels,)
        At least one is.
    """
    names = list(names)
    if observables is None:
        return np.ones(len(names), dtype=bool)
    listed = [observables] if isinstance(observables, str) else list(observables)
    known = [
        (isinstance(c, numbers.Integral) and -len(names) <= c < len(names))
        or c in names
        for c in listed
    ]
    if not listed or not all(known):
        raise ValueError(
            f"`observables` must hold names or indices of the {len(names)} observables "
            f"{names}, at least one. Got {observables!r} instead."
        )
    chosen = np.zeros(len(names), dtype=bool)
    chosen[[names.index(c) if c in names else c for c in listed]] = True
    return chosen
