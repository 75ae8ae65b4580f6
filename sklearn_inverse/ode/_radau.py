"""One attempted step of Radau IIA, order 5, with error control, for every sample at once.

Hairer & Wanner II, Section IV.8. What a sample keeps between steps (its Jacobian, its
factorizations, the stages of its last step) lives in :class:`RadauMemory`.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from sklearn_inverse.ode._coefficients import RADAU5_TRANSFORM
from sklearn_inverse.ode._newton import Factors, factorize, solve_stages
from sklearn_inverse.ode._rhs import RightHandSide
from sklearn_inverse.ode._step_size import EPS, MAX_FACTOR, SAFETY, error_norm
from sklearn_inverse.ode._stepper import Attempt, Stepper, Walkers

__all__ = ["Radau5"]


@dataclass
class RadauMemory:
    """What each sample carries from one attempt to the next."""

    jacobian: Tensor
    factors: Factors
    factored_step: Tensor  # step size that the factors belong to; 0 for none
    stages: Tensor  # of the last accepted step, (n_samples, n_stages, n_states)
    y_old: Tensor  # where it started
    jacobian_is_current: Tensor  # evaluated at the present state
    needs_jacobian: Tensor
    slow_newton: Tensor  # in the last attempt: worth a new Jacobian


class Radau5(Stepper):
    """Radau IIA of order 5: L-stable, stiffly accurate, three stages."""

    error_order = 3
    scheme = RADAU5_TRANSFORM
    middle = 0.4  # at the nodes, 0.155 and 0.645, there is no defect

    def __init__(self, tableau, rhs: RightHandSide, rtol: float, atol: Tensor):
        # The error estimate is of order 3, the solution of order 5: RADAU5 asks the
        # estimate for rtol^(2/3), which makes the solution meet rtol.
        strict_rtol = 0.1 * rtol ** (2 / 3)
        super().__init__(tableau, rhs, strict_rtol, atol * strict_rtol / rtol)
        self.strictness = strict_rtol / rtol
        self.dense = self.scheme.dense
        self.newton_tol = max(10 * EPS / self.rtol, min(0.03, self.rtol**0.5))

    def start(self, y: Tensor) -> RadauMemory:
        """Memory of samples that have not taken a step yet."""
        n_samples, n_states = y.shape
        square = y.new_zeros(n_samples, n_states, n_states)
        pivots = torch.zeros(n_samples, n_states, dtype=torch.int32, device=y.device)
        yes = torch.ones(n_samples, dtype=torch.bool, device=y.device)
        return RadauMemory(
            jacobian=square,
            factors=Factors(
                square.clone(), pivots, square.to(torch.complex128), pivots.clone()
            ),
            factored_step=y.new_zeros(n_samples),
            stages=y.new_zeros(n_samples, len(self.tableau.c), n_states),
            y_old=y,
            jacobian_is_current=~yes,
            needs_jacobian=yes,
            slow_newton=~yes,
        )

    def attempt(self, w: Walkers) -> Attempt:
        """Attempt one step of every sample.

        The error estimate of first steps and of steps after a rejection is filtered
        twice, Eq. (IV.8.20).
        """
        memory, t, y, step = w.memory, w.t, w.y, w.step
        self._prepare(w)

        newton = solve_stages(
            self.rhs,
            self.scheme,
            t,
            y,
            step,
            w.params,
            self._extrapolate(w),
            memory.factors,
            partial(self.scale, w),
            self.newton_tol,
        )
        memory.slow_newton = (newton.n_iter > 2) & (newton.rate > 1e-3)
        y_new = y + newton.z[:, -1]
        scale = self.scale(w, y_new)
        weights = y.new_tensor(self.scheme.error_weights)
        ze = torch.einsum("s,bsn->bn", weights, newton.z) / step[:, None]
        error = memory.factors.solve_real(w.f + ze)
        norm = error_norm(error, scale)
        again = w.strict & newton.converged & (norm > 1)
        if again.any():
            i = torch.nonzero(again)[:, 0]
            f_shifted = self.rhs(t[i], y[i] + error[i], w.params[i])
            factors = Factors(*(part[i] for part in memory.factors))
            norm[i] = error_norm(factors.solve_real(f_shifted + ze[i]), scale[i])

        return Attempt(
            y=y_new,
            stages=newton.z,
            norm=norm,
            converged=newton.converged & norm.isfinite(),
            finite=newton.finite,
            has_jacobian=memory.jacobian.flatten(1).isfinite().all(1),
            # Fewer Newton iterations earn a bolder step (there, after Eq. IV.8.21).
            safety=SAFETY * 15 / (14 + newton.n_iter),
        )

    def filter(self, w: Walkers, attempt: Attempt, defect: Tensor) -> Tensor:
        """Error of a state whose derivative is off by ``defect``."""
        return w.memory.factors.solve_real(defect)

    def settle(
        self, w: Walkers, attempt: Attempt, accepted: Tensor, factor: Tensor
    ) -> Tensor:
        """Factor on the step of each sample, and what must be computed anew for it.

        Halve where Newton failed with a fresh Jacobian, refresh an old Jacobian first,
        follow the error elsewhere; a small growth is not worth new factors.
        """
        memory = w.memory
        failed = ~attempt.converged
        stale = failed & ~memory.jacobian_is_current
        factor = torch.where(failed, torch.where(stale, 1.0, 0.5), factor)
        steady = accepted & ~memory.slow_newton & (factor >= 1) & (factor < 1.2)
        factor = torch.where(steady, 1.0, factor)
        memory.needs_jacobian |= stale | (accepted & memory.slow_newton)
        memory.jacobian_is_current &= ~accepted
        rows = accepted[:, None]
        memory.stages = torch.where(rows[..., None], attempt.stages, memory.stages)
        memory.y_old = torch.where(rows, w.y, memory.y_old)
        return factor

    def _prepare(self, w: Walkers) -> None:
        """Bring Jacobians and factorizations up to date where that is needed."""
        memory = w.memory
        if memory.needs_jacobian.any():
            i = torch.nonzero(memory.needs_jacobian)[:, 0]
            memory.jacobian[i] = self.rhs.jac(w.t[i], w.y[i], w.params[i], w.step[i])
            w.n_jac[i] += 1
            memory.jacobian_is_current[i] = True
            memory.needs_jacobian[i] = False
            memory.factored_step[i] = 0
        i = torch.nonzero(memory.factored_step != w.step)[:, 0]
        if len(i):
            new = factorize(memory.jacobian[i], w.step[i], self.scheme)
            for part, value in zip(memory.factors, new):
                part[i] = value
            memory.factored_step[i] = w.step[i]
            w.n_lu[i] += 1

    def _extrapolate(self, w: Walkers) -> Tensor:
        """Stage increments predicted by the last step's polynomial, else zero."""
        memory = w.memory
        c = w.y.new_tensor(self.tableau.c)
        theta = 1 + c * (w.step / w.step_old)[:, None]  # (n_samples, n_stages)
        weights = self.stage_weights(theta.flatten()).unflatten(0, theta.shape)
        z = weights @ memory.stages + (memory.y_old - w.y)[:, None]
        near = w.has_old & (w.step <= MAX_FACTOR * w.step_old)
        return torch.where(near[:, None, None], z, 0.0)
