"""GradientInverter: fit each sample's params by following derivatives of the misfit."""

from numbers import Integral, Real

import numpy as np
import torch

from sklearn_inverse.inverse._objective import Objective
from sklearn_inverse.inverse._point import LaplaceInverter
from sklearn_inverse.optim._descent import descend
from sklearn_inverse.optim._lbfgs import lbfgs
from sklearn_inverse.optim._levenberg_marquardt import levenberg_marquardt
from sklearn_inverse.optim._status import InversionStatus
from sklearn_inverse.utils._sklearn import (
    HasMethods,
    Interval,
    StrOptions,
    _fit_context,
)

__all__ = [
    "GradientInverter",
    "TanhBox",
    "climb",
    "growing_horizons",
    "through_stages",
]

FIRST_SHARE = 0.1  # of the observed times that a growing horizon begins with


class GradientInverter(LaplaceInverter):
    r"""Recover params by gradients through the forward model, sample by sample.

    The default finds the maximum of the posterior by damped Gauss–Newton steps
    (Levenberg–Marquardt) and takes the curvature there for the uncertainty. With the
    exact simulator as forward model that is, to first order, as good as the data allow.

    Parameters
    ----------
    surrogate : ODESurrogate, ODESimulator or FrozenEstimator, default=None
        Forward model. A copy of it is fitted on the pairs; wrap a fitted one in
        :class:`sklearn.frozen.FrozenEstimator` to share it as it is. If None, an
        :class:`ODESurrogate` with its defaults.

    optimizer : {"gauss_newton", "lbfgs", "adam", "sgd"}, default="gauss_newton"
        - "gauss_newton": maximum of the posterior, and its covariance;
        - "lbfgs": the same maximum by gradients alone; cheaper where there are more
          params than readings;
        - "adam", "sgd": the baseline of the paper [1]_, a fixed number of steps on the
          mean absolute misfit from many random starts, whose ends are averaged. No
          prior, and no uncertainty.

    start : {"center", "random"} or array-like of shape (n_params,), default="center"
        Where the first start is made: in the middle of the box, at a random point, or
        at params in their own units, such as published ones.

    n_starts : int, default=None
        Most starts per sample. Those after the first are random points that all samples
        share, and made only while none so far explains the readings to within their
        noise. If None, 5; for "adam" and "sgd" 100, all of which are made.

    max_iter : int, default=None
        Most iterations of a start at each horizon. If None, 50 ("gauss_newton"), 200
        ("lbfgs") or 100 ("adam", "sgd").

    tol : float, default=1e-5
        A start has converged when a step gains less than this share of one plus the
        objective. Not used by "adam" and "sgd".

    lr : float, default=None
        Learning rate. If None, 0.1 for "adam", 2.0 for "sgd", on the scale of
        :math:`\operatorname{artanh}(2u - 1)`, u in the unit box.

    horizon : {"growing", "full"}, default="growing"
        "growing" fits the first tenth of each sample's observed times first, though no
        fewer than hold twice as many readings as there are params, and doubles their
        number until all are fitted. Oscillating systems have a local optimum for each
        phase they can be out of; this passes them by. "full" fits all readings at once,
        as "adam" and "sgd" always do.

    prior : {"normal"} or None, default="normal"
        Prior of the unit params: normal, with the mean and variance of the box, or none
        at all, which makes the estimate that of maximum likelihood inside the box, and
        its variance what the readings alone tell.

    n_channels : int, default=None
        Channels of the observations. If None, those of a forward model that needs no
        fitting, else taken from 3-D observations, else 1.

    bounds : array-like of shape (n_params, 2), default=None
        Box in which params are sought, in their own units. If None, that of the forward
        model.

    scale : {"linear", "log10"} or list of them, default=None
        Scale on which params are estimated. If None, that of the forward model.

    noise_std : float or array-like of shape (n_channels,), default=None
        Noise of the readings, in units of the observations. The surrogate's held-out
        error is added to it. None means noise-free.

    chunk_size : int, default=64
        Samples inverted together.

    n_jobs : int, default=None
        Workers over which chunks are spread. None means 1 unless in a
        :obj:`joblib.parallel_config` context; -1 means all cores.

    device : {"auto", "cpu", "cuda", …}, default="auto"
        Where to compute. "auto" takes a GPU where there is one.

    random_state : int, RandomState instance or None, default=None
        Seeds the starts.

    verbose : int, default=0
        Whether to show a progress bar.

    Attributes
    ----------
    surrogate_ : forward model
        The fitted one.

    scaler_ : ParamScaler
        Map from params to the unit box.

    channel_scaler_ : ChannelScaler
        Spread of the channels.

    n_iter_ : int
        Iterations of the trial on the first sample that ends ``fit``: one, or as few as
        the method takes. Those of predictions are told by :meth:`invert`.

    n_features_in_ : int
        ``n_times * n_channels``.

    See Also
    --------
    RefinedInverter : Polish another inverter's estimates on the exact simulator.
    CMAESInverter : Needs no derivatives.

    Notes
    -----
    Objective, prior and box are those of all optimising inverters: half the squared
    residuals over their noise, plus a normal prior with mean and variance of the box.
    "gauss_newton" keeps inside the box by projection; the others by
    :math:`u = (1 + \tanh\zeta) / 2`. The covariance is that of the best optimum found;
    other optima are not spoken of.

    References
    ----------
    .. [1] "INO: Inverse neural operator for stiff ODE parameter recovery": the gradient
       baseline, L1 misfit of sparse readings.

    Examples
    --------
    >>> from sklearn_inverse import GradientInverter, ODESimulator
    >>> from sklearn_inverse.datasets import make_inverse_problem
    >>> from sklearn_inverse.problems import lotka_volterra
    >>> system = lotka_volterra()
    >>> pairs = make_inverse_problem(system, 4, noise_std=0.5, random_state=0)
    >>> inverter = GradientInverter(
    ...     ODESimulator(system), noise_std=0.5, random_state=0
    ... ).fit(pairs.observations, pairs.params)
    >>> mean, std = inverter.predict(pairs.observations, return_std=True)
    >>> bool((abs(mean - pairs.params) < 4 * std).all())
    True
    """

    _parameter_constraints: dict = {
        "surrogate": [HasMethods(["forward", "simulate"]), None],
        "optimizer": [StrOptions({"gauss_newton", "lbfgs", "adam", "sgd"})],
        "start": [StrOptions({"center", "random"}), "array-like"],
        "n_starts": [Interval(Integral, 1, None, closed="left"), None],
        "max_iter": [Interval(Integral, 1, None, closed="left"), None],
        "tol": [Interval(Real, 0, None, closed="left")],
        "lr": [Interval(Real, 0, None, closed="neither"), None],
        "horizon": [StrOptions({"full", "growing"})],
        "prior": [StrOptions({"normal"}), None],
        "n_channels": [Interval(Integral, 1, None, closed="left"), None],
        "bounds": ["array-like", None],
        "scale": [StrOptions({"linear", "log10"}), list, np.ndarray, None],
        "noise_std": [Interval(Real, 0, None, closed="left"), "array-like", None],
        "chunk_size": [Interval(Integral, 1, None, closed="left")],
        "n_jobs": [Integral, None],
        "device": [str, torch.device],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        surrogate=None,
        *,
        optimizer="gauss_newton",
        start="center",
        n_starts=None,
        max_iter=None,
        tol=1e-5,
        lr=None,
        horizon="growing",
        prior="normal",
        n_channels=None,
        bounds=None,
        scale=None,
        noise_std=None,
        chunk_size=64,
        n_jobs=None,
        device="auto",
        random_state=None,
        verbose=0,
    ):
        self.surrogate = surrogate
        self.optimizer = optimizer
        self.start = start
        self.n_starts = n_starts
        self.max_iter = max_iter
        self.tol = tol
        self.lr = lr
        self.horizon = horizon
        self.prior = prior
        self.n_channels = n_channels
        self.bounds = bounds
        self.scale = scale
        self.noise_std = noise_std
        self.chunk_size = chunk_size
        self.n_jobs = n_jobs
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, observations, params):
        """Settle box and scales, and train the forward model if it must be.

        Parameters
        ----------
        observations : array-like of shape (n_samples, n_times * n_channels) or \
(n_samples, n_times, n_channels)
            Simulated trajectories.

        params : array-like of shape (n_samples, n_params) or (n_samples,)
            Params that produced them, in their own units.

        Returns
        -------
        self : GradientInverter
            The inverter, ready to predict.
        """
        trajectories, _ = self._start_fit(observations, params)
        return self._try_out(trajectories)

    @property
    def _ends_by_converging(self):
        return self.optimizer in ("gauss_newton", "lbfgs")

    def _has_posterior(self):
        if self._ends_by_converging:
            return True
        raise AttributeError(
            f"optimizer={self.optimizer!r} gives no uncertainty. Use 'gauss_newton' or "
            "'lbfgs' for `return_std=True` and `sample`."
        )

    def _invert_chunk(self, readings, noise):
        if not self._ends_by_converging:
            return self._descend_chunk(readings, noise)
        objective = self._objective(readings, noise)
        stages = [(objective, None)]
        if self.horizon == "growing":
            stages = growing_horizons(objective, self.n_params_)

        def climb_once(start, sample, k):
            return through_stages(stages, self._optimize, start, sample)

        starts = self._starts(self.n_starts or 5, self.start)
        starts = starts.expand(len(readings), -1, -1)
        return climb(self, objective, starts, climb_once)

    def _optimize(self, objective: Objective, start, sample):
        if self.optimizer == "gauss_newton":
            return levenberg_marquardt(
                objective, start, sample, max_iter=self.max_iter or 50, tol=self.tol
            )
        box = TanhBox(objective, sample)
        end = lbfgs(
            box, box.inside_out(start), max_iter=self.max_iter or 200, tol=self.tol
        )
        unit = box.unit(end.unit)
        return end._replace(unit=unit, hessian=objective.linearize(unit, sample)[2])

    def _descend_chunk(self, readings, noise):
        """Average the ends of many starts, as the paper does."""
        n_readings = (~np.isnan(readings)).sum(axis=(1, 2), keepdims=True)
        spread = np.broadcast_to(n_readings * self.channel_scaler_.std, noise.shape)
        mean_absolute = self._objective(
            readings, spread, loss="l1", prior_precision=0.0
        )
        n_samples, n_starts = len(readings), self.n_starts or 100
        starts = self._starts(n_starts, self.start).repeat(n_samples, 1)
        sample = torch.arange(n_samples).repeat_interleave(n_starts).to(starts.device)
        box = TanhBox(mean_absolute, sample)
        end = descend(
            box,
            box.inside_out(starts),
            method=self.optimizer,
            lr=self.lr or {"adam": 0.1, "sgd": 2.0}[self.optimizer],
            max_iter=self.max_iter or 100,
        )
        status = end.status.reshape(n_samples, n_starts)
        failed = status == InversionStatus.FAILED
        interrupted = (status == InversionStatus.INTERRUPTED).any(dim=1)
        status = torch.where(interrupted, status.amax(dim=1), status.amin(dim=1))
        unit = box.unit(end.unit).reshape(n_samples, n_starts, -1)
        unit = torch.where(failed[..., None], torch.nan, unit).nanmean(dim=1)
        objective = self._objective(readings, noise)
        objective.n_forward = mean_absolute.n_forward
        return self._summarize(
            objective,
            unit,
            starts[sample == 0][:1].expand(n_samples, -1),
            end.n_iter.reshape(n_samples, n_starts).sum(dim=1),
            status,
            failed.sum(dim=1),
        )


def climb(inverter, objective, starts, climb_once):
    """Try starts one after the other until one explains the readings; keep the best.

    Parameters
    ----------
    inverter : PointInverter
        Summarizes.

    objective : Objective
        What to minimize.

    starts : Tensor of shape (n_samples, n_starts, n_params)
        In the order in which they are tried.

    climb_once : callable
        ``climb_once(start, sample, k) -> Optimum`` with a Hessian, from the ``k``-th
        start.

    Returns
    -------
    result : InversionResult
        With ``params`` in the unit box.
    """
    n_samples, n_starts, n_params = starts.shape
    sample = torch.arange(n_samples, device=starts.device)
    best_value = starts.new_full((n_samples,), torch.inf)
    best = starts[:, 0].clone()
    hessian = starts.new_zeros(n_samples, n_params, n_params)
    status = torch.full_like(sample, InversionStatus.FAILED)
    n_iter, n_failed = torch.zeros_like(sample), torch.zeros_like(sample)
    first = starts[:, 0].clone()
    open_samples = sample
    try:
        for k in range(n_starts):
            end = climb_once(starts[open_samples, k], open_samples, k)
            interrupted = (end.status == InversionStatus.INTERRUPTED).any()
            if interrupted:
                # Perhaps in an early stage, whose values are of fewer readings.
                value, _, curvature = objective.linearize(end.unit, open_samples)
                end = end._replace(value=value, hessian=curvature)
            n_iter[open_samples] += end.n_iter
            n_failed[open_samples] += (~end.value.isfinite()).long()
            better = end.value < best_value[open_samples]
            i = open_samples[better]
            best[i], best_value[i] = end.unit[better], end.value[better]
            hessian[i], status[i] = end.hessian[better], end.status[better]
            if interrupted:
                raise KeyboardInterrupt
            _, explained = objective.misfit(best[open_samples], open_samples)
            open_samples = open_samples[~explained]
            if len(open_samples) == 0:
                break
    except KeyboardInterrupt:
        status[open_samples] = InversionStatus.INTERRUPTED
    # What failed has no curvature, and no estimate either.
    lost = ~best_value.isfinite()
    hessian[lost] = torch.eye(n_params).to(hessian)
    return inverter._summarize(
        objective, best, first, n_iter, status, n_failed, hessian
    )


def through_stages(stages, optimize, start, sample):
    """Optimize one stage after the other, each from where the last one ended.

    A stage that knows no more of a sample than the one before leaves it as it is.
    """
    (first, _), *others = stages
    end = optimize(first, start, sample)
    for objective, knows_more in others:
        if (end.status == InversionStatus.INTERRUPTED).any():
            break
        rows = knows_more[sample].nonzero()[:, 0]
        if len(rows) == 0:
            continue
        later = optimize(objective, end.unit[rows], sample[rows])
        later.n_iter.add_(end.n_iter[rows])
        for whole, part in zip(end, later):
            whole[rows] = part
    return end


def growing_horizons(objective, n_params):
    """Return stages that know ever more of the observed times, the last one all.

    Returns
    -------
    stages : list of (Objective, Tensor of bool of shape (n_samples,))
        With which samples each knows more of than the one before.
    """
    seen = ~objective.readings.isnan()
    is_observed = seen.any(dim=2)
    n_times = is_observed.sum(dim=1)
    # Twice as many readings as params at least: fewer say too little to begin with.
    few = seen.sum(dim=2).cumsum(dim=1) < 2 * n_params
    fewest = (few & is_observed).sum(dim=1) + 1
    n_observed = torch.maximum((FIRST_SHARE * n_times).ceil().long(), fewest)
    stages, knows_more = [], torch.ones_like(n_times, dtype=torch.bool)
    while (n_observed < n_times).any():
        stages.append((objective.up_to(n_observed), knows_more))
        knows_more = n_observed < n_times
        n_observed = 2 * n_observed
    return [*stages, (objective, knows_more)]


class TanhBox:
    r"""An objective of the unit box as a function of :math:`\zeta` on the whole line.

    .. math:: u = \tfrac12 (1 + \tanh \zeta)

    Parameters
    ----------
    objective : Objective
        The objective.

    sample : Tensor of shape (n_rows,)
        Which sample each row belongs to.
    """

    def __init__(self, objective, sample):
        self.objective, self.sample = objective, sample

    def __call__(self, zeta, rows):
        """Return value and gradient by ``zeta`` of the problems at ``rows``."""
        unit = self.unit(zeta)
        value, gradient = self.objective.gradient(unit, self.sample[rows])
        return value, gradient * 2 * unit * (1 - unit)

    @staticmethod
    def unit(zeta):
        """Return unit params."""
        return 0.5 * (1 + zeta.tanh())

    @staticmethod
    def inside_out(unit):
        """Return the coordinates of unit params, a little off the walls."""
        return (2 * unit.clamp(1e-6, 1 - 1e-6) - 1).atanh()
