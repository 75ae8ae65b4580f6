"""Levenberg–Marquardt for many independent problems at once, one row each."""

import torch
from torch import Tensor

from sklearn_inverse.optim._optimum import Optimum
from sklearn_inverse.probability._status import InversionStatus

__all__ = ["damped_step", "inside", "levenberg_marquardt"]

PACE = 10  # iterations in which a row's progress is judged
FASTER = 4.0  # than so far it may become
FAR = 100.0  # above the best: nearer rows are followed to their end
NEAR = 1.0  # what a step promises to gain, from which on it is near an optimum
MISSED = 0.25  # of the curvature along a step: less does not slow Gauss–Newton down
TO_WALL = 0.9  # of the way to an open bound that one step may go


def levenberg_marquardt(objective, start: Tensor, sample: Tensor, *, max_iter, tol):
    r"""Minimize by damped Gauss–Newton steps inside bounds.

    A step solves :math:`(H + \lambda\,\mathrm{diag} H)\,s = -\nabla\Phi` for the
    coordinates that are free, those not held at a bound by the gradient, and is cut at
    the bounds (projected Newton [2]_); open bounds, where the objective is infinite, are
    approached but not reached. H is the Gauss–Newton Hessian; near an optimum, where the
    last step met more curvature, its symmetric rank-one update by that (as in [3]_). The
    damping follows the gain of each step [1]_. A row has converged when an undamped step
    would gain less than ``tol`` per reading. It is given up when another of its sample
    has, and even at several times its pace it would not come near that one's value in the
    iterations that are left.

    Parameters
    ----------
    objective : object
        ``value(x, sample)`` and ``linearize(x, sample) -> (value, gradient, hessian)``,
        one row each; ``low``, ``high`` and ``is_open`` of shape (n_free,): the bounds,
        and whether they are open; ``n_readings`` of each sample; ``is_eager``: whether
        derivatives cost so little that a trial point is given them at once.

    start : Tensor of shape (n_rows, n_free)
        Where to start, inside the bounds.

    sample : Tensor of shape (n_rows,)
        Which sample each row belongs to.

    max_iter : int
        Most iterations, those that found no better point included.

    tol : float or Tensor of shape (n_rows,)
        Tolerance of the objective per reading.

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

    .. [3] J. E. Dennis, D. M. Gay, R. E. Welsch, "An adaptive nonlinear least-squares
       algorithm", ACM Trans. Math. Softw. 7 (1981) 348-368.
    """
    x = start.clone()
    low, high = objective.low, objective.high
    n_readings = objective.n_readings[sample].to(x)
    try:
        value, gradient, hessian = objective.linearize(x, sample)
    except KeyboardInterrupt:
        return _not_begun(x)
    damping = torch.full_like(value, 1e-3)
    growth = torch.full_like(value, 2.0)
    n_iter = torch.zeros_like(sample)
    status = torch.full_like(sample, InversionStatus.MAX_ITER)
    status[~value.isfinite()] = InversionStatus.FAILED
    running = value.isfinite()
    best = torch.full((len(objective.n_readings),), torch.inf).to(x)  # of each sample
    earlier = value.clone()
    curvature = hessian.clone()  # with what Gauss–Newton leaves out, where that counts
    try:
        for iteration in range(max_iter):
            held = ((x <= low) & (gradient > 0)) | ((x >= high) & (gradient < 0))
            gain = _newton_gain(gradient, curvature, held)
            # Steep damping and little to gain: round-off of the forward model is all
            # that is left.
            size = value.abs()
            size = torch.where(
                damping > 1e6, 100 * size, torch.minimum(size, n_readings)
            )
            done = running & (gain <= tol * (1 + size))
            status[done] = InversionStatus.CONVERGED
            stalled = running & ~done & (damping > 1e12)
            best.scatter_reduce_(0, sample[done], value[done], "amin")
            if iteration and iteration % PACE == 0:
                behind, gained = value - best[sample], earlier - value
                left = (max_iter - iteration) / PACE
                stalled = stalled | running & (behind > FASTER * left * gained + FAR)
                earlier = value.clone()
            status[stalled] = InversionStatus.STALLED
            running = running & ~done & ~stalled
            i = running.nonzero()[:, 0]
            if len(i) == 0:
                break
            n_iter[i] += 1
            step = damped_step(gradient[i], curvature[i], held[i], damping[i])
            trial = inside(x[i], step, objective)
            step = trial - x[i]
            expected = -(gradient[i] * step).sum(1) - 0.5 * _quadratic(
                curvature[i], step
            )
            linearized: tuple[Tensor, ...] = ()
            if objective.is_eager:
                linearized = objective.linearize(trial, sample[i])
                trial_value = linearized[0]
            else:
                trial_value = objective.value(trial, sample[i])
            ratio = (value[i] - trial_value) / expected
            # A cut step may promise nothing: it is judged by what it did.
            better = (trial_value < value[i]) & ((ratio > 1e-4) | (expected <= 0))
            shrink = (1 - (2 * ratio.clamp(0, 1) - 1) ** 3).clamp(min=1 / 3)
            damping[i] *= torch.where(better, shrink, growth[i])
            growth[i] = torch.where(better, 2.0, 2 * growth[i])
            moved = i[better]
            if len(moved):
                if objective.is_eager:
                    new = tuple(a[better] for a in linearized)
                else:
                    new = objective.linearize(trial[better], sample[moved])
                usable = new[0].isfinite()
                # Where there are no derivatives, nothing moves.
                damping[moved[~usable]] *= 10
                moved = moved[usable]
                x[moved] = trial[better][usable]
                new = tuple(n[usable] for n in new)
                change = new[1] - gradient[moved]
                curvature[moved] = torch.where(
                    (gain[moved] < NEAR)[:, None, None],
                    _with_secant(new[2], step[better][usable], change),
                    new[2],
                )
                value[moved], gradient[moved], hessian[moved] = new
    except KeyboardInterrupt:
        status[running] = InversionStatus.INTERRUPTED
    return Optimum(x, value, n_iter, status, hessian)


def inside(x, step, objective):
    """Return ``x + step``, cut at closed bounds and on the way to open ones."""
    low, high = objective.low, objective.high
    nearest_low = torch.where(objective.is_open, x - TO_WALL * (x - low), low)
    nearest_high = torch.where(objective.is_open, x + TO_WALL * (high - x), high)
    return torch.minimum(torch.maximum(x + step, nearest_low), nearest_high)


def _not_begun(start):
    """Return an end that is no better than any other, for Ctrl-C at the start."""
    eye = torch.eye(start.shape[1]).to(start).repeat(len(start), 1, 1)
    interrupted = torch.full(
        (len(start),), int(InversionStatus.INTERRUPTED), device=start.device
    )
    value = torch.full_like(start[:, 0], torch.inf)
    return Optimum(start, value, torch.zeros_like(interrupted), interrupted, eye)


def _newton_gain(gradient, hessian, held):
    """Return what an undamped step of the free coordinates promises to gain."""
    step = damped_step(gradient, hessian, held, torch.zeros_like(gradient[:, 0]))
    return -0.5 * (gradient * step).sum(dim=1)


def damped_step(gradient, hessian, held, damping):
    """Solve the damped normal equations of the free coordinates; zero for those held."""
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


def _with_secant(hessian, step, change):
    """Return Hessians that know the curvature along the last steps, where it is more.

    Gauss–Newton leaves out that of the model, and jumps to and fro where that counts.
    """
    beyond = change - (hessian @ step[..., None])[..., 0]
    along = (beyond * step).sum(dim=1)
    is_more = along > MISSED * _quadratic(hessian, step)
    weight = torch.where(is_more, 1 / along, 0.0)
    return hessian + weight[:, None, None] * beyond[:, :, None] * beyond[:, None, :]


def _quadratic(hessian, step):
    return ((hessian @ step[..., None])[..., 0] * step).sum(dim=1)
