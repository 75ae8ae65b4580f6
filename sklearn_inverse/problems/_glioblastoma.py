"""Growth of a brain tumor in white and gray matter, seen as two segmentations."""

from functools import partial
from numbers import Real

import numpy as np

from sklearn_inverse.probability import LogUniform, Normal
from sklearn_inverse.systems import FiniteDifferences, PDESystem, PointValues

__all__ = ["brain", "glioblastoma"]

SIDE = 64.0  # from the middle of the plane to its sides, in mm
SEED = 18.0, 10.0  # where the tumor begins
STEEP = 20.0  # of what is segmented, by density
VOXELS = np.arange(-60.0, 61.0, 4.0)  # middles, along each side


def glioblastoma(*, tissue=None, noise=0.1, n_nodes=65):
    r"""Return a tumor that grows and spreads in a slice of the brain.

    Parameters
    ----------
    tissue : callable, default=None
        ``tissue(x, y)`` returns the shares of white and gray matter at places in mm,
        between -64 and 64, written with NumPy's functions. By default :func:`brain`.

    noise : float or object, default=0.1
        How segmentations scatter: a standard deviation where all is tissue, which is
        larger elsewhere in proportion to what there is of it, or a noise model.

    n_nodes : int, default=65
        Evenly spaced nodes along each side, 33 at least: the tumor begins between those
        of coarser grids. Many take long to compile, once.

    Returns
    -------
    system : PDESystem
        Params ``D`` and ``rho``, relative to 0.3 mm² and 0.03 per day, and the densities
        ``theta1`` and ``theta2`` above which edema and core are seen; both after 250 days
        in voxels 4 mm apart.

    Notes
    -----
    The density u of tumor cells, as a share of the largest, by what there is of tissue,
    :math:`\varphi = w + g`, and how it spreads in it, ten times as fast in white matter
    as in gray:

    .. math:: \varphi u_t = \nabla \cdot \big(D (w + g / 10) \nabla u\big)
              + \rho\,\varphi\,u (1 - u), \quad
              u(\cdot, 0) = 0.1\,b\,e^{-0.1 |\cdot - x_0|^2},

    with :math:`b = (1 - x^2 / 64^2) (1 - y^2 / 64^2)`, .9 where the tumor begins. Nothing
    leaves the tissue, or enters the ventricles. A segmentation is
    :math:`1 / (1 + e^{-20 (u - \theta)})`.

    References
    ----------
    .. [1] Zhang et al., "BiLO: Bilevel local operator learning for PDE inverse
       problems": equation, start and segmentations. Its maps are those of patients.
    """
    tissue = brain if tissue is None else tissue
    x, y = (at.ravel() for at in np.meshgrid(VOXELS, VOXELS, indexing="ij"))
    there = _check_tissue(tissue, x, y)
    x, y, there = (at[there > 0.5] for at in (x, y, there))
    if isinstance(noise, Real):
        noise = Normal(noise / np.tile(there, 2))
    return PDESystem(
        domain={"x": (-SIDE, SIDE), "y": (-SIDE, SIDE), "t": (0, 250)},
        residual=partial(_residual, tissue),
        constraint=_constraint,
        params={
            "D": LogUniform(0.2, 5.0),
            "rho": LogUniform(0.4, 2.5),
            "theta1": (0.1, 0.5),
            "theta2": (0.4, 0.9),
        },
        observe=PointValues(x, t=250.0, y=y, see={"edema": _edema, "core": _core}),
        noise=noise,
        grid=FiniteDifferences(n_nodes),
        nominal={"D": 1.0, "rho": 1.0, "theta1": 0.3, "theta2": 0.6},
        name="glioblastoma",
    )


def _check_tissue(tissue, x, y):
    """Return how much of all voxels is tissue."""
    shares = np.asarray(tissue(x, y) if callable(tissue) else np.nan, dtype=float)
    if shares.shape != (2, len(x)) or not (shares.sum(axis=0) > 0).all():
        raise ValueError(
            "`tissue` must be a function of places (x, y) that returns two arrays, the "
            "shares of white and of gray matter at each, whose sum is above zero "
            f"everywhere: say 1e-3 in fluid. Got {tissue!r}, shape {shares.shape}."
        )
    if not (shares.sum(axis=0) > 0.5).any():
        raise ValueError(
            "`tissue` must be above 0.5 somewhere. Got none, nothing to see."
        )
    return shares.sum(axis=0)


def brain(x, y):
    """Return the shares of white and gray matter in a slice that is made up.

    Parameters
    ----------
    x, y : array-like
        Places in mm, from the middle of the slice.

    Returns
    -------
    white, gray : array-like
        Smooth; what both lack of one is fluid, in the ventricles and around the brain.
    """
    turn = np.arctan2(y, x)
    depth = (55.0 - ((1.1 * x) ** 2 + y**2) / 55.0) / 2  # below the surface, about
    ventricles, nuclei = 0.0, 0.0
    for side in (-1, 1):
        ventricles = ventricles + _in_ellipse(x - 7 * side, y - 2, 4.0, 16.0)
        nuclei = nuclei + _in_ellipse(x - 20 * side, y + 8, 7.0, 11.0)
    folds = 6.0 + 2.5 * np.cos(11 * turn) + 1.5 * np.cos(17 * turn + 1.0)
    gray = 1 - (1 - nuclei) / (1 + np.exp(folds - depth))
    whole = (1 - ventricles) / (1 + np.exp(-depth / 1.5))
    return whole * (1 - gray), whole * gray


def _in_ellipse(x, y, a, b):
    """Return one inside an ellipse, zero outside, with a soft edge."""
    # Networks read this in single precision, where exp would overflow.
    return 0.5 * (1 - np.tanh(((x / a) ** 2 + (y / b) ** 2 - 1) * a / 6))


def _residual(tissue, x, u, p):
    white, gray = tissue(x.x, x.y)
    spread, there = 0.3 * p.D * (white + gray / 10), white + gray
    flow = (spread * u.x).x + (spread * u.y).y
    return there * (u.t - 0.03 * p.rho * u * (1 - u)) - flow


def _constraint(x, n):
    start = 0.1 * np.exp(-0.1 * ((x.x - SEED[0]) ** 2 + (x.y - SEED[1]) ** 2))
    free = (1 - (x.x / SIDE) ** 2) * (1 - (x.y / SIDE) ** 2)
    return start * free + n * free * x.t


def _edema(x, u, p):
    return 1 / (1 + np.exp(-STEEP * (u - p.theta1)))


def _core(x, u, p):
    return 1 / (1 + np.exp(-STEEP * (u - p.theta2)))
