"""Darcy's flow through a material of two kinds, of which nobody knows where each is."""

import numpy as np

from sklearn_inverse.probability import GaussianFunction
from sklearn_inverse.systems import FiniteDifferences, PDESystem, PointValues

__all__ = ["darcy"]


def darcy(*, order=1, scale=16.0, noise=1e-4, n_nodes=61, n_values=31):
    r"""Return Darcy's flow in the plane with an unknown permeability, between 3 and 12.

    Parameters
    ----------
    order, scale : int, float, default=1, 16.0
        Of the prior of g, a :class:`~sklearn_inverse.probability.GaussianFunction`.

    noise : object, default=1e-4
        How readings scatter; the largest is about .01.

    n_nodes : int, default=61
        Evenly spaced nodes along each side.

    n_values : int, default=31
        Of them, evenly spaced too, those that hold g.

    Returns
    -------
    system : PDESystem
        Params ``g[0]`` to ``g[960]``, by default; u in 29 × 29 points.

    Notes
    -----
    .. math:: -\nabla \cdot (A \nabla u) = 1, \quad u = 0 \text{ at all sides}, \quad
              A = 3 + \frac{9}{1 + e^{-g}}.

    ``3 + 9 / (1 + np.exp(-g))`` of the ends of an interval of g are those of A's. Near 3
    and 12, where A hardly changes with g, Laplace's intervals of g are too narrow.

    References
    ----------
    .. [1] Zhang et al., "BiLO: Bilevel local operator learning for PDE inverse
       problems", section 3.5. True there is A = 12 where a random function is positive,
       else 3.
    """
    at = np.linspace(0, 1, 31)[1:-1]
    x, y = (points.ravel() for points in np.meshgrid(at, at, indexing="ij"))
    g = GaussianFunction(n_values, order=order, scale=scale, std=4.0, over="xy")
    return PDESystem(
        domain={"x": (0, 1), "y": (0, 1)},
        residual=_residual,
        constraint=_constraint,
        params={"g": g},
        observe=PointValues(x, y=y),
        noise=noise,
        grid=FiniteDifferences(n_nodes),
        name="darcy",
    )


def _residual(x, u, p):
    a = 3 + 9 / (1 + np.exp(-p.g))
    return (a * u.x).x + (a * u.y).y + 1


def _constraint(x, n):
    return n * x.x * (1 - x.x) * x.y * (1 - x.y)
