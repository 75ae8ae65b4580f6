"""Right-hand sides: monomials with coefficients, and what is known besides."""

from collections import Counter
from itertools import combinations_with_replacement

import numpy as np
import torch

from sklearn_inverse.ode._rhs import rowwise_jacobian
from sklearn_inverse.systems._functions import Names, OneSample

__all__ = ["Dictionary", "KnownPart", "Monomials", "RightHandSide"]


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


class RightHandSide:
    """A right-hand side: coefficients times monomials, and what is known besides.

    ``coef`` has shape (n_states, n_terms). ``known(t, y)`` returns the known part at times
    (n,) and states (n, n_states), and its Jacobian of shape (n, n_states, n_states).
    The coefficients of each equation are its basis (n_terms, n_free) times its free ones.
    """

    def __init__(self, monomials, coef, known=None, bases=None):
        self.monomials, self.coef, self.known = monomials, coef, known
        self.bases = bases
        slopes = np.moveaxis(monomials.slopes @ coef.T, 0, -1)
        self._slopes = slopes.reshape(len(slopes), -1)  # (n_terms, n_states * n_states)

    def __call__(self, t, y):
        """Return the right-hand side and its Jacobian at times and states."""
        values = self._values(y)
        f = (values @ self.coef.T).reshape(y.shape)
        jac = (values @ self._slopes).reshape(*y.shape, y.shape[-1])
        return plus_known(self.known, t, y, f, jac)

    def by_free(self, y, pulled):
        """Return derivatives of what depends on the right-hand side at stages.

        By what is free, of shape (n, n_states, n_free); ``y`` has shape (n, n_stages,
        n_states), ``pulled`` (n, n_states, n_stages, n_states): derivatives by its values.
        """
        values, (n, n_stages, d) = self._values(y), y.shape
        ends = np.cumsum([basis.shape[1] for basis in self.bases])
        out = np.empty((n, d, ends[-1]))
        for j, (basis, end) in enumerate(zip(self.bases, ends)):
            part = (values @ basis).reshape(n, n_stages, basis.shape[1])
            begin = end - basis.shape[1]
            np.matmul(pulled[..., j], part, out=out[:, :, begin:end])
        return out

    def _values(self, y):
        """Return monomials in rows: large products are faster than many small ones."""
        return self.monomials(y).reshape(-1, len(self.monomials.names))


class Dictionary:
    """The right-hand sides that some terms can make."""

    prior_std = np.inf  # of what is free

    def __init__(self, monomials, bases, known=None):
        self.monomials, self.bases, self.known = monomials, bases, known
        self._ends = np.cumsum([basis.shape[1] for basis in bases])[:-1]

    def coef(self, x):
        """Return coefficients of shape (n_states, n_terms)."""
        parts = zip(self.bases, np.split(x, self._ends))
        return np.array([basis @ part for basis, part in parts])

    def rhs(self, x):
        """Return the right-hand side."""
        return RightHandSide(self.monomials, self.coef(x), self.known, self.bases)


def plus_known(known, t, y, f, jac):
    """Return values and Jacobians with those of what is known added."""
    if known is not None:
        d = y.shape[-1]
        value, its_jac = known(t.ravel(), y.reshape(-1, d))
        f += value.reshape(f.shape)
        jac += its_jac.reshape(jac.shape)
    return f, jac


class KnownPart:
    """``known(t, y)`` of one sample, by name, run on many."""

    def __init__(self, function, names):
        d, states = len(names), Names("state", names)
        self._function = OneSample(function, "`known`", states, None, (d,))
        times = torch.zeros(2, dtype=torch.float64)
        self._function.check(times, torch.ones(2, d, dtype=torch.float64))

    def __call__(self, t, y):
        """Return values and Jacobians at times (n,) and states (n, n_states)."""
        t, y = (torch.from_numpy(np.ascontiguousarray(x)) for x in (t, y))
        with torch.no_grad():
            values = self._function(t, y)
            jac = rowwise_jacobian(lambda y: self._function(t, y), y)
        return values.numpy(), jac.detach().numpy()
