"""Many starts per sample, run together as one batch."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from sklearn_inverse.optim._optimum import Optimum
from sklearn_inverse.optim._variation import vary
from sklearn_inverse.probability._laplace import REMOTE, distinct_optima
from sklearn_inverse.probability._status import InversionStatus
from sklearn_inverse.utils._torch import generator

__all__ = ["Ends", "follow", "multistart"]

FIRST, ALL = 6, 12  # starts of an adaptive search: at first, and at most
CONFIRMED = 2  # ends on the best optimum that end an adaptive search
CLEAR = 2 / 3  # of the ends there: then ends that are remote from it do not count
FOLLOWED = 3  # times that a best end may go on which ran out of iterations
ROUNDS, VARIED = 12, 6  # of starts beside a best end that explains nothing: most, each
PATIENCE = 6  # rounds without a better one after which that is given up


class Ends(NamedTuple):
    """Where the starts of each sample ended.

    Attributes
    ----------
    x : Tensor of shape (n_samples, n_starts, n_free)
        Coordinates.

    value : Tensor of shape (n_samples, n_starts)
        The objective; infinite where nothing could be run.

    hessian : Tensor of shape (n_samples, n_starts, n_free, n_free)
        Its Hessian.

    status : Tensor of shape (n_samples, n_starts)
        Codes of :class:`InversionStatus`.

    n_iter, n_failed : Tensor of shape (n_samples,)
        Iterations over all starts, and starts that could not be run.
    """

    x: Tensor
    value: Tensor
    hessian: Tensor
    status: Tensor
    n_iter: Tensor
    n_failed: Tensor

    @classmethod
    def blank(cls, starts: Tensor) -> "Ends":
        """Return what is known before anything was run."""
        n_samples, n_starts, n_free = starts.shape
        status = torch.full_like(
            starts[..., 0], InversionStatus.FAILED, dtype=torch.long
        )
        zeros = torch.zeros_like(status[:, 0])
        hessian = torch.eye(n_free).to(starts).repeat(n_samples, n_starts, 1, 1)
        value = torch.full_like(starts[..., 0], torch.inf)
        return cls(starts.clone(), value, hessian, status, zeros, zeros.clone())

    def put(self, end: Optimum, sample: Tensor, part: slice) -> None:
        """Fill in where some starts of some samples ended."""
        assert end.hessian is not None
        shape = (len(sample), part.stop - part.start)
        parts = (end.x, end.value, end.hessian, end.status)
        for whole, one in zip(self[:4], parts):
            if one is not None:
                whole[sample, part] = one.reshape(*shape, *whole.shape[2:])
        self.n_iter[sample] += end.n_iter.reshape(shape).sum(dim=1)
        self.n_failed[sample] += (~end.value.isfinite()).reshape(shape).sum(dim=1)
        if self.are_interrupted:
            status = self.status[sample]
            open_starts = status == InversionStatus.FAILED
            interrupted = torch.full_like(status, InversionStatus.INTERRUPTED)
            self.status[sample] = torch.where(open_starts, interrupted, status)

    def improve(self, end: Optimum, sample: Tensor, place: Tensor) -> None:
        """Replace ends of some samples, one each, where another is as good."""
        assert end.hessian is not None
        better = end.value <= self.value[sample, place]
        rows = sample[better], place[better]
        for whole, part in zip(self[:4], (end.x, end.value, end.hessian, end.status)):
            whole[rows] = part[better]
        stopped = end.status == InversionStatus.INTERRUPTED
        self.status[sample[stopped], place[stopped]] = InversionStatus.INTERRUPTED
        self.n_iter[sample] += end.n_iter

    @property
    def best(self) -> Tensor:
        """Index (n_samples,) of the best end of each sample."""
        return self.value.argmin(dim=1)

    def joined(self, other: "Ends") -> "Ends":
        """Return these ends and others of the same samples."""
        parts = (torch.cat(pair, dim=1) for pair in zip(self[:4], other[:4]))
        counts = (a + b for a, b in zip(self[4:], other[4:]))
        return Ends(*parts, *counts)

    def spread(self, sample: Tensor, n_samples: int) -> "Ends":
        """Return these ends as those of some of ``n_samples``, and nothing of others."""
        x = self.x.new_zeros(n_samples, *self.x.shape[1:])
        everyone = Ends.blank(x)
        for whole, part in zip(everyone, self):
            whole[sample] = part
        return everyone

    @property
    def are_interrupted(self) -> bool:
        """Whether Ctrl-C ended any start."""
        return bool((self.status == InversionStatus.INTERRUPTED).any())


def multistart(
    objective,
    starts: Tensor,
    climb: Callable,
    *,
    adaptive: bool = False,
    retry: Callable | None = None,
    draws: Tensor | None = None,
) -> Ends:
    """Climb from all starts of all samples at once.

    Parameters
    ----------
    objective : Objective
        What ``climb`` minimizes.

    starts : Tensor of shape (n_samples, n_starts, n_free)
        Where to start.

    climb : callable
        ``climb(start, sample) -> Optimum`` with a Hessian, one row each.

    adaptive : bool, default=False
        Whether to begin with some of the starts, and to end a sample's search there if
        all agree, or most do and no other optimum comes near theirs, and theirs explains
        the readings.

    retry : callable, default=None
        Another way to climb, tried from the first start of samples of which the best end
        leaves residuals that do not look like noise.

    draws : Tensor of shape (ROUNDS * VARIED, n_params), default=None
        Values of the params, a few of which replace those of the best end where that
        does not explain the readings, and was not found by most.

    Returns
    -------
    ends : Ends
        What was found; starts not run have an infinite value.
    """
    n_starts = starts.shape[1]
    ends = Ends.blank(starts)
    everyone = torch.arange(len(starts), device=starts.device)
    open_samples = everyone
    first = min(FIRST, n_starts) if adaptive else n_starts
    for part in (slice(0, first), slice(first, n_starts)):
        if part.start >= part.stop or len(open_samples) == 0:
            break
        some = starts[open_samples, part].flatten(0, 1)
        n_some = part.stop - part.start
        end = climb(some, open_samples.repeat_interleave(n_some))
        ends.put(end, open_samples, part)
        if ends.are_interrupted:
            return ends
        value = ends.value[open_samples, : part.stop]
        index, exists, n_confirmed = distinct_optima(
            ends.x[open_samples, : part.stop],
            value,
            ends.hessian[open_samples, : part.stop],
            most=2,
        )
        reached = value.gather(1, index)
        competes = exists[:, -1] & (reached[:, -1] <= reached[:, 0] + REMOTE)
        agree = (n_confirmed >= CONFIRMED) & ~exists[:, -1]
        agree |= (n_confirmed >= CLEAR * part.stop) & ~competes
        if adaptive and agree.any() and part.stop < n_starts:
            rows = agree.nonzero()[:, 0]
            judged = judge_best(objective, ends, open_samples[rows])
            if judged is None:
                return ends
            agree[rows] = judged.explained
        open_samples = open_samples[~agree]
    if retry is not None:
        judged = judge_best(objective, ends, everyone)
        open_samples = everyone[:0] if judged is None else everyone[~judged.is_noise]
        if len(open_samples):
            end = retry(starts[open_samples, 0], open_samples)
            ends.improve(end, open_samples, torch.zeros_like(open_samples))
    return ends if draws is None else search_beside(objective, ends, climb, draws)


def search_beside(objective, ends: Ends, climb: Callable, draws: Tensor) -> Ends:
    """Climb from places beside best ends that explain nothing.

    Until the readings are explained, or rounds find nothing better; of samples whose best
    end most others missed.
    """
    everyone = torch.arange(len(ends.x), device=ends.x.device)
    *_, n_confirmed = distinct_optima(ends.x, ends.value, ends.hessian, most=1)
    n_run, rng = ends.value.isfinite().sum(dim=1), generator(0)
    patience = torch.full_like(n_run, PATIENCE)
    is_open = ends.value[everyone, ends.best].isfinite() & (n_confirmed < CLEAR * n_run)
    for some in draws.split(VARIED):
        best = ends.best
        x, hessian = ends.x[everyone, best], ends.hessian[everyone, best]
        sample = everyone[is_open]
        if len(sample) == 0 or ends.are_interrupted:
            break
        judged = judge_best(objective, ends, sample)
        if judged is None:
            break
        sample = sample[~judged.explained]
        is_open = torch.isin(everyone, sample)
        if len(sample) == 0:
            break
        n_ends = ends.x.shape[1]
        start = x[:, None].repeat(1, len(some), 1)
        start[sample] = vary(x[sample], hessian[sample], some, rng)
        ends = ends.joined(Ends.blank(start))
        end = climb(start[sample].flatten(0, 1), sample.repeat_interleave(len(some)))
        ends.put(end, sample, slice(n_ends, n_ends + len(some)))
        gained = ends.value[everyone, best] - ends.value.amin(dim=1) > 1
        patience = torch.where(gained, PATIENCE, patience - 1)
        is_open &= patience > 0
    return ends


def judge_best(objective, ends: Ends, sample: Tensor):
    """Return what readings say of some samples' best ends, None if interrupted."""
    best = ends.best[sample]
    try:
        return objective.judge(ends.x[sample, best], sample, ends.hessian[sample, best])
    except KeyboardInterrupt:
        ends.status[sample, best] = InversionStatus.INTERRUPTED
        return None


def follow(ends: Ends, climb: Callable) -> Ends:
    """Go on from best ends that ran out of iterations, a few times at most."""
    everyone = torch.arange(len(ends.x), device=ends.x.device)
    for _ in range(FOLLOWED):
        is_open = ends.status[everyone, ends.best] == InversionStatus.MAX_ITER
        sample = everyone[is_open]
        if len(sample) == 0 or ends.are_interrupted:
            break
        best = ends.best[sample]
        ends.improve(climb(ends.x[sample, best], sample), sample, best)
    return ends
