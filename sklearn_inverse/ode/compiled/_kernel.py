"""A traced model, solved by Tsit5 or Rodas5P with tangents: arrays in, arrays out."""

import ctypes
from typing import Any, NamedTuple

import numpy as np

from sklearn_inverse.ode._coefficients import RODAS5P, TSIT5
from sklearn_inverse.ode.compiled._code import Code, compile_model
from sklearn_inverse.ode.compiled._loop import GIVEN_UP, integrate, run_cached
from sklearn_inverse.ode.compiled._model import Model
from sklearn_inverse.ode.compiled._vectors import ALIGNMENT, LANES
from sklearn_inverse.ode.compiled._workspace import (
    N_INT_ROWS,
    NO_SAMPLE,
    ORDER,
    SAMPLE,
    Rows,
    Task,
)

__all__ = ["Kernel"]


def numbers(method, time_weights=0.0, error_weights=0.0):
    """Return nodes and weights of each stage, as the workspace has them."""
    table = np.zeros((3 + ORDER, LANES))
    stages = slice(len(method.a))
    for row, values in enumerate((method.c, time_weights, error_weights)):
        table[row, stages] = values
    table[3:, stages] = method.dense
    return table


EXPLICIT = numbers(TSIT5, error_weights=TSIT5.error)
IMPLICIT = numbers(RODAS5P, time_weights=RODAS5P.d)
SMOOTH = 0.75  # by rtol ** 0.2: steps of order 5 could be some eight times as long


class Kernel:
    r"""Solve :math:`y' = f(t, y; k)` on the CPU, for an f that has been traced.

    Every sample has its own steps and status, and its result does not depend on its
    companions, to the last bit. The methods are Tsit5 [1]_, and for what is stiff Rodas5P
    [2]_, both of order 5, with an error estimate and a dense output of order 4.
    Sensitivities are the exact derivatives of the steps taken, their sizes held fixed.

    Threads run beside each other: give each of them some of the samples. The code of the
    model is compiled when it is first needed, and kept on disk; that of the steps once
    per machine, for some seconds, at the first solve.

    Parameters
    ----------
    graph : Graph
        Expressions of the time, the states and the params.

    rhs : sequence of int
        Those of the states' rates of change.

    n_params : int
        Number of params.

    guards : sequence of int, default=()
        Expressions at whose zeros to stop.

    References
    ----------
    .. [1] Tsitouras, "Runge-Kutta pairs of order 5(4) satisfying only the first column
       simplifying assumption", Computers & Mathematics with Applications 62 (2011)
       770-775.

    .. [2] Steinebach, "Construction of Rosenbrock-Wanner method Rodas5P and numerical
       benchmarks within the Julia Differential Equations package", BIT Numerical
       Mathematics 63 (2023) 27.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_inverse.ode.compiled import Graph
    >>> from sklearn_inverse.ode.compiled._kernel import Kernel
    >>> graph = Graph()
    >>> k, amount = graph.variable("p", 0), graph.variable("y", 0)
    >>> decay = graph.call("neg", graph.call("mul", k, amount))
    >>> solution = Kernel(graph, [decay], n_params=1).solve(
    ...     np.array([0.0, 0.5, 1.0]),
    ...     np.array([[1.0]]),
    ...     np.array([[2.0]]),
    ...     rtol=1e-8,
    ...     atol=1e-20,
    ...     max_steps=1000,
    ... )
    >>> solution["y"][0, :, 0].round(6)
    array([1.      , 0.367879, 0.135335])
    """

    def __init__(self, graph, rhs, n_params, guards=()):
        self._arguments = graph, list(rhs), n_params, list(guards)
        self.model = Model(*self._arguments)
        self._built: dict[bool, Built] = {}

    def __reduce__(self):
        # Code is of this process: whoever unpickles writes it anew, or finds it on disk.
        return type(self), self._arguments

    def solve(
        self,
        t_eval,
        y0,
        params,
        *,
        rtol,
        atol,
        max_steps,
        max_step=np.inf,
        method="auto",
        y0_tangents=None,
        starts=None,
        directions=(),
    ):
        """Integrate from the first to the last output time of each sample.

        Parameters
        ----------
        t_eval : array-like of shape (n_samples, n_times) or (n_times,)
            Output times in increasing order; the first is the time of ``y0``.

        y0 : array-like of shape (n_samples, n_states)
            Initial states.

        params : array-like of shape (n_samples, n_params)
            Params.

        rtol : float
            Tolerated error of each state, relative to its size.

        atol : float or array-like of shape (n_states,) or (n_samples, n_states)
            Tolerated error in units of the states, added to the relative one.

        max_steps : int
            Attempted steps after which a sample is given up.

        max_step : float, default=inf
            Largest step.

        method : {"auto", "tsit5", "rodas5p"}, default="auto"
            If "auto", each sample starts by "tsit5" and goes on by "rodas5p" where it
            turns out to be stiff. "tsit5" does that only where derivatives do not exist.

        y0_tangents : array-like of shape (n_samples, n_states, n_params), default=None
            Derivatives of ``y0`` by the params. If None, no sensitivities are computed.

        starts : array-like of shape (n_samples, 2, n_guards), default=None
            Signs of the guards at the start, and what is taken off their values.

        directions : sequence of float of length n_guards, default=()
            In which guards have to cross zero: -1, 1, or 0 for either.

        Returns
        -------
        solution : dict of str to ndarray
            ``y`` of shape (n_samples, n_times, n_states), NaN from the time of failure on;
            ``status``, ``n_steps`` attempted, ``n_accepted``, ``n_implicit`` of
            those attempted, ``t_reached`` and ``fastest_state`` there of shape
            (n_samples,);
            ``sensitivities`` dy/dk of shape (n_samples, n_times, n_states, n_params), or
            None; ``fired`` of shape (n_samples, n_guards): the new signs of
            those that were crossed, at ``t_reached``. The state there is in place of the
            first output at or after it.
        """
        n_samples, n_times = len(y0), np.shape(t_eval)[-1]
        n_states, n_params = self.model.n_states, self.model.n_params
        with_tangents = y0_tangents is not None
        n_tangents = n_params if with_tangents else 0
        rows, codes, source_first, source_state, _ = self._build(with_tangents)
        work, lanes = workspace(rows)
        y = np.empty((n_samples, n_times, n_states))
        sensitivities = np.empty((*y.shape, n_tangents))
        t_reached = np.empty(n_samples)
        integers = np.empty((6, n_samples), dtype=np.int64)
        status, n_steps, n_accepted, n_implicit, fastest_state, samples = integers
        samples[:] = range(n_samples)
        # Of memory that is never written to there is none.
        kept = np.empty((n_samples, rows.t_new - rows.t))
        kept_lanes = np.empty((n_samples, N_INT_ROWS), dtype=np.int64)
        n_guards = rows.n_guards
        fired = np.zeros((n_samples, n_guards))
        times = plain(t_eval, (n_samples, n_times))
        if n_guards:
            times = times.copy()  # events write theirs there
        if n_samples:
            arrays = [
                samples,
                kept,
                kept_lanes,
                work,
                lanes,
                self.model.order,
                times,
                plain(y0, (n_samples, n_states)),
                plain(params, (n_samples, n_params)),
                plain(
                    y0_tangents if with_tangents else 0.0,
                    (n_samples, n_states, n_tangents),
                ),
                plain(atol, (n_samples, n_states)),
                plain(starts if n_guards else 0.0, (n_samples, 2, n_guards)),
                plain(directions, n_guards),
                source_first,
                source_state,
                y,
                sensitivities,
                status,
                n_steps,
                n_accepted,
                n_implicit,
                t_reached,
                fastest_state,
                fired,
            ]
            addresses = [array.__array_interface__["data"][0] for array in arrays]
            is_auto, resumes = method == "auto", False
            for is_explicit in (False,) if method == "rodas5p" else (True, False):
                task = Task(
                    len(samples),
                    n_times,
                    int(max_steps),
                    is_explicit,
                    is_explicit and is_auto,
                    resumes,
                    with_tangents,
                    self.model.may_jump,
                    float(rtol),
                    float(max_step),
                    self.model.patience,
                    SMOOTH * rtol**0.2,
                    *addresses,
                )
                table = EXPLICIT if is_explicit else IMPLICIT
                work[rows.nodes : rows.nodes + len(table)] = table
                run_cached(integrate, codes[not is_explicit], rows, task)
                given_up = np.flatnonzero(status == GIVEN_UP)
                samples[: len(given_up)], resumes = given_up, True
                samples = samples[: len(given_up)]
                if len(samples) == 0:
                    break
        return {
            "y": y,
            "sensitivities": sensitivities if with_tangents else None,
            "status": status,
            "n_steps": n_steps,
            "n_accepted": n_accepted,
            "n_implicit": n_implicit,
            "t_reached": t_reached,
            "fastest_state": fastest_state,
            "fired": fired,
        }

    def rates(self, t, y, params):
        """Return the rates of change, and the values of guards.

        Parameters
        ----------
        t : ndarray of shape (n_samples,)
            Times of at most as many samples as there are lanes.

        y, params : ndarray of shape (n_samples, n_states) and (n_samples, n_params)
            States and params.

        Returns
        -------
        f : ndarray of shape (n_samples, n_states + n_guards)
            Rates of change, and guards after them.
        """
        if False not in self._built:  # it may be that only the expressions are needed
            graph, rhs, _, guards = self._arguments
            columns = graph.evaluate(
                [*rhs, *guards], {"t": t[:, None], "y": y, "p": params}
            )
            return np.stack([np.broadcast_to(x, len(t)) for x in columns], axis=1)
        rows, (code, _), *_ = self._build(with_tangents=False)
        work, _ = workspace(rows)
        lanes = slice(len(t))
        order = self.model.order
        work[rows.t, lanes] = t
        work[rows.y : rows.y + rows.n_states, lanes] = y[:, order].T
        work[rows.k : rows.k + rows.n_params, lanes] = params.T
        call = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)(code.rhs)
        call(work.ctypes.data, rows.t, rows.y, rows.f)
        f = np.empty((len(t), rows.n_states + rows.n_guards))
        f[:, order] = work[rows.f : rows.f + rows.n_states, lanes].T
        if rows.n_guards:
            call = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 3)(code.guards)
            call(work.ctypes.data, rows.t, rows.y)
            f[:, rows.n_states :] = work[
                rows.guard : rows.guard + rows.n_guards, lanes
            ].T
        return f

    def _build(self, with_tangents: bool) -> "Built":
        """Return the code, compiled when it is first needed."""
        if with_tangents not in self._built:
            model = self.model
            rows = model.lay_out(with_tangents)
            engine, codes = compile_model(model, rows, with_tangents)
            sources = list(model.tangents.sources) if with_tangents else []
            by_param = np.bincount([j for j, _ in sources], minlength=model.n_params)
            self._built[with_tangents] = Built(
                rows,
                codes,
                np.append(0, np.cumsum(by_param)).astype(np.int64),
                np.array([i for _, i in sources], dtype=np.int64),
                engine,
            )
        return self._built[with_tangents]


class Built(NamedTuple):
    """Code with what it works on: where rows lie, and on which state each source acts."""

    rows: Rows
    codes: tuple[Code, Code]
    source_first: np.ndarray
    source_state: np.ndarray
    engine: Any  # owns the code


def workspace(rows):
    """Return zeros for all rows, aligned as vectors are, and the lanes' integers."""
    flat = np.zeros((rows.n_rows + 1) * LANES)
    first = -flat.ctypes.data % ALIGNMENT // flat.itemsize
    work = flat[first : first + rows.n_rows * LANES].reshape(-1, LANES)
    work[rows.step] = 1.0  # lanes without a sample compute as well
    lanes = np.zeros((N_INT_ROWS, LANES), dtype=np.int64)
    lanes[SAMPLE] = NO_SAMPLE
    return work, lanes


def plain(array, shape):
    """Return an array of doubles, one after the other."""
    if isinstance(array, np.ndarray) and array.shape == shape:
        return np.ascontiguousarray(array, dtype=float)
    return np.ascontiguousarray(np.broadcast_to(array, shape), dtype=float)
