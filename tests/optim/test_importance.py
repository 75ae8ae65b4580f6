"""Weighed draws say whether a mixture tells a density, and find one that does."""

import numpy as np
import pytest
from scipy import stats

from sklearn_inverse.optim import _importance
from sklearn_inverse.optim._importance import adapt, weigh
from sklearn_inverse.probability._mixture import StudentMixture

OPTIONS = {"max_draws": 10_000, "n_kept": 4000, "seed": 0}


def mixture_of(centers, variance):
    centers = np.asarray(centers, dtype=float)[:, None]
    n, _, p = centers.shape
    return StudentMixture(
        np.ones((n, 1)), centers, np.tile(variance * np.eye(p), (n, 1, 1, 1))
    )


def normal(rows, sample):
    """Return the log density of a standard normal around each sample's number."""
    return -0.5 * ((rows - sample[:, None]) ** 2).sum(axis=1)


def ridge(rows, sample):
    """Return the log density of a plateau that the prior alone bounds, curved."""
    a, b = rows.T
    return -0.5 * (a**2 + b**2) - 0.5 * ((b - np.tanh(3 * a)) / 0.2) ** 2


@pytest.mark.parametrize("shift", [0.0, 0.2, 1.0])
def test_the_overlap_is_what_the_best_classifier_knows(shift):
    mixture = mixture_of([[shift, 0.0]], 1.0)
    seen = weigh(
        normal, mixture, proposal=mixture.with_prior(2, 0.2), n_draws=4000, seed=0
    )
    expected = 2 * stats.norm.cdf(-shift / 2)
    assert seen.overlap[0] == pytest.approx(expected, abs=0.02 if shift else 1e-9)
    assert (seen.share > 0.8)[0] == (shift < 1)


def test_draws_that_fail_have_no_weight():
    def fails(rows, sample):
        return np.where(rows[:, 0] > 0, np.nan, normal(rows, sample))

    mixture = mixture_of([[0.0, 0.0]], 1.0)
    seen = weigh(fails, mixture, proposal=mixture, n_draws=4000, seed=0)
    assert seen.n_failed[0] == pytest.approx(2000, abs=150)
    assert seen.overlap[0] == pytest.approx(0.5, abs=0.03)
    found = adapt(fails, mixture, **OPTIONS)
    assert found.draws[..., 0].max() <= 0
    assert 0 < found.n_failed[0] < found.n_draws[0]

    def nothing(rows, sample):
        return np.full(len(rows), np.nan)

    assert weigh(nothing, mixture, proposal=mixture, n_draws=9, seed=0).overlap == 0
    found = adapt(nothing, mixture, **(OPTIONS | {"max_draws": 2000}))
    assert np.isnan(found.draws).all()
    assert found.n_effective[0] == 0
    assert not found.agrees[0]


def test_draws_follow_a_curved_density_that_the_first_proposal_hardly_meets():
    mixture = mixture_of([[1.2, 1.0]], 0.02)
    found = adapt(ridge, mixture.with_prior(2, 0.2), **OPTIONS)
    assert found.agrees[0]
    assert found.n_draws[0] <= 6000
    x = np.linspace(-6, 6, 1201)
    grid = np.stack(np.meshgrid(x, x, indexing="ij"), axis=-1).reshape(-1, 2)
    weight = np.exp(ridge(grid, None))
    mean = weight @ grid / weight.sum()
    std = np.sqrt(weight @ (grid - mean) ** 2 / weight.sum())
    assert (np.abs(found.draws[0].mean(axis=0) - mean) < 0.1 * std).all()
    np.testing.assert_allclose(found.draws[0].std(axis=0), std, rtol=0.06)


@pytest.mark.parametrize("name", ["SAME_MASS", "SAME_MOMENTS"])
def test_rounds_must_agree_however_large_their_share(monkeypatch, name):
    mixture = mixture_of([[0.0, 0.0]], 1.0)
    assert adapt(normal, mixture, **OPTIONS).agrees[0]
    monkeypatch.setattr(_importance, name, 0.0)  # no two rounds are the same
    found = adapt(normal, mixture, **OPTIONS)
    assert found.share[0] > 0.9
    assert not found.agrees[0]


def test_no_more_is_drawn_than_allowed_and_no_more_claimed():
    mixture = mixture_of([[1.2, 1.0]], 0.02)
    found = adapt(ridge, mixture, **(OPTIONS | {"max_draws": 2999}))
    assert found.n_draws[0] == 2000
    assert not found.agrees[0]


def test_a_sample_draws_the_same_alone():
    mixture = mixture_of([[0.5, 0.0], [1.0, 2.0], [2.0, 2.0]], 0.5)
    together = adapt(normal, mixture, **OPTIONS)
    alone = adapt(lambda x, i: normal(x, i + 2), mixture[2:], **OPTIONS)
    np.testing.assert_array_equal(alone.draws[0], together.draws[2])
    assert alone.n_draws[0] == together.n_draws[2]
