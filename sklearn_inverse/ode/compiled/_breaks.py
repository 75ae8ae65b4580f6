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

N_POINTS = 32  # at which a jump is looked for
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
    breaks: dict[bytes, Break] = {}
    for comparison in cone:
        operation, *sides = graph.nodes[comparison]
        if operation not in ("lt", "le"):
            continue
        difference = graph.call("sub", *sides)
        (slopes,) = graph.differentiate([difference], {time: {"t": one}})
        if not slopes or not _is_affine(graph, difference, slopes["t"], time):
            continue
        turn = graph.call("neg", graph.call("div", difference, slopes["t"]))
        found = Break(graph, turn)
        at = found(torch.as_tensor(params)).numpy()
        if np.ptp(at) == 0 and not _jumps(graph, rhs, at, params, rng):
            continue
        breaks.setdefault(at.tobytes(), found)
    return list(breaks.values())


def _is_affine(graph: Graph, node: int, slope: int, time: int) -> bool:
    """Whether an expression is a + b t, with a and b of params and constants alone."""
    cone = graph.cone([node])
    if time in graph.cone([slope]) or any(
        graph.nodes[x][:2] == ("var", "y") for x in cone
    ):
        return False
    choices = (x for x in cone if graph.nodes[x][0] in STEPS | {"where"})
    return not any(time in graph.cone([x]) for x in choices)


def _jumps(graph, rhs, at, params, rng) -> bool:
    """Whether the rates of change differ on both sides, at any states and params."""
    states = [
        index for kind, *index in graph.nodes if kind == "var" and index[0] == "y"
    ]
    n_states = max((index for _, index in states), default=-1) + 1
    variables = {"p": params, "y": 10.0 ** rng.uniform(-2, 2, (len(at), n_states))}
    before, after = (
        np.stack(graph.evaluate(rhs, variables | {"t": np.nextafter(at, to)[:, None]}))
        for to in (-np.inf, np.inf)
    )
    return not np.allclose(before, after, rtol=RTOL, atol=0)
