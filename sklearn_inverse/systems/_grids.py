"""Grids on an interval, and derivatives of what is known at their nodes."""

from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import numpy as np

__all__ = ["CONSTANT", "INNER", "NODE", "Chebyshev", "FiniteDifferences", "Grid"]

# Where values are known: a constant everywhere, others at ever fewer places.
CONSTANT, NODE, MIDDLE, INNER = range(-1, 3)


@dataclass(frozen=True)
class Grid:
    """Nodes on an interval, both ends among them, and how to differentiate there.

    Values are known at all nodes, between neighboring ones, or at the inner ones.

    Parameters
    ----------
    n_nodes : int
        Number of nodes, three at least.

    low, high : float, default=0.0, 1.0
        Ends of the interval; a :class:`PDESystem` puts its grid on its domain.

    level : (bool, bool), default=(False, False)
        Ends at which slopes vanish, of the ``neumann`` of a :class:`PDESystem`.
    """

    n_nodes: int
    is_local = False  # whether a derivative is one of neighbors only
    low: float = field(default=0.0, kw_only=True, repr=False)
    high: float = field(default=1.0, kw_only=True, repr=False)
    level: tuple[bool, bool] = field(default=(False, False), kw_only=True, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.n_nodes, (int, np.integer)) or self.n_nodes < 3:
            raise ValueError(
                f"`n_nodes` must be a whole number, 3 at least. Got {self.n_nodes!r}."
            )

    def on(
        self, low: float, high: float, level: tuple[bool, bool] = (False, False)
    ) -> "Grid":
        """Return the same grid on another interval."""
        return type(self)(self.n_nodes, low=low, high=high, level=level)

    @property
    def nodes(self) -> np.ndarray:
        """Where they are, (n_nodes,), increasing."""
        return self.low + (self.high - self.low) * self._unit_nodes()

    def _unit_nodes(self) -> np.ndarray:
        raise AssertionError("every grid has nodes")

    def derivative(self, values: Any, place: int, axis: int = 0) -> tuple[Any, int]:
        """Return the derivative of values along an axis, and where it is known."""
        raise AssertionError("every grid differentiates")

    def moved(self, values: Any, place: int, to: int, axis: int = 0) -> Any:
        """Return values where others are known: there are fewer of them."""
        if place in (to, CONSTANT):
            return values
        if to == MIDDLE or place == MIDDLE:
            left, right = _neighbors(values, axis)
            return (left + right) / 2
        return values[_cut(axis, 1, -1)]

    def sides(self, values: Any, place: int, axis: int = 0) -> tuple[Any, Any, int]:
        """Return values left and right of what lies between neighbors, and its place."""
        raise ValueError(
            "what flows between nodes needs nodes with neighbors: take "
            "grid=FiniteDifferences(101)"
        )

    def interpolation(self, points: np.ndarray) -> np.ndarray:
        """Return the matrix (n_points, n_nodes) that reads values off at points."""
        raise AssertionError("every grid interpolates")

    def integration(self, edges: np.ndarray) -> np.ndarray:
        """Return the matrix (n_edges - 1, n_nodes) of integrals from edge to edge."""
        breaks = np.union1d(edges, self.nodes)
        breaks = breaks[(breaks >= edges[0]) & (breaks <= edges[-1])]
        at, weight = np.polynomial.legendre.leggauss(4)
        half = np.diff(breaks)[:, None] / 2
        points = (breaks[:-1, None] + half * (1 + at)).ravel()
        parts = (half * weight).ravel()[:, None] * self.interpolation(points)
        which = np.searchsorted(edges, points) - 1
        return np.stack([parts[which == i].sum(axis=0) for i in range(len(edges) - 1)])

    def with_ends(self, inner: Any, ends: Any, axis: int = 0) -> Any:
        """Return values at all nodes, at level ends such that the slope there is zero.

        Parameters
        ----------
        inner : array
            Values at the inner nodes.

        ends : pair of arrays
            Values at the first node and the last, of length one along the axis, that
            hold where ends are not level.

        axis : int, default=0
            The axis along which the grid lies.

        Returns
        -------
        values : array
            Values at all nodes.
        """
        found = dict(zip((0, -1), ends))
        free = [end for end, is_level in zip((0, -1), self.level) if is_level]
        slopes = self._end_slopes()[free]
        for end, row in zip(free, np.linalg.solve(slopes[:, free], -slopes)):
            used = np.flatnonzero(row[1:-1])
            near = slice(used.min(), used.max() + 1)
            part = inner[_cut(axis, near.start, near.stop)]
            value = _across(row[None, 1:-1][:, near], part, axis)
            for other in {0, -1}.difference(free):
                if row[other]:
                    value = value + row[other] * found[other]
            found[end] = value
        return np.concatenate([found[0], inner, found[-1]], axis=axis)

    def _end_slopes(self) -> np.ndarray:
        """Return the matrix (2, n_nodes) of the derivatives at both ends."""
        raise AssertionError("every grid has slopes at its ends")

    def point_mass(self, at: Any) -> Any:
        """Return values at nodes of what is zero but at a point, and has integral 1."""
        raise ValueError("a source in a point needs grid=FiniteDifferences(101)")


class Chebyshev(Grid):
    """Chebyshev's nodes: few are enough where the solution is smooth.

    The error falls exponentially with their number; kinks and fronts need
    :class:`FiniteDifferences`.

    Parameters
    ----------
    n_nodes : int
        Number of nodes, both ends among them.

    low, high : float, default=0.0, 1.0
        Ends of the interval; a :class:`PDESystem` puts its grid on its domain.

    level : (bool, bool), default=(False, False)
        Ends at which slopes vanish, of the ``neumann`` of a :class:`PDESystem`.

    References
    ----------
    .. [1] L. N. Trefethen, "Spectral Methods in MATLAB", SIAM 2000, chapter 6.

    Examples
    --------
    >>> from sklearn_inverse.systems import Chebyshev
    >>> Chebyshev(5).nodes.round(3)
    array([0.   , 0.146, 0.5  , 0.854, 1.   ])
    """

    def _unit_nodes(self) -> np.ndarray:
        return (1 - np.cos(np.pi * np.arange(self.n_nodes) / (self.n_nodes - 1))) / 2

    def derivative(self, values: Any, place: int, axis: int = 0) -> tuple[Any, int]:
        """Return the derivative of values along an axis, and where it is known."""
        return _across(self._matrix(), values, axis), NODE

    def _matrix(self) -> np.ndarray:
        x, weight = self.nodes, 1 / self._barycentric()
        apart = x[:, None] - x + np.eye(self.n_nodes)
        matrix = np.outer(weight, 1 / weight) / apart
        return matrix - np.diag(matrix.sum(axis=1))

    def _end_slopes(self) -> np.ndarray:
        return self._matrix()[[0, -1]]

    def interpolation(self, points: np.ndarray) -> np.ndarray:
        """Return the matrix (n_points, n_nodes) that reads values off at points."""
        away = points[:, None] - self.nodes
        hit = away == 0
        with np.errstate(divide="ignore", invalid="ignore"):
            share = self._barycentric() / away
            share /= share.sum(axis=1, keepdims=True)
        return np.where(hit.any(axis=1, keepdims=True), hit, share)

    def _barycentric(self) -> np.ndarray:
        weight = (-1.0) ** np.arange(self.n_nodes)
        weight[[0, -1]] /= 2
        return weight


class FiniteDifferences(Grid):
    """Evenly spaced nodes: for solutions or coefficients with kinks.

    First derivatives are differences of neighbors, known half-way between them, where
    coefficients are averaged: ``(p.D * u.x).x`` conserves what flows, as linear finite
    elements do. The error falls with the square of the spacing.

    Parameters
    ----------
    n_nodes : int
        Number of nodes, both ends among them.

    low, high : float, default=0.0, 1.0
        Ends of the interval; a :class:`PDESystem` puts its grid on its domain.

    level : (bool, bool), default=(False, False)
        Ends at which slopes vanish, of the ``neumann`` of a :class:`PDESystem`.

    Examples
    --------
    >>> from sklearn_inverse.systems import FiniteDifferences
    >>> FiniteDifferences(5, high=2.0).nodes
    array([0. , 0.5, 1. , 1.5, 2. ])
    """

    is_local = True

    def _unit_nodes(self) -> np.ndarray:
        return np.linspace(0.0, 1.0, self.n_nodes)

    @property
    def spacing(self) -> float:
        """From one node to the next."""
        return (self.high - self.low) / (self.n_nodes - 1)

    def derivative(self, values: Any, place: int, axis: int = 0) -> tuple[Any, int]:
        """Return the derivative of values along an axis, and where it is known."""
        if place == INNER:
            raise ValueError(
                "finite differences stop at second derivatives; take Chebyshev for "
                "higher ones, or write them of fluxes, as in (p.D * u.x).x"
            )
        left, right = _neighbors(values, axis)
        return (right - left) / self.spacing, place + 1

    def _end_slopes(self) -> np.ndarray:
        slopes = np.zeros((2, self.n_nodes))
        slopes[0, :3] = -1.5, 2, -0.5  # of the parabola through three nodes
        slopes[1] = -slopes[0, ::-1]
        return slopes / self.spacing

    def sides(self, values: Any, place: int, axis: int = 0) -> tuple[Any, Any, int]:
        """Return values left and right of what lies between neighbors, and its place."""
        if place != NODE:
            raise ValueError(
                "what flows is told of the solution itself, known at nodes"
            )
        return *_neighbors(values, axis), MIDDLE

    def point_mass(self, at: Any) -> Any:
        """Return values at nodes of what is zero but at a point, and has integral 1."""
        if isinstance(at, Real):
            ends = zip((self.low, self.high), self.level)
            if not self.low <= float(at) <= self.high or any(
                float(at) == end and not is_level for end, is_level in ends
            ):
                raise ValueError(
                    f"a source in a point must lie in the domain, from {self.low:g} to "
                    f"{self.high:g}, and not at an end where u is given and no source "
                    f"changes it. Got {at!r}"
                )
        away = np.abs(self.nodes - at) / self.spacing
        mass = np.maximum(1 - away, 0) / self.spacing
        if not any(self.level):
            return mass
        # Next to a level end the equation is asked of a cell and a half at once.
        first = (mass[:1] + mass[1:2]) / 1.5 if self.level[0] else mass[1:2]
        last = (mass[-1:] + mass[-2:-1]) / 1.5 if self.level[1] else mass[-2:-1]
        return np.concatenate([mass[:1], first, mass[2:-2], last, mass[-1:]])

    def interpolation(self, points: np.ndarray) -> np.ndarray:
        """Return the matrix (n_points, n_nodes) that reads values off at points."""
        x, unit = self.nodes, np.eye(self.n_nodes)
        return np.stack([np.interp(points, x, row) for row in unit], axis=1)


def _cut(axis: int, start: int | None, stop: int | None) -> tuple[slice, ...]:
    """Return what cuts a piece out along an axis."""
    return (slice(None),) * axis + (slice(start, stop),)


def _across(matrix: np.ndarray, values: Any, axis: int) -> Any:
    """Multiply by a matrix along an axis."""
    return (matrix @ values.T).T if axis else matrix @ values


def _neighbors(values: Any, axis: int) -> tuple[Any, Any]:
    return values[_cut(axis, None, -1)], values[_cut(axis, 1, None)]
