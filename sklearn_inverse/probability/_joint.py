r"""The prior of all params together, and the coordinates of params under it.

.. math:: w = A z, \qquad \Phi(w_j) = F_j(k_j),

where z is standard normal, A the Cholesky factor of the correlation R of groups, the
identity elsewhere, and F_j the distribution function of param j: a Gaussian copula.
Scaled params x are affine in k, or in log10 k.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.linalg import block_diag
from scipy.special import ndtr, ndtri
from scipy.stats import qmc

from sklearn_inverse.probability._families import Columns, by_family
from sklearn_inverse.probability._groups import Group
from sklearn_inverse.probability._priors import LN_10, Prior, Uniform, as_prior
from sklearn_inverse.utils._scaling import ParamScaler

__all__ = ["JointPrior"]


class JointPrior:
    """Prior of all params of a system.

    Its methods map arrays of shape (..., n_params), in the order of ``names``, between
    params in their own units; scaled params; standard coordinates, which are independent
    and standard normal under the prior; and quantiles, which are uniform on (0, 1).
    Immutable, equal by value.

    Parameters
    ----------
    priors : dict
        Maps a param's name to its prior, or to a pair (low, high), or to a frozen SciPy
        distribution. A group of params has a tuple of names as its key; with a single
        name for key, its params are called ``name[0]``, ``name[1]``, ...

    Attributes
    ----------
    names : list of str
        Names of the params.

    n_params : int
        Their number.

    marginals : list of Prior
        Priors of the params one by one.

    groups : dict
        Slice of the params of each group that goes by a single name.

    scaler : ParamScaler
        Map between params and scaled params.

    scaled_low, scaled_high : ndarray of shape (n_params,)
        Ends of the support in scaled params, perhaps infinite.

    is_quantile_scaled : bool
        Whether quantiles and scaled params are the same.

    mixing : ndarray of shape (n_params, n_params)
        Matrix A that makes the correlated coordinates w = A z of standard ones.

    median : ndarray of shape (n_params,)
        Medians of the params one by one.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_inverse.probability import JointPrior, LogNormal
    >>> prior = JointPrior({"rate": (1, 3), "seed": LogNormal(0.1, 1)})
    >>> prior.from_standard(np.zeros(2))
    array([2. , 0.1])
    """

    _base: Any = None  # of which this is a copy with scales

    def __init__(self, priors: dict[Any, Any]):
        if not isinstance(priors, dict) or not priors:
            raise TypeError(
                "`priors` must be a dict of at least one param's name and prior. Got "
                f"{priors!r}."
            )
        self.priors = {
            key: prior if isinstance(prior, Group) else as_prior(prior)
            for key, prior in priors.items()
        }
        self.names: list[str] = []
        self.marginals: list[Prior] = []
        self.groups: dict[str, slice] = {}
        blocks = [self._add(key, prior) for key, prior in self.priors.items()]
        self.n_params = len(self.names)
        if len(set(self.names)) < self.n_params:
            raise ValueError(f"Names of params must differ. Got {self.names}.")
        self.median = np.array([prior.median for prior in self.marginals])
        self.scaler = ParamScaler(
            [prior.bounds for prior in self.marginals],
            scale=["log10" if prior.is_log else "linear" for prior in self.marginals],
        )
        self._low, self._high = np.array([prior.support for prior in self.marginals]).T
        with np.errstate(divide="ignore"):
            ends = self.scaler.to_scaled(np.stack([self._low, self._high]))
        self.scaled_low, self.scaled_high = ends
        is_from_zero = self.scaler.is_log & (self._low == 0)
        self._lowest = np.where(is_from_zero, 1e-300, self._low)
        scales = zip(self.marginals, self.scaler.low, self.scaler.width)
        self._families = by_family([p.columns.rescaled(*s) for p, *s in scales])
        self.mixing = np.eye(self.n_params)
        self._is_mixed = any(len(block) > 1 for block in blocks)
        if self._is_mixed:
            self._mix_by(block_diag(*blocks))
        self.is_quantile_scaled = not self._is_mixed and all(
            isinstance(prior, Uniform) for prior in self.marginals
        )

    def _add(self, key, prior) -> np.ndarray:
        """Take in a prior, and return its correlation."""
        names = list(key) if isinstance(key, tuple) else [key]
        if not all(isinstance(name, str) for name in names):
            raise TypeError(
                f"Keys of `priors` must be names, or tuples of names. Got {key!r}."
            )
        if isinstance(prior, Prior):
            if isinstance(key, tuple):
                raise TypeError(
                    "Several params need a prior for groups, such as MultivariateNormal. "
                    f"Got {prior!r} for {key!r}."
                )
            self.names += names
            self.marginals.append(prior)
            return np.ones((1, 1))
        if not isinstance(key, tuple):
            start = len(self.names)
            self.groups[key] = slice(start, start + prior.size)
            names = [f"{key}[{i}]" for i in range(prior.size)]
        elif len(key) != prior.size:
            raise ValueError(
                f"A group must have a name for each of its params. Got {len(key)} names "
                f"{key!r} for {prior.size} params of {prior!r}."
            )
        self.names += names
        self.marginals += prior.marginals
        return prior.correlation

    @property
    def open_scales(self) -> dict[Any, tuple[float, float]]:
        """Ranges of the scales of functions that are to be found, by their keys."""
        ranges = {
            key: getattr(p, "scale_range", None) for key, p in self.priors.items()
        }
        return {key: ends for key, ends in ranges.items() if ends}

    def at_scales(self, scales) -> JointPrior:
        """Return the prior with the scales of functions that were open.

        Scaled params and the coordinate w keep their meaning: of w, these functions have
        another covariance.

        Parameters
        ----------
        scales : sequence of float
            One for each of ``open_scales``.

        Returns
        -------
        prior : JointPrior
            A copy.
        """
        given = dict(zip(self.open_scales, scales))
        prior, blocks = object.__new__(JointPrior), []
        vars(prior).update(vars(self))
        prior._base, prior.priors = (self, tuple(scales)), dict(self.priors)
        for key, old in self.priors.items():
            block = old.correlation if isinstance(old, Group) else np.ones((1, 1))
            if key in given:
                function: Any = old
                new = prior.priors[key] = function.at_scale(given[key])
                variance = np.diag(function.covariance)
                block = new.covariance / np.sqrt(np.outer(variance, variance))
            blocks.append(block)
        prior._mix_by(block_diag(*blocks))
        return prior

    def _mix_by(self, covariance):
        """Take the covariance of w."""
        self.mixing = np.linalg.cholesky(covariance)
        self._inverse = np.linalg.inv(self.mixing)
        self._precision = self._inverse.T @ self._inverse

    @classmethod
    def from_range(cls, params, names=None) -> JointPrior:
        """Take uniform priors on the range of training params.

        A param that never varies gets a width of 1 %; without names they are called
        ``param_0``, ``param_1``, ...
        """
        params = np.asarray(params, dtype=float)
        low, high = params.min(axis=0), params.max(axis=0)
        pad = np.where(high > low, 0.0, 0.005 * np.abs(low) + (low == 0))
        if names is None:
            names = [f"param_{j}" for j in range(len(low))]
        return cls(dict(zip(names, zip(low - pad, high + pad))))

    def from_standard(self, z):
        """Map standard coordinates to params."""
        return self.from_coordinate(self._mix(np.asarray(z, dtype=float)))

    def to_standard(self, params):
        """Map params to standard coordinates."""
        return self._standard_of(self._to_scaled(params))

    def from_quantile(self, u):
        """Map quantiles to params."""
        return self._from_scaled(self.quantile_to_scaled(u))

    def to_quantile(self, params):
        """Map params to quantiles."""
        return self.scaled_to_quantile(self._to_scaled(params))

    def quantile_to_scaled(self, u):
        """Map quantiles to scaled params."""
        u = np.asarray(u, dtype=float)
        if self.is_quantile_scaled:
            return u
        return self._each(Columns.from_standard, self._mix(ndtri(u)))

    def scaled_to_quantile(self, x):
        """Map scaled params to quantiles."""
        x = np.asarray(x, dtype=float)
        return x if self.is_quantile_scaled else ndtr(self._standard_of(x))

    def quantile_to_scaled_tensor(self, u):
        """Return u itself if ``is_quantile_scaled``, else scaled params, no gradient."""
        if self.is_quantile_scaled:
            return u
        return u.new_tensor(self.quantile_to_scaled(u.detach().double().cpu().numpy()))

    def to_coordinate(self, params):
        """Map params to correlated coordinates w = ``mixing @ z``, entry by entry."""
        return self._each(Columns.to_standard, self._to_scaled(params))

    def from_coordinate(self, w):
        """Map correlated coordinates w = ``mixing @ z`` to params, entry by entry."""
        w = np.asarray(w, dtype=float)
        return self._from_scaled(self._each(Columns.from_standard, w))

    def scaled_penalty(self, x):
        r"""Return :math:`|z|^2 / 2`, minus the log prior of z, and its derivatives by x.

        Parameters
        ----------
        x : array-like of shape (..., n_params)
            Scaled params.

        Returns
        -------
        value : ndarray of shape (...,)
            The penalty.

        gradient : ndarray of shape (..., n_params)
            Its first derivatives.

        curvature : ndarray of shape (..., n_params, n_params)
            Its second derivatives without the terms that would lower the diagonal:
            positive semidefinite.
        """
        w, slope, bend = self._derivatives(np.asarray(x, dtype=float))
        if self._is_mixed:
            force = w @ self._precision
            curvature = slope[..., None] * self._precision * slope[..., None, :]
            diagonal = np.einsum("...jj->...j", curvature)
        else:
            force = w
            curvature = np.zeros((*w.shape, self.n_params))
            diagonal = slope * slope
        value = 0.5 * np.einsum("...j,...j->...", w, force)
        diagonal = diagonal + np.maximum(force * bend, 0.0)
        np.einsum("...jj->...j", curvature)[...] = diagonal
        return value, slope * force, curvature

    def standard_slope(self, x):
        """Return the matrices (..., n_params, n_params) of dz/dx at scaled params."""
        slope = self._derivatives(np.asarray(x, dtype=float))[1]
        inverse = self._inverse if self._is_mixed else self.mixing
        return inverse * slope[..., None, :]

    def log_prob(self, params):
        """Return the natural log of the density, minus infinity outside the support."""
        params = np.asarray(params, dtype=float)
        x = self._to_scaled(params)
        inside = (params >= self._low) & (params <= self._high)
        by_param = self._each(Columns.log_density, x) - np.log(self.scaler.width)
        if self.scaler.has_log:  # dk = ln(10) k width dx
            slope = LN_10 * np.maximum(params, self._lowest)
            by_param = by_param - np.log(np.where(self.scaler.is_log, slope, 1.0))
        log_prob = (by_param + np.zeros(params.shape)).sum(axis=-1)
        if self._is_mixed:
            w = self._each(Columns.to_standard, x)
            copula = (w * w).sum(axis=-1) - (w @ self._precision * w).sum(axis=-1)
            log_prob = log_prob + 0.5 * copula - np.log(np.diag(self.mixing)).sum()
        return np.where(inside.all(axis=-1), log_prob, -np.inf)

    def draw(self, n_draws, rng, method="random"):
        """Draw params from the prior.

        Parameters
        ----------
        n_draws : int
            Number of draws.

        rng : RandomState
            Source of randomness.

        method : {"random", "lhs", "sobol"}, default="random"
            Independent draws, a Latin hypercube, or a scrambled Sobol' sequence.

        Returns
        -------
        params : ndarray of shape (n_draws, n_params)
            In their own units.
        """
        if method == "random":
            return self.from_standard(rng.standard_normal((n_draws, self.n_params)))
        seed = rng.randint(2**31 - 1)
        if method == "lhs":
            u = qmc.LatinHypercube(self.n_params, seed=seed).random(n_draws)
        elif method == "sobol":
            # Sobol' sequences come in powers of two; SciPy warns of any other length.
            n_bits = int(n_draws - 1).bit_length()
            u = qmc.Sobol(self.n_params, seed=seed).random_base2(n_bits)[:n_draws]
        else:
            raise ValueError(
                f"`method` must be 'random', 'lhs' or 'sobol'. Got {method!r}."
            )
        return self.from_quantile(np.clip(u, 1e-16, 1 - 1e-16))

    def check_inside(self, params):
        """Raise ValueError naming the first param outside its prior's support."""
        outside = (params < self._low) | (params > self._high)
        if outside.any():
            i, j = np.argwhere(outside)[0]
            raise ValueError(
                f"Every param must lie within its prior's support. Got {params[i, j]:g} "
                f"for {self.names[j]!r} of sample {i}, whose prior is "
                f"{self.marginals[j]!r}."
            )

    def __repr__(self):
        return f"JointPrior({self.priors!r})"

    def __eq__(self, other):
        if not isinstance(other, JointPrior):
            return NotImplemented
        return list(self.priors.items()) == list(other.priors.items())

    def __hash__(self):
        return hash(tuple(self.priors.items()))

    def __reduce__(self):
        if self._base is not None:
            return JointPrior.at_scales, self._base
        return JointPrior, (self.priors,)

    def _mix(self, z):
        return z @ self.mixing.T if self._is_mixed else z

    def _standard_of(self, x):
        w = self._each(Columns.to_standard, x)
        return w @ self._inverse.T if self._is_mixed else w

    def _to_scaled(self, params):
        params = np.maximum(np.asarray(params, dtype=float), self._lowest)
        return self.scaler.to_scaled(np.minimum(params, self._high))

    def _from_scaled(self, x):
        params = self.scaler.from_scaled(x)
        return np.minimum(np.maximum(params, self._low), self._high)

    def _each(self, method, values):
        """Apply a method of Columns to the params of each family."""
        if len(self._families) == 1:
            return method(self._families[0][1], values)
        out = np.empty_like(values)
        for index, family in self._families:
            out[..., index] = method(family, values[..., index])
        return out

    def _derivatives(self, x):
        """Return w, dw/dx and d²w/dx²."""
        if len(self._families) == 1:
            return self._families[0][1].derivatives(x)
        out = np.empty((3, *x.shape))
        for index, family in self._families:
            out[..., index] = family.derivatives(x[..., index])
        return out
