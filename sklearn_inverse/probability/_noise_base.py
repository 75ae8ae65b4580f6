"""What all kinds of noise share: arguments as users write them, care at the edges.

Tensors have shape (n, n_times, n_channels). Densities are elementwise and twice
differentiable. The model's own ``error`` adds its square to the variance by a wider
density: of the same kind, or for counts of their mixture over means that are gamma or
beta distributed.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, ClassVar, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

__all__ = ["ROUND_OFF", "Argument", "Arguments", "At", "Noise", "is_open"]

# A number, a param's name, a function of params, None (unknown), or a tuple of these.
Argument: TypeAlias = Any
Arguments: TypeAlias = tuple[Tensor, ...]  # each broadcasts to the means

ROUND_OFF = 1e-9  # of the largest mean: what is no more below zero counts as zero
ERRORS = 5.0  # … as do so many of the model's errors


class At(NamedTuple):
    """Where a density is asked for."""

    mean: Tensor
    args: Arguments
    error: Tensor | None


@dataclass(frozen=True, repr=False)
class Noise:
    """How an observable scatters. Arguments are kept as tuples: equal by value."""

    _label: ClassVar[str]
    _scale_label: ClassVar[str] = "scale"
    _must: ClassVar[str] = ""  # what readings must be
    _density: ClassVar[Any]  # of y and At
    _variance: ClassVar[Any]  # of At
    _draw: ClassVar[Any]  # of mean, args and generator
    # Where the mean only shifts readings: its information at scale 1, by the arguments.
    _located: ClassVar[Any] = None
    _nonnegative: ClassVar[bool] = False  # whether means are
    _capped: ClassVar[bool] = False  # whether they are at most the first argument
    _possible: ClassVar[Any] = None  # which y
    _stabilize: ClassVar[Any] = torch.clone
    _restore: ClassVar[Any] = torch.clone

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

    def _describe(self, others: Sequence["Noise"] = ()) -> str:
        """Say the noise in words, or that of several of one kind."""
        parts = []
        for name, value in self._arguments().items():
            given = (getattr(other, name) for other in others)
            parts_of = (v if isinstance(v, tuple) else (v,) for v in given)
            several = tuple(dict.fromkeys(itertools.chain.from_iterable(parts_of)))
            told = _tell(several if len(several) > 1 else value)
            parts.append(f"{self._scale_label if name == 'scale' else name} {told}")
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

    @classmethod
    def _score(cls, y: Tensor, at: At) -> Tensor:
        variance = cls._total_variance(at)
        return (y - at.mean) / torch.where(variance > 0, variance, 1.0).sqrt()

    @classmethod
    def _information(cls, at: At) -> Tensor:
        if cls._located is not None:
            return cls._located(*at.args) / at.args[-1].square()
        return 1 / cls._total_variance(at)

    @classmethod
    def _total_variance(cls, at: At) -> Tensor:
        variance = cls._variance(at)
        return variance if at.error is None else variance + at.error.square()

    @classmethod
    def _log_prob(cls, mean: Tensor, args: Arguments, error: Any, y: Tensor) -> Tensor:
        """Log density of readings: 0 where unread (NaN), -inf where impossible."""
        y, at, inside, read = cls._read(mean, args, error, y)
        density = torch.where(inside, cls._density(y, at), -torch.inf)
        return torch.where(read, density, 0.0)

    @classmethod
    def _residual(cls, mean: Tensor, args: Arguments, error: Any, y: Tensor) -> Tensor:
        """Standardized deviation of readings: 0 where unread, inf where impossible."""
        y, at, inside, read = cls._read(mean, args, error, y)
        score = torch.where(inside, cls._score(y, at), torch.inf)
        return torch.where(read, score, 0.0)

    @classmethod
    def _weight(cls, mean: Tensor, args: Arguments, error: Any) -> Tensor:
        """Fisher information of the mean; 0 where the mean is impossible or clamped."""
        at, inside = cls._inside(mean, args, error)
        inside = inside & (at.mean == mean)
        if cls._nonnegative:
            inside = inside & (mean > 0)
        if cls._capped:
            inside = inside & (mean < args[0])
        at = at._replace(mean=torch.where(inside, at.mean, 0.5))
        return torch.where(inside, cls._information(at), 0.0)

    @classmethod
    def _std(cls, mean: Tensor, args: Arguments, error: Any) -> Tensor:
        """Return the standard deviation of readings."""
        level = mean.clamp(min=0) if cls._nonnegative else mean
        variance = cls._total_variance(At(level, args, error))
        return variance.sqrt() + torch.zeros_like(mean)

    @classmethod
    @torch.no_grad()
    def _sample(cls, mean: Tensor, args: Arguments, generator: Any) -> Tensor:
        """Draw readings; NaN where the mean is not finite."""
        finite = torch.isfinite(mean)
        level = torch.where(finite, mean, 0.0)
        if cls._nonnegative:
            level = level.clamp(min=0)
        return torch.where(finite, cls._draw(level, args, generator), torch.nan)

    @classmethod
    def _read(
        cls, mean: Tensor, args: Arguments, error: Any, y: Tensor
    ) -> tuple[Tensor, At, Tensor, Tensor]:
        """Return what densities are asked at, where they are wanted and what was read."""
        read = ~torch.isnan(y)
        at, inside = cls._inside(mean, args, error)
        if cls._possible is not None:
            inside = inside & cls._possible(y, at)
        # Double where: what is not used is made harmless, so that gradients stay finite.
        used = inside & read
        at = at._replace(mean=torch.where(used, at.mean, 0.5))
        return torch.where(used, y, 1.0), at, inside, read

    @classmethod
    def _inside(cls, mean: Tensor, args: Arguments, error: Any) -> tuple[At, Tensor]:
        """Clamp means that round-off puts outside; return where all can be used."""
        inside = torch.isfinite(mean)
        mean = torch.where(inside, mean, 0.0)
        valid = [(value > 0) & torch.isfinite(value) for value in args]
        for ok in valid:
            inside = inside & ok
        args = tuple(torch.where(ok, value, 1.0) for ok, value in zip(valid, args))
        if error is not None and cls._located is not None:
            # Information c / scale² becomes 1 / (scale² / c + error²).
            added = cls._located(*args) * error.square()
            args, error = (*args[:-1], (args[-1].square() + added).sqrt()), None
        if cls._nonnegative:
            largest = mean.detach().amax(dim=1, keepdim=True).clamp(min=0)
            slack = floor = ROUND_OFF * (args[0].detach() if cls._capped else largest)
            low = mean < 0
            if error is not None:  # for a model that errs no reading is impossible
                slack = torch.maximum(slack, ERRORS * error)
                floor = torch.maximum(floor, 1e-6 * error)
                low = mean < 1e-6 * error
            inside = inside & (mean >= -slack)
            if cls._capped:
                inside = inside & (mean <= args[0] + slack)
                mean = torch.where(mean > args[0], args[0], mean)
            mean = torch.where(low, floor, mean)
        return At(mean, args, error), inside


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
