"""Functions of rows from their traces: what happens before and after the solver's steps.

Observables, initial states and what events do are computed once per solve, of many rows:
a few operations, for which NumPy's loops are as fast as code of their own. What costs time
is automatic differentiation, and of that nothing is left: derivatives are expressions too.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sklearn_inverse.ode.compiled._compile import (
    COMPARED,
    N_POINTS,
    RTOL,
    Untraceable,
    known_of,
)
from sklearn_inverse.ode.compiled._graph import OPERATIONS, Graph
from sklearn_inverse.ode.compiled._trace import trace

__all__ = ["Lasting", "RowFunction"]

MULTIPLE = 8  # of which numbers of rows are: the processor's vectors are all full
LARGE = 1_000_000  # expressions times inputs, beyond which torch is as fast
MANY = 10_000_000  # of their values, to be held at once


class Lasting:
    """A function of rows that lives as long as its system: it pays to trace it.

    A subclass has a ``__call__`` in torch, of shape (n, …), and in ``kinds`` what its
    inputs are.
    """

    kinds: tuple[str, ...] = ("t", "y", "p")
    __call__: Callable[..., Tensor]

    def traced(self, *inputs: Tensor) -> "RowFunction | None":
        """Return what is known of the function; None where torch has to run it.

        The two are compared here, as right-hand sides and kernels are.
        """
        tracked = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
        if tracked or len(inputs[0]) == 0 or inputs[0].device.type != "cpu":
            return None
        compared, sizes = COMPARED.get(), tuple(x.shape[1:] for x in inputs)
        if compared is not None and (self, sizes) in compared:
            return compared[self, sizes]
        known, point = known_of(self), [x[:N_POINTS].detach() for x in inputs]
        if sizes not in known or not self._agrees(known[sizes], point):
            try:
                graph, nodes = trace(self, point, self.kinds)
                known[sizes] = RowFunction(graph, nodes, self.kinds, point)
            except Untraceable:
                known[sizes] = None
        if compared is not None:
            compared[self, sizes] = known[sizes]
        return known[sizes]

    def _agrees(self, found: "RowFunction | None", point: list[Tensor]) -> bool:
        """Whether the function still computes what was traced."""
        if found is None:
            return True  # it is not tried again
        with torch.no_grad():
            expected = self(*(x.clone() for x in point)).numpy()
        values = found(*(x.numpy() for x in point))
        return np.allclose(values, expected, rtol=RTOL, atol=0, equal_nan=True)


class RowFunction:
    """A traced function of rows, with its derivatives.

    Parameters
    ----------
    graph : Graph
        Expressions of the inputs.

    nodes : ndarray of int
        Those that it returns of one row.

    kinds : sequence of str
        What the inputs are called in the graph.

    inputs : sequence of Tensor of shape (n,) or (n, n_columns)
        Some of its inputs.
    """

    def __init__(self, graph: Graph, nodes: np.ndarray, kinds, inputs):
        self.kinds, self.shape = tuple(kinds), nodes.shape
        self.outputs = nodes.ravel().tolist()
        one, n_inputs = graph.constant(1), sum(x[0].numel() for x in inputs)
        if len(graph.cone(self.outputs)) * n_inputs > LARGE:
            raise Untraceable("its derivatives would take longer than torch's")
        seeds = {
            graph.variable(kind, i): {(place, i): one}
            for place, (kind, x) in enumerate(zip(kinds, inputs))
            for i in range(x[0].numel())
        }
        found = graph.differentiate(self.outputs, seeds)
        # Output, input and its column, and the expression of the derivative.
        self.slopes = [
            (o, *at, node) for o, row in enumerate(found) for at, node in row.items()
        ]
        cone = graph.cone([*self.outputs, *(slope[-1] for slope in self.slopes)])
        self._steps = [(node, *graph.nodes[node]) for node in cone]

    def __call__(self, *inputs: np.ndarray) -> np.ndarray:
        """Return values (n, …) at inputs (n,) or (n, n_columns)."""
        columns = [x[:, None] if x.ndim == 1 else x for x in inputs]
        values, _ = self._compute(columns)
        return values.reshape(len(values), *self.shape)

    def jacobian(self, x: np.ndarray) -> np.ndarray:
        """Return the derivatives (n, …, n_columns) of a function of one input."""
        _, found = self._compute([x])
        jacobian = np.zeros((len(x), len(self.outputs), x.shape[1]))
        for output, _, column, node in self.slopes:
            jacobian[:, output, column] = found(node)
        return jacobian.reshape(len(x), *self.shape, x.shape[1])

    def push(self, inputs, tangents) -> tuple[np.ndarray, np.ndarray]:
        """Return values, and their derivatives along directions.

        Parameters
        ----------
        inputs : sequence of ndarray of shape (…, n_columns)
            Leading axes broadcast.

        tangents : sequence of ndarray of shape (…, n_columns, n_directions) or None
            Of each input; None for one that stays.

        Returns
        -------
        values : ndarray of shape (…, n_outputs)
            Values.

        pushed : ndarray of shape (…, n_outputs, n_directions)
            Derivatives.
        """
        n = len(inputs[0])
        if n > 1 and len(self._steps) * inputs[0][..., 0].size > MANY:
            parts = []
            for rows in (slice(n // 2), slice(n // 2, n)):
                given = [
                    [x if x is None else x[rows] for x in xs]
                    for xs in (inputs, tangents)
                ]
                parts.append(self.push(*given))
            values, pushed = map(np.concatenate, zip(*parts))
            return values, pushed
        values, found = self._compute(inputs)
        n_directions = next(x.shape[-1] for x in tangents if x is not None)
        pushed = np.zeros((*values.shape, n_directions))
        with np.errstate(all="ignore"):
            for output, place, column, node in self.slopes:
                if tangents[place] is not None:
                    along = tangents[place][..., column, :]
                    pushed[..., output, :] += found(node)[..., None] * along
        return values, pushed

    def _compute(self, inputs):
        """Return outputs (…, n_outputs), and a function that tells other expressions."""
        shape = np.broadcast_shapes(*(x.shape[:-1] for x in inputs))
        n = int(np.prod(shape))
        given, worth = dict(zip(self.kinds, inputs)), dict[int, Any]()
        with np.errstate(all="ignore"):
            for node, operation, *args in self._steps:
                if operation == "const":
                    worth[node] = np.float64(args[0])
                elif operation == "var":
                    column = np.empty(-n % MULTIPLE + n)
                    column[n:] = 1.0
                    column[:n].reshape(shape)[...] = given[args[0]][..., args[1]]
                    worth[node] = column
                else:
                    worth[node] = OPERATIONS[operation](*(worth[x] for x in args))

        def find(node):
            value = worth[node]
            if value.ndim == 0:  # a constant
                return np.broadcast_to(value, shape)
            return value[:n].reshape(shape)

        values = np.empty((*shape, len(self.outputs)))
        for output, node in enumerate(self.outputs):
            values[..., output] = find(node)
        return values, find
