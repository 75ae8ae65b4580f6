"""How many POLLU trajectories per second do two cores simulate?

2,000 samples with all 25 rate constants uniform in their bounds, 100 output times, all 20
species. SciPy's LSODA (by odeint, by solve_ivp, and by odeint with functions compiled by
numba) and diffrax's Kvaerno5 are spread over two processes by joblib, in chunks; of ours,
ODESimulator with ``n_jobs=2``. Slower peers solve fewer of the samples. Every solver is
measured at several tolerances, and "times faster" is the ratio of throughputs at the error
that ours has at rtol 1e-6, by log-log interpolation. The error is that of
``work_precision.py``, on the first 100 samples. Compilation is not counted.

Then throughput on one core against the number of samples solved together, ours and
diffrax's, at rtol 1e-6; and the peak memory of simulating 50,000 trajectories, with a
progress bar, in a process of its own.

    python benchmarks/solver_throughput.py
"""

import argparse
import json
import subprocess
import sys
from functools import partial

import numpy as np
from _peers import (
    OURS,
    Problem,
    add_ratios,
    interleave,
    numba_functions,
    solve_diffrax,
    solve_ours,
    solve_scipy,
    within_bounds,
)
from _report import short, write_report
from joblib import Parallel, delayed

from sklearn_inverse import ODESimulator
from sklearn_inverse.problems import pollu

RTOLS = [1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8]

# Solver, samples it is given, samples per task.
PEERS = {
    "SciPy LSODA": (solve_scipy, 400, 20),
    "SciPy LSODA (solve_ivp)": (partial(solve_scipy, method="LSODA"), 400, 20),
    "SciPy LSODA (numba)": (partial(solve_scipy, functions=numba_functions), 400, 20),
    "diffrax Kvaerno5": (solve_diffrax, 400, 50),
}

# Memory as the system knows it: getrusage would count in the parent's, from before exec.
MEMORY = """
import json, sys, time
import numpy as np
from sklearn_inverse import ODESimulator
from sklearn_inverse.problems import pollu

def mebibytes(key):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(x.split()[1]) for x in lines if x.startswith(key)) / 1024

n_samples, n_jobs = map(int, sys.argv[1:])
system = pollu()
params = np.random.default_rng(0).uniform(*system.bounds.T, (n_samples, 25))
simulator = ODESimulator(system, n_jobs=n_jobs, device="cpu")
simulator.simulate(params[:600])  # compiles
before, start = mebibytes("VmRSS"), time.perf_counter()
trajectories = simulator.set_params(verbose=1).simulate(params)
seconds = time.perf_counter() - start
print(json.dumps([before, mebibytes("VmHWM"), seconds, trajectories.nbytes / 2**20]))
"""


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n-samples", type=int, default=2_000)
    parser.add_argument("--n-memory", type=int, default=50_000)
    parser.add_argument("--n-jobs", type=int, default=2)
    parser.add_argument("--rtol", type=float, default=1e-6, help="that of ours")
    parser.add_argument("--quick", action="store_true", help="a hundredth of it all")
    arguments = parser.parse_args()
    rtols, effort, share = RTOLS, {"repeats": 7, "budget_s": 4}, 1
    batch_sizes = [1, 10, 100, 1_000, arguments.n_samples]
    if arguments.quick:
        rtols, effort, share = [1e-4, 1e-6], {"repeats": 1}, 0.01
        arguments.n_samples, arguments.n_memory = 100, 1_000
        batch_sizes = [10]
    settings = {"save": not arguments.quick, **vars(arguments)}

    system = pollu()
    problem = Problem(system, within_bounds(system, arguments.n_samples))
    rows = compare_tolerances(problem, rtols, share, arguments.n_jobs, effort)
    add_ratios(rows, arguments.rtol)
    write_report("solver_throughput", rows, **settings)

    rows = compare_batch_sizes(problem, batch_sizes, arguments.rtol, effort)
    write_report("solver_batch_size", rows, **settings)

    rows = [measure_memory(arguments.n_memory, arguments.n_jobs)]
    write_report("solver_memory", rows, **settings)


def compare_tolerances(problem, rtols, share, n_jobs, effort):
    """Return throughput and error of each solver at each tolerance."""
    contenders = {}
    for name, how in OURS.items():
        contenders[f"ours: {name}"] = problem, partial(simulate, problem, n_jobs, **how)
    for name, (solve, n_samples, chunk) in PEERS.items():
        few = problem.head(max(2, int(share * n_samples)))
        contenders[name] = few, partial(spread_out, solve, few, n_jobs, chunk)

    rows = []
    for _, run in contenders.values():  # compiles, starts workers and warms up
        run(rtols[0])
    for rtol in rtols:
        runs = {name: partial(run, rtol) for name, (_, run) in contenders.items()}
        answers, seconds = interleave(runs, **effort)
        for name, y in answers.items():
            judged = problem.head(min(100, len(y)))
            row = {
                "solver": name,
                "rtol": rtol,
                "n_samples": len(y),
                "error": short(judged.error(y[: len(judged)])),
                "per_second": short(len(y) / seconds[name]),
                "ms_per_trajectory": short(1e3 * seconds[name] / len(y)),
            }
            rows.append(row)
            print(row, flush=True)
    return rows


def simulate(problem, n_jobs, rtol, **how):
    """Simulate with ODESimulator."""
    simulator = ODESimulator(
        problem.system,
        rtol=rtol,
        atol=problem.atol,
        n_jobs=n_jobs,
        device="cpu",
        **how,
    )
    return simulator.simulate(problem.params)


def spread_out(solve, problem, n_jobs, chunk, rtol):
    """Simulate with a peer, in chunks over processes."""
    parts = [
        Problem(problem.system, problem.params[start : start + chunk])
        for start in range(0, len(problem), chunk)
    ]
    return np.concatenate(
        Parallel(n_jobs)(delayed(solve)(part, rtol) for part in parts)
    )


def compare_batch_sizes(problem, sizes, rtol, effort):
    """Return trajectories per second on one core for each number of samples."""
    solvers = {
        f"ours: {name}": partial(solve_ours, **how) for name, how in OURS.items()
    }
    solvers["diffrax Kvaerno5"] = solve_diffrax
    rows = [{"solver": name} for name in solvers]
    for size in sizes:
        batch = Problem(problem.system, problem.params[:size])
        for solve in solvers.values():  # compiles, and warms up
            solve(batch, RTOLS[0])
        runs = {name: partial(solve, batch, rtol) for name, solve in solvers.items()}
        _, seconds = interleave(runs, **effort)
        for row in rows:
            row[f"per_second_at_{size}"] = short(size / seconds[row["solver"]])
    return rows


def measure_memory(n_samples, n_jobs):
    """Return the peak memory of a simulation by our default, in a process of its own.

    ``mebibytes_needed`` is the peak less what was in use before, ``mebibytes_of_result``
    the size of the trajectories themselves. Linux only.
    """
    command = [sys.executable, "-c", MEMORY, str(n_samples), str(n_jobs)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    before, after, seconds, result = json.loads(done.stdout)
    return {
        "n_samples": n_samples,
        "seconds": short(seconds),
        "mebibytes_peak": round(after),
        "mebibytes_needed": round(after - before),
        "mebibytes_of_result": round(result),
    }


if __name__ == "__main__":
    main()
