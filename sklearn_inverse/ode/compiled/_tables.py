"""Code of large models: loops over tables, so that it does not grow with the model."""

from array import array

import numpy as np
from llvmlite import ir
from numba.core import cgutils

from sklearn_inverse.ode._coefficients import RODAS5P
from sklearn_inverse.ode.compiled._shapes import find_shapes
from sklearn_inverse.ode.compiled._vectors import INT, LANES, VECTOR
from sklearn_inverse.ode.compiled._writer import Writer

__all__ = ["TableWriter"]

INT32 = ir.IntType(32)


class TableWriter(Writer):
    """Writes the code of a large model.

    Expressions of the same shape are computed by one loop, which looks up where their
    arguments lie. So do the loops over the factors.
    """

    def table(self, numbers, kind=np.int32):
        """Return a pointer to constants."""
        data = np.ascontiguousarray(numbers, dtype=kind)
        element = INT32 if kind is np.int32 else ir.DoubleType()
        array_type = ir.ArrayType(ir.IntType(8), data.nbytes)
        name = self.module.get_unique_name("table")
        table = ir.GlobalVariable(self.module, array_type, name)
        table.initializer = ir.Constant(array_type, bytearray(data.tobytes()))
        table.linkage, table.global_constant, table.align = "internal", True, 8
        return table.bitcast(element.as_pointer())

    def look_up(self, table, place, k=0):
        """Return the entry of a table of integers that is ``k`` after a place."""
        place = self.builder.add(place, INT(k))
        entry = self.builder.load(self.builder.gep(table, [place]))
        return self.builder.sext(entry, INT)

    # Expressions.

    def compute_all(self, outputs, t, y, u, out):
        """Compute expressions.

        Parameters
        ----------
        outputs : mapping of int to int
            Expressions by the rows, from ``out`` on, where they are stored.

        t, y, u, out : int or Value
            Rows of the time, of the states, of the directions of a derivative, and of
            the results.
        """
        shapes, runs = find_shapes(self.model.graph, outputs)
        name, unique = self.builder.function.name, self.module.get_unique_name
        functions = [
            self.write(unique(f"{name}.shape"), self.compute_alike, shape)
            for shape in shapes
        ]
        given = [x if isinstance(x, ir.Value) else INT(x) for x in (t, y, u, out)]
        builder, table = self.builder, self.table(runs)
        with cgutils.for_range(builder, INT(len(runs))) as loop:
            start = builder.mul(loop.index, INT(3))
            number, first, last = (self.look_up(table, start, k) for k in range(3))
            after = builder.append_basic_block()
            choice = builder.switch(number, after)
            for i, function in enumerate(functions):
                block = builder.append_basic_block()
                choice.add_case(INT(i), block)
                builder.position_at_end(block)
                builder.call(function, [self.base, *given, first, last])
                builder.branch(after)
            builder.position_at_end(after)

    def compute_alike(self, shape, t, y, u, out, first, last):
        """Write a loop over expressions of one shape."""
        at, builder = self.at, self.builder
        kept = at.scratch + at.n_sources
        starts = {"t": t, "y": y, "p": at.k, "u": u, "w": at.w, "kept": kept}
        *columns, result = shape.table.T
        fixed, moving, constants = {}, [], {}
        for k, (kind, column) in enumerate(zip(shape.leaves, columns)):
            if kind == "y":
                column = np.array(self.model.place)[column]
            if len(set(column.tolist())) > 1:
                moving.append((k, kind, column))
            elif kind == "const":
                fixed[k] = self.arithmetic.number(self.model.graph.value(column[0]))
            else:
                fixed[k] = self.load(starts[kind], int(column[0]))
        for i, (k, kind, column) in enumerate(moving):
            if kind == "const":
                numbers, where = np.unique(column, return_inverse=True)
                values = [self.model.graph.value(x) for x in numbers.tolist()]
                constants[k] = self.table(values, np.float64)
                moving[i] = k, kind, where
        width = len(moving) + 1
        table = self.table(np.stack([*(x[2] for x in moving), result], axis=1))
        with cgutils.for_range_slice(builder, first, last, INT(1)) as (index, _):
            row = builder.mul(index, INT(width))
            leaves = dict(fixed)
            for i, (k, kind, _) in enumerate(moving):
                place = self.look_up(table, row, i)
                if kind == "const":
                    number = builder.load(builder.gep(constants[k], [place]))
                    leaves[k] = self.spread(number)
                else:
                    leaves[k] = self.load(starts[kind], place)
            found = [leaves[0]]
            for operation, *args in shape.steps:
                given = [found[x + 1] if x >= 0 else leaves[~x] for x in args]
                found.append(self.arithmetic.apply(operation, *given))
            value = self.arithmetic.as_number(found[-1])
            place = self.look_up(table, row, width - 1)
            self.store(value, kept if shape.is_kept else out, place)

    def spread(self, number):
        """Return a vector of equal numbers."""
        one = self.builder.insert_element(
            ir.Constant(VECTOR, ir.Undefined), number, INT32(0)
        )
        lanes = ir.Constant(ir.VectorType(INT32, LANES), [0] * LANES)
        return self.builder.shuffle_vector(one, one, lanes)

    # Sums of products.

    def sum_products(self, total, sums, i, x, y, minus=False):
        """Return ``total`` with all products of row ``i`` of ``sums`` added.

        Parameters
        ----------
        total : Value
            Where the sum starts.

        sums : pair of pointers
            As :meth:`sums` returns them.

        i : Value
            Which of the sums.

        x, y : int or Value
            First rows of the factors of the products.

        minus : bool, default=False
            Whether they are subtracted.
        """
        builder, (ends, pairs) = self.builder, sums
        first, last = self.look_up(ends, i), self.look_up(ends, i, 1)
        before = builder.basic_block
        body, after = builder.append_basic_block(), builder.append_basic_block()
        builder.cbranch(builder.icmp_signed("<", first, last), body, after)
        builder.position_at_end(body)
        k, so_far = builder.phi(INT), builder.phi(VECTOR)
        place = builder.shl(k, INT(1))
        a, b = self.look_up(pairs, place), self.look_up(pairs, place, 1)
        a, b = self.load(x, a), self.load(y, b)
        added = self.add(so_far, builder.fneg(a) if minus else a, b)
        following = builder.add(k, INT(1))
        builder.cbranch(builder.icmp_signed("<", following, last), body, after)
        for value, start, new in ((k, first, following), (so_far, total, added)):
            value.add_incoming(start, before)
            value.add_incoming(new, body)
        builder.position_at_end(after)
        result = builder.phi(VECTOR)
        result.add_incoming(total, before)
        result.add_incoming(added, body)
        return result

    def sums(self, pairs):
        """Return tables of the pairs of factors of each sum: where they end, and which."""
        ends, numbers = [0], array("i")
        for row in pairs:
            for pair in row:
                numbers.extend(pair)
            ends.append(len(numbers) // 2)
        return self.table(ends), self.table(numbers)

    def solve_for(self, start, solution):
        """Solve W x = rhs, of which ``start(i)`` is row i."""
        at, builder, factors = self.at, self.builder, self.model.factors
        states = range(at.n_states)
        lower, upper = (
            self.sums([(factors[i, j], j) for j in side[i]] for i in states)
            for side in (self.model.lower, self.model.upper)
        )
        pivots = self.table([factors[i, i] for i in states])
        with cgutils.for_range(builder, INT(at.n_states)) as loop:
            i = loop.index
            x = self.sum_products(start(i), lower, i, at.factors, solution, minus=True)
            self.store(x, solution, i)
        with cgutils.for_range(builder, INT(at.n_states)) as loop:
            i = builder.sub(INT(at.n_states - 1), loop.index)
            x = self.load(solution, i)
            x = self.sum_products(x, upper, i, at.factors, solution, minus=True)
            inv_pivot = self.load(at.factors, self.look_up(pivots, i))
            self.store(builder.fmul(x, inv_pivot), solution, i)

    # The functions.

    def rhs(self, t, y, f):
        """Write the right-hand side."""
        self.compute_all(dict(enumerate(self.model.rhs)), t, y, 0, f)

    def guards(self, t, y):
        """Write what events wait for."""
        values = dict(enumerate(self.model.guards))
        self.compute_all(values, t, y, 0, self.at.guard)

    def time_slopes(self):
        """Write df/dt at the start of the step."""
        at = self.at
        self.compute_all(self.model.by_time, at.t, at.y, 0, at.by_time)

    def slopes(self, y, slope):
        """Write the non-zero df/dy."""
        slopes = dict(enumerate(self.model.slope_nodes))
        self.compute_all(slopes, self.at.t_stage, y, 0, slope)

    def factorize(self):
        """Write W = 1 / (h gamma) - J = L U, row by row and without pivoting."""
        at, model, builder = self.at, self.model, self.builder
        zero, one = (self.arithmetic.number(x) for x in (0, 1))
        shift = self.load(at.inv_step)
        shift = builder.fmul(shift, self.arithmetic.number(1 / RODAS5P.gamma))
        # Rows of what has no slope, and of what is not to be divided by a pivot.
        self.store(zero, at.scratch)
        self.store(one, at.scratch, 1)
        entries = []
        for i, j in sorted(model.factors):
            slope = at.scratch
            if (i, j) in model.slopes:
                slope = at.slope + model.slopes[i, j]
            pivot = at.factors + model.factors[j, j] if j < i else at.scratch + 1
            entries.append((slope, pivot, i == j, model.factors[i, j]))
        entries = self.table(entries)
        updates = self.sums(model.updates(i, j) for i, j in sorted(model.factors))
        with cgutils.for_range(builder, INT(len(model.factors))) as loop:
            entry = builder.shl(loop.index, INT(2))
            slope, pivot, is_pivot, factor = (
                self.look_up(entries, entry, k) for k in range(4)
            )
            is_pivot = builder.trunc(is_pivot, ir.IntType(1))
            value = builder.fsub(
                builder.select(is_pivot, shift, zero), self.load(slope)
            )
            value = self.sum_products(
                value, updates, loop.index, at.factors, at.factors, minus=True
            )
            with builder.if_else(is_pivot) as (then, otherwise):
                with then:
                    inverse = builder.fdiv(one, value)
                    there = builder.basic_block
                with otherwise:
                    product = builder.fmul(value, self.load(pivot))
                    here = builder.basic_block
            result = builder.phi(VECTOR)
            result.add_incoming(inverse, there)
            result.add_incoming(product, here)
            self.store(result, at.factors, factor)

    def solve(self, u):
        """Write u of the stage."""
        at, builder = self.at, self.builder
        rates = builder.module.globals["rhs"]
        builder.call(rates, [self.base, INT(at.t_stage), INT(at.stage), u])

        def start(i):
            rate = builder.fadd(self.load(u, i), self.load(at.coupled, i))
            if self.model.by_time:
                rate = self.add(rate, self.load(at.w), self.load(at.by_time, i))
            return rate

        self.solve_for(start, u)

    def curves(self, u, curve):
        """Write how J u + w f_t at the start of the step changes with the states."""
        at, nodes = self.at, self.model.tangents.curves.values()
        self.compute_all(dict(enumerate(nodes)), at.t, at.y, u, curve)
        with cgutils.for_range(self.builder, INT(len(nodes))) as loop:
            value = self.load(curve, loop.index)
            self.store(self.arithmetic.finite(value), curve, loop.index)

    def sources(self, u, source):
        """Write what params change directly: f at the stage, J u + w f_t at the start."""
        at = self.at
        now, before = (dict(enumerate(nodes)) for nodes in self.model.source_nodes)
        self.compute_all(now, at.t_stage, at.stage, u, source)
        self.compute_all(before, at.t, at.y, u, at.scratch)
        with cgutils.for_range(self.builder, INT(at.n_sources)) as loop:
            more = self.arithmetic.finite(self.load(at.scratch, loop.index))
            value = self.builder.fadd(self.load(source, loop.index), more)
            self.store(value, source, loop.index)

    def effects(self, source):
        """Write what params change directly of f at the stage."""
        at, (now, _) = self.at, self.model.source_nodes
        self.compute_all(dict(enumerate(now)), at.t_stage, at.stage, 0, source)

    def products(self, numbers):
        """Return tables of the sums of what is numbered by state and state."""
        pairs: list[list] = [[] for _ in range(self.at.n_states)]
        for (i, k), number in numbers.items():
            pairs[i].append((number, k))
        return self.sums(pairs)

    def push(self, slope, v):
        """Write the tangent v of u of the stage of Tsit5."""
        at, products = self.at, self.products(self.model.slopes)
        with cgutils.for_range(self.builder, INT(at.n_states)) as loop:
            rate = self.load(at.forcing, loop.index)
            rate = self.sum_products(rate, products, loop.index, slope, at.stage)
            self.store(self.builder.fmul(self.load(at.step), rate), v, loop.index)

    def tangent_solve(self, slope, curve, tangent, v):
        """Write the tangent v of u of the stage."""
        at, curves = self.at, {x: c for c, x in enumerate(self.model.tangents.curves)}
        by_stage, by_start = self.products(self.model.slopes), self.products(curves)

        def start(i):
            rhs = self.builder.fadd(self.load(at.coupled, i), self.load(at.forcing, i))
            rhs = self.sum_products(rhs, by_stage, i, slope, at.stage)
            return self.sum_products(rhs, by_start, i, curve, tangent)

        self.solve_for(start, v)
