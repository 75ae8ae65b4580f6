"""How one observable scatters around what the model says: the kinds of noise.

Each kind says, elementwise on tensors and twice differentiable by mean and arguments:

- ``log_prob``, the log density of a reading ``y``,
- ``weight``, the Fisher information of its mean, E[(d log_prob / d mean)²]: the curvature
  of Fisher scoring,
- ``residual``, a reading's deviation as if it were standard normal,
- ``sample`` and ``std``, readings as they would come and how far they scatter.

``error`` (per observable, or None) is the model's own: its square adds to the variance,
by a wider density of the same kind (for counts: by a beta or gamma mixture with it).
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any, ClassVar, TypeAlias

import numpy as np
import torch
from scipy import special
from torch import Tensor, distributions

__all__ = [
    "Binomial",
    "Laplace",
    "LogNormalNoise",
    "NegativeBinomial",
    "Noise",
    "NormalNoise",
    "Poisson",
    "StudentT",
]

# A number, a param's name, a function of the params, None (unknown), or a tuple of them.
Argument: TypeAlias = Any
Arguments: TypeAlias = tuple[Tensor, ...]

ROUND_OFF = 1e-9  # negative means this small, relative to the largest, count as zero
ERRORS = 5.0  # … and means that a model errs by so many of its own errors


@dataclass(frozen=True, repr=False)
class Noise:
    """A kind of noise, with its arguments as they were given."""

    label: ClassVar[str]
    nonnegative: ClassVar[bool] = False  # whether means (and readings) must be

    def __post_init__(self) -> None:
        """Check the arguments; arrays become tuples, so that noise equals by value."""
        for name in self.argument_names:
            object.__setattr__(self, name, self._entry(getattr(self, name), name))

    @property
    def argument_names(self) -> tuple[str, ...]:
        """Names of the arguments, in order."""
        return tuple(field.name for field in fields(self))

    @property
    def has_scale(self) -> bool:
        """Whether one argument is a scale, which `noise_std` can replace."""
        return "scale" in self.argument_names

    @property
    def name(self) -> str:
        """What users call this kind."""
        return type(self).__name__.removesuffix("Noise")

    def __repr__(self) -> str:
        values = [getattr(self, name) for name in self.argument_names]
        while values and values[-1] is None:
            values.pop()
        return f"{self.name}({', '.join(_show(value) for value in values)})"

    # -- elementwise, on tensors (n, n_times, n_channels) ---------------------------------

    def log_prob(
        self, y: Tensor, mean: Tensor, args: Arguments, error: Tensor | None = None
    ) -> Tensor:
        """Log density of readings; 0 where unread (NaN), -inf where impossible."""
        args = self._widened(args, error)
        level, inside = self._inside(mean, args, error)
        read = ~torch.isnan(y)
        # Double where: what is not used gets harmless values, so gradients stay finite.
        inside = inside & self._possible(y, level, args)
        y, level, args = self._harmless(inside & read, y, level, args)
        density = self._log_density(y, level, args, error)
        density = torch.where(inside, density, -torch.inf)
        return torch.where(read, density, 0.0)

    def weight(
        self, mean: Tensor, args: Arguments, error: Tensor | None = None
    ) -> Tensor:
        """Fisher information of the mean; 0 where the mean is outside or clamped."""
        args = self._widened(args, error)
        level, inside = self._inside(mean, args, error)
        inside = inside & (level == mean)  # what is clamped has no gradient
        if self.nonnegative:
            inside = inside & self._interior(level, args)
        _, level, args = self._harmless(inside, level, level, args)
        return torch.where(inside, self._information(level, args, error), 0.0)

    def residual(
        self, y: Tensor, mean: Tensor, args: Arguments, error: Tensor | None = None
    ) -> Tensor:
        """Standardized deviation; 0 where unread, inf where impossible."""
        args = self._widened(args, error)
        level, inside = self._inside(mean, args, error)
        read = ~torch.isnan(y)
        inside = inside & self._possible(y, level, args)
        y, level, args = self._harmless(inside & read, y, level, args)
        score = self._score(y, level, args, error)
        return torch.where(read, torch.where(inside, score, torch.inf), 0.0)

    def std(self, mean: Tensor, args: Arguments, error: Tensor | None = None) -> Tensor:
        """Return the standard deviation of readings."""
        level = mean.clamp(min=0) if self.nonnegative else mean
        variance = self._variance(level, args)
        if error is not None:
            variance = variance + error.square()
        return variance.sqrt().expand(
            torch.broadcast_shapes(variance.shape, mean.shape)
        )

    def sample(self, mean: Tensor, args: Arguments, generator: Any = None) -> Tensor:
        """Draw readings; NaN where the mean is not finite. No gradient."""
        raise NotImplementedError

    def stabilize(self, y: Any) -> Any:
        """Map readings to where their scatter is about uniform."""
        return y

    def restore(self, stable: Any) -> Any:
        """Undo `stabilize`."""
        return stable

    # -- on NumPy and text -----------------------------------------------------------------

    def refused(self, y: np.ndarray) -> tuple[np.ndarray, str]:
        """Return which readings this kind cannot give, and what must hold."""
        return np.zeros(y.shape, dtype=bool), ""

    def describe(self) -> str:
        """Say the kind and its arguments in words."""
        parts = [f"{name} {_tell(getattr(self, name))}" for name in self.argument_names]
        return ", ".join([self.label, *parts])

    # -- what each kind fills in -----------------------------------------------------------

    def _log_density(
        self, y: Tensor, level: Tensor, args: Arguments, error: Tensor | None
    ) -> Tensor:
        raise NotImplementedError

    def _information(
        self, level: Tensor, args: Arguments, error: Tensor | None
    ) -> Tensor:
        raise NotImplementedError

    def _variance(self, level: Tensor, args: Arguments) -> Tensor:
        raise NotImplementedError

    def _score(
        self, y: Tensor, level: Tensor, args: Arguments, error: Tensor | None
    ) -> Tensor:
        raise NotImplementedError

    def _widened(self, args: Arguments, error: Tensor | None) -> Arguments:
        return args

    def _possible(self, y: Tensor, level: Tensor, args: Arguments) -> Tensor:
        return torch.ones_like(level, dtype=torch.bool)

    def _interior(self, level: Tensor, args: Arguments) -> Tensor:
        return level > 0

    def _reference(self, level: Tensor, args: Arguments) -> Tensor:
        return level.detach().amax(dim=1, keepdim=True)

    # -- shared ----------------------------------------------------------------------------

    def _inside(
        self, mean: Tensor, args: Arguments, error: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return means with round-off below zero clamped, and where all can be used."""
        inside = torch.isfinite(mean)
        level = torch.where(inside, mean, 0.0)
        for value in args:
            inside = inside & (value > 0) & torch.isfinite(value)
        if not self.nonnegative:
            return level, inside
        floor = ROUND_OFF * self._reference(level, args).clamp(min=0)
        tolerance = floor
        if error is not None:
            tolerance = torch.maximum(floor, ERRORS * error)
        inside = inside & (level >= -tolerance)
        level = torch.where(level < 0, floor, level)
        if error is not None:  # no reading is impossible for a model that errs
            level = torch.where(level < 1e-6 * error, 1e-6 * error, level)
        return level, inside

    @staticmethod
    def _harmless(
        used: Tensor, y: Tensor, level: Tensor, args: Arguments
    ) -> tuple[Tensor, Tensor, Arguments]:
        return (
            torch.where(used, y, 1.0),
            torch.where(used, level, 0.5),
            tuple(torch.where(used, value, 1.0) for value in args),
        )

    def _entry(self, value: Any, name: str) -> Argument:
        """Check one argument, and make it immutable."""
        if isinstance(value, (list, tuple)) and any(map(_is_entry, value)):
            return tuple(self._entry(v, name) for v in value)
        if value is None and name != "scale":
            raise ValueError(
                f"The {name} of {self.name} noise must be given: a number, a param's name "
                "(then it is estimated) or a function of the params. Got None."
            )
        if _is_entry(value):
            return value
        try:
            if isinstance(value, (bool, np.bool_)):
                raise TypeError
            numbers = np.asarray(value, dtype=float)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"The {name} of {self.name} noise must be a number, an array of one per "
                "observable or per (time, observable), a param's name, a list with one of "
                f"these per observable, or a function of the params. Got {value!r}."
            ) from error
        if numbers.ndim > 2 or numbers.size == 0:
            raise ValueError(
                f"The {name} of {self.name} noise must have at most two dimensions, "
                f"(n_times, n_observables). Got shape {numbers.shape}."
            )
        wrong = ~np.isfinite(numbers) | (numbers <= 0)
        if wrong.any():
            raise ValueError(
                f"The {name} of {self.name} noise must be positive and finite. Got "
                f"{numbers[wrong].flat[0]}."
            )
        if numbers.ndim:
            return _as_tuple(numbers.tolist())
        return value if type(value) in (int, float) else numbers.item()


class _Located(Noise):
    """Kinds on the whole line with a scale: the model's error widens the scale."""

    def _scale_information(self, args: Arguments) -> Tensor | float:
        """Return the Fisher information of the mean at scale 1."""
        return 1.0

    def _widened(self, args: Arguments, error: Tensor | None) -> Arguments:
        if error is None:
            return args
        # Information c / s² becomes 1 / (s² / c + error²).
        added = self._scale_information(args) * error.square()
        return *args[:-1], (args[-1].square() + added).sqrt()

    def _information(
        self, level: Tensor, args: Arguments, error: Tensor | None
    ) -> Tensor:
        return self._scale_information(args) / args[-1].square()


@dataclass(frozen=True, repr=False)
class NormalNoise(_Located):
    """Normal noise with standard deviation ``scale`` (None: unknown, estimated)."""

    label = "normal"
    scale: Argument = None

    def describe(self) -> str:
        return f"normal, sd {_tell(self.scale)}"

    def _log_density(self, y, level, args, error):
        return distributions.Normal(level, *args, validate_args=False).log_prob(y)

    def _variance(self, level, args):
        return args[0].square()

    def _score(self, y, level, args, error):
        return (y - level) / args[0]

    @torch.no_grad()
    def sample(self, mean, args, generator=None):
        return mean + args[0] * _randn(mean, generator)


@dataclass(frozen=True, repr=False)
class StudentT(_Located):
    """Student's t, ``df`` degrees of freedom, times ``scale`` (None: unknown)."""

    label = "Student t"
    df: Argument
    scale: Argument = None

    def _scale_information(self, args):
        return (args[0] + 1) / (args[0] + 3)

    def _log_density(self, y, level, args, error):
        df, scale = args
        student = distributions.StudentT(df, level, scale, validate_args=False)
        return student.log_prob(y)

    def _variance(self, level, args):
        df, scale = args
        heavy = df <= 2  # no finite variance
        stretch = torch.where(heavy, 1.0, df / torch.where(heavy, 1.0, df - 2))
        return scale.square() * stretch

    def _score(self, y, level, args, error):
        df, z = args[0], (y - level) / args[1]
        # torch has no incomplete beta function; scores are read, not differentiated.
        tail = special.stdtr(df.detach().cpu().numpy(), -z.detach().abs().cpu().numpy())
        score = -special.ndtri(np.maximum(tail, np.finfo(float).tiny))
        return torch.sign(z) * torch.as_tensor(score).to(z)

    @torch.no_grad()
    def sample(self, mean, args, generator=None):
        df = args[0].expand(mean.shape).to(mean)
        chi2 = 2 * torch._standard_gamma(df / 2, generator=generator)
        ratio = _randn(mean, generator) / (chi2 / df).sqrt()
        return mean + args[1] * ratio


@dataclass(frozen=True, repr=False)
class Laplace(_Located):
    """Laplace noise, density exp(-abs(y - mean) / scale) / (2 scale) (None: unknown)."""

    label = "Laplace"
    scale: Argument = None

    def _log_density(self, y, level, args, error):
        return distributions.Laplace(level, *args, validate_args=False).log_prob(y)

    def _variance(self, level, args):
        return 2 * args[0].square()

    def _score(self, y, level, args, error):
        z = (y - level) / args[0]
        tail = (-z.abs().clamp(max=700)).exp() / 2
        return -torch.sign(z) * torch.special.ndtri(tail)

    @torch.no_grad()
    def sample(self, mean, args, generator=None):
        first, second = (
            torch.log1p(-torch.rand(mean.shape, generator=generator, **_like(mean)))
            for _ in range(2)
        )
        return mean + args[0] * (first - second)


@dataclass(frozen=True, repr=False)
class LogNormalNoise(Noise):
    """Log-normal noise: log y is normal around log mean, ``scale`` its deviation.

    What the model gives is thus the median of readings. None: unknown, estimated.
    """

    label = "log-normal"
    nonnegative = True
    scale: Argument = None

    def describe(self) -> str:
        return f"log-normal, sd of the log {_tell(self.scale)}"

    def _log_density(self, y, level, args, error):
        scale = self._total(level, args, error)
        normal = distributions.Normal(level.log(), scale, validate_args=False)
        return normal.log_prob(y.log()) - y.log()

    def _information(self, level, args, error):
        variance = self._total(level, args, error).square()
        information = 1 / (variance * level.square())
        if error is not None:  # the scale depends on the mean too
            relative = _relative(error, level).square() / variance
            information = information + 2 * (relative / level).square()
        return information

    def _variance(self, level, args):
        variance = args[0].square()
        return level.square() * torch.expm1(variance) * variance.exp()

    def _score(self, y, level, args, error):
        return (y / level).log() / self._total(level, args, error)

    def _total(self, level, args, error):
        if error is None:
            return args[0]
        return (args[0].square() + _relative(error, level).square()).sqrt()

    def _possible(self, y, level, args):
        return (y > 0) & (level > 0)

    @torch.no_grad()
    def sample(self, mean, args, generator=None):
        largest = mean.nan_to_num(0.0, 0.0, 0.0).amax(dim=1, keepdim=True)
        level = torch.where(mean <= 0, ROUND_OFF * largest.clamp(min=0), mean)
        return level * (args[0] * _randn(mean, generator)).exp()

    def stabilize(self, y):
        if isinstance(y, Tensor):
            return y.clamp(min=torch.finfo(y.dtype).tiny).log()
        return np.log(np.maximum(y, np.finfo(np.asarray(y).dtype).tiny))

    def restore(self, stable):
        return stable.exp() if isinstance(stable, Tensor) else np.exp(stable)

    def refused(self, y):
        return y <= 0, (
            "readings with log-normal noise must be positive. Leave out readings below "
            "what can be detected (NaN), or give this observable Normal noise"
        )


class _Counts(Noise):
    """Kinds whose readings are whole numbers and whose mean is the expected count."""

    nonnegative = True
    MUST = "counts must be whole numbers >= 0"

    def _information(self, level, args, error):
        variance = self._variance(level, args)
        return 1 / (variance if error is None else variance + error.square())

    def _score(self, y, level, args, error):
        variance = self._variance(level, args)
        if error is not None:
            variance = variance + error.square()
        return (y - level) / torch.where(variance > 0, variance, 1.0).sqrt()

    def _possible(self, y, level, args):
        return (y >= 0) & ((level > 0) | (y == 0))

    @torch.no_grad()
    def sample(self, mean, args, generator=None):
        finite = torch.isfinite(mean)
        level = torch.where(finite, mean, 0.0).clamp(min=0)
        return torch.where(finite, self._draw(level, args, generator), torch.nan)

    def stabilize(self, y):
        if isinstance(y, Tensor):
            return 2 * y.clamp(min=0).sqrt()
        return 2 * np.sqrt(np.maximum(y, 0))

    def restore(self, stable):
        if isinstance(stable, Tensor):
            return (stable.clamp(min=0) / 2).square()
        return np.square(np.maximum(stable, 0) / 2)

    def refused(self, y):
        wrong = (y < 0) | (y != np.floor(y))
        return wrong & ~np.isnan(y), f"{self.MUST} for {self.label} noise"


@dataclass(frozen=True, repr=False)
class Poisson(_Counts):
    """Counts of independent events: the variance is the mean."""

    label = "Poisson"

    def _log_density(self, y, level, args, error):
        if error is not None:
            return _negative_binomial(y, level, _relative(error, level).square())
        return _times_log(y, level) - level - torch.lgamma(y + 1)

    def _variance(self, level, args):
        return level

    def _draw(self, level, args, generator):
        return torch.poisson(level, generator=generator)


@dataclass(frozen=True, repr=False)
class NegativeBinomial(_Counts):
    """Counts that scatter more than Poisson's: variance mean + mean² / ``dispersion``."""

    label = "negative binomial"
    dispersion: Argument

    def _log_density(self, y, level, args, error):
        inverse = 1 / args[0]
        if error is not None:
            inverse = inverse + _relative(error, level).square()
        return _negative_binomial(y, level, inverse)

    def _variance(self, level, args):
        return level + level.square() / args[0]

    def _draw(self, level, args, generator):
        dispersion = args[0].expand(level.shape).to(level)
        gamma = torch._standard_gamma(dispersion, generator=generator)
        return torch.poisson(level * gamma / dispersion, generator=generator)


@dataclass(frozen=True, repr=False)
class Binomial(_Counts):
    """How many of ``total`` are seen; the observable is the expected count."""

    label = "binomial"
    total: Argument

    def __post_init__(self) -> None:
        """Check that the total is a whole number where it is one."""
        super().__post_init__()
        for total in np.ravel(np.asarray(self.total, dtype=object)):
            if isinstance(total, Real) and total != round(float(total)):
                raise ValueError(
                    f"The total of Binomial noise must be a whole number. Got {total}."
                )

    def _log_density(self, y, level, args, error):
        (total,) = args
        share = level / total
        choose = torch.lgamma(total + 1) - torch.lgamma(y + 1)
        choose = choose - torch.lgamma(total - y + 1)
        if error is None:
            missed = total - y
            no = missed * torch.log1p(-torch.where(missed > 0, share, 0.0))
            return choose + _times_log(y, share) + no
        # Beta-binomial: the share itself scatters by error / total.
        inside = share.clamp(max=1 - 1e-12)
        spread = (error / total).square().clamp(min=1e-30)
        concentration = inside * (1 - inside) / spread
        yes = _log_rising(inside * concentration, y)
        no = _log_rising((1 - inside) * concentration, total - y)
        return choose + yes + no - _log_rising(concentration, total)

    def _variance(self, level, args):
        return level * (1 - level / args[0]).clamp(min=0)

    def _reference(self, level, args):
        return args[0].detach()

    def _inside(self, mean, args, error):
        level, inside = super()._inside(mean, args, error)
        (total,) = args
        tolerance = ROUND_OFF * total
        if error is not None:
            tolerance = torch.maximum(tolerance, ERRORS * error)
        inside = inside & (mean <= total + tolerance)
        return torch.where(level > total, total, level), inside

    def _interior(self, level, args):
        return (level > 0) & (level < args[0])

    def _possible(self, y, level, args):
        (total,) = args
        possible = super()._possible(y, level, args) & (y <= total)
        return possible & ((level < total) | (y == total))

    def _draw(self, level, args, generator):
        total = args[0].expand(level.shape).to(level)
        share = (level / total).clamp(max=1)
        return torch.binomial(total, share, generator=generator)

    def refused(self, y):
        wrong, must = super().refused(y)
        if isinstance(self.total, (Real, tuple)):
            wrong = wrong | (y > np.asarray(self.total))
            must = f"{must} and at most its total"
        return wrong, must


def _negative_binomial(y: Tensor, mean: Tensor, inverse: Tensor) -> Tensor:
    """Log probability at mean and 1 / dispersion, which may be next to zero."""
    size = 1 / inverse.clamp(min=1e-14)
    density = (
        _log_rising(size, y) - torch.lgamma(y + 1) - size * torch.log1p(mean / size)
    )
    return density + _times_log(y, mean / (mean + size))


def _relative(error: Tensor, level: Tensor) -> Tensor:
    return error / level.clamp(min=torch.finfo(level.dtype).tiny)


def _times_log(y: Tensor, x: Tensor) -> Tensor:
    """Y log x, 0 (with a zero gradient) where y is 0."""
    return y * torch.where(y > 0, x, 1.0).log()


def _log_rising(x: Tensor, n: Tensor) -> Tensor:
    """Log Γ(x + n) - log Γ(x), by Stirling's series where the difference would cancel."""
    large = x > 1e3
    small_x = torch.where(large, 1.0, x)
    exact = torch.lgamma(small_x + n) - torch.lgamma(small_x)
    x = torch.where(large, x, 1e3)
    series = n * x.log() + (x + n - 0.5) * torch.log1p(n / x) - n
    series = series + (1 / (x + n) - 1 / x) / 12
    return torch.where(large, series, exact)


def _like(tensor: Tensor) -> dict[str, Any]:
    return {"dtype": tensor.dtype, "device": tensor.device}


def _randn(mean: Tensor, generator: Any) -> Tensor:
    return torch.randn(mean.shape, generator=generator, **_like(mean))


def _is_entry(value: Any) -> bool:
    return value is None or isinstance(value, (str, Callable))  # type: ignore[arg-type]


def _as_tuple(values: Any) -> Any:
    return tuple(map(_as_tuple, values)) if isinstance(values, list) else values


def _show(value: Argument) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_show, value))}]"
    return (
        getattr(value, "__qualname__", repr(value)) if callable(value) else repr(value)
    )


def _tell(value: Argument) -> str:
    """Say an argument in words."""
    if value is None:
        return "unknown (estimated)"
    if isinstance(value, str):
        return f"{value!r} (estimated)"
    if callable(value):
        return "a function of the params"
    if isinstance(value, tuple):
        if any(_is_entry(v) for v in value):
            return ", ".join(map(_tell, value))
        return f"{np.min(value):g} to {np.max(value):g}"
    return f"{value:g}"
