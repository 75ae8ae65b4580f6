"""L-BFGS for many independent problems at once, one row each."""

from collections.abc import Callable

import torch
from torch import Tensor

from sklearn_inverse.optim._optimum import Optimum
from sklearn_inverse.probability._status import InversionStatus

__all__ = ["lbfgs"]

STEEP = 0.01  # slope, relative to one plus the value, that no optimum has


def lbfgs(
    function: Callable,
    start: Tensor,
    *,
    max_iter: int,
    tol: float,
    memory: int = 10,
    reach: Callable | None = None,
) -> Optimum:
    """Minimize by L-BFGS with backtracking, unconstrained.

    Parameters
    ----------
    function : callable
        ``function(x, rows) -> (value, gradient)`` of shapes (n,) and (n, n_free), for the
        problems numbered ``rows``.

    start : Tensor of shape (n_rows, n_free)
        Where to start.

    max_iter : int
        Most iterations.

    tol : float
        A row has converged when three steps in a row have each gained less than ``tol``
        of ``1 + |value|``.

    memory : int, default=10
        Pairs of steps and gradient changes kept.

    reach : callable, default=None
        ``reach(x, rows) -> (low, high)`` of the shape of ``x``: the box around each
        point within which the next one must lie. If None, steps may be of any length,
        and leap over the nearest optimum where the curvature is small.

    Returns
    -------
    optimum : Optimum
        ``x`` holds the coordinates of the function, whatever they are.
    """
    x = start.clone()
    rows = torch.arange(len(x), device=x.device)
    value, gradient = function(x, rows)
    n_iter = torch.zeros_like(rows)
    n_small, n_stuck = torch.zeros_like(rows), torch.zeros_like(rows)
    status = torch.full_like(rows, InversionStatus.MAX_ITER)
    status[~value.isfinite()] = InversionStatus.FAILED
    running = value.isfinite()
    pairs: list[tuple[Tensor, Tensor, Tensor]] = []
    try:
        for _ in range(max_iter):
            i = running.nonzero()[:, 0]
            if len(i) == 0:
                break
            n_iter[i] += 1
            direction = _two_loop(gradient[i], [[part[i] for part in p] for p in pairs])
            # Without curvature the slope says nothing about how far to go.
            curved = torch.stack([torch.zeros_like(value), *(p[2] for p in pairs)])
            length = direction.norm(dim=1).clamp(min=1)
            length = torch.where(curved[:, i].amax(dim=0) > 0, 1.0, length)
            direction = direction / length[:, None]
            if reach is not None:
                direction = direction * _share(direction, x[i], *reach(x[i], i))
            slope = (direction * gradient[i]).sum(dim=1)
            step, new_value, new_gradient = _backtrack(
                function, x[i], value[i], direction, slope, i
            )
            moved = new_value < value[i]
            gain = torch.where(moved, value[i] - new_value, 0.0)
            s = torch.where(moved[:, None], step, 0.0)
            y = torch.where(moved[:, None], new_gradient - gradient[i], 0.0)
            pairs = [*pairs, _pair(s, y, i, len(x))][-memory:]
            n_small[i] = torch.where(
                gain <= tol * (1 + value[i].abs()), n_small[i] + 1, 0
            )
            x[i] += s
            value[i] = torch.where(moved, new_value, value[i])
            gradient[i] = torch.where(moved[:, None], new_gradient, gradient[i])
            # A search that finds nothing goes on without memory; if that finds nothing
            # either, this is the end, though perhaps no optimum.
            for _, _, inverse in pairs:
                inverse[i[~moved]] = 0.0
            n_stuck[i] = torch.where(moved, 0, n_stuck[i] + 1)
            flat = gradient.norm(dim=1) <= STEEP * (1 + value.abs())
            stalled = running & (n_stuck >= 2) & ~flat
            done = running & ~stalled & ((n_small >= 3) | (n_stuck >= 2))
            status[done] = InversionStatus.CONVERGED
            status[stalled] = InversionStatus.STALLED
            running = running & ~done & ~stalled
    except KeyboardInterrupt:
        status[running] = InversionStatus.INTERRUPTED
    return Optimum(x, value, n_iter, status)


def _pair(s: Tensor, y: Tensor, i: Tensor, n_rows: int):
    """Scatter a pair to all rows, with 1 / sᵀy; zero where there is no curvature."""
    product = (s * y).sum(dim=1)
    curved = product > 1e-10 * s.norm(dim=1) * y.norm(dim=1)
    inverse = torch.where(curved, 1 / torch.where(curved, product, 1.0), 0.0)
    full = [p.new_zeros(n_rows, *p.shape[1:]) for p in (s, y, inverse)]
    for whole, part in zip(full, (s, y, inverse)):
        whole[i] = part
    return tuple(full)


def _two_loop(gradient: Tensor, pairs: list) -> Tensor:
    """Return minus the L-BFGS inverse Hessian times the gradient, row by row."""
    q = gradient.clone()
    weights = []
    for s, y, inverse in reversed(pairs):
        weight = inverse * (s * q).sum(dim=1)
        weights.append(weight)
        q = q - weight[:, None] * y
    scale = torch.ones_like(q[:, 0])
    for s, y, inverse in pairs:  # the latest usable pair decides
        usable = inverse > 0
        ratio = (s * y).sum(dim=1) / torch.where(usable, y.square().sum(dim=1), 1.0)
        scale = torch.where(usable, ratio, scale)
    q = q * scale[:, None]
    for (s, y, inverse), weight in zip(pairs, reversed(weights)):
        q = q + s * (weight - inverse * (y * q).sum(dim=1))[:, None]
    return -q


def _share(direction: Tensor, x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return how much of each direction (n, n_free) stays in the box, at most 1."""
    room = torch.where(direction > 0, high - x, low - x) / direction
    room = torch.where(direction == 0, torch.inf, room)
    return room.amin(dim=1, keepdim=True).clamp(0, 1)


def _backtrack(
    function: Callable,
    x: Tensor,
    value: Tensor,
    direction: Tensor,
    slope: Tensor,
    rows: Tensor,
    max_halvings: int = 25,
) -> tuple[Tensor, Tensor, Tensor]:
    """Shorten steps until they gain enough (Armijo); zero where none does."""
    length = torch.ones_like(value)
    step = torch.zeros_like(x)
    new_value, new_gradient = value.clone(), torch.zeros_like(x)
    pending = torch.arange(len(x), device=x.device)
    for _ in range(max_halvings):
        trial = length[pending, None] * direction[pending]
        trial_value, trial_gradient = function(x[pending] + trial, rows[pending])
        wanted = value[pending] + 1e-4 * length[pending] * slope[pending]
        good = trial_value <= wanted
        taken = pending[good]
        step[taken], new_value[taken] = trial[good], trial_value[good]
        new_gradient[taken] = trial_gradient[good]
        # Minimum of the parabola through value, slope and trial, within safe limits.
        rise = trial_value - value[pending] - length[pending] * slope[pending]
        ideal = -0.5 * length[pending] * slope[pending] / rise.clamp(min=1e-300)
        length[pending] *= ideal.nan_to_num(0.1).clamp(0.1, 0.5)
        pending = pending[~good]
        if len(pending) == 0:
            break
    return step, new_value, new_gradient
