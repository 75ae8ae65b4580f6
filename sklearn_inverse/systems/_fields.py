"""Functions on a grid as users write with them: u.xx, (p.D * u.x).x, np.sin(x.x)."""

import operator
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from sklearn_inverse.systems._grids import CONSTANT, NODE, Grid

__all__ = [
    "Coordinates",
    "Field",
    "FunctionOnGrid",
    "ParamsOnGrid",
    "godunov",
    "values_at",
]


class Field(NDArrayOperatorsMixin):
    """A function on a grid: computes as an array does, and has derivatives.

    Parameters
    ----------
    grids : dict of str to Grid
        The grid of each coordinate: with "x", ``field.x`` and ``field.xx`` are
        derivatives.

    values : ndarray or Value
        The function at its places, an axis per coordinate.

    places : tuple of int, default=None
        Where these are, by coordinate; a function does not depend on one along which it
        is CONSTANT. By default the nodes.

    rate : Field, default=None
        Derivative by time, for the unknown.

    told : list, default=None
        For the unknown: to which is added by how much its fluxes are convex.
    """

    def __init__(
        self,
        grids: Mapping[str, Grid],
        values: Any,
        places: Any = None,
        rate: Any = None,
        told: list[Any] | None = None,
    ):
        self._grids, self._values, self._rate = grids, values, rate
        self._told = told
        self._places = (NODE,) * len(grids) if places is None else places

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name == "t" and self._rate is not None:
            return self._rate
        depends = any(place != CONSTANT for place in self._places)
        if depends and set(name) <= set(self._grids):
            first = self._derivative(list(self._grids).index(name[0]))
            return first if len(name) == 1 else getattr(first, name[1:])
        axes = list(self._grids)
        if "t" in name:
            raise AttributeError(
                f"there is no .{name} here: by time there is u.t, and that only"
            )
        if set(name) <= set(axes):
            raise AttributeError(
                f"there is no .{name} of what is the same along {', '.join(axes)}, as "
                "params are, and functions of the time"
            )
        raise AttributeError(
            f"a function of {', '.join(axes)} has derivatives like .{axes[0]} and "
            f".{2 * axes[-1]}; there is no .{name}"
        )

    def _derivative(self, axis: int) -> "Field":
        places = list(self._places)
        if places[axis] == CONSTANT:
            return Field(self._grids, 0.0, (CONSTANT,) * len(places))
        grid = list(self._grids.values())[axis]
        values, places[axis] = grid.derivative(self._values, places[axis], axis)
        return Field(self._grids, values, tuple(places))

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

    def at(self, places: tuple[int, ...]) -> Any:
        """Return the values at places where they are known, or can be had from these."""
        values, pairs = self._values, zip(self._places, places)
        for axis, (grid, (place, to)) in enumerate(zip(self._grids.values(), pairs)):
            values = grid.moved(values, place, to, axis)
        return values

    def sides(self, axis: int) -> tuple["Field", "Field"]:
        """Return the values on both sides of what lies between neighbors."""
        places, grid = list(self._places), list(self._grids.values())[axis]
        *sides, places[axis] = grid.sides(self._values, places[axis], axis)
        left, right = (Field(self._grids, x, tuple(places)) for x in sides)
        return left, right

    def _apply(self, function: Callable[..., Any], args: Any) -> "Field":
        fields = [x for x in args if isinstance(x, Field)]
        places = tuple(map(max, zip(*(x._places for x in fields))))
        moved = (x.at(places) if isinstance(x, Field) else x for x in args)
        return Field(self._grids, function(*moved), places)

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


def godunov(
    flux: Callable[[Any], Any], u: Any, *, along: str = "x", lowest: float = 0.0
) -> Any:
    """Return what flows between the nodes of a conservation law, shocks and all.

    ``u.t + godunov(flux, u).x`` is the law u_t + flux(u)_x = 0 by finite volumes: what
    flows out of one flows into the next. The error falls with the spacing of the nodes.

    Parameters
    ----------
    flux : callable
        ``flux(u)``: it must be convex, with its minimum at ``lowest``.

    u : Field
        The solution, on :class:`FiniteDifferences`.

    along : str, default="x"
        The coordinate along which it flows.

    lowest : float, default=0.0
        Where the flux is lowest. Where it only rises, a number below all of u; where it
        only falls, one above.

    Returns
    -------
    flow : Field
        Godunov's flux, between nodes; of a network's solution the flux itself.

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
    if not isinstance(u, NDArrayOperatorsMixin):
        raise ValueError(
            f"godunov(flux, u) needs the solution u. Got {type(u).__name__}"
        )
    if not isinstance(u, Field):  # a network's, which is known everywhere
        return flux(u)
    if along not in u._grids:
        raise ValueError(
            f"godunov flows along a coordinate of space, {list(u._grids)}. Got "
            f"along={along!r}"
        )
    left, right = u.sides(list(u._grids).index(along))
    if u._told is not None:
        middle, least = flux((left + right) / 2), flux(0 * left + lowest)
        low, high = flux(left), flux(right)
        parts = (low + high) / 2 - middle, low - least, abs(low) + abs(high)
        u._told += [part._values for part in parts]
    return np.maximum(flux(np.maximum(left, lowest)), flux(np.minimum(right, lowest)))


class Coordinates:
    """Where and when: ``x.x`` and ``x.t``; and what is in one point only.

    The points of sources are added to ``told``, where that is given.
    """

    def __init__(self, grids: Mapping[str, Grid], t: Any = None, told: Any = None):
        self._grids, self._known, self._told = grids, {}, told
        for axis, grid in grids.items():
            self._known[axis] = self._along(axis, grid.nodes)
        if t is not None:
            self._known["t"] = Field(grids, t, (CONSTANT,) * len(grids))

    def _along(self, axis: str, values: Any) -> Field:
        """Return a function of one coordinate."""
        i, n = list(self._grids).index(axis), len(self._grids)
        places = tuple(NODE if j == i else CONSTANT for j in range(n))
        return Field(self._grids, _spread(values, i, n), places)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._known:
            raise AttributeError(f"the domain has {list(self._known)}. Got x.{name}")
        return self._known[name]

    def point(self, **at: Any) -> Field:
        """Return a source of strength one in a point, Dirac's delta: ``x.point(x=0.5)``.

        Parameters
        ----------
        **at : float or param
            The point, by coordinate; a source along a line leaves others out. Let the
            prior of a param keep it in the domain: outside there is no source, and one at
            an end where u is given changes nothing. At an insulated end (``neumann``)
            it is what flows in, to first order in the spacing.

        Returns
        -------
        source : Field
            Zero but next to the point; its integral is one.
        """
        if not at or not set(at) <= set(self._grids):
            raise ValueError(
                f"a point has coordinates {list(self._grids)}: x.point("
                f"{next(iter(self._grids))}=0.5). Got {list(at)}"
            )
        numbers = {
            axis: z._values if isinstance(z, Field) else z for axis, z in at.items()
        }
        if self._told is not None:
            self._told.append(at)
        masses = [
            self._along(axis, self._grids[axis].point_mass(z))
            for axis, z in numbers.items()
        ]
        return masses[0] if len(masses) == 1 else masses[0] * masses[1]


class FunctionOnGrid:
    """An unknown function, of space or time or both, on the nodes of a grid.

    Parameters
    ----------
    name : str
        What it is called.

    prior : GaussianFunction
        What is believed of it.

    domain : dict of str to (float, float)
        The interval of each coordinate.

    grids : dict of str to Grid
        The grid of each one of space.

    Attributes
    ----------
    nodes : dict of str to ndarray of shape (n_nodes,)
        Where it is known, along each of its coordinates.
    """

    def __init__(self, name: str, prior: Any, domain: Any, grids: Mapping[str, Grid]):
        over = prior.over or (next(iter(grids)) if len(grids) == 1 else "")
        if not over or not set(over) <= set(domain):
            raise ValueError(
                f"The function {name!r} must say which coordinates it has, of "
                f"{list(domain)}: GaussianFunction(…, over={''.join(grids)!r}). Got over="
                f"{prior.over!r}."
            )
        if prior.intervals != (own := tuple(domain[axis] for axis in over)):
            raise ValueError(
                f"The function {name!r} must live on the interval of {over!r}, "
                f"interval={own if len(own) > 1 else own[0]}. Got interval="
                f"{prior.interval}."
            )
        self.over, self.prior, self._grids = over, prior, grids
        nodes = prior.nodes if len(over) > 1 else (prior.nodes,)
        self.nodes = dict(zip(over, nodes))
        self._matrices = {
            axis: _hats(grid.nodes[:, None], self.nodes[axis])
            for axis, grid in grids.items()
            if axis in over
        }

    @property
    def kinks(self) -> list[float]:
        """When it bends."""
        return self.nodes["t"][1:-1].tolist() if "t" in self.over else []

    def field(self, values: Any, t: Any) -> Field:
        """Return the function on the grid at a time, of its params."""
        found = self.prior.whole(values)
        for i, axis in reversed(list(enumerate(self.over))):
            read = self._matrices.get(axis)
            read = _hats(t, self.nodes[axis]) if read is None else read
            found = read @ found if i == 0 else (read @ found.T).T
        axes = [axis for axis in self._grids if axis in self.over]
        if len(axes) == 2 and self.over != "".join(axes):
            found = found.T
        if len(axes) == 1:
            found = _spread(found, list(self._grids).index(axes[0]), len(self._grids))
        places = tuple(NODE if axis in axes else CONSTANT for axis in self._grids)
        return Field(self._grids, found, places)


def _hats(at: Any, nodes: np.ndarray) -> Any:
    """Return what makes values somewhere of those at even nodes, linear between them.

    Beyond the ends the function stays what it is there.
    """
    at = np.minimum(np.maximum(at, nodes[0]), nodes[-1])
    return np.maximum(1 - np.abs(at - nodes) / (nodes[1] - nodes[0]), 0)


class ParamsOnGrid:
    """Params, functions among them as functions on the grid.

    Parameters
    ----------
    params : object
        The params of one sample, by name.

    functions : dict of str to FunctionOnGrid
        Functions by name.

    t : object
        The time.
    """

    def __init__(
        self,
        params: Any,
        functions: Mapping[str, FunctionOnGrid],
        grids: Mapping[str, Grid],
        t: Any,
    ):
        self._params, self._functions = params, functions
        self._grids, self._t = grids, t

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        value = getattr(self._params, name)
        if name in self._functions:
            return self._functions[name].field(value, self._t)
        return Field(self._grids, value, (CONSTANT,) * len(self._grids))

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return getattr(self, key)
        return Field(self._grids, self._params[key], (CONSTANT,) * len(self._grids))


def _spread(values: Any, axis: int, n_axes: int) -> Any:
    """Lay values along an axis, of length one along the others."""
    if n_axes == 1:
        return values
    return values[:, None] if axis == 0 else values[None]


def values_at(field: Any, place: int, shape: tuple[int, ...]) -> Any:
    """Return the values somewhere, of what may be a plain number."""
    if isinstance(field, Field):
        return field.at((place,) * len(shape)) + np.zeros(shape)
    if isinstance(field, Real):
        return np.full(shape, float(field))
    raise TypeError(f"it must return one function of the coordinates. Got {field!r}")
