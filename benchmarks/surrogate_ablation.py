"""What does each piece of the surrogate do? The paper's Table 2, and other operators.

All are trained by one loop on the same pairs, for the same epochs, with fresh noise of
1 % on the three readings of each sample, at three fixed times or at random ones; half of
the batches hold params and readings, half params alone. Errors are of standardized
trajectories on held-out pairs, given the params and three readings ("own" times as in
training, or random ones), and given the params alone; mean and standard deviation over
seeds of weights and batches. The paper says neither what its error was given nor how
many epochs its table had (1,000 elsewhere). Cells are kept on disk: a killed run goes on
where it was.

    python benchmarks/surrogate_ablation.py --n-train 4000 --epochs 8
"""

import argparse
import time
import warnings
from itertools import product
from pathlib import Path

import numpy as np
import torch
from _report import write_report
from joblib import Memory

from sklearn_inverse import Design, ODESurrogate, Operator, Training
from sklearn_inverse.datasets import add_noise, make_inverse_problem, mask_observations
from sklearn_inverse.exceptions import MisfitWarning
from sklearn_inverse.problems import grn, pollu

SYSTEMS = {"pollu": pollu, "grn": grn}
FIXED = [33, 66, 99]  # of 100 times
N_TEST = 500
CFNO, PLAIN = {}, {"attention": False}
OTHERS = {name: {"module": name} for name in ("fno", "deeponet", "mgno")}

# Options of the operator, whether times are fixed, components of a direct part; and the
# MSE and MAE that the paper prints, of POLLU and of GRN.
ROWS = {
    "FNO": (OTHERS["fno"], True, 0, "0.1561 0.0894 0.0597 0.0742"),
    "C-FNO, no attention": (PLAIN, True, 0, "0.0799 0.0689 0.0428 0.0662"),
    "C-FNO": (CFNO, True, 0, "0.0715 0.0556 0.0398 0.0610"),
    "C-FNO, no attention, random": (PLAIN, False, 0, "0.0694 0.0561 0.0401 0.0607"),
    "C-FNO, random": (CFNO, False, 0, "0.0559 0.0207 0.0322 0.0568"),
    "FNO, random": (OTHERS["fno"], False, 0, ""),
    "DeepONet, random": (OTHERS["deeponet"], False, 0, ""),
    "C-FNO and direct part, random": (CFNO, False, 64, ""),
    "MgNO, random": (OTHERS["mgno"], False, 0, ""),
}
USES = ("own", "random", "params")
memory = Memory(Path(__file__).parent / ".cache", verbose=0)


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problem", nargs="+", default=list(SYSTEMS), choices=SYSTEMS)
    parser.add_argument("--n-train", type=int, default=4_000)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    options = {
        n: getattr(arguments, n) for n in ("n_train", "epochs", "width", "device")
    }
    cells = {}
    printed = [name for name in ROWS if ROWS[name][-1]]
    for names in (printed, [name for name in ROWS if name not in printed]):
        for seed, name, problem in product(
            range(arguments.seeds), names, arguments.problem
        ):
            cell = measure(problem, name, seed, **options)
            cells.setdefault((problem, name), []).append(cell)
            table = [summary(*key, found) for key, found in cells.items()]
            write_report("surrogate_ablation", table, **vars(arguments))


@memory.cache
def pairs(problem, n_train):
    """Return standardizing spreads, training pairs and test pairs of a problem."""
    system = SYSTEMS[problem]()
    train = make_inverse_problem(system, n_train, sampling="lhs", random_state=0)
    test = make_inverse_problem(system, N_TEST, sampling="random", random_state=1)
    return train.trajectories.std(axis=(0, 1)), train, test


@memory.cache
def measure(problem, name, seed, n_train, epochs, width, device):
    """Train one row once; return its errors by use, and the seconds of training."""
    spread, train, test = pairs(problem, n_train)
    switches, is_fixed, n_basis, _ = ROWS[name]
    surrogate = ODESurrogate(
        SYSTEMS[problem]().with_noise(0.01 * spread),
        design=Design(n_observed=3, time_index=FIXED if is_fixed else None),
        network=Operator(
            width=width, observation_dropout=0.5, params_dropout=0.0, **switches
        ),
        n_basis=n_basis,
        training=Training(max_epochs=epochs, batch_size=32),
        device=device,
        random_state=seed,
    )
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MisfitWarning)  # of its error: measured below
        surrogate.fit(train.trajectories, train.params)
    found = {"seconds": time.perf_counter() - start}
    noisy = add_noise(test.trajectories, 0.01 * spread, random_state=3)
    random = mask_observations(noisy, n_observed=3, exclude_first=True, random_state=2)
    fixed = np.full_like(noisy, np.nan)
    fixed[:, FIXED] = noisy[:, FIXED]
    readings = {"own": fixed if is_fixed else random, "random": random, "params": None}
    for use in USES:
        simulated = surrogate.simulate(test.params, readings[use])
        error = (simulated - test.trajectories) / spread
        found[use] = np.mean(error**2), np.mean(np.abs(error))
    return found


def summary(problem, name, cells):
    """Return a row of the table."""
    row = {"problem": problem, "operator": name, "seeds": len(cells)}
    for use in USES:
        for i, what in enumerate(("mse", "mae")):
            values = [cell[use][i] for cell in cells]
            row[f"{use} {what}"] = f"{np.mean(values):.4f} ± {np.std(values):.4f}"
    printed = ROWS[name][-1].split() or 4 * [""]
    at = 2 * list(SYSTEMS).index(problem)
    row["paper mse"], row["paper mae"] = printed[at : at + 2]
    row["training_s"] = round(min(cell["seconds"] for cell in cells), 1)
    return row


if __name__ == "__main__":
    main()
