"""CalibrationDisplay: how often posteriors hold the truth, and how often they say."""

import numpy as np
from scipy.stats import binom

from sklearn_inverse.inspection._panels import (
    COLORS,
    GREY,
    INK,
    check_labels,
    make_panels,
)
from sklearn_inverse.inspection._sample import split_pipeline
from sklearn_inverse.metrics import expected_coverage, sbc_ranks, uniformity_test
from sklearn_inverse.utils._validation import put_in_order

__all__ = ["CalibrationDisplay"]

LEVELS = np.linspace(0.0, 1.0, 41)
BAND = 0.95  # probability of the grey bands


class CalibrationDisplay:
    """Coverage and ranks of the truth among posterior draws, over many samples.

    On the left, how often central intervals of each param, and ellipsoids of all, hold
    the truth: below the diagonal posteriors are too narrow. On the right, the histogram
    of the ranks: flat if they are right. Make it with :meth:`from_estimator` or
    :meth:`from_draws`. All parameters are stored as attributes.

    Parameters
    ----------
    draws : ndarray of shape (n_samples, n_draws, n_params)
        Draws from each sample's posterior.

    truths : ndarray of shape (n_samples, n_params)
        Params that produced the observations.

    param_names : list of str, default=None
        If None, ``k1, k2, …``.

    Attributes
    ----------
    figure_ : matplotlib Figure
        Figure that holds the panels.

    axes_ : ndarray of Axes
        Coverage and ranks.

    coverage_, ranks_ : list of artists
        Lines of the params, in each panel.

    p_value_ : float
        Probability of ranks as uneven as these if posteriors are right.

    legend_ : Legend
        The legend.

    See Also
    --------
    RecoveryDisplay : Estimates against truths.
    sklearn_inverse.metrics.tarp : Sees wrong correlations.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_inverse.inspection import CalibrationDisplay
    >>> rng = np.random.default_rng(0)
    >>> truths = rng.standard_normal((300, 2))
    >>> draws = 0.7 * rng.standard_normal((300, 99, 2))  # too narrow
    >>> display = CalibrationDisplay.from_draws(draws, truths)
    >>> display.p_value_ < 0.001
    True
    """

    def __init__(self, *, draws, truths, param_names=None):
        self.draws = draws
        self.truths = truths
        self.param_names = param_names

    @classmethod
    def from_estimator(
        cls, inverter, observations, params, *, n_draws=199, ax=None, **metadata
    ):
        """Draw from the posteriors of a fitted inverter and compare with the truth.

        Parameters
        ----------
        inverter : fitted inverter or Pipeline ending in one
            Its answers must be posteriors.

        observations : array-like of shape (n_samples, n_times * n_channels) or \
(n_samples, n_times, n_channels)
            Observations simulated from the prior.

        params : array-like of shape (n_samples, n_params)
            Params that produced them.

        n_draws : int, default=199
            Draws per sample.

        ax : array-like of two Axes, default=None
            Where to draw. If None, a new figure.

        **metadata : dict
            ``noise_std`` and ``inputs``, as for ``inverter.posterior``.

        Returns
        -------
        display : CalibrationDisplay
            The display, drawn.
        """
        inverter, observations = split_pipeline(inverter, observations)
        posterior = inverter.posterior(observations, **metadata)
        # Random numbers that samples share would make their ranks depend on each other.
        draws = np.concatenate(
            [one.sample(n_draws, random_state=i) for i, one in enumerate(posterior)]
        )
        names = inverter.model_.param_names_
        params = np.reshape(put_in_order(params, names), (len(draws), -1))
        return cls.from_draws(draws, params, param_names=names, ax=ax)

    @classmethod
    def from_draws(cls, draws, truths, *, param_names=None, ax=None):
        """Compare draws with the truth.

        Parameters
        ----------
        draws : array-like of shape (n_samples, n_draws, n_params)
            Draws from each sample's posterior.

        truths : array-like of shape (n_samples, n_params)
            Params that produced the observations.

        param_names : list of str, default=None
            Names of the params.

        ax : array-like of two Axes, default=None
            Where to draw. If None, a new figure.

        Returns
        -------
        display : CalibrationDisplay
            The display, drawn.
        """
        display = cls(
            draws=np.asarray(draws, dtype=float),
            truths=np.asarray(truths, dtype=float),
            param_names=param_names,
        )
        return display.plot(ax)

    def plot(self, ax=None):
        """Draw coverage and ranks.

        Parameters
        ----------
        ax : array-like of two Axes, default=None
            Where to draw. If None, a new figure.

        Returns
        -------
        self : CalibrationDisplay
            The display, with its artists as attributes.
        """
        ranks = sbc_ranks(self.draws, self.truths)
        n_samples, n_draws, n_params = self.draws.shape
        names = check_labels(
            self.param_names, n_params, name="param_names", default="k"
        )
        coverage = expected_coverage(self.draws, self.truths, LEVELS)
        joint = expected_coverage(self.draws, self.truths, LEVELS, region="ellipsoid")
        n_bins = int(np.clip(n_samples // 10, 2, min(20, n_draws + 1)))
        self.p_value_ = uniformity_test(ranks, n_draws, n_bins=n_bins)[1]
        panels = make_panels(
            type(self).__name__, ax, 2, n_columns=2, panel_size=(3.8, 3.4)
        )
        self.figure_, self.axes_ = panels.figure, panels.axes
        left, right = panels.axes
        tails = (1 - BAND) / 2, (1 + BAND) / 2
        band = [binom.ppf(tail, n_samples, LEVELS) / n_samples for tail in tails]
        left.fill_between(LEVELS, *band, color=GREY, alpha=0.25, lw=0)
        left.plot(LEVELS, LEVELS, color=GREY, lw=1)
        # A histogram as a density of one, whatever the bins.
        ends = [binom.ppf(t, n_samples, 1 / n_bins) * n_bins / n_samples for t in tails]
        right.axhspan(*ends, color=GREY, alpha=0.25, lw=0)
        right.axhline(1.0, color=GREY, lw=1)
        self.coverage_, self.ranks_ = [], []
        for j, name in enumerate(names):
            style = {"color": COLORS[j % len(COLORS)], "lw": 1.3, "label": name}
            self.coverage_ += left.plot(LEVELS, coverage[:, j], **style)
            place = (ranks[:, j] + 0.5) / (n_draws + 1)
            density, edges = np.histogram(place, n_bins, (0, 1), density=True)
            self.ranks_.append(right.stairs(density, edges, **style))
        if n_params > 1:
            style = {"color": INK, "lw": 1.6, "ls": "--", "label": "all together"}
            self.coverage_ += left.plot(LEVELS, joint, **style)
        left.set(
            xlim=(0, 1),
            ylim=(0, 1),
            xlabel="stated probability",
            ylabel="holds the truth",
        )
        right.set(xlim=(0, 1), xlabel="rank of the truth", ylabel="frequency")
        right.set_ylim(0, max(2.0, 1.05 * right.get_ylim()[1]))
        right.set_title(f"p = {self.p_value_:.2g}", loc="right", fontsize="small")
        for panel in panels.axes:
            panel.spines[["top", "right"]].set_visible(False)
        self.legend_ = panels.legend(self.coverage_)
        return self
