"""Terms that noisy runs tell, and other equations that explain them as well."""

import numpy as np

from sklearn_inverse.discovery._search import CLOSELY, Search

__all__ = ["NoisySearch"]

FIRST = (4.0, 9.0)  # rises of the misfit below which terms are left out to begin with
LENGTHS = (4, 16, 64, 10**9)  # points in a row over which is fitted; in the end all
NEARLY, NEAR = 1e-2, 1e-3  # relative gains at which fits stop
FEW, SOME = 10, 15  # linearizations of a fit that is not the last
RIDGE = 1e-6  # of the norms of columns: directions that nothing determines
CLOSE = 10.0  # difference of information criteria up to which equations compete
TRIED = 8  # competitors of an equation that are fitted


class NoisySearch(Search):
    """The search where readings scatter.

    Each pair of neighbouring points is a shot whose start is free within the noise, so that
    errors in what a step starts from bias nothing; shots that lead anywhere count little.
    Terms are left out backwards, by what the linearized misfit rises, and each
    equation in turn is opened again to all of them. What is left is fitted over ever
    longer pieces of the runs.
    """

    def find(self, unknown, threshold):
        """Find terms among those kept, fit them on whole runs, and seek competitors."""
        self.allowed = self.keep.copy()
        readings = sum(np.count_nonzero(~np.isnan(y)) for _, y in self.runs)
        self.log = np.log(readings)
        if threshold:
            for penalty in FIRST:
                self._free_fit(self.coef, self.keep, 1, FEW, NEARLY)
                self._drop(penalty)
            self._prune(self.coef, self.keep, 1, SOME)
            changed = True
            for _ in range(2):
                if changed:
                    changed = sum(self._reopen(k) for k in unknown) > 0
        for n_points in LENGTHS:
            if not self._lengthen(n_points, bool(threshold)):
                break
        self.alternatives = []
        if threshold and self.keep.any() and self.n_points > 1:
            self.alternatives = self._competitors(unknown)

    def penalty(self, n_points):
        """Return what a term must gain: shots share the points at their ends."""
        return self.log * (n_points + 1) / n_points

    def _free_fit(self, coef, keep, n_points, max_iter=None, tol=CLOSELY, robust=True):
        eye = np.eye(coef.shape[1])
        problem = self._problem([eye[:, row] for row in keep], n_points, True, robust)
        self._solve(problem, coef[keep], keep, tol, max_iter)
        self.n_points = n_points

    def _drop(self, penalty):
        """Leave out terms, the least first, and return whether there were such."""
        x = eliminated(self.factor, self.coef[self.keep], penalty)
        keep, coef = np.zeros_like(self.keep), np.zeros_like(self.coef)
        keep[self.keep], coef[self.keep] = x != 0, x
        dropped = keep.sum() < self.keep.sum()
        self.coef, self.keep = coef, keep
        return dropped

    def _prune(self, coef, keep, n_points, max_iter, tol=NEAR, robust=True):
        """Fit, and leave out terms until none is to be left out."""
        self._free_fit(coef, keep, n_points, max_iter, tol, robust)
        while self.keep.any() and self._drop(self.penalty(n_points)):
            self._free_fit(self.coef, self.keep, n_points, max_iter, tol, robust)

    def _criterion(self):
        return self.point.cost + self.penalty(self.n_points) * self.keep.sum()

    def _reopen(self, k):
        """Open an equation to all terms again, and return whether that led to others."""
        before, value = vars(self).copy(), self._criterion()
        keep = self.keep.copy()
        keep[k] = self.allowed[k]
        self._prune(self.coef, keep, 1, SOME)
        if self._criterion() < value and not np.array_equal(self.keep, before["keep"]):
            return True
        vars(self).update(before | {"n_iter": self.n_iter})
        return False

    def _lengthen(self, n_points, prune):
        """Fit longer pieces, and return whether all lead somewhere; else, undo it."""
        before = vars(self).copy()
        self._free_fit(self.coef, self.keep, n_points, robust=False)
        done = self.point.result.solved.all()
        if done and prune and self._drop(self.penalty(n_points)):
            self._prune(self.coef, self.keep, n_points, None, CLOSELY, robust=False)
            done = self.point.result.solved.all()
        if not done:
            vars(self).update(before | {"converged": False})
        return done

    def _competitors(self, unknown):
        """Return other terms of single equations, and how much worse they explain the runs.

        Of those in which none, one or two terms stand for one that was found, the best by
        linearization are fitted, over pieces of a few points.
        """
        found, n_points = vars(self).copy(), min(self.n_points, LENGTHS[1])
        self._free_fit(self.coef, self.keep, n_points, robust=False)
        best, at = self._criterion(), vars(self).copy()
        out = []
        for k in unknown:
            vars(self).update(at)
            keep = self.keep.copy()
            keep[k] = self.allowed[k]
            eye = np.eye(keep.shape[1])
            problem = self._problem([eye[:, row] for row in keep], n_points, True)
            point = problem.at(self.coef[keep], self.point.start)
            if not point.result.solved.all():
                continue
            factor = problem.linearize(point)
            own = np.flatnonzero(np.argwhere(keep)[:, 0] == k)
            penalty, x = self.penalty(n_points), self.coef[keep]
            for other in neighbors(factor, x, own, penalty, CLOSE, TRIED):
                coef = np.zeros_like(self.coef)
                coef[keep] = other
                self._free_fit(coef, coef != 0, n_points, SOME, NEAR, robust=False)
                rise = self._criterion() - best
                if self.point.result.solved.all() and rise < CLOSE:
                    out.append((k, rise, self.coef[k].copy()))
        vars(self).update(found)
        return sorted(out, key=lambda row: row[1])


def eliminated(factor, x, penalty):
    """Return coefficients, 0 where they are left out, in the linear model about x.

    The one whose loss raises the sum of squares least goes first, and the others make
    up for it, until that rise is larger than the penalty.
    """
    r, c = factor[:, :-1], factor[:, -1]
    norms = np.linalg.norm(r, axis=0)
    norms[norms == 0] = 1.0
    n = len(x)
    inverse = np.linalg.pinv(np.vstack([r / norms, RIDGE * np.eye(n)]))
    cov = inverse @ inverse.T
    x = x * norms - inverse[:, : len(r)] @ c
    inside = np.ones(n, dtype=bool)
    while inside.any():
        rise = np.where(inside, x**2, np.inf)
        np.divide(rise, np.diag(cov), out=rise, where=inside)
        i = rise.argmin()
        if rise[i] > penalty:
            break
        column = cov[:, i] / cov[i, i]
        x = x - column * x[i]
        cov = cov - np.outer(column, cov[i])
        inside[i] = False
        x[i] = cov[i] = cov[:, i] = 0.0
    return x / norms


def neighbors(factor, x, own, penalty, most, n_best):
    """Return coefficients with none, one or two terms in place of one of those found.

    The best of those whose sum of squares and penalties, in the linear model, rises less
    than ``most``. ``own`` are the columns that may change. Sets that hold all terms found
    are no competitors: what they add gained too little.
    """
    r, c, inside = factor[:, :-1], factor[:, -1], x != 0
    more = own[~inside[own]]
    q, _ = np.linalg.qr(r[:, inside])
    base = (c**2).sum() - ((q.T @ c) ** 2).sum()
    found = []
    for less in own[inside[own]]:
        kept = inside.copy()
        kept[less] = False
        q, _ = np.linalg.qr(r[:, kept])
        # What the others leave of the residuals, and of each column.
        left = c - r[:, less] * x[less]
        left = left - q @ (q.T @ left)
        columns = r[:, more] - q @ (q.T @ r[:, more])
        size = np.linalg.norm(columns, axis=0)
        seen = size > 1e-4 * np.linalg.norm(r[:, more], axis=0)
        columns, names = columns[:, seen] / size[seen], more[seen]
        b, corr = columns.T @ left, columns.T @ columns
        cost = (left**2).sum() - base
        found.append((cost - penalty, less, ()))
        found += [(cost - g, less, (j,)) for g, j in zip(b**2, names)]
        i, j = np.triu_indices(len(names), 1)
        i, j = (part[abs(corr[i, j]) < 1 - 1e-8] for part in (i, j))
        rho = corr[i, j]
        gain = (b[i] ** 2 + b[j] ** 2 - 2 * rho * b[i] * b[j]) / (1 - rho**2)
        rise = cost - gain + penalty
        best = np.argsort(rise)[:n_best]
        found += [(rise[k], less, (names[i[k]], names[j[k]])) for k in best]
    found.sort(key=lambda row: row[0])
    others = []
    for rise, less, extra in found[:n_best]:
        if rise < most:
            kept, other = inside.copy(), np.zeros_like(x)
            kept[less], kept[list(extra)] = False, True
            other[kept] = np.linalg.lstsq(r[:, kept], r @ x - c, rcond=1e-12)[0]
            others.append(other)
    return others
