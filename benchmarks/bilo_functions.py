"""BiLO where it is hard: starts that run into shocks, and two kinds of material.

The start of Burgers' equation, a wave or a box, from 49 readings at t = 1 with noise of
.05, of Godunov's scheme on 1001 x 1001 points; "error" is the mean absolute one of the
start, "front" how far off the shock is at the end, in cells. All searches begin at sin πx,
but the exact ones; "9 values" knows the start at 9 places, not 49; "Adam" moves params as
the paper does. Darcy's flow with 121 values of g, 841 readings with noise of 1e-4, 1 % of
the largest: "error" is the relative L2 one of A, "right" the share of nodes whose kind is
found. "u" is the network's distance from the exact solution at the params found; "told" is
whether a warning says that something is wrong. CPU seconds, one thread.

    python benchmarks/bilo_functions.py
"""

import time
import warnings
from pathlib import Path

import numpy as np
import torch
from _report import RESULTS, short, write_report
from joblib import Memory
from unknown_functions import begun, fronts, stepped, two_kinds

from sklearn_inverse import BiLOInverter, GradientInverter
from sklearn_inverse.collocation import Bilevel
from sklearn_inverse.problems import burgers, darcy

memory = Memory(Path(__file__).parent / ".cache", verbose=0)
X = np.linspace(0, 1, 51)[1:-1]
SLOWLY = Bilevel(lr_params=0.01, lower_tol=0.05, max_iter=4000)
METHODS = {  # functions, values of Burgers' start, how to descend
    "exact": (None, 51, None),
    "BiLO basis": ("basis", 51, Bilevel(max_iter=1500)),
    "BiLO basis, 9 values": ("basis", 11, SLOWLY),
    "BiLO local": ("local", 51, Bilevel(max_iter=1500)),
    "BiLO local, Adam": (
        "local",
        51,
        Bilevel(params_optimizer="adam", lr_params=1e-3, lower_tol=0.1, max_iter=1500),
    ),
}


@memory.cache
def found(name, method):
    """Return what one method finds, and its errors."""
    torch.set_num_threads(1)
    functions, n_values, descent = METHODS[method]
    shock = name.startswith("burgers")
    if shock:
        system = burgers(scale=2.0, noise=0.05, n_values=n_values)
        at, truth = np.linspace(0, 1, n_values)[1:-1], begun(name, X)
        noise = 0.05 * np.random.default_rng(7).standard_normal(len(X))
        readings = (np.interp(X, *stepped(name)) + noise)[None]
    else:
        system = darcy(noise=1e-4, n_nodes=31, n_values=11)
        kinds, _, readings = two_kinds(system, 1e-4)
        nodes = np.meshgrid(*system.functions["g"].prior.nodes, indexing="ij")
        truth = kinds(*nodes).ravel()
    if functions is None:
        inverter = GradientInverter(
            system, continuation=shock, n_starts=1, max_solves=0
        )
    else:
        inverter = BiLOInverter(
            system,
            start=np.sin(np.pi * at) if shock else None,
            functions=functions,
            pretrain_iter=800,
            descent=descent,
            random_state=0,
        )
    begin = time.process_time()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        answer = inverter.fit(readings).invert(readings)
    params = answer.params[0]
    errors = {"CPU s": time.process_time() - begin}
    if shock:
        end = system.solve(params)[0, 0]
        params = np.interp(X, [0, *at, 1], [0, *params, 0])
        errors["error"] = np.mean(np.abs(params - truth))
        off = fronts(system.nodes, end) - fronts(*stepped(name))
        errors["front"] = abs(off) * (len(system.nodes) - 1)
    else:
        a = 3 + 9 / (1 + np.exp(-params))
        errors["error"] = np.linalg.norm(a - truth) / np.linalg.norm(truth)
        errors["right"] = np.mean((a > 7.5) == (truth > 7.5))
    if functions:
        errors["u"] = answer.network_error[0]
    errors = {key: short(value) for key, value in errors.items()}
    kinds_told = sorted({w.category.__name__ for w in told})
    print(name, method, errors, kinds_told, flush=True)
    return params, errors | {"told": " ".join(kinds_told) or "no"}


def main():
    """Run the benchmark."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    rows, drawn = [], dict(zip(("burgers, wave", "burgers, box"), axes))
    for name in (*drawn, "darcy"):
        for method, (_, n_values, _) in METHODS.items():
            if name == "darcy" and n_values == 11:
                continue  # has few values anyway
            params, errors = found(name, method)
            rows.append({"problem": name, "method": method} | errors)
            if name in drawn:
                drawn[name].plot(X, params, label=method)
    for name, ax in drawn.items():
        ax.plot(X, begun(name, X), "k--", lw=1, label="true")
        ax.set(title=f"the start of Burgers' equation, {name[9:]}", xlabel="x")
    axes[0].legend()
    fig.savefig(RESULTS / "bilo_burgers.png", dpi=110)
    write_report("bilo_functions", rows, threads=1)


if __name__ == "__main__":
    main()
