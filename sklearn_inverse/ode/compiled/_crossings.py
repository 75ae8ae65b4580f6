"""Events that states trigger: the first in each step, found on its dense output."""

import numpy as np
from numba.extending import register_jitable

from sklearn_inverse.ode._guards import N_PLACES
from sklearn_inverse.ode.compiled._outputs import (
    check_outputs,
    expand,
    interpolate,
)
from sklearn_inverse.ode.compiled._vectors import (
    LANES,
    doubles,
    fill,
    ints,
    load,
    run,
    store,
)
from sklearn_inverse.ode.compiled._workspace import (
    FIRST,
    OUTPUT,
    OUTPUT_END,
    SAMPLE,
    SEEN,
    get,
    put,
)

__all__ = ["stop_at_events"]

N_HALVINGS = 52  # to the last bit of a step


@register_jitable
def stop_at_events(code, task, at):
    """End the leg of lanes in whose steps an event happens, at the first one.

    A step within which the dense output is off there is refused.
    """
    work, lanes = doubles(task.work), ints(task.lanes)
    expand(at, work, at.u, at.dense)
    for g in range(at.n_guards):
        store(load(work, at.sign + g), work, at.sign_new + g)
    store(fill(0.0), work, at.before)
    store(fill(0.0), work, at.happened)
    for lane in range(LANES):
        put(get(lanes, OUTPUT, lane), lanes, SEEN, lane)
    any_happened = False
    while True:
        any_left = False
        for lane in range(LANES):
            is_left = (
                get(work, at.accepted, lane) > 0 and get(work, at.before, lane) < 1
            )
            is_left &= get(work, at.happened, lane) == 0
            any_left |= is_left
            put(next_place(task, at, lane) if is_left else 0.0, work, at.theta, lane)
        if not any_left:
            break
        look(code, at, work)
        for lane in range(LANES):
            theta = get(work, at.theta, lane)
            if theta == 0:
                continue
            if happens(task, at, lane):
                put(theta, work, at.happened, lane)
                any_happened = True
            else:
                put(theta, work, at.before, lane)
                turn(at, work, lane)
    if any_happened:
        stop(code, task, at)


@register_jitable
def next_place(task, at, lane):
    """Where in the step of a lane to look next: at outputs, and ends of its parts."""
    work, lanes, before = doubles(task.work), ints(task.lanes), at.before
    place = (np.floor(get(work, before, lane) * N_PLACES) + 1) / N_PLACES
    seen = get(lanes, SEEN, lane)
    if seen < get(lanes, OUTPUT_END, lane):
        t_out = doubles(task.t_eval)[get(lanes, FIRST, lane) + seen]
        theta = (t_out - get(work, at.t, lane)) / get(work, at.step, lane)
        if theta <= place:
            put(seen + 1, lanes, SEEN, lane)
            return max(theta, 1e-300)
    return place


@register_jitable
def look(code, at, work):
    """Evaluate the guards at theta."""
    interpolate(at, work)
    run(code.guards, work, (at.t_stage, at.stage))
    for g in range(at.n_guards):
        offset = fill(-1.0) * load(work, at.offset + g)
        store(load(work, at.guard + g) + offset, work, at.guard + g)


@register_jitable
def happens(task, at, lane):
    """Whether a guard has crossed zero in its direction."""
    any_crossed = False
    for g in range(at.n_guards):
        any_crossed |= new_sign(task, at, lane, g) != 0
    return any_crossed


@register_jitable
def new_sign(task, at, lane, g):
    """Sign of a guard that has crossed zero in its direction; else zero."""
    work, direction = doubles(task.work), doubles(task.directions)[g]
    sign = get(work, at.sign_new + g, lane)
    crossed = sign * get(work, at.guard + g, lane) <= 0 and direction * sign <= 0
    return -sign if crossed else 0.0


@register_jitable
def turn(at, work, lane):
    """Note the signs of guards that have crossed zero in the other direction."""
    for g in range(at.n_guards):
        value = get(work, at.guard + g, lane)
        if get(work, at.sign_new + g, lane) * value <= 0:
            put(np.sign(value), work, at.sign_new + g, lane)


@register_jitable
def stop(code, task, at):
    """Stop lanes in which an event happens, between ``before`` and ``happened``."""
    work, lanes, t_eval = doubles(task.work), ints(task.lanes), doubles(task.t_eval)
    fired = doubles(task.fired)
    for _ in range(N_HALVINGS):
        both = load(work, at.before) + load(work, at.happened)
        store(fill(0.5) * both, work, at.theta)
        look(code, at, work)
        for lane in range(LANES):
            if get(work, at.happened, lane) > 0:
                row = at.happened if happens(task, at, lane) else at.before
                put(get(work, at.theta, lane), work, row, lane)
    for lane in range(LANES):
        theta = get(work, at.happened, lane)
        put(theta if theta > 0 else 1.0, work, at.theta, lane)
    look(code, at, work)
    check_outputs(code, task, at)
    for lane in range(LANES):
        theta, step = get(work, at.happened, lane), get(work, at.step, lane)
        if theta == 0:
            continue
        if get(work, at.accepted, lane) == 0:  # on its way there, in shorter steps
            put(0.0, work, at.wanted, lane)
            put(min(theta, 0.5) * step, work, at.step_next, lane)
            continue
        sample = get(lanes, SAMPLE, lane)
        for g in range(at.n_guards):
            fired[sample * at.n_guards + g] = new_sign(task, at, lane, g)
        # In place of the first output that comes not before it.
        t = min(get(work, at.t, lane) + theta * step, get(work, at.t_new, lane))
        output, first = get(lanes, OUTPUT, lane), get(lanes, FIRST, lane)
        while t_eval[first + output] < t:
            output += 1
        t_eval[first + output] = t
        put(output + 1, lanes, OUTPUT_END, lane)
        put(1.0, work, at.stop, lane)
