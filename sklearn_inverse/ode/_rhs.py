"""Derivatives of a right-hand side, in closed form where it has one."""

from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from sklearn_inverse.ode.compiled import Lasting

__all__ = [
    "Rhs",
    "RightHandSide",
    "check_differentiable",
    "push_tangents",
    "rowwise_jacobian",
]

NEARBY = 0.1  # of a step: where derivatives exist that do not at its start
SMALL = torch.finfo(torch.float64).eps ** 0.5

Rhs = Callable[[Tensor, Tensor, Tensor], Tensor]  # of time, states and params


class RightHandSide:
    """``rhs(t, y, params)`` with its derivatives by states, params and time.

    Parameters
    ----------
    rhs : callable
        Batched right-hand side. Its attributes ``jac`` and ``jac_params``, where it has
        them, are taken for its derivatives by the states and by the params.

    jac : callable, default=None
        ``jac(t, y, params) -> ∂f/∂y``. If None, ``rhs.jac``, else automatic.

    t, y, params : Tensor
        Initial values, to find out what f depends on.
    """

    def __init__(self, rhs: Rhs, jac: Rhs | None, t: Tensor, y: Tensor, params: Tensor):
        self.rhs = rhs
        self._jac = getattr(rhs, "jac", None) if jac is None else jac
        self._jac_params = getattr(rhs, "jac_params", None)
        self._start = t.detach(), y.detach(), params.detach()

    @cached_property
    def is_autonomous(self) -> bool:
        """Whether f has no derivative by time; it may still jump at one."""
        t, y, params = self._start
        with torch.enable_grad():
            t = t.clone().requires_grad_()
            try:
                f = self.rhs(t, y, params)
            except RuntimeError:  # it hands the time to something other than torch
                return False
            if not f.requires_grad:
                return True
            return torch.autograd.grad(f.sum(), t, allow_unused=True)[0] is None

    def __call__(self, t: Tensor, y: Tensor, params: Tensor) -> Tensor:
        """Return f of shape (n_samples, n_states)."""
        return self.rhs(t, y, params)

    def jac(
        self, t: Tensor, y: Tensor, params: Tensor, step: Tensor | None = None
    ) -> Tensor:
        """Return ∂f/∂y of shape (n_samples, n_states, n_states).

        With the ``step`` that it is to serve, derivatives that do not exist at just this
        state are replaced by those nearby.
        """
        if self._jac is not None:
            jacobian = self._jac(t, y, params)
        else:
            jacobian = self._differentiate(t, y, params, by=1)
        if step is None:
            return jacobian
        lost = ~jacobian.flatten(1).isfinite().all(1)
        if lost.any():
            jacobian = jacobian.clone()
            jacobian[lost] = self._jac_nearby(
                t[lost], y[lost], params[lost], step[lost]
            )
        return jacobian

    def _jac_nearby(self, t: Tensor, y: Tensor, params: Tensor, step: Tensor) -> Tensor:
        """Return ∂f/∂y a little further along the solution, differences where need be.

        Methods that solve for their stages may have any Jacobian, and the error estimate
        of the others sees what it misses: that of √y at 0 is infinite, and no use.
        """
        f = self.rhs(t, y, params)
        move = torch.zeros_like(y)
        for _ in range(4):  # Picard: a state may be lifted by one that is lifted first
            move = NEARBY * step[:, None] * self.rhs(t, y + move, params)
        jacobian = self.jac(t, y + move, params).clone()
        lost = ~jacobian.isfinite().all(1)  # (n_samples, n_states): columns
        # What does not move by itself is moved beside the largest that does.
        largest = torch.maximum(y.abs(), move.abs()).amax(1, keepdim=True)
        reach = torch.where(move == 0, SMALL * y, move)
        reach = torch.where(reach == 0, SMALL * largest, reach)
        for j in torch.nonzero(lost.any(0))[:, 0].tolist():
            column = torch.full_like(y, torch.nan)
            for way in (reach[:, j], -reach[:, j]):
                moved = y.clone()
                moved[:, j] += way
                change = self.rhs(t, moved, params) - f
                # Where all is zero and stays so, any Jacobian does.
                slope = torch.where(way[:, None] == 0, 0.0, change / way[:, None])
                column = torch.where(column.isfinite(), column, slope)
            jacobian[:, :, j] = torch.where(lost[:, j, None], column, jacobian[:, :, j])
        return jacobian

    def jac_params(self, t: Tensor, y: Tensor, params: Tensor) -> Tensor:
        """Return ∂f/∂k of shape (n_samples, n_states, n_params)."""
        if self._jac_params is not None:
            return self._jac_params(t, y, params)
        return self._differentiate(t, y, params, by=2)

    def time_derivative(
        self, t: Tensor, y: Tensor, params: Tensor, step: Tensor | None = None
    ) -> Tensor:
        """Return ∂f/∂t of shape (n_samples, n_states), as :meth:`jac` does ∂f/∂y."""
        slope = self._differentiate(t, y, params, by=0)
        if step is None or slope.isfinite().all():
            return slope
        later = t + NEARBY * step
        change = self.rhs(later, y, params) - self.rhs(t, y, params)
        return torch.where(slope.isfinite(), slope, change / (later - t)[:, None])

    def _differentiate(self, t: Tensor, y: Tensor, params: Tensor, by: int) -> Tensor:
        """Differentiate f by its ``by``-th argument."""

        def f_of(variable: Tensor) -> Tensor:
            arguments = [t, y, params]
            arguments[by] = variable
            return self.rhs(*arguments)

        return rowwise_jacobian(f_of, (t, y, params)[by])


def rowwise_jacobian(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Differentiate ``function(x)`` of shape (n_samples, …), row by row.

    The Jacobian has one axis more, that of x. Row ``i`` of the result depends on row ``i``
    of x only, so one backward pass through column j, summed over samples, gives row j of
    every sample's Jacobian at once. The Jacobian can itself be differentiated where
    gradients are enabled.
    """
    keep_graph = torch.is_grad_enabled()
    traced = function.traced(x) if isinstance(function, Lasting) else None
    if traced is not None:
        return torch.as_tensor(traced.jacobian(x.detach().numpy()))
    with torch.enable_grad():
        if not (keep_graph and x.requires_grad):
            x = x.detach().requires_grad_()
        result = function(x)
        f = result[:, None] if result.ndim == 1 else result
        found = [
            torch.autograd.grad(
                f[:, j].sum(),
                x,
                retain_graph=True,
                create_graph=keep_graph,
                allow_unused=True,
            )[0]
            if f.requires_grad
            else None
            for j in range(f.shape[1])
        ]
    rows = [torch.zeros_like(x) if r is None else r for r in found]
    return torch.stack(rows, dim=1).reshape(*result.shape, *x.shape[1:])


def push_tangents(
    function: Callable[..., Tensor],
    inputs: Sequence[Tensor],
    tangents: Sequence[Tensor],
) -> Tensor:
    """Differentiate ``function(*inputs)`` along tangents, all of them at once.

    The derivative of a pulled-back v by v is the tangent, for any function that automatic
    differentiation knows.

    Parameters
    ----------
    function : callable
        Returns a tensor.

    inputs : sequence of Tensor
        Where to differentiate.

    tangents : sequence of Tensor of shape (n_tangents, *input.shape)
        Directions, one batch for each input.

    Returns
    -------
    pushed : Tensor of shape (n_tangents, *output.shape)
        Directional derivatives.
    """
    traced = function.traced(*inputs) if isinstance(function, Lasting) else None
    if traced is not None:
        n, n_tangents = len(inputs[0]), len(tangents[0])
        columns = [x.detach().numpy().reshape(n, -1) for x in inputs]
        along = [d.detach().movedim(0, -1).numpy() for d in tangents]
        along = [d.reshape(n, -1, n_tangents) for d in along]
        found = torch.as_tensor(traced.push(columns, along)[1])
        return found.movedim(-1, 0).reshape(n_tangents, n, *traced.shape)
    with torch.enable_grad():
        inputs = [x.detach().requires_grad_() for x in inputs]
        output = function(*inputs)
        none = output.new_zeros(len(tangents[0]), *output.shape)
        if not output.requires_grad or len(none) == 0:
            return none
        v = torch.zeros_like(output, requires_grad=True)
        pulled = torch.autograd.grad(
            output, inputs, v, create_graph=True, allow_unused=True
        )
        used = [
            (p, tangent)
            for p, tangent in zip(pulled, tangents)
            if p is not None and p.requires_grad
        ]
        if not used:
            return none
        (pushed,) = torch.autograd.grad(
            [p for p, _ in used],
            v,
            [tangent for _, tangent in used],
            is_grads_batched=True,
        )
    return pushed


def check_differentiable(rhs: Rhs, t: Tensor, y: Tensor, params: Tensor) -> None:
    """Raise ValueError if a right-hand side is cut off from automatic differentiation.

    What passes through NumPy or ``detach`` has no derivative there, and would count as
    constant. Along one direction, steps to both sides and of two sizes must agree that f
    has a slope, and that it is another one: no kink, and no noise, does that.
    """
    ways = [
        torch.where(x == 0, 1.0, x.abs()) * (0.7 + 0.3 * torch.cos(1.0 + place))
        for x in (y, params)
        for place in [torch.arange(x.shape[1], device=x.device)]
    ]
    try:
        (slope,) = push_tangents(
            lambda y, params: rhs(t, y, params), (y, params), [w[None] for w in ways]
        )
    except RuntimeError as error:
        if "numpy" not in str(error):
            return  # it has first derivatives only, and they are all that is needed
        slope = torch.full_like(y, torch.nan)  # it said so itself
    with torch.no_grad():
        f = rhs(t, y, params)
        slopes = torch.stack(
            [
                (rhs(t, y + size * ways[0], params + size * ways[1]) - f) / size
                for size in (1e-5, -1e-5, 1e-4, -1e-4)
            ]
        )
    mean = slopes.mean(0)
    agree = (slopes - mean).abs().amax(0) <= 2e-3 * mean.abs()
    differ = (slope - mean).abs() > 0.02 * mean.abs()
    if (agree & (differ | slope.isnan()) & (mean != 0)).any():
        raise ValueError(
            "`rhs` is cut off from automatic differentiation: it changes with states or "
            "params, but its derivatives do not say so. Compute it from `y` and `params` "
            "in torch throughout, without NumPy, `.detach()` or torch.tensor(…); without "
            "derivatives, call solve_ivp under torch.no_grad()."
        )
