"""GradientInverter: least squares through the forward model, from many starts at once."""

from numbers import Integral, Real

import torch

from sklearn_inverse.inverse._checked_search import CheckedInverter
from sklearn_inverse.inverse._evidence import search_with_scales, warn_of_scales
from sklearn_inverse.optim._lbfgs import lbfgs
from sklearn_inverse.optim._levenberg_marquardt import levenberg_marquardt
from sklearn_inverse.optim._standard import InStandard
from sklearn_inverse.utils._docs import SEARCHING, SOLVES, shared_docs
from sklearn_inverse.utils._sklearn import Interval, StrOptions

__all__ = ["GradientInverter"]

ROUGH = 1000  # times tol: where the next stage takes over


@shared_docs
class GradientInverter(CheckedInverter):
    r"""Recover params by gradients through the forward model, with an uncertainty.

    For each sample, maximizes the posterior of params and noise by Gauss–Newton steps
    (Fisher scoring) from several starts at once, over a growing horizon, and surrounds
    every optimum found by Laplace's approximation. On the exact model of a system it
    needs no training: ``GradientInverter(system).fit(measured)``.

    Parameters
    ----------
    %(model)s

    optimizer : {"gauss_newton", "lbfgs"}, default="gauss_newton"
        Damped Gauss–Newton, or L-BFGS where Jacobians cost too much.

    n_starts : int or "adaptive", default="adaptive"
        Starts per sample: the center of the prior and random draws from it.
        "adaptive" makes 6, and 6 more where these disagree
        on an optimum that counts; where the best end explains nothing and most missed it,
        others follow that differ from it in a few params.

    start : {"center", "random"} or array-like of shape (n_params,), default="center"
        Where the first start lies.

    continuation : bool, default=True
        Whether a search begins with the first readings and goes on to later ones, which
        oscillations need. With less than two readings per param, its first start begins
        with a prior that counts much and then ever less.

    max_iter : int, default=None
        Most iterations of a start and stage. If None, 100, or 200 for "lbfgs".

    tol : float, default=1e-6
        A start has converged when no step promises to gain more than this, times the
        number of readings, of the log posterior; 1000 times this in earlier stages.

    %(max_solves)s

    %(searching)s

    Attributes
    ----------
    %(model_)s

    %(n_iter_)s

    %(n_features_in_)s

    See Also
    --------
    ADMInverter : Milliseconds per sample, after training.
    CMAESInverter : Needs no derivatives.
    MCMCInverter : For posteriors that are not normal.

    Notes
    -----
    Steps are taken in scaled params, in which models are smooth; the prior is normal in
    its standard coordinate, in which the posterior is told. Noise levels are params like
    any other; they are set to the mode of their marginal posterior. Noise that the model
    does not state is estimated per observable; with ``prior=None``, its variance is the
    sum of squares over readings less params, and errors are those of least squares.

    Examples
    --------
    >>> from sklearn_inverse import GradientInverter, ODESystem
    >>> def decay(t, y, p):
    ...     return -p.rate * y.amount
    >>> system = ODESystem(
    ...     decay, states={"amount": 1.0}, params={"rate": (0.1, 3.0)},
    ...     times=[0.0, 1.0, 2.0, 4.0], noise=0.02,
    ... )
    >>> measured = [[1.0, 0.37, 0.15, 0.02]]
    >>> inverter = GradientInverter(system, random_state=0).fit(measured)
    >>> inverter.posterior(measured)
    Posterior(1 samples: 1 converged; 1 explained)
    >>> mean, std = inverter.predict(measured, return_std=True)
    >>> bool(abs(mean[0, 0] - 0.98) < std[0, 0] < 0.1)
    True
    """

    _parameter_constraints: dict = SEARCHING | {
        "model": "no_validation",
        "optimizer": [StrOptions({"gauss_newton", "lbfgs"})],
        "n_starts": [
            Interval(Integral, 1, None, closed="left"),
            StrOptions({"adaptive"}),
        ],
        "start": [StrOptions({"center", "random"}), "array-like"],
        "continuation": ["boolean"],
        "max_iter": [Interval(Integral, 1, None, closed="left"), None],
        "tol": [Interval(Real, 0, None, closed="left")],
        "max_solves": SOLVES,
    }

    def __init__(
        self,
        model=None,
        *,
        optimizer="gauss_newton",
        n_starts="adaptive",
        start="center",
        continuation=True,
        max_iter=None,
        tol=1e-6,
        max_solves=200,
        prior="model",
        chunk_size=64,
        n_jobs=None,
        device="auto",
        random_state=None,
        verbose=0,
    ):
        self.model = model
        self.optimizer = optimizer
        self.n_starts = n_starts
        self.start = start
        self.continuation = continuation
        self.max_iter = max_iter
        self.tol = tol
        self.max_solves = max_solves
        self.prior = prior
        self.chunk_size = chunk_size
        self.n_jobs = n_jobs
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    _finds_scales = True

    def _search_chunk(self, *arrays, **options):
        if self.prior is not None and self.model_.prior_.open_scales:
            return search_with_scales(self, arrays, options)
        return super()._search_chunk(*arrays, **options)

    def _warn_of(self, answer):
        super()._warn_of(answer)
        if answer.scales.size:
            warn_of_scales(self.model_.prior_, answer)

    def _search(self, objective):
        ends, start = self._find(
            objective,
            self._optimize,
            n_starts=self.n_starts,
            first=self.start,
            by_stages=self.continuation,
        )
        return self._conclude(objective, ends, start)

    def _optimize(self, objective, start, sample):
        if self.optimizer == "gauss_newton":
            tol = self.tol * torch.where(objective.knows_less, ROUGH, 1.0)[sample]
            return levenberg_marquardt(
                objective, start, sample, max_iter=self.max_iter or 100, tol=tol
            )
        free = InStandard(objective, sample)
        start = free.from_scaled(start)
        end = lbfgs(free, start, max_iter=self.max_iter or 200, tol=self.tol)
        x = free.to_scaled(end.x)
        return end._replace(x=x, hessian=objective.linearize(x, sample)[2])
