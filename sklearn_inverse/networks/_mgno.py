r"""MgNO: neurons that are functions, joined by multigrid operators.

A layer of it [1]_ reads, with functions of time :math:`u_j` as neurons,

.. math:: O_i(u) = \sigma\big(\textstyle\sum_j W_{ij} u_j + B_{ij}\big),

where the bias is a function too and the linear operators :math:`W_{ij}` are one V-cycle
of convolutions. There is no lifting and no projection.

[OPEN] in the abstract at hand are smoothing steps, widths, activation and the number of
levels. Decided here: one step of smoothing before and one after the coarser grids,
kernels of three, GELU, and levels down to two times.

References
----------
.. [1] J. He, X. Liu, J. Xu, "MgNO: Efficient parameterization of linear operators via
   multigrid", ICLR 2024.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from sklearn_inverse.networks._conditional import ConditionalOperator

__all__ = ["MgNO", "MultigridOperator"]

COARSEST = 2  # times, all of which a kernel of three sees


class MultigridOperator(nn.Module):
    r"""A linear map of functions of time, as one V-cycle for :math:`A u = f` from u = 0.

    On each grid, :math:`u \leftarrow S f`, a correction by the restricted residual
    :math:`R (f - A u)` solved for on the next coarser grid and prolonged, and
    :math:`u \leftarrow u + S' (f - A u)`.

    Parameters
    ----------
    n_inputs, n_outputs : int
        Functions that come in and go out.

    n_times : int
        Times of the grid; each coarser one has half as many.
    """

    def __init__(self, n_inputs, n_outputs, n_times):
        super().__init__()
        self.smooth = conv(n_inputs, n_outputs)
        self.coarser = None
        if n_times > COARSEST:
            self.operator = conv(n_outputs, n_inputs)
            self.restrict = conv(n_inputs, n_outputs, stride=2)
            half = (n_times + 1) // 2
            self.coarser = MultigridOperator(n_outputs, n_outputs, half)
            self.prolong = nn.ConvTranspose1d(
                n_outputs,
                n_outputs,
                3,
                stride=2,
                padding=1,
                output_padding=1 - n_times % 2,
                bias=False,
            )
            self.smooth_again = conv(n_inputs, n_outputs)

    def forward(self, f: Tensor) -> Tensor:
        """Map (n_samples, n_inputs, n_times) to (n_samples, n_outputs, n_times)."""
        u = self.smooth(f)
        if self.coarser is None:
            return u
        u = u + self.prolong(self.coarser(self.restrict(f - self.operator(u))))
        return u + self.smooth_again(f - self.operator(u))

    def last_layers(self):
        """Return the layers without which nothing comes out."""
        if self.coarser is None:
            return [self.smooth]
        return [self.smooth, self.prolong, self.smooth_again]


def conv(n_inputs, n_outputs, stride=1):
    """Return a convolution over time without a bias, zero beyond the ends."""
    return nn.Conv1d(n_inputs, n_outputs, 3, stride=stride, padding=1, bias=False)


class MgNO(ConditionalOperator):
    """Multigrid neural operator as a surrogate; params are constant functions of time.

    Parameters
    ----------
    times, n_channels, n_params, pod, spread
        See :class:`ConditionalOperator`.

    width, n_layers : int
        Neurons of a hidden layer, and such layers.
    """

    def __init__(
        self,
        times,
        n_channels,
        n_params,
        *,
        pod=None,
        spread=None,
        width=16,
        n_layers=2,
    ):
        super().__init__(times, n_channels, n_params, pod=pod, spread=spread)
        n_inputs = self.harmonics.shape[1] + self.n_told + self.n_seen
        widths = [n_inputs, *n_layers * [width], n_channels]
        self.operators = nn.ModuleList(
            MultigridOperator(a, b, len(times)) for a, b in pairwise(widths)
        )
        self.biases = nn.ParameterList(torch.zeros(n, len(times)) for n in widths[1:])
        self.start_from_direct(*self.operators[-1].last_layers())

    def operate(self, told, seen):
        """Return (n_samples, n_times, n_channels)."""
        n_samples, n_times = len(told), len(self.harmonics)
        if seen is None:
            seen = told.new_zeros(n_samples, n_times, self.n_seen)
        u = torch.cat(
            [
                self.harmonics.expand(n_samples, -1, -1),
                told[:, None].expand(-1, n_times, -1),
                seen,
            ],
            dim=2,
        ).mT
        *hidden, last = zip(self.operators, self.biases)
        for operator, bias in hidden:
            u = nn.functional.gelu(operator(u) + bias)
        operator, bias = last
        return (operator(u) + bias).mT
