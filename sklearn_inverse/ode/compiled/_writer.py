"""Machine code of a reaction network: rates, Jacobian, sparse factors, solves, tangents.

Straight-line code, one per system and process. Python writes it in LLVM's language, with
every index a constant: a fraction of a second for tens of reactions. What it reads and
writes are rows of a workspace, each a vector of one number per lane.
"""

from inspect import signature
from typing import NamedTuple

from llvmlite import binding, ir
from numba.core import cgutils

from sklearn_inverse.ode._coefficients import RODAS5P
from sklearn_inverse.ode.compiled._vectors import (
    ALIGNMENT,
    INT,
    LANES,
    VECTOR,
    call_llvm,
)
from sklearn_inverse.ode.compiled._workspace import N_STAGES

__all__ = ["compile_network"]


def compile_network(network, rows):
    """Compile the code of a network.

    Parameters
    ----------
    network : Network
        The reactions.

    rows : Rows
        Where everything lies.

    Returns
    -------
    engine : ExecutionEngine
        Owner of the code.

    code : Code
        Its addresses.
    """
    writer = Writer(network, rows)
    for i in range(N_STAGES):
        writer.write(f"combine{i}", writer.combine, i)
    for name in Code._fields[1:]:
        writer.write(name, getattr(writer, name))
    module = binding.parse_assembly(str(writer.module))
    module.verify()
    machine = binding.Target.from_triple(module.triple).create_target_machine(
        cpu=binding.get_host_cpu_name(),
        features=binding.get_host_cpu_features().flatten(),
        opt=2 if len(network.factors) < 400 else 1,  # much code takes LLVM many seconds
        jit=True,
    )
    engine = binding.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    address = engine.get_function_address
    code = Code(
        tuple(address(f"combine{i}") for i in range(N_STAGES)),
        *map(address, Code._fields[1:]),
    )
    return engine, code


class Code(NamedTuple):
    """Addresses of the functions that a :class:`Writer` writes."""

    combine: tuple[int, ...]  # stage by stage
    rhs: int
    slopes: int
    factorize: int
    solve: int
    curves: int
    sources: int
    tangent_solve: int


class Writer:
    """Writes the code of a network.

    Parameters
    ----------
    network : Network
        The reactions.

    rows : Rows
        Where everything lies.
    """

    def __init__(self, network, rows):
        self.network, self.at = network, rows
        self.module = ir.Module()
        self.module.triple = binding.get_process_triple()

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
        self.base, *offsets = function.args
        method(*args, *offsets)
        self.builder.ret_void()

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

    def number(self, value):
        """Return a vector of equal numbers."""
        return ir.Constant(VECTOR, [float(value)] * LANES)

    def product(self, *factors):
        """Return the product of vectors, one if there are none."""
        result, *others = factors or [self.number(1)]
        for factor in others:
            result = self.builder.fmul(result, factor)
        return result

    def add(self, total, x, y):
        """Return ``total + x y``, where ``x`` may be a plain number."""
        if isinstance(x, ir.Value):
            return call_llvm(self.builder, "fmuladd", x, y, total)
        if abs(x) == 1:
            combine = self.builder.fadd if x > 0 else self.builder.fsub
            return combine(total, y)
        return self.add(total, self.number(x), y)

    def subtract(self, total, factor, x):
        """Return ``total - F_ij x`` for the factor (i, j), if it is not zero."""
        if factor not in self.network.factors:
            return total
        value = self.load(self.at.factors, self.network.factors[factor])
        return self.add(total, self.builder.fneg(value), x)

    def rates(self, y):
        """Return the rates of all reactions."""
        return [
            self.product(self.load(self.at.k, j), *self.load_all(y, states))
            for j, states in enumerate(self.network.reactants)
        ]

    def apply_rates(self, total, state, rates):
        """Add to ``total`` what the reactions do to a state."""
        for j, effect in self.network.effects[state].items():
            total = self.add(total, effect, rates[j])
        return total

    def solve_for(self, rates, solution):
        """Solve W x = S rates + coupled."""
        at, states = self.at, range(self.at.n_states)
        x = []
        for i in states:
            x.append(self.apply_rates(self.load(at.coupled, i), i, rates))
            for j in range(i):
                x[i] = self.subtract(x[i], (i, j), x[j])
        for i in reversed(states):
            for j in states[i + 1 :]:
                x[i] = self.subtract(x[i], (i, j), x[j])
            inv_pivot = self.load(at.factors, self.network.factors[i, i])
            x[i] = self.product(x[i], inv_pivot)
            self.store(x[i], solution, i)

    # The functions.

    def combine(self, i, y, u):
        """Write the argument y + Σ a_ij u_j of stage i, and Σ C_ij u_j / h."""
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
            coupled = self.number(0)
            for c_ij, u_j in zip(c[i], before):
                coupled = self.add(coupled, c_ij, u_j)
            self.store(stage, at.stage, state)
            self.store(self.product(coupled, inv_step), at.coupled, state)

    def rhs(self, y):
        """Write the right-hand side S diag(k) m(y)."""
        rates = self.rates(y)
        for i in range(self.at.n_states):
            self.store(self.apply_rates(self.number(0), i, rates), self.at.f, i)

    def slopes(self, y, slope):
        """Write the slopes k dm/dy."""
        for s, (j, _, rest) in enumerate(self.network.slopes):
            factors = self.load(self.at.k, j), *self.load_all(y, rest)
            self.store(self.product(*factors), slope, s)

    def factorize(self):
        """Write W = 1 / (h gamma) - J = L U, row by row and without pivoting."""
        at, network = self.at, self.network
        shift = self.product(self.load(at.inv_step), self.number(1 / RODAS5P.gamma))
        # Stored at the end: between loads and stores LLVM would have to ask of each
        # whether it meets another, which takes it minutes for large networks.
        factors: dict[tuple[int, int], ir.Value] = {}
        for i, j in network.factors:
            value = shift if i == j else self.number(0)
            for s, reaction in network.slopes_of[j]:
                effect = network.effects[i].get(reaction, 0)
                if effect:
                    value = self.add(value, -effect, self.load(at.slope, s))
            for p in range(min(i, j)):
                if (i, p) in factors and (p, j) in factors:
                    minus = self.builder.fneg(factors[i, p])
                    value = self.add(value, minus, factors[p, j])
            if j < i:
                value = self.product(value, factors[j, j])
            elif j == i:
                value = self.builder.fdiv(self.number(1), value)
            factors[i, j] = value
        for index, number in network.factors.items():
            self.store(factors[index], at.factors, number)

    def solve(self, u):
        """Write u of the stage."""
        self.solve_for(self.rates(self.at.stage), u)

    def curves(self, u, curve):
        """Write how the slopes at y change along u."""
        at = self.at
        for c, s in enumerate(self.network.curved):
            reaction, _, rest = self.network.slopes[s]
            change = self.number(0)
            for p, state in enumerate(rest):
                others = self.load_all(at.y, rest[:p] + rest[p + 1 :])
                change = self.add(change, self.load(u, state), self.product(*others))
            self.store(self.product(self.load(at.k, reaction), change), curve, c)

    def sources(self, u, source):
        """Write what k_j changes directly: m_j at the stage, and dm_j/dy u at y."""
        at = self.at
        for j, states in enumerate(self.network.reactants):
            value = self.product(*self.load_all(at.stage, states))
            for p, state in enumerate(states):
                others = self.load_all(at.y, states[:p] + states[p + 1 :])
                value = self.add(value, self.load(u, state), self.product(*others))
            self.store(value, source, j)

    def tangent_solve(self, slope, curve, tangent, v):
        """Write the tangent v of u of the stage."""
        at, network = self.at, self.network
        rates = self.load_all(at.forcing, range(at.n_reactions))
        for s, (j, state, _) in enumerate(network.slopes):
            stage = self.load(at.stage, state)
            rates[j] = self.add(rates[j], self.load(slope, s), stage)
        for c, s in enumerate(network.curved):
            j, state, _ = network.slopes[s]
            start = self.load(tangent, state)
            rates[j] = self.add(rates[j], self.load(curve, c), start)
        self.solve_for(rates, v)
