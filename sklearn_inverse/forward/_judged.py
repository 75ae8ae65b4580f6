"""How far a learned model is off, and whether readings would notice."""

import numpy as np

from sklearn_inverse.exceptions import MisfitWarning
from sklearn_inverse.networks._readings import root_mean_square
from sklearn_inverse.utils._warnings import warn_user

__all__ = ["judge"]

SMALL = 0.3  # of the noise: errors that widen posteriors by a twentieth


def judge(predict, held_out, train, observed, scaler, noise, names):
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

    Returns
    -------
    error : ndarray of shape (n_channels,)
        Root-mean-square errors, in own units.
    """

    def errors_on(pairs):
        scaled, standardized = (part.cpu().numpy() for part in pairs.tensors)
        predicted = predict(scaled)
        return (
            root_mean_square(predicted - scaler.restore(standardized)),
            root_mean_square(scaler.standardize(predicted) - standardized),
        )

    own, error = errors_on(held_out)
    unseen = np.isnan(error)
    if unseen.any():
        own, error = np.where(unseen, errors_on(train), (own, error))
    # Of smaller noise single precision knows nothing.
    size = np.maximum(scaler.noise_size, np.finfo(np.float32).eps)
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
    return own
