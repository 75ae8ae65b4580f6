r"""Mass-action kinetics on the CPU: Rodas5P and its tangents, eight samples at a time.

What depends on the reactions is straight-line code (:mod:`_writer`). The loop over
the steps, here, depends on no reaction; numba compiles it once per machine.

Both work on vectors (:mod:`_vectors`), one lane per sample. Each lane has its own time and
step, and takes the next sample as soon as it is done with one, so that no lane waits.
Nothing crosses lanes: a sample's result is the same to the last bit whichever its lane and
its companions.
"""

from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import numpy as np
from numba import njit
from numba.extending import register_jitable

from sklearn_inverse.ode._solution import Status
from sklearn_inverse.ode._step_size import (
    EPS,
    FIRST_FACTOR,
    MAX_FACTOR,
    MIN_FACTOR,
    SAFETY,
    TRUST,
)
from sklearn_inverse.ode._tableau import RODAS5P
from sklearn_inverse.ode.compiled._vectors import (
    ALIGNMENT,
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
from sklearn_inverse.ode.compiled._writer import (
    N_STAGES,
    ORDER,
    Network,
    compile_network,
)

__all__ = ["MassActionKernel"]

SUCCESS = int(Status.SUCCESS)
MAX_STEPS = int(Status.MAX_STEPS)
STEP_UNDERFLOW = int(Status.STEP_UNDERFLOW)
NON_FINITE = int(Status.NON_FINITE)
RUNNING = -1
MIN_NORM, MIN_NORM_OLD = 1e-10, 1e-2

# Of all files of ode, so that no list of those whose constants are compiled in can fall
# behind.
FINGERPRINT = crc32(
    b"".join(
        path.read_bytes() for path in sorted(Path(__file__).parents[1].rglob("*.py"))
    )
)

NO_SAMPLE = -1
NEW, STRICT, STEADY = range(3)  # phases: before the first step, no growth yet, underway
SAMPLE, PHASE, OUTPUT, OUTPUT_END, STEPS, ACCEPTED, N_INT_ROWS = range(7)


class Task(NamedTuple):
    """What is asked for, and the addresses of all arrays."""

    n_samples: int
    n_times: int
    max_steps: int
    with_tangents: bool
    rtol: float
    work: int
    lanes: int  # integers of each lane
    order: int
    t_eval: int
    y0: int
    params: int
    y0_tangents: int
    atol: int
    y: int
    sensitivities: int
    status: int
    n_steps: int
    n_accepted: int


@register_jitable
def get(work, row, lane):
    """Return one number of a row."""
    return work[row * LANES + lane]


@register_jitable
def put(value, work, row, lane):
    """Set one number of a row."""
    work[row * LANES + lane] = value


@register_jitable
def enter(task, at, lane, sample):
    """Put a sample on a lane."""
    work, lanes, order = doubles(task.work), ints(task.lanes), ints(task.order)
    t_eval, y0, y = doubles(task.t_eval), doubles(task.y0), doubles(task.y)
    params = doubles(task.params)
    n_states, n_reactions, n_times = at.n_states, at.n_reactions, task.n_times
    first = sample * n_times
    put(sample, lanes, SAMPLE, lane)
    put(NEW, lanes, PHASE, lane)
    put(0, lanes, STEPS, lane)
    put(0, lanes, ACCEPTED, lane)
    put(t_eval[first], work, at.t, lane)
    put(t_eval[first + n_times - 1], work, at.t_end, lane)
    put(0.0, work, at.step_old, lane)
    for i in range(n_states):
        value = y0[sample * n_states + order[i]]
        put(value, work, at.y + i, lane)
        put(abs(value), work, at.peak + i, lane)
    for j in range(n_reactions):
        put(params[sample * n_reactions + j], work, at.k + j, lane)

    n_tangents = n_states * n_reactions if task.with_tangents else 0
    y0_tangents = doubles(task.y0_tangents)
    sensitivities = doubles(task.sensitivities)
    if task.with_tangents:
        for i in range(n_states):
            source = (sample * n_states + order[i]) * n_reactions
            for j in range(n_reactions):
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
def leave(task, at, lane, status):
    """Take a sample off its lane; what it did not reach is NaN."""
    lanes = ints(task.lanes)
    sample = get(lanes, SAMPLE, lane)
    ints(task.status)[sample] = status
    ints(task.n_steps)[sample] = get(lanes, STEPS, lane)
    ints(task.n_accepted)[sample] = get(lanes, ACCEPTED, lane)
    put(NO_SAMPLE, lanes, SAMPLE, lane)
    start = sample * task.n_times + get(lanes, OUTPUT, lane)
    end = (sample + 1) * task.n_times
    y, sensitivities = doubles(task.y), doubles(task.sensitivities)
    for i in range(start * at.n_states, end * at.n_states):
        y[i] = np.nan
    if task.with_tangents:
        n_tangents = at.n_states * at.n_reactions
        for i in range(start * n_tangents, end * n_tangents):
            sensitivities[i] = np.nan


@register_jitable
def evaluate(code, at, work):
    """Right-hand side at y, and whether both are finite."""
    run(code.rhs, work, (at.y,))
    zero = fill(0.0)
    invalid = zero
    for i in range(at.n_states):
        invalid = multiply_add(zero, load(work, at.y + i), invalid)
        invalid = multiply_add(zero, load(work, at.f + i), invalid)
    store(invalid, work, at.invalid)


@register_jitable
def find_status(task, at, lane):
    """Status of the sample on a lane, RUNNING where there is more to do."""
    work, lanes = doubles(task.work), ints(task.lanes)
    t, t_end = get(work, at.t, lane), get(work, at.t_end, lane)
    finite = get(work, at.invalid, lane) == 0
    if get(lanes, PHASE, lane) == NEW and not finite:
        return NON_FINITE
    if t >= t_end:
        return SUCCESS
    if not finite:
        return NON_FINITE
    if get(lanes, PHASE, lane) == NEW:
        return RUNNING
    if get(work, at.step, lane) <= 16 * EPS * abs(t) + 1e-300:
        return STEP_UNDERFLOW
    if get(lanes, STEPS, lane) >= task.max_steps:
        return MAX_STEPS
    return RUNNING


@register_jitable
def set_step(task, at, work, lanes, lane):
    """Step to attempt, clipped to end where it must."""
    atol = doubles(task.atol)
    t, t_end = get(work, at.t, lane), get(work, at.t_end, lane)
    step = get(work, at.step, lane)
    if get(lanes, PHASE, lane) == NEW:
        # Until the states that are not zero have changed by about one per cent.
        change = 0.0
        for i in range(at.n_states):
            y = get(work, at.y + i, lane)
            if y != 0:
                f = abs(get(work, at.f + i, lane))
                change = max(change, f / max(abs(y), atol[i]))
        step = 1e-2 / change if change > 0 else 1e-6 * (t_end - t)
        step = min(max(step, 1e-290, 1e3 * EPS * abs(t)), t_end - t)
        put(STRICT, lanes, PHASE, lane)
    last = t + step * (1 + 1e-10) >= t_end
    put(t_end - t if last else step, work, at.step, lane)
    put(t_end if last else t + step, work, at.t_new, lane)


@register_jitable
def attempt(code, at, work):
    """Attempt a step on all lanes."""
    store(fill(1.0) / load(work, at.step), work, at.inv_step)
    run(code.slopes, work, (at.y, at.slope))
    run(code.factorise, work, ())
    for i in range(N_STAGES):
        run(code.combine[i], work, (at.y, at.u))
        run(code.solve, work, (at.u + i * at.n_states,))


@register_jitable
def measure(task, at, work):
    """Measure the new states by their errors; NaN or infinite if any of them is."""
    atol = doubles(task.atol)
    zero, tiny = fill(0.0), fill(1e-290)
    rtol, round_off = fill(task.rtol), fill(10 * EPS)
    norm = zero
    for i in range(at.n_states):
        y = load(work, at.y + i)
        error = load(work, at.u + (N_STAGES - 1) * at.n_states + i)
        y_new = load(work, at.stage + i) + error
        store(y_new, work, at.y_new + i)
        tolerance = multiply_add(round_off, load(work, at.peak + i), fill(atol[i]))
        tolerance = multiply_add(rtol, larger_magnitude(y, y_new), tolerance)
        ratio = error / (tolerance + tiny)
        norm = multiply_add(ratio, ratio, norm)
        norm = multiply_add(zero, y_new, norm)
    store(norm, work, at.norm)


@register_jitable
def judge(at, work, lanes, lane):
    """Accept or reject the step of a lane, and choose the next one.

    The controller is Gustafsson's (Hairer & Wanner II, Section IV.8) for an error of
    order 5. His factor is the smaller of a plain and a predictive one. Here the latter may
    exceed the former a little: where errors fall from step to step, as in all transients,
    that takes a tenth off the steps.
    """
    step, step_old = get(work, at.step, lane), get(work, at.step_old, lane)
    square = get(work, at.norm, lane) / at.n_states
    accepted = square <= 1
    put(1.0 if accepted else 0.0, work, at.accepted, lane)
    put(get(lanes, STEPS, lane) + 1, lanes, STEPS, lane)
    if not square < np.inf:
        put(STRICT, lanes, PHASE, lane)
        put(0.25 * step, work, at.step_next, lane)
        return
    factor = max(square, MIN_NORM**2) ** -0.1
    if not accepted:
        put(STRICT, lanes, PHASE, lane)
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
    put(factor * step, work, at.step_next, lane)
    put(step, work, at.step_old, lane)
    put(growth, work, at.growth_old, lane)
    put(STEADY, lanes, PHASE, lane)
    put(get(lanes, ACCEPTED, lane) + 1, lanes, ACCEPTED, lane)


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
def advance_tangents(code, task, at):
    """Differentiate the step of all lanes by each rate constant, its size held fixed.

    The factors of W serve again. What the stages of y contribute is the same for all
    tangents and tabulated first.
    """
    work, lanes = doubles(task.work), ints(task.lanes)
    n_states, n_reactions = at.n_states, at.n_reactions
    for i in range(N_STAGES):
        u = at.u + i * n_states
        run(code.combine[i], work, (at.y, at.u))
        run(code.slopes, work, (at.stage, at.slope + i * at.n_slopes))
        run(code.curves, work, (u, at.curve + i * at.n_curves))
        run(code.sources, work, (u, at.source + i * n_reactions))

    accepted = load(work, at.accepted)
    for j in range(n_reactions):
        tangent = at.tangent + j * n_states
        for i in range(N_STAGES):
            slope, curve = at.slope + i * at.n_slopes, at.curve + i * at.n_curves
            v = at.v + i * n_states
            store(load(work, at.source + i * n_reactions + j), work, at.forcing + j)
            run(code.combine[i], work, (tangent, at.v))
            run(code.tangent_solve, work, (slope, curve, tangent, v))
        store(fill(0.0), work, at.forcing + j)
        last = at.v + (N_STAGES - 1) * n_states
        for i in range(n_states):
            store(load(work, at.stage + i) + load(work, last + i), work, at.stage + i)
        out = doubles(task.sensitivities + 8 * j)
        for lane in range(LANES):
            if get(lanes, OUTPUT_END, lane) > get(lanes, OUTPUT, lane):
                write_outputs(task, at, lane, tangent, at.v, at.stage, out, n_reactions)
        for i in range(n_states):
            old = load(work, tangent + i)
            store(choose(accepted, load(work, at.stage + i), old), work, tangent + i)


@register_jitable
def advance(at, work):
    """Move the lanes whose step was accepted."""
    accepted = load(work, at.accepted)
    for i in range(at.n_states):
        y = choose(accepted, load(work, at.y_new + i), load(work, at.y + i))
        store(y, work, at.y + i)
        store(larger_magnitude(load(work, at.peak + i), y), work, at.peak + i)
    store(choose(accepted, load(work, at.t_new), load(work, at.t)), work, at.t)
    store(load(work, at.step_next), work, at.step)


@njit(nogil=True, cache=True, error_model="numpy")
def integrate(code, at, task):
    """Integrate all samples."""
    work, lanes, y = doubles(task.work), ints(task.lanes), doubles(task.y)
    next_sample = n_running = 0
    while True:
        for lane in range(LANES):
            is_free = get(lanes, SAMPLE, lane) == NO_SAMPLE
            if is_free and next_sample < task.n_samples:
                enter(task, at, lane, next_sample)
                next_sample += 1
                n_running += 1
        if n_running == 0:
            return

        evaluate(code, at, work)
        n_left = 0
        for lane in range(LANES):
            if get(lanes, SAMPLE, lane) == NO_SAMPLE:
                continue
            status = find_status(task, at, lane)
            if status != RUNNING:
                leave(task, at, lane, status)
                n_left += 1
        if n_left > 0:
            n_running -= n_left
            continue

        for lane in range(LANES):
            if get(lanes, SAMPLE, lane) != NO_SAMPLE:
                set_step(task, at, work, lanes, lane)
        attempt(code, at, work)
        measure(task, at, work)
        any_accepted = False
        for lane in range(LANES):
            if get(lanes, SAMPLE, lane) == NO_SAMPLE:
                put(0.0, work, at.accepted, lane)
                continue
            judge(at, work, lanes, lane)
            any_accepted |= get(work, at.accepted, lane) > 0
            if find_outputs(task, at, lane):
                write_outputs(task, at, lane, at.y, at.u, at.y_new, y, 1)
        if any_accepted and task.with_tangents:
            advance_tangents(code, task, at)
        for lane in range(LANES):
            put(get(lanes, OUTPUT_END, lane), lanes, OUTPUT, lane)
        advance(at, work)


@njit(cache=True)
def cached_fingerprint():
    """Return the fingerprint of the files that the cached code was made of."""
    return FINGERPRINT


if cached_fingerprint() != FINGERPRINT:
    # Numba asks only whether this file has changed, not what it takes from others.
    for function in (integrate, cached_fingerprint):
        function._cache.flush()  # type: ignore[union-attr]
    cached_fingerprint.recompile()


class MassActionKernel:
    r"""Solve mass-action kinetics :math:`y' = S\,\mathrm{diag}(k)\,m(y)` on the CPU.

    Every sample has its own steps and status, and its result does not depend on its
    companions, to the last bit. The method is Rodas5P [1]_ in its order of 5, with an
    error estimate and a dense output of order 4. Sensitivities are the exact derivatives
    of the steps taken, their sizes held fixed.

    Threads run beside each other: give each of them some of the samples. The code of the
    reactions is compiled here, in every process; that of the steps once per machine, for
    some seconds, at the first solve.

    Parameters
    ----------
    stoichiometry : array-like of shape (n_states, n_reactions)
        :math:`S`: what each reaction makes of each state, less what it uses up.

    used : array-like of int of shape (n_states, n_reactions)
        Order of each reaction in each state.

    References
    ----------
    .. [1] Steinebach, "Construction of Rosenbrock-Wanner method Rodas5P and numerical
       benchmarks within the Julia Differential Equations package", BIT Numerical
       Mathematics 63 (2023) 27.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_inverse.ode.compiled import compile_mass_action
    >>> kernel = compile_mass_action([[-1.0], [1.0]], [[1], [0]])  # A -> B
    >>> solution = kernel.solve(
    ...     np.array([0.0, 0.5, 1.0]),
    ...     np.array([[1.0, 0.0]]),
    ...     np.array([[2.0]]),
    ...     rtol=1e-8,
    ...     atol=1e-20,
    ...     max_steps=1000,
    ... )
    >>> solution["y"][0, :, 0].round(6)
    array([1.      , 0.367879, 0.135335])
    """

    def __init__(self, stoichiometry, used):
        self.stoichiometry = np.array(stoichiometry, dtype=float)
        self.used = np.array(used, dtype=int)
        network = Network(self.stoichiometry, self.used)
        self._order, self._rows = network.order, network.lay_out()
        self._engine, self._code = compile_network(network, self._rows)

    def __reduce__(self):
        # Code is of this process: whoever unpickles writes it anew.
        return MassActionKernel, (self.stoichiometry, self.used)

    def solve(self, t_eval, y0, params, *, rtol, atol, max_steps, y0_tangents=None):
        """Integrate from the first to the last output time of each sample.

        Parameters
        ----------
        t_eval : array-like of shape (n_samples, n_times) or (n_times,)
            Output times in increasing order; the first is the time of ``y0``.

        y0 : array-like of shape (n_samples, n_states)
            Initial states.

        params : array-like of shape (n_samples, n_reactions)
            Rate constants.

        rtol : float
            Tolerated error of each state, relative to its size.

        atol : float or array-like of shape (n_states,)
            Tolerated error in units of the states, added to the relative one.

        max_steps : int
            Attempted steps after which a sample is given up.

        y0_tangents : array-like of shape (n_samples, n_states, n_reactions), default=None
            Derivatives of ``y0`` by the rate constants. If None, no sensitivities are
            computed.

        Returns
        -------
        solution : dict of str to ndarray
            ``y`` of shape (n_samples, n_times, n_states), NaN from the time of failure on;
            ``status``, ``n_steps`` attempted and ``n_accepted`` of shape (n_samples,);
            ``sensitivities`` dy/dk of shape (n_samples, n_times, n_states, n_reactions), or
            None.
        """
        n_samples, n_times = len(y0), np.shape(t_eval)[-1]
        n_states, n_reactions = self.stoichiometry.shape
        with_tangents = y0_tangents is not None
        n_tangents = n_reactions if with_tangents else 0
        work, lanes = self._workspace()
        y = np.empty((n_samples, n_times, n_states))
        sensitivities = np.empty((*y.shape, n_tangents))
        status, n_steps, n_accepted = np.empty((3, n_samples), dtype=np.int64)
        arrays = [
            work,
            lanes,
            self._order,
            _plain(t_eval, (n_samples, n_times)),
            _plain(y0, (n_samples, n_states)),
            _plain(params, (n_samples, n_reactions)),
            _plain(
                y0_tangents if with_tangents else 0.0, (n_samples, n_states, n_tangents)
            ),
            _plain(atol, n_states)[self._order],
            y,
            sensitivities,
            status,
            n_steps,
            n_accepted,
        ]
        task = Task(
            n_samples,
            n_times,
            int(max_steps),
            with_tangents,
            float(rtol),
            *[array.ctypes.data for array in arrays],
        )
        integrate(self._code, self._rows, task)
        return {
            "y": y,
            "sensitivities": sensitivities if with_tangents else None,
            "status": status,
            "n_steps": n_steps,
            "n_accepted": n_accepted,
        }

    def _workspace(self):
        """Return zeros for all rows, aligned as vectors are, and the lanes' integers."""
        flat = np.zeros((self._rows.n_rows + 1) * LANES)
        first = -flat.ctypes.data % ALIGNMENT // flat.itemsize
        work = flat[first : first + self._rows.n_rows * LANES].reshape(-1, LANES)
        work[self._rows.step] = 1.0  # lanes without a sample compute as well
        work[self._rows.dense : self._rows.dense + ORDER, :N_STAGES] = RODAS5P.dense
        lanes = np.zeros((N_INT_ROWS, LANES), dtype=np.int64)
        lanes[SAMPLE] = NO_SAMPLE
        return work, lanes


def _plain(array, shape):
    """Return an array of doubles, one after the other."""
    return np.ascontiguousarray(np.broadcast_to(array, shape), dtype=float)
