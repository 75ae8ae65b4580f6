"""Markov chains of many samples, in step."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from sklearn_inverse.probability._laplace import factorize
from sklearn_inverse.probability._mixture import StudentMixture
from sklearn_inverse.probability._status import InversionStatus

__all__ = ["Chains", "agreement", "walk"]

FRESH = 0.5  # share of moves to a draw of the mixture, wherever the walker is
WHOLE = 0.1  # of the others, share of whole differences: from optimum to optimum
JITTER = 0.01  # relative, of differences
WIDEN = 1.5  # how much farther than the mixture's the walkers begin
N_CLOUD = 1000  # draws whose covariance tells Hamiltonian walkers how far to go
TRAVEL = (0.8, 2.4)  # how far, in standard deviations: uncorrelated at π/2
MOST_STRIDES = 32  # of a trajectory
DIVERGED = 1e3  # velocities that no draw has: what follows is rejected, as a failure
ACCEPTED = 0.9  # share of trajectories that is aimed at
N_TRIES = 10  # for a start that can be simulated
FIRST_CHECK, CHECK_GROWTH = 50, 1.2  # steps
N_GROUPS = 4  # of walkers, which must agree
N_STORED = 512  # steps in memory; if there are more, every second is dropped


class Chains(NamedTuple):
    """What the walkers of each sample drew, and how well they agree.

    Attributes
    ----------
    draws : ndarray of shape (n_samples, n_effective, n_free)
        Draws at even intervals of the second half of the steps.

    rhat, n_effective : ndarray of shape (n_samples, n_free)
        Split R-hat of groups of walkers, and effective draws, by coordinate.

    status, n_iter, n_failed : ndarray of shape (n_samples,)
        Codes of :class:`InversionStatus`, steps, and proposals that failed, among them
        trajectories that diverged.
    """

    draws: np.ndarray
    rhat: np.ndarray
    n_effective: np.ndarray
    status: np.ndarray
    n_iter: np.ndarray
    n_failed: np.ndarray


def walk(
    log_density: Callable,
    mixture: StudentMixture,
    *,
    n_walkers: int,
    n_effective: int,
    tol: float,
    max_iter: int,
    seed: int,
    begin: np.ndarray | None = None,
    gradient: Callable | None = None,
) -> Chains:
    """Draw from a density of each sample by walkers.

    A move adds the difference of two walkers of the other half to a walker, 2.38 / √(2
    n_free) times, or once [1]_, or proposes a draw from the mixture, and is accepted or
    not as Metropolis and Hastings say. All walkers of a half and all samples move by one
    call of the density. Given its gradient, walkers follow Hamiltonian trajectories [2]_
    instead, and try a draw from the mixture after each. Samples share their random
    numbers.

    Parameters
    ----------
    log_density : callable
        ``log_density(rows, sample)``, rows of shape (n_rows, n_free): minus infinity
        outside of the support, NaN where it cannot be computed.

    mixture : StudentMixture
        Where the density is thought to be.

    n_walkers : int
        Walkers per sample.

    n_effective : int
        Effective draws of every coordinate that end a sample's chain, if also

    tol : float
        R-hat is no larger than one plus this.

    max_iter : int
        Most steps.

    seed : int
        Seed of the random numbers.

    begin : ndarray of shape (n_samples, n_begin, n_free), default=None
        At the first of these the walkers begin, and Hamiltonian ones take their
        covariance as unit: by default, or at NaN, at draws of the mixture, made wider.

    gradient : callable, default=None
        ``gradient(rows, sample)`` of the log density, NaN where it cannot be computed.

    Returns
    -------
    chains : Chains
        What was drawn; Ctrl-C keeps what there is.

    References
    ----------
    .. [1] B. Nelson, E. B. Ford, M. J. Payne, "RUN DMC: An efficient, parallel code for
       analyzing radial velocity observations", ApJS 210, 11 (2014); C. J. F. ter Braak,
       Statistics and Computing 16, 239 (2006).

    .. [2] R. M. Neal, "MCMC using Hamiltonian dynamics", Handbook of Markov Chain Monte
       Carlo (2011), chapter 5.
    """
    rng = np.random.default_rng(seed)
    n_samples, _, n_free = mixture.centers.shape
    blank, zeros = np.full((n_samples, n_free), np.nan), np.zeros(n_samples, dtype=int)
    draws = np.full((n_samples, n_effective, n_free), np.nan)
    chains = Chains(draws, blank, blank.copy(), zeros, zeros.copy(), zeros.copy())
    n_stored = 2 * max(N_STORED // 2, 2 * n_effective // n_walkers + 1)
    stored = np.empty((n_samples, n_stored, n_walkers, n_free))
    running = np.arange(n_samples)
    start = log_density, mixture, n_walkers, running, seed, begin
    walkers = (
        _Walkers(*start) if gradient is None else _HamiltonianWalkers(*start, gradient)
    )
    stored[:, 0], length, stride = walkers.points, 1, 1
    step, next_check = 0, FIRST_CHECK
    try:
        while len(running):
            chains.n_failed[running] += walkers.move(rng)
            step += 1
            if length == n_stored:
                stored[:, : length // 2] = stored[:, ::2].copy()
                length, stride = length // 2, 2 * stride
            if step % stride == 0:
                stored[running, length] = walkers.points
                length += 1
            if step < min(next_check, max_iter):
                continue
            next_check = int(CHECK_GROWTH * step)
            recent = stored[running, length // 2 : length]
            rhat, n_drawn = chains.rhat, chains.n_effective
            rhat[running], n_drawn[running] = agreement(recent)
            good = (rhat <= 1 + tol) & (n_drawn >= n_effective)
            done = good[running].all(axis=1)
            ends = done | (step >= max_iter)
            chains.status[running[ends & ~done]] = InversionStatus.MAX_ITER
            _finish(chains, running[ends], recent[ends], step, seed)
            walkers, running = walkers[~ends], running[~ends]
    except KeyboardInterrupt:
        recent = stored[running, length // 2 : length]
        if step > 10:
            chains.rhat[running], chains.n_effective[running] = agreement(recent)
        chains.status[running] = InversionStatus.INTERRUPTED
        _finish(chains, running, recent, step, seed)
    return chains


def _finish(chains, samples, recent, step, seed):
    """Keep all walkers at times far apart, of (n_samples, n_steps, n_walkers, n_free).

    Rejected moves leave copies: draws that lie closer would show them.
    """
    n_samples, n_steps, n_walkers, n_free = recent.shape
    n_kept = chains.draws.shape[1]
    times = np.linspace(0, n_steps - 1, -(-n_kept // n_walkers)).round().astype(int)
    n_points = len(times) * n_walkers
    flat = recent[:, times].reshape(n_samples, n_points, n_free)
    kept = np.random.default_rng(seed).permutation(n_points)[:n_kept]
    chains.draws[samples] = flat[:, np.sort(kept)]
    chains.n_iter[samples] = step


def agreement(recent):
    """Return R-hat and effective draws (n_samples, n_free) of recent points.

    R-hat is that of a few groups of walkers: of many short chains it would ask for far
    more draws. Effective draws are counted walker by walker, so that walkers that never
    leave an optimum count for little.
    """
    from arviz_stats.base import array_stats  # takes a second to import

    n_samples, n_steps, n_walkers, n_free = recent.shape
    n_groups = min(N_GROUPS, n_walkers)
    size = n_walkers // n_groups
    groups = recent[:, :, : n_groups * size]
    groups = groups.reshape(n_samples, n_steps, n_groups, size, n_free)
    groups = groups.transpose(0, 4, 2, 1, 3).reshape(n_samples, n_free, n_groups, -1)
    walks = recent.transpose(0, 3, 2, 1)
    with np.errstate(all="ignore"):  # of a coordinate that never moved
        rhat = array_stats.rhat(groups, chain_axis=2, draw_axis=3, method="split")
        n_drawn = array_stats.ess(walks, chain_axis=2, draw_axis=3, method="mean")
    return rhat, n_drawn


class _Walkers:
    """Where the walkers of each sample are, and how likely that is."""

    def __init__(self, log_density, mixture, n_walkers, samples, seed, begin=None):
        self.log_density, self.mixture, self.samples = log_density, mixture, samples
        rng, options = np.random.default_rng(seed), {"widen": WIDEN, "by_mode": True}
        self.points = mixture.draw(n_walkers, rng, **options)
        if begin is not None:
            known = np.isfinite(begin).all(axis=(1, 2), keepdims=True)
            places = np.arange(n_walkers) % begin.shape[1]
            self.points = np.where(known, begin[:, places], self.points)
        self.value = self._values(self.points)
        for attempt in range(N_TRIES):
            lost = ~np.isfinite(self.value)
            if not lost.any():
                break
            again = mixture.draw(n_walkers, rng, **options)
            if attempt == N_TRIES - 1:
                again[:] = mixture.centers[:, :1]
            self.points[lost] = again[lost]
            self.value[lost] = self._values(again, lost)

    def __getitem__(self, index):
        picked = object.__new__(type(self))
        for name, value in vars(self).items():
            setattr(picked, name, value if callable(value) else value[index])
        return picked

    def move(self, rng):
        """Move one half after the other; return failures (n_samples,)."""
        n_failed = np.zeros(len(self.samples), dtype=int)
        for half in (0, 1):
            mine, others = slice(half, None, 2), self.points[:, 1 - half :: 2]
            points, is_fresh = self._propose(self.points[:, mine], others, rng)
            value = self._values(points)
            gain = value - self.value[:, mine]
            gain[:, is_fresh] += self._back(mine, points)[:, is_fresh]
            self._accept(mine, points, value, gain, rng)
            n_failed += np.isnan(value).sum(axis=1)
        return n_failed

    def _back(self, mine, points):
        """Return log odds that the mixture proposes where walkers are, not the points."""
        here, there = map(self.mixture.log_prob, (self.points[:, mine], points))
        return here - there

    def _accept(self, mine, points, value, gain, rng):
        """Move as Metropolis and Hastings say."""
        with np.errstate(invalid="ignore"):
            accepted = np.log(rng.random(points.shape[1])) < gain
        self.points[:, mine][accepted] = points[accepted]
        self.value[:, mine][accepted] = value[accepted]

    def _propose(self, points, others, rng):
        """Return where to move, and which of the moves go to draws of the mixture."""
        (_, n_points, n_free), n_others = points.shape, others.shape[1]
        first = rng.integers(n_others, size=n_points)
        second = (first + rng.integers(1, n_others, size=n_points)) % n_others
        kind = rng.random(n_points)
        is_fresh, is_whole = kind < FRESH, kind > 1 - WHOLE * (1 - FRESH)
        length = np.where(is_whole, 1.0, 2.38 / np.sqrt(2 * n_free))[:, None]
        length = length * (1 + JITTER * rng.standard_normal((n_points, n_free)))
        moved = points + length * (others[:, first] - others[:, second])
        fresh = self.mixture.draw(n_points, rng)
        return np.where(is_fresh[:, None], fresh, moved), is_fresh

    def _values(self, points, which=None):
        """Return the log density of all points, or of some as a vector."""
        if which is None:
            which = np.ones(points.shape[:2], dtype=bool)
            value = self._values(points, which)
            return value.reshape(points.shape[:2])
        sample = np.broadcast_to(self.samples[:, None], which.shape)
        return self.log_density(points[which], sample[which])


class _HamiltonianWalkers(_Walkers):
    """Walkers that follow Hamiltonian trajectories, in units of their covariance."""

    def __init__(self, log_density, mixture, n_walkers, samples, seed, begin, gradient):
        super().__init__(log_density, mixture, n_walkers, samples, seed, begin)
        self.gradient = gradient
        cloud = mixture.draw(N_CLOUD, np.random.default_rng(seed))
        known = (
            [False] * len(cloud) if begin is None else np.isfinite(begin).all((1, 2))
        )
        n_free = cloud.shape[2]
        covariances = [
            np.cov((begin if known[i] else cloud)[i].T).reshape(n_free, n_free)
            for i in range(len(cloud))
        ]
        self.factor = factorize(np.array(covariances))
        self.log_stride = np.full(len(cloud), -0.25 * np.log(n_free))
        self.n_moves = np.zeros(len(cloud))

    def move(self, rng):
        """Follow trajectories, then try draws of the mixture; return failures."""
        everyone = slice(None)
        points, value, gain = self._leapfrog(rng)
        self._accept(everyone, points, value, gain, rng)
        n_failed = np.isnan(value).sum(axis=1)
        fresh = self.mixture.draw(points.shape[1], rng)
        value = self._values(fresh)
        gain = value - self.value + self._back(everyone, fresh)
        self._accept(everyone, fresh, value, gain, rng)
        return n_failed + np.isnan(value).sum(axis=1)

    def _leapfrog(self, rng):
        """Return where trajectories end, their values, NaN if failed, and log odds."""
        points, stride = self.points.copy(), np.exp(self.log_stride)
        velocity = np.repeat(
            rng.standard_normal((1, *points.shape[1:])), len(points), axis=0
        )
        n_strides = np.ceil(rng.uniform(*TRAVEL) / stride).clip(1, MOST_STRIDES)
        energy = self.value - 0.5 * (velocity**2).sum(axis=2)
        push, failed = self._push(points, np.arange(len(points)))
        for k in range(int(n_strides.max())):
            on = np.flatnonzero(k < n_strides)
            by = stride[on, None, None]
            velocity[on] += 0.5 * by * push[on]
            points[on] += by * np.einsum("spq,swq->swp", self.factor[on], velocity[on])
            push[on], lost = self._push(points[on], on)
            velocity[on] += 0.5 * by * push[on]
            failed[on] |= lost | (np.abs(velocity[on]) > DIVERGED).any(axis=2)
            velocity[failed], push[failed] = 0.0, 0.0
        value = np.where(failed, np.nan, self._values(points))
        gain = value - 0.5 * (velocity**2).sum(axis=2) - energy
        odds = np.exp(np.nan_to_num(gain, nan=-np.inf).clip(max=0))
        self.n_moves += 1
        self.log_stride += (odds.mean(axis=1) - ACCEPTED) / self.n_moves**0.6
        return points, value, gain

    def _push(self, points, on):
        """Return slopes in units of the walkers, and where there are none."""
        sample = np.repeat(self.samples[on], points.shape[1])
        slope = self.gradient(points.reshape(-1, points.shape[2]), sample)
        push = np.einsum("spq,swp->swq", self.factor[on], slope.reshape(points.shape))
        lost = ~np.isfinite(push).all(axis=2)
        return np.where(lost[..., None], 0.0, push), lost
