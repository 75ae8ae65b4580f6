"""PODNet: trajectories straight from params, in a basis of principal components."""

import torch
from torch import Tensor, nn

from sklearn_inverse.networks._layers import Linear, linear

__all__ = ["PODNet"]


class PODNet(nn.Module):
    """Params to coefficients of the principal components of the training trajectories.

    ``mean`` (n_times, n_channels) is the mean standardized trajectory, ``basis``
    (n_basis, n_times * n_channels) has orthonormal rows, ``spread`` (n_basis,) is how far
    each coefficient goes in training. Layers beyond the first are residual, and see the
    params themselves: with many params that is worth more than width.
    """

    mean: Tensor
    basis: Tensor

    def __init__(self, mean, basis, spread, n_params: int, width=256, n_layers=2):
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("basis", basis)
        self.register_buffer("spread", spread)
        self.linear = Linear(n_params, len(basis))
        self.first = Linear(n_params, width)
        self.others = nn.ModuleList(
            Linear(width + n_params, width) for _ in range(n_layers - 1)
        )
        self.last = Linear(width, len(basis))

    def forward(self, params: Tensor) -> Tensor:
        """Return the coefficients (n_samples, n_basis) of the basis."""
        centered = 2 * params - 1
        h = nn.functional.silu(self.first(centered))
        for layer in self.others:
            h = h + nn.functional.silu(layer(torch.cat([h, centered], dim=1)))
        return self.spread * (self.last(h) + self.linear(centered))

    def trajectory(self, params: Tensor, has_params: Tensor) -> Tensor:
        """Return (n_samples, n_times, n_channels); the mean where params are unknown."""
        deviation = linear(has_params * self(params), self.basis.T)
        return self.mean + deviation.reshape(len(params), *self.mean.shape)
