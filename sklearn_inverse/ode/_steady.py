r"""Steady states: where a system comes to rest, and how that depends on the params.

A system that conserves :math:`C y` (moieties, totals) comes to rest at the solution of
:math:`f(y; k) = 0,\ C y = C y_0`, whose derivative S solves

.. math:: J S = -f_k, \qquad C S = C S_0

(implicit function theorem). Which one it is, where there are several, is decided by
integration from :math:`y_0`; Newton's method does the last digits.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from sklearn_inverse.ode._rhs import Rhs, rowwise_jacobian
from sklearn_inverse.ode._solution import Solution

__all__ = ["conserved", "rest_slopes", "steady_state"]

N_DECADES = 9  # of time that a system is given to come to rest
SLOW = 1e-7  # change, relative to the states, in all the time so far
NULL = 1e-10  # of the largest singular value
N_NEWTON = 8
SETTLED = 1e-9  # last step of Newton's method, relative to the states
NEAR = 0.05  # all its steps


def conserved(rhs: Rhs, t: Tensor, y0: Tensor, params: Tensor) -> Tensor:
    """Return projectors (n_samples, n_states, n_states) on what no state changes.

    The right-hand side is looked at in many random states of each sample: rates of change
    are orthogonal to what is conserved.
    """
    n, n_states = y0.shape
    n_points = 3 * n_states + 20
    random = np.random.RandomState(0).lognormal(size=(n_points, n_states))
    y = torch.as_tensor(random).to(y0) * _or_one(y0.abs().amax(1))[:, None, None]
    every = [x.repeat_interleave(n_points, dim=0) for x in (t, params)]
    f = rhs(every[0], y.flatten(0, 1), every[1]).view(y.shape).mT
    f = torch.where(f.isfinite().all(1, keepdim=True), f, 0.0)
    size = f.new_ones(n, n_states, 1)
    for _ in range(3):  # rates of change differ by many decades
        f = f / _or_one(f.abs().amax(1, keepdim=True))
        by_state = _or_one(f.abs().amax(2, keepdim=True))
        f, size = f / by_state, size * by_state
    left, values, _ = torch.linalg.svd(f)
    is_kept = values <= NULL * values[:, :1]
    kept = torch.where(is_kept[:, None], left, 0.0) / size
    kept = kept / _or_one(kept.norm(dim=1, keepdim=True))
    return kept @ torch.linalg.pinv(kept)


def steady_state(
    run: Callable[[Tensor, Tensor, Tensor], Solution],
    rhs: Rhs,
    span: float,
    t: Tensor,
    y0: Tensor,
    params: Tensor,
    constant: Tensor,
) -> tuple[Tensor, Tensor]:
    """Let systems come to rest.

    Parameters
    ----------
    run : callable
        ``run(t_eval, y0, params)`` integrates.

    rhs : callable
        The right-hand side.

    span : float
        A time after which it may have come to rest; ten, a hundred, … times as long is
        waited where it has not.

    t : Tensor of shape (n_samples,)
        Time at which the right-hand side is taken, if it depends on it.

    y0, params : Tensor of shape (n_samples, n_states), (n_samples, n_params)
        Where it sets out, and the params.

    constant : Tensor of shape (n_samples, n_states, n_states)
        Projectors on what is conserved.

    Returns
    -------
    y : Tensor of shape (n_samples, n_states)
        The steady states, NaN where none was reached.

    settled : Tensor of bool of shape (n_samples,)
        Where one was.
    """
    y, settled = y0.clone(), torch.zeros(len(y0), dtype=torch.bool, device=y0.device)
    waited = 0.0
    going = torch.arange(len(y0), device=y0.device)
    for decade in range(N_DECADES + 1):
        until = span * 10.0**decade
        if len(going) == 0:
            break
        t_eval = torch.tensor([waited, until]).to(y0)
        solution = run(t_eval.expand(len(going), -1), y[going], params[going])
        y[going] = solution.y[:, -1]
        size = _size(y[going], y0[going])
        f = rhs(t[going], y[going], params[going])
        slow = (f.abs() * until <= SLOW * size).all(1)
        settled[going[slow]] = True
        going, waited = going[~slow & solution.success], until
    rows = torch.nonzero(settled)[:, 0]
    y[rows], settled[rows] = _polish(
        rhs, t[rows], y[rows], params[rows], constant[rows], _size(y[rows], y0[rows])
    )
    y[~settled] = torch.nan
    return y, settled


def rest_slopes(
    rhs: Rhs,
    t: Tensor,
    y: Tensor,
    params: Tensor,
    slopes: Tensor,
    constant: Tensor,
    counts: Tensor,
) -> Tensor:
    """Return derivatives (n_samples, n_states, n_params) of steady states by the params.

    ``slopes`` are those of the states from which they were reached; params for which
    ``counts`` (n_samples, n_params) is 0 act on these alone.
    """
    by_params = rowwise_jacobian(lambda params: rhs(t, y, params), params)
    by_params = by_params * counts[:, None]
    target = torch.cat([-by_params, constant @ slopes], dim=1)
    return _solve(_matrix(rhs, t, y, params, constant), target, _size(y, y))


def _polish(rhs, t, y, params, constant, size):
    """Go on by Newton's method; return also which rows have arrived, nearby."""
    begin = y
    step = torch.zeros_like(y)
    for _ in range(N_NEWTON):
        f = rhs(t, y, params)
        lost = constant @ (begin - y)[..., None]  # by round-off
        target = torch.cat([-f[..., None], lost], dim=1)
        step = _solve(_matrix(rhs, t, y, params, constant), target, size)[..., 0]
        y = y + step
    arrived = (step.abs() <= SETTLED * size).all(1)
    return y, arrived & ((y - begin).abs() <= NEAR * size).all(1)


def _matrix(rhs, t, y, params, constant):
    jacobian = rowwise_jacobian(lambda y: rhs(t, y, params), y)
    return torch.cat([jacobian, constant], dim=1)


def _solve(matrix, target, size):
    """Solve consistent equations, each row and each state being of its own size."""
    matrix = matrix * size[:, None]
    by_row = _or_one(matrix.abs().amax(2, keepdim=True))
    solved = torch.linalg.lstsq(matrix / by_row, target / by_row).solution
    return solved * size[:, :, None]


def _size(y, y0):
    largest = torch.maximum(y.abs(), y0.abs()).amax(1, keepdim=True)
    return y.abs() + 1e-9 * _or_one(largest)


def _or_one(x):
    return torch.where(x > 0, x, 1.0)
