"""How close are posteriors to those that brute force or long Monte Carlo runs find?

C2ST, the accuracy at which a classifier tells draws of two kinds apart (.5: not at all,
1: always), computed as sbibm does: as many draws of each, z-scored by the reference, a
network with two hidden layers of ten times the number of params, five folds. The models
are stated as published, their true priors included: sbibm's Lotka-Volterra (log-normal
noise) and SIR (binomial counts), three observations each, and Stan's of lynx and hare
with both noise levels unknown; and shapes that are hard for normal distributions, of
which half a million weighed points of a box tell the truth. Each is asked for with no more
than a check and, where that flags it, with a budget of 100,000 solves; with ``--chains``
of MCMCInverter too. "solves" counts all runs of the exact solver, those with
sensitivities too; "best" is what no classifier can exceed, as the check has it.
Compilation is not counted.

    python benchmarks/known_posteriors.py --sbibm sbibm/tasks --lynx-hare draws.csv

The first is the folder of sbibm's tasks, the second a table with one column per param.
"""

import argparse
import importlib.util
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from _report import short, write_report
from scipy import stats
from sklearn.model_selection import KFold, cross_val_score
from sklearn.neural_network import MLPClassifier

from sklearn_inverse import (
    ForwardFunction,
    GradientInverter,
    MCMCInverter,
    ODESimulator,
    ODESystem,
    ReactionSystem,
)
from sklearn_inverse.datasets import load_lynx_hare
from sklearn_inverse.optim._samplers import agreement
from sklearn_inverse.probability import (
    Binomial,
    LogNormal,
    LogUniform,
    NegativeBinomial,
    Normal,
)

METHODS = {
    "check": lambda model: GradientInverter(model, random_state=0),
    "sample": lambda model: GradientInverter(model, max_solves=100_000, random_state=0),
    "chains": lambda model: MCMCInverter(model, n_starts=2, random_state=0),
    "hamiltonian": lambda model: MCMCInverter(
        model, n_starts=2, moves="hamiltonian", random_state=0
    ),
}
N_WALKERS, MOST_STEPS = 64, 20_000  # of emcee
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
    parser.add_argument("--chains", action="store_true", help="MCMCInverter as well")
    parser.add_argument("--pace", action="store_true", help="costs alone, beside emcee")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for case in cases(arguments.sbibm, arguments.lynx_hare):
        if arguments.pace:
            rows += pace(*case[:3])
            continue
        rows.append(row(*case, "check", arguments.n_draws))
        if rows[-1]["verdict"] == "flagged":  # else it would come to the same
            rows.append(row(*case, "sample", arguments.n_draws))
        if arguments.chains:
            rows.append(row(*case, "chains", arguments.n_draws))
    name = "known_posteriors" + ("_pace" if arguments.pace else "")
    write_report(name, rows, n_draws=arguments.n_draws, threads=1)


def cases(sbibm, lynx_hare):
    """Yield names of cases, systems, readings and reference draws."""
    for name, model, readings in shapes():
        yield name, model, readings, brute_force(model, readings)
    for task, system in (("lotka_volterra", sbibm_predation()), ("sir", sbibm_sir())):
        for number in OBSERVATIONS if sbibm is not None else ():
            folder = sbibm / task / "files" / f"num_observation_{number}"
            readings = read(folder / "observation.csv")[0].reshape(-1, 10).T[None]
            reference = read(folder / "reference_posterior_samples.csv.bz2")
            yield f"{task} {number}", system, readings, reference
    if lynx_hare is not None:
        readings = load_lynx_hare().observations
        yield "lynx_hare", lynx_and_hare(), readings, read(lynx_hare)


def shapes():
    """Yield names, models and readings of posteriors of many shapes."""

    def model(function, noise, **params):
        return ForwardFunction(function, params=params, noise=noise)

    box, normal = (0.0, 1.0), Normal(0, 1)
    t = torch.linspace(0, 6, 7, dtype=torch.float64)
    line = model(lambda k: k[:, :1] + k[:, 1:] * t / 6, 0.1, a=normal, b=normal)
    yield "line", line, np.linspace(0, 1, 7)[None]
    yield "banana", model(bent, 0.4, a=normal, b=normal), np.array([[1.0]])
    flat = model(lambda k: k[:, :1] * k[:, 1:], 0.5, a=box, b=box)
    yield "flat corner", flat, np.array([[1.0]])
    thin = model(lambda k: k.sum(1, keepdim=True), 0.05, a=box, b=box)
    yield "thin in a box", thin, np.array([[1.0]])
    signs = model(squares, 0.3, a=Normal(0.3, 1), b=normal)
    yield "two modes", signs, np.array([[1.0, 1.5]])
    wave = model(
        lambda k: k[:, 2:] * torch.exp(-k[:, 1:2] * t) * torch.cos(k[:, :1] * t),
        0.4,
        **{"frequency": (0.5, 2.0), "damping": (0.0, 0.5), "height": (0.5, 1.5)},
    )
    yield "oscillator", wave, with_noise(wave, [1.1, 0.3, 1.0], 0.4)
    pools = two_pools()
    yield "two pools", pools, with_noise(pools, [0.8, 0.3, 0.5], 0.05)
    cases = [np.nan, 3, 8, 26, 76, 225, 298, 258, 233, 189, 128, 68, 29, 14, 4]
    yield "influenza", influenza(), np.array([cases])


def bent(k):
    """Return what a banana is made of."""
    return k[:, 1:] + k[:, :1] ** 2


def squares(k):
    """Return readings that do not tell the sign of the first param."""
    return torch.cat([k[:, :1] ** 2, k[:, :1] ** 2 + k[:, 1:]], dim=1)


def with_noise(model, params, noise):
    """Simulate readings of some params."""
    model = ODESimulator(model) if isinstance(model, ODESystem) else model
    clean = model.fit(None).simulate([params])
    return clean + noise * np.random.default_rng(1).standard_normal(clean.shape)


def two_pools():
    """Tell of what leaves a pool, and goes to another and back, by five readings."""

    def rhs(t, y, p):
        moved = p.there * y.first - p.back * y.second
        return -moved - p.out * y.first, moved

    rate = LogUniform(0.05, 5)
    return ODESystem(
        rhs,
        states={"first": 1.0, "second": 0.0},
        params={"there": rate, "back": rate, "out": rate},
        times=[0.5, 1.0, 2.0, 4.0, 6.0],
        observe=["first"],
        noise=0.05,
    )


def influenza():
    """Boys in bed at a boarding school in 1978, with Stan's priors."""
    return ReactionSystem(
        {"S + I -> 2 I": "beta/763", "I -> R": "gamma"},
        initial={"S": 762, "I": 1},
        params={
            "beta": Normal(2, 1).truncate(low=0),
            "gamma": Normal(0.4, 0.5).truncate(low=0),
            "inverse_dispersion": stats.expon(scale=1 / 5),
        },
        times=np.arange(15.0),
        observe={"in_bed": lambda t, y, p: y.I},
        noise=NegativeBinomial(lambda p: 1 / p.inverse_dispersion),
    )


def brute_force(model, readings, n_points=2**19, n_kept=10_000):
    """Draw from a posterior by weighing points of ever tighter boxes around it."""
    inverter = GradientInverter(model, max_solves=0, random_state=0).fit(readings)
    readings = inverter._check_readings(readings)
    objective = inverter._objective(readings, None, np.empty((1, 0)))
    log_density = inverter._log_density(objective, np.zeros(1, dtype=int))
    p = inverter.n_params_
    low, high = np.full(p, -6.0), np.full(p, 6.0)
    for n in (*[2**16] * 4, n_points):
        z = low + (high - low) * stats.qmc.Sobol(p, rng=0).random(n)
        value = [
            log_density(part, np.zeros(len(part), int)) for part in np.split(z, 16)
        ]
        value = np.nan_to_num(np.concatenate(value), nan=-np.inf)
        near = z[value > value.max() - 14]
        edge = 0.1 * np.ptp(near, axis=0) + 1e-3 * (high - low)
        low = (near.min(axis=0) - edge).clip(min=-6)
        high = (near.max(axis=0) + edge).clip(max=6)
    weight = np.exp(value - value.max())
    kept = np.random.default_rng(0).choice(n, n_kept, p=weight / weight.sum())
    return inverter.model_.prior_.from_standard(z[kept])


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


def row(name, model, readings, reference, method, n_draws):
    """Invert one set of readings, and compare its draws with the reference's."""
    inverter = METHODS[method](model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the table tells what is wrong
        inverter.fit(readings)  # compiles
        start = time.perf_counter()
        posterior = inverter.posterior(readings)
        seconds = time.perf_counter() - start
    mean, std = reference.mean(axis=0), reference.std(axis=0)
    ratio = posterior.std[0] / std
    limit = 1 - posterior.overlap[0] / 2
    result = {
        "case": name,
        "asked": method,
        "kind": str(posterior.kind[0]),
        "verdict": "confirmed" if posterior.is_confirmed[0] else "flagged",
        "C2ST": round(c2st(reference, posterior.sample(n_draws)[0]), 3),
        "best": round(float(limit), 3) if posterior.kind[0] == "laplace" else "",
        "worst z of means": short(np.abs((posterior.mean[0] - mean) / std).max()),
        "sd ratios": f"{ratio.min():.2f} to {ratio.max():.2f}",
        "solves": int(posterior.n_forward[0] + posterior.n_linearized[0]),
        "seconds": short(seconds),
    }
    print(result, flush=True)
    return result


def pace(name, model, readings):
    """Yield what 1,000 effective draws cost by each sampler."""
    for method in ("sample", "chains", "hamiltonian"):
        inverter = METHODS[method](model)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            inverter.fit(readings)  # compiles
            start = time.process_time()
            posterior = inverter.posterior(readings)
            seconds = time.process_time() - start
        solves = posterior.n_forward[0] + posterior.n_linearized[0]
        if posterior.kind[0] != "laplace":  # which needs no draws
            n_drawn = posterior.n_effective[0].min()
            yield cost(
                name, method, n_drawn, posterior.is_confirmed[0], solves, seconds
            )
    if importlib.util.find_spec("emcee"):
        yield cost(name, "emcee", *by_emcee(model, readings))


def cost(name, method, n_drawn, is_enough, solves, seconds):
    """Return a row of the table of costs."""
    result = {
        "case": name,
        "sampler": method,
        "effective draws": int(n_drawn),
        "enough": "yes" if is_enough else "no",
        "solves per 1,000": int(1000 * solves / n_drawn),
        "seconds per 1,000": short(1000 * seconds / n_drawn),
    }
    print(result, flush=True)
    return result


def by_emcee(model, readings, n_effective=1000):
    """Return effective draws of emcee, whether they are enough, solves and seconds."""
    import emcee

    inverter = GradientInverter(model, max_solves=0, random_state=0).fit(readings)
    arrays = inverter._check_readings(readings), None, np.empty((1, 0))
    objective, prior = inverter._objective(*arrays), inverter.model_.prior_
    density = inverter._log_density(objective, np.zeros(1, dtype=int))

    def log_prob(z):
        return np.nan_to_num(density(z, np.zeros(len(z), dtype=int)), nan=-np.inf)

    start = time.process_time()
    begin = inverter.posterior(readings).sample(N_WALKERS)[0]
    sampler = emcee.EnsembleSampler(
        N_WALKERS, inverter.n_params_, log_prob, vectorize=True
    )
    sampler.random_state = np.random.RandomState(0).get_state()
    state, is_enough = prior.to_standard(begin), False
    while not is_enough and sampler.iteration < MOST_STEPS:
        state = sampler.run_mcmc(state, max(100, sampler.iteration // 5))
        recent = sampler.get_chain()[sampler.iteration // 2 :][None]
        rhat, n_drawn = agreement(recent)
        is_enough = rhat.max() <= 1.01 and n_drawn.min() >= n_effective
    solves = int(objective.n_forward[0])
    return n_drawn.min(), is_enough, solves, time.process_time() - start


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
