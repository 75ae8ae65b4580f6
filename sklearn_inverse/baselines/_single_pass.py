"""What baselines share whose network answers in a single pass."""

import numpy as np
import torch

from sklearn_inverse.inverse._search import SearchInverter
from sklearn_inverse.networks._batches import in_chunks, tensor_dataset
from sklearn_inverse.networks._operator import AbsoluteError
from sklearn_inverse.networks._options import Design, Training
from sklearn_inverse.networks._reading_net import fit_even
from sklearn_inverse.networks._readings import ReadingScaler, ReadingSimulator
from sklearn_inverse.probability import InversionStatus
from sklearn_inverse.utils._docs import LEARNING, shared_docs
from sklearn_inverse.utils._options import NestedOptions
from sklearn_inverse.utils._sklearn import _fit_context
from sklearn_inverse.utils._torch import generator, resolve_device, spawn_seeds

__all__ = ["SinglePassInverter"]

EDGE = 1e-6  # quantiles nearer to 0 or 1 count as this


@shared_docs
class SinglePassInverter(NestedOptions, SearchInverter):
    """Answer by one pass of a network that learned quantiles of the params.

    A subclass stores ``model``, ``design``, ``training``, ``device``, ``random_state``
    and ``verbose``, and implements ``_module``. The module has ``quantiles(readings,
    mask)`` for answers. The forward model only judges them.
    """

    _takes_inputs = False
    _needs_pairs = True
    _advice = "train longer, on more pairs"
    _loss: type = AbsoluteError
    _parameter_constraints: dict = LEARNING | {
        "model": "no_validation",
        "design": [Design, None],
        "training": [Training, None],
    }
    _option_types = {"design": Design, "training": Training}
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
        trajectories, params, inputs = self._start_fit(observations, params)
        device, prior = resolve_device(self.device), self.model_.prior_
        prior.check_inside(params)
        training = (self.training or Training())._filled(
            lr=1e-3, max_epochs=100, batch_size=64
        )
        scaler = ReadingScaler(self.model_.noise_, trajectories)
        pairs = tensor_dataset(
            prior.to_quantile(params), scaler.standardize(trajectories), device=device
        )
        design = (self.design or Design())._settle(
            self.n_times_, self.model_.observable_names_
        )
        read = ReadingSimulator(self.model_, scaler, self._to_params, *design)
        *_, noise_seed, weight_seed, batch_seed = spawn_seeds(self.random_state, 5)
        read.settle(*pairs.tensors, generator(noise_seed, device))
        self.reading_scaler_, self._n_slots = scaler, design[0][1]

        def draw(index, rng):
            quantiles, clean = (part[index] for part in pairs.tensors)
            readings, mask = read.draw(quantiles, clean, rng)
            return self._lesson(quantiles, clean, readings, mask, rng), quantiles

        self.net_ = fit_even(
            self._module,
            pairs,
            draw,
            criterion=self._loss,
            training=training,
            seeds=(weight_seed, batch_seed),
            device=device,
            verbose=self.verbose,
            desc=f"Training {type(self).__name__}",
        )
        return self._try_out(trajectories, inputs)

    def _module(self):
        """Return the network, whose weights are yet to be learned."""
        raise AssertionError("every inverter of this kind has a network")

    def _lesson(self, quantiles, trajectories, readings, mask, rng):
        """Return what the network is given of a batch, as its keyword arguments."""
        return {"readings": readings, "mask": mask}

    @property
    def _sizes(self):
        """Arguments that all networks begin with."""
        elapsed = np.asarray(self.model_.elapsed_, dtype=float)
        span = elapsed[-1] - elapsed[0]
        times = torch.as_tensor((elapsed - elapsed[0]) / (span or 1.0)).float()
        return times, self.n_channels_, self.n_params_, self.reading_scaler_.spread

    def _to_params(self, quantiles):
        """Return params in their own units at a tensor of quantiles."""
        scaled = self.model_.prior_.quantile_to_scaled_tensor(quantiles.double())
        return self.model_.param_scaler_.from_scaled_tensor(scaled)

    def _check_readings(self, observations):
        """Return observations to invert; warn of what the network will not see."""
        readings = super()._check_readings(observations)
        self.reading_scaler_.warn_of_far(readings)
        return readings

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
