"""How close are Laplace posteriors to those that long Monte Carlo runs have found?

C2ST, the accuracy at which a classifier tells draws of two kinds apart (.5: not at all,
1: always), computed as sbibm does: as many draws of each, z-scored by the reference, a
network with two hidden layers of ten times the number of params, five folds. The models
are stated as published, their true priors included: sbibm's Lotka-Volterra (log-normal
noise) and SIR (binomial counts), three observations each, and Stan's of lynx and hare
with both noise levels unknown. "solves" counts all runs of the exact solver, those with
sensitivities too. Compilation is not counted.

    python benchmarks/known_posteriors.py --sbibm sbibm/tasks --lynx-hare draws.csv

The first is the folder of sbibm's tasks, the second a table with one column per param.
"""

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from _report import short, write_report
from sklearn.model_selection import KFold, cross_val_score
from sklearn.neural_network import MLPClassifier

from sklearn_inverse import GradientInverter, ReactionSystem
from sklearn_inverse.datasets import load_lynx_hare
from sklearn_inverse.probability import Binomial, LogNormal, Normal

PREDATION = {
    "prey -> 2 prey": "alpha",
    "prey + predator -> predator": "beta",
    "predator ->": "gamma",
    "prey + predator -> prey + 2 predator": "delta",
}
OBSERVATIONS = (1, 2, 3)  # of sbibm's ten


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sbibm", type=Path, help="folder of sbibm's tasks")
    parser.add_argument("--lynx-hare", type=Path, help="CSV of reference draws")
    parser.add_argument("--n-draws", type=int, default=2_000, help="sbibm's are 10,000")
    arguments = parser.parse_args()
    if arguments.sbibm is None and arguments.lynx_hare is None:
        parser.error("give --sbibm, --lynx-hare, or both")
    torch.set_num_threads(1)
    rows = []
    for n_starts in (1, "adaptive"):
        for name, some in cases(arguments.sbibm, arguments.lynx_hare):
            found = [row(name, n_starts, arguments.n_draws, *case) for case in some]
            rows += found
            if len(found) > 1:
                rows.append(mean_row(found))
    write_report("known_posteriors", rows, n_draws=arguments.n_draws, threads=1)


def cases(sbibm, lynx_hare):
    """Yield names of models, and for each (number, system, readings, reference draws)."""
    for task, system in (("lotka_volterra", sbibm_predation()), ("sir", sbibm_sir())):
        if sbibm is None:
            continue
        folders = [
            (number, sbibm / task / "files" / f"num_observation_{number}")
            for number in OBSERVATIONS
        ]
        yield (
            task,
            [
                (
                    number,
                    system,
                    read(folder / "observation.csv")[0].reshape(-1, 10).T[None],
                    read(folder / "reference_posterior_samples.csv.bz2"),
                )
                for number, folder in folders
            ],
        )
    if lynx_hare is not None:
        readings = load_lynx_hare().observations
        yield "lynx_hare", [("", lynx_and_hare(), readings, read(lynx_hare))]


def read(path):
    """Read a table of numbers under one line of names."""
    return np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2)


def sbibm_predation():
    """Predators and prey of which both were counted ten times, to 10 %."""
    return ReactionSystem(
        PREDATION,
        initial={"prey": 30, "predator": 1},
        params={
            "alpha": LogNormal(np.exp(-0.125), 0.5),
            "beta": LogNormal(np.exp(-3), 0.5),
            "gamma": LogNormal(np.exp(-0.125), 0.5),
            "delta": LogNormal(np.exp(-3), 0.5),
        },
        times=2.1 * np.arange(10),
        noise=LogNormal(0.1),
    )


def sbibm_sir():
    """Tell of an epidemic among a million, of whom a thousand are tested ten times."""
    return ReactionSystem(
        {"S + I -> 2 I": "beta/1000000", "I -> R": "gamma"},
        initial={"S": 1e6 - 1, "I": 1},
        params={"beta": LogNormal(0.4, 0.5), "gamma": LogNormal(0.125, 0.2)},
        times=17.0 * np.arange(10),
        observe={"infected": lambda t, y, p: y.I / 1000},
        noise=Binomial(1000),
    )


def lynx_and_hare():
    """Pelts of twenty years, with Stan's priors: eight unknowns."""
    rate, contact = (Normal(m, s).truncate(low=0) for m, s in ((1, 0.5), (0.05, 0.05)))
    noise = LogNormal(np.exp(-1), 1)
    return ReactionSystem(
        PREDATION,
        initial={"prey": "hare0", "predator": "lynx0"},
        params={
            **{"alpha": rate, "beta": contact, "gamma": rate, "delta": contact},
            **{"hare0": LogNormal(10, 1), "lynx0": LogNormal(10, 1)},
            **{"sigma_hare": noise, "sigma_lynx": noise},
        },
        times=np.arange(21.0),
        noise={"prey": LogNormal("sigma_hare"), "predator": LogNormal("sigma_lynx")},
    )


def row(name, n_starts, n_draws, number, system, readings, reference):
    """Invert one set of readings, and compare its draws with the reference's."""
    inverter = GradientInverter(system, n_starts=n_starts, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the table tells what is wrong
        inverter.fit(readings)  # compiles
        start = time.perf_counter()
        posterior = inverter.fit(readings).posterior(readings)
        seconds = time.perf_counter() - start
    mean, std = reference.mean(axis=0), reference.std(axis=0)
    ratio = posterior.std[0] / std
    result = {
        "model": name,
        "observation": number,
        "n_starts": n_starts,
        "C2ST": round(c2st(reference, posterior.sample(n_draws)[0]), 3),
        "worst z of means": short(np.abs((posterior.mean[0] - mean) / std).max()),
        "sd ratios": f"{ratio.min():.2f} to {ratio.max():.2f}",
        "solves": int(posterior.n_forward[0] + posterior.n_linearized[0]),
        "optima": int(posterior.n_optima[0]),
        "seconds": short(seconds),
    }
    print(result, flush=True)
    return result


def mean_row(rows):
    """Average the rows of one model."""
    means = {k: np.mean([r[k] for r in rows]) for k in ("C2ST", "solves", "seconds")}
    return rows[0] | {
        "observation": "mean",
        "C2ST": round(means["C2ST"], 3),
        "worst z of means": "",
        "sd ratios": "",
        "solves": short(means["solves"]),
        "optima": "",
        "seconds": short(means["seconds"]),
    }


def c2st(reference, draws, seed=1):
    """Return the accuracy of a classifier that tells draws from the reference's."""
    rng = np.random.default_rng(seed)
    reference = rng.permutation(reference)[: len(draws)]
    mean, std = reference.mean(axis=0), reference.std(axis=0, ddof=1)
    both = (np.concatenate([reference, draws[: len(reference)]]) - mean) / std
    kind = np.repeat([0.0, 1.0], len(reference))
    classifier = MLPClassifier(
        [10 * both.shape[1]] * 2, max_iter=10_000, random_state=seed
    )
    folds = KFold(5, shuffle=True, random_state=seed)
    scores = cross_val_score(classifier, both, kind, cv=folds, scoring="accuracy")
    return float(scores.mean())


if __name__ == "__main__":
    main()
