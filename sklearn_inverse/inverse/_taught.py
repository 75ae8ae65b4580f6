"""What inverters share whose network learned quantiles of the params."""

import numpy as np

from sklearn_inverse.inverse._search import SearchInverter
from sklearn_inverse.networks._batches import tensor_dataset
from sklearn_inverse.networks._options import Design, Training
from sklearn_inverse.networks._reading_net import KnownSquares, fit_even
from sklearn_inverse.networks._readings import ReadingScaler, ReadingSimulator
from sklearn_inverse.utils._docs import LEARNING
from sklearn_inverse.utils._options import NestedOptions
from sklearn_inverse.utils._torch import generator, resolve_device, spawn_seeds

__all__ = ["TaughtInverter"]

EDGE = 1e-9  # quantiles nearer to 0 or 1 count as this


class TaughtInverter(NestedOptions, SearchInverter):
    """Answer with the help of a network that learned quantiles of the params.

    A subclass stores ``model``, ``design``, ``training``, ``device``, ``random_state``
    and ``verbose``, and implements ``_module`` and ``_lesson``.
    """

    _loss: type = KnownSquares
    _parameter_constraints: dict = LEARNING | {
        "model": "no_validation",
        "design": [Design, None],
        "training": [Training, None],
    }
    _option_types = {"design": Design, "training": Training}

    def _learn(self, trajectories, params, inputs, **training):
        """Train the network on pairs, of which readings are drawn every batch.

        ``training`` holds what the user's leaves open.
        """
        device, model = resolve_device(self.device), self.model_
        quantiles = np.full((len(trajectories), self.n_params_), 0.5)
        if params is not None:
            model.prior_.check_inside(params)
            quantiles = model.prior_.to_quantile(params)
        scaler = self.reading_scaler_ = ReadingScaler(model.noise_, trajectories)
        self.input_scaler_ = model.scale_inputs(inputs)
        pairs = tensor_dataset(
            quantiles,
            scaler.standardize(trajectories),
            self.input_scaler_.to_scaled(inputs),
            device=device,
        )
        design = (self.design or Design())._settle(
            self.n_times_, model.observable_names_
        )
        read = ReadingSimulator(model, scaler, self._to_params, *design)
        *_, weight_seed, batch_seed, noise_seed = spawn_seeds(self.random_state, 5)
        read.settle(*pairs.tensors[:2], generator(noise_seed, device))
        self._n_slots = design[0][1]

        def draw(index, rng):
            quantiles, clean, told = (part[index] for part in pairs.tensors)
            seen = dict(zip(("readings", "mask"), read.draw(quantiles, clean, rng)))
            return self._lesson(
                quantiles, clean, seen | {"inputs": told}, rng
            ), quantiles

        self.net_ = fit_even(
            self._module,
            pairs,
            draw,
            criterion=self._loss,
            training=(self.training or Training())._filled(**training, batch_size=64),
            seeds=(weight_seed, batch_seed),
            device=device,
            verbose=self.verbose,
            desc=f"Training {type(self).__name__}",
        )
        return self._try_out(trajectories, inputs)

    def _module(self):
        """Return the network, whose weights are yet to be learned."""
        raise AssertionError("every inverter of this kind has a network")

    def _lesson(self, quantiles, trajectories, seen, rng):
        """Return what the network is given of a batch, as its keyword arguments.

        ``seen`` holds readings, their mask, and inputs.
        """
        return seen

    def _to_params(self, quantiles):
        """Return params in their own units at a tensor of quantiles."""
        inside = quantiles.double().clamp(EDGE, 1 - EDGE)
        scaled = self.model_.prior_.quantile_to_scaled_tensor(inside)
        return self.model_.param_scaler_.from_scaled_tensor(scaled)

    def _check_readings(self, observations):
        """Return observations to invert; warn of what the network will not see."""
        readings = super()._check_readings(observations)
        self.reading_scaler_.warn_of_far(readings)
        return readings
