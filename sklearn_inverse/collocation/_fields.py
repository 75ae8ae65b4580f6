"""Functions at points as users write with them: u.xx, (p.D * u.x).x, np.sin(x.x)."""

from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

import numpy as np
import torch
from numpy.lib.mixins import NDArrayOperatorsMixin
from torch import Tensor

from sklearn_inverse.systems._values import Value

__all__ = ["Field", "Namespace", "values_of"]


class Field(NDArrayOperatorsMixin):
    """A function at rows of points, that knows its derivatives by coordinates.

    The counterpart of the fields on grids that :class:`PDESystem` solves with.

    Parameters
    ----------
    values : Tensor of shape (n_rows,)
        The function.

    places : Places
        Where it is known.
    """

    def __init__(self, values: Tensor, places: Any):
        self._values, self._places = values, places

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or set(name) - set(self._places.unit):
            raise AttributeError(f"there is no derivative .{name}")
        values = self._values
        for axis in name:
            values = self._places.by(axis, values)
        return Field(values, self._places)

    def _apply(self, function: Callable[..., Any], args: Any) -> "Field":
        args = (Value(a._values) if isinstance(a, Field) else a for a in args)
        return Field(function(*args)._tensor, self._places)

    def __array_ufunc__(
        self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any
    ) -> Any:
        if method != "__call__" or kwargs:
            return NotImplemented
        return self._apply(ufunc, inputs)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return self._apply(func, args)

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        like = next(x for x in args if isinstance(x, Field))
        return like._apply(getattr(np, func.__name__, func), args)


class Namespace:
    """Fields and numbers by name, and by position: ``x.x``, ``p.D``, ``p[0]``."""

    def __init__(self, known: Mapping[Any, Any]):
        self._known = known

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._known:
            raise AttributeError(f"there is no {name!r} among {list(self._known)}")
        return self._known[name]

    def __getitem__(self, key: Any) -> Any:
        return self._known[key]


def values_of(result: Any, like: Tensor) -> Tensor:
    """Return the rows of what a user's function gave, which may be a plain number."""
    if isinstance(result, Real):
        return torch.full_like(like, float(result))
    return result._values + torch.zeros_like(like)
