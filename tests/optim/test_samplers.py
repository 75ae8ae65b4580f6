"""Walkers draw from the density that they are given, whatever the mixture says."""

import numpy as np
import pytest
from scipy import stats

from sklearn_inverse.optim import _samplers
from sklearn_inverse.optim._samplers import walk
from sklearn_inverse.probability import InversionStatus
from sklearn_inverse.probability._mixture import StudentMixture

COVARIANCE = np.array([[1.0, 0.9], [0.9, 1.0]])
OPTIONS = {"n_walkers": 32, "n_effective": 1000, "tol": 0.01, "max_iter": 5000}


def mixture_of(centers, covariance, n_samples=1):
    centers = np.tile(np.asarray(centers, float), (n_samples, 1, 1))
    weights = np.full(centers.shape[:2], 1 / centers.shape[1])
    covariances = np.broadcast_to(covariance, (*centers.shape, centers.shape[2]))
    return StudentMixture(weights, centers, covariances)


def normal(rows, sample):
    """Return the log density of a tight normal around each sample's number."""
    away = rows - sample[:, None]
    return -0.5 * np.einsum("np,pq,nq->n", away, np.linalg.inv(COVARIANCE), away)


def test_the_density_of_the_mixture_is_that_of_its_draws():
    mixture = mixture_of([[0.0, 1.0]], COVARIANCE)
    known = stats.multivariate_t([0.0, 1.0], COVARIANCE, df=8)
    points = np.random.default_rng(0).normal(size=(1, 9, 2))
    difference = mixture.log_prob(points)[0] - known.logpdf(points[0])
    np.testing.assert_allclose(difference, difference[0])
    draws = mixture.draw(20_000, np.random.default_rng(0))[0]
    np.testing.assert_allclose(np.cov(draws.T), COVARIANCE * 8 / 6, atol=0.06)


def normal_slope(rows, sample):
    return -(rows - sample[:, None]) @ np.linalg.inv(COVARIANCE)


@pytest.mark.parametrize("gradient", [None, normal_slope])
def test_a_wrong_mixture_costs_time_only(gradient):
    mixture = mixture_of([[1.0, -1.0]], 0.1 * np.eye(2))
    chains = walk(normal, mixture, seed=0, gradient=gradient, **OPTIONS)
    assert chains.status[0] == InversionStatus.CONVERGED
    np.testing.assert_allclose(chains.draws[0].mean(axis=0), 0.0, atol=0.12)
    np.testing.assert_allclose(np.cov(chains.draws[0].T), COVARIANCE, atol=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("gradient", [None, normal_slope])
def test_effective_draws_are_as_good_as_independent_ones(gradient):
    mixture = mixture_of([[0.5, 0.0]], 2 * np.eye(2))
    options = OPTIONS | {"n_effective": 200, "gradient": gradient}
    ratios = []
    for seed in range(40):
        chains = walk(normal, mixture, seed=seed, **options)
        variance = 1 / chains.n_effective[0] + 1 / chains.draws.shape[1]
        ratios.append(chains.draws[0].mean(axis=0) ** 2 / variance)
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.5)


def two(rows, sample):
    """Return the log density of two normals, the second with a quarter of the mass."""
    first, second = (normal(rows - shift, 0 * sample) for shift in (-30, 30))
    return np.logaddexp(np.log(3) + first, second)


def test_optima_get_their_shares():
    mixture = mixture_of([[-30.0, -30.0], [30.0, 30.0]], COVARIANCE)
    chains = walk(two, mixture, seed=0, **OPTIONS)
    assert chains.status[0] == InversionStatus.CONVERGED
    np.testing.assert_allclose(
        mixture.shares(chains.draws)[0], [3 / 4, 1 / 4], atol=0.05
    )


def banana(rows, sample):
    """Return the log density of one standard normal bent around another."""
    a, b = rows.T
    return -0.5 * (a**2 + ((b - a**2) / 0.5) ** 2)


def banana_slope(rows, sample):
    a, b = rows.T
    off = (b - a**2) / 0.25
    return np.stack([2 * a * off - a, -off], axis=1)


def test_trajectories_follow_a_bend():
    """Without draws of the mixture, as far as the density tells."""
    mixture = mixture_of([[0.0, 0.0]], np.eye(2))
    chains = walk(banana, mixture, seed=0, gradient=banana_slope, **OPTIONS)
    assert chains.status[0] == InversionStatus.CONVERGED
    a, b = chains.draws[0].T
    levels = [0.05, 0.25, 0.5, 0.75, 0.95]
    known = stats.norm.ppf(levels)
    np.testing.assert_allclose(np.quantile(a, levels), known, atol=0.15)
    # b given a is normal, independently of a
    off = (b - a**2) / 0.5
    np.testing.assert_allclose(np.quantile(off, levels), known, atol=0.15)
    assert abs(np.corrcoef(off, a**2)[0, 1]) < 0.1


def test_trajectories_alone_leave_a_density_as_it_is():
    """Walkers that begin at its draws stay such, wherever gradients fail or lie."""

    def wrong(rows, sample):
        slope = 0.7 * normal_slope(rows, sample) + 0.3
        return np.where(rows[:, :1] > 1.5, np.nan, slope)

    start = np.random.default_rng(0).multivariate_normal([0, 0], COVARIANCE, 20_000)
    mixture, sample = mixture_of([[0.0, 0.0]], COVARIANCE), np.zeros(1, dtype=int)
    inside = start[start[:, 0] <= 1.5][None]

    def cut(rows, sample):
        return np.where(rows[:, 0] > 1.5, -np.inf, normal(rows, sample))

    start = cut, mixture, inside.shape[1], sample, 0, inside
    walkers, rng = (
        _samplers._HamiltonianWalkers(*start, wrong),
        np.random.default_rng(1),
    )
    walkers.log_stride[:] = np.log(0.5)
    for _ in range(10):
        walkers._accept(slice(None), *walkers._leapfrog(rng), rng)
    assert (walkers.points != inside).any(axis=2).mean() > 0.9
    for level in (0.1, 0.5, 0.9):
        now, then = (np.quantile(p[0], level, axis=0) for p in (walkers.points, inside))
        np.testing.assert_allclose(now, then, atol=0.04)


def test_walkers_that_never_change_the_optimum_do_not_agree(monkeypatch):
    monkeypatch.setattr(_samplers, "FRESH", 0.0)
    monkeypatch.setattr(_samplers, "WHOLE", 0.0)
    mixture = mixture_of([[-30.0, -30.0], [30.0, 30.0]], 0.5 * COVARIANCE)
    options = OPTIONS | {"n_effective": 50, "max_iter": 1000}
    chains = walk(two, mixture, seed=0, **options)
    assert chains.status[0] == InversionStatus.MAX_ITER
    assert chains.rhat.min() > 1.5
    assert chains.n_effective.max() < 50


@pytest.mark.parametrize("gradient", [None, normal_slope])
def test_a_sample_draws_the_same_alone(gradient):
    centers = np.array([[[0.0, 0.0]], [[1.0, 1.0]], [[2.0, 2.0]]])
    weights, covariances = np.ones((3, 1)), np.tile(COVARIANCE, (3, 1, 1, 1))
    together = StudentMixture(weights, centers, covariances)
    options = OPTIONS | {"n_effective": 100, "seed": 0}
    chains = walk(normal, together, gradient=gradient, **options)
    third = gradient and (lambda rows, sample: gradient(rows, sample + 2))
    alone = walk(
        lambda rows, sample: normal(rows, sample + 2),
        together[2:],
        gradient=third,
        **options,
    )
    np.testing.assert_array_equal(alone.draws[0], chains.draws[2])


def test_long_chains_fit_in_memory_and_keep_their_second_half():
    slow = mixture_of([[30.0, -30.0]], 1e-4 * np.eye(2))
    options = OPTIONS | {"n_walkers": 8, "n_effective": 100, "tol": 1e-9}
    chains = walk(normal, slow, seed=0, **(options | {"max_iter": 1500}))
    assert chains.status[0] == InversionStatus.MAX_ITER
    assert chains.n_iter[0] == 1500
    assert chains.draws.shape == (1, 100, 2)
    np.testing.assert_allclose(chains.draws[0].std(axis=0), 1.0, atol=0.3)
