"""SGLDInverter: chains that follow the gradient with noise, of a fixed step."""

from numbers import Integral, Real

import numpy as np
import torch

from sklearn_inverse.base import PosteriorInverter
from sklearn_inverse.inverse._search import SearchInverter
from sklearn_inverse.optim._descent import langevin
from sklearn_inverse.optim._samplers import agreement
from sklearn_inverse.optim._standard import InStandard
from sklearn_inverse.probability import InversionStatus, Posterior
from sklearn_inverse.utils._docs import SEARCHING, shared_docs
from sklearn_inverse.utils._sklearn import Interval

__all__ = ["SGLDInverter"]

TOL = 0.01  # within which R-hat is one where chains agree
MOVED = 0.5  # share of the variance that is within chains, once they have moved
KEPT, FEWEST = 4000, 5  # draws of a sample, and of a chain, that are kept


@shared_docs
class SGLDInverter(SearchInverter, PosteriorInverter):
    r"""Draw params by Langevin dynamics from many starts [1]_, without rejections.

    Chains start at draws of the prior and move, in its standard coordinate z, by

    .. math:: z \leftarrow z - \tfrac\eta2 \nabla U(z) + \sqrt\eta\,\xi, \qquad
              \xi \sim N(0, I)

    with U minus the log posterior (Eq. 4 of [1]_, with all readings in every step), of
    the logarithms of noise levels too where these are not known. The second half of the
    steps is the answer. In the hundred steps of [2]_, directions that
    readings tell little of are still where they started: a method to compare with.

    Parameters
    ----------
    %(model)s

    n_starts : int, default=100
        Chains per sample.

    step_size : float, default=0.5
        Step :math:`\eta` of a sample, over the reciprocal of the largest curvature of U
        where any of its chains is after half of the steps (until then each goes by its
        own): less than 4, from where on a normal posterior has no stationary law; its
        variance is off by a factor of 1 / (1 - step_size / 4) at most.

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
    MCMCInverter : Draws from the posterior itself, until chains agree.
    GradientDescentInverter : The same without noise.

    Notes
    -----
    Neither U, temperature nor step size are printed in [2]_. Here the stationary law of
    small steps is the posterior, and steps follow the curvature, so that they depend on
    neither units nor noise; the gradient moves a chain by one standard deviation of the
    prior at most. Where chains do not agree (R-hat), or have hardly moved (half of the
    variance is between them), a ConvergenceWarning says so.

    References
    ----------
    .. [1] M. Welling, Y. W. Teh, "Bayesian learning via stochastic gradient Langevin
       dynamics", ICML 2011.
    .. [2] "INO: Inverse neural operator for stiff ODE parameter recovery": row SGLD.

    Examples
    --------
    >>> import torch
    >>> from sklearn_inverse import ForwardFunction
    >>> from sklearn_inverse.baselines import SGLDInverter
    >>> t = torch.tensor([0.0, 1.0, 2.0, 4.0])
    >>> model = ForwardFunction(
    ...     lambda rate: torch.exp(-rate * t), params={"rate": (0.5, 2.0)}, noise=0.1
    ... )
    >>> measured = [[1.0, 0.37, 0.15, 0.02]]
    >>> inverter = SGLDInverter(model, max_iter=200, random_state=0).fit(measured)
    >>> mean, std = inverter.predict(measured, return_std=True)
    >>> bool(abs(mean[0, 0] - 1.0) < std[0, 0] < 0.3)
    True
    """

    _parameter_constraints: dict = {
        name: SEARCHING[name] for name in SEARCHING if name != "prior"
    } | {
        "model": "no_validation",
        "n_starts": [Interval(Integral, 1, None, closed="left")],
        "step_size": [Interval(Real, 0, 4, closed="neither")],
        "max_iter": [Interval(Integral, 10, None, closed="left")],
    }
    _answer_type = Posterior
    _tried = "chains"
    _names_bounds = False  # the mean of a posterior lies on none
    prior = "model"

    def __init__(
        self,
        model=None,
        *,
        n_starts=100,
        step_size=0.5,
        max_iter=100,
        chunk_size=64,
        n_jobs=None,
        device="auto",
        random_state=None,
        verbose=0,
    ):
        self.model = model
        self.n_starts = n_starts
        self.step_size = step_size
        self.max_iter = max_iter
        self.chunk_size = chunk_size
        self.n_jobs = n_jobs
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @property
    def _stride(self):
        """Of how many steps of the second half one is kept."""
        n_steps = self.max_iter - self.max_iter // 2
        return max(min(-(-n_steps * self.n_starts // KEPT), n_steps // FEWEST), 1)

    def _blank_modes(self, n_samples, n_params):
        n_points = -(-(self.max_iter - self.max_iter // 2) // self._stride)
        shape = (n_samples, 1, n_params)
        return {
            "kind": "mcmc",
            "coordinate": self.model_.prior_,
            "weights": np.ones((n_samples, 1)),
            "centers": np.full(shape, np.nan),
            "covariances": np.full((*shape, n_params), np.nan),
            "draws": np.full((n_samples, n_points * self.n_starts, n_params), np.nan),
        }

    def _search(self, objective):
        n_samples, n_starts = len(objective.readings), self.n_starts
        starts = self._starts(n_starts, "random")
        everyone = torch.arange(n_samples, device=starts.device)
        sample = everyone.repeat_interleave(n_starts)
        x = objective.with_scales(starts.repeat(n_samples, 1), sample)
        free, rows = InStandard(objective, sample), torch.arange(len(sample)).to(sample)

        def step(z):
            curvature = free.curvature(z, rows).clamp(min=1.0)  # the prior's own
            return self.step_size / curvature[:, None]

        trail, end = langevin(
            free,
            free.from_scaled(x),
            step,
            n_chains=n_starts,
            max_iter=self.max_iter,
            stride=self._stride,
            seed=self._sample_seed,
        )
        trail = trail.reshape(len(trail), n_samples, n_starts, -1).movedim(1, 0)
        failed = ~trail.isfinite().all(dim=3).all(dim=1)
        stopped = (end.status == InversionStatus.INTERRUPTED).any()
        usual = InversionStatus.INTERRUPTED if stopped else InversionStatus.MAX_ITER
        trail = self._replaced(trail.cpu().numpy(), failed.cpu().numpy())
        draws = self.model_.prior_.from_standard(trail[..., : self.n_params_])
        draws = draws.reshape(n_samples, -1, self.n_params_)
        answer = self._estimate(
            objective,
            objective.with_scales(self._scaled(draws.mean(axis=1)), everyone),
            x[::n_starts],
            end.n_iter.reshape(n_samples, n_starts).sum(dim=1),
            torch.full_like(everyone, usual),
            failed.sum(dim=1),
        )
        known = np.flatnonzero(np.isfinite(answer.params).all(axis=1))
        self._tell(answer, known, draws[known])
        middle = np.median(trail.reshape(n_samples, -1, trail.shape[-1])[known], axis=1)
        middle, of = (torch.as_tensor(a, device=starts.device) for a in (middle, known))
        answer.noise_scale[known] = objective.noise_scale(middle, of).cpu().numpy()
        if len(known) and not (stopped or self._is_trial):
            self._compare(answer, known, trail[known])
        return answer

    @staticmethod
    def _replaced(trail, failed):
        """Put others in the place of chains that failed, if there are any."""
        for chains, lost in zip(trail, failed):
            if not lost.all():
                chains[:] = chains[:, np.resize(np.flatnonzero(~lost), len(lost))]
        return trail

    def _tell(self, answer, known, draws):
        """Let draws (n_known, n_draws, n_params) be the posteriors of samples."""
        for i, own in zip(known, draws):  # of an interrupted search fewer
            answer.draws[i] = np.resize(own, answer.draws[i].shape)
        places = self.model_.prior_.to_coordinate(answer.draws[known])
        center = places.mean(axis=1, keepdims=True)
        away = places - center
        covariance = np.einsum("sdp,sdq->spq", away, away) / away.shape[1]
        answer.centers[known], answer.covariances[known, 0] = center, covariance
        answer.n_drawn[:] = answer.n_forward

    def _compare(self, answer, known, trail):
        """Say whether chains agree."""
        rhat, n_effective = (a[:, : self.n_params_] for a in agreement(trail))
        answer.rhat[known], answer.n_effective[known] = rhat, n_effective
        # Many chains that stay where they started agree by R-hat of their groups.
        walks = trail[..., : self.n_params_]
        moved = walks.var(axis=1).mean(axis=1) >= MOVED * walks.var(axis=(1, 2))
        agree = known[((rhat <= 1 + TOL) & moved).all(axis=1)]
        answer.is_confirmed[agree] = True
        answer.status[agree] = InversionStatus.CONVERGED

    def _why_open(self, answer):
        alike = answer.rhat.max() <= 1 + TOL
        still = ", but chains have hardly left their starts" if alike else ""
        return (
            f"R-hat is {answer.rhat.max():.3f} after {self.max_iter} steps{still}. Raise "
            "`max_iter`, or use MCMCInverter."
        )
