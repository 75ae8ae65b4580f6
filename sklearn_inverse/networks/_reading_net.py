r"""The networks of joint optimization and of the neural adjoint, and what they train on.

:math:`N(y; \theta)` maps the readings of a sample to its unit params; the neural adjoint
learns the other way, from unit params to readings.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from sklearn_inverse.utils._torch import generator

__all__ = ["AdjointNet", "EvenBatches", "KnownSquares", "ReadingNet"]

CONV_CHANNELS = (16, 32, 32, 64, 64)
KERNEL = 3
OCTAVES = 7  # of waves in each param that the adjoint's surrogate is shown


class ReadingNet(nn.Module):
    r"""Readings to unit params, :math:`u = \tfrac12 (1 + \tanh z)`.

    Parameters
    ----------
    n_times, n_channels, n_params : int
        Shape of a trajectory, and number of params.

    architecture : {"conv", "mlp"}
        Five convolutions over time and two dense layers, or dense layers alone.

    width : int
        Width of the dense layers.
    """

    def __init__(self, n_times, n_channels, n_params, *, architecture, width):
        super().__init__()
        n_inputs = 2 * n_channels  # readings, and whether they were made
        if architecture == "conv":
            features, n_features = conv_layers(n_inputs, n_times)
            n_hidden = 1
        else:
            features, n_features = nn.Identity(), n_inputs * n_times
            n_hidden = 3
        self.features = features
        widths = [n_features] + n_hidden * [width]
        dense = [dense_block(a, b) for a, b in pairwise(widths)]
        self.head = nn.Sequential(nn.Flatten(), *dense, nn.Linear(width, n_params))

    def forward(self, readings: Tensor, mask: Tensor) -> Tensor:
        """Return unit params (n_samples, n_params).

        Parameters
        ----------
        readings, mask : Tensor of shape (n_samples, n_times, n_channels)
            Standardized readings, zero where there is none, and 1 where there is one.
        """
        inputs = torch.cat(
            [readings, mask], dim=2
        ).mT  # (n_samples, 2 n_channels, time)
        return 0.5 * (1 + self.head(self.features(inputs)).tanh())


def conv_layers(n_inputs, n_times):
    """Convolutions over time, each halving it while it can; and their output size."""
    layers, length = [], n_times
    for n_outputs in CONV_CHANNELS:
        layers += [
            nn.Conv1d(n_inputs, n_outputs, KERNEL, padding=KERNEL // 2),
            nn.BatchNorm1d(n_outputs),
            nn.ReLU(),
        ]
        if length >= 2:
            layers.append(nn.MaxPool1d(2))
            length //= 2
        n_inputs = n_outputs
    return nn.Sequential(*layers), n_inputs * length


def dense_block(n_inputs, width):
    """Return a dense layer and its ReLU."""
    return nn.Sequential(nn.Linear(n_inputs, width), nn.ReLU())


class AdjointNet(nn.Module):
    """Unit params to standardized readings: dense layers with batch norm.

    They see the params through waves of ever shorter length (positional encoding):
    without, trajectories that oscillate as a param varies are not learned at all.

    Parameters
    ----------
    n_times, n_channels, n_params : int
        Shape of a trajectory, and number of params.

    width : int
        Width of the four hidden layers.
    """

    def __init__(self, n_times, n_channels, n_params, *, width):
        super().__init__()
        widths = [n_params * (1 + 2 * OCTAVES)] + 4 * [width]
        self.layers = nn.Sequential(
            *(
                nn.Sequential(nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU())
                for a, b in pairwise(widths)
            ),
            nn.Linear(width, n_times * n_channels),
            nn.Unflatten(1, (n_times, n_channels)),
        )

    def forward(self, params: Tensor) -> Tensor:
        """Return standardized readings (n_samples, n_times, n_channels)."""
        centerd = 2 * params - 1
        octaves = 2.0 ** torch.arange(OCTAVES, device=params.device)
        angle = (math.pi * octaves * centerd[..., None]).flatten(1)
        return self.layers(torch.cat([centerd, angle.sin(), angle.cos()], dim=1))


class KnownSquares(nn.Module):
    """Mean squared error; targets that are not known (NaN) count as met."""

    def forward(self, prediction, target):
        """Return the mean."""
        off = torch.where(target.isnan(), prediction, target) - prediction
        return off.square().mean()


class EvenBatches:
    """Batches of nearly one size, in an order drawn anew every epoch.

    None is of a single sample, over which batch norm has no variance.

    Parameters
    ----------
    n_samples : int
        Samples of the data, two at least.

    draw : callable
        ``draw(index, rng) -> (inputs, target)`` of the samples at ``index``.

    batch_size : int
        Fewest samples of a batch, where there are so many.

    seed : int
        Seed of the order and of what is drawn.

    device : torch.device
        Where the data are.
    """

    def __init__(self, n_samples, draw, *, batch_size, seed, device):
        self.n_samples, self.draw = n_samples, draw
        self.n_batches = max(1, n_samples // batch_size)
        self.rng = generator(seed, device)

    def __iter__(self):
        order = torch.randperm(
            self.n_samples, generator=self.rng, device=self.rng.device
        )
        for index in order.tensor_split(self.n_batches):
            yield self.draw(index, self.rng)
