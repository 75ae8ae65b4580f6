"""Profile likelihoods: what readings say of each param, the others set free."""

from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import chi2

from sklearn_inverse.inspection._panels import (
    BLUE,
    GREY,
    VERMILLION,
    choose,
    make_panels,
    percent,
    set_log,
)
from sklearn_inverse.inspection._sample import noise_of, pick, split_pipeline, units_of
from sklearn_inverse.inverse._search import SearchInverter
from sklearn_inverse.optim._profile import profile
from sklearn_inverse.utils._docs import shared_docs

__all__ = ["ProfileDisplay", "ProfileLikelihood", "profile_likelihood"]


class ProfileLikelihood(NamedTuple):
    """Profiles of some params of one sample.

    Attributes
    ----------
    names : list of str
        The params that were profiled.

    values : list of ndarray of shape (n_points,)
        For each of them, its grid, increasing.

    deviances : list of ndarray of shape (n_points,)
        Twice the log likelihood (or posterior) lost against the optimum.

    params : list of ndarray of shape (n_points, n_params)
        All params, re-optimized, at each point.

    interval : ndarray of shape (n_names, 2)
        Confidence limits: infinite where the deviance stays below the threshold up to
        the bound, or only bounds of other params set one; NaN where none could be
        found, as the model failed or the other params did not converge.

    optimum : ndarray of shape (n_names,)
        The profiled params at the optimum.

    level, threshold : float
        Confidence level, and the quantile of chi-square with one degree of freedom.

    kind : {"likelihood", "posterior"}
        Whether the prior counts.

    units : list of str
        Units of the profiled params, empty where unknown.

    is_log : list of bool
        Whether they are scaled by their logarithm.
    """

    names: list
    values: list
    deviances: list
    params: list
    interval: np.ndarray
    optimum: np.ndarray
    level: float
    threshold: float
    kind: str
    units: list
    is_log: list


@shared_docs
def profile_likelihood(
    inverter,
    observations,
    sample_index=0,
    *,
    params=None,
    n_points=16,
    level=0.95,
    noise_std=None,
    inputs=None,
):
    """Hold each param at values around the optimum, and fit the others anew.

    All points of all params advance together, as one batch, from the optimum to where
    the deviance exceeds its threshold, or to the bound. Unknown noise is fitted anew,
    too.

    Parameters
    ----------
    inverter : fitted inverter that searches, or Pipeline ending in one
        With ``prior=None`` the likelihood alone counts. Otherwise this is the profile
        of the posterior in the prior's standard coordinate, and limits are never open.

    %(observations)s

    %(sample_index)s

    params : list of str or int, default=None
        Which params. If None, all.

    n_points : int, default=16
        About how many points lie between the confidence limits.

    level : float, default=0.95
        Confidence level.

    %(noise_std)s

    %(inputs)s

    Returns
    -------
    profiles : ProfileLikelihood
        Grids, deviances and confidence limits.

    See Also
    --------
    ProfileDisplay : Draws them.
    identifiability : Puts them into words.

    References
    ----------
    .. [1] A. Raue et al., "Structural and practical identifiability analysis of
       partially observed dynamical models by exploiting the profile likelihood",
       Bioinformatics 25 (2009) 1923-1929.

    Examples
    --------
    >>> import torch
    >>> from sklearn_inverse import ForwardFunction, GradientInverter
    >>> from sklearn_inverse.inspection import profile_likelihood
    >>> line = ForwardFunction(
    ...     lambda k: k * torch.arange(3.0), params={"slope": (0.0, 9.0)}, noise=1.0
    ... )
    >>> measured = [[0.0, 2.0, 4.0]]
    >>> inverter = GradientInverter(line, prior=None).fit(measured)
    >>> profile_likelihood(inverter, measured).interval.round(2)  # 2 ± 1.96 / √5
    array([[1.12, 2.88]])
    """
    fitted = optimum_of(inverter, observations, sample_index, noise_std, inputs)
    names = fitted.answer.names
    chosen = choose(params, names, name="params", max_panels=len(names))
    with fitted.model.unchanging():
        return profiles_of(fitted, fitted.objective(), chosen, n_points, level)


class Fitted(NamedTuple):
    """One sample, and what its inverter found."""

    inverter: object
    answer: object
    arrays: tuple

    @property
    def model(self):
        """The forward model."""
        return self.inverter.model_

    def objective(self, **options):
        """Return what the inverter minimizes; see :class:`Objective`."""
        return self.inverter._objective(*self.arrays, **options)

    def optima(self, objective):
        """Return the coordinates of all optima found, the best first."""
        params = self.answer.params
        if hasattr(self.answer, "modes"):
            modes = self.answer.modes[0][self.answer.weights[0] > 0]
            is_other = ~np.isclose(modes, params, rtol=1e-5).all(axis=1)
            params = np.concatenate([params, modes[is_other]])
        scaled = self.inverter._scaled(params)
        scaled = scaled.maximum(objective.low[: scaled.shape[1]])
        scaled = scaled.minimum(objective.high[: scaled.shape[1]])
        sample = torch.zeros(len(scaled), dtype=torch.long, device=scaled.device)
        return objective.with_scales(scaled, sample)


def optimum_of(inverter, observations, sample_index, noise_std, inputs) -> Fitted:
    """Search the optimum of one sample."""
    inverter, observations = split_pipeline(inverter, observations)
    if not isinstance(inverter, SearchInverter):
        raise TypeError(
            "`inverter` must be one that searches: GradientInverter, CMAESInverter or "
            f"RefinedInverter. Got {inverter!r} instead."
        )
    readings = inverter._check_readings(observations)
    told = inverter._check_inputs(inputs, readings)
    readings = pick(readings, sample_index)
    noise_std = noise_of(
        noise_std, sample_index, (len(observations), *readings.shape[1:])
    )
    arrays = (
        readings,
        inverter._check_noise_std(noise_std, readings),
        pick(told, sample_index),
    )
    answer = inverter._answer(*arrays)
    inverter._warn_of(answer)
    if not np.isfinite(answer.params).all():
        raise ValueError(
            "There is nothing to profile: no params were found for this sample."
        )
    return Fitted(inverter, answer, arrays)


def profiles_of(
    fitted, objective, chosen, n_points, level, optima=None
) -> ProfileLikelihood:
    """Return the profiles of chosen params under an objective of one sample."""
    if not 0 < level < 1:
        raise ValueError(f"`level` must lie between 0 and 1. Got {level!r} instead.")
    if n_points < 4:
        raise ValueError(f"`n_points` must be at least 4. Got {n_points!r} instead.")
    optima = fitted.optima(objective) if optima is None else optima
    threshold = float(chi2.ppf(level, 1))
    found = profile(
        objective,
        optima[0],
        torch.tensor(chosen, device=optima.device),
        threshold=threshold,
        n_steps=n_points // 2,
        others=optima[1:],
    )
    p, model = optima.shape[1] - len(objective.unknown), fitted.model
    from_scaled = model.param_scaler_.from_scaled
    deviances, params, interval = [], [], []
    for k, j in enumerate(chosen):
        down, up = found.points[2 * k : 2 * k + 2]
        path = [*down[::-1], (found.x, 0.0), *up]
        deviances.append(np.array([deviance for _, deviance in path]))
        params.append(from_scaled(torch.stack([x[:p] for x, _ in path]).cpu().numpy()))
        is_found = found.is_sure[k] | ~found.limits[k].isfinite()
        ends = found.limits[k].where(is_found, torch.nan).cpu().numpy()
        place = np.tile(found.x[:p].cpu().numpy(), (2, 1))
        place[:, j] = np.where(np.isfinite(ends), ends, place[:, j])
        interval.append(np.where(np.isfinite(ends), from_scaled(place)[:, j], ends))
    names = [model.param_names_[j] for j in chosen]
    return ProfileLikelihood(
        names=names,
        values=[rows[:, j] for rows, j in zip(params, chosen)],
        deviances=deviances,
        params=params,
        interval=np.array(interval),
        optimum=from_scaled(found.x[:p].cpu().numpy())[chosen],
        level=level,
        threshold=threshold,
        kind="posterior" if objective.weighs_prior else "likelihood",
        units=units_of(model, names, "params"),
        is_log=[bool(model.param_scaler_.is_log[j]) for j in chosen],
    )


class ProfileDisplay:
    """Profiles of params, one panel each, with the threshold of their confidence limits.

    Where a curve stays below the line, the readings set no limit. Make it with
    :meth:`from_estimator`.

    Parameters
    ----------
    profiles : ProfileLikelihood
        What :func:`profile_likelihood` returns.

    Attributes
    ----------
    figure_ : matplotlib Figure
        Figure that holds the panels.

    axes_ : ndarray of Axes
        One per panel.

    lines_ : list of Line2D
        The profile in each panel.

    See Also
    --------
    profile_likelihood : Computes them.

    Examples
    --------
    >>> import torch
    >>> from sklearn_inverse import ForwardFunction, GradientInverter
    >>> from sklearn_inverse.inspection import ProfileDisplay
    >>> line = ForwardFunction(
    ...     lambda k: k * torch.arange(3.0), params={"slope": (0.0, 9.0)}, noise=1.0
    ... )
    >>> measured = [[0.0, 2.0, 4.0]]
    >>> inverter = GradientInverter(line, prior=None).fit(measured)
    >>> display = ProfileDisplay.from_estimator(inverter, measured)
    >>> display.axes_[0].get_xlabel()
    'slope'
    """

    def __init__(self, profiles):
        self.profiles = profiles

    @classmethod
    def from_estimator(
        cls, inverter, observations, sample_index=0, *, ax=None, **options
    ):
        """Compute the profiles of one sample and draw them.

        Parameters
        ----------
        inverter, observations, sample_index : object
            As for :func:`profile_likelihood`.

        ax : array-like of Axes, default=None
            Where to draw. If None, a new figure.

        **options : dict
            Further parameters of :func:`profile_likelihood`.

        Returns
        -------
        display : ProfileDisplay
            The display, drawn.
        """
        profiles = profile_likelihood(inverter, observations, sample_index, **options)
        return cls(profiles).plot(ax)

    def plot(self, ax=None):
        """Draw the profiles.

        Parameters
        ----------
        ax : array-like of Axes, default=None
            Where to draw. If None, a new figure.

        Returns
        -------
        self : ProfileDisplay
            The display, with its artists as attributes.
        """
        found = self.profiles
        n = len(found.names)
        panels = make_panels(
            type(self).__name__,
            ax,
            n,
            n_columns=min(5, int(np.ceil(np.sqrt(n)))),
            panel_size=(2.6, 2.2) if n > 1 else (4.6, 3.2),
        )
        self.figure_, self.axes_, self.lines_ = panels.figure, panels.axes, []
        for k, panel in enumerate(panels.axes):
            values, deviances = found.values[k], found.deviances[k]
            (line,) = panel.plot(values, deviances, "o-", color=BLUE, ms=3, lw=1.2)
            self.lines_.append(line)
            label = f"{percent(found.level)} threshold"
            panel.axhline(found.threshold, color=GREY, lw=1, ls="--", label=label)
            best = found.optimum[k]
            panel.plot(best, 0.0, "D", color=VERMILLION, ms=5, label="optimum")
            if found.is_log[k] and values[-1] > 3 * values[0]:
                set_log(panel, np.log10(values[-1] / values[0]), "x")
            else:
                panel.locator_params(axis="x", nbins=4)
            panel.set_ylim(-0.05 * found.threshold, 1.6 * found.threshold)
            unit = f" ({found.units[k]})" if found.units[k] else ""
            panel.set_xlabel(found.names[k] + unit)
            panel.spines[["top", "right"]].set_visible(False)
        for panel in panels.axes[panels.is_left]:
            panel.set_ylabel(f"profile {found.kind}\n(deviance)")
        handles, _ = panels.axes[0].get_legend_handles_labels()
        self.legend_ = panels.legend(handles)
        return self
