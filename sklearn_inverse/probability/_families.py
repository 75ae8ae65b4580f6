r"""Families of distributions by their standard normal coordinate, a column per param.

A column is :math:`y = l + s t`, where t follows one of a few shapes with distribution
function F and density f, perhaps cut to a window. Its standard coordinate w has

.. math:: \Phi(w) = F(t), \qquad w' = \frac{f}{s\, \varphi(w)}, \qquad
          w'' = w' \left( \frac{f'}{s f} + w\, w' \right),

all taken from the nearer tail, so that neither loses its digits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import special
from scipy.special import ndtr, ndtri

__all__ = [
    "BETA",
    "GAMMA",
    "HALF_NORMAL",
    "NORMAL",
    "UNIFORM",
    "Columns",
    "frozen_shape",
]

LOG_SQRT_2PI = 0.5 * np.log(2 * np.pi)
W_END = 8.2  # Φ(-8.2) = 1.2e-16: what a finite end of the support is mapped to
W_MAX = 37.0  # Φ(-37) = 6e-300: beyond, tails underflow


@dataclass(frozen=True, eq=False)
class Shape:
    """A distribution of t: functions of t, or of a probability, and of arguments."""

    low: float
    high: float
    cdf: Callable
    sf: Callable
    ppf: Callable
    isf: Callable
    log_density: Callable
    log_density_slope: Callable

    def from_standard(self, w, *args):
        """Return t by its standard coordinate."""
        p = ndtr(-np.abs(w))
        return np.where(w < 0, self.ppf(p, *args), self.isf(p, *args))

    def to_standard(self, t, *args):
        """Return the standard coordinate of t."""
        return _two_sided(self.cdf(t, *args), self.sf(t, *args))


class _Normal(Shape):
    def from_standard(self, w):
        return w

    def to_standard(self, t):
        return t


class _Uniform(Shape):
    def from_standard(self, w):
        return ndtr(w)

    def to_standard(self, t):
        return ndtri(t)


NORMAL = _Normal(
    low=-np.inf,
    high=np.inf,
    cdf=ndtr,
    sf=lambda t: ndtr(-t),
    ppf=ndtri,
    isf=lambda p: -ndtri(p),
    log_density=lambda t: -0.5 * t * t - LOG_SQRT_2PI,
    log_density_slope=lambda t: -t,
)
UNIFORM = _Uniform(
    low=0.0,
    high=1.0,
    cdf=lambda t: t,
    sf=lambda t: 1 - t,
    ppf=lambda p: p,
    isf=lambda p: 1 - p,
    log_density=lambda t: 0.0,
    log_density_slope=lambda t: 0.0,
)
HALF_NORMAL = Shape(
    low=0.0,
    high=np.inf,
    cdf=lambda t: special.erf(t / np.sqrt(2)),
    sf=lambda t: 2 * ndtr(-t),
    ppf=lambda p: np.sqrt(2) * special.erfinv(p),
    isf=lambda p: -ndtri(p / 2),
    log_density=lambda t: np.log(2) - 0.5 * t * t - LOG_SQRT_2PI,
    log_density_slope=lambda t: -t,
)
BETA = Shape(
    low=0.0,
    high=1.0,
    cdf=lambda t, a, b: special.betainc(a, b, t),
    sf=lambda t, a, b: special.betaincc(a, b, t),
    ppf=lambda p, a, b: special.betaincinv(a, b, p),
    isf=lambda p, a, b: special.betainccinv(a, b, p),
    log_density=lambda t, a, b: (
        special.xlogy(a - 1, t) + special.xlog1py(b - 1, -t) - special.betaln(a, b)
    ),
    log_density_slope=lambda t, a, b: (a - 1) / t - (b - 1) / (1 - t),
)
GAMMA = Shape(
    low=0.0,
    high=np.inf,
    cdf=lambda t, a: special.gammainc(a, t),
    sf=lambda t, a: special.gammaincc(a, t),
    ppf=lambda p, a: special.gammaincinv(a, p),
    isf=lambda p, a: special.gammainccinv(a, p),
    log_density=lambda t, a: special.xlogy(a - 1, t) - t - special.gammaln(a),
    log_density_slope=lambda t, a: (a - 1) / t - 1,
)


def frozen_shape(distribution) -> Shape:
    """Return the shape of a frozen SciPy distribution, t in its own unit."""
    low, high = (float(end) for end in distribution.support())
    d = distribution
    step = 1e-5 * float(d.ppf(0.84) - d.ppf(0.16))

    def log_density_slope(t):
        h = np.minimum(step, 1e-3 * np.minimum(t - low, high - t))
        return (d.logpdf(t + h) - d.logpdf(t - h)) / (2 * h)

    return Shape(low, high, d.cdf, d.sf, d.ppf, d.isf, d.logpdf, log_density_slope)


@dataclass(frozen=True, eq=False)
class Columns:
    """Params of one family: y = loc + scale * t, one entry of each array per column.

    Parameters
    ----------
    shape : Shape
        Distribution of t.

    loc, scale : float or ndarray of shape (n_columns,)
        Place and width.

    args : tuple of float or ndarray of shape (n_columns,)
        The shape's own arguments.

    window : pair of float or of ndarray of shape (n_columns,), default=None
        Range of the shape's standard coordinate that is left after truncation.
    """

    shape: Shape
    loc: Any
    scale: Any
    args: tuple[Any, ...] = ()
    window: tuple[Any, ...] | None = None
    _t_ends: tuple[Any, Any] = field(init=False)
    _w_ends: tuple[Any, Any] = field(init=False)
    mass: Any = field(init=False)
    is_unit: bool = field(init=False)
    _log_norm: Any = field(init=False)

    def __post_init__(self):
        shape, mass = self.shape, 1.0
        w_ends: tuple[Any, Any] = (-W_MAX, W_MAX)
        t_ends: list[Any] = [shape.low, shape.high]
        if np.isfinite(shape.low):
            t_ends[0] = np.maximum(shape.from_standard(-W_END, *self.args), shape.low)
            tiny = 1e-300 if shape.low == 0 else np.spacing(abs(shape.low))
            t_ends[0] = np.maximum(t_ends[0], shape.low + tiny)
        if np.isfinite(shape.high):
            inside = np.nextafter(shape.high, -np.inf)
            t_ends[1] = np.minimum(shape.from_standard(W_END, *self.args), inside)
        if self.window is not None:
            a, b = self.window
            mass = _mass(a, b)
            w_ends = (
                np.where(np.isfinite(a), -W_END, -W_MAX),
                np.where(np.isfinite(b), W_END, W_MAX),
            )
        object.__setattr__(self, "_t_ends", tuple(t_ends))
        object.__setattr__(self, "_w_ends", w_ends)
        object.__setattr__(self, "mass", mass)
        is_unit = bool(np.all(self.loc == 0) and np.all(self.scale == 1))
        object.__setattr__(self, "is_unit", is_unit)
        with np.errstate(divide="ignore"):  # no mass: an error where truncated
            object.__setattr__(self, "_log_norm", np.log(self.scale * mass))

    def rescaled(self, low: float, width: float) -> Columns:
        """Return the distribution of ``(y - low) / width``."""
        loc, scale = (self.loc - low) / width, self.scale / width
        return Columns(self.shape, loc, scale, self.args, self.window)

    def support(self) -> tuple[float, float]:
        """Return the ends of y before truncation."""
        return (
            self.loc + self.scale * self.shape.low,
            self.loc + self.scale * self.shape.high,
        )

    def from_standard(self, w):
        """Return y."""
        return self.loc + self.scale * self._t_of(w)

    def to_standard(self, y):
        """Return w; finite also at and beyond the ends of the support."""
        return self._w_of(self._inside(self._shape_of(y)))

    def slope(self, w):
        """Return dy/dw."""
        t = self._inside(self._t_of(w))
        log_density = self.shape.log_density(t, *self.args) - self._log_norm
        return np.exp(-0.5 * w * w - LOG_SQRT_2PI - log_density)

    def log_density(self, y):
        """Return the log density of y, which must lie in the support."""
        t = np.minimum(np.maximum(self._shape_of(y), self.shape.low), self.shape.high)
        return self.shape.log_density(t, *self.args) - self._log_norm

    def derivatives(self, y):
        """Return w, dw/dy and d²w/dy²."""
        t = self._inside(self._shape_of(y))
        w = self._w_of(t)
        log_density = self.shape.log_density(t, *self.args) - self._log_norm
        slope = np.exp(0.5 * w * w + (log_density + LOG_SQRT_2PI))
        bend = self.shape.log_density_slope(t, *self.args) / self.scale + w * slope
        return w, slope, slope * bend

    def _shape_of(self, y):
        return y if self.is_unit else (y - self.loc) / self.scale

    def _inside(self, t):
        """Move t off the ends of the shape's support, where derivatives blow up."""
        if self.shape is NORMAL:
            return t
        return np.minimum(np.maximum(t, self._t_ends[0]), self._t_ends[1])

    def _t_of(self, w):
        if self.window is not None:
            a, b = self.window
            mass = self.mass
            w = _two_sided(ndtr(a) + ndtr(w) * mass, ndtr(-b) + ndtr(-w) * mass)
        return self.shape.from_standard(w, *self.args)

    def _w_of(self, t):
        w = self.shape.to_standard(t, *self.args)
        if self.window is None:
            return w
        a, b = self.window
        mass = self.mass
        w = _two_sided(_mass(a, w) / mass, _mass(w, b) / mass)
        return np.minimum(np.maximum(w, self._w_ends[0]), self._w_ends[1])


def by_family(columns: list[Columns]) -> list[tuple[np.ndarray, Columns]]:
    """Join columns of one family: their places in the list, and all as one."""
    families: dict[Any, list[int]] = {}
    for j, column in enumerate(columns):
        families.setdefault((column.shape, column.window is None), []).append(j)
    joined = []
    for (shape, is_whole), index in families.items():
        members = [columns[j] for j in index]
        args = tuple(np.array(a) for a in zip(*(c.args for c in members)))
        ends = [c.window for c in members if c.window is not None]
        window = None if is_whole else tuple(np.array(ends).T)
        loc, scale = (
            np.array([getattr(c, n) for c in members]) for n in ("loc", "scale")
        )
        joined.append((np.array(index), Columns(shape, loc, scale, args, window)))
    return joined


def _two_sided(lower, upper):
    """Return the standard coordinate of a point by what lies below and above it."""
    w = np.maximum(ndtri(np.maximum(np.minimum(lower, upper), 0.0)), -W_MAX)
    return np.where(lower < upper, w, -w)


def _mass(a, b):
    """Probability of a standard normal variable between a and b."""
    return np.where(a > 0, ndtr(-a) - ndtr(-b), ndtr(b) - ndtr(a))
