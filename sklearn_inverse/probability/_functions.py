"""Priors of whole functions, by how much they bend."""

from copy import copy
from dataclasses import dataclass, field
from math import comb, prod
from numbers import Integral, Real
from typing import Any

import numpy as np
from scipy.optimize import brentq

from sklearn_inverse.probability._groups import Group
from sklearn_inverse.probability._priors import LogNormalPrior, NormalPrior

__all__ = ["GaussianFunction"]

SCALES = (2.0**-8, 2.0**8)  # among which one is found over a unit of length


@dataclass(frozen=True)
class GaussianFunction(Group):
    r"""An unknown function of one coordinate or two: its values at even nodes are params.

    The density of a function g is :math:`\exp(-\tfrac12 \int |D^m g|^2 / s^2)` for the
    order m, with all derivatives of this order, and the scale s: one that rises (order 1)
    or bends (order 2) steeply is unlikely. Between nodes it is linear.

    Parameters
    ----------
    n_nodes : int or (int, int), default=33
        Nodes from one end of the interval to the other, along each coordinate.

    order : {1, 2}, default=1
        1 allows kinks, 2 wants a smooth function. Of two coordinates, the values of order
        1 vary the more the closer the nodes.

    scale : float or (float, float), default=None
        How much g (order 1) or its slope (order 2) varies over a unit of length: of one
        coordinate, twice the distance lets it vary √2 times as much. Of a range,
        :class:`GradientInverter` takes what the readings of each sample are the likeliest
        under (their evidence). None is a range, too: 1/256 to 256 on an interval of length
        one, elsewhere what is the same in units of its length (of two the geometric mean).
        Other inverters need one number; the prior itself, its draws for example, has the
        geometric mean of the range.

    ends : (float, float) or float, default=None
        Values at both ends, or the one at the whole border, where they are known; these
        are then no params.

    mean, std : float, default=0.0, 1.0
        Of g at the ends, or corners, where they are not known.

    link : {"identity", "exp"}, default="identity"
        The function is g, or exp(g), which is positive. What else it is made of is
        written in the equation: ``3 + 9 / (1 + np.exp(-p.g))`` lies between 3 and 12.

    interval : (float, float) or pair of these, default=(0, 1)
        Where it lives; of two coordinates the same along both, or one for each.

    over : str, default=None
        Its coordinates in a :class:`PDESystem`: "x", "t", "xy", "xt". By default the only
        one of space.

    kinks : bool, default=False
        Whether g may have kinks (order 2) or jumps (order 1), few and large: its bends
        are not normal but Cauchy, their scale somewhere in its range. For
        :class:`GradientInverter` alone, which draws posteriors by Markov chains around
        linearized readings, and for one coordinate. To all else, draws of the prior for
        example, it is the prior without kinks.

    Attributes
    ----------
    marginals : list of Prior
        Priors of the values one by one.

    covariance, correlation : ndarray of shape (size, size)
        Of the values of g; those of two coordinates with the second running first.

    shape : tuple of int
        Number of nodes along each coordinate.

    nodes : ndarray of shape (n_nodes,), or tuple of two
        The nodes along each coordinate, the ends among them.

    intervals : tuple of (float, float)
        Where it lives, along each coordinate.

    scale_range : (float, float) or None
        Where the scale is to be found, None if it is given.

    Notes
    -----
    With kinks, the density is that of a Cauchy difference prior [1]_, :math:`\prod_i s /
    (s^2 + L (D^m g)_i^2)` on an interval of length L, all scales s on a ladder over the
    range as likely: half of the bends are smaller than :math:`s / \sqrt L`, a few much
    larger. Of the start of the heat equation, a hat, it has half the mean square error of
    order 2 alone, of a sine one and a half times; its 90 % bands hold 88 to 98 % of six
    functions in two problems. Ends that are not known have the spread ``std`` each (order
    2) or together (order 1).

    References
    ----------
    .. [1] Markkanen, Roininen, Huttunen, Lasanen, "Cauchy difference priors for
       edge-preserving Bayesian inversion", J. Inverse Ill-Posed Probl. 27, 225 (2019).

    Examples
    --------
    >>> from sklearn_inverse.probability import GaussianFunction, JointPrior
    >>> slowness = GaussianFunction(5, ends=(1, 1), link="exp")
    >>> JointPrior({"slowness": slowness}).median
    array([1., 1., 1.])
    >>> GaussianFunction((4, 3), over="xy", ends=0.0).size
    2
    """

    n_nodes: Any = 33
    order: int = 1
    scale: Any = None
    ends: Any = None
    mean: float = 0.0
    std: float = 1.0
    link: str = "identity"
    interval: Any = (0.0, 1.0)
    over: str | None = None
    kinks: bool = False
    shape: tuple[int, ...] = field(init=False, repr=False, compare=False)
    intervals: Any = field(init=False, repr=False, compare=False)
    covariance: Any = field(init=False, repr=False, compare=False)
    _known: Any = field(init=False, repr=False, compare=False)
    _order: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        for what, kind, known in (
            ("order", Integral, (1, 2)),
            ("link", str, ("identity", "exp")),
        ):
            value = getattr(self, what)
            if not isinstance(value, kind) or value not in known:
                raise ValueError(f"`{what}` must be one of {known}. Got {value!r}.")
        over = self.over
        letters = over if isinstance(over, str) else ""
        if over is not None and not 0 < len(letters) == len(set(letters)) < 3:
            raise ValueError(
                "`over` must be one or two coordinates, of one letter each: 'x' or 'xy'. "
                f"Got {over!r}."
            )
        n_axes = len(over or "x")
        shape = _each(self.n_nodes, n_axes)
        if len(shape) != n_axes or not all(
            isinstance(n, Integral) and int(n) >= 2 + self.order for n in shape
        ):
            raise ValueError(
                f"`n_nodes` must be a whole number, {2 + self.order} at least, or one for "
                f"each coordinate of `over`. Got {self.n_nodes!r} over {over!r}."
            )
        for name in ("scale", "ends", "interval"):  # arrays would not compare
            if _is_pair(getattr(self, name)):
                object.__setattr__(self, name, tuple(map(float, getattr(self, name))))
        if not (isinstance(self.std, Real) and 0 < self.std < np.inf):
            raise ValueError(f"`std` must be positive. Got {self.std!r}.")
        if not (isinstance(self.mean, Real) and np.isfinite(float(self.mean))):
            raise ValueError(f"`mean` must be one finite number. Got {self.mean!r}.")
        intervals = self.interval
        if _is_pair(intervals):
            intervals = (intervals,) * n_axes
        if np.shape(intervals) != (n_axes, 2) or not all(
            _is_pair(ends) and ends[0] < ends[1] for ends in intervals
        ):
            raise ValueError(
                "`interval` must be (low, high), finite, or one for each coordinate of "
                f"`over`. Got {self.interval!r}."
            )
        intervals = tuple(tuple(map(float, ends)) for ends in intervals)
        if not _is_pair(self.interval):
            self._set(interval=intervals)
        shape = tuple(map(int, shape))
        if np.ndim(self.n_nodes):
            self._set(n_nodes=shape)
        self._set(shape=shape, intervals=intervals)
        low, high = self.scale_range or (self.scale, np.inf)
        if not (isinstance(low, Real) and 0 < float(low) < high):
            raise ValueError(
                "`scale` must be positive, or (low, high) or None to be found. Got "
                f"{self.scale!r}."
            )
        is_told = isinstance(self.kinks, (bool, np.bool_))
        if not is_told or (self.kinks and (n_axes > 1 or not self.scale_range)):
            raise ValueError(
                "`kinks` must be False or True; functions with kinks have one coordinate, "
                "and their scale is found: give `scale` as None or (low, high). Got "
                f"kinks={self.kinks!r}, scale={self.scale!r}, over={over!r}."
            )
        self._set_marginals()
        self._check_size()

    def _set_marginals(self):
        """Set what follows of the arguments."""
        inner = np.ones(self.shape, dtype=bool)
        known, mean = np.array([]), np.full(self.shape, float(self.mean))
        if self.ends is not None:
            mean, border = self._between_ends(), inner.copy()
            border[(slice(1, -1),) * inner.ndim] = False
            inner = ~border
            known = np.exp(mean[border]) if self.link == "exp" else mean[border]
        places = [np.flatnonzero(part) for part in (inner, ~inner)]
        inner, order = places[0], np.argsort(np.concatenate(places))
        self._set(_known=known, _order=order)
        covariance = self._covariance(inner, self._middle)
        mean, std = mean.ravel()[inner], np.sqrt(np.diag(covariance))
        kind: Any = NormalPrior
        if self.link == "exp":
            kind, mean = LogNormalPrior, np.exp(mean)
        with np.errstate(over="ignore"):  # see _check_size
            marginals = [kind(m, s) for m, s in zip(mean, std)]
        self._set(
            marginals=marginals,
            covariance=covariance,
            correlation=covariance / np.outer(std, std),
        )

    def _check_size(self):
        """Refuse a scale under which exp(g) may overflow."""
        low, high = np.array([m.bounds for m in self.marginals]).T
        if self.link == "exp" and not (low.all() and np.isfinite(high).all()):
            std = np.sqrt(self.covariance.diagonal().max())
            raise ValueError(
                "With link='exp', exp(g) must neither overflow nor vanish where g is three "
                f"standard deviations off. Got one of {std:.3g} by `scale` "
                f"{self._middle:g}, std={self.std:g} on {self.interval}: give a smaller "
                "scale, or range of scales, in the unit of the interval."
            )

    def _between_ends(self):
        """Return the values of g that bend the least between those that are known."""
        one_axis, ends = len(self.shape) == 1, self.ends
        if not (
            _is_pair(ends)
            if one_axis
            else isinstance(ends, Real) and np.isfinite(float(ends))
        ):
            what = "values at both ends" if one_axis else "one value at the border"
            raise ValueError(f"`ends` must be the {what}, finite. Got {ends!r}.")
        ends = ends if one_axis else (ends, ends)
        if self.link == "exp" and min(ends) <= 0:
            raise ValueError(
                f"`ends` must be positive with link='exp'. Got {self.ends}."
            )
        ends = np.log(ends) if self.link == "exp" else np.array(ends, dtype=float)
        first = np.linspace(ends[0], ends[1], self.shape[0])
        return first.reshape(-1, *[1] * (len(self.shape) - 1)) + np.zeros(self.shape)

    @property
    def scale_range(self):
        """Where the scale is to be found, None if it is given."""
        if self.scale is None:
            # What varies by one in all has this scale, in any unit of length.
            size = prod(high - low for low, high in self.intervals)
            unit = size ** (1 / 2 - self.order / len(self.intervals))
            return SCALES[0] * unit, SCALES[1] * unit
        return self.scale if _is_pair(self.scale) else None

    def at_scale(self, scale):
        """Return the same prior, without kinks, with a scale that is given."""
        prior = copy(self)  # searches may try scales under which exp(g) overflows
        prior._set(scale=float(scale), kinks=False)
        prior._set_marginals()
        return prior

    def bends(self):
        """Return the matrix of what is Cauchy with kinks, and of what is normal.

        Returns
        -------
        bends : ndarray of shape (n_bends, size)
            Of g less its mean, each derivative that has a Cauchy density of its own, in
            the unit of the scale: times √L, as a slope that varies by √L times the scale
            over the whole length L bends by 1 / √L times the scale.

        held : ndarray of shape (n_held, size)
            What is standard normal. Of both together, the first ``size - n_held`` bends
            and these tell g.
        """
        (n,), ((low, high),) = self.shape, self.intervals
        bends = np.diff(np.eye(n), n=self.order, axis=0)
        bends *= ((n - 1) / (high - low)) ** self.order * (high - low) ** 0.5
        if self.ends is not None:
            return bends[:, 1:-1], np.empty((0, n - 2))
        held = np.eye(n)[[0, -1]] / self.std
        return bends, held if self.order == 2 else held.mean(axis=0, keepdims=True)

    @property
    def _middle(self):
        """The scale of the prior itself."""
        return np.sqrt(np.prod(self.scale_range)) if self.scale_range else self.scale

    def _covariance(self, inner, scale):
        """Return the covariance of g at all nodes that are not known, flat."""
        spacings = [
            (high - low) / (n - 1) for n, (low, high) in zip(self.shape, self.intervals)
        ]
        axes = [*zip(self.shape, spacings)]
        m = self.order
        if len(axes) == 1:
            bent = _squares(*axes[0], m)
        else:
            x, y = axes
            bent = sum(
                comb(m, k) * np.kron(_squares(*x, k), _squares(*y, m - k))
                for k in range(m + 1)
            )
        if self.ends is not None:
            return scale**2 * np.linalg.inv(bent[np.ix_(inner, inner)])
        # Given the ends, or corners, and these themselves: together they would be too
        # ill-conditioned to invert. Bending holds the latter together, but for a shift,
        # and of order 2 for a slope; the rest is held so that each has its spread.
        places = np.arange(len(bent)).reshape(self.shape)
        corners = places[np.ix_(*[[0, -1]] * len(axes))].ravel()
        others = np.delete(places.ravel(), corners)
        between = np.linalg.inv(bent[np.ix_(others, others)])
        lead = -between @ bent[np.ix_(others, corners)]
        together = bent[np.ix_(corners, corners)] + bent[np.ix_(corners, others)] @ lead
        stiff, modes = np.linalg.eigh(together)
        stiff[: 1 if m == 1 else 1 + len(axes)] = 0.0
        stiff, n = stiff * (self.std / scale) ** 2, len(corners)
        excess = brentq(
            lambda c: np.mean(1 / (c + stiff)) - 1, 0.5 / n, 2.0, xtol=1e-14
        )
        modes = modes * (self.std / np.sqrt(excess + stiff))
        whole = np.empty((len(bent), n))
        whole[corners], whole[others] = modes, lead @ modes
        covariance = whole @ whole.T
        covariance[np.ix_(others, others)] += scale**2 * between
        return covariance

    @property
    def nodes(self):
        """The nodes along each coordinate, the ends among them."""
        axes = zip(self.shape, self.intervals)
        nodes = [np.linspace(low, high, n) for n, (low, high) in axes]
        return nodes[0] if len(nodes) == 1 else tuple(nodes)

    def whole(self, values):
        """Return the function at all nodes, of the params and what is known of it.

        Parameters
        ----------
        values : array-like of shape (size,)
            The params.

        Returns
        -------
        whole : array of shape ``shape``
            The function.
        """
        if isinstance(values, (list, tuple)):  # what is traced has a type of its own
            values = np.array(values)
        if self.ends is not None:
            values = np.concatenate([values, self._known])[self._order]
        return values if len(self.shape) == 1 else values[:].reshape(self.shape)


def _squares(n_nodes, spacing, order):
    """Return the matrix of the integral of a derivative's square, by values at nodes."""
    if order == 0:
        return np.diag(np.r_[0.5, np.ones(n_nodes - 2), 0.5]) * spacing
    slope = np.diff(np.eye(n_nodes), n=order, axis=0)
    return slope.T @ slope / spacing ** (2 * order - 1)


def _each(given, n_axes):
    """Return one for each coordinate."""
    return (given,) * n_axes if np.ndim(given) == 0 else tuple(given)


def _is_pair(given):
    """Whether these are two finite numbers."""
    try:
        return np.shape(given) == (2,) and bool(np.isfinite(given).all())
    except (TypeError, ValueError):
        return False
