"""Sparse readings as a short list of slots, one per observed time.

Three snapshots on a grid of a hundred times are three slots, not a hundred times as many
zeros: networks that read slots are smaller and learn faster.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["N_HARMONICS", "SlotFeatures", "Slots", "harmonics", "pick_slots"]

N_HARMONICS = 8


class Slots(NamedTuple):
    """The observed times of each sample in increasing order, padded at the end.

    ``time_index`` (n_samples, n_slots) says which time each slot holds; ``readings``
    (n_samples, n_slots, n_channels) are standardized, 0 where ``mask`` is 0, not 1. Beside
    them, ``inputs`` (n_samples, n_inputs) are scaled.
    """

    time_index: Tensor
    readings: Tensor
    mask: Tensor
    inputs: Tensor

    def gather(self, trajectories: Tensor) -> Tensor:
        """Take (n_samples, n_times, n_channels) at the slots' times."""
        index = self.time_index[..., None].expand(-1, -1, trajectories.shape[-1])
        return trajectories.gather(1, index)

    def residuals(self, simulated: Tensor) -> Tensor:
        """Return readings minus what is simulated, (n_samples, n_times, n_channels).

        A particle whose simulation failed (NaN) shows no residual, and moves on by its
        readings alone.
        """
        return (self.readings - self.gather(simulated)).nan_to_num()

    def times(self, times: Tensor) -> Tensor:
        """Low harmonics of the slots' times, zero in empty slots."""
        seen = self.mask.amax(dim=-1, keepdim=True)
        return seen * harmonics(times[self.time_index])

    def take(self, index: Tensor) -> "Slots":
        """Keep the samples at ``index`` only."""
        return Slots(*(part[index] for part in self))

    def put(self, index: Tensor, other: "Slots") -> None:
        """Overwrite the samples at ``index``."""
        for mine, theirs in zip(self, other):
            mine[index] = theirs


def harmonics(times: Tensor) -> Tensor:
    """Low harmonics of times in [0, 1], in a new last axis."""
    angle = math.pi * times[..., None] * torch.arange(N_HARMONICS, device=times.device)
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


class SlotFeatures(nn.Module):
    """What a network sees of readings: deviations from the mean, their mask and times.

    Parameters
    ----------
    times, mean : Tensor of shape (n_times,), (n_times, n_channels)
        Time grid scaled to [0, 1]; mean standardized trajectory, from which readings
        enter as deviations.

    spread : Tensor of shape (n_channels,)
        Spread of standardized readings.
    """

    grid: Tensor
    mean: Tensor
    spread: Tensor

    def __init__(self, times, mean, spread):
        super().__init__()
        self.register_buffer("grid", times)
        self.register_buffer("mean", mean)
        self.register_buffer("spread", spread)
        self.n_features = 2 * len(spread) + 2 * N_HARMONICS

    def forward(self, slots: Slots) -> Tensor:
        """Return (n_samples, n_slots, n_features)."""
        deviation = (slots.readings - self.mean[slots.time_index]) / self.spread
        parts = [slots.mask * deviation, slots.mask, slots.times(self.grid)]
        return torch.cat(parts, dim=-1)


def pick_slots(readings: Tensor, mask: Tensor, inputs: Tensor, n_slots: int) -> Slots:
    """Gather the observed times of each sample, of readings and where they were made.

    A sample with more observed times than slots keeps evenly spread ones.
    """
    n_samples, n_times, _ = readings.shape
    if n_slots == n_times:
        # Every time has its own slot, observed or not: no sorting needed.
        index = torch.arange(n_times, device=readings.device).expand(n_samples, -1)
    else:
        seen = mask.amax(dim=-1)
        order = seen.argsort(dim=1, descending=True, stable=True)
        n_seen = seen.sum(dim=1, keepdim=True)
        rank = torch.arange(n_slots, device=readings.device).expand(n_samples, -1)
        spread = (rank * (n_seen - 1) / max(n_slots - 1, 1)).round()
        rank = torch.where(n_seen > n_slots, spread, rank).long()
        index = order.gather(1, rank)
    empty = Slots(index, readings, mask, inputs)
    mask = empty.gather(mask)
    return Slots(index.clone(), empty.gather(readings) * mask, mask, inputs)
