"""Posterior: all that an inverter can say of the params of each sample."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import ndtr

from sklearn_inverse.probability._arviz import N_CHAINS, to_arviz
from sklearn_inverse.probability._estimate import Estimate
from sklearn_inverse.probability._laplace import factorize

__all__ = ["FlatCoordinate", "Posterior"]

N_NODES = 32  # of the quadrature behind means and standard deviations
N_DRAWS = 2000  # behind covariances


@dataclass(repr=False)
class Posterior(Estimate):
    """What is believed of the params of each sample after its readings.

    Either a mixture of normal distributions, one around each optimum found, in a
    coordinate in which the prior is normal too, so that draws and intervals keep to the
    prior's support; or draws, where there are any: then all is told by these.

    Attributes
    ----------
    coordinate : object
        Turns the coordinate into params: ``coordinate.from_coordinate(v)``, entry by
        entry increasing.

    weights : ndarray of shape (n_samples, n_modes)
        Probability of each mode; zero where there are fewer.

    centers : ndarray of shape (n_samples, n_modes, n_params)
        Centers of the modes in the coordinate.

    covariances : ndarray of shape (n_samples, n_modes, n_params, n_params)
        Their covariances in the coordinate.

    kind : ndarray of str of shape (n_samples,)
        What tells it: "laplace" or "learned", normal distributions; "importance", draws
        that are weighed (by adaptive importance sampling or randomize-then-optimize), or
        "mcmc".

    ends : ndarray of shape (n_samples, n_starts)
        Minus the log posterior where each start of a search ended, infinite where it
        failed or was not needed; empty for other methods.

    draws : ndarray of shape (n_samples, n_kept, n_params)
        Draws of the params, in their own units; NaN where normal distributions tell.

    is_confirmed : ndarray of bool of shape (n_samples,)
        Whether runs of the model have borne it out: normal distributions overlap with
        the posterior, rounds or halves of weighed draws agree, chains have converged.

    scales : ndarray of shape (n_samples, n_open)
        Scales of the priors of functions, found by evidence where they are not given;
        with kinks, those of the priors without, from which chains set out.

    log_evidence : ndarray of shape (n_samples,)
        Log density of the readings under model, noise and prior, params integrated out:
        of two models, or scales of a prior, that with the larger one is the likelier.
        By Laplace's approximation; NaN where no prior counts, functions have kinks, or a
        noise level is unknown that has none.

    overlap : ndarray of shape (n_samples,)
        Mass that the posterior and the normal distributions have in common, as weighed
        runs of the model at draws tell; NaN where this was not checked. No classifier
        tells draws of the two apart at more than ``1 - overlap / 2``.

    effective_share : ndarray of shape (n_samples,)
        Of these runs, those that count when each is weighed by how likely it is.

    n_drawn : ndarray of int of shape (n_samples,)
        Runs of the model at draws, to check the posterior or to find it.

    rhat, n_effective : ndarray of shape (n_samples, n_params)
        Split R-hat of groups of walkers, about one where chains agree; independent draws
        that would tell means as precisely. NaN where there are none.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_inverse import GradientInverter, ODESystem
    >>> def decay(t, y, p):
    ...     return -p.rate * y.amount
    >>> system = ODESystem(
    ...     decay, states={"amount": 1.0}, params={"rate": (0.1, 3.0)},
    ...     times=[0.0, 1.0, 2.0], noise=0.02,
    ... )
    >>> measured = [[1.0, 0.36, 0.14]]
    >>> posterior = GradientInverter(system).fit(measured).posterior(measured)
    >>> posterior.mean.round(1), posterior.std.round(2)
    (array([[1.]]), array([[0.04]]))
    """

    coordinate: Any = None
    weights: np.ndarray = field(default_factory=lambda: np.empty(0))
    centers: np.ndarray = field(default_factory=lambda: np.empty(0))
    covariances: np.ndarray = field(default_factory=lambda: np.empty(0))
    kind: Any = "laplace"
    ends: Any = None
    draws: Any = None
    is_confirmed: Any = None
    overlap: Any = None
    scales: Any = None
    log_evidence: Any = None
    effective_share: Any = None
    n_drawn: Any = None
    rhat: Any = None
    n_effective: Any = None

    def __post_init__(self):
        n, p = self.params.shape
        if isinstance(self.kind, str):
            self.kind = np.full(n, self.kind, dtype="<U10")
        for name, shape, blank in (
            ("ends", (n, 0), np.inf),
            ("draws", (n, 0, p), np.nan),
            ("is_confirmed", n, False),
            ("overlap", n, np.nan),
            ("scales", (n, 0), np.nan),
            ("log_evidence", n, np.nan),
            ("effective_share", n, np.nan),
            ("n_drawn", n, 0),
            ("rhat", (n, p), np.nan),
            ("n_effective", (n, p), np.nan),
        ):
            if getattr(self, name) is None:
                setattr(self, name, np.full(shape, blank))

    @property
    def mean(self) -> np.ndarray:
        """Posterior means, (n_samples, n_params); of a flat prior the estimates."""
        return self._moments()[0]

    @property
    def std(self) -> np.ndarray:
        """Posterior standard deviations, (n_samples, n_params)."""
        return self._moments()[1]

    @property
    def modes(self) -> np.ndarray:
        """Params of all modes, (n_samples, n_modes, n_params), the likeliest first."""
        return self.coordinate.from_coordinate(self.centers)

    @property
    def correlation(self) -> np.ndarray:
        """Correlations of the params, (n_samples, n_params, n_params)."""
        correlation = self._correlation_of(self.sample(N_DRAWS))
        if (drawn := self._is_drawn).any():
            correlation[drawn] = self._correlation_of(self.draws[drawn])
        return correlation

    @property
    def covariance(self) -> np.ndarray:
        """Covariances in the params' own units, (n_samples, n_params, n_params)."""
        std = self.std
        return self.correlation * std[:, :, None] * std[:, None, :]

    @property
    def contraction(self) -> np.ndarray:
        """Posterior over prior spread in the coordinate; NaN for a flat prior."""
        if self._is_flat:
            return np.full_like(self.params, np.nan)
        mean = np.einsum("sm,smp->sp", self.weights, self.centers)
        variance = np.einsum("smpp->smp", self.covariances)
        away = (self.centers - mean[:, None]) ** 2
        spread = np.sqrt(np.einsum("sm,smp->sp", self.weights, variance + away))
        if (drawn := self._is_drawn).any():
            spread[drawn] = self.coordinate.to_coordinate(self.draws[drawn]).std(axis=1)
        if self.scales.size:
            priors = [self.coordinate.at_scales(scales) for scales in self.scales]
            spread /= [np.linalg.norm(prior.mixing, axis=1) for prior in priors]
        return spread

    def quantile(self, level) -> np.ndarray:
        """Return quantiles, (n_samples, n_params), or with the levels' axis first."""
        level = self._check_level(level)
        sd = np.sqrt(np.einsum("smpp->smp", self.covariances))
        low = (self.centers - 9 * sd - 1e-12).min(axis=1)
        high = (self.centers + 9 * sd + 1e-12).max(axis=1)
        low, high = (np.broadcast_to(a, (*level.shape, *a.shape)) for a in (low, high))
        wanted = level[..., None, None]
        safe = np.where(sd > 0, sd, 1e-300)
        for _ in range(60):  # bisection
            middle = (low + high) / 2
            steps = ndtr((middle[..., None, :] - self.centers) / safe)
            below = np.einsum("sm,...smp->...sp", self.weights, steps) < wanted
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        quantile = self.coordinate.from_coordinate((low + high) / 2)
        if (drawn := self._is_drawn).any():
            quantile[..., drawn, :] = np.quantile(self.draws[drawn], level, axis=1)
        return quantile

    def interval(self, level=0.9) -> tuple[np.ndarray, np.ndarray]:
        """Return the ends of central intervals, each (n_samples, n_params)."""
        lower, upper = self.quantile([(1 - level) / 2, (1 + level) / 2])
        return lower, upper

    def sample(self, n_draws=100, random_state=0) -> np.ndarray:
        """Draw params, (n_samples, n_draws, n_params).

        All samples share their random numbers, so that the draws of one do not depend
        on its companions. Where there are draws these are picked, none a second time
        before all have been picked once.
        """
        self._check_n_draws(n_draws)
        rng = np.random.default_rng(random_state)
        noise = rng.standard_normal((n_draws, len(self.names)))
        share = (rng.permutation(n_draws) + rng.random(n_draws)) / n_draws
        draws = np.full((len(self), n_draws, len(self.names)), np.nan)
        known = np.isfinite(self.params).all(axis=1)
        ends = self.weights[known].cumsum(axis=1)
        mode = (share[None, :, None] > ends[:, None, :-1]).sum(axis=2)
        factor = factorize(self.covariances[known])
        row = np.arange(len(mode))[:, None]
        moved = np.einsum("sdpq,dq->sdp", factor[row, mode], noise)
        draws[known] = self.centers[known][row, mode] + moved
        draws = self.coordinate.from_coordinate(draws)
        if (drawn := self._is_drawn).any():
            order = np.random.default_rng(random_state).permutation(self.draws.shape[1])
            draws[drawn] = self.draws[drawn][:, np.resize(order, n_draws)]
        return draws

    def to_arviz(
        self,
        *,
        model=None,
        observations=None,
        noise_std=None,
        inputs=None,
        n_draws=1000,
    ):
        """Return one sample as ArviZ takes it, for its plots and criteria.

        Parameters
        ----------
        model : fitted ForwardModel, default=None
            ``inverter.model_``, which is run at all draws to foretell readings. If None,
            there are none.

        observations : array-like of shape (n_times, n_channels), default=None
            What was measured, in this or any shape of as many entries, NaN where
            nothing was. Needs the model.

        noise_std : array-like of shape (1, n_times, n_channels), default=None
            Noise of the observations in place of the model's; broadcast.

        inputs : array-like of shape (1, n_inputs), default=None
            Inputs of the sample, if the model has any.

        n_draws : int, default=1000
            Draws, in four chains. Those of Markov chains are handed over as they are.

        Returns
        -------
        tree : xarray.DataTree
            Groups "posterior", and with a model "posterior_predictive", with
            observations too "log_likelihood" and "observed_data".

        Raises
        ------
        ImportError
            If arviz-base is not installed.

        ValueError
            If there are several samples, nothing was found for this one, or observations
            have another size or no model.
        """
        if len(self) != 1 or not np.isfinite(self.params).all():
            raise ValueError(
                "`to_arviz` takes one sample with an answer: pick one, posterior[0]. "
                f"Got {self!r}."
            )
        draws = self._in_order(n_draws)
        return to_arviz(draws, self, model, observations, noise_std, inputs)

    def _in_order(self, n_draws):
        """Return draws of the first sample as they were made."""
        if self._is_drawn[0]:
            draws = self.draws[0]
            return draws[: N_CHAINS * (len(draws) // N_CHAINS)]
        return self.sample(N_CHAINS * -(-n_draws // N_CHAINS))[0]

    @staticmethod
    def _check_level(level):
        level = np.asarray(level, dtype=float)
        if not ((level > 0) & (level < 1)).all():
            raise ValueError(f"`level` must lie between 0 and 1. Got {level} instead.")
        return level

    @staticmethod
    def _check_n_draws(n_draws):
        if not isinstance(n_draws, (int, np.integer)) or n_draws < 1:
            raise ValueError(f"`n_draws` must be an int >= 1. Got {n_draws!r} instead.")

    @staticmethod
    def _correlation_of(draws):
        away = draws - draws.mean(axis=1, keepdims=True)
        size = np.sqrt((away**2).mean(axis=1, keepdims=True))
        away = away / np.where(size > 0, size, 1.0)
        correlation = np.einsum("sdp,sdq->spq", away, away) / draws.shape[1]
        eye = np.eye(correlation.shape[1], dtype=bool)
        return np.where(eye & ~np.isnan(correlation), 1.0, correlation)

    @property
    def _is_flat(self):
        return isinstance(self.coordinate, FlatCoordinate)

    @property
    def _is_drawn(self):
        """Which samples draws tell of."""
        return np.isfinite(self.draws[:, :1, 0]).any(axis=1)

    def _moments(self):
        mean, std = self._moments_of_modes()
        if (drawn := self._is_drawn).any():
            draws = self.draws[drawn]
            mean[drawn], std[drawn] = draws.mean(axis=1), draws.std(axis=1)
        return mean, std

    def _moments_of_modes(self):
        if self._is_flat:
            values, spread = self.modes, self.coordinate.slope(self.centers)
            variance = spread**2 * np.einsum("smpp->smp", self.covariances)
            mean = np.einsum("sm,smp->sp", self.weights, values)
            within = variance + (values - mean[:, None]) ** 2
            return mean, np.sqrt(np.einsum("sm,smp->sp", self.weights, within))
        nodes, weights = np.polynomial.hermite_e.hermegauss(N_NODES)
        weights = weights / weights.sum()
        sd = np.sqrt(np.einsum("smpp->smp", self.covariances))
        points = self.centers[..., None, :] + sd[..., None, :] * nodes[:, None]
        values = self.coordinate.from_coordinate(points)
        mean = np.einsum("sm,q,smqp->sp", self.weights, weights, values)
        away = (values - mean[:, None, None]) ** 2
        return mean, np.sqrt(np.einsum("sm,q,smqp->sp", self.weights, weights, away))

    def _method(self):
        """Return how it was found, in words."""
        kind, n_drawn = self.kind[0], int(self.n_drawn[0])
        runs = f"{n_drawn:,} runs of the model"
        told = f"effective share {100 * self.effective_share[0]:.0f} %"
        if kind == "learned":
            return kind
        if kind == "laplace" and not n_drawn:
            return "laplace, not checked"
        if kind == "laplace":
            told = f"overlap {100 * self.overlap[0]:.0f} %, {told}"
            if self.is_confirmed[0]:
                return f"laplace, checked on {runs}: {told}"
            return f"laplace, NOT confirmed by {runs} ({told}): raise max_solves"
        told = f"{self.n_effective[0].min():,.0f} effective draws"
        if kind == "mcmc":
            told = f"R-hat {self.rhat[0].max():.3f}, {told}"
        text = f"{kind}: {runs}, {told}"
        return text if self.is_confirmed[0] else f"{text}; these do NOT agree yet"

    def _columns(self):
        lower, upper = self.interval(0.9)
        mean, std = self._moments()
        columns = {"estimate": mean, "std": std, "lower_90": lower, "upper_90": upper}
        kind = np.broadcast_to(self.kind[:, None], mean.shape)
        columns |= {"at_bound": self.at_bound, "kind": kind}
        if self._is_drawn.any():
            columns |= {"rhat": self.rhat, "n_effective": self.n_effective}
        return columns


class FlatCoordinate:
    """Scaled params with bounds, for the normal approximation of a likelihood alone.

    Parameters
    ----------
    scaler : ParamScaler
        Map of the scaled params to their own units.

    low, high : ndarray of shape (n_params,)
        Bounds of the scaled params.
    """

    def __init__(self, scaler, low: Sequence[float], high: Sequence[float]):
        self.scaler, self.low, self.high = scaler, low, high

    def from_coordinate(self, scaled):
        """Return params in their own units, kept inside the bounds."""
        return self.scaler.from_scaled(np.clip(scaled, self.low, self.high))

    def slope(self, scaled):
        """Return the derivative of the params by the scaled ones."""
        step = 1e-6
        up, down = (self.scaler.from_scaled(scaled + s) for s in (step, -step))
        return (up - down) / (2 * step)
