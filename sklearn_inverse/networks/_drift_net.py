"""The network of the amortized drifting model: velocity, and posterior spread."""

import torch
from torch import Tensor, nn

from sklearn_inverse.networks._layers import Linear, ResidualBlocks
from sklearn_inverse.networks._probit import normal_head, precision_factor, probit
from sklearn_inverse.networks._slots import N_HARMONICS, SlotFeatures, Slots, harmonics

__all__ = ["DriftLoss", "DriftNet", "ParticleTrunk"]


class ParticleTrunk(nn.Module):
    """Features of a particle: where it is, the readings, and how far off it leaves them.

    Residuals matter from many times the noise down to a fraction of it; asinh of the
    residual in units of ``residual_scale`` keeps both in range.

    Parameters
    ----------
    n_slots, n_channels, n_params, n_inputs, width, n_blocks : int
        Sizes.

    times, mean, spread : Tensor
        As of :class:`SlotFeatures`.

    residual_scale : Tensor of shape (n_channels,)
        A few times the noise of standardized readings.

    n_more : int, default=0
        Further features that it is given.
    """

    residual_scale: Tensor

    def __init__(
        self,
        n_slots,
        n_channels,
        n_params,
        n_inputs,
        times,
        mean,
        spread,
        residual_scale,
        *,
        width,
        n_blocks,
        n_more=0,
    ):
        super().__init__()
        self.n_slots, self.n_params = n_slots, n_params
        self.see = SlotFeatures(times, mean, spread)
        self.register_buffer("residual_scale", residual_scale)
        self.read = Linear(n_slots * (n_channels + self.see.n_features), width)
        n_conditions = n_params + n_more + n_inputs
        self.condition = Linear(n_conditions, width, bias=False)
        self.blocks = ResidualBlocks(width, n_blocks)

    def forward(
        self, particles: Tensor, residuals: Tensor, slots: Slots, *more: Tensor
    ):
        """Return features (n_samples, width).

        ``particles`` are quantiles (n_samples, n_params), ``residuals`` readings minus
        what the model gives there.
        """
        residual = slots.mask * torch.asinh(residuals / self.residual_scale)
        readings = torch.cat([residual, self.see(slots)], dim=-1).flatten(1)
        condition = [2 * particles - 1, *more, 2 * slots.inputs - 1]
        h = self.read(readings) + self.condition(torch.cat(condition, dim=-1))
        return self.blocks(h)


class DriftNet(nn.Module):
    r"""Conditional MLP that reads where a particle is and how far its readings are off.

    Inputs are the particle :math:`k_\tau`, the residuals :math:`u_{obs} - \hat U(k_\tau)`
    at the observed entries, the readings, their mask and times, and :math:`\tau`.

    The spread is read off the same features by a head of its own, which sends no gradient
    back: mean and precision of a normal distribution of the probit of the quantiles.

    Parameters
    ----------
    n_slots, n_channels, n_params, n_inputs, times, mean, spread, residual_scale
        As of :class:`ParticleTrunk`.

    width, n_blocks : int
        Sizes.
    """

    def __init__(self, n_slots, n_channels, n_params, *sizes, width, n_blocks):
        super().__init__()
        self.n_slots = n_slots
        self.trunk = ParticleTrunk(
            n_slots,
            n_channels,
            n_params,
            *sizes,
            width=width,
            n_blocks=n_blocks,
            n_more=2 * N_HARMONICS,
        )
        self.velocity = Linear(width, n_params)
        self.spread = normal_head(width, n_params)

    def forward(self, particles, residuals, time_index, readings, mask, inputs, tau):
        """Return velocity and spread of each particle.

        ``particles`` and ``residuals`` are those of :class:`ParticleTrunk`; then come the
        parts of :class:`Slots`, and drift times ``tau`` (n_samples,). The velocity is the
        way to the estimate; the spread is what :func:`precision_factor` takes apart.
        """
        slots = Slots(time_index, readings, mask, inputs)
        h = self.trunk(particles, residuals, slots, harmonics(tau))
        velocity = self.velocity(h)
        return velocity, self._spread(h.detach(), (particles + velocity).detach())

    def _spread(self, features, estimate):
        """Spread around the estimate, the prior where nothing has been learnt.

        An error du of quantiles is one of du / φ(z) of their probit z: near the walls
        of the box the precision falls by that factor, which the head need not learn.
        """
        z = probit(estimate)
        p = z.shape[1]
        log_slope = -0.5 * z.clamp(-2.5, 2.5).square()
        # Logarithms of the precision have units to go, velocities a fraction of one.
        mean, log_diagonal, below = (5 * self.spread(features)).split(
            [p, p, p * (p - 1) // 2], dim=1
        )
        row, _ = torch.tril_indices(p, p, -1, device=z.device)
        below = below * log_slope.exp()[:, row]
        return torch.cat([z + mean, log_diagonal + log_slope, below], dim=1)


class DriftLoss(nn.Module):
    """Error of the velocity, and negative log-likelihood of the truth under the spread."""

    def __init__(self, error):
        super().__init__()
        self.error = error()

    def forward(self, predicted, target):
        """Return the sum of the two; they have no weight in common.

        ``predicted`` are velocity and spread; ``target`` drift targets and quantiles of
        the truths (n_samples, n_params), and drift times (n_samples,). The spread is
        asked for on arrival, so late states weigh more in its likelihood.
        """
        velocity, spread = predicted
        drift, truths, tau = target
        mean, factor = precision_factor(spread, drift.shape[1])
        whitened = (factor.mT @ (probit(truths) - mean)[..., None])[..., 0]
        log_det = factor.diagonal(dim1=1, dim2=2).log().sum(dim=1)
        likelihood = 0.5 * whitened.square().sum(dim=1) - log_det
        weight = tau.square() / tau.square().mean().clamp(min=1e-6)
        likelihood = (weight * likelihood).mean() / drift.shape[1]
        return self.error(velocity, drift) + likelihood
