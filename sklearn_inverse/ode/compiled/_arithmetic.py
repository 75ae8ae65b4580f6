"""Expressions as LLVM instructions on vectors, one lane per sample."""

import ctypes
import math
from collections.abc import Callable, Iterable, Mapping
from functools import cache

from llvmlite import binding, ir

from sklearn_inverse.ode.compiled._graph import Graph
from sklearn_inverse.ode.compiled._vectors import LANES, VECTOR, call_llvm

__all__ = ["Arithmetic", "load_vector_functions"]

DOUBLE, BITS = ir.DoubleType(), ir.VectorType(ir.IntType(1), LANES)
# A product and the sum that it goes into may be rounded once: as it is in the solver.
FUSED = ("contract",)
INSTRUCTIONS = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv"}
INTRINSICS = {
    "sqrt": "sqrt",
    "abs": "fabs",
    "floor": "floor",
    "ceil": "ceil",
    "trunc": "trunc",
    "round": "rint",
}
COMPARISONS = {"lt": "<", "le": "<=", "eq": "==", "ne": "!="}
BLOCK = 200  # operations after which a block is cut: LLVM's time grows with its square


@cache
def load_vector_functions() -> int:
    """Load glibc's vector functions; return how many lanes they take, zero without any."""
    try:
        ctypes.CDLL("libmvec.so.1")
    except OSError:
        return 0
    binding.load_library_permanently("libmvec.so.1")
    features = binding.get_host_cpu_features()
    return 8 if features.get("avx512f") else 4 if features.get("avx2") else 0


@cache
def has_vector_function(name: str) -> bool:
    """Whether glibc has a vector function of this name."""
    return load_vector_functions() > 0 and binding.address_of_symbol(name) is not None


class Arithmetic:
    """Emits expressions into one function.

    Parameters
    ----------
    builder : IRBuilder
        Where instructions go.

    Attributes
    ----------
    n_operations : int
        Those emitted so far.
    """

    def __init__(self, builder: ir.IRBuilder):
        self.builder = builder
        self.n_operations = 0

    def number(self, value: float) -> ir.Constant:
        """Return a vector of equal numbers."""
        return ir.Constant(VECTOR, [float(value)] * LANES)

    def multiply_add(self, total, x, y):
        """Return ``total + x y``, where ``x`` may be a plain number."""
        self._count()
        if isinstance(x, ir.Value):
            return call_llvm(self.builder, "fmuladd", x, y, total)
        if abs(x) == 1:
            combine = self.builder.fadd if x > 0 else self.builder.fsub
            return combine(total, y)
        return call_llvm(self.builder, "fmuladd", self.number(x), y, total)

    def finite(self, value):
        """Return a vector, with zero where it is not finite."""
        magnitude = call_llvm(self.builder, "fabs", value)
        is_finite = self.builder.fcmp_ordered("<", magnitude, self.number(math.inf))
        return self.builder.select(is_finite, value, self.number(0))

    def compute(
        self, graph: Graph, nodes: Iterable[int], variables: Mapping[str, Callable]
    ) -> list:
        """Emit expressions.

        Parameters
        ----------
        graph : Graph
            Where they stand.

        nodes : iterable of int
            Their numbers.

        variables : mapping of str to callable
            Emits the variable of a kind at an index.

        Returns
        -------
        values : list of Value
            Their values, in the same order.
        """
        nodes, found = list(nodes), {}
        for node in graph.cone(nodes):
            operation, *args = graph.nodes[node]
            if operation == "const":
                found[node] = self.number(args[0])
            elif operation == "var":
                found[node] = variables[args[0]](args[1])
            else:
                found[node] = self.apply(operation, *(found[x] for x in args))
        return [self.as_number(found[x]) for x in nodes]

    def apply(self, operation: str, *args):
        """Emit one operation."""
        self._count()
        builder = self.builder
        if operation == "not":
            return builder.not_(args[0])
        if operation in ("and", "or"):
            return getattr(builder, f"{operation}_")(*map(self._as_bits, args))
        if operation == "where":
            condition, yes, no = self._as_bits(args[0]), *map(self.as_number, args[1:])
            return builder.select(condition, yes, no)
        args = tuple(map(self.as_number, args))
        if operation in INSTRUCTIONS:
            flags = () if operation == "div" else FUSED
            return getattr(builder, INSTRUCTIONS[operation])(*args, flags=flags)
        if operation == "neg":
            return builder.fneg(*args)
        if operation in COMPARISONS:
            compare = builder.fcmp_ordered
            if operation == "ne":  # undefined differs from everything
                compare = builder.fcmp_unordered
            return compare(COMPARISONS[operation], *args)
        if operation in INTRINSICS:
            return call_llvm(builder, INTRINSICS[operation], *args)
        if operation == "sign":
            sized = call_llvm(builder, "copysign", self.number(1), *args)
            is_zero_or_nan = builder.fcmp_unordered("==", *args, self.number(0))
            return builder.select(is_zero_or_nan, *args, sized)
        return self._call(operation, args)

    def _call(self, name: str, args):
        """Call a function of the C library, of vectors where glibc has one."""
        lanes = load_vector_functions()
        prefix = {8: "_ZGVeN8", 4: "_ZGVdN4"}.get(lanes, "")
        vectorized = f"{prefix}{'v' * len(args)}_{name}"
        if not has_vector_function(vectorized):
            lanes, vectorized = 1, name
        part = DOUBLE if lanes == 1 else ir.VectorType(DOUBLE, lanes)
        module = self.builder.module
        function = module.globals.get(vectorized)
        if function is None:
            function_type = ir.FunctionType(part, [part] * len(args))
            function = ir.Function(module, function_type, vectorized)
        if lanes == LANES:
            return self.builder.call(function, args)
        parts = [
            self.builder.call(function, [self._part(x, i, lanes) for x in args])
            for i in range(0, LANES, lanes)
        ]
        return self._whole(parts, lanes)

    def _part(self, vector, first: int, lanes: int):
        """Take ``lanes`` lanes out of a vector."""
        int32 = ir.IntType(32)
        if lanes == 1:
            return self.builder.extract_element(vector, int32(first))
        mask = ir.Constant(
            ir.VectorType(int32, lanes), list(range(first, first + lanes))
        )
        return self.builder.shuffle_vector(vector, vector, mask)

    def _whole(self, parts: list, lanes: int):
        """Put a vector together again."""
        int32 = ir.IntType(32)
        if lanes == 1:
            whole = ir.Constant(VECTOR, ir.Undefined)
            for lane, part in enumerate(parts):
                whole = self.builder.insert_element(whole, part, int32(lane))
            return whole
        mask = ir.Constant(ir.VectorType(int32, LANES), list(range(LANES)))
        return self.builder.shuffle_vector(*parts, mask)

    def _as_bits(self, value):
        """Return a truth value; a number is true unless it is zero."""
        if value.type == BITS:
            return value
        return self.builder.fcmp_unordered("!=", value, self.number(0))

    def as_number(self, value):
        """Return a number; true is one."""
        if value.type == VECTOR:
            return value
        return self.builder.select(value, self.number(1), self.number(0))

    def _count(self):
        """Count an operation; cut the block where it has become long."""
        self.n_operations += 1
        if self.n_operations % BLOCK == 0:
            block = self.builder.append_basic_block()
            self.builder.branch(block)
            self.builder.position_at_end(block)
