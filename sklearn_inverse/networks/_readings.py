"""Readings as networks see and learn from them: standardized, noisy, sparse."""

import math

import numpy as np
import torch
from torch import Tensor

from sklearn_inverse.exceptions import ExtrapolationWarning
from sklearn_inverse.networks._slots import pick_slots
from sklearn_inverse.utils._scaling import ChannelScaler
from sklearn_inverse.utils._warnings import warn_user

__all__ = ["ReadingScaler", "ReadingSimulator", "draw_times", "root_mean_square"]

FLOOR = 1e-9  # of an observable's largest value: less is zero where it must be positive
BEYOND = 30.0  # spreads, or noises, beyond training trajectories that readings may be
MEASURED = 1000  # trajectories by which the size of noise is measured
ENOUGH = 20_000  # trajectories that tell how far observables spread
PIECE = 10_000  # trajectories that are held in double precision
FARTHEST = 1e6  # spreads
UNKNOWN = 1e-3, 0.3  # of an observable's spread, where its noise is not stated


class ReadingScaler:
    """Bring observables where noise is about uniform, and standardize them there.

    What lies far outside the training trajectories is moved nearer to them: a network
    makes no more of it, and single precision might overflow. ``trajectories`` (n_samples,
    n_times, n_channels) are those of training, NaN where unknown.
    """

    def __init__(self, noise, trajectories):
        self.noise = noise
        pieces = np.array_split(trajectories, math.ceil(len(trajectories) / PIECE))
        largest = [np.nan_to_num(np.abs(a)).max(axis=(0, 1)) for a in pieces]
        largest = np.max(largest, axis=0)
        is_positive = noise.stabilize(np.full(len(largest), -1.0)) != -1
        self._floor = np.where(is_positive, FLOOR * largest, -np.inf)
        some = trajectories[:: math.ceil(len(trajectories) / ENOUGH)]
        self.channels = ChannelScaler(self._stabilize(torch.tensor(some)).numpy())
        self._low, self._high = np.full((2, len(largest)), 0.0)
        for piece in pieces:
            far = self.channels.standardize(self._stabilize(torch.tensor(piece)))
            far = far.flatten(0, 1).nan_to_num(0.0).clamp(-FARTHEST, FARTHEST)
            self._low = np.minimum(self._low, far.amin(dim=0).numpy())
            self._high = np.maximum(self._high, far.amax(dim=0).numpy())
        self.noise_size = np.full(len(largest), FARTHEST)

    def standardize(self, trajectories):
        """Standardize trajectories (…, n_channels), array or tensor, NaN as it is."""
        if isinstance(trajectories, np.ndarray):
            return self.standardize(torch.tensor(trajectories)).numpy()
        standardized = self.channels.standardize(self._stabilize(trajectories.double()))
        low, high = (standardized.new_tensor(a) for a in self._limits())
        return standardized.clamp(low, high)

    def standardize_rows(self, trajectories, rows):
        """Return rows of many trajectories, standardized, in single precision."""
        shape = len(rows), *trajectories.shape[1:]
        standardized = np.empty(shape, dtype=np.float32)
        for first in range(0, len(rows), PIECE):  # what they are in double is large
            part = slice(first, first + PIECE)
            standardized[part] = self.standardize(trajectories[rows[part]])
        return standardized

    def restore(self, standardized):
        """Return what was standardized in its own units, in double precision."""
        if isinstance(standardized, np.ndarray):
            return self.restore(torch.tensor(standardized)).numpy()
        return self.noise.restore(self.channels.restore(standardized.double()))

    def prepare(self, readings, device):
        """Return readings as a network takes them, and 1 where there are any."""
        standardized = torch.as_tensor(self.standardize(readings), device=device)
        return standardized.nan_to_num().float(), (~standardized.isnan()).float()

    def warn_of_far(self, readings):
        """Warn of readings so far off that they will be moved."""
        standardized = self.standardize(readings)
        low, high = self._limits()
        far = (standardized <= low) | (standardized >= high)
        if far.any():
            warn_user(
                f"{far.sum()} readings lie farther from all training trajectories than "
                f"noise explains, the first in row {np.argmax(far.any(axis=(1, 2)))}: "
                "the network sees them nearer. Are they in other units?",
                ExtrapolationWarning,
            )

    def size_of(self, error, trajectories):
        """Return how large errors (n_channels,) of trajectories are, standardized."""
        up, down = (self.standardize(trajectories + e) for e in (error, -error))
        return root_mean_square((up - down) / 2)

    @property
    def spread(self):
        """Tensor (n_channels,): spread of standardized readings, their noise included."""
        return torch.as_tensor(np.hypot(1, self.noise_size)).float()

    def _limits(self):
        margin = BEYOND * np.maximum(self.noise_size, 1)
        return self._low - margin, self._high + margin

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
        Standardizes readings; learns from :meth:`settle` how large their noise is.

    to_params : callable
        From the training set's coordinate to params in their own units, as tensors.

    n_observed, observed : (int, int), ndarray of bool of shape (n_times, n_channels)
        Fewest and most observed times, and what can be read.
    """

    def __init__(self, model, scaler, to_params, n_observed, observed):
        self.noise, self.names = model.noise_, model.param_names_
        self.scaler, self.to_params = scaler, to_params
        self.n_observed, self.observed = n_observed, observed

    def draw(self, coordinates: Tensor, trajectories: Tensor, rng: torch.Generator):
        """Draw readings at random times; NaN is never read.

        Trajectories are standardized, and so are the readings, which are 0 where the mask
        that comes with them is; coordinates are those of the training set.
        """
        observed = trajectories.new_tensor(self.observed)
        at_times = observed.any(dim=1)
        chosen = draw_times(
            len(trajectories), int(at_times.sum()), self.n_observed, rng
        )
        mask = observed * ~trajectories.isnan()
        mask[:, at_times] *= chosen[..., None]
        readings = self._noisy(coordinates, trajectories, rng)
        return torch.where(mask > 0, readings, 0.0), mask

    def slots(self, coordinates, trajectories, inputs, rng):
        """Draw readings as slots, as many as times may be observed."""
        readings, mask = self.draw(coordinates, trajectories, rng)
        return pick_slots(readings, mask, inputs, self.n_observed[1])

    def settle(self, coordinates, trajectories, rng):
        """Measure how large noise (n_channels,) on standardized readings is."""
        coordinates, trajectories = coordinates[:MEASURED], trajectories[:MEASURED]
        off = (self._noisy(coordinates, trajectories, rng) - trajectories).abs()
        off = torch.where(off > 0, off, torch.nan).flatten(0, 1)
        off = off[:: 1 + len(off) // 10_000]  # as much as torch sorts, and enough
        size = off.nanquantile(0.68, dim=0).nan_to_num()
        self.scaler.noise_size = size.double().cpu().numpy()

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


def root_mean_square(errors):
    """Return that of each observable (n_channels,), NaN where nothing is known."""
    n_known = (~np.isnan(errors)).sum(axis=(0, 1))
    n_known = np.where(n_known > 0, n_known, np.nan)
    return np.sqrt(np.nansum(errors**2, axis=(0, 1)) / n_known)


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
