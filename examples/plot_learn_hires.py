"""
The equations of a stiff reaction network, learned from runs of it
==================================================================

HIRES, eight species of plant physiology, is stiff: some states settle in hundredths of a
second, others in minutes. Say that nothing is known but twenty runs of it. Of 360 terms
that quadratic equations of eight states may have, 24 are in it. They are found, and predict
what happens from a start never seen.
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy.integrate import solve_ivp

from sklearn_inverse import PolynomialODE

END = 321.8122


def hires(t, y):
    """Return the true right-hand side, which stands for the laboratory."""
    y1, y2, y3, y4, y5, y6, y7, y8 = y
    binding = 280 * y6 * y8 - 1.81 * y7
    return [
        -1.71 * y1 + 0.43 * y2 + 8.32 * y3 + 0.0007,
        1.71 * y1 - 8.75 * y2,
        -10.03 * y3 + 0.43 * y4 + 0.035 * y5,
        8.32 * y2 + 1.71 * y3 - 1.12 * y4,
        -1.745 * y5 + 0.43 * y6 + 0.43 * y7,
        -280 * y6 * y8 + 0.69 * y4 + 1.71 * y5 - 0.43 * y6 + 0.69 * y7,
        binding,
        -binding,
    ]


def measured(start, times):
    """Return exact states at times."""
    options = {"method": "Radau", "rtol": 1e-10, "atol": 1e-12, "t_eval": times}
    return solve_ivp(hires, (0, times[-1]), start, **options).y.T


# %%
# Twenty runs, read densely while states move fast, and rarely when they do not: at the
# steps of a stiff solver.
rng = np.random.default_rng(0)
starts = rng.uniform(0, [1.5, 1, 1, 1, 1, 1, 1, 0.05], (20, 8))
times = [
    solve_ivp(hires, (0, END), y0, method="Radau", rtol=1e-4, atol=1e-8).t
    for y0 in starts
]
runs = [measured(y0, t) for y0, t in zip(starts, times)]

# %%
# Learn the equations. If readings scatter, say how much (``noise_std=``, of each state or
# each reading): 24 terms take a minute then, and what else explains them is listed.
model = PolynomialODE(degree=2).fit(runs, times)
model.print()

# %%
# Predict from an unseen start.
unseen = np.array([1.0, 0.2, 0.1, 0.8, 0.3, 0.5, 0.9, 0.02])
t = np.concatenate([[0], np.geomspace(1e-3, END, 200)])
predicted, truth = model.simulate(unseen, t), measured(unseen, t)
error = abs(predicted - truth).max(axis=0) / truth.max(axis=0)
print(f"\nunseen start: off by {error.max():.2g} of the largest value at most")

fig, axes = plt.subplots(2, 4, figsize=(11, 5), sharex=True, constrained_layout=True)
for k, ax in enumerate(axes.flat):
    for run, own in zip(runs[:5], times):
        ax.plot(own[1:], run[1:, k], ".", color="0.75", markersize=3)
    ax.plot(t[1:], truth[1:, k], color="k", linewidth=3, alpha=0.3)
    ax.plot(t[1:], predicted[1:, k], color="C1")
    ax.set_title(model.equations_[k], fontsize=7, wrap=True)
    ax.set_ylabel(model.state_names_[k])
    ax.set_xscale("log")
for ax in axes[1]:
    ax.set_xlabel("time")
marks = [
    plt.Line2D(
        [], [], color="0.75", marker=".", linestyle="", label="readings (5 runs)"
    ),
    plt.Line2D([], [], color="k", linewidth=3, alpha=0.3, label="truth, unseen start"),
    plt.Line2D([], [], color="C1", label="learned equations"),
]
fig.legend(handles=marks, loc="outside lower center", ncols=3, frameon=False)
fig.savefig("learn_hires.png", dpi=110)
