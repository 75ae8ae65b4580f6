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
    r"""Drift particles to :math:`\tau = 1`.

    Parameters
    ----------
    module : DriftNet
        The velocity.

    simulate : callable
        Quantiles to standardized trajectories.

    n_steps : int
        Steps.

    gain : float
        How far the drift goes, :math:`\lambda`.
    """

    def __init__(self, module, simulate, n_steps, gain):
        self.module, self.simulate = module, simulate
        self.n_steps = n_steps
        self.step_fraction = step_fraction(n_steps, gain)

    def arrive(self, slots, starts, *, verbose=0):
        """Drift every start of every sample, in chunks of one size.

        Parameters
        ----------
        slots : Slots
            Readings.

        starts : ndarray of shape (n_particles, n_params)
            Quantiles that all samples start from.

        verbose : int, default=0
            Whether to show a progress bar.

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
            ends = [self._drift(Slots(*parts), start) for start in starts]
            estimate, spread = (torch.stack(part).mean(dim=0) for part in zip(*ends))
            return torch.cat([estimate, spread], dim=1)

        out = in_chunks(drift_chunk, *slots, verbose=verbose, desc="Drifting")
        estimate = out[:, :p].double().cpu().numpy()
        return np.clip(estimate, 0, 1), covariance_factor(out[:, p:], p)

    @torch.no_grad()
    def _drift(self, slots, start):
        """Integrate from one start; return where it ends, and the spread there."""
        n_samples = len(slots.mask)
        particles = start.expand(n_samples, -1)
        velocity, spread = torch.zeros_like(particles), None
        for step in range(self.n_steps):
            particles = (particles + self.step_fraction * velocity).clamp(0, 1)
            tau = particles.new_full((n_samples,), step / self.n_steps)
            residuals = slots.residuals(self.simulate(particles))
            velocity, spread = self.module(particles, residuals, *slots, tau)
        return (particles + velocity).clamp(0, 1), spread


def step_fraction(n_steps, gain):
    """Share of the velocity that one step goes: exact where the aim stands still."""
    return 1 - math.exp(-gain / n_steps)
