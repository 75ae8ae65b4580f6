"""solve_ivp: the one door to the solvers."""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from sklearn_inverse.ode import _coefficients
from sklearn_inverse.ode._checks import (
    check_atol,
    check_options,
    check_params_y0,
    check_rhs,
    check_t_eval,
)
from sklearn_inverse.ode._events import Event, check_events
from sklearn_inverse.ode._explicit import ExplicitRungeKutta
from sklearn_inverse.ode._guards import Guards
from sklearn_inverse.ode._implicit import ImplicitRungeKutta
from sklearn_inverse.ode._mass_action import MassAction
from sklearn_inverse.ode._problem import (
    Compiled,
    ForwardProblem,
    InTorch,
    TapedProblem,
    kernel_of,
    why_not_compiled,
)
from sklearn_inverse.ode._radau import Radau5
from sklearn_inverse.ode._rhs import RightHandSide, check_differentiable
from sklearn_inverse.ode._rosenbrock import Rosenbrock
from sklearn_inverse.ode._solution import Solution
from sklearn_inverse.ode._stepper import Stepper
from sklearn_inverse.ode.compiled import Untraceable, compared_kernel

__all__ = ["METHODS", "solve_ivp"]

ADAPTIVE: dict[str, Callable[..., Stepper]] = {
    "radau5": partial(Radau5, _coefficients.RADAU5),
    "rodas5p": partial(Rosenbrock, _coefficients.RODAS5P),
    "tsit5": partial(ExplicitRungeKutta, _coefficients.TSIT5),
}
FIXED = ADAPTIVE | {
    "radau5": partial(ImplicitRungeKutta, _coefficients.RADAU5),
    "radau3": partial(ImplicitRungeKutta, _coefficients.RADAU3),
    "trapezoid": partial(ImplicitRungeKutta, _coefficients.TRAPEZOID),
    "backward_euler": partial(ImplicitRungeKutta, _coefficients.BACKWARD_EULER),
    "rk4": partial(ExplicitRungeKutta, _coefficients.RK4),
    "euler": partial(ExplicitRungeKutta, _coefficients.EULER),
}
METHODS = ["auto", *FIXED]


def solve_ivp(
    rhs,
    t_eval,
    y0,
    params=None,
    *,
    method="auto",
    step_size=None,
    rtol=1e-6,
    atol=None,
    alike=False,
    jac=None,
    sensitivities=False,
    max_steps=10_000,
    max_step=None,
    backend="auto",
    events=(),
) -> Solution:
    r"""Solve a batch of initial value problems :math:`y' = f(t, y; k)`, stiff or not.

    Every sample has its own step size, error control and status; a sample that fails
    leaves the others untouched, and no result depends on the companions in the batch (to
    the last bit where compiled, to a few of the last digits in torch). All arithmetic is
    in double precision.

    The solution can be differentiated: ``loss.backward()`` gives the exact gradient of the
    discrete solution by ``y0``, ``params`` and the weights of a ``rhs`` that is a
    :class:`torch.nn.Module`; ``sensitivities=True`` gives the derivatives of all outputs by
    all params. Both are first derivatives. Steps are differentiated as they were taken,
    their sizes held fixed; implicit ones by the implicit function theorem [2]_.

    Parameters
    ----------
    rhs : callable
        ``rhs(t, y, params) -> dy/dt`` in torch: ``t`` of shape (n_samples,), ``y`` and
        the result (n_samples, n_states), ``params`` (n_samples, n_params). Row ``i`` may
        depend on row ``i`` only. See :class:`MassAction` for chemical kinetics.

    t_eval : array-like of shape (n_times,) or (n_samples, n_times)
        Output times in increasing order; the first is the time of ``y0``.

    y0 : array-like of shape (n_samples, n_states) or callable
        Initial states, or ``y0(params)`` that returns them, so that sensitivities know
        how they depend on the params.

    params : array-like of shape (n_samples, n_params), default=None
        Params handed to ``rhs``. If None, an empty tensor of shape (n_samples, 0).

    method : str, default="auto"
        - "auto": where the compiled kernel can be had (see ``backend``), each sample
          starts by "tsit5", and goes on by "rodas5p" from where it turns out to be stiff:
          ``stats["n_jac"]`` is the number of steps by the latter. "radau5" elsewhere;
        - "radau5": Radau IIA of order 5 with simplified Newton [1]_, the most robust for
          stiff problems;
        - "rodas5p": Rosenbrock of order 5 [3]_, for stiff ones where the Jacobian is cheap;
        - "tsit5": Runge–Kutta of order 5 [4]_, for others.

        With steps of given size only: "euler", "rk4" and the implicit "backward_euler",
        "trapezoid", "radau3".

    step_size : float, default=None
        Take steps of given size, no larger than this, of which equal ones lead from each
        output time to the next; ``inf`` for one step per interval. If None, steps follow
        the error where the method estimates it, and there is one per interval where it
        does not.

    rtol : float, default=1e-6
        Tolerated local error of each state, relative to the state itself, however small
        it is. The floor is the round-off of the largest value that the state has had.
        Outputs inside a step are interpolated where that is good to five times this,
        and ended on elsewhere.

    atol : float or array-like of shape (n_states,), default=None
        Tolerated local error in units of the states, added to the relative one. If None,
        1e-20 of the largest of each sample's initial states, or 1e-20 where all of them
        are zero: in any units, radicals of 1e-18 beside a species of one are resolved. A
        state that starts at zero costs about ten steps per decade between ``atol`` and
        its later size: raise ``atol`` where small values do not matter.

    alike : bool, default=False
        Whether all states are of one quantity, in many places: by default ``atol`` is
        then 1e-14 of the largest.

    jac : callable, default=None
        ``jac(t, y, params) -> ∂f/∂y`` of shape (n_samples, n_states, n_states). If None,
        ``rhs.jac`` where there is one, else automatic differentiation of ``rhs``. Must
        be exact where derivatives are asked for, and for those of "rodas5p" in torch
        differentiable itself. The compiled kernel does not need it.

    sensitivities : bool, default=False
        Whether to return the derivatives of all outputs by the params too. Compiled, steps
        follow their errors too, so that they are good to ``rtol`` as states are, but
        behind jumps much faster than what follows, which take a smaller one. In torch,
        steps follow the states alone: "radau5" gives derivatives at two to three times
        the cost of a plain solve; others replay their steps, "rodas5p" at tens of times
        that cost.

    max_steps : int, default=10000
        Attempted steps after which a sample is given up; earlier where it is plain that
        they will not do, as where the right-hand side jumps with the state.

    max_step : float, default=None
        Largest step where steps follow the error. Needed where a short input could come
        and go between two outputs, and no trace tells its times (see ``events``): the
        shortest time for which it lasts. If None, there is no limit.

    backend : {"auto", "torch", "compiled"}, default="auto"
        "compiled" is a kernel in machine code for "tsit5" and "rodas5p" on the CPU, tens
        of times faster than torch, of a right-hand side that can be traced: made of
        torch's operations, without branches that depend on values. "auto" takes it where
        it can, and torch elsewhere; the two agree within the tolerances, not bit by bit.

    events : list of Event, default=()
        What happens at given times, or as functions of the states cross zero: the
        integration stops at each, and the state reported at its very time is that after
        it; ``max_steps`` counts from one to the next, and the events that states trigger
        too. Those before the first and after the last output time do not happen. Where
        the right-hand side can be traced, as for the compiled kernel, and jumps at a time
        by itself, as by ``t < 5``, ``t % 24 < 8`` or ``t < params[:, 0]``, that is found
        and need not be given.

    Returns
    -------
    solution : Solution
        ``y`` of shape (n_samples, n_times, n_states), ``status``, ``stats`` and, where
        asked for, ``sensitivities`` of shape (n_samples, n_times, n_states, n_params).

    Raises
    ------
    ValueError
        If shapes, times, tolerances or the method are not as described, or if
        ``backend="compiled"`` cannot be had.

    References
    ----------
    .. [1] E. Hairer, G. Wanner, "Solving Ordinary Differential Equations II", 2nd ed.,
       Springer, 1996, Section IV.8.

    .. [2] C. Fronk, L. Petzold, "Training stiff neural ordinary differential equations
       with implicit single-step methods", Chaos 34 (2024) 123142, Eq. (19).

    .. [3] G. Steinebach, "Construction of Rosenbrock–Wanner method Rodas5P", BIT 63
       (2023) 27.

    .. [4] C. Tsitouras, "Runge–Kutta pairs of order 5(4)", Computers & Mathematics with
       Applications 62 (2011) 770-775.

    Examples
    --------
    >>> import torch
    >>> from sklearn_inverse.ode import solve_ivp
    >>> def decay(t, y, params):
    ...     return -params * y
    >>> k = torch.tensor([[1.0], [1e6]], dtype=torch.float64)
    >>> solution = solve_ivp(decay, [0.0, 0.5, 1.0], torch.ones(2, 1), k)
    >>> (solution.y[0, :, 0] - torch.exp(-torch.tensor([0.0, 0.5, 1.0]))).abs().max() < 1e-6
    tensor(True)
    >>> solution.success
    tensor([True, True])

    The gradient of the last state by the rate constant is -t exp(-k t):

    >>> k = torch.tensor([[1.0]], dtype=torch.float64, requires_grad=True)
    >>> solve_ivp(decay, [0.0, 1.0], torch.ones(1, 1), k).y[0, -1, 0].backward()
    >>> round(k.grad.item(), 5)
    -0.36788
    """
    check_options(METHODS, method, rtol, step_size, max_steps, max_step, backend)
    is_adaptive = step_size is None and method in ["auto", *ADAPTIVE]
    if max_step is None:
        max_step = float("inf")
    elif not is_adaptive:
        raise ValueError(
            "`max_step` bounds steps that follow the error. With `step_size`, or by "
            f"{method!r} without, steps are of given size: make `step_size` smaller."
        )
    params, y0, y0_of = check_params_y0(params, y0)
    t_eval = check_t_eval(t_eval, y0)
    atol = check_atol(atol, y0, alike)
    f = None
    if compared_kernel(rhs, y0, params) is None:
        f = check_rhs(rhs, jac, t_eval, y0, params)
    events = check_events(events, t_eval, y0, params)
    start = t_eval[:, 0]
    shifts = type(rhs) is MassAction and not events
    if shifts:
        # Nothing there depends on time: far from zero, short steps are resolved so.
        t_eval = t_eval - start[:, None]
    gradients = torch.is_grad_enabled()
    owned = gradients and y0.requires_grad
    if owned and params.requires_grad:
        owned = y0_of(params.detach()).requires_grad
    point = start, y0.detach(), params.detach()
    guards = Guards(events)
    if guards and not is_adaptive:
        raise ValueError(
            "An event with `when` needs steps that follow the error. Leave `step_size` "
            f"out, and take one of {['auto', *ADAPTIVE]} as `method`. Got {method!r}."
        )
    events = [event for event in events if event.when is None]
    kernel = _kernel(backend, rhs, method, step_size, owned, point, f, guards)
    if not owned:  # gradients by initial states or weights are pulled back along a tape
        events += _own_breaks(kernel, rhs, t_eval, point, f)
    problem: ForwardProblem | TapedProblem
    run: Compiled | InTorch
    inputs = [params]
    if kernel is not None:
        run = Compiled(kernel, method, rtol, atol, max_steps, max_step, guards)
        problem = ForwardProblem(run, t_eval, y0_of, rhs, events)
    else:
        wants_derivatives = gradients and (y0.requires_grad or params.requires_grad)
        if (sensitivities or wants_derivatives) and not isinstance(rhs, MassAction):
            check_differentiable(rhs, *point)
        limits = step_size, max_steps, max_step
        run = _in_torch(rhs, jac, point, method, rtol, atol, limits, guards)
        weights = rhs.parameters() if isinstance(rhs, nn.Module) else []
        weights = [weight for weight in weights if weight.requires_grad]
        if events or guards:
            if gradients and (owned or weights):
                raise ValueError(
                    "With `events`, gradients are those by the params: neither initial "
                    "states nor weights of `rhs` can require one. Give initial states as "
                    "a function of the params, or solve under torch.no_grad()."
                )
            problem = ForwardProblem(run, t_eval, y0_of, rhs, events)
        else:
            problem = TapedProblem(run, t_eval, y0_of)
            inputs = [y0, params, *weights]

    tracked = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
    with torch.no_grad():
        solution = problem.solve(y0.detach(), params.detach(), sensitivities, tracked)
    if shifts:
        solution.stats["t_reached"] += start
    if tracked:
        y = Differentiable.apply(problem.pull_back, solution.y, *inputs)
        solution = solution._replace(y=y)
    return solution


class Differentiable(torch.autograd.Function):
    """Hand a solution on to autograd, with the function that pulls gradients back."""

    @staticmethod
    def forward(ctx, pull_back, y, *inputs):
        """Return ``y``."""
        ctx.pull_back = pull_back
        ctx.save_for_backward(*inputs)
        return y.view_as(y)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        """Return the gradient by each of the inputs."""
        return None, None, *ctx.pull_back(grad, *ctx.saved_tensors)


def _in_torch(rhs, jac, point, method, rtol, atol, limits, guards) -> InTorch:
    """Return what solves this in torch."""
    step_size, max_steps, max_step = limits
    method = "radau5" if method == "auto" else method
    if step_size is None and method not in ADAPTIVE:
        step_size = float("inf")
    methods = ADAPTIVE if step_size is None else FIXED
    derivatives = RightHandSide(rhs, jac, *point)

    def run_by(name, fallback=None):
        make = partial(methods[name], derivatives, rtol)
        return InTorch(make, atol, step_size, max_steps, max_step, guards, fallback)

    needs_fallback = step_size is None and method != "radau5"
    return run_by(method, run_by("radau5") if needs_fallback else None)


def _kernel(backend, rhs, method, step_size, owned, point, f, guards):
    """Return the kernel that solves this, None if torch does.

    Raise ValueError if there is none but must be.
    """
    if backend == "torch":
        return None
    t, y, params = point
    needed = why_not_compiled(method, step_size, params.device)
    if owned:
        needed = "initial states whose gradient is that of the params alone"
    reason = f"needs {needed}"
    if needed is None:
        try:
            return kernel_of(rhs, t, y, params, f, guards)
        except Untraceable as error:
            reason = f"is not for this right-hand side: {error}"
    if backend == "compiled":
        raise ValueError(f"`backend='compiled'` {reason}.")
    return None


def _own_breaks(kernel, rhs, t_eval, point, f) -> list[Event]:
    """Return events at which the right-hand side jumps by itself, where it is known."""
    if len(t_eval) == 0:
        return []
    t, y, params = point
    if kernel is not None and kernel.model.is_autonomous:
        return []
    try:
        kernel = kernel or kernel_of(rhs, t, y, params, f)
    except Untraceable:
        return []
    span = t_eval[:, 0].min().item(), t_eval[:, -1].max().item()
    return [Event(time) for time in kernel.model.breaks(*span)]
