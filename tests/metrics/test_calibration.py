"""Posteriors that are wrong are caught with 500 samples, right ones are let pass."""

import numpy as np
import pytest
import scipy.stats

from sklearn_inverse.metrics import (
    expected_coverage,
    posterior_z_and_contraction,
    sbc_ranks,
    tarp,
    uniformity_test,
)

N_SAMPLES, N_DRAWS = 500, 199
COVARIANCE = np.array([[1.0, 0.6], [0.6, 1.0]])


def posteriors(seed, *, scale=1.0, shift=0.0, covariance=COVARIANCE):
    """Return draws and truths of a normal prior and normal noise, known by conjugacy."""
    rng = np.random.default_rng(seed)
    truths = 2 * rng.standard_normal((N_SAMPLES, 2))
    readings = truths + rng.multivariate_normal([0, 0], COVARIANCE, N_SAMPLES)
    gain = 4 * np.linalg.inv(4 * np.eye(2) + COVARIANCE)
    posterior = 4 * np.eye(2) - 4 * gain
    if covariance is not COVARIANCE:
        std = np.sqrt(np.diag(posterior))
        posterior = covariance * std * std[:, None]
    std = np.sqrt(np.diag(posterior))
    noise = rng.multivariate_normal([0, 0], posterior, (N_SAMPLES, N_DRAWS))
    return (readings @ gain.T)[:, None] + shift * std + scale * noise, truths


def sbc(draws, truths):
    return uniformity_test(sbc_ranks(draws, truths), N_DRAWS)[1]


def by_distance(draws, truths):
    return uniformity_test(tarp(draws, truths), N_DRAWS - 1)[1]


def by_ellipsoids(draws, truths):
    """P-value of the number of truths outside ellipsoids of half the probability."""
    share = expected_coverage(draws, truths, [0.5], region="ellipsoid")[0]
    return scipy.stats.binomtest(round(share * N_SAMPLES), N_SAMPLES, 0.5).pvalue


WRONG = {
    "narrow": {"scale": 0.8},
    "wide": {"scale": 1.25},
    "shifted": {"shift": 0.3},
    "correlation": {"covariance": np.array([[1.0, -0.6], [-0.6, 1.0]])},
}


@pytest.mark.parametrize(
    ("wrong", "test"),
    [
        ("narrow", sbc),
        ("wide", sbc),
        ("shifted", sbc),
        ("narrow", by_distance),
        ("wide", by_distance),
        ("correlation", by_distance),
        ("correlation", by_ellipsoids),
        ("narrow", by_ellipsoids),
    ],
)
def test_wrong_posteriors_are_caught(wrong, test):
    p_values = [test(*posteriors(seed, **WRONG[wrong])) for seed in range(20)]
    assert (np.array(p_values) < 0.01).mean() > 0.9


@pytest.mark.parametrize("test", [sbc, by_distance, by_ellipsoids])
def test_right_posteriors_pass_at_the_level(test):
    p_values = np.array([test(*posteriors(seed)) for seed in range(100)])
    # Of 100 at 5 %, no more than 11 but for one time in a hundred.
    assert (p_values < 0.05).sum() <= 11
    assert (p_values < 0.5).mean() > 0.2


def test_ranks_of_each_param_miss_a_wrong_correlation():
    """Marginals are right: this is why all params are looked at together."""
    p_values = [sbc(*posteriors(seed, **WRONG["correlation"])) for seed in range(20)]
    assert np.median(p_values) > 0.05


def test_coverage_equals_that_of_normal_distributions():
    draws, truths = posteriors(0, scale=0.8)
    levels = np.array([0.5, 0.8, 0.95])
    half = scipy.stats.norm.ppf(0.5 + levels / 2)
    known = 2 * scipy.stats.norm.cdf(0.8 * half) - 1
    found = expected_coverage(draws, truths, levels)
    assert found.shape == (3, 2)
    np.testing.assert_allclose(found, known[:, None] * np.ones(2), atol=0.06)
    joint = expected_coverage(draws, truths, levels, region="ellipsoid")
    known = scipy.stats.chi2.cdf(0.64 * scipy.stats.chi2.ppf(levels, 2), 2)
    np.testing.assert_allclose(joint, known, atol=0.06)


@pytest.mark.parametrize("n_draws", [7, 30])
def test_few_draws_give_uniform_ranks_too(n_draws):
    """Means and spreads of few draws are poor; the truth is one of them."""
    rng = np.random.default_rng(0)
    points = rng.standard_normal((20000, n_draws + 1, 2)) @ np.linalg.cholesky(
        COVARIANCE
    )
    draws, truths = points[:, 1:], points[:, 0]
    n_bins = 7 if n_draws == 7 else 10
    assert uniformity_test(tarp(draws, truths), n_draws - 1, n_bins=n_bins)[1] > 1e-3
    coverage = expected_coverage(draws, truths, [0.25, 0.5, 0.75], region="ellipsoid")
    levels = np.floor(np.array([0.25, 0.5, 0.75]) * (n_draws + 1) + 0.5) / (n_draws + 1)
    np.testing.assert_allclose(coverage, levels, atol=0.015)


def test_references_of_ones_own():
    draws, truths = posteriors(0)
    ranks = tarp(draws, truths, references=np.full_like(truths, 9.0))
    assert ranks.max() > 0.9 * N_DRAWS
    assert uniformity_test(ranks, N_DRAWS)[1] > 0.01
    nearest = tarp(draws, truths, references=truths)
    assert (nearest == 0).all()


def test_z_and_contraction_of_a_known_posterior():
    draws, truths = posteriors(0)
    z, contraction = posterior_z_and_contraction(draws, truths, prior_std=[2.0, 2.0])
    assert np.abs(z.mean(axis=0)).max() < 0.15
    np.testing.assert_allclose(z.std(axis=0), 1.0, atol=0.1)
    exact = 1 - (4 - 16 * np.linalg.inv(4 * np.eye(2) + COVARIANCE)[0, 0]) / 4
    np.testing.assert_allclose(contraction.mean(axis=0), exact, atol=0.01)


def test_bins_that_do_not_divide_the_ranks_are_weighed():
    every = np.repeat(np.arange(25), 40)  # each rank equally often
    assert uniformity_test(every, 24, n_bins=10)[1] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d, t: sbc_ranks(d[:, 0], t), "`draws` must have shape"),
        (lambda d, t: sbc_ranks(d, t[:5]), "`truths` \\(n_samples, n_params\\)"),
        (lambda d, t: sbc_ranks(np.where(d > 3, np.nan, d), t), "must be finite"),
        (lambda d, t: tarp(d, t, references=t[0]), "`references` must have"),
        (lambda d, t: expected_coverage(d, t, [1.5]), "`levels` must lie"),
        (lambda d, t: expected_coverage(d, t, 0.5, region="box"), "`region` must be"),
        (lambda d, t: uniformity_test([1, 2, 9], 8), "`ranks` must lie"),
        (lambda d, t: uniformity_test([1, 2, 8], 8), "`n_bins` must be"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(*posteriors(0))
