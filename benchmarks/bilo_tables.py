"""BiLO on the problems of its paper: printed rows beside ours, and beside exact ones.

Fisher-KPP from (1, 1) to (2, 2) without noise, Poisson's equation with the hat for a
diffusivity and readings of variance 1e-4, the heat equation with the hat for a start,
without noise and with variance 1e-3. "exact" are Gauss-Newton steps on a solver, with the
prior of the problem; BiLO and PINN have the same prior. "exact, rough" trusts a start of
which only the slope is bounded (order 1), and readings without noise to 1e-5. Errors: of
a scalar relative, of the diffusivity relative in the maximum and in L2 norm, of the start
in the maximum and in mean square, as the paper's; "u" is the network's root-mean-square
distance from the exact solution at the params found, relative to the solution; "exact's"
how far functions are from those that the exact way finds in the same readings, relative L2.
Seconds are those of one core's time, and not of the clock. Rows are kept as they come: what
was interrupted goes on.

    python benchmarks/bilo_tables.py --seeds 5 --problems fisher poisson heat
"""

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from _report import short, write_report
from joblib import Memory
from sklearn.frozen import FrozenEstimator

from sklearn_inverse import (
    BiLOInverter,
    GradientInverter,
    ODESimulator,
    ODESurrogate,
    Operator,
    Training,
)
from sklearn_inverse.baselines import PINNInverter
from sklearn_inverse.collocation import Bilevel
from sklearn_inverse.datasets import make_inverse_problem
from sklearn_inverse.problems import fisher_kpp, heat, poisson

memory = Memory(Path(__file__).parent / ".cache", verbose=0)

X = np.linspace(0, 1, 51)[1:-1]
PRINTED = [
    ("poisson", "BiLO, w 1e-3, printed", {"max": 5.86e-2, "L2": 2.01e-2, "u": 3.94e-3}),
    ("poisson", "adjoint, w 1e-3, printed", {"max": 7.89e-2, "L2": 3.12e-2}),
    (
        "poisson",
        "PINN 1e-4/1e1, printed",
        {"max": 7.13e-2, "L2": 2.64e-2, "u": 4.23e-3},
    ),
    ("heat, exact", "BiLO, printed", {"max": 5.43e-2, "mean square": 1.01e-4}),
    ("heat, exact", "PINN 1e1, printed", {"max": 8.69e-2, "mean square": 4.31e-4}),
    ("heat, noisy", "BiLO, printed", {"max": 2.41e-1, "mean square": 6.11e-3}),
    ("heat, noisy", "PINN 1e3, printed", {"max": 2.42e-1, "mean square": 6.56e-3}),
]
METHODS = {
    "exact": None,
    "exact, rough": None,
    "BiLO basis": {"functions": "basis"},
    "BiLO local": {"functions": "local"},
    "PINN 1": {"data_weight": 1.0},
    "PINN 100": {"data_weight": 100.0},
    "DeepONet": None,
}


def problem(name):
    """Return system, truth, start and standard deviation of the noise."""
    if name == "fisher":
        return fisher_kpp(noise=1e-3), np.array([2.0, 2.0]), [1.0, 1.0], 0.0
    if name == "poisson":
        return poisson(scale=2.0), 1.5 - np.abs(X - 0.5), None, 0.01
    std = 0.0 if name == "heat, exact" else 1e-3**0.5
    return heat(scale=4.0, noise=std or 1e-3), 1 - 2 * np.abs(X - 0.5), None, std


def errors_of(name, found, truth):
    """Return the errors that the paper prints."""
    off = np.abs(found - truth)
    if name == "fisher":
        return {"D": off[0] / 2, "rho": off[1] / 2}
    if name == "poisson":
        norm = np.linalg.norm(off) / np.linalg.norm(truth)
        return {"max": off.max() / truth.max(), "L2": norm}
    return {"max": off.max(), "mean square": np.mean(off**2)}


def rough(std):
    """Return the heat equation with a prior that lets its start have kinks."""
    return heat(order=1, scale=4.0, noise=std or 1e-5)


@memory.cache
def row(name, method, seed):
    """Return the errors of one method for one draw of the noise."""
    torch.set_num_threads(1)
    system, truth, start, std = problem(name)
    if system.is_steady:
        clean = np.interp(system.points[:, 0], system.nodes, system.solve(truth)[0])
    else:
        lines = ODESimulator(system.semidiscretize(), rtol=1e-9)
        clean = lines.simulate(truth[None]).ravel()
    rng = np.random.default_rng(seed)
    readings = (clean + std * rng.standard_normal(clean.size))[None]
    options = METHODS[method]
    if method == "exact, rough":
        system = rough(std)
    exact = GradientInverter(system, n_starts=1, max_solves=0)
    if options is None:
        inverter = exact
    elif method.startswith("PINN"):
        inverter = PINNInverter(
            system, start=start, optimizer="soap", lr=2e-3, random_state=seed, **options
        )
    else:
        inverter = BiLOInverter(
            system,
            start=start,
            pretrain_iter=800,
            descent=Bilevel(max_iter=2000 if name == "fisher" else 1500),
            random_state=seed,
            **options,
        )
    begin = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        answer = inverter.fit(readings).invert(readings)
    found = answer.params[0] if options else answer.mean[0]
    error = {"s": time.process_time() - begin} | errors_of(name, found, truth)
    if options:
        error["u"] = answer.network_error[0]
        if name != "fisher":
            best = exact.fit(readings).invert(readings).mean[0]
            error["exact's"] = np.linalg.norm(found - best) / np.linalg.norm(best)
    print(name, method, seed, {k: short(v) for k, v in error.items()}, flush=True)
    return error


@memory.cache
def trained(name):
    """Return a DeepONet of a problem, and the seconds of its training, pairs included."""
    torch.set_num_threads(1)
    system, begin = problem(name)[0], time.process_time()
    pairs = make_inverse_problem(system, 5000, random_state=0)
    surrogate = ODESurrogate(
        system,
        network=Operator(
            module="deeponet",
            embedding=128,
            observation_dropout=1.0,
            params_dropout=0.0,
        ),
        n_basis=0,
        training=Training(max_epochs=100),
        random_state=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        surrogate.fit(pairs.observations, pairs.params)
    return surrogate, time.process_time() - begin


@memory.cache
def deeponet_row(name, seed):
    """Return what ``row`` does, of a DeepONet."""
    _, truth, _, std = problem(name)
    surrogate, seconds = trained(name)
    exact = surrogate.exact_
    clean = exact.simulate(truth[None]).ravel()
    rng = np.random.default_rng(seed)
    readings = (clean + std * rng.standard_normal(clean.size))[None]
    inverter = GradientInverter(FrozenEstimator(surrogate), n_starts=1, max_solves=0)
    begin = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = inverter.fit(readings).posterior(readings).mean[0]
    error = {"s": time.process_time() - begin} | errors_of(name, found, truth)
    u = exact.simulate(found[None])
    error["u"] = np.linalg.norm(surrogate.simulate(found[None]) - u) / np.linalg.norm(u)
    error["training s"] = seconds
    print(name, "DeepONet", seed, {k: short(v) for k, v in error.items()}, flush=True)
    return error


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--problems", nargs="+", default=["fisher", "poisson", "heat"])
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    asked = parser.parse_args()
    names = [
        name
        for known in asked.problems
        for name in (["heat, exact", "heat, noisy"] if known == "heat" else [known])
    ]
    rows = []
    for name in names:
        for where, method, errors in PRINTED:
            if where == name:
                rows.append({"problem": name, "method": method} | errors)
        for method in asked.methods:
            if name == "fisher" and method == "BiLO local":
                continue  # no function is unknown
            if method == "exact, rough" and not name.startswith("heat"):
                continue
            drawn = METHODS[method] or problem(name)[3]  # a network, or noise
            n_seeds = asked.seeds if drawn else 1
            errors = [
                deeponet_row(name, seed)
                if method == "DeepONet"
                else row(name, method, seed)
                for seed in range(n_seeds)
            ]
            means = {k: short(np.mean([e[k] for e in errors])) for k in errors[0]}
            rows.append({"problem": name, "method": method, "seeds": n_seeds} | means)
    write_report("bilo_tables", rows, threads=1, seeds=asked.seeds)


if __name__ == "__main__":
    main()
