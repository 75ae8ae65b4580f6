"""Partial differential equations at points: exact derivatives, conditions, functions."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sklearn_inverse import PDESystem, PointValues
from sklearn_inverse.collocation import Bilevel, LocalNetwork
from sklearn_inverse.collocation._bilevel import Search
from sklearn_inverse.collocation._equations import Solution, as_equations
from sklearn_inverse.collocation._local_operator import LocalOperator
from sklearn_inverse.collocation._places import Places
from sklearn_inverse.probability import GaussianFunction, LogUniform, Normal
from sklearn_inverse.problems import fisher_kpp
from sklearn_inverse.systems import FiniteDifferences

NODES = 7


def mixed(**options):
    """Return a system with functions in equation and start, and two scalars."""

    def residual(x, u, p):
        return u.t - (p.D * u.x).x - p.a * np.sin(x.x) * u**2 - p[1] * p.f * p.g

    smooth = GaussianFunction(NODES, order=2, ends=(1, 1), link="exp")
    given = {
        "domain": {"x": (0, 1), "t": (0, 2)},
        "residual": residual,
        "constraint": lambda x, n, p: p.f * x.x * (1 - x.x) * (1 + n * x.t),
        "params": {
            "a": (0.5, 2),
            "b": LogUniform(0.1, 1),
            "D": smooth,
            "f": GaussianFunction(NODES, order=2),
            "g": GaussianFunction(NODES, order=2, interval=(0, 2), over="t"),
        },
        "observe": PointValues([0.3, 0.5, 0.9], t=[1.0, 2.0]),
        "noise": 0.01,
        "grid": FiniteDifferences(21),
    }
    return PDESystem(**given | options)


def plane(**options):
    """Return a system in the plane with functions of one coordinate and of two."""

    def residual(x, u, p):
        flow = (p.D * u.x).x + (p.D * u.y).y + p.a * u.xy
        return flow - p.D.xy * u**2 + p[0] * p.f * x.y

    given = {
        "domain": {"x": (0, 2), "y": (-1, 1)},
        "residual": residual,
        "constraint": lambda x, n, p: p.f + n * x.x * (2 - x.x) * (x.y + 1) * (1 - x.y),
        "params": {
            "a": (0.5, 2),
            # The second coordinate first; known at the border.
            "D": GaussianFunction(
                (5, 6),
                order=2,
                ends=1.0,
                link="exp",
                interval=((-1, 1), (0, 2)),
                over="yx",
            ),
            "f": GaussianFunction(NODES, order=2, interval=(0, 2), over="x"),
        },
        "observe": PointValues([0.3, 0.5, 1.9], y=[0.0, 0.4, -0.8]),
        "noise": 0.01,
        "grid": {"x": FiniteDifferences(9), "y": FiniteDifferences(11)},
    }
    return PDESystem(**given | options)


def heated(**options):
    """Return a plane with time, and a function of all but one coordinate."""
    given = {
        "domain": {"t": (0, 1), "x": (0, 2), "y": (-1, 1)},
        "residual": lambda x, u, p: u.t - p.a * (u.xx + u.yy) - p[0] * p.f,
        "constraint": lambda x, n: (
            x.x * (2 - x.x) * (x.y + 1) * (1 - x.y) * (1 + n * x.t)
        ),
        "params": {
            "a": (0.05, 0.2),
            "f": GaussianFunction(
                (5, 6), order=2, interval=((-1, 1), (0, 1)), over="yt"
            ),
        },
        "observe": PointValues([0.3, 0.5, 1.9], y=[0.0, 0.4, -0.8], t=[0.5, 1.0]),
        "noise": 0.01,
        "grid": {"x": FiniteDifferences(7), "y": FiniteDifferences(6)},
    }
    return PDESystem(**given | options)


SYSTEMS = [mixed, plane, heated]


def operate(system, mode, seed=0, **network):
    network = LocalNetwork(**{"width": 8, "n_collocation": 12} | network)
    params = system.prior.median
    unit, values = as_equations(system, network).solve(params[None])
    solution = Solution(params, unit, values[0])
    options = {"functions": mode, "seed": seed, "dtype": torch.float64}
    operator = LocalOperator(system, solution, network, **options)
    theta = torch.as_tensor(system.prior.scaler.to_scaled(params[None]))
    noise = torch.Generator().manual_seed(3)
    theta = theta + 0.05 * torch.randn(2, theta.shape[1], generator=noise).double()
    layers = [x.repeat(2, 1, 1) for x in operator.net.initial_layers()]
    layers = [x + 0.1 * torch.randn(x.shape, generator=noise).double() for x in layers]
    return operator, layers, theta


def difference(function, theta, j, step=1e-5):
    axis = step * torch.eye(theta.shape[1], dtype=theta.dtype)[j]
    return (function(theta + axis) - function(theta - axis)) / (2 * step)


@pytest.mark.parametrize("system", SYSTEMS)
def test_residual_gradient_is_the_total_derivative(system):
    # By whitened coefficients of the functions, all of which the network is told.
    operator, layers, theta = operate(system(), "basis")
    residual, gradient = operator.residual(layers, theta)
    assert residual.shape == (2, 12, 1)
    by_theta = torch.einsum("sqni,qp->spni", gradient, operator._told.to)
    for j in range(theta.shape[1]):
        expected = difference(lambda x: operator.residual(layers, x)[0], theta, j)
        torch.testing.assert_close(by_theta[:, j], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("mode", ["basis", "local"])
def test_jacobian_is_that_of_the_observables(mode, system):
    # With "local" too: a network that is told f(x) depends on f there, and only there.
    system = system()
    operator, layers, theta = operate(system, mode)
    observables, jacobian = operator.linearize(layers, theta)
    assert observables.shape == (2, len(system._times), 3)
    torch.testing.assert_close(observables, operator.observables(layers, theta))
    for j in range(theta.shape[1]):
        expected = difference(lambda x: operator.observables(layers, x), theta, j)
        torch.testing.assert_close(jacobian[..., j], expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("mode", ["basis", "local", None])
def test_hard_conditions_hold_for_any_network(mode):
    operator, layers, theta = operate(mixed(), mode)
    edge = [[0.0, 0.4], [1.0, 0.9], [0.5, 0.0]]
    u = operator.solution(layers, edge, theta)[..., 0]
    assert u[:, :2].abs().max() < 1e-14
    points = operator.equations.points(edge, dtype=torch.float64)
    places = Places(points, operator._told, operator.equations.scales, theta)
    start = places.functions["f"].unflatten(0, (2, 3))[:, 2] / 4
    torch.testing.assert_close(u[:, 2], start.detach())


def test_functions_and_their_derivatives_are_those_of_a_cubic():
    # (D u')' of D = 1 + x - x³ and u = x(1 - x) t, at nodes of D where a cubic is exact.
    system = mixed(
        residual=lambda x, u, p: u.t - (p.D * u.x).x - 1,
        constraint=lambda x, n: x.x * (1 - x.x) * x.t * (1 + n),
        params={"D": GaussianFunction(NODES, order=2, ends=(1, 1))},
    )
    operator, _, _ = operate(system, None)
    nodes = np.linspace(0, 1, NODES)
    params = system.prior.median.copy()
    params[system.prior.groups["D"]] = (1 + nodes - nodes**3)[1:-1]
    theta = torch.as_tensor(system.prior.scaler.to_scaled(params[None]))
    points = operator.equations.points([[0.3, 0.2], [0.77, 0.9]], dtype=torch.float64)
    places = Places(points, operator._told, operator.equations.scales, theta)
    zero = 0 * places.unit["x"][:, None]
    u = operator.equations.state(zero, places)
    residual = operator.equations.residual(zero, u, places) * operator.equations._size
    x, t = np.array([0.3, 0.77]), 2 * np.array([0.2, 0.9])
    expected = x * (1 - x) - 1 - t * ((1 - 3 * x**2) * (1 - 2 * x) - 2 * (1 + x - x**3))
    np.testing.assert_allclose(residual[:, 0].detach().numpy(), expected, rtol=1e-9)


def test_functions_of_two_coordinates_are_products_of_cubics():
    # -(A u_x)_x - (A u_y)_y - A_xy of u = x(1-x)y(1-y) and A = 1 + x y², a cubic's.
    shape = (5, 6)
    system = PDESystem(
        {"x": (0, 1), "y": (0, 1)},
        lambda x, u, p: (p.A * u.x).x + (p.A * u.y).y + p.A.xy,
        constraint=lambda x, n: x.x * (1 - x.x) * x.y * (1 - x.y) * (1 + n),
        params={"A": GaussianFunction(shape, order=2, over="xy")},
        observe=PointValues([0.3], y=[0.4]),
        noise=0.01,
        grid=FiniteDifferences(9),
    )
    operator, _, _ = operate(system, None)
    x, y = np.meshgrid(*system.params["A"].nodes, indexing="ij")
    theta = system.prior.scaler.to_scaled((1 + x * y**2).ravel()[None])
    x, y = np.array([[0.3, 0.77], [0.2, 0.9]])
    unit = np.stack([x, y], axis=1)
    points = operator.equations.points(unit, dtype=torch.float64)
    scales = operator.equations.scales
    places = Places(points, operator._told, scales, torch.as_tensor(theta))
    zero = 0 * places.unit["x"][:, None]
    u = operator.equations.state(zero, places)
    residual = operator.equations.residual(zero, u, places) * operator.equations._size
    v, w = x * (1 - x), y * (1 - y)
    slope = y**2 * (1 - 2 * x) * w + 2 * x * y * (1 - 2 * y) * v
    expected = slope - 2 * (1 + x * y**2) * (v + w) + 2 * y
    np.testing.assert_allclose(residual[:, 0].detach().numpy(), expected, rtol=1e-8)


@pytest.mark.parametrize("system", [mixed(), plane(grid=FiniteDifferences(23))])
def test_exact_solutions_are_where_they_are_said_to_be(system):
    equations = as_equations(system, LocalNetwork())
    unit, values = equations.solve(system.prior.median[None])
    at = {
        a: scale.to_value(unit[:, i])
        for i, (a, scale) in enumerate(equations.scales.items())
    }
    times = np.unique(at.get("t", 0.0))
    u = system.solve(system.prior.median, times).reshape(-1, *system.shape)
    places = [np.searchsorted(times, at.get("t", 0.0 * unit[:, 0]) - 1e-9)]
    places += [np.searchsorted(g.nodes, at[a] - 1e-9) for a, g in system.grids.items()]
    np.testing.assert_array_equal(u[tuple(places)], values[0, :, 0])
    assert unit.shape == (values.shape[1], len(system.domain))


def test_samples_are_independent():
    operator, layers, theta = operate(mixed(), "basis")
    together = operator.operator_loss(layers, theta, 0.1)
    for i in range(2):
        one = slice(i, i + 1)
        alone = operator.operator_loss([x[one] for x in layers], theta[one], 0.1)
        torch.testing.assert_close(alone[0], together[i], rtol=1e-10, atol=0)


@pytest.mark.parametrize(("functions", "expected"), [(False, 1 / 8), (True, 1 / 2)])
def test_numbers_wait_longer_than_values_of_functions(functions, expected):
    """A network twice as bad as allowed holds params back, by a step of size one."""
    system = plane() if functions else fisher_kpp()
    operator, layers, theta = operate(system, "basis")
    layers, theta = [x[:1] for x in layers], theta[:1]
    loss = operator.operator_loss(layers, theta, 0.1).item()
    moves = []
    for allowed in (loss / 2, loss * 2):
        upper = SimpleNamespace(
            model=SimpleNamespace(),
            n_params=theta.shape[1],
            low=theta - 1,
            high=theta + 1,
            is_open=torch.zeros(theta.shape[1], dtype=torch.bool),
            gradient=lambda x, rows: (None, torch.ones_like(x)),
        )
        descent = Bilevel("adam", lower_tol=allowed)
        search = Search(operator, upper, theta, layers, descent, 0.1)
        search.step(1.0)
        moves.append((search.now.x - theta)[0, 0].item())
    assert moves[0] / moves[1] == pytest.approx(expected)


def test_points_differ_from_step_to_step_and_come_again():
    equations = operate(mixed(), "basis")[0].equations
    assert not np.allclose(equations.batch(0), equations.batch(1))
    np.testing.assert_array_equal(equations.batch(0), equations.batch(0))


def test_params_of_the_noise_do_not_reach_the_network():
    params = mixed().params | {"sigma": (0.1, 1.0)}
    operator, layers, theta = operate(
        mixed(params=params, noise=Normal("sigma")), "basis"
    )
    _, gradient = operator.residual(layers, theta)
    assert operator.idle.tolist() == [False] * (theta.shape[1] - 1) + [True]
    assert not gradient[:, -1].any()
