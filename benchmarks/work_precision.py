"""What accuracy does a second buy, on six stiff problems?

For POLLU, HIRES, Robertson, Van der Pol (mu = 1000), the Oregonator and the Brusselator on
100 points: error against time per trajectory over a sweep of tolerances, for SciPy (LSODA
through odeint, BDF, Radau, with the Jacobian in closed form, compiled by numba where the
problem is mass action; told the band of the Brusselator's), CVODE as RoadRunner has it,
diffrax (Kvaerno5, tuned) and ours, compiled; in double precision and on one core each. A
batch of 100 samples with params within 10 % of their nominal values (of 100 equal ones for
Van der Pol, of 8 for the Brusselator); SciPy and RoadRunner, which go sample by sample,
solve the first few. Compilation is not counted.

The error of a sample is the largest, over the output times, root mean square over the
states of |y - ref| / (|ref| + 1e-6 peak), with the peak of each state over its
trajectory; the figure shows the median over samples. The reference is our rodas5p at
rtol 1e-11, cross-checked here against LSODA at rtol 1e-12 on the first sample.

    python benchmarks/work_precision.py
"""

import argparse
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
from _peers import (
    OURS,
    STIFF,
    Problem,
    interleave,
    numba_functions,
    numpy_functions,
    solve_diffrax,
    solve_ours,
    solve_roadrunner,
    solve_scipy,
    spread,
)
from _report import RESULTS, short, write_report

from sklearn_inverse.inspection._panels import COLORS, GREY

COMPILED = OURS["rodas5p, compiled"]
RTOLS = [10.0**-digits for digits in range(3, 10)]
TITLES = {
    "pollu": "POLLU",
    "hires": "HIRES",
    "robertson": "Robertson",
    "van_der_pol": "Van der Pol",
    "oregonator": "Oregonator",
    "brusselator": "Brusselator, 100 points",
}


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n-samples", type=int, default=100)
    parser.add_argument("--n-scipy", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="two systems, in seconds")
    arguments = parser.parse_args()
    rtols, systems, repeats, budget_s = RTOLS, STIFF, 3, 1
    if arguments.quick:
        rtols, systems, repeats, budget_s = [1e-3, 1e-5], STIFF[:3:2], 1, 0
        arguments.n_samples, arguments.n_scipy = 10, 1

    rows, agreement = [], {}
    for make_system in systems:
        system = make_system()
        width = 0.0 if system.name == "van_der_pol" else 0.1
        n_samples = arguments.n_samples
        if system.name == "brusselator":
            n_samples = min(n_samples, 8)
        problem = Problem(system, spread(system, n_samples, width))
        few, one = problem.head(arguments.n_scipy), problem.head(1)
        if not arguments.quick:
            agreement[system.name] = one.error(solve_scipy(one, 1e-12))
        contenders = solvers_for(problem, few, make_system)
        for _, run in contenders.values():  # compiles, and warms up
            run(rtols[0])
        for rtol in rtols:
            runs = {name: partial(run, rtol) for name, (_, run) in contenders.items()}
            answers, seconds = interleave(runs, repeats, budget_s)
            for name, (solved, _) in contenders.items():
                errors = solved.errors(answers[name])
                row = {
                    "system": system.name,
                    "solver": name,
                    "rtol": rtol,
                    "error": short(np.median(errors)),
                    "ms_per_trajectory": short(1e3 * seconds[name] / len(solved)),
                    "n_samples": len(solved),
                    "n_failed": int(np.isinf(errors).sum()),
                }
                rows.append(row)
                print(row, flush=True)
    write_report(
        "work_precision",
        rows,
        save=not arguments.quick,
        reference_against_scipy=agreement,
        **vars(arguments),
    )
    figure = draw(rows)
    if not arguments.quick:
        figure.savefig(RESULTS / "work_precision.png", dpi=150)


def solvers_for(problem, few, make_system):
    """Return ``{name: (problem it is given, solve(rtol))}``."""
    contenders = {
        "ours, compiled": (problem, partial(solve_ours, problem, **COMPILED)),
    }
    contenders["diffrax Kvaerno5"] = problem, partial(solve_diffrax, problem)
    is_compiled = problem.system.kinetics is not None
    functions = numba_functions if is_compiled else numpy_functions
    for name, method in {"LSODA": "odeint", "BDF": "BDF", "Radau": "Radau"}.items():
        solve = partial(solve_scipy, few, method=method, functions=functions)
        contenders[f"SciPy {name}"] = few, solve
    if problem.system.name != "brusselator":
        solve = partial(solve_roadrunner, few, make_system=make_system)
        contenders["RoadRunner CVODE"] = few, solve
    return contenders


def draw(rows):
    """Draw one panel per system."""
    solvers = list(dict.fromkeys(row["solver"] for row in rows))
    plt.rcParams.update({"lines.markersize": 4, "lines.linewidth": 1.5})
    figure, axes = plt.subplots(2, 3, figsize=(10, 6.2), layout="constrained")
    for panel, (system, title) in zip(axes.flat, TITLES.items()):
        for solver, color in zip(solvers, [*COLORS, GREY]):
            points = [
                (row["ms_per_trajectory"], row["error"])
                for row in rows
                if (row["system"], row["solver"]) == (system, solver)
                and row["error"] < 1
            ]
            style = "o-" if "ours" in solver else "s--"
            x, y = np.reshape(points, (-1, 2)).T
            panel.loglog(x, y, style, color=color, label=solver)
        panel.set_title(title, fontsize="medium")
        panel.grid(color=GREY, alpha=0.2, lw=0.5)
    figure.supxlabel("ms per trajectory, one core", fontsize="medium")
    figure.supylabel("error", fontsize="medium")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=6, frameon=False)
    return figure


if __name__ == "__main__":
    main()
