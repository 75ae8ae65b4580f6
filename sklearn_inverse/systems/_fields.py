"""Functions on a grid as users write with them: u.xx, (p.D * u.x).x, np.sin(x.x)."""

import operator
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from sklearn_inverse.systems._grids import CONSTANT, NODE, Grid

__all__ = ["Coordinates", "Field", "ParamsOnGrid", "godunov", "values_at"]


class Field(NDArrayOperatorsMixin):
    """A function on a grid: computes as an array does, and has derivatives.

    Parameters
    ----------
    grid : Grid
        The grid.

    axis : str
        Name of its coordinate: with "x", ``field.x`` and ``field.xx`` are derivatives.

    values : ndarray or Value
        The function at its places.

    place : int, default=NODE
        Where these are.

    rate : Field, default=None
        Derivative by time, for the unknown.
    """

    def __init__(
        self, grid: Grid, axis: str, values: Any, place: int = NODE, rate: Any = None
    ):
        self._grid, self._axis, self._rate = grid, axis, rate
        self._values, self._place = values, place

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name == "t" and self._rate is not None:
            return self._rate
        if set(name) == {self._axis} and self._place != CONSTANT:
            matrix, place = self._grid.derivative(self._place)
            first = Field(self._grid, self._axis, matrix @ self._values, place)
            return first if len(name) == 1 else getattr(first, name[1:])
        if "t" in name and self._rate is not None:
            raise AttributeError(
                f"u.{name} is not known here: by time there is u.t, and nothing of it"
            )
        raise AttributeError(
            f"a function of {self._axis} has the derivatives .{self._axis} and "
            f".{2 * self._axis}; there is no .{name}"
        )

    def __bool__(self) -> bool:
        raise TypeError(
            "a choice by `if`, `max` or `and` needs one number, a function on a grid has "
            "many: write np.where(x.x < 0.5, a, b) or np.maximum(u, 0)"
        )

    def __float__(self) -> float:
        raise TypeError(
            "functions of `math` need one number: write np.sin(…), np.exp(…), …"
        )

    def __getitem__(self, key: Any) -> Any:
        raise TypeError(
            "a function on a grid has no parts: write its equation as at one point"
        )

    def __call__(self, *args: Any) -> Any:
        raise TypeError("functions are known where x is: write p.D, not p.D(x)")

    def at(self, place: int) -> Any:
        """Return the values at places where they are known, or can be had from these."""
        return self._grid.moved(self._values, self._place, place)

    def sides(self) -> tuple["Field", "Field"]:
        """Return the values left and right of what lies between neighbors."""
        *sides, place = self._grid.sides(self._values, self._place)
        left, right = (Field(self._grid, self._axis, x, place) for x in sides)
        return left, right

    def _apply(self, function: Callable[..., Any], args: Any) -> "Field":
        place = max(x._place for x in args if isinstance(x, Field))
        moved = (x.at(place) if isinstance(x, Field) else x for x in args)
        return Field(self._grid, self._axis, function(*moved), place)

    def __array_ufunc__(
        self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any
    ) -> Any:
        if method != "__call__" or kwargs:
            return NotImplemented
        return self._apply(OPERATORS.get(ufunc.__name__, ufunc), inputs)

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        like = next(x for x in args if isinstance(x, Field))
        return like._apply(getattr(np, func.__name__, func), args)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if func is not np.where and func is not np.clip:
            raise TypeError(f"np.{func.__name__} does not take functions on a grid")
        return self._apply(func, args)


# Python's, which the values of a model's functions know as well as arrays do.
OPERATORS = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "true_divide": operator.truediv,
    "divide": operator.truediv,
    "power": operator.pow,
    "negative": operator.neg,
}


def godunov(flux: Callable[[Any], Any], u: Any, lowest: float = 0.0) -> Any:
    """Return what flows between the nodes of a conservation law, shocks and all.

    ``u.t + godunov(flux, u).x`` is the law u_t + flux(u)_x = 0 by finite volumes: what
    flows out of one flows into the next. The error falls with the spacing of the nodes.

    Parameters
    ----------
    flux : callable
        ``flux(u)``, convex.

    u : Field
        The solution, on :class:`FiniteDifferences`.

    lowest : float, default=0.0
        Where the flux is lowest.

    Returns
    -------
    flow : Field
        Godunov's flux, between nodes.

    References
    ----------
    .. [1] R. J. LeVeque, "Finite Volume Methods for Hyperbolic Problems", 2002,
       section 12.2.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_inverse import PDESystem, PointValues
    >>> from sklearn_inverse.systems import FiniteDifferences, godunov
    >>> burgers = PDESystem(
    ...     {"x": (0, 1), "t": (0, 1)},
    ...     lambda x, u, p: u.t + godunov(lambda u: p.a * u**2 / 2, u).x,
    ...     constraint=lambda x, n: (
    ...         np.sin(2 * np.pi * x.x) + n * x.x * (1 - x.x) * x.t
    ...     ),
    ...     params={"a": (0.1, 0.5)},
    ...     observe=PointValues([0.25, 0.75], t=1.0),
    ...     noise=0.05,
    ...     grid=FiniteDifferences(51),
    ... )
    >>> burgers.solve([0.2])[0, 0, [0, 25, 50]].round(6) + 0.0
    array([0., 0., 0.])
    """
    if not isinstance(u, Field):
        raise TypeError(f"godunov(flux, u) needs the solution for u. Got {u!r}.")
    left, right = u.sides()
    return np.maximum(flux(np.maximum(left, lowest)), flux(np.minimum(right, lowest)))


class Coordinates:
    """Where and when: ``x.x`` and ``x.t``."""

    def __init__(self, grid: Grid, axis: str, t: Any = None):
        self._axis, self._known = axis, {axis: Field(grid, axis, grid.nodes)}
        if t is not None:
            self._known["t"] = Field(grid, axis, t, CONSTANT)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._known:
            raise AttributeError(f"the domain has {list(self._known)}. Got x.{name}")
        return self._known[name]


class ParamsOnGrid:
    """Params, functions among them as functions on the grid.

    Parameters
    ----------
    params : object
        The params of one sample, by name.

    functions : dict of str to ndarray of shape (n_nodes, size + 1)
        By name of each function, what makes values at the nodes of its params, and of 1
        behind them.

    asked : set
        Takes the names that are asked for.
    """

    def __init__(
        self,
        params: Any,
        functions: Mapping[str, np.ndarray],
        grid: Grid,
        axis: str,
        asked: set[Any],
    ):
        self._params, self._functions, self._asked = params, functions, asked
        self._grid, self._axis = grid, axis

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        value = getattr(self._params, name)
        self._asked.add(name)
        if name not in self._functions:
            return Field(self._grid, self._axis, value, CONSTANT)
        matrix = self._functions[name]
        values = matrix[:, :-1] @ value + matrix[:, -1]
        return Field(self._grid, self._axis, values)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return getattr(self, key)
        self._asked.add(key)
        return Field(self._grid, self._axis, self._params[key], CONSTANT)


def values_at(field: Any, place: int, n: int) -> Any:
    """Return the n values somewhere, of what may be a plain number."""
    if isinstance(field, Field):
        return field.at(place) + np.zeros(n)
    if isinstance(field, Real):
        return np.full(n, float(field))
    raise TypeError(f"it must return one function of the coordinates. Got {field!r}")
