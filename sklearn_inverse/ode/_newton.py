"""Simplified Newton iteration for the stage equations, batched with a mask per sample.

Hairer & Wanner II, Section IV.8: the transformed system splits into a real and a
complex linear system per sample, whose factorizations are kept over steps.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from sklearn_inverse.ode._rhs import Rhs
from sklearn_inverse.ode._step_size import error_norm
from sklearn_inverse.ode._tableau import StageTransform

__all__ = ["Factors", "NewtonResult", "factorize", "solve_stages"]

MAX_ITER = 7


class Factors(NamedTuple):
    """LU factors of ``γ/h I − J`` and ``(α+iβ)/h I − J``, one pair per sample.

    Held transposed: LAPACK reads columns, and would be given a copy at every solve.
    """

    real: Tensor
    real_pivots: Tensor
    complex: Tensor
    complex_pivots: Tensor

    def solve_real(self, b: Tensor) -> Tensor:
        """Solve the real system; ``b`` has shape (n_samples, n_states)."""
        return torch.linalg.lu_solve(self.real.mT, self.real_pivots, b[..., None])[
            ..., 0
        ]

    def solve_complex(self, b: Tensor) -> Tensor:
        """Solve the complex system; ``b`` has shape (n_samples, n_states)."""
        x = torch.linalg.lu_solve(self.complex.mT, self.complex_pivots, b[..., None])
        return x[..., 0]


class NewtonResult(NamedTuple):
    """Outcome of :func:`solve_stages`, one entry per sample."""

    z: Tensor  # (n_samples, n_stages, n_states) stage increments Y_i − y
    converged: Tensor
    finite: Tensor  # False where the right-hand side was not
    n_iter: Tensor
    rate: Tensor


def factorize(jacobian: Tensor, step: Tensor, scheme: StageTransform) -> Factors:
    """LU factors for the given Jacobians and steps."""
    eye = torch.eye(jacobian.shape[-1], dtype=jacobian.dtype, device=jacobian.device)
    inv = (1 / step)[:, None, None]
    real = torch.linalg.lu_factor_ex(scheme.eigen_real * inv * eye - jacobian)
    shifted = scheme.eigen_complex * inv * eye - jacobian
    complex_ = torch.linalg.lu_factor_ex(shifted)
    return Factors(real.LU.mT, real.pivots, complex_.LU.mT, complex_.pivots)


def solve_stages(
    rhs: Rhs,
    scheme: StageTransform,
    t: Tensor,
    y: Tensor,
    step: Tensor,
    params: Tensor,
    z: Tensor,
    factors: Factors,
    scale_of: Callable[[Tensor], Tensor],
    tol: float,
) -> NewtonResult:
    """Solve for the stages of one step of every sample.

    Parameters
    ----------
    rhs : callable
        Right-hand side, batched.

    scheme : StageTransform
        The method.

    t, y, step, params : Tensor
        Time (n_samples,), states (n_samples, n_states), step (n_samples,) and params.

    z : Tensor of shape (n_samples, n_stages, n_states)
        Starting values.

    factors : Factors
        LU factors that belong to (approximately) this state and exactly this step.

    scale_of : callable
        ``scale_of(y_end)``: tolerated error of each state, given the stage at the end.

    tol : float
        Newton error tolerated, as a fraction of that.

    Returns
    -------
    result : NewtonResult
        Samples that did not converge hold their last iterate.
    """
    n_samples, n_states = y.shape
    s = len(scheme.tableau.c)
    as_tensor = y.new_tensor
    transform, inverse = (
        as_tensor(scheme.transform),
        as_tensor(scheme.inverse_transform),
    )
    shift_real = scheme.eigen_real / step[:, None]
    shift_complex = scheme.eigen_complex / step[:, None]
    stage_times = (t[:, None] + step[:, None] * as_tensor(scheme.tableau.c)).reshape(-1)
    stage_params = params.repeat_interleave(s, dim=0)

    w = inverse @ z
    z = z.clone()
    running = torch.ones(n_samples, dtype=torch.bool, device=y.device)
    converged = torch.zeros_like(running)
    finite = running.clone()
    n_iter = torch.zeros_like(t)
    rate = torch.zeros_like(t)
    norm_old = torch.full_like(t, torch.inf)
    for k in range(MAX_ITER):
        f = rhs(stage_times, (y[:, None] + z).reshape(-1, n_states), stage_params)
        f = f.reshape(n_samples, s, n_states)
        finite = finite & (f.flatten(1).isfinite().all(1) | ~running)
        fw = inverse @ f
        dw_real = factors.solve_real(fw[:, 0] - shift_real * w[:, 0])
        w_complex = torch.complex(w[:, 1], w[:, 2])
        dw_complex = factors.solve_complex(
            torch.complex(fw[:, 1], fw[:, 2]) - shift_complex * w_complex
        )
        dw = torch.stack([dw_real, dw_complex.real, dw_complex.imag], dim=1)

        norm = error_norm(dw, scale_of(y + z[:, -1])[:, None])
        running = running & norm.isfinite()
        if k > 0:
            rate = torch.where(running, norm / norm_old, rate)
            remaining = rate ** (MAX_ITER - k) / (1 - rate) * norm
            running = running & (rate < 1) & (remaining <= tol)
        w = torch.where(running[:, None, None], w + dw, w)
        z = torch.where(running[:, None, None], transform @ w, z)
        n_iter = torch.where(running, n_iter + 1, n_iter)
        # The first iterate counts as solved only if nothing at all was left to do.
        done = (norm == 0) if k == 0 else rate / (1 - rate) * norm < tol
        converged = converged | (running & done)
        running = running & ~done
        norm_old = torch.where(running, norm, norm_old)
        if not running.any():
            break
    return NewtonResult(z, converged, finite, n_iter, rate)
