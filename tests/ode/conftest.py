"""How a trace is told right from wrong."""

import numpy as np
import pytest
import torch

from sklearn_inverse.ode._rhs import rowwise_jacobian


def points(n=6, n_states=4, n_params=4, seed=0):
    """Draw times, states and params."""
    rng = np.random.default_rng(seed)
    shapes = (n,), (n, n_states), (n, n_params)
    return [torch.as_tensor(rng.uniform(0.1, 2.5, shape)) for shape in shapes]


def evaluate(graph, nodes, t, y, p):
    variables = {"t": t[:, None], "y": y, "p": p}
    columns = graph.evaluate(
        nodes.ravel().tolist(), {k: np.asarray(x) for k, x in variables.items()}
    )
    columns = [np.broadcast_to(column, len(t)) for column in columns]
    return torch.as_tensor(np.stack(columns, axis=-1))


def jacobian(graph, nodes, t, y, p, by):
    n = (y if by == "y" else p).shape[1]
    seeds = {graph.variable(by, j): {j: graph.constant(1)} for j in range(n)}
    slopes = graph.differentiate(nodes.ravel().tolist(), seeds)
    flat = np.array([s.get(j, graph.constant(0)) for s in slopes for j in range(n)])
    return evaluate(graph, flat, t, y, p).reshape(len(t), -1, n)


def assert_is(traced, rhs, fresh, rtol=1e-9):
    """Compare a trace with the function, and their Jacobians, where those are finite."""
    t, y, p = fresh

    def assert_close(found, expected):
        scale = expected.nan_to_num().abs().flatten(1).amax(1)
        expected = expected.reshape(found.shape)
        allowed = (rtol * scale).reshape(-1, *[1] * (found.ndim - 1)) + 1e-14
        good = (found - expected).abs() <= allowed
        assert (good | (found == expected) | ~expected.isfinite()).all()

    assert_close(evaluate(*traced, *fresh), rhs(*fresh).detach())
    by_state = rowwise_jacobian(lambda y: rhs(t, y, p), y)
    assert_close(jacobian(*traced, *fresh, "y"), by_state.detach())
    by_param = rowwise_jacobian(lambda p: rhs(t, y, p), p)
    assert_close(jacobian(*traced, *fresh, "p"), by_param.detach())


@pytest.fixture(name="points")
def _points():
    return points


@pytest.fixture(name="evaluate")
def _evaluate():
    return evaluate


@pytest.fixture(name="jacobian")
def _jacobian():
    return jacobian


@pytest.fixture(name="assert_is")
def _assert_is():
    return assert_is
