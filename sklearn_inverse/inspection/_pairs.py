"""PairDisplay: what is believed of the params of one sample, two by two."""

import numpy as np

from sklearn_inverse.inspection._panels import (
    BLUE,
    INK,
    VERMILLION,
    choose,
    import_pyplot,
    make_panels,
)
from sklearn_inverse.inspection._sample import check_shape, invert_one
from sklearn_inverse.utils._docs import shared_docs

__all__ = ["PairDisplay"]

N_BINS = 30


@shared_docs
class PairDisplay:
    """Draws from the posterior of one sample: each param, and each pair of them.

    Histograms with the 90 % interval on the diagonal, draws below it, correlations
    above. Make it with :meth:`from_estimator` or :meth:`from_posterior`. All parameters
    are stored as attributes.

    Parameters
    ----------
    draws : ndarray of shape (n_draws, n_params)
        Draws from the posterior.

    param_names : list of str
        Names of the params.

    truth : ndarray of shape (n_params,), default=None
        True params, if they are known.

    Attributes
    ----------
    figure_ : matplotlib Figure
        Figure that holds the panels.

    axes_ : ndarray of Axes of shape (n_shown, n_shown)
        The panels.

    correlation_ : ndarray of shape (n_shown, n_shown)
        Correlations of the params shown.

    See Also
    --------
    ProfileDisplay : What the readings alone say of each param.

    Examples
    --------
    >>> from sklearn_inverse import GradientInverter, ODESystem
    >>> from sklearn_inverse.inspection import PairDisplay
    >>> def decay(t, y, p):
    ...     return -p.rate * y.amount
    >>> system = ODESystem(
    ...     decay, states={"amount": "start"}, times=[0.0, 1.0, 2.0, 4.0], noise=0.05,
    ...     params={"rate": (0.1, 3.0), "start": (0.5, 2.0)},
    ... )
    >>> measured = [[1.0, 0.37, 0.1, 0.02]]
    >>> inverter = GradientInverter(system).fit(measured)
    >>> display = PairDisplay.from_estimator(inverter, measured)
    >>> display.axes_.shape
    (2, 2)
    """

    def __init__(self, *, draws, param_names, truth=None):
        self.draws = draws
        self.param_names = param_names
        self.truth = truth

    @classmethod
    def from_estimator(
        cls,
        inverter,
        observations,
        *,
        sample_index=0,
        noise_std=None,
        inputs=None,
        **options,
    ):
        """Invert one sample with a fitted inverter and draw its posterior.

        Parameters
        ----------
        inverter : fitted inverter or Pipeline ending in one
            Its answers must be posteriors.

        %(observations)s

        %(sample_index)s

        %(noise_std)s

        %(inputs)s

        **options : dict
            Further parameters of :meth:`from_posterior`.

        Returns
        -------
        display : PairDisplay
            The display, drawn.
        """
        import_pyplot(f"{cls.__name__}.from_estimator")
        answer, _ = invert_one(inverter, observations, sample_index, noise_std, inputs)
        return cls.from_posterior(answer, **options)

    @classmethod
    def from_posterior(
        cls, posterior, sample_index=0, *, truth=None, n_draws=2000, ax=None, **options
    ):
        """Draw the posterior of one sample.

        Parameters
        ----------
        posterior : Posterior
            What an inverter answered.

        %(sample_index)s

        truth : array-like of shape (n_params,), default=None
            True params, if they are known.

        n_draws : int, default=2000
            Draws behind the picture.

        ax : array-like of Axes, default=None
            Where to draw; see :meth:`plot`.

        **options : dict
            Further parameters of :meth:`plot`.

        Returns
        -------
        display : PairDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If there is nothing to draw, or an uncertainty is missing.
        """
        answer = posterior[sample_index]
        if not hasattr(answer, "sample") or not np.isfinite(answer.params).all():
            raise ValueError(
                "Only a sample with a posterior can be drawn. Got "
                f"{answer!r} for sample {sample_index}."
            )
        names = list(answer.names)
        display = cls(
            draws=answer.sample(n_draws)[0],
            param_names=names,
            truth=check_shape(truth, (len(names),), name="truth"),
        )
        return display.plot(ax, **options)

    def plot(self, ax=None, *, params=None, max_params=8):
        """Draw the display.

        Parameters
        ----------
        ax : array-like of n_shown² Axes, default=None
            Where to draw, row by row. If None, a new figure.

        params : list of str or int, default=None
            Which params. If None, all, as far as ``max_params`` allows.

        max_params : int, default=8
            Most params that are drawn.

        Returns
        -------
        self : PairDisplay
            The display, with its artists as attributes.
        """
        chosen = choose(params, self.param_names, name="params", max_panels=max_params)
        n, draws = len(chosen), np.asarray(self.draws)[:, chosen]
        truth = None if self.truth is None else self.truth[chosen]
        panels = make_panels(
            type(self).__name__, ax, n * n, n_columns=n, panel_size=(1.7, 1.7)
        )
        self.figure_, self.axes_ = panels.figure, panels.axes.reshape(n, n)
        self.correlation_ = np.atleast_2d(np.corrcoef(draws.T))
        low, high = np.quantile(draws, [0.001, 0.999], axis=0)
        pad = 0.05 * np.where(high > low, high - low, 1.0)
        for i, j in np.ndindex(n, n):
            panel = self.axes_[i, j]
            panel.set_xlim(low[j] - pad[j], high[j] + pad[j])
            panel.locator_params(nbins=3)
            panel.tick_params(labelsize="x-small", labelbottom=i == n - 1)
            panel.spines[["top", "right"]].set_visible(False)
            if i == j:
                self._draw_one(panel, draws[:, j], truth[j] if self._knows else None)
            elif i > j:
                panel.plot(draws[:, j], draws[:, i], ",", color=BLUE, alpha=0.5)
                panel.set_ylim(low[i] - pad[i], high[i] + pad[i])
                panel.tick_params(labelleft=j == 0)
                if self._knows:
                    panel.plot(truth[j], truth[i], "+", color=VERMILLION, ms=9, mew=2)
            else:
                self._write(panel, self.correlation_[i, j])
            if i == n - 1:
                panel.set_xlabel(self.param_names[chosen[j]])
            if j == 0 and i > 0:
                panel.set_ylabel(self.param_names[chosen[i]])
        if params is None:
            panels.note_missing(n, len(self.param_names), "param")
        return self

    @property
    def _knows(self):
        return self.truth is not None

    @staticmethod
    def _draw_one(panel, draws, truth):
        panel.hist(draws, N_BINS, color=BLUE, alpha=0.5)
        for end in np.quantile(draws, [0.05, 0.95]):
            panel.axvline(end, color=INK, lw=0.8, ls="--")
        if truth is not None:
            panel.axvline(truth, color=VERMILLION, lw=1.5)
        panel.set_yticks([])
        panel.spines["left"].set_visible(False)

    @staticmethod
    def _write(panel, correlation):
        panel.text(
            0.5,
            0.5,
            f"{correlation:+.2f}",
            transform=panel.transAxes,
            ha="center",
            va="center",
            fontsize=8 + 6 * abs(correlation),
            color=INK,
        )
        panel.set_axis_off()
