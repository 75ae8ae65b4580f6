"""Equations solved by networks, without a solver: residuals, points, local operators."""

from sklearn_inverse.collocation._bilevel import Bilevel
from sklearn_inverse.collocation._local_operator import LocalNetwork

__all__ = ["Bilevel", "LocalNetwork"]
