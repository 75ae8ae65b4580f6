"""How readings scatter around a mean: the mathematics of each kind of noise.

All on tensors (n, n_times, n_channels), elementwise, twice differentiable. The model's own
``error`` adds its square to the variance by a wider density: of the same law, or for counts
of their mixture over means that are gamma or beta distributed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from scipy import special
from torch import Generator, Tensor, distributions

__all__ = [
    "BINOMIAL",
    "LAPLACE",
    "LOG_NORMAL",
    "NEGATIVE_BINOMIAL",
    "NORMAL",
    "POISSON",
    "STUDENT_T",
    "Arguments",
    "Law",
]

Arguments: TypeAlias = tuple[Tensor, ...]  # each broadcasts to the means

ROUND_OFF = 1e-9  # of the largest mean: what is no more below zero counts as zero
ERRORS = 5.0  # … as do so many of the model's errors


class At(NamedTuple):
    """Where a density is asked for."""

    mean: Tensor
    args: Arguments
    error: Tensor | None


def _total_variance(law: "Law", at: At) -> Tensor:
    variance = law.variance(at)
    return variance if at.error is None else variance + at.error.square()


def _information(law: "Law", at: At) -> Tensor:
    if law.located is not None:
        return law.located(*at.args) / at.args[-1].square()
    return 1 / _total_variance(law, at)


def _pearson(law: "Law", y: Tensor, at: At) -> Tensor:
    variance = _total_variance(law, at)
    return (y - at.mean) / torch.where(variance > 0, variance, 1.0).sqrt()


@dataclass(frozen=True)
class Law:
    """What differs between kinds, and what is done alike for all."""

    density: Callable[[Tensor, At], Tensor]
    variance: Callable[[At], Tensor]
    draw: Callable[[Tensor, Arguments, Generator | None], Tensor]
    # Where the mean only shifts readings: its information at scale 1, by the arguments.
    located: Callable[..., Tensor | float] | None = None
    nonnegative: bool = False  # whether means are
    capped: bool = False  # whether they are at most the first argument
    possible: Callable[[Tensor, At], Tensor] | None = None  # which y
    score: Callable[["Law", Tensor, At], Tensor] = _pearson
    information: Callable[["Law", At], Tensor] = _information
    stabilize: Callable[[Tensor], Tensor] = torch.clone
    restore: Callable[[Tensor], Tensor] = torch.clone

    def log_prob(self, mean: Tensor, args: Arguments, error: Any, y: Tensor) -> Tensor:
        """Log density of readings: 0 where unread (NaN), -inf where impossible."""
        y, at, inside, read = self._read(mean, args, error, y)
        density = torch.where(inside, self.density(y, at), -torch.inf)
        return torch.where(read, density, 0.0)

    def residual(self, mean: Tensor, args: Arguments, error: Any, y: Tensor) -> Tensor:
        """Standardized deviation of readings: 0 where unread, inf where impossible."""
        y, at, inside, read = self._read(mean, args, error, y)
        score = torch.where(inside, self.score(self, y, at), torch.inf)
        return torch.where(read, score, 0.0)

    def weight(self, mean: Tensor, args: Arguments, error: Any) -> Tensor:
        """Fisher information of the mean; 0 where the mean is impossible or clamped."""
        at, inside = self._inside(mean, args, error)
        inside = inside & (at.mean == mean)
        if self.nonnegative:
            inside = inside & (mean > 0)
        if self.capped:
            inside = inside & (mean < args[0])
        at = at._replace(mean=torch.where(inside, at.mean, 0.5))
        return torch.where(inside, self.information(self, at), 0.0)

    def std(self, mean: Tensor, args: Arguments, error: Any) -> Tensor:
        """Return the standard deviation of readings."""
        level = mean.clamp(min=0) if self.nonnegative else mean
        variance = _total_variance(self, At(level, args, error))
        return variance.sqrt() + torch.zeros_like(mean)

    @torch.no_grad()
    def sample(self, mean: Tensor, args: Arguments, generator: Any) -> Tensor:
        """Draw readings; NaN where the mean is not finite."""
        finite = torch.isfinite(mean)
        level = torch.where(finite, mean, 0.0)
        if self.nonnegative:
            level = level.clamp(min=0)
        return torch.where(finite, self.draw(level, args, generator), torch.nan)

    def _read(
        self, mean: Tensor, args: Arguments, error: Any, y: Tensor
    ) -> tuple[Tensor, At, Tensor, Tensor]:
        """Return what densities are asked at, where they are wanted and what was read."""
        read = ~torch.isnan(y)
        at, inside = self._inside(mean, args, error)
        if self.possible is not None:
            inside = inside & self.possible(y, at)
        # Double where: what is not used is made harmless, so that gradients stay finite.
        used = inside & read
        at = at._replace(mean=torch.where(used, at.mean, 0.5))
        return torch.where(used, y, 1.0), at, inside, read

    def _inside(self, mean: Tensor, args: Arguments, error: Any) -> tuple[At, Tensor]:
        """Clamp means that round-off puts outside; return where all can be used."""
        inside = torch.isfinite(mean)
        mean = torch.where(inside, mean, 0.0)
        valid = [(value > 0) & torch.isfinite(value) for value in args]
        for ok in valid:
            inside = inside & ok
        args = tuple(torch.where(ok, value, 1.0) for ok, value in zip(valid, args))
        if error is not None and self.located is not None:
            # Information c / scale² becomes 1 / (scale² / c + error²).
            added = self.located(*args) * error.square()
            args, error = (*args[:-1], (args[-1].square() + added).sqrt()), None
        if self.nonnegative:
            largest = mean.detach().amax(dim=1, keepdim=True).clamp(min=0)
            slack = floor = ROUND_OFF * (args[0].detach() if self.capped else largest)
            low = mean < 0
            if error is not None:  # for a model that errs no reading is impossible
                slack = torch.maximum(slack, ERRORS * error)
                floor = torch.maximum(floor, 1e-6 * error)
                low = mean < 1e-6 * error
            inside = inside & (mean >= -slack)
            if self.capped:
                inside = inside & (mean <= args[0] + slack)
                mean = torch.where(mean > args[0], args[0], mean)
            mean = torch.where(low, floor, mean)
        return At(mean, args, error), inside


def _relative(at: At) -> Tensor | float:
    """Variance of the model's own error relative to the mean."""
    if at.error is None:
        return 0.0
    return (at.error / at.mean.clamp(min=torch.finfo(at.mean.dtype).tiny)).square()


def _randn(like: Tensor, generator: Generator | None) -> Tensor:
    options: dict[str, Any] = {"dtype": like.dtype, "device": like.device}
    return torch.randn(like.shape, generator=generator, **options)


# -- with a scale --------------------------------------------------------------------------


def _student_variance(at: At) -> Tensor:
    df, scale = at.args
    heavy = df <= 2  # without a variance: the scale
    return scale.square() * torch.where(
        heavy, 1.0, df / torch.where(heavy, 1.0, df - 2)
    )


def _student_score(law: Law, y: Tensor, at: At) -> Tensor:
    # torch has no incomplete beta function; scores are read, not differentiated.
    df, z = at.args[0].detach(), ((y - at.mean) / at.args[1]).detach()
    tail = special.stdtr(df.cpu().numpy(), -z.abs().cpu().numpy())
    score = special.ndtri(np.maximum(tail, np.finfo(float).tiny))
    return -torch.sign(z) * torch.as_tensor(score).to(z)


def _student_draw(mean: Tensor, args: Arguments, generator: Generator | None) -> Tensor:
    half = args[0].expand_as(mean) / 2
    gamma = torch._standard_gamma(half, generator=generator)
    return mean + args[1] * _randn(mean, generator) * (half / gamma).sqrt()


def _laplace_score(law: Law, y: Tensor, at: At) -> Tensor:
    z = (y - at.mean) / at.args[0]
    return -torch.sign(z) * torch.special.ndtri((-z.abs().clamp(max=700)).exp() / 2)


def _laplace_draw(mean: Tensor, args: Arguments, generator: Generator | None) -> Tensor:
    options: dict[str, Any] = {"dtype": mean.dtype, "device": mean.device}
    first, second = torch.rand((2, *mean.shape), generator=generator, **options)
    return mean + args[0] * (torch.log1p(-first) - torch.log1p(-second))


def _log_normal_density(y: Tensor, at: At) -> Tensor:
    scale = (at.args[0].square() + _relative(at)).sqrt()
    normal = distributions.Normal(at.mean.log(), scale, validate_args=False)
    return normal.log_prob(y.log()) - y.log()


def _log_normal_information(law: Law, at: At) -> Tensor:
    relative = _relative(at)
    variance = at.args[0].square() + relative
    # With an error, the scale of log y changes with the mean too.
    return (1 / variance + 2 * (relative / variance).square()) / at.mean.square()


def _log_normal_draw(
    mean: Tensor, args: Arguments, generator: Generator | None
) -> Tensor:
    floor = ROUND_OFF * mean.amax(dim=1, keepdim=True)
    level = torch.where(mean > 0, mean, floor)
    return level * (args[0] * _randn(mean, generator)).exp()


NORMAL = Law(
    density=lambda y, at: distributions.Normal(
        at.mean, at.args[0], validate_args=False
    ).log_prob(y),
    variance=lambda at: at.args[0].square(),
    draw=lambda mean, args, generator: mean + args[0] * _randn(mean, generator),
    located=lambda scale: 1.0,
)
STUDENT_T = Law(
    density=lambda y, at: distributions.StudentT(
        at.args[0], at.mean, at.args[1], validate_args=False
    ).log_prob(y),
    variance=_student_variance,
    draw=_student_draw,
    located=lambda df, scale: (df + 1) / (df + 3),
    score=_student_score,
)
LAPLACE = Law(
    density=lambda y, at: distributions.Laplace(
        at.mean, at.args[0], validate_args=False
    ).log_prob(y),
    variance=lambda at: 2 * at.args[0].square(),
    draw=_laplace_draw,
    located=lambda scale: 1.0,
    score=_laplace_score,
)
LOG_NORMAL = Law(
    density=_log_normal_density,
    variance=lambda at: (
        at.mean.square() * at.args[0].square().expm1() * at.args[0].square().exp()
    ),
    draw=_log_normal_draw,
    nonnegative=True,
    possible=lambda y, at: (y > 0) & (at.mean > 0),
    score=lambda law, y, at: (
        (y / at.mean).log() / (at.args[0].square() + _relative(at)).sqrt()
    ),
    information=_log_normal_information,
    stabilize=lambda y: y.clamp(min=torch.finfo(y.dtype).tiny).log(),
    restore=torch.exp,
)


# -- counts --------------------------------------------------------------------------------


def _times_log(y: Tensor, x: Tensor) -> Tensor:
    """Return y log x, which is 0 (and flat in x) where y is 0."""
    return y * torch.where(y > 0, x, 1.0).log()


def _log_rising(x: Tensor, n: Tensor) -> Tensor:
    """Log Γ(x + n) - log Γ(x), by Stirling's series where the difference would cancel."""
    large = x > 1e3
    small_x, x = torch.where(large, 1.0, x), torch.where(large, x, 1e3)
    exact = torch.lgamma(small_x + n) - torch.lgamma(small_x)
    series = n * x.log() + (x + n - 0.5) * torch.log1p(n / x) - n
    return torch.where(large, series + (1 / (x + n) - 1 / x) / 12, exact)


def _poisson_density(y: Tensor, at: At) -> Tensor:
    if at.error is not None:
        return _negative_binomial_density(
            y, at._replace(args=(at.mean.new_tensor(1e14),))
        )
    return _times_log(y, at.mean) - at.mean - torch.lgamma(y + 1)


def _negative_binomial_density(y: Tensor, at: At) -> Tensor:
    size = 1 / (1 / at.args[0] + _relative(at))
    density = _log_rising(size, y) - torch.lgamma(y + 1)
    density = density - size * torch.log1p(at.mean / size)
    return density + _times_log(y, at.mean / (at.mean + size))


def _negative_binomial_draw(
    mean: Tensor, args: Arguments, generator: Generator | None
) -> Tensor:
    dispersion = args[0].expand_as(mean)
    gamma = torch._standard_gamma(dispersion, generator=generator)
    return torch.poisson(mean * gamma / dispersion, generator=generator)


def _binomial_density(y: Tensor, at: At) -> Tensor:
    (total,) = at.args
    share, missed = at.mean / total, total - y
    choose = torch.lgamma(total + 1) - torch.lgamma(y + 1) - torch.lgamma(missed + 1)
    if at.error is None:
        log_miss = torch.log1p(-torch.where(missed > 0, share, 0.0))
        return choose + _times_log(y, share) + missed * log_miss
    # Beta-binomial: the share itself has the variance (error / total)².
    share = share.clamp(max=1 - 1e-12)
    size = share * (1 - share) / (at.error / total).square().clamp(min=1e-30)
    density = choose + _log_rising(share * size, y) - _log_rising(size, total)
    return density + _log_rising((1 - share) * size, missed)


def _binomial_draw(
    mean: Tensor, args: Arguments, generator: Generator | None
) -> Tensor:
    total = args[0].expand_as(mean)
    return torch.binomial(total, (mean / total).clamp(max=1), generator=generator)


def _is_count(y: Tensor, at: At) -> Tensor:
    return (y >= 0) & ((at.mean > 0) | (y == 0))


def _is_share(y: Tensor, at: At) -> Tensor:
    possible = _is_count(y, at) & (y <= at.args[0])
    if at.error is None:
        possible = possible & ((at.mean < at.args[0]) | (y == at.args[0]))
    return possible


COUNTS: dict[str, Any] = {
    "nonnegative": True,
    "stabilize": lambda y: 2 * y.clamp(min=0).sqrt(),
    "restore": lambda stable: (stable.clamp(min=0) / 2).square(),
}
POISSON = Law(
    density=_poisson_density,
    variance=lambda at: at.mean,
    draw=lambda mean, args, generator: torch.poisson(mean, generator=generator),
    possible=_is_count,
    **COUNTS,
)
NEGATIVE_BINOMIAL = Law(
    density=_negative_binomial_density,
    variance=lambda at: at.mean + at.mean.square() / at.args[0],
    draw=_negative_binomial_draw,
    possible=_is_count,
    **COUNTS,
)
BINOMIAL = Law(
    density=_binomial_density,
    variance=lambda at: at.mean * (1 - at.mean / at.args[0]).clamp(min=0),
    draw=_binomial_draw,
    capped=True,
    possible=_is_share,
    **COUNTS,
)
