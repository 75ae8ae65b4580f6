"""What inverters share that search params for each sample, one by one or together."""

import copy
import warnings
from dataclasses import fields
from numbers import Integral

import numpy as np
import torch
from sklearn.utils.metaestimators import available_if
from torch import Tensor

from sklearn_inverse.base import BaseInverter
from sklearn_inverse.exceptions import (
    BoundsWarning,
    ConvergenceWarning,
    IntegrationWarning,
    MisfitWarning,
)
from sklearn_inverse.forward import ODESurrogate
from sklearn_inverse.forward._linearize import linearize
from sklearn_inverse.inverse._objective import Objective
from sklearn_inverse.inverse._result import InversionResult
from sklearn_inverse.optim._status import InversionStatus
from sklearn_inverse.utils._parallel import iter_chunks
from sklearn_inverse.utils._torch import resolve_device, spawn_seeds
from sklearn_inverse.utils._validation import check_noise_std

__all__ = ["LaplaceInverter", "PointInverter"]

EXACT = 1e-6  # of a channel's spread: what readings without noise are good for
SOLVED = 100  # times rtol: what a solver's trajectories are good for, on that scale
EXPLAINED = 1e-3  # of a channel's spread: misfits so small are never complained of
EDGE = 1e-3  # of the box: nearer to a wall an estimate lies on it


class PointInverter(BaseInverter):
    """Search, for each sample, the params that explain its readings best.

    A subclass stores ``chunk_size``, ``n_jobs``, ``device``, ``random_state`` and
    ``verbose`` too, ends ``fit`` with ``_try_out``, and implements ``_invert_chunk``.
    """

    _ends_by_converging = True  # else running out of iterations is the normal end
    _advice = "raise `n_starts`"  # for readings that were not explained
    _tried = "starts"  # what n_failed counts

    def invert(self, observations, *, noise_std=None):
        """Estimate params, and say how it went.

        Parameters
        ----------
        observations : array-like of shape (n_samples, n_times * n_channels) or \
(n_samples, n_times, n_channels)
            Readings, NaN where nothing was measured.

        noise_std : float or array-like, default=None
            Noise of these readings: one number, one per channel, or one per reading,
            shaped like the observations. If None, the estimator's own ``noise_std``.

        Returns
        -------
        result : InversionResult
            Estimates, misfits, iterations and statuses, one row per sample.

        Warns
        -----
        ConvergenceWarning
            If samples did not converge, or Ctrl-C ended the search early; what was
            found is kept, and samples not begun are NaN.

        IntegrationWarning
            If the forward model failed at some starts.

        MisfitWarning
            If some readings cannot be explained by the params found.

        BoundsWarning
            If readings push some params against their bounds.
        """
        readings = self._check_readings(observations)
        result = self._invert(readings, noise_std)
        result.params = self._shape_params(result.params)
        return result

    def predict(self, observations, *, noise_std=None):
        """Estimate the params behind each sample of observations.

        Parameters
        ----------
        observations : array-like of shape (n_samples, n_times * n_channels) or \
(n_samples, n_times, n_channels)
            Readings, NaN where nothing was measured.

        noise_std : float or array-like, default=None
            Noise of these readings; see :meth:`invert`.

        Returns
        -------
        params : ndarray of shape (n_samples, n_params) or (n_samples,)
            In the params' own units, shaped as the params seen in ``fit``.
        """
        result = self._invert(self._check_readings(observations), noise_std)
        return self._shape_params(result.params)

    def _estimate(self, readings):
        return self._invert(readings).params

    def _default_surrogate(self):
        return ODESurrogate(
            bounds=self.bounds,
            scale="linear" if self.scale is None else self.scale,
            device=self.device,
            random_state=self.random_state,
            verbose=self.verbose,
        )

    def _try_out(self, trajectories):
        """Search one iteration far for the first sample: what cannot work fails now."""
        (self._start_seed,) = spawn_seeds(self.random_state, 1)
        trial = copy.copy(self)
        for name in ("max_iter", "refine_iter", "n_starts"):
            if hasattr(trial, name):
                setattr(trial, name, 1)
        first = trajectories[:1]
        noise = self._reading_noise(first, None)
        result = trial._invert_chunk(first, noise, *self._per_sample(first, None))
        self.n_iter_ = max(int(result.n_iter[0]), 1)
        return self

    def _invert(self, readings, noise_std=None):
        """Run all chunks, warn, and give params their own units."""
        noise = self._reading_noise(readings, noise_std)
        n_samples = len(readings)
        result = blank_result(readings, self.n_params_)
        try:
            outcomes = iter_chunks(
                self._invert_chunk,
                readings,
                noise,
                *self._per_sample(readings, noise_std),
                chunk_size=self._chunk_length(n_samples),
                n_jobs=self.n_jobs,
                prefer=self._prefer(),
                verbose=self.verbose,
                desc=type(self).__name__,
            )
            for part, outcome in outcomes:
                fill(result, part, outcome)
                if (outcome.status == InversionStatus.INTERRUPTED).any():
                    break  # Ctrl-C reached the chunk, not this loop
        except KeyboardInterrupt:
            pass
        self._warn_of(result)
        result.params = self.scaler_.to_physical(result.params)
        return result

    @property
    def _own_noise_std(self):
        """Noise of readings of which nothing else is said."""
        return self.noise_std

    def _per_sample(self, readings, noise_std):
        """Return further arrays that are cut into chunks beside the readings."""
        return ()

    def _invert_chunk(self, readings, noise, *per_sample) -> InversionResult:
        """Invert some samples together.

        Parameters
        ----------
        readings : ndarray of shape (n_samples, n_times, n_channels)
            NaN where nothing was measured.

        noise : ndarray of the same shape
            Positive standard deviations, model error included.

        *per_sample : ndarray
            The rows of ``_per_sample``.

        Returns
        -------
        result : InversionResult
            With ``params`` in the unit box.
        """
        raise AssertionError("every inverter of this kind searches")

    def _chunk_length(self, n_samples):
        """Return how many samples are inverted together."""
        return self.chunk_size

    def _prefer(self):
        """Threads where the forward model lets other threads run, else processes."""
        is_compiled = getattr(self.surrogate_, "_is_compiled", None)
        return None if is_compiled and not is_compiled() else "threads"

    def _reading_noise(self, readings, noise_std):
        """Return the standard deviation of each reading: noise and model error."""
        noise_std = self._own_noise_std if noise_std is None else noise_std
        flat = readings.reshape(len(readings), -1)
        for unread in (np.isnan(readings), np.isnan(flat)):
            if np.shape(noise_std) == unread.shape:  # nobody knows the noise of nothing
                noise_std = np.where(unread, 0.0, noise_std)
        noise = check_noise_std(noise_std, shape=readings.shape)
        error = getattr(self.surrogate_, "error_", np.zeros(self.n_channels_))
        unknown = np.isnan(error) & ~np.isnan(readings).all(axis=(0, 1))
        if unknown.any():
            raise ValueError(
                "The surrogate must have been trained on every channel that is read. Got "
                f"readings of channel {int(np.argmax(unknown))}, of which it knows none; "
                "leave them out (NaN), or train it on them."
            )
        error = np.nan_to_num(error)
        floor = max(EXACT, SOLVED * getattr(self.surrogate_, "rtol", 0.0))
        exact = floor * self.channel_scaler_.std
        # Scaled before squaring: channels of 1e-18 have squares that underflow.
        parts = [np.broadcast_to(p / exact, readings.shape) for p in (noise, error)]
        return exact * np.sqrt(1 + parts[0] ** 2 + parts[1] ** 2)

    def _objective(self, readings, noise, **options) -> Objective:
        """Return the objective of some samples on the device."""
        device = resolve_device(self.device)
        tensors = (
            torch.as_tensor(np.array(a), dtype=torch.float64, device=device)
            for a in (readings, noise, EXPLAINED * self.channel_scaler_.std)
        )
        if getattr(self, "prior", "normal") is None:
            options["prior_precision"] = 0.0
        return Objective(self._boxed(self.surrogate_), *tensors, **options)

    def _boxed(self, model):
        """Return the forward model as a function of this inverter's unit params."""
        return model if self.scaler_ == model.scaler_ else Boxed(model, self.scaler_)

    def _starts(self, n_starts, first="center") -> Tensor:
        """Draw unit params that all samples start from; ``first`` says where the first."""
        rng = np.random.default_rng(self._start_seed)
        starts = rng.random((n_starts, self.n_params_))
        if not isinstance(first, str):
            first = np.asarray(first, dtype=float)
            if first.shape != (self.n_params_,) or not np.isfinite(first).all():
                raise ValueError(
                    "`start` must be 'center', 'random', or finite params of shape "
                    f"(n_params,) = ({self.n_params_},). Got {first.tolist()} instead."
                )
            self.scaler_.check_inside(first[None])
            starts[0] = self.scaler_.to_unit(first)
        elif first == "center":
            starts[0] = 0.5
        return torch.as_tensor(starts, device=resolve_device(self.device))

    def _summarize(
        self, objective, unit, start, n_iter, status, n_failed, hessian=None
    ):
        """Return the result of one chunk, from tensors with one row per sample."""
        sample = torch.arange(len(unit), device=unit.device)
        misfit, explained = objective.misfit(unit, sample)
        start_misfit, _ = objective.misfit(start, sample)
        n_forward = objective.n_forward + objective.n_linearized
        lost = misfit.isnan()
        status = torch.where(lost, int(InversionStatus.FAILED), status)
        covariance = None
        if hessian is not None:
            covariance = inverse(hessian)
            covariance = torch.where(lost[:, None, None], torch.nan, covariance)
        parts = {
            "params": torch.where(lost[:, None], torch.nan, unit),
            "misfit": misfit,
            "n_readings": objective.n_readings,
            "explained": explained,
            "start_misfit": start_misfit,
            "n_iter": n_iter,
            "n_forward": n_forward,
            "n_linearized": objective.n_linearized,
            "n_failed": torch.where(lost, n_failed.clamp(min=1), n_failed),
            "status": status,
            "covariance": covariance,
        }
        return InversionResult(
            **{k: None if v is None else v.cpu().numpy() for k, v in parts.items()}
        )

    def _warn_of(self, result):
        """Issue one warning for each kind of trouble."""
        n_samples = len(result.status)
        done = np.isfinite(result.params).all(axis=1)

        def count(*codes):
            return int(np.isin(result.status, codes).sum())

        def warn(message, category):
            warnings.warn(message, category, stacklevel=5)

        if n_interrupted := count(InversionStatus.INTERRUPTED):
            n_lost = (~done[result.status == InversionStatus.INTERRUPTED]).sum()
            warn(
                f"Interrupted: {n_samples - n_interrupted} of {n_samples} samples were "
                f"inverted to the end. Of the others {n_lost} are NaN.",
                ConvergenceWarning,
            )
        codes = [InversionStatus.STALLED]
        if self._ends_by_converging:
            codes.append(InversionStatus.MAX_ITER)
        if n_open := count(*codes):
            first = int(np.argmax(np.isin(result.status, codes)))
            sentence = InversionStatus(result.status[first]).sentence
            warn(
                f"{n_open} of {n_samples} samples did not converge, the first at row "
                f"{first}: {sentence}",
                ConvergenceWarning,
            )
        if result.n_failed.any():
            n_lost = count(InversionStatus.FAILED)
            warn(
                f"The forward model failed at {result.n_failed.sum()} {self._tried} of "
                f"{(result.n_failed > 0).sum()} samples; these were dropped. {n_lost} "
                "samples have none left and are NaN.",
                IntegrationWarning,
            )
        unexplained = done & ~result.explained
        if unexplained.any():
            first = int(np.argmax(unexplained))
            warn(
                f"No params were found that explain the readings of {unexplained.sum()} "
                f"of {n_samples} samples. The first is row {first}, whose misfit is "
                f"{result.misfit[first]:.3g} for {result.n_readings[first]} readings. "
                f"Check `noise_std`, the model and `bounds`, or {self._advice}.",
                MisfitWarning,
            )
        at_edge = done[:, None] & ((result.params < EDGE) | (result.params > 1 - EDGE))
        if at_edge.any():
            named = ", ".join(
                f"{self._param_name(j)} ({n})"
                for j, n in enumerate(at_edge.sum(axis=0))
                if n
            )
            warn(
                f"Readings push params against their bounds in {at_edge.any(axis=1).sum()}"
                f" of {n_samples} samples: {named}. Widen the box if values beyond it are "
                "possible.",
                BoundsWarning,
            )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        # scikit-learn's own regression data are no function of their targets, so that
        # no forward model explains them: R² there is about 0.3.
        tags.regressor_tags.poor_score = True
        return tags

    def _param_name(self, j):
        system = getattr(self.surrogate_, "system", None)
        return f"param {j}" if system is None else system.param_names[j]


class LaplaceInverter(PointInverter):
    """A point inverter with a normal posterior around its estimate.

    The covariance is the inverse of the Gauss–Newton Hessian of the objective, the
    prior included (Laplace's approximation), in the unit box.
    """

    def _has_posterior(self):
        """Whether these settings give a covariance; raise AttributeError if not."""
        return True

    def predict(self, observations, return_std=False, *, noise_std=None):
        """Estimate the params behind each sample of observations.

        Parameters
        ----------
        observations : array-like of shape (n_samples, n_times * n_channels) or \
(n_samples, n_times, n_channels)
            Readings, NaN where nothing was measured.

        return_std : bool, default=False
            Whether to return the posterior standard deviation too.

        noise_std : float or array-like, default=None
            Noise of these readings; see :meth:`invert`.

        Returns
        -------
        params : ndarray of shape (n_samples, n_params) or (n_samples,)
            Maximum of the posterior, which is normal: its mean too. In the params' own
            units, shaped as the params seen in ``fit``.

        std : ndarray of the same shape
            Posterior standard deviation: half the length of the interval of one standard
            deviation to either side, on the scale of the param. Only if ``return_std``.
        """
        readings = self._check_readings(observations)
        if return_std:
            self._has_posterior()
        result = self._invert(readings, noise_std)
        mean = self._shape_params(result.params)
        if not return_std:
            return mean
        # No further than from one wall to the other, if readings alone say nothing.
        sd = np.sqrt(np.einsum("npp->np", result.covariance)).clip(max=1)
        unit = self.scaler_.to_unit(result.params)
        high, low = (self.scaler_.to_physical(unit + k * sd) for k in (1, -1))
        return mean, self._shape_params((high - low) / 2)

    @available_if(lambda inverter: inverter._has_posterior())
    def sample(self, observations, n_draws=100, *, noise_std=None):
        """Draw params from the posterior of each sample.

        Parameters
        ----------
        observations : array-like as in :meth:`predict`
            Readings, NaN where nothing was measured.

        n_draws : int, default=100
            Draws per sample. All samples share their random numbers, so that a sample's
            draws do not depend on its companions.

        noise_std : float or array-like, default=None
            Noise of these readings; see :meth:`invert`.

        Returns
        -------
        params : ndarray of shape (n_samples, n_draws, n_params) or (n_samples, n_draws)
            Draws in the params' own units. Those that fall outside the box are
            reflected at its walls.
        """
        readings = self._check_readings(observations)
        if not isinstance(n_draws, Integral) or n_draws < 1:
            raise ValueError(f"`n_draws` must be an int >= 1. Got {n_draws!r} instead.")
        result = self._invert(readings, noise_std)
        noise = np.random.default_rng(self._start_seed).standard_normal(
            (n_draws, self.n_params_)
        )
        known = np.isfinite(result.covariance).all(axis=(1, 2))
        draws = np.full((len(known), n_draws, self.n_params_), np.nan)
        factor = factorize(result.covariance[known])
        unit = self.scaler_.to_unit(result.params[known])
        draws[known] = reflect(unit[:, None] + np.einsum("spq,dq->sdp", factor, noise))
        return self._shape_params(self.scaler_.to_physical(draws))


class Boxed:
    """A forward model as a function of the unit params of another box.

    Parameters
    ----------
    model : forward model
        Has ``scaler_``, ``forward`` and ``linearize``.

    scaler : ParamScaler
        The other box.
    """

    def __init__(self, model, scaler):
        self.model, self.scaler = model, scaler
        if hasattr(model, "until"):
            self.until = lambda n_times: Boxed(model.until(n_times), scaler)

    def forward(self, unit):
        """Return trajectories, differentiable by ``unit``."""
        return self.model.forward(self._map(unit))

    def linearize(self, unit):
        """Return trajectories and their derivative by ``unit``."""
        with torch.enable_grad():
            unit = unit.detach().requires_grad_()
            inside = self._map(unit)
            (stretch,) = torch.autograd.grad(inside.sum(), unit)  # param by param
        trajectories, jacobian = linearize(self.model, inside.detach())
        return trajectories, jacobian * stretch[:, None, None]

    def _map(self, unit):
        return self.model.scaler_.to_unit_tensor(self.scaler.to_physical_tensor(unit))


def inverse(hessian: Tensor) -> Tensor:
    """Invert in units of the diagonal; positive definite whatever the round-off."""
    scale = hessian.diagonal(dim1=1, dim2=2).rsqrt()
    scaled = hessian * scale[:, :, None] * scale[:, None, :]
    values, vectors = torch.linalg.eigh(scaled)
    # Round-off may take the smallest of them below zero.
    smallest = 1e-15 * values.amax(dim=1, keepdim=True)
    vectors = vectors * scale[:, :, None] / values.clamp(min=smallest).sqrt()[:, None]
    return vectors @ vectors.mT


def factorize(covariance):
    """Return F with F Fᵀ = covariance, (n_samples, n_params, n_params)."""
    spread = np.sqrt(np.einsum("npp->np", covariance))[..., None]
    values, vectors = np.linalg.eigh(covariance / spread / spread.swapaxes(1, 2))
    return spread * vectors * np.sqrt(values.clip(min=0))[:, None]


def reflect(unit):
    """Fold the real line onto the unit interval, by reflection at its ends."""
    return 1 - np.abs(1 - np.mod(unit, 2))


def blank_result(readings, n_params) -> InversionResult:
    """Return the result of samples none of which was begun."""
    n_samples = len(readings)
    nan, zero = np.full(n_samples, np.nan), np.zeros(n_samples, dtype=int)
    return InversionResult(
        params=np.full((n_samples, n_params), np.nan),
        misfit=nan.copy(),
        n_readings=(~np.isnan(readings)).sum(axis=(1, 2)),
        explained=np.zeros(n_samples, dtype=bool),
        start_misfit=nan.copy(),
        n_iter=zero.copy(),
        n_forward=zero.copy(),
        n_linearized=zero.copy(),
        n_failed=zero.copy(),
        status=np.full(n_samples, int(InversionStatus.INTERRUPTED)),
        covariance=None,
    )


def fill(result, part, outcome):
    """Write the rows of one chunk into the whole."""
    n_samples, n_params = result.params.shape
    if outcome.covariance is not None and result.covariance is None:
        result.covariance = np.full((n_samples, n_params, n_params), np.nan)
    for field in fields(outcome):
        values = getattr(outcome, field.name)
        if values is not None:
            getattr(result, field.name)[part] = values
