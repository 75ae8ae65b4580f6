"""Levenberg–Marquardt for many independent problems at once, one row each."""

import torch

from sklearn_inverse.optim._status import InversionStatus, Optimum

__all__ = ["levenberg_marquardt"]


def levenberg_marquardt(objective, start, sample, *, max_iter, tol) -> Optimum:
    r"""Minimize by damped Gauss–Newton steps inside the unit box.

    A step solves :math:`(H + \lambda\,\mathrm{diag} H)\,s = -\nabla\Phi` for the params
    that are free, those not held at a wall by the gradient, and is cut at the walls
    (projected Newton [2]_). The damping follows the gain of each step [1]_. A row has
    converged when an undamped step would gain less than ``tol`` of ``1 + value``.

    Parameters
    ----------
    objective : Objective
        What to minimize.

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
        value, gradient, hessian = objective.linearize(unit, sample)
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
                new = objective.linearize(unit[moved], sample[moved])
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
