"""Poisson's equation with a diffusivity that varies in space and is not known."""

import numpy as np

from sklearn_inverse.probability import GaussianFunction
from sklearn_inverse.systems import FiniteDifferences, PDESystem, PointValues

__all__ = ["poisson"]


def poisson(*, order=2, scale=None, kinks=False, noise=0.01, n_nodes=101):
    r"""Return Poisson's equation with an unknown diffusivity D(x), D = 1 at both ends.

    Parameters
    ----------
    order, scale, kinks : int, float, bool, default=2, None, False
        Of the prior of log D, a :class:`~sklearn_inverse.probability.GaussianFunction`.
        Other inverters than :class:`GradientInverter` need one number, ``scale=2.0``
        say.

    noise : object, default=0.01
        How readings scatter.

    n_nodes : int, default=101
        Evenly spaced nodes; half as many hold D.

    Returns
    -------
    system : PDESystem
        Params ``D[0]`` to ``D[48]``, by default; u in 49 points.

    Notes
    -----
    .. math:: (D u_x)_x = -\pi^2 \sin \pi x, \quad u(0) = u(1) = 0.

    References
    ----------
    .. [1] Zhang et al., "BiLO: Bilevel local operator learning for PDE inverse
       problems", section 3.3. True there is :math:`D = 3/2 - |x - 1/2|`.
    """
    n_values = n_nodes // 2 + 1
    return PDESystem(
        domain={"x": (0, 1)},
        residual=_residual,
        constraint=_constraint,
        params={
            "D": GaussianFunction(
                n_values, order=order, scale=scale, kinks=kinks, ends=(1, 1), link="exp"
            )
        },
        observe=PointValues(np.linspace(0, 1, 51)[1:-1]),
        noise=noise,
        grid=FiniteDifferences(n_nodes),
        name="poisson",
    )


def _residual(x, u, p):
    return (p.D * u.x).x + np.pi**2 * np.sin(np.pi * x.x)


def _constraint(x, n):
    return n * x.x * (1 - x.x)
