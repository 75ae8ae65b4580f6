"""The heat equation, seen when much of its start is forgotten."""

import numpy as np

from sklearn_inverse.probability import GaussianFunction
from sklearn_inverse.systems import FiniteDifferences, PDESystem, PointValues

__all__ = ["heat"]


def heat(*, order=2, scale=None, kinks=False, noise=0.03, n_nodes=101):
    r"""Return the heat equation with an unknown start f(x), seen at t = 1.

    Parameters
    ----------
    order, scale, kinks : int, float, bool, default=2, None, False
        Of the prior of f, a :class:`~sklearn_inverse.probability.GaussianFunction`. Other
        inverters than :class:`GradientInverter` need one number, ``scale=2.0`` say.

    noise : object, default=0.03
        How readings scatter.

    n_nodes : int, default=101
        Evenly spaced nodes; half as many hold f.

    Returns
    -------
    system : PDESystem
        Params ``f[0]`` to ``f[48]``, by default; u at t = 1 in 49 points.

    Notes
    -----
    .. math:: u_t = 0.01\,u_{xx}, \quad u(x, 0) = f(x), \quad u(0, t) = u(1, t) = 0.

    Waves of the start shorter than a fifth of the interval are damped below 2 %.

    References
    ----------
    .. [1] Zhang et al., "BiLO: Bilevel local operator learning for PDE inverse
       problems", section 3.4. True there is :math:`f = 1 - 2 |x - 1/2|`.
    """
    n_values = n_nodes // 2 + 1
    return PDESystem(
        domain={"x": (0, 1), "t": (0, 1)},
        residual=_residual,
        constraint=_constraint,
        params={
            "f": GaussianFunction(
                n_values, order=order, scale=scale, kinks=kinks, ends=(0, 0)
            )
        },
        observe=PointValues(np.linspace(0, 1, 51)[1:-1], t=1.0),
        noise=noise,
        grid=FiniteDifferences(n_nodes),
        name="heat",
    )


def _residual(x, u, p):
    return u.t - 0.01 * u.xx


def _constraint(x, n, p):
    return p.f + n * x.x * (1 - x.x) * x.t
