r"""Exact derivatives of a discrete solution, from a tape of its accepted steps.

Reverse mode pulls the gradient of a loss back through the steps, last to first; forward
mode pushes the tangents :math:`S = \partial y / \partial k` through them, first to last.
Step sizes are held fixed. Implicit steps are differentiated by the implicit function
theorem, without unrolling Newton's method: with the stage matrix M of
:mod:`~sklearn_inverse.ode._implicit`,

.. math:: M\,\mathrm{d}z = h (A \otimes I) (J\,\mathrm{d}y + f_k\,\mathrm{d}k), \qquad
          M^T \mu = \bar z, \quad \nu = h A^T \mu, \quad
          \bar y \mathrel{+}= J^T \nu, \quad \bar k \mathrel{+}= f_k^T \nu.

All other steps are replayed under automatic differentiation, one at a time, so that no
graph outlives a step.
"""

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from sklearn_inverse.ode._implicit import stage_matrix, stage_rows
from sklearn_inverse.ode._rhs import push_tangents
from sklearn_inverse.ode._stepper import Stepper
from sklearn_inverse.ode._tape import Step, Tape

__all__ = ["pull_back", "push_forward"]


def pull_back(
    method: Stepper,
    tape: Tape,
    t_eval: Tensor,
    params: Tensor,
    weights: Sequence[Tensor],
    grad: Tensor,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Gradient of a loss by the initial states, params and weights.

    Parameters
    ----------
    method : Stepper
        The method that took the steps.

    tape : Tape
        Its accepted steps.

    t_eval : Tensor of shape (n_samples, n_times)
        Output times.

    params : Tensor of shape (n_samples, n_params)
        Params.

    weights : sequence of Tensor
        Further tensors that the right-hand side depends on (those of a network).

    grad : Tensor of shape (n_samples, n_times, n_states)
        Gradient of the loss by the outputs.

    Returns
    -------
    y_bar, params_bar, weights_bar : Tensor, Tensor, list of Tensor
        Gradients.
    """
    y_bar = grad.new_zeros(grad.shape[0], grad.shape[2])
    params_bar = torch.zeros_like(params)
    weights_bar = [torch.zeros_like(weight) for weight in weights]
    for block in reversed(list(tape.blocks())):
        linear = _linearize(method, block, params, weights)
        for i in reversed(range(len(block))):
            s = block[i]
            value_bar = grad[s.index[s.row], s.column]
            end, between = s.at_end, ~s.at_end
            new_bar = y_bar[s.index].index_add(0, s.row[end], value_bar[end])
            stages_bar = None
            direct = torch.zeros_like(new_bar)
            if between.any():
                # The output is y + Σ_i w_i(θ) stage_i.
                bar, row = value_bar[between], s.row[between]
                weights_at = method.stage_weights(s.theta[between])
                stages_bar = torch.zeros_like(s.stages).index_add(
                    0, row, weights_at[:, :, None] * bar[:, None]
                )
                direct = direct.index_add(0, row, bar)
            y_bar[s.index] = direct + linear.pull(i, new_bar, stages_bar)
        block_params, block_weights = linear.collect()
        for s, bar in zip(block, block_params):
            params_bar.index_add_(0, s.index, bar)
        for total, bar in zip(weights_bar, block_weights):
            total += bar
    at_start = t_eval == t_eval[:, :1]
    y_bar += torch.where(at_start[..., None], grad, 0.0).sum(1)
    return y_bar, params_bar, weights_bar


def push_forward(
    method: Stepper, tape: Tape, t_eval: Tensor, params: Tensor, y0_tangents: Tensor
) -> Tensor:
    """Sensitivities of the outputs to the params.

    Parameters
    ----------
    method, tape, t_eval, params
        As for :func:`pull_back`.

    y0_tangents : Tensor of shape (n_samples, n_states, n_params)
        Sensitivities of the initial states.

    Returns
    -------
    sensitivities : Tensor of shape (n_samples, n_times, n_states, n_params)
        ∂y/∂k, NaN at output times that were not reached.
    """
    tangents = y0_tangents.clone()
    out = tangents.new_full((*t_eval.shape, *tangents.shape[1:]), torch.nan)
    at_start = t_eval == t_eval[:, :1]
    out = torch.where(at_start[..., None, None], tangents[:, None], out)
    for block in tape.blocks():
        linear = _linearize(method, block, params, ())
        for i, s in enumerate(block):
            old = tangents[s.index]
            new, stages = linear.push(i, old)
            value = new[s.row]
            between = torch.nonzero(~s.at_end)[:, 0]
            if len(between):
                row = s.row[between]
                weights_at = method.stage_weights(s.theta[between])
                inside = torch.einsum("rs,rsnp->rnp", weights_at, stages[row])
                value[between] = old[row] + inside
            out[s.index[s.row], s.column] = value
            tangents[s.index] = new
    return out


def _linearize(method, block, params, weights):
    if hasattr(method, "replay"):
        return ReplayedSteps(method, block, params, weights)
    return ImplicitSteps(method, block, params, weights)


class ImplicitSteps:
    """Derivatives of a block of implicit Runge–Kutta steps, factorized together."""

    def __init__(
        self, method, block: list[Step], params: Tensor, weights: Sequence[Tensor]
    ):
        self.method, self.block, self.weights = method, block, weights
        self.sizes = [len(s.index) for s in block]
        t, y, step, z = (
            torch.cat([getattr(s, name) for s in block])
            for name in ("t", "y", "step", "stages")
        )
        params = params[torch.cat([s.index for s in block])]
        tableau = method.tableau
        self.rows = stage_rows(tableau, t, y, step, params, z)
        matrix = stage_matrix(method.rhs, tableau, t, y, step, params, z)
        self.h_a = step[:, None, None] * z.new_tensor(tableau.a)
        self.z_shape = z.shape[1:]
        factors = torch.linalg.lu_factor_ex(matrix)
        self.factors = list(zip(*(x.split(self.sizes) for x in factors[:2])))
        self.nu: list[Tensor] = []  # of the steps pulled so far, last to first
        self._h_a_split = self.h_a.split(self.sizes)

    def pull(self, i: int, new_bar: Tensor, stages_bar: Tensor | None) -> Tensor:
        """Gradient by the state at the start of step ``i``."""
        n_stages, n_states = self.z_shape
        z_bar = new_bar.new_zeros(len(new_bar), n_stages, n_states)
        if stages_bar is not None:
            z_bar += stages_bar
        z_bar[:, -1] += new_bar
        mu = torch.linalg.lu_solve(
            *self.factors[i], z_bar.flatten(1)[..., None], adjoint=True
        )
        mu = mu.view_as(z_bar)
        self.nu.append(self._h_a_split[i].mT @ mu)
        # By M^T μ = z̄, Σ_j J_j^T ν_j = Σ_j (μ_j − z̄_j); the gradient by the state at
        # the end is in z̄ and cancels, and must not be rounded against in stiff steps.
        y_bar = mu.sum(1)
        return y_bar if stages_bar is None else y_bar - stages_bar.sum(1)

    def collect(self) -> tuple[Sequence[Tensor], list[Tensor]]:
        """Gradients by params (one tensor per step) and weights of the whole block."""
        nu = torch.cat(self.nu[::-1])
        times, states, params = self.rows
        with torch.enable_grad():
            params = params.detach().requires_grad_()
            f = self.method.rhs(times, states, params)
        params_bar, *weights_bar = _gradients(
            [f], [params, *self.weights], [nu.flatten(0, 1)]
        )
        by_step = params_bar.view(len(nu), self.z_shape[0], -1).sum(1)
        return by_step.split(self.sizes), weights_bar

    def push(self, i: int, tangents: Tensor) -> tuple[Tensor, Tensor]:
        """Tangents at the end of step ``i``, and of its stage increments."""
        # dY = dy + dz solves M dY = 1⊗dy + h (A⊗I) f_k dk, since M = I − h (A⊗I) J.
        b = tangents[:, None] + self._forcing[i]
        stages = torch.linalg.lu_solve(*self.factors[i], b.flatten(1, 2)).view_as(b)
        return stages[:, -1], stages - tangents[:, None]

    @cached_property
    def _forcing(self) -> Sequence[Tensor]:
        """Return h (A⊗I) f_k of each step, (n_samples, n_stages, n_states, n_params)."""
        f_k = self.method.rhs.jac_params(*self.rows)
        f_k = f_k.unflatten(0, (len(self.h_a), self.z_shape[0]))
        return torch.einsum("bij,bjnp->binp", self.h_a, f_k).split(self.sizes)


class ReplayedSteps:
    """Derivatives of explicit and Rosenbrock steps, replayed one at a time."""

    def __init__(
        self, method, block: list[Step], params: Tensor, weights: Sequence[Tensor]
    ):
        self.method, self.block = method, block
        self.params, self.weights = params, weights
        self.params_bar: list[Tensor] = []
        self.weights_bar = [torch.zeros_like(weight) for weight in weights]

    def pull(self, i: int, new_bar: Tensor, stages_bar: Tensor | None) -> Tensor:
        """Gradient by the state at the start of step ``i``."""
        s = self.block[i]
        y = s.y.detach().requires_grad_()
        params = self.params[s.index].detach().requires_grad_()
        with torch.enable_grad():
            y_new, stages = self.method.replay(s.t, y, s.step, params)
        outputs, bars = [y_new], [new_bar]
        if stages_bar is not None:
            outputs, bars = [y_new, stages], [new_bar, stages_bar]
        y_bar, params_bar, *weights_bar = _gradients(
            outputs, [y, params, *self.weights], bars
        )
        self.params_bar.append(params_bar)
        for total, bar in zip(self.weights_bar, weights_bar):
            total += bar
        return y_bar

    def collect(self) -> tuple[Sequence[Tensor], list[Tensor]]:
        """Gradients by params (one tensor per step) and weights of the whole block."""
        return self.params_bar[::-1], self.weights_bar

    def push(self, i: int, tangents: Tensor) -> tuple[Tensor, Tensor]:
        """Tangents at the end of step ``i``, and of its stages."""
        s = self.block[i]

        def replay(y: Tensor, params: Tensor) -> Tensor:
            y_new, stages = self.method.replay(s.t, y, s.step, params)
            return torch.cat([y_new[:, None], stages], dim=1)

        n_params = tangents.shape[-1]
        eye = torch.eye(n_params, dtype=tangents.dtype, device=tangents.device)
        directions = tangents.movedim(-1, 0), eye[:, None].expand(-1, len(s.index), -1)
        pushed = push_tangents(replay, (s.y, self.params[s.index]), directions)
        pushed = pushed.movedim(0, -1)
        return pushed[:, 0], pushed[:, 1:]


def _gradients(outputs, inputs, bars) -> list[Tensor]:
    """Gradients by all inputs, zero by those that no output depends on."""
    tracked = [(f, bar) for f, bar in zip(outputs, bars) if f.requires_grad]
    if not tracked:
        return [torch.zeros_like(x) for x in inputs]
    outputs, bars = zip(*tracked)
    grads = torch.autograd.grad(outputs, inputs, bars, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, grads)]
