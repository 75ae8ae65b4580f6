"""The accept/reject loop: every sample has its own time, step and status.

Samples do not wait for each other's steps and do not see each other's errors, so a
sample's result does not depend on its companions. Finished samples leave the batch.
"""

import torch
from torch import Tensor

from sklearn_inverse.ode._crossings import find_events
from sklearn_inverse.ode._guards import Guards
from sklearn_inverse.ode._solution import STOPPED, Solution, Status
from sklearn_inverse.ode._step_size import (
    EPS,
    MAX_FACTOR,
    MIN_FACTOR,
    dense_factor,
    first_step,
    step_factor,
)
from sklearn_inverse.ode._stepper import Attempt, Stepper, Walkers, take
from sklearn_inverse.ode._tape import Tape

__all__ = ["integrate"]

RUNNING = -1
COUNTS = "n_steps", "n_accepted", "n_jac", "n_lu"
MAX_DENSE_NORM = 5.0  # error of an output in units of its tolerance
MAX_LEAST = 4  # least steps in a row that may cross a jump
UNSTABLE = 3.0  # of the state: by so much no explicit step may change it
WINDOW, MAX_IDLE = 250, 8  # attempts, and windows of them without progress


class Outputs:
    """The states at the output times, as far as they are known."""

    def __init__(self, t_eval: Tensor, y0: Tensor):
        self.t_eval = t_eval
        self.shared = t_eval[0].contiguous() if t_eval.stride(0) == 0 else None
        shape = (*t_eval.shape, y0.shape[1])
        self.n_times = t_eval.shape[1]
        self.y = y0.new_full(shape, torch.nan)
        at_start = t_eval == t_eval[:, :1]
        self.y = torch.where(at_start[..., None], y0[:, None], self.y)

    def count_until(self, index: Tensor, t: Tensor) -> Tensor:
        """Count the output times of the samples at ``index`` up to ``t``."""
        if self.shared is not None:
            return torch.searchsorted(self.shared, t, right=True)
        return torch.searchsorted(self.t_eval[index], t[:, None], right=True)[:, 0]

    def between(self, w: Walkers, until: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the outputs that come next, up to a time: whose, which, and when."""
        counts = self.count_until(w.index, until) - w.n_written
        row = torch.repeat_interleave(counts)
        within = torch.arange(len(row), device=row.device)
        column = w.n_written[row] + within - (counts.cumsum(0) - counts)[row]
        return row, column, self.time(w.index[row], column)

    def time(self, index: Tensor, column: Tensor) -> Tensor:
        """Output times of some samples."""
        return self.t_eval[index, column]

    def stop(self, w: Walkers, attempt: Attempt, t_new: Tensor) -> Tensor:
        """Return where steps end that events may stop, which become outputs there.

        In place of the first ones that come not before them.
        """
        assert attempt.stop is not None
        assert attempt.fired is not None
        stops = attempt.fired.any(1)
        t_stop = (w.t + attempt.stop * w.step).minimum(t_new)
        t_new = torch.where(stops, t_stop, t_new)
        i, t = w.index[stops], t_stop[stops, None]
        column = torch.searchsorted(self.t_eval[i], t)[:, 0]
        self.t_eval[i, column.maximum(w.n_written[stops])] = t[:, 0]
        return t_new

    def write(
        self,
        method: Stepper,
        w: Walkers,
        accepted: Tensor,
        t_new: Tensor,
        attempt: Attempt,
        tape: Tape | None,
    ) -> None:
        """Write the outputs inside accepted steps, and record these steps."""
        row, column, t_out = self.between(w, torch.where(accepted, t_new, w.t))
        w.n_written = w.n_written.index_add(0, row, torch.ones_like(row))
        theta = (t_out - w.t[row]) / w.step[row]
        at_end = t_out == t_new[row]
        if attempt.stop is not None:  # by an event: that is where its leg ends
            stops = at_end & (attempt.stop[row] < 1)
            theta = torch.where(stops, attempt.stop[row], theta)
            at_end = at_end & ~stops
        if len(row):
            value = attempt.y[row]
            if not at_end.all():
                inside = method.stage_weights(theta)[:, None] @ attempt.stages[row]
                value = torch.where(at_end[:, None], value, w.y[row] + inside[:, 0])
            self.y[w.index[row], column] = value
        if tape is not None:
            tape.record(w, attempt, accepted, row, column, theta, at_end)


def integrate(
    method: Stepper,
    t_eval: Tensor,
    y0: Tensor,
    params: Tensor,
    step_size: float | None,
    max_steps: int,
    max_step: float = float("inf"),
    tape: Tape | None = None,
    guards: Guards | None = None,
    starts: Tensor | None = None,
) -> Solution:
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

    max_step : float, default=inf
        Largest step under error control.

    tape : Tape, default=None
        Records the accepted steps.

    guards : Guards, default=None
        Where to stop.

    starts : Tensor of shape (n_samples, 2, n_guards), default=None
        As those of the guards; None if there are none.

    Returns
    -------
    solution : Solution
        States, status and costs.
    """
    status = torch.full_like(t_eval[:, 0], RUNNING, dtype=torch.int64)
    stats = {name: torch.zeros_like(status) for name in COUNTS}
    t_reached, fastest_state = t_eval[:, 0].clone(), torch.zeros_like(status)
    if starts is None:
        guards, starts = None, y0.new_zeros(len(y0), 2, 0)
    else:
        t_eval, stats["fired"] = t_eval.clone(), torch.zeros_like(starts[:, 0])
    stats |= {"t_reached": t_reached, "fastest_state": fastest_state}
    if len(y0) == 0:
        return Solution(y0.new_zeros(*t_eval.shape, y0.shape[1]), status, stats)

    outputs = Outputs(t_eval, y0)
    walkers = _start(method, outputs, y0, params, starts)
    finite = walkers.y.isfinite().all(1) & walkers.f.isfinite().all(1)
    finite = finite & walkers.sign.isfinite().all(1)
    status[walkers.t == walkers.t_end] = Status.SUCCESS
    status[~finite] = Status.NON_FINITE
    while True:
        ended = status[walkers.index] != RUNNING
        if ended.any():
            left = take(walkers, ended)
            for name in COUNTS:
                stats[name][left.index] = getattr(left, name).long()
            t_reached[left.index] = left.t
            fastest = (left.f.abs() / method.scale(left)).argmax(1)
            fastest_state[left.index] = fastest
            walkers = take(walkers, ~ended)
            if len(walkers.index) == 0:
                return Solution(outputs.y, status, stats)
        if step_size is None:
            t_new, attempt, accepted, step, given_up = _adaptive_attempt(
                method, walkers, outputs, max_step, guards
            )
        else:
            t_new, attempt, accepted, step, given_up = _fixed_attempt(
                method, walkers, outputs, step_size
            )
        if attempt.fired is not None:
            stats["fired"][walkers.index] = attempt.fired
            t_new = outputs.stop(walkers, attempt, t_new)
        outputs.write(method, walkers, accepted, t_new, attempt, tape)
        _advance(method, walkers, attempt, accepted, t_new)
        walkers.step = step
        status[walkers.index] = _status(walkers, attempt, accepted, given_up, max_steps)


def _start(
    method: Stepper, outputs: Outputs, y0: Tensor, params: Tensor, starts: Tensor
) -> Walkers:
    """Put every sample at its start."""
    t, t_end = outputs.t_eval[:, 0].clone(), outputs.t_eval[:, -1].clone()
    index = torch.arange(len(t), device=t.device)
    f = method.rhs(t, y0, params)
    one, yes = torch.ones_like(t), torch.ones_like(t, dtype=torch.bool)
    zero = torch.zeros_like(t)
    return Walkers(
        index=index,
        t=t,
        t_end=t_end,
        n_written=outputs.count_until(index, t),
        y=y0,
        f=f,
        params=params,
        peak=y0.abs(),
        step=first_step(y0, f, t, t_end, method.atol),
        norm_old=one,
        step_old=one,
        has_old=~yes,
        strict=yes,
        stops=~yes,
        sign=starts[:, 0],
        offset=starts[:, 1],
        n_least=torch.zeros_like(index),
        n_idle=torch.zeros_like(index),
        mark=torch.stack([t, torch.full_like(t, torch.inf), zero], dim=1),
        n_steps=zero,
        n_accepted=zero.clone(),
        n_jac=zero.clone(),
        n_lu=zero.clone(),
        memory=method.start(y0),
    )


def _adaptive_attempt(
    method: Stepper,
    walkers: Walkers,
    outputs: Outputs,
    max_step: float,
    guards: Guards | None,
):
    """Attempt a step of every sample, clipped to end where it must."""
    w = walkers
    least = _least_step(w.t)
    is_least = w.step <= least
    next_output = outputs.time(w.index, w.n_written)
    target = torch.where(w.stops, next_output, w.t_end)
    w.step = torch.maximum(w.step.clamp(max=max_step), least)
    clipped = w.t + w.step * (1 + 1e-10) >= target
    w.step = torch.where(clipped, target - w.t, w.step)
    t_new = torch.where(clipped, target, w.t + w.step)
    attempt = method.attempt(w)
    solved = attempt.converged & attempt.finite
    outside = next_output < t_new
    dense_norm = _judge_dense_output(
        method, w, outputs, attempt, solved, outside, t_new
    )
    within = attempt.norm <= 1
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

    across = is_least & solved & ~within
    if across.any():
        across = across & _is_jump(method, w, attempt, t_new)
    w.n_least = torch.where(solved & within, 0, w.n_least + across)
    across = across & (w.n_least <= MAX_LEAST)
    accepted = solved & (within & ~(outside & (dense_norm > MAX_DENSE_NORM)) | across)
    refused = torch.zeros_like(accepted)
    if guards is not None:
        refused = _find_events(method, guards, w, outputs, attempt, accepted, t_new)
        accepted = accepted & ~refused
    step = w.step * method.settle(w, attempt, accepted, factor)

    # Only as far as the dense output is good for, but to the next output at least.
    largest = w.step * dense_factor(dense_norm / MAX_DENSE_NORM, method.error_order)
    t_next = torch.where(accepted, t_new, w.t)
    n_written = torch.where(accepted, outputs.count_until(w.index, t_new), w.n_written)
    way = outputs.time(w.index, n_written.clamp(max=outputs.n_times - 1)) - t_next
    w.stops = (largest < step) & (largest < way)
    step = torch.minimum(step, torch.maximum(largest, way))
    if attempt.stop is not None:  # where the dense output is off, on its way there
        step = torch.where(refused, w.step * attempt.stop.clamp(max=0.5), step)
    return t_new, attempt, accepted, step, is_least & ~accepted


def _find_events(
    method: Stepper,
    guards: Guards,
    walkers: Walkers,
    outputs: Outputs,
    attempt: Attempt,
    accepted: Tensor,
    t_new: Tensor,
) -> Tensor:
    """Find the events in accepted steps; return those where the dense output is off."""
    w, sign = walkers, walkers.sign
    row, _, t_out = outputs.between(w, torch.where(accepted, t_new, w.t))
    theta = ((t_out - w.t[row]) / w.step[row]).clamp(max=1.0)
    find_events(method, guards, w, attempt, accepted, row, theta)
    assert attempt.stop is not None
    assert attempt.fired is not None
    stops = torch.nonzero(attempt.fired.any(1) & (attempt.stop < 1))[:, 0]
    refused = torch.zeros_like(accepted)
    if len(stops):
        norm = method.dense_norm(w, attempt, stops, attempt.stop[stops])
        is_least = w.step <= 2 * _least_step(w.t)
        refused[stops] = (~is_least & (norm > MAX_DENSE_NORM))[stops]
        attempt.fired = torch.where(refused[:, None], 0.0, attempt.fired)
        w.sign = torch.where(refused[:, None], sign, w.sign)
    return refused


def _judge_dense_output(
    method: Stepper,
    walkers: Walkers,
    outputs: Outputs,
    attempt: Attempt,
    solved: Tensor,
    outside: Tensor,
    t_new: Tensor,
) -> Tensor:
    """Error / tolerance of outputs inside the step, zero where there are none.

    It says more: where it is as bad as the estimate, stiff components follow an input.
    There the order of a method is that of its stages, and a solution that is better than
    its estimate (as that of Radau IIA) is so no longer.
    """
    demanded = attempt.norm * method.strictness
    asked = walkers.stops | outside | (demanded > MAX_DENSE_NORM)
    asked = asked & solved & (attempt.norm <= 1)
    if not asked.any():
        return torch.zeros_like(demanded)
    until = torch.where(asked & outside, t_new, walkers.t)
    row, _, t_out = outputs.between(walkers, until)
    inside = t_out < t_new[row]
    row, t_out = row[inside], t_out[inside]
    theta = (t_out - walkers.t[row]) / walkers.step[row]
    norm = method.dense_norm(walkers, attempt, row, theta)
    norm = torch.where(asked, norm, 0.0)
    reduced = torch.where(2 * norm > demanded, demanded / MAX_DENSE_NORM, 0.0)
    attempt.norm = torch.maximum(attempt.norm, reduced)
    return torch.where(walkers.stops | outside, norm, 0.0)


def _fixed_attempt(
    method: Stepper, walkers: Walkers, outputs: Outputs, step_size: float
):
    """Step towards the next output time, which equal steps reach exactly."""
    w = walkers
    target = outputs.time(w.index, w.n_written)
    span = target - w.t
    n_left = (span / step_size * (1 - 1e-12)).ceil().clamp(min=1)
    w.step = span / n_left
    attempt = method.attempt(w)
    t_new = torch.where(n_left == 1, target, w.t + w.step)
    accepted = attempt.converged & attempt.finite
    unstable = accepted & _is_unstable(method, w, attempt, t_new)
    attempt.stable = ~unstable
    accepted = accepted & ~unstable
    return t_new, attempt, accepted, w.step, ~accepted


def _advance(
    method: Stepper, walkers: Walkers, attempt: Attempt, accepted: Tensor, t_new: Tensor
) -> None:
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


def _least_step(t: Tensor) -> Tensor:
    """Return the step below which time would stand still."""
    return 16 * EPS * t.abs() + 1e-300


def _is_jump(
    method: Stepper, walkers: Walkers, attempt: Attempt, t_new: Tensor
) -> Tensor:
    """Whether a step moves the state because of the time that passes, not of itself.

    A state that an input lifts off zero has a large error relative to itself, however
    small the step: a least step across the jump is off by no more than f·16·eps·t. Where
    the state feeds itself, as in all that blows up, the rest of the step would be wrong.
    """
    f = method.rhs(t_new, attempt.y, walkers.params)
    return _feedback(method, walkers, attempt.y, t_new, f) <= 0.1


def _is_unstable(
    method: Stepper, walkers: Walkers, attempt: Attempt, t_new: Tensor
) -> Tensor:
    """Whether the next explicit step of this size would multiply the state.

    Then this one has been no better, and the solution blows up, or seems to.
    """
    w = walkers
    if not method.is_explicit:
        return torch.zeros_like(w.stops)
    f = method.rhs(t_new, attempt.y, w.params)
    large = (w.step[:, None] * f.abs() > UNSTABLE * _size(w, attempt.y)).any(1)
    if not large.any():
        return large
    return large & (_feedback(method, w, attempt.y, t_new, f) > UNSTABLE)


def _feedback(
    method: Stepper, walkers: Walkers, y_new: Tensor, t_new: Tensor, f_new: Tensor
) -> Tensor:
    """Return how far the state's move moves it further in a step, relative to itself."""
    w = walkers
    size = _size(w, y_new)
    moved = ((y_new - w.y) / size).abs().amax(1)
    further = w.step[:, None] * (f_new - method.rhs(t_new, w.y, w.params))
    further = (further / size).abs().amax(1)
    return torch.where(moved > 0, further / moved, 0.0)


def _size(walkers: Walkers, y_new: Tensor) -> Tensor:
    """Return the largest magnitude of each state so far."""
    return torch.maximum(walkers.peak, y_new.abs()).clamp(min=1e-290)


def _is_idle(walkers: Walkers, max_steps: int) -> Tensor:
    """Whether samples have led nowhere for so long that they never will.

    Judged every ``WINDOW`` attempts: steps do not grow, and at their pace the end is
    further away than ten times ``max_steps``. Once is enough where many are rejected, as
    where the right-hand side jumps with the state, back and forth, or is random.
    """
    w = walkers
    due = w.n_steps % WINDOW == 0
    if not due.any():
        return due
    t, step, n_accepted = w.mark.unbind(1)
    hopeless = (w.t_end - w.t) * WINDOW > 10 * max_steps * (w.t - t)
    idle = hopeless & (w.step <= 10 * step)
    rejected = w.n_accepted - n_accepted < 0.8 * WINDOW
    more = torch.where(rejected, MAX_IDLE, 1)
    w.n_idle = torch.where(due, torch.where(idle, w.n_idle + more, 0), w.n_idle)
    mark = torch.stack([w.t, w.step, w.n_accepted], dim=1)
    w.mark = torch.where(due[:, None], mark, w.mark)
    return due & (w.n_idle >= MAX_IDLE)


def _status(
    walkers: Walkers,
    attempt: Attempt,
    accepted: Tensor,
    given_up: Tensor,
    max_steps: int,
) -> Tensor:
    """Status of each sample after this attempt; RUNNING where there is more to do."""
    w = walkers
    status = torch.full_like(w.index, RUNNING)
    status[_is_idle(w, max_steps)] = Status.NO_PROGRESS
    status[w.n_steps >= max_steps] = Status.MAX_STEPS
    status[given_up] = Status.STEP_UNDERFLOW
    status[given_up & ~attempt.converged] = Status.NEWTON_FAILURE
    status[given_up & ~attempt.finite] = Status.NON_FINITE
    known = w.f.isfinite().all(1) & w.sign.isfinite().all(1)
    status[accepted & ~known] = Status.NON_FINITE
    if attempt.stable is not None:
        status[~attempt.stable] = Status.UNSTABLE
    if attempt.has_jacobian is not None:
        lost = ~accepted & w.f.isfinite().all(1) & ~attempt.has_jacobian
        status[lost] = Status.NON_FINITE_JACOBIAN
    status[w.t >= w.t_end] = Status.SUCCESS
    if attempt.fired is not None:
        status[attempt.fired.any(1)] = STOPPED
    return status
