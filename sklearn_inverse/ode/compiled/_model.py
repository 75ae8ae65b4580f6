"""A right-hand side as the compiled code sees it: states in the order of elimination."""

import heapq
from functools import cached_property
from typing import NamedTuple

import numpy as np

from sklearn_inverse.ode.compiled._breaks import Break, find_breaks
from sklearn_inverse.ode.compiled._graph import BOOLEAN, STEPS, Graph, Untraceable
from sklearn_inverse.ode.compiled._workspace import (
    N_EXPLICIT,
    N_STAGES,
    ORDER,
    Rows,
)

__all__ = ["Model", "Tangents"]

LARGE = 4000  # operations: beyond, loops over tables are as fast, and written sooner
PATIENCE = 20  # steps by Rodas5P that no other method is called for
MAX_UPDATES = 5_000_000  # products in an elimination, of which tables take seconds


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
        Number of the non-zero derivative of rate i by state j.

    slope_nodes : list of int
        These derivatives, each once.

    by_time : dict of int to int
        Non-zero derivatives of rates by the time.

    factors : dict of (int, int) to int
        Number of each non-zero of the factors L and U of W, first L, each row by row.

    lower, upper : list of list of int
        Columns of the non-zeros of each row, left and right of the diagonal.
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
        self.order, filled = eliminate([row.keys() - {"t"} for row in found])
        self.place = np.argsort(self.order).tolist()
        self.rhs = [rhs[i] for i in self.order]
        rows = [found[i] for i in self.order]
        self.by_time = {i: row["t"] for i, row in enumerate(rows) if "t" in row}
        slopes = {
            (i, self.place[j]): node
            for i, row in enumerate(rows)
            for j, node in row.items()
            if j != "t"
        }
        self.slope_nodes = list(dict.fromkeys(slopes.values()))
        number = {node: s for s, node in enumerate(self.slope_nodes)}
        self.slopes = {index: number[node] for index, node in slopes.items()}
        # What lies left of the diagonal first, for that is read in another sweep.
        apart = sorted(filled, key=lambda index: index[1] >= index[0])
        self.factors = {index: number for number, index in enumerate(apart)}
        self.lower: list[list[int]] = [[] for _ in rhs]
        self.upper: list[list[int]] = [[] for _ in rhs]
        for i, j in filled:
            if i != j:
                (self.lower if j < i else self.upper)[i].append(j)

    @cached_property
    def is_autonomous(self) -> bool:
        """Whether no rate of change depends on the time."""
        return self.graph.variable("t", 0) not in self.graph.cone(self.rhs)

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
        nodes = self.graph.cone([*self.rhs, *self.slope_nodes])
        n_updates = sum(len(row) ** 2 for row in self.lower)
        return len(nodes) + n_updates + 2 * len(self.factors)

    @cached_property
    def patience(self) -> float:
        """Steps of Tsit5 that cost as much as ``PATIENCE`` of Rodas5P."""
        n_rates, n_slopes = (
            len(self.graph.cone(x)) for x in (self.rhs, self.slope_nodes)
        )
        n_updates = sum(len(row) ** 2 for row in self.lower)
        n_solves = 2 * N_STAGES * len(self.factors)
        implicit = N_STAGES * n_rates + n_slopes + n_updates + n_solves
        explicit = (N_EXPLICIT - 1) * n_rates
        # Sums of stages, and what is done beside them.
        common = 100 + 20 * self.n_states
        extra = 40 * self.n_states
        return PATIENCE * (implicit + extra + common) / (explicit + common)

    @property
    def is_large(self) -> bool:
        """Whether the code is to consist of loops over tables."""
        return self.n_operations > LARGE

    def updates(self, i: int, j: int) -> list[tuple[int, int]]:
        """Return the factors whose products elimination takes off entry (i, j)."""
        factors = self.factors
        return [
            (factors[i, p], factors[p, j])
            for p in self.lower[i]
            if p < j and (p, j) in factors
        ]

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

    @property
    def source_nodes(self) -> tuple[list[int], list[int]]:
        """What sources add, at the stage and at the start of the step."""
        zero, pairs = self.graph.constant(0), self.tangents.sources.values()
        now = [zero if x is None else x for x, _ in pairs]
        return now, [zero if x is None else x for _, x in pairs]

    def lay_out(self, with_tangents: bool) -> Rows:
        """Return the :class:`Rows` of the workspace."""
        n_states, n_slopes = self.n_states, len(self.slope_nodes)
        n_curves = len(self.tangents.curves) if with_tangents else 0
        n_sources = len(self.tangents.sources) if with_tangents else 0
        n_tangents = self.n_params * n_states if with_tangents else 0
        n_guards = len(self.guards)
        by_state = "y peak atol f f_new stage y_new coupled by_time defect tolerance"
        counts = dict.fromkeys(Rows._fields[6:-1], 1) | {
            "k": self.n_params,
            **dict.fromkeys([*by_state.split(), "forcing"], n_states),
            **dict.fromkeys(("guard", "sign", "offset", "sign_new"), n_guards),
            **dict.fromkeys(("tangent", "tangent_new"), n_tangents),
            **dict.fromkeys(("u", "v"), N_STAGES * n_states),
            **dict.fromkeys(("dense", "tangent_dense"), ORDER * n_states),
            "dense_weights": ORDER,
            "factors": len(self.factors),
            "slope": N_STAGES * n_slopes,
            "curve": N_STAGES * n_curves,
            "source": N_STAGES * n_sources,
            # More than is ever touched, which costs nothing.
            "scratch": n_sources + len(self.graph) + 2 if self.is_large else 0,
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
    pattern : sequence of iterable of int
        Columns, for each row, where the matrix may differ from zero.

    Returns
    -------
    order : ndarray of shape (n,)
        Pivots in their order.

    filled : list of (int, int)
        Where the factors may differ from zero, in that order, row by row.

    Raises
    ------
    Untraceable
        If that would be too much to write down.
    """
    rows = [{i, *columns} for i, columns in enumerate(pattern)]
    columns: list[set[int]] = [set() for _ in rows]
    for i, row in enumerate(rows):
        for j in row:
            columns[j].add(i)

    def cost(i):
        return (len(rows[i]) - 1) * (len(columns[i]) - 1), i

    heap = [cost(i) for i in range(len(rows))]
    heapq.heapify(heap)
    order, filled, is_left, n_updates = [], [], [True] * len(rows), 0
    while heap:
        pivot = heap[0][1]
        if heapq.heappop(heap) != cost(pivot) or not is_left[pivot]:
            continue  # it has changed since
        is_left[pivot] = False
        order.append(pivot)
        row, column = rows[pivot], columns[pivot]
        n_updates += cost(pivot)[0]
        if n_updates > MAX_UPDATES:
            raise Untraceable(
                f"the factors of its Jacobian take more than {MAX_UPDATES} products, "
                "of which tables would take gigabytes: too many states are coupled"
            )
        filled += [(pivot, j) for j in row] + [(i, pivot) for i in column - {pivot}]
        for i in column - {pivot}:
            rows[i] |= row
            rows[i].remove(pivot)
        for j in row - {pivot}:
            columns[j] |= column
            columns[j].remove(pivot)
        for i in (row | column) - {pivot}:
            heapq.heappush(heap, cost(i))
    place = np.argsort(np.array(order, dtype=np.int64)).tolist()
    filled = sorted((place[i], place[j]) for i, j in filled)
    return np.array(order, dtype=np.int64), filled
