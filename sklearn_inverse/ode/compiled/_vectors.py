"""Vectors of ``LANES`` numbers, one lane per sample, in LLVM and in numba.

All numbers of the compiled kernel lie in one workspace of rows, each row one vector. Numba
sees addresses, not arrays: it would count references whenever it touched one, which took
half of the time.
"""

import operator

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

__all__ = [
    "ALIGNMENT",
    "INT",
    "LANES",
    "VECTOR",
    "any_positive",
    "call_llvm",
    "choose",
    "doubles",
    "fill",
    "gather",
    "ints",
    "larger",
    "larger_magnitude",
    "less",
    "load",
    "multiply_add",
    "run",
    "smaller",
    "store",
]

LANES = 8  # the doubles in an AVX-512 register
ALIGNMENT = 8 * LANES
VECTOR = ir.VectorType(ir.DoubleType(), LANES)
INT = ir.IntType(64)


def call_llvm(builder, name, *args):
    """Call an intrinsic of LLVM on vectors, such as a fused multiply-add."""
    function_type = ir.FunctionType(VECTOR, [VECTOR] * len(args))
    function = cgutils.get_or_insert_function(
        builder.module, function_type, f"llvm.{name}.v{LANES}f64"
    )
    return builder.call(function, args)


class Vector(types.Type):
    """Numba's type of a row."""

    def __init__(self):
        super().__init__(name=f"Vector{LANES}")


@register_model(Vector)
class VectorModel(models.PrimitiveModel):
    """A row is a vector of LLVM."""

    def __init__(self, dmm, fe_type):
        super().__init__(dmm, fe_type, VECTOR)


vector = Vector()
double_pointer = types.CPointer(types.float64)
int_pointer = types.CPointer(types.int64)


def pointer_to_row(builder, work, row):
    """Point to a row of the workspace."""
    first = builder.mul(row, INT(LANES))
    return builder.bitcast(builder.gep(work, [first]), VECTOR.as_pointer())


@intrinsic
def doubles(typingctx, address):
    """Numbers at an address."""

    def emit(context, builder, signature, args):
        return builder.inttoptr(args[0], ir.DoubleType().as_pointer())

    return double_pointer(types.int64), emit


@intrinsic
def ints(typingctx, address):
    """Integers at an address."""

    def emit(context, builder, signature, args):
        return builder.inttoptr(args[0], INT.as_pointer())

    return int_pointer(types.int64), emit


@intrinsic
def load(typingctx, work, row):
    """Load a row of the workspace."""

    def emit(context, builder, signature, args):
        return builder.load(pointer_to_row(builder, *args), align=ALIGNMENT)

    return vector(double_pointer, types.int64), emit


@intrinsic
def store(typingctx, value, work, row):
    """Store a row of the workspace."""

    def emit(context, builder, signature, args):
        value, work, row = args
        builder.store(value, pointer_to_row(builder, work, row), align=ALIGNMENT)
        return context.get_dummy_value()

    return types.void(vector, double_pointer, types.int64), emit


@intrinsic
def gather(typingctx, address, lanes, first, place, offset, end):
    """Row of numbers ``first + min(place + offset, end - 1)`` at an address.

    All but the address and the offset are rows of integers. Put there one by one, they
    would have to reach the cache before a vector of them could be read.
    """

    def emit(context, builder, signature, args):
        address, lanes, first, place, offset, end = args
        ints = ir.VectorType(INT, LANES)

        def spread(number):
            row = ir.Constant(ints, ir.Undefined)
            for lane in range(LANES):
                row = builder.insert_element(row, number, ir.IntType(32)(lane))
            return row

        def load_ints(row):
            return builder.load(
                builder.bitcast(
                    builder.gep(lanes, [builder.mul(row, INT(LANES))]),
                    ints.as_pointer(),
                ),
                align=8,
            )

        last = builder.sub(load_ints(end), ir.Constant(ints, [1] * LANES))
        index = builder.add(load_ints(place), spread(offset))
        index = builder.select(builder.icmp_signed("<", index, last), index, last)
        index = builder.add(index, load_ints(first))
        index = builder.mul(index, ir.Constant(ints, [8] * LANES))
        pointers = ir.VectorType(ir.DoubleType().as_pointer(), LANES)
        where = builder.inttoptr(builder.add(index, spread(address)), pointers)
        mask = ir.VectorType(ir.IntType(1), LANES)
        function_type = ir.FunctionType(
            VECTOR, [pointers, ir.IntType(32), mask, VECTOR]
        )
        function = cgutils.get_or_insert_function(
            builder.module, function_type, f"llvm.masked.gather.v{LANES}f64.v{LANES}p0"
        )
        every = ir.Constant(mask, [1] * LANES)
        undefined = ir.Constant(VECTOR, ir.Undefined)
        return builder.call(function, [where, ir.IntType(32)(8), every, undefined])

    integer = types.int64
    return vector(integer, int_pointer, *[integer] * 4), emit


@intrinsic
def run(typingctx, address, work, offsets):
    """Run code of the network; ``offsets`` is a tuple."""

    def emit(context, builder, signature, args):
        address, work, offsets = args
        arguments = [builder.bitcast(work, VECTOR.as_pointer())]
        arguments += cgutils.unpack_tuple(builder, offsets)
        function_type = ir.FunctionType(ir.VoidType(), [x.type for x in arguments])
        function = builder.inttoptr(address, function_type.as_pointer())
        builder.call(function, arguments)
        return context.get_dummy_value()

    return types.void(types.int64, double_pointer, offsets), emit


@intrinsic
def fill(typingctx, number):
    """Row of equal numbers."""

    def emit(context, builder, signature, args):
        row = ir.Constant(VECTOR, ir.Undefined)
        for lane in range(LANES):
            row = builder.insert_element(row, args[0], ir.IntType(32)(lane))
        return row

    return vector(types.float64), emit


@intrinsic
def choose(typingctx, condition, yes, no):
    """Row of ``yes`` where the condition is above zero, else of ``no``."""

    def emit(context, builder, signature, args):
        condition, yes, no = args
        zero = ir.Constant(VECTOR, [0.0] * LANES)
        return builder.select(builder.fcmp_ordered(">", condition, zero), yes, no)

    return vector(vector, vector, vector), emit


@intrinsic
def multiply_add(typingctx, x, y, z):
    """Row ``x y + z``."""

    def emit(context, builder, signature, args):
        return call_llvm(builder, "fmuladd", *args)

    return vector(vector, vector, vector), emit


@intrinsic
def larger_magnitude(typingctx, x, y):
    """Row of the larger of |x| and |y|."""

    def emit(context, builder, signature, args):
        magnitudes = [call_llvm(builder, "fabs", x) for x in args]
        return call_llvm(builder, "maxnum", *magnitudes)

    return vector(vector, vector), emit


@intrinsic
def less(typingctx, x, y):
    """Row of one where ``x < y``, else of zero."""

    def emit(context, builder, signature, args):
        zero, one = (ir.Constant(VECTOR, [x] * LANES) for x in (0.0, 1.0))
        return builder.select(builder.fcmp_ordered("<", *args), one, zero)

    return vector(vector, vector), emit


@intrinsic
def any_positive(typingctx, x):
    """Whether any number of a row is above zero."""

    def emit(context, builder, signature, args):
        zero, byte = ir.Constant(VECTOR, [0.0] * LANES), ir.IntType(LANES)
        bits = builder.bitcast(builder.fcmp_ordered(">", args[0], zero), byte)
        return builder.icmp_unsigned("!=", bits, byte(0))

    return types.boolean(vector), emit


def define_function(name, doc):
    """Let numba compute a function of two rows by an intrinsic of LLVM."""

    @intrinsic
    def compute(typingctx, x, y):
        def emit(context, builder, signature, args):
            return call_llvm(builder, name, *args)

        return vector(vector, vector), emit

    compute.__doc__ = doc
    return compute


larger = define_function("maxnum", "Row of the larger numbers of two.")
smaller = define_function("minnum", "Row of the smaller numbers of two.")


def define_operator(symbol, instruction):
    """Let numba compute ``symbol`` of two rows by an instruction of LLVM."""

    @intrinsic
    def compute(typingctx, x, y):
        def emit(context, builder, signature, args):
            return getattr(builder, instruction)(*args)

        return vector(vector, vector), emit

    @overload(symbol)
    def compute_rows(x, y):
        if x == y == vector:
            return lambda x, y: compute(x, y)
        return None


define_operator(operator.add, "fadd")
define_operator(operator.sub, "fsub")
define_operator(operator.mul, "fmul")
define_operator(operator.truediv, "fdiv")
