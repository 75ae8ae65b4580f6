"""Priors of several params that vary together: normal dependence, any marginals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sklearn_inverse.probability._priors import NormalPrior, Prior, as_prior

__all__ = ["GaussianProcess", "Group", "MultivariateNormal"]

JITTER = 1e-6  # share of variance that each value of a function has for itself
SYMMETRIC = 1e-5  # of two standard deviations: by how much entries may differ


class Group:
    """Several params: priors one by one, correlation of their standard coordinates."""

    marginals: list[Prior]
    correlation: np.ndarray

    @property
    def size(self) -> int:
        """Number of params."""
        return len(self.marginals)

    def _set(self, **values) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)


@dataclass(frozen=True)
class MultivariateNormal(Group):
    """Params that are normal together.

    Parameters
    ----------
    mean : array-like of shape (size,)
        Their means.

    covariance : array-like of shape (size, size)
        Symmetric, positive definite.

    Attributes
    ----------
    marginals : list of Prior
        Priors of the params one by one.

    correlation : ndarray of shape (size, size)
        Correlation of the params' standard coordinates.

    Examples
    --------
    >>> from sklearn_inverse.probability import JointPrior, MultivariateNormal
    >>> tied = MultivariateNormal([1, 2], [[1, 0.9], [0.9, 1]])
    >>> JointPrior({("a", "b"): tied}).median
    array([1., 2.])
    """

    mean: Any
    covariance: Any

    def __post_init__(self):
        mean = np.asarray(self.mean, dtype=float)
        covariance = np.asarray(self.covariance, dtype=float)
        n = mean.size
        if mean.ndim != 1 or n == 0 or covariance.shape != (n, n):
            raise ValueError(
                "`mean` must have shape (size,) and `covariance` (size, size). Got "
                f"shapes {mean.shape} and {covariance.shape}."
            )
        if not np.isfinite(mean).all() or not _is_positive_definite(covariance):
            raise ValueError(
                "`mean` must be finite, `covariance` symmetric and positive definite. "
                f"Got mean {mean.tolist()} and covariance {covariance.tolist()}."
            )
        std = np.sqrt(np.diag(covariance))
        self._set(
            mean=_as_tuple(mean),
            covariance=_as_tuple(covariance),
            marginals=[NormalPrior(m, s) for m, s in zip(mean, std)],
            correlation=covariance / np.outer(std, std),
        )


@dataclass(frozen=True)
class GaussianProcess(Group):
    r"""A smooth function, by its values at nodes.

    Two values are correlated by :math:`\exp(-|x - x'|^2 / 2 \ell^2)`.

    Parameters
    ----------
    nodes : array-like of shape (size,) or (size, n_dims)
        Where the function's values are the params.

    length : float
        Distance over which the function varies, in the unit of the nodes.

    std : float, default=1.0
        Standard deviation of each value.

    mean : float, default=0.0
        Mean of each value.

    marginal : prior, default=None
        Prior of each value, in place of std and mean: ``LogNormal(1, 0.5)`` for a
        positive function.

    Attributes
    ----------
    marginals : list of Prior
        Priors of the values one by one.

    correlation : ndarray of shape (size, size)
        Correlation of the values' standard coordinates.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_inverse.probability import GaussianProcess, JointPrior
    >>> shape = GaussianProcess(np.linspace(0, 1, 3), length=0.5)
    >>> JointPrior({"diffusivity": shape}).names
    ['diffusivity[0]', 'diffusivity[1]', 'diffusivity[2]']
    """

    nodes: Any
    length: float
    std: float = 1.0
    mean: float = 0.0
    marginal: Any = None

    def __post_init__(self):
        nodes = np.asarray(self.nodes, dtype=float)
        if nodes.ndim not in (1, 2) or not nodes.size or not np.isfinite(nodes).all():
            raise ValueError(
                "`nodes` must be finite, of shape (size,) or (size, n_dims). Got shape "
                f"{nodes.shape}."
            )
        if not 0 < self.length < np.inf:
            raise ValueError(f"`length` must be positive. Got {self.length!r}.")
        if self.marginal is None:
            marginal: Prior = NormalPrior(self.mean, self.std)
        elif (self.std, self.mean) == (1.0, 0.0):
            marginal = as_prior(self.marginal)
        else:
            raise ValueError(
                "`marginal` stands in place of `std` and `mean`. Got both: leave out "
                "`std` and `mean`."
            )
        n = len(nodes)
        difference = (nodes.reshape(n, 1, -1) - nodes.reshape(n, -1)) / self.length
        kernel = np.exp(-0.5 * (difference**2).sum(axis=2))
        self._set(
            nodes=_as_tuple(nodes),
            marginal=None if self.marginal is None else marginal,
            marginals=[marginal] * n,
            correlation=(kernel + JITTER * np.eye(n)) / (1 + JITTER),
        )


def _as_tuple(array: np.ndarray) -> tuple:
    """Return the array as hashable tuples of floats."""
    return tuple(map(tuple, array.tolist()) if array.ndim == 2 else array.tolist())


def _is_positive_definite(matrix: np.ndarray) -> bool:
    if not np.isfinite(matrix).all() or not (np.diag(matrix) > 0).all():
        return False
    # Next to the diagonal: small entries are what rounding leaves of large ones.
    std = np.sqrt(np.diag(matrix))
    if (abs(matrix - matrix.T) > SYMMETRIC * np.outer(std, std)).any():
        return False
    try:
        np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        return False
    return True
