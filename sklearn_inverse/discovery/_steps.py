r"""Implicit steps along measured points, and their derivatives.

All steps of all shots are one batch. The stages :math:`Y_i = y + h \sum_j a_{ij} f(Y_j)`
are solved for by Newton's method, which starts on the straight line between the measured
points: from the first of them it finds other roots. By the implicit function theorem,
with :math:`M_{ij} = \delta_{ij} I - h a_{ij} \partial f(Y_j)`,

.. math:: \sum_j M_{ij}\, dY_j = dy + h \sum_j a_{ij}\, \varphi(Y_j)\, d\theta .

Where the determinant of M is negative, it was zero for a shorter step: what grows so fast
shrinks over an implicit step, which is no solution. To a fit that took it for one, that
pole would be a wall in front of the right equations.
"""

from typing import NamedTuple

import numpy as np
import torch

__all__ = ["StepResult", "sensitivities", "take_steps"]

MAX_ITER = 25
TOL = 1e-6  # of the last correction; the next would be about its square


class StepResult(NamedTuple):
    """Where the steps of all shots lead."""

    stages: list  # of (n_shots, n_stages, n_states), one for each step
    ends: np.ndarray  # (n_shots, n_steps, n_states)
    solved: np.ndarray  # (n_shots,) of bool


def take_steps(rhs, a, shots, start=None, near=None):
    """Take all steps of all shots.

    Parameters
    ----------
    rhs : RightHandSide
        The right-hand side.

    a : ndarray of shape (n_stages, n_stages)
        Butcher matrix of a stiffly accurate method.

    shots : Shots
        Where they begin, and roughly where they lead.

    start : ndarray of shape (n_shots, n_states), default=None
        Where they begin instead.

    near : StepResult, default=None
        Of a right-hand side and starts that differ little: Newton's method begins there.

    Returns
    -------
    result : StepResult
        NaN from where Newton's method fails.
    """
    y = shots.start if start is None else start
    c = a.sum(axis=1)[:, None]
    size = abs(shots.start).max(axis=0) + abs(np.nan_to_num(shots.targets)).max((0, 1))
    solved = np.ones(len(y), dtype=bool)
    t, before, stages, ends = shots.begin, shots.start, [], []
    for i, (h, after) in enumerate(zip(shots.steps.T, np.moveaxis(shots.paths, 1, 0))):
        moving = np.flatnonzero((h > 0) & solved)
        line = before[:, None] + c * (after - before)[:, None]
        if near is not None:
            line = np.where(near.solved[:, None, None], near.stages[i], line)
        stage = np.repeat(y[:, None], len(a), axis=1)
        stage[~solved] = np.nan
        found, done = _solve_stages(
            rhs, a, t[moving], y[moving], h[moving], line[moving], size
        )
        stage[moving] = np.where(done[:, None, None], found, np.nan)
        solved[moving[~done]] = False
        stages.append(stage)
        t, before, y = t + h, after, stage[:, -1]
        ends.append(y)
    return StepResult(stages, np.stack(ends, axis=1), solved)


def _solve_stages(rhs, a, t, y, h, stages, size):
    """Return stages (n, n_stages, n_states), and whether they were found."""
    out, done = stages.copy(), np.zeros(len(y), dtype=bool)
    rows, c = np.arange(len(y)), a.sum(axis=1)
    scale = TOL * (abs(y) + 1e-6 * size)[:, None] + 1e-300
    with np.errstate(all="ignore"):
        for _ in range(MAX_ITER):
            if not len(rows):
                break
            f, jac = rhs(t[:, None] + h[:, None] * c, stages)
            ha = h[:, None, None] * a
            residual = stages - y[:, None] - ha @ f
            step, is_positive = _solve(
                _stage_matrix(ha, jac), residual.reshape(len(rows), -1, 1)
            )
            step = step.reshape(stages.shape)
            stages = stages - step
            out[rows] = stages
            small = abs(step) <= np.maximum(scale, TOL * abs(stages))
            ended = small.all(axis=(1, 2))
            done[rows[ended]] = is_positive[ended]
            keep = ~ended & np.isfinite(stages).all(axis=(1, 2))
            rows, stages, scale = rows[keep], stages[keep], scale[keep]
            t, y, h = t[keep], y[keep], h[keep]
    return out, done


def _stage_matrix(ha, jac):
    """Return M of shape (n, n_stages * n_states, n_stages * n_states)."""
    n, s, d, _ = jac.shape
    matrix = np.empty((n, s, d, s, d))
    by_stage = jac.transpose(0, 2, 1, 3)[:, None]
    np.multiply(-ha[:, :, None, :, None], by_stage, out=matrix)
    matrix = matrix.reshape(n, s * d, s * d)
    matrix[:, range(s * d), range(s * d)] += 1.0
    return matrix


def _solve(matrix, right):
    """Solve many small systems; return, too, whether determinants are positive.

    Solutions are not finite where a matrix is singular.
    """
    lu, pivots, _ = torch.linalg.lu_factor_ex(torch.from_numpy(matrix))
    found = torch.linalg.lu_solve(lu, pivots, torch.from_numpy(right)).numpy()
    in_place = np.arange(1, pivots.shape[1] + 1)
    n_turns = (lu.diagonal(dim1=1, dim2=2) < 0).sum(dim=1).numpy()
    n_turns += (pivots.numpy() != in_place).sum(axis=1)
    return found, n_turns % 2 == 0


def sensitivities(rhs, a, shots, result, free_start=False):
    r"""Return derivatives of the ends of all steps.

    Parameters
    ----------
    rhs, a, shots, result
        As of :func:`take_steps`; all shots must have been solved.

    free_start : bool, default=False
        Whether the states at the start come first among what is free.

    Returns
    -------
    derivatives : ndarray of shape (n_shots, n_steps, n_states, n_free)
        By what is free.
    """
    n, _, d = result.ends.shape
    first = d if free_start else 0
    last = np.repeat(np.eye(d)[None, :, :first], n, axis=0)
    t, c, out = shots.begin, a.sum(axis=1), []
    for h, stages in zip(shots.steps.T, result.stages):
        ha = h[:, None, None] * a
        _, jac = rhs(t[:, None] + h[:, None] * c, stages)
        t, s = t + h, len(a)
        select = np.zeros((n, s * d, d))
        select[:, -d:] = np.eye(d)
        matrix = np.ascontiguousarray(_stage_matrix(ha, jac).transpose(0, 2, 1))
        pull = _solve(matrix, select)[0].transpose(0, 2, 1).reshape(n, d, s, d)
        across = (ha.transpose(0, 2, 1)[:, None] @ pull).reshape(pull.shape)
        now = rhs.by_free(stages, across)
        carried = pull.sum(axis=2) @ last
        if out:
            now += carried[:, :, first:]
        last = np.concatenate([carried[:, :, :first], now], axis=2)
        out.append(last)
    return np.stack(out, axis=1)
