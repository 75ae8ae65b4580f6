"""Terms that are kept, and their coefficients, as they become fewer."""

import numpy as np
from scipy.linalg import block_diag

from sklearn_inverse.discovery._determined import sparsest
from sklearn_inverse.discovery._fit import EXACT, ROUNDING, Learning, misfit
from sklearn_inverse.discovery._rhs import Dictionary
from sklearn_inverse.discovery._runs import Shots, largest_of

__all__ = ["CLOSELY", "ROUGHLY", "Search"]

ROUGHLY, CLOSELY = 0.1, 1e-6  # relative gains at which fits stop
CUTS = (0.01, 0.1, 1.0)  # shares, of the threshold, below which terms are left out
MISSED = 0.1  # of the threshold


class Search:
    """The terms that are kept, and their coefficients, as they become fewer."""

    def __init__(
        self, runs, monomials, determined, a, substeps, noise, known, max_iter
    ):
        self.runs, self.monomials, self.determined = runs, monomials, determined
        self.a, self.substeps, self.noise = a, substeps, noise
        self.known, self.max_iter = known, max_iter
        self.n_iter = 0

    def fit(self, coef, keep, tol):
        """Fit the coefficients that are kept."""
        bases = [self.determined.basis(row) for row in keep]
        square = self.determined.scale**2
        x = np.concatenate([b.T @ (square * c) for b, c in zip(bases, coef)])
        self._solve(self._problem(bases), x, keep, tol)

    def explain(self, keep, errors, unknown, threshold, is_choice):
        """Find terms and their coefficients.

        Where data leave a choice, those of least degree that miss nothing, of these those
        of least L1 norm: what is right at the points leads astray between them, the more
        so the higher its degree.
        """
        degree = self.monomials.exponents.sum(axis=1)
        tol = CLOSELY if is_choice or not threshold else ROUGHLY
        lowest = min(1, degree.max()) if is_choice and threshold else degree.max()
        for highest in range(lowest, degree.max() + 1):
            low = keep & (degree <= highest)
            self.fit(self.first(low, errors), low, tol)
            if is_choice:
                self.choose(unknown)
            if threshold:
                for cut in CUTS:
                    self.leave_out(threshold * cut)
                self.fit(self.coef, self.keep, CLOSELY)
                self.leave_out(threshold, CLOSELY)
            missed = self.misfit() if self.point.result.solved.all() else np.inf
            if missed < (MISSED * threshold) ** 2:
                return

    def first(self, keep, errors):
        """Return coefficients that make the trapezoid miss least."""
        coef = np.zeros(keep.shape)
        for k, (matrix, change) in enumerate(errors):
            basis = self.determined.basis(keep[k])
            coef[k] = basis @ np.linalg.lstsq(matrix @ basis, change, rcond=1e-12)[0]
        return coef

    def _solve(self, problem, x, keep, tol, max_iter=None, start=None):
        max_iter = max_iter or self.max_iter
        found = problem.solve(x, max_iter=max_iter, tol=tol, start=start)
        self.point, n_iter, self.converged = found
        self.problem, self.keep, self.n_iter = problem, keep, self.n_iter + n_iter
        self.coef = np.where(keep, problem.model.coef(self.point.x), 0.0)

    def _factor(self):
        """Return the linearization where the fit ended."""
        return self.problem.linearize(self.point)

    def _problem(self, bases, n_points=1, free=False, robust=False):
        model = Dictionary(self.monomials, bases, self.known)
        return Learning.of(
            self.runs, model, self.a, self.substeps, self.noise, n_points, free, robust
        )

    def choose(self, unknown):
        """Take the coefficients of least L1 norm of those that fit as well."""
        coef = self.coef.copy()
        for k in unknown:
            unseen = self.determined.split(self.keep[k])[1]
            coef[k] = sparsest(coef[k], unseen, self.determined.scale)
        # Between the points they differ: steps must still be possible.
        problem = self._problem([np.eye(coef.shape[1])] * len(coef))
        if problem.at(coef.ravel()).result.solved.all():
            self.coef = coef

    def leave_out(self, cut, tol=ROUGHLY):
        """Leave out terms of small share, and fit, until none is left.

        Of fits that are close, also terms that are less than their standard error.
        """
        shots = Shots.of(self.runs)
        while self.keep.any():
            floor = np.maximum(ROUNDING * largest_of(self.runs), self.accuracy())
            small = shares(self.monomials, self.coef, shots, floor, self.known) < cut
            if tol == CLOSELY:
                small |= abs(self.coef) < self.std(self.covariance())
            if not (self.keep & small).any():
                return
            self.fit(self.coef, self.keep & ~small, tol)

    def covariance(self):
        """Return the covariance of all coefficients, equation by equation in a row."""
        point, bases = self.point, self.problem.model.bases
        if not len(point.x):
            return np.zeros((self.coef.size, self.coef.size))
        spread = block_diag(*bases) @ _inverse(self._factor()[:, :-1])
        variance = self.misfit()
        if self.noise is not None and point.result.solved.any():
            variance = np.fmax(variance, 1.0)
        return variance * spread @ spread.T

    def std(self, covariance):
        """Return standard errors of all coefficients, 0 of those that are not kept."""
        variance = np.diag(covariance).reshape(self.coef.shape)
        return np.where(self.keep, np.sqrt(variance), 0.0)

    def step_error(self):
        """Return by how much steps half as long would move the coefficients, linearized."""
        if not len(self.point.x):
            return np.zeros(self.coef.shape)
        halved = self.problem.divided(2)
        factor = halved.linearize(halved.at(self.point.x, self.point.start))
        moved = block_diag(*self.problem.model.bases) @ (
            _inverse(factor[:, :-1]) @ factor[:, -1]
        )
        return -moved.reshape(self.coef.shape)

    def accuracy(self):
        """Return what states that count as exact are off by, as far as steps tell.

        What these miss adds up along a run, as errors of a solver do.
        """
        ends, targets = self.point.result.ends, self.problem.shots.targets
        missed = np.where(self.problem.weights > 0, abs(ends - targets), 0.0)
        added = np.nansum(missed, axis=(0, 1)) / len(self.runs)
        return np.minimum(added, EXACT * largest_of(self.runs))

    def misfit(self):
        """Return the variance of the weighted residuals; NaN where none are left over."""
        return misfit(self.problem, self.point)


def _inverse(factor):
    """Return the pseudoinverse; what is round-off is told in units of each column."""
    size = np.linalg.norm(factor, axis=0)
    size[size == 0] = 1.0
    return np.linalg.pinv(factor / size) / size[:, None]


def shares(monomials, coef, shots, floor, known=None):
    """Return the largest share of each term in what moves its state over a step.

    At its beginning and at both ends: what is nothing at first may be all that moves it
    later. What is known, and what cannot be seen, for rounding or noise, count as moving
    it too.
    """
    half, sizes, total = shots.steps[:, :1] / 2, 0.0, np.zeros_like(shots.start) + floor
    found = np.inf
    for t, y in (
        (shots.begin, shots.start),
        (shots.begin + shots.steps[:, 0], shots.paths[:, 0]),
    ):
        size = abs(monomials(y) * half)[:, None] * abs(coef)
        sizes, total = sizes + size, total + size.sum(axis=2)
        if known is not None:
            # Its own terms may cancel: what each state contributes to it does not.
            value, jac = known(t, y)
            parts = abs(jac * y[:, None]).sum(axis=2)
            total = total + np.maximum(abs(value), parts) * half
        own = np.zeros_like(size)
        np.divide(sizes, total[:, :, None], out=own, where=total[:, :, None] > 0)
        found = np.minimum(found, own)
    return found.max(axis=0)
