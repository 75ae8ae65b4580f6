"""What once went wrong at the edges: interrupts, singular curvature, odd readings."""

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator

from sklearn_inverse import (
    ForwardFunction,
    GradientInverter,
    ODESimulator,
    ODESurrogate,
    Training,
)
from sklearn_inverse.inverse import _gradient
from sklearn_inverse.problems import lotka_volterra, pollu

NOISE = 0.01


@pytest.mark.parametrize("optimizer", ["gauss_newton", "lbfgs"])
@pytest.mark.parametrize("prior", ["model", None])
@pytest.mark.filterwarnings("ignore::sklearn_inverse.exceptions.BoundsWarning")
def test_a_param_that_nothing_tells_of_costs_no_other_sample(
    prior, optimizer, decay, make_pairs
):
    readings, params = make_pairs(3, NOISE)
    readings[1, 1:] = np.nan  # the reading at time zero knows no rate
    inverter = GradientInverter(
        decay(noise=NOISE), optimizer=optimizer, prior=prior, random_state=0
    ).fit(readings)
    posterior = inverter.posterior(readings)
    assert np.abs(posterior.mean - params)[[0, 2]].max() < 0.1
    assert (posterior.std[[0, 2]] < 0.2).all()
    low, high = posterior.interval(0.9)
    assert high[1, 1] - low[1, 1] > 2.5  # nearly all of the prior's range of 2.9
    draws = posterior.sample(50)
    assert ((draws[..., 1] >= 0.1) & (draws[..., 1] <= 3.0)).all()


@pytest.mark.filterwarnings("ignore::sklearn_inverse.exceptions.BoundsWarning")
@pytest.mark.filterwarnings("ignore::sklearn_inverse.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("prior", ["model", None])
@pytest.mark.slow
def test_covariances_are_positive_however_ill_conditioned(prior):
    pytest.importorskip("numba")
    system = pollu()
    params = system.prior.draw(4, np.random.RandomState(0))
    readings = ODESimulator(system).simulate(params)
    readings[:, ::2] = np.nan
    inverter = GradientInverter(system, prior=prior, n_starts=1, max_iter=9)
    posterior = inverter.fit(readings).posterior(readings)
    covariance = posterior.covariances
    np.testing.assert_allclose(covariance, covariance.swapaxes(-1, -2), rtol=1e-9)
    assert (np.einsum("smpp->smp", covariance) >= 0).all()
    assert (posterior.std > 0).any(axis=1).all()
    assert np.isfinite(posterior.sample(3)).all()


@pytest.mark.filterwarnings("ignore::sklearn_inverse.exceptions.BoundsWarning")
def test_exact_readings_are_trusted_no_further_than_the_solver():
    pytest.importorskip("numba")
    system = lotka_volterra()
    params = system.prior.draw(10, np.random.RandomState(0))
    inverter = GradientInverter(system, random_state=0)
    other = ODESimulator(system, rtol=1e-10).simulate(params)
    inverter.fit(other)
    noise_std = np.zeros_like(other)
    mean, std = inverter.predict(other, return_std=True, noise_std=noise_std)
    assert (np.abs(mean - params) < 2 * std).mean() > 0.9


def test_threads_leave_the_attention_of_torch_as_it_was():
    k = np.linspace(0.5, 2.0, 40)[:, None]
    readings = np.exp(-k * np.linspace(0, 2, 9))
    surrogate = ODESurrogate(
        noise=0.5, training=Training(max_epochs=2), random_state=0
    ).fit(readings, k)
    cuda = torch.backends.cuda
    before = cuda.flash_sdp_enabled(), cuda.math_sdp_enabled()
    GradientInverter(
        FrozenEstimator(surrogate), n_starts=1, chunk_size=4, n_jobs=2, random_state=0
    ).fit(readings).predict(readings[5:21])
    assert (cuda.flash_sdp_enabled(), cuda.math_sdp_enabled()) == before


def waves(params):
    t = torch.linspace(0.0, 10.0, 41, dtype=torch.float64)
    return torch.sin(params[:, :1] * t) * params[:, 1:]


WAVES = ForwardFunction(waves, params={"w": (0.5, 8.0), "a": (0.5, 2.0)}, noise=0.1)


def test_ctrl_c_in_an_early_stage_makes_nothing_worse(press_at):
    readings = WAVES.fit(None).simulate([[4.0, 1.0]])
    options = {"n_starts": 1, "random_state": 7}
    inverter = GradientInverter(WAVES, start=[4.1, 0.9], **options).fit(readings)
    press_at(ForwardFunction, "linearize", 3)  # the start, a step, a step
    with pytest.warns(match="^Interrupted"):
        answer = inverter.posterior(readings)
    assert answer.misfit[0] <= answer.start_misfit[0]
    simulated = WAVES.fit(None).simulate(answer.params)
    chi_square = ((simulated - readings) ** 2).sum() / 0.1**2
    assert answer.misfit[0] == pytest.approx(chi_square, rel=1e-6)


def test_a_sample_takes_only_the_stages_that_tell_it_more(press_at):
    both = WAVES.fit(None).simulate([[4.0, 1.0]] * 2)
    both[0, 12:] = np.nan
    inverter = GradientInverter(WAVES, n_starts=3, random_state=0).fit(both)
    levenberg = press_at(_gradient, "levenberg_marquardt", 10**9)
    alone = inverter.posterior(both[:1])
    assert len(levenberg) == 3  # of 4, 8 and 12 readings
    together = inverter.posterior(both)
    np.testing.assert_allclose(together.params[0], alone.params[0], rtol=1e-8)
    assert together.n_iter[0] == alone.n_iter[0]


def test_an_observable_that_the_model_never_saw_is_refused(decay, make_pairs):
    readings, _ = make_pairs(4)

    class Unseen(decay):
        error_ = np.array([np.nan])

    with pytest.raises(ValueError, match="trained on every observable that is read"):
        GradientInverter(Unseen(), random_state=0).fit(readings).predict(readings)
