"""PODNet: trajectories straight from params, in a basis of principal components."""

from torch import Tensor, nn

from sklearn_inverse.networks._layers import Linear, linear

__all__ = ["PODNet"]


class PODNet(nn.Module):
    """Params to coefficients of the principal components of the training trajectories.

    ``mean`` (n_times, n_channels) is the mean standardized trajectory, ``basis``
    (n_basis, n_times * n_channels) has orthonormal rows, ``spread`` (n_basis,) is how far
    each coefficient goes in training.
    """

    mean: Tensor
    basis: Tensor

    def __init__(self, mean, basis, spread, n_params: int, width: int = 256):
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("basis", basis)
        self.register_buffer("spread", spread)
        self.linear = Linear(n_params, len(basis))
        self.first = Linear(n_params, width)
        self.second = Linear(width, width)
        self.third = Linear(width, len(basis))

    def forward(self, params: Tensor) -> Tensor:
        """Return the coefficients (n_samples, n_basis) of the basis."""
        centered = 2 * params - 1
        h = nn.functional.silu(self.first(centered))
        h = nn.functional.silu(self.second(h))
        return self.spread * (self.third(h) + self.linear(centered))

    def trajectory(self, params: Tensor, has_params: Tensor) -> Tensor:
        """Return (n_samples, n_times, n_channels); the mean where params are unknown."""
        deviation = linear(has_params * self(params), self.basis.T)
        return self.mean + deviation.reshape(len(params), *self.mean.shape)
