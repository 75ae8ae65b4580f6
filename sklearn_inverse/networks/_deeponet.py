r"""DeepONet: functions on a grid, as combinations of learned basis functions.

.. math:: G(x)(t) = \textstyle\sum_k b_k(x)\, \tau_k(t) + b_0

with a branch net :math:`b`, of what is known, and a trunk net :math:`\tau`, of time [1]_.

References
----------
.. [1] L. Lu et al., "Learning nonlinear operators via DeepONet based on the universal
   approximation theorem of operators", Nature Machine Intelligence 3, 2021.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from sklearn_inverse.networks._conditional import ConditionalOperator
from sklearn_inverse.networks._layers import Linear, linear

__all__ = ["ConditionalDeepONet", "DeepONet", "dense"]


def dense(widths, activation):
    """Return linear layers of these widths, ``activation`` between them."""
    *hidden, last = (Linear(a, b) for a, b in pairwise(widths))
    layers = []
    for layer in hidden:
        # Eight layers deep, weights of torch's own size would let nothing through.
        nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
        layers += [layer, activation()]
    return nn.Sequential(*layers, last)


class DeepONet(nn.Module):
    """Numbers to functions on a grid.

    Parameters
    ----------
    n_inputs, n_outputs, n_basis : int
        Numbers that come in, values that a function has at a point, and basis functions.

    grid : Tensor of shape (n_grid, n_features)
        Features of the points of the grid.

    branch, trunk : sequence of int
        Widths of their hidden layers.
    """

    grid: Tensor

    def __init__(self, n_inputs, grid, n_outputs, n_basis, *, branch, trunk):
        super().__init__()
        self.register_buffer("grid", grid)
        self.branch = dense([n_inputs, *branch, n_basis], nn.SiLU)
        self.trunk = dense([grid.shape[1], *trunk, n_outputs * n_basis], nn.LeakyReLU)
        self.bias = nn.Parameter(torch.zeros(n_outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Map (…, n_inputs) to (…, n_grid, n_outputs)."""
        return self.combine(self.branch(x))

    def combine(self, coefficients: Tensor) -> Tensor:
        """Return the functions of coefficients (…, n_basis), linear in these but a bias."""
        n_grid, n_outputs = len(self.grid), len(self.bias)
        basis = self.trunk(self.grid).reshape(n_grid * n_outputs, -1)
        values = linear(coefficients, basis)
        return values.unflatten(-1, (n_grid, n_outputs)) + self.bias


class ConditionalDeepONet(ConditionalOperator):
    """DeepONet as a surrogate: a branch on params and readings, a trunk on times.

    Parameters
    ----------
    times, n_channels, n_params, pod, spread
        See :class:`ConditionalOperator`.

    n_layers, embedding : int
        Hidden layers of branch and trunk, and their width; as many basis functions.
    """

    def __init__(
        self,
        times,
        n_channels,
        n_params,
        *,
        pod=None,
        spread=None,
        n_layers=2,
        embedding=64,
    ):
        super().__init__(times, n_channels, n_params, pod=pod, spread=spread)
        hidden = n_layers * [embedding]
        n_inputs = self.n_told + len(times) * self.n_seen
        self.net = DeepONet(
            n_inputs, self.harmonics, n_channels, embedding, branch=hidden, trunk=hidden
        )
        self.start_from_direct(self.net.branch[-1])

    def operate(self, told, seen):
        """Return (n_samples, n_times, n_channels)."""
        if seen is None:
            seen = told.new_zeros(len(told), len(self.harmonics), self.n_seen)
        return self.net(torch.cat([told, seen.flatten(1)], dim=1))
