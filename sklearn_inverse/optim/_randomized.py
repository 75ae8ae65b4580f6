"""Draws of curved posteriors: randomize the data, optimize, and weigh where that ends."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

from sklearn_inverse.optim._importance import (
    ROUND,
    SAME_MASS,
    SAME_MOMENTS,
    n_effective,
    normalize,
    pick,
)

__all__ = ["Randomized", "randomized"]

MAX_ITER, TOL = 25, 3e-3  # of Newton's method; simulations tell no smaller distances
LONGEST = 2.0  # standard deviations of the prior that a param may move in a step
LOST = 0.02  # share of draws that may not be reached
HOPE = 0.5  # share of enough draws that a budget must promise, or it is not used up


class Randomized(NamedTuple):
    """What randomized optimization found.

    Attributes
    ----------
    draws : ndarray of shape (n_kept, n_params)
        Draws, picked by their weights; NaN where none counts.

    agrees : bool
        Whether effective draws are enough, and their halves say the same.

    share, n_effective : float
        Effective share of the draws, and effective draws.

    n_draws : int
        Draws that were tried.

    is_interrupted : bool
        Whether Ctrl-C ended it early.
    """

    draws: np.ndarray
    agrees: bool
    share: float
    n_effective: float
    n_draws: int
    is_interrupted: bool


def randomized(
    residuals: Callable,
    log_density: Callable,
    center: np.ndarray,
    *,
    max_solves: int,
    n_enough: int,
    n_kept: int,
    seed: int,
) -> Randomized:
    r"""Draw from the density of a sample by randomize-then-optimize.

    With residuals r(z) of prior and readings, standardized, whose squares' half sum is
    minus the log density nearly, and Q an orthonormal basis of their Jacobian's range at
    the optimum, a draw is the solution of

    .. math:: Q^T r(z) = \xi, \qquad \xi \sim N(0, I),

    whose density :math:`|\det Q^T r'(z)| N(Q^T r(z); 0, I)` is known, and by which it
    is weighed. Solutions follow a valley that bends, at a few linearizations each, where
    a normal distribution around the optimum has next to nothing in common with it. Of
    one optimum alone: others are never reached.

    Parameters
    ----------
    residuals : callable
        ``residuals(rows, sample)`` returns r (n_rows, n) of rows (n_rows, n_params), and
        their Jacobians (n_rows, n, n_params), NaN where they cannot be computed; sample
        is 0.

    log_density : callable
        ``log_density(rows, sample)`` (n_rows,), minus infinity or NaN where there is none.

    center : ndarray of shape (n_params,)
        The optimum.

    max_solves : int
        Most runs, with sensitivities or without.

    n_enough : int
        Effective draws at which to stop, if their halves agree; half as many are worth
        the whole budget.

    n_kept : int
        Draws to return.

    seed : int
        Seed of the random numbers.

    Returns
    -------
    randomized : Randomized
        What was found; Ctrl-C keeps what there is.

    References
    ----------
    .. [1] J. M. Bardsley, A. Solonen, H. Haario, M. Laine, "Randomize-then-optimize: a
       method for sampling from posterior distributions in nonlinear inverse problems",
       SIAM Journal on Scientific Computing 36, A1895 (2014).
    """
    n_params = len(center)
    points, log_weight = np.empty((0, n_params)), np.empty(0)
    weight, n_solves, cost = log_weight, 1, ROUND
    agrees = is_interrupted = False
    try:
        residual, jacobian = residuals(center[None], np.zeros(1, int))
        basis, slope = np.linalg.qr(jacobian[0])
        is_worth_it = True
        while is_worth_it and not agrees and n_solves + cost <= max_solves:
            rng = np.random.default_rng([seed, len(points)])
            aim = rng.standard_normal((ROUND, n_params))
            begin = center, residual[0] @ basis, slope
            new, log_drawn, cost = _solve(residuals, basis, aim, *begin)
            value = np.full(ROUND, -np.inf)
            reached = np.isfinite(log_drawn)
            value[reached] = log_density(new[reached], np.zeros(reached.sum(), int))
            points = np.concatenate([points, new])
            log_weight = np.concatenate([log_weight, value - log_drawn])
            weight, cost = normalize(log_weight), cost + ROUND
            n_solves += cost
            n_drawn = n_effective(weight)
            is_worth_it = n_drawn * max_solves >= HOPE * n_enough * n_solves
            if n_drawn >= n_enough:
                agrees = _agree(points, log_weight)
        agrees = agrees or (is_worth_it and _agree(points, log_weight))
    except KeyboardInterrupt:
        is_interrupted = True
    kept = np.full((n_kept, n_params), np.nan)
    n_drawn = float(n_effective(weight))
    if n_drawn:
        rng = np.random.default_rng(seed)
        kept = points[rng.permutation(pick(weight, n_kept, rng))]
    share = n_drawn / max(len(points), 1)
    return Randomized(kept, agrees, share, n_drawn, len(points), is_interrupted)


def _solve(residuals, basis, aim, center, offset, slope):
    """Return solutions, their log densities, infinite if not reached; linearizations.

    By Newton's method from the center; later steps that lead away are shortened.
    """
    shape = aim.shape
    z, off = np.broadcast_to(center, shape).copy(), offset - aim
    slope = np.broadcast_to(slope, (*shape, shape[1])).copy()
    # In a valley that bends the first step leads away, and the second back.
    distance, shrink = np.full(len(aim), np.inf), np.ones(len(aim))
    on, n_solves, facing = np.arange(len(aim)), 0, np.linalg.slogdet(slope)[0]
    for _ in range(MAX_ITER):
        step = np.linalg.solve(slope[on], off[on, :, None])[..., 0]
        longest = np.abs(step).max(axis=1, initial=LONGEST, keepdims=True)
        there = z[on] - shrink[on, None] * step * LONGEST / longest
        residual, jacobian = residuals(there, np.zeros(len(on), int))
        n_solves += len(on)
        new_off = residual @ basis - aim[on]
        new_distance = np.linalg.norm(new_off, axis=1)
        nearer = new_distance < distance[on]  # not where that failed
        shrink[on] = np.where(nearer, np.minimum(2 * shrink[on], 1), shrink[on] / 4)
        moved = on[nearer]
        z[moved], off[moved] = there[nearer], new_off[nearer]
        slope[moved] = basis.T @ jacobian[nearer]
        distance[moved] = new_distance[nearer]
        on = on[distance[on] > TOL]
        if len(on) == 0:
            break
    sign, log_det = np.linalg.slogdet(slope)
    log_drawn = log_det - 0.5 * ((off + aim) ** 2).sum(axis=1)
    reached = (distance <= TOL) & (sign == facing)  # else beyond a fold
    return z, np.where(reached, log_drawn, np.inf), n_solves


def _agree(points, log_weight):
    """Whether every other draw says what those between say: mass, means and spreads.

    And nearly all could be reached.
    """
    if len(points) == 0 or np.isfinite(log_weight).mean() < 1 - LOST:
        return False
    told = []
    for half in (slice(0, None, 2), slice(1, None, 2)):
        weight, z = normalize(log_weight[half]), points[half]
        z = np.where(weight[:, None] > 0, z, 0.0)
        mean = weight @ z
        mass = logsumexp(np.nan_to_num(log_weight[half], nan=-np.inf))
        told.append((mass, mean, np.sqrt(weight @ (z - mean) ** 2)))
    (mass, mean, std), (other_mass, other_mean, other_std) = told
    moved = np.abs(mean - other_mean) / std
    ratio = np.abs(np.log(std / other_std))
    return (
        abs(mass - other_mass) <= SAME_MASS
        and max(moved.max(), ratio.max()) <= SAME_MOMENTS
    )
