"""BiLO where solutions are not smooth: a source in a point, and shocks.

"point source": particles of birth 500 and death 10 in 100 snapshots, from (250, 5). "off
exact" is how far BiLO's params are from where the exact solver finds the maximum of the
posterior, the largest of both, relative; "u" the network's root-mean-square distance from
the exact solution there, relative.

"burgers": the start f from 49 readings at t = 1 with σ = .05, a wave or a box, made by
Godunov's scheme on 1001 × 1001 points. "error" is the mean absolute error of f, "front"
how far off the shock is at the end of the exact solution from the f found, in cells of
.005. The prior's scale is 2 for both. CPU seconds, one thread.

    python benchmarks/bilo_jumps.py
"""

import argparse
import json
import time
import warnings

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from _report import RESULTS, short, write_report
from unknown_functions import QUICK, X, begun, fronts, stepped

from sklearn_inverse import GradientInverter
from sklearn_inverse.collocation import Bilevel
from sklearn_inverse.inverse import BiLOInverter
from sklearn_inverse.problems import burgers, point_source

PROBLEMS = "point source", "burgers, wave", "burgers, box"


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", nargs="+", default=[*PROBLEMS])
    parser.add_argument("--n-sets", type=int, default=5)
    parser.add_argument("--max-iter", type=int, default=2500)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    path, done = RESULTS / "bilo_jumps.json", {}
    if path.exists():  # rows of other problems stay
        for row in json.loads(path.read_text())["rows"]:
            done.setdefault(row["problem"], []).append(row)
    for problem in arguments.problems:
        run = particles if problem == "point source" else shocks
        done[problem] = run(problem, arguments)
        rows = [row for name in PROBLEMS for row in done.get(name, [])]
        write_report("bilo_jumps", rows, threads=1)


def timed(inverter, readings):
    """Return an answer, and CPU seconds of getting ready and of each data set."""
    start = time.process_time()
    inverter.fit(readings)
    ready = time.process_time()
    answer = getattr(inverter, "posterior", inverter.invert)(readings)
    each = (time.process_time() - ready) / len(readings)
    return answer, {"CPU s, fit": short(ready - start), "CPU s, each": short(each)}


def particles(problem, arguments):
    """Find birth and death by both."""
    system, n_sets = point_source(), arguments.n_sets
    mean = system.report(torch.tensor([[500.0, 10.0]], dtype=torch.float64))
    rng = np.random.default_rng(0)
    counts = rng.poisson(mean[0].numpy(), (n_sets, mean.shape[-1])).astype(float)
    exact, spent = timed(GradientInverter(system, **QUICK), counts)
    rows = [{"problem": problem, "method": "exact", "n": n_sets} | spent]
    bilo, spent = timed(
        BiLOInverter(system, start=[250.0, 5.0], random_state=0), counts
    )
    off = np.abs(bilo.params / exact.params - 1).max(axis=1)
    return [
        *rows,
        {"problem": problem, "method": "BiLO", "n": n_sets}
        | {"off exact": f"{off.mean():.2%}", "worst": f"{off.max():.2%}"}
        | {"u": short(bilo.network_error.max())}
        | spent,
    ]


def shocks(problem, arguments):
    """Find the start of Burgers' equation by both, and draw it."""
    system, truth = burgers(scale=2.0), begun(problem, X)
    fine, end = stepped(problem)
    noise = 0.05 * np.random.default_rng(7).standard_normal(len(X))
    read = np.interp(X, fine, end)[None] + noise
    descent = Bilevel(max_iter=arguments.max_iter)
    figure, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
    rows = []
    axes[0].plot(X, truth, "k", lw=1, label="truth")
    axes[1].plot(fine, end, "k", lw=1)
    axes[1].plot(X, read[0], "k.", ms=3)
    for method, inverter in {
        "exact": GradientInverter(system, **QUICK),
        "BiLO": BiLOInverter(system, descent=descent, random_state=0),
    }.items():
        found, spent = timed(inverter, read)
        f = found.params[0]
        u = system.solve(f)[0, 0]
        if method == "exact":
            low, high = (ends[0] for ends in found.interval(0.9))
            axes[0].fill_between(X, low, high, color="C0", alpha=0.2)
        color = {"exact": "C0", "BiLO": "C3"}[method]
        axes[0].plot(X, f, color, label=method)
        axes[1].plot(system.nodes, u, color)
        front = (fronts(system.nodes, u) - fronts(fine, end)) * (len(system.nodes) - 1)
        row = {"problem": problem, "method": method, "n": 1}
        row |= {"error": short(np.abs(f - truth).mean()), "front": short(abs(front))}
        if method == "BiLO":
            row["u"] = short(found.network_error[0])
        rows.append(row | spent)
    axes[0].set_title(f"{problem}: the start")
    axes[1].set_title("at t = 1")
    axes[0].legend()
    figure.savefig(RESULTS / f"bilo_{problem.replace(', ', '_')}.png", dpi=90)
    return rows


if __name__ == "__main__":
    main()
