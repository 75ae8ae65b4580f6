r"""iFNO: an invertible Fourier neural operator between params and trajectories.

Params, lifted to functions of time in two halves :math:`(u_1, u_2)` of the features, pass
through invertible blocks [1]_

.. math::

   v_1 = u_1 \odot \mathrm{softplus}(S_2(u_2)), \qquad
   v_2 = u_2 \odot \mathrm{softplus}(S_1(v_1)),

and are projected to a trajectory; readings are lifted to where that came from, pass back,
and are projected to params, on which a variational autoencoder has the last word.

References
----------
.. [1] D. Long, Z. Xu, Q. Yuan, Y. Yang, S. Zhe, "Invertible Fourier neural operators for
   tackling both forward and inverse problems", AISTATS 2025.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, softplus

from sklearn_inverse.networks._cfno import SpectralConv
from sklearn_inverse.networks._conditional import harmonics_of
from sklearn_inverse.networks._deeponet import dense
from sklearn_inverse.networks._layers import Linear

__all__ = ["IFNO"]

LOG_VARIANCE = -4.0  # of latent variables, to begin with


class InvertibleBlock(nn.Module):
    """Two halves of the features, each scaled by a function of the other."""

    def __init__(self, n_times, width, n_modes):
        super().__init__()
        self.s1 = FourierLayer(n_times, width // 2, n_modes)
        self.s2 = FourierLayer(n_times, width // 2, n_modes)

    def forward(self, u1: Tensor, u2: Tensor) -> tuple[Tensor, Tensor]:
        """Map halves (n_times, n_samples, width / 2) to halves of the same shape."""
        v1 = u1 * softplus(self.s2(u2))
        return v1, u2 * softplus(self.s1(v1))

    def inverse(self, v1: Tensor, v2: Tensor) -> tuple[Tensor, Tensor]:
        """Undo :meth:`forward`; scales are above .6, GELU never being far below zero."""
        u2 = v2 / softplus(self.s1(v1))
        return v1 / softplus(self.s2(u2)), u2


class FourierLayer(nn.Module):
    """GELU of a transformed spectral convolution plus a pointwise map."""

    def __init__(self, n_times, width, n_modes):
        super().__init__()
        self.spectral = SpectralConv(n_times, width, n_modes)
        self.transform = dense([width, width, width], nn.GELU)
        self.pointwise = Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return gelu(self.transform(self.spectral(x)) + self.pointwise(x))


class IFNO(nn.Module):
    """Params to trajectories, readings to params, by the same invertible blocks.

    Parameters
    ----------
    times : Tensor of shape (n_times,)
        Time grid scaled to [0, 1].

    n_channels, n_params : int
        Sizes.

    spread : Tensor of shape (n_channels,)
        Spread of standardized readings.

    width, n_layers, n_modes, n_latent, beta
        As of :class:`IFNOInverter`.
    """

    spread: Tensor
    harmonics: Tensor

    def __init__(
        self,
        times,
        n_channels,
        n_params,
        spread,
        *,
        width,
        n_layers,
        n_modes,
        n_latent,
        beta,
    ):
        super().__init__()
        if width % 2:
            raise ValueError(
                f"`width` must be even, for two halves. Got {width} instead."
            )
        self.beta = beta
        self.register_buffer("spread", spread)
        self.register_buffer("harmonics", harmonics_of(times))
        n_features = self.harmonics.shape[1]

        def net(n_inputs, n_outputs):
            return dense([n_inputs, width, n_outputs], nn.GELU)

        self.lift_params = net(n_params + n_features, width)
        self.lift_readings = net(2 * n_channels + n_features, width)
        self.to_trajectory, self.to_params = (
            net(width, n_channels),
            net(width, n_params),
        )
        self.blocks = nn.ModuleList(
            InvertibleBlock(len(times), width, n_modes) for _ in range(n_layers)
        )
        self.encode, self.decode = net(n_params, 2 * n_latent), net(n_latent, n_params)
        # Noise as large as what it hides would hold up all learning in the beginning.
        nn.init.constant_(self.encode[-1].bias[n_latent:], LOG_VARIANCE)

    def evolve(self, z: Tensor) -> Tensor:
        """Pass features (n_times, n_samples, width) through the blocks."""
        halves = z.chunk(2, dim=2)
        for block in self.blocks:
            halves = block(*halves)
        return torch.cat(halves, dim=2)

    def revert(self, z: Tensor) -> Tensor:
        """Pass features back through the blocks."""
        halves = z.chunk(2, dim=2)
        for block in reversed(self.blocks):
            halves = block.inverse(*halves)
        return torch.cat(halves, dim=2)

    def lifted(self, params, readings, mask):
        """Return features of centered params, None for none, and of readings."""
        grid = self.harmonics[:, None].expand(-1, len(readings), -1)
        seen = torch.cat([readings / self.spread * mask, mask], dim=2).transpose(0, 1)
        z_readings = self.lift_readings(torch.cat([seen, grid], dim=2))
        if params is None:
            return None, z_readings
        constant = params.expand(len(grid), -1, -1)
        return self.lift_params(torch.cat([constant, grid], dim=2)), z_readings

    def quantiles(self, readings: Tensor, mask: Tensor) -> Tensor:
        """Return those of readings (n_samples, n_times, n_channels) on the grid."""
        _, z = self.lifted(None, readings, mask)
        found = self.to_params(self.revert(z)).mean(dim=0)
        mean, _ = self.encode(found).chunk(2, dim=1)
        return (1 + self.decode(mean)) / 2

    def forward(self, quantiles, trajectories, readings, mask, noise) -> Tensor:
        """Return losses: forward, backward, two reconstructions, autoencoder, KL.

        ``noise`` (n_samples, n_latent) is what the latent distribution is sampled by;
        trajectories are standardized, NaN where unknown.
        """
        params = 2 * quantiles - 1
        z_params, z_readings = self.lifted(params, readings, mask)
        found = self.to_params(self.revert(z_readings)).mean(dim=0)
        mean, log_variance = self.encode(found).chunk(2, dim=1)
        decoded = self.decode(mean + (log_variance / 2).exp() * noise)
        divergence = (mean**2 + log_variance.exp() - 1 - log_variance).mean() / 2
        simulated = self.to_trajectory(self.evolve(z_params)).transpose(0, 1)
        again = self.to_trajectory(z_readings).transpose(0, 1)
        off = torch.where(trajectories.isnan(), 0.0, simulated - trajectories)
        losses = [
            relative(off, trajectories.nan_to_num()),
            relative(found - params, params),
            (self.to_params(z_params).mean(dim=0) - params).square().mean(),
            ((again - readings) * mask).square().sum() / mask.sum().clamp(min=1),
            (decoded - params).square().mean(),
            self.beta * divergence,
        ]
        return torch.stack(losses)


def relative(error: Tensor, truth: Tensor) -> Tensor:
    """Return the L2 norm of the error of a batch, in terms of that of the truth."""
    return error.norm() / truth.norm().clamp(min=torch.finfo(truth.dtype).tiny)
