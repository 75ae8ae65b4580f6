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

from dataclasses import dataclass

import torch
from torch import Tensor

from sklearn_inverse.ode._implicit import stage_matrix, stage_rows
from sklearn_inverse.ode._rhs import push_tangents

__all__ = ["Tape", "pull_back", "push_forward"]

MAX_NUMBERS = 8_000_000  # in the factors of the steps linearized together


@dataclass
class Step:
    """One step of some samples, and the outputs inside it."""

    index: Tensor  # which samples of the batch
    t: Tensor
    step: Tensor
    y: Tensor  # at the start
    stages: Tensor
    row: Tensor  # position of each output's sample within ``index``
    column: Tensor  # number of its time
    theta: Tensor  # where that is within the step
    at_end: Tensor


class Tape:
    """The accepted steps of a batch, in the order in which they were taken."""

    def __init__(self):
        self.steps: list[Step] = []

    def record(self, w, attempt, accepted, row, column, theta, at_end):
        """Append the accepted steps of one pass of the loop."""
        i = torch.nonzero(accepted)[:, 0]
        if len(i) == 0:
            return
        position = torch.full_like(w.index, -1)
        position[i] = torch.arange(len(i), device=i.device)
        self.steps.append(
            Step(
                index=w.index[i],
                t=w.t[i],
                step=w.step[i],
                y=w.y[i],
                stages=attempt.stages[i],
                row=position[row],
                column=column,
                theta=theta,
                at_end=at_end,
            )
        )

    def blocks(self):
        """Yield lists of consecutive steps, of bounded memory together."""
        block: list[Step] = []
        n_numbers = 0
        for step in self.steps:
            block.append(step)
            n_numbers += len(step.index) * step.stages[0].numel() ** 2
            if n_numbers >= MAX_NUMBERS:
                yield block
                block, n_numbers = [], 0
        if block:
            yield block


def pull_back(method, tape, t_eval, params, weights, grad):
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

    weights : tuple of Tensor
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


def push_forward(method, tape, t_eval, params, y0_tangents):
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

    def __init__(self, method, block, params, weights):
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
        self._forcing = None

    def pull(self, i, new_bar, stages_bar):
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

    def collect(self):
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

    def push(self, i, tangents):
        """Tangents at the end of step ``i``, and of its stage increments."""
        if self._forcing is None:
            f_k = self.method.rhs.jac_params(*self.rows)
            f_k = f_k.unflatten(0, (len(self.h_a), self.z_shape[0]))
            forcing = torch.einsum("bij,bjnp->binp", self.h_a, f_k)
            self._forcing = forcing.split(self.sizes)
        # dY = dy + dz solves M dY = 1⊗dy + h (A⊗I) f_k dk, since M = I − h (A⊗I) J.
        b = tangents[:, None] + self._forcing[i]
        stages = torch.linalg.lu_solve(*self.factors[i], b.flatten(1, 2)).view_as(b)
        return stages[:, -1], stages - tangents[:, None]


class ReplayedSteps:
    """Derivatives of explicit and Rosenbrock steps, replayed one at a time."""

    def __init__(self, method, block, params, weights):
        self.method, self.block = method, block
        self.params, self.weights = params, weights
        self.params_bar: list[Tensor] = []
        self.weights_bar = [torch.zeros_like(weight) for weight in weights]

    def pull(self, i, new_bar, stages_bar):
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

    def collect(self):
        """Gradients by params (one tensor per step) and weights of the whole block."""
        return self.params_bar[::-1], self.weights_bar

    def push(self, i, tangents):
        """Tangents at the end of step ``i``, and of its stages."""
        s = self.block[i]

        def replay(y, params):
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
