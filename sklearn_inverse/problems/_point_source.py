"""Particles that are born in one place, wander, and die."""

import numpy as np

from sklearn_inverse.probability import LogUniform, Poisson
from sklearn_inverse.systems import FiniteDifferences, ParticleCounts, PDESystem

__all__ = ["point_source"]


def point_source(*, n_snapshots=100, n_bins=100, n_nodes=201):
    r"""Return the steady density of particles from a source, seen in snapshots.

    Parameters
    ----------
    n_snapshots : int, default=100
        Independent pictures of all particles.

    n_bins : int, default=100
        Bins in which their positions are counted: ``system.observe.count(positions)``.

    n_nodes : int, default=201
        Evenly spaced nodes; of an odd number the source is one.

    Returns
    -------
    system : PDESystem
        Params ``birth`` and ``death``, rates relative to that of diffusion; counts.

    Notes
    -----
    .. math:: u_{xx} - \mu u + \lambda\,\delta(x - 1/2) = 0, \quad u(0) = u(1) = 0.

    References
    ----------
    .. [1] Zhang et al., "BiLO: Bilevel local operator learning for PDE inverse
       problems", section 3.2, and Miles et al. (2024). True there are
       :math:`\lambda = 500, \mu = 10`.
    """
    return PDESystem(
        domain={"x": (0, 1)},
        residual=_residual,
        constraint=_constraint,
        params={"birth": LogUniform(50, 5000), "death": LogUniform(0.5, 100)},
        observe=ParticleCounts(np.linspace(0, 1, n_bins + 1), n_snapshots),
        noise=Poisson(),
        grid=FiniteDifferences(n_nodes),
        nominal={"birth": 500.0, "death": 10.0},
        name="point_source",
    )


def _residual(x, u, p):
    return u.xx - p.death * u + p.birth * x.point(x=0.5)


def _constraint(x, n):
    return n * x.x * (1 - x.x)
