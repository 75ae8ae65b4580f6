"""What measuring does to trajectories: it adds noise and leaves most of them out."""

import numpy as np
import torch
from sklearn.utils import check_array

from sklearn_inverse.probability import as_noise
from sklearn_inverse.utils._scaling import ChannelScaler
from sklearn_inverse.utils._times import draw_times
from sklearn_inverse.utils._torch import generator, spawn_seeds
from sklearn_inverse.utils._validation import (
    check_n_observed,
    check_noise_std,
    check_observables,
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
        Standard deviation of the noise: one number, one per observable
        ``(n_channels,)``, or one per reading, shaped like ``observations``.

    relative : bool, default=False
        If False, ``noise_std`` is in the units of the observations. If True, it is a
        fraction of each observable's standard deviation over samples and times (of its
        magnitude, for one that never varies).

    n_channels : int, default=None
        Number of observables of two-dimensional observations. If None, 1 for those, and
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

    See Also
    --------
    make_inverse_problem : Readings with the noise that a system states.

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
    normal = as_noise(None, range(trajectories.shape[2])).with_std(std)
    (seed,) = spawn_seeds(random_state, 1)
    noisy = draw_readings(normal, trajectories, np.ones((1, 1)), (), seed=seed)
    return noisy.reshape(np.shape(observations))


def mask_observations(
    observations,
    *,
    n_observed=None,
    observables=None,
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

    observables : list of int, default=None
        Those that are measured; all others become NaN. If None, every one.

    pattern : {"times", "entries"}, default="times"
        With "times", all observables of a sample are measured together. With "entries",
        each is measured at random times of its own.

    exclude_first : bool, default=False
        Whether the first time is dropped in any case. It tells nothing where the
        initial state is known.

    n_channels : int, default=None
        Number of observables of two-dimensional observations. If None, 1 for those, and
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
        If shapes, counts or observables do not fit, or if nothing of a sample is left.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_inverse.datasets import mask_observations
    >>> readings = np.arange(20.0).reshape(2, 10)  # 2 samples, 5 times, 2 observables
    >>> mask_observations(readings, n_observed=2, n_channels=2, random_state=0)
    array([[nan, nan, nan, nan,  4.,  5.,  6.,  7., nan, nan],
           [10., 11., nan, nan, nan, nan, 16., 17., nan, nan]])
    """
    trajectories = as_trajectories(observations, n_channels=n_channels)
    mask = draw_mask(
        ~np.isnan(trajectories),
        n_observed=n_observed,
        observed=check_observables(observables, range(trajectories.shape[2])),
        pattern=pattern,
        exclude_first=exclude_first,
        seed=spawn_seeds(random_state, 1)[0],
    )
    empty = ~mask.any(axis=(1, 2))
    if empty.any():
        raise ValueError(
            f"Nothing is left of {empty.sum()} sample(s), the first at row "
            f"{int(np.argmax(empty))}: none of the observables and times to keep was "
            "measured there. Choose others, or drop those rows."
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
    available, *, n_observed, observed, seed, pattern="times", exclude_first=False
):
    """Choose which available readings, (n_samples, n_times, n_channels), to keep."""
    n_observed = check_n_observed(n_observed, n_times=available.shape[1])
    if pattern not in PATTERNS:
        raise ValueError(
            f"`pattern` must be one of {PATTERNS}. Got {pattern!r} instead."
        )
    candidates = available & observed
    candidates[:, 0] &= not exclude_first
    # A clock for each observable, or one for them all.
    clocks = candidates.any(axis=2, keepdims=True) if pattern == "times" else candidates
    chosen = draw_times(torch.as_tensor(clocks), n_observed, generator(seed))
    return candidates & chosen.numpy()


def draw_readings(noise, trajectories, params, param_names, *, seed):
    """Draw readings of trajectories; NaN where these are not finite."""
    args = noise.arguments(torch.as_tensor(params), param_names)
    mean = torch.as_tensor(np.ascontiguousarray(trajectories))
    return noise.sample(mean, args, generator(seed)).numpy()
