"""Where everything lies, and what is asked for: what Python and compiled code agree on.

Most numbers lie in a workspace of rows, one number per lane and row. What a lane knows in
integers lies in rows of its own.
"""

from typing import NamedTuple

from numba.extending import register_jitable

from sklearn_inverse.ode._coefficients import RODAS5P, TSIT5
from sklearn_inverse.ode._step_size import EPS
from sklearn_inverse.ode.compiled._vectors import (
    LANES,
    fill,
    larger_magnitude,
    load,
    multiply_add,
)

__all__ = [
    "FIRST",
    "NO_SAMPLE",
    "N_EXPLICIT",
    "N_FORCED",
    "N_INT_ROWS",
    "N_STAGES",
    "N_STIFF",
    "ORDER",
    "OUTPUT",
    "OUTPUT_END",
    "SAMPLE",
    "SEEN",
    "WRITES",
    "Rows",
    "Task",
    "get",
    "least_step",
    "put",
]

N_STAGES = len(RODAS5P.a)
N_EXPLICIT = len(TSIT5.a)  # the next row of stages has its error: there is one more
ORDER = len(RODAS5P.dense)  # degree of the dense output of both

# Its sample and first output time, outputs up to a step and within, and notes.
SAMPLE, FIRST, OUTPUT, OUTPUT_END, SEEN, WRITES = range(6)
N_INT_ROWS = 6
NO_SAMPLE = -1
N_FORCED = 4  # steps in a row that may be taken for want of smaller ones
N_STIFF = 15  # steps in a row after which a sample is stiff


class Rows(NamedTuple):
    """How many rows there are of a kind, and the first row of each kind."""

    n_states: int
    n_params: int
    n_slopes: int
    n_curves: int
    n_sources: int
    n_guards: int
    # What a sample keeps from step to step, and takes along to another method: one row
    # each, or one per param, state, guard, or state and param.
    t: int
    t_end: int
    step: int
    step_old: int
    growth_old: int  # norm_old ** 0.2
    wanted: int  # step that was given up only to end on an output
    is_new: int  # one before the first step, else zero
    strict: int  # one where the step must not grow, else zero
    steps: int  # how many have been attempted
    n_accepted: int
    n_before: int  # attempted by another method
    forced: int  # steps in a row that were taken for want of smaller ones
    stiff: int  # steps in a row that look stiff
    stop: int  # one where an event has happened, else zero
    k: int  # params
    y: int
    peak: int
    atol: int
    sign: int  # of each guard, at the start of the step
    offset: int  # what is taken off its values
    tangent: int  # dy/dk, param by param
    # One row each.
    t_new: int
    t_stage: int
    step_next: int
    running: int  # one or zero
    factor: int  # (error / tolerance) ** -0.2
    theta: int  # where in the step the dense output is tried
    early: int  # outputs at which it is
    late: int
    suspect: int  # where in it an input may have come and gone
    largest: int  # by how much rates differ there
    before: int  # up to where in it no event has happened
    happened: int  # where one has, zero if none
    norm: int  # sum of squares of error / tolerance
    tangent_norm: int  # the largest of those of tangents
    stretch: int  # (step times the largest eigenvalue of the Jacobian) ** 2
    bend: int  # (step times that of the solution) ** 2
    invalid: int  # zero, or NaN where something is not finite
    accepted: int  # one or zero
    inv_step: int
    w: int  # d_i step, the weight of the time derivative
    trial: int
    # One row per state, guard, stage, ...
    f: int
    f_new: int
    stage: int  # argument of the right-hand side
    y_new: int
    coupled: int  # sum of C_ij u_j / step
    by_time: int  # df/dt
    defect: int  # error of the dense output
    guard: int  # what events wait for
    sign_new: int  # further on
    tolerance: int
    factors: int  # of W, its inverse pivots on the diagonal
    u: int  # stage by stage; of an explicit method, step times the rate of change
    slope: int  # non-zero df/dy, stage by stage
    dense: int  # coefficients of the powers of theta in the dense output
    # Of the method, in vectors over its stages.
    nodes: int
    time_weights: int
    error_weights: int
    dense_weights: int  # power by power
    # Tangents.
    curve: int  # non-zero derivatives of J u + w f_t by the states, stage by stage
    source: int  # what depends on params directly, stage by stage
    forcing: int  # of one tangent, by state: zero but where its own param acts
    tangent_new: int
    v: int  # tangents of u
    tangent_dense: int
    scratch: int  # what the code of a large model keeps for itself
    n_rows: int


class Task(NamedTuple):
    """What is asked for, and the addresses of all arrays."""

    n_samples: int
    n_times: int
    max_steps: int
    is_explicit: bool  # method: Tsit5, else Rodas5P
    may_switch: bool  # to the other, where a sample is stiff
    resumes: bool  # samples that another method has given up
    with_tangents: bool
    may_jump: bool  # rates of change, seen by no stage of a step
    rtol: float
    max_step: float
    patience: float  # steps to the end that are no matter
    smooth: float  # step times eigenvalue of the solution where steps are far too short
    samples: int  # that are to be solved
    kept: int  # of each sample, when it changes methods
    kept_lanes: int
    work: int
    lanes: int  # integers of each lane
    order: int
    t_eval: int
    y0: int
    params: int
    y0_tangents: int
    atol: int
    starts: int  # signs and offsets of guards
    directions: int  # in which events happen, as doubles
    source_first: int  # of each param, among the sources
    source_state: int  # on which each source acts
    y: int
    sensitivities: int
    status: int
    n_steps: int
    n_accepted: int
    n_implicit: int
    t_reached: int
    fastest_state: int  # there, relative to its tolerance
    fired: int  # signs of guards that were crossed there


@register_jitable
def get(work, row, lane):
    """Return one number of a row."""
    return work[row * LANES + lane]


@register_jitable
def put(value, work, row, lane):
    """Set one number of a row."""
    work[row * LANES + lane] = value


@register_jitable
def least_step(at, work):
    """Return steps that the times of all lanes still resolve."""
    size = larger_magnitude(load(work, at.t), fill(0.0))
    return multiply_add(fill(16 * EPS), size, fill(1e-300))
