"""One step of all lanes: attempted, judged, taken, and differentiated."""

import numpy as np
from numba.extending import register_jitable

from sklearn_inverse.ode._step_size import (
    EPS,
    FIRST_FACTOR,
    MAX_FACTOR,
    MIN_FACTOR,
    SAFETY,
    TRUST,
)
from sklearn_inverse.ode.compiled._outputs import expand, write_outputs
from sklearn_inverse.ode.compiled._vectors import (
    LANES,
    choose,
    doubles,
    fill,
    ints,
    larger_magnitude,
    load,
    multiply_add,
    run,
    store,
)
from sklearn_inverse.ode.compiled._workspace import (
    ACCEPTED,
    FORCED,
    N_EXPLICIT,
    N_FORCED,
    N_STAGES,
    N_STIFF,
    NEW,
    OUTPUT,
    OUTPUT_END,
    PHASE,
    SAMPLE,
    STEADY,
    STEPS,
    STIFF,
    STRICT,
    get,
    least_step,
    put,
)

__all__ = [
    "advance",
    "attempt",
    "differentiate",
    "evaluate",
    "judge",
    "refuse_by_tangents",
    "set_step",
]

MIN_NORM, MIN_NORM_OLD = 1e-10, 1e-2
MOVED = 1e-2  # share of the step after which a Jacobian that is not finite is taken
STRETCH = 3.0  # of Tsit5 along the negative axis, beyond which errors grow: 3.5


@register_jitable
def evaluate(code, at, work):
    """Right-hand side at y, and whether both are finite."""
    run(code.rhs, work, (at.t, at.y, at.f))
    zero = fill(0.0)
    invalid = zero
    if at.n_guards > 0:
        run(code.guards, work, (at.t, at.y))
    for g in range(at.n_guards):
        invalid = multiply_add(zero, load(work, at.guard + g), invalid)
    for i in range(at.n_states):
        invalid = multiply_add(zero, load(work, at.y + i), invalid)
        invalid = multiply_add(zero, load(work, at.f + i), invalid)
    store(invalid, work, at.invalid)


@register_jitable
def set_step(task, at, work, lanes, lane):
    """Step to attempt, clipped to end where it must."""
    t, t_end = get(work, at.t, lane), get(work, at.t_end, lane)
    step = get(work, at.step, lane)
    if get(lanes, PHASE, lane) == NEW:
        # Until the states that are not zero have changed by about one per cent.
        change = 0.0
        for i in range(at.n_states):
            y = get(work, at.y + i, lane)
            if y != 0:
                f = abs(get(work, at.f + i, lane))
                change = max(change, f / max(abs(y), get(work, at.atol + i, lane)))
        step = 1e-2 / change if change > 0 else 1e-6 * (t_end - t)
        step = min(max(step, 1e-290, 1e3 * EPS * abs(t)), t_end - t)
        put(STRICT, lanes, PHASE, lane)
    step = max(min(step, task.max_step), least_step(at, work, lane))
    last = t + step * (1 + 1e-10) >= t_end
    put(t_end - t if last else step, work, at.step, lane)
    put(t_end if last else t + step, work, at.t_new, lane)
    if get(work, at.wanted, lane) > 0 and not last:
        output = get(lanes, SAMPLE, lane) * task.n_times + get(lanes, OUTPUT, lane)
        t_output = doubles(task.t_eval)[output]
        if abs(t + step - t_output) <= 4 * EPS * abs(t_output):
            put(t_output, work, at.t_new, lane)  # to the last bit


@register_jitable
def attempt(code, task, at, work):
    """Attempt a step on all lanes, and measure the new states by their errors."""
    store(fill(1.0) / load(work, at.step), work, at.inv_step)
    if task.is_explicit:
        take_explicit_stages(code, at, work)
        measure(task, at, work)
        return
    run(code.time_slopes, work, ())
    set_stage(at, work, 0)
    run(code.slopes, work, (at.y, at.slope))
    take_stages(code, at, work)
    measure(task, at, work)
    for lane in range(LANES):
        if not get(work, at.norm, lane) < np.inf:
            if repair_slopes(code, at, work):
                take_stages(code, at, work)
                measure(task, at, work)
            return


@register_jitable
def take_explicit_stages(code, at, work):
    """Compute all stages of Tsit5, the last at the end of the step, and their stretch.

    The last two are both at the end. How they differ there, for the difference of their
    states, tells the largest eigenvalue (Hairer & Wanner II, Section IV.2).
    """
    n_states, step = at.n_states, load(work, at.step)
    for i in range(n_states):
        store(step * load(work, at.f + i), work, at.u + i)
    for j in range(1, N_EXPLICIT):
        set_stage(at, work, j)
        u = at.u + j * n_states
        if j < N_EXPLICIT - 1:
            run(code.combine[j], work, (at.y, at.u))
            run(code.rhs, work, (at.t_stage, at.stage, u))
            for i in range(n_states):
                store(step * load(work, u + i), work, u + i)
            continue
        for i in range(n_states):
            store(load(work, at.stage + i), work, at.coupled + i)
        run(code.combine[j], work, (at.y, at.u))
        run(code.rhs, work, (at.t_new, at.stage, at.f_new))
        for i in range(n_states):
            store(step * load(work, at.f_new + i), work, u + i)
    add_errors(at, work, at.u)


@register_jitable
def add_errors(at, work, stages):
    """Put the error behind the stages of Tsit5."""
    n_states = at.n_states
    for i in range(n_states):
        error = fill(0.0)
        for j in range(N_EXPLICIT):
            weight = fill(get(work, at.error_weights, j))
            error = multiply_add(weight, load(work, stages + j * n_states + i), error)
        store(error, work, stages + N_EXPLICIT * n_states + i)


@register_jitable
def take_stages(code, at, work):
    """Compute all stages, with the Jacobian that is there."""
    run(code.factorize, work, ())
    for i in range(N_STAGES):
        set_stage(at, work, i)
        run(code.combine[i], work, (at.y, at.u))
        run(code.solve, work, (at.u + i * at.n_states,))


@register_jitable
def repair_slopes(code, at, work):
    """Take a Jacobian that is not finite, as of a root, further on; whether one was.

    Two small steps of Euler's, so that states move that others lift.
    """
    if not find_invalid(at, work):
        return False
    is_valid = load(work, at.invalid) + fill(1.0)  # one or NaN
    along = fill(MOVED) * load(work, at.step)
    set_stage(at, work, 0)
    for i in range(at.n_states):
        store(load(work, at.y + i), work, at.stage + i)
    for _ in range(2):
        run(code.rhs, work, (at.t_stage, at.stage, at.defect))
        for i in range(at.n_states):
            stage = load(work, at.stage + i)
            moved = multiply_add(along, load(work, at.defect + i), stage)
            store(choose(is_valid, stage, moved), work, at.stage + i)
    run(code.slopes, work, (at.stage, at.slope))
    find_invalid(at, work)
    return True


@register_jitable
def find_invalid(at, work):
    """Mark lanes whose Jacobian is not finite, and say if there are any."""
    zero = fill(0.0)
    invalid = zero
    for s in range(at.n_slopes):
        invalid = multiply_add(zero, load(work, at.slope + s), invalid)
    store(invalid, work, at.invalid)
    any_invalid = False
    for lane in range(LANES):
        any_invalid |= get(work, at.invalid, lane) != 0
    return any_invalid


@register_jitable
def set_stage(at, work, i):
    """Time of stage i, and the weight that the time derivative has in it."""
    step = load(work, at.step)
    node, weight = get(work, at.nodes, i), get(work, at.time_weights, i)
    store(multiply_add(fill(node), step, load(work, at.t)), work, at.t_stage)
    store(fill(weight) * step, work, at.w)


@register_jitable
def measure(task, at, work):
    """Measure the new states by their errors; NaN or infinite if any of them is."""
    zero, tiny = fill(0.0), fill(1e-290)
    rtol, round_off = fill(task.rtol), fill(10 * EPS)
    # The last stage of Tsit5 is at the new state, that of Rodas5P an error short of it.
    short = fill(0.0 if task.is_explicit else 1.0)
    last = at.u + (N_STAGES - 1) * at.n_states
    norm = zero
    for i in range(at.n_states):
        y, error = load(work, at.y + i), load(work, last + i)
        y_new = multiply_add(short, error, load(work, at.stage + i))
        store(y_new, work, at.y_new + i)
        atol = load(work, at.atol + i) + tiny
        tolerance = multiply_add(round_off, load(work, at.peak + i), atol)
        tolerance = multiply_add(rtol, larger_magnitude(y, y_new), tolerance)
        store(tolerance, work, at.tolerance + i)
        ratio = error / tolerance
        norm = multiply_add(ratio, ratio, norm)
        norm = multiply_add(zero, y_new, norm)
    store(norm, work, at.norm)
    if task.is_explicit:
        measure_stretch(at, work)


@register_jitable
def measure_stretch(at, work):
    """Estimate the square of the step times the largest eigenvalue of the Jacobian."""
    before, minus = at.u + (N_EXPLICIT - 2) * at.n_states, fill(-1.0)
    by_rates, by_states = fill(0.0), fill(1e-290)
    for i in range(at.n_states):
        tolerance, u = load(work, at.tolerance + i), load(work, before + i)
        change = multiply_add(minus, u, load(work, before + at.n_states + i))
        change = change / tolerance
        by_rates = multiply_add(change, change, by_rates)
        change = multiply_add(minus, load(work, at.coupled + i), load(work, at.stage + i))
        change = change / tolerance
        by_states = multiply_add(change, change, by_states)
    store(by_rates / by_states, work, at.stretch)


@register_jitable
def judge(task, at, work, lanes, lane):
    """Accept or reject the step of a lane, and choose the next one.

    The controller is Gustafsson's (Hairer & Wanner II, Section IV.8) for an error of
    order 5. His factor is the smaller of a plain and a predictive one. Here the latter may
    exceed the former a little: where errors fall from step to step, as in all transients,
    that takes a tenth off the steps.
    """
    step, step_old = get(work, at.step, lane), get(work, at.step_old, lane)
    square = get(work, at.norm, lane) / at.n_states
    accepted = get(work, at.accepted, lane) > 0
    put(get(lanes, STEPS, lane) + 1, lanes, STEPS, lane)
    if not accepted and square <= 1:
        return  # to end on an output: the next step has been chosen
    is_least = step <= 1.01 * least_step(at, work, lane)
    if task.may_switch:
        n_left = (get(work, at.t_end, lane) - get(work, at.t, lane)) / step
        stiff = get(lanes, STIFF, lane)
        if get(work, at.stretch, lane) < STRETCH**2:
            stiff = max(0, stiff - 2)
        elif n_left > task.patience:
            stiff += 1
        has_tangents = get(work, at.tangent_norm, lane) < np.inf
        if not accepted and (is_least or not has_tangents):
            stiff = N_STIFF
        put(stiff, lanes, STIFF, lane)
        if stiff == N_STIFF and not accepted:
            put(step, work, at.step_next, lane)
            return
    if not square < np.inf:
        is_broken = get(work, at.invalid, lane) != 0  # the Jacobian, beyond repair
        put((N_FORCED + is_broken) if is_least else 0, lanes, FORCED, lane)
        put(STRICT, lanes, PHASE, lane)
        put(0.25 * step, work, at.step_next, lane)
        return
    if not accepted and is_least:
        # Something jumps here, and no step is small enough for it. Its place is known to
        # the last digits of the time, so that what follows is right.
        put(get(lanes, FORCED, lane) + 1, lanes, FORCED, lane)
        put(1.0, work, at.accepted, lane)
        put(STRICT, lanes, PHASE, lane)
        put(0.0, work, at.step_old, lane)
        put(4 * step, work, at.step_next, lane)
        return
    factor = max(square, MIN_NORM**2) ** -0.1
    if not accepted:
        put(STRICT, lanes, PHASE, lane)
        put(0.0, work, at.wanted, lane)
        factor = max(SAFETY * factor, MIN_FACTOR)
        factor *= FIRST_FACTOR if step_old == 0 else 1.0
        put(factor * step, work, at.step_next, lane)
        return
    growth = max(1 / factor, MIN_NORM_OLD**0.2)
    if step_old > 0:
        predictive = factor**2 * (step / step_old) * get(work, at.growth_old, lane)
        factor = min(TRUST * factor, predictive)
    factor = min(max(SAFETY * factor, MIN_FACTOR), MAX_FACTOR)
    if get(lanes, PHASE, lane) == STRICT and step_old > 0:
        factor = min(factor, 1.0)
    put(max(factor * step, get(work, at.wanted, lane)), work, at.step_next, lane)
    put(0.0, work, at.wanted, lane)
    put(0, lanes, FORCED, lane)
    put(step, work, at.step_old, lane)
    put(growth, work, at.growth_old, lane)
    put(STEADY, lanes, PHASE, lane)
    put(get(lanes, ACCEPTED, lane) + 1, lanes, ACCEPTED, lane)


@register_jitable
def advance(at, work, is_explicit, n_tangents):
    """Move the lanes whose step was accepted."""
    accepted = load(work, at.accepted)
    for i in range(at.n_states):
        y = choose(accepted, load(work, at.y_new + i), load(work, at.y + i))
        store(y, work, at.y + i)
        store(larger_magnitude(load(work, at.peak + i), y), work, at.peak + i)
    for g in range(at.n_guards):
        sign, new = load(work, at.sign + g), load(work, at.sign_new + g)
        store(choose(accepted, new, sign), work, at.sign + g)
    if is_explicit:
        for i in range(at.n_states):
            f = choose(accepted, load(work, at.f_new + i), load(work, at.f + i))
            store(f, work, at.f + i)
    for i in range(n_tangents):
        new, old = load(work, at.tangent_new + i), load(work, at.tangent + i)
        store(choose(accepted, new, old), work, at.tangent + i)
    store(choose(accepted, load(work, at.t_new), load(work, at.t)), work, at.t)
    store(load(work, at.step_next), work, at.step)


@register_jitable
def differentiate(code, task, at):
    """Differentiate the step of all lanes by each param, its size held fixed.

    The factors of W serve again. What the stages of y contribute is the same for all
    tangents and tabulated first. Outputs are written, once more if the step is refused.
    """
    work, lanes = doubles(task.work), ints(task.lanes)
    first, state = ints(task.source_first), ints(task.source_state)
    n_states, n_params = at.n_states, at.n_params
    zero = fill(0.0)
    n_stages = N_EXPLICIT if task.is_explicit else N_STAGES
    short = fill(0.0 if task.is_explicit else 1.0)
    for i in range(n_stages):
        u, source = at.u + i * n_states, at.source + i * at.n_sources
        set_stage(at, work, i)
        run(code.combine[i], work, (at.y, at.u))
        if i > 0 or task.is_explicit:  # the first has been there, repaired where need be
            run(code.slopes, work, (at.stage, at.slope + i * at.n_slopes))
        if task.is_explicit:
            run(code.effects, work, (source,))
        else:
            run(code.curves, work, (u, at.curve + i * at.n_curves))
            run(code.sources, work, (u, source))

    any_inside = False
    for lane in range(LANES):
        any_inside |= get(lanes, OUTPUT_END, lane) > get(lanes, OUTPUT, lane)
    store(zero, work, at.tangent_norm)
    for j in range(n_params):
        tangent, new = at.tangent + j * n_states, at.tangent_new + j * n_states
        for i in range(n_stages):
            slope, curve = at.slope + i * at.n_slopes, at.curve + i * at.n_curves
            source, v = at.source + i * at.n_sources, at.v + i * n_states
            for s in range(first[j], first[j + 1]):
                store(load(work, source + s), work, at.forcing + state[s])
            run(code.combine[i], work, (tangent, at.v))
            if task.is_explicit:
                run(code.push, work, (slope, v))
            else:
                run(code.tangent_solve, work, (slope, curve, tangent, v))
        for s in range(first[j], first[j + 1]):
            store(zero, work, at.forcing + state[s])
        if task.is_explicit:
            add_errors(at, work, at.v)
        last = at.v + (N_STAGES - 1) * n_states
        for i in range(n_states):
            error = load(work, last + i)
            store(multiply_add(short, error, load(work, at.stage + i)), work, new + i)
        if any_inside:
            expand(at, work, at.v, at.tangent_dense)
            out = doubles(task.sensitivities + 8 * j)
            write_outputs(task, at, tangent, at.tangent_dense, new, out, n_params)
        measure_tangent(task, at, j, last, new)


@register_jitable
def measure_tangent(task, at, j, error, new):
    """Measure a tangent by its error, and keep the worst of all params.

    Beside its own size counts that of the state over the param: less is a small relative
    change for a small relative change. What has no derivative has no error either.
    """
    work = doubles(task.work)
    rtol, norm = fill(task.rtol), fill(0.0)
    for lane in range(LANES):
        size = abs(get(work, at.k + j, lane))
        put(1 / size if size > 0 else 1.0, work, at.trial, lane)
    by_size = load(work, at.trial)
    for i in range(at.n_states):
        # Its new size: through a jump, it shrinks with the speed of the states.
        size = larger_magnitude(fill(0.0), load(work, new + i))
        tolerance = multiply_add(rtol, size, by_size * load(work, at.tolerance + i))
        ratio = load(work, error + i) / tolerance
        norm = multiply_add(ratio, ratio, norm)
    store(norm, work, at.trial)
    for lane in range(LANES):
        norm_j = get(work, at.trial, lane)
        if get(work, at.tangent_norm, lane) < norm_j < np.inf:
            put(norm_j, work, at.tangent_norm, lane)
        elif task.may_switch and not norm_j < np.inf:  # Rodas5P has derivatives nearby
            put(np.inf, work, at.tangent_norm, lane)


@register_jitable
def refuse_by_tangents(task, at):
    """Refuse steps whose tangents are off though their states are not.

    Where a state jumps within dt, an error e of it is one of e / dt of its derivative by
    the time of the jump: derivatives of a relaxation oscillation need shorter steps.
    """
    work, lanes = doubles(task.work), ints(task.lanes)
    for lane in range(LANES):
        norm = get(work, at.tangent_norm, lane)
        if get(work, at.accepted, lane) > 0 and norm > get(work, at.norm, lane):
            put(norm, work, at.norm, lane)
            if norm > at.n_states:
                put(0.0, work, at.accepted, lane)
                put(get(lanes, OUTPUT, lane), lanes, OUTPUT_END, lane)
