"""Readings as networks see and learn from them: standardized, noisy, sparse."""

import numpy as np
import torch
from torch import Tensor

from sklearn_inverse.exceptions import ExtrapolationWarning
from sklearn_inverse.utils._scaling import ChannelScaler
from sklearn_inverse.utils._warnings import warn_user

__all__ = ["ReadingScaler", "ReadingSimulator", "draw_times"]

FLOOR = 1e-9  # of an observable's largest value: less is zero where it must be positive
BEYOND = 30.0  # spreads beyond the training trajectories that readings may be off
UNKNOWN = 1e-3, 0.3  # of an observable's spread, where its noise is not stated


class ReadingScaler:
    """Bring observables where noise is about uniform, and standardize them there.

    What lies far outside the training trajectories is moved to ``BEYOND`` spreads from
    them: a network makes no more of it, and single precision might overflow.

    Parameters
    ----------
    noise : NoiseModel
        Says where noise is uniform.

    trajectories : ndarray of shape (n_samples, n_times, n_channels)
        Training trajectories, NaN where unknown.
    """

    def __init__(self, noise, trajectories):
        self.noise = noise
        flat = np.nan_to_num(np.abs(trajectories).reshape(-1, trajectories.shape[2]))
        is_positive = noise.stabilize(np.full(flat.shape[1], -1.0)) != -1
        self._floor = np.where(is_positive, FLOOR * flat.max(axis=0), -np.inf)
        stable = self._stabilize(torch.as_tensor(trajectories))
        self.channels = ChannelScaler(stable.numpy())
        standardized = self.channels.standardize(stable).flatten(0, 1)
        low, high = (
            standardized.nan_to_num(empty).numpy() for empty in (np.inf, -np.inf)
        )
        self._low = np.nan_to_num(low.min(axis=0) - BEYOND, posinf=-BEYOND)
        self._high = np.nan_to_num(high.max(axis=0) + BEYOND, neginf=BEYOND)

    def standardize(self, trajectories):
        """Standardize trajectories (…, n_channels), array or tensor, NaN as it is."""
        if isinstance(trajectories, np.ndarray):
            return self.standardize(torch.as_tensor(trajectories)).numpy()
        standardized = self.channels.standardize(self._stabilize(trajectories.double()))
        low, high = (standardized.new_tensor(a) for a in (self._low, self._high))
        return standardized.clamp(low, high)

    def restore(self, standardized):
        """Return what was standardized in its own units, in double precision."""
        if isinstance(standardized, np.ndarray):
            return self.restore(torch.as_tensor(standardized)).numpy()
        return self.noise.restore(self.channels.restore(standardized.double()))

    def prepare(self, readings, device):
        """Return readings as a network takes them, and 1 where there are any.

        Returns
        -------
        standardized, mask : Tensor of shape (n_samples, n_times, n_channels)
            In single precision.
        """
        standardized = torch.as_tensor(self.standardize(readings), device=device)
        return standardized.nan_to_num().float(), (~standardized.isnan()).float()

    def warn_of_far(self, readings):
        """Warn of readings so far off that they will be moved."""
        standardized = self.standardize(readings)
        far = (standardized <= self._low) | (standardized >= self._high)
        if far.any():
            warn_user(
                f"{far.sum()} readings lie far from all training trajectories, the first "
                f"in row {np.argmax(far.any(axis=(1, 2)))}; {BEYOND:g} standard "
                "deviations beyond them is what the network sees. Are they in other "
                "units?",
                ExtrapolationWarning,
            )

    def size_of(self, error, trajectories):
        """Return how large errors (n_channels,) of trajectories are, standardized."""
        up, down = (self.standardize(trajectories + e) for e in (error, -error))
        return np.sqrt(np.nanmean(((up - down) / 2) ** 2, axis=(0, 1)))

    def _stabilize(self, trajectories):
        floor = trajectories.new_tensor(self._floor)
        return self.noise.stabilize(torch.maximum(trajectories, floor))


class ReadingSimulator:
    """Draw what an instrument would read of training trajectories.

    Where the noise is not stated, each sample has its own, at random up to a third of
    the observable's spread.

    Parameters
    ----------
    model : ForwardModel
        Whose noise it is, and whose params.

    scaler : ReadingScaler
        Standardizes readings.

    to_params : callable
        From the coordinate of the training set to params in their own units, tensors of
        shape (n_samples, n_params).

    n_observed : (int, int)
        Fewest and most observed times.

    observed : ndarray of bool of shape (n_channels,)
        Observables that are read.
    """

    def __init__(self, model, scaler, to_params, n_observed, observed):
        self.noise, self.names = model.noise_, model.param_names_
        self.scaler, self.to_params = scaler, to_params
        self.n_observed, self.observed = n_observed, observed

    def draw(self, coordinates: Tensor, trajectories: Tensor, rng: torch.Generator):
        """Draw readings at random times; NaN is never read.

        Parameters
        ----------
        coordinates : Tensor of shape (n_samples, n_params)
            Params of the samples, in the training set's coordinate.

        trajectories : Tensor of shape (n_samples, n_times, n_channels)
            Standardized trajectories.

        rng : torch.Generator
            On their device.

        Returns
        -------
        readings, mask : Tensor of shape (n_samples, n_times, n_channels)
            Standardized readings, 0 where there are none, and 1 where there are.
        """
        n_samples, n_times, _ = trajectories.shape
        observed = trajectories.new_tensor(self.observed)
        mask = draw_times(n_samples, n_times, self.n_observed, rng)[..., None]
        mask = mask * observed * ~trajectories.isnan()
        readings = self._noisy(coordinates, trajectories, rng)
        return torch.where(mask > 0, readings, 0.0), mask

    def noise_size(self, coordinates, trajectories, rng) -> Tensor:
        """Return the usual size (n_channels,) of noise on standardized readings."""
        off = (self._noisy(coordinates, trajectories, rng) - trajectories).abs()
        off = torch.where(off > 0, off, torch.nan).flatten(0, 1)
        if len(off) > 10_000:  # as much as torch sorts, and more than enough
            off = off[:: len(off) // 10_000]
        return off.nanquantile(0.68, dim=0).nan_to_num()

    def _noisy(self, coordinates, trajectories, rng):
        mean = self.scaler.restore(trajectories)
        params = self.to_params(coordinates).double()
        spread = mean.new_tensor(self.scaler.channels.std)
        low, high = np.log(UNKNOWN)
        share = torch.rand(
            len(mean), len(spread), generator=rng, device=mean.device, dtype=mean.dtype
        )
        log_scale = spread.log() + low + (high - low) * share
        args = self.noise.arguments(params, self.names, log_scale=log_scale)
        return self.scaler.standardize(self.noise.sample(mean, args, rng)).float()


def draw_times(n_samples, n_times, n_observed, rng):
    """Draw which times are observed: a mask of floats (n_samples, n_times).

    Each sample sees a number of times drawn evenly from ``n_observed = (fewest, most)``.
    """
    low, high = n_observed
    device = rng.device
    if low == n_times:
        return torch.ones(n_samples, n_times, device=device)
    n_seen = torch.randint(low, high + 1, (n_samples, 1), generator=rng, device=device)
    scores = torch.rand(n_samples, n_times, generator=rng, device=device)
    threshold = scores.topk(high, dim=1).values.gather(1, n_seen - 1)
    return (scores >= threshold).float()
