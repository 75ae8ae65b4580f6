"""One attempted step of an explicit Runge–Kutta method, for every sample at once."""

import numpy as np
import torch
from torch import Tensor

from sklearn_inverse.ode._rhs import RightHandSide
from sklearn_inverse.ode._step_size import error_norm
from sklearn_inverse.ode._stepper import Attempt, Stepper, Walkers

__all__ = ["ExplicitRungeKutta", "combine"]


class ExplicitRungeKutta(Stepper):
    """Euler, RK4 or Tsit5."""

    is_explicit = True

    def __init__(self, tableau, rhs: RightHandSide, rtol: float, atol: Tensor):
        super().__init__(tableau, rhs, rtol, atol)
        self.error_order = 0 if tableau.error is None else tableau.order - 1
        # First same as last: the last stage is the right-hand side at the end.
        self.fsal = bool((tableau.a[-1] == tableau.b).all())

    def attempt(self, w: Walkers) -> Attempt:
        """Attempt one step of every sample."""
        y, stages = self._step(w.t, w.y, w.f, w.step, w.params)
        norm = torch.zeros_like(w.t)
        if self.error_order:
            error = w.step[:, None] * combine(self.tableau.error, stages)
            norm = error_norm(error, self.scale(w, y))
        finite = y.isfinite().all(1) & norm.isfinite()
        return Attempt(
            y=y,
            stages=w.step[:, None, None] * torch.stack(stages, dim=1),
            norm=norm,
            converged=torch.ones_like(finite),
            finite=finite,
            f=stages[-1] if self.fsal else None,
        )

    def _step(
        self, t: Tensor, y: Tensor, f: Tensor, step: Tensor, params: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the state at the end and the list of stages k_i."""
        h = step[:, None]
        stages = [f]
        for a, c in zip(self.tableau.a[1:], self.tableau.c[1:]):
            stages.append(self.rhs(t + c * step, y + h * combine(a, stages), params))
        return y + h * combine(self.tableau.b, stages), stages

    def replay(
        self, t: Tensor, y: Tensor, step: Tensor, params: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return (state at the end, increments h k_i), differentiably."""
        y_new, stages = self._step(t, y, self.rhs(t, y, params), step, params)
        return y_new, step[:, None, None] * torch.stack(stages, dim=1)


def combine(weights: np.ndarray, tensors: list[Tensor]) -> Tensor:
    """Return Σ_j weights[j] tensors[j], skipping zeros; one operation per term."""
    terms = [(float(w), x) for w, x in zip(weights, tensors) if w != 0]
    if not terms:
        return torch.zeros_like(tensors[0])
    weight, total = terms[0][0], terms[0][1]
    total = weight * total
    for weight, x in terms[1:]:
        total = total.add(x, alpha=weight)
    return total
