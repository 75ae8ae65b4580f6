"""Searches that are as sure of their optima as Laplace's approximation says."""

from functools import partial

import numpy as np
import torch

from sklearn_inverse.base import PosteriorInverter
from sklearn_inverse.inverse._search import SearchInverter
from sklearn_inverse.optim._continuation import (
    SLOW_GROWTH,
    continuation,
    growing_horizons,
    led_by_prior,
)
from sklearn_inverse.optim._levenberg_marquardt import levenberg_marquardt
from sklearn_inverse.optim._multistart import ALL, ROUNDS, VARIED, follow, multistart
from sklearn_inverse.optim._standard import InStandard
from sklearn_inverse.probability import InversionStatus, Posterior
from sklearn_inverse.probability._laplace import (
    REMOTE,
    distinct_optima,
    inverse,
    log_weight,
)
from sklearn_inverse.probability._mixture import StudentMixture
from sklearn_inverse.probability._posterior import FlatCoordinate

__all__ = ["LaplaceInverter"]

MAX_MODES = 4  # optima that are kept per sample
LIGHT = 1e-3  # modes that weigh less are dropped
N_SETTLE = 6  # rounds in which params and noise settle on each other
SURELY = 1.5  # strangeness from which on readings are of another kind
N_PLACES = 4  # params of the prior at which it is seen how well readings tell params


class LaplaceInverter(SearchInverter, PosteriorInverter):
    """A search whose answer is a mixture of normal distributions around its optima.

    Each covariance is the inverse of the Gauss–Newton Hessian (Fisher scoring) in the
    standard coordinate, where the prior is normal itself (Laplace's approximation).
    """

    _answer_type = Posterior

    def _blank_modes(self, n_samples, n_params):
        prior = self.model_.prior_
        coordinate = prior
        if self.prior is None:
            coordinate = FlatCoordinate(
                prior.scaler, prior.scaled_low, prior.scaled_high
            )
        weights = np.zeros((n_samples, MAX_MODES))
        weights[:, 0] = 1.0
        shape = (n_samples, MAX_MODES, n_params)
        return {
            "coordinate": coordinate,
            "weights": weights,
            "centers": np.full(shape, np.nan),
            "covariances": np.full((*shape, n_params), np.nan),
        }

    def _find(self, objective, optimize, *, n_starts, first="center", by_stages=True):
        """Climb from draws of the prior; return where all ended, and the first starts.

        Parameters
        ----------
        objective : Objective
            What is minimized.

        optimize : callable
            ``optimize(objective, start, sample) -> Optimum``.

        n_starts : int or "adaptive"
            Starts per sample.

        first : {"center", "random"} or array-like of shape (n_params,), default="center"
            Where the first start lies.

        by_stages : bool, default=True
            Whether the horizon grows (and does so slowly, once more, where residuals do
            not look like noise), and the prior leads the first start where readings are
            few.
        """
        adaptive = n_starts == "adaptive"
        starts = self._starts(ALL if adaptive else n_starts, first)
        n_samples = len(objective.readings)
        sample = torch.arange(n_samples, device=starts.device)
        rows = sample.repeat_interleave(len(starts))
        x = objective.with_scales(starts.repeat(n_samples, 1), rows)
        x = x.reshape(n_samples, len(starts), -1)

        by_stages = by_stages and not self._is_trial
        climb, slowly = partial(optimize, objective), None
        begin, n_led = x.clone(), 0
        if by_stages:
            climb = partial(continuation, objective, optimize)
            if len(growing_horizons(objective)) > 1:
                slowly = partial(climb, growth=SLOW_GROWTH)
            begin[:, 0], n_led = led_by_prior(objective, optimize, x[:, 0], sample)
        draws = None
        if adaptive and not self._is_trial:
            draws = self._starts(ROUNDS * VARIED, "random")
        ends = multistart(
            objective, begin, climb, adaptive=adaptive, retry=slowly, draws=draws
        )
        if adaptive and self.max_iter is None:
            ends = follow(ends, partial(optimize, objective))
        return ends._replace(n_iter=ends.n_iter + n_led), x[:, 0]

    def _conclude(self, objective, ends, start) -> Posterior:
        """Return the posterior from where all starts of all samples ended.

        Parameters
        ----------
        objective : Objective
            What was minimized.

        ends : Ends
            Where the starts ended.

        start : Tensor of shape (n_samples, n_free)
            Where the first ones set out.
        """
        n_samples = len(ends.x)
        answer = self._blank(objective.readings.cpu().numpy())
        answer.ends = ends.value.cpu().numpy()
        index, exists, n_confirmed = distinct_optima(
            ends.x, ends.value, ends.hessian, most=MAX_MODES
        )
        everyone = torch.arange(n_samples, device=ends.x.device)
        reached = ends.value.gather(1, index)
        exists &= reached <= reached[:, :1] + REMOTE
        best = ends.x[everyone, index[:, 0]].clone()
        status = ends.status[everyone, index[:, 0]]
        stopped = (ends.status == InversionStatus.INTERRUPTED).any(dim=1)
        status = torch.where(stopped, int(InversionStatus.INTERRUPTED), status)
        start_misfit = objective.judge(start, everyone).misfit
        near = torch.zeros_like(best[:, : self.n_params_])
        n_told = torch.zeros_like(best[:, 0])

        mixture = None
        sample, place = exists.nonzero().T
        n_iter, n_optima = ends.n_iter, np.zeros(n_samples, dtype=int)
        if len(sample):
            modes = objective.select(sample)
            rows = torch.arange(len(sample), device=sample.device)
            x = ends.x[sample, index[sample, place]]
            if not stopped.any() and not self._is_trial:
                x, extra = self._settle_noise(modes, x, rows)
                n_iter = n_iter.index_add(0, sample, extra)
            value = modes.value(x, rows)
            center, covariance, spread = self._locate(modes, x, rows)
            weight = log_weight(value, spread)
            n_optima, mode = self._fill_modes(
                answer, sample, weight, center, covariance
            )
            if modes.weighs_prior and len(modes.unknown) == 0:
                of, logs = sample.cpu().numpy(), weight.cpu().numpy()
                answer.log_evidence[of] = -np.inf
                np.logaddexp.at(answer.log_evidence, of, logs)
            if modes.weighs_prior:
                z = InStandard(modes, rows).from_scaled(x).cpu().numpy()
                spread_of = spread.cpu().numpy()[mode]
                mixture = StudentMixture(answer.weights, z[mode], spread_of)
            lowest = value.new_full((n_samples,), torch.inf)
            lowest = lowest.scatter_reduce(0, sample, value, "amin")
            at_best = value <= lowest[sample]
            best[sample[at_best]] = x[at_best]
            near[sample[at_best]] = 2 * self._scaled_std(modes, x, spread)[at_best]
            n_told[sample[at_best]] = self._n_told(modes, spread)[at_best]
            for name in ("n_forward", "n_linearized"):
                counter = getattr(objective, name)
                counter.index_add_(0, sample.cpu(), getattr(modes, name))
        self._judge(answer, objective, best, everyone, status, near, n_told)
        lost = np.isnan(answer.misfit)
        answer.centers[lost], answer.covariances[lost] = np.nan, np.nan
        if not (stopped.any() or self._is_trial):
            self._widen(answer, objective, n_told.cpu().numpy())
        self._set(
            answer,
            start_misfit=start_misfit,
            n_iter=n_iter,
            n_forward=objective.n_forward,
            n_linearized=objective.n_linearized,
            n_failed=ends.n_failed,
            n_optima=n_optima,
            n_confirmed=n_confirmed,
        )
        found = np.flatnonzero(~lost)
        if mixture is not None and len(found) and not (stopped.any() or self._is_trial):
            self._look_closer(answer, objective, mixture[found], found)
            runs = {n: getattr(objective, n) for n in ("n_forward", "n_linearized")}
            self._set(answer, **runs)
        return answer

    def _n_told(self, modes, spread):
        """Return of how many readings the params follow the scatter, for each mode."""
        variance = spread.diagonal(dim1=1, dim2=2)[:, : self.n_params_]
        if modes.weighs_prior:
            return (1 - variance).clamp(min=0).sum(dim=1)
        return (variance > 0).to(spread).sum(dim=1)

    def _widen(self, answer, objective, n_told):
        """Widen posteriors of readings that nothing explains, as if they were noisier.

        By how much their scatter says. Where that leaves no doubt, until no error is
        below what readings of the model at the same times would leave: params that are
        wrong look well known.
        """
        samples = np.flatnonzero(~np.isnan(answer.misfit) & ~answer.explained)
        if len(samples) == 0:
            return
        dof = np.maximum(answer.n_readings - n_told, 1)
        scale = np.maximum(answer.misfit / dof, 1)[samples].clip(max=1e100)
        if not objective.weighs_prior:
            answer.covariances[samples] *= scale[:, None, None, None]
            return
        floor = self._usual_std(answer, objective, samples)
        # Hardly strange is what nonlinear models look like too, once in a while.
        floor = np.where(answer.strangeness[samples, None] > SURELY, floor, 0.0)
        narrow = np.arange(len(samples))
        for factor in (1, 4, 16, 64, 1e100):  # at last, the prior
            part = answer[samples[narrow]]
            part.centers, part.covariances = temper(
                self.model_.prior_,
                part.centers,
                part.covariances,
                factor * scale[narrow],
            )
            done = (part.std >= floor[narrow]).all(axis=1) | (factor > 64)
            rows = samples[narrow[done]]
            answer.centers[rows] = part.centers[done]
            answer.covariances[rows] = part.covariances[done]
            narrow = narrow[~done]
            if len(narrow) == 0:
                break

    def _usual_std(self, answer, objective, samples):
        """Return errors that readings of the model leave, (n_samples, n_params).

        The largest over some params of the prior, but not above the prior's own.
        """
        center, covariance = self._usual(objective, samples)
        usual = answer[np.repeat(samples, len(center) // len(samples))]
        usual.weights = np.ones((len(usual), 1))
        usual.centers, usual.covariances = center[:, None], covariance[:, None]
        std = usual.std.reshape(len(samples), -1, self.n_params_).max(axis=1)
        mixing, prior = self.model_.prior_.mixing, usual[:1]
        prior.centers = 0 * prior.centers
        prior.covariances = (mixing @ mixing.T)[None, None]
        return np.minimum(std, (1 - 1e-6) * prior.std)

    def _usual(self, objective, samples):
        """Return centers and covariances for params of the prior, read as samples are."""
        places = self._starts(N_PLACES)
        sample = torch.as_tensor(samples, device=places.device)
        sample = sample.repeat_interleave(N_PLACES)
        x = objective.with_scales(places.repeat(len(samples), 1), sample)
        center, covariance, _ = self._locate(objective, x, sample)
        return center, covariance

    def _look_closer(self, answer, objective, mixture, samples):
        """See whether the posteriors of samples are what the mixture says."""

    def _settle_noise(self, modes, x, rows):
        """Let the noise know how closely the params follow the readings.

        The most likely noise is too small by what the params take up; its marginal
        mode, which this finds, is not (REML).
        """
        extra = torch.zeros_like(rows)
        if not modes.noise.has_unknowns or modes.noise_std is not None:
            return x, extra
        if not modes.weighs_prior and len(modes.unknown) == 0:
            return x, extra  # maximum likelihood of everything
        most = min(self.max_iter or 20, 20)
        for _ in range(N_SETTLE):
            _, *modes.leverage = modes.information(x, rows)
            end = levenberg_marquardt(modes, x, rows, max_iter=most, tol=self.tol)
            usable = end.value.isfinite()
            step = torch.where(usable[:, None], end.x - x, 0.0)
            moved = torch.einsum("np,npq,nq->n", step, end.hessian, step)
            x, extra = x + step, extra + end.n_iter
            if (moved < 1e-3).all():
                break
        modes.leverage = None
        return x, extra

    def _locate(self, modes, x, rows):
        """Return center and covariance of modes in the posterior's coordinate.

        Returns
        -------
        center : ndarray of shape (n_rows, n_params)
            Centers.

        covariance : ndarray of shape (n_rows, n_params, n_params)
            Covariances of the params.

        spread : Tensor of shape (n_rows, n_free, n_free)
            Covariance with the unknown noise scales.
        """
        p, prior = self.n_params_, self.model_.prior_
        information, *_ = modes.information(x, rows)
        scaled = x[:, :p].cpu().numpy()
        if not modes.weighs_prior:
            held = (x <= modes.low) | (x >= modes.high)
            free = ~held
            information = torch.where(
                free[:, :, None] & free[:, None], information, 0.0
            ) + torch.diag_embed(held.to(x))
            spread = inverse(modes.lifted(information))
            covariance = torch.where(free[:, :, None] & free[:, None], spread, 0.0)
            return scaled, covariance[:, :p, :p].cpu().numpy(), spread
        # From the information by scaled params to that by standard ones.
        slope = torch.as_tensor(prior.standard_slope(scaled)).to(x)
        by_standard = torch.eye(x.shape[1]).to(x).repeat(len(x), 1, 1)
        by_standard[:, :p, :p] = torch.linalg.inv(slope)
        information = by_standard.mT @ information @ by_standard
        information[:, range(p), range(p)] += 1.0
        spread = inverse(modes.lifted(information))
        mixing = prior.mixing
        covariance = mixing @ spread[:, :p, :p].cpu().numpy() @ mixing.T
        params = prior.scaler.from_scaled(scaled)
        return prior.to_coordinate(params), covariance, spread

    def _scaled_std(self, modes, x, spread):
        """Return the standard deviations of scaled params, (n_rows, n_params)."""
        p = self.n_params_
        variance = spread[:, :p, :p]
        if modes.weighs_prior:
            slope = self.model_.prior_.standard_slope(x[:, :p].cpu().numpy())
            back = torch.linalg.inv(torch.as_tensor(slope).to(x))
            variance = back @ variance @ back.mT
        return variance.diagonal(dim1=1, dim2=2).sqrt()

    @staticmethod
    def _fill_modes(answer, sample, weight, center, covariance):
        """Lay modes out by sample, the likeliest first.

        Return how many there are, and which is in each place (n_samples, MAX_MODES);
        empty places repeat the first mode: finite, and of no weight.
        """
        sample, weight = sample.cpu().numpy(), weight.cpu().numpy()
        # The model may fail at all modes of a sample, as it did not in the search.
        weight = np.nan_to_num(weight, nan=np.finfo(float).min)
        n_optima = np.zeros(len(answer), dtype=int)
        mode = np.zeros(answer.weights.shape, dtype=int)
        for i in np.unique(sample):
            rows = np.flatnonzero(sample == i)
            rows = _apart(
                rows[np.argsort(-weight[rows], kind="stable")], center, covariance
            )
            n_optima[i] = n = len(rows)
            share = np.exp(weight[rows] - weight[rows[0]])
            share = np.where(share >= LIGHT, share, 0.0)
            answer.weights[i], answer.weights[i, :n] = 0.0, share / share.sum()
            mode[i], mode[i, :n] = rows[0], rows
        answer.centers[:], answer.covariances[:] = center[mode], covariance[mode]
        return n_optima, mode


def temper(prior, centers, covariances, scale):
    """Return centers and covariances for noise of ``scale`` times the variance.

    To first order: in a coordinate in which the prior is standard normal, the
    information of the readings is divided by the scale (n_samples,) of each sample.
    """
    back = np.linalg.inv(prior.mixing)
    values, vectors = np.linalg.eigh(back @ covariances @ back.T)
    values = values.clip(0, 1)
    scale = scale[:, None, None]
    shrink = 1 / (1 - values + scale * values)
    vectors = prior.mixing @ vectors
    along = np.linalg.solve(vectors, centers[..., None])[..., 0]
    centers = (vectors @ (shrink * along)[..., None])[..., 0]
    factor = vectors * np.sqrt(scale * values * shrink)[..., None, :]
    return centers, factor @ factor.mT


def _apart(rows, center, covariance):
    """Drop rows that came to lie on an earlier one, within a standard deviation."""
    kept = []
    for row in rows:
        away = center[row] - center[kept]
        precision = np.linalg.pinv(covariance[kept], hermitian=True)
        if not (np.einsum("kp,kpq,kq->k", away, precision, away) < 1).any():
            kept.append(row)
    return kept
