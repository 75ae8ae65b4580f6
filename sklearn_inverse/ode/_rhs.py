"""Derivatives of a right-hand side, in closed form where it has one."""

import torch
from torch import Tensor

__all__ = ["RightHandSide", "rowwise_jacobian"]


class RightHandSide:
    """``rhs(t, y, params)`` with its derivatives by states, params and time.

    Parameters
    ----------
    rhs : callable
        Batched right-hand side. Its attributes ``jac`` and ``jac_params``, where it has
        them, are taken for its derivatives by the states and by the params.

    jac : callable, default=None
        ``jac(t, y, params) -> ∂f/∂y``. If None, ``rhs.jac``, else automatic.

    params : Tensor of shape (n_samples, n_params)
        Params of the problem, and initial values below, to find out what f depends on.

    t, y : Tensor
        Initial time and state.
    """

    def __init__(self, rhs, jac, t: Tensor, y: Tensor, params: Tensor):
        self.rhs = rhs
        self._jac = jac or getattr(rhs, "jac", None)
        self._jac_params = getattr(rhs, "jac_params", None)
        with torch.enable_grad():
            t = t.detach().clone().requires_grad_()
            f = rhs(t, y.detach(), params.detach())
            self.is_autonomous = not f.requires_grad or (
                torch.autograd.grad(f.sum(), t, allow_unused=True)[0] is None
            )

    def __call__(self, t, y, params):
        """Return f of shape (n_samples, n_states)."""
        return self.rhs(t, y, params)

    def jac(self, t, y, params):
        """Return ∂f/∂y of shape (n_samples, n_states, n_states)."""
        if self._jac is not None:
            return self._jac(t, y, params)
        return self._differentiate(t, y, params, by=1)

    def jac_params(self, t, y, params):
        """Return ∂f/∂k of shape (n_samples, n_states, n_params)."""
        if self._jac_params is not None:
            return self._jac_params(t, y, params)
        return self._differentiate(t, y, params, by=2)

    def time_derivative(self, t, y, params):
        """Return ∂f/∂t of shape (n_samples, n_states)."""
        return self._differentiate(t, y, params, by=0)

    def _differentiate(self, t, y, params, by):
        """Differentiate f by its ``by``-th argument."""

        def f_of(variable):
            arguments = [t, y, params]
            arguments[by] = variable
            return self.rhs(*arguments)

        return rowwise_jacobian(f_of, (t, y, params)[by])


def rowwise_jacobian(function, x: Tensor) -> Tensor:
    """Differentiate ``function(x)`` of shape (n_samples, n_outputs), row by row.

    Row ``i`` of the result depends on row ``i`` of x only, so one backward pass through
    column j, summed over samples, gives row j of every sample's Jacobian at once. The
    Jacobian can itself be differentiated where gradients are enabled.
    """
    keep_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        if not (keep_graph and x.requires_grad):
            x = x.detach().requires_grad_()
        f = function(x)
        rows = [
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
    return torch.stack([torch.zeros_like(x) if r is None else r for r in rows], dim=1)
