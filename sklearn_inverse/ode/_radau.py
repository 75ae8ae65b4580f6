"""One attempted step of Radau IIA, order 5, for every sample at once.

Hairer & Wanner II, Section IV.8. What a sample keeps between steps (its Jacobian, its
factorisations, its last collocation polynomial) lives in :class:`RadauMemory`.
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from sklearn_inverse.ode._newton import (
    Factors,
    autodiff_jacobian,
    factorise,
    solve_stages,
)
from sklearn_inverse.ode._step_size import EPS, error_norm, tolerance
from sklearn_inverse.ode._tableau import RADAU5

__all__ = ["Attempt", "Radau5"]


@dataclass
class RadauMemory:
    """What each sample carries from one attempt to the next."""

    jacobian: Tensor
    factors: Factors
    polynomial: Tensor  # (n_samples, n_stages, n_states): coefficients of θ, θ², θ³
    y_old: Tensor
    step_old: Tensor
    has_polynomial: Tensor
    jacobian_is_current: Tensor  # evaluated at the present state
    needs_jacobian: Tensor
    needs_factors: Tensor
    n_jac: Tensor
    n_lu: Tensor

    def take(self, index: Tensor) -> "RadauMemory":
        """Keep the samples at ``index`` only."""
        kept = {f.name: getattr(self, f.name) for f in fields(self)}
        factors = Factors(*(part[index] for part in kept.pop("factors")))
        kept = {name: value[index] for name, value in kept.items()}
        return RadauMemory(factors=factors, **kept)


@dataclass
class Attempt:
    """Outcome of one attempted step, one entry per sample."""

    y: Tensor
    norm: Tensor  # error / tolerance; accepted if <= 1
    converged: Tensor
    polynomial: Tensor
    safety: Tensor
    slow_newton: Tensor  # worth a new Jacobian next time


class Radau5:
    """Radau IIA of order 5: L-stable, stiffly accurate, three stages.

    Parameters
    ----------
    rhs : callable
        Batched right-hand side.

    jac : callable or None
        Batched Jacobian; None for automatic differentiation.

    rtol : float
        Relative tolerance.

    atol : Tensor of shape (n_states,)
        Absolute tolerance.
    """

    tableau = RADAU5

    def __init__(self, rhs, jac, rtol: float, atol: Tensor):
        # The error estimate is of order 3, the solution of order 5: RADAU5 asks the
        # estimate for rtol^(2/3), which makes the solution meet rtol.
        self.rtol = 0.1 * rtol ** (2 / 3)
        self.atol = atol * self.rtol / rtol
        self.rhs = rhs
        self.jac = jac or (lambda t, y, params: autodiff_jacobian(rhs, t, y, params))
        self.newton_tol = max(10 * EPS / self.rtol, min(0.03, self.rtol**0.5))

    def start(self, y: Tensor) -> RadauMemory:
        """Memory of samples that have not taken a step yet."""
        n_samples, n_states = y.shape
        square = y.new_zeros(n_samples, n_states, n_states)
        pivots = torch.zeros(n_samples, n_states, dtype=torch.int32, device=y.device)
        factors = Factors(square, pivots, square.to(torch.complex128), pivots.clone())
        yes = torch.ones(n_samples, dtype=torch.bool, device=y.device)
        zero = y.new_zeros(n_samples)
        return RadauMemory(
            jacobian=square.clone(),
            factors=factors,
            polynomial=y.new_zeros(n_samples, len(self.tableau.c), n_states),
            y_old=y,
            step_old=zero + 1,
            has_polynomial=~yes,
            jacobian_is_current=~yes,
            needs_jacobian=yes,
            needs_factors=yes.clone(),
            n_jac=zero.clone(),
            n_lu=zero.clone(),
        )

    def attempt(self, memory, t, y, f, step, peak, params, strict) -> Attempt:
        """Attempt one step of size ``step`` from ``(t, y)`` with ``f = rhs(t, y)``.

        ``peak`` holds the largest magnitude of each state so far; ``strict`` marks the
        samples (first steps, steps after a rejection) whose error estimate is filtered
        twice, Eq. (IV.8.20).
        """
        self._prepare(memory, t, y, step, params)

        def scale_of(y_end):
            return tolerance(y, y_end, peak=peak, rtol=self.rtol, atol=self.atol)

        newton = solve_stages(
            self.rhs,
            self.tableau,
            t,
            y,
            step,
            params,
            self._extrapolate(memory, y, step),
            memory.factors,
            scale_of,
            self.newton_tol,
        )
        y_new = y + newton.z[:, -1]
        scale = scale_of(y_new)
        weights = y.new_tensor(self.tableau.error_weights)
        ze = torch.einsum("s,bsn->bn", weights, newton.z) / step[:, None]
        error = memory.factors.solve_real(f + ze)
        norm = error_norm(error, scale)
        again = strict & newton.converged & (norm > 1)
        if again.any():
            i = torch.nonzero(again)[:, 0]
            f_shifted = self.rhs(t[i], y[i] + error[i], params[i])
            factors = Factors(*(part[i] for part in memory.factors))
            norm[i] = error_norm(factors.solve_real(f_shifted + ze[i]), scale[i])

        dense = y.new_tensor(self.tableau.dense)
        return Attempt(
            y=y_new,
            norm=norm,
            converged=newton.converged & norm.isfinite(),
            polynomial=dense.T @ newton.z,
            # Fewer Newton iterations earn a bolder step (there, after Eq. IV.8.21).
            safety=0.9 * 15 / (14 + newton.n_iter),
            slow_newton=(newton.n_iter > 2) & (newton.rate > 1e-3),
        )

    def _prepare(self, memory, t, y, step, params):
        """Bring Jacobians and factorisations up to date where that was asked for."""
        if memory.needs_jacobian.any():
            i = torch.nonzero(memory.needs_jacobian)[:, 0]
            memory.jacobian[i] = self.jac(t[i], y[i], params[i])
            memory.n_jac[i] += 1
            memory.jacobian_is_current[i] = True
            memory.needs_factors[i] = True
            memory.needs_jacobian[i] = False
        if memory.needs_factors.any():
            i = torch.nonzero(memory.needs_factors)[:, 0]
            new = factorise(memory.jacobian[i], step[i], self.tableau)
            for part, value in zip(memory.factors, new):
                part[i] = value
            memory.n_lu[i] += 1
            memory.needs_factors[i] = False

    def _extrapolate(self, memory, y, step):
        """Stage increments predicted by the last step's polynomial, else zero."""
        c = y.new_tensor(self.tableau.c)
        theta = 1 + c * (step / memory.step_old)[:, None]  # (n_samples, n_stages)
        z = evaluate(memory.polynomial, theta) + (memory.y_old - y)[:, None]
        return torch.where(memory.has_polynomial[:, None, None], z, torch.zeros_like(z))


def evaluate(polynomial: Tensor, theta: Tensor) -> Tensor:
    """Values Σ_q d_q θ^q of shape (n_samples, n_points, n_states), by Horner."""
    theta = theta[..., None]
    value = torch.zeros_like(polynomial[:, :1])
    for q in reversed(range(polynomial.shape[1])):
        value = theta * (value + polynomial[:, q, None])
    return value
