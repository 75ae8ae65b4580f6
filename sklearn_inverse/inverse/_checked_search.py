"""Searches that see whether Laplace's approximation holds, and sample where it does not."""

import numpy as np
import torch

from sklearn_inverse.exceptions import NormalityWarning
from sklearn_inverse.inverse._laplace_search import LaplaceInverter
from sklearn_inverse.optim._importance import N_ROUNDS, ROUND, adapt, weigh
from sklearn_inverse.optim._randomized import randomized
from sklearn_inverse.optim._samplers import walk
from sklearn_inverse.optim._standard import InStandard
from sklearn_inverse.probability import InversionStatus
from sklearn_inverse.utils._warnings import warn_user

__all__ = ["CheckedInverter"]

N_CHECKS = 200  # draws of the check
PRIOR_SHARE = 0.1  # of them come from the prior, to see what lies far from the optima
GOOD_OVERLAP = 0.9  # mass that normal distributions must share with the posterior
MAX_ROUNDS = 10  # of importance sampling
N_EFFECTIVE, TOL = 2000, 0.01  # of chains; see MCMCInverter
FEWEST_DRAWS = 20  # effective ones, if a check is to tell anything
RARE = 0.01  # share of draws that fail without a word
FEWEST_KEPT = 1000  # draws of importance sampling, where chains begin
FEWEST_STEPS = 200  # of chains, if they are to be any good


class CheckedInverter(LaplaceInverter):
    """A search whose answer is as simple as runs of the model at draws allow.

    Laplace's approximation is weighed by 200 of them; where it is found wanting,
    adaptive importance sampling follows, then randomize-then-optimize, and then
    differential-evolution Markov chains, as far as ``max_solves``, which a subclass
    stores, allows.
    """

    _tried = "starts or draws"

    def _blank_modes(self, n_samples, n_params):
        n_kept = N_EFFECTIVE if self._may_adapt else 0
        draws = np.full((n_samples, n_kept, n_params), np.nan)
        return super()._blank_modes(n_samples, n_params) | {"draws": draws}

    @property
    def _may_adapt(self):
        enough = self.max_solves >= N_CHECKS + N_ROUNDS * ROUND
        return enough and self.prior is not None

    def _look_closer(self, answer, objective, mixture, samples):
        # Errors of readings that nothing explains have been widened: no model bears
        # them out.
        mixture = mixture[answer.explained[samples]]
        samples = samples[answer.explained[samples]]
        if not self.max_solves or len(samples) == 0:
            return
        n_checks = min(self.max_solves, N_CHECKS)
        try:
            seen = weigh(
                self._log_density(objective, samples),
                mixture,
                proposal=mixture.with_prior(self.n_params_, PRIOR_SHARE),
                n_draws=n_checks,
                seed=self._sample_seed,
            )
        except KeyboardInterrupt:
            answer.status[samples] = InversionStatus.INTERRUPTED
            return
        answer.effective_share[samples] = seen.share
        answer.overlap[samples] = seen.overlap
        good = (seen.overlap >= GOOD_OVERLAP) & (seen.share * n_checks >= FEWEST_DRAWS)
        answer.is_confirmed[samples] = good
        answer.n_drawn[samples], left = n_checks, self.max_solves - n_checks
        self._count(answer, samples, seen.n_failed, n_checks)
        if self._may_adapt and not good.all():
            self._sample(answer, objective, mixture[~good], samples[~good], left)

    def _sample(self, answer, objective, mixture, samples, max_solves):
        """Draw from the posteriors of samples, by chains if need be."""
        max_draws = min(max_solves, MAX_ROUNDS * ROUND)
        adapted = self._adapt(answer, objective, mixture, samples, max_draws)
        left = max_solves - max_draws
        most = left // 4  # chains take as many steps whoever has needed these runs
        is_open = ~self._randomize(answer, objective, mixture, samples, adapted, most)
        if (answer.status[samples] == InversionStatus.INTERRUPTED).any():
            return
        n_walkers = max(64, 4 * mixture.centers.shape[2])
        max_iter = (left - most) // n_walkers - 1
        if is_open.any() and max_iter >= FEWEST_STEPS:
            options = {"n_walkers": n_walkers, "n_effective": N_EFFECTIVE, "tol": TOL}
            self._walk(
                answer,
                objective,
                mixture[is_open],
                samples[is_open],
                adapted.mixture[is_open],
                adapted.draws[is_open],
                max_iter=max_iter,
                keeps_chains=False,
                **options,
            )

    def _adapt(self, answer, objective, mixture, samples, max_draws):
        """Let importance sampling tell the posteriors of samples."""
        n_kept = answer.draws.shape[1]
        adapted = adapt(
            self._log_density(objective, samples),
            mixture.with_prior(self.n_params_, 2 * PRIOR_SHARE),
            max_draws=max_draws,
            n_kept=max(n_kept, FEWEST_KEPT),
            seed=self._sample_seed,
        )
        if adapted.is_interrupted:
            answer.status[samples[~adapted.agrees]] = InversionStatus.INTERRUPTED
        self._count(answer, samples, adapted.n_failed, adapted.n_draws)
        answer.n_drawn[samples] += adapted.n_draws
        told = adapted.n_effective > 0
        rows = samples[told]
        draws = adapted.draws[told, :n_kept]
        self._tell(answer, objective, mixture[told], rows, draws)
        answer.kind[rows] = "importance"
        answer.effective_share[rows] = adapted.share[told]
        answer.n_effective[rows] = adapted.n_effective[told, None]
        answer.is_confirmed[rows] = adapted.agrees[told]
        return adapted

    def _randomize(self, answer, objective, mixture, samples, adapted, max_solves):
        """Let randomized optimization tell what importance sampling has not told.

        Returns which samples are told. Draws that agree, or are worth more than those of
        importance sampling, take the place of ``adapted.draws``.
        """
        told = adapted.agrees.copy()
        if not objective.has_residuals or adapted.is_interrupted:
            return told
        if max_solves < 2 * ROUND:
            return told
        has_one_optimum = mixture.weights[:, 0] == 1
        for i in np.flatnonzero(~told & has_one_optimum):
            of = samples[[i]]
            before = objective.n_linearized[of] + objective.n_forward[of]
            found = randomized(
                self._residuals(objective, of),
                self._log_density(objective, of),
                mixture.centers[i, 0],
                max_solves=max_solves,
                n_enough=N_EFFECTIVE,
                n_kept=adapted.draws.shape[1],
                seed=self._sample_seed,
            )
            n_more = objective.n_linearized[of] + objective.n_forward[of] - before
            answer.n_drawn[of] += n_more.numpy()
            if found.agrees or found.n_effective > adapted.n_effective[i]:
                adapted.draws[i], told[i] = found.draws, found.agrees
                draws = found.draws[None, : answer.draws.shape[1]]
                self._tell(answer, objective, mixture[[i]], of, draws)
                answer.kind[of] = "importance"
                answer.effective_share[of] = found.share
                answer.n_effective[of] = found.n_effective
                answer.is_confirmed[of] = found.agrees
            if found.is_interrupted:
                answer.status[samples[~told]] = InversionStatus.INTERRUPTED
                break
        return told

    def _walk(
        self,
        answer,
        objective,
        mixture,
        samples,
        proposal,
        begin,
        *,
        n_walkers,
        by_gradient=False,
        keeps_chains=True,
        **options,
    ):
        """Let Markov chains tell the posteriors of samples.

        Or only those, unless ``keeps_chains``, of which they tell more than is known.
        """
        before = objective.n_forward.clone()
        chains = walk(
            self._log_density(objective, samples),
            proposal,
            n_walkers=n_walkers,
            seed=self._sample_seed,
            begin=begin,
            gradient=self._gradient(objective, samples) if by_gradient else None,
            **options,
        )
        n_effective = chains.n_effective[:, : self.n_params_]
        is_confirmed = chains.status == InversionStatus.CONVERGED
        had = np.nan_to_num(answer.n_effective[samples].min(axis=1))
        tells = is_confirmed | keeps_chains | (n_effective.min(axis=1) > had)
        told = samples[tells]
        self._tell(answer, objective, mixture[tells], told, chains.draws[tells])
        answer.kind[told] = "mcmc"
        answer.rhat[told] = chains.rhat[tells, : self.n_params_]
        answer.n_effective[told] = n_effective[tells]
        answer.is_confirmed[told] = is_confirmed[tells]
        n_more = (objective.n_forward - before).numpy()[samples]
        self._count(answer, samples, chains.n_failed, n_more)
        answer.n_drawn[samples] += n_more
        stopped = chains.status == InversionStatus.INTERRUPTED
        answer.status[samples[stopped]] = InversionStatus.INTERRUPTED
        return chains

    @staticmethod
    def _count(answer, samples, n_failed, n_draws):
        """Count draws that cannot be run, unless they are a few that lie far out."""
        answer.n_failed[samples] += np.where(n_failed > RARE * n_draws, n_failed, 0)

    def _tell(self, answer, objective, mixture, samples, draws):
        """Let draws in the standard coordinate tell the posteriors of samples."""
        p, device = self.n_params_, self._device
        answer.draws[samples] = self.model_.prior_.from_standard(draws[..., :p])
        answer.weights[samples] = mixture.shares(draws)
        middle = torch.as_tensor(np.median(draws, axis=1), device=device)
        scale = objective.noise_scale(middle, torch.as_tensor(samples, device=device))
        answer.noise_scale[samples] = scale.cpu().numpy()

    def _log_density(self, objective, samples):
        """Return the log posterior of standard coordinates, rows of some samples."""

        def log_density(rows: np.ndarray, sample: np.ndarray) -> np.ndarray:
            free, z, everyone = self._in_standard(objective, samples[sample], rows)
            return -free.value(z, everyone).cpu().numpy()

        return log_density

    def _residuals(self, objective, samples):
        """Return standardized residuals at standard coordinates, and their Jacobians."""

        def residuals(rows: np.ndarray, sample: np.ndarray):
            free, z, everyone = self._in_standard(objective, samples[sample], rows)
            return (part.cpu().numpy() for part in free.residuals(z, everyone))

        return residuals

    def _gradient(self, objective, samples):
        """Return its gradient, NaN where there is none."""

        def gradient(rows: np.ndarray, sample: np.ndarray) -> np.ndarray:
            free, z, everyone = self._in_standard(objective, samples[sample], rows)
            value, slope = free(z, everyone)
            slope = torch.where(value.isfinite()[:, None], -slope, torch.nan)
            return slope.cpu().numpy()

        return gradient

    def _in_standard(self, objective, sample, rows):
        """Return the objective of standard coordinates, rows of these, and their order."""
        z, of = (torch.as_tensor(a, device=self._device) for a in (rows, sample))
        return InStandard(objective, of), z, torch.arange(len(z), device=z.device)

    def _warn_of(self, answer):
        super()._warn_of(answer)
        checked = answer.n_drawn > 0
        strange = np.flatnonzero(checked & ~answer.is_confirmed)
        if len(strange) == 0 or self.max_solves is None:  # chains speak for themselves
            return
        first = answer[strange[0]]
        runs = f"{first.n_drawn[0]:,} runs of the model"
        if first.kind[0] != "laplace":
            why = f"draws do not agree after {runs}"
        elif first.effective_share[0] * first.n_drawn[0] < FEWEST_DRAWS:
            why = (
                f"only {100 * first.effective_share[0]:.0f} % of {runs} at draws count"
            )
        else:
            told = f"overlap {100 * first.overlap[0]:.0f} %"
            why = f"{runs} at draws say otherwise ({told})"
        more = max(100_000, 10 * self.max_solves)
        how = f"{more:_} to let importance sampling and Markov chains tell them"
        if first.scales.size and first.kind[0] == "mcmc":
            how = "2_000 at least: all draws of functions with kinks are then weighed"
        warn_user(
            f"The posteriors of {len(strange)} of {checked.sum()} samples may be wrong. "
            f"The first is row {strange[0]}, told by {first.kind[0]}: {why}. Set "
            f"max_solves={how}.",
            NormalityWarning,
        )
