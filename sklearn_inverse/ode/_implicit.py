r"""Implicit Runge–Kutta steps of given size, and the derivatives of any of them.

The stage increments solve :math:`z_i = h \sum_j a_{ij} f(t + c_j h, y + z_j)`. Newton's
method and the implicit function theorem need the same matrix,

.. math:: M_{ij} = \delta_{ij} I - h a_{ij} J(y + z_j),

of size ``n_stages * n_states``.
"""

import torch
from torch import Tensor

from sklearn_inverse.ode._rhs import RightHandSide
from sklearn_inverse.ode._step_size import error_norm, tolerance
from sklearn_inverse.ode._stepper import Attempt, Stepper, Walkers
from sklearn_inverse.ode._tableau import RungeKuttaTableau

__all__ = ["ImplicitRungeKutta", "stage_matrix", "stage_rows"]

MAX_ITER = 50
TOL = 1e-10  # relative; convergence is quadratic, so the iterate is good to round-off
MIN_DAMPING = 2.0**-10


class ImplicitRungeKutta(Stepper):
    """Backward Euler, trapezoid, Radau3 or Radau5 with steps of given size.

    Full Newton iteration with a new Jacobian each time, damped where the natural
    monotonicity test fails (Deuflhard, "Newton Methods for Nonlinear Problems", 2004,
    Section 3.3): the step size is the user's, so all depends on convergence.
    """

    def attempt(self, w: Walkers) -> Attempt:
        """Take one step of every sample."""
        z, converged, finite = self._solve_stages(w)
        return Attempt(
            y=w.y + z[:, -1],
            stages=z,
            norm=torch.zeros_like(w.t),
            converged=converged,
            finite=finite,
        )

    def _solve_stages(self, w: Walkers) -> tuple[Tensor, Tensor, Tensor]:
        """Newton's method from z = 0, rows leaving as they converge."""
        z_out = w.y.new_zeros(len(w.t), len(self.tableau.c), w.y.shape[1])
        converged = torch.zeros_like(w.t, dtype=torch.bool)
        finite = ~converged
        rows = torch.arange(len(w.t), device=w.t.device)
        t, y, step, params, peak = w.t, w.y, w.step, w.params, w.peak
        atol = self.atol[w.index]
        z = z_out
        for _ in range(MAX_ITER):
            if len(rows) == 0:
                break
            matrix = stage_matrix(
                self.rhs, self.tableau, t, y, step, params, z, nearby=True
            )
            w.n_jac[rows] += 1
            w.n_lu[rows] += 1
            lu, pivots, _ = torch.linalg.lu_factor_ex(matrix)

            def correction(residual: Tensor, lu=lu, pivots=pivots) -> Tensor:
                flat = residual.flatten(1)[..., None]
                dz = torch.linalg.lu_solve(lu, pivots, flat)[..., 0]
                return -dz.view_as(residual)

            residual = self._residual(t, y, step, params, z)
            finite[rows] = residual.flatten(1).isfinite().all(1)
            dz = correction(residual)
            scale = tolerance(
                y, y + z[:, -1] + dz[:, -1], peak=peak, rtol=1.0, atol=atol
            )[:, None]
            norm = error_norm(dz, scale)
            # A correction this small is applied whole; a larger one must lead to a
            # smaller one.
            damping = torch.ones_like(t)
            while True:
                candidate = z + damping[:, None, None] * dz
                residual = self._residual(t, y, step, params, candidate)
                ahead = error_norm(correction(residual), scale)
                worse = ~(ahead <= (1 - damping / 2) * norm) & (norm > TOL)
                worse = worse & (damping > MIN_DAMPING) & norm.isfinite()
                if not worse.any():
                    break
                damping = torch.where(worse, damping / 2, damping)
            z = candidate
            done = (norm <= TOL) & (damping == 1)
            bad = ~z.flatten(1).isfinite().all(1)
            z_out[rows] = z
            converged[rows[done]] = True
            keep = ~(done | bad)
            rows, z = rows[keep], z[keep]
            t, y, step = t[keep], y[keep], step[keep]
            params, peak, atol = params[keep], peak[keep], atol[keep]
        return z_out, converged, finite

    def _residual(
        self, t: Tensor, y: Tensor, step: Tensor, params: Tensor, z: Tensor
    ) -> Tensor:
        """Return z_i − h Σ_j a_ij f(y + z_j)."""
        f = self.rhs(*stage_rows(self.tableau, t, y, step, params, z)).view_as(z)
        return z - step[:, None, None] * (z.new_tensor(self.tableau.a) @ f)


def stage_rows(
    tableau: RungeKuttaTableau,
    t: Tensor,
    y: Tensor,
    step: Tensor,
    params: Tensor,
    z: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return times, states and params of all stages, one row each."""
    times = t[:, None] + step[:, None] * z.new_tensor(tableau.c)
    states = y[:, None] + z
    return (
        times.flatten(),
        states.flatten(0, 1),
        params.repeat_interleave(len(tableau.c), dim=0),
    )


def stage_matrix(
    rhs: RightHandSide,
    tableau: RungeKuttaTableau,
    t: Tensor,
    y: Tensor,
    step: Tensor,
    params: Tensor,
    z: Tensor,
    nearby: bool = False,
) -> Tensor:
    """Return M of shape (n_samples, n_stages * n_states, n_stages * n_states).

    With ``nearby``, Jacobians that do not exist are replaced by those nearby.
    """
    n_samples, n_stages, n_states = z.shape
    rows = stage_rows(tableau, t, y, step, params, z)
    steps = step.repeat_interleave(n_stages) if nearby else None
    jacobian = rhs.jac(*rows, steps)
    jacobian = jacobian.view(n_samples, n_stages, n_states, n_states)
    # Laid out transposed, [b, j, l, i, k], for LAPACK wants columns.
    minus_ha = -step[:, None, None] * z.new_tensor(tableau.a)
    matrix = z.new_empty(n_samples, n_stages, n_states, n_stages, n_states)
    torch.mul(jacobian.mT[:, :, :, None], minus_ha.mT[:, :, None, :, None], out=matrix)
    matrix = matrix.view(n_samples, n_stages * n_states, n_stages * n_states).mT
    matrix.diagonal(dim1=1, dim2=2).add_(1.0)
    return matrix
