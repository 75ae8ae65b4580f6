"""What is solved and differentiated, in torch or by the compiled kernel."""

from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

from sklearn_inverse.ode._derivatives import Tape, pull_back, push_forward
from sklearn_inverse.ode._loop import integrate
from sklearn_inverse.ode._mass_action import MassAction
from sklearn_inverse.ode._rhs import rowwise_jacobian
from sklearn_inverse.ode._solution import Solution

__all__ = ["CompiledProblem", "TorchProblem", "not_compilable"]


def not_compilable(rhs, device) -> str | None:
    """Return what the compiled kernel would need, in words; None if it can be had."""
    if not isinstance(rhs, MassAction):
        return "a `rhs` that is a MassAction (that of a ReactionSystem)"
    if torch.device(device).type != "cpu":
        return "tensors on the CPU"
    if find_spec("numba") is None:
        return "numba: pip install sklearn-inverse[fast]"
    return None


CHUNK = 64  # samples whose sensitivities are held together in a compiled pull-back


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
    """

    def __init__(self, method, t_eval, y0_of, step_size, max_steps):
        self.method, self.t_eval, self.y0_of = method, t_eval, y0_of
        self.step_size, self.max_steps = step_size, max_steps
        self.tape = None

    def solve(self, y0: Tensor, params: Tensor, sensitivities, tracked) -> Solution:
        """Integrate; keep the steps if gradients will be pulled back (``tracked``)."""
        tape = Tape() if sensitivities or tracked else None
        solution = integrate(
            self.method, self.t_eval, y0, params, self.step_size, self.max_steps, tape
        )
        if sensitivities:
            tangents = rowwise_jacobian(self.y0_of, params)
            pushed = push_forward(
                self.method, tape, self.t_eval, params, solution.y, tangents
            )
            solution = solution._replace(sensitivities=pushed)
        self.tape = tape
        return solution

    def pull_back(self, grad, y0, params, *weights):
        """Gradients by initial states, params and weights."""
        y0_bar, params_bar, weights_bar = pull_back(
            self.method, self.tape, self.t_eval, params, weights, grad
        )
        return y0_bar, params_bar, *weights_bar


class CompiledProblem:
    """The same for mass action, solved by the compiled kernel.

    There a gradient is that of the sensitivities: a plain solve costs next to nothing
    beside them, so they are computed once the gradient is known, and not kept.

    Parameters
    ----------
    rhs : MassAction
        The reactions.

    t_eval, y0_of, max_steps
        As for :class:`TorchProblem`.

    rtol, atol : float, Tensor of shape (n_states,)
        Tolerances.
    """

    def __init__(self, rhs, t_eval, y0_of, rtol, atol, max_steps):
        self.kernel = rhs.kernel()
        self.t_eval, self.y0_of = t_eval, y0_of
        self.options = {"rtol": rtol, "atol": atol.numpy(), "max_steps": max_steps}

    def solve(self, y0, params, sensitivities, tracked=False, rows=slice(None)):
        """Integrate the samples at ``rows``."""
        y0_tangents = None
        if sensitivities:
            y0_tangents = _array(rowwise_jacobian(self.y0_of, params))
        result = self.kernel.solve(
            _array(self.t_eval[rows]),
            _array(y0),
            _array(params),
            y0_tangents=y0_tangents,
            **self.options,
        )
        result = {
            k: None if v is None else torch.as_tensor(v) for k, v in result.items()
        }
        stats = {
            "n_steps": result["n_steps"],
            "n_accepted": result["n_accepted"],
            "n_jac": result["n_steps"],
            "n_lu": result["n_steps"],
        }
        return Solution(result["y"], result["status"], stats, result["sensitivities"])

    def pull_back(self, grad, params):
        """Gradient by the params, initial states that depend on them included."""
        params_bar = torch.zeros_like(params)
        for start in range(0, len(params), CHUNK):
            rows = slice(start, start + CHUNK)
            y0 = self.y0_of(params[rows])
            by_params = self.solve(y0, params[rows], True, rows=rows).sensitivities
            # A failed sample is NaN from its failure on: it has no gradient there.
            params_bar[rows] = torch.einsum(
                "bti,btik->bk", grad[rows].nan_to_num(), by_params.nan_to_num()
            )
        return (params_bar,)


def _array(tensor) -> np.ndarray:
    return np.ascontiguousarray(tensor.detach().numpy())
