"""PODNet: trajectories straight from params, in a basis of principal components."""

from torch import Tensor, nn

from sklearn_inverse.networks._layers import Linear, ResidualBlocks, linear

__all__ = ["PODNet"]


class PODNet(nn.Module):
    """Params to coefficients of the principal components of the training trajectories.

    ``mean`` (n_times, n_channels) is the mean standardized trajectory, ``basis``
    (n_basis, n_times * n_channels) has orthonormal rows, ``spread`` (n_basis,) is how far
    each coefficient goes in training. Between params and coefficients lie two dense
    layers, or so many residual blocks.
    """

    mean: Tensor
    basis: Tensor

    def __init__(self, mean, basis, spread, n_params: int, width=256, n_blocks=0):
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("basis", basis)
        self.register_buffer("spread", spread)
        self.linear = Linear(n_params, len(basis))
        self.first = Linear(n_params, width)
        dense = nn.Sequential(nn.SiLU(), Linear(width, width), nn.SiLU())
        self.hidden = ResidualBlocks(width, n_blocks) if n_blocks else dense
        self.third = Linear(width, len(basis))

    def forward(self, params: Tensor) -> Tensor:
        """Return the coefficients (n_samples, n_basis) of the basis."""
        centered = 2 * params - 1
        h = self.hidden(self.first(centered))
        return self.spread * (self.third(h) + self.linear(centered))

    def trajectory(self, params: Tensor, has_params: Tensor) -> Tensor:
        """Return (n_samples, n_times, n_channels); the mean where params are unknown."""
        deviation = linear(has_params * self(params), self.basis.T)
        return self.mean + deviation.reshape(len(params), *self.mean.shape)
