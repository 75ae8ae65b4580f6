"""The objective is the one written down, with its exact derivatives."""

import numpy as np
import pytest
import torch

from sklearn_inverse import ODESimulator, ODESurrogate
from sklearn_inverse.inverse._gradient import growing_horizons
from sklearn_inverse.inverse._objective import Objective
from sklearn_inverse.inverse._point import Boxed
from sklearn_inverse.problems import hires, lotka_volterra, pollu
from sklearn_inverse.utils._scaling import ParamScaler


def make_objective(model, n_samples=3, share=0.5, **options):
    """Return that of readings of a model at random params, half of them missing."""
    rng = np.random.default_rng(0)
    truth = torch.as_tensor(rng.random((n_samples, model.n_params_)))
    readings = model.forward(truth).detach()
    spread = readings.flatten(0, 1).std(dim=0)
    noise = 0.01 * spread.expand_as(readings)
    seen = torch.as_tensor(rng.random(readings.shape) < share)
    seen[:, -1] = True
    readings = torch.where(seen, readings + noise, torch.nan)
    return Objective(model, readings, noise, 1e-3 * spread, **options)


def test_value_is_half_the_squared_misfit_plus_the_prior(decay, make_pairs):
    readings, _ = make_pairs(2)
    readings[0, 3:] = np.nan
    noise = np.array([[0.1], [0.2]])[..., None] + 0 * readings
    objective = Objective(
        decay(), *(torch.as_tensor(a) for a in (readings, noise)), torch.tensor([1e-3])
    )
    unit = np.array([[0.3, 0.4], [0.9, 0.1], [0.2, 0.6]])
    sample = [1, 0, 1]
    model = decay().simulate(decay().scaler_.to_physical(unit))
    scaled = np.nan_to_num((model - readings[sample]) / noise[sample])
    expected = 0.5 * (scaled**2).sum((1, 2)) + 6 * ((unit - 0.5) ** 2).sum(1)
    value = objective.value(torch.as_tensor(unit), torch.tensor(sample))
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    assert objective.n_readings.tolist() == [3, 8]
    assert objective.n_forward.tolist() == [1, 2]


@pytest.mark.parametrize("loss", ["l2", "l1"])
@pytest.mark.parametrize(
    "make", [lambda: ODESimulator(lotka_volterra(), rtol=1e-9)], ids=["simulator"]
)
def test_gradient_equals_finite_differences(make, loss):
    objective = make_objective(make(), loss=loss)
    rng = np.random.default_rng(1)
    unit = torch.as_tensor(rng.uniform(0.4, 0.6, (3, objective.model.n_params_)))
    sample = torch.arange(3)
    _, gradient = objective.gradient(unit, sample)
    for j in range(unit.shape[1]):
        step = torch.zeros_like(unit)
        step[:, j] = 1e-5
        up, down = (objective.value(unit + s, sample) for s in (step, -step))
        torch.testing.assert_close(
            gradient[:, j], (up - down) / 2e-5, rtol=1e-4, atol=0
        )


@pytest.mark.parametrize("system", [lotka_volterra, pollu, hires])
def test_linearize_agrees_with_gradient_and_forward(system):
    simulator = ODESimulator(system(), rtol=1e-8)
    objective = make_objective(simulator)
    unit = torch.full((3, simulator.n_params_), 0.45, dtype=torch.float64)
    unit[1] += 0.1
    sample = torch.arange(3)
    value, gradient, hessian = objective.linearize(unit, sample)
    same_value, same_gradient = objective.gradient(unit, sample)
    torch.testing.assert_close(value, same_value, rtol=1e-6, atol=0)
    scale = gradient.norm(dim=1, keepdim=True)
    torch.testing.assert_close(
        gradient / scale, same_gradient / scale, rtol=0, atol=1e-6
    )
    assert (torch.linalg.eigvalsh(hessian) > 11.9).all()


@pytest.mark.parametrize("attention", [True, False])
def test_surrogate_jacobian_equals_finite_differences(attention):
    k = np.linspace(0.5, 2.0, 40)[:, None] * [1.0, 1.5]
    readings = np.exp(-k[:, :1] * np.linspace(0, 2, 9)) + k[:, 1:]
    surrogate = ODESurrogate(
        attention=attention, norm="batch", max_epochs=2, random_state=0
    ).fit(readings, k)
    unit = torch.tensor([[0.3, 0.4], [0.8, 0.2]], dtype=torch.float64)
    trajectories, jacobian = surrogate.linearize(unit)
    torch.testing.assert_close(trajectories, surrogate.forward(unit).detach())
    for j in range(2):
        step = torch.zeros_like(unit)
        step[:, j] = 3e-3
        up, down = (surrogate.forward(unit + s).detach() for s in (step, -step))
        torch.testing.assert_close(
            jacobian[..., j], (up - down) / 6e-3, rtol=0.02, atol=0.01
        )


def test_a_row_that_fails_is_infinitely_bad_and_leaves_the_others(decay, make_pairs):
    readings, _ = make_pairs(1)
    parts = torch.as_tensor(readings), torch.full((1, 8, 1), 0.1, dtype=torch.float64)
    fails, works = (
        Objective(decay(fails_above=limit), *parts, torch.tensor([1e-3]))
        for limit in (0.5, 9)
    )
    unit = torch.tensor([[0.5, 0.4], [0.5, 0.9]], dtype=torch.float64)
    sample = torch.zeros(2, dtype=torch.long)
    value, gradient = fails.gradient(unit, sample)
    right_value, right_gradient = works.gradient(unit, sample)
    assert value[0] == right_value[0]
    assert torch.isinf(value[1])
    torch.testing.assert_close(gradient[0], right_gradient[0])
    assert (gradient[1] == 0).all()
    assert torch.isinf(fails.linearize(unit, sample)[0]).tolist() == [False, True]
    misfit, explained = fails.misfit(unit, sample)
    assert misfit.isnan().tolist() == [False, True]
    assert not explained[1]


def test_what_lies_after_the_last_reading_is_not_simulated():
    simulator = ODESimulator(lotka_volterra())
    objective = make_objective(simulator)
    early = objective.readings.clone()
    early[:, 5:] = torch.nan
    shorter = Objective(simulator, early, objective.noise_std, objective.tolerance)
    assert shorter._model.n_times_ == 5
    unit = torch.full((3, 4), 0.5, dtype=torch.float64)
    value, *_ = shorter.linearize(unit, torch.arange(3))
    torch.testing.assert_close(value, shorter.value(unit, torch.arange(3)))


def test_the_horizon_grows_by_observed_times_to_all_of_them():
    objective = make_objective(ODESimulator(lotka_volterra()), share=1.0)
    stages = growing_horizons(objective, n_params=4)
    n_times = [(~s.readings.isnan()).any(dim=2).sum(dim=1) for s, _ in stages]
    # Twice four params from two channels need four of the 21 times.
    assert [n.tolist() for n in n_times] == [[4] * 3, [8] * 3, [16] * 3, [21] * 3]
    unit = torch.full((3, 4), 0.5, dtype=torch.float64)
    assert all(knows_more.all() for _, knows_more in stages)
    for stage, _ in stages:
        stage.value(unit, torch.arange(3))
    assert objective.n_forward.tolist() == [4, 4, 4]


def test_another_box_is_mapped_with_its_derivative(decay):
    model = decay(scale="log10")
    other = ParamScaler([[0.6, 1.5], [0.2, 2.0]])
    boxed = Boxed(model, other)
    unit = torch.tensor([[0.3, 0.7]], dtype=torch.float64)
    trajectories, jacobian = boxed.linearize(unit)
    np.testing.assert_allclose(
        trajectories.detach(), model.simulate(other.to_physical(unit.numpy()))
    )
    for j in range(2):
        step = torch.zeros_like(unit)
        step[:, j] = 1e-6
        up, down = (boxed.forward(unit + s) for s in (step, -step))
        torch.testing.assert_close(
            jacobian[..., j], (up - down) / 2e-6, rtol=1e-7, atol=1e-9
        )
