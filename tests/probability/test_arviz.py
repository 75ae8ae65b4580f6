"""What ArviZ is handed is the posterior, what it foretells, and how likely readings are."""

import numpy as np
import pytest
import torch
from scipy import stats

from sklearn_inverse import ForwardFunction, GradientInverter, MCMCInverter
from sklearn_inverse.probability import Normal

pytest.importorskip("arviz_base")

TIMES = np.arange(4.0)
READINGS = np.array([[0.1, 5.0, 2.1, np.nan, 3.9, 5.0, np.nan, 5.2]])


@pytest.fixture
def inverter():
    """Fit a line through the origin, and a level, each with noise of its own."""

    def function(k):
        line = k[:, :1] * torch.as_tensor(TIMES)
        return torch.stack([line, 0 * line + k[:, 1:]], dim=2)

    model = ForwardFunction(
        function,
        {"slope": Normal(0.0, 10.0), "level": Normal(0.0, 10.0)},
        observables=["line", "constant"],
        times=TIMES,
        noise=[0.1, 0.3],
    )
    return GradientInverter(model, random_state=0).fit(READINGS)


def test_groups_hold_draws_predictions_and_likelihoods(inverter):
    posterior = inverter.posterior(READINGS)[0]
    options = {"model": inverter.model_, "observations": READINGS}
    tree = posterior.to_arviz(**options, n_draws=4000)
    draws = tree["posterior"]
    assert draws.sizes == {"chain": 4, "draw": 1000}
    slope = draws["slope"].values
    assert slope.mean() == pytest.approx(posterior.mean[0, 0], abs=0.005)
    assert slope.std() == pytest.approx(posterior.std[0, 0], rel=0.05)
    read = tree["observed_data"]["line"]
    np.testing.assert_array_equal(read, [0.1, 2.1, 3.9])  # the fourth was not read
    np.testing.assert_array_equal(read["line_time"], [0.0, 1.0, 2.0])
    mean = slope[..., None] * TIMES[:3]
    expected = stats.norm(mean, 0.1).logpdf([0.1, 2.1, 3.9])
    likelihood = tree["log_likelihood"]["line"]
    np.testing.assert_allclose(likelihood, expected, rtol=1e-10)
    scatter = tree["posterior_predictive"]["line"].values - mean
    assert scatter.std() == pytest.approx(0.1, rel=0.05)
    assert set(posterior.to_arviz().children) == {"posterior"}


def test_chains_are_handed_over_in_order(inverter):
    sampler = MCMCInverter(inverter.model, n_effective=200, random_state=0)
    posterior = sampler.fit(READINGS).posterior(READINGS)
    level = posterior[0].to_arviz()["posterior"]["level"].values
    np.testing.assert_array_equal(level.ravel(), posterior.draws[0, :, 1])


def test_one_sample_is_taken(inverter):
    two = np.repeat(READINGS, 2, axis=0)
    with pytest.raises(ValueError, match=r"pick one, posterior\[0\]"):
        inverter.posterior(two).to_arviz()


def test_readings_need_a_model_and_its_shape(inverter):
    posterior = inverter.posterior(READINGS)[0]
    with pytest.raises(ValueError, match="give `model`"):
        posterior.to_arviz(observations=READINGS)
    with pytest.raises(ValueError, match="4 times of 2 observables"):
        posterior.to_arviz(model=inverter.model_, observations=READINGS[:, :3])
