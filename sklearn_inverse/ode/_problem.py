"""What is solved and differentiated, in torch or by the compiled kernel."""

import copy

import numpy as np
import torch
from torch import Tensor

from sklearn_inverse.ode._derivatives import pull_back, push_forward
from sklearn_inverse.ode._events import event_times, needed_events
from sklearn_inverse.ode._guards import Guards
from sklearn_inverse.ode._legs import solve_between
from sklearn_inverse.ode._loop import integrate
from sklearn_inverse.ode._mass_action import MassAction
from sklearn_inverse.ode._rhs import rowwise_jacobian
from sklearn_inverse.ode._solution import Solution, Status
from sklearn_inverse.ode._tape import Tape
from sklearn_inverse.ode.compiled import Untraceable, compile_function, why_unavailable

__all__ = [
    "Compiled",
    "ForwardProblem",
    "InTorch",
    "TapedProblem",
    "kernel_of",
    "why_not_compiled",
]


NO_GUARDS = Guards()
CHUNK = 64  # samples whose sensitivities are held together in a pull-back by them


def why_not_compiled(method, step_size, device) -> str | None:
    """Return what the compiled kernel would need, in words; None if it can be had."""
    if method not in ("auto", "rodas5p", "tsit5") or step_size is not None:
        return "method='rodas5p' or 'tsit5' with step_size=None"
    if torch.device(device).type != "cpu":
        return "tensors on the CPU"
    return why_unavailable()


def kernel_of(rhs, t, y, params, f=None, guards=NO_GUARDS):
    """Return the kernel of a right-hand side; raise Untraceable if there is none.

    Parameters
    ----------
    rhs : callable
        The right-hand side.

    t, y, params : Tensor
        Where it is tried.

    f : Tensor of shape (n_samples, n_states), default=None
        What it returns there, where that is known.

    guards : Guards, default=NO_GUARDS
        What events wait for, to be compiled beside it.
    """
    reason = why_unavailable()
    if reason is not None:
        raise Untraceable(reason)
    if type(rhs) is MassAction and not guards:
        return rhs.kernel()
    return compile_function(rhs, t, y, params, f, guards.functions)


class InTorch:
    """Solve in torch: ``run(t_eval, y0, params, tangents)``, sensitivities where given.

    With ``starts`` of guards, until one is crossed: ``stats["fired"]`` says which.

    Parameters
    ----------
    make : callable
        ``make(atol)`` is the Stepper with tolerances (n_samples, n_states).

    atol : callable
        Absolute tolerances as a function of initial states.

    step_size : float or None
        Largest step of given size; None for error control.

    max_steps, max_step : int, float
        Attempted steps after which a sample is given up, and the largest of them.

    guards : Guards
        What events wait for.

    fallback : InTorch, default=None
        By a method whose derivatives need only first ones of the right-hand side, for
        samples where others do not exist.
    """

    def __init__(
        self, make, atol, step_size, max_steps, max_step, guards, fallback=None
    ):
        self.make, self.atol, self.fallback = make, atol, fallback
        self.step_size, self.max_steps, self.max_step = step_size, max_steps, max_step
        self.guards = guards

    def __call__(
        self, t_eval, y0, params, tangents=None, starts=None, tape=None
    ) -> Solution:
        """Integrate; a tape keeps the steps."""
        if tangents is not None and tape is None:
            tape = Tape()
        options = self.step_size, self.max_steps, self.max_step, tape
        method = self.stepper(y0)
        guards = self.guards, starts
        solution = integrate(method, t_eval, y0, params, *options, *guards)
        if tangents is not None:
            pushed = push_forward(method, tape, t_eval, params, tangents)
            solution = solution._replace(sensitivities=pushed)
            self._mend(solution, t_eval, y0, params, tangents, starts)
        return solution

    def stepper(self, y0):
        """Return what attempts and differentiates steps from these initial states."""
        return self.make(self.atol(y0))

    def _mend(self, solution, *problem):
        """Solve anew where sensitivities are not finite, and say so where that fails."""
        lost = _is_lost(solution)
        if lost.any() and self.fallback:
            other = self.fallback(*(x if x is None else x[lost] for x in problem))
            solution.y[lost], solution.status[lost] = other.y, other.status
            solution.sensitivities[lost] = other.sensitivities
            for name, values in other.stats.items():
                solution.stats[name][lost] = values
        else:
            solution.status[lost] = Status.NON_FINITE_SENSITIVITY


class Compiled:
    """The same by the compiled kernel.

    Parameters
    ----------
    kernel : Kernel
        The right-hand side, compiled.

    method : {"auto", "tsit5", "rodas5p"}
        If "auto", each sample by the one that it turns out to be for.

    rtol, atol : float, callable
        Tolerances, absolute ones as a function of initial states.

    max_steps, max_step : int, float
        As for :class:`InTorch`.

    guards : Guards
        What events wait for, compiled into the kernel.
    """

    def __init__(self, kernel, method, rtol, atol, max_steps, max_step, guards):
        self.kernel, self.atol, self.max_steps = kernel, atol, max_steps
        self.guards = guards
        self.options = {"rtol": rtol, "max_steps": max_steps, "max_step": max_step}
        self.options |= {"method": method}

    def __call__(self, t_eval, y0, params, tangents=None, starts=None) -> Solution:
        """Integrate."""
        result = self.kernel.solve(
            *map(_array, (t_eval, y0, params)),
            atol=self.atol(y0).numpy(),
            y0_tangents=None if tangents is None else _array(tangents),
            starts=None if starts is None else _array(starts),
            directions=self.guards.directions,
            **self.options,
        )
        stats = {k: torch.as_tensor(v) for k, v in result.items() if v is not None}
        y, status = stats.pop("y"), stats.pop("status")
        if starts is None:
            del stats["fired"]
        solution = Solution(y, status, stats, stats.pop("sensitivities", None))
        stats["n_jac"] = stats.pop("n_implicit")
        stats["n_lu"] = stats["n_jac"].clone()
        if tangents is not None:
            status[_is_lost(solution)] = Status.NON_FINITE_SENSITIVITY
        return solution


def _is_lost(solution: Solution) -> Tensor:
    """Which samples lack sensitivities of states that are known."""
    assert solution.sensitivities is not None
    if solution.sensitivities.sum().isfinite():  # faster than one by one
        return torch.zeros_like(solution.status, dtype=torch.bool)
    known = solution.y.isfinite().all(2)
    return (known & ~solution.sensitivities.flatten(2).isfinite().all(2)).any(1)


class TapedProblem:
    """An initial value problem whose steps are kept, and gradients pulled through them.

    Parameters
    ----------
    run : InTorch
        Solves it.

    t_eval : Tensor of shape (n_samples, n_times)
        Output times.

    y0_of : callable
        Initial states as a function of the params.
    """

    def __init__(self, run, t_eval, y0_of):
        self.run, self.t_eval, self.y0_of = run, t_eval, y0_of
        self.tape = Tape()

    def solve(self, y0: Tensor, params: Tensor, sensitivities, tracked) -> Solution:
        """Integrate; keep the steps if gradients will be pulled back (``tracked``)."""
        self.tape = Tape()
        tangents = rowwise_jacobian(self.y0_of, params) if sensitivities else None
        tape = self.tape if sensitivities or tracked else None
        return self.run(self.t_eval, y0, params, tangents, tape=tape)

    def pull_back(self, grad, y0, params, *weights):
        """Gradients by initial states, params and weights."""
        y0_bar, params_bar, weights_bar = pull_back(
            self.run.stepper(y0), self.tape, self.t_eval, params, weights, grad
        )
        bars = [y0_bar, params_bar, *weights_bar]
        finite = y0_bar.isfinite().all(1) & params_bar.isfinite().all(1)
        lost = ~finite & grad.flatten(1).isfinite().all(1)
        fallback = self.run.fallback
        if fallback is None or not lost.any():
            return tuple(bars)
        # Weights have one gradient of all samples, so that the others are done again too.
        bars = [torch.zeros_like(bar) for bar in bars]
        alone = copy.copy(self.run)
        alone.fallback = None
        for rows, run in ((~lost, alone), (lost, fallback)):
            part = TapedProblem(run, self.t_eval[rows], self.y0_of)
            part.solve(y0[rows].detach(), params[rows].detach(), False, True)
            own = part.pull_back(grad[rows], y0[rows], params[rows], *weights)
            bars[0][rows], bars[1][rows] = own[:2]
            for total, bar in zip(bars[2:], own[2:]):
                total += bar
        return tuple(bars)


class ForwardProblem:
    """The same, with events, whose gradient is that of the sensitivities.

    They are computed once the gradient is known, and not kept: by the compiled kernel, a
    plain solve costs next to nothing beside them.

    Parameters
    ----------
    run : InTorch or Compiled
        Solves without events.

    t_eval, y0_of
        As for :class:`TapedProblem`.

    rhs : callable
        The right-hand side.

    events : list of Event, default=()
        Where to stop at given times; guards are those of ``run``.
    """

    y0: Tensor  # of the last solve
    y0_tangents: Tensor | None
    times: Tensor  # of the events
    slopes: Tensor | None

    def __init__(self, run, t_eval, y0_of, rhs, events=()):
        self.run, self.t_eval, self.y0_of = run, t_eval, y0_of
        self.rhs, self.events = rhs, events

    def solve(self, y0: Tensor, params: Tensor, sensitivities, tracked) -> Solution:
        """Integrate; keep the start if gradients will be pulled back (``tracked``)."""
        self.y0, self.y0_tangents, self.slopes = y0, None, None
        self.times = params.new_zeros(len(params), 0)
        if sensitivities or tracked:
            self.y0_tangents = rowwise_jacobian(self.y0_of, params)
        if self.events:
            times, slopes = event_times(self.events, params, sensitivities or tracked)
            needed = needed_events(self.events, times, slopes, self.t_eval)
            self.events = [self.events[e] for e in needed]
            self.times = times[:, needed]
            self.slopes = None if slopes is None else slopes[:, needed]
        return self._run(slice(None), params, with_tangents=sensitivities)

    def pull_back(self, grad, params):
        """Gradient by the params, initial states that depend on them included."""
        params_bar = torch.zeros_like(params)
        for start in range(0, len(params), CHUNK):
            rows = slice(start, start + CHUNK)
            solution = self._run(rows, params, with_tangents=True)
            by_params = solution.sensitivities
            # A sample that ends early is NaN from there on: no gradient comes from that.
            unknown = by_params.flatten(2).isnan().all(-1)
            complete = solution.status == Status.SUCCESS
            reached = ~(unknown & ~complete[:, None])[..., None]
            params_bar[rows] = torch.einsum(
                "bti,btik->bk",
                torch.where(reached, grad[rows], 0.0),
                torch.where(reached[..., None], by_params, 0.0),
            )
        return (params_bar,)

    def _run(self, rows, params, with_tangents):
        """Solve the samples at ``rows``."""
        tangents = slopes = None
        if with_tangents and self.y0_tangents is not None:
            tangents = self.y0_tangents[rows]
            slopes = None if self.slopes is None else self.slopes[rows]
        problem = self.t_eval[rows], self.y0[rows], params[rows], tangents
        if not self.events and not self.run.guards:
            return self.run(*problem)
        what = self.run, self.rhs, self.events, self.run.guards
        return solve_between(*what, self.times[rows], slopes, *problem)


def _array(tensor) -> np.ndarray:
    return np.ascontiguousarray(tensor.detach().numpy())
