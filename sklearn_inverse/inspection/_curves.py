"""Bands, lines and points of one observable in time, and what a legend calls them."""

import numpy as np

from sklearn_inverse.inspection._panels import BLUE, COLORS, GREY, INK, percent

__all__ = ["Curves", "legend_handles"]

MARKERS = "os^Dvp"
CREDIBLE, PREDICTIVE = 0.38, 0.16  # opacity of the bands
BANDS = {"predictive_band": PREDICTIVE, "band": CREDIBLE}


class Curves:
    """Draws a TrajectoryDisplay's observables one by one, and keeps the artists.

    Parameters
    ----------
    display : TrajectoryDisplay
        What is drawn.

    overlay : bool
        Whether observables share a panel, and so need a color each.
    """

    def __init__(self, display, overlay):
        self.display, self.overlay = display, overlay
        self.artists = {
            name: [] for name in (*BANDS, "line", "measurements", "truth", "events")
        }

    def draw(self, ax, experiment, observable, place):
        """Draw bands, truth, line and measurements of one observable, in that order."""
        display, artists = self.display, self.artists
        color, marker = self.style(place)
        here, there = display.experiments_[experiment]
        times, j = display.times_[here], observable
        for name, alpha in BANDS.items():
            band = getattr(display, name)
            if band is not None:
                artists[name].append(
                    ax.fill_between(
                        times, *band[:, here, j], color=color, alpha=alpha, lw=0
                    )
                )
        line = display.trajectory[here, j]
        artists["line"] += ax.plot(times, line, color=color, lw=1.8)
        times = display.observation_times_[there]
        if display.truth is not None:
            artists["truth"] += ax.plot(
                times, display.truth[there, j], "--", color=INK, lw=1
            )
        if display.observations is not None:
            readings = display.observations[there, j]
            seen = ~np.isnan(readings)
            artists["measurements"] += ax.plot(
                times[seen],
                readings[seen],
                marker,
                color=color if self.overlay else INK,
                markersize=5.5,
                markeredgecolor="white",
                markeredgewidth=0.7,
                zorder=3,
            )

    def mark_events(self, ax, experiment):
        """Mark when something happens in an experiment."""
        for time in (self.display.events or {}).get(experiment, ()):
            line = ax.axvline(time, color=GREY, lw=0.9, ls=(0, (1, 2)), zorder=0)
            self.artists["events"].append(line)

    def style(self, place):
        """Return color and marker of the observable drawn at this place."""
        if not self.overlay:
            return BLUE, "o"
        return COLORS[place % len(COLORS)], MARKERS[place % len(MARKERS)]


def legend_handles(curves, names):
    """Explain the observables if they share a panel, then each kind of mark."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    display, handles = curves.display, []
    dot = {"markeredgecolor": "white", "markersize": 5.5}
    has_points = display.observations is not None
    for place, name in enumerate(names if curves.overlay else []):
        color, marker = curves.style(place)
        marker = marker if has_points else ""
        handles.append(Line2D([], [], color=color, marker=marker, label=name, **dot))
    color, ink = (GREY, GREY) if curves.overlay else (BLUE, INK)
    if has_points:
        handles.append(
            Line2D([], [], color=ink, ls="", marker="o", label="measured", **dot)
        )
    handles.append(Line2D([], [], color=color, lw=1.8, label="reconstruction"))
    level = f"{percent(display.level)} " if display.level else ""
    for band, alpha, label in (
        (display.band, CREDIBLE + PREDICTIVE, "credible (trajectory)"),
        (display.predictive_band, PREDICTIVE, "predictive (readings)"),
    ):
        if band is not None:
            handles.append(Patch(color=color, alpha=alpha, lw=0, label=level + label))
    if display.truth is not None:
        handles.append(Line2D([], [], color=INK, ls="--", lw=1, label="truth"))
    if curves.artists["events"]:
        dots = {"color": GREY, "lw": 0.9, "ls": (0, (1, 2))}
        handles.append(Line2D([], [], **dots, label="dose or event"))
    return handles
