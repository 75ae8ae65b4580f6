"""Priors of single params: our own families, and any frozen one of SciPy.

Each has a standard coordinate z, normal with mean 0 and std 1 under the prior, so that
simulation, search, sampling and learning all use the same one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any, ClassVar

import numpy as np
from scipy import stats

from sklearn_inverse.probability._families import (
    BETA,
    GAMMA,
    HALF_NORMAL,
    NORMAL,
    UNIFORM,
    Columns,
    frozen_shape,
)

__all__ = [
    "LN_10",
    "Beta",
    "Gamma",
    "HalfNormal",
    "LogNormalPrior",
    "LogUniform",
    "NormalPrior",
    "Prior",
    "Uniform",
    "as_prior",
]

LN_10 = math.log(10)
Z_999 = 3.090232306167813  # between these quantiles a scaled param runs from 0 to 1


class Prior:
    """What is believed of one param; immutable, equal by value.

    Attributes
    ----------
    is_log : bool
        Whether the param's natural scale is log10.

    support : pair of floats
        Smallest and largest value that can occur, perhaps infinite.

    bounds : pair of floats
        What the scaled param covers as it runs from 0 to 1: the support where it is
        finite, else up to the 0.1 % or 99.9 % quantile.

    median : float
        Value with half of the probability on either side.
    """

    is_log: bool = False
    support: tuple[float, float]
    bounds: tuple[float, float]
    median: float
    columns: Columns  # distribution of the param, or of its log10
    _positive: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self):
        given = self._arguments()
        for name, value in given.items():
            if not isinstance(value, Real) or not math.isfinite(value):
                error = ValueError if isinstance(value, Real) else TypeError
                raise error(
                    f"`{name}` of {self._name} must be a finite number. Got {value!r}."
                )
            if name in self._positive and value <= 0:
                raise ValueError(
                    f"`{name}` of {self._name} must be positive. Got {value:g}."
                )
            self._set(**{name: float(value)})
        if "low" in given and not given["low"] < given["high"]:
            raise ValueError(
                f"`low` of {self._name} must be below `high`. Got {self!r}."
            )
        self._describe(self._columns())  # type: ignore[attr-defined]

    def _describe(self, columns: Columns, support=None) -> None:
        """Store what follows from the distribution."""
        if support is None:
            ends = columns.shape.low, columns.shape.high
            low, high = (float(columns.loc + columns.scale * end) for end in ends)
            support = (0.0, np.inf) if self.is_log else (low, high)
        self._set(columns=columns, support=support)
        first, middle, last = self.from_standard([-Z_999, 0.0, Z_999]).tolist()
        if np.isfinite(support[0]) and not (self.is_log and support[0] <= 0):
            first = support[0]
        last = support[1] if np.isfinite(support[1]) else last
        self._set(bounds=(first, last))
        if "median" not in self._arguments():
            self._set(median=middle)

    def from_standard(self, z):
        """Map the standard coordinate, an array of any shape, to the param."""
        y = self.columns.from_standard(np.asarray(z, dtype=float))
        return np.clip(10.0**y if self.is_log else y, *self.support)

    def to_standard(self, k):
        """Map the param to its standard coordinate; ends of the support become ±8.2."""
        return self.columns.to_standard(self._natural(k))

    def slope(self, z):
        """Return the derivative of the param by its standard coordinate."""
        slope = self.columns.slope(np.asarray(z, dtype=float))
        return LN_10 * self.from_standard(z) * slope if self.is_log else slope

    def log_prob(self, k):
        """Return the natural log of the density, minus infinity outside the support."""
        k, (low, high) = np.asarray(k, dtype=float), self.support
        y = self._natural(k)
        log_prob = self.columns.log_density(y)
        if self.is_log:
            log_prob = log_prob - LN_10 * y - math.log(LN_10)
        return np.where((k < low) | (k > high), -np.inf, log_prob + np.zeros_like(k))

    def truncate(self, low=None, high=None):
        """Return this prior cut to a range; an end that is None stays as it is."""
        first, last = self.support
        a = first if low is None else max(float(low), first)
        b = last if high is None else min(float(high), last)
        if not a < b:
            raise ValueError(
                f"`low` and `high` must leave a part of the support [{first:g}, "
                f"{last:g}] of {self!r}. Got low={low}, high={high}."
            )
        return self if (a, b) == (first, last) else self._cut(a, b)

    def _cut(self, low: float, high: float) -> Prior:
        return Truncated(self, low, high)

    def _natural(self, k):
        """Return k, or its log10, moved inside the support."""
        low, high = self.support
        low = max(low, 1e-300) if self.is_log else low
        k = np.clip(np.asarray(k, dtype=float), low, high)
        return np.log10(k) if self.is_log else k

    @property
    def _name(self) -> str:
        return type(self).__name__.removesuffix("Prior")

    def _arguments(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]

    def _set(self, **values) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __repr__(self):
        return f"{self._name}({', '.join(map(_short, self._arguments().values()))})"

    def __reduce__(self):
        return type(self), tuple(self._arguments().values())


@dataclass(frozen=True, repr=False)
class Truncated(Prior):
    """Another prior, cut to a range by its method ``truncate``."""

    base: Prior
    low: float
    high: float

    def __post_init__(self):
        base, (first, last) = self.base, self.base.support
        a = float(base.to_standard(self.low)) if self.low > first else -np.inf
        b = float(base.to_standard(self.high)) if self.high < last else np.inf
        c = base.columns
        columns = Columns(c.shape, c.loc, c.scale, c.args, (a, b))
        if not columns.mass > 0:
            raise ValueError(
                f"{base!r} must have some probability between {self.low:g} and "
                f"{self.high:g}. Got none: cut nearer to its median {base.median:g}."
            )
        self._set(is_log=base.is_log)
        self._describe(columns, (self.low, self.high))

    def _cut(self, low, high):
        return Truncated(self.base, low, high)

    def __repr__(self):
        ends = zip(("low", "high"), (self.low, self.high), self.base.support)
        given = [f"{name}={_short(end)}" for name, end, own in ends if end != own]
        return f"{self.base!r}.truncate({', '.join(given)})"


@dataclass(frozen=True, repr=False)
class Uniform(Prior):
    """Every value between two ends is as likely as any other.

    Parameters
    ----------
    low, high : float
        The ends.

    Examples
    --------
    >>> from sklearn_inverse.probability import Uniform
    >>> Uniform(1, 3).median
    2.0
    """

    low: float
    high: float

    def _columns(self):
        return Columns(UNIFORM, self.low, self.high - self.low)

    def _describe(self, columns, support=None):
        super()._describe(columns, (self.low, self.high))

    def _cut(self, low, high):
        return type(self)(low, high)


@dataclass(frozen=True, repr=False)
class LogUniform(Uniform):
    """Every order of magnitude between two ends is as likely as any other.

    Parameters
    ----------
    low, high : float
        The ends, positive.

    Examples
    --------
    >>> from sklearn_inverse.probability import LogUniform
    >>> LogUniform(0.01, 100).median
    1.0
    """

    is_log = True
    _positive = ("low", "high")

    def _columns(self):
        low, high = np.log10([self.low, self.high])
        return Columns(UNIFORM, low, high - low)


@dataclass(frozen=True, repr=False)
class NormalPrior(Prior):
    """Normal distribution; written ``Normal(mean, std)``."""

    mean: float
    std: float
    _positive = ("std",)

    def _columns(self):
        return Columns(NORMAL, self.mean, self.std)


@dataclass(frozen=True, repr=False)
class LogNormalPrior(Prior):
    """The logarithm is normal; written ``LogNormal(median, sigma)``."""

    median: float
    sigma: float
    is_log = True
    _positive = ("median", "sigma")

    def _columns(self):
        return Columns(NORMAL, np.log10(self.median), self.sigma / LN_10)


@dataclass(frozen=True, repr=False)
class HalfNormal(Prior):
    """Size of a normal variable of mean zero.

    Parameters
    ----------
    std : float
        Standard deviation of the normal variable, in the param's unit.

    Examples
    --------
    >>> from sklearn_inverse.probability import HalfNormal
    >>> round(HalfNormal(1).median, 3)
    0.674
    """

    std: float
    _positive = ("std",)

    def _columns(self):
        return Columns(HALF_NORMAL, 0.0, self.std)


@dataclass(frozen=True, repr=False)
class Beta(Prior):
    """A fraction, or any quantity between two ends.

    Parameters
    ----------
    a, b : float
        As after a + b - 2 trials of which a - 1 succeeded.

    low, high : float, default=0, 1
        The ends.

    Examples
    --------
    >>> from sklearn_inverse.probability import Beta
    >>> round(Beta(2, 5).median, 3)
    0.264
    """

    a: float
    b: float
    low: float = 0.0
    high: float = 1.0
    _positive = ("a", "b")

    def _columns(self):
        return Columns(BETA, self.low, self.high - self.low, (self.a, self.b))


@dataclass(frozen=True, repr=False)
class Gamma(Prior):
    """Positive, with mean ``shape * scale``; shape 1 is the exponential distribution.

    Parameters
    ----------
    shape : float
        The larger, the narrower: the std is ``sqrt(shape) * scale``.

    scale : float
        In the param's unit; one over the rate.

    Examples
    --------
    >>> from sklearn_inverse.probability import Gamma
    >>> round(Gamma(1, 2).median, 3)
    1.386
    """

    shape: float
    scale: float
    _positive = ("shape", "scale")

    def _columns(self):
        return Columns(GAMMA, 0.0, self.scale, (self.shape,))


@dataclass(frozen=True, repr=False, eq=False)
class Frozen(Prior):
    """A frozen continuous distribution of SciPy."""

    distribution: Any

    def __post_init__(self):
        median = self.distribution.median()
        if np.ndim(median) or not np.isfinite(median):
            raise ValueError(
                "A SciPy distribution must have one finite median, as it is the prior of "
                f"one param. Got {median} for {self!r}."
            )
        self._describe(Columns(frozen_shape(self.distribution), 0.0, 1.0))

    def _key(self):
        name, shapes, loc, scale = _parse(self.distribution)
        return name, *map(float, (*shapes, loc, scale))

    def __eq__(self, other):
        return isinstance(other, Frozen) and self._key() == other._key()

    def __hash__(self):
        return hash(self._key())

    def __repr__(self):
        args = [_short(a) for a in self.distribution.args]
        args += [f"{name}={_short(a)}" for name, a in self.distribution.kwds.items()]
        return f"{self.distribution.dist.name}({', '.join(args)})"


def as_prior(value) -> Prior:
    """Return the prior that a value stands for.

    Parameters
    ----------
    value : prior, pair of numbers, or frozen SciPy distribution
        A pair is uniform between its two numbers.

    Returns
    -------
    prior : Prior
        The value itself if it is one.

    Examples
    --------
    >>> from scipy import stats
    >>> from sklearn_inverse.probability import as_prior
    >>> as_prior((1, 3)), as_prior(stats.expon(scale=2))
    (Uniform(1, 3), Gamma(1, 2))
    """
    if isinstance(value, Prior):
        return value
    is_frozen = isinstance(value, stats.distributions.rv_frozen)
    if is_frozen and isinstance(value.dist, stats.rv_continuous):
        return _from_scipy(value)
    if isinstance(value, tuple | list | np.ndarray) and len(value) == 2:
        return Uniform(*value)
    raise TypeError(
        "A prior must be a pair (low, high), one of sklearn_inverse.probability such as "
        "LogUniform(low, high), or a frozen continuous distribution of scipy.stats. Got "
        f"{value!r}."
    )


def _from_scipy(frozen) -> Prior:
    """Take our own family where there is one: faster, and scaled as suits it."""
    name, shapes, loc, scale = _parse(frozen)
    if name == "norm":
        return NormalPrior(loc, scale)
    if name == "uniform":
        return Uniform(loc, loc + scale)
    if name == "beta":
        return Beta(shapes[0], shapes[1], loc, loc + scale)
    if name == "truncnorm":
        return NormalPrior(loc, scale).truncate(*(loc + end * scale for end in shapes))
    if name in ("loguniform", "reciprocal") and loc == 0:
        return LogUniform(*(scale * end for end in shapes))
    if name == "lognorm" and loc == 0:
        return LogNormalPrior(scale, *shapes)
    if name == "halfnorm" and loc == 0:
        return HalfNormal(scale)
    if name in ("gamma", "expon") and loc == 0:
        return Gamma(shapes[0] if shapes else 1.0, scale)
    return Frozen(frozen)


def _parse(frozen):
    """Name, shape arguments, location and scale of a frozen SciPy distribution."""
    shapes, loc, scale = frozen.dist._parse_args(*frozen.args, **frozen.kwds)
    return frozen.dist.name, shapes, loc, scale


def _short(value) -> str:
    """Write a number without digits that say nothing."""
    return f"{value:.6g}" if isinstance(value, Real) else repr(value)
