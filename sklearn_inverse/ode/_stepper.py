"""What loop and methods hand each other: samples, and an attempted step of each."""

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from sklearn_inverse.ode._rhs import RightHandSide
from sklearn_inverse.ode._step_size import SAFETY, error_norm, tolerance

__all__ = ["Attempt", "Stepper", "Walkers", "take"]


@dataclass
class Walkers:
    """The samples still under way: where each is, and what decides its next step."""

    index: Tensor  # which sample of the batch this is
    t: Tensor
    t_end: Tensor  # last output time
    n_written: Tensor  # number of output times reached
    y: Tensor
    f: Tensor  # rhs(t, y)
    params: Tensor
    peak: Tensor  # largest magnitude of each state so far
    step: Tensor
    norm_old: Tensor  # error norm and size of the last accepted step
    step_old: Tensor
    has_old: Tensor
    strict: Tensor  # first step, or just rejected
    stops: Tensor  # at output times, as its steps cannot be interpolated
    sign: Tensor  # (n_samples, n_guards): of each guard
    offset: Tensor  # what is taken off its values
    n_least: Tensor  # steps of least size in a row
    n_idle: Tensor  # windows of attempts in a row that led nowhere
    mark: Tensor  # (n_samples, 3): time, step and accepted steps as the window began
    n_steps: Tensor
    n_accepted: Tensor
    n_jac: Tensor
    n_lu: Tensor
    memory: Any  # what the method keeps


@dataclass
class Attempt:
    """Outcome of one attempted step, one entry per sample."""

    y: Tensor
    stages: Tensor  # (n_samples, n_stages, n_states): what the derivatives need of it
    norm: Tensor  # error / tolerance; accepted if <= 1
    converged: Tensor  # False where Newton's method failed
    finite: Tensor  # False where the right-hand side was not
    safety: Tensor | float = SAFETY
    f: Tensor | None = None  # rhs at the end, where the method knows it
    stable: Tensor | None = None  # False where steps of given size multiply the state
    has_jacobian: Tensor | None = None  # False where it is not finite
    factors: Any = None  # what :meth:`Stepper.filter` needs
    stop: Tensor | None = None  # share of the step after which an event ends it
    fired: Tensor | None = (
        None  # (n_samples, n_guards): new signs of those crossed there
    )


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

    atol : Tensor of shape (n_samples, n_states)
        Absolute tolerance, of all samples of the batch.

    Attributes
    ----------
    error_order : int
        Order of the error estimate, or 0 if there is none (fixed steps only).

    dense : ndarray of shape (n_powers, n_stages)
        ``dense @ stages`` are the coefficients of θ, θ², … of the dense output.
    """

    is_explicit = False
    error_order = 0
    middle = 0.5  # of a step: where its dense output is tried, as it is worst there
    strictness = 1.0  # of outputs, relative to that of steps

    def __init__(self, tableau, rhs: RightHandSide, rtol: float, atol: Tensor):
        self.tableau = tableau
        self.rhs = rhs
        self.rtol, self.atol = rtol, atol
        self.dense = tableau.dense

    def start(self, y: Tensor) -> Any:
        """Memory of samples that have not taken a step yet; None if none is kept."""

    def attempt(self, w: Walkers) -> Attempt:
        """Attempt a step of size ``w.step`` of every sample."""
        raise NotImplementedError

    def stage_weights(self, theta: Tensor) -> Tensor:
        """Weights of the stages in the output at ``t + θ h``, (n_outputs, n_stages)."""
        dense = theta.new_tensor(self.dense)
        q = torch.arange(1, len(dense) + 1, device=theta.device)
        return theta[:, None] ** q @ dense

    def scale(self, w: Walkers, *magnitudes: Tensor) -> Tensor:
        """Tolerated error of each state, beside its present and other magnitudes."""
        atol = self.atol[w.index]
        return tolerance(w.y, *magnitudes, peak=w.peak, rtol=self.rtol, atol=atol)

    def dense_norm(
        self, w: Walkers, attempt: Attempt, row: Tensor, theta: Tensor
    ) -> Tensor:
        """Error / tolerance of the dense output u in the step, infinite if unknown.

        Tried amid the step, and at the outputs: those at ``t + θ h`` of samples ``row``.

        Judged by its defect f(t, u) − u', which says what the error of the step cannot:
        a state that follows an input fast is at its right place at the end of any step.
        """
        everyone = torch.arange(len(w.t), device=w.t.device)
        middle = torch.full_like(w.t, self.middle)
        defect = self._defect(w, attempt, everyone, middle)
        scale = self.scale(w, attempt.y)
        if len(row):
            # Inputs may come and go within the step: outputs are the eyes for them.
            other = self._defect(w, attempt, row, theta)
            size = error_norm(other, scale[row]).nan_to_num(torch.inf, torch.inf)
            largest = torch.zeros_like(w.t).scatter_reduce(0, row, size, "amax")
            i = torch.nonzero(size == largest[row])[:, 0]
            worst = defect.clone()
            worst[row[i]] = other[i]
            unseen = largest > 10 * error_norm(defect, scale)
            defect = torch.where(unseen[:, None], worst, defect)
        error = self.filter(w, attempt, defect)
        norm = error_norm(error, scale) * self.strictness
        return norm.nan_to_num(torch.inf, torch.inf)

    def _defect(
        self, w: Walkers, attempt: Attempt, row: Tensor, theta: Tensor
    ) -> Tensor:
        """Defect of the dense output at ``t + θ h`` of the samples at ``row``."""
        q = torch.arange(1, len(self.dense) + 1, device=theta.device)
        powers = q * theta[:, None] ** (q - 1)
        stages, step = attempt.stages[row], w.step[row]
        slope = ((powers @ theta.new_tensor(self.dense))[:, None] @ stages)[:, 0]
        u = w.y[row] + (self.stage_weights(theta)[:, None] @ stages)[:, 0]
        f = self.rhs(w.t[row] + theta * step, u, w.params[row])
        return f - slope / step[:, None]

    def filter(self, w: Walkers, attempt: Attempt, defect: Tensor) -> Tensor:
        """Error of a state whose derivative is off by ``defect``.

        In implicit methods (I/(γh) − J)⁻¹ times it: what is stiff does not add it up over
        the step, but is moved until f makes up for it.
        """
        return w.step[:, None] * defect

    def settle(
        self, w: Walkers, attempt: Attempt, accepted: Tensor, factor: Tensor
    ) -> Tensor:
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
