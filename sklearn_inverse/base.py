"""BaseInverter: what every inverter shares, whatever its method."""

import warnings

import numpy as np
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin, clone
from sklearn.metrics import r2_score
from sklearn.utils.validation import check_is_fitted

from sklearn_inverse.exceptions import ExtrapolationWarning
from sklearn_inverse.utils._scaling import ChannelScaler, ParamScaler
from sklearn_inverse.utils._validation import (
    check_bounds,
    check_noise_std,
    check_observations,
    check_params,
)

__all__ = ["BaseInverter", "PosteriorInverter"]


class BaseInverter(MultiOutputMixin, RegressorMixin, BaseEstimator):
    """Recover params from observations: input, forward model, box and noise.

    A subclass stores ``surrogate``, ``n_channels``, ``bounds``, ``scale`` and
    ``noise_std`` in its constructor, says in ``_default_surrogate`` which forward model
    stands in when none is given, calls ``_start_fit`` first thing in ``fit``, and
    implements ``_estimate``. Those with an uncertainty are a :class:`PosteriorInverter`.
    """

    def _default_surrogate(self):
        """Return the unfitted forward model used when ``surrogate`` is None."""
        raise AssertionError("every inverter names its default forward model")

    def _start_fit(self, observations, params):
        """Check the training pairs, fit the forward model, settle box and scales.

        Returns
        -------
        trajectories : ndarray of shape (n_samples, n_times, n_channels)
            The training observations.

        unit_params : ndarray of shape (n_samples, n_params)
            The training params in the unit box.
        """
        model, n_channels = self._forward_model, self.n_channels
        if n_channels is None and not isinstance(model, type):
            n_channels = getattr(model, "n_channels_", None)  # if it is ready
        trajectories = check_observations(
            self,
            observations,
            n_channels=n_channels,
            reset=True,
            ensure_min_samples=2,
        )
        self._params_are_1d = np.asarray(params).ndim == 1
        params = check_params(params, n_samples=len(trajectories))
        _, self.n_times_, self.n_channels_ = trajectories.shape
        self.n_params_ = params.shape[1]
        self._mean_params = self._shape_params(params.mean(axis=0))
        check_noise_std(self.noise_std, shape=trajectories[:1].shape)
        self._check_options()

        self.surrogate_ = self._fit_surrogate(trajectories, params)
        self.scaler_ = self._settle_box(params)
        self.channel_scaler_ = ChannelScaler(trajectories)
        self._warn_of_wider_box()
        return trajectories, self.scaler_.to_unit(params)

    def _check_options(self):
        """Refuse what can be refused before the forward model is trained."""

    def _warn_of_wider_box(self):
        """Say so when params are sought where the forward model was never trained."""
        learned = self.surrogate_.scaler_.bounds
        slack = 0.05 * (learned[:, 1] - learned[:, 0])
        low, high = self.scaler_.bounds.T
        wider = (low < learned[:, 0] - slack) | (high > learned[:, 1] + slack)
        if hasattr(self.surrogate_, "error_") and wider.any():
            j = int(np.argmax(wider))
            warnings.warn(
                f"Params are sought in a box wider than the surrogate's in {wider.sum()} "
                f"of {len(wider)} params: param {j} in {self.scaler_.bounds[j]}, trained "
                f"in {learned[j]}. Its error there is unknown; train it on the wider "
                "box, or narrow `bounds`.",
                ExtrapolationWarning,
                stacklevel=5,
            )

    @property
    def _forward_model(self):
        """The forward model as the user gave it."""
        return self.surrogate

    def _settle_box(self, params):
        """Return the box that the user gave, or that of the forward model."""
        forward_box = self.surrogate_.scaler_
        bounds = forward_box.bounds if self.bounds is None else self.bounds
        scale = forward_box.scale if self.scale is None else self.scale
        return ParamScaler.from_data(params, bounds=bounds, scale=scale)

    def _fit_surrogate(self, trajectories, params):
        """Return a forward model that fits the training pairs, trained if it must be."""
        surrogate = self._forward_model
        if self.bounds is not None:
            check_bounds(self.bounds, n_params=self.n_params_)
        surrogate = self._default_surrogate() if surrogate is None else clone(surrogate)
        if hasattr(surrogate, "fit"):
            surrogate = surrogate.fit(trajectories, params)
        expected = (self.n_times_, self.n_channels_, self.n_params_)
        sizes = (surrogate.n_times_, surrogate.n_channels_, surrogate.n_params_)
        if sizes != expected:
            raise ValueError(
                "The forward model and the training pairs must agree in (n_times, "
                f"n_channels, n_params). The forward model has {sizes}, the pairs have "
                f"{expected}. Check `n_channels`, or refit the forward model on these "
                "pairs."
            )
        return surrogate

    def _check_readings(self, observations):
        """Return observations to invert, of shape (n_samples, n_times, n_channels)."""
        check_is_fitted(self)
        return check_observations(self, observations, n_channels=self.n_channels_)

    def _to_forward_box(self, unit_params):
        """Map a tensor from this inverter's unit box to the forward model's."""
        forward_box = self.surrogate_.scaler_
        if self.scaler_ == forward_box:
            return unit_params
        physical = self.scaler_.to_physical_tensor(unit_params.double())
        return forward_box.to_unit_tensor(physical).to(unit_params.dtype)

    def _shape_params(self, params):
        """Give (n_samples, …, n_params) the shape of the params seen in ``fit``."""
        return params[..., 0] if self._params_are_1d else params

    def predict(self, observations):
        """Estimate the params behind each sample of observations.

        Parameters
        ----------
        observations : array-like of shape (n_samples, n_times * n_channels) or \
(n_samples, n_times, n_channels)
            Readings, NaN where nothing was measured.

        Returns
        -------
        params : ndarray of shape (n_samples, n_params) or (n_samples,)
            In the params' own units, shaped as the params seen in ``fit``.
        """
        return self._shape_params(self._estimate(self._check_readings(observations)))

    def reconstruct(self, observations):
        """Return the trajectories that the forward model gives at the estimate.

        Parameters
        ----------
        observations : array-like as in :meth:`predict`
            Readings, NaN where nothing was measured.

        Returns
        -------
        trajectories : ndarray of shape (n_samples, n_times, n_channels)
            In units of the channels; NaN for samples without an estimate.
        """
        readings = self._check_readings(observations)
        estimate = self._estimate(readings)
        known = np.isfinite(estimate).all(axis=1)
        trajectories = np.full(readings.shape, np.nan)
        if known.any():
            trajectories[known] = self.surrogate_.simulate(estimate[known])
        return trajectories

    def score(self, X, y, sample_weight=None):
        """Return R², averaged over params, of the estimates.

        Parameters
        ----------
        X : array-like as in :meth:`predict`
            Readings, NaN where nothing was measured.

        y : array-like of shape (n_samples, n_params) or (n_samples,)
            True params.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples.

        Returns
        -------
        score : float
            One is perfect; zero is what the mean of the training params scores, which a
            sample without an estimate is given too.
        """
        estimate = self.predict(X)
        estimate = np.where(np.isnan(estimate), self._mean_params, estimate)
        return r2_score(y, estimate, sample_weight=sample_weight)

    def _estimate(self, readings):
        """Return params in their own units, of shape (n_samples, n_params)."""
        raise AssertionError("every inverter gives an estimate")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags


class PosteriorInverter(BaseInverter):
    """An inverter that also says how sure to be.

    A subclass implements ``_posterior_mean_std(readings)`` and ``sample``.
    """

    def predict(self, observations, return_std=False):
        """Estimate the params behind each sample of observations.

        Parameters
        ----------
        observations : array-like of shape (n_samples, n_times * n_channels) or \
(n_samples, n_times, n_channels)
            Readings, NaN where nothing was measured.

        return_std : bool, default=False
            Whether to return the posterior standard deviation too.

        Returns
        -------
        params : ndarray of shape (n_samples, n_params) or (n_samples,)
            Posterior mean as the method sees it, in the params' own units; shaped as
            the params seen in ``fit``.

        std : ndarray of the same shape
            Posterior standard deviation. Only if ``return_std``.
        """
        mean, std = self._posterior_mean_std(self._check_readings(observations))
        mean, std = self._shape_params(mean), self._shape_params(std)
        return (mean, std) if return_std else mean

    def _estimate(self, readings):
        return self._posterior_mean_std(readings)[0]

    def _posterior_mean_std(self, readings):
        """Return mean and standard deviation in the params' own units."""
        raise AssertionError("every inverter of this kind has a posterior")
