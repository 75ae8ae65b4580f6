"""The joint prior: one map for all params, and a penalty that searches can trust."""

import pickle

import numpy as np
import pytest
import torch
from scipy import stats

from sklearn_inverse.probability import (
    Beta,
    Gamma,
    GaussianProcess,
    HalfNormal,
    JointPrior,
    LogNormal,
    LogUniform,
    MultivariateNormal,
    Normal,
)
from sklearn_inverse.utils._scaling import ParamScaler

UNIFORM = JointPrior({"a": (1, 3), "b": LogUniform(1e-3, 10), "c": (-5, -4)})
MIXED = JointPrior(
    {
        "a": (1, 3),
        "b": LogUniform(0.1, 10),
        "c": Normal(0, 1),
        "d": LogNormal(1e-3, 1),
        "e": HalfNormal(2),
        "f": Beta(2, 5),
        "g": Gamma(2, 3),
        "h": Gamma(0.5, 3),
        "i": Normal(0, 1).truncate(0),
        "j": LogNormal(1, 1).truncate(high=2),
        "k": Gamma(3, 1).truncate(1, 2),
        "l": stats.invgamma(3, scale=2),
        "m": (5, 7),
        "n": Normal(3, 1),
    }
)
COVARIANCE = np.array([[1.0, 1.8], [1.8, 4.0]])
GROUPED = JointPrior(
    {
        "a": (1, 3),
        ("b", "c"): MultivariateNormal([1, 2], COVARIANCE),
        "d": GaussianProcess(np.linspace(0, 1, 4), 0.5, marginal=LogNormal(2, 0.5)),
        "e": GaussianProcess([0, 1], 1, marginal=Beta(2, 2)),
    }
)
each = pytest.mark.parametrize(
    "prior", [UNIFORM, MIXED, GROUPED], ids=["uniform", "mixed", "grouped"]
)


def rng():
    return np.random.RandomState(0)


def differences(function, x, h=1e-6):
    """Differentiate the function's last axis by the last axis of x."""
    steps = h * np.eye(x.shape[-1])
    return np.stack([function(x + e) - function(x - e) for e in steps], -1) / (2 * h)


@each
def test_coordinates_are_undone(prior):
    z = rng().standard_normal((3, 5, prior.n_params))
    params = prior.from_standard(z)
    np.testing.assert_allclose(prior.to_standard(params), z, atol=1e-8)
    u = stats.norm.cdf(z)
    np.testing.assert_allclose(prior.from_quantile(u), params, rtol=1e-9)
    np.testing.assert_allclose(prior.to_quantile(params), u, atol=1e-8)
    x = prior.scaler.to_scaled(params)
    np.testing.assert_allclose(prior.quantile_to_scaled(u), x, atol=1e-8)
    np.testing.assert_allclose(prior.scaled_to_quantile(x), u, atol=1e-8)


@each
def test_params_one_by_one_follow_their_priors(prior):
    params = prior.draw(2000, rng())
    for j, marginal in enumerate(prior.marginals):
        z = marginal.to_standard(params[:, j])
        assert stats.kstest(z, "norm").pvalue > 1e-3
    np.testing.assert_allclose(
        prior.median, prior.from_standard(np.zeros(params[0].shape))
    )


@each
def test_penalty_is_half_the_square_of_the_standard_coordinate(prior):
    params = prior.draw(20, rng()).reshape(4, 5, -1)
    value, gradient, curvature = prior.scaled_penalty(prior.scaler.to_scaled(params))
    expected = 0.5 * (prior.to_standard(params) ** 2).sum(-1)
    np.testing.assert_allclose(value, expected, rtol=1e-7)
    assert gradient.shape == params.shape
    assert curvature.shape == (*params.shape, prior.n_params)


@each
def test_gradient_of_the_penalty_equals_finite_differences(prior):
    x = inner(prior)
    gradient = prior.scaled_penalty(x)[1]
    expected = differences(lambda y: prior.scaled_penalty(y)[0], x)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-4)


@each
def test_curvature_is_exact_where_it_adds_and_never_negative(prior):
    x = inner(prior)
    curvature = prior.scaled_penalty(x)[2]
    exact = differences(lambda y: prior.scaled_penalty(y)[1], x)
    own, true = (np.einsum("ijj->ij", c) for c in (curvature, exact))
    slope = prior.standard_slope(x)
    first_order = np.swapaxes(slope, 1, 2) @ slope
    floor = np.einsum("ijj->ij", first_order)
    np.testing.assert_allclose(own, np.maximum(true, floor), rtol=1e-4, atol=1e-3)
    off = ~np.eye(prior.n_params, dtype=bool)
    np.testing.assert_allclose(curvature[:, off], exact[:, off], rtol=1e-4, atol=1e-3)
    assert (np.linalg.eigvalsh(curvature) > 0).all()


@each
def test_slope_of_the_standard_coordinate_equals_finite_differences(prior):
    x = inner(prior)
    expected = differences(lambda y: prior.to_standard(prior.scaler.from_scaled(y)), x)
    np.testing.assert_allclose(prior.standard_slope(x), expected, rtol=1e-5, atol=1e-5)


def inner(prior):
    """Scaled params where steps of 1e-6 are small."""
    return prior.scaler.to_scaled(
        prior.from_standard(rng().uniform(-2, 2, (15, prior.n_params)))
    )


def test_uniform_curvature_has_its_closed_form():
    x = np.array([[0.2, 0.5, 0.99]])
    z = stats.norm.ppf(x)
    expected = (1 + z**2) / stats.norm.pdf(z) ** 2
    curvature = UNIFORM.scaled_penalty(x)[2]
    np.testing.assert_allclose(curvature[0], np.diag(expected[0]), rtol=1e-12)


@each
def test_penalty_is_finite_at_and_beyond_bounds_and_points_inside(prior):
    for outside, sign in (
        (np.minimum(prior.scaled_low, 9e9), -1),
        (prior.scaled_high, 1),
    ):
        x = np.where(np.isfinite(outside), outside, 0.5)
        for shift in (0.0, 0.1):
            parts = prior.scaled_penalty(x + sign * shift * np.isfinite(outside))
            assert all(np.isfinite(part).all() for part in parts)
            if prior is not GROUPED:
                assert (sign * parts[1][np.isfinite(outside)] > 0).all()


def test_log_density_adds_up_and_is_nothing_outside():
    params = MIXED.draw(10, rng())
    expected = sum(m.log_prob(params[:, j]) for j, m in enumerate(MIXED.marginals))
    np.testing.assert_allclose(MIXED.log_prob(params), expected)
    params[0, 0] = 3.1
    params[1, 3] = -1.0
    assert (MIXED.log_prob(params) == -np.inf).tolist() == [True, True] + [False] * 8
    np.testing.assert_allclose(
        UNIFORM.log_prob([1.0, 10.0, -4.0]), -np.log(20 * np.log(1e4))
    )


def test_log_density_of_groups_is_scipys():
    prior = JointPrior(
        {
            ("b", "c"): MultivariateNormal([1, 2], COVARIANCE),
            "d": GaussianProcess([0, 1, 2], 1.5, marginal=LogNormal(2, 0.5)),
        }
    )
    params = prior.draw(10, rng())
    correlation = GaussianProcess([0, 1, 2], 1.5).correlation
    logs = np.log(params[:, 2:])
    expected = (
        stats.multivariate_normal([1, 2], COVARIANCE).logpdf(params[:, :2])
        + stats.multivariate_normal([np.log(2)] * 3, 0.25 * correlation).logpdf(logs)
        - logs.sum(axis=1)
    )
    np.testing.assert_allclose(prior.log_prob(params), expected)


def test_groups_are_correlated_and_named():
    assert GROUPED.names == [
        "a",
        "b",
        "c",
        *(f"d[{i}]" for i in range(4)),
        "e[0]",
        "e[1]",
    ]
    assert GROUPED.groups == {"d": slice(3, 7), "e": slice(7, 9)}
    params = GROUPED.draw(4096, rng(), method="sobol")
    np.testing.assert_allclose(np.cov(params[:, 1:3].T), COVARIANCE, rtol=0.02)
    found = np.corrcoef(np.log(params[:, 3:7]).T)
    expected = GaussianProcess(np.linspace(0, 1, 4), 0.5).correlation
    np.testing.assert_allclose(found, expected, atol=0.02)


@pytest.mark.parametrize("method", ["lhs", "sobol"])
def test_designs_have_one_draw_in_each_stratum(method):
    u = MIXED.to_quantile(MIXED.draw(16, rng(), method=method))
    strata = np.sort((u * 16).astype(int), axis=0)
    np.testing.assert_array_equal(strata, np.arange(16)[:, None].repeat(14, axis=1))
    again = MIXED.to_quantile(MIXED.draw(16, rng(), method=method))
    np.testing.assert_array_equal(u, again)
    assert MIXED.draw(5, rng(), method=method).shape == (5, 14)


def test_params_of_one_family_are_mapped_as_alone():
    params = MIXED.draw(7, rng())
    alone = [JointPrior({n: MIXED.priors[n]}) for n in MIXED.names]
    columns = [p.to_standard(params[:, [j]]) for j, p in enumerate(alone)]
    np.testing.assert_allclose(
        MIXED.to_standard(params), np.hstack(columns), rtol=1e-12
    )


def test_scaled_params_are_quantiles_only_where_all_are_uniform():
    assert UNIFORM.is_quantile_scaled
    assert not MIXED.is_quantile_scaled
    assert not JointPrior(
        {"f": GaussianProcess([0, 1], 1, marginal=(0, 1))}
    ).is_quantile_scaled
    u = torch.rand(4, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert UNIFORM.quantile_to_scaled_tensor(u) is u
    u = torch.rand(
        4, 14, generator=torch.Generator().manual_seed(0), requires_grad=True
    )
    x = MIXED.quantile_to_scaled_tensor(u)
    assert x.dtype == torch.float32
    assert not x.requires_grad
    expected = MIXED.quantile_to_scaled(u.detach().double().numpy())
    np.testing.assert_allclose(x.numpy(), expected, rtol=1e-6)


def test_bounds_of_scaled_params_are_those_of_the_support():
    np.testing.assert_array_equal(UNIFORM.scaled_low, [0, 0, 0])
    np.testing.assert_array_equal(UNIFORM.scaled_high, [1, 1, 1])
    prior = JointPrior({"a": LogNormal(1, 1), "b": Gamma(2, 1), "c": Normal(0, 1)})
    np.testing.assert_array_equal(prior.scaled_low, [-np.inf, 0, -np.inf])
    np.testing.assert_array_equal(prior.scaled_high, [np.inf] * 3)
    assert UNIFORM.scaler == ParamScaler(
        [[1, 3], [1e-3, 10], [-5, -4]], scale=["linear", "log10", "linear"]
    )


def test_range_of_training_params_becomes_a_prior():
    prior = JointPrior.from_range([[1, 5, 0], [3, 5, 0]], names=["a", "b", "c"])
    assert prior == JointPrior({"a": (1, 3), "b": (4.975, 5.025), "c": (-1, 1)})
    assert JointPrior.from_range([[1], [3]]).names == ["param_0"]


@each
def test_joint_priors_are_values(prior):
    again = pickle.loads(pickle.dumps(prior))
    assert again == prior
    assert hash(again) == hash(prior)
    assert len({UNIFORM, MIXED, GROUPED, again}) == 3
    assert prior != prior.priors


def test_order_of_params_counts():
    assert JointPrior({"a": (0, 1), "b": (0, 2)}) != JointPrior(
        {"b": (0, 2), "a": (0, 1)}
    )
    assert repr(JointPrior({"a": (0, 1)})) == "JointPrior({'a': Uniform(0, 1)})"


@pytest.mark.parametrize(
    ("priors", "error", "message"),
    [
        ({}, TypeError, "at least one param"),
        ([(0, 1)], TypeError, "must be a dict"),
        ({1: (0, 1)}, TypeError, "Keys of `priors` must be names"),
        ({("a", "b"): Normal(0, 1)}, TypeError, "a prior for groups"),
        (
            {("a", "b"): GaussianProcess([0], 1)},
            ValueError,
            "Got 2 names .* for 1 params",
        ),
        (
            {"a[0]": (0, 1), "a": GaussianProcess([0, 1], 1)},
            ValueError,
            "Names of params must differ",
        ),
    ],
)
def test_what_is_wrong_is_said(priors, error, message):
    with pytest.raises(error, match=message):
        JointPrior(priors)


def test_an_unknown_way_of_drawing_is_refused():
    with pytest.raises(ValueError, match=r"'lhs' or 'sobol'\. Got 'halton'"):
        UNIFORM.draw(3, rng(), method="halton")


@each
def test_correlated_coordinates_mix_standard_ones(prior):
    z = rng().standard_normal((5, prior.n_params))
    params = prior.from_standard(z)
    w = prior.to_coordinate(params)
    np.testing.assert_allclose(w, z @ prior.mixing.T, atol=1e-8)
    np.testing.assert_allclose(prior.from_coordinate(w), params, rtol=1e-9)


def test_params_outside_their_support_are_named():
    UNIFORM.check_inside(UNIFORM.draw(3, rng()))
    message = r"Got 3.5 for 'a' of sample 1, whose prior is Uniform\(1, 3\)"
    with pytest.raises(ValueError, match=message):
        UNIFORM.check_inside(np.array([[1, 1, -4.5], [3.5, 1, -4.5]]))
