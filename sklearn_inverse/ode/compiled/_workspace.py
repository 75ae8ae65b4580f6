"""Where everything lies, and what is asked for: what Python and compiled code agree on.

Most numbers lie in a workspace of rows, one number per lane and row. What a lane knows in
integers lies in rows of its own.
"""

from typing import NamedTuple

from numba.extending import register_jitable

from sklearn_inverse.ode._coefficients import RODAS5P
from sklearn_inverse.ode._step_size import EPS
from sklearn_inverse.ode.compiled._vectors import LANES

__all__ = [
    "ACCEPTED",
    "FORCED",
    "NEW",
    "NO_SAMPLE",
    "N_FORCED",
    "N_INT_ROWS",
    "N_STAGES",
    "ORDER",
    "OUTPUT",
    "OUTPUT_END",
    "PHASE",
    "SAMPLE",
    "SEEN",
    "STEADY",
    "STEPS",
    "STOP",
    "STRICT",
    "Rows",
    "Task",
    "get",
    "least_step",
    "put",
]

N_STAGES = len(RODAS5P.a)
ORDER = len(RODAS5P.dense)  # degree of the dense output

SAMPLE, PHASE, OUTPUT, OUTPUT_END, STEPS, ACCEPTED, FORCED, SEEN, STOP = range(9)
N_INT_ROWS = 9
NO_SAMPLE = -1
N_FORCED = 4  # steps in a row that may be taken for want of smaller ones
NEW, STRICT, STEADY = range(3)  # phases: before the first step, no growth yet, underway


class Rows(NamedTuple):
    """How many rows there are of a kind, and the first row of each kind."""

    n_states: int
    n_params: int
    n_slopes: int
    n_curves: int
    n_sources: int
    n_guards: int
    # One row each.
    t: int
    t_end: int
    t_new: int
    t_stage: int
    step: int
    step_next: int
    step_old: int
    wanted: int  # step that was given up only to end on an output
    theta: int  # where in the step the dense output is tried
    suspect: int  # where in it an input may have come and gone
    largest: int  # by how much rates differ there
    before: int  # up to where in it no event has happened
    happened: int  # where one has, zero if none
    growth_old: int  # norm_old ** 0.2
    norm: int  # sum of squares of error / tolerance
    tangent_norm: int  # the largest of those of tangents
    invalid: int  # zero, or NaN where something is not finite
    accepted: int  # one or zero
    inv_step: int
    w: int  # d_i step, the weight of the time derivative
    # One row per state, or per param, stage, ...
    k: int  # params
    y: int
    f: int
    peak: int
    atol: int
    stage: int  # argument of the right-hand side
    y_new: int
    coupled: int  # sum of C_ij u_j / step
    by_time: int  # df/dt
    defect: int  # error of the dense output
    guard: int  # what events wait for
    sign: int  # of each guard, at the start of the step
    offset: int  # what is taken off its values
    sign_new: int  # further on
    tolerance: int
    trial: int  # weights of the stages in the dense output and in its slope
    factors: int  # of W, its inverse pivots on the diagonal
    u: int  # stage by stage
    slope: int  # non-zero df/dy, stage by stage
    # What one lane needs for its outputs, in vectors over states or over stages.
    dense: int
    weight: int
    lane_y: int
    lane_u: int
    lane_out: int
    # Tangents.
    curve: int  # non-zero derivatives of J u + w f_t by the states, stage by stage
    source: int  # what depends on params directly, stage by stage
    forcing: int  # of one tangent, by state: zero but where its own param acts
    tangent: int  # dy/dk, param by param
    tangent_new: int
    v: int  # tangents of u
    scratch: int  # what the code of a large model keeps for itself
    n_rows: int


class Task(NamedTuple):
    """What is asked for, and the addresses of all arrays."""

    n_samples: int
    n_times: int
    max_steps: int
    with_tangents: bool
    may_jump: bool  # rates of change, seen by no stage of a step
    rtol: float
    max_step: float
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
def least_step(at, work, lane):
    """Step that the time of a lane still resolves."""
    return 16 * EPS * abs(get(work, at.t, lane)) + 1e-300
