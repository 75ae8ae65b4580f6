"""The kinds of noise as users write them: which law, with which arguments."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, ClassVar, TypeAlias

import numpy as np

from sklearn_inverse.probability import _noise_laws as laws

__all__ = [
    "Argument",
    "Binomial",
    "Laplace",
    "LogNormalNoise",
    "NegativeBinomial",
    "Noise",
    "NormalNoise",
    "Poisson",
    "StudentT",
    "is_open",
]

# A number, a param's name, a function of params, None (unknown), or a tuple of these.
Argument: TypeAlias = Any


@dataclass(frozen=True, repr=False)
class Noise:
    """How an observable scatters. Arguments are kept as tuples: equal by value."""

    law: ClassVar[laws.Law]
    _label: ClassVar[str]
    _scale_label: ClassVar[str] = "scale"
    _must: ClassVar[str] = ""  # what readings must be

    def __post_init__(self) -> None:
        """Check the arguments."""
        for name, value in self._arguments().items():
            object.__setattr__(self, name, self._checked(value, name))

    def __repr__(self) -> str:
        values = list(self._arguments().values())
        if values and values[-1] is None:
            values.pop()
        return f"{self._name()}({', '.join(map(_show, values))})"

    def _name(self) -> str:
        return type(self).__name__.removesuffix("Noise")

    def _arguments(self) -> dict[str, Argument]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def _change(self, change: Callable[[Argument, str], Argument]) -> "Noise":
        return replace(self, **{n: change(v, n) for n, v in self._arguments().items()})

    def _spread(self, n_channels: int) -> list["Noise"]:
        """Return the noise of each observable, arguments taken apart."""
        entry = partial(_entry, n_channels=n_channels)
        return [self._change(partial(entry, channel=c)) for c in range(n_channels)]

    def _describe(self) -> str:
        """Say the noise in words."""
        parts = [
            f"{self._scale_label if name == 'scale' else name} {_tell(value)}"
            for name, value in self._arguments().items()
        ]
        return ", ".join([self._label, *parts])

    def _refused(self, y: np.ndarray) -> np.ndarray:
        """Return which readings cannot come with this noise."""
        return np.zeros(y.shape, dtype=bool)

    def _checked(self, value: Any, name: str) -> Argument:
        """Check one argument, and make it immutable."""
        if isinstance(value, (list, tuple)) and any(map(is_open, value)):
            return tuple(self._checked(v, name) for v in value)
        what = f"The {name} of {self._name()} noise"
        if value is None and name != "scale":
            raise ValueError(
                f"{what} must be given: a number, a param's name (then it is estimated) or "
                "a function of the params. Got None."
            )
        if is_open(value):
            return value
        try:
            numbers = np.asarray(value, dtype=float)
        except (TypeError, ValueError):
            numbers = np.zeros(0)
        if numbers.size == 0 or numbers.ndim > 2 or isinstance(value, (bool, np.bool_)):
            raise TypeError(
                f"{what} must be a number, an array broadcastable to (n_times, "
                "n_observables), a param's name, a function of the params, or a list with "
                f"one of these per observable. Got {value!r}."
            )
        wrong = numbers[~(np.isfinite(numbers) & (numbers > 0))]
        if wrong.size:
            raise ValueError(f"{what} must be positive and finite. Got {wrong[0]}.")
        if numbers.ndim:
            return _as_tuple(numbers.tolist())
        return value if type(value) in (int, float) else numbers.item()


@dataclass(frozen=True, repr=False)
class NormalNoise(Noise):
    """Normal noise with standard deviation ``scale``; written ``Normal(scale)``."""

    law = laws.NORMAL
    _label, _scale_label = "normal", "sd"
    scale: Argument = None


@dataclass(frozen=True, repr=False)
class LogNormalNoise(Noise):
    """Log-normal noise; written ``LogNormal(scale)``.

    The log of readings is normal with standard deviation ``scale`` around the log of what
    the model gives, which is thus the median of readings.
    """

    law = laws.LOG_NORMAL
    _label, _scale_label = "log-normal", "sd"
    _must = (
        "readings with log-normal noise must be positive. Leave out (NaN) what is below "
        "detection, or give this observable Normal noise"
    )
    scale: Argument = None

    def _refused(self, y: np.ndarray) -> np.ndarray:
        return y <= 0


@dataclass(frozen=True, repr=False)
class StudentT(Noise):
    """Student's t noise around the mean, for readings with outliers.

    Parameters
    ----------
    df : float, str, array-like or callable
        Degrees of freedom: a number, a param's name (then it is estimated), a list of
        these by observable, or a function of the params.

    scale : float, str, array-like or callable, default=None
        What the deviation is multiplied with; its standard deviation is larger. If None,
        unknown, and estimated.

    Examples
    --------
    >>> from sklearn_inverse.probability import StudentT
    >>> StudentT(4, "sigma")
    StudentT(4, 'sigma')
    """

    law = laws.STUDENT_T
    _label = "Student t"
    df: Argument
    scale: Argument = None


@dataclass(frozen=True, repr=False)
class Laplace(Noise):
    """Laplace noise: its density falls exponentially on both sides.

    Parameters
    ----------
    scale : float, str, array-like or callable, default=None
        Mean absolute deviation: a number, a param's name (then it is estimated), a list
        of these by observable, or a function of the params. If None, unknown, and
        estimated.

    Examples
    --------
    >>> from sklearn_inverse.probability import Laplace
    >>> Laplace(0.1)
    Laplace(0.1)
    """

    law = laws.LAPLACE
    _label = "Laplace"
    scale: Argument = None


class _Counts(Noise):
    def _refused(self, y: np.ndarray) -> np.ndarray:
        return ~np.isnan(y) & ((y < 0) | (y != np.floor(y)))


@dataclass(frozen=True, repr=False)
class Poisson(_Counts):
    """Counts of independent events, whose variance is their mean.

    Examples
    --------
    >>> from sklearn_inverse.probability import Poisson
    >>> Poisson()
    Poisson()
    """

    law = laws.POISSON
    _label = "Poisson"
    _must = "counts must be whole numbers >= 0"


@dataclass(frozen=True, repr=False)
class NegativeBinomial(_Counts):
    """Counts that scatter more than Poisson's: variance mean + mean² / dispersion.

    Parameters
    ----------
    dispersion : float, str, array-like or callable
        The smaller, the more counts scatter: a number, a param's name (then it is
        estimated), a list of these by observable, or a function of the params.

    Examples
    --------
    >>> from sklearn_inverse.probability import NegativeBinomial
    >>> NegativeBinomial("dispersion")
    NegativeBinomial('dispersion')
    """

    law = laws.NEGATIVE_BINOMIAL
    _label = "negative binomial"
    _must = "counts must be whole numbers >= 0"
    dispersion: Argument


@dataclass(frozen=True, repr=False)
class Binomial(_Counts):
    """How many of a total are counted; the observable is the expected count.

    Parameters
    ----------
    total : int, str, array-like or callable
        How many there are: a number, a list of them by observable, an array (n_times,
        n_observables), a param's name, or a function of the params.

    Examples
    --------
    >>> from sklearn_inverse.probability import Binomial
    >>> Binomial(1000)
    Binomial(1000)
    """

    law = laws.BINOMIAL
    _label = "binomial"
    _must = "counts must be whole numbers >= 0, at most the total of Binomial noise"
    total: Argument

    def _checked(self, value: Any, name: str) -> Argument:
        value = super()._checked(value, name)
        for total in np.ravel(np.asarray(value, dtype=object)):
            if isinstance(total, float) and not total.is_integer():
                raise ValueError(
                    f"The total of Binomial noise must be whole. Got {total}."
                )
        return value

    def _refused(self, y: np.ndarray) -> np.ndarray:
        known = not is_open(self.total)
        return super()._refused(y) | (y > np.asarray(self.total) if known else False)


def is_open(value: Argument) -> bool:
    """Whether an argument is no number yet."""
    return value is None or isinstance(value, str) or callable(value)


def _entry(value: Argument, name: str, channel: int, n_channels: int) -> Argument:
    if not isinstance(value, tuple):
        return value
    if n_channels == 1 and not any(is_open(v) or isinstance(v, tuple) for v in value):
        value = tuple((v,) for v in value)  # over the times
    rows = value if isinstance(value[0], tuple) else (value,)
    if len(rows[0]) not in (1, n_channels):
        raise ValueError(
            f"The {name} of noise must have one entry for each of {n_channels} "
            f"observables. Got {len(rows[0])}."
        )
    column = tuple(row[channel % len(row)] for row in rows)
    return column if len(column) > 1 else column[0]


def _as_tuple(values: Any) -> Any:
    return tuple(map(_as_tuple, values)) if isinstance(values, list) else values


def _show(value: Argument) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_show, value))}]"
    return getattr(value, "__qualname__", repr(value))


def _tell(value: Argument) -> str:
    """Say an argument in words."""
    if value is None:
        return "unknown (estimated)"
    if isinstance(value, str):
        return f"{value!r} (estimated)"
    if callable(value):
        return "a function of params"
    if isinstance(value, tuple):
        if any(map(is_open, value)):
            return f"[{', '.join(map(_tell, value))}]"
        return f"{np.min(value):g} to {np.max(value):g}"
    return f"{value:g}"
