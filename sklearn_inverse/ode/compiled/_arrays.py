"""What torch moves, fills and looks up in arrays, done to arrays of expressions.

An array of expressions is a NumPy array of their numbers in the graph. What is a view in
torch is one here, so that to write to it is to write to what it is a view of.
"""

import itertools
from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any

import numpy as np

from sklearn_inverse.ode.compiled._algebra import Algebra, Untraceable, elementwise

__all__ = ["MOVES"]


# -- what only moves expressions ----------------------------------------------------------


def select(_, x, dim, index):
    return x[(slice(None),) * (dim % x.ndim) + (index, ...)]


def slice_(_, x, dim=0, start=None, end=None, step=1):
    return x[(slice(None),) * (dim % x.ndim) + (slice(start, end, step),)]


def unbind(_, x, dim=0):
    return [select(_, x, dim, i) for i in range(x.shape[dim])]


def squeeze(_, x, dim=None):
    dims = range(x.ndim) if dim is None else np.atleast_1d(dim)
    return x.squeeze(tuple(int(d) for d in dims if x.ndim and x.shape[d] == 1))


def expand(_, x, size, implicit=False):
    new = len(size) - x.ndim
    kept = [x.shape[i - new] if n == -1 else n for i, n in enumerate(size)]
    return np.broadcast_to(x, kept)


def diagonal(_, x, offset=0, dim1=0, dim2=1):
    view = x.diagonal(offset, dim1, dim2)
    view.setflags(write=x.flags.writeable)  # NumPy's is for reading only
    return view


def roll(_, x, shifts, dims=()):
    return np.roll(x, tuple(shifts), tuple(dims)) if dims else np.roll(x, shifts[0])


def split(_, x, size, dim=0):
    starts = range(0, x.shape[dim], size)
    return [slice_(_, x, dim, start, start + size) for start in starts]


def split_with_sizes(_, x, sizes, dim=0):
    ends = itertools.accumulate(sizes)
    return [slice_(_, x, dim, end - n, end) for n, end in zip(sizes, ends)]


def cat(_, parts, dim=0):
    return np.concatenate([x for x in parts if x.shape != (0,)], dim)  # as torch does


def unfold(_, x, dim, size, step):
    dim %= x.ndim
    windows = np.lib.stride_tricks.sliding_window_view(x, size, dim)
    return slice_(_, windows, dim, step=step)


def pad(algebra, x, widths, value=0.0):
    pairs = [(0, 0)] * (x.ndim - len(widths) // 2)
    pairs += [tuple(widths[i : i + 2]) for i in range(len(widths) - 2, -1, -2)]
    grown = [(max(low, 0), max(high, 0)) for low, high in pairs]
    x = np.pad(x, grown, constant_values=algebra.constant(value))
    cut = (slice(max(-low, 0), -high if high < 0 else None) for low, high in pairs)
    return x[tuple(cut)]


def pad_by(mode, _, x, widths):
    return np.pad(x, [(0, 0)] * (x.ndim - 1) + [tuple(widths)], mode)


def triangle(keep, algebra, x, diagonal=0):
    return np.where(keep(np.ones(x.shape), diagonal), x, algebra.constant(0))


def as_node(algebra, value):
    return value if isinstance(value, np.ndarray) else algebra.constant(value)


def full(value, algebra, shape):
    return np.full(shape, algebra.constant(value))


def full_like(value, algebra, x):
    return full(value, algebra, x.shape)


# -- indices ------------------------------------------------------------------------------


def known(algebra: Algebra, index: np.ndarray) -> np.ndarray | None:
    """Return an index in numbers; None if it depends on the variables."""
    values = [algebra.graph.value(i) for i in index.ravel().tolist()]
    return None if None in values else np.reshape(np.array(values, int), index.shape)


def look_up(algebra: Algebra, rows: Sequence[np.ndarray], index: np.ndarray):
    """Choose among arrays by an index of expressions, which broadcasts with them."""
    n, constant = len(rows), algebra.constant
    is_negative = partial(elementwise, lambda i: algebra.lt(i, constant(0)))

    def from_start(i, negative):
        return algebra.where(negative, algebra.add(i, constant(n)), i)

    index = elementwise(from_start, index, is_negative(index))
    chosen = np.asarray(constant(np.nan))  # which torch has no place for
    for i, row in enumerate(rows):
        hit = elementwise(partial(algebra.eq, constant(i)), index)
        chosen = elementwise(algebra.where, hit, row, chosen)
    return np.broadcast_to(chosen, np.broadcast_shapes(index.shape, chosen.shape))


def as_key(algebra, indices):
    numbers = [slice(None) if i is None else known(algebra, i) for i in indices]
    if any(i is None for i in numbers):
        raise Untraceable("it writes to, or reads from, places that depend on values")
    return tuple(numbers)


def index(algebra, x, indices):
    given = [i for i, array in enumerate(indices) if array is not None]
    if len(given) == 1 and known(algebra, array := indices[given[0]]) is None:
        dim = given[0]
        rows = unbind(algebra, x, dim)
        if dim == 0:
            array = array.reshape(array.shape + (1,) * rows[0].ndim)
            return look_up(algebra, rows, array)
        rows = [
            np.expand_dims(row, tuple(range(dim, dim + array.ndim))) for row in rows
        ]
        after = (1,) * (x.ndim - dim - 1)
        return look_up(algebra, rows, array.reshape(array.shape + after))
    return x[as_key(algebra, indices)]


def index_select(algebra, x, dim, where):
    return index(algebra, x, [None] * (dim % x.ndim) + [np.atleast_1d(where)])


def gather(algebra, x, dim, where, sparse_grad=False):
    dim %= x.ndim
    others = (slice(n) if d != dim else slice(None) for d, n in enumerate(where.shape))
    x, numbers = x[tuple(others)], known(algebra, where)
    if numbers is not None:
        return np.take_along_axis(x, numbers, dim)
    rows = [slice_(algebra, x, dim, i, i + 1) for i in range(x.shape[dim])]
    return look_up(algebra, rows, where)


def index_put(algebra, x, indices, values, accumulate=False):
    x, key = x.copy(), as_key(algebra, indices)
    if not accumulate:
        x[key] = values
        return x
    places = np.arange(x.size).reshape(x.shape)[key]
    flat = x.reshape(-1)
    pairs = zip(places.ravel(), np.broadcast_to(values, places.shape).ravel().tolist())
    for place, value in pairs:
        flat[place] = algebra.add(int(flat[place]), value)
    return x


def index_add(algebra, x, dim, where, source, alpha=1):
    source = elementwise(partial(algebra.mul, algebra.constant(alpha)), source)
    key = [None] * (dim % x.ndim) + [where]
    return index_put(algebra, x, key, source, accumulate=True)


def index_copy(algebra, x, dim, where, source):
    return index_put(algebra, x, [None] * (dim % x.ndim) + [where], source)


def scatter(algebra, x, dim, where, source, accumulate=False):
    keys = list(np.indices(where.shape))
    keys[dim] = as_key(algebra, [where])[0]
    key = [elementwise(algebra.constant, k) for k in keys]
    source = np.asarray(as_node(algebra, source))
    source = source[tuple(map(slice, where.shape))] if source.ndim else source
    return index_put(algebra, x, key, source, accumulate)


def search(algebra, table, x, right):
    table = known_table(algebra, table)
    passes = algebra.le if right else algebra.lt

    def count(value):
        return reduce(algebra.add, (passes(entry, value) for entry in table))

    return elementwise(count, x)


def known_table(algebra, table):
    entries = table.ravel().tolist()
    if table.ndim != 1 or None in map(algebra.graph.value, entries):
        raise Untraceable("it searches a table that is not of known numbers")
    return entries


def searchsorted(algebra, table, x, *, out_int32=False, right=False, side="left"):
    return search(algebra, table, x, right or side == "right")


def bucketize(algebra, x, table, *, out_int32=False, right=False):
    return search(algebra, table, x, right)


MOVES: dict[str, Callable[..., Any]] = {
    "select": select,
    "slice": slice_,
    "unbind": unbind,
    "unsqueeze": lambda _, x, dim: np.expand_dims(x, dim),
    "squeeze": squeeze,
    "view": lambda _, x, shape: x.reshape(shape),
    "_unsafe_view": lambda _, x, shape: x.reshape(shape),
    "reshape": lambda _, x, shape: x.reshape(shape),
    "_reshape_alias": lambda _, x, shape, strides: x.reshape(shape),
    "expand": expand,
    "permute": lambda _, x, dims: x.transpose(dims),
    "transpose": lambda _, x, a, b: x.swapaxes(a, b),
    "t": lambda _, x: x.T,
    "diagonal": diagonal,
    "alias": lambda _, x: x[...],
    "lift_fresh": lambda _, x: x[...],
    "detach": lambda _, x: x[...],
    "clone": lambda _, x: x.copy(),
    "contiguous": lambda _, x: x.copy(),
    "copy": lambda _, x, source, wait=True: np.broadcast_to(source, x.shape),
    "flip": lambda _, x, dims: np.flip(x, tuple(dims)).copy(),
    "roll": roll,
    "repeat": lambda _, x, repeats: np.tile(x, repeats),
    "split": split,
    "split_with_sizes": split_with_sizes,
    "cat": cat,
    "stack": lambda _, parts, dim=0: np.stack(parts, dim),
    "unfold": unfold,
    "constant_pad_nd": pad,
    "reflection_pad1d": partial(pad_by, "reflect"),
    "replication_pad1d": partial(pad_by, "edge"),
    "tril": partial(triangle, np.tril),
    "triu": partial(triangle, np.triu),
    "zero": partial(full_like, 0),
    "zeros_like": partial(full_like, 0),
    "ones_like": partial(full_like, 1),
    "empty_like": partial(full_like, np.nan),  # what is not written shows
    "full_like": lambda algebra, x, value: full_like(value, algebra, x),
    "fill": lambda algebra, x, value: np.full(x.shape, as_node(algebra, value)),
    "new_zeros": lambda algebra, x, shape: full(0, algebra, shape),
    "new_ones": lambda algebra, x, shape: full(1, algebra, shape),
    "new_empty": lambda algebra, x, shape: full(np.nan, algebra, shape),
    "new_full": lambda algebra, x, shape, value: full(value, algebra, shape),
    "index": index,
    "index_select": index_select,
    "gather": gather,
    "index_put": index_put,
    "index_add": index_add,
    "index_copy": index_copy,
    "scatter": scatter,
    "scatter_add": partial(scatter, accumulate=True),
    "searchsorted": searchsorted,
    "bucketize": bucketize,
}
