"""What data determine: the rank of the dictionary, relations, and choices."""

import numpy as np
from scipy.optimize import linprog

__all__ = ["Determined", "conservation_laws", "sparsest"]

EXACT = 1e-10  # of the largest singular value, for data without noise
TWICE = 2.0  # the noise: what is less says nothing
LEGIBLE = 4  # terms of a relation
PRESENT = 1e-6  # of a relation's largest part
SIGNIFICANT = 3.0  # standard errors


class Determined:
    """Which combinations of terms differ at the states that were measured.

    Parameters
    ----------
    values : ndarray of shape (n_points, n_terms)
        Monomials at the points.

    noise : ndarray of shape (n_terms, n_terms)
        Covariance of the noise of the monomials, summed over points.

    Attributes
    ----------
    scale : ndarray of shape (n_terms,)
        Norms of the columns.
    """

    def __init__(self, values, noise):
        norms = np.linalg.norm(values, axis=0)
        self.scale = np.where(norms > 0, norms, 1.0)
        self._r = np.linalg.qr(values / self.scale, mode="r")
        # What directions are made of by noise alone, and three standard errors of that.
        excess, self._n_points = 1 + 3 / np.sqrt(len(values)), len(values)
        self._noise = excess**2 * noise / np.outer(self.scale, self.scale)

    def _told(self, index):
        noise = self._noise[np.ix_(index, index)]
        return _against_noise(self._r[:, index], noise, self._n_points)

    def split(self, keep):
        """Return the determined and the undetermined directions of some terms.

        Both are orthonormal, in terms times their scale, of shape (n_terms, n).
        """
        index = np.flatnonzero(keep)
        _, unseen, _ = self._told(index)
        n_unseen = unseen.shape[1]
        whole = np.zeros((len(keep), len(index)))
        whole[index] = _orthonormal(unseen)
        return whole[:, n_unseen:], whole[:, :n_unseen]

    def identifiable(self, keep):
        """Return of which of some terms no undetermined direction holds anything.

        But for what noise makes of nothing.
        """
        told, index = np.zeros(len(keep), dtype=bool), np.flatnonzero(keep)
        _, unseen, chance = self._told(index)
        told[index] = (abs(unseen) <= chance[:, None]).all(axis=1)
        return told

    def basis(self, keep):
        """Return coefficients (n_terms, n_free) that can be told apart."""
        seen, unseen = self.split(keep)
        if not unseen.shape[1]:
            seen = np.eye(len(keep))[:, np.flatnonzero(keep)]
        return seen / self.scale[:, None]

    def rank(self):
        """Return how many combinations of all terms are determined."""
        return self.split(np.ones(len(self.scale), dtype=bool))[0].shape[1]


def sparsest(coef, unseen, scale):
    """Return the coefficients of least L1 norm among those that the data cannot tell apart.

    In units of the columns: what a term contributes at the points.
    """
    n, q = unseen.shape
    ones, eye = np.ones(n), np.eye(n)
    start = coef * scale
    size = abs(start).max() or 1.0
    # Minimize the sum of u where -u <= start + unseen @ z <= u.
    above = np.vstack([np.hstack([unseen, -eye]), np.hstack([-unseen, -eye])])
    right = np.concatenate([-start, start]) / size
    bounds = [(None, None)] * q + [(0, None)] * n
    found = linprog(
        np.concatenate([np.zeros(q), ones]), A_ub=above, b_ub=right, bounds=bounds
    )
    return (start + size * unseen @ found.x[:q]) / scale if found.success else coef


def conservation_laws(runs, names, noise):
    """Return combinations of the states that stay what they are, in words.

    Also the coefficients of those that are the same number in all runs, with that number
    negated in front: (n_relations, 1 + n_states).
    """
    runs = [y[~np.isnan(y).any(axis=1)] for y in runs]
    runs = [y for y in runs if len(y)]
    words, same = [], np.empty((0, len(names) + 1))
    if sum(len(y) - 1 for y in runs) < len(names):
        return words, same  # some combination stays the same between any few points
    size = np.where((top := abs(np.concatenate(runs)).max(axis=0)) > 0, top, 1.0)
    moved = np.concatenate([(y - y.mean(axis=0)) / size for y in runs])
    variance = TWICE**2 * len(moved) * np.diag((noise / size) ** 2)
    _, fixed, chance = _against_noise(
        np.linalg.qr(moved, mode="r"), variance, len(moved)
    )
    rows = _reduced(_orthonormal(fixed)[:, : fixed.shape[1]].T)
    for row in rows:
        by_chance = chance * np.sqrt(row @ variance @ row)
        row[abs(row) <= np.maximum(np.maximum(PRESENT, noise / size), by_chance)] = 0.0
    for row in rows[rows.any(axis=1)] / size:
        row = row / row[np.flatnonzero(row)[0]]
        values = np.array([(y @ row).mean() for y in runs])
        spread, scale = np.ptp(values), (abs(row) * size).sum()
        allowed = EXACT * scale + 2 * TWICE * np.linalg.norm(row * noise)
        if spread <= allowed:
            value = values.mean() if abs(values.mean()) > allowed else 0.0
            words.append(f"{_sum(row, names)} = {value:.6g}")
            same = np.vstack([same, [-value, *row]])
        else:
            words.append(f"{_sum(row, names)} is constant in each run")
    return words, same


def other_relations(unseen, explained, names, scale):
    """Return relations between few terms that do not follow from conservation laws."""
    explained = explained * scale
    if len(explained):
        q = np.linalg.qr(explained.T)[0]
        unseen = unseen - q @ (q.T @ unseen)
    u, s, _ = np.linalg.svd(unseen, full_matrices=False)
    rows = _reduced(u[:, s > 1e-3].T) / scale
    rows[abs(rows * scale) < PRESENT] = 0.0
    rows = [row for row in rows if np.count_nonzero(row) <= LEGIBLE]
    return [f"{_sum(row / row[np.flatnonzero(row)[0]], names)} = 0" for row in rows]


def _against_noise(r, noise, n_points):
    """Return directions that differ from what noise makes, and those that do not.

    Ratios of what is measured to noise are stationary in each: a column that is noise
    costs its own direction, and no other.

    Parameters
    ----------
    r : ndarray of shape (n_rows, n_terms)
        What is measured, as the triangular factor of its QR decomposition.

    noise : ndarray of shape (n_terms, n_terms)
        What the noise adds to ``r.T @ r``, at most.

    n_points : int
        Of which r was made.

    Returns
    -------
    seen, unseen : ndarray of shape (n_terms, n)
        Directions; the noise of each has variance 1, summed over points.

    chance : ndarray of shape (n_terms,)
        What noise makes of each term in an unseen direction that does not hold it.
    """
    size = np.linalg.norm(r, 2) if r.size else 1.0
    values, vectors = np.linalg.eigh(noise)
    std = np.sqrt(np.maximum(values, 0.0) + (EXACT * size) ** 2)
    whiten = vectors / np.where(std > 0, std, 1.0)
    _, s, vt = np.linalg.svd(r @ whiten)
    s = np.concatenate([s, np.zeros(len(vt) - len(s))])
    directions, is_seen = whiten @ vt.T, s > 1
    seen, unseen = directions[:, is_seen], directions[:, ~is_seen]
    # As of the coefficients of a regression of what is noise on what is not.
    chance = SIGNIFICANT * np.linalg.norm(seen / s[is_seen], axis=1) / np.sqrt(n_points)
    return seen, unseen, np.maximum(chance, PRESENT * abs(unseen).max(initial=0.0))


def _orthonormal(directions):
    """Return an orthonormal basis that begins with these directions."""
    return np.linalg.svd(directions / np.linalg.norm(directions, axis=0))[0]


def _reduced(rows):
    """Return combinations of rows in which as little as possible is left."""
    rows, pivots = rows.copy(), []
    for i in range(len(rows)):
        free = [j for j in range(rows.shape[1]) if j not in pivots]
        part = abs(rows[i:, free])
        k, j = np.unravel_index(part.argmax(), part.shape)
        rows[[i, i + k]] = rows[[i + k, i]]
        pivots.append(free[j])
        rows[i] /= rows[i, free[j]]
        others = np.arange(len(rows)) != i
        rows[others] -= np.outer(rows[others, free[j]], rows[i])
    return rows


def _sum(coef, names):
    return written({n: c for n, c in zip(names, coef) if c}, "{:.6g}")


def written(terms, style):
    """Write a sum of numbers times names."""
    text = ""
    for name, c in terms.items():
        number = style.format(abs(c))
        part = number if name == "1" else f"{number}*{name}"
        part = name if number == "1" and name != "1" else part
        text += f" {'-' if c < 0 else '+'} {part}"
    return text[3:] if text.startswith(" + ") else "-" + text[3:] if text else "0"
