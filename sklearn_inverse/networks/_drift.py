r"""Integration of :math:`dk/d\tau = \lambda F(k, \hat U(k) - u_{obs}, u_{obs}, \tau)`."""

import math

import numpy as np
import torch

from sklearn_inverse.networks._batches import in_chunks
from sklearn_inverse.networks._probit import covariance_factor
from sklearn_inverse.networks._slots import Slots
from sklearn_inverse.utils._torch import as_tensor

__all__ = ["Drift"]


class Drift:
    r"""Drift particles, quantiles of the prior, to :math:`\tau = 1` in so many steps.

    ``simulate`` makes standardized trajectories of them and their samples' inputs;
    ``gain`` is :math:`\lambda`.
    """

    def __init__(self, simulate, n_steps, gain):
        self.simulate, self.n_steps = simulate, n_steps
        # The share of the way that one step goes: exact where the aim stands still.
        self.step_fraction = 1 - math.exp(-gain / n_steps)

    def arrive(self, module, slots, starts, *, verbose=0):
        """Drift every start of every sample by a DriftNet, in chunks of one size.

        Returns
        -------
        estimate : ndarray of shape (n_samples, n_params)
            Mean of the particles that arrived.

        factor : ndarray of shape (n_samples, n_params, n_params)
            Factor of the covariance of the probit.
        """
        p = starts.shape[1]
        starts = as_tensor(starts, slots.mask.device)

        def drift_chunk(*parts):
            ends = [self._drift(module, Slots(*parts), start) for start in starts]
            estimate, spread = (torch.stack(part).mean(dim=0) for part in zip(*ends))
            return torch.cat([estimate, spread], dim=1)

        out = in_chunks(drift_chunk, *slots, verbose=verbose, desc="Drifting")
        estimate = out[:, :p].double().cpu().numpy()
        return np.clip(estimate, 0, 1), covariance_factor(out[:, p:], p)

    @torch.no_grad()
    def _drift(self, module, slots, start):
        """Integrate from one start; return where it ends, and the spread there."""
        n_samples = len(slots.mask)
        particles = start.expand(n_samples, -1)
        velocity, spread = torch.zeros_like(particles), None
        for step in range(self.n_steps):
            particles = (particles + self.step_fraction * velocity).clamp(0, 1)
            tau = particles.new_full((n_samples,), step / self.n_steps)
            residuals = slots.residuals(self.simulate(particles, slots.inputs))
            velocity, spread = module(particles, residuals, *slots, tau)
        return (particles + velocity).clamp(0, 1), spread
