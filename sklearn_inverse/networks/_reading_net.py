"""A network from readings to quantiles of the params, and how it is trained."""

from itertools import pairwise
from numbers import Integral

import torch
from sklearn.base import BaseEstimator
from torch import Tensor, nn

from sklearn_inverse.networks._layers import Linear
from sklearn_inverse.networks._training import fit_net
from sklearn_inverse.utils._sklearn import Interval, StrOptions
from sklearn_inverse.utils._torch import generator

__all__ = ["EvenBatches", "ReadingNet", "ReadingNetwork", "fit_even"]

CONV_CHANNELS = (16, 32, 32, 64, 64)
KERNEL = 3


class ReadingNetwork(BaseEstimator):
    """The network of :class:`ReparamJointInverter`, readings to params.

    Parameters
    ----------
    architecture : {"conv", "mlp"}, default="conv"
        Five convolutions over time and two dense layers, or four dense layers.

    width : int, default=64
        Width of the dense layers.

    Examples
    --------
    >>> from sklearn_inverse import ReadingNetwork, ReparamJointInverter
    >>> inverter = ReparamJointInverter(network=ReadingNetwork(architecture="mlp"))
    """

    _parameter_constraints: dict = {
        "architecture": [StrOptions({"conv", "mlp"})],
        "width": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(self, architecture="conv", width=64):
        self.architecture = architecture
        self.width = width


class ReadingNet(nn.Module):
    r"""Readings to quantiles of the params, :math:`u = \tfrac12 (1 + \tanh h)`.

    Parameters
    ----------
    n_times, n_channels, n_params : int
        Shape of a trajectory, and number of params.

    architecture, width
        As of :class:`ReadingNetwork`.
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
        dense = [nn.Sequential(Linear(a, b), nn.ReLU()) for a, b in pairwise(widths)]
        self.head = nn.Sequential(nn.Flatten(), *dense, Linear(width, n_params))

    def forward(self, readings: Tensor, mask: Tensor) -> Tensor:
        """Return quantiles (n_samples, n_params).

        Parameters
        ----------
        readings, mask : Tensor of shape (n_samples, n_times, n_channels)
            Standardized readings, zero where there is none, and 1 where there is one.
        """
        inputs = torch.cat([readings, mask], dim=2).mT  # (…, 2 n_channels, n_times)
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
