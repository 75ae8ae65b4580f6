"""Newton's method for many steady problems at once, and inverses of their Jacobians."""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np
import torch
from scipy.sparse import csc_matrix
from scipy.sparse.linalg import splu
from torch import Tensor

from sklearn_inverse.ode._rhs import push_tangents

__all__ = ["Inverse", "Stencil", "newton", "solve"]

N_NEWTON, N_HALVINGS = 50, 10
SETTLED = 1e-11  # last step, relative to the solution
SINGULAR = 1e13  # condition number, from which on solutions are round-off
MANY, FEW_COLORS = 300, 8  # nodes, and of them per color, from which on LU is sparse


class Stencil:
    """Which nodes a residual at a node depends on: neighbors, along some axes all.

    Columns of a Jacobian that have no row in common are found together (their color).

    Parameters
    ----------
    axes : sequence of (int, bool)
        Number of nodes along each axis, and whether only neighbors count.

    Attributes
    ----------
    seeds : Tensor of shape (n_colors, n)
        Which nodes have each color.

    row, column, color : ndarray of shape (n_entries,)
        Places of what is not zero, and in which color it is found.

    is_sparse : bool
        Whether few entries are of many.
    """

    def __init__(self, axes: Sequence[tuple[int, bool]]):
        found, colors = [], []
        for n, is_local in axes:
            i, n_colors = np.arange(n), 3 if is_local and n > 3 else n
            near = i[:, None] + (np.arange(n_colors) - i[:, None] + 1) % 3 - 1
            column = near if n_colors < n else np.broadcast_to(i, (n, n))
            found.append(np.where((column >= 0) & (column < n), column, -1))
            colors.append(i % n_colors)
        sizes = [n for n, _ in axes]
        n_colors = int(np.prod([f.shape[1] for f in found]))
        place = np.meshgrid(*colors, indexing="ij")
        color = np.ravel_multi_index(place, [f.shape[1] for f in found]).ravel()
        self.seeds = torch.as_tensor(np.eye(n_colors)[:, color])
        known = reduce(lambda a, b: np.kron(a, b), [f >= 0 for f in found])
        self.row, self.color = np.nonzero(known)
        rows = np.unravel_index(self.row, sizes)
        cols = np.unravel_index(self.color, [f.shape[1] for f in found])
        columns = [f[i, c] for f, i, c in zip(found, rows, cols)]
        self.column = np.ravel_multi_index(columns, sizes)
        n = len(color)
        self.is_sparse = n >= MANY and FEW_COLORS * n_colors <= n
        self.n_held = 8 * len(self.row) if self.is_sparse else n * n

    def inverse(self, off: Callable[..., Tensor], u: Tensor, params: Tensor) -> Any:
        """Return the inverse of the derivatives by u of each row's residuals."""
        axes = self.seeds.to(u)[:, None].expand(-1, len(u), -1)
        found = push_tangents(lambda u: off(u, params), (u,), (axes,))
        return Inverse(self, found[self.color, :, self.row].mT)


class Inverse:
    """Inverse matrices of several problems.

    Parameters
    ----------
    stencil : Stencil
        Where entries are.

    entries : Tensor of shape (n_rows, n_entries)
        Matrices; where they are not finite, the identity is taken.
    """

    def __init__(self, stencil: Stencil, entries: Tensor):
        row, column, n = stencil.row, stencil.column, stencil.seeds.shape[1]
        known = entries.isfinite().all(dim=1, keepdim=True)
        one = torch.as_tensor(row == column).to(entries)
        entries = torch.where(known, entries, one)
        self._stencil, self._entries = stencil, entries
        self._factors: Any = None
        if stencil.is_sparse:
            self._factors = [
                _factor(csc_matrix((x, (row, column)), shape=(n, n)))
                for x in entries.numpy()
            ]
        else:
            matrix = entries.new_zeros(len(entries), n, n)
            matrix[:, row, column] = entries
            self._lu = torch.linalg.lu_factor_ex(matrix)[:2]

    def is_singular(self) -> Tensor:
        """Tell which matrices are singular but for round-off, whatever rows' units."""
        entries, stencil = self._entries, self._stencil
        rng = np.random.default_rng(0)
        shape = len(entries), stencil.seeds.shape[1]
        x, signs = (torch.as_tensor(rng.standard_normal(shape)) for _ in range(2))
        # Skeel's condition number |A^-1| |A|, along one vector.
        size = torch.zeros(shape, dtype=torch.float64)
        row, column = (torch.as_tensor(i) for i in (stencil.row, stencil.column))
        size.index_add_(1, row, entries.abs() * x.abs()[:, column])
        found = self(size * signs.sign()).norm(dim=1)
        return ~(found < SINGULAR * x.norm(dim=1))

    def __call__(self, b: Tensor, is_transposed: bool = False) -> Tensor:
        """Return solutions (…, n_rows, n), not finite where there are none."""
        right = b.reshape(-1, *b.shape[-2:]).permute(1, 2, 0)
        if self._factors is None:
            x = torch.linalg.lu_solve(*self._lu, right, adjoint=is_transposed)
        else:
            trans = "T" if is_transposed else "N"
            x = torch.full_like(right, torch.nan)
            for i, factor in enumerate(self._factors):
                if factor is not None:
                    found = factor.solve(right[i].numpy(), trans)
                    x[i] = torch.as_tensor(found)
        return x.permute(2, 0, 1).reshape(b.shape)


def _factor(matrix: csc_matrix) -> Any:
    try:
        return splu(matrix)
    except RuntimeError:  # singular
        return None


class _Solve(torch.autograd.Function):
    """Solutions as a function of the right-hand side."""

    @staticmethod
    def forward(ctx: Any, b: Any, inverse: Any, is_transposed: Any) -> Any:
        ctx.inverse, ctx.is_transposed = inverse, is_transposed
        return inverse(b, is_transposed)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return (
            _Solve.apply(gradients[0], ctx.inverse, not ctx.is_transposed),
            None,
            None,
        )


def solve(inverse: Inverse, b: Tensor) -> Tensor:
    """Return solutions (n_rows, n), differentiably by the right-hand side."""
    return _Solve.apply(b, inverse, False)


def newton(
    off: Callable[[Tensor, Tensor], Tensor],
    u: Tensor,
    params: Tensor,
    stencil: Stencil,
) -> tuple[Tensor, Inverse]:
    """Solve off(u, params) = 0 for each row by damped Newton steps.

    Parameters
    ----------
    off : callable
        Returns residuals (n_rows, n) of some rows.

    u : Tensor of shape (n_rows, n)
        Where to start.

    params : Tensor of shape (n_rows, n_params)
        Params of each row.

    stencil : Stencil
        Which of u a residual depends on.

    Returns
    -------
    u : Tensor of shape (n_rows, n)
        Solutions; NaN where there is none to be found.

    inverse : Inverse
        Of the derivatives of the residuals there.
    """
    u, open_ = u.clone(), torch.ones(len(u), dtype=torch.bool)
    for _ in range(N_NEWTON):
        rows = open_.nonzero()[:, 0]
        if len(rows) == 0:
            break
        here, p = u[rows], params[rows]
        value = off(here, p)
        step = stencil.inverse(off, here, p)(value)
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
        lost = ~u[rows].isfinite().all(dim=1)
        u[rows[lost]] = torch.nan
        # One step solves a linear problem.
        solved = (small | (left <= SETTLED * size)) & (length[:, 0] == 1)
        open_[rows[lost | solved]] = False
    u[open_] = torch.nan
    inverse = stencil.inverse(off, u, params)
    u[inverse.is_singular()] = torch.nan
    return u, inverse
