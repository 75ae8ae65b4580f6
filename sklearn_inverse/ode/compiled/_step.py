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
    any_positive,
    choose,
    doubles,
    fill,
    ints,
    larger,
    larger_magnitude,
    less,
    load,
    multiply_add,
    run,
    smaller,
    store,
)
from sklearn_inverse.ode.compiled._workspace import (
    FIRST,
    N_EXPLICIT,
    N_FORCED,
    N_STAGES,
    N_STIFF,
    OUTPUT,
    OUTPUT_END,
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
    "set_steps",
]

MIN_NORM_OLD = 1e-2
MOVED = 1e-2  # share of the step after which a Jacobian that is not finite is taken
HOPELESS = 4.0  # further steps that such a one counts for
STRETCH = 2.5  # of the step, by the largest eigenvalue: beyond 3.5 errors grow
SLOW = 10.0  # of a solution, that is so many times as slow


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
def set_steps(task, at, work, lanes):
    """Set the steps to attempt, clipped to end where they must."""
    t, t_end = load(work, at.t), load(work, at.t_end)
    if any_positive(load(work, at.is_new)):
        for lane in range(LANES):
            if get(work, at.is_new, lane) > 0:
                put(first_step(at, work, lane), work, at.step, lane)
        store(fill(0.0), work, at.is_new)
    step = smaller(load(work, at.step), fill(task.max_step))
    step = larger(step, least_step(at, work))
    is_last = fill(1.0) - less(multiply_add(fill(1 + 1e-10), step, t), t_end)
    store(choose(is_last, t_end, t + step), work, at.t_new)
    step = choose(is_last, t_end - t, step)
    # Lanes without a sample stay where they are.
    store(choose(load(work, at.running), step, load(work, at.step)), work, at.step)
    if any_positive(load(work, at.wanted)):
        for lane in range(LANES):
            t_new = get(work, at.t_new, lane)
            if get(work, at.wanted, lane) > 0 and t_new < get(work, at.t_end, lane):
                output = get(lanes, FIRST, lane)
                t_output = doubles(task.t_eval)[output + get(lanes, OUTPUT, lane)]
                if abs(t_new - t_output) <= 4 * EPS * abs(t_output):
                    put(t_output, work, at.t_new, lane)  # to the last bit


@register_jitable
def first_step(at, work, lane):
    """Step until the states that are not zero have changed by about one per cent."""
    t, change = get(work, at.t, lane), 0.0
    left = get(work, at.t_end, lane) - t
    for i in range(at.n_states):
        y = get(work, at.y + i, lane)
        if y != 0:
            f = abs(get(work, at.f + i, lane))
            change = max(change, f / max(abs(y), get(work, at.atol + i, lane)))
    step = 1e-2 / change if change > 0 else 1e-6 * left
    return min(max(step, 1e-290, 1e3 * EPS * abs(t)), left)


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
    is_finite = less(load(work, at.norm), fill(np.inf))
    if any_positive(fill(1.0) - is_finite) and repair_slopes(code, at, work):
        take_stages(code, at, work)
        measure(task, at, work)


@register_jitable
def take_explicit_stages(code, at, work):
    """Compute all stages of Tsit5, the last at the new state, and the error."""
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
    """Measure the new states by their errors; NaN or infinite if any of them is.

    The last two stages of Tsit5 are both at the end of the step. How their rates of change
    differ there, for the difference of their states, tells the largest eigenvalue of the
    Jacobian (Hairer & Wanner II, Section IV.2). How they differ from start to end tells
    that of the solution.
    """
    zero, one, tiny = fill(0.0), fill(1.0), fill(1e-290)
    rtol, round_off = fill(task.rtol), fill(10 * EPS)
    # The last stage of Tsit5 is at the new state, that of Rodas5P an error short of it.
    short = fill(0.0 if task.is_explicit else 1.0)
    last = at.u + (N_STAGES - 1) * at.n_states
    norm = by_rates = by_rate = zero
    by_states = by_state = tiny
    for i in range(at.n_states):
        y, error, stage = (
            load(work, at.y + i),
            load(work, last + i),
            load(work, at.stage + i),
        )
        y_new = multiply_add(short, error, stage)
        store(y_new, work, at.y_new + i)
        atol = load(work, at.atol + i) + tiny
        tolerance = multiply_add(round_off, load(work, at.peak + i), atol)
        tolerance = multiply_add(rtol, larger_magnitude(y, y_new), tolerance)
        store(tolerance, work, at.tolerance + i)
        scale = one / tolerance
        ratio = error * scale
        norm = multiply_add(ratio, ratio, norm)
        norm = multiply_add(zero, y_new, norm)
        if task.may_switch:
            u = load(work, last - at.n_states + i)
            ratio = (u - load(work, last - 2 * at.n_states + i)) * scale
            by_rates = multiply_add(ratio, ratio, by_rates)
            ratio = (stage - load(work, at.coupled + i)) * scale
            by_states = multiply_add(ratio, ratio, by_states)
            ratio = (u - load(work, at.u + i)) * scale
            by_rate = multiply_add(ratio, ratio, by_rate)
            ratio = (y_new - y) * scale
            by_state = multiply_add(ratio, ratio, by_state)
    store(norm, work, at.norm)
    store(by_rates / by_states, work, at.stretch)
    store(by_rate / by_state, work, at.bend)


@register_jitable
def judge(code, task, at, work):
    """Accept or reject the steps of all lanes, and choose the next ones.

    The controller is Gustafsson's (Hairer & Wanner II, Section IV.8) for an error of
    order 5. His factor is the smaller of a plain and a predictive one. Here the latter may
    exceed the former a little in stiff problems: where errors fall from step to step, as
    in all transients, that takes a tenth off the steps.
    """
    zero, one, least = fill(0.0), fill(1.0), fill(MIN_FACTOR)
    run(code.choose_factor, work, ())
    accepted, norm = load(work, at.accepted), load(work, at.norm)
    step, step_old = load(work, at.step), load(work, at.step_old)
    strict, wanted = load(work, at.strict), load(work, at.wanted)
    factor, safety = load(work, at.factor), fill(SAFETY)
    store(load(work, at.steps) + one, work, at.steps)
    store(load(work, at.n_accepted) + accepted, work, at.n_accepted)
    # Refused only to end on an output: the next step has been chosen.
    is_chosen = less(norm, fill((1 + EPS) * at.n_states))
    shrunk = larger(safety * factor, least) * choose(step_old, one, fill(FIRST_FACTOR))
    refused = choose(is_chosen, load(work, at.step_next), shrunk * step)
    growth = larger(one / factor, fill(MIN_NORM_OLD**0.2))
    predictive = factor * factor * (step / step_old) * load(work, at.growth_old)
    trust = fill(1.0 if task.is_explicit else TRUST)
    predictive = smaller(trust * factor, predictive)
    grown = larger(safety * choose(step_old, predictive, factor), least)
    grown = smaller(grown, fill(MAX_FACTOR))
    grown = choose(strict * step_old, smaller(grown, one), grown)
    taken = larger(grown * step, wanted)
    store(choose(accepted, taken, refused), work, at.step_next)
    store(choose(accepted, zero, is_chosen * wanted), work, at.wanted)
    store(choose(accepted, zero, choose(is_chosen, strict, one)), work, at.strict)
    store(choose(accepted, step, step_old), work, at.step_old)
    store(choose(accepted, growth, load(work, at.growth_old)), work, at.growth_old)
    store(choose(accepted, zero, load(work, at.forced)), work, at.forced)
    if task.may_switch:
        count_stiff(task, at, work)
    is_least = less(step, fill(1.01) * least_step(at, work))
    is_finite = less(norm, fill(np.inf))
    is_good = choose(accepted, one, choose(is_least, is_chosen, is_finite))
    store((one - is_good) * load(work, at.running), work, at.trial)
    if any_positive(load(work, at.trial)):
        for lane in range(LANES):
            if get(work, at.trial, lane) > 0:
                help_out(task, at, work, lane)


@register_jitable
def count_stiff(task, at, work):
    """Count steps that are short for the Jacobian's sake, while many are to come.

    So they are at the edge of stability; and before, where tolerances are tight, if the
    solution itself is so smooth that it would do with far longer ones. Where there are a
    thousand times as many to come, a few such steps will do to tell.
    """
    stiff, step = load(work, at.stiff), load(work, at.step)
    left = load(work, at.t_end) - load(work, at.t)
    many = less(fill(task.patience) * step, left)
    hopeless = less(fill(1e3 * task.patience) * step, left)
    more = multiply_add(fill(HOPELESS), hopeless, stiff + many)
    fewer = larger(stiff - fill(2.0), fill(0.0))
    stretch, bend = load(work, at.stretch), load(work, at.bend)
    is_smooth = less(bend, fill(task.smooth**2)) * less(fill(SLOW**2) * bend, stretch)
    is_stable = less(stretch, fill(STRETCH**2)) * (fill(1.0) - is_smooth)
    store(choose(is_stable, fewer, more), work, at.stiff)


@register_jitable
def help_out(task, at, work, lane):
    """Choose the next step of a lane that has failed without any error to tell it."""
    step, norm = get(work, at.step, lane), get(work, at.norm, lane)
    is_least = step <= 1.01 * (16 * EPS * abs(get(work, at.t, lane)) + 1e-300)
    is_lost = task.is_explicit and get(work, at.tangent_norm, lane) == np.inf
    if is_lost or (task.may_switch and is_least):
        put(N_STIFF, work, at.stiff, lane)  # for Rodas5P to see
    elif not norm < np.inf:
        is_broken = get(work, at.invalid, lane) != 0  # the Jacobian, beyond repair
        put((N_FORCED + is_broken) if is_least else 0, work, at.forced, lane)
        put(0.25 * step, work, at.step_next, lane)
    else:
        # Something jumps here, and no step is small enough for it. Its place is known to
        # the last digits of the time, so that what follows is right.
        put(get(work, at.forced, lane) + 1, work, at.forced, lane)
        put(1.0, work, at.accepted, lane)
        put(0.0, work, at.step_old, lane)
        put(4 * step, work, at.step_next, lane)


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
        if (
            i > 0 or task.is_explicit
        ):  # the first has been there, repaired where need be
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
        elif task.is_explicit and not norm_j < np.inf:  # Rodas5P has derivatives nearby
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
