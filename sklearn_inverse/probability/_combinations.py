"""Directions without effect in words: which combinations of params are determined."""

import itertools

import numpy as np

__all__ = ["blocks", "combinations", "connected", "listed", "null_space"]

ROUND_OFF = 1e-11  # relative singular values that are zero
LARGEST = 3  # exponent or coefficient that is still readable
MANY = 6  # params of which no two kinds of formulas are tried


def null_space(sensitivity, smallest=None):
    """Return what changes no reading, (n_params, n_directions), columns orthonormal.

    Parameters
    ----------
    sensitivity : ndarray of shape (n, n_params)
        Derivatives of standardized readings.

    smallest : float, default=None
        Singular values below this count as zero. If None, those that are zero up to
        round-off, each param in its own unit.
    """
    size = np.linalg.norm(sensitivity, axis=0)
    size = np.where(size > 1e-14 * size.max(), size, np.inf)
    unit = size if smallest is None else np.ones_like(size)
    _, values, rows = np.linalg.svd(sensitivity / unit, full_matrices=True)
    values = np.pad(values, (0, len(rows) - len(values)))
    most = ROUND_OFF * values.max(initial=0) if smallest is None else smallest
    null = rows[values <= most].T / np.where(np.isinf(unit), 1.0, unit)[:, None]
    return np.linalg.qr(null)[0]


def blocks(null, smallest=1e-6):
    """Return the groups of params that move together in a null space."""
    return connected(np.abs(null @ null.T) > smallest)


def connected(linked):
    """Return the groups of what is linked, by a symmetric matrix of bool."""
    left, found = set(np.flatnonzero(linked.any(axis=1)).tolist()), []
    while left:
        group, new = set(), {min(left)}
        while new:
            group |= new
            new = set(np.flatnonzero(linked[sorted(new)].any(axis=0)).tolist()) - group
        found.append(sorted(group))
        left -= group
    return found


def combinations(null, values, slope, names, *, tol=1e-4):
    """Return what is determined of a block of params, as formulas; None if unclear.

    Parameters
    ----------
    null : ndarray of shape (n_params, n_directions)
        Changes of scaled params that change no reading.

    values, slope : ndarray of shape (n_params,)
        The params, and their derivatives by scaled ones.

    names : list of str
        Their names.

    tol : float, default=1e-4
        How near to simple numbers exponents must be.

    Returns
    -------
    formulas : list of str or None
        Such as ``["a*b"]``, ``["a + b"]`` or ``["a*b", "c - d"]``; empty if nothing is
        determined.
    """
    vectors, _, _ = np.linalg.svd(null)
    rest = vectors[:, null.shape[1] :].T  # of which the readings do tell
    kinds = [(1 / slope, _sum)]
    if (values > 0).all():
        kinds.insert(0, (values / slope, _monomial))
    for unit, words in kinds:
        matrix = _simple(_echelon(rest * unit), tol)
        if matrix is not None and _names_all(matrix):
            return [words(row, names) for row in matrix]
    return None if tol > 0.01 else _of_both_kinds(rest, kinds, names, tol)


def _of_both_kinds(rest, kinds, names, tol):
    """Return products next to sums, of the first params of which they can be made."""
    n_told, n = rest.shape
    for pivots in itertools.combinations(range(n), n_told if n <= MANY else 0):
        own = rest[:, pivots]
        if len(pivots) < 2 or np.linalg.cond(own) > 1e6:
            continue
        found = []
        for row, pivot in zip(np.linalg.solve(own, rest), pivots):
            tried = ((_simple(row * u / u[pivot], tol), words) for u, words in kinds)
            found += [pair for pair in tried if pair[0] is not None][:1]
        if len(found) == n_told and _names_all(np.stack([row for row, _ in found])):
            signs = (np.sign(row[row != 0][0]) for row, _ in found)
            return [words(s * row, names) for s, (row, words) in zip(signs, found)]
    return None


def _names_all(matrix):
    return len(matrix) == 0 or (matrix != 0).any(axis=0).all()


def _simple(matrix, tol):
    """Return numbers rounded, None if they are not simple."""
    fraction = 0.5 if tol < 0.01 else 1.0  # one half is near to anything by chance
    rounded = np.round(matrix / fraction) * fraction
    off = np.abs(matrix - rounded).max(initial=0)
    return rounded if off < tol and np.abs(rounded).max(initial=0) <= LARGEST else None


def _echelon(matrix):
    """Return the reduced row echelon form of a matrix of full rank."""
    matrix, row = matrix / np.abs(matrix).max(axis=1, keepdims=True), 0
    for column in range(matrix.shape[1]):
        if row == len(matrix):
            break
        pivot = row + np.abs(matrix[row:, column]).argmax()
        if np.abs(matrix[pivot, column]) < 1e-3:
            continue
        matrix[[row, pivot]] = matrix[[pivot, row]]
        matrix[row] /= matrix[row, column]
        others = np.arange(len(matrix)) != row
        matrix[others] -= matrix[others, column, None] * matrix[row]
        row += 1
    return matrix


def _monomial(powers, names):
    def factor(name, power):
        return name if power == 1 else f"{name}**{power:g}"

    above = [factor(n, p) for n, p in zip(names, powers) if p > 0]
    below = [factor(n, -p) for n, p in zip(names, powers) if p < 0]
    under = f"({'*'.join(below)})" if len(below) > 1 else "".join(below)
    return "*".join(above) + (f"/{under}" if below else "")


def _sum(weights, names):
    text = ""
    for name, weight in zip(names, weights):
        if weight:
            size = "" if abs(weight) == 1 else f"{abs(weight):g}*"
            sign = (" - " if weight < 0 else " + ") if text else ""
            text += f"{sign}{size}{name}"
    return text


def listed(names):
    """Return "a, b and c"."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)
