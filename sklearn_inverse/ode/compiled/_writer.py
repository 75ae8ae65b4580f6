"""Machine code of a model: right-hand side, Jacobian, sparse factors, solves, tangents.

Straight-line code, one per model. Python writes it in LLVM's language, with every index a
constant: a fraction of a second for tens of states. What it reads and writes are rows of a
workspace, each a vector of one number per lane.
"""

from collections.abc import Callable
from inspect import signature
from itertools import count
from typing import NamedTuple

from llvmlite import binding, ir
from numba.core import cgutils

from sklearn_inverse.ode._coefficients import RODAS5P
from sklearn_inverse.ode.compiled._arithmetic import (
    Arithmetic,
    load_vector_functions,
)
from sklearn_inverse.ode.compiled._objects import load_code
from sklearn_inverse.ode.compiled._vectors import ALIGNMENT, INT, VECTOR
from sklearn_inverse.ode.compiled._workspace import N_STAGES

__all__ = ["Code", "compile_model"]

PART = 256  # values that one function computes
TANGENT_CODE = ("curves", "sources", "tangent_solve")


class Code(NamedTuple):
    """Addresses of the functions that a :class:`Writer` writes."""

    combine: tuple[int, ...]  # stage by stage
    rhs: int
    time_slopes: int
    slopes: int
    factorize: int
    solve: int
    guards: int
    curves: int
    sources: int
    tangent_solve: int


def compile_model(model, rows, with_tangents):
    """Compile the code of a model.

    Parameters
    ----------
    model : Model
        What is solved.

    rows : Rows
        Where everything lies.

    with_tangents : bool
        Whether derivatives by the params are needed too.

    Returns
    -------
    engine : ExecutionEngine
        Owner of the code.

    code : Code
        Its addresses, zero where there is none.
    """
    unused = [] if with_tangents else list(TANGENT_CODE)
    unused += [] if model.guards else ["guards"]
    names = [x for x in Code._fields[1:] if x not in unused]

    def write_module():
        writer = Writer(model, rows)
        for i in range(N_STAGES):
            writer.write(f"combine{i}", writer.combine, i)
        for name in names:
            writer.write(name, getattr(writer, name))
        # Much code takes LLVM many seconds.
        n = writer.n_operations
        return writer.module, 2 if n < 4000 else 1 if n < 40_000 else 0

    key = model.key, with_tangents, load_vector_functions()
    engine = load_code(key, write_module)
    address = engine.get_function_address
    combine = tuple(address(f"combine{i}") for i in range(N_STAGES))
    rest = {name: address(name) if name in names else 0 for name in Code._fields[1:]}
    return engine, Code(combine, **rest)


class Writer:
    """Writes the code of a model.

    Parameters
    ----------
    model : Model
        What is solved.

    rows : Rows
        Where everything lies.
    """

    def __init__(self, model, rows):
        self.model, self.at = model, rows
        self.module = ir.Module()
        self.module.triple = binding.get_process_triple()
        self.n_operations = 0

    def write(self, name, method, *args):
        """Add the function ``name``, whose body ``method(*args, ...)`` writes.

        The other arguments of ``method`` become those of the function: the first rows of
        what it reads or writes, where they vary from call to call.
        """
        n_offsets = len(signature(method).parameters) - len(args)
        types_of_args = [VECTOR.as_pointer()] + [INT] * n_offsets
        function_type = ir.FunctionType(ir.VoidType(), types_of_args)
        function = ir.Function(self.module, function_type, name)
        self.builder = ir.IRBuilder(function.append_basic_block())
        self.arithmetic = Arithmetic(self.builder)
        self.base, *offsets = function.args
        method(*args, *offsets)
        self.builder.ret_void()
        self.n_operations += self.arithmetic.n_operations
        return function

    def in_parts(self, method, n_values, *offsets):
        """Write ``method(part, *offsets)`` for all of ``n_values``.

        Many of them are dealt out to functions of their own: the time that LLVM takes to
        find registers grows with the square of what is alive at once.
        """
        if n_values <= PART:
            method(range(n_values), *offsets)
            return
        outer = self.builder, self.arithmetic, self.base
        name = self.builder.function.name
        given = [x if isinstance(x, ir.Value) else INT(x) for x in offsets]
        for start in range(0, n_values, PART):
            part = range(start, min(start + PART, n_values))
            function = self.write(f"{name}.{start}", method, part)
            self.builder, self.arithmetic, self.base = outer
            self.builder.call(function, [self.base, *given])

    # What code is made of.

    def pointer(self, row, i):
        """Point to row ``row + i``; either may be known now or only when called."""
        index = [x if isinstance(x, ir.Value) else INT(x) for x in (row, i)]
        return self.builder.gep(self.base, [self.builder.add(*index)])

    def load(self, row, i=0):
        """Load row ``row + i``."""
        return self.builder.load(self.pointer(row, i), align=ALIGNMENT)

    def load_all(self, row, indices):
        """Load several rows from ``row`` on."""
        return [self.load(row, i) for i in indices]

    def store(self, value, row, i=0):
        """Store row ``row + i``."""
        self.builder.store(value, self.pointer(row, i), align=ALIGNMENT)

    def store_all(self, values, row, indices=None):
        """Store several rows from ``row`` on, one after the other unless otherwise told.

        After all loads: between loads and stores LLVM would have to ask of each whether
        it meets another, which takes it minutes for large models.
        """
        for i, value in zip(count() if indices is None else indices, values):
            self.store(value, row, i)

    def compute(self, nodes, t, y, u=None):
        """Compute expressions of the model at the rows ``t`` and ``y``.

        Parameters
        ----------
        nodes : iterable of int
            Expressions.

        t, y, u : int or Value
            Rows of the time, of the states, and of the directions of a derivative.

        Returns
        -------
        values : list of Value
            One row each.
        """
        at, place = self.at, self.model.place
        variables: dict[str, Callable] = {
            "t": lambda i: self.load(t),
            "y": lambda i: self.load(y, place[i]),
            "p": lambda i: self.load(at.k, i),
            "u": lambda i: self.load(u, i),
            "w": lambda i: self.load(at.w),
        }
        return self.arithmetic.compute(self.model.graph, nodes, variables)

    def add(self, total, x, y):
        """Return ``total + x y``, where ``x`` may be a plain number."""
        return self.arithmetic.multiply_add(total, x, y)

    def subtract(self, total, factor, x):
        """Return ``total - F_ij x`` for the factor (i, j), if it is not zero."""
        if factor not in self.model.factors:
            return total
        value = self.load(self.at.factors, self.model.factors[factor])
        return self.add(total, self.builder.fneg(value), x)

    def solve_for(self, rhs, solution):
        """Solve W x = rhs."""
        states = range(self.at.n_states)
        x = list(rhs)
        for i in states:
            for j in range(i):
                x[i] = self.subtract(x[i], (i, j), x[j])
        for i in reversed(states):
            for j in states[i + 1 :]:
                x[i] = self.subtract(x[i], (i, j), x[j])
            inv_pivot = self.load(self.at.factors, self.model.factors[i, i])
            x[i] = self.builder.fmul(x[i], inv_pivot)
        self.store_all(x, solution)

    # The functions.

    def combine(self, i, y, u):
        """Write the argument y + Σ a_ij u_j of stage i, and Σ C_ij u_j / h + d_i h f_t."""
        a, c, at, builder = RODAS5P.a, RODAS5P.coupling, self.at, self.builder
        # The last stages of a stiffly accurate method add on to the one before.
        adds_on = i > 1 and (a[i] - a[i - 1])[:i].tolist() == [0] * (i - 1) + [1]
        inv_step = self.load(at.inv_step)
        with cgutils.for_range(builder, INT(at.n_states)) as loop:
            state = loop.index
            before = [builder.add(u, INT(j * at.n_states)) for j in range(i)]
            before = self.load_all(state, before)
            if adds_on:
                stage = builder.fadd(self.load(at.stage, state), before[-1])
            else:
                stage = self.load(y, state)
                for a_ij, u_j in zip(a[i], before):
                    stage = self.add(stage, a_ij, u_j)
            coupled = self.arithmetic.number(0)
            for c_ij, u_j in zip(c[i], before):
                coupled = self.add(coupled, c_ij, u_j)
            self.store(stage, at.stage, state)
            self.store(builder.fmul(coupled, inv_step), at.coupled, state)

    def rhs(self, t, y, f):
        """Write the right-hand side."""

        def write(part, t, y, f):
            nodes = [self.model.rhs[i] for i in part]
            self.store_all(self.compute(nodes, t, y), f, part)

        self.in_parts(write, self.at.n_states, t, y, f)

    def guards(self, t, y):
        """Write what events wait for."""
        self.store_all(self.compute(self.model.guards, t, y), self.at.guard)

    def time_slopes(self):
        """Write df/dt at the start of the step."""
        found = self.compute(self.model.by_time.values(), self.at.t, self.at.y)
        for i, value in zip(self.model.by_time, found):
            self.store(value, self.at.by_time, i)

    def slopes(self, y, slope):
        """Write the non-zero df/dy."""
        nodes = list(self.model.slopes.values())

        def write(part, y, slope):
            some = [nodes[s] for s in part]
            self.store_all(self.compute(some, self.at.t_stage, y), slope, part)

        self.in_parts(write, len(nodes), y, slope)

    def factorize(self):
        """Write W = 1 / (h gamma) - J = L U, row by row and without pivoting."""
        at, builder, number = self.at, self.builder, self.arithmetic.number
        shift = builder.fmul(self.load(at.inv_step), number(1 / RODAS5P.gamma))
        place = {index: s for s, index in enumerate(self.model.slopes)}
        factors: dict[tuple[int, int], ir.Value] = {}
        for i, j in self.model.factors:
            value = shift if i == j else number(0)
            if (i, j) in place:
                value = builder.fsub(value, self.load(at.slope, place[i, j]))
            for p in range(min(i, j)):
                if (i, p) in factors and (p, j) in factors:
                    value = self.add(value, builder.fneg(factors[i, p]), factors[p, j])
            if j < i:
                value = builder.fmul(value, factors[j, j])
            elif j == i:
                value = builder.fdiv(number(1), value)
            factors[i, j] = value
        self.store_all(factors.values(), at.factors)

    def solve(self, u):
        """Write u of the stage."""
        at = self.at
        rates = self.compute(self.model.rhs, at.t_stage, at.stage)
        for i in range(at.n_states):
            rates[i] = self.builder.fadd(rates[i], self.load(at.coupled, i))
            if i in self.model.by_time:
                rates[i] = self.add(rates[i], self.load(at.w), self.load(at.by_time, i))
        self.solve_for(rates, u)

    def curves(self, u, curve):
        """Write how J u + w f_t at the start of the step changes with the states.

        Where a function has no second derivative, as a root at zero, the step's is zero:
        that is so for an instant.
        """
        nodes = list(self.model.tangents.curves.values())

        def write(part, u, curve):
            values = self.compute([nodes[c] for c in part], self.at.t, self.at.y, u)
            self.store_all([self.arithmetic.finite(x) for x in values], curve, part)

        self.in_parts(write, len(nodes), u, curve)

    def sources(self, u, source):
        """Write what params change directly: f at the stage, J u + w f_t at the start."""
        at, sources = self.at, list(self.model.tangents.sources.values())
        zero = self.model.graph.constant(0)

        def write(part, u, source):
            nodes = [[zero if x is None else x for x in sources[s]] for s in part]
            stage = self.compute([a for a, _ in nodes], at.t_stage, at.stage, u)
            start = self.compute([b for _, b in nodes], at.t, at.y, u)
            finite = self.arithmetic.finite
            sums = [self.builder.fadd(a, finite(b)) for a, b in zip(stage, start)]
            self.store_all(sums, source, part)

        self.in_parts(write, len(sources), u, source)

    def tangent_solve(self, slope, curve, tangent, v):
        """Write the tangent v of u of the stage."""
        at = self.at
        stage = self.load_all(at.stage, range(at.n_states))
        start = self.load_all(tangent, range(at.n_states))
        rhs = [
            self.builder.fadd(self.load(at.coupled, i), self.load(at.forcing, i))
            for i in range(at.n_states)
        ]
        for s, (i, k) in enumerate(self.model.slopes):
            rhs[i] = self.add(rhs[i], self.load(slope, s), stage[k])
        for c, (i, k) in enumerate(self.model.tangents.curves):
            rhs[i] = self.add(rhs[i], self.load(curve, c), start[k])
        self.solve_for(rhs, v)
