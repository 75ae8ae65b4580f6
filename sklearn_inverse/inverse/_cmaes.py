"""CMAESInverter: evolution strategies of many samples in step, one forward call for all."""

from numbers import Integral, Real

import numpy as np
import torch

from sklearn_inverse.inverse._point import PointInverter
from sklearn_inverse.optim._status import InversionStatus
from sklearn_inverse.utils._sklearn import (
    HasMethods,
    Interval,
    StrOptions,
    _fit_context,
)

__all__ = ["CMAESInverter"]

WORST = 1e300  # finite stand-in for a failed simulation: only ranks matter


class CMAESInverter(PointInverter):
    """Recover params by CMA-ES on the misfit: no derivatives, only forward runs.

    Each sample has its own evolution strategy (pycma [1]_). All of a chunk advance in
    step, so that a generation of all of them is one batched call of the forward model;
    those that have converged drop out.

    Parameters
    ----------
    surrogate : ODESurrogate, ODESimulator or FrozenEstimator, default=None
        Forward model. A copy of it is fitted on the pairs; wrap a fitted one in
        :class:`sklearn.frozen.FrozenEstimator` to share it as it is. If None, an
        :class:`ODESurrogate` with its defaults.

    sigma0 : float, default=0.3
        Initial step size in the unit box.

    popsize : int, default=None
        Points per generation. If None, ``4 + 3 log(n_params)``, pycma's.

    max_iter : int, default=1000
        Most generations of a run.

    tol : float, default=1e-4
        A run has converged when the best values of a generation and of recent ones
        differ by less than this (pycma's ``tolfun`` and ``tolfunhist``); the objective
        is minus the logarithm of the posterior.

    restarts : {"ipop", "bipop"}, default=None
        Restart runs that end without explaining the readings to within their noise, at
        random points: with the population doubled each time, or also, as long as they
        have cost less, with small populations and steps. If None, never.

    n_restarts : int, default=5
        Most restarts with a doubled population.

    prior : {"normal"} or None, default="normal"
        Prior of the unit params: normal, with the mean and variance of the box, or none
        at all, which makes the estimate that of maximum likelihood inside the box.

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

    chunk_size : int, default=256
        Samples that advance together.

    n_jobs : int, default=None
        Workers over which chunks are spread: lower ``chunk_size`` where there are too
        few of them. None means 1 unless in a :obj:`joblib.parallel_config` context; -1
        means all cores.

    device : {"auto", "cpu", "cuda", …}, default="auto"
        Where to run the forward model. "auto" takes a GPU where there is one.

    random_state : int, RandomState instance or None, default=None
        Seeds the strategies. All samples share their random numbers.

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
    GradientInverter : Far fewer forward runs, where there are derivatives.
    RefinedInverter : Adds exact Gauss–Newton steps, and an uncertainty.

    Notes
    -----
    Objective, prior and box are those of :class:`GradientInverter`. The covariance of
    the strategy says how it searches, not how sure to be, so no uncertainty is given.

    References
    ----------
    .. [1] N. Hansen, Y. Akimoto, P. Baudis, "CMA-ES/pycma on Github", Zenodo,
       doi:10.5281/zenodo.2559634.

    .. [2] N. Hansen, "Benchmarking a BI-population CMA-ES on the BBOB-2009 function
       testbed", GECCO 2009.

    Examples
    --------
    >>> from sklearn_inverse import CMAESInverter, ODESimulator
    >>> from sklearn_inverse.datasets import make_inverse_problem
    >>> from sklearn_inverse.problems import lotka_volterra
    >>> system = lotka_volterra()
    >>> pairs = make_inverse_problem(system, 2, noise_std=0.5, random_state=0)
    >>> inverter = CMAESInverter(
    ...     ODESimulator(system), restarts="ipop", noise_std=0.5, random_state=0
    ... ).fit(pairs.observations, pairs.params)
    >>> inverter.invert(pairs.observations)
    InversionResult(2 samples: 2 converged; 2 explained)
    """

    _advice = "set `restarts`"
    _tried = "points"

    _parameter_constraints: dict = {
        "surrogate": [HasMethods(["forward", "simulate"]), None],
        "sigma0": [Interval(Real, 0, None, closed="neither")],
        "popsize": [Interval(Integral, 4, None, closed="left"), None],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "restarts": [StrOptions({"ipop", "bipop"}), None],
        "n_restarts": [Interval(Integral, 0, None, closed="left")],
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
        sigma0=0.3,
        popsize=None,
        max_iter=1000,
        tol=1e-4,
        restarts=None,
        n_restarts=5,
        prior="normal",
        n_channels=None,
        bounds=None,
        scale=None,
        noise_std=None,
        chunk_size=256,
        n_jobs=None,
        device="auto",
        random_state=None,
        verbose=0,
    ):
        self.surrogate = surrogate
        self.sigma0 = sigma0
        self.popsize = popsize
        self.max_iter = max_iter
        self.tol = tol
        self.restarts = restarts
        self.n_restarts = n_restarts
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
        self : CMAESInverter
            The inverter, ready to predict.
        """
        trajectories, _ = self._start_fit(observations, params)
        return self._try_out(trajectories)

    def _invert_chunk(self, readings, noise):
        objective = self._objective(readings, noise)
        device = objective.readings.device
        n_samples = len(readings)
        searches = [Search(self, self.n_params_) for _ in range(n_samples)]
        running = list(range(n_samples))
        try:
            while running:
                asked = [searches[i].ask() for i in running]
                sizes = [len(points) for points in asked]
                unit = torch.as_tensor(np.concatenate(asked), device=device)
                sample = torch.as_tensor(np.repeat(running, sizes), device=device)
                values = objective.value(unit, sample).cpu().numpy()
                for i, part in zip(running, np.split(values, np.cumsum(sizes)[:-1])):
                    searches[i].tell(part)
                running = self._go_on(searches, running, objective)
        except KeyboardInterrupt:
            for i in running:
                searches[i].status = InversionStatus.INTERRUPTED
        rows = [(s.best, s.n_iter, s.status, s.n_failed) for s in searches]
        unit, n_iter, status, n_failed = (
            torch.as_tensor(np.array(column), device=device) for column in zip(*rows)
        )
        center = torch.full_like(unit, 0.5)
        return self._summarize(objective, unit, center, n_iter, status, n_failed)

    def _go_on(self, searches, running, objective):
        """Return the samples that still search, restarted where they must."""
        ended = [i for i in running if searches[i].has_ended()]
        if ended and self.restarts is not None:
            best = torch.as_tensor(np.array([searches[i].best for i in ended]))
            device = objective.readings.device
            _, explained = objective.misfit(
                best.to(device), torch.as_tensor(ended, device=device)
            )
            ended = [
                i
                for i, is_done in zip(ended, explained.tolist())
                if is_done or not searches[i].restart()
            ]
        return sorted(set(running) - set(ended))


class Search:
    """The evolution strategy of one sample, with its restarts.

    Parameters
    ----------
    inverter : CMAESInverter
        Its settings, fitted.

    n_params : int
        Dimension of the unit box.
    """

    def __init__(self, inverter, n_params):
        self.inverter, self.n_params = inverter, n_params
        # pycma does not search on a line; a second coordinate that nothing depends on
        # makes it a plane.
        self.n_searched = max(n_params, 2)
        self.rng = np.random.default_rng(inverter._start_seed)
        self.best, self.best_value = np.full(n_params, 0.5), np.inf
        self.n_iter = self.n_failed = 0
        self.n_doubled = self.cost_large = self.cost_small = 0
        self.is_small = False
        self.status = InversionStatus.FAILED
        self._begin(np.full(self.n_searched, 0.5), inverter.sigma0, inverter.popsize)

    def ask(self):
        """Return the unit params of a generation, (popsize, n_params)."""
        self.points = self.strategy.ask()
        return np.array(self.points)[:, : self.n_params]

    def tell(self, values):
        """Take the objective of each point; infinite where the simulation failed."""
        failed = ~np.isfinite(values)
        self.n_failed += int(failed.sum())
        self.n_iter += 1
        self.strategy.tell(self.points, list(np.where(failed, WORST, values)))
        i = int(np.argmin(np.where(failed, np.inf, values)))
        if values[i] < self.best_value:
            self.best, self.best_value = self.points[i][: self.n_params], values[i]

    def has_ended(self):
        """Whether this run has ended; says how."""
        reasons = self.strategy.stop()
        if not reasons:
            return False
        if np.isfinite(self.best_value):
            by_number = set(reasons) <= {"maxiter", "maxfevals"}
            self.status = (
                InversionStatus.MAX_ITER if by_number else InversionStatus.CONVERGED
            )
        return True

    def restart(self):
        """Begin another run if one is left."""
        spent = self.strategy.countevals
        self.cost_small += spent * self.is_small
        self.cost_large += spent * (not self.is_small)
        start = self.rng.random(self.n_searched)
        popsize = self.inverter.popsize or 4 + int(3 * np.log(self.n_searched))
        sigma = self.inverter.sigma0
        bipop = self.inverter.restarts == "bipop"
        self.is_small = bipop and self.n_doubled and self.cost_small < self.cost_large
        if self.is_small:
            # BIPOP: sizes between the first and half the largest, smaller steps.
            share = self.rng.random() ** 2
            popsize = int(popsize * (0.5 * 2**self.n_doubled) ** share)
            sigma = sigma * 10 ** (-2 * self.rng.random())
        elif self.n_doubled >= self.inverter.n_restarts:
            return False
        else:
            self.n_doubled += 1
            popsize *= 2**self.n_doubled
        self._begin(start, sigma, popsize)
        return True

    def _begin(self, start, sigma, popsize):
        import cma  # takes a second to import

        options = {
            "bounds": [0, 1],
            "maxiter": self.inverter.max_iter,
            "tolfun": self.inverter.tol,
            "tolfunhist": self.inverter.tol,
            "seed": np.nan,  # leave NumPy's global generator alone
            "randn": lambda *shape: self.rng.standard_normal(shape),
            "verbose": -9,
            "verb_log": 0,
        }
        if popsize is not None:
            options["popsize"] = popsize
        self.strategy = cma.CMAEvolutionStrategy(start, sigma, options)
