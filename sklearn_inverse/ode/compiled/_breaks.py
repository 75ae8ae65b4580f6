"""Times at which a right-hand side jumps by itself, read off its expressions.

In ``t < p.lag``, the time is compared with something that no state moves: the integration
is to stop there, for no step sees what lies between its stages, and no derivative knows
what ``lag`` does.
"""

import numpy as np
import torch
from torch import Tensor

from sklearn_inverse.ode.compiled._graph import STEPS, Graph

__all__ = ["Break", "find_breaks"]

N_POINTS = 16  # at which a jump is looked for
MAX_VALUES = 4_000_000  # of expressions, to be kept at once
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


def find_breaks(graph: Graph, rhs: list[int], n_params: int) -> list[Break]:
    """Return where comparisons of the time turn, each time once.

    Parameters
    ----------
    graph : Graph
        Expressions of the time ("t"), states ("y") and params ("p").

    rhs : list of int
        Those of the rates of change.

    n_params : int
        Number of params.

    Returns
    -------
    breaks : list of Break
        Those at constant times, unless nothing jumps there, and at all others.
    """
    time, cone = graph.variable("t", 0), graph.cone(rhs)
    if time not in cone:
        return []
    graph, one = graph.copy(), graph.constant(1)
    rng = np.random.default_rng(0)
    params = 10.0 ** rng.uniform(-2, 2, (N_POINTS, n_params))
    turns: dict[bytes, Break] = {}  # by their times at these params
    constant: dict[bytes, float] = {}
    for comparison in cone:
        operation, *sides = graph.nodes[comparison]
        if operation not in ("lt", "le"):
            continue
        difference = graph.call("sub", *sides)
        (slopes,) = graph.differentiate([difference], {time: {"t": one}})
        if not slopes or not _is_affine(graph, difference, slopes["t"], time):
            continue
        turn = Break(
            graph, graph.call("neg", graph.call("div", difference, slopes["t"]))
        )
        at = turn(torch.as_tensor(params)).numpy()
        key = at.tobytes()
        turns.setdefault(key, turn)
        if np.ptp(at) == 0:
            constant[key] = at[0]
    jumps = dict(zip(constant, _jumps(graph, rhs, [*constant.values()], params, rng)))
    return [turn for key, turn in turns.items() if jumps.get(key, True)]


def _is_affine(graph: Graph, node: int, slope: int, time: int) -> bool:
    """Whether an expression is a + b t, with a and b of params and constants alone."""
    cone = graph.cone([node])
    if time in graph.cone([slope]) or any(
        graph.nodes[x][:2] == ("var", "y") for x in cone
    ):
        return False
    choices = (x for x in cone if graph.nodes[x][0] in STEPS | {"where"})
    return not any(time in graph.cone([x]) for x in choices)


def _jumps(graph, rhs, times, params, rng) -> list[bool]:
    """Whether the rates of change differ on both sides, at any states and params."""
    states = [x[2] for x in graph.nodes if x[:2] == ("var", "y")]
    n_rows = max(1, MAX_VALUES // (len(graph) * N_POINTS))
    y = 10.0 ** rng.uniform(-2, 2, (N_POINTS, 1 + max(states, default=0)))
    found = []
    for start in range(0, len(times), n_rows):
        at = np.array(times[start : start + n_rows])[:, None, None]
        before, after = (
            graph.evaluate(rhs, {"t": np.nextafter(at, to), "y": y, "p": params})
            for to in (-np.inf, np.inf)
        )
        alike = [
            np.broadcast_to(np.isclose(x, z, rtol=RTOL, atol=0), (len(at), N_POINTS))
            for x, z in zip(before, after)
        ]
        found += (~np.all(alike, axis=(0, 2))).tolist()
    return found
