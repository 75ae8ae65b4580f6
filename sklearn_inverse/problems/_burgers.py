"""Burgers' equation without viscosity: waves that steepen into shocks."""

import numpy as np

from sklearn_inverse.probability import GaussianFunction
from sklearn_inverse.systems import FiniteDifferences, PDESystem, PointValues, godunov

__all__ = ["burgers"]


def burgers(*, order=1, scale=(1.0, 16.0), noise=0.05, n_nodes=201, n_values=51):
    r"""Return Burgers' equation with an unknown start f(x), seen at t = 1.

    Parameters
    ----------
    order, scale : int, float, default=1, (1, 16)
        Of the prior of f, a :class:`~sklearn_inverse.probability.GaussianFunction`. Other
        inverters than :class:`GradientInverter` need one number, ``scale=2.0`` say.

    noise : object, default=0.05
        How readings scatter.

    n_nodes : int, default=201
        Evenly spaced nodes.

    n_values : int, default=51
        Of them, evenly spaced too, those that hold f, the ends included.

    Returns
    -------
    system : PDESystem
        Params ``f[0]`` to ``f[48]``, by default; u at t = 1 in 49 points.

    Notes
    -----
    .. math:: u_t + 0.2\,u\,u_x = 0, \quad u(x, 0) = f(x), \quad u(0, t) = u(1, t) = 0,

    by finite volumes with Godunov's flux. What has run into a shock by t = 1 is
    forgotten.

    References
    ----------
    .. [1] Zhang et al., "BiLO: Bilevel local operator learning for PDE inverse
       problems", section 3.4. True there are :math:`f = \sin 2\pi x`, and 1 between 1/4
       and 3/4.
    """
    return PDESystem(
        domain={"x": (0, 1), "t": (0, 1)},
        residual=_residual,
        constraint=_constraint,
        params={"f": GaussianFunction(n_values, order=order, scale=scale, ends=(0, 0))},
        observe=PointValues(np.linspace(0, 1, 51)[1:-1], t=1.0),
        noise=noise,
        grid=FiniteDifferences(n_nodes),
        name="burgers",
    )


def _residual(x, u, p):
    return u.t + godunov(lambda u: 0.1 * u**2, u).x


def _constraint(x, n, p):
    return p.f + n * x.x * (1 - x.x) * x.t
