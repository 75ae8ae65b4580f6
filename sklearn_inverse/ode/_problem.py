"""What is solved and differentiated, in torch or by the compiled kernel."""

import numpy as np
import torch
from torch import Tensor

from sklearn_inverse.ode._derivatives import pull_back, push_forward
from sklearn_inverse.ode._loop import integrate
from sklearn_inverse.ode._mass_action import MassAction
from sklearn_inverse.ode._rhs import rowwise_jacobian
from sklearn_inverse.ode._solution import Solution, Status
from sklearn_inverse.ode._tape import Tape
from sklearn_inverse.ode.compiled import Untraceable, compile_function, why_unavailable

__all__ = ["CompiledProblem", "TorchProblem", "kernel_of", "why_not_compiled"]


CHUNK = 64  # samples whose sensitivities are held together in a compiled pull-back
MAX_OPERATIONS = 100_000  # of straight-line code: beyond, compiling takes many seconds


def why_not_compiled(method, step_size, device) -> str | None:
    """Return what the compiled kernel would need, in words; None if it can be had."""
    if method not in ("auto", "rodas5p") or step_size is not None:
        return "method='rodas5p' with step_size=None"
    if torch.device(device).type != "cpu":
        return "tensors on the CPU"
    return why_unavailable()


def kernel_of(rhs, t, y, params, f=None, only_if_quick=True):
    """Return the kernel of a right-hand side; raise Untraceable if there is none.

    Parameters
    ----------
    rhs : callable
        The right-hand side.

    t, y, params : Tensor
        Where it is tried.

    f : Tensor of shape (n_samples, n_states), default=None
        What it returns there, where that is known.

    only_if_quick : bool, default=True
        Whether that would take too long is a reason, too.
    """
    reason = why_unavailable()
    if reason is not None:
        raise Untraceable(reason)
    if type(rhs) is MassAction:
        kernel = rhs.kernel()
    else:
        kernel = compile_function(rhs, t, y, params, f)
    if only_if_quick and kernel.model.n_operations > MAX_OPERATIONS:
        raise Untraceable("it is so large that compiling it would take long")
    return kernel


class TorchProblem:
    """An initial value problem with the method that solves it.

    Parameters
    ----------
    method : Stepper
        Attempts and differentiates single steps.

    t_eval : Tensor of shape (n_samples, n_times)
        Output times.

    y0_of : callable
        Initial states as a function of the params.

    step_size : float or None
        Largest step of given size; None for error control.

    max_steps : int
        Attempted steps after which a sample is given up.

    pose : callable, default=None
        ``pose(rows, smooth) -> TorchProblem`` of some of the samples, by the same method
        where the right-hand side is ``smooth``, else by one whose derivatives need only
        first ones of it. None where there is no such method.
    """

    def __init__(self, method, t_eval, y0_of, step_size, max_steps, pose=None):
        self.method, self.t_eval, self.y0_of = method, t_eval, y0_of
        self.step_size, self.max_steps, self.pose = step_size, max_steps, pose
        self.tape = Tape()

    def solve(self, y0: Tensor, params: Tensor, sensitivities, tracked) -> Solution:
        """Integrate; keep the steps if gradients will be pulled back (``tracked``)."""
        self.tape = Tape()
        solution = integrate(
            self.method,
            self.t_eval,
            y0,
            params,
            self.step_size,
            self.max_steps,
            self.tape if sensitivities or tracked else None,
        )
        if sensitivities:
            tangents = rowwise_jacobian(self.y0_of, params)
            pushed = push_forward(self.method, self.tape, self.t_eval, params, tangents)
            solution = solution._replace(sensitivities=pushed)
            self._mend(solution, y0, params, tangents)
        return solution

    def _mend(self, solution, y0, params, tangents):
        """Solve anew where sensitivities are not finite, and say so where that fails."""
        lost = _is_lost(solution)
        if lost.any() and self.pose:
            part = self.pose(lost, smooth=False)
            other = part.solve(y0[lost], params[lost], False, True)
            solution.sensitivities[lost] = push_forward(
                part.method, part.tape, part.t_eval, params[lost], tangents[lost]
            )
            solution.y[lost], solution.status[lost] = other.y, other.status
            lost = _is_lost(solution)
        solution.status[lost] = Status.NON_FINITE_SENSITIVITY

    def pull_back(self, grad, y0, params, *weights):
        """Gradients by initial states, params and weights."""
        y0_bar, params_bar, weights_bar = pull_back(
            self.method, self.tape, self.t_eval, params, weights, grad
        )
        bars = [y0_bar, params_bar, *weights_bar]
        finite = y0_bar.isfinite().all(1) & params_bar.isfinite().all(1)
        lost = ~finite & grad.flatten(1).isfinite().all(1)
        if not (lost.any() and self.pose):
            return tuple(bars)
        # Weights have one gradient of all samples, so that the others are done again too.
        bars = [torch.zeros_like(bar) for bar in bars]
        for rows, smooth in ((~lost, True), (lost, False)):
            part = self.pose(rows, smooth=smooth)
            part.pose = None
            part.solve(y0[rows].detach(), params[rows].detach(), False, True)
            own = part.pull_back(grad[rows], y0[rows], params[rows], *weights)
            bars[0][rows], bars[1][rows] = own[:2]
            for total, bar in zip(bars[2:], own[2:]):
                total += bar
        return tuple(bars)


def _is_lost(solution: Solution) -> Tensor:
    """Which samples lack sensitivities of states that are known."""
    assert solution.sensitivities is not None
    known = solution.y.isfinite().all(2)
    return (known & ~solution.sensitivities.flatten(2).isfinite().all(2)).any(1)


class CompiledProblem:
    """The same, solved by the compiled kernel.

    There a gradient is that of the sensitivities: a plain solve costs next to nothing
    beside them, so they are computed once the gradient is known, and not kept.

    Parameters
    ----------
    kernel : Kernel
        The right-hand side, compiled.

    t_eval, y0_of, max_steps
        As for :class:`TorchProblem`.

    rtol, atol : float, Tensor of shape (n_samples, n_states)
        Tolerances.
    """

    y0: Tensor  # of the last solve
    y0_tangents: Tensor | None

    def __init__(self, kernel, t_eval, y0_of, rtol, atol, max_steps):
        self.kernel = kernel
        self.t_eval, self.y0_of = t_eval, y0_of
        self.atol, self.options = atol, {"rtol": rtol, "max_steps": max_steps}

    def solve(self, y0: Tensor, params: Tensor, sensitivities, tracked) -> Solution:
        """Integrate; keep the start if gradients will be pulled back (``tracked``)."""
        self.y0, self.y0_tangents = y0, None
        if sensitivities or tracked:
            self.y0_tangents = rowwise_jacobian(self.y0_of, params)
        return self._run(slice(None), params, with_tangents=sensitivities)

    def pull_back(self, grad, params):
        """Gradient by the params, initial states that depend on them included."""
        params_bar = torch.zeros_like(params)
        for start in range(0, len(params), CHUNK):
            rows = slice(start, start + CHUNK)
            solution = self._run(rows, params, with_tangents=True)
            by_params = solution.sensitivities
            # A failed sample is NaN from its failure on: no gradient comes from there.
            unknown = by_params.flatten(2).isnan().all(-1)
            reached = ~(unknown & ~solution.success[:, None])[..., None]
            params_bar[rows] = torch.einsum(
                "bti,btik->bk",
                torch.where(reached, grad[rows], 0.0),
                torch.where(reached[..., None], by_params, 0.0),
            )
        return (params_bar,)

    def _run(self, rows, params, with_tangents):
        """Solve the samples at ``rows``."""
        tangents = self.y0_tangents if with_tangents else None
        result = self.kernel.solve(
            _array(self.t_eval[rows]),
            _array(self.y0[rows]),
            _array(params[rows]),
            y0_tangents=None if tangents is None else _array(tangents[rows]),
            atol=_array(self.atol[rows]),
            **self.options,
        )
        tensors = {k: torch.as_tensor(v) for k, v in result.items() if v is not None}
        sensitivities = tensors.pop("sensitivities", None)
        solution = Solution(
            tensors.pop("y"), tensors.pop("status"), tensors, sensitivities
        )
        for name in ("n_jac", "n_lu"):
            tensors[name] = tensors["n_steps"].clone()
        if sensitivities is not None:
            solution.status[_is_lost(solution)] = Status.NON_FINITE_SENSITIVITY
        return solution


def _array(tensor) -> np.ndarray:
    return np.ascontiguousarray(tensor.detach().numpy())
