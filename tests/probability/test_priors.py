"""Each prior is SciPy's distribution, and its standard coordinate is normal."""

import pickle

import numpy as np
import pytest
from scipy import stats

from sklearn_inverse.probability import (
    Beta,
    Gamma,
    GaussianProcess,
    HalfNormal,
    LogNormal,
    LogUniform,
    MultivariateNormal,
    Normal,
    Uniform,
    as_prior,
)

FAMILIES = {
    Uniform(1, 3): stats.uniform(1, 2),
    LogUniform(0.01, 10): stats.loguniform(0.01, 10),
    Normal(1, 2): stats.norm(1, 2),
    LogNormal(1e-3, 0.5): stats.lognorm(0.5, scale=1e-3),
    HalfNormal(2): stats.halfnorm(scale=2),
    Beta(2, 5): stats.beta(2, 5),
    Beta(0.7, 3, -1, 4): stats.beta(0.7, 3, -1, 5),
    Gamma(2, 3): stats.gamma(2, scale=3),
    Gamma(0.5, 3): stats.gamma(0.5, scale=3),
    Normal(1, 2).truncate(0, 2): stats.truncnorm(-0.5, 0.5, 1, 2),
    Normal(0, 1).truncate(low=6): stats.truncnorm(6, np.inf),
}
SCIPY_ONLY = [stats.invgamma(3, scale=2), stats.t(4, 1, 2), stats.gumbel_r(1, 2)]
PRIORS = [
    *FAMILIES,
    *map(as_prior, SCIPY_ONLY),
    LogNormal(1, 1).truncate(high=2),
    LogNormal(1, 1).truncate(low=0.5),
    Gamma(3, 1).truncate(1, 2),
    Beta(2, 2).truncate(high=0.3),
    as_prior(stats.t(4)).truncate(low=-1),
]
each_prior = pytest.mark.parametrize("prior", PRIORS, ids=repr)
each_family = pytest.mark.parametrize(
    ("prior", "scipy"), FAMILIES.items(), ids=map(repr, FAMILIES)
)


@each_prior
def test_params_come_back_from_the_standard_coordinate(prior):
    z = np.linspace(-7, 7, 57)
    k = prior.from_standard(z)
    # As exactly as floats hold k, or the probability next to an end.
    tolerance = 4 * np.spacing(np.abs(k)) / prior.slope(z)
    tolerance += 1e-10 + 1e-15 / stats.norm.pdf(z)
    assert (np.abs(prior.to_standard(k) - z) <= tolerance).all()
    np.testing.assert_allclose(prior.to_standard(k)[16:41], z[16:41], atol=1e-8)
    assert (np.diff(k) >= 0).all()


@each_prior
def test_tails_that_floats_can_hold_lose_no_digits(prior):
    z = np.array([-7.0, -5, 5, 7])
    ends = np.repeat(prior.support, 2)
    holds = np.isinf(ends) | (ends == 0) & (type(prior).__name__ != "Truncated")
    again = prior.to_standard(prior.from_standard(z))
    np.testing.assert_allclose(again[holds], z[holds], rtol=1e-12)


@each_prior
def test_slope_equals_finite_differences(prior):
    z, h = np.linspace(-3, 3, 13), 1e-5
    expected = (prior.from_standard(z + h) - prior.from_standard(z - h)) / (2 * h)
    np.testing.assert_allclose(prior.slope(z), expected, rtol=1e-5)


@each_prior
def test_density_is_the_slope_of_the_distribution(prior):
    z = np.linspace(-3, 3, 13)
    expected = stats.norm.logpdf(z) - np.log(prior.slope(z))
    np.testing.assert_allclose(prior.log_prob(prior.from_standard(z)), expected)


@each_prior
def test_ends_of_the_support_have_finite_coordinates(prior):
    low, high = prior.support
    beyond = np.array([low, low - 1, high, high + 1])
    z = prior.to_standard(beyond[np.isfinite(beyond)])
    assert np.isfinite(z).all()
    if not prior.is_log and np.isfinite(low):
        np.testing.assert_allclose(z[:2], -8.2, atol=0.3)
        assert prior.log_prob(low - 1) == -np.inf


@each_prior
def test_bounds_are_the_support_or_quantiles(prior):
    for end, own, level in zip(prior.bounds, prior.support, (0.001, 0.999)):
        if np.isfinite(own) and not (prior.is_log and own == 0):
            assert end == own
        else:
            assert end == pytest.approx(prior.from_standard(stats.norm.ppf(level)))


@each_prior
def test_priors_are_values(prior):
    again = pickle.loads(pickle.dumps(prior))
    assert again == prior
    assert hash(again) == hash(prior)
    assert again.median == prior.median
    assert len(set(PRIORS)) == len(PRIORS)
    with pytest.raises(AttributeError):
        prior.low = 3.0


@each_family
def test_density_equals_scipys(prior, scipy):
    k = scipy.ppf(np.linspace(0.001, 0.999, 50))
    np.testing.assert_allclose(prior.log_prob(k), scipy.logpdf(k), rtol=1e-9, atol=1e-9)


@each_family
def test_draws_follow_scipys_distribution(prior, scipy):
    draws = prior.from_standard(np.random.default_rng(0).standard_normal(2000))
    assert stats.kstest(draws, scipy.cdf).pvalue > 0.01


@each_family
def test_scipys_distributions_become_our_own(prior, scipy):
    found = as_prior(scipy)
    assert type(found) is type(prior)
    z = np.linspace(-4, 4, 9)
    np.testing.assert_allclose(found.from_standard(z), prior.from_standard(z))


@pytest.mark.parametrize("scipy", SCIPY_ONLY)
def test_other_scipy_distributions_keep_their_density(scipy):
    prior = as_prior(scipy)
    k = scipy.ppf([0.01, 0.3, 0.99])
    np.testing.assert_allclose(prior.log_prob(k), scipy.logpdf(k))
    assert as_prior(type(scipy)(scipy.dist, *scipy.args, **scipy.kwds)) == prior
    assert as_prior(stats.invgamma(3.5)) != prior


def test_truncation_keeps_the_density_and_divides_by_what_is_left():
    prior = Gamma(2, 3)
    cut = prior.truncate(1, 5)
    k = np.linspace(1, 5, 9)
    left = np.diff(stats.gamma(2, scale=3).cdf([1, 5]))
    np.testing.assert_allclose(cut.log_prob(k), prior.log_prob(k) - np.log(left))
    assert cut.log_prob(5.1) == -np.inf
    assert cut.truncate(high=3) == prior.truncate(1, 3)
    assert prior.truncate(low=-1) is prior
    assert Uniform(0, 3).truncate(high=2) == Uniform(0, 2)
    assert LogUniform(1, 3).truncate(2) == LogUniform(2, 3)


@pytest.mark.parametrize(
    "shown",
    [
        "Uniform(1, 3)",
        "LogNormal(0.001, 0.5)",
        "Normal(0, 1)",
        "Beta(2, 5, 0, 1)",
        "Normal(1, 2).truncate(low=0)",
        "HalfNormal(2).truncate(low=1, high=3)",
        "LogNormal('sigma')",
    ],
)
def test_a_prior_is_shown_as_it_is_written(shown):
    assert repr(eval(shown)) == shown


def test_a_scipy_prior_is_shown_by_its_name():
    assert repr(as_prior(stats.invgamma(3, scale=2))) == "invgamma(3, scale=2)"


def test_a_pair_is_uniform_and_a_prior_stays():
    assert as_prior((1, 3)) == as_prior([1.0, 3.0]) == as_prior(np.array([1, 3]))
    assert as_prior((1, 3)) == Uniform(1, 3) != LogUniform(1, 3)
    prior = Gamma(1, 2)
    assert as_prior(prior) is prior


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: as_prior(3.0), TypeError, "must be a pair .* Got 3.0"),
        (lambda: as_prior((1, 2, 3)), TypeError, "must be a pair"),
        (lambda: as_prior(stats.poisson(3)), TypeError, "frozen continuous"),
        (lambda: as_prior(Normal("s")), TypeError, "must be a pair"),
        (lambda: as_prior((3, 1)), ValueError, r"below `high`. Got Uniform\(3, 1\)"),
        (
            lambda: as_prior((0, np.inf)),
            ValueError,
            "`high` of Uniform must be a finite",
        ),
        (lambda: as_prior((np.nan, 1)), ValueError, "finite number. Got nan"),
        (lambda: as_prior(("a", 1)), TypeError, "`low` of Uniform .* Got 'a'"),
        (lambda: LogUniform(0, 1), ValueError, "`low` of LogUniform must be positive"),
        (lambda: Normal(0, -1), ValueError, "`std` of Normal must be positive. Got -1"),
        (lambda: LogNormal(0, 1), ValueError, "`median` of LogNormal must be positive"),
        (lambda: Beta(1, 1, 2, 1), ValueError, "`low` of Beta must be below"),
        (
            lambda: Uniform(0, 1).truncate(2),
            ValueError,
            r"part of the support \[0, 1\]",
        ),
        (lambda: Normal(0, 1).truncate(50, 51), ValueError, "some probability between"),
        (lambda: as_prior(stats.invgamma([2, 3])), ValueError, "one finite median"),
        (
            lambda: Normal(1, 2, 3),
            TypeError,
            r"as noise: Normal\(scale\). Got Normal\(1",
        ),
        (lambda: Normal(mean=1), TypeError, "two numbers, as a prior"),
        (lambda: LogNormal("a", "b"), TypeError, r"LogNormal\(median, sigma\)"),
        (lambda: MultivariateNormal([0], [[1, 0]]), ValueError, "shapes"),
        (
            lambda: MultivariateNormal([0, 0], [[1, 2], [2, 1]]),
            ValueError,
            "positive definite",
        ),
        (lambda: GaussianProcess([0, 1], 0), ValueError, "`length` must be positive"),
        (lambda: GaussianProcess([0, np.nan], 1), ValueError, "`nodes` must be finite"),
        (
            lambda: GaussianProcess([0, 1], 1, std=2, marginal=(0, 1)),
            ValueError,
            "in place of",
        ),
    ],
)
def test_what_is_wrong_is_said(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_rounding_next_to_the_diagonal_is_no_asymmetry():
    std, off = (
        np.array([1e6, 1.0, 1e-6]),
        np.array([[0, 1e-17, 0], [0, 0, 0], [0, 0, 0]]),
    )
    covariance = (np.eye(3) + off) * np.outer(std, std)
    assert MultivariateNormal(np.zeros(3), covariance).correlation[0, 1] < 1e-16
    with pytest.raises(ValueError, match="symmetric"):
        MultivariateNormal([0, 0], [[1, 0.1], [0.2, 1]])


def test_names_tell_priors_from_noise():
    assert Normal(mean=1, std=2) == Normal(1, std=2) == Normal(1, 2)
    assert type(Normal()) is type(Normal("sigma")) is type(Normal(scale=0.1))
    assert type(Normal(1)) is not type(Normal(1, 2))
    assert LogNormal(2, 1).median == 2.0
    assert repr(LogNormal(0.1)) == "LogNormal(0.1)"


def test_groups_are_values():
    for group in (
        MultivariateNormal(np.zeros(2), np.eye(2)),
        GaussianProcess(np.arange(6.0).reshape(3, 2), 2, marginal=LogNormal(1, 1)),
    ):
        again = pickle.loads(pickle.dumps(group))
        assert again == group
        assert hash(again) == hash(group)
        assert again.size == len(again.marginals) == len(again.correlation)


def test_a_gaussian_process_is_correlated_by_distance():
    process = GaussianProcess([[0, 0], [0, 1], [0, 3]], 0.5, std=2, mean=1)
    expected = np.exp(-np.array([0, 2.0, 18.0]))
    np.testing.assert_allclose(process.correlation[0], expected, rtol=1e-5)
    assert process.marginals == [Normal(1, 2)] * 3
