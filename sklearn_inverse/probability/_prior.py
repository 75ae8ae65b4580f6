"""Prior, the base class, and what truncation makes of it.

Each has a standard coordinate z, normal with mean 0 and std 1 under the prior, so that
simulation, search, sampling and learning all use the same one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any, ClassVar

import numpy as np

from sklearn_inverse.probability._families import Columns

__all__ = ["Prior", "Truncated", "short"]

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

    columns : Columns
        Distribution of the param, or of its log10.
    """

    is_log: bool = False
    support: tuple[float, float]
    bounds: tuple[float, float]
    median: float
    columns: Columns
    _name: ClassVar[str] = ""
    _positive: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self):
        for name, value in self._arguments().items():
            if not isinstance(value, Real) or not math.isfinite(value):
                error = ValueError if isinstance(value, Real) else TypeError
                raise error(
                    f"`{name}` of {self._called} must be a finite number. Got {value!r}."
                )
            if name in self._positive and value <= 0:
                raise ValueError(
                    f"`{name}` of {self._called} must be positive. Got {value:g}."
                )
            self._set(**{name: float(value)})
        self._describe(self._columns())

    def _columns(self) -> Columns:
        raise NotImplementedError

    def _describe(self, columns: Columns, support=None) -> None:
        """Store what follows from the distribution."""
        if support is None:
            low, high = columns.support()
            support = (0.0, np.inf) if self.is_log else (float(low), float(high))
        self._set(columns=columns, support=support)
        low, high = support
        has_low = np.isfinite(low) and not (self.is_log and low <= 0)
        first, middle, last = self.from_standard([-Z_999, 0.0, Z_999]).tolist()
        bounds = low if has_low else first, high if np.isfinite(high) else last
        self._set(bounds=bounds)
        if "median" not in self._arguments():
            self._set(median=middle)

    def from_standard(self, z):
        """Map the standard coordinate to the param.

        Parameters
        ----------
        z : array-like
            Standard normal under the prior.

        Returns
        -------
        k : ndarray, of the shape of z
            In the param's unit.
        """
        y = self.columns.from_standard(np.asarray(z, dtype=float))
        return np.clip(10.0**y if self.is_log else y, *self.support)

    def to_standard(self, k):
        """Map the param to its standard coordinate.

        Parameters
        ----------
        k : array-like
            In the param's unit.

        Returns
        -------
        z : ndarray, of the shape of k
            Finite: a finite end of the support, and what lies beyond, becomes ±8.2.
        """
        return self.columns.to_standard(self._natural(k))

    def slope(self, z):
        """Return the derivative of the param by its standard coordinate.

        Parameters
        ----------
        z : array-like
            Standard coordinate.

        Returns
        -------
        slope : ndarray, of the shape of z
            Positive; zero where it underflows.
        """
        slope = self.columns.slope(np.asarray(z, dtype=float))
        return LN_10 * self.from_standard(z) * slope if self.is_log else slope

    def log_prob(self, k):
        """Return the natural logarithm of the prior's density.

        Parameters
        ----------
        k : array-like
            In the param's unit.

        Returns
        -------
        log_prob : ndarray, of the shape of k
            Minus infinity outside the support.
        """
        k, (low, high) = np.asarray(k, dtype=float), self.support
        y = self._natural(k)
        log_prob = self.columns.log_density(y)
        if self.is_log:
            log_prob = log_prob - LN_10 * y - math.log(LN_10)
        return np.where((k < low) | (k > high), -np.inf, log_prob + np.zeros_like(k))

    def truncate(self, low=None, high=None):
        """Cut the prior to a range.

        Parameters
        ----------
        low : float, default=None
            Smallest value left. If None, the prior's own.

        high : float, default=None
            Largest value left. If None, the prior's own.

        Returns
        -------
        prior : Prior
            With the same methods, and density zero outside the range.
        """
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
        k = np.asarray(k, dtype=float)
        if self.is_log:
            return np.log10(np.clip(k, max(low, 1e-300), high))
        return np.clip(k, low, high)

    @property
    def _called(self) -> str:
        return self._name or type(self).__name__

    def _arguments(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]

    def _set(self, **values) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __repr__(self):
        return f"{self._called}({', '.join(map(short, self._arguments().values()))})"

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
        given = [f"{name}={short(end)}" for name, end, own in ends if end != own]
        return f"{self.base!r}.truncate({', '.join(given)})"


def short(value) -> str:
    """Write a number without digits that say nothing."""
    return f"{value:.6g}" if isinstance(value, Real) else repr(value)
