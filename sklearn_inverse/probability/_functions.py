"""Priors of whole functions, by how much they bend."""

from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any

import numpy as np

from sklearn_inverse.probability._groups import Group
from sklearn_inverse.probability._priors import LogNormalPrior, NormalPrior

__all__ = ["GaussianFunction"]

SCALES = (2.0**-8, 2.0**8)  # among which one is found, if none is given


@dataclass(frozen=True)
class GaussianFunction(Group):
    r"""An unknown function on an interval: its values at even nodes are the params.

    The density of a function g is :math:`\exp(-\tfrac12 \int (g^{(m)} / s)^2 dx)` for the
    order m and the scale s: one that rises (order 1) or bends (order 2) steeply is
    unlikely. Between nodes it is linear.

    Parameters
    ----------
    n_nodes : int, default=33
        Nodes from one end of the interval to the other.

    order : {1, 2}, default=1
        1 allows kinks, 2 wants a smooth function.

    scale : float or (float, float), default=None
        How much g (order 1) or its slope (order 2) varies over a unit of length: twice
        the distance lets it vary √2 times as much. Of a range, or if None of 1/256 to 256,
        :class:`GradientInverter` takes what the readings of each sample are the likeliest
        under (their evidence). Other inverters need one number; the prior itself, its
        draws for example, has the geometric mean of the range.

    ends : (float, float), default=None
        Values at both ends, where they are known; these are then no params.

    mean, std : float, default=0.0, 1.0
        Of g at both ends, where they are not known.

    link : {"identity", "exp"}, default="identity"
        The function is g, or exp(g), which is positive.

    interval : (float, float), default=(0, 1)
        Where it lives.

    Attributes
    ----------
    marginals : list of Prior
        Priors of the values one by one.

    covariance, correlation : ndarray of shape (size, size)
        Of the values of g.

    nodes : ndarray of shape (n_nodes,)
        The nodes, the ends among them.

    scale_range : (float, float) or None
        Where the scale is to be found, None if it is given.

    Examples
    --------
    >>> from sklearn_inverse.probability import GaussianFunction, JointPrior
    >>> slowness = GaussianFunction(5, ends=(1, 1), link="exp")
    >>> JointPrior({"slowness": slowness}).median
    array([1., 1., 1.])
    """

    n_nodes: int = 33
    order: int = 1
    scale: Any = None
    ends: Any = None
    mean: float = 0.0
    std: float = 1.0
    link: str = "identity"
    interval: Any = (0.0, 1.0)

    def __post_init__(self):
        for what, value, known in (
            ("order", self.order, (1, 2)),
            ("link", self.link, ("identity", "exp")),
        ):
            if value not in known:
                raise ValueError(f"`{what}` must be one of {known}. Got {value!r}.")
        n_nodes = self.n_nodes
        if not (isinstance(n_nodes, Integral) and n_nodes >= 2 + self.order):
            raise ValueError(
                f"`n_nodes` must be a whole number, {2 + self.order} at least. Got "
                f"{n_nodes!r}."
            )
        for name in ("scale", "ends", "interval"):  # arrays would not compare
            if _is_pair(getattr(self, name)):
                object.__setattr__(self, name, tuple(map(float, getattr(self, name))))
        low, high = self.scale_range or (self.scale, np.inf)
        if not (isinstance(low, Real) and 0 < low < high):
            raise ValueError(
                "`scale` must be positive, or (low, high), or None to be found between "
                f"{SCALES[0]:g} and {SCALES[1]:g}. Got {self.scale!r}."
            )
        if not (isinstance(self.std, Real) and 0 < self.std < np.inf):
            raise ValueError(f"`std` must be positive. Got {self.std!r}.")
        if not (_is_pair(self.interval) and self.interval[0] < self.interval[1]):
            raise ValueError(
                f"`interval` must be (low, high), finite. Got {self.interval!r}."
            )
        precision, mean = self._precision(), np.full(self.n_nodes, self.mean)
        if self.ends is not None:
            if not _is_pair(self.ends):
                raise ValueError(
                    "`ends` must be the values at both ends, finite. Got "
                    f"{self.ends!r}."
                )
            if self.link == "exp" and min(self.ends) <= 0:
                raise ValueError(
                    f"`ends` must be positive with link='exp'. Got {self.ends}."
                )
            ends = np.log(self.ends) if self.link == "exp" else np.array(self.ends)
            mean = np.linspace(ends[0], ends[1], self.n_nodes)[
                1:-1
            ]  # it bends the least
            precision = precision[1:-1, 1:-1]
        covariance = np.linalg.inv(precision)
        std = np.sqrt(np.diag(covariance))
        kind: Any = NormalPrior
        if self.link == "exp":
            kind, mean = LogNormalPrior, np.exp(mean)
        marginals = [kind(m, s) for m, s in zip(mean, std)]
        self._set(
            marginals=marginals,
            covariance=covariance,
            correlation=covariance / np.outer(std, std),
        )

    @property
    def scale_range(self):
        """Where the scale is to be found, None if it is given."""
        if self.scale is None:
            return SCALES
        return self.scale if _is_pair(self.scale) else None

    def at_scale(self, scale):
        """Return the same prior with a scale that is given."""
        return replace(self, scale=float(scale))

    def _precision(self):
        """Return the precision of g at the nodes."""
        scale = self.scale
        if self.scale_range:
            scale = np.sqrt(np.prod(self.scale_range))
        bend = np.diff(np.eye(self.n_nodes), n=self.order, axis=0)
        low, high = self.interval
        spacing = (high - low) / (self.n_nodes - 1)
        precision = bend.T @ bend / (scale**2 * spacing ** (2 * self.order - 1))
        if self.ends is None:
            precision[[0, -1], [0, -1]] += self._hold(scale) / self.std**2
        return precision

    def _hold(self, scale):
        """Return what holds each end so that it has the spread that was given.

        Of order 1 each end holds the other, too: at most one half is needed then.
        """
        if self.order == 2:
            return 1.0
        low, high = self.interval
        q = 2 * self.std**2 / (scale**2 * (high - low))
        return 0.5 + 0.5 / (q + np.hypot(1, q))

    @property
    def nodes(self):
        """The nodes, the ends among them."""
        low, high = self.interval
        return np.linspace(low, high, self.n_nodes)

    def reading(self, points):
        """Return what makes values at points of the params, and of 1 behind them.

        Parameters
        ----------
        points : ndarray of shape (n_points,)
            Inside the interval.

        Returns
        -------
        matrix : ndarray of shape (n_points, size + 1)
            Linear interpolation.
        """
        unit = np.eye(self.n_nodes)
        matrix = np.stack([np.interp(points, self.nodes, row) for row in unit], axis=1)
        if self.ends is None:
            return np.hstack([matrix, np.zeros((len(points), 1))])
        known = matrix[:, [0, -1]] @ np.asarray(self.ends, dtype=float)
        return np.hstack([matrix[:, 1:-1], known[:, None]])


def _is_pair(given):
    """Whether these are two finite numbers."""
    try:
        return np.shape(given) == (2,) and bool(np.isfinite(given).all())
    except (TypeError, ValueError):
        return False
