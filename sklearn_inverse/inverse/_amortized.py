"""What inverters share that learn once, from simulated pairs, and then answer at once."""

import copy

import numpy as np
import torch

from sklearn_inverse.inverse._checked_search import CheckedInverter
from sklearn_inverse.inverse._laplace_search import N_PLACES
from sklearn_inverse.inverse._search import FARTHEST
from sklearn_inverse.networks._batches import in_chunks
from sklearn_inverse.optim._continuation import led_by_prior
from sklearn_inverse.optim._levenberg_marquardt import levenberg_marquardt
from sklearn_inverse.optim._multistart import multistart
from sklearn_inverse.probability import InversionStatus

__all__ = ["AmortizedInverter", "StoredPairs"]

MEANT = 0.998  # share of pairs held out whose readings must count as explained
ENOUGH, FEWEST = 500, 20  # pairs held out that show that quantile, or hint at it
LESSONS = 1000  # pairs held out from which to learn that


class StoredPairs:
    """Some of the training pairs, among which to look for those like a sample.

    Parameters
    ----------
    quantiles : Tensor of shape (n_pairs, n_params)
        Their params, as quantiles of the prior.

    trajectories : Tensor of shape (n_pairs, n_times, n_channels)
        Standardized, NaN where unknown, which counts as their mean.

    noise_size : ndarray of shape (n_channels,)
        Size of the noise of standardized readings.
    """

    def __init__(self, quantiles, trajectories, noise_size):
        weight = 1 / np.maximum(noise_size, 1e-3 * noise_size.max() + 1e-6) ** 2
        self.quantiles = quantiles.cpu().clone()
        self.trajectories = trajectories.nan_to_num().flatten(1).cpu().clone()
        self.weight = torch.as_tensor(weight).float().repeat(trajectories.shape[1])

    def nearest(self, readings, mask):
        """Return the quantiles of the pair whose trajectory is nearest to each reading.

        In units of the noise, over what was read: readings and mask of shape (n_samples,
        n_times, n_channels), standardized.
        """
        weight, stored = (a.to(mask.device) for a in (self.weight, self.trajectories))
        squares = weight[:, None] * stored.T.square()

        def find(readings, mask):
            # Without what all pairs have in common, the readings' own square.
            cross = (weight * mask * readings) @ stored.T
            return (mask @ squares - 2 * cross).argmin(dim=1)

        nearest = in_chunks(find, readings.flatten(1), mask.flatten(1))
        return self.quantiles.double().numpy()[nearest.cpu().numpy()]


class AmortizedInverter(CheckedInverter):
    """Answer by what was learned, or by a short search that sets out from it.

    A subclass stores ``kind``, implements ``_learned``, and at the end of ``fit`` sets
    ``_pairs`` and calls ``_learn_what_is_usual``.
    """

    _needs_pairs = True
    _advice = "train on more pairs"
    _names_bounds = False  # of a thousand samples some always are
    prior = "model"
    chunk_size = 1024  # one batch, as far as memory goes
    n_jobs = None
    max_iter, tol = 100, 1e-5  # three steps are usual

    def _learned(self, readings, inputs):
        """Return centers (n_samples, n_params) and factors of covariances.

        As learned, in the prior's standard coordinate.
        """
        raise AssertionError("every inverter of this kind learns")

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
            n = 1 if only_try else LESSONS
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
        center, factor = self._learned(readings, inputs)
        if self.kind == "learned":
            return center, factor
        prior = self.model_.prior_
        prepared = self.reading_scaler_.prepare(readings, "cpu")
        near = prior.to_standard(prior.from_quantile(self._pairs.nearest(*prepared)))
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

        def climb(start, sample):
            return optimize(objective, start, sample)

        def climb_from_the_other(start, sample):
            begin, _ = led_by_prior(objective, optimize, worse[sample], sample)
            return climb(begin, sample)

        ends = multistart(objective, better[:, None], climb, retry=climb_from_the_other)
        return self._conclude(objective, ends, better)

    def _judge_learned(self, objective, center, factor):
        """Return the posteriors that were learned, judged by a run at their means."""
        mixing = self.model_.prior_.mixing
        answer = self._blank(objective.readings.cpu().numpy())
        factor = mixing @ factor
        answer.centers[:, 0] = center @ mixing.T
        answer.covariances[:, 0] = factor @ factor.mT
        params = answer.mean
        sample = torch.arange(len(answer), device=objective.readings.device)
        x = objective.with_scales(self._scaled(params), sample)
        n_told = self.n_params_ - (factor**2).sum(axis=(1, 2))
        status = torch.full_like(sample, InversionStatus.CONVERGED)
        told = torch.as_tensor(n_told, device=x.device)
        self._judge(answer, objective, x, sample, status, near=0.0, n_told=told)
        n_failed = np.isnan(answer.misfit)
        self._set(
            answer,
            params=params,
            status=status,
            n_failed=n_failed,
            n_optima=1,
            n_confirmed=1,
            n_forward=objective.n_forward,
        )
        self._widen(answer, objective, n_told)
        answer.params = answer.mean
        return answer

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
        stored = stored.reshape(len(stored), self.n_times_, self.n_channels_)
        stored = self.reading_scaler_.restore(stored).numpy()
        seen = ~objective.readings.isnan().cpu().numpy()[samples]
        readings = np.where(seen[:, None], stored, np.nan).reshape(-1, *seen.shape[1:])
        told = np.repeat(objective.inputs.cpu().numpy()[samples], len(stored), axis=0)
        mixing = self.model_.prior_.mixing
        center, factor = self._learned(readings, told)
        factor = mixing @ factor
        return center @ mixing.T, factor @ factor.mT

    def _check_noise_std(self, noise_std, readings):
        """Refuse other noise than what was learned for."""
        if noise_std is not None:
            raise ValueError(
                f"{type(self).__name__} answers for the noise that it was trained for, "
                "the model's. Leave `noise_std` away, or state the noise in the model: "
                "as a param with a prior if it differs from sample to sample."
            )
