"""Outputs within a step, by the dense output of order 4 of either method."""

from numba.extending import register_jitable

from sklearn_inverse.ode._coefficients import RODAS5P
from sklearn_inverse.ode._step_size import EPS
from sklearn_inverse.ode.compiled._vectors import (
    LANES,
    any_positive,
    choose,
    doubles,
    fill,
    gather,
    ints,
    less,
    load,
    multiply_add,
    run,
    store,
)
from sklearn_inverse.ode.compiled._workspace import (
    FIRST,
    N_STAGES,
    ORDER,
    OUTPUT,
    OUTPUT_END,
    WRITES,
    get,
    least_step,
    put,
)

__all__ = [
    "check_outputs",
    "expand",
    "find_outputs",
    "interpolate",
    "try_outputs",
    "write_outputs",
]

GAMMA = RODAS5P.gamma  # share of a step for which a defect acts, where nothing is stiff
EARLY, LATE = 0.3, 0.75  # trials: off the middle, where an error may change its sign
GREW = 1.5  # factor by which a step is longer than the last if both are tried
MAX_DEFECT = 2.0  # of the dense output, in tolerances
UNSEEN = 10.0  # factor by which rates differ more than where outputs have been tried


@register_jitable
def find_outputs(task, at, lane):
    """Find the outputs within the step of a lane; those nearest to two trials of it."""
    work, lanes, t_eval = doubles(task.work), ints(task.lanes), doubles(task.t_eval)
    first = get(lanes, FIRST, lane)
    end, early, late = get(lanes, OUTPUT, lane), 1.0, 1.0
    if get(work, at.accepted, lane) > 0:
        t, t_new = get(work, at.t, lane), get(work, at.t_new, lane)
        inv_step = get(work, at.inv_step, lane)
        while end < task.n_times and t_eval[first + end] <= t_new:
            place = (t_eval[first + end] - t) * inv_step
            if t_eval[first + end] < t_new:
                early = place if abs(place - EARLY) < abs(early - EARLY) else early
                late = place if abs(place - LATE) < abs(late - LATE) else late
            end += 1
    put(end, lanes, OUTPUT_END, lane)
    put(early, work, at.early, lane)
    put(late, work, at.late, lane)


@register_jitable
def try_outputs(code, task, at):
    """Find the outputs within the steps of all lanes; refuse steps that would miss one."""
    work, lanes, one = doubles(task.work), ints(task.lanes), fill(1.0)
    n_most = 0
    for lane in range(LANES):
        find_outputs(task, at, lane)
        n_found = get(lanes, OUTPUT_END, lane) - get(lanes, OUTPUT, lane)
        n_most = max(n_most, n_found)
    if not any_positive(less(load(work, at.early), one)):
        return
    expand(at, work, at.u, at.dense)
    store(load(work, at.early), work, at.theta)
    check_outputs(code, task, at)
    grew = less(fill(GREW) * load(work, at.step_old), load(work, at.step))
    late = choose(grew * load(work, at.accepted), load(work, at.late), one)
    if any_positive(less(late, one)):
        store(late, work, at.theta)
        check_outputs(code, task, at)
    if task.may_jump and n_most > 1 and find_inputs(code, task, at, n_most):
        check_outputs(code, task, at)


@register_jitable
def find_inputs(code, task, at, n_most):
    """Find the output in each step where rates differ most from the dense output's.

    Inputs may come and go within a step, seen by none of its stages: outputs are the eyes
    for them. Return whether any differs far more than where it has been tried.
    """
    work, lanes, t_eval = doubles(task.work), ints(task.lanes), doubles(task.t_eval)
    one = fill(1.0)
    store(one, work, at.suspect)
    store(choose(load(work, at.accepted), load(work, at.early), one), work, at.theta)
    differ(code, at, work)
    store(fill(UNSEEN**2) * load(work, at.trial), work, at.largest)
    any_inside = False
    for place in range(n_most):
        for lane in range(LANES):
            theta, output = 1.0, get(lanes, OUTPUT, lane) + place
            if output < get(lanes, OUTPUT_END, lane):
                t_out = t_eval[get(lanes, FIRST, lane) + output]
                theta = (t_out - get(work, at.t, lane)) / get(work, at.step, lane)
            put(theta, work, at.theta, lane)
        differ(code, at, work)
        for lane in range(LANES):
            theta, norm = get(work, at.theta, lane), get(work, at.trial, lane)
            if theta < 1 and not norm <= get(work, at.largest, lane):
                put(norm, work, at.largest, lane)
                put(theta, work, at.suspect, lane)
                any_inside = True
    store(load(work, at.suspect), work, at.theta)
    return any_inside


@register_jitable
def differ(code, at, work):
    """Sum of squares of f(t, u) - u' of the dense output u, in tolerances."""
    interpolate(at, work)
    run(code.rhs, work, (at.t_stage, at.stage, at.defect))
    norm = fill(0.0)
    for i in range(at.n_states):
        defect = load(work, at.defect + i) + load(work, at.coupled + i)
        ratio = defect / load(work, at.tolerance + i)
        norm = multiply_add(ratio, ratio, norm)
    store(norm, work, at.trial)


@register_jitable
def expand(at, work, stages, dense):
    """Coefficients of the powers of theta in the dense output, for each state."""
    for i in range(at.n_states):
        for power in range(ORDER):
            total = fill(0.0)
            for j in range(N_STAGES):
                weight = fill(get(work, at.dense_weights + power, j))
                stage = load(work, stages + j * at.n_states + i)
                total = multiply_add(weight, stage, total)
            store(total, work, dense + ORDER * i + power)


@register_jitable
def interpolate(at, work):
    """Dense output of all lanes at theta, and its slope times -1, as those of a stage."""
    theta, per_step = load(work, at.theta), fill(-1.0) * load(work, at.inv_step)
    for i in range(at.n_states):
        value = slope = fill(0.0)
        for power in range(ORDER - 1, -1, -1):
            slope = multiply_add(slope, theta, value)
            value = multiply_add(value, theta, load(work, at.dense + ORDER * i + power))
        slope = multiply_add(slope, theta, value)
        store(multiply_add(value, theta, load(work, at.y + i)), work, at.stage + i)
        store(slope * per_step, work, at.coupled + i)
    step = load(work, at.step)
    store(multiply_add(theta, step, load(work, at.t)), work, at.t_stage)
    store(fill(0.0), work, at.w)


@register_jitable
def check_outputs(code, task, at):
    """Try the dense output of all lanes; refuse steps within which it is off.

    A state that follows a fast equilibrium passes the error test at the end of a step of
    any size, for errors die out at once; between, the dense output follows nothing. Its
    defect, as the factors of W see it, is its error there; W is 1 / (h gamma) where there
    are none. A lane whose step is refused ends the next one on its next output.
    """
    work, lanes, t_eval = doubles(task.work), ints(task.lanes), doubles(task.t_eval)
    n_states = at.n_states
    interpolate(at, work)
    if task.is_explicit:
        run(code.rhs, work, (at.t_stage, at.stage, at.defect))
        for i in range(n_states):
            defect = load(work, at.defect + i) + load(work, at.coupled + i)
            store(fill(GAMMA) * load(work, at.step) * defect, work, at.defect + i)
    else:
        run(code.solve, work, (at.defect,))
    norm = fill(0.0)
    for i in range(n_states):
        ratio = load(work, at.defect + i) / load(work, at.tolerance + i)
        norm = multiply_add(ratio, ratio, norm)
    is_good = less(norm, fill((1 + EPS) * MAX_DEFECT**2 * n_states))
    is_off = less(load(work, at.theta), fill(1.0)) * (fill(1.0) - is_good)
    is_off = is_off * less(fill(2.0) * least_step(at, work), load(work, at.step))
    if not any_positive(is_off):
        return
    store(is_off, work, at.trial)
    for lane in range(LANES):
        if get(work, at.trial, lane) > 0:
            output = get(lanes, FIRST, lane) + get(lanes, OUTPUT, lane)
            put(0.0, work, at.accepted, lane)
            put(get(lanes, OUTPUT, lane), lanes, OUTPUT_END, lane)
            put(get(work, at.step, lane), work, at.wanted, lane)
            put(t_eval[output] - get(work, at.t, lane), work, at.step_next, lane)


@register_jitable
def write_outputs(task, at, y, dense, y_new, out, stride):
    """Write the outputs of all lanes, from the rows of y, its powers and its new value."""
    work, lanes, order = doubles(task.work), ints(task.lanes), ints(task.order)
    t_eval, n_states = doubles(task.t_eval), at.n_states
    n_lanes = n_most = 0
    for lane in range(LANES):
        n_found = get(lanes, OUTPUT_END, lane) - get(lanes, OUTPUT, lane)
        n_most = max(n_most, n_found)
        put(lane, lanes, WRITES, n_lanes)
        n_lanes += n_found > 0
    for k in range(n_most):
        # What has no more of them writes its last one again: that is faster than to ask.
        t_out = gather(task.t_eval, lanes, FIRST, OUTPUT, k, OUTPUT_END)
        store((t_out - load(work, at.t)) / load(work, at.step), work, at.trial)
        if any_positive(load(work, at.stop)):
            for lane in range(LANES):
                is_last = (
                    get(lanes, OUTPUT, lane) + k >= get(lanes, OUTPUT_END, lane) - 1
                )
                if is_last and get(work, at.stop, lane) > 0:  # to the last bit
                    put(get(work, at.theta, lane), work, at.trial, lane)
        theta = load(work, at.trial)
        for i in range(n_states):
            value = fill(0.0)
            for power in range(ORDER - 1, -1, -1):
                weight = load(work, dense + ORDER * i + power)
                value = multiply_add(value, theta, weight)
            store(multiply_add(value, theta, load(work, y + i)), work, at.coupled + i)
        for place in range(n_lanes):
            lane = get(lanes, WRITES, place)
            output = min(get(lanes, OUTPUT, lane) + k, get(lanes, OUTPUT_END, lane) - 1)
            output += get(lanes, FIRST, lane)
            is_end = t_eval[output] == get(work, at.t_new, lane)
            values = y_new if is_end else at.coupled
            for i in range(n_states):
                value = get(work, values + i, lane)
                out[(output * n_states + order[i]) * stride] = value
