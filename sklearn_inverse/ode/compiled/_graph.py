"""Scalar expressions as one graph, in which nothing stands twice, and their derivatives."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import special

__all__ = ["BOOLEAN", "OPERATIONS", "Graph", "Untraceable"]

# How each operation is computed of NumPy arrays.
OPERATIONS: dict[str, Callable[..., np.ndarray]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "neg": np.negative,
    "pow": np.power,
    "sqrt": np.sqrt,
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "atan2": np.arctan2,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "tanh": np.tanh,
    "erf": special.erf,
    "abs": np.abs,
    "sign": np.sign,
    "floor": np.floor,
    "ceil": np.ceil,
    "trunc": np.trunc,
    "round": np.rint,
    "lt": np.less,
    "le": np.less_equal,
    "eq": np.equal,
    "ne": np.not_equal,
    "and": np.logical_and,
    "or": np.logical_or,
    "not": np.logical_not,
    "where": np.where,
}
BOOLEAN = {"lt", "le", "eq", "ne", "and", "or", "not"}
COMMUTATIVE = {"add", "mul", "eq", "ne", "and", "or"}
STEPS = {"sign", "floor", "ceil", "trunc", "round"}  # whose slope is zero
LARGEST_POWER = 8  # that is multiplied out
TINY = 2.0**-1024  # has an infinite inverse
MAX_SLOPES = 5_000_000  # derivatives of all expressions, which take half a gigabyte


class Untraceable(Exception):
    """A function is not made of known operations, or of too many; it says why."""


class Graph:
    """Expressions of variables, numbered in the order in which they are computed.

    An expression that is built again gets the number that it has. What is constant is
    computed at once. Nothing is simplified that would change a result, infinite and
    undefined ones included, but for the sign of a zero.

    Attributes
    ----------
    nodes : list of tuple
        Each expression: ("const", value), ("var", kind, index), or an operation with the
        numbers of its arguments.
    """

    def __init__(self):
        self.nodes: list[tuple] = []
        self._known: dict[tuple, int] = {}

    def __len__(self) -> int:
        return len(self.nodes)

    def copy(self) -> "Graph":
        """Return a graph with the same expressions, to which others can be added."""
        other = Graph()
        other.nodes, other._known = self.nodes.copy(), self._known.copy()
        return other

    def variable(self, kind: str, index: int) -> int:
        """Return the number of variable ``index`` of a kind, such as a state."""
        return self._number(("var", kind, index))

    def constant(self, value: float) -> int:
        """Return the number of a constant."""
        value = float(value)
        return self._number(("const", value), key=("const", value.hex()))

    def value(self, node: int) -> float | None:
        """Return what a constant is worth; None for any other expression."""
        found = self.nodes[node]
        return found[1] if found[0] == "const" else None

    def is_boolean(self, node: int) -> bool:
        """Whether an expression is true or false."""
        return self.nodes[node][0] in BOOLEAN

    def call(self, operation: str, *args: int) -> int:
        """Return the number of an operation on expressions."""
        values = [self.value(x) for x in args]
        if None not in values:
            with np.errstate(all="ignore"):
                return self.constant(float(OPERATIONS[operation](*values)))
        simpler = self._simplify(operation, args, values)
        if simpler is not None:
            return simpler
        if operation in COMMUTATIVE:
            args = tuple(sorted(args))
        return self._number((operation, *args))

    def _number(self, node: tuple, key: tuple | None = None) -> int:
        key = key or node
        number = self._known.get(key)
        if number is None:
            number = self._known[key] = len(self.nodes)
            self.nodes.append(node)
        return number

    def _simplify(self, operation, args, values) -> int | None:
        """Return a simpler expression of the same worth, None if there is none."""
        x, a = args[0], values[0]
        if operation == "where" and a is not None:
            return args[1] if a else args[2]
        if len(args) == 1:
            if operation == "neg" and self.nodes[x][0] == "neg":
                return self.nodes[x][1]
            return None
        y, b = args[1], values[1]
        match operation:
            case "add":
                return x if b == 0 else y if a == 0 else None
            case "sub":
                return x if b == 0 else self.call("neg", y) if a == 0 else None
            case "mul":
                for factor, other in ((a, y), (b, x)):
                    if factor in (1, -1):
                        return other if factor == 1 else self.call("neg", other)
            case "and" | "or":
                for known, other in ((a, y), (b, x)):
                    if known is not None:
                        decides = bool(known) == (operation == "or")
                        return self.constant(known != 0) if decides else other
            case "div" if b and abs(math.frexp(b)[0]) == 0.5 and abs(b) > TINY:
                return self.call("mul", x, self.constant(1 / b))  # exact
            case "pow" if b is not None:
                return self._power(x, b)
            case "where" if y == args[2]:
                return y
        return None

    def _power(self, x: int, exponent: float) -> int | None:
        """Return a power without the function ``pow``, None if that is not possible."""
        if exponent in (0.5, -0.5):
            root = self.call("sqrt", x)
            return root if exponent > 0 else self.call("div", self.constant(1), root)
        if exponent == 0:
            return self.constant(1)
        if not exponent.is_integer() or abs(exponent) > LARGEST_POWER:
            return None
        result: Any = None
        square, left = x, int(abs(exponent))
        while left:
            if left % 2:
                result = square if result is None else self.call("mul", result, square)
            left //= 2
            square = self.call("mul", square, square) if left else square
        if exponent < 0:
            result = self.call("div", self.constant(1), result)
        return result

    # Short forms for the rules of differentiation.

    def _add(self, x: int | None, y: int | None) -> int | None:
        return y if x is None else x if y is None else self.call("add", x, y)

    def _times(self, x: int, y: int | None) -> int | None:
        return None if y is None else self.call("mul", x, y)

    def cone(self, outputs: Iterable[int]) -> list[int]:
        """Return all expressions that ``outputs`` need, in the order of computation."""
        needed, left = set(), list(outputs)
        while left:
            node = left.pop()
            if node not in needed:
                needed.add(node)
                left += self.arguments(node)
        return sorted(needed)

    def arguments(self, node: int) -> tuple[int, ...]:
        """Return what an operation is applied to; nothing for variables and constants."""
        found = self.nodes[node]
        return () if found[0] in ("const", "var") else found[1:]

    def differentiate(
        self, outputs: Sequence[int], seeds: Mapping[int, Mapping]
    ) -> list[dict]:
        """Differentiate expressions along several directions in one sweep.

        Forward, so that a branch that was not taken is dropped by the choice itself,
        whatever its slope is: multiplied by zero, an infinite one would be undefined.

        Parameters
        ----------
        outputs : sequence of int
            Expressions.

        seeds : mapping of int to mapping
            Derivatives of variables: for each one that moves, an expression for each
            direction, by any name.

        Returns
        -------
        derivatives : list of dict
            Derivatives of each output by direction; those that are zero are left out.
        """
        slopes: dict[int, dict] = {}
        n_slopes = 0
        for node in self.cone(outputs):
            if node in seeds:
                slopes[node] = dict(seeds[node])
                continue
            moved = [slopes.get(x, {}) for x in self.arguments(node)]
            if any(moved) and not self.is_boolean(node):
                rule = self._rule(node)
                directions = dict.fromkeys(d for slope in moved for d in slope)
                found = {d: rule([slope.get(d) for slope in moved]) for d in directions}
                slopes[node] = {
                    d: x
                    for d, x in found.items()
                    if x is not None and self.value(x) != 0
                }
                n_slopes += len(found)
                if n_slopes > MAX_SLOPES:
                    raise Untraceable(
                        f"its derivatives are made of more than {MAX_SLOPES}, too many "
                        "to be kept in memory: most states depend on most others"
                    )
        return [slopes.get(x, {}) for x in outputs]

    def _rule(self, node: int) -> Callable[[list], int | None]:
        """Return how an operation turns derivatives of its arguments into its own.

        Factors that all directions share are built once, here.
        """
        call, number = self.call, self.constant
        operation, x, *rest = self.nodes[node]
        y = rest[0] if rest else -1
        if operation == "add":
            return lambda d: self._add(*d)
        if operation == "sub":
            return lambda d: (
                d[0]
                if d[1] is None
                else call("neg", d[1])
                if d[0] is None
                else call("sub", *d)
            )
        if operation == "mul":
            return lambda d: self._add(self._times(y, d[0]), self._times(x, d[1]))
        if operation == "div":
            inverse = call("div", number(1), y)
            minus = call("neg", call("mul", node, inverse))
            return lambda d: self._add(
                self._times(inverse, d[0]), self._times(minus, d[1])
            )
        if operation == "pow":
            by_x = call("mul", y, call("pow", x, call("sub", y, number(1))))
            if self.value(y) is not None:
                return lambda d: self._times(by_x, d[0])
            by_x = call("where", call("eq", y, number(0)), number(0), by_x)
            at_zero = call("and", call("eq", x, number(0)), call("le", number(0), y))
            slope = call("mul", node, call("log", x))
            by_y = call("where", at_zero, number(0), slope)
            return lambda d: self._add(self._times(by_x, d[0]), self._times(by_y, d[1]))
        if operation == "atan2":
            squares = call("add", call("mul", x, x), call("mul", y, y))
            by_x, by_y = call("div", y, squares), call("neg", call("div", x, squares))
            return lambda d: self._add(self._times(by_x, d[0]), self._times(by_y, d[1]))
        if operation == "where":
            zero = number(0)
            return lambda d: (
                None
                if d[1] is d[2] is None
                else call(
                    "where", x, *(zero if part is None else part for part in d[1:])
                )
            )
        if operation in STEPS:
            return lambda d: None
        factor = self._slope(operation, x, node)
        return lambda d: self._times(factor, d[0])

    def _slope(self, operation: str, x: int, result: int) -> int:
        """Return the derivative of a function of one number."""
        call, one = self.call, self.constant(1)

        def square(node):
            return call("mul", node, node)

        match operation:
            case "neg":
                return self.constant(-1)
            case "sqrt":
                return call("div", self.constant(0.5), result)
            case "exp":
                return result
            case "expm1":
                return call("add", result, one)
            case "log":
                return call("div", one, x)
            case "log1p":
                return call("div", one, call("add", one, x))
            case "sin":
                return call("cos", x)
            case "cos":
                return call("neg", call("sin", x))
            case "tan":
                return call("add", one, square(result))
            case "asin" | "acos":
                root = call("sqrt", call("sub", one, square(x)))
                return call(
                    "div", call("neg", one) if operation == "acos" else one, root
                )
            case "atan":
                return call("div", one, call("add", one, square(x)))
            case "sinh":
                return call("cosh", x)
            case "cosh":
                return call("sinh", x)
            case "tanh":
                return call("sub", one, square(result))
            case "erf":
                bell = call("exp", call("neg", square(x)))
                return call("mul", self.constant(2 / math.sqrt(math.pi)), bell)
            case "abs":
                return call("sign", x)
        raise NotImplementedError(f"no derivative of {operation}")

    def evaluate(self, outputs: Sequence[int], variables: Mapping) -> list[np.ndarray]:
        """Compute expressions in NumPy.

        Parameters
        ----------
        outputs : sequence of int
            Expressions.

        variables : mapping of str to ndarray
            Values of the variables of each kind, the last axis by index.

        Returns
        -------
        values : list of ndarray
            One array per output, of the shape of the variables without their last axis.
        """
        found: dict[int, Any] = {}
        with np.errstate(all="ignore"):
            for node in self.cone(outputs):
                operation, *args = self.nodes[node]
                if operation == "const":
                    found[node] = np.float64(args[0])
                elif operation == "var":
                    found[node] = np.asarray(variables[args[0]])[..., args[1]]
                else:
                    found[node] = OPERATIONS[operation](*(found[x] for x in args))
        return [found[x] for x in outputs]
