"""RefinedInverter: polish another inverter's estimates on the exact simulator."""

import warnings
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.base import clone

from sklearn_inverse.inverse._gradient import (
    climb,
    growing_horizons,
    through_stages,
)
from sklearn_inverse.inverse._point import LaplaceInverter
from sklearn_inverse.optim._levenberg_marquardt import levenberg_marquardt
from sklearn_inverse.optim._status import InversionStatus
from sklearn_inverse.utils._sklearn import (
    HasMethods,
    Interval,
    StrOptions,
    _fit_context,
)

__all__ = ["RefinedInverter"]


class RefinedInverter(LaplaceInverter):
    """Refine the estimates of any inverter by Gauss–Newton steps on an exact simulator.

    An amortized inverter, or one on a surrogate, is quick but carries the surrogate's
    error. A few exact steps from its estimate remove that, and give the covariance of
    the exact model.

    Parameters
    ----------
    inverter : inverter
        Where to set out from. A copy of it is fitted on the pairs; wrap a fitted one in
        :class:`sklearn.frozen.FrozenEstimator` to keep it as it is.

    simulator : ODESimulator
        Exact forward model; any other that has ``linearize`` will do.

    n_particles : int, default=0
        Draws from the inverter's posterior to set out from too, for samples whose
        readings the first estimate does not lead to explain. Needs an inverter with
        ``sample``.

    max_iter : int, default=50
        Most steps from each start.

    tol : float, default=1e-5
        A sample has converged when a step would gain less than this share of one plus
        the objective.

    prior : {"normal"} or None, default="normal"
        Prior of the unit params: normal, with the mean and variance of the box, or none
        at all, which makes the estimate that of maximum likelihood inside the box, and
        its variance what the readings alone tell.

    n_channels : int, default=None
        Channels of the observations. If None, those of the simulator.

    noise_std : float or array-like of shape (n_channels,), default=None
        Noise of the readings, in units of the observations. If None, the inverter's.

    chunk_size : int, default=64
        Samples refined together.

    n_jobs : int, default=None
        Workers over which chunks are spread. None means 1 unless in a
        :obj:`joblib.parallel_config` context; -1 means all cores.

    device : {"auto", "cpu", "cuda", …}, default="auto"
        Where to compute. "auto" takes a GPU where there is one.

    random_state : int, RandomState instance or None, default=None
        Seeds the draws of :meth:`sample`.

    verbose : int, default=0
        Whether to show a progress bar.

    Attributes
    ----------
    inverter_ : inverter
        The fitted one.

    surrogate_ : ODESimulator
        The simulator.

    scaler_ : ParamScaler
        Map from params to the unit box: the inverter's.

    n_iter_ : int
        Iterations of the trial on the first sample that ends ``fit``: one, or as few as
        the method takes. Those of predictions are told by :meth:`invert`.

    n_features_in_ : int
        ``n_times * n_channels``.

    See Also
    --------
    GradientInverter : The same steps from the center of the box or random points.

    Notes
    -----
    Objective, prior and steps are those of :class:`GradientInverter`. Where no start
    leads to an explanation of the readings, the first is tried again over a growing
    horizon. ``invert`` tells the misfit before (``start_misfit``) and after, and how many
    exact solves it took.

    Examples
    --------
    >>> from sklearn_inverse import GradientInverter, ODESimulator, ODESurrogate
    >>> from sklearn_inverse import RefinedInverter
    >>> from sklearn_inverse.datasets import make_inverse_problem
    >>> from sklearn_inverse.problems import lotka_volterra
    >>> system = lotka_volterra()
    >>> pairs = make_inverse_problem(system, 50, random_state=0)
    >>> quick = GradientInverter(
    ...     ODESurrogate(n_channels=2, max_epochs=1, random_state=0),
    ...     bounds=system.bounds, noise_std=0.1, random_state=0,
    ... )
    >>> refined = RefinedInverter(quick, ODESimulator(system), random_state=0)
    >>> refined.fit(pairs.observations, pairs.params).invert(pairs.observations[:5])
    InversionResult(5 samples: 5 converged; 5 explained)
    """

    _advice = "raise `n_particles`"

    _parameter_constraints: dict = {
        "inverter": [HasMethods(["fit", "predict"])],
        "simulator": [HasMethods(["simulate", "linearize"])],
        "n_particles": [Interval(Integral, 0, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "prior": [StrOptions({"normal"}), None],
        "n_channels": [Interval(Integral, 1, None, closed="left"), None],
        "noise_std": [Interval(Real, 0, None, closed="left"), "array-like", None],
        "chunk_size": [Interval(Integral, 1, None, closed="left")],
        "n_jobs": [Integral, None],
        "device": [str, torch.device],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    bounds = scale = None  # the inverter's

    def __init__(
        self,
        inverter,
        simulator,
        *,
        n_particles=0,
        max_iter=50,
        tol=1e-5,
        prior="normal",
        n_channels=None,
        noise_std=None,
        chunk_size=64,
        n_jobs=None,
        device="auto",
        random_state=None,
        verbose=0,
    ):
        self.inverter = inverter
        self.simulator = simulator
        self.n_particles = n_particles
        self.max_iter = max_iter
        self.tol = tol
        self.prior = prior
        self.n_channels = n_channels
        self.noise_std = noise_std
        self.chunk_size = chunk_size
        self.n_jobs = n_jobs
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, observations, params):
        """Fit the inverter, and check that the simulator fits the pairs.

        Parameters
        ----------
        observations : array-like of shape (n_samples, n_times * n_channels) or \
(n_samples, n_times, n_channels)
            Simulated trajectories.

        params : array-like of shape (n_samples, n_params) or (n_samples,)
            Params that produced them, in their own units.

        Returns
        -------
        self : RefinedInverter
            The inverter, ready to predict.
        """
        trajectories, _ = self._start_fit(observations, params)
        return self._try_out(trajectories)

    @property
    def _forward_model(self):
        return self.simulator

    @property
    def _own_noise_std(self):
        inherited = getattr(self.inverter_, "noise_std", None)
        return inherited if self.noise_std is None else self.noise_std

    def _check_options(self):
        if self.n_particles and not hasattr(self.inverter, "sample"):
            raise ValueError(
                "`n_particles > 0` needs an inverter with `sample`. Got "
                f"{type(self.inverter).__name__}, which has none; use n_particles=0."
            )

    def _fit_surrogate(self, trajectories, params):
        simulator = super()._fit_surrogate(trajectories, params)
        flat = params[:, 0] if self._params_are_1d else params
        self.inverter_ = clone(self.inverter).fit(trajectories, flat)
        return simulator

    def _settle_box(self, params):
        # A Pipeline or a search has no box of its own.
        own = getattr(self.inverter_, "scaler_", None)
        return super()._settle_box(params) if own is None else own

    def _per_sample(self, readings, noise_std):
        """Where each sample sets out: its estimate, then draws."""
        with warnings.catch_warnings():
            # Only a start: what is wrong with it is what will be mended here.
            warnings.simplefilter("ignore")
            starts = self._estimate_first(readings, noise_std)
            starts = starts.reshape(len(readings), 1, self.n_params_)
            if self.n_particles:
                draws = self.inverter_.sample(readings, self.n_particles)
                draws = draws.reshape(len(readings), -1, self.n_params_)
                starts = np.concatenate([starts, draws], axis=1)
        unit = self.scaler_.to_unit(starts)
        return (np.clip(np.where(np.isfinite(unit), unit, 0.5), 0, 1),)

    def _estimate_first(self, readings, noise_std):
        """Return the inverter's estimates; Ctrl-C in its search ends ours too."""
        if not hasattr(self.inverter_, "invert"):
            return self.inverter_.predict(readings)
        result = self.inverter_.invert(readings, noise_std=noise_std)
        if (result.status == InversionStatus.INTERRUPTED).any():
            raise KeyboardInterrupt
        return result.params

    def _invert_chunk(self, readings, noise, starts):
        objective = self._objective(readings, noise)
        starts = torch.as_tensor(starts).to(objective.readings.device)
        horizons = growing_horizons(objective, self.n_params_)
        n_starts = starts.shape[1]
        if len(horizons) > 1:
            # An estimate out of phase leads to a local optimum. The last attempt sets
            # out from it again, over horizons that grow.
            starts = torch.cat([starts, starts[:, :1]], dim=1)

        def refine(start, sample, k):
            stages = horizons if k == n_starts else [(objective, None)]
            return through_stages(stages, self._optimize, start, sample)

        return climb(self, objective, starts, refine)

    def _optimize(self, objective, start, sample):
        return levenberg_marquardt(
            objective, start, sample, max_iter=self.max_iter, tol=self.tol
        )
