"""Machine code of a reaction network: rates, Jacobian, sparse factors, solves, tangents.

Straight-line code, one per system and process. Python writes it in LLVM's language, with
every index a constant: a fraction of a second for tens of reactions. What it reads and
writes are rows of a workspace, each a vector of one number per lane.
"""

from inspect import signature
from typing import NamedTuple

import numpy as np
from llvmlite import binding, ir
from numba.core import cgutils

from sklearn_inverse.ode._tableau import RODAS5P
from sklearn_inverse.ode.compiled._vectors import (
    ALIGNMENT,
    INT,
    LANES,
    VECTOR,
    call_llvm,
)

__all__ = ["N_STAGES", "ORDER", "Network", "Rows", "compile_network"]

N_STAGES = len(RODAS5P.a)
ORDER = len(RODAS5P.dense)  # degree of the dense output


class Rows(NamedTuple):
    """How many rows there are of a kind, and the first row of each kind."""

    n_states: int
    n_reactions: int
    n_slopes: int
    n_curves: int
    # One row each.
    t: int
    t_end: int
    t_new: int
    step: int
    step_next: int
    step_old: int
    growth_old: int  # norm_old ** 0.2
    norm: int  # sum of squares of error / tolerance
    invalid: int  # zero, or NaN where something is not finite
    accepted: int  # one or zero
    inv_step: int
    # One row per state, or per reaction, stage, ...
    k: int
    y: int
    f: int
    peak: int
    stage: int  # argument of the right-hand side
    y_new: int
    coupled: int  # sum of C_ij u_j / step
    factors: int  # of W, its inverse pivots on the diagonal
    u: int  # stage by stage
    slope: int  # k dm/dy of each reactant, stage by stage
    # What one lane needs for its outputs, in vectors over states or over stages.
    dense: int
    weight: int
    lane_y: int
    lane_u: int
    lane_out: int
    # Tangents.
    curve: int  # k d²m/dy² u of each reactant, stage by stage
    source: int  # what depends on k directly, stage by stage
    forcing: int  # of one tangent: zero but for its own reaction
    tangent: int  # dy/dk, reaction by reaction
    v: int  # tangents of u
    n_rows: int


class Network:
    """The reactions, with the states in the order of their elimination.

    Parameters
    ----------
    stoichiometry : ndarray of shape (n_states, n_reactions)
        What each reaction makes of each state, less what it uses up.

    used : ndarray of shape (n_states, n_reactions)
        Order of each reaction in each state.

    Attributes
    ----------
    order : ndarray of shape (n_states,)
        The states as given, in the order of their elimination.

    reactants : list of list of int
        Reactants of each reaction, as often as its order says.

    slopes : list of tuple (reaction, state, rest)
        The product rule: each reactant and the rest of its reaction's.

    curved : list of int
        Slopes that depend on the states, for there is a rest.

    slopes_of : list of list of tuple (slope, reaction)
        Slopes by each state.

    effects : list of dict of int to float
        Non-zero stoichiometry of each state, by reaction.

    factors : dict of (int, int) to int
        Number of each non-zero of the factors of W, row by row.
    """

    def __init__(self, stoichiometry, used):
        reactants = [
            np.repeat(np.arange(len(used)), orders) for orders in np.transpose(used)
        ]
        pattern = np.eye(len(used), dtype=bool)
        for column, states in zip(stoichiometry.T, reactants):
            pattern[np.ix_(column != 0, states)] = True
        self.order, filled = eliminate(pattern)
        place = np.argsort(self.order)
        self.reactants = [place[states].tolist() for states in reactants]
        self.slopes = [
            (j, state, states[:p] + states[p + 1 :])
            for j, states in enumerate(self.reactants)
            for p, state in enumerate(states)
        ]
        self.curved = [s for s, (*_, rest) in enumerate(self.slopes) if rest]
        self.slopes_of = [
            [(s, j) for s, (j, by, _) in enumerate(self.slopes) if by == state]
            for state in range(len(used))
        ]
        self.effects = [
            {int(j): float(row[j]) for j in np.flatnonzero(row)}
            for row in stoichiometry[self.order]
        ]
        self.factors = {
            (i, j): number for number, (i, j) in enumerate(np.argwhere(filled).tolist())
        }

    def lay_out(self):
        """Return the :class:`Rows` of the workspace."""
        n_states, n_reactions = len(self.effects), len(self.reactants)
        n_slopes, n_curves = len(self.slopes), len(self.curved)
        blocks = -(-n_states // LANES)
        counts = dict.fromkeys(Rows._fields[4:-1], 1) | {
            "k": n_reactions,
            **dict.fromkeys(("y", "f", "peak", "stage", "y_new", "coupled"), n_states),
            "factors": len(self.factors),
            "u": N_STAGES * n_states,
            "slope": N_STAGES * n_slopes,
            "dense": ORDER,
            "lane_y": blocks,
            "lane_u": N_STAGES * blocks,
            "lane_out": blocks,
            "curve": N_STAGES * n_curves,
            "source": N_STAGES * n_reactions,
            "forcing": n_reactions,
            "tangent": n_reactions * n_states,
            "v": N_STAGES * n_states,
        }
        starts = np.cumsum([0, *counts.values()]).tolist()
        return Rows(n_states, n_reactions, n_slopes, n_curves, *starts)


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

    def factorise(self):
        """Write W = 1 / (h gamma) - J = L U, row by row and without pivoting."""
        at, network = self.at, self.network
        shift = self.product(self.load(at.inv_step), self.number(1 / RODAS5P.gamma))
        # Stored at the end: between loads and stores LLVM would have to ask of each
        # whether it meets another, which takes it minutes for large networks.
        factors = {}
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


class Code(NamedTuple):
    """Addresses of the functions that a :class:`Writer` writes."""

    combine: tuple[int, ...]  # stage by stage
    rhs: int
    slopes: int
    factorise: int
    solve: int
    curves: int
    sources: int
    tangent_solve: int


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
