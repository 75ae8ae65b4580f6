"""TrajectoryDisplay: what was measured, and the trajectory recovered from it."""

import warnings

import numpy as np

from sklearn_inverse.exceptions import IntegrationWarning
from sklearn_inverse.inspection._panels import (
    BLUE,
    COLORS,
    GREY,
    INK,
    check_labels,
    choose,
    import_pyplot,
    make_panels,
    percent,
)
from sklearn_inverse.inspection._sample import check_shape, one_sample, quantile_band

MARKERS = "os^Dvp"


class TrajectoryDisplay:
    """Measurements of one sample, its reconstruction, and how far that is certain.

    Make it with :meth:`from_estimator` or :meth:`from_predictions`. All parameters are
    stored as attributes.

    Parameters
    ----------
    trajectory : ndarray of shape (n_times, n_channels)
        The reconstruction, drawn as a line.

    observations : ndarray of shape (n_times, n_channels), default=None
        Measurements, drawn as points; NaN where nothing was measured.

    lower, upper : ndarray of shape (n_times, n_channels), default=None
        Ends of the band around the reconstruction.

    level : float, default=None
        Probability that the band holds, for the legend.

    truth : ndarray of shape (n_times, n_channels), default=None
        The true trajectory where it is known, drawn as a dashed line.

    times : array-like of shape (n_times,), default=None
        Times, evenly spaced or not. If None, 0, 1, 2, ….

    channel_names : list of str, default=None
        If None, ``c1, c2, …``.

    units : str or list of str, default=None
        Unit of all channels, or of each. If None, no unit is written.

    time_label : str, default=None
        Label of the time axis, with its unit. If None, "time", or "time index" where
        no ``times`` are given.

    Attributes
    ----------
    figure_ : matplotlib Figure
        Figure that holds the panels.

    axes_ : ndarray of Axes
        One per panel.

    line_ : list of Line2D
        Reconstruction of each channel drawn.

    band_ : list of FillBetweenPolyCollection or None
        Band of each channel; None without ``lower`` and ``upper``.

    measurements_ : list of Line2D or None
        Measurements of each channel; None without ``observations``.

    truth_ : list of Line2D or None
        True trajectory of each channel; None without ``truth``.

    legend_ : Legend
        The legend.

    See Also
    --------
    RecoveryDisplay : Recovered params against true ones.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_inverse.inspection import TrajectoryDisplay
    >>> times = np.linspace(0, 4, 30)
    >>> rates = np.random.default_rng(0).normal(1.0, 0.1, size=200)
    >>> draws = np.exp(-rates[:, None] * times)[..., None]
    >>> measured = np.full((30, 1), np.nan)
    >>> measured[[2, 9, 20]] = np.exp(-times[[2, 9, 20], None])
    >>> display = TrajectoryDisplay.from_predictions(
    ...     draws.mean(axis=0), observations=measured, draws=draws, times=times
    ... )
    >>> display.axes_[0].get_xlabel()
    'time'
    """

    def __init__(
        self,
        *,
        trajectory,
        observations=None,
        lower=None,
        upper=None,
        level=None,
        truth=None,
        times=None,
        channel_names=None,
        units=None,
        time_label=None,
    ):
        self.trajectory = trajectory
        self.observations = observations
        self.lower = lower
        self.upper = upper
        self.level = level
        self.truth = truth
        self.times = times
        self.channel_names = channel_names
        self.units = units
        self.time_label = time_label

    @classmethod
    def from_estimator(
        cls,
        inverter,
        observations,
        *,
        sample_index=0,
        n_draws=200,
        transform=None,
        **display_params,
    ):
        """Reconstruct one sample with a fitted inverter and draw it.

        Parameters
        ----------
        inverter : fitted inverter or Pipeline ending in one
            Its ``reconstruct`` gives the line. Its ``sample``, pushed through the
            forward model ``surrogate_``, gives the band; an inverter that offers no
            ``sample`` has none.

        observations : array-like of shape (n_samples, n_times * n_channels) or \
(n_samples, n_times, n_channels)
            What was measured, as for ``inverter.predict``.

        sample_index : int, default=0
            Which sample is drawn.

        n_draws : int, default=200
            Draws behind the band. 0 leaves the band out.

        transform : callable, default=None
            Brings arrays of shape (…, n_times, n_channels) from the inverter's units
            into those of the picture: ``numpy.exp`` where a pipeline takes logarithms
            first. If None, the inverter's units are drawn.

        **display_params : dict
            Further parameters of :meth:`from_predictions` and :meth:`plot`, in the
            units of the picture: ``truth``, ``times``, ``channel_names``, ``ax``, ….

        Returns
        -------
        display : TrajectoryDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If shapes do not fit.
        IntegrationError
            If no draw at all has a trajectory.

        Warns
        -----
        IntegrationWarning
            If draws without a trajectory are left out of the band.
        """
        import_pyplot(f"{cls.__name__}.from_estimator")
        observations, inverter = one_sample(inverter, observations, sample_index)
        trajectory = inverter.reconstruct(observations)[0]
        draws = None
        if n_draws and hasattr(inverter, "sample"):
            params = inverter.sample(observations, n_draws)[0]
            with warnings.catch_warnings():  # from_predictions counts what is lost
                warnings.simplefilter("ignore", IntegrationWarning)
                draws = inverter.surrogate_.simulate(params)
        observations = np.asarray(observations, dtype=float).reshape(trajectory.shape)
        if transform is not None:
            observations, trajectory = transform(observations), transform(trajectory)
            draws = None if draws is None else transform(draws)
        return cls.from_predictions(
            trajectory, observations=observations, draws=draws, **display_params
        )

    @classmethod
    def from_predictions(
        cls,
        trajectory,
        *,
        observations=None,
        draws=None,
        level=0.9,
        truth=None,
        times=None,
        channel_names=None,
        units=None,
        time_label=None,
        ax=None,
        **plot_params,
    ):
        """Draw one sample from arrays.

        Parameters
        ----------
        trajectory : array-like of shape (n_times, n_channels)
            The reconstruction.

        observations : array-like of shape (n_times, n_channels), default=None
            Measurements, NaN where nothing was measured.

        draws : array-like of shape (n_draws, n_times, n_channels), default=None
            Equally probable trajectories; the band lies between their quantiles.
            If None, no band.

        level : float, default=0.9
            Probability that the band holds at each time.

        truth : array-like of shape (n_times, n_channels), default=None
            True trajectory.

        times : array-like of shape (n_times,), default=None
            Times. If None, 0, 1, 2, ….

        channel_names : list of str, default=None
            If None, ``c1, c2, …``.

        units : str or list of str, default=None
            Unit of all channels, or of each.

        time_label : str, default=None
            Label of the time axis, with its unit.

        ax : Axes or array of Axes, default=None
            Where to draw; see :meth:`plot`.

        **plot_params : dict
            Further parameters of :meth:`plot`.

        Returns
        -------
        display : TrajectoryDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If shapes do not fit.
        IntegrationError
            If ``draws`` are given and none is finite.

        Warns
        -----
        IntegrationWarning
            If draws that are not finite are left out of the band.
        """
        trajectory = np.asarray(trajectory, dtype=float)
        if trajectory.ndim != 2:
            raise ValueError(
                "`trajectory` must be that of one sample, (n_times, n_channels). Got "
                f"shape {trajectory.shape} instead."
            )
        lower, upper = quantile_band(draws, level, shape=trajectory.shape)
        display = cls(
            trajectory=trajectory,
            observations=check_shape(
                observations, trajectory.shape, name="observations"
            ),
            lower=lower,
            upper=upper,
            level=level,
            truth=check_shape(truth, trajectory.shape, name="truth"),
            times=check_shape(times, trajectory.shape[:1], name="times"),
            channel_names=channel_names,
            units=units,
            time_label=time_label,
        )
        return display.plot(ax, **plot_params)

    def plot(self, ax=None, *, channels=None, overlay=False, max_panels=12):
        """Draw the display.

        Parameters
        ----------
        ax : Axes or array of Axes, default=None
            A single Axes takes all channels, an array one channel each. If None, a new
            figure.

        channels : list of str or int, default=None
            Names or indices of the channels to draw. If None, all, as far as
            ``max_panels`` allows.

        overlay : bool, default=False
            Whether all channels share one panel instead of having one each.

        max_panels : int, default=12
            Most channels that are drawn.

        Returns
        -------
        self : TrajectoryDisplay
            The display, with its artists as attributes.
        """
        n_times, n_channels = self.trajectory.shape
        names = check_labels(
            self.channel_names, n_channels, name="channel_names", default="c"
        )
        units = check_labels(self.units, n_channels, name="units")
        chosen = choose(channels, names, name="channels", max_panels=max_panels)
        is_single_ax = ax is not None and np.ndim(ax) == 0
        overlay = len(chosen) > 1 and (overlay or is_single_ax)
        n_panels = 1 if overlay else len(chosen)
        panels = make_panels(
            type(self).__name__,
            ax,
            n_panels,
            n_columns=_n_columns(n_panels),
            panel_size=_panel_size(n_panels),
            sharex=True,
        )
        times = np.arange(n_times) if self.times is None else self.times
        self.figure_, self.axes_ = panels.figure, panels.axes
        self.line_, self.band_, self.measurements_, self.truth_ = [], [], [], []
        for i, channel in enumerate(chosen):
            panel = panels.axes[0 if overlay else i]
            color = COLORS[i % len(COLORS)] if overlay else BLUE
            marker = MARKERS[i % len(MARKERS)] if overlay else "o"
            self._draw_channel(panel, times, channel, color, marker, overlay)
            if not overlay:
                panel.set_title(names[channel], loc="left", fontsize="medium")
                panel.set_ylabel(units[channel])
        if overlay:
            one_unit = len({units[channel] for channel in chosen}) == 1
            panels.axes[0].set_ylabel(units[chosen[0]] if one_unit else "")
            if not one_unit:
                names = [f"{n} ({u})" if u else n for n, u in zip(names, units)]
        default = "time index" if self.times is None else "time"
        for panel in panels.axes[panels.is_bottom]:
            panel.set_xlabel(self.time_label or default)
        for panel in panels.axes:
            panel.spines[["top", "right"]].set_visible(False)
            # No ticks between two years. Axes of the caller may be scaled otherwise.
            if panels.is_ours and np.array_equal(times, np.round(times)):
                panel.xaxis.get_major_locator().set_params(integer=True)
        if channels is None:
            panels.note_missing(len(chosen), n_channels, "channel")
        handles = self._legend_handles([names[c] for c in chosen] if overlay else [])
        self.legend_ = panels.legend(handles)
        for artists in ("band_", "measurements_", "truth_"):
            setattr(self, artists, getattr(self, artists) or None)
        return self

    def _draw_channel(self, ax, times, channel, color, marker, overlay):
        """Draw band, truth, line and measurements of one channel, in that order."""
        if self.lower is not None:
            lower, upper = self.lower[:, channel], self.upper[:, channel]
            band = ax.fill_between(times, lower, upper, color=color, alpha=0.22, lw=0)
            self.band_.append(band)
        (line,) = ax.plot(times, self.trajectory[:, channel], color=color, lw=1.8)
        self.line_.append(line)
        if self.truth is not None:
            self.truth_ += ax.plot(times, self.truth[:, channel], "--", color=INK, lw=1)
        if self.observations is not None:
            readings = self.observations[:, channel]
            seen = ~np.isnan(readings)
            self.measurements_ += ax.plot(
                times[seen],
                readings[seen],
                marker,
                color=color if overlay else INK,
                markersize=5.5,
                markeredgecolor="white",
                markeredgewidth=0.7,
                zorder=3,
            )

    def _legend_handles(self, overlaid_names):
        """Explain the channels if they share a panel, then each kind of mark."""
        from matplotlib.lines import Line2D
        from matplotlib.patches import Patch

        handles = [
            Line2D(
                [],
                [],
                color=line.get_color(),
                marker=MARKERS[i % len(MARKERS)] if self.measurements_ else "",
                markeredgecolor="white",
                label=name,
            )
            for i, (line, name) in enumerate(zip(self.line_, overlaid_names))
        ]
        color = GREY if overlaid_names else BLUE
        dot = {"ls": "", "marker": "o", "markeredgecolor": "white"}
        if self.observations is not None:
            dot_color = GREY if overlaid_names else INK
            handles.append(Line2D([], [], color=dot_color, label="measured", **dot))
        handles.append(Line2D([], [], color=color, lw=1.8, label="reconstruction"))
        if self.lower is not None:
            label = f"{percent(self.level)} interval" if self.level else "interval"
            handles.append(Patch(color=color, alpha=0.22, lw=0, label=label))
        if self.truth is not None:
            handles.append(Line2D([], [], color=INK, ls="--", lw=1, label="truth"))
        return handles


def _panel_size(n_panels):
    """Return (width, height) of a panel in inches: a wide one if it has a row alone."""
    if n_panels == 1:
        return 6.4, 3.6
    return (6.4, 2.2) if _n_columns(n_panels) == 1 else (3.6, 2.2)


def _n_columns(n_panels):
    """Return 1 for few panels, which then share their time axis; a grid for more."""
    return 1 if n_panels <= 3 else min(4, int(np.ceil(np.sqrt(n_panels))))
