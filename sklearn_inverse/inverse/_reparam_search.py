"""The searches behind joint optimization: a network over all samples, then short steps."""

import copy
import math
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from sklearn_inverse.exceptions import ConvergenceWarning
from sklearn_inverse.networks._reading_net import KnownSquares
from sklearn_inverse.optim._lbfgs import lbfgs
from sklearn_inverse.optim._standard import InStandard
from sklearn_inverse.probability import InversionStatus
from sklearn_inverse.utils._parallel import progress_bar
from sklearn_inverse.utils._warnings import warn_user

__all__ = [
    "End",
    "Guess",
    "as_it_is",
    "best_drawn",
    "place",
    "reach",
    "refine_best",
    "standard",
    "teach",
    "train_jointly",
]

RISE = 0.5  # of the loss: a clear rise
PATIENCE = 30  # joint iterations without a lower loss before the rate is lowered
HALVINGS = 5  # of the learning rate
EDGE = 1e-9  # quantiles nearer to 0 or 1 count as this
CHUNK = 64  # samples for which draws are judged together
TOL = 1e-8  # of the objective: what a step of the refinement must gain
UNSTABLE = (
    "The loss of joint training still rises at a learning rate of {:.2g}, halved five "
    "times. The best params on the way were kept. Lower `lr`."
)


class Guess(NamedTuple):
    """What a network proposes for each sample, before any refinement.

    Parameters
    ----------
    z : Tensor of shape (n_samples, n_params)
        Standard coordinates.

    first : Tensor of shape (n_samples, n_params)
        Those that the method set out from.

    n_iter : int
        Iterations so far.

    interrupted : bool
        Whether Ctrl-C came in between.
    """

    z: Tensor
    first: Tensor
    n_iter: int
    interrupted: bool


class End(NamedTuple):
    """Where the search ended, one row per sample.

    Parameters
    ----------
    x : Tensor of shape (n_samples, n_free)
        Coordinates of the objective.

    z : Tensor of shape (n_samples, n_params)
        Standard coordinates.

    value : Tensor of shape (n_samples,)
        The objective there.

    n_iter : Tensor of shape (n_samples,)
        Iterations of the refinement, over all candidates.

    status : Tensor of shape (n_samples,)
        Codes of :class:`InversionStatus`.

    n_failed : Tensor of shape (n_samples,)
        Candidates that could not be simulated.
    """

    x: Tensor
    z: Tensor
    value: Tensor
    n_iter: Tensor
    status: Tensor
    n_failed: Tensor

    def bettered(self, rows, other):
        """Return these ends and, where lower, others of the samples ``rows``."""
        lower = other.value < self.value[rows]
        stopped = other.status == InversionStatus.INTERRUPTED
        takes = {"x": lower, "z": lower, "value": lower, "status": lower | stopped}
        ends = {
            name: getattr(self, name).index_copy(0, rows[i], getattr(other, name)[i])
            for name, i in takes.items()
        }
        counts = {
            name: getattr(self, name).index_add(0, rows, getattr(other, name))
            for name in ("n_iter", "n_failed")
        }
        return End(**ends, **counts)


def standard(quantiles: Tensor) -> Tensor:
    """Return standard coordinates, in double precision and finite."""
    return torch.special.ndtri(quantiles.double().clamp(EDGE, 1 - EDGE))


def train_jointly(network, inputs, objective, *, lr, max_iter, verbose=0) -> Guess:
    r"""Minimize :math:`\sum_i \Phi_i(N(y_i; \theta))` by Adam, full batch.

    Whenever the loss rises clearly, or stops to fall, training goes back to the best
    weights and halves the learning rate, five times at most. If the loss rises once more,
    a warning says so. Samples whose simulation failed have no part in loss and gradient.

    Parameters
    ----------
    network : nn.Module
        Is trained.

    inputs : tuple of Tensor
        What the network maps to quantiles of the params.

    objective : Objective
        The objective of each sample.

    lr : float
        First learning rate.

    max_iter : int
        Most iterations.

    verbose : int, default=0
        Whether to show a progress bar.

    Returns
    -------
    guess : Guess
        The best params that each sample passed on the way.
    """
    sample = torch.arange(len(inputs[0]), device=inputs[0].device)
    free = InStandard(BestNoise(objective), sample)
    with torch.no_grad():
        first = standard(network(*inputs))
    best, lowest = first.clone(), torch.full_like(first[:, 0], torch.inf)
    kept, reference = copy.deepcopy(network.state_dict()), lowest
    rate, n_halved, stale, n_iter = lr, 0, 0, 0
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    try:
        for _ in progress_bar(
            range(max_iter), verbose=verbose, desc="Joint training", unit="step"
        ):
            proposed = network(*inputs)
            z = standard(proposed.detach())
            value, gradient = free(z, sample)
            best[value < lowest] = z[value < lowest]
            lowest = value.fmin(lowest)
            n_iter, stale = n_iter + 1, stale + 1
            change = relative_change(value, reference, objective)
            if change < -1e-4:
                kept, reference = copy.deepcopy(network.state_dict()), value
                stale = 0
            if change > RISE or stale > PATIENCE:
                if n_halved == HALVINGS:
                    if change > RISE:
                        warn_user(UNSTABLE.format(rate), ConvergenceWarning)
                    break
                rate, n_halved, stale = rate / 2, n_halved + 1, 0
                network.load_state_dict(kept)
                optimizer = torch.optim.Adam(network.parameters(), lr=rate)
                continue
            optimizer.zero_grad()
            density = (-0.5 * z.square()).exp() / math.sqrt(2 * math.pi)
            by_quantile = gradient / density / len(sample)
            proposed.backward(by_quantile.to(proposed))
            optimizer.step()
    except KeyboardInterrupt:
        return Guess(best, first, n_iter, True)
    return Guess(best, first, n_iter, False)


def teach(network, inputs, quantiles, *, lr, max_iter) -> Tensor:
    """Fit a network to the quantiles that are known, the others NaN, by Adam, full batch.

    Returns its standard coordinates of all samples. The forward model is not asked.
    """
    network.train(len(quantiles) > 1)  # one sample alone is of variance zero
    optimizer = torch.optim.Adam(network.parameters(), lr=lr)
    criterion = KnownSquares()
    for _ in range(max_iter):
        optimizer.zero_grad()
        criterion(network(*inputs), quantiles.float()).backward()
        optimizer.step()
    with torch.no_grad():
        return standard(network(*inputs))


def best_drawn(objective, drawn, sample) -> Tensor:
    """Return the best of scaled params ``drawn`` for each sample, in standard ones."""
    best = []
    for rows in sample.split(CHUNK):
        x, each = drawn.repeat(len(rows), 1), rows.repeat_interleave(len(drawn))
        value = objective.value(objective.with_scales(x, each), each)
        best.append(drawn[value.reshape(len(rows), -1).argmin(dim=1)])
    return InStandard(objective, sample).from_scaled(torch.cat(best))


def relative_change(value, reference, objective):
    """Return how far the loss lies above that of the best weights, as a share of it.

    Over samples that both could simulate. The objective is a logarithm of a density,
    which has no zero: readings are taken in units of their size, and half a unit per
    reading is added.
    """
    finite = value.isfinite()
    both = finite & reference.isfinite()
    if not both.any():
        return -torch.inf if finite.any() else torch.inf
    seen = (~objective.readings.isnan()).sum(dim=1)
    level = (reference - (seen * objective.size.log()).sum(dim=1)).abs()
    level = level + 0.5 * objective.n_readings
    return float((value - reference)[both].sum() / level[both].sum())


class BestNoise:
    """An objective of the params alone: noise levels that are not known at their best.

    Parameters
    ----------
    objective : Objective
        The objective of params and noise levels.
    """

    def __init__(self, objective):
        self.objective, self.prior = objective, objective.prior
        self.n_params = objective.n_params

    def gradient(self, x, sample):
        """Return value and gradient of each row."""
        full = self.objective.with_scales(x, sample)
        value, gradient = self.objective.gradient(full, sample)
        return value, gradient[:, : self.n_params]


def place(objective, z, sample):
    """Return coordinates of the objective at standard params, noise at its best."""
    free = InStandard(objective, sample)
    return objective.with_scales(free.to_scaled(z), sample)


def as_it_is(objective, guess: Guess) -> End:
    """Return the guess unrefined."""
    sample = torch.arange(len(guess.z), device=guess.z.device)
    x = place(objective, guess.z, sample)
    value = objective.value(x, sample)
    status = torch.full_like(sample, InversionStatus.MAX_ITER)
    if guess.interrupted:
        status[:] = InversionStatus.INTERRUPTED
    n_failed = (~value.isfinite()).long()
    return End(x, guess.z, value, torch.zeros_like(sample), status, n_failed)


def refine_best(objective, samples, candidates, *, max_iter, off) -> End:
    """Refine all candidates at once by L-BFGS, and keep the best of each sample.

    Parameters
    ----------
    objective : Objective
        The objective of each sample.

    samples : Tensor of shape (n_samples,)
        Which samples of the objective.

    candidates : list of (Tensor of shape (n_samples, n_params), float)
        Standard coordinates to start from, and how long steps may be, in quantiles.

    max_iter : int
        Most iterations.

    off : float
        Quantiles this far from 0 and 1 are where refinement begins, as there is hardly
        a slope beyond.
    """
    starts, reaches = zip(*candidates)
    every = torch.arange(len(samples), device=samples.device)
    sample = samples.repeat(len(starts))
    start = place(objective, torch.cat(starts), sample)
    value = objective.value(start, sample)
    failed = (~value.isfinite()).long()
    free = InStandard(objective, sample)
    z, p = free.from_scaled(start), objective.n_params
    edge = -standard(z.new_tensor(off))
    longest = z.new_tensor(reaches).repeat_interleave(len(every))[:, None]
    end = lbfgs(
        free,
        torch.cat([z[:, :p].clamp(-edge, edge), z[:, p:]], dim=1),
        max_iter=max_iter,
        tol=TOL,
        reach=partial(reach, n_params=p, longest=longest),
    )
    # A start nearer to the edge may be better still.
    better = end.value < value
    x = torch.where(better[:, None], free.to_scaled(end.x), start)
    z = torch.where(better[:, None], end.x, z)[:, :p]
    value = torch.where(better, end.value, value)

    def byplace(a):
        return a.reshape(len(starts), -1)

    best = byplace(value).argmin(dim=0) * len(every) + every
    status = end.status[best]
    # The start itself could be simulated, but nothing a step away from its edge.
    stuck = (status == InversionStatus.FAILED) & value[best].isfinite()
    status[stuck] = InversionStatus.STALLED
    interrupted = byplace(end.status == InversionStatus.INTERRUPTED).any(dim=0)
    status[interrupted] = InversionStatus.INTERRUPTED
    n_iter, n_failed = byplace(end.n_iter).sum(dim=0), byplace(failed).sum(dim=0)
    return End(x[best], z[best], value[best], n_iter, status, n_failed)


def reach(z, rows, *, n_params, longest):
    """Return the box around points that steps of ``longest`` quantiles can reach."""
    quantiles = torch.special.ndtr(z[:, :n_params])
    # Quantiles 0 and 1, and any level of the noise, are infinitely far on this scale.
    far = torch.full_like(z[:, n_params:], torch.inf)
    low, high = (
        torch.special.ndtri((quantiles + step).clamp(0, 1))
        for step in (-longest[rows], longest[rows])
    )
    return torch.cat([low, -far], dim=1), torch.cat([high, far], dim=1)
