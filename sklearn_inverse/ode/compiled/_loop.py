"""The loop over the steps: samples on lanes, each with its own time, step and status."""

import numpy as np
from numba import njit
from numba.extending import register_jitable

from sklearn_inverse.ode._solution import STOPPED, Status
from sklearn_inverse.ode._step_size import EPS
from sklearn_inverse.ode.compiled._crossings import stop_at_events
from sklearn_inverse.ode.compiled._objects import FINGERPRINT
from sklearn_inverse.ode.compiled._outputs import (
    expand,
    find_outputs,
    try_outputs,
    write_outputs,
)
from sklearn_inverse.ode.compiled._step import (
    advance,
    attempt,
    differentiate,
    evaluate,
    judge,
    refuse_by_tangents,
    set_steps,
)
from sklearn_inverse.ode.compiled._vectors import (
    LANES,
    any_positive,
    doubles,
    fill,
    ints,
    less,
    load,
    store,
)
from sklearn_inverse.ode.compiled._workspace import (
    FIRST,
    N_FORCED,
    N_INT_ROWS,
    N_STIFF,
    NO_SAMPLE,
    OUTPUT,
    OUTPUT_END,
    SAMPLE,
    get,
    put,
)

__all__ = ["GIVEN_UP", "integrate", "run_cached"]

RUNNING = -1
GIVEN_UP = -3  # by this method, for another one
SUCCESS = int(Status.SUCCESS)
MAX_STEPS = int(Status.MAX_STEPS)
STEP_UNDERFLOW = int(Status.STEP_UNDERFLOW)
NON_FINITE = int(Status.NON_FINITE)
NON_FINITE_JACOBIAN = int(Status.NON_FINITE_JACOBIAN)


@njit(nogil=True, cache=True, error_model="numpy")
def integrate(code, at, task):
    """Integrate all samples by one method."""
    work, lanes, y = doubles(task.work), ints(task.lanes), doubles(task.y)
    samples, n_tangents = ints(task.samples), 0
    if task.with_tangents:
        n_tangents = at.n_states * at.n_params
    next_sample = n_running = 0
    any_new = True
    for lane in range(task.n_samples, LANES):  # lanes without a sample compute as well
        enter(task, at, lane, samples[0])
        release(task, at, lane)
    while True:
        for lane in range(LANES):
            is_free = get(lanes, SAMPLE, lane) == NO_SAMPLE
            if is_free and next_sample < task.n_samples:
                enter(task, at, lane, samples[next_sample])
                next_sample += 1
                n_running += 1
                any_new = True
        if n_running == 0:
            return

        if any_new or not task.is_explicit or at.n_guards > 0:
            evaluate(code, at, work)
            any_new = False
        if may_end(task, at, work):
            n_left = 0
            for lane in range(LANES):
                if get(lanes, SAMPLE, lane) == NO_SAMPLE:
                    continue
                status = find_status(task, at, lane)
                if status == GIVEN_UP:
                    hand_over(task, at, lane)
                    n_left += 1
                elif status != RUNNING:
                    leave(task, at, lane, status)
                    n_left += 1
            if n_left > 0:
                n_running -= n_left
                continue

        set_steps(task, at, work, lanes)
        attempt(code, task, at, work)
        is_good = less(load(work, at.norm), fill((1 + EPS) * at.n_states))
        store(is_good * load(work, at.running), work, at.accepted)
        try_outputs(code, task, at)
        if task.with_tangents:
            differentiate(code, task, at)
            refuse_by_tangents(task, at)
        if at.n_guards > 0:
            stop_at_events(code, task, at)
        judge(code, task, at, work)
        forced, stop = load(work, at.forced), load(work, at.stop)
        accepted = load(work, at.accepted)
        if any_positive(
            accepted * (forced + stop)
        ):  # outputs that were not known before
            for lane in range(LANES):
                if get(work, at.forced, lane) > 0 and get(work, at.accepted, lane) > 0:
                    find_outputs(task, at, lane)
            expand(at, work, at.u, at.dense)
            if task.with_tangents:
                differentiate(code, task, at)
        write_outputs(task, at, at.y, at.dense, at.y_new, y, 1)
        for lane in range(LANES):
            put(get(lanes, OUTPUT_END, lane), lanes, OUTPUT, lane)
        advance(at, work, task.is_explicit, n_tangents)


@register_jitable
def enter(task, at, lane, sample):
    """Put a sample on a lane."""
    if task.resumes:
        exchange(task, at, lane, sample, False)
        put(1.0, doubles(task.work), at.running, lane)
        return
    work, lanes, order = doubles(task.work), ints(task.lanes), ints(task.order)
    t_eval, y0, y = doubles(task.t_eval), doubles(task.y0), doubles(task.y)
    params, atol = doubles(task.params), doubles(task.atol)
    n_states, n_params, n_times = at.n_states, at.n_params, task.n_times
    first = sample * n_times
    put(sample, lanes, SAMPLE, lane)
    put(first, lanes, FIRST, lane)
    put(1.0, work, at.running, lane)
    put(t_eval[first], work, at.t, lane)
    put(t_eval[first + n_times - 1], work, at.t_end, lane)
    for row in range(at.step_old, at.k):
        put(0.0, work, row, lane)
    put(1.0, work, at.is_new, lane)
    for g in range(2 * at.n_guards):
        start = doubles(task.starts)[2 * sample * at.n_guards + g]
        put(start, work, at.sign + g, lane)
    for i in range(n_states):
        value = y0[sample * n_states + order[i]]
        put(value, work, at.y + i, lane)
        put(abs(value), work, at.peak + i, lane)
        put(atol[sample * n_states + order[i]], work, at.atol + i, lane)
    for j in range(n_params):
        put(params[sample * n_params + j], work, at.k + j, lane)

    n_tangents = n_states * n_params if task.with_tangents else 0
    y0_tangents = doubles(task.y0_tangents)
    sensitivities = doubles(task.sensitivities)
    if task.with_tangents:
        for i in range(n_states):
            source = (sample * n_states + order[i]) * n_params
            for j in range(n_params):
                put(y0_tangents[source + j], work, at.tangent + j * n_states + i, lane)

    output = 0
    while output < n_times and t_eval[first + output] == t_eval[first]:
        for i in range(n_states):
            y[(first + output) * n_states + i] = y0[sample * n_states + i]
        for i in range(n_tangents):
            value = y0_tangents[sample * n_tangents + i]
            sensitivities[(first + output) * n_tangents + i] = value
        output += 1
    put(output, lanes, OUTPUT, lane)
    put(output, lanes, OUTPUT_END, lane)


@register_jitable
def hand_over(task, at, lane):
    """Take a sample off its lane, for another method."""
    work, lanes = doubles(task.work), ints(task.lanes)
    sample = get(lanes, SAMPLE, lane)
    ints(task.status)[sample] = GIVEN_UP
    put(0.0, work, at.step_old, lane)  # its error was another's
    put(get(work, at.steps, lane), work, at.n_before, lane)
    put(0.0, work, at.stiff, lane)
    exchange(task, at, lane, sample, True)
    release(task, at, lane)


@register_jitable
def exchange(task, at, lane, sample, gives):
    """Keep all that a lane knows of its sample, or recall it."""
    work, lanes = doubles(task.work), ints(task.lanes)
    kept, kept_lanes = doubles(task.kept), ints(task.kept_lanes)
    n_kept = at.t_new - at.t
    for i in range(n_kept):
        place = sample * n_kept + i
        if gives:
            kept[place] = get(work, at.t + i, lane)
        else:
            put(kept[place], work, at.t + i, lane)
    for i in range(N_INT_ROWS):
        place = sample * N_INT_ROWS + i
        if gives:
            kept_lanes[place] = get(lanes, i, lane)
        else:
            put(kept_lanes[place], lanes, i, lane)


@register_jitable
def leave(task, at, lane, status):
    """Take a sample off its lane; what it did not reach is NaN."""
    work, lanes = doubles(task.work), ints(task.lanes)
    sample = get(lanes, SAMPLE, lane)
    ints(task.status)[sample] = status
    n_steps = get(work, at.steps, lane)
    n_implicit = 0 if task.is_explicit else n_steps - get(work, at.n_before, lane)
    ints(task.n_steps)[sample] = int(n_steps)
    ints(task.n_accepted)[sample] = int(get(work, at.n_accepted, lane))
    ints(task.n_implicit)[sample] = int(n_implicit)
    reached = get(work, at.t, lane)
    if status == STOPPED:
        last = sample * task.n_times + get(lanes, OUTPUT, lane) - 1
        reached = doubles(task.t_eval)[last]
    doubles(task.t_reached)[sample] = reached
    fastest = 0.0
    ints(task.fastest_state)[sample] = 0
    for i in range(at.n_states):
        size = task.rtol * abs(get(work, at.y + i, lane)) + get(work, at.atol + i, lane)
        speed = abs(get(work, at.f + i, lane)) / max(size, 1e-300)
        if speed > fastest:
            fastest = speed
            ints(task.fastest_state)[sample] = ints(task.order)[i]
    release(task, at, lane)
    start = sample * task.n_times + get(lanes, OUTPUT, lane)
    end = (sample + 1) * task.n_times
    y, sensitivities = doubles(task.y), doubles(task.sensitivities)
    for i in range(start * at.n_states, end * at.n_states):
        y[i] = np.nan
    if task.with_tangents:
        n_tangents = at.n_states * at.n_params
        for i in range(start * n_tangents, end * n_tangents):
            sensitivities[i] = np.nan


@register_jitable
def release(task, at, lane):
    """Let a lane compute for nobody."""
    put(NO_SAMPLE, ints(task.lanes), SAMPLE, lane)
    put(0.0, doubles(task.work), at.running, lane)


@register_jitable
def may_end(task, at, work):
    """Whether any sample may be at its end."""
    one = fill(1.0)
    goes_on = less(load(work, at.t), load(work, at.t_end))
    goes_on = goes_on * less(load(work, at.steps), fill(float(task.max_steps)))
    goes_on = goes_on * less(load(work, at.stiff), fill(float(N_STIFF)))
    goes_on = goes_on * less(load(work, at.forced), fill(float(N_FORCED)))
    goes_on = goes_on * less(load(work, at.stop), one)
    is_finite = load(work, at.invalid) + one  # one or NaN
    return any_positive(
        load(work, at.running) * (one - less(fill(0.0), is_finite))
    ) or (any_positive(load(work, at.running) * (one - goes_on)))


@register_jitable
def find_status(task, at, lane):
    """Status of the sample on a lane, RUNNING where there is more to do."""
    work = doubles(task.work)
    finite, is_new = get(work, at.invalid, lane) == 0, get(work, at.is_new, lane) > 0
    if get(work, at.stop, lane) > 0:
        return STOPPED
    if is_new and not finite:
        return NON_FINITE
    if get(work, at.t, lane) >= get(work, at.t_end, lane):
        return SUCCESS
    if not finite:
        return NON_FINITE
    if is_new:
        return RUNNING
    if get(work, at.stiff, lane) >= N_STIFF:
        return GIVEN_UP
    if get(work, at.forced, lane) > N_FORCED:
        return NON_FINITE_JACOBIAN
    if get(work, at.forced, lane) == N_FORCED:
        return STEP_UNDERFLOW
    if get(work, at.steps, lane) >= task.max_steps:
        return MAX_STEPS
    return RUNNING


@njit(cache=True)
def cached_fingerprint():
    """Return the fingerprint of the files that the cached code was made of."""
    return FINGERPRINT


def run_cached(function, *args):
    """Run a function that numba keeps on disk; anew, if what is there is damaged."""
    try:
        return function(*args)
    except Exception:
        function.recompile()  # empties its cache
        return function(*args)


if run_cached(cached_fingerprint) != FINGERPRINT:
    # Numba asks only whether this file has changed, not what it takes from others.
    integrate.recompile()  # only empties its cache: none of it is loaded yet
    cached_fingerprint.recompile()
