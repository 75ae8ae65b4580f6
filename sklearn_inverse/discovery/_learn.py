"""From runs to coefficients: fit, leave out what does not contribute, fit again."""

from typing import NamedTuple

import numpy as np

from sklearn_inverse.discovery._determined import (
    Determined,
    conservation_laws,
    other_relations,
)
from sklearn_inverse.discovery._fit import equation_error, row_weights
from sklearn_inverse.discovery._noisy import NoisySearch
from sklearn_inverse.discovery._rhs import Monomials
from sklearn_inverse.discovery._runs import Shots
from sklearn_inverse.discovery._search import ROUGHLY, Search

__all__ = ["Learned", "learn"]


class Learned(NamedTuple):
    """What :func:`learn` returns: attributes of the estimator, and how it went."""

    monomials: Monomials
    coef: np.ndarray
    coef_std: np.ndarray
    covariance: np.ndarray
    step_error: np.ndarray
    rank: int
    identifiable: np.ndarray
    relations: list
    is_choice: bool
    misfit: float  # variance of what is left, in units of the noise or of the changes
    noise: np.ndarray  # None where readings are exact
    alternatives: list
    n_iter: int
    n_failed: int
    n_steps: int
    converged: bool


def learn(
    runs,
    names,
    *,
    a,
    monomials,
    substeps,
    threshold,
    noise,
    estimate,
    known,
    unknown,
    terms,
    max_iter,
):
    """Return what these runs tell; arguments are those of the estimator.

    If ``estimate``, ``noise`` is where its estimates begin.
    """
    shots = Shots.of(runs)
    weights = row_weights(shots, noise)
    means, errors = equation_error(monomials, shots, weights, known)
    determined = _determined(monomials, shots, means, noise)
    possible = np.zeros((len(names), len(monomials.names)), dtype=bool)
    possible[unknown] = True
    for name, some in terms.items():
        possible[names.index(name)] = [term in some for term in monomials.names]

    kind = Search if noise is None else NoisySearch
    search = kind(runs, monomials, determined, a, substeps, noise, known, max_iter)
    search.estimate = estimate and noise is not None
    unseen, identifiable, is_choice = _told(determined, possible)
    chooses = is_choice and not terms
    if noise is None:
        search.explain(possible, errors, unknown, threshold, chooses)
        # Data that count as exact are off by what their solver left.
        determined = _determined(monomials, shots, means, search.accuracy())
        if determined.rank() < search.determined.rank():
            search.determined = determined
            unseen, identifiable, is_choice = _told(determined, possible)
            search.explain(possible, errors, unknown, threshold, not terms)
    else:
        search.fit(search.first(possible, errors), possible, ROUGHLY)
        if chooses:
            search.choose(unknown)
        search.find(unknown, threshold)
        determined = _determined(monomials, shots, means, search.noise)
        unseen, identifiable, is_choice = _told(determined, possible)

    keep, kept = search.keep, np.flatnonzero(search.keep)
    covariance = search.covariance()
    level = search.accuracy()
    if noise is not None:
        level = search.noise * np.sqrt((shots.noise[:, 0] ** 2).mean(axis=0))
    relations, same = conservation_laws([run.states for run in runs], names, level)
    # There are some between any few points, and between noisy ones.
    if noise is None and len(means) >= keep.shape[1]:
        relations += other_relations(
            unseen, _multiples(monomials, same), monomials.names, determined.scale
        )
    solved = search.point.result.solved
    return Learned(
        monomials,
        search.coef,
        search.std(covariance),
        covariance[np.ix_(kept, kept)],
        search.step_error(),
        keep.shape[1] - unseen.shape[1],
        identifiable,
        relations,
        is_choice,
        search.misfit() if noise is None else search.unexplained(),
        search.noise,
        getattr(search, "alternatives", []),
        search.n_iter,
        int((~solved).sum()),
        len(solved),
        search.converged,
    )


def _told(determined, keep):
    """Return directions that all terms leave open, and what those kept tell.

    Which coefficients are determined, and whether some are not.
    """
    identifiable = np.array([determined.identifiable(row) for row in keep])
    is_choice = any(determined.split(row)[1].shape[1] for row in keep)
    return determined.split(np.ones_like(keep[0]))[1], identifiable, is_choice


def _determined(monomials, shots, means, noise):
    """Return what the shots determine: as many combinations as there are, at most."""
    values, n_terms = monomials(shots.start), means.shape[1]
    spread = np.zeros((n_terms, n_terms))
    noise = np.empty(0) if noise is None else noise * shots.noise[:, 0]
    for slope, sd in zip(monomials.slopes, noise.T):
        part = values @ slope * sd[:, None]
        spread += part.T @ part / 2  # the mean of two points
    return Determined(means, spread)


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
