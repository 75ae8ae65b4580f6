"""What inverters share that learn once, from simulated pairs, and then answer at once."""

import copy
import math
from functools import partial

import numpy as np
import torch
from sklearn.frozen import FrozenEstimator

from sklearn_inverse.exceptions import ExtrapolationWarning
from sklearn_inverse.inverse._checked_search import CheckedInverter
from sklearn_inverse.inverse._laplace_search import N_PLACES
from sklearn_inverse.inverse._search import FARTHEST
from sklearn_inverse.networks._batches import in_chunks, split_pairs
from sklearn_inverse.networks._options import Design, Training
from sklearn_inverse.networks._probit import EDGE
from sklearn_inverse.networks._readings import ReadingScaler, ReadingSimulator
from sklearn_inverse.optim._continuation import led_by_prior
from sklearn_inverse.optim._levenberg_marquardt import levenberg_marquardt
from sklearn_inverse.optim._multistart import CONFIRMED, Ends
from sklearn_inverse.probability import InversionStatus
from sklearn_inverse.probability._laplace import distinct_optima
from sklearn_inverse.utils._docs import LEARNING, shared_docs
from sklearn_inverse.utils._options import NestedOptions
from sklearn_inverse.utils._sklearn import _fit_context
from sklearn_inverse.utils._torch import (
    as_tensor,
    generator,
    resolve_device,
    spawn_seeds,
)
from sklearn_inverse.utils._warnings import warn_user

__all__ = ["AMORTIZED", "AmortizedInverter", "StoredPairs"]

AMORTIZED: dict = LEARNING | {
    "model": "no_validation",
    "design": [Design, None],
    "training": [Training, None],
}
BEYOND = 0.01  # of the range of training inputs
MEANT = 0.998  # share of pairs held out whose readings must count as explained
ENOUGH, FEWEST = 500, 20  # pairs held out that show that quantile, or hint at it
LESSONS = 1000  # pairs held out from which to learn that


class StoredPairs:
    """Some of the training pairs, among which to look for those like a sample.

    Parameters
    ----------
    quantiles : Tensor of shape (n_pairs, n_params)
        Params of the training pairs, as quantiles of the prior.

    trajectories : Tensor of shape (n_pairs, n_times, n_channels)
        Standardized, NaN where unknown, which counts as their mean.

    noise_size : ndarray of shape (n_channels,)
        Size of the noise of standardized readings.

    n_stored : int
        How many of them to store, about.
    """

    def __init__(self, quantiles, trajectories, noise_size, n_stored):
        self.step = math.ceil(len(quantiles) / n_stored)
        weight = 1 / np.maximum(noise_size, 1e-3 * noise_size.max() + 1e-6) ** 2
        self.quantiles = quantiles[:: self.step].clone()
        self.trajectories = trajectories[:: self.step].nan_to_num()
        self.weight = as_tensor(weight, quantiles.device).repeat(trajectories.shape[1])

    def to(self, device):
        """Return them on a device."""
        moved = copy.copy(self)
        for name in ("quantiles", "trajectories", "weight"):
            setattr(moved, name, getattr(self, name).to(device))
        return moved

    def nearest(self, readings, mask, besides=None):
        """Return which pair's trajectory is nearest to each reading, on their device.

        In units of the noise, over what was read: readings and mask of shape (n_samples,
        n_times, n_channels), standardized. Pairs of the training set at ``besides``
        (n_samples,) are left out, each for its sample.
        """
        stored = self.trajectories.flatten(1).T
        compared = torch.cat([self.weight[:, None] * stored.square(), -2 * stored])
        if besides is None:
            besides = torch.full((len(mask),), -1, device=mask.device)

        def find(readings, mask, besides):
            # Without what all pairs have in common, the readings' own square.
            seen = torch.cat([mask, self.weight * mask * readings], dim=1)
            distance = seen @ compared
            own = ((besides >= 0) & (besides % self.step == 0)).nonzero()[:, 0]
            distance[own, besides[own] // self.step] = torch.inf
            return distance.argmin(dim=1)

        return in_chunks(find, readings.flatten(1), mask.flatten(1), besides)


@shared_docs
class AmortizedInverter(NestedOptions, CheckedInverter):
    """Answer by what was learned, or by a short search that sets out from it.

    A subclass stores ``model``, ``design``, ``training`` and ``kind``, and implements
    ``_fit_net``, ``_learned`` and, where the network's answer is not a normal
    distribution, ``_normals``.
    """

    _needs_pairs = True
    _advice = "train on more pairs"
    _names_bounds = False  # of a thousand samples some always are
    _option_types = {"design": Design, "training": Training}
    _trained_by_default: dict = {}  # options of Training
    _lessons = LESSONS
    _n_stored = 1000  # pairs among which to look for one like a sample
    prior = "model"
    chunk_size = 1024  # one batch, as far as memory goes
    n_jobs = None
    max_iter, tol = 100, 1e-5  # three steps are usual

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, observations, params, *, inputs=None):
        """Train on simulated pairs.

        1. Fit the forward model, unless it is fitted or exact. 2. Train the network, on
        readings drawn anew for every batch. 3. Calibrate its spread on pairs held out,
        and learn from them what is usual. A KeyboardInterrupt in the second step ends it
        early and keeps what was learned, with a ConvergenceWarning, one in the first
        ends all; training that diverges is a ValueError.

        Parameters
        ----------
        %(pairs)s

        %(inputs)s

        Returns
        -------
        self : estimator
            The trained inverter.
        """
        device = resolve_device(self.device)
        vars(self).pop("net_", None)
        trajectories, params, inputs = self._start_fit(observations, params, inputs)
        if self.model_.was_interrupted and not isinstance(self.model, FrozenEstimator):
            raise KeyboardInterrupt("The forward model was not trained to its end.")
        prior = self.model_.prior_
        prior.check_inside(params)
        training = (self.training or Training())._filled(
            validation_fraction=0.1, **self._trained_by_default
        )
        design = (self.design or Design())._settle(
            self.n_times_, self.model_.observable_names_
        )
        split_seed, weight_seed, batch_seed, held_out_seed, seed = spawn_seeds(
            self.random_state, 5
        )
        self._start_seed = self._sample_seed = seed
        self.reading_scaler_ = ReadingScaler(self.model_.noise_, trajectories)
        self.input_scaler_ = self.model_.scale_inputs(inputs)
        train, valid = split_pairs(
            prior.to_quantile(params),
            partial(self.reading_scaler_.standardize_rows, trajectories),
            self.input_scaler_.to_scaled(inputs),
            fraction=training.validation_fraction,
            seed=split_seed,
            device=device,
        )
        scaler = self.reading_scaler_
        read = ReadingSimulator(self.model_, scaler, self._to_params, *design)
        rng = generator(held_out_seed, device)
        read.settle(*train.tensors[:2], rng)
        known = ~train.tensors[1].isnan().all(dim=0).cpu().numpy()
        self._pattern = design[0], known & design[1]
        pairs = *train.tensors[:2], scaler.noise_size
        self._pairs = StoredPairs(*pairs, self._n_stored)
        seeds = weight_seed, batch_seed
        self.net_ = self._fit_net(train, valid, read, training, seeds, device)
        self.n_iter_ = len(self.net_.history)
        self._pairs = self._pairs.to("cpu")
        quantiles, trajectories, inputs = valid.tensors
        readings, mask = read.draw(quantiles, trajectories, rng)
        self._calibrate(quantiles, readings, mask, inputs)
        readings = scaler.restore(readings).where(mask > 0, torch.nan).cpu().numpy()
        told = self.input_scaler_.from_scaled_tensor(inputs.double()).cpu().numpy()
        is_read = ~np.isnan(readings).all(axis=(1, 2))
        self._learn_what_is_usual(readings[is_read], told[is_read])
        return self

    def _net_sizes(self, train, read):
        """Return what a network is told of readings and params."""
        return (
            read.n_observed[1],
            self.n_channels_,
            self.n_params_,
            train.tensors[2].shape[1],
            torch.linspace(0, 1, self.n_times_),
            train.tensors[1].nanmean(dim=0).nan_to_num(),
            read.scaler.spread,
        )

    def _fit_net(self, train, valid, read, training, seeds, device):
        """Return the trained skorch net.

        Of datasets of quantiles, standardized trajectories and scaled inputs, read by a
        ReadingSimulator; ``seeds`` are those of the weights and of batches.
        """
        raise AssertionError("every inverter of this kind learns")

    def _calibrate(self, quantiles, readings, mask, inputs):
        """Learn from pairs held out how wide the spread must be."""

    def _learned(self, readings, inputs):
        """Return what the network says of samples: arrays, one row for each.

        By default centers (n_samples, n_params) and factors of covariances, in the
        prior's standard coordinate.
        """
        raise AssertionError("every inverter of this kind learns")

    def _normals(self, center, factor):
        """Return centers and covariances of what was learned, in that coordinate."""
        return center, factor @ factor.mT

    def _prepare(self, readings, inputs):
        """Return readings, their mask, and inputs, as a network takes them."""
        device = resolve_device(self.device)
        prepared = self.reading_scaler_.prepare(readings, device)
        return *prepared, as_tensor(self.input_scaler_.to_scaled(inputs), device)

    def _to_scaled(self, quantiles):
        """Return scaled params at a tensor of quantiles, off the ends of open supports."""
        prior = self.model_.prior_
        if not prior.is_quantile_scaled:
            quantiles = quantiles.double().clamp(EDGE, 1 - EDGE)
        return prior.quantile_to_scaled_tensor(quantiles)

    def _to_params(self, quantiles):
        """Return params in their own units at a tensor of quantiles."""
        scaled = self._to_scaled(quantiles.double())
        return self.model_.param_scaler_.from_scaled_tensor(scaled)

    @property
    def _inverted(self):
        return self._exact

    @property
    def _device(self):
        is_own = self._inverted is self.model_
        return self._inverted.device_for(self.device if is_own else "auto")

    @property
    def _slack(self):
        return self._slacks.get(self.kind, 1.0)

    def _learn_what_is_usual(self, readings, inputs):
        """Learn from pairs held out how strange a sample of the model may look.

        An exact model needs no such lesson. Without derivatives this fails.
        """
        self._slacks, self._exact = {}, self.model_.exact_
        for kind in {"learned", self.kind}:
            other = copy.copy(self)
            other.kind = kind
            only_try = kind == "laplace" and self._inverted.is_exact
            n = 1 if only_try else self._lessons
            answer = other._try(readings[:n], inputs[:n])
            known = answer.strangeness[np.isfinite(answer.strangeness)]
            if not only_try and len(known) >= FEWEST:
                # Few pairs hardly show a rare quantile: reach farther, as those of a
                # heavy tail do, P(strangeness > s) falling as 1/s².
                reach = max(1.0, ENOUGH / len(known)) ** 0.5
                self._slacks[kind] = max(1.0, reach * np.quantile(known, MEANT))

    def _try(self, readings, inputs):
        """Answer samples held out; what cannot work fails now, and says why."""
        try:
            answer = self._answer(readings, None, inputs)
        except Exception as error:
            if self.kind == "learned":
                raise
            raise ValueError(
                "`kind='laplace'` needs a model that can be differentiated by its params. "
                f"With this one that failed: {error} Set kind='learned', which only "
                "evaluates it."
            ) from error
        if (answer.status == InversionStatus.INTERRUPTED).any():
            raise KeyboardInterrupt
        return answer

    def _per_sample(self, readings, noise_std, inputs):
        """Return what was learned of samples, or where their searches set out.

        That is scaled params (n_samples, 2, n_params): the learned estimate, and those
        of the nearest stored pair.
        """
        learned = self._learned(readings, inputs)
        if self.kind == "learned":
            return learned
        center, _ = self._normals(*learned)
        prior = self.model_.prior_
        nearest = self._pairs.nearest(*self.reading_scaler_.prepare(readings, "cpu"))
        near = self._pairs.quantiles[nearest].double().numpy()
        near = prior.to_standard(prior.from_quantile(near))
        z = np.stack([center, near], axis=1).clip(-FARTHEST, FARTHEST)
        return (prior.scaler.to_scaled(prior.from_standard(z)),)

    def _search(self, objective, *parts):
        if self.kind == "learned":
            return self._judge_learned(objective, *parts)
        (starts,) = (torch.as_tensor(a).to(objective.readings.device) for a in parts)
        n_samples, n_starts, _ = starts.shape
        sample = torch.arange(n_samples, device=starts.device)
        rows = sample.repeat_interleave(n_starts)
        x = objective.with_scales(starts.flatten(0, 1), rows)
        value = objective.value(x, rows).reshape(n_samples, n_starts)
        x = x.reshape(n_samples, n_starts, -1)
        order = value.argsort(dim=1, stable=True)
        better, worse = (x[sample, order[:, i]] for i in range(2))

        def optimize(objective, start, sample):
            options = {"max_iter": self.max_iter, "tol": self.tol}
            return levenberg_marquardt(objective, start, sample, **options)

        def explained():
            best = ends.best
            x, hessian = ends.x[sample, best], ends.hessian[sample, best]
            return objective.judge(x, sample, hessian).explained

        begin = torch.stack([better, worse], dim=1)
        begin[:, 0], n_led = led_by_prior(objective, optimize, better, sample)
        ends = Ends.blank(begin)
        ends.n_iter.add_(n_led)
        ends.put(optimize(objective, begin[:, 0], sample), sample, slice(0, 1))
        # Few readings are explained by many params: there, two ways must meet.
        few = objective.has_few_readings
        doubted = sample[few | ~explained()]
        if len(doubted) and not ends.are_interrupted:
            end = optimize(objective, begin[doubted, 1], doubted)
            ends.put(end, doubted, slice(1, 2))
            *_, n_confirmed = distinct_optima(ends.x, ends.value, ends.hessian, most=1)
            lost = sample[~explained() | few & (n_confirmed < CONFIRMED)]
            if len(lost) and self._inverted.is_exact and not ends.are_interrupted:
                # What was learned led astray: search as if nothing had been.
                rest = objective.select(lost)
                found, _ = self._find(rest, optimize, n_starts="adaptive")
                ends = ends.joined(found.spread(lost, n_samples))
                for name in ("n_forward", "n_linearized"):
                    getattr(objective, name)[lost.cpu()] += getattr(rest, name)
        return self._conclude(objective, ends, better)

    def _judge_learned(self, objective, *learned):
        """Return the posteriors that were learned, judged by a run of the model."""
        mixing = self.model_.prior_.mixing
        answer = self._blank(objective.readings.cpu().numpy())
        center, covariance = self._normals(*learned)
        answer.centers[:, 0] = center @ mixing.T
        answer.covariances[:, 0] = mixing @ covariance @ mixing.T
        sample = torch.arange(len(answer), device=objective.readings.device)
        x = self._estimated(objective, answer, sample, *learned)
        n_told = self.n_params_ - np.trace(covariance, axis1=1, axis2=2).clip(min=0)
        status = torch.full_like(sample, InversionStatus.CONVERGED)
        told = torch.as_tensor(n_told, device=x.device)
        self._judge(answer, objective, x, sample, status, near=0.0, n_told=told)
        answer.residual_correlation[:] = np.nan  # it is the network that may miss
        self._set(
            answer,
            status=status,
            n_failed=np.isnan(answer.misfit),
            n_optima=1,
            n_confirmed=1,
            n_forward=objective.n_forward,
        )
        self._widen(answer, objective, n_told)
        answer.params = answer.mean
        return answer

    def _estimated(self, objective, answer, sample, *learned):
        """Return the coordinates that a run of the model shall judge."""
        return objective.with_scales(self._scaled(answer.mean), sample)

    def _blank_modes(self, n_samples, n_params):
        modes = super()._blank_modes(n_samples, n_params)
        if self.kind == "laplace":
            return modes
        alone = {n: modes[n][:, :1] for n in ("weights", "centers", "covariances")}
        return modes | alone | {"kind": "learned"}

    def _usual(self, objective, samples):
        if self.kind == "laplace":
            return super()._usual(objective, samples)
        stored = self._pairs.trajectories[:N_PLACES]
        stored = self.reading_scaler_.restore(stored).numpy()
        seen = ~objective.readings.isnan().cpu().numpy()[samples]
        readings = np.where(seen[:, None], stored, np.nan).reshape(-1, *seen.shape[1:])
        told = np.repeat(objective.inputs.cpu().numpy()[samples], len(stored), axis=0)
        mixing = self.model_.prior_.mixing
        center, covariance = self._normals(*self._learned(readings, told))
        return center @ mixing.T, mixing @ covariance @ mixing.T

    def _check_noise_std(self, noise_std, readings):
        """Refuse other noise than what was learned for."""
        if noise_std is not None:
            raise ValueError(
                f"{type(self).__name__} answers for the noise that it was trained for, "
                "the model's. Leave `noise_std` away, or state the noise in the model: "
                "as a param with a prior if it differs from sample to sample."
            )

    def _check_readings(self, observations):
        """Return observations to invert; warn of what the network will not see."""
        readings = super()._check_readings(observations)
        self.reading_scaler_.warn_of_far(readings)
        self._check_pattern(~np.isnan(readings))
        return readings

    def _check_pattern(self, seen):
        """Warn of samples that are read at other times, or of other observables."""
        (fewest, most), known = self._pattern
        n_times = seen.any(axis=2).sum(axis=1)
        at_times = seen.any(axis=2, keepdims=True)
        lacking = (at_times & known & ~seen).any(axis=(1, 2))
        foreign = (seen & ~known).any(axis=(1, 2))
        for what, strange, does in (
            ("denser", (n_times > most) | foreign, f"the network sees {most} of them"),
            ("sparser", (n_times < fewest) | lacking, "the network knows of none such"),
        ):
            if strange.any():
                range_of = f"{fewest} to {most}" if fewest < most else f"{most}"
                warn_user(
                    f"{strange.sum()} of {len(seen)} samples, the first in row "
                    f"{np.argmax(strange)}, are read in a {what} pattern than this "
                    f"inverter was trained for, {known.any(axis=0).sum()} observables at "
                    f"{range_of} times: {does}. Let `design` say how it will be.",
                    ExtrapolationWarning,
                )

    def _check_inputs(self, inputs, readings):
        """Return inputs of samples; warn of what no training pair was like."""
        inputs = super()._check_inputs(inputs, readings)
        scaled = self.input_scaler_.to_scaled(inputs)
        outside = ~((scaled > -BEYOND) & (scaled < 1 + BEYOND)).all(axis=1)
        if outside.any():
            warn_user(
                f"{outside.sum()} of {len(inputs)} samples have inputs outside the range "
                f"{self.input_scaler_.bounds.tolist()} that this inverter was trained "
                f"for, the first in row {np.argmax(outside)}: their params mean little.",
                ExtrapolationWarning,
            )
        return inputs

    def __sklearn_is_fitted__(self):
        return "net_" in vars(self)
