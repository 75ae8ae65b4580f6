"""Newton's method for many steady problems at once."""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["newton"]

N_NEWTON, N_HALVINGS = 50, 10
SETTLED = 1e-11  # last step, relative to the solution


def newton(
    off: Callable[[Tensor, Tensor], Tensor], u: Tensor, params: Tensor
) -> tuple[Tensor, Tensor]:
    """Solve off(u, params) = 0 for each row by damped Newton steps.

    Parameters
    ----------
    off : callable
        Returns residuals (n_rows, n) of some rows.

    u : Tensor of shape (n_rows, n)
        Where to start.

    params : Tensor of shape (n_rows, n_params)
        Params of each row.

    Returns
    -------
    u : Tensor of shape (n_rows, n)
        Solutions; NaN where there is none to be found.

    slope : Tensor of shape (n_rows, n, n)
        Derivatives of the residuals there; where there is none, the identity.
    """
    u, open_ = u.clone(), torch.ones(len(u), dtype=torch.bool)
    slope = torch.eye(u.shape[1]).to(u).repeat(len(u), 1, 1)
    for _ in range(N_NEWTON):
        rows = open_.nonzero()[:, 0]
        if len(rows) == 0:
            break
        here, p = u[rows], params[rows]
        value = off(here, p)
        slope[rows] = _jacobian(off, here, p)
        step, info = torch.linalg.solve_ex(slope[rows], value[..., None])
        step = step[..., 0]
        length, size = torch.ones_like(step[:, :1]), value.norm(dim=1)
        small = step.norm(dim=1) <= SETTLED * here.norm(dim=1)
        left = off(here - step, p).norm(dim=1)
        for _ in range(N_HALVINGS):
            worse = ~(left <= size) & ~small
            if not worse.any():
                break
            length[worse] /= 2
            left = off(here - length * step, p).norm(dim=1)
        u[rows] = here - length * step
        lost = (info != 0) | ~u[rows].isfinite().all(dim=1)
        u[rows[lost]] = torch.nan
        # One step solves a linear problem.
        solved = (small | (left <= SETTLED * size)) & (length[:, 0] == 1)
        open_[rows[lost | solved]] = False
    u[open_] = torch.nan
    unsolved = u.isnan().any(dim=1)
    slope[unsolved] = torch.eye(u.shape[1]).to(u)
    return u, slope


def _jacobian(
    off: Callable[[Tensor, Tensor], Tensor], u: Tensor, params: Tensor
) -> Tensor:
    """Return derivatives (n_rows, n, n) of residuals by u, in one pass."""
    u = u.detach().requires_grad_()
    with torch.enable_grad():
        value = off(u, params)
    n = u.shape[1]
    axes = torch.eye(n).to(value)[:, None].expand(-1, len(u), -1)
    (found,) = torch.autograd.grad(value, u, axes, is_grads_batched=True)
    return found.movedim(0, 1)
