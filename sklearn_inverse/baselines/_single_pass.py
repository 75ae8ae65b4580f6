"""What baselines share whose network answers in a single pass."""

import numpy as np
import torch

from sklearn_inverse.inverse._taught import TaughtInverter
from sklearn_inverse.networks._batches import in_chunks
from sklearn_inverse.networks._operator import AbsoluteError
from sklearn_inverse.probability import InversionStatus
from sklearn_inverse.utils._docs import shared_docs
from sklearn_inverse.utils._sklearn import _fit_context
from sklearn_inverse.utils._torch import resolve_device

__all__ = ["SinglePassInverter"]

EDGE = 1e-6  # quantiles nearer to 0 or 1 count as this


@shared_docs
class SinglePassInverter(TaughtInverter):
    """Answer by one pass of a network that learned quantiles of the params.

    The module of a subclass has ``quantiles(readings, mask)`` for answers. The forward
    model only judges them.
    """

    _takes_inputs = False
    _needs_pairs = True
    _advice = "train longer, on more pairs"
    _loss = AbsoluteError
    prior, chunk_size, n_jobs = None, 1024, None  # nothing is searched

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, observations, params):
        """Train the network on simulated pairs, of which readings are drawn every batch.

        Parameters
        ----------
        %(pairs)s

        Returns
        -------
        self : object
            The trained inverter.
        """
        data = self._start_fit(observations, params)
        return self._learn(*data, lr=1e-3, max_epochs=100)

    def _lesson(self, quantiles, trajectories, seen, rng):
        return {name: seen[name] for name in ("readings", "mask")}

    @property
    def _sizes(self):
        """Arguments that all networks begin with."""
        elapsed = np.asarray(self.model_.elapsed_, dtype=float)
        span = elapsed[-1] - elapsed[0]
        times = torch.as_tensor((elapsed - elapsed[0]) / (span or 1.0)).float()
        return times, self.n_channels_, self.n_params_, self.reading_scaler_.spread

    def _search(self, objective):
        device = resolve_device(self.device)
        readings, module = objective.readings, self.net_.module_.to(device)
        seen = self.reading_scaler_.prepare(readings.cpu().numpy(), device)
        with torch.no_grad():
            quantiles = in_chunks(module.quantiles, *seen).double()
        scaled = self.model_.prior_.quantile_to_scaled_tensor(
            quantiles.clamp(EDGE, 1 - EDGE)
        )
        everyone = torch.arange(len(readings), device=readings.device)
        x = objective.with_scales(scaled.to(readings.device), everyone)
        none = torch.zeros_like(everyone)
        status = torch.full_like(everyone, InversionStatus.CONVERGED)
        return self._estimate(objective, x, x, none + 1, status, none)
