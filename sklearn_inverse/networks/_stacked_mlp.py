"""Independent tanh networks as stacks of matrices, with their exact derivatives."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from sklearn_inverse.utils._torch import generator

__all__ = ["Jet", "StackedMLP"]


class Jet(NamedTuple):
    """A function of normalized time and scaled params, with its exact derivatives.

    Attributes
    ----------
    value, by_time : Tensor of shape (n_samples, n_points, n_outputs)
        The function, and its derivative by time.

    by_params, mixed : Tensor of shape (n_samples, n_params, n_points, n_outputs)
        Derivatives of the two above by each param.
    """

    value: Tensor
    by_time: Tensor
    by_params: Tensor
    mixed: Tensor


class StackedMLP:
    r"""Independent tanh networks N(τ, θ; W), one per sample, as batched products.

    The first layer is :math:`\tanh(W \tau + R \theta + b)`. All networks share the
    random embedding R of the params, which is not trained unless asked for. Here
    ``layers`` are the weights of all networks: matrix and bias of each layer in turn,
    each of shape (n_samples, n_rows, n_columns).

    Parameters
    ----------
    n_params, n_outputs : int
        Sizes.

    width : int
        Neurons per layer.

    n_layers : int
        Layers of tanh neurons.

    train_embedding : bool
        Whether R is among the weights.

    idle : Tensor of bool of shape (n_params,)
        Params on which the networks do not depend.

    seed : int
        Of the random start.

    dtype, device : torch.dtype, torch.device
        Of the weights.
    """

    def __init__(
        self,
        n_params,
        n_outputs,
        *,
        width,
        n_layers,
        train_embedding,
        idle,
        seed,
        dtype,
        device,
    ):
        self.n_params = n_params
        self.train_embedding = train_embedding
        hidden = [(width, width), (1, width)] * (n_layers - 1)
        embedding = [(n_params, width)] * train_embedding
        self.shapes = [
            *embedding,
            *((1, width), (1, width)),
            *hidden,
            *((width, n_outputs), (1, n_outputs)),
        ]
        self._generator = generator(seed)
        self._options = {"dtype": dtype, "device": device}
        self._used = (~idle[:, None]).to(**self._options)
        self.embedding = self._uniform((n_params, width), n_params)

    def initial_layers(self) -> list[Tensor]:
        """Draw the weights of one network, each of shape (1, n_rows, n_columns)."""
        fan_ins = [self.n_params] * self.train_embedding
        for n_inputs, _ in self.shapes[self.train_embedding :: 2]:
            fan_ins += [n_inputs, n_inputs]  # a bias like the matrix before it
        return [self._uniform((1, *s), n) for s, n in zip(self.shapes, fan_ins)]

    def value(self, layers, tau: Tensor, theta: Tensor) -> Tensor:
        """Return N of shape (n_samples, n_points, n_outputs)."""
        _, _, z, rest = self._first(layers, tau, theta)
        h = z.tanh()
        for w, b in rest[:-1]:
            h = torch.baddbmm(b, h, w).tanh()
        w, b = rest[-1]
        return torch.baddbmm(b, h, w)

    def linearize(self, layers, tau: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Return N and its derivatives by each θ, (n_samples, n_params, n_points, …)."""
        embedding, _, z, rest = self._first(layers, tau, theta)
        n_rows, n_points = 1 + self.n_params, len(tau)
        h = z.tanh()[:, None]
        h = torch.cat([h, (1 - h * h) * 2 * embedding.unsqueeze(-2)], dim=1)
        for i, (w, b) in enumerate(rest):
            z = torch.bmm(h.flatten(1, 2), w).unflatten(1, (n_rows, n_points))
            value, by_params = z[:, :1] + b[:, None], z[:, 1:]
            if i < len(rest) - 1:
                value = value.tanh()
                by_params = (1 - value * value) * by_params
            h = torch.cat([value, by_params], dim=1)
        return h[:, 0], h[:, 1:]

    def jet(self, layers, tau: Tensor, theta: Tensor) -> Jet:
        """Return N and its derivatives by τ, by each θ, and by both.

        They are pushed through the layers together: four kinds of rows in one product.
        """
        embedding, w, z, rest = self._first(layers, tau, theta)
        p, n_points = self.n_params, len(tau)
        h = self._first_tanh(z[:, None], 2 * w[:, None], 2 * embedding.unsqueeze(-2))
        for i, (w, b) in enumerate(rest):
            z = torch.bmm(h.flatten(1, 2), w).unflatten(1, (2 + 2 * p, n_points))
            z[:, 0] += b
            h = self._tanh(z) if i < len(rest) - 1 else z
        return Jet(h[:, 0], h[:, 1], h[:, 2 : 2 + p], h[:, 2 + p :])

    def _first(self, layers, tau, theta):
        """Return the embedding, the weights of time, what both make, all other pairs."""
        embedding = self.embedding
        if self.train_embedding:
            embedding, *layers = layers
        embedding = embedding * self._used
        (w, b), *rest = zip(layers[::2], layers[1::2])
        z = (2 * tau - 1)[:, None] * w + b + (2 * theta - 1)[:, None] @ embedding
        return embedding, w, z, rest

    @staticmethod
    def _first_tanh(z, z_time, z_params):
        """Push z, which is linear in time and params, through tanh."""
        h = z.tanh()
        slope = 1 - h * h
        by_time = slope * z_time
        mixed = -2 * h * by_time * z_params
        return torch.cat([h, by_time, slope * z_params, mixed], dim=1)

    def _tanh(self, z):
        """Push the rows (value, by time, by params, mixed) through tanh."""
        p = self.n_params
        z, z_time, z_params, z_mixed = z.split([1, 1, p, p], dim=1)
        h = z.tanh()
        slope = 1 - h * h
        by_time = slope * z_time
        mixed = slope * z_mixed - 2 * h * by_time * z_params
        return torch.cat([h, by_time, slope * z_params, mixed], dim=1)

    def _uniform(self, shape, n_inputs):
        draw = torch.rand(shape, generator=self._generator, dtype=torch.float64)
        return ((2 * draw - 1) / math.sqrt(n_inputs)).to(**self._options)
