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


def draw_pictures(name, rows, landscape, curves):
    """Draw a problem's landscape, optimization curves, and scores against n."""
    figure, axes = plt.subplots(1, 4, figsize=(16, 3.6), layout="constrained")
    axes[0].plot(landscape["x"], landscape["loss"], "k", lw=1)
    axes[0].axvline(landscape["truth"], color="C3", ls=":", label="truth")
    axes[0].set(xlabel=landscape["name"], ylabel="loss", title="loss of one problem")
    axes[0].legend()
    least = min(np.min(c) for c in curves.values())
    for method, curve in curves.items():
        above = np.array(curve) - least + 1
        axes[1].loglog(1 + np.arange(len(above)), above, c=COLORS[method], label=method)
    axes[1].set(
        xlabel="runs of all problems",
        ylabel="objective above the lowest, + 1",
        title="median over problems",
    )
    axes[1].legend()
    for axis, column in ((axes[2], "mean_loss"), (axes[3], "global_%")):
        sizes = sorted({r["n"] for r in rows})
        for method in dict.fromkeys(r["method"] for r in rows):
            cells = [
                [r[column] for r in rows if (r["method"], r["n"]) == (method, n)]
                for n in sizes
            ]
            mean, std = (np.array([f(c) for c in cells]) for f in (np.mean, np.std))
            axis.errorbar(
                sizes, mean, std, c=COLORS[method], label=method, marker=".", lw=1
            )
        axis.set(xscale="log", xlabel="n problems", title=column.replace("_", " "))
        axis.set_xticks(sizes, [str(n) for n in sizes], minor=False)
    axes[2].set(yscale="log", title="mean loss, refined")
    axes[3].set(ylim=(-3, 103), title="% of global optima found")
    axes[3].legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.suptitle(name.replace("_", " "))
    figure.savefig(RESULTS / f"joint_{name}.png", dpi=110)
    plt.close(figure)
