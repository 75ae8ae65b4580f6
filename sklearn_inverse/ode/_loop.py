"""The accept/reject loop: every sample has its own time, step and status.

Samples do not wait for each other's steps and do not see each other's errors, so a
sample's result does not depend on its companions. Finished samples leave the batch.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sklearn_inverse.ode._solution import Solution, Status
from sklearn_inverse.ode._step_size import (
    EPS,
    MAX_FACTOR,
    MIN_FACTOR,
    first_step,
    step_factor,
)
from sklearn_inverse.ode._stepper import evaluate, take

__all__ = ["Walkers", "integrate"]

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
    n_jac: Tensor
    n_lu: Tensor
    memory: Any  # what the method keeps

    @property
    def t_end(self) -> Tensor:
        """Last output time of each sample."""
        return self.t_eval[:, -1]


def integrate(
    method, t_eval: Tensor, y0: Tensor, params: Tensor, step_size, max_steps, tape=None
):
    """Integrate every sample from its first to its last output time.

    Parameters
    ----------
    method : Stepper
        Attempts single steps.

    t_eval : Tensor of shape (n_samples, n_times)
        Output times of each sample, in increasing order.

    y0 : Tensor of shape (n_samples, n_states)
        States at the first output time.

    params : Tensor of shape (n_samples, n_params)
        Params.

    step_size : float or None
        Largest step, of which equal ones lead from one output time to the next; None for
        error control.

    max_steps : int
        Attempted steps after which a sample is given up.

    tape : Tape, default=None
        Records the accepted steps.

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
            left = take(walkers, ended)
            for name, counts in stats.items():
                counts[left.index] = getattr(left, name).long()
            walkers = take(walkers, ~ended)
            if len(walkers.index) == 0:
                return Solution(out, status, stats)
        if step_size is None:
            t_new, attempt, accepted, factor = _adaptive_attempt(method, walkers)
        else:
            t_new, attempt, accepted, factor = _fixed_attempt(
                method, walkers, step_size
            )
        _write_outputs(method, out, walkers, accepted, t_new, attempt, tape)
        _advance(method, walkers, attempt, accepted, t_new)
        walkers.step = walkers.step * factor
        given_up = _is_tiny(walkers) if step_size is None else ~accepted
        status[walkers.index] = _status(walkers, attempt, accepted, given_up, max_steps)


def _start(method, t_eval, y0, params) -> Walkers:
    """Put every sample at its start."""
    t = t_eval[:, 0].clone()
    f = method.rhs(t, y0, params)
    one, yes = torch.ones_like(t), torch.ones_like(t, dtype=torch.bool)
    zero = torch.zeros_like(t)
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
        n_steps=zero,
        n_accepted=zero.clone(),
        n_jac=zero.clone(),
        n_lu=zero.clone(),
        memory=method.start(y0),
    )


def _adaptive_attempt(method, walkers):
    """Attempt a step of every sample, the last one clipped to end where it must."""
    w = walkers
    last = w.t + w.step * (1 + 1e-10) >= w.t_end
    w.step = torch.where(last, w.t_end - w.t, w.step)
    attempt = method.attempt(w)
    t_new = torch.where(last, w.t_end, w.t + w.step)
    accepted = attempt.converged & attempt.finite & (attempt.norm <= 1)
    factor = attempt.safety * step_factor(
        attempt.norm,
        w.norm_old,
        w.step,
        w.step_old,
        w.has_old,
        order=method.error_order,
    )
    highest = torch.where(w.strict & w.has_old, 1.0, MAX_FACTOR)
    factor = torch.minimum(factor.clamp(min=MIN_FACTOR), highest)
    factor = torch.where(attempt.finite, factor, 0.25)
    return t_new, attempt, accepted, method.settle(w, attempt, accepted, factor)


def _fixed_attempt(method, walkers, step_size):
    """Step towards the next output time, which equal steps reach exactly."""
    w = walkers
    ahead = torch.where(w.t_eval > w.t[:, None], w.t_eval, torch.inf)
    target = ahead.amin(1)
    span = target - w.t
    n_left = (span / step_size * (1 - 1e-12)).ceil().clamp(min=1)
    w.step = span / n_left
    attempt = method.attempt(w)
    t_new = torch.where(n_left == 1, target, w.t + w.step)
    return t_new, attempt, attempt.converged & attempt.finite, 1.0


def _write_outputs(method, out, walkers, accepted, t_new, attempt, tape):
    """Write the outputs that lie inside accepted steps, and record these steps."""
    w = walkers
    inside = (
        accepted[:, None] & (w.t_eval > w.t[:, None]) & (w.t_eval <= t_new[:, None])
    )
    row, column = torch.nonzero(inside, as_tuple=True)
    theta = (w.t_eval[row, column] - w.t[row]) / w.step[row]
    at_end = w.t_eval[row, column] == t_new[row]
    if len(row):
        value = attempt.y[row]
        between = torch.nonzero(~at_end)[:, 0]
        if len(between):
            i = row[between]
            p = evaluate(method.polynomial(attempt.stages[i]), theta[between, None])
            value[between] = w.y[i] + p[:, 0]
        out[w.index[row], column] = value
    if tape is not None:
        tape.record(w, attempt, accepted, row, column, theta, at_end)


def _advance(method, walkers, attempt, accepted, t_new):
    """Move the samples whose step was accepted; the others stay where they are."""
    w = walkers
    rows = accepted[:, None]
    w.norm_old = torch.where(accepted, attempt.norm.clamp(min=1e-2), w.norm_old)
    w.step_old = torch.where(accepted, w.step, w.step_old)
    w.has_old = w.has_old | accepted
    w.n_steps += 1
    w.n_accepted += accepted
    w.strict = ~accepted
    w.y = torch.where(rows, attempt.y, w.y)
    w.t = torch.where(accepted, t_new, w.t)
    w.peak = torch.maximum(w.peak, w.y.abs())
    f = method.rhs(w.t, w.y, w.params) if attempt.f is None else attempt.f
    w.f = torch.where(rows, f, w.f)


def _is_tiny(walkers):
    """Whether the next step would vanish beside the time."""
    return walkers.step <= 16 * EPS * walkers.t.abs() + 1e-300


def _status(walkers, attempt, accepted, given_up, max_steps):
    """Status of each sample after this attempt; RUNNING where there is more to do."""
    w = walkers
    status = torch.full_like(w.index, RUNNING)
    status[w.n_steps >= max_steps] = Status.MAX_STEPS
    status[given_up] = Status.STEP_UNDERFLOW
    status[given_up & ~attempt.converged] = Status.NEWTON_FAILURE
    status[given_up & ~attempt.finite] = Status.NON_FINITE
    status[accepted & ~w.f.isfinite().all(1)] = Status.NON_FINITE
    status[w.t >= w.t_end] = Status.SUCCESS
    return status
