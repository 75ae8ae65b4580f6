"""From a function of tensors to the graph of what it computes.

The function is run once more, on tensors of expressions (``_symbols``), which write down
each operation of torch. What it does besides cannot be seen, such as a choice by the shape
or a number from elsewhere: the graph is then compared with the function, and its
derivatives with torch's, at points that both have never seen.
"""

import linecache
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sklearn_inverse.ode.compiled._algebra import Untraceable
from sklearn_inverse.ode.compiled._graph import Graph
from sklearn_inverse.ode.compiled._symbols import CUT, Symbols, Tracer

__all__ = ["Untraceable", "trace"]

N_POINTS = 3  # at which the trace is checked, besides those that are given
SPREAD = 0.3  # of them, relative
RTOL = 1e-10  # of the terms of a sum; float32 would differ by 1e-7
SLACK = 1e-12  # of derivatives, relative to the mean slope from zero
TINY = 1e-300
MAX_VALUES = 1_000_000  # of expressions at points, to be kept at once
BY_COUNT = "the shape of what it returns depends on how many rows there are"
OTHERS = [Path(module.__file__ or "").parent for module in (torch, np)]
OTHERS.append(Path(__file__).parents[2])  # whose code is not the user's


def trace(
    function: Callable[..., Tensor],
    inputs: Sequence[Tensor],
    kinds: Sequence[str] = ("t", "y", "p"),
) -> tuple[Graph, np.ndarray]:
    """Write down what a function computes of each row of its inputs.

    Parameters
    ----------
    function : callable
        ``function(*inputs)`` of shape (n, …), row by row.

    inputs : sequence of Tensor of shape (n,) or (n, n_variables)
        Where the function is run, in double precision.

    kinds : sequence of str, default=("t", "y", "p")
        What the variables of each input are called in the graph.

    Returns
    -------
    graph : Graph
        Expressions of the variables.

    nodes : ndarray of int of shape (…)
        Which of them the function returns.

    Raises
    ------
    Untraceable
        If this is not possible, or what was written down computes something else.

    Notes
    -----
    Numbers that the function takes from elsewhere are what they are now. Nothing tells of
    a choice that it makes by the number of rows, or by the number of calls, if that comes
    out the same in all calls made here.
    """
    inputs = [x.detach() for x in inputs]
    result = _run(function, inputs)
    if any(x.dtype is not torch.float64 for x in (*inputs, result)):
        raise Untraceable("it does not compute in double precision")
    if result.shape[:1] != inputs[0].shape[:1]:
        raise Untraceable("it does not return one row for each of its inputs'")
    with _quiet():
        # What it keeps from one call to the next, by the shape too, is to be numbers.
        _run(function, [x[:1] for x in inputs])
        if not _same(_run(function, inputs), result):
            raise Untraceable("it returns something else each time")
        try:
            graph, nodes = _write_down(function, inputs, kinds)
        except Untraceable:
            _run(function, inputs)  # what it keeps of its last call is numbers again
            raise
        if nodes.shape != result.shape[1:]:
            raise Untraceable(BY_COUNT)
        _check(graph, nodes, function, inputs, kinds)
    return graph, nodes


def _run(function: Callable[..., Tensor], inputs: Sequence[Tensor]) -> Tensor:
    """Run the function on numbers, which it may overwrite."""
    result = function(*(x.clone() for x in inputs))
    if not isinstance(result, Tensor):
        raise Untraceable(f"it returns {type(result).__name__}, not a tensor")
    return result


@contextmanager
def _quiet() -> Iterator[None]:
    """Warn of nothing twice, and let no error out but our own."""
    with warnings.catch_warnings(), torch.inference_mode(False), torch.enable_grad():
        warnings.simplefilter("ignore")
        try:
            yield
        except Untraceable:
            raise
        except Exception as error:
            text = f"it fails by {type(error).__name__}: {error}"
            raise Untraceable(text + _line(error)) from error


def _write_down(function, inputs, kinds) -> tuple[Graph, np.ndarray]:
    """Run the function on one row of variables."""
    tracer = Tracer(inputs[0].device)
    rows = [tracer.variables(k, (1, *x.shape[1:])) for k, x in zip(kinds, inputs)]
    try:
        result = function(*rows)
    except Exception as error:
        text = tracer.reason or f"it fails by {type(error).__name__}: {error}"
        raise Untraceable(text + _line(error)) from error
    if tracer.reason:  # the function has caught our error
        raise Untraceable(tracer.reason)
    if not isinstance(result, Tensor) or result.dtype is not torch.float64:
        raise Untraceable("it returns something else on tensors that have no values")
    if isinstance(result, Symbols) and result.is_cut:
        raise Untraceable(CUT)
    nodes = tracer.nodes(result)
    if nodes.shape[:1] != (1,):
        raise Untraceable(BY_COUNT)
    tracer.reason = "it uses what it has kept from an earlier call"
    numbers = [tracer.algebra.as_number(i) for i in nodes.ravel().tolist()]
    return tracer.graph, np.reshape(np.array(numbers, int), nodes.shape)[0]


def _line(error: BaseException) -> str:
    """Return where in the user's code an error arose."""
    for frame, number in reversed(list(traceback.walk_tb(error.__traceback__))):
        path = Path(frame.f_code.co_filename)
        if not any(path.is_relative_to(other) for other in OTHERS):
            line = linecache.getline(str(path), number).strip()
            return f" (line {number}{f': `{line}`' if line else ''})"
    return ""


# -- is it the same function? -------------------------------------------------------------


def _check(graph, nodes, function, inputs, kinds) -> None:
    """Compare the graph with the function, and its derivatives with torch's."""
    rng = np.random.default_rng(0)
    places = np.linspace(0, len(inputs[0]) - 1, N_POINTS).astype(int)
    points = [_move(x[places], rng) for x in inputs]
    outputs = nodes.ravel().tolist()

    everywhere = [torch.cat(pair) for pair in zip(points, inputs)]
    result = _run(function, everywhere).detach()
    if result.shape != (len(everywhere[0]), *nodes.shape):
        raise Untraceable(BY_COUNT)
    values = _columns(result)
    variables = {k: _columns(x) for k, x in zip(kinds, everywhere)}
    if not _agree(graph, outputs, variables, values, np.zeros_like(values)):
        raise Untraceable("its values are not those of its trace")

    at = np.concatenate([_columns(x) for x in points], axis=1)
    directions = np.eye(at.shape[1])
    # All derivatives are seen in one where they, or copies of all outputs, are many.
    if max(at.shape[1], len(outputs)) * len(outputs) > MAX_VALUES:
        directions = abs(at[:1]) * rng.choice([-1.0, 1.0], at.shape[1])
    try:
        expected = _derivatives(function, points, directions)
    except RuntimeError:  # torch cannot differentiate it: nothing to compare with
        return
    work, slopes, variables = _slopes(graph, outputs, points, kinds, directions)
    with np.errstate(all="ignore"):
        # What saturates has slopes that torch computes from their difference to nothing.
        slack = abs(1 / at) @ abs(directions.T)
        slack = SLACK * slack[:, :, None] * abs(values[:N_POINTS, None])
    slack[~np.isfinite(expected + slack)] = np.inf
    expected, slack = (x.reshape(-1, len(outputs)) for x in (expected, slack))
    if not _agree(work, slopes, variables, expected, slack):
        raise Untraceable("its derivatives are not those of its trace")


def _move(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Return points nearby, with no entry at zero: there may be kinks."""
    size = x.abs().nan_to_num().amax(-1, keepdim=True) if x.numel() else x
    size = torch.where(size > 0, size, 1.0)
    by, to = (torch.as_tensor(rng.uniform(0, SPREAD, x.shape)).to(x) for _ in range(2))
    sign = torch.as_tensor(rng.choice([-1.0, 1.0], x.shape)).to(x)
    return torch.where(x == 0, to * size, x * (1 + sign * by))


def _columns(x: Tensor) -> np.ndarray:
    return x.reshape(len(x), -1).cpu().numpy()


def _derivatives(function, points, directions) -> np.ndarray:
    """Return derivatives of all outputs along directions, point by point."""
    n, n_outputs = len(points[0]), _run(function, points)[0].numel()
    if len(directions) == 1:  # the derivative of a gradient by its weights
        rows = [x.clone().requires_grad_() for x in points]
        result = _run(function, rows)
        weights = torch.zeros_like(result, requires_grad=True)
        chosen = (result * weights).sum()
        gradients = torch.autograd.grad(
            chosen, rows, create_graph=True, materialize_grads=True
        )
        flat = torch.cat([x.reshape(n, -1) for x in gradients], 1)
        along = (flat @ torch.as_tensor(directions[0]).to(flat)).sum()
        (slopes,) = torch.autograd.grad(along + 0 * weights.sum(), weights)
        return _columns(slopes)[:, None]
    # Rows that are all alike give a whole Jacobian at once.
    rows = [x.repeat_interleave(n_outputs, dim=0).requires_grad_() for x in points]
    result = _run(function, rows).reshape(n * n_outputs, n_outputs)
    found: Sequence[Tensor] = [torch.zeros_like(x) for x in rows]
    if result.requires_grad:
        chosen = (result * torch.eye(n_outputs).to(result).repeat(n, 1)).sum()
        found = torch.autograd.grad(chosen, rows, materialize_grads=True)
    jacobian = np.concatenate([_columns(x) for x in found], axis=1)
    return jacobian.reshape(n, n_outputs, -1).swapaxes(1, 2)


def _slopes(graph, outputs, points, kinds, directions):
    """Return derivatives along one direction, and variables: all directions in turn."""
    graph, columns = graph.copy(), [_columns(x) for x in points]
    names = [(k, i) for k, x in zip(kinds, columns) for i in range(x.shape[1])]
    seeds = {
        graph.variable(*name): {"": graph.variable("direction", j)}
        for j, name in enumerate(names)
    }
    slopes = graph.differentiate(outputs, seeds)
    n = len(directions)
    variables = {k: np.repeat(x, n, axis=0) for k, x in zip(kinds, columns)}
    variables["direction"] = np.tile(directions, (len(points[0]), 1))
    return graph, [x.get("", graph.constant(0)) for x in slopes], variables


def _same(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.isnan(), b.isnan()) and torch.equal(
        a.nan_to_num(), b.nan_to_num()
    )


def _agree(graph, outputs, variables, expected, slack) -> bool:
    """Whether expressions have the expected values, as far as rounding allows."""
    cone = graph.cone(outputs)
    n_rows = min(len(expected), max(N_POINTS, MAX_VALUES // max(len(cone), 1)))
    rows = np.linspace(0, len(expected) - 1, n_rows).astype(int)
    variables = {kind: x[rows] for kind, x in variables.items()}
    values = dict(zip(cone, graph.evaluate(cone, variables)))
    with np.errstate(all="ignore"):
        sizes = _sizes(graph, values)
        found, size = (
            np.stack(np.broadcast_arrays(*(x[i] for i in outputs), rows)[:-1], axis=1)
            for x in (values, sizes)
        )
        expected, slack = expected[rows], slack[rows]
        good = abs(found - expected) <= RTOL * size + slack + TINY
        good |= (found == expected) | np.isinf(slack)
        return bool((good | np.isnan(found) & np.isnan(expected)).all())


def _sizes(graph: Graph, values: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
    """Return how large the terms are that expressions are the sums of."""
    sizes: dict[int, np.ndarray] = {}
    for node, value in values.items():
        operation, x, *rest = graph.nodes[node]
        y = rest[0] if rest else x
        match operation:
            case "add" | "sub":
                sizes[node] = sizes[x] + sizes[y]
            case "mul":
                sizes[node] = sizes[x] * sizes[y]
            case "div":
                sizes[node] = sizes[x] * sizes[y] / values[y] ** 2
            case "neg":
                sizes[node] = sizes[x]
            case "where":
                sizes[node] = np.where(values[x], sizes[y], sizes[rest[1]])
            case _:
                sizes[node] = abs(value) if value.dtype != bool else value
    return sizes
