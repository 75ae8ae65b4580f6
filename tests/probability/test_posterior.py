"""A posterior is the mixture that it says, in the params' own units."""

import pickle

import numpy as np
import pytest
import torch
from scipy import stats

from sklearn_inverse import ForwardFunction, GradientInverter
from sklearn_inverse.probability import (
    Estimate,
    GaussianFunction,
    InversionStatus,
    JointPrior,
    LogNormal,
    MultivariateNormal,
    Posterior,
)
from sklearn_inverse.probability._posterior import FlatCoordinate


def make(centers, covariances, weights=None, prior=None, coordinate=None):
    """Return a posterior of one sample per row of centers (n, m, p)."""
    centers, covariances = np.asarray(centers, float), np.asarray(covariances, float)
    n, m, p = centers.shape
    prior = prior or JointPrior({f"k{j}": (0.0, 1.0) for j in range(p)})
    coordinate = coordinate or prior
    weights = np.full((n, m), 1 / m) if weights is None else np.asarray(weights, float)
    zero = np.zeros(n, dtype=int)
    return Posterior(
        params=coordinate.from_coordinate(centers[:, 0]),
        names=prior.names,
        misfit=np.full(n, 5.0),
        n_readings=zero + 5,
        explained=zero == 0,
        start_misfit=np.full(n, 9.0),
        status=zero + InversionStatus.CONVERGED,
        n_iter=zero,
        n_forward=zero + 7,
        n_linearized=zero,
        n_failed=zero,
        n_optima=zero + m,
        n_confirmed=zero + 1,
        at_bound=np.zeros((n, p), dtype=bool),
        noise_scale=np.full((n, 1), np.nan),
        about={"model": "toy", "noise": "normal, sd 1", "observables": ["y"]},
        coordinate=coordinate,
        weights=weights,
        centers=centers,
        covariances=covariances,
    )


def test_uninformed_posterior_is_the_prior():
    prior = JointPrior({"a": (2.0, 4.0), "b": LogNormal(3.0, 0.5)})
    posterior = make(np.zeros((1, 1, 2)), np.eye(2)[None, None], prior=prior)
    lognormal = stats.lognorm(0.5, scale=3.0)
    np.testing.assert_allclose(posterior.mean[0], [3.0, lognormal.mean()], rtol=1e-6)
    np.testing.assert_allclose(
        posterior.std[0], [2 / np.sqrt(12), lognormal.std()], rtol=1e-4
    )
    lower, upper = posterior.interval(0.9)
    np.testing.assert_allclose(lower[0], [2.1, lognormal.ppf(0.05)], rtol=1e-9)
    np.testing.assert_allclose(upper[0], [3.9, lognormal.ppf(0.95)], rtol=1e-9)
    np.testing.assert_allclose(posterior.contraction, 1.0)


def test_draws_follow_the_mixture():
    posterior = make(
        [[[-1.0, 0.0], [1.0, 0.5]]],
        [[[[0.04, 0.01], [0.01, 0.09]], [[0.01, 0.0], [0.0, 0.04]]]],
        weights=[[0.3, 0.7]],
    )
    draws = posterior.sample(40_000)[0]
    np.testing.assert_allclose(draws.mean(axis=0), posterior.mean[0], atol=3e-3)
    np.testing.assert_allclose(draws.std(axis=0), posterior.std[0], atol=3e-3)
    levels = [0.05, 0.4, 0.9]
    quantiles = np.quantile(draws, levels, axis=0)
    np.testing.assert_allclose(posterior.quantile(levels)[:, 0], quantiles, atol=0.01)
    correlation = np.corrcoef(draws.T)[0, 1]
    assert posterior.correlation[0, 0, 1] == pytest.approx(correlation, abs=0.05)
    assert "30 % at" in str(posterior[0])


def test_a_group_keeps_its_correlation():
    covariance = np.array([[1.0, 0.8], [0.8, 1.0]])
    prior = JointPrior({("a", "b"): MultivariateNormal([0.0, 0.0], covariance)})
    mixed = prior.mixing @ prior.mixing.T
    posterior = make(np.zeros((1, 1, 2)), mixed[None, None], prior=prior)
    assert posterior.covariance[0, 0, 1] == pytest.approx(0.8, abs=0.05)


def test_flat_coordinate_gives_the_estimate_and_errors_of_least_squares():
    prior = JointPrior({"a": (0.0, 10.0)})
    flat = FlatCoordinate(prior.scaler, prior.scaled_low, prior.scaled_high)
    posterior = make([[[0.01]]], [[[[0.0004]]]], prior=prior, coordinate=flat)
    assert posterior.mean[0, 0] == pytest.approx(0.1)
    assert posterior.std[0, 0] == pytest.approx(0.2)
    assert (posterior.sample(500) >= 0).all()


def test_samples_are_picked_and_draw_alone_what_they_draw_together():
    rng = np.random.default_rng(0)
    posterior = make(rng.normal(size=(4, 1, 2)), np.tile(0.1 * np.eye(2), (4, 1, 1, 1)))
    assert len(posterior[1:3]) == 2
    np.testing.assert_array_equal(posterior[2].sample(9), posterior.sample(9)[2:3])
    np.testing.assert_array_equal(posterior[-1].mean, posterior.mean[-1:])
    assert [len(one) for one in posterior] == [1, 1, 1, 1]
    copy = pickle.loads(pickle.dumps(posterior))
    np.testing.assert_array_equal(copy.sample(3), posterior.sample(3))
    with pytest.raises(IndexError, match="4 samples"):
        posterior[4]
    assert repr(posterior) == "Posterior(4 samples: 4 converged; 4 explained)"
    assert "toy: 5 readings, 2 params, 7 runs of the model" in str(posterior[0])


def test_lost_samples_stay_nan():
    posterior = make(np.full((1, 1, 1), np.nan), np.full((1, 1, 1, 1), np.nan))
    assert np.isnan(posterior.mean).all()
    assert np.isnan(posterior.std).all()
    assert np.isnan(posterior.sample(3)).all()
    assert np.isnan(posterior.quantile(0.5)).all()
    assert "nothing was found" in str(posterior[0])


@pytest.mark.parametrize("n_draws", [0, -1, 2.5, "3"])
def test_number_of_draws_must_be_whole(n_draws):
    with pytest.raises(ValueError, match="`n_draws` must be an int >= 1"):
        make(np.zeros((1, 1, 1)), np.ones((1, 1, 1, 1))).sample(n_draws)


def test_level_must_be_a_probability():
    with pytest.raises(ValueError, match="between 0 and 1"):
        make(np.zeros((1, 1, 1)), np.ones((1, 1, 1, 1))).quantile(1.0)


def test_estimates_report_without_errors():
    full = make(np.zeros((1, 1, 2)), np.eye(2)[None, None])
    fields = {name: getattr(full, name) for name in Estimate.__dataclass_fields__}
    text = str(Estimate(**fields)[0])
    assert "k0" in text
    assert "±" not in text


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (lambda a, b, c: [a * b, c], "a and b cannot be told apart: only a*b is known"),
        (
            lambda a, b, c: [a / b, c / b],
            "a, b and c cannot be told apart: only a/c and b/c are known",
        ),
        (
            lambda a, b, c: [a * b, 5e-3 * a, c],
            "a and b are hardly told apart: hardly more than a*b is known",
        ),
        (lambda a, b, c: [a, c], None),
    ],
)
def test_a_report_tells_what_cannot_be_told_apart(function, told):
    system = ForwardFunction(
        lambda k: torch.stack(function(*k.T), dim=1),
        dict.fromkeys("abc", (0.5, 2.0)),
        noise=0.01,
    )
    readings = system.fit(None).simulate([[0.9, 1.2, 1.1]])
    inverter = GradientInverter(system, random_state=0).fit(readings)
    report = str(inverter.posterior(readings)[0])
    assert "told apart" not in report if told is None else told in report


def test_modes_at_which_the_model_fails_have_no_weight_beside_others():
    posterior = make(np.zeros((2, 2, 1)), np.ones((2, 2, 1, 1)))
    weight = -torch.tensor([torch.inf, torch.inf, 0.0, torch.nan]).double()
    center, covariance = np.array([[0.0], [9.0], [0.0], [9.0]]), np.ones((4, 1, 1))
    sample = torch.tensor([0, 0, 1, 1])
    GradientInverter._fill_modes(posterior, sample, weight, center, covariance)
    assert np.array_equal(posterior.weights, [[0.5, 0.5], [1.0, 0.0]])


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (lambda a, f: f[1::2].sum() * a, "a and f cannot be told apart"),
        (lambda a, f: f[1::2] * a, "a and f cannot be told apart"),
        (lambda a, f: torch.cat([f[1::2], a[None]]), None),
    ],
)
def test_a_report_tells_of_functions_as_a_whole(function, told):
    system = ForwardFunction(
        lambda k: torch.stack([function(row[0], row[1:]).reshape(-1) for row in k]),
        {
            "a": LogNormal(1.0, 1.0),
            "f": GaussianFunction(9, scale=1.0, std=1.0, link="exp"),
        },
        noise=0.01,
    )
    readings = system.fit(None).simulate([[1.0, *np.linspace(1, 2, 9)]])
    inverter = GradientInverter(system, random_state=0, max_solves=0).fit(readings)
    known = [
        line
        for line in str(inverter.posterior(readings)[0]).splitlines()
        if "told apart" in line
    ]
    assert known == ([f"known    {told}"] if told else [])
