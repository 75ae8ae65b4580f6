"""Coefficients that make the steps lead from point to point."""

from typing import NamedTuple

import numpy as np

from sklearn_inverse.discovery._runs import Shots
from sklearn_inverse.discovery._steps import StepResult, sensitivities, take_steps

__all__ = ["EXACT", "Learning", "equation_error", "misfit", "resolution", "row_weights"]

PENALTY = 10.0  # of a step that cannot be solved, in units of that of standing still
EXACT = 1e-5  # of a state's largest value: what is off by less counts as exact
ROUNDING = 1e-6  # of the largest value of a state, in data without noise
CAUCHY = 4.0  # times its readings: where what a shot misses begins to count less
FARTHEST = 4.0  # standard deviations of a start from where it was measured
CHUNK = 2**22  # numbers of the Jacobian that are held at once
MOST_DAMPING = 1e8


def resolution(shots, noise=None):
    """Return the change of each state that is too small to be seen."""
    if noise is not None:
        return noise
    seen = np.concatenate([shots.start, *np.nan_to_num(shots.targets)])
    return ROUNDING * abs(seen).max(axis=0)


def row_weights(shots, noise=None):
    """Return weights of what is measured, 0 where nothing was.

    Without noise, what is left is the error of the steps, which goes with the change over
    a step; with it, each measured state is worth what its noise says.
    """
    measured = ~np.isnan(shots.targets)
    path = np.concatenate([shots.start[:, None], shots.paths], axis=1)
    change = abs(np.diff(path, axis=1)) + resolution(shots)
    if noise is None:
        return measured / np.where(change > 0, change, 1.0)
    return measured / (noise * shots.noise[:, 1:])


class Point(NamedTuple):
    """What is free, the states from which they start, and where they lead."""

    x: np.ndarray
    start: np.ndarray  # (n_shots, n_states)
    result: StepResult
    residuals: np.ndarray  # (n_shots, n_steps, n_states), weighted
    cost: float


class Learning:
    """The least-squares problem of what is free in a right-hand side.

    ``model`` makes right-hand sides of it, as :class:`Dictionary`. With ``noise``, the
    states at the start of each shot are free too, and worth what was measured there; they
    are eliminated shot by shot. If ``robust``, what a shot misses counts by Cauchy's law:
    while equations are wrong, some shots lead anywhere.
    """

    def __init__(self, model, a, shots, weights, noise=None, robust=False):
        self.model, self.a, self.shots, self.weights = model, a, shots, weights
        self.noise, self.robust = noise, robust
        self._scale = CAUCHY * np.maximum((weights > 0).sum(axis=(1, 2)), 1)

    @classmethod
    def of(cls, runs, model, a, substeps, noise, n_points=1, free=False, robust=False):
        """Return that of runs, cut into shots of so many points."""
        shots = Shots.of(runs, n_points)
        weights = row_weights(shots, noise)
        # Of the starts, shot by shot.
        noise = noise * shots.noise[:, 0] if free else None
        return cls(model, a, shots, weights, noise, robust).divided(substeps)

    def divided(self, n):
        """Return the same problem with each step cut into n."""
        if n == 1:
            return self
        shots = self.shots.divided(n)
        weights = np.zeros(shots.targets.shape)
        weights[:, n - 1 :: n] = self.weights
        return Learning(self.model, self.a, shots, weights, self.noise, self.robust)

    def at(self, x, start=None, near=None):
        """Take all steps; those of another point may be ``near``."""
        shots, rhs = self.shots, self.model.rhs(x)
        near = near if self.robust else None  # roots that are wrong would stay so
        start = shots.start if start is None else start
        result = take_steps(rhs, self.a, shots, start, near and near.result)
        stuck = np.flatnonzero(~result.solved)
        if len(stuck) and start is not shots.start:  # they would stay where they are
            start = start.copy()
            start[stuck] = shots.start[stuck]
            again = take_steps(rhs, self.a, shots.some(stuck))
            for old, new in zip(
                [*result.stages, *result[1:]], [*again.stages, *again[1:]]
            ):
                old[stuck] = new
        still = PENALTY * self.weights * (shots.start[:, None] - shots.paths)
        residuals = np.where(
            self.weights > 0, self.weights * (result.ends - shots.targets), 0.0
        )
        residuals = np.where(result.solved[:, None, None], residuals, still)
        missed = self._missed(start, residuals)
        if self.robust:
            missed = self._scale * np.log1p(missed / self._scale)
        cost = missed.sum() + ((x / self.model.prior_std) ** 2).sum()
        return Point(x, start, result, residuals, float(cost))

    def _missed(self, start, residuals):
        """Return the sum of squares of each shot."""
        missed = (residuals**2).sum(axis=(1, 2))
        if self.noise is not None:
            missed += (((start - self.shots.start) / self.noise) ** 2).sum(axis=1)
        return missed

    def moved(self, point, step):
        """Take all steps a step further."""
        if self.noise is None:
            return self.at(point.x + step, near=point)
        start, at = point.start.copy(), self.shots.start
        for rows, values, vectors, others in self._eliminated:
            right = (others @ np.append(step, 1.0))[..., None]
            right = vectors.transpose(0, 2, 1) @ right / (1 + values)[:, :, None]
            start[rows] -= self.noise[rows] * (vectors @ right)[..., 0]
        # None is that far off, and steps from elsewhere may not be possible.
        start = np.clip(start, at - FARTHEST * self.noise, at + FARTHEST * self.noise)
        return self.at(point.x + step, start, point)

    def linearize(self, point):
        """Return the triangular factor of the Jacobian and the residuals."""
        self._eliminated = []
        return triangle(self._rows(point))

    def gradient(self, point):
        """Return derivatives of the cost by what is free, at starts that are not."""
        return 2 * sum(block[:, :-1].T @ block[:, -1] for block in self._rows(point))

    def _rows(self, point):
        rhs, n_free = self.model.rhs(point.x), len(point.x)
        d, free = self.shots.start.shape[1], self.noise is not None
        at_once = max(1, CHUNK // (self.shots.steps.shape[1] * d * (n_free + 1)))
        rows = np.flatnonzero(point.result.solved)
        missed = self._missed(point.start, point.residuals)
        share = np.sqrt(1 / (1 + missed / self._scale))
        prior = 1 / np.broadcast_to(self.model.prior_std, n_free)
        yield np.column_stack([np.diag(prior), prior * point.x])
        for begin in range(0, len(rows), at_once):
            some = rows[begin : begin + at_once]
            result = StepResult(
                [stages[some] for stages in point.result.stages],
                point.result.ends[some],
                point.result.solved[some],
            )
            shots = self.shots.some(some)
            jac = sensitivities(rhs, self.a, shots, result, free)
            jac *= self.weights[some, ..., None]
            block = np.concatenate([jac, point.residuals[some, ..., None]], axis=-1)
            block = block.reshape(len(some), -1, block.shape[-1])
            if free:
                moved = (point.start[some] - shots.start) / self.noise[some]
                block = self._without_starts(some, block, moved)
            if self.robust:
                block *= share[some, None, None]
            yield block.reshape(-1, n_free + 1)

    def _without_starts(self, rows, block, moved):
        """Return rows of shots less what moving their starts makes up for.

        Of |moved + s|² + |S s + v|² the least over s is that of
        (1 + S Sᵀ)^(-1/2) (v - S moved), with its root from the eigenvectors of Sᵀ S.
        """
        d = moved.shape[1]
        by_start, v = block[:, :, :d] * self.noise[rows][:, None], block[:, :, d:]
        across = by_start.transpose(0, 2, 1)
        square = across @ by_start
        pulled = across @ v
        others = pulled.copy()
        others[:, :, -1] += moved
        shift = square @ moved[:, :, None]
        pulled[:, :, -1:] -= shift
        v[:, :, -1:] -= by_start @ moved[:, :, None]
        values, vectors = np.linalg.eigh(square)
        values = np.maximum(values, 0.0)
        self._eliminated.append((rows, values, vectors, others))
        root = np.sqrt(1 + values)[:, :, None]
        inner = vectors.transpose(0, 2, 1) @ pulled
        return v - by_start @ (vectors @ (inner / (root * (1 + root))))

    def solve(self, x, *, max_iter=50, tol=1e-6, start=None):
        """Return the best point, and how it went; its shots ``start`` somewhere."""
        return levenberg_marquardt(self, x, max_iter=max_iter, tol=tol, start=start)

    def states(self, point):
        """Return the states of a point at points of the runs, by their number."""
        n_points = self.shots.noise.shape[1] - 1
        substeps = self.shots.steps.shape[1] // n_points
        ends = point.result.ends[:, substeps - 1 :: substeps]
        n_steps = (self.shots.steps[:, ::substeps] > 0).sum(axis=1)
        found = {}
        for k in np.flatnonzero(point.result.solved):
            first = self.shots.row[k]
            found |= dict(enumerate(ends[k, : n_steps[k]], first + 1))
            found[first] = point.start[k]
        return found


def misfit(problem, point):
    """Return the variance of the weighted residuals; NaN where none are left over."""
    n_rows = (problem.weights[point.result.solved] > 0).sum()
    n_over = n_rows - len(point.x)
    return point.cost / n_over if n_over > 0 else np.nan


def triangle(blocks):
    """Return R of QR of the rows that come in blocks.

    Normal equations would square the condition of the dictionary, which stiff data make
    bad enough.
    """
    r = None
    for block in blocks:
        rows = block if r is None else np.vstack([r, block])
        r = np.linalg.qr(rows, mode="r")
    return r


def levenberg_marquardt(problem, x, *, max_iter, tol, start=None):
    """Minimize a sum of squares by Levenberg–Marquardt.

    Parameters
    ----------
    problem : Learning
        What is minimized.

    x : ndarray of shape (n_free,)
        Where to start.

    max_iter : int
        Most linearizations.

    tol : float
        Relative gain at which to stop.

    start : ndarray of shape (n_shots, n_states), default=None
        Where shots start at first; as measured, by default.

    Returns
    -------
    point, n_iter, converged
        The last point, and how it went.
    """
    point = problem.at(x, start)
    damping, n = 1e-8, len(x)
    if not n:
        return point, 0, True
    for n_iter in range(1, max_iter + 1):
        factor = problem.linearize(point)
        r, c = factor[:, :-1], factor[:, -1]
        norms = np.linalg.norm(r, axis=0)
        norms[norms == 0] = 1.0
        while True:
            rows = np.vstack([r / norms, np.sqrt(damping) * np.eye(n)])
            right = np.concatenate([-c, np.zeros(n)])
            scaled = np.linalg.lstsq(rows, right, rcond=None)[0]
            trial = problem.moved(point, scaled / norms)
            if trial.cost < point.cost:
                break
            promised = (c**2).sum() - ((c + r @ (scaled / norms)) ** 2).sum()
            damping *= 10
            if damping > MOST_DAMPING or promised <= 1e-12 * point.cost:
                return point, n_iter, promised <= 1e-6 * point.cost
        damping = max(damping / 10, 1e-12)
        gain = point.cost - trial.cost
        point = trial
        small = np.linalg.norm(scaled) <= 1e-11 * np.linalg.norm(point.x * norms)
        if small or gain <= tol * point.cost:
            return point, n_iter, True
    return point, max_iter, False


def equation_error(monomials, shots, weights, known=None):
    """Return what the trapezoid makes of each shot, in one long step to its last point.

    The mean of the monomials of both ends, of shape (n_shots, n_terms); and for each
    equation the matrix and the right side of its weighted residuals.
    """
    rows, last = np.arange(len(shots.begin)), (shots.steps > 0).sum(axis=1) - 1
    h, end, weight = (
        shots.steps.sum(axis=1),
        shots.paths[rows, last],
        weights[rows, last],
    )
    mean = 0.5 * (monomials(shots.start) + monomials(end))
    change = end - shots.start
    if known is not None:
        t = shots.begin
        both = known(t, shots.start)[0] + known(t + h, end)[0]
        change = change - 0.5 * h[:, None] * both
    values = h[:, None] * mean
    return mean, [(w[:, None] * values, w * dy) for w, dy in zip(weight.T, change.T)]
