"""Neural ODEs, one per sample as a stack of matrices, fitted by multiple shooting."""

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from sklearn_inverse.utils._torch import generator

__all__ = ["ShootingMisfit"]

N_STEPS = 2  # of Runge and Kutta's, from one reading to the next
CONTINUITY = 1.0  # weight of jumps at readings, beside that of the readings


class ShootingMisfit:
    """How far neural ODEs, one per sample, are from readings, by multiple shooting.

    Called as :func:`lbfgs` asks, with rows of weights and of the states at the times of
    readings, in which an interval ends and the next begins.

    Parameters
    ----------
    readings : Tensor of shape (n_samples, n_times, n_states)
        What was read, NaN where nothing was.

    times : Tensor of shape (n_times,)
        When; the first has the initial states, and its readings do not count.

    initial : Tensor of shape (n_states,)
        Initial states.

    width, n_layers : int
        Of the networks.
    """

    def __init__(
        self, readings: Tensor, times: Tensor, initial: Tensor, *, width, n_layers
    ):
        n = readings.shape[2]
        read = (~readings.isnan()).any(dim=2)
        read[:, 0] = True
        n_nodes = int(read.sum(dim=1).max())
        order = (~read).to(torch.int8).argsort(dim=1, stable=True)[:, :n_nodes]
        is_node = read.gather(1, order)
        readings = readings.gather(1, order[..., None].expand(-1, -1, n))
        readings = torch.where(is_node[..., None], readings, torch.nan)
        readings[:, 0] = initial
        low = readings.nan_to_num(nan=torch.inf).amin(dim=1, keepdim=True)
        high = readings.nan_to_num(nan=-torch.inf).amax(dim=1, keepdim=True)
        size = torch.where(high > low, high - low, high.abs())
        self.size = torch.where(size > 0, size, 1.0)
        self.duration = times[-1] - times[0]
        at = times[order] - times[0]
        # Intervals that are not there have no length, and do not count.
        self.length = torch.where(is_node[:, 1:], at.diff(dim=1), 0.0)[..., None]
        self.began = times[order[:, :-1]][..., None]
        self.readings, self.seen = readings / self.size, ~readings.isnan()
        self.seen[:, 0] = False
        widths = [n, *n_layers * [width], n]
        self.shapes = [(a + 1, b) for a, b in pairwise(widths)]
        self.n_weights = [a * b for a, b in self.shapes]

    def start(self, seed: int) -> Tensor:
        """Return random weights, and the readings; what was not read is interpolated."""
        rng = generator(seed)
        parts = [
            torch.randn(a * b, generator=rng, dtype=torch.float64) / a**0.5
            for a, b in self.shapes
        ]
        nodes, seen, length = (
            a.cpu().numpy().copy() for a in (self.readings, self.seen, self.length)
        )
        seen[:, 0] = True
        place = np.pad(length[..., 0], ((0, 0), (1, 0))).cumsum(axis=1)
        for i, c in np.argwhere(~seen.all(axis=1)):
            known = seen[i, :, c]
            nodes[i, :, c] = np.interp(place[i], place[i, known], nodes[i, known, c])
        free = torch.as_tensor(nodes).to(self.readings)[:, 1:].flatten(1)
        return torch.cat([torch.cat(parts).to(free).expand(len(free), -1), free], dim=1)

    def __call__(self, x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return values (n_rows,) and gradients of the samples at ``rows``."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            layers, nodes = self._unpack(x, rows)
            end, _ = self._shoot(layers, nodes[:, :-1], self.length[rows])
            jump = torch.where(self.length[rows] > 0, end - nodes[:, 1:], 0.0)
            off = torch.where(self.seen[rows], nodes - self.readings[rows], 0.0)
            n_seen = self.seen[rows].sum(dim=(1, 2)).clamp(min=1)
            # A mean for each sample: none must feel its companions.
            value = off.square().sum(dim=(1, 2)) / n_seen
            value = value + CONTINUITY * jump.square().sum(dim=(1, 2)) / n_seen
            (gradient,) = torch.autograd.grad(value.sum(), x)
        return value.detach().nan_to_num(nan=torch.inf), gradient.nan_to_num()

    @torch.no_grad()
    def slopes(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return times, states and derivatives along the way, and which of them count.

        Each of shape (n_samples, n_points, n_states) or (n_samples, n_points, 1).
        """
        everyone = torch.arange(len(x), device=x.device)
        layers, nodes = self._unpack(x, everyone)
        _, states = self._shoot(layers, nodes[:, :-1], self.length)
        y = torch.cat(states, dim=1)
        shares = [(i + 1) / N_STEPS for i in range(N_STEPS)]
        times = torch.cat([self.began + share * self.length for share in shares], dim=1)
        counts = (self.length > 0).repeat(1, N_STEPS, 1)
        slope = self._net(layers, y) * self.size / self.duration
        return times, y * self.size, slope, counts

    def _unpack(self, x: Tensor, rows: Tensor):
        """Return the layers of each sample, and states where intervals begin and end."""
        *parts, nodes = x.split([*self.n_weights, x.shape[1] - sum(self.n_weights)], 1)
        layers = [part.unflatten(1, shape) for part, shape in zip(parts, self.shapes)]
        nodes = nodes.unflatten(1, (-1, self.size.shape[2]))
        return layers, torch.cat([self.readings[rows, :1], nodes], dim=1)

    def _shoot(self, layers, y: Tensor, length: Tensor):
        """Return where intervals that begin at y end, and the states along their way."""
        h, states = length / self.duration / N_STEPS, []
        for _ in range(N_STEPS):
            k1 = self._net(layers, y)
            k2 = self._net(layers, y + h / 2 * k1)
            k3 = self._net(layers, y + h / 2 * k2)
            k4 = self._net(layers, y + h * k3)
            y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
            states.append(y)
        return y, states

    @staticmethod
    def _net(layers, h: Tensor) -> Tensor:
        """Return scaled derivatives at scaled states (n_samples, n_points, n_states)."""
        for layer in layers[:-1]:
            h = torch.baddbmm(layer[:, -1:], h, layer[:, :-1]).tanh()
        return torch.baddbmm(layers[-1][:, -1:], h, layers[-1][:, :-1])
