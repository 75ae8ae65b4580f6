"""One attempted step of a Rosenbrock method, for every sample at once.

Linearly implicit: one factorization and one linear system per stage, no Newton iteration.
Hairer & Wanner II, Section IV.7.
"""

import torch
from torch import Tensor

from sklearn_inverse.ode._explicit import combine
from sklearn_inverse.ode._rhs import RightHandSide
from sklearn_inverse.ode._step_size import error_norm
from sklearn_inverse.ode._stepper import Attempt, Stepper, Walkers

__all__ = ["Rosenbrock"]


class Rosenbrock(Stepper):
    """Rodas5P, in Hairer's transformed form (see :class:`RosenbrockTableau`)."""

    middle = 0.75

    def __init__(self, tableau, rhs: RightHandSide, rtol: float, atol: Tensor):
        super().__init__(tableau, rhs, rtol, atol)
        self.error_order = tableau.order - 1

    def attempt(self, w: Walkers) -> Attempt:
        """Attempt one step of every sample."""
        t, step, params = w.t, w.step, w.params
        jacobian = self.rhs.jac(t, w.y, params, step)
        by_time = None
        if not self.rhs.is_autonomous:
            by_time = self.rhs.time_derivative(t, w.y, params, step)
        y, stages, factors = self._step(t, w.y, w.f, step, params, jacobian, by_time)
        norm = error_norm(stages[-1], self.scale(w, y))
        finite = y.isfinite().all(1) & norm.isfinite()
        w.n_jac += 1
        w.n_lu += 1
        return Attempt(
            y=y,
            stages=torch.stack(stages, dim=1),
            norm=norm,
            converged=torch.ones_like(finite),
            finite=finite,
            factors=factors,
            has_jacobian=jacobian.flatten(1).isfinite().all(1),
        )

    def filter(self, w: Walkers, attempt: Attempt, defect: Tensor) -> Tensor:
        """Error of a state whose derivative is off by ``defect``."""
        return torch.linalg.lu_solve(*attempt.factors, defect[..., None])[..., 0]

    def _step(
        self,
        t: Tensor,
        y: Tensor,
        f: Tensor,
        step: Tensor,
        params: Tensor,
        jacobian: Tensor,
        by_time: Tensor | None,
    ) -> tuple[Tensor, list[Tensor], tuple[Tensor, Tensor]]:
        """Return the state at the end, the list of stages u_i, and the LU factors."""
        tableau, h = self.tableau, step[:, None]
        n_states = y.shape[1]
        eye = torch.eye(n_states, dtype=y.dtype, device=y.device)
        matrix = eye / (tableau.gamma * step)[:, None, None]
        lu, pivots, _ = torch.linalg.lu_factor_ex(matrix - jacobian)
        stages: list[Tensor] = []
        coefficients = zip(tableau.a, tableau.coupling, tableau.c, tableau.d)
        for i, (a, coupling, c, d) in enumerate(coefficients):
            b = f
            if i > 0:
                b = self.rhs(t + c * step, y + combine(a, stages), params)
                b = b + combine(coupling, stages) / h
            if by_time is not None and d != 0:
                b = b + d * h * by_time
            u = torch.linalg.lu_solve(lu, pivots, b[..., None])[..., 0]
            stages.append(u)
        return y + combine(tableau.m, stages), stages, (lu, pivots)

    def replay(
        self, t: Tensor, y: Tensor, step: Tensor, params: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return (state at the end, stages u_i), differentiably."""
        f, jacobian = self.rhs(t, y, params), self.rhs.jac(t, y, params)
        by_time = None
        if not self.rhs.is_autonomous:
            by_time = self.rhs.time_derivative(t, y, params)
        y_new, stages, _ = self._step(t, y, f, step, params, jacobian, by_time)
        return y_new, torch.stack(stages, dim=1)
