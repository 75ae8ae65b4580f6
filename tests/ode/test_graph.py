"""A graph computes what NumPy does, and its derivatives are those of torch."""

import numpy as np
import pytest
import torch

from sklearn_inverse.ode.compiled._graph import BOOLEAN, OPERATIONS, Graph

RNG = np.random.default_rng(0)
TORCH = {
    "div": torch.divide,
    "and": torch.logical_and,
    "or": torch.logical_or,
    "not": torch.logical_not,
}
DIFFERENTIABLE = sorted(OPERATIONS.keys() - BOOLEAN)
N_ARGS = {"where": 3} | dict.fromkeys(("add", "sub", "mul", "div", "pow", "atan2"), 2)
HIGH = dict.fromkeys(("where", "asin", "acos"), 0.9)


def arguments(operation):
    """Draw arguments for which an operation is defined."""
    size = 7, N_ARGS.get(operation, 1)
    return torch.as_tensor(RNG.uniform(0.1, HIGH.get(operation, 2.0), size))


def by_torch(operation):
    function = TORCH.get(operation) or getattr(torch, operation)
    if operation == "where":
        return lambda x: torch.where(x[:, 0] < 0.5, x[:, 1], x[:, 2])
    return lambda x: function(*x.unbind(1))


def built(operation, n):
    """Return a graph of one operation on n variables, and its number."""
    graph = Graph()
    x = [graph.variable("x", i) for i in range(n)]
    if operation == "where":
        x[0] = graph.call("lt", x[0], graph.constant(0.5))
    return graph, graph.call(operation, *x)


def gradient(graph, node, n):
    """Return expressions of the derivatives by all variables."""
    seeds = {graph.variable("x", i): {i: graph.constant(1)} for i in range(n)}
    (slopes,) = graph.differentiate([node], seeds)
    return [slopes.get(i, graph.constant(0)) for i in range(n)]


def values(graph, nodes, x):
    columns = np.broadcast_arrays(*graph.evaluate(nodes, {"x": x.numpy()}), x[:, 0])
    return np.stack(columns[:-1], axis=-1)


def derivatives(function, x):
    x = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(function(x).sum(), x, create_graph=True)
    return slope, x


@pytest.mark.parametrize("operation", sorted(OPERATIONS))
def test_an_operation_computes_what_torch_does(operation):
    x = arguments(operation)
    if operation in BOOLEAN:
        x = torch.as_tensor(RNG.choice([0.0, 1.0], (7, 1 if operation == "not" else 2)))
    graph, node = built(operation, x.shape[1])
    expected = by_torch(operation)(x).numpy()
    np.testing.assert_allclose(values(graph, [node], x)[:, 0], expected, rtol=1e-14)


@pytest.mark.parametrize("operation", DIFFERENTIABLE)
def test_first_and_second_derivatives_are_those_of_torch(operation):
    x = arguments(operation)
    n = x.shape[1]
    graph, node = built(operation, n)
    first = gradient(graph, node, n)
    slope, at = derivatives(by_torch(operation), x)
    found = values(graph, first, x)
    np.testing.assert_allclose(found, slope.detach(), rtol=1e-12, atol=1e-14)
    for i in range(n):
        second = gradient(graph, first[i], n)
        expected = torch.zeros_like(x)
        if slope.requires_grad:
            expected = torch.autograd.grad(
                slope[:, i].sum(), at, retain_graph=True, materialize_grads=True
            )[0]
        found = values(graph, second, x)
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("exponent", [-8, -3, -0.5, 0, 0.5, 1, 1.5, 2, 3, 7, 8, 9, 20])
def test_powers_are_multiplied_out_or_not(exponent):
    graph = Graph()
    node = graph.call("pow", graph.variable("x", 0), graph.constant(exponent))
    uses_power = any(node[0] == "pow" for node in graph.nodes)
    assert uses_power == (exponent in (1.5, 9, 20))
    x = torch.tensor([[0.3], [1.0], [2.5]], dtype=torch.float64)
    found = values(graph, [node, *gradient(graph, node, 1)], x)
    slope, _ = derivatives(lambda x: x[:, 0] ** exponent, x)
    np.testing.assert_allclose(found[:, :1], x.numpy() ** exponent, rtol=1e-14)
    np.testing.assert_allclose(found[:, 1:], slope.detach(), rtol=1e-14)


@pytest.mark.parametrize("exponent", [0, 0.5, 1, 1.5, 2, 3, 12])
def test_powers_of_zero_have_the_slopes_of_torch(exponent):
    graph = Graph()
    zero = torch.zeros(1, 2, dtype=torch.float64)
    for exact in (True, False):
        x = torch.tensor([[0.0, exponent]], dtype=torch.float64)
        power = graph.constant(exponent) if exact else graph.variable("x", 1)
        node = graph.call("pow", graph.variable("x", 0), power)
        found = values(graph, gradient(graph, node, 2), x)
        y = torch.tensor(float(exponent)).double() if exact else None
        slope, _ = derivatives(
            lambda x, y=y: x[:, 0] ** (x[:, 1] if y is None else y), x
        )
        np.testing.assert_allclose(found, slope.detach() + zero)


@pytest.mark.parametrize("exponent", [np.inf, -np.inf, np.nan])
def test_odd_exponents_are_left_to_pow(exponent):
    graph = Graph()
    x = torch.tensor([[0.5], [2.0]], dtype=torch.float64)
    node = graph.call("pow", graph.variable("x", 0), graph.constant(exponent))
    np.testing.assert_array_equal(values(graph, [node], x), x.numpy() ** exponent)


def test_a_branch_that_is_not_taken_has_no_part_in_the_derivative():
    graph = Graph()
    x = graph.variable("x", 0)
    root = graph.call("sqrt", x)  # whose slope is infinite at zero
    choice = graph.call("where", graph.call("lt", graph.constant(0), x), root, x)
    found = values(graph, gradient(graph, choice, 1), torch.tensor([[0.0], [4.0]]))
    assert found.tolist() == [[1.0], [0.25]]


def test_constants_are_computed_at_once():
    graph = Graph()
    x, two, zero = graph.variable("x", 0), graph.constant(2), graph.constant(0)
    assert graph.value(graph.call("exp", zero)) == 1
    assert graph.value(graph.call("lt", zero, two)) == 1
    choice = graph.call("lt", two, zero)
    assert graph.call("where", choice, two, x) == x
    condition = graph.call("lt", x, two)
    assert graph.call("and", condition, graph.constant(1)) == condition
    assert graph.value(graph.call("and", condition, zero)) == 0
    assert graph.call("or", zero, condition) == condition
    assert graph.value(graph.call("or", two, condition)) == 1


def test_nothing_stands_twice():
    graph = Graph()
    x, y = graph.variable("x", 0), graph.variable("x", 1)
    assert graph.call("add", x, y) == graph.call("add", y, x)
    assert graph.call("sub", x, y) != graph.call("sub", y, x)
    assert graph.call("neg", graph.call("neg", x)) == x
    assert graph.call("mul", x, graph.constant(1)) == x
    assert graph.call("add", graph.constant(0), x) == x
    assert graph.constant(0.0) != graph.constant(-0.0)


def test_nothing_infinite_or_undefined_is_lost():
    graph = Graph()
    x = graph.variable("x", 0)
    nodes = [
        graph.call("mul", x, graph.constant(0)),
        graph.call("sub", x, x),
        graph.call("div", x, x),
        graph.call("div", x, graph.constant(0)),
        graph.call("div", x, graph.constant(2.0**-1074)),
        graph.call("div", x, graph.constant(np.inf)),
    ]
    at = torch.tensor([[0.0], [1e-20], [np.inf], [np.nan]], dtype=torch.float64)
    found, x = values(graph, nodes, at), at.numpy()[:, 0]
    with np.errstate(all="ignore"):
        expected = [x * 0, x - x, x / x, x / 0.0, x / 2.0**-1074, x / np.inf]
    np.testing.assert_array_equal(found, np.stack(expected, axis=-1))


def test_a_copy_grows_alone():
    graph = Graph()
    x = graph.variable("x", 0)
    other = graph.copy()
    assert other.call("exp", x) == 1
    assert (len(graph), len(other)) == (1, 2)
    assert graph.call("log", x) == 1
