"""Which times are observed: drawn at random, as many as asked for."""

import torch
from torch import Generator, Tensor

__all__ = ["draw_times"]


def draw_times(
    candidates: Tensor, n_observed: tuple[int, int], rng: Generator
) -> Tensor:
    """Choose times at random, different ones for every sample and clock.

    Parameters
    ----------
    candidates : Tensor of bool of shape (n_samples, n_times, n_clocks)
        Times that can be chosen.

    n_observed : (int, int)
        Fewest and most times; how many of them is drawn evenly for every sample and
        clock. Where there are fewer candidates, all of those are chosen.

    rng : Generator
        On the device of the candidates.

    Returns
    -------
    chosen : Tensor of bool of shape (n_samples, n_times, n_clocks)
        What was chosen.
    """
    low, high = n_observed
    n_samples, n_times, n_clocks = candidates.shape
    if low == n_times:
        return candidates
    n_seen = torch.randint(
        low, high + 1, (n_samples, 1, n_clocks), generator=rng, device=rng.device
    )
    scores = torch.rand(
        candidates.shape, generator=rng, device=rng.device, dtype=torch.float64
    )
    scores = torch.where(candidates, scores, -1.0)
    threshold = scores.topk(high, dim=1).values.gather(1, n_seen - 1)
    return candidates & (scores >= threshold)
