"""CMAESInverter: evolution strategies of many samples in step, one forward call for all."""

from dataclasses import dataclass, fields
from numbers import Integral, Real

import numpy as np
import torch

from sklearn_inverse.inverse._search import SearchInverter
from sklearn_inverse.optim._standard import InStandard
from sklearn_inverse.probability import InversionStatus
from sklearn_inverse.utils._docs import SEARCHING, shared_docs
from sklearn_inverse.utils._sklearn import Interval, StrOptions

__all__ = ["CMAESInverter"]

WORST = 1e300  # finite stand-in for a failed simulation: only ranks matter


@shared_docs
class CMAESInverter(SearchInverter):
    """Recover params by CMA-ES on the posterior: no derivatives, only forward runs.

    Each sample has its own evolution strategy (pycma [1]_). All of a chunk advance in
    step, so that a generation of all of them is one batched call of the forward model;
    those that have converged drop out.

    Parameters
    ----------
    %(model)s

    sigma0 : float, default=1.0
        Initial step size, in standard deviations of the prior.

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
        draws from the prior: with the population doubled each time, or also, as long as
        they have cost less, with small populations and steps [2]_. If None, never.

    n_restarts : int, default=5
        Most restarts with a doubled population.

    %(searching)s

    Attributes
    ----------
    %(model_)s

    %(n_iter_)s

    %(n_features_in_)s

    See Also
    --------
    GradientInverter : Far fewer forward runs, where there are derivatives.
    RefinedInverter : Adds exact Gauss–Newton steps, and an uncertainty.

    Notes
    -----
    The strategies search the prior's standard coordinate, and the logarithms of noise
    levels that are not known. Their covariance says how they search, not how sure to be,
    so no uncertainty is given. All samples share their random numbers.

    References
    ----------
    .. [1] N. Hansen, Y. Akimoto, P. Baudis, "CMA-ES/pycma on Github", Zenodo,
       doi:10.5281/zenodo.2559634.

    .. [2] N. Hansen, "Benchmarking a BI-population CMA-ES on the BBOB-2009 function
       testbed", GECCO 2009.

    Examples
    --------
    >>> import torch
    >>> from sklearn_inverse import CMAESInverter, ForwardFunction
    >>> t = torch.tensor([0.0, 1.0, 2.0, 4.0])
    >>> model = ForwardFunction(
    ...     lambda rate: torch.exp(-rate * t), params={"rate": (0.1, 3.0)}, noise=0.02
    ... )
    >>> measured = [[1.0, 0.37, 0.15, 0.02]]
    >>> inverter = CMAESInverter(model, random_state=0).fit(measured)
    >>> inverter.predict(measured).round(2)
    array([[0.98]])
    """

    _advice = "set `restarts`"
    _tried = "points"

    _parameter_constraints: dict = SEARCHING | {
        "model": "no_validation",
        "sigma0": [Interval(Real, 0, None, closed="neither")],
        "popsize": [Interval(Integral, 4, None, closed="left"), None],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "restarts": [StrOptions({"ipop", "bipop"}), None],
        "n_restarts": [Interval(Integral, 0, None, closed="left")],
    }

    def __init__(
        self,
        model=None,
        *,
        sigma0=1.0,
        popsize=None,
        max_iter=1000,
        tol=1e-4,
        restarts=None,
        n_restarts=5,
        prior="model",
        chunk_size=64,
        n_jobs=None,
        device="auto",
        random_state=None,
        verbose=0,
    ):
        self.model = model
        self.sigma0 = sigma0
        self.popsize = popsize
        self.max_iter = max_iter
        self.tol = tol
        self.restarts = restarts
        self.n_restarts = n_restarts
        self.prior = prior
        self.chunk_size = chunk_size
        self.n_jobs = n_jobs
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def _search(self, objective):
        n_samples, device = len(objective.readings), objective.readings.device
        everyone = torch.arange(n_samples, device=device)
        start = objective.with_scales(self._starts(1).repeat(n_samples, 1), everyone)
        free = InStandard(objective, everyone)
        names = [field.name for field in fields(Settings)]
        settings = Settings(**{name: getattr(self, name) for name in names})
        searches = [
            Evolution(z, self.n_params_, settings, self._start_seed)
            for z in free.from_scaled(start).cpu().numpy()
        ]
        running = list(range(n_samples))
        try:
            while running:
                asked = [searches[i].ask() for i in running]
                sizes = [len(points) for points in asked]
                z = torch.as_tensor(np.concatenate(asked), device=device)
                sample = torch.as_tensor(np.repeat(running, sizes), device=device)
                x = self._inside(free.to_scaled(z), objective)
                values = objective.value(x, sample).cpu().numpy()
                for i, part in zip(running, np.split(values, np.cumsum(sizes)[:-1])):
                    searches[i].tell(part)
                running = self._go_on(running, searches, free)
        except KeyboardInterrupt:
            for i in running:
                searches[i].status = InversionStatus.INTERRUPTED
        rows = [(s.best, s.n_iter, int(s.status), s.n_failed) for s in searches]
        best, n_iter, status, n_failed = (
            torch.as_tensor(np.array(column), device=device) for column in zip(*rows)
        )
        x = self._inside(free.to_scaled(best), objective)
        return self._estimate(objective, x, start, n_iter, status, n_failed)

    def _go_on(self, running, searches, free):
        """Return the samples that still search, restarted where they must."""
        ended = [i for i in running if searches[i].has_ended()]
        if ended and self.restarts is not None:
            objective = free.objective
            sample = torch.as_tensor(ended, device=objective.readings.device)
            best = torch.as_tensor(np.array([searches[i].best for i in ended]))
            x = free.to_scaled(best.to(sample.device))
            explained = objective.judge(self._inside(x, objective), sample).explained
            ended = [
                i
                for i, is_done in zip(ended, explained.tolist())
                if is_done or not searches[i].restart()
            ]
        return sorted(set(running) - set(ended))

    @staticmethod
    def _inside(x, objective):
        """Keep noise levels in the range of the objective; params are in theirs."""
        return torch.minimum(torch.maximum(x, objective.low), objective.high)


@dataclass(frozen=True)
class Settings:
    """Options of a run, as :class:`CMAESInverter` has them."""

    sigma0: float
    popsize: int | None
    max_iter: int
    tol: float
    restarts: str | None
    n_restarts: int


class Evolution:
    """The evolution strategy of one sample, with its restarts.

    Parameters
    ----------
    start : ndarray of shape (n_free,)
        Where the first run begins: standard params, then noise levels.

    n_params : int
        How many are params, which restarts draw anew.

    settings : Settings
        Options of the runs.

    seed : int
        Seed of the strategy.
    """

    def __init__(self, start, n_params, settings, seed):
        self.settings, self.n_params = settings, n_params
        self.start, self.n_free = start, len(start)
        self.rng = np.random.default_rng(seed)
        self.best, self.best_value = start, np.inf
        self.n_iter = self.n_failed = 0
        self.n_doubled = self.cost_large = self.cost_small = 0
        self.is_small = False
        self.status = InversionStatus.FAILED
        self._begin(start, settings.sigma0, settings.popsize)

    def ask(self):
        """Return the points of a generation, (popsize, n_free)."""
        self.points = self.strategy.ask()
        return np.array(self.points)[:, : self.n_free]

    def tell(self, values):
        """Take the objective of each point; infinite where the simulation failed."""
        failed = ~np.isfinite(values)
        self.n_failed += int(failed.sum())
        self.n_iter += 1
        self.strategy.tell(self.points, list(np.where(failed, WORST, values)))
        i = int(np.argmin(np.where(failed, np.inf, values)))
        if values[i] < self.best_value:
            self.best, self.best_value = self.points[i][: self.n_free], values[i]

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
        sigma = self.settings.sigma0
        popsize = self.settings.popsize or 4 + int(3 * np.log(max(self.n_free, 2)))
        bipop = self.settings.restarts == "bipop"
        self.is_small = bipop and self.n_doubled and self.cost_small < self.cost_large
        if self.is_small:
            # BIPOP: sizes between the first and half the largest, smaller steps.
            share = self.rng.random() ** 2
            popsize = int(popsize * (0.5 * 2**self.n_doubled) ** share)
            sigma = sigma * 10 ** (-2 * self.rng.random())
        elif self.n_doubled >= self.settings.n_restarts:
            return False
        else:
            self.n_doubled += 1
            popsize *= 2**self.n_doubled
        drawn = self.rng.standard_normal(self.n_params)
        self._begin(np.r_[drawn, self.start[self.n_params :]], sigma, popsize)
        return True

    def _begin(self, start, sigma, popsize):
        import cma  # takes a second to import

        # pycma does not search on a line; a second coordinate that nothing depends on
        # makes it a plane.
        start = np.r_[start, np.zeros(max(2 - len(start), 0))]
        options = {
            "maxiter": self.settings.max_iter,
            "tolfun": self.settings.tol,
            "tolfunhist": self.settings.tol,
            "seed": np.nan,  # leave NumPy's global generator alone
            "randn": lambda *shape: self.rng.standard_normal(shape),
            "verbose": -9,
            "verb_log": 0,
        }
        if popsize is not None:
            options["popsize"] = popsize
        self.strategy = cma.CMAEvolutionStrategy(start, sigma, options)
