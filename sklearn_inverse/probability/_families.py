r"""Families of distributions by their standard normal coordinate, a column per param.

A column is :math:`y = l + s t`, where t follows one of a few shapes with distribution
function F and density f, perhaps cut to a window. Its standard coordinate w has

.. math:: \Phi(w) = F(t), \qquad w' = \frac{f}{s\, \varphi(w)}, \qquad
          w'' = w' \left( \frac{f'}{s f} + w\, w' \right),

all taken from the nearer tail, so that neither loses its digits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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
    "by_family",
    "frozen_shape",
]

LOG_SQRT_2PI = 0.5 * np.log(2 * np.pi)
W_END = 8.2  # Φ(-8.2) = 1.2e-16: what a finite end of the support is mapped to
W_MAX = 37.0  # Φ(-37) = 6e-300: beyond, tails underflow


@dataclass(frozen=True, eq=False)
class Shape:
    """A distribution of t: functions of the shape's arguments and t, or w."""

    low: float
    high: float
    from_standard: Callable
    to_standard: Callable
    log_density: Callable
    log_density_slope: Callable


def _by_tails(low, high, cdf, sf, ppf, isf, log_density, log_density_slope) -> Shape:
    def from_standard(*args_and_w):
        *args, w = args_and_w
        p = ndtr(-np.abs(w))
        return np.where(w < 0, ppf(*args, p), isf(*args, p))

    def to_standard(*args_and_t):
        return _two_sided(cdf(*args_and_t), sf(*args_and_t))

    return Shape(low, high, from_standard, to_standard, log_density, log_density_slope)


NORMAL = Shape(
    -np.inf,
    np.inf,
    from_standard=lambda w: w,
    to_standard=lambda t: t,
    log_density=lambda t: -0.5 * t * t - LOG_SQRT_2PI,
    log_density_slope=lambda t: -t,
)
UNIFORM = Shape(0.0, 1.0, ndtr, ndtri, lambda t: 0.0, lambda t: 0.0)
HALF_NORMAL = _by_tails(
    0.0,
    np.inf,
    cdf=lambda t: special.erf(t / np.sqrt(2)),
    sf=lambda t: 2 * ndtr(-t),
    ppf=lambda p: np.sqrt(2) * special.erfinv(p),
    isf=lambda p: -ndtri(p / 2),
    log_density=lambda t: np.log(2) - 0.5 * t * t - LOG_SQRT_2PI,
    log_density_slope=lambda t: -t,
)
BETA = _by_tails(
    0.0,
    1.0,
    special.betainc,
    special.betaincc,
    special.betaincinv,
    special.betainccinv,
    log_density=lambda a, b, t: (
        special.xlogy(a - 1, t) + special.xlog1py(b - 1, -t) - special.betaln(a, b)
    ),
    log_density_slope=lambda a, b, t: (a - 1) / t - (b - 1) / (1 - t),
)
GAMMA = _by_tails(
    0.0,
    np.inf,
    special.gammainc,
    special.gammaincc,
    special.gammaincinv,
    special.gammainccinv,
    log_density=lambda a, t: special.xlogy(a - 1, t) - t - special.gammaln(a),
    log_density_slope=lambda a, t: (a - 1) / t - 1,
)


def frozen_shape(d) -> Shape:
    """Return the shape of a frozen SciPy distribution, t in its own unit."""
    low, high = (float(end) for end in d.support())
    step = 1e-5 * float(d.ppf(0.84) - d.ppf(0.16))

    def slope(t):
        h = np.minimum(step, 1e-3 * np.minimum(t - low, high - t))
        return (d.logpdf(t + h) - d.logpdf(t - h)) / (2 * h)

    return _by_tails(low, high, d.cdf, d.sf, d.ppf, d.isf, d.logpdf, slope)


class Columns:
    """Params of one family: y = loc + scale * t, one entry of each array per column.

    The window is the range of the shape's standard coordinate left after truncation.
    """

    def __init__(self, shape: Shape, loc, scale, args: tuple = (), window=None):
        self.shape, self.loc, self.scale, self.args = shape, loc, scale, args
        self.window: Any = window
        self.mass = 1.0 if window is None else _mass(*window)
        self._is_unit = bool(np.all(loc == 0) and np.all(scale == 1))
        with np.errstate(divide="ignore"):  # no mass: an error where truncated
            self._log_norm = np.log(scale * self.mass)
        low, high = shape.low, shape.high
        if np.isfinite(low):
            inside = low + (1e-300 if low == 0 else np.spacing(abs(low)))
            low = np.maximum(shape.from_standard(*args, -W_END), inside)
        if np.isfinite(high):
            inside = np.nextafter(high, -np.inf)
            high = np.minimum(shape.from_standard(*args, W_END), inside)
        self._t_ends = low, high

    def rescaled(self, low: float, width: float) -> Columns:
        """Return the distribution of ``(y - low) / width``."""
        loc, scale = (self.loc - low) / width, self.scale / width
        return Columns(self.shape, loc, scale, self.args, self.window)

    def from_standard(self, w):
        """Return y."""
        return self.loc + self.scale * self._t_of(w)

    def to_standard(self, y):
        """Return w; finite also at and beyond the ends of the support."""
        return self._w_of(self._inside(self._raw(y)))

    def slope(self, w):
        """Return dy/dw."""
        log_density = self._log_density(self._inside(self._t_of(w)))
        return np.exp(-0.5 * w * w - LOG_SQRT_2PI - log_density)

    def log_density(self, y):
        """Return the log density of y, which must lie in the support."""
        low, high = self.shape.low, self.shape.high
        return self._log_density(np.minimum(np.maximum(self._raw(y), low), high))

    def derivatives(self, y):
        """Return w, dw/dy and d²w/dy²."""
        t = self._inside(self._raw(y))
        w = self._w_of(t)
        slope = np.exp(0.5 * w * w + (self._log_density(t) + LOG_SQRT_2PI))
        bend = self.shape.log_density_slope(*self.args, t) / self.scale + w * slope
        return w, slope, slope * bend

    def _raw(self, y):
        return y if self._is_unit else (y - self.loc) / self.scale

    def _inside(self, t):
        """Move t off the ends of the shape's support, where derivatives blow up."""
        if self.shape is NORMAL:
            return t
        return np.minimum(np.maximum(t, self._t_ends[0]), self._t_ends[1])

    def _log_density(self, t):
        return self.shape.log_density(*self.args, t) - self._log_norm

    def _t_of(self, w):
        if self.window is not None:
            (a, b), mass = self.window, self.mass
            w = _two_sided(ndtr(a) + ndtr(w) * mass, ndtr(-b) + ndtr(-w) * mass)
        return self.shape.from_standard(*self.args, w)

    def _w_of(self, t):
        w = self.shape.to_standard(*self.args, t)
        if self.window is None:
            return w
        a, b = self.window
        w = _two_sided(_mass(a, w) / self.mass, _mass(w, b) / self.mass)
        low = np.where(np.isfinite(a), -W_END, -W_MAX)
        return np.minimum(np.maximum(w, low), np.where(np.isfinite(b), W_END, W_MAX))


def by_family(columns: list[Columns]) -> list[tuple[np.ndarray, Columns]]:
    """Join columns of one family: their places in the list, and all as one."""
    families: dict[Any, list[int]] = {}
    for j, column in enumerate(columns):
        families.setdefault((column.shape, column.window is None), []).append(j)
    joined = []
    for (shape, is_whole), index in families.items():
        members = [columns[j] for j in index]
        loc, scale = (
            np.array([getattr(c, n) for c in members]) for n in ("loc", "scale")
        )
        args = tuple(np.array([c.args for c in members]).T)
        window = None if is_whole else np.array([c.window for c in members]).T
        joined.append((np.array(index), Columns(shape, loc, scale, args, window)))
    return joined


def _two_sided(lower, upper):
    """Return the standard coordinate of a point by what lies below and above it."""
    w = np.maximum(ndtri(np.maximum(np.minimum(lower, upper), 0.0)), -W_MAX)
    return np.where(lower < upper, w, -w)


def _mass(a, b):
    """Probability of a standard normal variable between a and b."""
    return np.where(a > 0, ndtr(-a) - ndtr(-b), ndtr(b) - ndtr(a))
