"""What a partial differential equation must be, checked once."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sklearn_inverse.systems._declared import check_keys

__all__ = [
    "PointValues",
    "check_constraint",
    "check_residual",
    "read_domain",
    "read_places",
]

TIME = "t"
SAME = 1e-9  # relative, of what must not depend on something


@dataclass(frozen=True)
class PointValues:
    """The solution, read at points, and at times where there is time.

    Parameters
    ----------
    x : array-like of shape (n_points,)
        Points inside the domain; each is an observable.

    t : float or array-like of shape (n_times,), default=None
        When they are read.

    Examples
    --------
    >>> from sklearn_inverse import PointValues
    >>> at_the_end = PointValues([0.25, 0.5, 0.75], t=1.0)
    """

    x: Any
    t: Any = None


def read_domain(domain: Any) -> dict[str, tuple[float, float]]:
    """Return the intervals by name, one of them of space."""
    check_keys("domain", domain)
    found = {}
    for axis, ends in domain.items():
        given = np.asarray(ends, dtype=float)
        if given.shape != (2,) or not -np.inf < given[0] < given[1] < np.inf:
            raise ValueError(
                f"`domain` must have (low, high) of each coordinate. Got {ends!r} for "
                f"{axis!r}."
            )
        found[axis] = (float(given[0]), float(given[1]))
    space = [axis for axis in found if axis != TIME]
    if len(space) != 1 or len(space[0]) != 1:
        raise ValueError(
            "`domain` must have one coordinate of space, of one letter, and may have time "
            f"'t'. Got {list(found)}."
        )
    return found


def read_places(
    domain: dict[str, tuple[float, float]], axis: str, observe: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Return points and times of the readings, one time where there is none."""
    if not isinstance(observe, PointValues):
        raise TypeError(f"`observe` must be PointValues(x, t). Got {observe!r}.")
    if TIME not in domain and observe.t is not None:
        raise ValueError(
            "`observe` has times, but `domain` has no 't': say from when to when, "
            "{'t': (0, 1)}, or leave them out."
        )
    if TIME in domain and observe.t is None:
        raise ValueError("`observe` must say when it is read: PointValues(x, t).")
    points = _inside(observe.x, axis, domain[axis])
    if len(np.unique(points)) < len(points):
        raise ValueError(
            "`observe` must have each point once: give the mean of readings that were "
            f"repeated, with its own noise. Got {axis} = {points.tolist()}."
        )
    if TIME not in domain:
        return points, np.zeros(1)
    times = _inside(observe.t, TIME, domain[TIME])
    if (np.diff(times) <= 0).any():
        raise ValueError(f"Times of `observe` must increase. Got {times.tolist()}.")
    return points, times


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


def check_residual(system: Any, times: Tensor, params: Tensor) -> float | None:
    """Return the factor of u.t, None if it varies or there is none.

    Refuse a residual that cannot be run or solved for u.t.
    """
    n = len(system.nodes) - 2
    bump = np.sin(np.pi * (np.arange(1, n + 1) / (n + 1)))
    states = torch.as_tensor(np.stack([0.3 + bump, 0.2 - 0.5 * bump]))

    def run(rate: float | None) -> Tensor:
        return _run(
            system,
            "`residual`",
            n,
            lambda t, y, p: system.residual_at(t, y, p, rate),
            (times, states, params),
        )

    off = run(None if system.is_steady else 0.0)
    if not off.isfinite().all():
        raise ValueError(
            "`residual` must be finite inside the prior. Got NaN or infinity."
        )
    if system.is_steady:
        return None
    one, two = run(1.0), run(2.0)
    factor = one - off
    size = factor.abs().amax()
    if not size > 0 or (factor == 0).any():
        raise ValueError(
            "`residual` must depend on u.t everywhere. Got one that does not: for a "
            "steady problem leave 't' out of `domain`."
        )
    scale = size + off.abs().amax()
    if (two - one - factor).abs().amax() > SAME * scale:
        raise ValueError("`residual` must be linear in u.t. Got one that is not.")
    if (factor - factor[0, 0]).abs().amax() > SAME * scale:
        return None
    whole = float(factor[0, 0])
    return round(whole) if abs(whole - round(whole)) < SAME else whole


def check_constraint(system: Any, times: Tensor, params: Tensor) -> None:
    """Refuse a constraint that leaves boundary values or the start open."""
    n_nodes = len(system.nodes)
    states = torch.zeros(len(times), n_nodes - 2)
    zero, other = (
        _run(
            system,
            "`constraint`",
            n_nodes,
            lambda t, y, p, n=n: system.constrained(t, n, p),
            (times, states, params),
        )
        for n in (0.0, 1.0)
    )
    low, high = system.domain[system.axis]
    x = f"x.{system.axis}"
    vanishing = f"{_since(x, low)} * ({high:g} - {x})"
    moved = (other - zero).abs() > SAME * (1 + zero.abs())
    if moved[:, [0, -1]].any():
        raise ValueError(
            "`constraint` must fix u at both ends, whatever n is: multiply n by what "
            f"vanishes there, as in n * {vanishing}. Other conditions than given values "
            "are not known here."
        )
    if not system.is_steady and moved[0].any():
        begun = _since("x.t", system.domain[TIME][0])
        raise ValueError(
            "`constraint` must fix what u begins with, whatever n is: multiply n by "
            f"{begun}, as in n * {vanishing} * {begun}."
        )
    if not moved[-1, 1:-1].any():
        raise ValueError(
            "`constraint` must leave u open inside: it is the same with n = 0 and n = 1."
        )


def _since(x: str, low: float) -> str:
    """Return what vanishes where an interval begins."""
    sign = "-" if low > 0 else "+"
    return x if low == 0 else f"({x} {sign} {abs(low):g})"


def _run(
    system: Any, what: str, n_values: int, function: Callable[..., Any], at: Any
) -> Tensor:
    try:
        return system.one_sample(function, what, n_values)(*at)
    except (AttributeError, ValueError, TypeError, RuntimeError) as error:
        call = "residual(x, u, p)" if "res" in what else "constraint(x, n[, p])"
        raise ValueError(f"{call} cannot be run: {error}") from error
