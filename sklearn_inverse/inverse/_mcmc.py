"""MCMCInverter: the posterior as it is, by Markov chains."""

from numbers import Integral, Real

import numpy as np
import torch

from sklearn_inverse.inverse._checked_search import MAX_ROUNDS, CheckedInverter
from sklearn_inverse.optim._importance import ROUND
from sklearn_inverse.optim._levenberg_marquardt import levenberg_marquardt
from sklearn_inverse.probability import InversionStatus
from sklearn_inverse.utils._docs import SEARCHING, shared_docs
from sklearn_inverse.utils._sklearn import Interval, StrOptions

__all__ = ["MCMCInverter"]

MAX_ITER, TOL = 50, 1e-3  # of the search before: chains need no exact optima


@shared_docs
class MCMCInverter(CheckedInverter):
    r"""Draw from the posterior itself, whatever its shape.

    For each sample, finds the optima of the posterior as :class:`GradientInverter` does,
    and sends walkers out around them, which move along their differences (differential
    evolution [1]_) or along Hamiltonian trajectories [2]_, and to draws of a mixture
    that importance sampling has fitted, until they agree and effective draws are enough.

    Parameters
    ----------
    %(model)s

    n_starts : int or "adaptive", default="adaptive"
        Starts per sample of the search for optima; see :class:`GradientInverter`.

    moves : {"evolution", "hamiltonian"}, default="evolution"
        How walkers move: along their differences, or on trajectories that follow the
        gradient, each of which costs several runs with sensitivities. The latter needs
        fewer moves, and pays off where params are many and posteriors smooth.

    n_walkers : int, default=64
        Walkers per sample: two for each param and noise level and two more, at least.

    n_effective : int, default=2000
        Effective draws of each param and noise level after which a sample's chain ends,
        and draws that are returned.

    tol : float, default=0.01
        It also takes that R-hat, split and of groups of walkers, is within this of one.

    max_iter : int, default=5000
        Most steps of the walkers, the first half of which is dropped.

    chunk_size : int, default=16
        Samples that are inverted together.

    %(n_jobs)s

    %(learning)s

    Attributes
    ----------
    %(model_)s

    %(n_iter_)s

    %(n_features_in_)s

    See Also
    --------
    GradientInverter : Hundreds of times quicker, where posteriors are normal.

    Notes
    -----
    Walkers live in the prior's standard coordinate, where bounds are infinitely far, and
    in the logarithms of noise levels that are not known, on which the prior is flat. A
    simulation that fails and a trajectory that diverges are rejected moves. All samples
    share their random numbers.

    References
    ----------
    .. [1] C. J. F. ter Braak, "A Markov chain Monte Carlo version of the genetic
       algorithm differential evolution", Statistics and Computing 16, 239-249 (2006).
    .. [2] R. M. Neal, "MCMC using Hamiltonian dynamics", Handbook of Markov Chain Monte
       Carlo (2011), chapter 5.

    Examples
    --------
    >>> from sklearn_inverse import MCMCInverter, ODESystem
    >>> def decay(t, y, p):
    ...     return -p.rate * y.amount
    >>> system = ODESystem(
    ...     decay, states={"amount": 1.0}, params={"rate": (0.1, 3.0)},
    ...     times=[0.0, 1.0, 2.0, 4.0], noise=0.02,
    ... )
    >>> measured = [[1.0, 0.37, 0.15, 0.02]]
    >>> inverter = MCMCInverter(system, random_state=0).fit(measured)
    >>> posterior = inverter.posterior(measured)
    >>> posterior.draws.shape
    (1, 2000, 1)
    >>> bool(posterior.rhat.max() < 1.01)
    True
    """

    _tried = "proposals"
    prior = "model"
    max_solves = None  # as many as its steps are

    _parameter_constraints: dict = {
        name: SEARCHING[name] for name in SEARCHING if name != "prior"
    } | {
        "model": "no_validation",
        "n_starts": [
            Interval(Integral, 1, None, closed="left"),
            StrOptions({"adaptive"}),
        ],
        "moves": [StrOptions({"evolution", "hamiltonian"})],
        "n_walkers": [Interval(Integral, 4, None, closed="left")],
        "n_effective": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="neither")],
        "max_iter": [Interval(Integral, 10, None, closed="left")],
    }

    def __init__(
        self,
        model=None,
        *,
        n_starts="adaptive",
        moves="evolution",
        n_walkers=64,
        n_effective=2000,
        tol=0.01,
        max_iter=5000,
        chunk_size=16,
        n_jobs=None,
        device="auto",
        random_state=None,
        verbose=0,
    ):
        self.model = model
        self.n_starts = n_starts
        self.moves = moves
        self.n_walkers = n_walkers
        self.n_effective = n_effective
        self.tol = tol
        self.max_iter = max_iter
        self.chunk_size = chunk_size
        self.n_jobs = n_jobs
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def _search(self, objective):
        n_free = len(objective.low)
        if self.n_walkers < 2 * n_free + 2:
            raise ValueError(
                "`n_walkers` must be two for each param and noise level and two more, at "
                f"least. Got n_walkers={self.n_walkers} for {n_free} of these; set "
                f"n_walkers={4 * n_free}."
            )
        ends, start = self._find(objective, self._optimize, n_starts=self.n_starts)
        return self._conclude(objective, ends, start)

    def _optimize(self, objective, start, sample):
        options = {"max_iter": MAX_ITER, "tol": TOL}
        return levenberg_marquardt(objective, start, sample, **options)

    def _settle_noise(self, modes, x, rows):
        return x, torch.zeros_like(rows)  # chains settle it

    @property
    def _may_adapt(self):
        return True

    def _blank_modes(self, n_samples, n_params):
        shape = (n_samples, self.n_effective, n_params)
        return super()._blank_modes(n_samples, n_params) | {
            "kind": "mcmc",
            "draws": np.full(shape, np.nan),
        }

    def _widen(self, answer, objective, n_told):
        """Leave it: chains see the posterior, wide or not."""

    def _look_closer(self, answer, objective, mixture, samples):
        """Walk from where importance sampling has found samples' posteriors."""
        proposal, begin = mixture, None
        affordable = self.n_walkers * self.max_iter // 4
        if affordable >= ROUND:
            max_draws = min(affordable, MAX_ROUNDS * ROUND)
            adapted = self._adapt(answer, objective, mixture, samples, max_draws)
            left = affordable - max_draws
            self._randomize(answer, objective, mixture, samples, adapted, left)
            if (answer.status[samples] == InversionStatus.INTERRUPTED).any():
                return
            proposal, begin = adapted.mixture, adapted.draws
        chains = self._walk(
            answer,
            objective,
            mixture,
            samples,
            proposal,
            begin,
            n_walkers=self.n_walkers,
            by_gradient=self.moves == "hamiltonian",
            n_effective=self.n_effective,
            tol=self.tol,
            max_iter=self.max_iter,
        )
        answer.n_iter[samples] = chains.n_iter
        answer.status[samples] = chains.status

    def _why_open(self, answer):
        return (
            f"R-hat is {answer.rhat.max():.3f}, and {answer.n_effective.min():,.0f} of "
            f"{self.n_effective:,} effective draws were made in {answer.n_iter[0]} "
            "steps. Raise `max_iter`, or narrow the prior."
        )
