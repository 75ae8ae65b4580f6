"""Torch's functions of numbers, element by element, in the operations of a graph."""

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from sklearn_inverse.ode.compiled._graph import Graph, Untraceable

__all__ = ["MAX_NODES", "SAME", "Algebra", "Untraceable", "elementwise"]

MAX_NODES = 1_000_000
SAME = {
    *("neg", "abs", "sign", "floor", "ceil", "trunc", "round", "mul", "pow", "sqrt"),
    *("exp", "expm1", "log", "log1p", "erf", "sin", "cos", "tan", "asin", "acos"),
    *("atan", "atan2", "sinh", "cosh", "tanh", "lt", "le", "eq", "ne"),
}


class Algebra:
    """Functions of expressions, under torch's names and with torch's arguments.

    All arguments are numbers of expressions. What is true or false counts as one or zero
    where a number is asked for, and a number that is not zero as true.

    Parameters
    ----------
    graph : Graph
        Where the expressions stand.
    """

    def __init__(self, graph: Graph):
        self.graph, self.constant = graph, graph.constant

    def __getattr__(self, name: str):
        if name in SAME:
            return partial(self.call, name)
        raise AttributeError(name)

    def call(self, operation: str, *args: int) -> int:
        """Return an operation on numbers."""
        if len(self.graph) > MAX_NODES:
            raise Untraceable(f"it takes more than {MAX_NODES} operations")
        return self.graph.call(operation, *map(self.as_number, args))

    def as_number(self, x: int) -> int:
        """Turn true and false into one and zero."""
        if self.graph.is_boolean(x):
            return self.graph.call("where", x, self.constant(1), self.constant(0))
        return x

    def as_condition(self, x: int) -> int:
        """Turn a number into whether it is not zero."""
        return x if self.graph.is_boolean(x) else self.ne(x, self.constant(0))

    # Arithmetic.

    def add(self, x, y, alpha=None):
        return self.call("add", x, self._scaled(y, alpha))

    def sub(self, x, y, alpha=None):
        return self.call("sub", x, self._scaled(y, alpha))

    def rsub(self, x, y, alpha=None):
        return self.sub(y, x, alpha)

    def _scaled(self, x, factor):
        return x if factor is None else self.mul(x, factor)

    def div(self, x, y, *, rounding_mode=None):
        quotient = self.call("div", x, y)
        return self.call(rounding_mode, quotient) if rounding_mode else quotient

    def floor_divide(self, x, y):
        return self.div(x, y, rounding_mode="floor")

    def remainder(self, x, y):
        return self.sub(x, self.mul(y, self.floor_divide(x, y)))

    def fmod(self, x, y):
        return self.sub(x, self.mul(y, self.div(x, y, rounding_mode="trunc")))

    def frac(self, x):
        return self.sub(x, self.trunc(x))

    def reciprocal(self, x):
        return self.div(self.constant(1), x)

    def square(self, x):
        return self.mul(x, x)

    def addcmul(self, x, y, z, value=None):
        return self.add(x, self.mul(y, z), value)

    def addcdiv(self, x, y, z, value=None):
        return self.add(x, self.div(y, z), value)

    def lerp(self, start, end, weight):
        return self.add(start, self.mul(weight, self.sub(end, start)))

    # Functions.

    def rsqrt(self, x):
        return self.reciprocal(self.sqrt(x))

    def root(self, x):
        # Of a sum of squares: its slope is zero where all of them are.
        zero = self.constant(0)
        return self.where(self.eq(x, zero), zero, self.sqrt(x))

    def hypot(self, x, y):
        return self.root(self.add(self.square(x), self.square(y)))

    def exp2(self, x):
        return self.pow(self.constant(2), x)

    def log2(self, x):
        return self.mul(self.log(x), self.constant(1 / math.log(2)))

    def log10(self, x):
        return self.mul(self.log(x), self.constant(1 / math.log(10)))

    def special_xlog1py(self, x, y):
        return self._or_zero(x, self.log1p(y))

    def xlogy(self, x, y):
        return self._or_zero(x, self.log(y))

    def _or_zero(self, x, y):
        zero = self.constant(0)
        return self.where(self.eq(x, zero), zero, self.mul(x, y))

    def erfc(self, x):
        return self.sub(self.constant(1), self.erf(x))

    def atanh(self, x):
        ends = self.log1p(x), self.log1p(self.neg(x))
        return self.mul(self.constant(0.5), self.sub(*ends))

    def sigmoid(self, x):
        # Nothing overflows, nor is there a kink at zero.
        is_negative = self.lt(x, self.constant(0))
        power = self.exp(self.where(is_negative, x, self.neg(x)))
        one = self.constant(1)
        return self.div(self.where(is_negative, power, one), self.add(one, power))

    def silu(self, x):
        return self.mul(x, self.sigmoid(x))

    def softplus(self, x, beta=None, threshold=None):
        scaled = x if beta is None else self.mul(x, beta)
        smooth = self.log1p(self.exp(scaled))
        smooth = smooth if beta is None else self.div(smooth, beta)
        limit = self.constant(20) if threshold is None else threshold
        return self.where(self.gt(scaled, limit), x, smooth)

    def logaddexp(self, x, y):
        larger = self.maximum(x, y)
        return self.add(
            larger, self.log1p(self.exp(self.sub(self.minimum(x, y), larger)))
        )

    def leaky_relu(self, x, negative_slope=None):
        slope = self.constant(0.01) if negative_slope is None else negative_slope
        return self.where(self.gt(x, self.constant(0)), x, self.mul(slope, x))

    def gelu(self, x, *, approximate="none"):
        if approximate != "none":
            raise NotImplementedError
        half = self.erf(self.mul(x, self.constant(math.sqrt(0.5))))
        return self.mul(
            self.mul(x, self.constant(0.5)), self.add(self.constant(1), half)
        )

    # Kinks and jumps.

    def relu(self, x):
        zero = self.constant(0)
        return self.where(self.le(x, zero), zero, x)

    def minimum(self, x, y):
        return self.where(self._or_undefined(self.lt(x, y), x), x, y)

    def maximum(self, x, y):
        return self.where(self._or_undefined(self.lt(y, x), x), x, y)

    def _or_undefined(self, condition, x):
        """Whether a condition holds or ``x`` is NaN, which torch hands on."""
        if self.graph.value(x) is not None:
            return condition
        return self.logical_or(condition, self.isnan(x))

    def clamp(self, x, min=None, max=None):
        if min is not None:
            x = self.where(self.lt(x, min), min, x)
        return x if max is None else self.where(self.gt(x, max), max, x)

    def clamp_min(self, x, min):
        return self.clamp(x, min)

    def clamp_max(self, x, max):
        return self.clamp(x, max=max)

    hardtanh = clamp

    def heaviside(self, x, at_zero):
        zero, one = self.constant(0), self.constant(1)
        step = self.where(self.lt(zero, x), one, zero)
        return self.where(self.eq(x, zero), at_zero, step)

    # Conditions.

    def gt(self, x, y):
        return self.lt(y, x)

    def ge(self, x, y):
        return self.le(y, x)

    def isnan(self, x):
        return self.ne(x, x)

    def logical_and(self, x, y):
        return self.graph.call("and", self.as_condition(x), self.as_condition(y))

    def logical_or(self, x, y):
        return self.graph.call("or", self.as_condition(x), self.as_condition(y))

    def logical_xor(self, x, y):
        one_of_them = self.logical_and(x, self.logical_not(y))
        return self.logical_or(one_of_them, self.logical_and(self.logical_not(x), y))

    def logical_not(self, x):
        return self.graph.call("not", self.as_condition(x))

    def where(self, condition, x, y):
        branches = self.as_number(x), self.as_number(y)
        return self.graph.call("where", self.as_condition(condition), *branches)

    def masked_fill(self, x, mask, value):
        return self.where(mask, value, x)

    def sgn(self, x):
        return self.sign(x)


def elementwise(function: Callable[..., int], *arrays: np.ndarray) -> np.ndarray:
    """Apply a function of expressions to arrays of them, which broadcast."""
    results = np.frompyfunc(function, len(arrays), 1)(*arrays)
    return np.asarray(results, dtype=int)
