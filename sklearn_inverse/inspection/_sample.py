"""One sample for a picture: as its inverter sees it, and the band of its draws."""

import warnings

import numpy as np
from sklearn.pipeline import Pipeline

from sklearn_inverse.exceptions import IntegrationError, IntegrationWarning


def one_sample(inverter, observations, sample_index):
    """Return one row as the inverter itself sees it, and the inverter itself."""
    is_frame = hasattr(observations, "iloc")  # keep feature names for the pipeline
    observations = observations if is_frame else np.asarray(observations)
    if not 0 <= sample_index < len(observations):
        raise ValueError(
            f"`sample_index` must lie between 0 and {len(observations) - 1}. Got "
            f"{sample_index} instead."
        )
    row = slice(sample_index, sample_index + 1)
    one = observations.iloc[row] if is_frame else observations[row]
    if not isinstance(inverter, Pipeline):
        return one, inverter
    if one.ndim == 3:
        one = one.reshape(1, -1)
    if len(inverter.steps) > 1:
        one = inverter[:-1].transform(one)
    return one, inverter[-1]


def quantile_band(draws, level, *, shape):
    """Return the quantiles of finite draws at each time, or (None, None)."""
    if not 0 < level < 1:
        raise ValueError(f"`level` must lie between 0 and 1. Got {level!r} instead.")
    if draws is None:
        return None, None
    draws = np.asarray(draws, dtype=float)
    draws = check_shape(draws, (len(draws), *shape), name="draws")
    finite = np.isfinite(draws).all(axis=(1, 2))
    n_lost = int((~finite).sum())
    if n_lost == len(draws):
        raise IntegrationError(
            f"None of the {n_lost} draws has a complete trajectory, so there is no "
            "band to draw. Pass `n_draws=0` to draw without one."
        )
    if n_lost:
        warnings.warn(
            f"{n_lost} of {len(draws)} draws have no complete trajectory; the band "
            "leaves them out.",
            IntegrationWarning,
            stacklevel=3,
        )
    return np.quantile(draws[finite], [(1 - level) / 2, (1 + level) / 2], axis=0)


def check_shape(values, shape, *, name):
    """Return values as a float array of this shape, or None for None."""
    if values is None:
        return None
    values = np.asarray(values, dtype=float)
    if values.shape != shape:
        raise ValueError(
            f"`{name}` must have shape {shape}. Got {values.shape} instead."
        )
    return values
