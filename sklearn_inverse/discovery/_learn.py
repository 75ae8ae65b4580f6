"""From runs to coefficients: fit, leave out what does not contribute, fit again."""

from typing import NamedTuple

import numpy as np

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
CUTS = (0.01, 0.1, 1.0)  # of the threshold


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
    is_choice = unseen.shape[1] > 0

    coef = np.zeros(keep.shape)
    for k, (matrix, change) in enumerate(errors):
        basis = determined.basis(keep[k])
        coef[k] = basis @ np.linalg.lstsq(matrix @ basis, change, rcond=1e-12)[0]
    whole, floor = shots, resolution(shots, noise)
    if substeps > 1:
        shots = shots.divided(substeps)
        weights = _divided(weights, substeps)

    n_iter = 0

    def fit(coef, keep, tol):
        nonlocal n_iter
        bases = [determined.basis(row) for row in keep]
        problem = Learning(monomials, a, shots, weights, bases, known)
        x = np.concatenate(
            [np.linalg.lstsq(b, c, rcond=None)[0] for b, c in zip(bases, coef)]
        )
        point, factor, n, converged = problem.solve(x, max_iter=max_iter, tol=tol)
        n_iter += n
        return problem, point, factor, converged

    first = CLOSELY if is_choice or threshold == 0 else ROUGHLY
    problem, point, factor, converged = fit(coef, keep, first)
    coef = problem.coef(point.x)
    if is_choice:
        chosen = coef.copy()
        for k in unknown:
            chosen[k] = sparsest(coef[k], unseen, determined.scale)
        # Between the points they differ: steps must still be possible.
        every = [np.eye(keep.shape[1])] * len(names)
        anew = Learning(monomials, a, shots, weights, every, known).at(chosen.ravel())
        if anew.flight.solved.all():
            coef = chosen
    cuts = [threshold * cut for cut in CUTS] if threshold else []
    while cuts:
        cut = cuts.pop(0)
        fewer = keep & (shares(monomials, coef, whole, floor, known) >= cut)
        if (fewer == keep).all() and not cuts:
            break
        keep = fewer
        problem, point, factor, converged = fit(
            coef, keep, ROUGHLY if cuts else CLOSELY
        )
        coef = problem.coef(point.x)
        cuts = cuts or [threshold]  # until nothing falls any more

    covariance = _covariance(problem, point, factor, noise)
    coef = np.where(keep, coef, 0.0)
    std = np.zeros_like(coef)
    std[keep] = np.sqrt(np.diag(covariance)[np.flatnonzero(keep)])
    kept = np.flatnonzero(keep)
    level = np.zeros(len(names)) if noise is None else noise
    relations, same = conservation_laws([y for _, y in runs], names, level)
    if len(means) >= keep.shape[1]:  # else there are some between any points
        relations += other_relations(
            unseen, _multiples(monomials, same), monomials.names, determined.scale
        )
    return Learned(
        monomials,
        coef,
        std,
        covariance[np.ix_(kept, kept)],
        keep.shape[1] - unseen.shape[1],
        identifiable,
        relations,
        is_choice,
        n_iter,
        int((~point.flight.solved).sum()),
        len(point.flight.solved),
        converged,
    )


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
    values, spread = monomials(shots.start), np.zeros(means.shape[1])
    if noise is not None:
        parts = [(values @ s * sd) ** 2 for s, sd in zip(monomials.slopes, noise)]
        spread = np.sqrt(np.sum(parts, axis=(0, 1)) / 2)  # of two points
    return Determined(means, spread)


def _divided(weights, n):
    """Return weights of the same steps, each cut into n."""
    parts = np.zeros((len(weights), weights.shape[1], n, weights.shape[2]))
    parts[:, :, -1] = weights
    return parts.reshape(len(weights), -1, weights.shape[2])


def _covariance(problem, point, factor, noise):
    """Return the covariance of all coefficients, equation by equation in a row."""
    n_terms = len(problem.monomials.names)
    size = len(problem.bases) * n_terms
    basis, at = np.zeros((size, len(point.x))), 0
    for k, own in enumerate(problem.bases):
        basis[k * n_terms : (k + 1) * n_terms, at : at + own.shape[1]] = own
        at += own.shape[1]
    if not at:
        return np.zeros((size, size))
    inverse = np.linalg.pinv(factor[:, :-1])
    spread = basis @ inverse
    n_rows = (problem.weights[point.flight.solved] > 0).sum()
    variance = point.cost / (n_rows - at) if n_rows > at else np.nan
    return (variance if noise is None else np.fmax(variance, 1.0)) * spread @ spread.T


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
