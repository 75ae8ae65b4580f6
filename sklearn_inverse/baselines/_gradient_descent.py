"""GradientDescentInverter: SGD or Adam from many starts, averaged."""

from numbers import Integral, Real

import torch

from sklearn_inverse.inverse._objective import Objective
from sklearn_inverse.inverse._search import SearchInverter
from sklearn_inverse.optim._descent import descend
from sklearn_inverse.optim._standard import InStandard
from sklearn_inverse.probability import InversionStatus, Laplace, as_noise
from sklearn_inverse.utils._docs import SEARCHING, shared_docs
from sklearn_inverse.utils._sklearn import Interval, StrOptions

__all__ = ["GradientDescentInverter"]

RATES = {"adam": 0.1, "sgd": 2.0}


@shared_docs
class GradientDescentInverter(SearchInverter):
    """Recover params by plain gradient descent on the mean absolute error [1]_.

    Descends from many starts for a number of steps, in the prior's standard coordinate,
    and averages where they end. Known for its local optima: a method to compare with.

    Parameters
    ----------
    %(model)s

    optimizer : {"adam", "sgd"}, default="adam"
        Adam, or steps along the gradient.

    lr : float, default=None
        Learning rate. If None, 0.1 for "adam" and 2 for "sgd".

    n_starts : int, default=100
        Starts per sample.

    start : {"center", "random"} or array-like of shape (n_params,), default="center"
        Where the first start lies; the others are drawn from the prior.

    max_iter : int, default=100
        Steps.

    %(chunk_size)s

    %(n_jobs)s

    %(learning)s

    Attributes
    ----------
    %(model_)s

    %(n_iter_)s

    %(n_features_in_)s

    See Also
    --------
    GradientInverter : Finds optima, with an uncertainty, in fewer runs.

    References
    ----------
    .. [1] "INO: Inverse neural operator for stiff ODE parameter recovery": the gradient
       baseline, L1 misfit of sparse readings.

    Examples
    --------
    >>> import torch
    >>> from sklearn_inverse import ForwardFunction
    >>> from sklearn_inverse.baselines import GradientDescentInverter
    >>> t = torch.tensor([0.0, 1.0, 2.0, 4.0])
    >>> model = ForwardFunction(
    ...     lambda rate: torch.exp(-rate * t), params={"rate": (0.1, 3.0)}, noise=0.02
    ... )
    >>> measured = [[1.0, 0.37, 0.15, 0.02]]
    >>> inverter = GradientDescentInverter(model, n_starts=4, random_state=0)
    >>> inverter.fit(measured).predict(measured).round(1)
    array([[1.]])
    """

    _parameter_constraints: dict = {
        **SEARCHING,
        "model": "no_validation",
        "optimizer": [StrOptions({"adam", "sgd"})],
        "lr": [Interval(Real, 0, None, closed="neither"), None],
        "n_starts": [Interval(Integral, 1, None, closed="left")],
        "start": [StrOptions({"center", "random"}), "array-like"],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
    }
    _parameter_constraints.pop("prior")
    _ends_by_converging = False
    prior = None  # no more than where starts are drawn

    def __init__(
        self,
        model=None,
        *,
        optimizer="adam",
        lr=None,
        n_starts=100,
        start="center",
        max_iter=100,
        chunk_size=64,
        n_jobs=None,
        device="auto",
        random_state=None,
        verbose=0,
    ):
        self.model = model
        self.optimizer = optimizer
        self.lr = lr
        self.n_starts = n_starts
        self.start = start
        self.max_iter = max_iter
        self.chunk_size = chunk_size
        self.n_jobs = n_jobs
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def _search(self, objective):
        n_samples, n_starts = len(objective.readings), self.n_starts
        starts = self._starts(n_starts, self.start)
        everyone = torch.arange(n_samples, device=starts.device)
        sample = everyone.repeat_interleave(n_starts)
        free = InStandard(self._mean_absolute(objective), sample)
        end = descend(
            free,
            free.from_scaled(starts.repeat(n_samples, 1)),
            method=self.optimizer,
            lr=self.lr or RATES[self.optimizer],
            max_iter=self.max_iter,
        )
        status = end.status.reshape(n_samples, n_starts)
        failed = status == InversionStatus.FAILED
        interrupted = (status == InversionStatus.INTERRUPTED).any(dim=1)
        status = torch.where(interrupted, status.amax(dim=1), status.amin(dim=1))
        x = free.to_scaled(end.x).reshape(n_samples, n_starts, -1)
        x = torch.where(failed[..., None], torch.nan, x).nanmean(dim=1)
        first = starts[:1].expand(n_samples, -1)
        return self._estimate(
            objective,
            objective.with_scales(x, everyone),
            objective.with_scales(first, everyone),
            end.n_iter.reshape(n_samples, n_starts).sum(dim=1),
            status,
            failed.sum(dim=1),
        )

    def _mean_absolute(self, objective):
        """Return the mean absolute error, over the size of each observable's readings."""
        readings, names = objective.readings, self.model_.observable_names_
        scale = objective.size * objective.n_readings[:, None]
        error = Objective(
            self.model_,
            as_noise(Laplace(1.0), names),
            readings,
            weighs_prior=False,
            noise_std=scale[:, None].expand_as(readings),
        )
        error.n_forward = objective.n_forward
        return error
