"""How well are whole functions found from noisy readings of a PDE's solution?

Two problems of the BiLO paper on exact solvers: the diffusivity of Poisson's equation, a
hat, read in 49 points (σ² = 1e-4), and the start of the heat equation, a hat, read at the
end (σ² = 1e-3). For each of ten noises, the scale of the prior is the one that
`log_evidence` likes best. "error" is the relative L2 error of D, the mean squared error of
f; "covered" the share of nodes inside 90 % bands; "paper" what BiLO reaches there, at its
best weight. One thread.

    python benchmarks/unknown_functions.py
"""

import argparse
import time
import warnings

import numpy as np
import torch
from _report import short, write_report

from sklearn_inverse import GradientInverter, ODESimulator
from sklearn_inverse.problems import heat, poisson

X = np.linspace(0, 1, 51)[1:-1]
SCALES = {
    "poisson": {1: (0.1, 0.2, 0.3, 0.4, 0.6), 2: (0.5, 1, 2, 3, 5)},
    "heat": {1: (0.5, 1, 2, 3), 2: (2, 4, 8, 12)},
}
PAPER = {"poisson": 2.0e-2, "heat": 6.1e-3}


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n-noises", type=int, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # no more than "not checked" where it is
    rows = []
    for problem, by_order in SCALES.items():
        truth, readings, noise = measured(problem, arguments.n_noises)
        for order, scales in by_order.items():
            start, found = time.perf_counter(), []
            for scale in scales:
                make = {"poisson": poisson, "heat": heat}[problem]
                system = make(order=order, scale=scale, noise=noise)
                inverter = GradientInverter(system, n_starts=1, max_solves=0)
                found.append(inverter.fit(readings).posterior(readings))
            seconds = time.perf_counter() - start
            best = np.argmax([p.log_evidence for p in found], axis=0)
            chosen = [found[b][i] for i, b in enumerate(best)]
            error = [error_of(problem, p.mean[0], truth) for p in chosen]
            inside = [
                np.mean((low < truth) & (truth < high))
                for low, high in (p.interval(0.9) for p in chosen)
            ]
            row = {
                "problem": problem,
                "order": order,
                "scales": " ".join(f"{scales[b]:g}" for b in np.unique(best)),
                "error": short(np.mean(error)),
                "worst": short(np.max(error)),
                "paper": PAPER[problem],
                "covered": f"{np.mean(inside):.1%}",
                "s, all scales": short(seconds / len(readings)),
            }
            rows.append(row)
            print(row, flush=True)
    write_report("unknown_functions", rows, threads=1, **vars(arguments))


def measured(problem, n_noises):
    """Return the truth at the nodes, noisy readings, and how noisy they are."""
    rng, hat = np.random.default_rng(7), 1 - 2 * np.abs(X - 0.5)
    if problem == "poisson":
        truth, noise = 1 + hat / 2, 0.01
        fine = poisson(n_nodes=801)
        values = 1.5 - np.abs(np.linspace(0, 1, 401)[1:-1] - 0.5)
        u = np.interp(X, fine.nodes, fine.solve(values)[0])
    else:
        truth, noise = hat, np.sqrt(1e-3)
        fine = heat(n_nodes=401, noise=noise)
        values = 1 - 2 * np.abs(np.linspace(0, 1, 201)[1:-1] - 0.5)
        u = ODESimulator(fine.semidiscretize()).simulate(values[None])[0, 0]
    return truth, u + noise * rng.standard_normal((n_noises, len(X))), noise


def error_of(problem, found, truth):
    """Return the error that the paper prints."""
    if problem == "poisson":
        return np.linalg.norm(found - truth) / np.linalg.norm(truth)
    return np.mean((found - truth) ** 2)


if __name__ == "__main__":
    main()
