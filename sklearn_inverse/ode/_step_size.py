"""Step sizes: the error norm, the first step, and the predictive controller.

Hairer & Wanner II, Sections IV.2 and IV.8. Every quantity has one entry per sample.
"""

import torch
from torch import Tensor

__all__ = ["dense_factor", "error_norm", "first_step", "step_factor", "tolerance"]

EPS = torch.finfo(torch.float64).eps
SAFETY, MIN_FACTOR, MAX_FACTOR = 0.9, 0.2, 10.0
TRUST = 1.2  # in the predictive factor, where it exceeds the plain one
FIRST_FACTOR = 0.25  # extra shrinkage until a first step is accepted


def tolerance(*magnitudes: Tensor, peak: Tensor, rtol: float, atol: Tensor) -> Tensor:
    """Tolerated error of each state, of shape (n_samples, n_states).

    Relative to the state itself, so that concentrations of 1e-18 beside others of order
    one are resolved. What is asked for never falls below the round-off of the largest
    magnitude the state has had on this trajectory (``peak``): where a state crosses or
    decays to zero, nothing more can be had.
    """
    largest = magnitudes[0].abs()
    for magnitude in magnitudes[1:]:
        largest = torch.maximum(largest, magnitude.abs())
    tiny = 1e-290  # a state that is exactly zero has error zero: 0 / tiny, not 0 / 0
    return rtol * largest + 10 * EPS * peak + atol + tiny


def error_norm(error: Tensor, scale: Tensor) -> Tensor:
    """Root mean square of ``error / scale`` over all axes but the first."""
    return (error / scale).flatten(1).square().mean(1).sqrt()


def first_step(y: Tensor, f: Tensor, t: Tensor, t_end: Tensor, atol: Tensor) -> Tensor:
    """Step after which the non-zero states have changed by about one per cent.

    Crude by intent: the first error test settles the rest (Hairer, Nørsett & Wanner I,
    Section II.4, without its second evaluation).
    """
    span = t_end - t
    size = torch.maximum(y.abs(), atol)
    change = torch.where(y != 0, f.abs() / size, 0.0).amax(1)
    step = torch.where(change > 0, 1e-2 / change, 1e-6 * span)
    # Not so small that time would stand still.
    return torch.minimum(step.clamp(min=1e-290).maximum(1e3 * EPS * t.abs()), span)


def step_factor(
    norm: Tensor,
    norm_old: Tensor,
    step: Tensor,
    step_old: Tensor,
    has_old: Tensor,
    order: int,
) -> Tensor:
    """Factor on the step by an error estimate of ``order``, before any safety factor.

    Gustafsson's (Hairer & Wanner II, Eq. IV.8.25) is the smaller of a plain and a
    predictive one. Here the latter may exceed the former a little: where errors fall from
    step to step, as in all transients, that takes a tenth off the steps. A step whose
    error is too large shrinks by the plain factor, and by a quarter of it before any has
    been accepted, for then even its order of magnitude is unknown.
    """
    norm = norm.clamp(min=1e-10)
    exponent = 1 / (order + 1)
    plain = norm**-exponent
    predictive = plain * (step / step_old) * (norm_old / norm) ** exponent
    factor = torch.where(has_old, torch.minimum(TRUST * plain, predictive), plain)
    shrink = torch.where(has_old, plain, FIRST_FACTOR * plain)
    return torch.where(norm <= 1, factor, shrink)


def dense_factor(norm: Tensor, order: int) -> Tensor:
    """Factor on the step by the error ``norm`` of a dense output of ``order``."""
    return SAFETY * norm.clamp(min=1e-10) ** (-1 / (order + 1))
