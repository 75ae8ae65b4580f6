r"""The conditional Fourier neural operator (C-FNO), as an ``nn.Module``.

One block of the paper ([1]_, stage 1) reads, with the embedding :math:`z_k` of the params,

.. math::

   c &= \mathrm{norm}\big(F^{-1}(R \cdot F(z^i)) + f_1(z^i)\big), \\
   z^{i+1} &= f_2\big(\max(c, 0) \, (1 + \alpha(z_k)) + \beta(z_k)\big),

and after the last block a cross-attention whose query is the un-evolved feature,

.. math:: z = z^L + \mathrm{softmax}\big(Q(z^0) K(z^L)^T / \sqrt{d}\big) V(z^L).

Every piece is a switch, so that a plain FNO and each ablation of the paper is a setting.
Ours is the direct part from params to output, a :class:`PODNet`, which is trained first;
the operator then learns what it leaves out and all that depends on readings.

The Fourier transforms are matrix products with the few modes kept, in (time, batch,
channel) order: on a CPU several times faster than an FFT and 1×1 convolutions at these
sizes, and the grid may have any length.

References
----------
.. [1] "INO: Inverse neural operator for stiff ODE parameter recovery": C-FNO and
   amortized drifting model, equations of Section 3.
"""

import math
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

from sklearn_inverse.networks._conditional import ConditionalOperator
from sklearn_inverse.networks._layers import Linear

__all__ = ["CFNO", "SpectralConv", "plain_attention"]


class SpectralConv(nn.Module):
    r"""Convolution over time as a product of low Fourier modes, :math:`F^{-1} R F`."""

    dft: Tensor
    inverse_dft: Tensor

    def __init__(self, n_times: int, width: int, n_modes: int):
        super().__init__()
        n_modes = min(n_modes, n_times // 2 + 1)
        k = torch.arange(n_modes, dtype=torch.float64)[:, None]
        t = torch.arange(n_times, dtype=torch.float64)[None, :]
        angle = 2 * math.pi * k * t / n_times
        # Modes other than 0 and the Nyquist one stand for their conjugates too.
        weight = torch.where((k == 0) | (2 * k == n_times), 1.0, 2.0) / n_times
        forward = torch.cat([angle.cos(), -angle.sin()])
        inverse = torch.cat([weight * angle.cos(), -weight * angle.sin()]).T
        self.register_buffer("dft", forward.float(), persistent=False)
        self.register_buffer("inverse_dft", inverse.float(), persistent=False)
        scale = 1 / width
        self.real = nn.Parameter(scale * torch.rand(n_modes, width, width))
        self.imag = nn.Parameter(scale * torch.rand(n_modes, width, width))

    def forward(self, z: Tensor) -> Tensor:
        """Map features (n_times, n_samples, width) to the same shape."""
        n_times, n_samples, width = z.shape
        modes = (self.dft @ z.reshape(n_times, -1)).reshape(2, -1, n_samples, width)
        # (zr + i zi)(Rr + i Ri) as one real product per mode.
        mixed = torch.cat([modes[0], modes[1]], dim=-1) @ torch.cat(
            [
                torch.cat([self.real, self.imag], dim=-1),
                torch.cat([-self.imag, self.real], dim=-1),
            ],
            dim=-2,
        )
        mixed = torch.cat([mixed[..., :width], mixed[..., width:]])
        return (self.inverse_dft @ mixed.reshape(len(mixed), -1)).reshape(z.shape)


class Block(nn.Module):
    """One operator block: spectral and pointwise maps, norm, FiLM, pointwise map."""

    def __init__(self, n_times, width, n_modes, embedding, film, norm):
        super().__init__()
        self.spectral = SpectralConv(n_times, width, n_modes)
        self.pointwise = Linear(width, width)
        self.norm = nn.BatchNorm1d(width) if norm == "batch" else None
        self.film = Linear(embedding, 2 * width) if film else None
        self.mix = Linear(width, width)

    def forward(self, z: Tensor, z_params: Tensor) -> Tensor:
        c = self.spectral(z) + self.pointwise(z)
        if self.norm is not None:
            c = self.norm(c.flatten(0, 1)).reshape(c.shape)
        c = c.relu()
        if self.film is not None:
            alpha, beta = self.film(z_params).chunk(2, dim=-1)
            c = torch.addcmul(beta, c, 1 + alpha)
        return self.mix(c)


class CrossAttention(nn.Module):
    """Attention over time with the query from the un-evolved feature, and a skip."""

    def __init__(self, width: int):
        super().__init__()
        self.query = Linear(width, width)
        self.key = Linear(width, width)
        self.value = Linear(width, width)

    def forward(self, z0: Tensor, z: Tensor) -> Tensor:
        q, k, v = self.query(z0), self.key(z), self.value(z)
        # (batch, one head, time, width): torch's fast kernels want four dimensions.
        q, k, v = (a.transpose(0, 1).contiguous()[:, None] for a in (q, k, v))
        if _IS_PLAIN.get():
            attended = (q @ k.mT / math.sqrt(q.shape[-1])).softmax(dim=-1) @ v
        else:
            attended = nn.functional.scaled_dot_product_attention(q, k, v)
        return z + attended[:, 0].transpose(0, 1)


_IS_PLAIN = ContextVar("is_plain", default=False)


@contextmanager
def plain_attention():
    """Keep to products and a softmax: the fast kernels have no forward derivatives."""
    token = _IS_PLAIN.set(True)
    try:
        yield
    finally:
        _IS_PLAIN.reset(token)


class CFNO(ConditionalOperator):
    """Conditional Fourier neural operator: params and sparse readings to a trajectory.

    Parameters
    ----------
    times, n_channels, n_params, pod, spread
        See :class:`ConditionalOperator`.

    embedding : int
        See :class:`Operator`; 0 concatenates the params as they are with all else.

    width, n_layers, n_modes, film, attention, norm
        See :class:`Operator`.
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
        n_modes=16,
        embedding=64,
        film=True,
        attention=True,
        norm=None,
    ):
        super().__init__(times, n_channels, n_params, pod=pod, spread=spread)
        n_times = len(times)
        self.embed = None
        n_told = embedding or self.n_told
        if embedding:
            self.embed = nn.Sequential(
                Linear(self.n_told, embedding),
                nn.SiLU(),
                Linear(embedding, embedding),
                nn.SiLU(),
            )
        # Time enters through its low harmonics, and a free bias per grid point.
        self.lift_time = Linear(self.harmonics.shape[1], width)
        self.lift_grid = nn.Parameter(torch.zeros(n_times, 1, width))
        self.lift_params = Linear(n_told, width)
        self.lift_readings = Linear(self.n_seen, width, bias=False)
        self.blocks = nn.ModuleList(
            Block(n_times, width, n_modes, n_told, film, norm) for _ in range(n_layers)
        )
        self.attention = CrossAttention(width) if attention else None
        self.project = nn.Sequential(
            Linear(width, 2 * width), nn.ReLU(), Linear(2 * width, n_channels)
        )
        self.start_from_direct(self.project[-1])

    def operate(self, told, seen):
        """Return (n_samples, n_times, n_channels).

        1. Lift time, params and readings to features. 2. Run the blocks. 3. Attend to
        their result from the features. 4. Project to channels.
        """
        z_params = told if self.embed is None else self.embed(told)
        z0 = self.lift_time(self.harmonics)[:, None] + self.lift_grid
        z0 = z0 + self.lift_params(z_params)
        if seen is not None:
            z0 = z0 + self.lift_readings(seen.transpose(0, 1))
        z = z0
        for block in self.blocks:
            z = block(z, z_params)
        if self.attention is not None:
            z = self.attention(z0, z)
        return self.project(z).transpose(0, 1)
