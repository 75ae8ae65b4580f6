"""Pictures like the INO paper's Figures 4 to 6, of what ``ino_tables.py`` has measured."""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from _report import RESULTS

SHOWN = (
    "Gauss–Newton, exact",
    "ADM",
    "ADM, learned",
    "Adam, 100 steps",
    "MCMC",
    "CMA-ES",
    "MLP regression",
)
SAMPLE = 0  # the held-out one that is drawn
SPECIES = {"pollu": (0, 1, 3, 6, 12), "grn": (0, 4, 8, 12, 16)}


def draw_pictures(problem, cells, path, filled):
    """Draw all pictures of a problem.

    Parameters
    ----------
    problem : InoProblem
        The problem.

    cells : dict
        What was measured of each method.

    path : ndarray of shape (n_steps, n_samples, n_params)
        Where the drift is, step by step.

    filled : dict
        {whether there is attention: trajectories of the surrogate}.
    """
    cells = {name: cells[name] for name in SHOWN if name in cells}
    for figure, what in (
        (draw_params(problem, cells), "params"),
        (draw_drift(problem, path), "drift"),
        (draw_trajectories(problem, cells, filled), "trajectories"),
    ):
        figure.savefig(RESULTS / f"ino_{problem.name}_{what}.png", dpi=110)
        plt.close(figure)


def draw_params(problem, cells):
    """Draw the mean, std and range over starts of each param (Figure 4)."""
    scaler = problem.system.prior.scaler
    truth = scaler.to_scaled(problem.test.params[SAMPLE : SAMPLE + 1])[0]
    index = np.arange(len(truth))
    figure, axes = plt.subplots(
        len(cells), figsize=(9, 1.5 * len(cells)), sharex=True, layout="constrained"
    )
    for axis, (name, cell) in zip(np.atleast_1d(axes), cells.items()):
        ends = np.stack([scaler.to_scaled(end)[SAMPLE] for end in cell["ends"]])
        mean, std = ends.mean(axis=0), ends.std(axis=0)
        axis.vlines(index, ends.min(axis=0), ends.max(axis=0), color="C1", alpha=0.35)
        axis.vlines(index, mean - std, mean + std, color="C1", lw=4)
        axis.plot(index, mean, "_", color="C3", ms=9)
        axis.plot(index, truth, "k.", ms=5)
        axis.set(ylim=(-0.05, 1.05), title=f"{name} ({len(ends)} starts)")
    axis.set_xlabel("param; black: truth, bars: mean ± std and range over starts")
    return figure


def draw_drift(problem, path):
    """Draw errors over the steps, params at the end, and what is left (Figure 5)."""
    scaler = problem.system.prior.scaler
    n_samples, n_params = path.shape[1:]
    error = np.stack([problem.scaled_error(params) for params in path])
    off = [problem.trajectory_error(problem.simulate(params)) for params in path]
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.6), layout="constrained")
    axes[0].semilogy(np.mean(error**2, axis=(1, 2)), label="params, on [0, 1]")
    axes[0].semilogy([np.mean(o**2) for o in off], label="trajectories, standardized")
    axes[0].set(xlabel="step", ylabel="mean square error", title=f"{n_samples} samples")
    axes[0].legend()
    truth = scaler.to_scaled(problem.test.params[:n_samples])
    axes[1].plot(truth.ravel(), scaler.to_scaled(path[-1]).ravel(), ".", ms=2)
    axes[1].plot([0, 1], [0, 1], "k", lw=0.8)
    axes[1].set(xlabel="true param", ylabel="after the last step", title="all params")
    first, last = (np.abs(error[step, SAMPLE]) for step in (0, -1))
    if problem.name == "grn":  # the interaction matrix: at the start, and at the end
        genes = np.arange(n_params // 2)
        maps = np.full((2, len(genes), len(genes)), np.nan)
        for residual, values in zip(maps, (first, last)):
            residual[genes, genes] = values[: len(genes)]
            residual[genes, (genes + 1) % len(genes)] = values[len(genes) :]
        image = axes[2].imshow(np.hstack(maps), vmin=0, vmax=0.5, cmap="magma_r")
    else:
        image = axes[2].imshow(
            np.abs(error[:, SAMPLE]), vmin=0, vmax=0.5, cmap="magma_r", aspect="auto"
        )
        axes[2].set(xlabel="param", ylabel="step")
    axes[2].set_title("|error| of one sample" + " at start and end" * (n_params == 40))
    figure.colorbar(image)
    return figure


def draw_trajectories(problem, cells, filled):
    """Draw the surrogate with and without attention, and the answers (Figure 6)."""
    species = SPECIES[problem.name]
    times, names = problem.system.times, problem.system.observable_names
    truth = problem.test.trajectories[SAMPLE]
    readings = problem.observations[SAMPLE]
    of_methods = {name: cell["trajectories"][SAMPLE] for name, cell in cells.items()}
    of_surrogates = {
        "C-FNO, attention" if attention else "C-FNO, none": found[SAMPLE]
        for attention, found in filled.items()
    }
    figure, axes = plt.subplots(
        2, len(species), figsize=(15, 5.6), sharex=True, layout="constrained"
    )
    for line, curves in zip(axes, (of_surrogates, of_methods)):
        for axis, channel in zip(line, species):
            for name, trajectory in curves.items():
                axis.plot(times, trajectory[:, channel], lw=1.1, label=name)
            axis.plot(times, truth[:, channel], "k--", lw=1, label="truth")
            axis.plot(times, readings[:, channel], "ko", ms=4)
            axis.set_title(names[channel])
        line[-1].legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
