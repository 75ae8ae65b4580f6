"""What every method hands to the loop: one attempted step of every sample."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from sklearn_inverse.ode._step_size import SAFETY

__all__ = ["Attempt", "Stepper", "take"]


@dataclass
class Attempt:
    """Outcome of one attempted step, one entry per sample."""

    y: Tensor
    stages: Tensor  # (n_samples, n_stages, n_states): what the derivatives need of it
    norm: Tensor  # error / tolerance; accepted if <= 1
    converged: Tensor  # False where Newton's method failed
    finite: Tensor  # False where the right-hand side was not
    safety: Tensor | float = SAFETY
    slow_newton: Tensor | None = None  # worth a new Jacobian next time
    f: Tensor | None = None  # rhs at the end, where the method knows it


class Stepper:
    """A one-step method: attempts single steps, and differentiates accepted ones.

    Parameters
    ----------
    tableau : RungeKuttaTableau or RosenbrockTableau
        The method's coefficients.

    rhs : RightHandSide
        Batched right-hand side with its derivatives.

    rtol : float
        Relative tolerance.

    atol : Tensor of shape (n_states,)
        Absolute tolerance.

    Attributes
    ----------
    error_order : int
        Order of the error estimate, or 0 if there is none (fixed steps only).

    dense : ndarray of shape (n_powers, n_stages)
        ``dense @ stages`` are the coefficients of θ, θ², … of the dense output.
    """

    error_order = 0

    def __init__(self, tableau, rhs, rtol, atol):
        self.tableau = tableau
        self.rhs = rhs
        self.rtol, self.atol = rtol, atol
        self.dense = tableau.dense

    def start(self, y):
        """Memory of samples that have not taken a step yet; None if none is kept."""

    def attempt(self, walkers) -> Attempt:
        """Attempt a step of size ``walkers.step`` of every sample."""
        raise NotImplementedError

    def stage_weights(self, theta) -> Tensor:
        """Weights of the stages in the output at ``t + θ h``, (n_outputs, n_stages)."""
        dense = theta.new_tensor(self.dense)
        q = torch.arange(1, len(dense) + 1, device=theta.device)
        return theta[:, None] ** q @ dense

    def settle(self, walkers, attempt, accepted, factor) -> Tensor:
        """Note in the memory what comes next; return the factor on the step."""
        return factor


def take(samples, index):
    """Keep the samples at ``index`` only, of a dataclass or tuple of tensors."""
    if samples is None:
        return None
    if isinstance(samples, Tensor):
        return samples[index]
    if isinstance(samples, tuple):
        return type(samples)(*(take(part, index) for part in samples))
    parts = {f.name: take(getattr(samples, f.name), index) for f in fields(samples)}
    return type(samples)(**parts)
