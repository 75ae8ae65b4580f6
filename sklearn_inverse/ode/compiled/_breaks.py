"""Times at which a right-hand side jumps by itself, read off its expressions.

In ``t < p.lag``, the time is compared with something that no state moves: the integration
is to stop there, for no step sees what lies between its stages, and no derivative knows
what ``lag`` does.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from sklearn_inverse.ode.compiled._graph import OPERATIONS, STEPS, Graph

__all__ = ["Break", "find_breaks"]

N_POINTS = 16  # at which a jump is looked for
MAX_VALUES = 4_000_000  # of expressions, to be kept at once
MAX_PERIODS = 1000  # that are unrolled
BESIDE = 1e-12  # of a time: where both sides of it are seen, however it was rounded
RTOL = 1e-9  # of the rates of change: less is a bend, as of an interpolated table


class Break:
    """The time at which a comparison turns, as a function of the params.

    Parameters
    ----------
    graph : Graph
        Expressions of the params, and of the time, which counts as zero.

    node : int
        Which of them it is.
    """

    def __init__(self, graph: Graph, node: int):
        self.graph, self.node = graph, node

    def __call__(self, params: Tensor) -> Tensor:
        """Return times (n_samples,), differentiably."""
        found: dict[int, Tensor] = {}
        for node in self.graph.cone([self.node]):
            operation, *args = self.graph.nodes[node]
            if operation == "const":
                found[node] = params.new_full((len(params),), args[0])
            elif operation == "var":
                kind, index = args
                found[node] = params[:, index] if kind == "p" else 0 * params.sum(1)
            else:
                if operation in ("and", "or", "not"):
                    operation = f"logical_{operation}"
                apply = getattr(torch, operation)
                found[node] = apply(*(found[x] for x in args))
        return found[self.node]


def find_breaks(
    graph: Graph, rhs: Sequence[int], n_params: int, span: tuple[float, float]
) -> list[Break]:
    """Return where comparisons of the time turn, each time once.

    Parameters
    ----------
    graph : Graph
        Expressions of the time ("t"), states ("y") and params ("p").

    rhs : sequence of int
        Those of the rates of change.

    n_params : int
        Number of params.

    span : tuple of float
        First and last time, between which what is periodic is unrolled.

    Returns
    -------
    breaks : list of Break
        Those at constant times within the span, unless nothing jumps there, and all
        others.
    """
    time = graph.variable("t", 0)
    if time not in graph.cone(rhs):
        return []
    graph, rng = graph.copy(), np.random.default_rng(0)
    params = 10.0 ** rng.uniform(-2, 2, (N_POINTS, n_params))
    turns: dict[bytes, Break] = {}  # by their times at these params
    constant: dict[bytes, float] = {}
    for difference in _differences(graph, rhs, time, span):
        slope = _slope(graph, difference, time)
        if slope is None:
            continue
        turn = Break(graph, graph.call("neg", graph.call("div", difference, slope)))
        at = turn(torch.as_tensor(params)).numpy()
        key = at.tobytes()
        if np.ptp(at) > 0:
            turns.setdefault(key, turn)
        elif span[0] <= at[0] <= span[1]:
            turns.setdefault(key, turn)
            constant[key] = at[0]
    jumps = dict(zip(constant, _jumps(graph, rhs, [*constant.values()], params, rng)))
    return [turn for key, turn in turns.items() if jumps.get(key, True)]


def _differences(graph, rhs, time, span) -> Iterator[int]:
    """Yield expressions in whose zeros something may jump."""
    cone = graph.cone(rhs)
    found = [
        graph.call("sub", *graph.nodes[x][1:])
        for x in cone
        if graph.nodes[x][0] in ("lt", "le")
    ]
    yield from found
    for step in cone:  # as floor(t / 24), of which t % 24 is made
        operation, *args = graph.nodes[step]
        if operation not in ("floor", "ceil", "trunc") or time not in graph.cone(args):
            continue
        affine = _slope(graph, args[0], time) is not None
        if not affine or any(
            graph.nodes[x][:2] == ("var", "p") for x in graph.cone(args)
        ):
            continue
        (ends,) = graph.evaluate(args, {"t": np.array(span)[:, None]})
        whole = range(math.floor(min(ends)), math.ceil(max(ends)) + 1)
        for k in whole if len(whole) <= MAX_PERIODS else ():
            yield graph.call("sub", args[0], graph.constant(k))
            value = graph.constant(OPERATIONS[operation](k + 0.5))
            for difference in found:
                if step in graph.cone([difference]):
                    yield _substitute(graph, difference, step, value)


def _substitute(graph: Graph, node: int, old: int, new: int) -> int:
    """Return an expression with another in the place of one that it needs."""
    now: dict[int, int] = {}
    for x in graph.cone([node]):
        args = graph.arguments(x)
        kept = x if not args else graph.call(graph.nodes[x][0], *(now[y] for y in args))
        now[x] = new if x == old else kept
    return now[node]


def _slope(graph: Graph, node: int, time: int) -> int | None:
    """Return b of an expression a + b t, with a and b of params and constants alone."""
    (slopes,) = graph.differentiate([node], {time: {"t": graph.constant(1)}})
    cone = graph.cone([node])
    has_states = any(graph.nodes[x][:2] == ("var", "y") for x in cone)
    if not slopes or has_states or time in graph.cone([slopes["t"]]):
        return None
    choices = (x for x in cone if graph.nodes[x][0] in STEPS | {"where"})
    return None if any(time in graph.cone([x]) for x in choices) else slopes["t"]


def _jumps(graph, rhs, times, params, rng) -> list[bool]:
    """Whether the rates of change differ on both sides, at any states and params."""
    states = [x[2] for x in graph.nodes if x[:2] == ("var", "y")]
    n_rows = max(1, MAX_VALUES // (len(graph) * N_POINTS))
    y = 10.0 ** rng.uniform(-2, 2, (N_POINTS, 1 + max(states, default=0)))
    found = []
    for start in range(0, len(times), n_rows):
        at = np.array(times[start : start + n_rows])[:, None, None]
        aside = BESIDE * np.abs(at) + 1e-300
        before, after = (
            graph.evaluate(rhs, {"t": t, "y": y, "p": params})
            for t in (at - aside, at + aside)
        )
        alike = [
            np.broadcast_to(np.isclose(x, z, rtol=RTOL, atol=0), (len(at), N_POINTS))
            for x, z in zip(before, after)
        ]
        found += (~np.all(alike, axis=(0, 2))).tolist()
    return found
