"""What instruments see of the solution of a partial differential equation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from numbers import Integral
from typing import Any

import numpy as np

from sklearn_inverse.systems._grids import Grid

__all__ = ["ParticleCounts", "PointValues", "read_times"]

TIME = "t"
GAUSS = np.polynomial.legendre.leggauss(3)  # in each bin


@dataclass(frozen=True)
class PointValues:
    """The solution, read at points, and at times where there is time.

    Parameters
    ----------
    x : array-like of shape (n_points,)
        Points inside the domain; each is an observable.

    t : float or array-like of shape (n_times,), default=None
        When they are read.

    y : array-like of shape (n_points,), default=None
        Second coordinates of the points, where there are two.

    see : dict of str to callable, default=None
        What instruments make of the solution at a point, by their names: ``(x, u, p)``
        there, as of a residual, to a number. Each is read at all points.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_inverse import PointValues
    >>> at_the_end = PointValues([0.25, 0.5, 0.75], t=1.0)
    >>> above_a_threshold = PointValues(
    ...     [0.25, 0.5, 0.75],
    ...     t=1.0,
    ...     see={"dark": lambda x, u, p: 1 / (1 + np.exp(-20 * (u - p.threshold)))},
    ... )
    """

    x: Any
    t: Any = None
    y: Any = None
    see: Any = None

    def points(self, grids: Mapping[str, Grid]) -> np.ndarray:
        """Return the points, of shape (n_points, n_coordinates)."""
        given = [self.x] if self.y is None else [self.x, self.y]
        if list(grids) == ["y", "x"]:
            given.reverse()
        if len(given) != len(grids):
            raise ValueError(
                f"`observe` must have points of {len(grids)} coordinate(s), "
                f"{list(grids)}. Got {len(given)}: PointValues(x, t, y)."
            )
        points = [
            _inside(x, axis, (grid.low, grid.high))
            for x, (axis, grid) in zip(given, grids.items())
        ]
        if len({len(x) for x in points}) > 1:
            raise ValueError(
                "`observe` must have as many x as y: each pair is a point. Got "
                f"{[len(x) for x in points]}."
            )
        together = np.stack(points, axis=1)
        if len(np.unique(together, axis=0)) < len(together):
            raise ValueError(
                "`observe` must have each point once: give the mean of readings that "
                f"were repeated, with its own noise. Got {together.tolist()}."
            )
        return together

    def gathering(self, grids: Mapping[str, Grid]) -> None:
        """Return None: values at points are read as they are."""

    def read(self, grids: Mapping[str, Grid]) -> tuple[np.ndarray, list[str]]:
        """Return what makes readings of all values at nodes, and their names."""
        points = self.points(grids)
        rows = [g.interpolation(x) for x, g in zip(points.T, grids.values())]
        weights = reduce(lambda a, b: a[:, :, None] * b[:, None], rows)
        names = [", ".join(f"{x:.6g}" for x in point) for point in points]
        if len(set(names)) < len(names):
            names = [", ".join(map(repr, map(float, p))) for p in points]
        return weights.reshape(len(points), -1), [f"u({name})" for name in names]


@dataclass(frozen=True)
class ParticleCounts:
    r"""Particles of which u is the density, counted between edges.

    A snapshot shows particles at random, independent places: a Poisson process. Counts
    between edges, over all snapshots, have Poisson noise whose mean is the integral of u
    times the number of snapshots. As bins become narrow, their likelihood becomes that of
    the positions, :math:`\sum_i \log u(x_i) - M \int u`: let them be narrow beside what u
    varies over.

    Parameters
    ----------
    x : array-like of shape (n_bins + 1,)
        Edges inside the domain, increasing; each bin is an observable.

    n_snapshots : int, default=1
        Snapshots that are counted together.

    t : float or array-like of shape (n_times,), default=None
        When, where there is time.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_inverse.systems import ParticleCounts
    >>> seen = ParticleCounts(np.linspace(0, 1, 5), n_snapshots=100)
    >>> seen.count([[0.1, 0.3, 0.3, 0.9]])
    array([[1., 2., 0., 1.]])
    """

    x: Any
    n_snapshots: int = 1
    t: Any = None

    def points(self, grids: Mapping[str, Grid]) -> np.ndarray:
        """Return Gauss's points of all bins, of shape (n_points, 1)."""
        edges, (at, _) = self._edges(grids), GAUSS
        return (edges[:-1, None] + np.diff(edges)[:, None] * (1 + at) / 2).reshape(
            -1, 1
        )

    def gathering(self, grids: Mapping[str, Grid]) -> np.ndarray:
        """Return what makes counts of values at points, (n_bins, n_points)."""
        width, (_, weight) = np.diff(self._edges(grids)), GAUSS
        return self.n_snapshots * np.kron(np.diag(width), weight / 2)

    def _edges(self, grids: Mapping[str, Grid]) -> np.ndarray:
        if len(grids) > 1:
            raise ValueError(f"Particles are counted along x only. Got {list(grids)}.")
        ((axis, grid),) = grids.items()
        edges = _inside(self.x, axis, (grid.low, grid.high))
        if len(edges) < 2 or (np.diff(edges) <= 0).any():
            raise ValueError(
                f"Edges of bins must increase. Got {np.asarray(self.x).tolist()}."
            )
        return edges

    def read(self, grids: Mapping[str, Grid]) -> tuple[np.ndarray, list[str]]:
        """Return what makes readings of all values at nodes, and their names."""
        edges, (grid,) = self._edges(grids), grids.values()
        n = self.n_snapshots
        if not (isinstance(n, Integral) and n >= 1):
            raise ValueError(
                f"`n_snapshots` must be a whole number and must be >= 1. Got {n!r}."
            )
        names = [f"n({a:.6g}, {b:.6g})" for a, b in pairwise(edges)]
        return self.n_snapshots * grid.integration(edges), names

    def count(self, positions: Sequence[Any]) -> np.ndarray:
        """Return observations of the positions of particles.

        Parameters
        ----------
        positions : sequence of array-like of shape (n_particles,)
            For each sample, those of all snapshots, inside the bins.

        Returns
        -------
        counts : ndarray of shape (n_samples, n_bins)
            How many lie in each bin.
        """
        if not len(positions):
            raise ValueError("`positions` must be of one sample at least. Got none.")
        edges = np.asarray(self.x, dtype=float)
        samples = [np.asarray(x, dtype=float) for x in positions]
        for i, x in enumerate(samples):
            if x.ndim != 1:
                raise ValueError(
                    "`positions` must be one list for each sample, [[0.1, 0.3]] for one "
                    f"sample. Got shape {x.shape} for sample {i}."
                )
            outside = ~((x >= edges[0]) & (x <= edges[-1]))
            if outside.any():
                raise ValueError(
                    f"`positions` must lie in the bins, from {edges[0]:g} to "
                    f"{edges[-1]:g}: leave others out. Got {x[outside][:5].tolist()} in "
                    f"sample {i}."
                )
        return np.stack([np.histogram(x, edges)[0] for x in samples]).astype(float)


def read_times(domain: dict[str, tuple[float, float]], observe: Any) -> np.ndarray:
    """Return times of the readings, one where there is none."""
    if not isinstance(observe, (PointValues, ParticleCounts)):
        raise TypeError(
            "`observe` must be PointValues(x, t) or ParticleCounts(x, n_snapshots). Got "
            f"{observe!r}."
        )
    if TIME not in domain and observe.t is not None:
        raise ValueError(
            "`observe` has times, but `domain` has no 't': say from when to when, "
            "{'t': (0, 1)}, or leave them out."
        )
    if TIME in domain and observe.t is None:
        raise ValueError("`observe` must say when it is read: PointValues(x, t).")
    if TIME not in domain:
        return np.zeros(1)
    times = _inside(observe.t, TIME, domain[TIME])
    if (np.diff(times) <= 0).any():
        raise ValueError(f"Times of `observe` must increase. Got {times.tolist()}.")
    return times


def _inside(given: Any, axis: str, ends: tuple[float, float]) -> np.ndarray:
    places = np.atleast_1d(np.asarray(given, dtype=float))
    low, high = ends
    inside = (places >= low) & (places <= high)
    if places.ndim != 1 or not len(places) or not inside.all():
        raise ValueError(
            f"`observe` must be read inside the domain, {axis} from {low:g} to {high:g}. "
            f"Got {places[~inside].tolist() or places.shape}."
        )
    return places
