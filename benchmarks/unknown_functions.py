"""How well are unknowns of a PDE found from noisy readings of its solution?

Problems of the BiLO paper on exact solvers. Whole functions: the diffusivity of Poisson's
equation, a hat (49 readings, σ² = 1e-4); the start of the heat equation, a hat, read at
the end (σ² = 1e-3); the start of Burgers' equation, a wave or a box, read at the end (σ =
.05) on a grid five times as fine as that of the inversion. The scale of their prior is
found by evidence; with kinks their bends are Cauchy, and drawn. "error" is the relative L2
error of D, the mean squared error of the heat equation's f, the mean absolute error of
Burgers'; "covered" the share of nodes inside 90 % bands; "paper" what BiLO reaches, at its
best weight. Of Burgers' equation "front" is how far off its shock is at the end, in cells.

Darcy's flow: where the plane is of which of two kinds (841 readings with noise of .1 % of
the largest, made on 121 × 121 nodes), "error" of A, relative L2, with "of u" that of the
solution, "right" the share of nodes whose kind is found, and "wrong, sure" that of those
whose band leaves the right one out. The paper prints 1.3 % and 98 %. "covered" is of five
permeabilities drawn from the prior, of 11 × 11 values.

Two params: birth and death of particles seen in 100 snapshots, "error" of both relative;
and Fisher-KPP on 64 × 64 nodes without noise, "error" the larger in standard deviations.

CPU seconds per data set, one thread. Rows that are there are not run again.

    python benchmarks/unknown_functions.py
"""

import argparse
import json
import time
import warnings

import numpy as np
import torch
from _report import RESULTS, short, write_report

from sklearn_inverse import GradientInverter, ODESimulator, PDESystem
from sklearn_inverse.problems import (
    burgers,
    darcy,
    fisher_kpp_2d,
    heat,
    point_source,
    poisson,
)
from sklearn_inverse.systems import FiniteDifferences

X, FINE = np.linspace(0, 1, 51)[1:-1], np.linspace(0, 1, 201)[1:-1]
PAPER = {"poisson": 2.0e-2, "heat": 6.1e-3}
QUICK = {"n_starts": 1, "max_solves": 0}


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n-noises", type=int, default=10)
    parser.add_argument("--fresh", action="store_true", help="run all rows again")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # no more than "not checked" where it is
    done = {} if arguments.fresh else kept(arguments.n_noises)
    cells = [
        *((p, order) for p in ("poisson", "heat") for order in (1, 2, "2, kinks")),
        ("point_source", ""),
        ("burgers, wave", 1),
        ("burgers, box", 1),
        ("fisher_kpp_2d", ""),
        ("darcy", 1),
    ]
    for problem, order in cells:
        if (problem, order) in done:
            continue
        runs = {"point_source": particles, "fisher_kpp_2d": plane, "darcy": flow}
        run = runs.get(problem, function)
        row = {"problem": problem, "order": order}
        row |= run(problem, order, arguments.n_noises)
        done[problem, order] = row
        print(row, flush=True)
        rows = [done[cell] for cell in cells if cell in done]
        write_report("unknown_functions", rows, threads=1, n_noises=arguments.n_noises)


def kept(n_noises):
    """Return the rows of an earlier run with the same settings."""
    path = RESULTS / "unknown_functions.json"
    if not path.exists():
        return {}
    report = json.loads(path.read_text())
    same = report["settings"].get("n_noises") == n_noises
    rows = report["rows"] if same else []
    return {(r["problem"], r["order"]): r for r in rows if "CPU s" in r}


def function(problem, order, n_noises):
    """Find a whole function from readings with several noises."""
    if problem.startswith("burgers"):
        n_noises = max(n_noises // 5, 1)
    truth, readings, make = measured(problem, order, n_noises)
    system = make()
    inverter = GradientInverter(system, **QUICK).fit(readings)
    start = time.process_time()
    found = inverter.posterior(readings)
    seconds = time.process_time() - start
    low, high = found.interval(0.9)
    error = [error_of(problem, mean, truth) for mean in found.mean]
    row = {
        "scales": " ".join(f"{scale:g}" for scale in np.unique(found.scales)),
        "error": short(np.mean(error)),
        "worst": short(np.max(error)),
        "paper": PAPER.get(problem, ""),
        "covered": f"{np.mean((low < truth) & (truth < high)):.1%}",
        "CPU s": short(seconds / len(readings)),
        "n": len(readings),
    }
    if problem.startswith("burgers"):
        ends = system.solve(found.mean)[:, 0]
        own = [fronts(system.nodes, u) for u in ends]
        fine, u = stepped(problem)
        off = np.abs(np.array(own) - fronts(fine, u)) * (len(system.nodes) - 1)
        row["front"] = short(off.max())
    return row


def measured(problem, order, n_noises):
    """Return the truth at the nodes, noisy readings, and the system's maker."""
    rng = np.random.default_rng(7)
    if problem.startswith("burgers"):
        truth, noise = begun(problem, X), 0.05
        u = np.interp(X, *stepped(problem))
    else:
        truth, u, noise = read(problem, hat)
    make = {"poisson": poisson, "heat": heat}.get(problem, burgers)
    readings = u + noise * rng.standard_normal((n_noises, len(X)))
    kind = {"order": 2, "kinks": True} if order == "2, kinks" else {"order": order}
    return truth, readings, lambda: make(**kind, noise=noise)


def hat(x):
    """Return the function with the bend in the middle."""
    return 1 - 2 * np.abs(x - 0.5)


def read(problem, h):
    """Return the truth of a shape h at the nodes, its readings, and their noise."""
    if problem == "poisson":
        fine = poisson(n_nodes=401)
        u = np.interp(X, fine.nodes, fine.solve(1 + h(FINE) / 2)[0])
        return 1 + h(X) / 2, u, 0.01
    noise = np.sqrt(1e-3)
    fine = heat(n_nodes=401, noise=noise).semidiscretize()
    return h(X), ODESimulator(fine).simulate(h(FINE)[None])[0, 0], noise


def error_of(problem, found, truth):
    """Return the error that the paper prints."""
    if problem == "poisson":
        return np.linalg.norm(found - truth) / np.linalg.norm(truth)
    if problem == "heat":
        return np.mean((found - truth) ** 2)
    return np.mean(np.abs(found - truth))


def begun(problem, x):
    """Return the start of Burgers' equation."""
    if problem.endswith("wave"):
        return np.sin(2 * np.pi * x)
    return 1.0 * (np.abs(x - 0.5) <= 0.25)


def stepped(problem):
    """Solve Burgers' equation by Godunov's scheme on 1001 × 1001 points, as the paper."""
    x = np.linspace(0, 1, 1001)
    u = begun(problem, x)
    u[[0, -1]] = 0
    for _ in range(1000):
        flow = 0.1 * np.maximum(np.maximum(u[:-1], 0), -np.minimum(u[1:], 0)) ** 2
        u[1:-1] -= np.diff(flow)  # steps of .001 over cells of .001
    return x, u


def fronts(x, u):
    """Return where the solution falls below half of its largest value, behind it."""
    after = np.argmax(u) + np.argmax(u[np.argmax(u) :] < u.max() / 2)
    return np.interp(u.max() / 2, [u[after], u[after - 1]], [x[after], x[after - 1]])


def particles(problem, order, n_noises):
    """Find birth and death of particles from fifty sets of snapshots."""
    truth, rng = np.array([500.0, 10.0]), np.random.default_rng(3)
    s = np.sqrt(truth[1])

    def density(x):
        rise = np.sinh(s * np.minimum(x, 0.5)) * np.sinh(s * (1 - np.maximum(x, 0.5)))
        return truth[0] / s * rise / np.sinh(s)

    seen = []
    for _ in range(5 * n_noises):
        x = rng.random(rng.poisson(100 * density(0.5)))
        seen.append(x[rng.random(len(x)) < density(x) / density(0.5)])
    system = point_source(n_nodes=101)
    counts = system.observe.count(seen)
    inverter = GradientInverter(system, **QUICK).fit(counts)
    start = time.process_time()
    found = inverter.posterior(counts)
    seconds = time.process_time() - start
    low, high = found.interval(0.9)
    error = np.abs(found.mean / truth - 1).mean(axis=1)
    return {
        "error": short(error.mean()),
        "worst": short(error.max()),
        "covered": f"{np.mean((low < truth) & (truth < high)):.1%}",
        "CPU s": short(seconds / len(counts)),
        "n": len(counts),
    }


def plane(problem, order, n_noises):
    """Find two params in the plane, compiling included."""
    start = time.process_time()
    system, truth = fisher_kpp_2d(), np.array([[2.0, 2.0]])
    read = ODESimulator(system.semidiscretize()).simulate(truth).reshape(1, -1)
    found = GradientInverter(system, **QUICK).fit(read).posterior(read)
    seconds = time.process_time() - start
    again = time.process_time()
    GradientInverter(system, **QUICK).fit(read).posterior(read)
    return {
        "error": short(np.max(np.abs(found.mean - truth) / found.std)),
        "CPU s": short(time.process_time() - again),
        "CPU s, compiling too": short(seconds),
        "n": 1,
    }


def two_kinds(system, noise):
    """Return the permeability at a point, and readings without noise and with it."""
    rng = np.random.default_rng(1)
    waves, phases = 5 * rng.standard_normal((200, 2)), rng.uniform(0, 2 * np.pi, 200)

    def kinds(x, y):
        random = sum(np.cos(a * x + b * y + c) for (a, b), c in zip(waves, phases))
        return np.where(random > 0, 12.0, 3.0)

    def residual(x, u, p):
        a = kinds(x.x, x.y)
        return (a * u.x).x + (a * u.y).y + p.source

    true = PDESystem(
        system.domain,
        residual,
        constraint=system.constraint,
        params={"source": (0.5, 1.5)},
        observe=system.observe,
        noise=noise,
        grid=FiniteDifferences(121),
    )
    u = true.report(torch.ones(1, 1).double())[0].numpy()
    return kinds, u, u + noise * np.random.default_rng(0).standard_normal(u.shape)


def flow(problem, order, n_noises):
    """Find two kinds of material in the plane."""
    noise = 1e-5
    system = darcy(order=order, noise=noise)
    kinds, u, readings = two_kinds(system, noise)
    inverter = GradientInverter(system, continuation=False, **QUICK).fit(readings)
    start = time.process_time()
    found = inverter.posterior(readings)
    seconds = time.process_time() - start
    nodes = np.meshgrid(*system.functions["g"].prior.nodes, indexing="ij")
    truth = kinds(*nodes).ravel()
    a, low, high = (
        3 + 9 / (1 + np.exp(-g[0])) for g in (found.params, *found.interval(0.9))
    )
    again = system.report(torch.as_tensor(found.params))[0].numpy()
    sure = ((low > 7.5) & (truth < 7.5)) | ((high < 7.5) & (truth > 7.5))
    small = darcy(order=order, noise=noise, n_nodes=31, n_values=11)
    g = small.prior.draw(5, np.random.RandomState(0))
    few = small.report(torch.as_tensor(g))[:, 0].numpy()
    few = few + noise * np.random.default_rng(1).standard_normal(few.shape)
    ends = GradientInverter(small, **QUICK).fit(few).posterior(few).interval(0.9)
    return {
        "error": short(np.linalg.norm(a - truth) / np.linalg.norm(truth)),
        "of u": short(np.linalg.norm(again - u) / np.linalg.norm(u)),
        "right": f"{np.mean((a > 7.5) == (truth > 7.5)):.1%}",
        "wrong, sure": f"{np.mean(sure):.1%}",
        "covered": f"{np.mean((ends[0] < g) & (g < ends[1])):.1%}",
        "CPU s": short(seconds),
        "n": 1,
    }


if __name__ == "__main__":
    main()
