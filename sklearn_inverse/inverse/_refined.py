"""RefinedInverter: polish another inverter's estimates on the exact model."""

from numbers import Integral, Real

import numpy as np
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator

from sklearn_inverse.base import BaseInverter
from sklearn_inverse.inverse._checked_search import CheckedInverter
from sklearn_inverse.inverse._search import FARTHEST
from sklearn_inverse.optim._continuation import continuation, growing_horizons
from sklearn_inverse.optim._levenberg_marquardt import levenberg_marquardt
from sklearn_inverse.optim._multistart import multistart
from sklearn_inverse.probability import InversionStatus
from sklearn_inverse.utils._docs import SEARCHING, SOLVES, shared_docs
from sklearn_inverse.utils._sklearn import HasMethods, Interval, _fit_context

__all__ = ["RefinedInverter"]


@shared_docs
class RefinedInverter(CheckedInverter):
    """Refine the estimates of any inverter by Gauss–Newton steps on an exact model.

    An amortized inverter, or one on a surrogate, is quick but carries the surrogate's
    error. A few exact steps from its estimate remove that, and give the posterior of
    the exact model.

    Parameters
    ----------
    inverter : inverter
        Where to set out from. A copy of it is fitted on the pairs; wrap a fitted one in
        :class:`sklearn.frozen.FrozenEstimator` to keep it as it is.

    model : system, forward model, FrozenEstimator or callable
        What is inverted; its prior and its noise count. See :class:`GradientInverter`.

    n_draws : int, default=0
        Draws from the inverter's posterior to set out from too.

    max_iter : int, default=50
        Most steps from each start.

    tol : float, default=1e-6
        A start has converged when no step promises to gain more than this, times the
        number of readings, of the log posterior.

    %(max_solves)s

    %(searching)s

    Attributes
    ----------
    inverter_ : inverter
        The fitted one.

    %(model_)s

    %(n_iter_)s

    %(n_features_in_)s

    See Also
    --------
    GradientInverter : The same steps from draws of the prior.

    Notes
    -----
    Where no start leads to an explanation of the readings, the first is tried again over
    a growing horizon. ``start_misfit`` of the answer is that of the inverter's estimate.

    Examples
    --------
    >>> import torch
    >>> from sklearn_inverse import CMAESInverter, ForwardFunction, RefinedInverter
    >>> t = torch.tensor([0.0, 1.0, 2.0, 4.0])
    >>> model = ForwardFunction(
    ...     lambda rate: torch.exp(-rate * t), params={"rate": (0.1, 3.0)}, noise=0.02
    ... )
    >>> measured = [[1.0, 0.37, 0.15, 0.02]]
    >>> rough = CMAESInverter(model, tol=0.1, random_state=0)
    >>> refined = RefinedInverter(rough, model, random_state=0).fit(measured)
    >>> refined.posterior(measured)
    Posterior(1 samples: 1 converged; 1 explained)
    """

    _advice = "raise `n_draws`"

    _parameter_constraints: dict = SEARCHING | {
        "inverter": [HasMethods(["fit", "predict"])],
        "model": "no_validation",
        "n_draws": [Interval(Integral, 0, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "max_solves": SOLVES,
    }

    def __init__(
        self,
        inverter,
        model,
        *,
        n_draws=0,
        max_iter=50,
        tol=1e-6,
        max_solves=200,
        prior="model",
        chunk_size=64,
        n_jobs=None,
        device="auto",
        random_state=None,
        verbose=0,
    ):
        self.inverter = inverter
        self.model = model
        self.n_draws = n_draws
        self.max_iter = max_iter
        self.tol = tol
        self.max_solves = max_solves
        self.prior = prior
        self.chunk_size = chunk_size
        self.n_jobs = n_jobs
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, observations, params=None, *, inputs=None):
        """Fit the inverter, make the model ready, and try both on the first sample.

        Parameters
        ----------
        %(observations)s

        params : array-like of shape (n_samples, n_params), default=None
            Params that produced the observations. None will do if neither the inverter
            nor the model learns.

        %(inputs)s

        Returns
        -------
        self : RefinedInverter
            The inverter, ready to answer.
        """
        if self.n_draws and not hasattr(self.inverter, "sample"):
            raise ValueError(
                "`n_draws > 0` needs an inverter with `sample`. Got "
                f"{type(self.inverter).__name__}, which has none; use n_draws=0."
            )
        trajectories, params, inputs = self._start_fit(observations, params, inputs)
        if self._params_are_1d:
            params = params[:, 0]
        told = {"inputs": inputs} if inputs.shape[1] else {}
        self.inverter_ = clone(self.inverter).fit(trajectories, params, **told)
        return self._try_out(trajectories, inputs)

    def _per_sample(self, readings, noise_std, inputs):
        """Return scaled params where each sample sets out: its estimate, then draws."""
        starts = self._first_estimates(readings, noise_std, inputs)
        starts = np.concatenate(
            [a.reshape(len(readings), -1, self.n_params_) for a in starts], axis=1
        )
        prior = self.model_.prior_
        z = prior.to_standard(starts)
        z = np.where(np.isfinite(z), z, 0.0).clip(-FARTHEST, FARTHEST)
        return (prior.scaler.to_scaled(prior.from_standard(z)),)

    def _first_estimates(self, readings, noise_std, inputs):
        """Return the inverter's estimates, and draws if any are wanted."""
        inverter, seed = self.inverter_, self._sample_seed
        if isinstance(inverter, FrozenEstimator):
            inverter = inverter.estimator
        if not isinstance(inverter, BaseInverter):
            draws = [inverter.sample(readings, self.n_draws)] if self.n_draws else []
            return [inverter.predict(readings), *draws]
        # Without its warnings: what is wrong with a start is what will be mended here.
        answer = inverter._answer(readings, noise_std, inputs)
        if (answer.status == InversionStatus.INTERRUPTED).any():
            raise KeyboardInterrupt  # Ctrl-C in its search ends ours too
        draws = [answer.sample(self.n_draws, seed)] if self.n_draws else []
        return [answer.params, *draws]

    def _search(self, objective, starts):
        starts = torch.as_tensor(starts).to(objective.readings.device)
        n_samples, n_starts, _ = starts.shape
        sample = torch.arange(n_samples, device=starts.device)
        x = objective.with_scales(
            starts.flatten(0, 1), sample.repeat_interleave(n_starts)
        ).reshape(n_samples, n_starts, -1)

        def climb(start, sample):
            return self._optimize(objective, start, sample)

        def climb_slowly(start, sample):
            return continuation(objective, self._optimize, start, sample)

        # An estimate out of phase leads to a local optimum.
        retry = climb_slowly if len(growing_horizons(objective)) > 1 else None
        ends = multistart(objective, x, climb, retry=retry)
        return self._conclude(objective, ends, x[:, 0])

    def _optimize(self, objective, start, sample):
        return levenberg_marquardt(
            objective, start, sample, max_iter=self.max_iter, tol=self.tol
        )
