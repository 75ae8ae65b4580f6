"""Optimisers of many independent problems at once, one row each.

No row knows of the others: each has its own damping, line search and end.
"""

from enum import IntEnum
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["InversionStatus", "Optimum", "descend", "lbfgs", "levenberg_marquardt"]


STEEP = 0.01  # slope, relative to one plus the value, that no optimum has


class InversionStatus(IntEnum):
    """How the inversion of one sample ended; ``sentence`` says it in words.

    Examples
    --------
    >>> from sklearn_inverse.inverse import InversionStatus
    >>> InversionStatus(0).name, InversionStatus(0).sentence
    ('CONVERGED', 'No step would improve the fit any further.')
    """

    CONVERGED = 0
    MAX_ITER = 1
    STALLED = 2
    FAILED = 3
    INTERRUPTED = 4

    @property
    def sentence(self) -> str:
        """What happened, and what to try."""
        return _SENTENCES[self]


_SENTENCES = {
    InversionStatus.CONVERGED: "No step would improve the fit any further.",
    InversionStatus.MAX_ITER: (
        "All iterations were used. If the method ends by converging, allow it more of "
        "them."
    ),
    InversionStatus.STALLED: (
        "No step along the slope improved the fit. The forward model may be noisy there: "
        "tighten the tolerances of the simulator, or start elsewhere."
    ),
    InversionStatus.FAILED: (
        "The forward model could not be run anywhere it was tried. Narrow `bounds`, or "
        "start elsewhere."
    ),
    InversionStatus.INTERRUPTED: "The inversion was interrupted before its end.",
}


class Optimum(NamedTuple):
    """Where an optimiser ended, one row per problem.

    Parameters
    ----------
    unit : Tensor of shape (n_rows, n_params)
        Best unit params.

    value : Tensor of shape (n_rows,)
        The objective there; infinite if the start could not be simulated.

    n_iter : Tensor of shape (n_rows,)
        Iterations.

    status : Tensor of shape (n_rows,)
        Codes of :class:`InversionStatus`.

    hessian : Tensor of shape (n_rows, n_params, n_params) or None
        Gauss–Newton Hessian of the objective there, if the optimiser had it.
    """

    unit: Tensor
    value: Tensor
    n_iter: Tensor
    status: Tensor
    hessian: Tensor | None = None


def levenberg_marquardt(objective, start, sample, *, max_iter, tol) -> Optimum:
    r"""Minimise by damped Gauss–Newton steps inside the unit box.

    A step solves :math:`(H + \lambda\,\mathrm{diag} H)\,s = -\nabla\Phi` for the params
    that are free, those not held at a wall by the gradient, and is cut at the walls
    (projected Newton [2]_). The damping follows the gain of each step [1]_. A row has
    converged when an undamped step would gain less than ``tol`` of ``1 + value``.

    Parameters
    ----------
    objective : Objective
        What to minimise.

    start : Tensor of shape (n_rows, n_params)
        Unit params.

    sample : Tensor of shape (n_rows,)
        Which sample each row belongs to.

    max_iter : int
        Most iterations, those that found no better point included.

    tol : float
        Relative tolerance of the objective.

    Returns
    -------
    optimum : Optimum
        With the Hessian.

    References
    ----------
    .. [1] H. B. Nielsen, "Damping parameter in Marquardt's method", Technical
       University of Denmark, IMM-REP-1999-05.

    .. [2] D. P. Bertsekas, "Projected Newton methods for optimization problems with
       simple constraints", SIAM J. Control Optim. 20 (1982) 221-246.
    """
    unit = start.clone()
    try:
        value, gradient, hessian = objective.linearise(unit, sample)
    except KeyboardInterrupt:
        return _not_begun(unit)
    damping = torch.full_like(value, 1e-3)
    growth = torch.full_like(value, 2.0)
    n_iter = torch.zeros_like(sample)
    status = torch.full_like(sample, InversionStatus.MAX_ITER)
    status[~value.isfinite()] = InversionStatus.FAILED
    running = value.isfinite()
    try:
        for _ in range(max_iter):
            held = ((unit <= 0) & (gradient > 0)) | ((unit >= 1) & (gradient < 0))
            gain = _newton_gain(gradient, hessian, held)
            # Steep damping and little to gain: round-off of the forward model is all
            # that is left.
            slack = torch.where(damping > 1e6, 100.0, 1.0)
            done = running & (gain <= slack * tol * (1 + value))
            status[done] = InversionStatus.CONVERGED
            stalled = running & ~done & (damping > 1e12)
            status[stalled] = InversionStatus.STALLED
            running = running & ~done & ~stalled
            i = running.nonzero()[:, 0]
            if len(i) == 0:
                break
            n_iter[i] += 1
            step = _damped_step(gradient[i], hessian[i], held[i], damping[i])
            trial = (unit[i] + step).clamp(0, 1)
            step = trial - unit[i]
            expected = -(gradient[i] * step).sum(1) - 0.5 * _quadratic(hessian[i], step)
            trial_value = objective.value(trial, sample[i])
            ratio = (value[i] - trial_value) / expected
            # A cut step may promise nothing: it is judged by what it did.
            better = (trial_value < value[i]) & ((ratio > 1e-4) | (expected <= 0))
            shrink = (1 - (2 * ratio.clamp(0, 1) - 1) ** 3).clamp(min=1 / 3)
            damping[i] *= torch.where(better, shrink, growth[i])
            growth[i] = torch.where(better, 2.0, 2 * growth[i])
            moved = i[better]
            if len(moved):
                unit[moved] = trial[better]
                new = objective.linearise(unit[moved], sample[moved])
                usable = new[0].isfinite()
                # Where there are no derivatives, the step is taken back.
                unit[moved[~usable]] -= step[better][~usable]
                damping[moved[~usable]] *= 10
                moved = moved[usable]
                value[moved], gradient[moved], hessian[moved] = (n[usable] for n in new)
    except KeyboardInterrupt:
        status[running] = InversionStatus.INTERRUPTED
    return Optimum(unit, value, n_iter, status, hessian)


def _not_begun(start):
    """Return an end that is no better than any other, for Ctrl-C at the start."""
    eye = torch.eye(start.shape[1]).to(start).expand(len(start), -1, -1)
    interrupted = torch.full(
        (len(start),), int(InversionStatus.INTERRUPTED), device=start.device
    )
    value = torch.full_like(start[:, 0], torch.inf)
    return Optimum(start, value, torch.zeros_like(interrupted), interrupted, eye)


def _newton_gain(gradient, hessian, held):
    """Return what an undamped step of the free params promises to gain."""
    step = _damped_step(gradient, hessian, held, torch.zeros_like(gradient[:, 0]))
    return -0.5 * (gradient * step).sum(dim=1)


def _damped_step(gradient, hessian, held, damping):
    """Solve the damped normal equations of the free params; zero for those held."""
    diagonal = hessian.diagonal(dim1=1, dim2=2)
    # In units of the diagonal: variances of params may differ by twelve decades.
    scale = diagonal.rsqrt()
    matrix = hessian * scale[:, :, None] * scale[:, None, :]
    free = ~held
    matrix = torch.where(free[:, :, None] & free[:, None, :], matrix, 0.0)
    matrix = matrix + torch.diag_embed(damping[:, None] + held.to(matrix))
    right = torch.where(held, 0.0, -gradient * scale)
    step = torch.linalg.solve_ex(matrix, right)[0]
    return scale * step


def _quadratic(hessian, step):
    return ((hessian @ step[..., None])[..., 0] * step).sum(dim=1)


def lbfgs(function, start, *, max_iter, tol, memory=10, reach=None) -> Optimum:
    """Minimise by L-BFGS with backtracking, unconstrained.

    Parameters
    ----------
    function : callable
        ``function(x, rows) -> (value, gradient)`` of shapes (n,) and (n, n_params), for
        the problems numbered ``rows``.

    start : Tensor of shape (n_rows, n_params)
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
        ``unit`` holds the coordinates of the function, whatever they are.
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


def _pair(s, y, i, n_rows):
    """Scatter a pair to all rows, with 1 / sᵀy; zero where there is no curvature."""
    product = (s * y).sum(dim=1)
    curved = product > 1e-10 * s.norm(dim=1) * y.norm(dim=1)
    inverse = torch.where(curved, 1 / torch.where(curved, product, 1.0), 0.0)
    full = [p.new_zeros(n_rows, *p.shape[1:]) for p in (s, y, inverse)]
    for whole, part in zip(full, (s, y, inverse)):
        whole[i] = part
    return tuple(full)


def _two_loop(gradient, pairs):
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


def _share(direction, x, low, high):
    """Return how much of each direction (n, n_params) stays in the box, at most 1."""
    room = torch.where(direction > 0, high - x, low - x) / direction
    room = torch.where(direction == 0, torch.inf, room)
    return room.amin(dim=1, keepdim=True).clamp(0, 1)


def _backtrack(function, x, value, direction, slope, rows, max_halvings=25):
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


def descend(function, start, *, method, lr, max_iter) -> Optimum:
    """Follow the gradient for a number of steps, by SGD or Adam (full gradients).

    Parameters
    ----------
    function : callable
        As for :func:`lbfgs`.

    start : Tensor of shape (n_rows, n_params)
        Where to start.

    method : {"sgd", "adam"}
        Plain gradient steps, or Adam's.

    lr : float
        Learning rate.

    max_iter : int
        Steps.

    Returns
    -------
    optimum : Optimum
        The last point, as in the paper, not the best.
    """
    x = start.clone().requires_grad_()
    rows = torch.arange(len(x), device=x.device)
    optimizer = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[method]([x], lr=lr)
    status = torch.full_like(rows, InversionStatus.MAX_ITER)
    n_iter = torch.zeros_like(rows)
    try:
        for _ in range(max_iter):
            value, x.grad = function(x.detach(), rows)
            optimizer.step()
            n_iter += 1
    except KeyboardInterrupt:
        status[:] = InversionStatus.INTERRUPTED
    value, _ = function(x.detach(), rows)
    status[~value.isfinite()] = InversionStatus.FAILED
    return Optimum(x.detach(), value, n_iter, status)
