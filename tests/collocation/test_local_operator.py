"""Residuals, their gradients and what is measured have exact derivatives by params."""

import threading
import warnings

import numpy as np
import pytest
import torch

from sklearn_inverse.collocation._equations import error_of_residual
from sklearn_inverse.probability import Normal
from sklearn_inverse.problems import pollu


def difference(function, theta, j, step=1e-6):
    axis = step * torch.eye(theta.shape[1], dtype=theta.dtype)[j]
    return (function(theta + axis) - function(theta - axis)) / (2 * step)


@pytest.mark.parametrize("time_scale", ["linear", "log"])
def test_residual_gradient_is_the_total_derivative(make, time_scale):
    # Initial states and the right-hand side depend on params, one of them by its log.
    operator, _, theta = make.operate(
        make.forced(), [1.0, 1.0], time_scale=time_scale, onset=0.05
    )
    layers = operator.net.initial_layers()
    residual, gradient = operator.residual(layers, theta)
    assert residual.shape == (1, 51, 2)
    for j in range(2):
        expected = difference(lambda x: operator.residual(layers, x)[0], theta, j)
        torch.testing.assert_close(gradient[:, j], expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("train_embedding", [False, True])
@pytest.mark.parametrize("is_sum", [False, True])
def test_jacobian_is_that_of_the_observables(make, is_sum, train_embedding):
    # Observables, the initial state and the network all depend on params.
    observe = {"sum": lambda t, y, p: p.a * y.u + y.v, "v": "v"} if is_sum else None
    operator, _, theta = make.operate(
        make.forced(observe=observe), [1.0, 1.0], train_embedding=train_embedding
    )
    layers = make.vary(operator.net.initial_layers(), 2)
    theta = torch.cat([theta, theta + 0.1])
    observables, jacobian = operator.linearize(layers, theta)
    torch.testing.assert_close(observables, operator.observables(layers, theta))
    for j in range(2):
        expected = difference(lambda x: operator.observables(layers, x), theta, j)
        torch.testing.assert_close(jacobian[..., j], expected, rtol=1e-6, atol=1e-8)


def test_errors_of_residuals_are_those_of_decaying_states():
    t = np.linspace(0, 2, 401)
    decay = np.stack([0 * t, 3 + 0 * t, 1e6 + 0 * t], axis=1)
    lasting, decaying, fast = error_of_residual(t, decay) @ np.ones_like(t)
    np.testing.assert_allclose(lasting, t, atol=1e-12)
    np.testing.assert_allclose(decaying, (1 - np.exp(-3 * t)) / 3, atol=2e-3)
    np.testing.assert_allclose(fast[2:], 1e-6, rtol=1e-3)


def test_initial_state_is_met_exactly(make):
    operator, _, theta = make.operate(make.forced(), [1.3, 1.0])
    states = operator.solution(operator.net.initial_layers(), [[0.0]], theta)
    np.testing.assert_allclose(states[0, 0].numpy(), [1.3, 1.0], rtol=1e-12)


def test_samples_are_independent(make):
    operator, _, _ = make.operate(make.forced(), [1.0, 1.0])
    layers = make.vary(operator.net.initial_layers(), 3)
    theta = torch.tensor([[0.2, 0.3], [0.5, 0.5], [0.9, 0.1]], dtype=torch.float64)
    together = operator.operator_loss(layers, theta, 0.1)
    for i in range(3):
        one = slice(i, i + 1)
        alone = operator.operator_loss([x[one] for x in layers], theta[one], 0.1)
        torch.testing.assert_close(alone[0], together[i], rtol=1e-10, atol=0)


def test_params_of_the_noise_do_not_reach_the_network(make):
    # One that the dynamics use too does.
    system = make.forced(
        params={"sigma": (0.1, 1.0)}, noise=[Normal("sigma"), Normal("b")]
    )
    operator, _, theta = make.operate(system, [1.0, 1.0, 0.5])
    _, gradient = operator.residual(operator.net.initial_layers(), theta)
    assert gradient[:, :2].any(dim=2).all()
    assert not gradient[:, 2].any()


def test_concentrations_of_pollu_do_not_underflow_in_single_precision(make):
    system = pollu()
    losses = []
    for dtype in (torch.float32, torch.float64):
        operator, _, theta = make.operate(
            system, system.nominal, dtype=dtype, time_scale="log", onset=1e-3
        )
        layers = [x.requires_grad_() for x in operator.net.initial_layers()]
        loss = operator.operator_loss(layers, theta.to(dtype), 0.1)
        loss.sum().backward()
        assert (operator.scale > 0).all()
        assert all((x.grad != 0).any(dim=1).all() for x in layers[-1:])
        losses.append(float(loss.detach()))
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_threads_get_the_same_and_leave_no_warning_filter(make):
    operator, _, theta = make.operate(make.forced(), [1.0, 1.0])
    layers = operator.net.initial_layers()
    expected = operator.operator_loss(layers, theta, 0.1)
    filters, found = list(warnings.filters), []

    def work():
        found.extend(operator.operator_loss(layers, theta, 0.1) for _ in range(20))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 80
    assert all(torch.equal(loss, expected) for loss in found)
    assert warnings.filters == filters
