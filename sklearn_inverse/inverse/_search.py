"""What inverters share that search params for each sample anew."""

import copy
from functools import partial

import numpy as np
import torch
from torch import Tensor

from sklearn_inverse.base import BaseInverter
from sklearn_inverse.exceptions import (
    BoundsWarning,
    ConvergenceWarning,
    IntegrationWarning,
    MisfitWarning,
)
from sklearn_inverse.inverse._objective import Objective
from sklearn_inverse.probability import Estimate, InversionStatus
from sklearn_inverse.utils._docs import shared_docs
from sklearn_inverse.utils._parallel import iter_chunks
from sklearn_inverse.utils._sklearn import _fit_context
from sklearn_inverse.utils._torch import spawn_seeds
from sklearn_inverse.utils._warnings import warn_user

__all__ = ["SearchInverter"]

COUNTS = ("n_iter", "n_forward", "n_linearized", "n_failed", "n_optima", "n_confirmed")
EDGE = 3e-3  # of the prior's range: nearer to a bound params are pushed against it
FARTHEST = 3.0  # standard deviations of the prior within which a search starts


@shared_docs
class SearchInverter(BaseInverter):
    """Search, for each sample, the params that explain its readings best.

    A subclass stores ``prior``, ``chunk_size``, ``n_jobs``, ``device``,
    ``random_state`` and ``verbose``, and implements ``_search``.
    """

    _needs_pairs = False
    _answer_type: type = Estimate
    _advice = "raise `n_starts`"  # for readings that were not explained
    _tried = "starts"  # what n_failed counts
    _ends_by_converging = True  # else running out of iterations is the normal end
    _names_bounds = True  # in a warning, where readings push params against them
    _is_trial = False
    _slack = 1.0  # strangeness of readings that are explained all the same
    # Of these one is enough for a trial.
    _trial_options: tuple[str, ...] = ("max_iter", "refine_iter", "n_starts")

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, observations, params=None, *, inputs=None):
        """Make the forward model ready, and try it on the first sample.

        Parameters
        ----------
        %(observations)s

        params : array-like of shape (n_samples, n_params), default=None
            Params that produced the observations, from which a surrogate learns. An
            exact model needs none.

        %(inputs)s

        Returns
        -------
        self : estimator
            The inverter, ready to answer.
        """
        trajectories, _, inputs = self._start_fit(observations, params, inputs)
        return self._try_out(trajectories, inputs)

    def _try_out(self, trajectories, inputs):
        """Search one iteration far for the first sample: what cannot work fails now."""
        self._start_seed, self._sample_seed = spawn_seeds(self.random_state, 2)
        trial = copy.copy(self)
        trial._is_trial = True
        for name in self._trial_options:
            if name in self.get_params(deep=False):
                setattr(trial, name, 1)
        first, told = trajectories[:1], inputs[:1]
        starts = self._per_sample(first, None, told)
        result = trial._search_chunk(first, told, *starts)
        self.n_iter_ = max(int(result.n_iter[0]), 1)
        return self

    @property
    def _draw_seed(self):
        return self._sample_seed

    def _answer(self, readings, noise_std, inputs):
        """Run all chunks."""
        answer = self._blank(readings)
        arrays = () if noise_std is None else (noise_std,)
        try:
            for part, outcome in iter_chunks(
                partial(self._search_chunk, has_noise=noise_std is not None),
                readings,
                inputs,
                *arrays,
                *self._per_sample(readings, noise_std, inputs),
                chunk_size=self._chunk_length(len(readings)),
                n_jobs=self.n_jobs,
                prefer="threads" if self._may_thread() else None,
                verbose=self.verbose,
                desc=type(self).__name__,
            ):
                for name, value in vars(outcome).items():
                    if not isinstance(value, np.ndarray):
                        continue
                    if name == "ends":  # as many as the chunk that tried most has
                        value = self._join_ends(answer, value)
                    elif not np.size(getattr(answer, name)):  # whose size chunks know
                        shape = len(readings), *value.shape[1:]
                        setattr(answer, name, np.full(shape, np.inf))
                    getattr(answer, name)[part] = value
                if (outcome.status == InversionStatus.INTERRUPTED).any():
                    break  # Ctrl-C reached the chunk, not this loop
        except KeyboardInterrupt:
            pass
        return answer

    @staticmethod
    def _join_ends(answer, ends):
        """Make an answer's ends and those of a chunk as wide as the wider of them."""
        n_ends = answer.ends.shape[1] if answer.ends.size else 0
        n_more = max(ends.shape[1] - n_ends, 0)
        before = answer.ends if n_ends else np.empty((len(answer), 0))
        answer.ends = np.pad(before, ((0, 0), (0, n_more)), constant_values=np.inf)
        n_missing = answer.ends.shape[1] - ends.shape[1]
        return np.pad(ends, ((0, 0), (0, n_missing)), constant_values=np.inf)

    @property
    def _inverted(self):
        """Return the model whose readings are explained."""
        return self.model_

    @property
    def _device(self):
        return self._inverted.device_for(self.device)

    def _search_chunk(self, readings, inputs, *arrays, has_noise=False):
        """Invert some samples together."""
        noise_std, *per_sample = arrays if has_noise else (None, *arrays)
        objective = self._objective(readings, noise_std, inputs)
        with self._inverted.unchanging():
            return self._search(objective, *per_sample)

    def _objective(self, readings, noise_std, inputs, **options) -> Objective:
        """Return what is minimized for some samples."""
        readings, noise_std, inputs = (
            None
            if a is None
            else torch.tensor(a, dtype=torch.float64, device=self._device)
            for a in (readings, noise_std, inputs)
        )
        options = {"weighs_prior": self.prior is not None} | options
        return Objective(
            self._inverted,
            self.model_.noise_,
            readings,
            noise_std=noise_std,
            inputs=inputs,
            **options,
        )

    def _search(self, objective: Objective, *per_sample) -> Estimate:
        """Invert the samples of an objective.

        ``per_sample`` holds the rows of ``_per_sample``.
        """
        raise AssertionError("every inverter of this kind searches")

    def _per_sample(self, readings, noise_std, inputs):
        """Return further arrays that are cut into chunks beside the readings."""
        return ()

    def _chunk_length(self, n_samples):
        """Return how many samples are inverted together."""
        return self.chunk_size

    def _may_thread(self):
        """Whether chunks may share this process."""
        return self._inverted.may_thread

    def _blank(self, readings):
        """Return the answer for samples none of which was begun."""
        n, p, c = len(readings), self.n_params_, self.n_channels_
        nan, zero = np.full(n, np.nan), np.zeros(n, dtype=int)
        return self._answer_type(
            params=np.full((n, p), np.nan),
            names=list(self.model_.param_names_),
            misfit=nan.copy(),
            n_readings=(~np.isnan(readings)).sum(axis=(1, 2)),
            explained=np.zeros(n, dtype=bool),
            strangeness=nan.copy(),
            residual_correlation=np.full((n, c), np.nan),
            start_misfit=nan.copy(),
            status=np.full(n, int(InversionStatus.INTERRUPTED)),
            **{name: zero.copy() for name in COUNTS},
            at_bound=np.zeros((n, p), dtype=bool),
            noise_scale=np.full((n, c), np.nan),
            about=self._about(noise_is_estimated=self._estimates_noise()),
            **self._blank_modes(n, p),
        )

    def _blank_modes(self, n_samples, n_params):
        return {}

    def _estimates_noise(self):
        return self.model_.noise_.has_unknowns

    def _about(self, **options):
        about = super()._about(**options)
        if np.nan_to_num(self._inverted.error_).any():
            about["noise"] += "; the surrogate's own error is added"
        return about

    def _starts(self, n_starts, first="center") -> Tensor:
        """Return scaled params (n_starts, n_params) that all samples start from."""
        prior = self.model_.prior_
        rng = np.random.RandomState(self._start_seed)
        z = prior.to_standard(prior.draw(n_starts, rng, method="lhs"))
        if not isinstance(first, str):
            first = np.asarray(first, dtype=float)
            if first.shape != (self.n_params_,) or not np.isfinite(first).all():
                raise ValueError(
                    "`start` must be 'center', 'random', or finite params of shape "
                    f"(n_params,) = ({self.n_params_},). Got {first.tolist()} instead."
                )
            prior.check_inside(first[None])
            z[0] = prior.to_standard(first)
        elif first == "center":
            z[0] = 0.0
        return self._scaled(prior.from_standard(z.clip(-FARTHEST, FARTHEST)))

    def _scaled(self, params) -> Tensor:
        """Return params as a tensor of scaled ones on the device."""
        scaled = self.model_.param_scaler_.to_scaled(params)
        return torch.as_tensor(scaled, device=self._device)

    def _estimate(self, objective, x, start, n_iter, status, n_failed) -> Estimate:
        """Return the answer of a method without an uncertainty, one row per sample."""
        sample = torch.arange(len(x), device=x.device)
        answer = self._blank(objective.readings.cpu().numpy())
        self._judge(answer, objective, x, sample, status)
        self._set(
            answer,
            start_misfit=objective.judge(start, sample).misfit,
            n_iter=n_iter,
            n_forward=objective.n_forward,
            n_linearized=objective.n_linearized,
            n_failed=torch.where(
                torch.as_tensor(np.isnan(answer.misfit)).to(n_failed.device),
                n_failed.clamp(min=1),
                n_failed,
            ),
        )
        return answer

    def _judge(self, answer, objective, x, sample, status, near=torch.inf, n_told=0.0):
        """Fill in what is known of the best coordinates of each sample.

        Params within ``near`` of a bound may lie on it as far as the readings tell; the
        fit has taken up the scatter of ``n_told`` readings.
        """
        misfit, strangeness, course = objective.judge(x, sample, n_told=n_told)
        lost = misfit.isnan()
        p = self.n_params_
        params = self.model_.param_scaler_.from_scaled(x[:, :p].cpu().numpy())
        edge = EDGE if objective.weighs_prior else 1e-9
        away = torch.minimum(
            x[:, :p] - objective.low[:p], objective.high[:p] - x[:, :p]
        )
        at_bound = (away < edge) & ((away < near) | (edge < EDGE))
        self._set(
            answer,
            params=np.where(lost.cpu().numpy()[:, None], np.nan, params),
            misfit=misfit,
            explained=strangeness <= self._slack,
            strangeness=strangeness,
            residual_correlation=course,
            status=torch.where(lost, int(InversionStatus.FAILED), status),
            at_bound=at_bound & ~lost[:, None],
            noise_scale=objective.noise_scale(x, sample),
        )

    @staticmethod
    def _set(answer, **values):
        for name, value in values.items():
            array = value.cpu().numpy() if isinstance(value, Tensor) else value
            getattr(answer, name)[:] = array

    def _warn_of(self, answer):
        """Issue one warning for each kind of trouble."""
        n_samples = len(answer)
        done = np.isfinite(answer.params).all(axis=1)

        def count(*codes):
            return int(np.isin(answer.status, codes).sum())

        if n_interrupted := count(InversionStatus.INTERRUPTED):
            n_lost = (~done[answer.status == InversionStatus.INTERRUPTED]).sum()
            warn_user(
                f"Interrupted: {n_samples - n_interrupted} of {n_samples} samples were "
                f"inverted to the end. Of the others {n_lost} are NaN.",
                ConvergenceWarning,
            )
        codes = [InversionStatus.STALLED]
        if self._ends_by_converging:
            codes.append(InversionStatus.MAX_ITER)
        if n_open := count(*codes):
            first = int(np.argmax(np.isin(answer.status, codes)))
            warn_user(
                f"{n_open} of {n_samples} samples did not converge, the first at row "
                f"{first}: {self._why_open(answer[first])}",
                ConvergenceWarning,
            )
        if answer.n_failed.any():
            n_lost = count(InversionStatus.FAILED)
            left = f" {n_lost} samples have none left and are NaN." if n_lost else ""
            warn_user(
                f"The forward model failed at {answer.n_failed.sum()} {self._tried} of "
                f"{(answer.n_failed > 0).sum()} samples; these were dropped.{left}",
                IntegrationWarning,
            )
        strange = np.flatnonzero(done & ~answer.explained)
        if len(strange):
            first, n_more = strange[0], len(strange) - 5
            named = ", ".join(map(str, strange[:5])) + f" and {n_more} more" * (
                n_more > 0
            )
            warn_user(
                f"No params were found that explain the readings of {len(strange)} of "
                f"{n_samples} samples (rows {named}); those found mean little. The "
                f"chi-square of row {first} is {answer.misfit[first]:.3g} for "
                f"{answer.n_readings[first]} readings. Are they of another kind, in other "
                "units or order, or noisier than stated (estimate it: "
                f"noise=Normal('sigma'))? Or widen the bounds, or {self._advice}.",
                MisfitWarning,
            )
        if self._names_bounds and answer.at_bound.any():
            named = ", ".join(
                f"{name} ({n})"
                for name, n in zip(answer.names, answer.at_bound.sum(axis=0))
                if n
            )
            warn_user(
                "Readings push params against their bounds in "
                f"{answer.at_bound.any(axis=1).sum()} of {n_samples} samples: {named}. "
                "Widen the prior if values beyond it are possible.",
                BoundsWarning,
            )

    def _why_open(self, answer):
        """Return why the search of one sample did not converge, in words."""
        return InversionStatus(answer.status[0]).sentence

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        # scikit-learn's own regression data are no function of their targets, so that
        # no forward model explains them: R² there is about 0.3.
        tags.regressor_tags.poor_score = True
        return tags
