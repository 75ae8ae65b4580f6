"""A coordinate on [0, 1], even or stretched where it starts."""

import math

import numpy as np
import torch

__all__ = ["AxisScale"]


class AxisScale:
    r"""Map a coordinate to :math:`s \in [0, 1]`, evenly or stretched where it starts.

    Parameters
    ----------
    values : ndarray of shape (n_values,)
        Increasing values, output times for example; the map covers them.

    kind : {"linear", "log"}, default="linear"
        ``"log"`` is :math:`s = \log(1 + (t - t_0) / c) / \log(1 + T / c)`.

    onset : float, default=None
        Where :math:`c` a logarithmic scale is about linear up to. If None, a hundredth
        of the first interval between values.
    """

    def __init__(self, values, kind="linear", onset=None):
        self.start, self.length = values[0], values[-1] - values[0]
        self.kind = kind
        self.onset = 0.01 * (values[1] - values[0]) if onset is None else onset

    def to_unit(self, x):
        """Return s at values x."""
        if self.kind == "linear":
            return (x - self.start) / self.length
        return np.log1p((x - self.start) / self.onset) / self._log_ratio()

    def to_value(self, s):
        """Return the values at s, an array or a tensor."""
        if self.kind == "linear":
            return self.start + self.length * s
        expm1 = torch.expm1 if isinstance(s, torch.Tensor) else np.expm1
        return self.start + self.onset * expm1(s * self._log_ratio())

    def spread(self, n_points):
        """Return values that are even on s."""
        return self.to_value(np.linspace(0.0, 1.0, n_points))

    def rate(self, x):
        """Return ds/dx at values x."""
        if self.kind == "linear":
            return np.full_like(x, 1 / self.length)
        return 1 / ((self.onset + x - self.start) * self._log_ratio())

    def _log_ratio(self):
        return math.log1p(self.length / self.onset)
