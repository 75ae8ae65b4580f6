"""A right-hand side as the compiled code sees it: states in the order of elimination."""

from functools import cached_property
from typing import NamedTuple

import numpy as np

from sklearn_inverse.ode.compiled._breaks import Break, find_breaks
from sklearn_inverse.ode.compiled._graph import BOOLEAN, STEPS, Graph
from sklearn_inverse.ode.compiled._vectors import LANES
from sklearn_inverse.ode.compiled._workspace import N_STAGES, ORDER, Rows

__all__ = ["Model", "Tangents"]


class Model:
    """A right-hand side, with the expressions that a Rosenbrock method asks of it.

    Parameters
    ----------
    graph : Graph
        Expressions of the time ("t"), states ("y") and params ("p").

    rhs : sequence of int
        Those of the states' rates of change.

    n_params : int
        Number of params.

    guards : sequence of int, default=()
        What events wait for: its zeros.

    Attributes
    ----------
    key : tuple
        All that is known of the right-hand side.

    order : ndarray of shape (n_states,)
        The states as given, in the order of their elimination, in which all that
        follows is counted.

    rhs : list of int
        Rates of change.

    slopes : dict of (int, int) to int
        Non-zero derivatives of rate i by state j.

    by_time : dict of int to int
        Non-zero derivatives of rates by the time.

    factors : dict of (int, int) to int
        Number of each non-zero of the factors of W, row by row.
    """

    def __init__(self, graph: Graph, rhs, n_params: int, guards=()):
        self.graph, self.n_states, self.n_params = graph, len(rhs), n_params
        self.guards = list(guards)
        cone = tuple(graph.nodes[x] for x in graph.cone([*rhs, *guards]))
        self.key = cone, tuple(rhs), n_params, tuple(guards)
        self._breaks: dict[tuple[float, float], list[Break]] = {}  # of the last span
        one = graph.constant(1)
        states = [graph.variable("y", i) for i in range(len(rhs))]
        time = graph.variable("t", 0)
        found = graph.differentiate(
            rhs, {x: {i: one} for i, x in enumerate(states)} | {time: {"t": one}}
        )
        pattern = np.eye(len(rhs), dtype=bool)
        for i, row in enumerate(found):
            pattern[i, [j for j in row if j != "t"]] = True
        self.order, filled = eliminate(pattern)
        self.place = np.argsort(self.order).tolist()
        self.rhs = [rhs[i] for i in self.order]
        rows = [found[i] for i in self.order]
        self.by_time = {i: row["t"] for i, row in enumerate(rows) if "t" in row}
        self.slopes = {
            (i, self.place[j]): node
            for i, row in enumerate(rows)
            for j, node in row.items()
            if j != "t"
        }
        self.factors = {
            (i, j): number for number, (i, j) in enumerate(np.argwhere(filled).tolist())
        }

    def breaks(self, first: float, last: float) -> list[Break]:
        """Return times at which the rates of change jump, as functions of the params."""
        if (first, last) not in self._breaks:
            found = find_breaks(self.graph, self.rhs, self.n_params, (first, last))
            self._breaks = {(first, last): found}
        return self._breaks[first, last]

    @cached_property
    def may_jump(self) -> bool:
        """Whether rates follow the time, or choices: stages may miss what they do."""
        nodes = [self.graph.nodes[x] for x in self.graph.cone(self.rhs)]
        return any(
            node[:2] == ("var", "t") or node[0] in BOOLEAN | STEPS for node in nodes
        )

    @cached_property
    def n_operations(self) -> int:
        """About how many there are in a step with one stage."""
        nodes = self.graph.cone([*self.rhs, *self.slopes.values()])
        lower = np.bincount([i for i, j in self.factors if j < i], minlength=1)
        return len(nodes) + int((lower**2).sum()) + 2 * len(self.factors)

    @cached_property
    def tangents(self) -> "Tangents":
        """Expressions that derivatives of the solution need."""
        graph, one = self.graph, self.graph.constant(1)
        states = [graph.variable("y", i) for i in self.order.tolist()]
        params = [graph.variable("p", j) for j in range(self.n_params)]
        by_params = graph.differentiate(
            self.rhs, {x: {j: one} for j, x in enumerate(params)}
        )
        # J u + w f_t, by states and params.
        along = {x: {0: graph.variable("u", i)} for i, x in enumerate(states)}
        along[graph.variable("t", 0)] = {0: graph.variable("w", 0)}
        found = enumerate(graph.differentiate(self.rhs, along))
        moved = {i: row[0] for i, row in found if row}
        seeds = {x: {("y", i): one} for i, x in enumerate(states)}
        seeds |= {x: {("p", j): one} for j, x in enumerate(params)}
        bent = graph.differentiate(list(moved.values()), seeds)
        curves, sources = {}, {}
        for i, row in zip(moved, bent):
            for (kind, k), node in row.items():
                if kind == "y":
                    curves[i, k] = node
                else:
                    sources[k, i] = (None, node)
        for i, row in enumerate(by_params):
            for j, node in row.items():
                sources[j, i] = (node, sources.get((j, i), (None, None))[1])
        return Tangents(curves, dict(sorted(sources.items())))

    def lay_out(self, with_tangents: bool) -> Rows:
        """Return the :class:`Rows` of the workspace."""
        n_states, n_slopes = self.n_states, len(self.slopes)
        n_curves = len(self.tangents.curves) if with_tangents else 0
        n_sources = len(self.tangents.sources) if with_tangents else 0
        n_tangents = self.n_params * n_states if with_tangents else 0
        blocks = -(-n_states // LANES)
        n_guards = len(self.guards)
        counts = dict.fromkeys(Rows._fields[6:-1], 1) | {
            "k": self.n_params,
            **dict.fromkeys(
                ("y", "f", "peak", "atol", "stage", "y_new", "coupled", "by_time"),
                n_states,
            ),
            "defect": n_states,
            "guard": n_guards,
            "sign": n_guards,
            "offset": n_guards,
            "sign_new": n_guards,
            "tolerance": n_states,
            "trial": 2 * N_STAGES,
            "factors": len(self.factors),
            "u": N_STAGES * n_states,
            "slope": N_STAGES * n_slopes,
            "dense": ORDER,
            "lane_y": blocks,
            "lane_u": N_STAGES * blocks,
            "lane_out": blocks,
            "curve": N_STAGES * n_curves,
            "source": N_STAGES * n_sources,
            "forcing": n_states,
            "tangent": n_tangents,
            "v": N_STAGES * n_states,
        }
        starts = np.cumsum([0, *counts.values()]).tolist()
        sizes = n_states, self.n_params, n_slopes, n_curves, n_sources, n_guards
        return Rows(*sizes, *starts)


class Tangents(NamedTuple):
    """What the derivative of a step by the params is made of.

    ``curves`` are the non-zero derivatives of (J u + w f_t)_i by state k. ``sources`` are
    the direct effects of param j on state i, in this order: that on f at the stage, and
    that on J u + w f_t at the start of the step, None where there is none.
    """

    curves: dict[tuple[int, int], int]
    sources: dict[tuple[int, int], tuple[int | None, int | None]]


def eliminate(pattern):
    """Order pivots on the diagonal so that elimination fills in little (Markowitz).

    Parameters
    ----------
    pattern : ndarray of bool of shape (n, n)
        Where the matrix may differ from zero.

    Returns
    -------
    order : ndarray of shape (n,)
        Pivots in their order.

    filled : ndarray of bool of shape (n, n)
        Where the factors may differ from zero, in that order.
    """
    filled = pattern.copy()
    order, left = [], list(range(len(pattern)))
    while left:
        rest = filled[np.ix_(left, left)]
        cost = (rest.sum(0) - 1) * (rest.sum(1) - 1)
        pivot = left.pop(int(np.argmin(cost)))
        order.append(pivot)
        rows = [i for i in left if filled[i, pivot]]
        columns = [j for j in left if filled[pivot, j]]
        filled[np.ix_(rows, columns)] = True
    return np.array(order, dtype=np.int64), filled[np.ix_(order, order)]
