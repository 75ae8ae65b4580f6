"""The kinds of noise as users write them, and how readings scatter around a mean."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import special
from torch import Generator, Tensor, distributions

from sklearn_inverse.probability._noise_base import (
    ROUND_OFF,
    Argument,
    Arguments,
    At,
    Noise,
    is_open,
)

__all__ = [
    "Binomial",
    "Laplace",
    "LogNormalNoise",
    "NegativeBinomial",
    "NormalNoise",
    "Poisson",
    "StudentT",
]


def _relative(at: At) -> Tensor | float:
    """Variance of the model's own error relative to the mean."""
    if at.error is None:
        return 0.0
    return (at.error / at.mean.clamp(min=torch.finfo(at.mean.dtype).tiny)).square()


def _randn(like: Tensor, generator: Generator | None) -> Tensor:
    options: dict[str, Any] = {"dtype": like.dtype, "device": like.device}
    return torch.randn(like.shape, generator=generator, **options)


def _student_variance(at: At) -> Tensor:
    df, scale = at.args
    heavy = df <= 2  # without a variance: the scale
    return scale.square() * torch.where(
        heavy, 1.0, df / torch.where(heavy, 1.0, df - 2)
    )


def _student_score(y: Tensor, at: At) -> Tensor:
    # torch has no incomplete beta function; scores are read, not differentiated.
    df, z = at.args[0].detach(), ((y - at.mean) / at.args[1]).detach()
    tail = special.stdtr(df.cpu().numpy(), -z.abs().cpu().numpy())
    score = special.ndtri(np.maximum(tail, np.finfo(float).tiny))
    return -torch.sign(z) * torch.as_tensor(score).to(z)


def _student_draw(mean: Tensor, args: Arguments, generator: Generator | None) -> Tensor:
    half = args[0].expand_as(mean) / 2
    gamma = torch._standard_gamma(half, generator=generator)
    return mean + args[1] * _randn(mean, generator) * (half / gamma).sqrt()


def _laplace_score(y: Tensor, at: At) -> Tensor:
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


def _log_normal_information(at: At) -> Tensor:
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


@dataclass(frozen=True, repr=False)
class NormalNoise(Noise):
    """Normal noise with standard deviation ``scale``; written ``Normal(scale)``."""

    _density = staticmethod(
        lambda y, at: distributions.Normal(
            at.mean, at.args[0], validate_args=False
        ).log_prob(y)
    )
    _variance = staticmethod(lambda at: at.args[0].square())
    _draw = staticmethod(
        lambda mean, args, generator: mean + args[0] * _randn(mean, generator)
    )
    _located = staticmethod(lambda scale: 1.0)
    _label, _scale_label = "normal", "sd"
    scale: Argument = None


@dataclass(frozen=True, repr=False)
class LogNormalNoise(Noise):
    """Log-normal noise; written ``LogNormal(scale)``.

    The log of readings is normal with standard deviation ``scale`` around the log of what
    the model gives, which is thus the median of readings.
    """

    _density = staticmethod(_log_normal_density)
    _variance = staticmethod(
        lambda at: (
            at.mean.square() * at.args[0].square().expm1() * at.args[0].square().exp()
        )
    )
    _draw = staticmethod(_log_normal_draw)
    _nonnegative = True
    _possible = staticmethod(lambda y, at: (y > 0) & (at.mean > 0))
    _score = staticmethod(
        lambda y, at: (y / at.mean).log() / (at.args[0].square() + _relative(at)).sqrt()
    )
    _information = staticmethod(_log_normal_information)
    _stabilize = staticmethod(lambda y: y.clamp(min=torch.finfo(y.dtype).tiny).log())
    _restore = staticmethod(torch.exp)
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

    _density = staticmethod(
        lambda y, at: distributions.StudentT(
            at.args[0], at.mean, at.args[1], validate_args=False
        ).log_prob(y)
    )
    _variance = staticmethod(_student_variance)
    _draw = staticmethod(_student_draw)
    _located = staticmethod(lambda df, scale: (df + 1) / (df + 3))
    _score = staticmethod(_student_score)
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

    _density = staticmethod(
        lambda y, at: distributions.Laplace(
            at.mean, at.args[0], validate_args=False
        ).log_prob(y)
    )
    _variance = staticmethod(lambda at: 2 * at.args[0].square())
    _draw = staticmethod(_laplace_draw)
    _located = staticmethod(lambda scale: 1.0)
    _score = staticmethod(_laplace_score)
    _label = "Laplace"
    scale: Argument = None


class Counts(Noise):
    _must = "counts must be whole numbers >= 0"
    _nonnegative = True
    _stabilize = staticmethod(lambda y: 2 * y.clamp(min=0).sqrt())
    _restore = staticmethod(lambda stable: (stable.clamp(min=0) / 2).square())

    def _refused(self, y: np.ndarray) -> np.ndarray:
        return ~np.isnan(y) & ((y < 0) | (y != np.floor(y)))


@dataclass(frozen=True, repr=False)
class Poisson(Counts):
    """Counts of independent events, whose variance is their mean.

    Examples
    --------
    >>> from sklearn_inverse.probability import Poisson
    >>> Poisson()
    Poisson()
    """

    _density = staticmethod(_poisson_density)
    _variance = staticmethod(lambda at: at.mean)
    _draw = staticmethod(
        lambda mean, args, generator: torch.poisson(mean, generator=generator)
    )
    _possible = staticmethod(_is_count)
    _label = "Poisson"


@dataclass(frozen=True, repr=False)
class NegativeBinomial(Counts):
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

    _density = staticmethod(_negative_binomial_density)
    _variance = staticmethod(lambda at: at.mean + at.mean.square() / at.args[0])
    _draw = staticmethod(_negative_binomial_draw)
    _possible = staticmethod(_is_count)
    _label = "negative binomial"
    dispersion: Argument


@dataclass(frozen=True, repr=False)
class Binomial(Counts):
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

    _density = staticmethod(_binomial_density)
    _variance = staticmethod(
        lambda at: at.mean * (1 - at.mean / at.args[0]).clamp(min=0)
    )
    _draw = staticmethod(_binomial_draw)
    _capped = True
    _possible = staticmethod(_is_share)
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
