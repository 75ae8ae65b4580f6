"""Rate expressions: text that is checked piece by piece before any of it is run."""

import ast
import math
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import reduce
from numbers import Real

import torch
from torch import Tensor

__all__ = ["Rates", "monomials", "names_in", "parse_rate", "plain", "times_names"]

Monomial = tuple[ast.expr, Counter[str]]
DOUBLE = torch.float64
MAX_TERMS = 20  # of a polynomial that is multiplied out


def _lifted(function):
    """Let a torch function take numbers among the tensors."""

    def run(*args):
        return function(
            *(torch.as_tensor(a, dtype=getattr(a, "dtype", DOUBLE)) for a in args)
        )

    return run


NAMES = "exp", "log", "sqrt", "tanh", "sin", "cos", "abs"
FUNCTIONS = {name: _lifted(getattr(torch, name)) for name in NAMES}
FUNCTIONS["min"] = _lifted(lambda *args: reduce(torch.minimum, args))
FUNCTIONS["max"] = _lifted(lambda *args: reduce(torch.maximum, args))
# Nothing but what `parse_rate` lets pass is ever run, and this is all within its reach.
# Torch imports more of itself where it is first used, even from here.
SPACE = {"__builtins__": {"__import__": __import__}, **FUNCTIONS}


class Rates:
    """Evaluate expressions of :func:`parse_rate` on batches.

    Each of ``groups`` names the columns of one tensor that will be handed over;
    ``constants`` are numbers that the expressions may use by name.
    """

    def __init__(
        self,
        expressions: Sequence[ast.expr],
        groups: Sequence[Sequence[str]],
        constants: Mapping[str, float] | None = None,
    ):
        self._made_of = expressions, groups, constants
        used = {name for tree in expressions for name in names_in(tree)}
        self._columns = [
            [(plain(name), i) for i, name in enumerate(group) if plain(name) in used]
            for group in groups
        ]
        self._constants = {
            plain(name): torch.tensor(value, dtype=DOUBLE)
            for name, value in (constants or {}).items()
        }
        body = ast.Tuple(list(expressions), ast.Load())
        tree = ast.fix_missing_locations(ast.Expression(body))
        self._code = compile(tree, "<rates>", "eval")

    def __call__(self, *tensors: Tensor) -> Tensor:
        """Return the rates (n_samples, n_expressions) for a tensor of each group."""
        values = dict(self._constants)
        for columns, tensor in zip(self._columns, tensors, strict=True):
            parts = tensor.unbind(-1)
            values |= {name: parts[i] for name, i in columns}
        zero = tensors[-1].new_zeros(tensors[-1].shape[:-1])
        rates = eval(self._code, SPACE, values)
        return torch.stack(
            [r if getattr(r, "ndim", 0) else zero + r for r in rates], dim=-1
        )

    def __reduce__(self):
        return Rates, self._made_of


def plain(name: str) -> str:
    """Return a name as Python's parser spells it: µ for one is written in two ways."""
    return unicodedata.normalize("NFKC", name)


def parse_rate(rate, where: str) -> ast.expr:
    """Read a number, a name or an expression, and refuse all else.

    ``where`` names the culprit in error messages.
    """
    if isinstance(rate, str):
        try:
            tree = ast.parse(rate.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise ValueError(
                f"{where} cannot be read: {rate!r} is not an expression such as "
                "'vmax*S/(km+S)'. Names in it must consist of letters, digits and _."
            ) from error
    elif isinstance(rate, Real) and not isinstance(rate, bool):
        tree = ast.Constant(float(rate))
    else:
        raise ValueError(
            f"{where} must be a number, the name of a param, or an expression in text "
            f"such as 'vmax*S/(km+S)'. Got {rate!r} instead."
        )
    _check(tree, where)
    return tree


def names_in(tree: ast.expr) -> list[str]:
    """Return the names of species, params and constants, in order of appearance."""
    if isinstance(tree, ast.Name):
        return [tree.id]
    parts = tree.args if isinstance(tree, ast.Call) else ast.iter_child_nodes(tree)
    inner = [names_in(part) for part in parts if isinstance(part, ast.expr)]
    return list(dict.fromkeys(name for names in inner for name in names))


def _check(node: ast.expr, where: str) -> None:
    """Raise ValueError unless the expression is made of what is allowed."""
    match node:
        case ast.Name(id=name) if name not in FUNCTIONS:
            return
        case ast.Constant(value=int() | float() as value) if type(value) is not bool:
            with suppress(OverflowError):
                node.value = float(value)  # whole powers would take their time
            parts = []
        case ast.UnaryOp(op=ast.USub() | ast.UAdd()):
            parts = [node.operand]
        case ast.BinOp(op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div() | ast.Pow()):
            parts = [node.left, node.right]
        case ast.Call(func=ast.Name(id=name), keywords=[]) if name in FUNCTIONS:
            parts = node.args
            if (len(parts) < 2) if name in ("min", "max") else (len(parts) != 1):
                raise ValueError(
                    f"{where} calls {ast.unparse(node)!r}: min and max take two values "
                    "or more, every other function one."
                )
        case ast.BinOp(op=ast.BitXor()):
            raise ValueError(f"{where} uses '^': a power is written '**'.")
        case _:
            raise ValueError(
                f"{where} holds {ast.unparse(node)!r}. A rate may consist of numbers, "
                "names of species and params, + - * / **, parentheses, and the functions "
                f"{', '.join(sorted(FUNCTIONS))}."
            )
    for part in parts:
        _check(part, where)
    if not names_in(node):
        try:
            tree = ast.fix_missing_locations(ast.Expression(node))
            value = float(eval(compile(tree, "<rate>", "eval"), SPACE))
        except (ArithmeticError, TypeError):  # 1/0, (-1)**0.5
            value = math.nan
        if not math.isfinite(value):
            raise ValueError(
                f"{where} holds {ast.unparse(node)!r}, not a finite number."
            )


def monomials(tree: ast.expr, species: set[str]) -> list[Monomial] | None:
    """Multiply a polynomial of the species out.

    Each term is its coefficient, an expression without species, and how often each
    species multiplies it. None where this is no polynomial, or a long one.
    """
    if not species & set(names_in(tree)):
        return [(tree, Counter())]
    terms: list[Monomial] | None = None
    match tree:
        case ast.Name(id=name):
            terms = [(ast.Constant(1.0), Counter([name]))]
        case ast.UnaryOp(op=ast.UAdd(), operand=x):
            terms = monomials(x, species)
        case ast.UnaryOp(op=ast.USub(), operand=x):
            terms = _product([(ast.Constant(-1.0), Counter())], monomials(x, species))
        case ast.BinOp(left=a, op=ast.Add() | ast.Sub() as op, right=b):
            if isinstance(op, ast.Sub):
                b = ast.UnaryOp(ast.USub(), b)
            left, right = monomials(a, species), monomials(b, species)
            terms = None if left is None or right is None else left + right
        case ast.BinOp(left=a, op=ast.Mult(), right=b):
            terms = _product(monomials(a, species), monomials(b, species))
        case ast.BinOp(left=a, op=ast.Div(), right=b) if not species & set(names_in(b)):
            inverse: ast.expr = ast.BinOp(ast.Constant(1.0), ast.Div(), b)
            terms = _product([(inverse, Counter())], monomials(a, species))
        case ast.BinOp(left=a, op=ast.Pow(), right=ast.Constant(value=n)):
            factor = monomials(a, species)
            if isinstance(n, float) and n in (1, 2, 3, 4):
                terms = reduce(_product, [factor] * int(n))
    return None if terms is None or len(terms) > MAX_TERMS else terms


def times_names(tree: ast.expr, numbers: Mapping[str, float]) -> ast.expr:
    """Multiply an expression by each of the names as often as its number says."""
    for name, n in numbers.items():
        for _ in range(int(n)):
            tree = _times(tree, ast.Name(plain(name), ast.Load()))
    return tree


def _product(left, right):
    """Multiply two sums of monomials."""
    if left is None or right is None:
        return None
    return [(_times(a, b), m + n) for a, m in left for b, n in right]


def _times(a: ast.expr, b: ast.expr) -> ast.expr:
    one = [isinstance(x, ast.Constant) and x.value == 1 for x in (a, b)]
    return b if one[0] else a if one[1] else ast.BinOp(a, ast.Mult(), b)
