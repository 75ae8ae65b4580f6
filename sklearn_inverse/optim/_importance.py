"""Importance sampling: whether a mixture tells a density, and draws where not."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

from sklearn_inverse.probability._mixture import StudentMixture

__all__ = ["N_CLOUD", "Adapted", "Weighed", "adapt", "kernels_around", "weigh"]

ROUND = 1000  # draws of a round
N_CLOUD, N_KERNELS, N_NEAR = 2000, 200, 250  # of which a proposal is made
FIRST_SHARE = 0.2  # of a proposal is the one that it all began with
LEAST_CLOUD = 50  # effective draws around which kernels are put, or weights flattened
N_ROUNDS, N_DRAWS = 3, 3000  # least, the latter effective: fewer would repeat
GOOD_SHARE = 0.3  # least effective share of the last round
SAME_MASS, SAME_MOMENTS = 0.1, 0.2  # log mass; moments, in standard deviations


class Weighed(NamedTuple):
    """What weighed draws say of the density of each sample.

    Attributes
    ----------
    share : ndarray of shape (n_samples,)
        Effective share of the draws.

    overlap : ndarray of shape (n_samples,)
        Mass that the density has in common with the normal distributions: no classifier
        tells draws of the two apart at more than ``1 - overlap / 2``.

    n_failed : ndarray of shape (n_samples,)
        Draws where the density could not be computed.
    """

    share: np.ndarray
    overlap: np.ndarray
    n_failed: np.ndarray


class Adapted(NamedTuple):
    """What adaptive importance sampling found for each sample.

    Attributes
    ----------
    draws : ndarray of shape (n_samples, n_kept, n_free)
        Draws, picked by their weights.

    mixture : StudentMixture
        Kernels around such draws.

    agrees : ndarray of bool of shape (n_samples,)
        Whether the last rounds agree.

    share, n_effective : ndarray of shape (n_samples,)
        Effective share of the last round, and effective draws of all rounds.

    n_draws, n_failed : ndarray of shape (n_samples,)
        Draws, and those where the density could not be computed.

    is_interrupted : bool
        Whether Ctrl-C ended it early.
    """

    draws: np.ndarray
    mixture: StudentMixture
    agrees: np.ndarray
    share: np.ndarray
    n_effective: np.ndarray
    n_draws: np.ndarray
    n_failed: np.ndarray
    is_interrupted: bool


def weigh(
    log_density: Callable,
    mixture: StudentMixture,
    *,
    proposal: StudentMixture,
    n_draws: int,
    seed: int,
) -> Weighed:
    """Ask weighed draws whether normal distributions tell the density of each sample.

    Parameters
    ----------
    log_density : callable
        ``log_density(rows, sample)``, rows of shape (n_rows, n_free): minus infinity
        outside of the support, NaN where it cannot be computed.

    mixture : StudentMixture
        The normal distributions.

    proposal : StudentMixture
        What is drawn from: wider.

    n_draws : int
        Draws per sample.

    seed : int
        Seed of the draws, which samples share.

    Returns
    -------
    weighed : Weighed
        What the draws say.
    """
    draws = proposal.draw(n_draws, np.random.default_rng(seed))
    value, drawn_from = _values(log_density, draws), proposal.log_prob(draws)
    weight = normalize(value - drawn_from)
    # Both are weighed at the same draws: no chance parts them where they are equal.
    normal = normalize(mixture.log_prob(draws, is_normal=True) - drawn_from)
    return Weighed(
        share=n_effective(weight) / n_draws,
        overlap=np.minimum(weight, normal).sum(axis=1),
        n_failed=np.isnan(value).sum(axis=1),
    )


def adapt(
    log_density: Callable,
    proposal: StudentMixture,
    *,
    max_draws: int,
    n_kept: int,
    seed: int,
) -> Adapted:
    """Draw from the density of each sample by proposals that follow weighed draws.

    Draws of all rounds are weighed by all proposals together (deterministic mixture
    [1]_). A sample ends when two rounds in a row agree in its mass, means and spreads: a
    large effective share alone says only that what has been seen is covered.

    Parameters
    ----------
    log_density : callable
        As in :func:`weigh`.

    proposal : StudentMixture
        The first proposal, of which all others keep a share.

    max_draws : int
        Most draws per sample: a round, at least.

    n_kept : int
        Draws to return.

    seed : int
        Seed of the draws, which samples share.

    Returns
    -------
    adapted : Adapted
        What was found; Ctrl-C keeps what there is.

    References
    ----------
    .. [1] J.-M. Cornuet, J.-M. Marin, A. Mira, C. P. Robert, "Adaptive multiple
       importance sampling", Scandinavian Journal of Statistics 39, 798 (2012).
    """
    clouds = [_Cloud(proposal[[i]]) for i in range(len(proposal.weights))]
    running, is_interrupted = np.arange(len(clouds)), False
    try:
        for k in range(max_draws // ROUND):
            draws = [clouds[i].draw(np.random.default_rng([seed, k])) for i in running]
            value = _values(
                lambda x, row, of=running: log_density(x, of[row]), np.stack(draws)
            )
            for i, *drawn in zip(running, draws, value):
                clouds[i].add(*drawn)
            running = np.array([i for i in running if not clouds[i].agrees], dtype=int)
            if len(running) == 0:
                break
    except KeyboardInterrupt:
        is_interrupted = True
    return Adapted(
        draws=np.stack([c.pick(n_kept, np.random.default_rng(seed)) for c in clouds]),
        mixture=StudentMixture.join([c.proposal for c in clouds]),
        agrees=np.array([c.agrees for c in clouds]),
        share=np.array([c.share for c in clouds]),
        n_effective=np.array([n_effective(c.weight) for c in clouds]),
        n_draws=np.array([len(c.value) for c in clouds]),
        n_failed=np.array([np.isnan(c.value).sum() for c in clouds]),
        is_interrupted=is_interrupted,
    )


class _Cloud:
    """Draws of one sample, weighed by the proposals that they came from."""

    def __init__(self, proposal):
        n_free = proposal.centers.shape[2]
        self.proposals, self.proposal = [proposal], proposal
        self.points, self.value = np.empty((0, n_free)), np.empty(0)
        self.log_proposals, self.weight = np.empty((0, 0)), np.empty(0)
        self.share, self.agrees = 0.0, False
        self._told: tuple = ()  # mass, means and spreads of the last round

    def draw(self, rng):
        return self.proposal.draw(ROUND, rng)[0]

    def add(self, points, value):
        """Take in draws of the proposal, and make the next."""
        of_old = self.proposal.log_prob(self.points[None])
        of_new = [q.log_prob(points[None])[0] for q in self.proposals]
        above = np.vstack([self.log_proposals, of_old])
        self.log_proposals = np.hstack([above, of_new])
        self.points = np.concatenate([self.points, points])
        self.value = np.concatenate([self.value, value])
        log_weight = self.value - logsumexp(self.log_proposals, axis=0)
        self.weight = normalize(log_weight)
        self._compare(points, value - of_new[-1])
        if self.weight.any():
            self._follow(log_weight)
        self.proposals.append(self.proposal)

    def _compare(self, points, log_weight):
        """See whether a round says what the round before it said."""
        weight = normalize(log_weight)
        self.share = n_effective(weight) / len(points)
        mass = logsumexp(np.nan_to_num(log_weight, nan=-np.inf))
        mean = weight @ points
        std = np.sqrt(weight @ (points - mean) ** 2)
        if len(self.proposals) >= N_ROUNDS and self.share >= GOOD_SHARE:
            last_mass, last_mean, last_std = self._told
            off = np.abs(mean - last_mean) / std
            ratio = np.abs(np.log(std / last_std))
            self.agrees = bool(
                abs(mass - last_mass) <= SAME_MASS
                and max(off.max(), ratio.max()) <= SAME_MOMENTS
                and n_effective(self.weight) >= N_DRAWS
            )
        self._told = mass, mean, std

    def _follow(self, log_weight):
        """Propose kernels around weighed draws, as wide as their neighbors are apart."""
        rng, flatter, weight = np.random.default_rng(0), 1.0, self.weight
        while n_effective(weight) < LEAST_CLOUD and flatter > 0.01:
            flatter *= 0.8
            weight = normalize(flatter * log_weight)
        kernels = kernels_around(self.points[pick(weight, N_CLOUD, rng)], rng)
        first = self.proposals[0]
        self.proposal = StudentMixture.join(
            [first.weighing(FIRST_SHARE), kernels.weighing(1 - FIRST_SHARE)], axis=1
        )

    def pick(self, n, rng):
        """Return points drawn by their weights, NaN where there are none."""
        if not self.weight.any():
            return np.full((n, self.points.shape[1]), np.nan)
        return self.points[rng.permutation(pick(self.weight, n, rng))]


def kernels_around(cloud, rng) -> StudentMixture:
    """Return kernels around some of equally likely draws (n_draws, n_free).

    Each as wide as its neighbors are apart: a mixture for one sample.
    """
    centers = rng.permutation(cloud)[:N_KERNELS]
    n, n_free = centers.shape
    width = (4 / (n_free + 2) / n) ** (1 / (n_free + 4))  # Silverman's
    whole = np.cov(cloud.T, bias=True).reshape(n_free, n_free)
    whole = whole + 1e-9 * np.diag(np.diag(whole))  # positive, if points repeat
    white = np.linalg.inv(np.linalg.cholesky(whole)).T
    distance = ((cloud @ white) ** 2).sum(axis=1)
    distance = distance - 2 * (centers @ white) @ (cloud @ white).T
    n_near = min(N_NEAR, len(cloud) // 2)
    near = cloud[np.argpartition(distance, n_near, axis=1)[:, :n_near]]
    away = near - near.mean(axis=1, keepdims=True)
    spread = np.einsum("knp,knq->kpq", away, away) / n_near
    covariances = spread + (0.1 * width) ** 2 * whole
    return StudentMixture(np.full((1, n), 1 / n), centers[None], covariances[None])


def _values(log_density, draws):
    """Return the density of draws (n_samples, n_draws, n_free), NaN where it failed."""
    n_samples, n_draws, n_free = draws.shape
    sample = np.repeat(np.arange(n_samples), n_draws)
    return log_density(draws.reshape(-1, n_free), sample).reshape(n_samples, n_draws)


def normalize(log_weight):
    """Return weights that add up to one, or none at all where no draw counts."""
    log_weight = np.nan_to_num(log_weight, nan=-np.inf, neginf=-np.inf)
    top = log_weight.max(axis=-1, keepdims=True)
    weight = np.exp(log_weight - np.where(np.isfinite(top), top, 0.0))
    total = weight.sum(axis=-1, keepdims=True)
    return weight / np.where(total > 0, total, 1.0)


def n_effective(weight):
    squares = (weight**2).sum(axis=-1)
    return np.where(squares > 0, 1 / np.where(squares > 0, squares, 1.0), 0.0)


def pick(weight, n, rng):
    """Return n indices, each as often as its weight says, to within one."""
    total = weight.cumsum()
    place = (np.arange(n) + rng.random()) / n
    return np.searchsorted(total / total[-1], place)
