"""What data determine: the rank of the dictionary, relations, and choices."""

import numpy as np
from scipy.optimize import linprog

__all__ = ["Determined", "conservation_laws", "sparsest"]

EXACT = 1e-10  # of the largest singular value, for data without noise
TWICE = 2.0  # the noise: what is less says nothing
LEGIBLE = 4  # terms of a relation
PRESENT = 1e-6  # of a relation's largest part


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
        self._noise = noise / np.outer(self.scale, self.scale)
        self._excess = 1 + 3 / np.sqrt(len(values))

    def split(self, keep):
        """Return the determined and the undetermined directions of some terms.

        Both are orthonormal, in terms times their scale, of shape (n_terms, n).
        """
        index = np.flatnonzero(keep)
        _, s, vt = np.linalg.svd(self._r[:, index])
        s = np.concatenate([s, np.zeros(len(index) - len(s))])
        # What a direction is made of by noise alone, and three standard errors of that.
        noise = np.einsum("ij,jk,ik->i", vt, self._noise[np.ix_(index, index)], vt)
        floor = self._excess * np.sqrt(np.maximum(noise, 0.0))
        seen = s > np.maximum(EXACT * s.max(initial=0.0), floor)
        spread = np.zeros((len(keep), len(index)))
        spread[index] = vt.T
        return spread[:, seen], spread[:, ~seen]

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
    size = np.where((top := abs(np.concatenate(runs)).max(axis=0)) > 0, top, 1.0)
    moved = np.concatenate([(y - y.mean(axis=0)) / size for y in runs])
    _, s, vt = np.linalg.svd(moved)
    s = np.concatenate([s, np.zeros(len(vt) - len(s))])
    floor = np.linalg.norm(vt * (noise / size), axis=1) * np.sqrt(len(moved))
    kept = s <= np.maximum(EXACT * np.sqrt(len(moved)), TWICE * floor)
    words, same = [], []
    for row in _reduced(vt[kept], np.maximum(PRESENT, noise / size)) / size:
        row = row / row[np.flatnonzero(row)[0]]
        values = np.array([(y @ row).mean() for y in runs])
        spread, scale = np.ptp(values), (abs(row) * size).sum()
        allowed = EXACT * scale + 2 * TWICE * np.linalg.norm(row * noise)
        if spread <= allowed:
            value = values.mean() if abs(values.mean()) > allowed else 0.0
            words.append(f"{_sum(row, names)} = {value:.6g}")
            same.append([-value, *row])
        else:
            words.append(f"{_sum(row, names)} is constant in each run")
    return words, np.array(same).reshape(len(same), len(names) + 1)


def other_relations(unseen, explained, names, scale):
    """Return relations between few terms that do not follow from conservation laws."""
    explained = explained * scale
    if len(explained):
        q = np.linalg.qr(explained.T)[0]
        unseen = unseen - q @ (q.T @ unseen)
    u, s, _ = np.linalg.svd(unseen, full_matrices=False)
    rows = _reduced(u[:, s > 1e-3].T) / scale
    rows = [row for row in rows if np.count_nonzero(row) <= LEGIBLE]
    return [f"{_sum(row / row[np.flatnonzero(row)[0]], names)} = 0" for row in rows]


def _reduced(rows, least=PRESENT):
    """Return combinations of rows in which as little as possible is left.

    Parts of a row below ``least``, of its largest one, are none.
    """
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
    rows[abs(rows) < least] = 0.0
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
