"""Priors of single params: our own families, and any frozen one of SciPy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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
from sklearn_inverse.probability._prior import LN_10, Prior, short

__all__ = [
    "Beta",
    "Gamma",
    "HalfNormal",
    "LogNormalPrior",
    "LogUniform",
    "NormalPrior",
    "Uniform",
    "as_prior",
]


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
        _check_ends(self)
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
        _check_ends(self)
        low, high = np.log10([self.low, self.high])
        return Columns(UNIFORM, low, high - low)


@dataclass(frozen=True, repr=False)
class NormalPrior(Prior):
    """Normal distribution; written ``Normal(mean, std)``."""

    mean: float
    std: float

    _name = "Normal"
    _positive = ("std",)

    def _columns(self):
        return Columns(NORMAL, self.mean, self.std)


@dataclass(frozen=True, repr=False)
class LogNormalPrior(Prior):
    """The logarithm is normal; written ``LogNormal(median, sigma)``."""

    median: float
    sigma: float

    is_log = True
    _name = "LogNormal"
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
        _check_ends(self)
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
        args = [short(a) for a in self.distribution.args]
        args += [f"{name}={short(a)}" for name, a in self.distribution.kwds.items()]
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
    if isinstance(value, stats.distributions.rv_frozen) and isinstance(
        value.dist, stats.rv_continuous
    ):
        return _from_scipy(value)
    is_array = isinstance(value, np.ndarray) and value.ndim == 1
    if (is_array or isinstance(value, tuple | list)) and len(value) == 2:
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
        a, b = shapes
        return Beta(a, b, loc, loc + scale)
    if name == "truncnorm":
        a, b = shapes
        return NormalPrior(loc, scale).truncate(loc + a * scale, loc + b * scale)
    if loc == 0:
        if name == "lognorm":
            return LogNormalPrior(scale, *shapes)
        if name in ("loguniform", "reciprocal"):
            return LogUniform(*(scale * end for end in shapes))
        if name == "halfnorm":
            return HalfNormal(scale)
        if name in ("gamma", "expon"):
            return Gamma(shapes[0] if shapes else 1.0, scale)
    return Frozen(frozen)


def _parse(frozen):
    """Name, shape arguments, location and scale of a frozen SciPy distribution."""
    shapes, loc, scale = frozen.dist._parse_args(*frozen.args, **frozen.kwds)
    return frozen.dist.name, shapes, loc, scale


def _check_ends(prior) -> None:
    if not prior.low < prior.high:
        raise ValueError(
            f"`low` of {prior._called} must be below `high`. Got {prior!r}."
        )
