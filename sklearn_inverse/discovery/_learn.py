"""From runs to coefficients: fit, leave out what does not contribute, fit again."""

from typing import NamedTuple

import numpy as np
from scipy.linalg import block_diag

from sklearn_inverse.discovery._determined import (
    Determined,
    conservation_laws,
    other_relations,
    sparsest,
)
from sklearn_inverse.discovery._fit import (
    Learning,
    equation_error,
    resolution,
    row_weights,
)
from sklearn_inverse.discovery._monomials import Monomials
from sklearn_inverse.discovery._runs import Shots

__all__ = ["Learned", "learn"]

ROUGHLY, CLOSELY = 0.1, 1e-6  # relative gains at which fits stop
WHOLE = 10**9  # points in a row: all of a run
# Points in a row over which it is fitted; share, of the threshold, and number of standard
# errors below which terms are left out.
EXACT = ((1, 0.01, 0.0), (1, 0.1, 0.0), (1, 1.0, 0.0))
NOISY = ((8, 0.01, 0.5), (16, 0.1, 1.0), (32, 1.0, 2.0), (WHOLE, 1.0, 3.0))


class Learned(NamedTuple):
    """What :func:`learn` returns: attributes of the estimator, and how it went."""

    monomials: Monomials
    coef: np.ndarray
    coef_std: np.ndarray
    covariance: np.ndarray
    rank: int
    identifiable: np.ndarray
    relations: list
    is_choice: bool
    misfit: float  # variance of what is left, in units of the noise or of the changes
    n_iter: int
    n_failed: int
    n_steps: int
    converged: bool


def learn(
    runs,
    names,
    *,
    a,
    degree,
    substeps,
    threshold,
    noise,
    known,
    unknown,
    max_iter,
):
    """Return what these runs tell; arguments are those of the estimator."""
    monomials = Monomials(names, degree)
    shots = Shots.of(runs)
    weights = row_weights(shots, noise)
    means, errors = equation_error(monomials, shots, weights, known)
    determined = _determined(monomials, shots, means, noise)
    keep = np.zeros((len(names), len(monomials.names)), dtype=bool)
    keep[unknown] = True
    _, unseen = determined.split(np.ones(keep.shape[1], dtype=bool))
    identifiable = (np.linalg.norm(unseen, axis=1) < 1e-6) & keep

    search = _Search(runs, monomials, determined, a, substeps, noise, known, max_iter)
    coef = np.zeros(keep.shape)
    for k, (matrix, change) in enumerate(errors):
        basis = determined.basis(keep[k])
        coef[k] = basis @ np.linalg.lstsq(matrix @ basis, change, rcond=1e-12)[0]
    is_choice = unseen.shape[1] > 0
    search.fit(coef, keep, 1, CLOSELY if is_choice or not threshold else ROUGHLY)
    if is_choice:
        search.choose(unseen, unknown)
    stages = EXACT if noise is None else NOISY
    for n_points, cut, significance in stages[: 3 if threshold else 0]:
        search.leave_out(n_points, threshold * cut, significance)
    if noise is not None or threshold:
        n_points, _, significance = stages[-1]
        done = search.attempt(search.keep, n_points, CLOSELY)
        if done and threshold:
            search.leave_out(n_points, threshold, significance, CLOSELY)

    keep, covariance = search.keep, search.covariance()
    std = np.zeros_like(coef)
    std[keep] = np.sqrt(np.diag(covariance)[np.flatnonzero(keep)])
    kept = np.flatnonzero(keep)
    level = np.zeros(len(names)) if noise is None else noise
    relations, same = conservation_laws([y for _, y in runs], names, level)
    # There are some between any few points, and between noisy ones.
    if noise is None and len(means) >= keep.shape[1]:
        relations += other_relations(
            unseen, _multiples(monomials, same), monomials.names, determined.scale
        )
    solved = search.point.result.solved
    return Learned(
        monomials,
        search.coef,
        std,
        covariance[np.ix_(kept, kept)],
        keep.shape[1] - unseen.shape[1],
        identifiable,
        relations,
        is_choice,
        search.misfit(),
        search.n_iter,
        int((~solved).sum()),
        len(solved),
        search.converged,
    )


class _Search:
    """The terms that are kept, and their coefficients, as they become fewer."""

    def __init__(
        self, runs, monomials, determined, a, substeps, noise, known, max_iter
    ):
        self.runs, self.monomials, self.determined = runs, monomials, determined
        self.a, self.substeps, self.noise = a, substeps, noise
        self.known, self.max_iter = known, max_iter
        self.n_iter = 0

    def fit(self, coef, keep, n_points, tol):
        """Fit the coefficients that are kept, over so many points in a row."""
        bases = [self.determined.basis(row) for row in keep]
        x = np.concatenate(
            [np.linalg.lstsq(b, c, rcond=None)[0] for b, c in zip(bases, coef)]
        )
        problem = self._problem(bases, n_points)
        found = problem.solve(x, max_iter=self.max_iter, tol=tol)
        self.point, self.factor, n_iter, self.converged = found
        self.problem, self.keep, self.n_iter = problem, keep, self.n_iter + n_iter
        self.coef = np.where(keep, problem.coef(self.point.x), 0.0)

    def _problem(self, bases, n_points):
        shots = Shots.of(self.runs, n_points)
        weights = row_weights(shots, self.noise)
        if self.substeps > 1:
            shots = shots.divided(self.substeps)
            weights = _divided(weights, self.substeps)
        free = self.noise if n_points > 1 else None
        return Learning(self.monomials, self.a, shots, weights, bases, self.known, free)

    def choose(self, unseen, unknown):
        """Take the coefficients of least L1 norm of those that fit as well."""
        coef = self.coef.copy()
        for k in unknown:
            coef[k] = sparsest(coef[k], unseen, self.determined.scale)
        # Between the points they differ: steps must still be possible.
        problem = self._problem([np.eye(coef.shape[1])] * len(coef), 1)
        if problem.at(coef.ravel()).result.solved.all():
            self.coef = coef

    def leave_out(self, n_points, cut, significance, tol=ROUGHLY):
        """Leave out terms of small share, and the least significant, until none is left."""
        shots = Shots.of(self.runs)
        floor = resolution(shots)
        while self.keep.any():
            small = shares(self.monomials, self.coef, shots, floor, self.known) < cut
            weak = self.keep & small
            if significance and not weak.any():
                ratio = np.full(self.keep.shape, np.inf)
                variance = np.diag(self.covariance()).reshape(ratio.shape)
                np.divide(
                    abs(self.coef), np.sqrt(variance), out=ratio, where=variance > 0
                )
                # A few at a time: terms that replace each other are weak together.
                some = np.sort(ratio[self.keep])[max(1, self.keep.sum() // 4) - 1]
                weak = self.keep & (ratio <= min(some, significance))
            if not weak.any() or not self.attempt(self.keep & ~weak, n_points, tol):
                return

    def attempt(self, keep, n_points, tol):
        """Fit, and return whether many steps in a row lead somewhere; else, undo it."""
        before = vars(self).copy()
        self.fit(self.coef, keep, n_points, tol)
        if n_points == 1 or self.point.result.solved.all():
            return True
        vars(self).update(before | {"converged": False})
        return False

    def covariance(self):
        """Return the covariance of all coefficients, equation by equation in a row."""
        point, bases = self.point, self.problem.bases
        if not len(point.x):
            return np.zeros((self.coef.size, self.coef.size))
        spread = block_diag(*bases) @ np.linalg.pinv(self.factor[:, :-1])
        variance = self.misfit()
        if self.noise is not None and point.result.solved.any():
            variance = np.fmax(variance, 1.0)
        return variance * spread @ spread.T

    def misfit(self):
        """Return the variance of the weighted residuals; NaN where none are left over."""
        solved = self.point.result.solved
        n_rows = (self.problem.weights[solved] > 0).sum()
        n_over = n_rows - len(self.point.x)
        return self.point.cost / n_over if n_over > 0 else np.nan


def shares(monomials, coef, shots, floor, known=None):
    """Return the largest share of each term in what moves its state over a step.

    What is known, and what cannot be seen, for rounding or noise, count as moving it too.
    """
    h = shots.steps[:, :1]
    sizes = abs(monomials(shots.start) * h)[:, None] * abs(coef)
    total = sizes.sum(axis=2) + floor
    if known is not None:
        # Its own terms may cancel: what each state contributes to it does not.
        value, jac = known(shots.begin, shots.start)
        parts = abs(jac * shots.start[:, None]).sum(axis=2)
        total += np.maximum(abs(value), parts) * h
    total = total[:, :, None]
    return np.divide(sizes, total, out=np.zeros_like(sizes), where=total > 0).max(
        axis=0
    )


def _determined(monomials, shots, means, noise):
    """Return what the shots determine: as many combinations as there are, at most."""
    values, n_terms = monomials(shots.start), means.shape[1]
    spread = np.zeros((n_terms, n_terms))
    for slope, sd in zip(monomials.slopes, () if noise is None else noise):
        part = values @ slope * sd
        spread += part.T @ part / 2  # the mean of two points
    return Determined(means, spread)


def _divided(weights, n):
    """Return weights of the same steps, each cut into n."""
    parts = np.zeros((len(weights), weights.shape[1], n, weights.shape[2]))
    parts[:, :, -1] = weights
    return parts.reshape(len(weights), -1, weights.shape[2])


def _multiples(monomials, laws):
    """Return what follows from linear laws: each times every monomial that fits."""
    d, n_terms = monomials.exponents.shape[1], len(monomials.names)
    powers = [tuple(row) for row in monomials.exponents]
    place = {power: i for i, power in enumerate(powers)}
    rows = []
    for constant, *law in laws:
        for power in powers:
            if sum(power) < max(map(sum, powers)):
                row = np.zeros(n_terms)
                row[place[power]] = constant
                for j in range(d):
                    more = tuple(p + (i == j) for i, p in enumerate(power))
                    row[place[more]] += law[j]
                rows.append(row)
    return np.array(rows).reshape(len(rows), n_terms)
