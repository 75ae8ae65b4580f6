"""The objective is the posterior that it says, and its derivatives are its derivatives."""

import numpy as np
import pytest
import torch

from sklearn_inverse import ODESimulator, ODESurrogate
from sklearn_inverse.inverse._objective import Objective
from sklearn_inverse.optim._continuation import growing_horizons
from sklearn_inverse.optim._levenberg_marquardt import levenberg_marquardt
from sklearn_inverse.probability import (
    LogNormal,
    NegativeBinomial,
    Normal,
    StudentT,
    as_noise,
)
from sklearn_inverse.problems import lotka_volterra, pollu


def observed(model, n_samples=3, share=0.5, seed=0):
    """Return noisy readings of draws from the prior, some of them missing."""
    rng = np.random.default_rng(seed)
    params = model.prior_.from_quantile(
        rng.uniform(0.3, 0.7, (n_samples, model.n_params_))
    )
    clean = model.simulate(params)
    readings = clean * (1 + 0.02 * rng.standard_normal(clean.shape))
    readings[rng.random(readings.shape) > share] = np.nan
    readings[:, 1, 0] = clean[:, 1, 0]
    return torch.as_tensor(readings)


def points(model, n_rows, seed=1):
    rng = np.random.default_rng(seed)
    u = rng.uniform(0.3, 0.7, (n_rows, model.n_params_))
    return torch.as_tensor(model.prior_.quantile_to_scaled(u))


def with_noise(model, noise):
    """Return the model with other noise."""
    names = model.observable_names_
    noise = as_noise(noise, names, param_names=model.param_names_)
    return Objective(model, noise, observed(model))


def test_value_is_minus_the_log_posterior(decay):
    model = decay(noise=0.1)
    readings = observed(model)
    objective = Objective(model, model.noise_, readings)
    x = points(model, 3)
    mean = model.forward(x)
    off = (mean - readings).nan_to_num() / 0.1
    n = (~readings.isnan()).sum(dim=(1, 2))
    expected = 0.5 * off.square().sum(dim=(1, 2)) + n * np.log(0.1 * np.sqrt(2 * np.pi))
    z = model.prior_.to_standard(model.param_scaler_.from_scaled(x.numpy()))
    expected = expected.numpy() + 0.5 * (z**2).sum(axis=1)
    value = objective.value(x, torch.arange(3)).numpy()
    np.testing.assert_allclose(value, expected, rtol=1e-6)


NOISES = {
    "normal": 0.1,
    "unknown": None,
    "estimated": Normal("s"),
    "log-normal": LogNormal("s"),
    "student": StudentT(4, "s"),
    "counts": NegativeBinomial("s"),
}


@pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES)
def test_sensitivity_is_a_root_of_the_information(decay, noise):
    params = {"a": (5.0, 9.0), "k": (0.1, 0.3), "s": LogNormal(0.3, 0.5)}
    model = decay(params, noise)
    objective = Objective(model, model.noise_, observed(model).round())
    sample = torch.arange(3)
    x = objective.with_scales(points(model, 3), sample)
    root = objective.sensitivity(x, sample)
    information, *_ = objective.information(x, sample)
    np.testing.assert_allclose(root.mT @ root, information, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("weighs_prior", [True, False])
@pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES)
def test_derivatives_equal_finite_differences(decay, noise, weighs_prior):
    params = {"a": (5.0, 9.0), "k": (0.1, 0.3), "s": LogNormal(0.3, 0.5)}
    model = decay(params, noise)
    readings = observed(model)
    if isinstance(noise, NegativeBinomial):
        readings = readings.round()
    objective = Objective(model, model.noise_, readings, weighs_prior=weighs_prior)
    sample = torch.arange(3)
    x = objective.with_scales(points(model, 3), sample)
    mean = torch.as_tensor(model.simulate([[7.0, 0.2, 0.3]] * 3))
    objective.leverage = torch.full_like(mean, 0.2), mean
    value, gradient, hessian = objective.linearize(x, sample)
    np.testing.assert_allclose(value, objective.value(x, sample), rtol=1e-12)
    by_gradient = objective.gradient(x, sample)
    np.testing.assert_allclose(by_gradient[0], value, rtol=1e-12)
    np.testing.assert_allclose(by_gradient[1], gradient, rtol=1e-7, atol=1e-8)
    step = 1e-6
    for j in range(x.shape[1]):
        e = torch.zeros_like(x)
        e[:, j] = step
        high, low = (objective.value(x + s * e, sample) for s in (1, -1))
        np.testing.assert_allclose(
            (high - low) / (2 * step), gradient[:, j], rtol=1e-4, atol=1e-4
        )
    assert (torch.linalg.eigvalsh(hessian) > 0).all()


@pytest.mark.parametrize("make", [lotka_volterra, pollu])
def test_gauss_newton_agrees_with_the_gradient_of_a_solver(make):
    model = ODESimulator(make())
    objective = with_noise(model, 0.05)
    sample, x = torch.arange(3), points(model, 3)
    value, gradient, _ = objective.linearize(x, sample)
    by_gradient = objective.gradient(x, sample)
    np.testing.assert_allclose(by_gradient[0], value, rtol=1e-5)
    size = gradient.abs().max()
    np.testing.assert_allclose(by_gradient[1], gradient, atol=1e-5 * size, rtol=1e-3)


def test_surrogate_jacobian_equals_finite_differences():
    rng = np.random.default_rng(0)
    params = rng.uniform(0.5, 2.0, (40, 2))
    pairs = params[:, :1] * np.exp(-params[:, 1:] * np.linspace(0, 2, 8))
    surrogate = ODESurrogate(training=None, random_state=0)
    surrogate.set_params(training__max_epochs=1, basis_epochs=2).fit(pairs, params)
    x = torch.as_tensor(surrogate.param_scaler_.to_scaled(params[:3]))
    _, jacobian = surrogate.linearize(x)
    step = 1e-2  # single precision inside
    for j in range(2):
        e = torch.zeros_like(x)
        e[:, j] = step
        with torch.no_grad():
            slope = (surrogate.forward(x + e) - surrogate.forward(x - e)) / (2 * step)
        np.testing.assert_allclose(jacobian[..., j], slope, atol=2e-2)


def test_a_row_that_fails_is_infinitely_bad_and_leaves_the_others(decay):
    model = decay(noise=0.1, fails_above=0.7)
    objective = Objective(model, model.noise_, observed(decay(noise=0.1)))
    x, sample = points(model, 3), torch.arange(3)
    x[1, 1] = 0.75
    value, gradient, hessian = objective.linearize(x, sample)
    assert value.isinf().tolist() == [False, True, False]
    assert torch.isfinite(gradient).all()
    assert torch.isfinite(hessian).all()
    alone = objective.linearize(x[[0]], sample[[0]])
    np.testing.assert_array_equal(alone[1][0], gradient[0])
    judged = objective.judge(x, sample)
    assert judged.misfit.isnan().tolist() == [False, True, False]
    assert not judged.explained[1]


def explained(model, readings):
    """Tell which readings a model explains in the middle of its prior."""
    objective = Objective(model, model.noise_, torch.as_tensor(readings))
    sample = torch.arange(len(readings))
    x = torch.full((len(sample), 2), 0.5, dtype=torch.float64)
    return objective.judge(objective.with_scales(x, sample), sample).explained.numpy()


def middle(model):
    """Return the model's trajectory there, (n_times, n_channels)."""
    return model.forward(torch.full((1, 2), 0.5).double()).numpy()[0]


@pytest.mark.parametrize("n_read", [1, 8])
def test_noise_as_stated_is_explained_but_for_a_few_in_a_thousand(decay, n_read):
    model = decay(noise=0.1)
    noise = 0.1 * np.random.default_rng(0).standard_normal((20_000, 8, 1))
    noise[:, n_read:] = np.nan
    assert 5e-4 < 1 - explained(model, middle(model) + noise).mean() < 6e-3
    assert explained(model, middle(model) + 3 * noise).mean() < 0.7


def test_at_optima_the_scatter_counts_that_params_took_up(decay):
    model = decay(noise=0.01)
    noise = 0.01 * np.random.default_rng(0).standard_normal((5_000, 4, 1))
    readings = np.full((5_000, 8, 1), np.nan)
    readings[:, ::2] = middle(model)[::2] + noise
    objective = Objective(model, model.noise_, torch.as_tensor(readings))
    everyone = torch.arange(5_000)
    start = torch.full((5_000, 2), 0.5).double()
    end = levenberg_marquardt(objective, start, everyone, max_iter=20, tol=1e-6)
    shares = [
        1 - objective.judge(end.x, everyone, hessian).explained.double().mean()
        for hessian in (None, end.hessian)
    ]
    assert shares[0] < 5e-4 < shares[1] < 6e-3


def test_what_no_solver_tells_from_nothing_is_explained_whatever_the_noise(decay):
    model = decay(noise=1e-9)
    off = middle(model).std() * np.array([5e-4, 2e-3])
    readings = middle(model) + off[:, None, None]
    assert explained(model, readings).tolist() == [True, False]


def test_unknown_noise_is_explained_unless_residuals_follow_a_course(decay):
    class Long(decay):
        times_ = np.linspace(0.0, 2.0, 40)

    model = Long()
    scatter = np.random.default_rng(0).standard_normal((1000, 40, 1))
    assert explained(model, middle(model) + scatter).mean() > 0.99
    course = middle(model) + np.sin(3 * model.times_[:, None]) * np.array(
        [[[1]], [[0.1]]]
    )
    assert explained(model, course).tolist() == [
        False,
        True,
    ]  # the small is half explained
    course[:, 11:] = np.nan  # of so few nobody can tell
    assert explained(model, course).all()


def test_entries_that_nobody_reads_may_be_anything():
    """The log of a state that is zero at a time at which nothing is measured."""
    times = torch.tensor([0.0, 1.0, 2.0]).double()

    from sklearn_inverse import ForwardFunction

    model = ForwardFunction(
        lambda k: torch.log(k * times), params={"k": (0.5, 2.0)}, noise=0.1
    ).fit(None)
    readings = torch.tensor([[[np.nan], [0.1], [0.8]]]).double()
    objective = Objective(model, model.noise_, readings)
    x, sample = torch.full((1, 1), 0.4).double(), torch.zeros(1, dtype=torch.long)
    value, gradient, _ = objective.linearize(x, sample)
    assert value.isfinite().all()
    np.testing.assert_allclose(objective.gradient(x, sample)[1], gradient)


def test_what_lies_after_the_last_reading_is_not_simulated():
    model = ODESimulator(lotka_volterra())
    readings = observed(model)
    readings[:, 8:] = np.nan
    objective = Objective(model, model.noise_, readings)
    assert objective._model.n_times_ == 8
    objective.value(
        objective.with_scales(points(model, 3), torch.arange(3)), torch.arange(3)
    )
    assert objective.n_forward.tolist() == [2, 2, 2]


def test_the_horizon_grows_by_observed_times_to_all_of_them(decay):
    model = decay(noise=0.1)
    readings = observed(model, share=1.1)
    stages = growing_horizons(Objective(model, model.noise_, readings))
    n_read = [(~stage.readings.isnan()).sum(dim=(1, 2)).tolist() for stage, _ in stages]
    assert n_read == [[4, 4, 4], [8, 8, 8]]
