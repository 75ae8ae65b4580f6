"""The accept/reject loop: every sample has its own time, step and status.

Samples do not wait for each other's steps and do not see each other's errors, so a
sample's result does not depend on its companions. Finished samples leave the batch.
"""

import torch
from torch import Tensor

from sklearn_inverse.ode._radau import evaluate
from sklearn_inverse.ode._solution import Solution, Status
from sklearn_inverse.ode._step_size import (
    EPS,
    MAX_FACTOR,
    MIN_FACTOR,
    first_step,
    step_factor,
)

__all__ = ["integrate"]


def integrate(method, t_eval: Tensor, y0: Tensor, params: Tensor, max_steps: int):
    """Integrate every sample from its first to its last output time.

    Parameters
    ----------
    method : Radau5
        Attempts single steps.

    t_eval : Tensor of shape (n_samples, n_times)
        Output times of each sample, in increasing order.

    y0 : Tensor of shape (n_samples, n_states)
        States at the first output time.

    params : Tensor of shape (n_samples, n_params)
        Params.

    max_steps : int
        Attempted steps after which a sample is given up.

    Returns
    -------
    solution : Solution
        States, status and costs.
    """
    n_samples, n_states = y0.shape
    out = torch.full(
        (n_samples, t_eval.shape[1], n_states),
        torch.nan,
        dtype=y0.dtype,
        device=y0.device,
    )
    status = torch.full((n_samples,), -1, dtype=torch.int64, device=y0.device)
    stats = {
        name: torch.zeros(n_samples, dtype=torch.int64, device=y0.device)
        for name in ("n_steps", "n_accepted", "n_jac", "n_lu")
    }
    if n_samples == 0:
        return Solution(out, status, stats)

    at_start = t_eval == t_eval[:, :1]
    out = torch.where(at_start[..., None], y0[:, None], out)

    active = torch.arange(n_samples, device=y0.device)
    t, t_end = t_eval[:, 0].clone(), t_eval[:, -1]
    y = y0
    f = method.rhs(t, y, params)
    finite = y.isfinite().all(1) & f.isfinite().all(1)
    status[~finite] = Status.NON_FINITE
    status[finite & (t == t_end)] = Status.SUCCESS

    peak = y.abs()
    step = first_step(y, f, t_end - t)
    memory = method.start(y)
    norm_old, step_old = torch.ones_like(t), torch.ones_like(t)
    has_old = torch.zeros_like(finite)  # one accepted step behind it
    strict = torch.ones_like(finite)  # first step, or just rejected
    n_steps, n_accepted = torch.zeros_like(t), torch.zeros_like(t)

    while True:
        ended = status[active] >= 0
        if ended.any():
            for name, count in {
                "n_steps": n_steps,
                "n_accepted": n_accepted,
                "n_jac": memory.n_jac,
                "n_lu": memory.n_lu,
            }.items():
                stats[name][active[ended]] = count[ended].long()
            keep = torch.nonzero(~ended)[:, 0]
            active = active[keep]
            if len(active) == 0:
                return Solution(out, status, stats)
            memory = memory.take(keep)
            t, t_end, y, f, params, peak, step, norm_old, step_old = (
                a[keep]
                for a in (t, t_end, y, f, params, peak, step, norm_old, step_old)
            )
            has_old, strict, n_steps, n_accepted, t_eval = (
                a[keep] for a in (has_old, strict, n_steps, n_accepted, t_eval)
            )

        last = t + step * (1 + 1e-10) >= t_end
        clipped = last & (step != t_end - t)
        step = torch.where(last, t_end - t, step)
        memory.needs_factors |= clipped
        attempt = method.attempt(memory, t, y, f, step, peak, params, strict)
        n_steps += 1
        accepted = attempt.converged & (attempt.norm <= 1)
        t_new = torch.where(last, t_end, t + step)
        _write_outputs(out, active, t_eval, accepted, t, t_new, step, y, attempt)

        # The next step: halve where Newton failed with a fresh Jacobian, refresh an old
        # Jacobian first, follow the error elsewhere; small growth keeps the factors.
        factor = attempt.safety * step_factor(
            attempt.norm, norm_old, step, step_old, has_old
        )
        factor = factor.clamp(MIN_FACTOR, MAX_FACTOR)
        failed = ~attempt.converged
        stale = failed & ~memory.jacobian_is_current
        factor = torch.where(failed, torch.where(stale, 1.0, 0.5), factor)
        steady = accepted & ~attempt.slow_newton & (factor >= 1) & (factor < 1.2)
        factor = torch.where(steady, torch.ones_like(factor), factor)
        memory.needs_jacobian |= stale | (accepted & attempt.slow_newton)
        memory.needs_factors |= factor != 1

        acc = accepted[:, None]
        memory.polynomial = torch.where(
            acc[..., None], attempt.polynomial, memory.polynomial
        )
        memory.y_old = torch.where(acc, y, memory.y_old)
        memory.step_old = torch.where(accepted, step, memory.step_old)
        memory.has_polynomial |= accepted
        memory.jacobian_is_current &= ~accepted
        norm_old = torch.where(accepted, attempt.norm.clamp(min=1e-2), norm_old)
        step_old = torch.where(accepted, step, step_old)
        has_old |= accepted
        n_accepted += accepted

        y = torch.where(acc, attempt.y, y)
        t = torch.where(accepted, t_new, t)
        peak = torch.maximum(peak, y.abs())
        f_new = method.rhs(t, y, params)
        f = torch.where(acc, f_new, f)
        strict = ~accepted
        step = step * factor

        state = torch.full_like(active, -1)
        state[n_steps >= max_steps] = Status.MAX_STEPS
        state[step <= 16 * EPS * t.abs() + 1e-300] = Status.STEP_UNDERFLOW
        state[accepted & ~f.isfinite().all(1)] = Status.NON_FINITE
        state[t >= t_end] = Status.SUCCESS
        status[active] = state


def _write_outputs(out, active, t_eval, accepted, t, t_new, step, y, attempt):
    """Write the collocation polynomial at the output times inside accepted steps."""
    inside = accepted[:, None] & (t_eval > t[:, None]) & (t_eval <= t_new[:, None])
    row, column = torch.nonzero(inside, as_tuple=True)
    if len(row) == 0:
        return
    theta = (t_eval[row, column] - t[row]) / step[row]
    value = y[row] + evaluate(attempt.polynomial[row], theta[:, None])[:, 0]
    at_end = (t_eval[row, column] == t_new[row])[:, None]
    out[active[row], column] = torch.where(at_end, attempt.y[row], value)
