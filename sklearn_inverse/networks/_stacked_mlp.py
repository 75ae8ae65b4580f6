"""Independent tanh networks as stacks of matrices."""

import math

import torch
from torch import Tensor

from sklearn_inverse.utils._torch import generator

__all__ = ["StackedMLP"]


class StackedMLP:
    r"""Independent tanh networks N(s, q; W), one per sample, as batched products.

    The first layer is :math:`\tanh(W (2 s - 1) + R q + b)`, of coordinates s on [0, 1] and
    of what is told of the params, q. All networks share the random embedding R, which is
    not trained unless asked for. Here ``layers`` are the weights of all networks: matrix
    and bias of each layer in turn, each of shape (n_samples, n_rows, n_columns).

    Parameters
    ----------
    n_axes, n_told, n_outputs : int
        Sizes of s, q and N.

    width : int
        Neurons per layer.

    n_layers : int
        Layers of tanh neurons.

    fan_in : float
        How many numbers of size one q is worth.

    train_embedding : bool
        Whether R is among the weights.

    seed : int
        Of the random start.

    dtype, device : torch.dtype, torch.device
        Of the weights.
    """

    def __init__(
        self,
        n_axes,
        n_told,
        n_outputs,
        *,
        width,
        n_layers,
        fan_in,
        train_embedding,
        seed,
        dtype,
        device,
    ):
        self.fan_in, self.train_embedding = fan_in, train_embedding
        hidden = [(width, width), (1, width)] * (n_layers - 1)
        embedding = [(n_told, width)] * train_embedding
        self.shapes = [
            *embedding,
            *((n_axes, width), (1, width)),
            *hidden,
            *((width, n_outputs), (1, n_outputs)),
        ]
        self._generator = generator(seed)
        self._options = {"dtype": dtype, "device": device}
        self.embedding = self._uniform((n_told, width), fan_in)

    @property
    def n_weights(self) -> int:
        """Number of weights of one network that are trained."""
        return sum(n * m for n, m in self.shapes)

    def initial_layers(self) -> list[Tensor]:
        """Draw the weights of one network, each of shape (1, n_rows, n_columns)."""
        fan_ins = [self.fan_in] * self.train_embedding
        for n_inputs, _ in self.shapes[self.train_embedding :: 2]:
            fan_ins += [n_inputs, n_inputs]  # a bias like the matrix before it
        return [self._uniform((1, *s), n) for s, n in zip(self.shapes, fan_ins)]

    def value(self, layers, unit: Tensor, told: Tensor) -> Tensor:
        """Return N at points.

        Parameters
        ----------
        layers : list of Tensor
            The weights.

        unit : Tensor of shape (n_samples, n_points, n_axes)
            Coordinates on [0, 1].

        told : Tensor of shape (n_samples, n_points, n_told)
            What each point is told of the params.

        Returns
        -------
        value : Tensor of shape (n_samples, n_points, n_outputs)
            The networks' outputs.
        """
        embedding = self.embedding
        if self.train_embedding:
            embedding, *layers = layers
        (w, b), *rest = zip(layers[::2], layers[1::2])
        h = (torch.baddbmm(b, 2 * unit - 1, w) + told @ embedding).tanh()
        for w, b in rest[:-1]:
            h = torch.baddbmm(b, h, w).tanh()
        w, b = rest[-1]
        return torch.baddbmm(b, h, w)

    def _uniform(self, shape, n_inputs):
        draw = torch.rand(shape, generator=self._generator, dtype=torch.float64)
        return ((2 * draw - 1) / math.sqrt(max(n_inputs, 1))).to(**self._options)
