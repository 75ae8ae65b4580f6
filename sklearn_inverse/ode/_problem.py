"""What is solved and differentiated, in torch or by the compiled kernel."""

import numpy as np
import torch
from torch import Tensor

from sklearn_inverse.ode._derivatives import pull_back, push_forward
from sklearn_inverse.ode._events import event_times, needed_events
from sklearn_inverse.ode._legs import solve_between
from sklearn_inverse.ode._loop import integrate
from sklearn_inverse.ode._mass_action import MassAction
from sklearn_inverse.ode._rhs import rowwise_jacobian
from sklearn_inverse.ode._solution import Solution
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


CHUNK = 64  # samples whose sensitivities are held together in a pull-back by them
MAX_OPERATIONS = 100_000  # of straight-line code: beyond, compiling takes many seconds


def why_not_compiled(method, step_size, device) -> str | None:
    """Return what the compiled kernel would need, in words; None if it can be had."""
    if method not in ("auto", "rodas5p") or step_size is not None:
        return "method='rodas5p' with step_size=None"
    if torch.device(device).type != "cpu":
        return "tensors on the CPU"
    return why_unavailable()


def kernel_of(rhs, t, y, params, only_if_quick=True):
    """Return the kernel of a right-hand side; raise Untraceable if there is none.

    Parameters
    ----------
    rhs : callable
        The right-hand side.

    t, y, params : Tensor
        Where it is tried.

    only_if_quick : bool, default=True
        Whether that would take too long is a reason, too.
    """
    reason = why_unavailable()
    if reason is not None:
        raise Untraceable(reason)
    if type(rhs) is MassAction:
        kernel = rhs.kernel()
    else:
        kernel = compile_function(rhs, t, y, params)
    if only_if_quick and kernel.model.n_operations > MAX_OPERATIONS:
        raise Untraceable("it is so large that compiling it would take long")
    return kernel


class InTorch:
    """Solve in torch: ``run(t_eval, y0, params, tangents)``, sensitivities where given.

    Parameters
    ----------
    method : Stepper
        Attempts and differentiates single steps.

    step_size : float or None
        Largest step of given size; None for error control.

    max_steps : int
        Attempted steps after which a sample is given up.
    """

    def __init__(self, method, step_size, max_steps):
        self.method, self.step_size, self.max_steps = method, step_size, max_steps

    def __call__(self, t_eval, y0, params, tangents=None, tape=None) -> Solution:
        """Integrate; a tape keeps the steps."""
        if tangents is not None and tape is None:
            tape = Tape()
        options = self.step_size, self.max_steps, tape
        solution = integrate(self.method, t_eval, y0, params, *options)
        if tangents is not None:
            pushed = push_forward(self.method, tape, t_eval, params, tangents)
            solution = solution._replace(sensitivities=pushed)
        return solution


class Compiled:
    """The same by the compiled kernel.

    Parameters
    ----------
    kernel : Kernel
        The right-hand side, compiled.

    rtol, atol : float, Tensor of shape (n_states,)
        Tolerances.

    max_steps : int
        As for :class:`InTorch`.
    """

    def __init__(self, kernel, rtol, atol, max_steps):
        self.kernel = kernel
        self.options = {"rtol": rtol, "atol": atol.numpy(), "max_steps": max_steps}

    def __call__(self, t_eval, y0, params, tangents=None) -> Solution:
        """Integrate."""
        result = self.kernel.solve(
            *map(_array, (t_eval, y0, params)),
            y0_tangents=None if tangents is None else _array(tangents),
            **self.options,
        )
        tensors = {k: torch.as_tensor(v) for k, v in result.items() if v is not None}
        counts = {name: tensors[name] for name in ("n_steps", "n_accepted")}
        stats = counts | {name: counts["n_steps"].clone() for name in ("n_jac", "n_lu")}
        return Solution(
            tensors["y"], tensors["status"], stats, tensors.get("sensitivities")
        )


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
        return self.run(self.t_eval, y0, params, tangents, tape)

    def pull_back(self, grad, y0, params, *weights):
        """Gradients by initial states, params and weights."""
        y0_bar, params_bar, weights_bar = pull_back(
            self.run.method, self.tape, self.t_eval, params, weights, grad
        )
        return y0_bar, params_bar, *weights_bar


class ForwardProblem:
    """The same, with events, whose gradient is that of the sensitivities.

    They are computed once the gradient is known, and not kept: by the compiled kernel, a
    plain solve costs next to nothing beside them.

    Parameters
    ----------
    run : callable
        ``run(t_eval, y0, params, tangents)`` solves without events.

    t_eval, y0_of
        As for :class:`TapedProblem`.

    rhs : callable
        The right-hand side.

    events : list of Event, default=()
        Where to stop.
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
            by_params = self._run(rows, params, with_tangents=True).sensitivities
            # A failed sample is NaN from its failure on: no gradient comes from there.
            reached = ~by_params.flatten(2).isnan().all(-1)[..., None]
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
        if not self.events:
            return self.run(*problem)
        return solve_between(
            self.run, self.rhs, self.events, self.times[rows], slopes, *problem
        )


def _array(tensor) -> np.ndarray:
    return np.ascontiguousarray(tensor.detach().numpy())
