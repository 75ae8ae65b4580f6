"""Values of one sample that stand for many: what a user's functions compute with.

A function written for one sample is run on all of them at once. Its ``t`` is a number,
``y`` and ``p`` are vectors, and each holds a tensor whose *last* axis runs over samples:
numbers and vectors then broadcast as they do for one sample, at the speed of plain torch.
NumPy's and torch's functions are taken over by their protocols; one that is not known
here to work element by element, or along an axis, runs by ``torch.func.vmap``.
"""

import math
import operator
import re
from collections.abc import Callable, Iterator, Sequence
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from sklearn_inverse.systems._vocabulary import (
    CHOICE,
    CUT_OFF,
    ELEMENTWISE,
    FILLED,
    IN_PLACE,
    KEYWORDS,
    NUMBER,
    NUMPY,
    SAME_IN_BOTH,
    UFUNCS,
    UNKNOWN,
    OneSampleError,
    spell,
)

__all__ = ["Value", "as_semantic"]


class Value:
    """A number or an array of one sample, as a tensor of shape (*shape, n_samples)."""

    __slots__ = ("_tensor",)
    __hash__ = None  # type: ignore[assignment]  # == is element by element

    def __init__(self, tensor: Tensor):
        self._tensor = tensor

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in PROPERTIES:
            return PROPERTIES[name](self._tensor)
        if name in ("numpy", "detach", "item", "tolist", "data", "cpu"):
            raise OneSampleError(CUT_OFF.format(name))
        method = getattr(torch.Tensor, name, None)
        if method is None or not callable(method):
            raise AttributeError(
                f"a {_words(self._tensor)} of one sample has no attribute {name!r}"
            )
        if name.endswith("_"):
            raise OneSampleError(IN_PLACE)
        return lambda *args, **kwargs: _call(name, method, (self, *args), kwargs)

    def __getitem__(self, key: Any) -> "Value":
        tensor = self._tensor
        keys = key if isinstance(key, tuple) else (key,)
        if any(isinstance(k, Value) for k in keys):
            raise OneSampleError(NUMBER)
        open_ended = any(k is Ellipsis for k in keys)
        n_indices = sum(k is not None and k is not Ellipsis for k in keys)
        if n_indices > tensor.ndim - 1:
            raise IndexError(
                f"a {_words(tensor)} is indexed by [{', '.join(map(spell, keys))}]. A "
                "model's functions are for one sample: t is a number, y[0] the first "
                "state, p[0] the first param"
            )
        if isinstance(key, slice) and (key.step or 1) < 0:  # not so in torch
            return Value(tensor[list(range(*key.indices(len(tensor))))])
        return Value(tensor[(*keys, slice(None))] if open_ended else tensor[key])

    def __setitem__(self, key: Any, value: Any) -> None:
        raise OneSampleError(IN_PLACE)

    def __len__(self) -> int:
        if self._tensor.ndim < 2:
            raise OneSampleError(
                "a number has no length; nor does torch.tensor([…]) take a model's values: "
                "write torch.stack([…])"
            )
        return len(self._tensor)

    def __iter__(self) -> Iterator["Value"]:
        if self._tensor.ndim < 2:
            raise OneSampleError("a number of one sample cannot be iterated over")
        return map(Value, self._tensor.unbind(0))

    def __float__(self) -> float:
        raise OneSampleError(NUMBER)

    __int__ = __index__ = __complex__ = __round__ = __trunc__ = __float__

    def __bool__(self) -> bool:
        raise OneSampleError(CHOICE)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._tensor})"

    def __array_ufunc__(
        self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any
    ) -> Any:
        name = UFUNCS.get(ufunc.__name__, ufunc.__name__)
        if kwargs.get("out") is not None:
            raise OneSampleError(IN_PLACE)
        function = getattr(torch, name, None) or getattr(torch.special, name, None)
        if method != "__call__" or kwargs or function is None:
            raise OneSampleError(UNKNOWN.format(f"`{ufunc.__name__}`"))
        if name == "matmul":
            return Value(_matmul(*inputs))
        like = _first(inputs)
        return Value(function(*(_lift(x, like) for x in inputs)))

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        name = NUMPY.get(func.__name__, func.__name__)
        if name in FILLED:
            # An array that may be filled with values.
            fill = args[1] if name == "full_like" else FILLED[name]
            return np.full(args[0].shape, fill, dtype=object)
        if name in DIRECT or name in SAME_IN_BOTH:
            return _call(name, getattr(torch, name, None), args, kwargs)
        raise OneSampleError(UNKNOWN.format(f"{func.__module__}.{func.__name__}"))

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ):
        name = func.__name__
        if re.fullmatch("__setitem__|__i.*|.*[^_]_", name):  # in place
            raise OneSampleError(NUMBER)
        return _call(name, func, args, kwargs or {})


def as_semantic(result: Any, like: Tensor) -> Tensor:
    """Return what a function gave as one tensor, the samples on its last axis.

    Precision and device are those of ``like``.
    """
    if not like.is_floating_point():  # that of a condition
        like = like.double()
    if type(result) is float or type(result) is int:
        return like.new_full((1,), result)
    if _is_list(result):
        if all(type(part) in (float, int) for part in result):
            return like.new_tensor(list(result))[:, None]
        parts = [as_semantic(part, like) for part in result]
        if len({part.ndim for part in parts}) > 1:
            raise OneSampleError(
                "numbers and vectors stand side by side in one list. Join them by "
                "np.concatenate([[a], v])"
            )
        return _join(torch.stack, torch.broadcast_tensors(*parts), 0)
    tensor = _lift(result, like)
    return tensor if tensor.ndim else tensor[None]


def _operator(operation: Callable[..., Any], *, reflected: bool = False) -> Any:
    def method(self: Value, other: Any) -> Any:
        tensor, kind = self._tensor, type(other)
        if kind is float or kind is int:
            if not tensor.is_floating_point():  # torch would take single precision
                tensor = tensor.double()
        elif isinstance(other, Value):
            other = other._tensor
        else:
            other = _lift(other, tensor)
        a, b = (other, tensor) if reflected else (tensor, other)
        return Value(operation(a, b))

    return method


def _subtract(a: Any, b: Any) -> Any:
    """Subtract; a condition counts as 0 or 1, as in NumPy."""
    a, b = (x.double() if getattr(x, "dtype", 0) == torch.bool else x for x in (a, b))
    return a - b


for _name in ("add", "sub", "mul", "truediv", "pow", "floordiv", "mod", "and", "or"):
    _operation = _subtract if _name == "sub" else getattr(operator, f"__{_name}__")
    setattr(Value, f"__{_name}__", _operator(_operation))
    setattr(Value, f"__r{_name}__", _operator(_operation, reflected=True))
for _name in ("lt", "le", "gt", "ge", "eq", "ne"):
    setattr(Value, f"__{_name}__", _operator(getattr(operator, _name)))
Value.__matmul__ = lambda self, other: Value(_matmul(self, other))  # type: ignore
Value.__rmatmul__ = lambda self, other: Value(_matmul(other, self))  # type: ignore
for _name in ("neg", "pos", "abs", "invert"):
    _operation = getattr(operator, f"__{_name}__")
    setattr(Value, f"__{_name}__", lambda self, do=_operation: Value(do(self._tensor)))


def _lift(x: Any, like: Tensor) -> Tensor:
    """Return anything as a tensor that broadcasts against those of values."""
    if isinstance(x, Value):
        return x._tensor
    if _is_list(x):
        return as_semantic(x, like)
    if isinstance(x, (bool, np.bool_)):
        return torch.tensor(bool(x), device=like.device)
    if isinstance(x, Real):
        dtype = like.dtype if like.is_floating_point() else torch.float64
        return torch.tensor(float(x), dtype=dtype, device=like.device)
    constant = _constant(x, like)
    return constant[..., None] if constant.ndim else constant


def _is_list(x: Any) -> bool:
    return isinstance(x, (list, tuple)) or getattr(x, "dtype", 0) == np.dtype(object)


def _constant(x: Any, like: Tensor) -> Tensor:
    """Return an array or a tensor in the precision and on the device of values."""
    if isinstance(x, np.ndarray) and x.dtype.kind in "biuf":
        x = torch.as_tensor(np.ascontiguousarray(x))
    if not isinstance(x, Tensor):
        raise OneSampleError(
            f"a model's functions compute with numbers, arrays and tensors. Got {x!r}"
        )
    same = x.is_floating_point() and like.is_floating_point()
    return x.to(like) if same else x.to(like.device)


def _call(name: str, function: Any, args: Any, kwargs: Any) -> Any:
    """Run a function of NumPy or torch on values: directly if known, else by vmap."""
    if name in DIRECT:
        kwargs = {KEYWORDS.get(key, key): value for key, value in kwargs.items()}
        return Value(DIRECT[name](*args, **kwargs))
    if name in ELEMENTWISE:
        like = _first((args, kwargs))

        def lift(x: Any) -> Any:
            return _lift(x, like) if isinstance(x, (Value, Tensor, np.ndarray)) else x

        args, kwargs = tree_map(lift, (args, kwargs))
        return Value(function(*args, **kwargs))
    return _by_vmap(function, args, kwargs)


def _by_vmap(function: Any, args: Any, kwargs: Any) -> Any:
    """Run a function sample by sample."""
    leaves, spec = tree_flatten((args, kwargs))
    like = _first(leaves)
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Value)]
    tensors = [leaves[i]._tensor for i in places]
    leaves = [_constant(x, like) if isinstance(x, np.ndarray) else x for x in leaves]

    def one_sample(*columns: Tensor) -> Any:
        filled = list(leaves)
        for i, column in zip(places, columns):
            filled[i] = column
        args, kwargs = tree_unflatten(filled, spec)
        return function(*args, **kwargs)

    out = torch.func.vmap(one_sample, in_dims=-1, out_dims=-1)(*tensors)
    return tree_map(lambda x: Value(x) if isinstance(x, Tensor) else x, out)


def _first(arguments: Any) -> Tensor:
    """Return the first of the values' tensors, which others are made like."""
    tensors = list(_tensors_in(arguments))
    return next((x for x in tensors if x.is_floating_point()), tensors[0])


def _tensors_in(x: Any) -> Iterator[Tensor]:
    if isinstance(x, Value):
        yield x._tensor
    elif isinstance(x, (list, tuple, dict)):
        for part in x.values() if isinstance(x, dict) else x:
            yield from _tensors_in(part)


def _axis(axis: Any, tensor: Tensor) -> Any:
    """Return axes of one sample as axes of the tensor; None means all."""
    if axis is None:
        return tuple(range(tensor.ndim - 1))
    if isinstance(axis, (tuple, list)):
        return tuple(_axis(a, tensor) for a in axis)
    if not -tensor.ndim < axis < tensor.ndim - 1:
        raise IndexError(f"a {_words(tensor)} of one sample has no axis {axis}")
    return axis if axis >= 0 else axis - 1


def _along(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Let a function of torch run along axes of one sample."""
    needs_one = function in (torch.prod, torch.cumsum)

    def run(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
        tensor = _lift(x, _first(x))
        axes = _axis(axis, tensor)
        if axis is None and needs_one:
            tensor, axes = tensor.flatten(0, -2), 0
        if axes == ():
            return tensor
        return function(tensor, dim=axes, **({"keepdim": True} if keepdims else {}))

    return run


def _join(
    function: Callable[..., Tensor], parts: Sequence[Tensor], axis: int
) -> Tensor:
    """Stack or concatenate in memory order of rows, which all values are to share."""
    rows = [part.movedim(-1, 0) for part in parts]
    return function(rows, dim=axis + 1 if axis >= 0 else axis).movedim(0, -1)


def _stack(parts: Any, axis: int = 0) -> Tensor:
    like = _first(parts)
    tensors = torch.broadcast_tensors(*(as_semantic(part, like) for part in parts))
    return _join(torch.stack, tensors, axis)


def _concatenate(parts: Any, axis: int = 0) -> Tensor:
    like = _first(parts)
    tensors = [torch.atleast_2d(as_semantic(part, like)) for part in parts]
    tensors = [x.expand(*x.shape[:-1], like.shape[-1]) for x in tensors]
    return _join(torch.cat, tensors, axis)


def _roll(x: Value, shift: Any, axis: Any = None) -> Tensor:
    tensor = x._tensor
    if axis is None:
        return tensor.flatten(0, -2).roll(shift, 0).view(tensor.shape)
    return tensor.roll(shift, _axis(axis, tensor))


def _diff(
    x: Value, n: int = 1, axis: int = -1, prepend: Any = None, append: Any = None
) -> Tensor:
    parts = [part for part in (prepend, x, append) if part is not None]
    tensor = _concatenate(parts, axis) if len(parts) > 1 else x._tensor
    return tensor.diff(n, dim=_axis(axis, tensor))


def _clip(x: Any, low: Any = None, high: Any = None) -> Tensor:
    like = _first((x, low, high))
    bounds = [None if b is None else _lift(b, like) for b in (low, high)]
    return torch.clamp(_lift(x, like), *bounds)


def _where(condition: Any, *choices: Any) -> Tensor:
    if len(choices) != 2:
        raise OneSampleError(UNKNOWN.format("np.where(condition) without (…, a, b)"))
    like = _first((condition, choices))
    like = like if like.is_floating_point() else like.new_zeros((), dtype=torch.float64)
    a, b = (_lift(choice, like) for choice in choices)
    return torch.where(_lift(condition, like).bool(), a, b)


def _select(conditions: Any, choices: Any, default: Any = 0.0) -> Tensor:
    chosen = default
    for condition, choice in reversed(list(zip(conditions, choices))):
        chosen = Value(_where(condition, choice, chosen))
    return chosen._tensor


def _matmul(a: Any, b: Any) -> Tensor:
    """Multiply vectors and matrices of one sample, or known ones with them."""
    like = _first((a, b))
    a, b = (np.asarray(x) if isinstance(x, (list, tuple)) else x for x in (a, b))
    if isinstance(b, Value) and not isinstance(a, Value) and b._tensor.ndim == 2:
        return _constant(a, like) @ b._tensor
    if isinstance(a, Value) and not isinstance(b, Value) and a._tensor.ndim == 2:
        known = _constant(b, like)
        return (known if known.ndim == 1 else known.mT) @ a._tensor
    left, right = _lift(a, like), _lift(b, like)
    if min(left.ndim, right.ndim) < 2:  # np.dot with a number
        return left * right
    if left.ndim == right.ndim == 2:
        return (left * right).sum(0)
    return _by_vmap(torch.matmul, (a, b), {})._tensor


def _interp(x: Value, xp: Any, fp: Any, left: Any = None, right: Any = None) -> Tensor:
    """Interpolate a table of numbers linearly, constant beyond its ends, as NumPy does."""
    at = x._tensor
    nodes, table = (_constant(np.asarray(a), at) for a in (xp, fp))
    i = torch.searchsorted(nodes, at.detach().contiguous(), right=True)
    i = i.clamp(1, len(nodes) - 1)
    slope = (table[i] - table[i - 1]) / (nodes[i] - nodes[i - 1])
    inside = table[i - 1] + slope * (at - nodes[i - 1])
    inside = torch.where(at < nodes[0], table[0] if left is None else left, inside)
    return torch.where(at > nodes[-1], table[-1] if right is None else right, inside)


def _sizes(*shape: Any) -> tuple[int, ...]:
    return tuple(shape[0]) if isinstance(shape[0], (tuple, list)) else shape


def _reshape(x: Value, *shape: Any) -> Tensor:
    sizes, own = _sizes(*shape), x._tensor.shape
    # What -1 stands for is not to be guessed of no samples.
    rest = math.prod(own[:-1]) // max(-math.prod(sizes), 1)
    return x._tensor.reshape(*(rest if n == -1 else n for n in sizes), own[-1])


def _words(tensor: Tensor) -> str:
    return ("number", "vector", "matrix", "array")[min(tensor.ndim - 1, 3)]


PROPERTIES: dict[str, Callable[[Tensor], Any]] = {
    "shape": lambda x: tuple(x.shape[:-1]),
    "ndim": lambda x: x.ndim - 1,
    "size": lambda x: x[..., 0].numel(),
    "T": lambda x: Value(x.permute(*reversed(range(x.ndim - 1)), x.ndim - 1)),
    "copy": lambda x: lambda: Value(x),
}
# What is known to work along axes of one sample, under NumPy's and torch's names.
DIRECT: dict[str, Callable[..., Tensor]] = {
    "sum": _along(torch.sum),
    "mean": _along(torch.mean),
    "prod": _along(torch.prod),
    "cumsum": _along(torch.cumsum),
    "amax": _along(torch.amax),
    "amin": _along(torch.amin),
    "flip": lambda x, axis=None: x._tensor.flip(_axis(axis, x._tensor)),
    "stack": _stack,
    "cat": _concatenate,
    "concatenate": _concatenate,
    "append": lambda x, more: _concatenate((x, more)),
    "reshape": _reshape,
    "roll": _roll,
    "diff": _diff,
    "clamp": _clip,
    "clip": _clip,
    "where": _where,
    "select": _select,
    "matmul": _matmul,
    "dot": _matmul,
    "interp": _interp,
}
