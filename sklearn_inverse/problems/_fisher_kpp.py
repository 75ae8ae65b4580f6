"""Fisher-KPP: a population that spreads and grows."""

import numpy as np

from sklearn_inverse.systems import Chebyshev, PDESystem, PointValues

__all__ = ["fisher_kpp"]


def fisher_kpp(*, noise=0.01, n_nodes=33):
    r"""Return the reaction-diffusion equation of Fisher and KPP, seen at the end.

    Parameters
    ----------
    noise : object, default=0.01
        How readings scatter.

    n_nodes : int, default=33
        Chebyshev nodes.

    Returns
    -------
    system : PDESystem
        Params ``D`` and ``rho``, relative to .01 and 1; u at t = 1 in nine points.

    Notes
    -----
    .. math:: u_t = 0.01\,D\,u_{xx} + \rho\,u(1 - u), \quad
              u(x, 0) = \tfrac12 \sin^2 \pi x, \quad u(0, t) = u(1, t) = 0.

    D and rho are tied: what grows faster may lose more to the ends. Readings of D = rho =
    2 with noise of .01 have a second optimum near D = 3.9, rho = 2.4, hardly worse.

    References
    ----------
    .. [1] Zhang et al., "BiLO: Bilevel local operator learning for PDE inverse
       problems", section 3.1. Scales and truth, D = rho = 2, are those of its code.
    """
    return PDESystem(
        domain={"x": (0, 1), "t": (0, 1)},
        residual=_residual,
        constraint=_constraint,
        params={"D": (0.2, 5.0), "rho": (0.2, 5.0)},
        observe=PointValues(np.arange(1, 10) / 10, t=1.0),
        noise=noise,
        grid=Chebyshev(n_nodes),
        nominal={"D": 2.0, "rho": 2.0},
        name="fisher_kpp",
    )


def _residual(x, u, p):
    return u.t - 0.01 * p.D * u.xx - p.rho * u * (1 - u)


def _constraint(x, n):
    return 0.5 * np.sin(np.pi * x.x) ** 2 + n * x.x * (1 - x.x) * x.t
