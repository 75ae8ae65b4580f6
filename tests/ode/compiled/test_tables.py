"""Loops over tables compute what straight-line code does, of models of any size."""

import numpy as np
import pytest
import torch

pytest.importorskip("numba")

from sklearn_inverse.ode import solve_ivp
from sklearn_inverse.ode.compiled import (
    Graph,
    Untraceable,
    _graph,
    _model,
    _shapes,
    compile_function,
)
from sklearn_inverse.ode.compiled._kernel import Kernel
from sklearn_inverse.ode.compiled._tables import TableWriter
from sklearn_inverse.ode.compiled._trace import trace
from sklearn_inverse.ode.compiled._vectors import LANES
from sklearn_inverse.problems import pollu

N = 9
N_SAMPLES = LANES + 3


def ring(t, y, p):
    """Neighbors, what all share, numbers that differ, branches, the time."""
    left, right = y.roll(1, 1), y.roll(-1, 1)
    flow = p[:, :1] * (left - 2 * y + right) * torch.linspace(0.5, 1.5, N).double()
    shared = torch.exp(-(y.sum(1, keepdim=True) ** 2))
    power = torch.minimum(y, 5 * p[:, 2:]) ** p[:, 1:2]
    cube = (left - right) ** 3
    bent = torch.where((left > right) & (y > 0), cube, 0.3 * cube)
    return flow - shared * power + bent + 0.1 * torch.sin(t)[:, None]


def steady(t, y, p):
    """Nothing in sight of the time, and a rate that is another's, or none at all."""
    flow = p[:, :1] * y[:, :1]
    return torch.cat([-flow, flow, 0 * p[:, :1], y[:, 1:2]], 1)


def problem(name):
    """Return a function that makes kernels, and what they are to solve."""
    rng = np.random.default_rng(0)
    if name == "pollu":
        system = pollu()
        params = system.nominal * rng.uniform(0.5, 1.5, (N_SAMPLES, system.n_params))
        y0 = system.initial_state(torch.as_tensor(params)).numpy().copy()
        graph, nodes = trace_of(system.kinetics, y0, params)
        return graph, nodes, y0, params, np.array([0.0, 1.0, 60.0])
    rhs, n, n_params = {"ring": (ring, N, 3), "steady": (steady, 4, 1)}[name]
    y0 = rng.uniform(0.2, 1, (N_SAMPLES, n))
    params = rng.uniform(0.5, 1.5, (N_SAMPLES, n_params))
    return *trace_of(rhs, y0, params), y0, params, np.array([0.0, 0.3, 2.0])


def trace_of(rhs, y0, params):
    point = [torch.as_tensor(x[:3]) for x in (np.zeros(N_SAMPLES), y0, params)]
    graph, nodes = trace(rhs, point)
    return graph, nodes.tolist()


def solve(graph, nodes, y0, params, t):
    kernel = Kernel(graph, nodes, params.shape[1])
    tangents = np.zeros((*y0.shape, params.shape[1]))
    options = {"rtol": 1e-9, "atol": 1e-20, "max_steps": 5000}
    return kernel.solve(t, y0, params, y0_tangents=tangents, **options)


@pytest.mark.parametrize("size", [_shapes.SIZES[0], 1])
@pytest.mark.parametrize("name", ["ring", "steady", "pollu"])
def test_tables_agree_with_straight_line_code(name, size, monkeypatch, tmp_path):
    graph, nodes, y0, params, t = problem(name)
    want = solve(graph, nodes, y0, params, t)
    monkeypatch.setenv("SKLEARN_INVERSE_CACHE", str(tmp_path))
    monkeypatch.setattr(_model, "LARGE", 0)
    monkeypatch.setattr(_shapes, "SIZES", (size,))
    monkeypatch.setattr(_shapes, "SHARED", min(size, _shapes.SHARED))
    got = solve(graph, nodes, y0, params, t)
    assert (got["status"] == 0).all()
    for key in ("y", "sensitivities"):
        scale = np.abs(want[key]).max((0, 1)) + 1e-300
        assert (np.abs(got[key] - want[key]) / scale).max() < 1e-7, key
    for i in range(0, N_SAMPLES, 4):  # nor does company change a bit
        alone = solve(graph, nodes, y0[[i]], params[[i]], t)
        np.testing.assert_array_equal(alone["y"], got["y"][[i]])
        np.testing.assert_array_equal(alone["sensitivities"], got["sensitivities"][[i]])


def diffusion(t, y, p):
    """Diffuse along a line with zero at both ends."""
    edge = torch.zeros_like(y[:, :1])
    wide = torch.cat([edge, y, edge], 1)
    scale = p * (y.shape[1] + 1) ** 2
    return scale * (wide[:, 2:] - 2 * y + wide[:, :-2])


def test_code_does_not_grow_with_the_model(monkeypatch):
    def n_operations(n):
        y, one = torch.rand(1, n).double(), torch.ones(1, 1).double()
        model = compile_function(diffusion, one[0], y, one).model
        writer = TableWriter(model, model.lay_out(with_tangents=True))
        for name in ("rhs", "slopes", "factorize", "solve", "curves", "sources"):
            writer.write(name, getattr(writer, name))
        return writer.n_operations

    monkeypatch.setattr(_model, "LARGE", 0)
    assert n_operations(40) == n_operations(80) < 100


def test_thousands_of_states():
    n, rate, end = 3000, 0.5, 0.1
    x = np.linspace(0, 1, n + 2)[1:-1]
    modes = np.sin(np.pi * np.outer([1, 3], x))
    values = -4 * ((n + 1) * np.sin(np.pi * np.array([1, 3]) / (2 * (n + 1)))) ** 2
    solution = solve_ivp(
        diffusion, [0.0, end], modes.sum(0)[None], [[rate]], atol=1e-8,
        sensitivities=True, backend="compiled",
    )  # fmt: skip
    decay = np.exp(rate * end * values)
    np.testing.assert_allclose(solution.y[0, -1], decay @ modes, rtol=1e-5, atol=1e-7)
    by_rate = (end * values * decay) @ modes
    off = solution.sensitivities[0, -1, :, 0].numpy() - by_rate
    assert np.abs(off).max() < 1e-5 * np.abs(by_rate).max()


@pytest.mark.parametrize("n", [2, 1500])
def test_derivatives_of_any_number_of_states_are_checked(n, monkeypatch):
    point = (
        torch.zeros(1).double(),
        torch.rand(1, n).double(),
        torch.ones(1, 1).double(),
    )
    compile_function(lambda t, y, p: torch.tanh(y), *point)
    monkeypatch.setattr(Graph, "_slope", lambda graph, *_: graph.constant(1))
    with pytest.raises(Untraceable, match="derivatives are not"):
        compile_function(lambda t, y, p: torch.tanh(y), *point)


def test_what_is_too_large_says_why(monkeypatch):
    def dense(t, y, p):
        return -y * y.sum(1, keepdim=True)

    point = (
        torch.zeros(1).double(),
        torch.rand(1, 20).double(),
        torch.zeros(1, 0).double(),
    )
    for module, limit, reason in (
        (_model, "MAX_UPDATES", "factors of its Jacobian"),
        (_graph, "MAX_SLOPES", "derivatives"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, limit, 300)
            with pytest.raises(Untraceable, match=reason):
                compile_function(lambda *x: dense(*x), *point)
    assert compile_function(dense, *point).model.n_states == 20
