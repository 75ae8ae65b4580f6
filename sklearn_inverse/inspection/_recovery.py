"""RecoveryDisplay: recovered params against true ones, with their error bars."""

import numpy as np
from sklearn.metrics import r2_score

from sklearn_inverse.inspection._panels import (
    BLUE,
    GREY,
    INK,
    VERMILLION,
    check_labels,
    choose,
    import_pyplot,
    make_panels,
    percent,
    set_log,
)
from sklearn_inverse.inspection._sample import split_pipeline, units_of
from sklearn_inverse.metrics import interval_coverage, normal_interval
from sklearn_inverse.metrics._outputs import as_columns, check_like, check_true
from sklearn_inverse.probability import Posterior
from sklearn_inverse.utils._docs import shared_docs
from sklearn_inverse.utils._scaling import ParamScaler
from sklearn_inverse.utils._validation import check_bounds

MARGIN = 0.05  # of the range, around it
LONG = 22  # letters that fit over a panel
COLORS = {"inside": BLUE, "outside": VERMILLION}


@shared_docs
class RecoveryDisplay:
    """Recovered against true params, one panel each, over the range of the prior.

    On the diagonal a param is recovered; on a horizontal line the observations say
    nothing of it. Error bars that miss the truth stand out, so that honest bars can be
    told from hopeful ones. Make it with :meth:`from_estimator`,
    :meth:`from_posterior` or :meth:`from_predictions`. All parameters are stored as
    attributes.

    Parameters
    ----------
    true : ndarray of shape (n_samples, n_params)
        Params that produced the observations.

    predicted : ndarray of shape (n_samples, n_params)
        Recovered params.

    lower, upper : ndarray of shape (n_samples, n_params), default=None
        Ends of the error bars.

    level : float, default=None
        Probability that an error bar holds the truth, for the legend.

    bounds : array-like of shape (n_params, 2), default=None
        Range of the prior, which the axes span. If None, the range of the data.

    scale : {"linear", "log10"} or list of them, default="linear"
        Scale of each param's axes.

    param_names : list of str, default=None
        If None, ``k1, k2, …``.

    units : str or list of str, default=None
        Unit of all params, or of each. If None, no unit is written.

    Attributes
    ----------
    figure_ : matplotlib Figure
        Figure that holds the panels.

    axes_ : ndarray of Axes
        One per panel.

    inside_, outside_ : list of ErrorbarContainer
        Per panel, the samples whose error bar holds the truth and those where it does
        not. Without error bars, all samples are in the first.

    identity_ : list of Line2D
        The diagonal of each panel.

    text_ : list of Text
        R² of each panel and the fraction of error bars that hold the truth.

    legend_ : Legend or None
        The legend; None without error bars.

    See Also
    --------
    TrajectoryDisplay : One sample in time.
    sklearn_inverse.metrics.interval_coverage : The fraction behind the text.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_inverse.inspection import RecoveryDisplay
    >>> rng = np.random.default_rng(0)
    >>> true = rng.uniform(0.5, 1.5, size=(100, 2))
    >>> std = np.broadcast_to([0.05, 0.2], true.shape)
    >>> display = RecoveryDisplay.from_predictions(
    ...     true, rng.normal(true, std), std=std, bounds=[[0.5, 1.5]] * 2
    ... )
    >>> [ax.get_title(loc="left") for ax in display.axes_]
    ['k1', 'k2']
    """

    def __init__(
        self,
        *,
        true,
        predicted,
        lower=None,
        upper=None,
        level=None,
        bounds=None,
        scale="linear",
        param_names=None,
        units=None,
    ):
        self.true = true
        self.predicted = predicted
        self.lower = lower
        self.upper = upper
        self.level = level
        self.bounds = bounds
        self.scale = scale
        self.param_names = param_names
        self.units = units

    @classmethod
    def from_estimator(
        cls,
        inverter,
        observations,
        params,
        *,
        noise_std=None,
        inputs=None,
        **display_params,
    ):
        """Recover params with a fitted inverter and draw them against the truth.

        Parameters
        ----------
        inverter : fitted inverter or Pipeline ending in one
            Error bars are drawn where its answer is a posterior. Names, units and the
            range of the prior are those of its model.

        observations : array-like of shape (n_samples, n_times * n_channels) or \
(n_samples, n_times, n_channels)
            Observations the inverter has not been trained on.

        params : array-like of shape (n_samples, n_params)
            Params that produced them.

        %(noise_std)s

        %(inputs)s

        **display_params : dict
            Further parameters of :meth:`from_predictions` and :meth:`plot`: ``level``,
            ``bounds``, ``param_names``, ``ax``, ….

        Returns
        -------
        display : RecoveryDisplay
            The display, drawn.
        """
        import_pyplot(f"{cls.__name__}.from_estimator")
        inverter, observations = split_pipeline(inverter, observations)
        answer = inverter.invert(observations, noise_std=noise_std, inputs=inputs)
        model = inverter.model_
        own = {
            "units": units_of(model, model.param_names_, "params"),
            "bounds": model.param_scaler_.bounds,
            "scale": model.param_scaler_.scale,
        }
        return cls.from_posterior(answer, params, **own | display_params)

    @classmethod
    def from_posterior(cls, posterior, params, *, level=0.9, **display_params):
        """Draw what was found for each sample against the truth.

        Parameters
        ----------
        posterior : Posterior or Estimate
            What an inverter answered. An Estimate has no error bars.

        params : array-like of shape (n_samples, n_params)
            Params that produced the observations.

        level, **display_params : object
            Further parameters of :meth:`from_predictions` and :meth:`plot`.

        Returns
        -------
        display : RecoveryDisplay
            The display, drawn.
        """
        own = {"param_names": posterior.names}
        predicted = posterior.params
        if isinstance(posterior, Posterior):
            scaler = posterior.coordinate.scaler
            own |= {"bounds": scaler.bounds, "scale": scaler.scale}
            own["interval"] = posterior.interval(level)
            predicted = posterior.mean
        return cls.from_predictions(
            params, predicted, level=level, **own | display_params
        )

    @classmethod
    def from_predictions(
        cls,
        true,
        predicted,
        *,
        std=None,
        interval=None,
        level=0.9,
        bounds=None,
        scale="linear",
        param_names=None,
        units=None,
        ax=None,
        **plot_params,
    ):
        """Draw recovered against true params from arrays.

        Parameters
        ----------
        true : array-like of shape (n_samples, n_params)
            Params that produced the observations. One-dimensional input is one param.

        predicted : array-like of shape (n_samples, n_params)
            Recovered params, all finite.

        std : array-like of shape (n_samples, n_params), default=None
            Their standard deviations. Error bars are normal intervals, cut off at
            ``bounds``. If None, no error bars.

        interval : (array-like, array-like) of that shape, default=None
            Lower and upper ends of the error bars, instead of ``std``.

        level, bounds, scale, param_names, units : object
            As in the class.

        ax, **plot_params : object
            Parameters of :meth:`plot`.

        Returns
        -------
        display : RecoveryDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If shapes or bounds do not fit, or a value is not finite.
        """
        true = check_true(as_columns(true), axes=("n_samples", "n_params"))
        predicted = check_like(as_columns(predicted), true, name="predicted")
        lower = upper = None
        if std is not None:
            std = check_like(as_columns(std), true, name="std")
            interval = normal_interval(predicted, std, level=level)
        if interval is not None:
            lower, upper = (
                check_like(as_columns(end), true, name="interval") for end in interval
            )
        display = cls(
            true=true,
            predicted=predicted,
            lower=lower,
            upper=upper,
            level=level,
            bounds=bounds,
            scale=scale,
            param_names=param_names,
            units=units,
        )
        return display.plot(ax, **plot_params)

    def plot(self, ax=None, *, chosen=None, max_panels=12):
        """Draw the display.

        Parameters
        ----------
        ax : Axes or array of Axes, default=None
            One per param drawn. If None, a new figure.

        chosen : list of str or int, default=None
            Names or indices of the params to draw. If None, all, as far as
            ``max_panels`` allows; the figure then says how many there are.

        max_panels : int, default=12
            Most params that are drawn.

        Returns
        -------
        self : RecoveryDisplay
            The display, with its artists as attributes.
        """
        n_params = self.true.shape[1]
        names = check_labels(
            self.param_names, n_params, name="param_names", default="k"
        )
        units = check_labels(self.units, n_params, name="units")
        indices = choose(chosen, names, name="chosen", max_panels=max_panels)
        scaler = self._scaler()
        panels = make_panels(
            type(self).__name__,
            ax,
            len(indices),
            n_columns=min(5, int(np.ceil(np.sqrt(len(indices))))),
            panel_size=(2.5, 2.5) if len(indices) > 1 else (4.0, 4.0),
        )
        self.figure_, self.axes_ = panels.figure, panels.axes
        self.inside_, self.outside_, self.identity_, self.text_ = [], [], [], []
        for panel, j in zip(panels.axes, indices):
            self._draw_param(panel, j, scaler)
            unit = f"({units[j]})" if units[j] else ""
            gap = "\n" if len(names[j] + unit) > LONG else " "
            title = f"{names[j]}{gap}{unit}".strip()
            panel.set_title(title, loc="left", fontsize="medium")
        for panel in panels.axes[panels.is_bottom]:
            panel.set_xlabel("true")
        for panel in panels.axes[panels.is_left]:
            panel.set_ylabel("recovered")
        if chosen is None:
            panels.note_missing(len(indices), n_params, "param")
        self.legend_ = None
        if self.lower is not None:
            self.legend_ = panels.legend(self._legend_handles())
        return self

    def _scaler(self):
        """Return the map of the axes' range onto [0, 1]."""
        if self.bounds is not None:
            bounds = check_bounds(
                self.bounds, n_params=self.true.shape[1], scale=self.scale
            )
            return ParamScaler(bounds, scale=self.scale)
        return ParamScaler.from_data(
            np.concatenate([self.true, self.predicted]), scale=self.scale
        )

    def _draw_param(self, ax, j, scaler):
        """Draw one panel: the diagonal, the samples, and what they amount to."""
        true, predicted = self.true[:, j], self.predicted[:, j]
        low, high = scaler.from_scaled(
            np.array([[-MARGIN], [1 + MARGIN]]) + np.zeros(len(scaler.bounds))
        )[:, j]
        if scaler.is_log[j]:
            set_log(ax, n_decades=scaler.width[j])
        else:  # labels such as 0.00125 would run into each other
            ax.ticklabel_format(scilimits=(-3, 4))
            ax.locator_params(nbins=4)
        ax.set(xlim=(low, high), ylim=(low, high), box_aspect=1)
        ax.spines[["top", "right"]].set_visible(False)
        self.identity_ += ax.plot([low, high], [low, high], color=GREY, lw=1, zorder=1)

        notes = []
        is_inside, bars = np.ones(len(true), dtype=bool), None
        if self.lower is not None:
            lower, upper = self.lower[:, j], self.upper[:, j]
            is_inside = (lower <= true) & (true <= upper)
            if self.bounds is not None:  # nothing of the prior lies beyond
                lower, upper = np.clip([lower, upper], *scaler.bounds[j])
            bars = np.stack([predicted - lower, upper - predicted]).clip(min=0)
            coverage = interval_coverage(true, self.lower[:, j], self.upper[:, j])
            notes.append(f"{100 * coverage:.0f} % inside")
        if len(true) > 1 and np.ptp(true) > 0:
            notes.insert(0, f"R² = {r2_score(true, predicted):.2f}")
        for kind, group in (("inside", is_inside), ("outside", ~is_inside)):
            container = ax.errorbar(
                true[group],
                predicted[group],
                yerr=None if bars is None else bars[:, group],
                **_marker_style(kind, n_samples=len(true)),
            )
            getattr(self, f"{kind}_").append(container)
        self.text_.append(
            ax.text(
                0.04,
                0.97,
                "\n".join(notes),
                transform=ax.transAxes,
                va="top",
                fontsize="small",
                color=INK,
                bbox={"facecolor": "white", "alpha": 0.75, "lw": 0, "pad": 1.5},
                zorder=4,
            )
        )

    def _legend_handles(self):
        from matplotlib.lines import Line2D

        interval = f"{percent(self.level)} interval" if self.level else "interval"
        verbs = {"inside": "holds", "outside": "misses"}
        handles = []
        for kind, verb in verbs.items():
            style = _marker_style(kind, n_samples=1)
            line = Line2D(
                [],
                [],
                ls="-",
                lw=style["elinewidth"],
                marker=style["fmt"],
                color=style["color"],
                markersize=style["markersize"],
                label=f"{interval} {verb} the truth",
            )
            handles.append(line)
        return handles


def _marker_style(kind, *, n_samples):
    """Return errorbar's style; the more samples, the fainter, misses always clearer."""
    faint = float(np.clip(60 / n_samples, 0.2, 0.9))
    return {
        "fmt": "o" if kind == "inside" else "D",
        "color": COLORS[kind],
        "alpha": faint if kind == "inside" else min(1.0, 2 * faint),
        "markersize": 3.5 if n_samples <= 300 else 2.5,
        "markeredgewidth": 0,
        "elinewidth": 0.8,
        "zorder": 2 if kind == "inside" else 3,
    }
