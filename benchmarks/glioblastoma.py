"""A tumor in the plane, found from two noisy segmentations; and from those of other models.

Data sets of ``problems.glioblastoma`` itself, D, rho and both thresholds unknown, and of
four models that are not the one that is inverted: cells that move twice as easily along x
and half as easily across, that move the more easily the denser they are, a slice of white
matter only, and segmentations of the model itself whose edges are sharp. "z" is how far
off a param is in standard deviations, root mean square of data sets and params, "held" the
share of 90 % intervals that hold the truth; DICE is of the segmentations predicted at the
answer and those measured, "by the truth" what it is at the true params; "warned" how many
answers the package calls unexplained. CPU seconds per data set, one thread, compiled
before.

    python benchmarks/glioblastoma.py
"""

import argparse
import time
import warnings
from functools import partial

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from _report import RESULTS, short, write_report

from sklearn_inverse import GradientInverter, ODESimulator, PDESystem
from sklearn_inverse.exceptions import MisfitWarning
from sklearn_inverse.metrics import dice_score
from sklearn_inverse.problems import glioblastoma
from sklearn_inverse.problems._glioblastoma import brain

TRUTH = np.array([1.0, 1.0, 0.3, 0.6])
OTHERS = {  # stretch, crowd, plain
    "itself": (1.0, 0.0, 0.0),
    "directed": (2.0, 0.0, 0.0),
    "crowding": (1.0, 2.0, 0.0),
    "other tissue": (1.0, 0.0, 1.0),
}


def other_growth(x, u, p):
    """Growth with what the inverted model does not know of."""
    white, gray = brain(x.x, x.y)
    there = white + gray
    spread = 0.3 * p.D * (white + gray / 10 + 0.9 * p.plain * gray)
    spread = spread * (1 + p.crowd * u)
    flow = (spread * p.stretch * u.x).x + (spread / p.stretch * u.y).y
    return there * (u.t - 0.03 * p.rho * u * (1 - u)) - flow


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n-noises", type=int, default=10)
    parser.add_argument("--n-nodes", type=int, default=33)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rng, n = np.random.default_rng(0), arguments.n_noises
    system = glioblastoma(n_nodes=arguments.n_nodes)
    wider = {"stretch": (0.5, 3.0), "crowd": (0.0, 3.0), "plain": (0.0, 1.0)}
    other = PDESystem(
        system.domain,
        other_growth,
        constraint=system.constraint,
        params=system.params | wider,
        observe=system.observe,
        noise=system.noise,
        grid=system.grids,
        nominal=system.nominal | {"stretch": 1.0, "crowd": 0.0, "plain": 0.0},
    )
    simulator = ODESimulator(other.semidiscretize())
    params = np.array([[*TRUTH, *more] for more in OTHERS.values()])
    clean = dict(zip(OTHERS, simulator.simulate(params)[:, 0]))
    clean["sharp edges"] = np.round(clean["itself"])
    scale = np.array([kind.scale for kind in system.semidiscretize().noise.kinds])
    inverter, rows, shown = GradientInverter(system, n_starts=1, max_solves=0), [], {}
    for name, mean in clean.items():
        m = n if name == "itself" else max(n // 5, 1)
        noise = scale * rng.standard_normal((m, len(mean)))
        read = mean + noise * (name != "sharp edges")
        inverter.fit(read)
        start = time.process_time()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = inverter.posterior(read)
        seconds = (time.process_time() - start) / m
        if not rows:
            print(found[0])
        said = [w for w in caught if issubclass(w.category, MisfitWarning)]
        print(name, *(w.message for w in said), sep="\n", flush=True)
        fitted = ODESimulator(system.semidiscretize()).simulate(found.params)[:, 0]
        z = (found.params - TRUTH) / found.std
        low, high = found.interval(0.9)
        half = len(mean) // 2
        score = partial(dice, half, read)
        rows.append(
            {
                "data of": name,
                "n": m,
                **{
                    key: f"{x:.3f} ± {s:.3f}"
                    for key, x, s in zip(
                        system.prior.names, found.params.mean(0), found.std.mean(0)
                    )
                },
                "z": short(np.sqrt(np.mean(z**2))),
                "held": f"{np.mean((low < TRUTH) & (high > TRUTH)):.0%}",
                "DICE edema": short(score(fitted)[0]),
                "DICE core": short(score(fitted)[1]),
                "by the truth": " ".join(f"{x:.3f}" for x in score(mean[None])),
                "chi-square / n": short(np.mean(found.misfit) / len(mean)),
                "warned": f"{np.sum(~found.explained)} of {m}",
                "CPU s": short(seconds),
            }
        )
        shown[name] = read[0], fitted[0]
        write_report(
            "glioblastoma", rows, threads=1, n_nodes=arguments.n_nodes, n_noises=n
        )
    draw(system, other, shown)


def dice(half, read, fitted):
    """Return Dice's coefficient of edema and core, means of data sets."""
    fitted = np.broadcast_to(fitted, read.shape)
    return [dice_score(read[:, s], fitted[:, s]).mean() for s in np.s_[:half, half:]]


def draw(system, other, shown):
    """Draw tissue, tumor, and both segmentations, measured and predicted."""
    figure, axes = plt.subplots(
        2, len(shown) + 1, figsize=(3.2 * len(shown) + 3.2, 6.4), layout="constrained"
    )
    x, y = np.meshgrid(*system.nodes, indexing="ij")
    white, gray = brain(x, y)
    ends = [*system.domain["x"], *system.domain["y"]]
    image = np.stack([0.9 * white + 0.5 * gray] * 3, axis=-1).transpose(1, 0, 2)
    axes[0, 0].imshow(image, origin="lower", extent=ends)
    axes[0, 0].set_title("white and gray matter")
    (density,) = system.solve(TRUTH)[:, -1]
    axes[1, 0].contourf(x, y, density, 20, cmap="viridis")
    axes[1, 0].contour(x, y, density, [0.3, 0.6], colors="w")
    axes[1, 0].contour(x, y, white + gray, [0.5], colors="0.6")
    axes[1, 0].set_title("density, truth")
    at = system.observe.points(system.grids)
    for column, (name, (read, fitted)) in zip(axes.T[1:], shown.items()):
        for panel, what, r, f in zip(
            column, ("edema", "core"), np.split(read, 2), np.split(fitted, 2)
        ):
            panel.scatter(*at.T, c=r, s=9, marker="s", cmap="gray_r", vmin=0, vmax=1)
            panel.tricontour(*at.T, f, [0.5], colors="C3")
            panel.set_title(f"{what}, data of: {name}", fontsize=9)
    for panel in axes.ravel():
        panel.set(aspect="equal", xlim=(-50, 64), ylim=(-58, 58))
    figure.savefig(RESULTS / "glioblastoma.png", dpi=90)


if __name__ == "__main__":
    main()
