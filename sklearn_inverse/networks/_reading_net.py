"""A network from readings to quantiles of the params, and how it is trained."""

import copy
import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from sklearn_inverse.networks._layers import Linear
from sklearn_inverse.networks._training import fit_net
from sklearn_inverse.utils._torch import generator

__all__ = ["NETWORKS", "EvenBatches", "KnownSquares", "ReadingNet", "fit_even", "waves"]

CONV_CHANNELS = 16, 32, 32, 64, 64
KERNEL = 3
WIDTH = 64  # of dense layers
OCTAVES = 4  # of waves in each number that the dense network is told


class ReadingNet(nn.Module):
    r"""Readings and inputs to quantiles of the params, :math:`u = \tfrac12 (1 + \tanh h)`.

    Parameters
    ----------
    network : {"mlp", "conv1d", "conv2d"} or nn.Module
        What gives h, (n_samples, n_params), of arguments like those of :meth:`forward`;
        a copy is made of a module.

    n_times, n_channels, n_inputs, n_params : int
        Shape of a trajectory, and numbers of inputs and params.
    """

    def __init__(self, network, *sizes):
        super().__init__()
        if isinstance(network, nn.Module):
            self.body = copy.deepcopy(network)
        else:
            self.body = NETWORKS[network](*sizes)
        self.n_params = sizes[-1]

    def forward(self, readings: Tensor, mask: Tensor, inputs: Tensor) -> Tensor:
        """Return quantiles (n_samples, n_params).

        Parameters
        ----------
        readings, mask : Tensor of shape (n_samples, n_times, n_channels)
            Standardized readings, zero where there is none, and 1 where there is one.

        inputs : Tensor of shape (n_samples, n_inputs)
            Scaled inputs.
        """
        h = self.body(readings, mask, inputs)
        if h.shape != (len(readings), self.n_params):
            raise ValueError(
                "The network must return one number per param, of shape (n_samples, "
                f"n_params) = ({len(readings)}, {self.n_params}). Got {tuple(h.shape)}."
            )
        return 0.5 * (1 + h.tanh())


class DenseNet(nn.Module):
    """Three hidden layers with sigmoids, of waves in readings and inputs.

    Waves of ever shorter length (positional encoding) tell what differs by little.
    """

    def __init__(self, n_times, n_channels, n_inputs, n_params):
        super().__init__()
        n_readings = n_times * n_channels
        n_told = (n_readings + n_inputs) * (1 + 2 * OCTAVES) + n_readings
        widths = [n_told] + 3 * [WIDTH]
        dense = [nn.Sequential(Linear(*ab), nn.Sigmoid()) for ab in pairwise(widths)]
        self.layers = nn.Sequential(*dense, Linear(WIDTH, n_params))

    def forward(self, readings, mask, inputs):
        """Return h."""
        told = torch.cat([readings.flatten(1) / 2, 2 * inputs - 1], dim=1)
        return self.layers(torch.cat([waves(told, OCTAVES), mask.flatten(1)], dim=1))


class ConvNet(nn.Module):
    """Convolutions, each halving what it can, and two dense layers that see the inputs."""

    def __init__(self, n_channels, shape, n_inputs, n_params):
        super().__init__()
        conv, norm, pool = LAYERS[len(shape)]
        layers: list[nn.Module] = []
        for n_outputs in CONV_CHANNELS:
            layers += [
                conv(n_channels, n_outputs, KERNEL, padding=KERNEL // 2),
                norm(n_outputs),
                nn.ReLU(),
                pool(tuple(min(2, length) for length in shape)),
            ]
            n_channels, shape = n_outputs, [max(length // 2, 1) for length in shape]
        self.features = nn.Sequential(*layers, nn.Flatten())
        self.head = nn.Sequential(
            Linear(n_channels * math.prod(shape) + n_inputs, WIDTH),
            nn.ReLU(),
            Linear(WIDTH, n_params),
        )

    def forward(self, image, inputs):
        """Return h of (n_samples, n_channels, *shape)."""
        return self.head(torch.cat([self.features(image), inputs], dim=1))


class Conv1d(ConvNet):
    """Convolutions over time; each observable is a channel."""

    def __init__(self, n_times, n_channels, n_inputs, n_params):
        super().__init__(2 * n_channels, [n_times], n_inputs, n_params)

    def forward(self, readings, mask, inputs):
        """Return h."""
        return super().forward(torch.cat([readings, mask], dim=2).mT, inputs)


class Conv2d(ConvNet):
    """Convolutions over times and observables, those of a field on a grid."""

    def __init__(self, n_times, n_channels, n_inputs, n_params):
        super().__init__(2, [n_times, n_channels], n_inputs, n_params)

    def forward(self, readings, mask, inputs):
        """Return h."""
        return super().forward(torch.stack([readings, mask], dim=1), inputs)


LAYERS = {
    1: (nn.Conv1d, nn.BatchNorm1d, nn.MaxPool1d),
    2: (nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d),
}
NETWORKS = {"mlp": DenseNet, "conv1d": Conv1d, "conv2d": Conv2d}


def waves(x: Tensor, n_octaves: int) -> Tensor:
    """Return x (n_samples, n) and its waves, (n_samples, (1 + 2 n_octaves) n)."""
    octaves = 2.0 ** torch.arange(n_octaves, device=x.device)
    angle = (math.pi * octaves * x[..., None]).flatten(1)
    return torch.cat([x, angle.sin(), angle.cos()], dim=1)


def fit_even(
    make_module,
    pairs,
    draw,
    *,
    criterion=None,
    training,
    seeds,
    device,
    verbose,
    desc,
):
    """Train a network on what is drawn from pairs.

    Parameters
    ----------
    make_module : callable
        Returns the nn.Module to train.

    pairs : TensorDataset
        What is drawn from.

    draw : callable
        ``draw(index, rng) -> (inputs, target)`` of the samples at ``index``.

    criterion : type of nn.Module, default=None
        Loss of ``(prediction, target)``; if None, the mean squared error.

    training : Training
        With every option filled.

    seeds : (int, int)
        Of the weights, and of batches and draws.

    device, verbose, desc
        As of :func:`fit_net`.

    Returns
    -------
    net : EstimatorNet
        The trained net.
    """
    batches = EvenBatches(
        len(pairs), draw, batch_size=training.batch_size, seed=seeds[1], device=device
    )
    return fit_net(
        make_module,
        criterion or KnownSquares,
        lambda dataset, training: batches,
        pairs,
        None,
        n_batches=batches.n_batches,
        seed=seeds[0],
        device=device,
        verbose=verbose,
        desc=desc,
        **training._loop(),
    )


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
        Fewest samples of a batch, where there are so many; two at least.

    seed : int
        Seed of the order and of what is drawn.

    device : torch.device
        Where the data are.
    """

    def __init__(self, n_samples, draw, *, batch_size, seed, device):
        self.n_samples, self.draw = n_samples, draw
        self.n_batches = max(1, n_samples // max(batch_size, 2))
        self.rng = generator(seed, device)

    def __iter__(self):
        order = torch.randperm(
            self.n_samples, generator=self.rng, device=self.rng.device
        )
        for index in order.tensor_split(self.n_batches):
            yield self.draw(index, self.rng)
