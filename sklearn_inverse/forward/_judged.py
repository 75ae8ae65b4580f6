"""How far a learned model is off, and whether readings would notice."""

import numpy as np

from sklearn_inverse.exceptions import MisfitWarning
from sklearn_inverse.networks._readings import root_mean_square
from sklearn_inverse.utils._warnings import warn_user

__all__ = ["judge"]

SMALL = 0.3  # of the noise: errors that widen posteriors by a twentieth


def judge(predict, held_out, train, observed, scaler, noise, names, for_noise=False):
    """Measure the error on pairs held out; warn where it is not small beside the noise.

    That of an observable of which none hold readings is that on pairs trained on.

    Parameters
    ----------
    predict : callable
        Scaled params to trajectories.

    held_out, train : TensorDataset
        Scaled params, and standardized trajectories.

    observed : ndarray of bool of shape (n_channels,)
        Which observables are measured at all.

    scaler : ReadingScaler
        Standardization of the observables.

    noise : NoiseModel
        How readings scatter.

    names : list of str
        The observables.

    for_noise : bool, default=False
        Whether it was trained for the noise, so that errors far out are of no account:
        an error counts as none if it is small beside the noise at two in three readings.

    Returns
    -------
    error : ndarray of shape (n_channels,)
        Root-mean-square errors, in own units.

    in_noise : ndarray of shape (2, n_channels)
        Median and 95 % quantile of their absolute values, in units of the noise.
    """

    def errors_on(pairs):
        scaled, standardized = (part.cpu().numpy() for part in pairs.tensors)
        predicted = predict(scaled)
        off = scaler.standardize(predicted) - standardized
        return np.stack(
            [
                root_mean_square(predicted - scaler.restore(standardized)),
                root_mean_square(off),
                *quantiles_of(np.abs(off) / size, (0.5, 0.68, 0.95)),
            ]
        )

    # Of smaller noise single precision knows nothing.
    size = np.maximum(scaler.noise_size, np.finfo(np.float32).eps)
    errors = errors_on(held_out)
    unseen = np.isnan(errors[0])
    if unseen.any():
        errors = np.where(unseen, errors_on(train), errors)
    own, error, median, usual, most = errors
    if for_noise:
        own, error = np.where(usual <= SMALL, 0.0, own), most * size
    worse = observed & ~noise.has_unknown_scale & (error > SMALL * size)
    if worse.any():
        share = ", ".join(
            f"{name} ({ratio:.2g} times)"
            for name, ratio, is_bad in zip(names, error / size, worse)
            if is_bad
        )
        warn_user(
            f"The surrogate's error is not small beside the noise of {share}: what is "
            "inverted with it will be off by more than the noise explains. Train it "
            "longer, on more pairs, or invert the exact model.",
            MisfitWarning,
        )
    return own, np.stack([median, most])


def quantiles_of(sizes, levels):
    """Return quantiles (n_levels, n_channels), NaN where nothing is known."""
    flat = np.moveaxis(sizes, 2, 0).reshape(sizes.shape[2], -1)
    known = [row[~np.isnan(row)] for row in flat]
    blank = np.full(len(levels), np.nan)
    return np.transpose([np.quantile(r, levels) if len(r) else blank for r in known])
