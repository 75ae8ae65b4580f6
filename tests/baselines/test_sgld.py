"""Langevin chains settle on the posterior, and say so where they have not yet."""

import numpy as np
import pytest
import torch

from sklearn_inverse import ForwardFunction, GradientInverter, MCMCInverter
from sklearn_inverse.baselines import SGLDInverter
from sklearn_inverse.exceptions import ConvergenceWarning, IntegrationWarning
from sklearn_inverse.optim._descent import langevin
from sklearn_inverse.probability import InversionStatus, LogUniform, Normal

PRECISION = torch.tensor([[4.0, 1.0], [1.0, 1.0]], dtype=torch.float64)
DESIGN = torch.tensor([[1.0, 0.6, 0.3, 0.2], [0.0, 0.4, -0.5, 0.2]]).double()
READINGS = np.array([[1.0, 0.5, 0.2, 0.3], [-2.0, 0.0, 0.0, 0.5]])
TIMES = torch.linspace(0.0, 2.0, 8, dtype=torch.float64)
CURVES = torch.exp(-torch.tensor([[0.7], [1.1], [1.6]]) * TIMES).numpy()


def normal(x, rows):
    """U of N(0, PRECISION⁻¹), and its gradient."""
    gradient = x @ PRECISION
    return 0.5 * (gradient * x).sum(dim=1), gradient


def make_linear(**options):
    model = ForwardFunction(
        lambda p: p @ DESIGN, params={"a": Normal(1, 2), "b": Normal(0, 1)}, noise=0.5
    )
    return SGLDInverter(model, **{"random_state": 0} | options)


def decay_or_nothing(params):
    return torch.exp(-params * TIMES).where(params <= 2.2, torch.nan)


def make_frail(**options):
    model = ForwardFunction(decay_or_nothing, params={"k": (0.1, 3.0)}, noise=0.1)
    options = {"n_starts": 10, "random_state": 0} | options
    return SGLDInverter(model, **options)


@pytest.mark.parametrize("share", [0.02, 0.4])
def test_stationary_law_on_a_gaussian(share):
    """That of the scheme to 3 %, N(0, Λ⁻¹(1 − ηΛ/4)⁻¹); so the normal's itself as η → 0."""
    steepest = torch.linalg.eigvalsh(PRECISION)[-1]
    eta = 4 * share / steepest
    n_chains, options = 4000, {"stride": 50, "seed": 0}
    trail, end = langevin(
        normal,
        torch.zeros(n_chains, 2, dtype=torch.float64),
        lambda x: eta.expand(n_chains, 1),
        n_chains=n_chains,
        max_iter=600,
        **options,
    )
    assert (end.status == InversionStatus.MAX_ITER).all()
    draws = trail.flatten(0, 1).numpy()
    eye = torch.eye(2, dtype=torch.float64)
    law = torch.linalg.inv(PRECISION @ (eye - eta / 4 * PRECISION)).numpy()
    np.testing.assert_allclose(draws.mean(axis=0), 0.0, atol=0.03)
    np.testing.assert_allclose(np.cov(draws.T), law, rtol=0.03, atol=0.01)
    exact = torch.linalg.inv(PRECISION).numpy()
    widest = np.linalg.eigvalsh(np.linalg.solve(exact, law))[-1]
    assert widest == pytest.approx(1 / (1 - share))


def test_posterior_of_a_linear_model_is_the_exact_one():
    inverter = make_linear(max_iter=250, step_size=0.4).fit(READINGS)
    posterior = inverter.posterior(READINGS)
    exact = GradientInverter(inverter.model).fit(READINGS).posterior(READINGS)
    assert (posterior.kind == "mcmc").all()
    assert posterior.is_confirmed.all()
    assert (posterior.rhat < 1.01).all()
    error = np.abs(posterior.mean - exact.mean) / exact.std
    assert error.max() < 0.15
    np.testing.assert_allclose(posterior.std, exact.std, rtol=0.1)
    np.testing.assert_allclose(
        posterior.correlation[:, 0, 1], exact.correlation[:, 0, 1], atol=0.1
    )


@pytest.mark.slow
@pytest.mark.parametrize("is_param", [False, True])
def test_noise_that_is_not_known_is_among_what_chains_find(is_param):
    """Means within .15 sd, sds within 10 % of chains with rejections.

    Where chains start residuals are large and noise is wide, or next to none and as steep:
    steps of the first half are each chain's own.
    """
    t = torch.linspace(0.0, 4.0, 12, dtype=torch.float64)
    sigma = {"sigma": LogUniform(0.01, 0.5)} if is_param else {}
    model = ForwardFunction(
        lambda k: torch.exp(-k[:, :1] * t),
        params={"rate": (0.5, 2.0)} | sigma,
        noise=Normal("sigma") if is_param else None,
    )
    off = 0.05 * np.random.default_rng(0).standard_normal(12)
    readings = (torch.exp(-t).numpy() + off)[None]
    exact = MCMCInverter(model, n_starts=2, random_state=0).fit(readings)
    exact = exact.posterior(readings)
    inverter = SGLDInverter(model, max_iter=2000, random_state=0).fit(readings)
    posterior = inverter.posterior(readings)
    assert posterior.is_confirmed.all()
    assert (np.abs(posterior.mean - exact.mean) / exact.std).max() < 0.15
    np.testing.assert_allclose(posterior.std, exact.std, rtol=0.1)
    np.testing.assert_allclose(posterior.noise_scale, exact.noise_scale, rtol=0.05)


def test_steps_without_a_stationary_law_are_refused():
    with pytest.raises(ValueError, match=r"'step_size' parameter .* range"):
        make_linear(step_size=4.0).fit(READINGS)


def test_steps_that_are_too_few_are_told():
    inverter = make_linear(max_iter=10, n_starts=8, step_size=0.01).fit(READINGS)
    with pytest.warns(ConvergenceWarning, match="R-hat is .* after 10 steps"):
        posterior = inverter.posterior(READINGS[:1])
    assert not posterior.is_confirmed.any()
    assert (posterior.n_iter == 80).all()
    assert (posterior.n_drawn == posterior.n_forward).all()


def test_many_chains_that_stay_where_they_started_have_not_converged():
    """Their groups are alike, as they were; that is not the posterior."""
    inverter = make_linear(max_iter=20, n_starts=2000, step_size=1e-4).fit(READINGS)
    with pytest.warns(ConvergenceWarning, match="chains have hardly left their starts"):
        posterior = inverter.posterior(READINGS[:1])
    assert (posterior.rhat < 1.01).all()
    assert not posterior.is_confirmed.any()


@pytest.mark.filterwarnings("ignore::sklearn_inverse.exceptions.ConvergenceWarning")
def test_answers_do_not_depend_on_company_and_long_chains_are_thinned():
    options = {"max_iter": 100, "n_starts": 200}
    together = make_linear(**options).fit(READINGS).posterior(READINGS)
    alone = make_linear(chunk_size=1, **options).fit(READINGS).posterior(READINGS)
    assert together.draws.shape == (2, 3400, 2)  # every third of 50 steps
    np.testing.assert_allclose(alone.draws, together.draws, rtol=1e-9)


@pytest.mark.filterwarnings("ignore::sklearn_inverse.exceptions.ConvergenceWarning")
def test_chains_keep_out_of_where_nothing_can_be_simulated():
    inverter = make_frail(max_iter=50).fit(CURVES)
    with pytest.warns(IntegrationWarning, match="failed at .* chains"):
        posterior = inverter.posterior(CURVES)
    assert (posterior.n_failed >= 1).all()
    assert (posterior.draws < 2.2).all()
    assert np.isfinite(posterior.sample(5)).all()


def test_ctrl_c_keeps_what_was_drawn(monkeypatch):
    inverter = make_frail(chunk_size=2).fit(CURVES)
    forward, calls = ForwardFunction.forward, []

    def press(self, scaled):
        calls.append(1)
        if len(calls) == 15:
            raise KeyboardInterrupt
        return forward(self, scaled)

    monkeypatch.setattr(ForwardFunction, "forward", press)
    with pytest.warns() as caught:
        posterior = inverter.posterior(CURVES)
    assert any(str(w.message).startswith("Interrupted") for w in caught)
    assert (posterior.status == InversionStatus.INTERRUPTED).all()
    assert np.isfinite(posterior.mean[:2]).all()
    assert np.isnan(posterior.mean[2]).all()


def test_a_sample_that_cannot_be_simulated_at_all_is_nan():
    model = ForwardFunction(lambda k: k * TIMES + torch.nan, {"k": (0.1, 3)}, noise=0.1)
    inverter = SGLDInverter(model, n_starts=3, max_iter=10, random_state=0).fit(CURVES)
    with pytest.warns(IntegrationWarning, match="3 samples have none left"):
        posterior = inverter.posterior(CURVES)
    assert np.isnan(posterior.mean).all()
    assert (posterior.status == InversionStatus.FAILED).all()
