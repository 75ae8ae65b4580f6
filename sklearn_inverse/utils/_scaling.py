"""ParamScaler: params in their units to scaled ones and back; ChannelScaler for readings.

Tensors are handled by their own methods, so that nothing here imports torch and
``metrics`` can share these maps.
"""

import math

import numpy as np

from sklearn_inverse.utils._validation import check_bounds, check_scale

__all__ = ["ChannelScaler", "ParamScaler"]


class ParamScaler:
    r"""Map params between their own units and scaled ones, linearly or by log10.

    .. math:: x = \frac{g(k) - g(k_{lo})}{g(k_{hi}) - g(k_{lo})}, \qquad
              g(k) = k \text{ or } \log_{10} k

    Parameters
    ----------
    bounds : array-like of shape (n_params, 2)
        Values of each param, in its own unit, that x = 0 and x = 1 stand for.

    scale : {"linear", "log10"} or list of them, default="linear"
        Scale of each param.
    """

    def __init__(self, bounds, *, scale="linear"):
        self.bounds = check_bounds(bounds, scale=scale)
        self.scale = check_scale(scale, n_params=len(self.bounds))
        self.is_log = self.scale == "log10"
        self.has_log = bool(self.is_log.any())
        low, high = self._g(self.bounds.T)
        self.low, self.width = low, high - low

    @classmethod
    def from_data(cls, params, *, bounds=None, scale="linear"):
        """Take the bounds given, or the range of training params; check both.

        Parameters
        ----------
        params : ndarray of shape (n_samples, n_params)
            Training params.

        bounds : array-like of shape (n_params, 2), default=None
            If None, smallest and largest training value of each param. A param that
            never varies gets a box of relative width 1 % around its value.

        scale : {"linear", "log10"} or list of them, default="linear"
            Scale of each param.

        Returns
        -------
        scaler : ParamScaler
            The map.

        Raises
        ------
        ValueError
            If a training param lies outside its bounds.
        """
        if bounds is None:
            low, high = params.min(axis=0), params.max(axis=0)
            # A param that never varies is known: any box that holds it will do.
            pad = np.where(high > low, 0.0, 0.005 * np.abs(low) + (low == 0))
            return cls(np.stack([low - pad, high + pad], axis=1), scale=scale)
        scaler = cls(
            check_bounds(bounds, n_params=params.shape[1], scale=scale), scale=scale
        )
        scaler.check_inside(params)
        return scaler

    def check_inside(self, params):
        """Raise ValueError naming the first param outside its bounds."""
        low, high = self.bounds.T
        slack = 1e-9 * (high - low)  # a round trip through log10 costs a few ulps
        outside = (params < low - slack) | (params > high + slack)
        if outside.any():
            i, j = np.argwhere(outside)[0]
            raise ValueError(
                f"Every param must lie within its bounds. Got {params[i, j]:g} for "
                f"param {j} of sample {i}, whose bounds are [{low[j]:g}, {high[j]:g}] "
                f"({outside.sum()} value(s) outside in all). Widen `bounds`, or draw "
                "params inside them."
            )

    def to_scaled(self, params):
        """Map params (…, n_params) to scaled ones, in double precision."""
        return (self._g(params) - self.low) / self.width

    def from_scaled(self, scaled):
        """Map scaled params (…, n_params) back to their units, in double precision."""
        g = self.low + self.width * scaled
        if not self.has_log:
            return g
        return np.where(self.is_log, 10.0 ** np.where(self.is_log, g, 0.0), g)

    def from_scaled_tensor(self, scaled):
        """Map a tensor of scaled params (…, n_params) back, differentiably."""
        low, width = (scaled.new_tensor(a) for a in (self.low, self.width))
        g = low + width * scaled
        if not self.has_log or self.is_log.all():
            return 10.0**g if self.has_log else g
        is_log = scaled.new_tensor(self.is_log) > 0
        # The inner where keeps 10**g finite, and so its gradient, for linear params.
        return (10.0 ** g.where(is_log, g.new_zeros(()))).where(is_log, g)

    def to_scaled_tensor(self, params):
        """Map a tensor of params in their units to scaled ones, differentiably."""
        low, width = (params.new_tensor(a) for a in (self.low, self.width))
        is_log = params.new_tensor(self.is_log) > 0
        one = params.new_ones(())
        return (params.where(is_log, one).log10().where(is_log, params) - low) / width

    def slope_tensor(self, params):
        """Return the derivative of params (…, n_params) by their scaled ones."""
        width = params.new_tensor(self.width)
        if not self.has_log:
            return width.expand_as(params)
        is_log = params.new_tensor(self.is_log) > 0
        return (math.log(10) * params * width).where(is_log, width)

    def __eq__(self, other):
        return np.array_equal(self.bounds, other.bounds) and np.array_equal(
            self.is_log, other.is_log
        )

    __hash__ = None  # type: ignore[assignment]  # compared by value, mutable

    def _g(self, params):
        if not self.has_log:
            return np.asarray(params, dtype=float)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.is_log, np.log10(params), params)


class ChannelScaler:
    """Standardize channels by their mean and spread over samples and times.

    The spread is floored relative to the channel's own magnitude, never absolutely:
    POLLU's channels go down to 1e-18. A channel that never varies is divided by its
    magnitude, and by one if it is zero throughout.

    Parameters
    ----------
    trajectories : ndarray of shape (n_samples, n_times, n_channels)
        Readings to take the statistics from; NaN where nothing was measured.
    """

    def __init__(self, trajectories):
        flat = trajectories.reshape(-1, trajectories.shape[-1])
        seen = ~np.isnan(flat)
        n_seen = np.maximum(seen.sum(axis=0), 1)
        self.mean = np.where(seen, flat, 0.0).sum(axis=0) / n_seen
        magnitude = np.where(seen, np.abs(flat), 0.0).max(axis=0, initial=0.0)
        # Divide by the magnitude before squaring: (1e-18)² is at the edge of float32.
        safe = np.where(magnitude > 0, magnitude, 1.0)
        deviation = np.where(seen, flat - self.mean, 0.0) / safe
        std = safe * np.sqrt((deviation**2).sum(axis=0) / n_seen)
        self.std = np.where(std > 1e-9 * safe, std, safe)

    def standardize(self, trajectories):
        """Return ``(trajectories - mean) / std`` per channel, for array or tensor."""
        mean, std = self._moments_like(trajectories)
        return (trajectories - mean) / std

    def restore(self, standardized):
        """Invert :meth:`standardize`."""
        mean, std = self._moments_like(standardized)
        return mean + std * standardized

    def _moments_like(self, values):
        if isinstance(values, np.ndarray):
            return self.mean, self.std
        return values.new_tensor(self.mean), values.new_tensor(self.std)
