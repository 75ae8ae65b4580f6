"""Outputs within a step, by Rodas5P's dense output of order 4."""

from numba.extending import register_jitable

from sklearn_inverse.ode.compiled._vectors import (
    doubles,
    fill,
    ints,
    load,
    multiply_add,
    store,
)
from sklearn_inverse.ode.compiled._workspace import (
    N_STAGES,
    ORDER,
    OUTPUT,
    OUTPUT_END,
    SAMPLE,
    get,
    put,
)

__all__ = ["find_outputs", "write_outputs"]


@register_jitable
def find_outputs(task, at, lane):
    """Find the outputs within the step of a lane, and say if there are any."""
    work, lanes, t_eval = doubles(task.work), ints(task.lanes), doubles(task.t_eval)
    first = get(lanes, SAMPLE, lane) * task.n_times
    start = end = get(lanes, OUTPUT, lane)
    if get(work, at.accepted, lane) > 0:
        t_new = get(work, at.t_new, lane)
        while end < task.n_times and t_eval[first + end] <= t_new:
            end += 1
    put(end, lanes, OUTPUT_END, lane)
    return end > start


@register_jitable
def write_outputs(task, at, lane, y, u, y_new, out, stride):
    """Write a lane's outputs, from the rows of y, its stages and its new value.

    Lanes come upon outputs at different steps, so that vectors run over states here.
    """
    work, lanes, order = doubles(task.work), ints(task.lanes), ints(task.order)
    t_eval = doubles(task.t_eval)
    n_states, blocks = at.n_states, at.lane_u - at.lane_y
    for i in range(n_states):
        put(get(work, y + i, lane), work, at.lane_y, i)
    for j in range(N_STAGES):
        for i in range(n_states):
            put(get(work, u + j * n_states + i, lane), work, at.lane_u + j * blocks, i)

    first = get(lanes, SAMPLE, lane) * task.n_times
    t, t_new = get(work, at.t, lane), get(work, at.t_new, lane)
    for output in range(
        first + get(lanes, OUTPUT, lane), first + get(lanes, OUTPUT_END, lane)
    ):
        start = output * n_states
        if t_eval[output] == t_new:
            for i in range(n_states):
                out[(start + order[i]) * stride] = get(work, y_new + i, lane)
            continue
        theta = fill((t_eval[output] - t) / get(work, at.step, lane))
        weight = load(work, at.dense + ORDER - 1)
        for power in range(ORDER - 2, -1, -1):
            weight = multiply_add(weight, theta, load(work, at.dense + power))
        store(weight * theta, work, at.weight)
        for block in range(blocks):
            value = load(work, at.lane_y + block)
            for j in range(N_STAGES):
                stage = load(work, at.lane_u + j * blocks + block)
                value = multiply_add(fill(get(work, at.weight, j)), stage, value)
            store(value, work, at.lane_out + block)
        for i in range(n_states):
            out[(start + order[i]) * stride] = get(work, at.lane_out, i)
