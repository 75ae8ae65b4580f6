"""A parabola that is known inside, and not where it ends."""

import numpy as np

from sklearn_inverse.systems import Chebyshev, PDESystem, PointValues

__all__ = ["boundary_values"]


def boundary_values(*, noise=0.01, n_nodes=9):
    r"""Return the toy of bilevel methods: unknown values at the ends of an interval.

    Parameters
    ----------
    noise : object, default=0.01
        How readings scatter.

    n_nodes : int, default=9
        Chebyshev nodes.

    Returns
    -------
    system : PDESystem
        Params ``left`` and ``right``; u in 64 points.

    Notes
    -----
    .. math:: u_{xx} = 2, \quad u(0) = \theta_0, \quad u(1) = \theta_1,

    whose solution is :math:`x^2 + (\theta_1 - \theta_0 - 1) x + \theta_0`; readings of
    :math:`x^2` have the params 0 and 1.

    References
    ----------
    .. [1] Hao et al., "Bi-level physics-informed neural networks for PDE constrained
       optimization using Broyden's hypergradients", section A.8.
    """
    return PDESystem(
        domain={"x": (0, 1)},
        residual=_residual,
        constraint=_constraint,
        params={"left": (-2, 4), "right": (-2, 4)},
        observe=PointValues(np.linspace(0, 1, 64)),
        noise=noise,
        grid=Chebyshev(n_nodes),
        name="boundary_values",
    )


def _residual(x, u, p):
    return u.xx - 2


def _constraint(x, n, p):
    return n * x.x * (1 - x.x) + p.left * (1 - x.x) + p.right * x.x
