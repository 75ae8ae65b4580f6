"""Torch's sums, extremes, norms and products of matrices, on arrays of expressions."""

import itertools
from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import numpy as np

from sklearn_inverse.ode.compiled._algebra import Untraceable, elementwise

__all__ = ["REDUCTIONS"]


def along(x: np.ndarray, dim: Any) -> tuple[np.ndarray, tuple[int, ...]]:
    """Return an array with some axes, all where none are given, as its first one."""
    given = range(x.ndim) if dim is None or dim == [] else np.atleast_1d(dim)
    axes = tuple(int(d) % x.ndim for d in given) if x.ndim else ()
    rest = [n for d, n in enumerate(x.shape) if d not in axes]
    return np.moveaxis(x, axes, range(len(axes))).reshape(-1, *rest), axes


def fold(combine, start, algebra, x, dim=None, keepdim=False):
    """Combine expressions along axes, one after the other."""
    parts, axes = along(x, dim)
    if not len(parts):
        if start is None:
            raise Untraceable("it seeks an extreme of nothing")
        parts = np.full((1, *parts.shape[1:]), algebra.constant(start))
    result = reduce(partial(elementwise, getattr(algebra, combine)), parts)
    return np.expand_dims(result, axes) if keepdim else result


total, product = partial(fold, "add", 0), partial(fold, "mul", 1)
largest, smallest = partial(fold, "maximum", None), partial(fold, "minimum", None)


def mean(algebra, x, dim=None, keepdim=False):
    count = algebra.constant(len(along(x, dim)[0]))
    return elementwise(algebra.div, total(algebra, x, dim, keepdim), np.asarray(count))


def extreme(best, algebra, x, dim=None, keepdim=False):
    """Return extremes and, along one axis, where they are."""
    value = best(algebra, x, dim, keepdim)
    if dim is None:
        return value
    rows, held = along(x, dim)[0], best(algebra, x, dim)
    where = np.full(held.shape, algebra.constant(len(rows) - 1))
    for i in range(len(rows) - 2, -1, -1):
        hit = elementwise(algebra.eq, rows[i], held)
        where = elementwise(algebra.where, hit, np.asarray(algebra.constant(i)), where)
    return [value, np.expand_dims(where, dim) if keepdim else where]


def accumulate(combine, algebra, x, dim):
    if not x.ndim:
        return x
    steps = partial(elementwise, getattr(algebra, combine))
    return np.stack(list(itertools.accumulate(np.moveaxis(x, dim, 0), steps)), dim)


def norm(algebra, x, ord=2, dim=None, keepdim=False):
    size = elementwise(algebra.abs, x)
    if ord == 1:
        return total(algebra, size, dim, keepdim)
    if ord in (np.inf, -np.inf):
        return (largest if ord > 0 else smallest)(algebra, size, dim, keepdim)
    if ord != 2:
        raise Untraceable(f"it uses a norm of order {ord}")
    square = total(algebra, elementwise(algebra.square, x), dim, keepdim)
    return elementwise(algebra.root, square)


def variance(algebra, x, dim=None, correction=1, keepdim=False):
    away = elementwise(algebra.sub, x, mean(algebra, x, dim, keepdim=True))
    square = total(algebra, elementwise(algebra.square, away), dim, keepdim)
    count = len(along(x, dim)[0]) - (1 if correction is None else correction)
    return elementwise(algebra.div, square, np.asarray(algebra.constant(count)))


def deviation(algebra, x, *args, **kwargs):
    return elementwise(algebra.root, variance(algebra, x, *args, **kwargs))


def logsumexp(algebra, x, dim, keepdim=False):
    top = largest(algebra, x, dim, keepdim=True)
    power = elementwise(algebra.exp, elementwise(algebra.sub, x, top))
    sums = elementwise(algebra.log, total(algebra, power, dim, keepdim=True))
    return squeeze_if(not keepdim, elementwise(algebra.add, top, sums), dim)


def squeeze_if(condition, x, dim):
    return np.squeeze(x, tuple(np.atleast_1d(dim).tolist())) if condition else x


def log_softmax(algebra, x, dim, half_to_float=False):
    return elementwise(algebra.sub, x, logsumexp(algebra, x, dim, keepdim=True))


def softmax(algebra, x, dim, half_to_float=False):
    top = largest(algebra, x, dim, keepdim=True)
    power = elementwise(algebra.exp, elementwise(algebra.sub, x, top))
    return elementwise(algebra.div, power, total(algebra, power, dim, keepdim=True))


# -- products of vectors and matrices -----------------------------------------------------


def inner(algebra, x, y):
    """Sum products; a known zero leaves its term out, though infinity times it is NaN."""
    terms, zero = [], algebra.constant(0)
    for a, b in zip(x, y):
        if a != zero and b != zero:
            terms.append(algebra.mul(a, b))
    return reduce(algebra.add, terms) if terms else zero


def matmul(algebra, x, y):
    if x.ndim == 3:
        return np.stack([matmul(algebra, a, b) for a, b in zip(x, y)])
    columns = y.T.tolist()
    rows = [[inner(algebra, row, column) for column in columns] for row in x.tolist()]
    return np.array(rows, int).reshape(len(x), y.shape[1])


def dot(algebra, x, y):
    return np.asarray(inner(algebra, x.tolist(), y.tolist()))


def matvec(algebra, x, y):
    return matmul(algebra, x, y[:, None])[:, 0]


def plus(multiply, algebra, offset, x, y, beta=1, alpha=1):
    scale = partial(elementwise, algebra.mul)
    product = multiply(algebra, x, y)
    if alpha != 1:
        product = scale(product, np.asarray(algebra.constant(alpha)))
    if beta != 1:
        offset = scale(offset, np.asarray(algebra.constant(beta)))
    return elementwise(algebra.add, product, offset) if beta else product


def cross(algebra, x, y, dim=-1):
    def turned(a, b):
        return elementwise(algebra.mul, np.roll(a, -1, dim), np.roll(b, -2, dim))

    return elementwise(algebra.sub, turned(x, y), turned(y, x))


REDUCTIONS: dict[str, Callable[..., Any]] = {
    "sum": total,
    "prod": product,
    "mean": mean,
    "amax": largest,
    "amin": smallest,
    "max": partial(extreme, largest),
    "min": partial(extreme, smallest),
    "any": partial(fold, "logical_or", 0),
    "all": partial(fold, "logical_and", 1),
    "cumsum": partial(accumulate, "add"),
    "cumprod": partial(accumulate, "mul"),
    "linalg_vector_norm": norm,
    "var": variance,
    "std": deviation,
    "logsumexp": logsumexp,
    "_log_softmax": log_softmax,
    "_softmax": softmax,
    "dot": dot,
    "mv": matvec,
    "mm": matmul,
    "bmm": matmul,
    "addmv": partial(plus, matvec),
    "addmm": partial(plus, matmul),
    "baddbmm": partial(plus, matmul),
    "linalg_cross": cross,
}
