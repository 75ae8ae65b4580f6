"""The dictionary: all monomials of the states up to a degree."""

from collections import Counter
from itertools import combinations_with_replacement

import numpy as np

__all__ = ["Monomials"]


class Monomials:
    """All monomials of named states, by degree: 1, y1, y2, y1^2, y1*y2, ….

    Attributes
    ----------
    exponents : ndarray of shape (n_terms, n_states)
        Exponent of each state in each monomial.

    names : list of str
        As they are written.

    slopes : ndarray of shape (n_states, n_terms, n_terms)
        ``values @ slopes[j]`` are the derivatives of all monomials by state j, which are
        monomials themselves.
    """

    def __init__(self, states, degree):
        d = len(states)
        terms = [
            term
            for power in range(degree + 1)
            for term in combinations_with_replacement(range(d), power)
        ]
        place = {term: i for i, term in enumerate(terms)}
        # Each is another one times a state.
        self._factors = [(place[term[:-1]], term[-1]) for term in terms[1:]]
        self.names = [_written(term, states) for term in terms]
        self.exponents = np.zeros((len(terms), d), dtype=int)
        self.slopes = np.zeros((d, len(terms), len(terms)))
        for i, term in enumerate(terms):
            for j, power in Counter(term).items():
                self.exponents[i, j] = power
                rest = list(term)
                rest.remove(j)
                self.slopes[j, place[tuple(rest)], i] = power

    def __call__(self, y):
        """Return their values, of shape (..., n_terms), at states (..., n_states)."""
        columns = np.empty((len(self.names), *y.shape[:-1]))
        columns[0] = 1.0
        for i, (other, j) in enumerate(self._factors, start=1):
            np.multiply(columns[other], y[..., j], out=columns[i])
        return np.moveaxis(columns, 0, -1)


def _written(term, states):
    powers = Counter(term).items()
    return (
        "*".join(f"{states[j]}^{p}" if p > 1 else states[j] for j, p in powers) or "1"
    )
