r"""Coordinates of params under their prior.

.. math:: w = A z, \qquad \Phi(w_j) = F_j(k_j),

where z is standard normal, A the Cholesky factor of the correlation R of groups, the
identity elsewhere, and F_j the distribution function of param j: a Gaussian copula.
Scaled params x are affine in k, or in log10 k.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import block_diag
from scipy.special import ndtr, ndtri

from sklearn_inverse.probability._families import Columns, by_family
from sklearn_inverse.probability._prior import Prior
from sklearn_inverse.probability._priors import Uniform
from sklearn_inverse.utils._scaling import ParamScaler

__all__ = ["Coordinates"]


class Coordinates:
    """Maps between params, scaled params, standard coordinates and quantiles.

    Parameters
    ----------
    marginals : list of Prior
        Priors of the params one by one.

    correlations : list of ndarray of shape (size, size)
        Correlation of each block of params, in order.
    """

    def __init__(self, marginals: list[Prior], correlations: list[np.ndarray]):
        self.n_params = len(marginals)
        self.scaler = ParamScaler(
            [prior.bounds for prior in marginals],
            scale=["log10" if prior.is_log else "linear" for prior in marginals],
        )
        support = np.array([prior.support for prior in marginals]).T
        self._low, self._high = support
        self._lowest = np.where(
            self.scaler.is_log & (support[0] == 0), 1e-300, support[0]
        )
        self._log_width = np.log(self.scaler.width)
        with np.errstate(divide="ignore"):
            self.scaled_low, self.scaled_high = self.scaler.to_scaled(support)
        self.median = np.array([prior.median for prior in marginals])
        scales = zip(marginals, self.scaler.low, self.scaler.width)
        self._families = by_family([p.columns.rescaled(*s) for p, *s in scales])
        self._factor: np.ndarray | None = None
        self.mixing = np.eye(self.n_params)
        if any(len(block) > 1 for block in correlations):
            self._factor = self.mixing = np.linalg.cholesky(block_diag(*correlations))
            self._inverse = np.linalg.inv(self._factor)
            self._precision = self._inverse.T @ self._inverse
            self._log_volume = np.log(np.diag(self._factor)).sum()
        self.is_quantile_scaled = self._factor is None and all(
            isinstance(prior, Uniform) for prior in marginals
        )

    def from_standard(self, z):
        """Map standard coordinates to params.

        Parameters
        ----------
        z : array-like of shape (..., n_params)
            Independent and standard normal under the prior.

        Returns
        -------
        params : ndarray of shape (..., n_params)
            In their own units.
        """
        z = np.asarray(z, dtype=float)
        return self.from_coordinate(z if self._factor is None else z @ self._factor.T)

    def to_standard(self, params):
        """Map params to standard coordinates.

        Parameters
        ----------
        params : array-like of shape (..., n_params)
            In their own units.

        Returns
        -------
        z : ndarray of shape (..., n_params)
            Independent and standard normal under the prior.
        """
        return self._standard_of(self._to_scaled(params))

    def from_quantile(self, u):
        """Map quantiles to params.

        Parameters
        ----------
        u : array-like of shape (..., n_params)
            Independent and uniform on (0, 1) under the prior.

        Returns
        -------
        params : ndarray of shape (..., n_params)
            In their own units.
        """
        if self.is_quantile_scaled:
            return self._from_scaled(np.asarray(u, dtype=float))
        return self.from_standard(ndtri(np.asarray(u, dtype=float)))

    def to_quantile(self, params):
        """Map params to quantiles.

        Parameters
        ----------
        params : array-like of shape (..., n_params)
            In their own units.

        Returns
        -------
        u : ndarray of shape (..., n_params)
            Independent and uniform on (0, 1) under the prior.
        """
        return self.scaled_to_quantile(self._to_scaled(params))

    def quantile_to_scaled(self, u):
        """Map quantiles to scaled params.

        Parameters
        ----------
        u : array-like of shape (..., n_params)
            Independent and uniform on (0, 1) under the prior.

        Returns
        -------
        x : ndarray of shape (..., n_params)
            Scaled params.
        """
        u = np.asarray(u, dtype=float)
        if self.is_quantile_scaled:
            return u
        w = ndtri(u) if self._factor is None else ndtri(u) @ self._factor.T
        return self._each(Columns.from_standard, w)

    def scaled_to_quantile(self, x):
        """Map scaled params to quantiles.

        Parameters
        ----------
        x : array-like of shape (..., n_params)
            Scaled params.

        Returns
        -------
        u : ndarray of shape (..., n_params)
            Independent and uniform on (0, 1) under the prior.
        """
        x = np.asarray(x, dtype=float)
        return x if self.is_quantile_scaled else ndtr(self._standard_of(x))

    def quantile_to_scaled_tensor(self, u):
        """Map a tensor of quantiles to scaled params.

        Parameters
        ----------
        u : Tensor of shape (..., n_params)
            Independent and uniform on (0, 1) under the prior.

        Returns
        -------
        x : Tensor of shape (..., n_params)
            Scaled params: u itself if ``is_quantile_scaled``, else without gradient.
        """
        if self.is_quantile_scaled:
            return u
        return u.new_tensor(self.quantile_to_scaled(u.detach().double().cpu().numpy()))

    def to_coordinate(self, params):
        """Map params to correlated standard coordinates, entry by entry.

        Parameters
        ----------
        params : array-like of shape (..., n_params)
            In their own units.

        Returns
        -------
        w : ndarray of shape (..., n_params)
            ``mixing @ z``.
        """
        return self._each(Columns.to_standard, self._to_scaled(params))

    def from_coordinate(self, w):
        """Map correlated standard coordinates to params, entry by entry.

        Parameters
        ----------
        w : array-like of shape (..., n_params)
            ``mixing @ z``.

        Returns
        -------
        params : ndarray of shape (..., n_params)
            In their own units.
        """
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
        if self._factor is None:
            force = w
            curvature = np.zeros((*w.shape, self.n_params))
            diagonal = slope * slope
        else:
            force = w @ self._precision
            curvature = slope[..., None] * self._precision * slope[..., None, :]
            diagonal = np.einsum("...jj->...j", curvature)
        value = 0.5 * np.einsum("...j,...j->...", w, force)
        diagonal = diagonal + np.maximum(force * bend, 0.0)
        np.einsum("...jj->...j", curvature)[...] = diagonal
        return value, slope * force, curvature

    def standard_slope(self, x):
        """Return the derivatives of standard coordinates by scaled params.

        Parameters
        ----------
        x : array-like of shape (..., n_params)
            Scaled params.

        Returns
        -------
        slope : ndarray of shape (..., n_params, n_params)
            Row i: derivatives of standard coordinate i.
        """
        _, slope, _ = self._derivatives(np.asarray(x, dtype=float))
        if self._factor is not None:
            return self._inverse * slope[..., None, :]
        matrix = np.zeros((*slope.shape, self.n_params))
        np.einsum("...jj->...j", matrix)[...] = slope
        return matrix

    def _standard_of(self, x):
        w = self._each(Columns.to_standard, x)
        return w if self._factor is None else w @ self._inverse.T

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
            for part, values in zip(out, family.derivatives(x[..., index])):
                part[..., index] = values
        return out
