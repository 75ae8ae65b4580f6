"""Pictures like Figures 2 to 5 of Holl & Thuerey, of what ``joint_tables.py`` measured."""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from _report import RESULTS

COLORS = {
    "BFGS": "k",
    "BFGS, random starts": "0.6",
    "paper: joint": "C0",
    "paper: supervised": "C1",
    "paper: neural adjoint": "C2",
    "default": "C3",
    "default, few pairs": "C6",
    "Gauss–Newton": "C4",
    "CMA-ES": "C5",
}
TICKS = 10, 30, 100, 300, 1000, 3000, 10_000


def draw_pictures(name, rows, landscape, curves):
    """Draw a problem's landscape, optimization curves, and scores by runs and by n."""
    sizes = sorted({r["n"] for r in rows})
    n_panels = 3 + (len(sizes) > 1)
    shape = {"figsize": (4 * n_panels, 3.6), "layout": "constrained"}
    figure, axes = plt.subplots(1, n_panels, **shape)
    axes[0].plot(landscape["x"], landscape["loss"], "k", lw=1)
    axes[0].axvline(landscape["truth"], color="C3", ls=":", label="truth")
    axes[0].set(xlabel=landscape["name"], ylabel="loss", title="loss of one problem")
    axes[0].legend()
    least = min(np.min(c) for c in curves.values())
    for method, curve in curves.items():
        above = np.array(curve) - least + 1
        axes[1].loglog(1 + np.arange(len(above)), above, c=COLORS[method], label=method)
    axes[1].set(
        xlabel="runs with a gradient",
        ylabel="objective above the lowest, + 1",
        title=f"median over {sizes[-1]} problems",
    )
    axes[1].legend(fontsize=7)
    for method in dict.fromkeys(r["method"] for r in rows):
        cells = [
            [r for r in rows if (r["method"], r["n"]) == (method, n)] for n in sizes
        ]
        calls, found, loss = (
            [np.mean([r[column] for r in cell]) for cell in cells]
            for column in ("calls", "global_%", "mean_loss")
        )
        style = {"c": COLORS[method], "label": method, "marker": "o", "lw": 0.7}
        axes[2].scatter(
            calls, found, s=[15 + 15 * i for i in range(len(sizes))], **style
        )
        if len(sizes) > 1:
            axes[3].plot(sizes, loss, ms=4, **style)
    title = "% of global optima found"
    if len(sizes) > 1:
        title += f" (larger: n = {sizes[-1]})"
        axes[3].set(xlabel="n problems", title="mean loss, refined")
        axes[3].loglog()
        axes[3].set_xticks(sizes, [str(n) for n in sizes], minor=False)
        axes[3].minorticks_off()
    axes[2].set(xscale="log", xlabel="runs per problem", title=title, ylim=(-3, 103))
    ends = axes[2].get_xlim()
    axes[2].set_xticks(TICKS, [str(n) for n in TICKS])
    axes[2].minorticks_off()
    axes[2].set_xlim(ends)
    axes[-1].legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.suptitle(name.replace("_", " "))
    figure.savefig(RESULTS / f"joint_{name}.png", dpi=110)
    plt.close(figure)
