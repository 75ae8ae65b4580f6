"""Time on [0, 1], even or stretched where it starts."""

import math

import numpy as np

__all__ = ["TimeScale"]


class TimeScale:
    r"""Map time to :math:`\tau \in [0, 1]`, evenly or stretched where it starts.

    Parameters
    ----------
    times : ndarray of shape (n_times,)
        Output times; the map covers them.

    kind : {"linear", "log"}
        ``"log"`` is :math:`\tau = \log(1 + (t - t_0) / c) / \log(1 + T / c)`.

    onset : float, default=None
        Time :math:`c` up to which a logarithmic scale is about linear. If None, a
        hundredth of the first interval between output times.
    """

    def __init__(self, times, kind, onset=None):
        self.start, self.duration = times[0], times[-1] - times[0]
        self.kind = kind
        self.onset = 0.01 * (times[1] - times[0]) if onset is None else onset

    def to_unit(self, t):
        """Return τ at times t."""
        if self.kind == "linear":
            return (t - self.start) / self.duration
        return np.log1p((t - self.start) / self.onset) / self._log_ratio()

    def to_time(self, tau):
        """Return the times at τ."""
        if self.kind == "linear":
            return self.start + self.duration * tau
        return self.start + self.onset * np.expm1(tau * self._log_ratio())

    def spread(self, n_points):
        """Return times that are even on τ."""
        return self.to_time(np.linspace(0.0, 1.0, n_points))

    def rate(self, t):
        """Return dτ/dt at times t."""
        if self.kind == "linear":
            return np.full_like(t, 1 / self.duration)
        return 1 / ((self.onset + t - self.start) * self._log_ratio())

    def _log_ratio(self):
        return math.log1p(self.duration / self.onset)
