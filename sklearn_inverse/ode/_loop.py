"""The accept/reject loop: every sample has its own time, step and status.

Samples do not wait for each other's steps and do not see each other's errors, so a
sample's result does not depend on its companions. Finished samples leave the batch.
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from sklearn_inverse.ode._radau import RadauMemory, evaluate
from sklearn_inverse.ode._solution import Solution, Status
from sklearn_inverse.ode._step_size import (
    EPS,
    MAX_FACTOR,
    MIN_FACTOR,
    first_step,
    step_factor,
)

__all__ = ["integrate"]

RUNNING = -1


@dataclass
class Walkers:
    """The samples still under way: where each is, and what decides its next step."""

    index: Tensor  # which sample of the batch this is
    t: Tensor
    t_eval: Tensor  # (n_samples, n_times)
    y: Tensor
    f: Tensor  # rhs(t, y)
    params: Tensor
    peak: Tensor  # largest magnitude of each state so far
    step: Tensor
    norm_old: Tensor  # error norm and size of the last accepted step
    step_old: Tensor
    has_old: Tensor
    strict: Tensor  # first step, or just rejected
    n_steps: Tensor
    n_accepted: Tensor
    memory: RadauMemory

    @property
    def t_end(self) -> Tensor:
        """Last output time of each sample."""
        return self.t_eval[:, -1]

    def take(self, index: Tensor) -> "Walkers":
        """Keep the samples at ``index`` only."""
        kept = {f.name: getattr(self, f.name) for f in fields(self)}
        memory = kept.pop("memory").take(index)
        kept = {name: value[index] for name, value in kept.items()}
        return Walkers(memory=memory, **kept)


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
    out = y0.new_full((n_samples, t_eval.shape[1], n_states), torch.nan)
    at_start = t_eval == t_eval[:, :1]
    out = torch.where(at_start[..., None], y0[:, None], out)
    status = torch.full_like(t_eval[:, 0], RUNNING, dtype=torch.int64)
    stats = {
        name: torch.zeros_like(status)
        for name in ("n_steps", "n_accepted", "n_jac", "n_lu")
    }
    if n_samples == 0:
        return Solution(out, status, stats)

    walkers = _start(method, t_eval, y0, params)
    finite = walkers.y.isfinite().all(1) & walkers.f.isfinite().all(1)
    status[walkers.t == walkers.t_end] = Status.SUCCESS
    status[~finite] = Status.NON_FINITE
    while True:
        ended = status[walkers.index] != RUNNING
        if ended.any():
            _leave(walkers.take(ended), stats)
            walkers = walkers.take(~ended)
            if len(walkers.index) == 0:
                return Solution(out, status, stats)
        t_new, attempt, accepted = _attempt(method, walkers)
        _write_outputs(out, walkers, accepted, t_new, attempt)
        factor = _next_step(walkers, attempt, accepted)
        _advance(method, walkers, attempt, accepted, t_new)
        walkers.step = walkers.step * factor
        status[walkers.index] = _status(walkers, accepted, max_steps)


def _start(method, t_eval, y0, params) -> Walkers:
    """Put every sample at its start."""
    t = t_eval[:, 0].clone()
    f = method.rhs(t, y0, params)
    one, yes = torch.ones_like(t), torch.ones_like(t, dtype=torch.bool)
    return Walkers(
        index=torch.arange(len(t), device=t.device),
        t=t,
        t_eval=t_eval,
        y=y0,
        f=f,
        params=params,
        peak=y0.abs(),
        step=first_step(y0, f, t_eval[:, -1] - t),
        norm_old=one,
        step_old=one,
        has_old=~yes,
        strict=yes,
        n_steps=torch.zeros_like(t),
        n_accepted=torch.zeros_like(t),
        memory=method.start(y0),
    )


def _leave(walkers, stats):
    """Write down what the samples that ended have cost."""
    for name, count in {
        "n_steps": walkers.n_steps,
        "n_accepted": walkers.n_accepted,
        "n_jac": walkers.memory.n_jac,
        "n_lu": walkers.memory.n_lu,
    }.items():
        stats[name][walkers.index] = count.long()


def _attempt(method, walkers):
    """Attempt a step of every sample, the last one clipped to end where it must."""
    w = walkers
    last = w.t + w.step * (1 + 1e-10) >= w.t_end
    remaining = w.t_end - w.t
    w.memory.needs_factors |= last & (w.step != remaining)
    w.step = torch.where(last, remaining, w.step)
    attempt = method.attempt(
        w.memory, w.t, w.y, w.f, w.step, w.peak, w.params, w.strict
    )
    w.n_steps += 1
    t_new = torch.where(last, w.t_end, w.t + w.step)
    return t_new, attempt, attempt.converged & (attempt.norm <= 1)


def _next_step(walkers, attempt, accepted):
    """Factor on the step of each sample, and what must be computed anew for it.

    Halve where Newton failed with a fresh Jacobian, refresh an old Jacobian first, follow
    the error elsewhere; a small growth is not worth new factors.
    """
    w, memory = walkers, walkers.memory
    factor = attempt.safety * step_factor(
        attempt.norm, w.norm_old, w.step, w.step_old, w.has_old
    )
    factor = factor.clamp(MIN_FACTOR, MAX_FACTOR)
    failed = ~attempt.converged
    stale = failed & ~memory.jacobian_is_current
    factor = torch.where(failed, torch.where(stale, 1.0, 0.5), factor)
    steady = accepted & ~attempt.slow_newton & (factor >= 1) & (factor < 1.2)
    factor = torch.where(steady, torch.ones_like(factor), factor)
    memory.needs_jacobian |= stale | (accepted & attempt.slow_newton)
    memory.needs_factors |= factor != 1
    return factor


def _advance(method, walkers, attempt, accepted, t_new):
    """Move the samples whose step was accepted; the others stay where they are."""
    w, memory = walkers, walkers.memory
    rows = accepted[:, None]
    memory.polynomial = torch.where(
        rows[..., None], attempt.polynomial, memory.polynomial
    )
    memory.y_old = torch.where(rows, w.y, memory.y_old)
    memory.step_old = torch.where(accepted, w.step, memory.step_old)
    memory.has_polynomial |= accepted
    memory.jacobian_is_current &= ~accepted
    w.norm_old = torch.where(accepted, attempt.norm.clamp(min=1e-2), w.norm_old)
    w.step_old = torch.where(accepted, w.step, w.step_old)
    w.has_old |= accepted
    w.n_accepted += accepted
    w.strict = ~accepted
    w.y = torch.where(rows, attempt.y, w.y)
    w.t = torch.where(accepted, t_new, w.t)
    w.peak = torch.maximum(w.peak, w.y.abs())
    w.f = torch.where(rows, method.rhs(w.t, w.y, w.params), w.f)


def _status(walkers, accepted, max_steps):
    """Status of each sample after this attempt; RUNNING where there is more to do."""
    w = walkers
    status = torch.full_like(w.index, RUNNING)
    status[w.n_steps >= max_steps] = Status.MAX_STEPS
    status[w.step <= 16 * EPS * w.t.abs() + 1e-300] = Status.STEP_UNDERFLOW
    status[accepted & ~w.f.isfinite().all(1)] = Status.NON_FINITE
    status[w.t >= w.t_end] = Status.SUCCESS
    return status


def _write_outputs(out, walkers, accepted, t_new, attempt):
    """Write the collocation polynomial at the output times inside accepted steps."""
    w = walkers
    inside = (
        accepted[:, None] & (w.t_eval > w.t[:, None]) & (w.t_eval <= t_new[:, None])
    )
    row, column = torch.nonzero(inside, as_tuple=True)
    if len(row) == 0:
        return
    theta = (w.t_eval[row, column] - w.t[row]) / w.step[row]
    value = w.y[row] + evaluate(attempt.polynomial[row], theta[:, None])[:, 0]
    at_end = (w.t_eval[row, column] == t_new[row])[:, None]
    out[w.index[row], column] = torch.where(at_end, attempt.y[row], value)
