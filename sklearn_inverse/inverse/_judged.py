"""Whether an answer explains its readings."""

from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import chi2, norm
from torch import Tensor

__all__ = ["Judged", "judged"]

TOLERATED = 1e-3  # of the readings' own spread: residuals so small are no misfit
RARE = 2e-3  # share of samples of the model that chi-square, or one reading, may refuse
FEWEST = 12  # readings of an observable that can follow a course
BY_CHANCE = 1.35e-3  # share of samples whose residuals may correlate: three sd
FLAT = 1e-3  # of its size: what readings spread by at least


class Judged(NamedTuple):
    """What readings say of rows.

    Attributes
    ----------
    misfit : Tensor of shape (n_rows,)
        Chi-square: the sum of squared standardized residuals, NaN if the simulation
        failed.

    strangeness : Tensor of shape (n_rows,)
        Chi-square (of counts the deviance), or the largest of its terms if that is
        stranger, over what one sample of the model in five hundred exceeds; NaN if the
        simulation failed. Infinite where the noise is unknown, and the model neither
        accounts for half the variance nor leaves residuals that follow no course.

    course : Tensor of shape (n_rows, n_channels)
        Correlation of residuals with the next ones, NaN where that is no more than
        chance.
    """

    misfit: Tensor
    strangeness: Tensor
    course: Tensor

    @property
    def explained(self) -> Tensor:
        """Whether the residuals of rows (n_rows,) are no larger than noise."""
        return self.strangeness <= 1

    @property
    def is_noise(self) -> Tensor:
        """Whether the residuals of rows (n_rows,) look like noise in every way."""
        return self.explained & self.course.isnan().all(dim=1)


def judged(noise, args, y, mean, seen, unknown, experiment, n_told=0.0) -> Judged:
    """Judge means of readings.

    Parameters
    ----------
    noise : NoiseModel
        How readings scatter, with ``args`` of each row.

    y, mean : Tensor of shape (n_rows, n_times, n_channels)
        Readings, and what the model makes of them.

    seen : Tensor of bool of the same shape
        What was read.

    unknown : ndarray of int
        Channels whose noise is estimated from these readings.

    experiment : ndarray of int of shape (n_times,)
        Which each time is of: residuals follow those of the same one.

    n_told : Tensor of shape (n_rows,), default=0
        Of how many readings the fit has taken the scatter up.
    """
    residual = torch.where(seen, noise.residual(y, mean, args), 0.0)
    failed = (seen & ~mean.isfinite()).flatten(1).any(dim=1)
    n = seen.sum(dim=1).clamp(min=1)
    center = y.nan_to_num().sum(dim=1) / n
    away = torch.where(seen, y - center[:, None], 0.0)
    spread = (away.square().sum(dim=1) / n).sqrt()
    spread = spread.maximum(FLAT * y.nan_to_num().abs().amax(dim=1))
    off = torch.where(seen, (mean - y).abs(), 0.0)
    squares = residual.square()
    is_small = off <= TOLERATED * spread[:, None]
    counted = torch.where(is_small, 0.0, squares)
    known = torch.ones(y.shape[2], dtype=torch.bool, device=y.device)
    known[unknown] = False
    n_known = (seen & known).sum(dim=(1, 2)).clamp(min=1).to(mean)
    worth = torch.ones_like(counted)
    if noise.is_count.any():
        is_count = torch.as_tensor(noise.is_count, device=y.device)
        surprise = deviance(noise, y, mean, args)
        counted = torch.where(is_count & seen, surprise, counted)
        # What is next to never counted scatters next to never.
        variance = noise.std(mean, args).square().clamp(1e-300, 1)
        seldom = (2 * variance * (1 - variance.log())).clamp(max=1)
        worth = torch.where(is_count, seldom, 1.0)
    counted = torch.where(known, counted, 0.0).flatten(1)
    worth = torch.where(seen, worth, 0.0).sum(dim=1)
    dof = (torch.where(known, worth, 0.0).sum(dim=1) - n_told).clamp(min=1)
    usual, largest = (
        torch.as_tensor(chi2.isf(rare.cpu(), dof.cpu())).to(mean)
        for rare, dof in ((RARE + 0 * dof, dof), (RARE / n_known, 1 + 0 * dof))
    )
    strangeness = counted.sum(dim=1) / usual
    strangeness = strangeness.maximum(counted.amax(dim=1) / largest)
    half = off.square().sum(dim=1) <= 0.5 * away.square().sum(dim=1)
    correlation, n_pairs = serial_correlation(residual, seen, experiment)
    is_small = is_small.all(dim=1)
    aimless = half | (correlation <= 4 / n.sqrt()) | known | (n < FEWEST) | is_small
    strangeness = torch.where(aimless.all(dim=1), strangeness, torch.inf)
    most = norm.isf(BY_CHANCE / y.shape[2]) * n_pairs.sqrt() / n
    by_chance = (correlation <= most) | (worth < FEWEST) | (n_pairs < FEWEST - 1)
    by_chance |= is_small | failed[:, None]
    return Judged(
        torch.where(failed, torch.nan, squares.sum(dim=(1, 2))),
        torch.where(failed, torch.nan, strangeness),
        torch.where(by_chance, torch.nan, correlation),
    )


def deviance(noise, y, mean, args):
    """Return deviances of readings from means: squares of what is about N(0, 1)."""
    best = noise.log_prob(y, y.nan_to_num(), args).nan_to_num()  # certain: 0
    return 2 * (best - noise.log_prob(y, mean, args)).clamp(min=0)


def serial_correlation(
    residual: Tensor, seen: Tensor, experiment: np.ndarray
) -> tuple[Tensor, Tensor]:
    """Return the correlation of residuals (n_rows, n_times, …) with the next ones.

    Those of the same experiment; as of residuals whose variance is one at least. And the
    number of pairs.
    """
    seen = seen & residual.isfinite()
    residual = torch.where(seen, residual, 0.0)
    next_ones = np.flatnonzero(np.diff(experiment) == 0) + 1
    products = (residual[:, next_ones] * residual[:, next_ones - 1]).sum(dim=1)
    size = residual.square().sum(dim=1).maximum(seen.sum(dim=1)).clamp(min=1)
    return products / size, (seen[:, next_ones] & seen[:, next_ones - 1]).sum(dim=1)
