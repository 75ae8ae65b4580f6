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


def test_a_wrong_mixture_costs_time_only():
    mixture = mixture_of([[1.0, -1.0]], 0.1 * np.eye(2))
    chains = walk(normal, mixture, seed=0, **OPTIONS)
    assert chains.status[0] == InversionStatus.CONVERGED
    np.testing.assert_allclose(chains.draws[0].mean(axis=0), 0.0, atol=0.12)
    np.testing.assert_allclose(np.cov(chains.draws[0].T), COVARIANCE, atol=0.15)


@pytest.mark.slow
def test_effective_draws_are_as_good_as_independent_ones():
    mixture, options = mixture_of([[0.5, 0.0]], 2 * np.eye(2)), {"n_effective": 200}
    ratios = []
    for seed in range(40):
        chains = walk(normal, mixture, seed=seed, **(OPTIONS | options))
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


def test_walkers_that_never_change_the_optimum_do_not_agree(monkeypatch):
    monkeypatch.setattr(_samplers, "FRESH", 0.0)
    monkeypatch.setattr(_samplers, "WHOLE", 0.0)
    mixture = mixture_of([[-30.0, -30.0], [30.0, 30.0]], 0.5 * COVARIANCE)
    options = OPTIONS | {"n_effective": 50, "max_iter": 1000}
    chains = walk(two, mixture, seed=0, **options)
    assert chains.status[0] == InversionStatus.MAX_ITER
    assert chains.rhat.min() > 1.5
    assert chains.n_effective.max() < 50


def test_a_sample_draws_the_same_alone():
    centers = np.array([[[0.0, 0.0]], [[1.0, 1.0]], [[2.0, 2.0]]])
    weights, covariances = np.ones((3, 1)), np.tile(COVARIANCE, (3, 1, 1, 1))
    together = StudentMixture(weights, centers, covariances)
    options = OPTIONS | {"n_effective": 100}
    chains = walk(normal, together, seed=0, **options)
    alone = walk(
        lambda rows, sample: normal(rows, sample + 2), together[2:], seed=0, **options
    )
    np.testing.assert_array_equal(alone.draws[0], chains.draws[2])


def test_long_chains_fit_in_memory_and_keep_their_second_half():
    slow = mixture_of([[30.0, -30.0]], 1e-4 * np.eye(2))
    options = OPTIONS | {"n_walkers": 8, "n_effective": 100, "tol": 1e-9}
    chains = walk(normal, slow, seed=0, **(options | {"max_iter": 1500}))
    assert chains.status[0] == InversionStatus.MAX_ITER
    assert chains.n_iter[0] == 1500
    assert chains.draws.shape == (1, 400, 2)
    np.testing.assert_allclose(chains.draws[0].std(axis=0), 1.0, atol=0.3)
