"""Fisher-KPP in the plane."""

import numpy as np

from sklearn_inverse.systems import FiniteDifferences, PDESystem, PointValues

__all__ = ["fisher_kpp_2d"]


def fisher_kpp_2d(*, noise=0.01, n_nodes=64):
    r"""Return Fisher and KPP's equation on the unit square, seen at the end.

    Parameters
    ----------
    noise : object, default=0.01
        How readings scatter.

    n_nodes : int, default=64
        Evenly spaced nodes along each side; many take long to compile, once.

    Returns
    -------
    system : PDESystem
        Params ``D`` and ``rho``, relative to .01 and 1; u at t = 1 in 25 points.

    See Also
    --------
    fisher_kpp : In one dimension, as published.

    Notes
    -----
    .. math:: u_t = 0.01\,D\,(u_{xx} + u_{yy}) + \rho\,u(1 - u), \quad
              u(x, y, 0) = \tfrac12 \sin^2 \pi x \, \sin^2 \pi y, \quad
              u = 0 \text{ at all sides}.
    """
    points = np.meshgrid(*[np.arange(1, 6) / 6] * 2, indexing="ij")
    x, y = (at.ravel() for at in points)
    return PDESystem(
        domain={"x": (0, 1), "y": (0, 1), "t": (0, 1)},
        residual=_residual,
        constraint=_constraint,
        params={"D": (0.2, 5.0), "rho": (0.2, 5.0)},
        observe=PointValues(x, t=1.0, y=y),
        noise=noise,
        grid=FiniteDifferences(n_nodes),
        nominal={"D": 2.0, "rho": 2.0},
        name="fisher_kpp_2d",
    )


def _residual(x, u, p):
    return u.t - 0.01 * p.D * (u.xx + u.yy) - p.rho * u * (1 - u)


def _constraint(x, n):
    start = 0.5 * (np.sin(np.pi * x.x) * np.sin(np.pi * x.y)) ** 2
    return start + n * x.x * (1 - x.x) * x.y * (1 - x.y) * x.t
