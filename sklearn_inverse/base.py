"""BaseInverter: what every inverter shares, whatever its method."""

import numpy as np
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils.validation import check_is_fitted

from sklearn_inverse.exceptions import MisfitWarning
from sklearn_inverse.forward._base import as_forward_model
from sklearn_inverse.probability import Estimate, Posterior
from sklearn_inverse.utils._docs import shared_docs
from sklearn_inverse.utils._validation import (
    check_inputs,
    check_noise_std,
    check_observations,
    check_params,
    put_in_order,
)
from sklearn_inverse.utils._warnings import warn_user

__all__ = ["BaseInverter", "PosteriorInverter"]

N_CHECKED = 16  # training pairs that are compared with an exact model


@shared_docs
class BaseInverter(MultiOutputMixin, RegressorMixin, BaseEstimator):
    """Recover params from observations by inverting a forward model.

    A subclass stores ``model``, ``device``, ``random_state`` and ``verbose`` in its
    constructor, calls ``_start_fit`` first thing in ``fit``, and implements ``_answer``.
    Those with an uncertainty are a :class:`PosteriorInverter`.

    Attributes
    ----------
    model_ : ForwardModel
        The fitted forward model; its ``prior_`` and ``noise_`` are the inverter's.

    n_features_in_ : int
        ``n_times * n_channels``.
    """

    _needs_pairs = True  # whether `fit` learns from params
    _finds_scales = False  # of priors of functions, where they are open
    _takes_inputs = True  # whether these may differ from sample to sample

    def _start_fit(self, observations, params, inputs=None):
        """Check the data, fit the forward model.

        Returns
        -------
        trajectories : ndarray of shape (n_samples, n_times, n_channels)
            The observations.

        params : ndarray of shape (n_samples, n_params) or None
            The params in their own units.

        inputs : ndarray of shape (n_samples, n_inputs)
            The inputs.
        """
        model = as_forward_model(self._given_model(), **self._model_options())
        pairs = params is not None
        if not pairs and (self._needs_pairs or not model.is_ready):
            check_params(None)  # raises
        if model.is_exact:
            model = model.fit(None, params)
        trajectories = check_observations(
            self,
            observations,
            n_channels=model.known_n_channels,
            reset=True,
            ensure_min_samples=2 if self._needs_pairs else 1,
        )
        self._params_are_1d, given = np.asarray(params).ndim == 1, params
        if pairs:
            names = model.known_param_names
            params = check_params(params, n_samples=len(trajectories), names=names)
        names = model.input_names_
        if names and not self._takes_inputs:
            raise ValueError(
                f"{type(self).__name__} learns one model: it takes no inputs {names} that "
                "differ from sample to sample. Set them in the system, or use "
                "GradientInverter or ADMInverter."
            )
        inputs = check_inputs(inputs, n_samples=len(trajectories), names=names)
        # As they were given: names of columns are those of params that have none yet.
        told = {"inputs": inputs} if names else {}
        self.model_ = (
            model if model.is_ready else model.fit(trajectories, given, **told)
        )
        self._check_sizes(trajectories, params)
        self._check_scales()
        self.n_params_ = self.model_.n_params_
        _, self.n_times_, self.n_channels_ = trajectories.shape
        self._mean_params = self.model_.prior_.from_standard(np.zeros(self.n_params_))
        if not pairs:  # observations of pairs are trajectories, free of noise
            self.model_.noise_.check_observations(trajectories)
        else:
            self._mean_params = params.mean(axis=0)
            self._check_pairs(trajectories, params, inputs)
        return trajectories, params, inputs

    def _given_model(self):
        """Return the forward model as the user gave it."""
        return self.model

    def _model_options(self):
        """Return options of a forward model that must be made."""
        names = ("device", "random_state", "verbose")
        return {name: getattr(self, name) for name in names}

    def _check_scales(self):
        """Refuse priors whose scale is open, where nothing finds it."""
        functions = list(self.model_.prior_.open_scales)
        if functions and not self._finds_scales:
            raise ValueError(
                f"{type(self).__name__} takes functions whose prior has a scale: "
                f"GaussianFunction(…, scale=2.0). Got none for {functions}; "
                "GradientInverter finds it, and its `scales` can be given here. kinks=True "
                "is for GradientInverter alone."
            )
        if functions and self.model_.noise_.has_unknown_scale.any():
            raise ValueError(
                f"Scales of {functions} are found by evidence, which needs noise that is "
                "known or has a prior: noise=0.01, or noise=Normal('sigma') with 'sigma' "
                "among the params."
            )

    def _check_sizes(self, trajectories, params):
        model = self.model_
        expected = (model.n_times_, model.n_channels_, model.n_params_)
        n_params = model.n_params_ if params is None else params.shape[1]
        sizes = (*trajectories.shape[1:], n_params)
        if sizes != expected:
            raise ValueError(
                "The forward model and the data must agree in (n_times, n_channels, "
                f"n_params). The forward model has {expected}, the data have {sizes}. "
                "Observations are time-major: all observables of the first time, of the "
                "second, …."
            )

    def _check_pairs(self, trajectories, params, inputs):
        """Say so where an exact model does not make the observations from the params."""
        if not self.model_.is_exact:
            return
        some = slice(N_CHECKED)
        simulated = self._simulate(params[some], inputs[some])
        seen = np.isfinite(simulated) & np.isfinite(trajectories[some])
        off = np.where(seen, simulated - trajectories[some], 0.0)
        size = np.where(seen, trajectories[some], 0.0)
        size = size - size.mean(axis=(0, 1))
        if len(params) > 1 and (off**2).sum() > 4 * (size**2).sum() > 0:
            warn_user(
                "The model does not make these observations from these params. It works "
                "in the units of the observations: were they rescaled (a StandardScaler "
                "in front?), or are observables or params in another order?",
                MisfitWarning,
            )

    def _simulate(self, params, inputs):
        """Return what the model makes of params, with inputs if it takes any."""
        told = {"inputs": inputs} if inputs.shape[1] else {}
        return self.model_.simulate(params, **told)

    def _check_readings(self, observations):
        """Return observations to invert, of shape (n_samples, n_times, n_channels)."""
        check_is_fitted(self)
        readings = check_observations(self, observations, n_channels=self.n_channels_)
        self.model_.noise_.check_observations(readings)
        measured = self.model_.measured_
        if measured is not None and (~np.isnan(readings) & ~measured).any():
            i, t, c = np.argwhere(~np.isnan(readings) & ~measured)[0]
            raise ValueError(
                "Experiments must be read as their `observables` say. Got a reading of "
                f"{self.model_.observable_names_[c]!r} at time number {t + 1} of row {i}, "
                "where it is not measured."
            )
        unseen = np.isnan(self.model_.error_) & ~np.isnan(readings).all(axis=(0, 1))
        if unseen.any():
            raise ValueError(
                "The model must have been trained on every observable that is read. Got "
                f"readings of {self.model_.observable_names_[np.argmax(unseen)]!r}, of "
                "which it knows none; leave them out (NaN), or train it on them."
            )
        return readings

    def _check_inputs(self, inputs, readings):
        """Return inputs of shape (n_samples, n_inputs)."""
        names = self.model_.input_names_
        return check_inputs(inputs, n_samples=len(readings), names=names)

    def _check_noise_std(self, noise_std, readings):
        """Return the noise of each reading, 1 where nothing was read, or None."""
        if noise_std is None:
            return None
        unread = np.isnan(readings)
        for mask in (unread, unread.reshape(len(readings), -1)):
            if np.shape(noise_std) == mask.shape:  # nobody knows the noise of nothing
                noise_std = np.where(mask, 1.0, noise_std)
        return check_noise_std(noise_std, shape=readings.shape) + np.zeros_like(
            readings
        )

    def _shape_params(self, params):
        """Give (n_samples, …, n_params) the shape of the params seen in ``fit``."""
        return params[..., 0] if self._params_are_1d else params

    def _answer(self, readings, noise_std, inputs) -> Estimate:
        """Return what the method finds for readings (n_samples, n_times, n_channels).

        Without warnings, which ``_warn_of`` issues: it may be no more than a start.
        """
        raise AssertionError("every inverter answers")

    def _warn_of(self, answer):
        """Warn of what is wrong with an answer."""

    def _about(self, *, noise_is_estimated=False):
        """Return what a report says of the model."""
        model = self.model_
        system = getattr(model, "system", None)
        noise = "given with the readings" if noise_is_estimated is None else ""
        return {
            "model": (model if system is None else system).name or type(model).__name__,
            "observables": list(model.observable_names_),
            "noise": noise or model.noise_.describe(),
            "noise_is_estimated": bool(noise_is_estimated),
            "prior": "as stated",
        }

    def invert(self, observations, *, noise_std=None, inputs=None):
        """Estimate params, and say how it went.

        Parameters
        ----------
        %(observations)s

        %(noise_std)s

        %(inputs)s

        Returns
        -------
        estimate : Estimate
            One row per sample; print one of them for a report.

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
        answer = self._answer(
            readings,
            self._check_noise_std(noise_std, readings),
            self._check_inputs(inputs, readings),
        )
        self._warn_of(answer)
        return answer

    def predict(self, observations, *, noise_std=None, inputs=None):
        """Estimate the params behind each sample of observations.

        Parameters
        ----------
        %(observations)s

        %(noise_std)s

        %(inputs)s

        Returns
        -------
        params : ndarray of shape (n_samples, n_params) or (n_samples,)
            In the params' own units; one-dimensional if the params seen in ``fit`` were.
        """
        return self._shape_params(
            self._point(self.invert(observations, noise_std=noise_std, inputs=inputs))
        )

    @staticmethod
    def _point(answer):
        """Return the one estimate of an answer."""
        return answer.params

    def reconstruct(self, observations, *, noise_std=None, inputs=None):
        """Return the trajectories that the forward model gives at the estimate.

        Parameters
        ----------
        %(observations)s

        %(noise_std)s

        %(inputs)s

        Returns
        -------
        trajectories : ndarray of shape (n_samples, n_times, n_channels)
            In units of the observables; NaN for samples without an estimate.
        """
        estimate = self.invert(observations, noise_std=noise_std, inputs=inputs).params
        known = np.isfinite(estimate).all(axis=1)
        trajectories = np.full((len(known), self.n_times_, self.n_channels_), np.nan)
        if known.any():
            told = self._check_inputs(inputs, trajectories)
            trajectories[known] = self._simulate(estimate[known], told[known])
        return trajectories

    def score(self, X, y, sample_weight=None, *, noise_std=None, inputs=None):
        """Return R², averaged over params, of the estimates.

        Parameters
        ----------
        X : array-like as in :meth:`predict`
            Readings, NaN where nothing was measured.

        y : array-like of shape (n_samples, n_params) or (n_samples,)
            True params.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples.

        %(noise_std)s

        %(inputs)s

        Returns
        -------
        score : float
            One is perfect; zero is what the mean of the training params scores, which a
            sample without an estimate is given too.
        """
        estimate = self.predict(X, noise_std=noise_std, inputs=inputs)
        mean = self._shape_params(self._mean_params)
        estimate = np.where(np.isnan(estimate), mean, estimate)
        y = put_in_order(y, self.model_.param_names_)
        return r2_score(y, estimate, sample_weight=sample_weight)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.target_tags.required = self._needs_pairs
        return tags


@shared_docs
class PosteriorInverter(BaseInverter):
    """An inverter that also says how sure to be: its answers are posteriors."""

    def posterior(self, observations, *, noise_std=None, inputs=None) -> Posterior:
        """Return what is believed of the params behind each sample.

        Parameters
        ----------
        %(observations)s

        %(noise_std)s

        %(inputs)s

        Returns
        -------
        posterior : Posterior
            One row per sample; print one of them for a report.

        Warns
        -----
        ConvergenceWarning, IntegrationWarning, MisfitWarning, BoundsWarning
            As :meth:`invert`.
        """
        return self.invert(observations, noise_std=noise_std, inputs=inputs)

    def predict(self, observations, return_std=False, *, noise_std=None, inputs=None):
        """Estimate the params behind each sample of observations.

        Parameters
        ----------
        %(observations)s

        return_std : bool, default=False
            Whether to return the posterior standard deviation too.

        %(noise_std)s

        %(inputs)s

        Returns
        -------
        params : ndarray of shape (n_samples, n_params) or (n_samples,)
            Posterior mean, in the params' own units; one-dimensional if the params seen
            in ``fit`` were.

        std : ndarray of the same shape
            Posterior standard deviation. Only if ``return_std``.
        """
        posterior = self.invert(observations, noise_std=noise_std, inputs=inputs)
        mean = self._shape_params(posterior.mean)
        return (mean, self._shape_params(posterior.std)) if return_std else mean

    def sample(self, observations, n_draws=100, *, noise_std=None, inputs=None):
        """Draw params from the posterior of each sample.

        Parameters
        ----------
        %(observations)s

        n_draws : int, default=100
            Draws per sample. All samples share their random numbers, so that a sample's
            draws do not depend on its companions.

        %(noise_std)s

        %(inputs)s

        Returns
        -------
        params : ndarray of shape (n_samples, n_draws, n_params) or (n_samples, n_draws)
            Draws in the params' own units, within the prior's support.
        """
        posterior = self.invert(observations, noise_std=noise_std, inputs=inputs)
        draws = posterior.sample(n_draws, random_state=self._draw_seed)
        return self._shape_params(draws)

    @property
    def _draw_seed(self):
        """Seed of the draws, settled in ``fit``."""
        raise AssertionError("every inverter of this kind seeds its draws")
