"""Terms that noisy runs tell, and other equations that explain them as well."""

from functools import partial

import numpy as np

from sklearn_inverse.discovery._fit import ROUNDING
from sklearn_inverse.discovery._runs import largest_of
from sklearn_inverse.discovery._search import CLOSELY, Search

__all__ = ["NoisySearch"]

FIRST = (4.0, 9.0)  # rises of the misfit below which terms are left out to begin with
LENGTHS = (2, 4, 16, 64)  # points in a row over which is fitted; in the end all
SHORT = 4  # of which: shots may still lead anywhere
NEARLY, NEAR = 1e-2, 1e-3  # relative gains at which fits stop
FASTER, ALIKE = 10.0, 2.0  # times, and times the cost: what is known but for a factor
FEW, SOME = 6, 10  # linearizations of a fit that is not the last
RIDGE = 1e-6  # of the norms of columns: directions that nothing determines
CLOSE = 10.0  # difference of information criteria up to which equations compete
UNSEEN = 1e-4  # of a column's norm: what the others do not already say
POOR = 2.0  # variance of residuals, in units of the noise: what is not explained
TRIED = 8  # competitors of an equation that are fitted


class NoisySearch(Search):
    """The search where readings scatter.

    Each pair of neighboring points is a shot whose start is free within the noise, so that
    errors in what a step starts from bias nothing; shots that lead anywhere count little.
    Terms are left out backwards, by what the linearized misfit rises. What is left is
    fitted over ever longer pieces of the runs, which tell what single steps do not: at
    each length, terms come back, go, and change places as long as the criterion falls.
    """

    def find(self, unknown, threshold):
        """Find terms among those kept, fit them on whole runs, and seek competitors.

        Again, if they do not explain the readings: where these say little, equations that
        are begun anew over single steps may lose what whole runs need.
        """
        before, self.noise_at_first, self.begins_from = vars(self).copy(), self.noise, 1
        self._find(unknown, threshold)
        unexplained, first = self.unexplained(), vars(self).copy()
        if threshold and unexplained > POOR:
            vars(self).update(
                before | {"begins_from": SHORT + 1, "n_iter": self.n_iter}
            )
            self._find(unknown, threshold)
            if not self.unexplained() < unexplained:
                vars(self).update(first | {"n_iter": self.n_iter})

    def unexplained(self):
        """Return the variance of residuals, in units of the noise as it was thought."""
        if self.estimate:
            return max((self.noise / self.noise_at_first) ** 2)
        return self.misfit()

    def _find(self, unknown, threshold):
        self.allowed, self.n_points = self.keep.copy(), 1
        readings = sum(np.count_nonzero(~np.isnan(y)) for _, y, _ in self.runs)
        # The extended information criterion of Chen and Chen (2008) counts sets of terms
        # of a size as one: the more there are to choose from, the more must a term gain.
        n_possible = max(self.allowed.sum(axis=1).max(), 1)
        self.log, self.choice = np.log(readings), 2 * np.log(n_possible)
        if threshold:
            for penalty in FIRST:
                self._free_fit(self.coef, self.keep, 1, FEW, NEARLY)
                self._drop(penalty)
            self._free_fit(self.coef, self.keep, 1, SOME, NEAR)
            self._exchange(1)
        for n_points in lengths_of(self.runs):
            self._rescale()
            if not self._lengthen(n_points, bool(threshold)):
                break
            if threshold:
                self._exchange(n_points)
        if self.estimate:
            self._rescale()
            self._lengthen(self.n_points, bool(threshold))
            if threshold:
                self._exchange(self.n_points)
        self.alternatives = []
        if threshold and self.keep.any() and self.n_points > 1:
            self._compare(unknown)

    def _compare(self, unknown):
        """Find competitors, and take those that are better."""
        while True:
            self.alternatives = self._competitors(unknown)
            if not self.alternatives or self.alternatives[0][1] >= 0:
                return
            before, value = vars(self).copy(), self._criterion()
            k, _, row = self.alternatives[0]
            coef = self.coef.copy()
            coef[k] = row
            self._free_fit(coef, coef != 0, self.n_points, *effort(self.n_points))
            if not (self._leads(self.n_points) and self._criterion() < value):
                vars(self).update(before | {"n_iter": self.n_iter})
                return
            self._exchange(self.n_points)

    def penalty(self, n_points):
        """Return what a term must gain: shots share the points at their ends."""
        return (self.log + self.choice) * (n_points + 1) / n_points

    def _rescale(self):
        """Estimate the noise anew, from what the equations leave of each state."""
        point, problem = self.point, self.problem
        if not self.estimate or problem.noise is None:
            return
        solved = point.result.solved
        moved = ((point.start - problem.shots.start) / problem.noise)[solved]
        left = (moved**2).sum(axis=0) + (point.residuals[solved] ** 2).sum((0, 1))
        # As many starts are free as were measured.
        n_over = (problem.weights[solved] > 0).sum((0, 1)) - self.keep.sum(axis=1)
        share = np.sqrt(left / np.maximum(n_over, 1))
        least = ROUNDING * largest_of(self.runs)
        self.noise = np.where(
            n_over > 0, np.maximum(share * self.noise, least), self.noise
        )

    def _free_fit(self, coef, keep, n_points, max_iter=None, tol=CLOSELY, robust=True):
        eye = np.eye(coef.shape[1])
        problem = self._problem([eye[:, row] for row in keep], n_points, True, robust)
        start = None
        if n_points > max(self.n_points, SHORT):
            # Longer pieces set out from where shorter ones were: near a divide, readings
            # may be on its other side.
            known = self.problem.states(self.point)
            start = problem.shots.start.copy()
            for k, row in enumerate(problem.shots.row):
                start[k] = known.get(row, start[k])
        self._solve(problem, coef[keep], keep, tol, max_iter, start)
        self.n_points = n_points

    def _drop(self, penalty):
        """Leave out terms, the least first, and return whether there were such."""
        if not self.keep.any():
            return False
        x = eliminated(self._factor(), self.coef[self.keep], penalty)
        keep, coef = np.zeros_like(self.keep), np.zeros_like(self.coef)
        keep[self.keep], coef[self.keep] = x != 0, x
        dropped = keep.sum() < self.keep.sum()
        self.coef, self.keep = coef, keep
        return dropped

    def _prune(self, coef, keep, n_points, max_iter, tol=NEAR, robust=True):
        """Fit, and leave out terms until none is to be left out."""
        self._free_fit(coef, keep, n_points, max_iter, tol, robust)
        while self._drop(self.penalty(n_points)):
            self._free_fit(self.coef, self.keep, n_points, max_iter, tol, robust)

    def _criterion(self):
        return self.point.cost + self.penalty(self.n_points) * self.keep.sum()

    def _exchange(self, n_points):
        """Let terms come, go, and change places as long as the criterion falls.

        One linearization tells what each change would gain. All that pay in the linear
        model are made together; if that leads astray, only the best of them. Where several
        terms stand for one, no single change pays: equations are begun anew, too.
        """
        how, penalty = effort(n_points), self.penalty(n_points)
        row = np.nonzero(self.allowed)[0]
        while True:
            factor = self._opened(self.allowed, n_points, n_points <= SHORT)
            x = self.coef[self.allowed]
            all_changes, one = (
                exchanged(factor, x, x != 0, penalty, most) for most in (len(x), 1)
            )
            begun_anew = [
                exchanged(factor, x, (x != 0) & (row != k), penalty, len(x))
                for k in np.unique(row)
                if n_points >= self.begins_from
            ]
            best = min(
                [all_changes, *begun_anew], key=partial(criterion, factor, x, penalty)
            )
            for found in (best, all_changes, one):
                coef = np.zeros_like(self.coef)
                coef[self.allowed] = found
                if np.array_equal(coef != 0, self.keep):
                    continue
                before, value = vars(self).copy(), self._criterion()
                self._prune(coef, coef != 0, n_points, *how)
                fell = value - self._criterion() > NEAR * penalty
                if fell and self._leads(n_points):
                    break
                vars(self).update(before | {"n_iter": self.n_iter})
            else:
                return

    def _opened(self, keep, n_points, robust=False):
        """Return the linearization where it stands of all terms that could be kept."""
        eye = np.eye(keep.shape[1])
        bases = [eye[:, row] for row in keep]
        problem = self._problem(bases, n_points, True, robust)
        return problem.linearize(problem.at(self.coef[keep], self.point.start))

    def _leads(self, n_points):
        """Return whether all pieces lead somewhere; of short ones, some need not."""
        return n_points <= SHORT or self.point.result.solved.all()

    def _quicken(self):
        """Try equations that are known but for a factor with the same terms, faster.

        Where a state follows others at once, its equation leads nearly to the same if all
        of it is larger, and fits may end at a factor that is too small.
        """
        for k in np.flatnonzero(self.keep.any(axis=1)):
            before, coef = vars(self).copy(), self.coef.copy()
            coef[k] *= FASTER
            faster = self.problem.at(coef[self.keep], self.point.start)
            if faster.cost > ALIKE * self.point.cost:
                continue
            self._free_fit(coef, self.keep, self.n_points, *effort(self.n_points))
            if not self.point.cost < (1 - NEAR) * before["point"].cost:
                vars(self).update(before | {"n_iter": self.n_iter})

    def _lengthen(self, n_points, prune):
        """Fit longer pieces, and return whether they lead somewhere; else, undo it.

        Terms are left out if that lowers the criterion, not in the linear model alone.
        """
        before, how = vars(self).copy(), effort(n_points)
        self._free_fit(self.coef, self.keep, n_points, *how)
        if not self._leads(n_points):
            vars(self).update(before | {"converged": False})
            return False
        if prune and n_points == SHORT:
            self._quicken()
        whole, value = vars(self).copy(), self._criterion()
        if prune and self._drop(self.penalty(n_points)):
            self._prune(self.coef, self.keep, n_points, *how)
            if not (self._leads(n_points) and self._criterion() < value):
                vars(self).update(whole | {"n_iter": self.n_iter})
        return True

    def _competitors(self, unknown):
        """Return other terms of single equations, and how much worse they explain the runs.

        Of those in which none, one or two terms stand for one that was found, the best by
        linearization are fitted.
        """
        found, best, out = vars(self).copy(), self._criterion(), []
        n_points, penalty = self.n_points, self.penalty(self.n_points)
        choice, n_terms = self.choice * (n_points + 1) / n_points, self.keep.sum()
        for k in unknown:
            keep = self.keep.copy()
            keep[k] = self.allowed[k]
            factor, x = self._opened(keep, n_points), self.coef[keep]
            own = np.flatnonzero(np.argwhere(keep)[:, 0] == k)
            for other in neighbors(factor, x, own, penalty, CLOSE + choice, TRIED):
                coef = np.zeros_like(self.coef)
                coef[keep] = other
                self._free_fit(coef, coef != 0, n_points, SOME, NEAR, n_points <= SHORT)
                rise = self._criterion() - best
                plain = rise - choice * (
                    self.keep.sum() - n_terms
                )  # by Bayes' criterion
                if self.point.result.solved.all() and min(rise, plain) < CLOSE:
                    out.append((k, rise, self.coef[k].copy()))
            vars(self).update(found | {"n_iter": self.n_iter})
        return sorted(out, key=lambda row: row[1])


def lengths_of(runs):
    """Return over how many points in a row runs are fitted, one after the other."""
    longest = max(len(run.times) for run in runs)
    return [n for n in LENGTHS if n < longest - 1] + [max(longest, SHORT + 1)]


def effort(n_points):
    """Return how many linearizations, to which gain, and whether outliers count less."""
    return (SOME, NEAR, True) if n_points <= SHORT else (None, CLOSELY, False)


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


def criterion(factor, x, penalty, other):
    """Return sum of squares and penalties of other coefficients, linearized about x."""
    left = factor[:, :-1] @ (other - x) + factor[:, -1]
    return (left**2).sum() + penalty * np.count_nonzero(other)


def exchanged(factor, x, inside, penalty, most):
    """Return coefficients after single changes, each the best one, in the linear model.

    Of the terms inside, one comes, goes, or stands for another, as long as the sum of
    squares and penalties falls, ``most`` times at most.
    """
    r = factor[:, :-1]
    norms = np.linalg.norm(r, axis=0)
    norms[norms == 0] = 1.0
    r, z = r / norms, r @ x - factor[:, -1]
    inside = inside.copy()
    for _ in range(most):
        inner, outer = np.flatnonzero(inside), np.flatnonzero(~inside)
        inverse = np.linalg.pinv(r[:, inner])
        # Of each term inside, the direction in which only it leads.
        own = inverse / np.linalg.norm(inverse, axis=1, keepdims=True)
        lost, across = own @ z, own @ r[:, outer]
        left = z - r[:, inner] @ (inverse @ z)
        rest = r[:, outer] - r[:, inner] @ (inverse @ r[:, outer])
        gain, size = rest.T @ left, (rest**2).sum(axis=0)
        size = np.where(size > UNSEEN**2, size, np.inf)
        rises = np.full((len(inner) + 1, len(outer) + 1), np.inf)
        rises[:-1, -1] = lost**2 - penalty
        rises[-1, :-1] = penalty - gain**2 / size
        both = (gain + across * lost[:, None]) ** 2 / (size + across**2)
        rises[:-1, :-1] = lost[:, None] ** 2 - both
        i, j = np.unravel_index(rises.argmin(), rises.shape)
        if not rises[i, j] < -NEAR * penalty:
            break
        inside[inner[i : i + 1]] = False
        inside[outer[j : j + 1]] = True
    out = np.zeros_like(x)
    out[inside] = np.linalg.lstsq(r[:, inside], z, rcond=1e-12)[0] / norms[inside]
    return out


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
        seen = size > UNSEEN * np.linalg.norm(r[:, more], axis=0)
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
