"""A spline flow from readings to the density of the params behind them."""

import torch
from torch import Tensor, nn

from sklearn_inverse.networks._drift_net import ParticleTrunk
from sklearn_inverse.networks._layers import Linear
from sklearn_inverse.networks._probit import normal_head, precision_factor, probit
from sklearn_inverse.networks._slots import Slots

__all__ = ["FlowNet", "MinusLogDensity"]

CONTEXT = 64  # features that the splines see
REACH = 5.0  # units that outputs of the head have to go


class FlowNet(nn.Module):
    r"""Density of params given readings: a normal distribution, bent by a spline flow.

    It looks at a particle, a stored pair like the sample, and how far its trajectory is
    off the readings. From there a head says where the params are and how they spread,
    :math:`w = L^T (z - m)`, so that posteriors a hundred times narrower than the prior
    need no splines as steep; monotone splines [1]_, each of an entry of w given those
    before, turn it into what is standard normal.

    Parameters
    ----------
    n_slots, n_channels, n_params, n_inputs, times, mean, spread, residual_scale
        As of :class:`ParticleTrunk`.

    width, n_blocks, n_transforms, n_bins : int
        Sizes of the trunk; layers of splines, and pieces of each.

    References
    ----------
    .. [1] C. Durkan, A. Bekasov, I. Murray, G. Papamakarios, "Neural spline flows",
       NeurIPS 2019.
    """

    def __init__(self, *sizes, width, n_blocks, n_transforms, n_bins):
        super().__init__()
        from zuko.flows import NSF

        self.trunk = ParticleTrunk(*sizes, width=width, n_blocks=n_blocks)
        self.n_slots, self.n_params = self.trunk.n_slots, self.trunk.n_params
        self.normal = normal_head(width, self.n_params)
        self.trust = Linear(width, self.n_params)  # in the particle, param by param
        self.context = Linear(width, CONTEXT)
        self.flow = NSF(
            self.n_params,
            CONTEXT,
            bins=n_bins,
            transforms=n_transforms,
            hidden_features=(CONTEXT, CONTEXT),
        )

    def forward(self, z: Tensor, **seen) -> Tensor:
        """Return log densities (n_samples,) of standard params (n_samples, n_params).

        ``seen`` are ``particles`` and ``residuals``, and the parts of :class:`Slots`.
        """
        mean, factor, context = self._given(**seen)
        w = (factor.mT @ (z - mean)[..., None])[..., 0]
        log_det = factor.diagonal(dim1=1, dim2=2).log().sum(dim=1)
        return self.flow(context).log_prob(w) + log_det

    def noise_behind(self, z: Tensor, **seen) -> Tensor:
        """Return the noise (n_samples, n_params) that standard params would come of."""
        mean, factor, context = self._given(**seen)
        return self.flow(context).transform((factor.mT @ (z - mean)[..., None])[..., 0])

    def draw(self, noise: Tensor, **seen) -> Tensor:
        """Return standard params (n_samples, n_draws, n_params), one for each noise.

        Samples share the noise (n_draws, n_params), standard normal.
        """
        mean, factor, context = self._given(**seen)
        noise = noise.expand(len(mean), -1, -1)
        w = self.flow(context[:, None]).transform.inv(noise)
        away = torch.linalg.solve_triangular(factor.mT, w.mT, upper=True)
        return mean[:, None] + away.mT

    def _given(self, particles, residuals, **slots):
        """Return mean, factor of the precision, and context of the splines."""
        h = self.trunk(particles, residuals, Slots(**slots))
        mean, factor = precision_factor(REACH * self.normal(h), self.n_params)
        near = self.trust(h).sigmoid() * probit(particles)
        return near + mean, factor, self.context(h)


class MinusLogDensity(nn.Module):
    """Minus the mean of log densities."""

    def forward(self, log_density, target):
        """Return it; the target is what they are densities of."""
        return -log_density.mean()
