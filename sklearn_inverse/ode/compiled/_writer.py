"""Machine code of a model: right-hand side, Jacobian, sparse factors, solves, tangents.

Straight-line code, one per model, while that is short (``_tables``). Python writes it in
LLVM's language, with every index a constant: a fraction of a second for tens of states.
What it reads and writes are rows of a workspace, each a vector of one number per lane.
"""

from collections.abc import Callable
from inspect import signature
from itertools import count
from typing import Any

from llvmlite import binding, ir
from numba.core import cgutils

from sklearn_inverse.ode._coefficients import RODAS5P, TSIT5
from sklearn_inverse.ode.compiled._arithmetic import Arithmetic
from sklearn_inverse.ode.compiled._vectors import ALIGNMENT, INT, VECTOR, call_llvm

__all__ = ["Writer"]

MIN_NORM = 1e-10


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
        self.builder: Any = None
        self.arithmetic: Any = None
        self.base: Any = None  # the workspace

    def write(self, name, method, *args):
        """Add the function ``name``, whose body ``method(*args, ...)`` writes.

        The other arguments of ``method`` become those of the function: the first rows of
        what it reads or writes, where they vary from call to call.
        """
        n_offsets = len(signature(method).parameters) - len(args)
        types_of_args = [VECTOR.as_pointer()] + [INT] * n_offsets
        function_type = ir.FunctionType(ir.VoidType(), types_of_args)
        function = ir.Function(self.module, function_type, name)
        outer = self.builder, self.arithmetic, self.base
        self.builder = ir.IRBuilder(function.append_basic_block())
        self.arithmetic = Arithmetic(self.builder)
        self.base, *offsets = function.args
        method(*args, *offsets)
        self.builder.ret_void()
        self.n_operations += self.arithmetic.n_operations
        self.builder, self.arithmetic, self.base = outer
        return function

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
        it meets another, which takes it long.
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
        """Return ``total - F_ij x`` for the factor (i, j)."""
        value = self.load(self.at.factors, self.model.factors[factor])
        return self.add(total, self.builder.fneg(value), x)

    def solve_for(self, rhs, solution):
        """Solve W x = rhs."""
        states = range(self.at.n_states)
        x = list(rhs)
        for i in states:
            for j in self.model.lower[i]:
                x[i] = self.subtract(x[i], (i, j), x[j])
        for i in reversed(states):
            for j in self.model.upper[i]:
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

    def explicit(self, i, y, u):
        """Write the argument y + Σ a_ij u_j of stage i of Tsit5."""
        at, builder = self.at, self.builder
        with cgutils.for_range(builder, INT(at.n_states)) as loop:
            state = loop.index
            before = [builder.add(u, INT(j * at.n_states)) for j in range(i)]
            stage = self.load(y, state)
            for a_ij, u_j in zip(TSIT5.a[i], self.load_all(state, before)):
                stage = self.add(stage, a_ij, u_j)
            self.store(stage, at.stage, state)

    def rhs(self, t, y, f):
        """Write the right-hand side."""
        self.store_all(self.compute(self.model.rhs, t, y), f)

    def choose_factor(self):
        """Write how much longer the step could have been, by its error of order 5."""
        at, number = self.at, self.arithmetic.number
        square = self.builder.fmul(self.load(at.norm), number(1 / at.n_states))
        square = call_llvm(self.builder, "maxnum", square, number(MIN_NORM**2))
        self.store(self.arithmetic.apply("pow", square, number(-0.1)), at.factor)

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
        found = self.compute(self.model.slope_nodes, self.at.t_stage, y)
        self.store_all(found, slope)

    def factorize(self):
        """Write W = 1 / (h gamma) - J = L U, row by row and without pivoting."""
        at, builder, number = self.at, self.builder, self.arithmetic.number
        shift = builder.fmul(self.load(at.inv_step), number(1 / RODAS5P.gamma))
        place = self.model.slopes
        factors: dict[int, ir.Value] = {}
        for i, j in sorted(self.model.factors):
            value = shift if i == j else number(0)
            if (i, j) in place:
                value = builder.fsub(value, self.load(at.slope, place[i, j]))
            for a, b in self.model.updates(i, j):
                value = self.add(value, builder.fneg(factors[a]), factors[b])
            if j < i:
                value = builder.fmul(value, factors[self.model.factors[j, j]])
            elif j == i:
                value = builder.fdiv(number(1), value)
            factors[self.model.factors[i, j]] = value
        self.store_all(factors.values(), at.factors, factors)

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
        nodes = self.model.tangents.curves.values()
        found = self.compute(nodes, self.at.t, self.at.y, u)
        self.store_all(map(self.arithmetic.finite, found), curve)

    def sources(self, u, source):
        """Write what params change directly: f at the stage, J u + w f_t at the start."""
        at, finite = self.at, self.arithmetic.finite
        now, before = self.model.source_nodes
        stage = self.compute(now, at.t_stage, at.stage, u)
        start = self.compute(before, at.t, at.y, u)
        sums = [self.builder.fadd(a, finite(b)) for a, b in zip(stage, start)]
        self.store_all(sums, source)

    def effects(self, source):
        """Write what params change directly of f at the stage."""
        now, _ = self.model.source_nodes
        self.store_all(self.compute(now, self.at.t_stage, self.at.stage), source)

    def pushed(self, slope):
        """Return J times the tangent of the stage, and the direct effect of the param."""
        states = range(self.at.n_states)
        stage = self.load_all(self.at.stage, states)
        rates = self.load_all(self.at.forcing, states)
        for (i, k), s in self.model.slopes.items():
            rates[i] = self.add(rates[i], self.load(slope, s), stage[k])
        return rates

    def push(self, slope, v):
        """Write the tangent v of u of the stage of Tsit5."""
        step = self.load(self.at.step)
        self.store_all([self.builder.fmul(step, x) for x in self.pushed(slope)], v)

    def tangent_solve(self, slope, curve, tangent, v):
        """Write the tangent v of u of the stage."""
        at, rhs = self.at, self.pushed(slope)
        start = self.load_all(tangent, range(at.n_states))
        rhs = [
            self.builder.fadd(x, self.load(at.coupled, i)) for i, x in enumerate(rhs)
        ]
        for c, (i, k) in enumerate(self.model.tangents.curves):
            rhs[i] = self.add(rhs[i], self.load(curve, c), start[k])
        self.solve_for(rhs, v)
