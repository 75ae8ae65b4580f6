"""What displays share: matplotlib on demand, a grid of panels, colors all can tell."""

from typing import NamedTuple

import numpy as np

# Okabe & Ito, "Color Universal Design" (2008), distinguishable to the color-blind.
BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
)
COLORS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
INK, GREY = "#222222", "#777777"


class Panels(NamedTuple):
    """A grid of axes: ours in a figure of its own, or those that the caller gave.

    Attributes
    ----------
    figure : matplotlib Figure
        The figure that holds the axes.

    axes : ndarray of shape (n_panels,)
        The axes, row by row.

    is_left, is_bottom : ndarray of shape (n_panels,)
        Which panels stand at the edge of the grid and so carry axis labels.

    is_ours : bool
        Whether the figure was made here.
    """

    figure: object
    axes: np.ndarray
    is_left: np.ndarray
    is_bottom: np.ndarray
    is_ours: bool

    def legend(self, handles):
        """Put the legend above our grid, or into the first of the caller's axes."""
        if not self.is_ours:
            return self.axes[0].legend(handles=handles, fontsize="small")
        # Inches per entry in small print; in one row if they all fit, else in columns.
        widths = [0.5 + 0.075 * len(handle.get_label()) for handle in handles]
        room = self.figure.get_figwidth()
        in_a_row = sum(widths) <= room
        return self.figure.legend(
            handles=handles,
            loc="outside upper center",
            ncols=len(handles) if in_a_row else max(1, int(room / max(widths))),
            frameon=False,
            fontsize="small",
        )

    def label_times(self, label, times):
        """Label the time axes, and leave ticks between whole times out."""
        for panel in self.axes[self.is_bottom]:
            panel.set_xlabel(label)
        for panel in self.axes:
            panel.spines[["top", "right"]].set_visible(False)
            # Axes of the caller may be scaled otherwise.
            if self.is_ours and np.array_equal(times, np.round(times)):
                panel.xaxis.get_major_locator().set_params(integer=True)

    def note_missing(self, n_drawn, n_all, kind):
        """Say below our grid that some observables or params are not drawn."""
        if self.is_ours and n_drawn < n_all:
            note = f"{n_drawn} of {n_all} {kind}s"
            self.figure.supxlabel(note, fontsize="small", color=GREY)


def import_pyplot(caller):
    """Return matplotlib.pyplot, or say how to install it."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            f"{caller} needs matplotlib, which is not installed. Install it with "
            '`pip install "sklearn-inverse[plot]"`.'
        ) from error
    return plt


def make_panels(caller, ax, n_panels, *, n_columns, panel_size, sharex=False):
    """Lay out a figure with ``n_panels`` axes, or take those in ``ax``."""
    plt = import_pyplot(caller)
    if ax is not None:
        axes = np.asarray(ax, dtype=object).ravel()
        if len(axes) != n_panels:
            raise ValueError(
                f"`ax` must hold {n_panels} axes, one per panel. Got {len(axes)}."
            )
        everywhere = np.ones(n_panels, dtype=bool)
        return Panels(axes[0].figure, axes, everywhere, everywhere, False)
    n_rows = -(-n_panels // n_columns)
    width, height = panel_size
    figure, grid = plt.subplots(
        n_rows,
        n_columns,
        figsize=(width * n_columns, height * n_rows + 0.4),
        layout="constrained",
        squeeze=False,
    )
    panel = np.arange(n_panels)
    is_bottom = panel + n_columns >= n_panels
    for unused in grid.flat[n_panels:]:
        unused.remove()
    axes = grid.flat[:n_panels]
    if sharex:
        for above in axes[1:]:
            above.sharex(axes[0])
        for above in axes[~is_bottom]:
            above.tick_params(labelbottom=False)
    return Panels(figure, axes, panel % n_columns == 0, is_bottom, True)


def time_grid(n_panels):
    """Return the layout of panels over time: few in a column, more in a grid."""
    n_columns = 1 if n_panels <= 3 else min(4, int(np.ceil(np.sqrt(n_panels))))
    size = (6.4, 2.2) if n_columns == 1 else (3.6, 2.2)
    size = (6.4, 3.6) if n_panels == 1 else size
    return {"n_columns": n_columns, "panel_size": size, "sharex": True}


def set_log(ax, n_decades, axes="xy"):
    """Give axes logarithmic scales, with labels between the decades if there are few."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    ax.set(**{f"{name}scale": "log" for name in axes})
    for axis in (getattr(ax, f"{name}axis") for name in axes):
        axis.set_minor_formatter(NullFormatter())
        if n_decades < 1.9:
            subs = (1, 2, 5) if n_decades < 1 else (1, 3)
            axis.set_major_locator(LogLocator(subs=subs))
            axis.set_major_formatter(StrMethodFormatter("{x:g}"))


def choose(chosen, names, *, name, max_panels):
    """Return the indices of the chosen names (or indices), at most ``max_panels``."""
    if chosen is None:
        return list(range(min(len(names), max_panels)))
    indices = []
    for item in [chosen] if isinstance(chosen, str) else chosen:
        index = names.index(item) if item in names else item
        if isinstance(index, str) or not 0 <= index < len(names):
            raise ValueError(
                f"`{name}` must hold names out of {names} or their indices. Got "
                f"{item!r} instead."
            )
        indices.append(int(index))
    if not 1 <= len(indices) <= max_panels:
        raise ValueError(
            f"`{name}` must hold between 1 and max_panels={max_panels} entries. Got "
            f"{len(indices)}. Raise `max_panels` to draw more."
        )
    return indices


def check_labels(labels, n_labels, *, name, default=None):
    """Return a label per observable or param: as given, or ``default`` numbered."""
    if labels is None:
        return [f"{default}{i}" if default else "" for i in range(1, n_labels + 1)]
    labels = [labels] * n_labels if isinstance(labels, str) else list(labels)
    if len(labels) != n_labels:
        raise ValueError(
            f"`{name}` must hold {n_labels} entries. Got {labels} instead."
        )
    return labels


def percent(level):
    """Return 0.9 as "90 %"."""
    return f"{100 * level:g} %"
