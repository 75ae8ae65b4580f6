"""Learned draws are posteriors: calibrated, of any shape, and corrected where asked."""

import copy
import pickle

import numpy as np
import pytest
import torch
from scipy import stats

from sklearn_inverse import (
    CMAESInverter,
    Design,
    FlowInverter,
    ForwardFunction,
    GradientInverter,
    Training,
)
from sklearn_inverse.exceptions import MisfitWarning
from sklearn_inverse.probability import Normal

NOISE = 0.5
MIXED = torch.tensor([[1.0, 0.6], [0.0, 0.8]], dtype=torch.float64)
# Of hundreds of readings with noise a few are unlikely, and said to be.
noisy = pytest.mark.filterwarnings("ignore::sklearn_inverse.exceptions.MisfitWarning")


def linear(params):
    """Two params seen through a matrix, twice."""
    return (params @ MIXED)[:, None].repeat(1, 2, 1)


def make_inverter(model, n_observed=2, **options):
    training = Training(lr=3e-3, batch_size=128, max_epochs=20)
    design = Design(n_observed=n_observed)
    options = {"width": 64, "n_blocks": 2, "random_state": 0} | options
    return FlowInverter(model, design=design, training=training, **options)


@pytest.fixture(scope="module")
def plane():
    """Train on a linear model with normal noise, whose posteriors are known."""
    prior = {"a": Normal(0, 1), "b": Normal(0, 1)}
    model = ForwardFunction(linear, params=prior, noise=NOISE)
    params = np.random.default_rng(0).standard_normal((2000, 2))
    inverter = make_inverter(model, n_observed=(1, 2), n_draws=500)
    return inverter.fit(linear(torch.tensor(params)).numpy(), params)


@pytest.fixture(scope="module")
def read():
    """Draw params, and readings of them; of every other one a single time."""
    rng = np.random.default_rng(1)
    params = rng.standard_normal((300, 2))
    readings = linear(torch.tensor(params)).numpy()
    readings = readings + NOISE * rng.standard_normal(readings.shape)
    readings[::2, 1] = np.nan
    return params, readings


def exact(readings):
    """Means and standard deviations of the posteriors of the linear model."""
    matrix = MIXED.numpy()
    n_times = (~np.isnan(readings[:, :, 0])).sum(axis=1)[:, None, None]
    covariance = np.linalg.inv(np.eye(2) + n_times * matrix @ matrix.T / NOISE**2)
    told = np.nansum(readings, axis=1) @ matrix.T / NOISE**2
    mean = np.einsum("npq,nq->np", covariance, told)
    return mean, np.sqrt(np.einsum("npp->np", covariance))


@pytest.mark.slow
@noisy
def test_draws_are_those_of_the_posterior(plane, read):
    params, readings = read
    posterior = plane.posterior(readings)
    mean, std = exact(readings)
    assert (posterior.kind == "learned").all()
    assert posterior.draws.shape == (300, 500, 2)
    assert np.sqrt((((posterior.mean - mean) / std) ** 2).mean()) < 0.3
    assert np.abs(np.log(posterior.std / std)).mean() < 0.1
    low, high = posterior.interval(0.9)
    covered = ((low < params) & (params < high)).mean()
    assert 0.85 < covered < 0.95


@pytest.mark.slow
@noisy
def test_a_sample_has_the_same_draws_in_any_company(plane, read):
    _, readings = read
    together = plane.posterior(readings[:20])
    for i in (0, 7, 19):
        alone = plane.posterior(readings[i : i + 1])
        np.testing.assert_array_equal(alone.draws[0], together.draws[i])
        np.testing.assert_array_equal(alone.misfit[0], together.misfit[i])


@pytest.mark.slow
@noisy
def test_a_pickled_inverter_draws_the_same(plane, read):
    _, readings = read
    back = pickle.loads(pickle.dumps(plane))
    draws = back.sample(readings[:3], 50)
    np.testing.assert_array_equal(draws, plane.sample(readings[:3], 50))


@pytest.mark.slow
def test_draws_spread_as_params_held_out_do(plane, read):
    """Params that lie half as far again as the flow says widen its draws by as much."""
    _, readings = read
    inverter, module = copy.copy(plane), plane.net_.module_
    prepared = plane._prepare(readings, np.empty((300, 0)))
    noise = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        z = module.draw(1.5 * noise, **plane._see(*prepared))
    z = z[torch.arange(300), torch.arange(300)]
    inverter._calibrate(torch.special.ndtr(z.double()), *prepared)
    assert inverter.calibration_ == pytest.approx(1.5, rel=0.1)
    wider = inverter.sample(readings, 500).std(axis=1)
    wider = wider / plane.sample(readings, 500).std(axis=1)
    factor = inverter.calibration_ / plane.calibration_
    assert np.nanmedian(wider) == pytest.approx(factor, rel=0.05)


@pytest.mark.slow
def test_readings_of_another_kind_are_told_and_get_wide_errors(plane):
    contrary = np.array([[[3.0, 3.0], [-3.0, -3.0]]])
    with pytest.warns(MisfitWarning, match=r"rows 0"):
        posterior = plane.posterior(contrary)
    assert np.isnan(posterior.draws).all()
    assert (posterior.std > 0.6).all()


def square(params):
    """Return what does not tell the sign of its param, by NumPy."""
    return torch.as_tensor(params.detach().cpu().numpy() ** 2)


@pytest.fixture(scope="module")
def squares():
    return ForwardFunction(
        square, params={"k": (-1, 1)}, noise=0.1, differentiable=False
    )


@pytest.fixture(scope="module")
def two_sided(squares):
    """Train on the squares, without derivatives."""
    k = np.random.default_rng(0).uniform(-1, 1, (1000, 1))
    return make_inverter(squares, n_observed=1).fit(k**2, k)


def quantiles_of_squares(reading, levels):
    k = np.linspace(-1, 1, 20_001)
    weight = stats.norm.pdf(reading, k**2, 0.1).cumsum()
    return np.interp(levels, weight / weight[-1], k)


LEVELS = [0.05, 0.25, 0.75, 0.95]


def test_both_modes_are_drawn(two_sided):
    posterior = two_sided.posterior([[0.5]])
    np.testing.assert_allclose(
        posterior.quantile(LEVELS)[:, 0, 0],
        quantiles_of_squares(0.5, LEVELS),
        atol=0.05,
    )
    between = np.abs(posterior.draws) < 0.3
    assert between.mean() < 0.03
    assert posterior.explained[0]  # judged where draws are dense, not at their mean


def test_runs_of_the_model_correct_what_was_learned_badly(squares):
    k = np.random.default_rng(0).uniform(-1, 1, (200, 1))
    hardly = make_inverter(squares, n_observed=1, max_solves=20_000)
    hardly.set_params(training__max_epochs=1)
    posterior = hardly.fit(k**2, k).posterior([[0.5], [0.1]])
    assert (posterior.kind == "importance").all()
    assert posterior.is_confirmed.all()
    for i, reading in enumerate([0.5, 0.1]):
        np.testing.assert_allclose(
            posterior.quantile(LEVELS)[:, i, 0],
            quantiles_of_squares(reading, LEVELS),
            atol=0.02,
        )


def test_without_derivatives_methods_that_need_them_say_so(squares):
    with pytest.raises(ValueError, match="differentiable=False"):
        GradientInverter(squares).fit([[0.5]])
    found = CMAESInverter(squares, random_state=0).fit([[0.49]])
    assert abs(abs(found.predict([[0.49]])[0, 0]) - 0.7) < 0.05


def test_a_simulator_behind_numpy_may_return_arrays(squares):
    def in_numpy(k):
        return k.detach().numpy() ** 2

    model = ForwardFunction(in_numpy, squares.params, noise=0.1, differentiable=False)
    k = np.linspace(-1, 1, 9)[:, None]
    np.testing.assert_array_equal(
        model.fit(None).simulate(k), squares.fit(None).simulate(k)
    )
    assert CMAESInverter(model, random_state=0).fit([[0.49]]).predict([[0.49]])
    model.set_params(differentiable=True)
    with pytest.raises(TypeError, match="differentiable=False and return an ndarray"):
        model.fit(None)


def test_noise_of_unknown_size_is_corrected_too():
    times = torch.arange(1.0, 13.0, dtype=torch.float64) / 6
    prior = {"rate": (0.1, 2.0)}
    model = ForwardFunction(lambda k: torch.exp(-k * times), params=prior)
    k = np.random.default_rng(0).uniform(0.1, 2.0, (300, 1))
    inverter = make_inverter(model, n_observed=12, max_solves=20_000)
    inverter.set_params(training__max_epochs=5)
    inverter.fit(np.exp(-k * times.numpy()), k)
    scatter = 0.05 * np.random.default_rng(2).standard_normal((1, 12))
    readings = np.exp(-0.8 * times.numpy())[None] + scatter
    posterior = inverter.posterior(readings)
    alike = GradientInverter(model, max_solves=20_000, random_state=0).fit(readings)
    alike = alike.posterior(readings)
    assert posterior.is_confirmed.all()
    assert abs(posterior.mean - alike.mean)[0, 0] < 0.2 * alike.std[0, 0]
    assert 0.8 < posterior.std[0, 0] / alike.std[0, 0] < 1.25


def test_one_draw_has_no_spread_and_is_refused(squares):
    with pytest.raises(ValueError, match=r"'n_draws' parameter .* range"):
        make_inverter(squares, n_draws=1).fit([[0.1], [0.4]], [[0.3], [0.6]])
