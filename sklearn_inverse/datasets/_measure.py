"""What measuring does to trajectories: it adds noise and leaves most of them out."""

import numpy as np
from sklearn.utils import check_array, check_random_state

from sklearn_inverse.utils._scaling import ChannelScaler
from sklearn_inverse.utils._validation import (
    check_n_observed,
    check_noise_std,
    to_trajectories,
)

PATTERNS = ("times", "entries")


def add_noise(
    observations, noise_std, *, relative=False, n_channels=None, random_state=None
):
    """Add independent normal noise to every reading.

    Parameters
    ----------
    observations : array-like of shape (n_samples, n_times * n_channels) or \
(n_samples, n_times, n_channels)
        Readings, time-major; NaN where nothing was measured stays NaN.

    noise_std : float or array-like
        Standard deviation of the noise: one number, one per channel
        ``(n_channels,)``, or one per reading, shaped like ``observations``.

    relative : bool, default=False
        If False, ``noise_std`` is in the units of the observations. If True, it is a
        fraction of each channel's standard deviation over samples and times (of its
        magnitude, for a channel that never varies).

    n_channels : int, default=None
        Number of channels of two-dimensional observations. If None, 1 for those, and
        taken from three-dimensional ones.

    random_state : int, RandomState instance or None, default=None
        Seed of the noise. If None, different noise in each call.

    Returns
    -------
    noisy : ndarray shaped like ``observations``
        Observations plus noise.

    Raises
    ------
    ValueError
        If shapes do not fit, or the noise is negative or not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_inverse.datasets import add_noise
    >>> clean = np.zeros((9000, 2, 2))
    >>> noisy = add_noise(clean, [0.1, 3.0], random_state=0)
    >>> noisy.std(axis=(0, 1)).round(1)
    array([0.1, 3. ])
    """
    trajectories = as_trajectories(observations, n_channels=n_channels)
    std = absolute_noise(trajectories, noise_std, relative=relative)
    rng = check_random_state(random_state)
    noisy = trajectories + std * rng.standard_normal(trajectories.shape)
    return noisy.reshape(np.shape(observations))


def mask_observations(
    observations,
    *,
    n_observed=None,
    observed_channels=None,
    pattern="times",
    exclude_first=False,
    n_channels=None,
    random_state=None,
):
    """Keep readings at random times, different for every sample, and drop the rest.

    Parameters
    ----------
    observations : array-like of shape (n_samples, n_times * n_channels) or \
(n_samples, n_times, n_channels)
        Readings, time-major. Where they are NaN already, nothing can be kept.

    n_observed : int, (int, int) or None, default=None
        How many times are kept per sample: always so many, or a number drawn anew
        between two, both included. If None, all of them. A sample that was measured at
        fewer times keeps those.

    observed_channels : list of int, default=None
        Channels that are measured; all others become NaN. If None, every channel.

    pattern : {"times", "entries"}, default="times"
        With "times", all channels of a sample are measured together. With "entries",
        each channel is measured at random times of its own.

    exclude_first : bool, default=False
        Whether the first time is dropped in any case. It tells nothing where the
        initial state is known.

    n_channels : int, default=None
        Number of channels of two-dimensional observations. If None, 1 for those, and
        taken from three-dimensional ones.

    random_state : int, RandomState instance or None, default=None
        Seed of the choice. If None, different times in each call.

    Returns
    -------
    masked : ndarray shaped like ``observations``
        The same readings, NaN where nothing is measured.

    Raises
    ------
    ValueError
        If shapes, counts or channels do not fit, or if nothing of a sample is left.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_inverse.datasets import mask_observations
    >>> readings = np.arange(20.0).reshape(2, 10)  # 2 samples, 5 times, 2 channels
    >>> mask_observations(readings, n_observed=2, n_channels=2, random_state=0)
    array([[nan, nan, nan, nan, nan, nan,  6.,  7.,  8.,  9.],
           [nan, nan, 12., 13., nan, nan, nan, nan, 18., 19.]])
    """
    trajectories = as_trajectories(observations, n_channels=n_channels)
    mask = draw_mask(
        ~np.isnan(trajectories),
        n_observed=n_observed,
        observed_channels=observed_channels,
        pattern=pattern,
        exclude_first=exclude_first,
        random_state=random_state,
    )
    empty = ~mask.any(axis=(1, 2))
    if empty.any():
        raise ValueError(
            f"Nothing is left of {empty.sum()} sample(s), the first at row "
            f"{int(np.argmax(empty))}: none of the channels and times to keep was "
            "measured there. Choose other channels, or drop those rows."
        )
    return np.where(mask, trajectories, np.nan).reshape(np.shape(observations))


def as_trajectories(observations, *, n_channels=None):
    """Return two- or three-dimensional readings as (n_samples, n_times, n_channels)."""
    trajectories = check_array(
        observations,
        dtype=np.float64,
        allow_nd=True,
        ensure_all_finite="allow-nan",
        input_name="observations",
    )
    if trajectories.ndim == 2:
        return to_trajectories(trajectories, n_channels=n_channels or 1)
    if trajectories.ndim > 3 or n_channels not in (None, trajectories.shape[2]):
        last = "n_channels" if n_channels is None else f"n_channels={n_channels}"
        raise ValueError(
            f"Observations must have shape (n_samples, n_times, {last}). Got shape "
            f"{trajectories.shape} instead."
        )
    return trajectories


def absolute_noise(trajectories, noise_std, *, relative=False):
    """Return the noise in the units of the readings, broadcastable to them."""
    noise = check_noise_std(noise_std, shape=trajectories.shape)
    return noise * ChannelScaler(trajectories).std if relative else noise


def draw_mask(
    available,
    *,
    n_observed,
    observed_channels,
    pattern="times",
    exclude_first=False,
    random_state=None,
):
    """Choose which available readings, (n_samples, n_times, n_channels), to keep."""
    n_samples, n_times, n_channels = available.shape
    low, high = check_n_observed(n_observed, n_times=n_times)
    if pattern not in PATTERNS:
        raise ValueError(
            f"`pattern` must be one of {PATTERNS}. Got {pattern!r} instead."
        )
    channels = _check_channels(observed_channels, n_channels=n_channels)
    rng = check_random_state(random_state)

    candidates = available.copy()
    candidates[..., ~np.isin(np.arange(n_channels), channels)] = False
    candidates[:, 0] &= not exclude_first
    # A clock for each channel, or one for them all.
    clocks = candidates.any(axis=2, keepdims=True) if pattern == "times" else candidates
    scores = np.where(clocks, rng.random_sample(clocks.shape), np.inf)
    rank = scores.argsort(axis=1).argsort(axis=1)
    count = rng.randint(low, high + 1, size=(n_samples, 1, clocks.shape[2]))
    return candidates & (rank < count)


def _check_channels(observed_channels, *, n_channels):
    """Return the chosen channels as an array of indices, at least one."""
    if observed_channels is None:
        return np.arange(n_channels)
    channels = np.asarray(observed_channels)
    whole = channels.ndim == 1 and np.issubdtype(channels.dtype, np.integer)
    if not whole or not len(channels) or not np.isin(channels, range(n_channels)).all():
        raise ValueError(
            "`observed_channels` must be a list of at least one index between 0 and "
            f"{n_channels - 1}. Got {observed_channels!r} instead."
        )
    return channels
