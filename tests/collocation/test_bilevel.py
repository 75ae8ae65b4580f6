"""Params move as the exact gradient says, and networks follow them."""

import numpy as np
import pytest
import torch

from sklearn_inverse import ODESimulator
from sklearn_inverse.collocation import Bilevel
from sklearn_inverse.collocation._bilevel import fine_tune
from sklearn_inverse.collocation._local_operator import LocalOperator
from sklearn_inverse.collocation._pretraining import pretrain
from sklearn_inverse.inverse._collocated import NetworkModel
from sklearn_inverse.inverse._objective import Objective
from sklearn_inverse.optim._soap import StackedAdam


def objective_of(operator, readings, noise_std, layers, weighs_prior=True):
    """Return the upper loss of readings, through networks with given layers."""
    exact = ODESimulator(operator.system)
    model = NetworkModel(operator, exact, np.zeros(operator.system.n_channels))
    model.layers = layers
    return Objective(
        model,
        operator.system.noise,
        readings,
        weighs_prior=weighs_prior,
        noise_std=torch.full_like(readings, noise_std),
    )


@pytest.mark.parametrize(
    ("name", "params", "truth"),
    [
        ("growth", [1.5], [2.0]),
        ("logistic", [3.0], [2.0]),
        ("forced", [1.0, 1.0], [0.8, 1.5]),
    ],
)
@pytest.mark.parametrize("weight", [0.1, 0.0])
def test_upper_gradient_is_that_of_the_sensitivities(make, name, params, truth, weight):
    # The theorem of the paper: exact where the lower level is solved, and only with the
    # residual's gradient in it.
    system = getattr(make, name)()
    operator, solution, theta = make.operate(system, params, width=16, n_collocation=21)
    layers = pretrain(operator, theta, solution, max_iter=250, gradient_weight=weight)
    readings = make.solve(system, truth)
    theta.requires_grad_()
    misfit = operator.observables(layers, theta) - torch.as_tensor(readings)
    (gradient,) = torch.autograd.grad(misfit.square().sum() / 2, theta)

    simulator = ODESimulator(system, rtol=1e-9)
    misfit = simulator.simulate([params]) - readings
    expected = np.einsum("stc,stcp->p", misfit, simulator.sensitivities([params]))
    slope = operator.scaler.slope_tensor(torch.tensor(params).double()).numpy()
    error = np.linalg.norm(gradient[0].numpy() / slope / expected - 1)
    assert error < 0.03 if weight else error > 0.1


@pytest.mark.parametrize("weighs_prior", [True, False])
def test_gauss_newton_finds_the_optimum_of_a_frozen_network(make, weighs_prior):
    # With weights that stand still, the upper level is an ordinary fit with a prior.
    operator, _, theta0 = make.operate(make.forced(), [1.0, 1.0], width=8)
    layers = operator.net.initial_layers()
    truth = torch.tensor([[0.45, 0.6]], dtype=torch.float64)
    readings = operator.observables(layers, truth)
    upper = objective_of(operator, readings, 0.03, layers, weighs_prior)
    descent = Bilevel(max_iter=120, lr_net=1e-30, lr_params=0.5, lower_tol=1e9)
    found = fine_tune(operator, upper, theta0, layers, descent, gradient_weight=0.1)
    value, gradient, _ = upper.linearize(found.x, torch.tensor([0]))
    assert gradient.abs().max() < 1e-6 * max(1.0, float(value))
    assert (found.x - truth).abs().max() < (0.1 if weighs_prior else 1e-6)


def test_params_outside_stop_at_the_bound(make):
    operator, solution, theta0 = make.operate(make.growth(), [3.95], width=16)
    layers = pretrain(operator, theta0, solution, max_iter=150, gradient_weight=0.1)
    readings = torch.as_tensor(make.solve(make.growth(), [[4.5]]))
    upper = objective_of(operator, readings, 1.0, layers, weighs_prior=False)
    descent = Bilevel(max_iter=60)
    found = fine_tune(operator, upper, theta0, layers, descent, gradient_weight=0.1)
    assert found.x.tolist() == [[1.0]]


@pytest.mark.parametrize("params_optimizer", ["gauss_newton", "adam"])
def test_samples_are_independent(make, params_optimizer):
    system = make.forced()
    operator, _, theta0 = make.operate(system, [1.0, 1.0], width=8)
    layers = operator.net.initial_layers()
    readings = torch.as_tensor(make.solve(system, [[0.7, 0.5], [1.2, 2.0]]))
    descent = Bilevel(params_optimizer, max_iter=20)

    def tune(some):
        upper = objective_of(operator, readings[some], 1.0, layers)
        start = theta0.repeat(len(readings[some]), 1)
        return fine_tune(operator, upper, start, layers, descent, gradient_weight=0.1)

    both = tune(slice(2))
    assert not torch.equal(both.x[0], both.x[1])
    for i in range(2):
        alone = tune(slice(i, i + 1))
        torch.testing.assert_close(alone.x[0], both.x[i], rtol=1e-6, atol=0)


def test_who_has_settled_does_not_hold_up_the_others(make):
    operator, solution, theta0 = make.operate(make.growth(), [2.25], width=16)
    layers = pretrain(operator, theta0, solution, max_iter=100, gradient_weight=0.1)
    readings = torch.as_tensor(make.solve(make.growth(), [[2.25], [2.9]]))
    upper = objective_of(operator, readings, 0.1, layers)
    descent = Bilevel(max_iter=1000, tol=5e-3)
    start = theta0.repeat(2, 1)
    found = fine_tune(operator, upper, start, layers, descent, gradient_weight=0.1)
    assert found.n_iter[0] != found.n_iter[1]
    assert found.settled.all()
    params = operator.scaler.from_scaled(found.x.numpy())
    np.testing.assert_allclose(params, [[2.25], [2.9]], rtol=0.01)


def test_what_waits_for_its_network_is_not_at_rest(make):
    operator, _, theta0 = make.operate(make.growth(), [1.0], width=8)
    layers = operator.net.initial_layers()
    readings = torch.as_tensor(make.solve(make.growth(), [[2.0]]))
    upper = objective_of(operator, readings, 0.1, layers)
    descent = Bilevel(max_iter=200, lr_net=1e-30, lower_tol=1e-6)
    found = fine_tune(operator, upper, theta0, layers, descent, gradient_weight=0.1)
    assert abs(found.x - theta0).max() < descent.tol
    assert not found.settled.any()


def test_a_network_that_diverges_has_not_settled(make):
    operator, _, theta0 = make.operate(make.growth(), [1.0], width=8)
    layers = operator.net.initial_layers()
    readings = torch.as_tensor(make.solve(make.growth(), [[2.0]]))
    upper = objective_of(operator, readings, 0.1, layers)
    descent = Bilevel(max_iter=100, lr_net=1e200)
    found = fine_tune(operator, upper, theta0, layers, descent, gradient_weight=0.1)
    assert not found.settled.any()
    assert not found.loss.isfinite().any()
    assert found.x.isfinite().all()


def press(*args):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("owner", "method"),
    [
        (LocalOperator, "operator_loss"),
        (LocalOperator, "linearize"),
        (LocalOperator, "observables"),
        (StackedAdam, "moves"),
    ],
)
def test_ctrl_c_keeps_the_last_whole_step(make, monkeypatch, owner, method):
    operator, solution, theta0 = make.operate(make.growth(), [1.0], width=8)
    layers = pretrain(
        operator, theta0, solution, max_iter=9, gradient_weight=0.1, progress=press
    )
    readings = torch.as_tensor(make.solve(make.growth(), [[2.0]]))
    upper = objective_of(operator, readings, 0.1, layers)
    by_gradient = owner is StackedAdam or method == "observables"
    calls, inner = 0, getattr(owner, method)
    last = 9 if owner is StackedAdam else 5  # two a step, or one

    def press_later(*args):
        nonlocal calls
        calls += 1
        return press() if calls == last else inner(*args)

    monkeypatch.setattr(owner, method, press_later)
    descent = Bilevel("adam" if by_gradient else "gauss_newton", max_iter=50)
    found = fine_tune(operator, upper, theta0, layers, descent, gradient_weight=0.1)
    assert found.n_iter.tolist() == [4]
    assert not found.settled.any()
    assert found.x > theta0
