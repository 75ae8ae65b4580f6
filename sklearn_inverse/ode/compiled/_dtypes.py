"""Of which type torch's results are, where expressions stand for the numbers.

What stands for numbers is computed in double precision. Torch falls back to single where
it is given only a condition and a number, as in ``(t > 1) * 0.5``. That is let pass as
long as the numbers are so short that nothing is rounded.
"""

from collections.abc import Iterator
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from sklearn_inverse.ode.compiled._algebra import Untraceable
from sklearn_inverse.ode.compiled._arrays import MOVES
from sklearn_inverse.ode.compiled._reductions import REDUCTIONS

__all__ = ["LOGICAL", "leaves", "result_dtype"]

# What these do to what is true or false.
LOGICAL = {
    "mul": "logical_and",
    "add": "logical_or",
    "bitwise_and": "logical_and",
    "bitwise_or": "logical_or",
    "bitwise_xor": "logical_xor",
    "bitwise_not": "logical_not",
}
CONDITIONS = {"lt", "le", "gt", "ge", "eq", "ne", "isnan", "any", "all"}
CONDITIONS |= {f"logical_{name}" for name in ("and", "or", "xor", "not")}
COUNTS = {"sum", "prod", "cumsum", "cumprod"}  # of what is true or whole
KEEP = {"add", "sub", "rsub", "mul", "neg", "abs", "sign", "clamp", "clamp_min"}
KEEP |= {"clamp_max", "minimum", "maximum", "where", "masked_fill", "floor_divide"}
KEEP |= {"remainder", *(name for name in LOGICAL if name.startswith("bitwise"))}
EXACT = {"add", "sub", "rsub", "mul", "neg", "where", "masked_fill", *MOVES}


def result_dtype(name: str, args: tuple, given: torch.dtype | None) -> torch.dtype:
    """Return the type of a result; refuse single precision where it rounds."""
    if given in (torch.float64, torch.int64, torch.bool):
        return given
    if given is not None:
        if (
            name == "_to_copy"
            and args[0].dtype is torch.bool
            and given is torch.float32
        ):
            return given
        raise Untraceable(f"it computes in {given}")
    if name in CONDITIONS:
        return torch.bool
    if name in ("searchsorted", "bucketize"):
        return torch.int64
    if name == "where":
        args = args[1:]
    if name in ("index", "gather", "index_select"):
        args = args[:1]
    array = name in MOVES or name in REDUCTIONS
    values = [x for x in leaves(args) if isinstance(x, Tensor) or not array]
    values = [x for x in values if x is not None and not isinstance(x, str)]
    dtype = _promoted(values)
    if name.startswith("bitwise") and dtype is not torch.bool:
        raise Untraceable("it takes whole numbers apart into bits")
    if dtype is torch.bool and name in COUNTS:
        return torch.int64
    if not dtype.is_floating_point and not array and name not in KEEP:
        dtype = torch.get_default_dtype()
    if dtype is torch.float64 or not dtype.is_floating_point:
        return dtype
    if name in EXACT and all(map(_is_short, values)):
        return dtype
    raise Untraceable(f"it computes in {dtype}")


def _promoted(values: list) -> torch.dtype:
    """Return the type that values have in common: arrays count first, numbers last."""
    tensors = [x for x in values if isinstance(x, Tensor)]
    groups = [
        [x.dtype for x in tensors if x.ndim],
        [x.dtype for x in tensors if not x.ndim],
        [_dtype_of(x) for x in values if not isinstance(x, Tensor)],
    ]
    result: torch.dtype | None = None
    for dtype in (reduce(torch.promote_types, group) for group in groups if group):
        if dtype.is_complex:
            raise Untraceable("it computes with complex numbers")
        if result is None or _rank(dtype) > _rank(result):
            result = dtype
    return torch.float64 if result is None else result


def _rank(dtype: torch.dtype) -> int:
    return 0 if dtype is torch.bool else 2 if dtype.is_floating_point else 1


def _dtype_of(x: Any) -> torch.dtype:
    kinds = {bool: torch.bool, int: torch.int64, complex: torch.complex128}
    return kinds.get(type(x), torch.get_default_dtype())


def _is_short(x: Any) -> bool:
    """Whether sums and products of such numbers are exact; all that is not known is."""
    if not isinstance(x, Tensor):
        x = torch.tensor(float(x))
    if type(x) is not Tensor:
        return x.dtype in (torch.bool, torch.float32)
    return bool(((x.abs() < 2**10) & (x * 2**10 == (x * 2**10).round())).all())


def leaves(x: Any) -> Iterator[Any]:
    """Return what stands in nested lists."""
    if isinstance(x, (list, tuple)):
        for part in x:
            yield from leaves(part)
    else:
        yield x
