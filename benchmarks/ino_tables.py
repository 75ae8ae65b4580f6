"""The INO paper's Tables 1 to 3, our figures beside the paper's, and its Figures 4 to 6.

POLLU (25 params) and GRN (40) from three random full-state snapshots with 1 % noise.
Errors are in params scaled to [0, 1]; the prior alone scores MSE 0.0833, MAE 0.25.

    mse            mean square error of the answer: over held-out samples and params
    × limit        that over the mean Laplace variance of the same samples, at the truth
                   and with derivatives of the exact model (the row "Bayes limit")
    Mean           the paper's, undefined there: absolute value of the mean error over
                   starts and samples, averaged over params
    Std            the paper's: standard deviation over starts, averaged over the rest
    MAE            mean absolute error, over starts, samples and params
    traj. mse, mae errors of the exact model's trajectory at the answer, in units of each
                   channel's standard deviation (the paper runs its surrogate here)
    coverage       share of params inside 90 % intervals, where there are any
    s / sample     seconds for an answer, all its starts included; ``--threads`` threads
    backprop       what is differentiated to answer: nothing, the surrogate, or the model

Starts are answers from different random starts, or draws where a method draws: so many
as the column says. The answer of a method that draws or descends from many starts is
their mean; of others, each start is an answer. Table 1 has all rows, Table 3 those that
it compares, with seconds. Table 2 is ``surrogate_ablation.py``, run by itself.

Surrogate and learned methods train on the same pairs, but GRN's surrogate, in the short
budget, on other ones and six times as many (10 GB of memory). Searches run on the
surrogate, unless the row says "exact". Slow ones answer 24 samples, others 256 (budget
"short"); the limit is always that of the same samples. Every training and every cell is
kept in ``.cache``: a killed run goes on where it was.

    python benchmarks/ino_tables.py --budget short
    python benchmarks/ino_tables.py --problem grn --only ADM "ADM, learned"
"""

import argparse
import copy
import time
import warnings
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from _ino import N_OBSERVED, SYSTEMS, InoProblem
from _ino_pictures import draw_pictures
from _report import short, write_report
from joblib import Memory
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_inverse import (
    ADMInverter,
    CMAESInverter,
    Design,
    FlowInverter,
    GradientInverter,
    MCMCInverter,
    ODESimulator,
    ODESurrogate,
    Operator,
    ReparamJointInverter,
    Training,
)
from sklearn_inverse.baselines import (
    BatchCoupledADM,
    FlowMatchingInverter,
    FMGradInverter,
    GradientDescentInverter,
    IFNOInverter,
    NeuralAdjointInverter,
    NIOInverter,
    SGLDInverter,
    SpinODEInverter,
)
from sklearn_inverse.datasets import (
    add_noise,
    make_inverse_problem,
    mask_observations,
)

memory = Memory(Path(__file__).parent / ".cache", verbose=0)
design = Design(n_observed=N_OBSERVED)


@dataclass(frozen=True)
class Budget:
    """How long is trained, on how much, and how much is answered."""

    n_train: int
    n_emulated: int  # pairs that the surrogate learns from
    basis_epochs: int
    surrogate_epochs: int
    epochs: int  # of ADM and its like
    regression_epochs: int
    many: int  # held-out samples of methods that answer at once
    few: int  # of those that take seconds each
    n_starts: int  # answers of methods that differ by their start
    n_descents: int  # starts of one answer by gradient descent
    walk: dict  # options of the Markov chains


BUDGETS = {
    "short": Budget(
        n_train=50_000,
        n_emulated=50_000,
        basis_epochs=60,
        surrogate_epochs=1,
        epochs=6,
        regression_epochs=5,
        many=256,
        few=24,
        n_starts=4,
        n_descents=100,
        walk={"n_effective": 200, "max_iter": 300},
    ),
    "paper": Budget(
        n_train=50_000,
        n_emulated=50_000,
        basis_epochs=1000,
        surrogate_epochs=1000,
        epochs=1000,
        regression_epochs=1000,
        many=1000,
        few=24,
        n_starts=100,
        n_descents=100,
        walk={},
    ),
}


# Components and network of the surrogate's direct part: GRN's params act more strongly,
# and pairs are what its emulator lacks.
DIRECT = {
    "pollu": (64, {}),
    "grn": (128, {"direct_width": 512, "direct_layers": 5}),
}
OWN = {
    ("grn", "short"): {
        "n_emulated": 300_000,
        "basis_epochs": 8,
        "surrogate_epochs": 0,
        "epochs": 4,
        "n_starts": 2,
    }
}
PART = 25_000  # pairs that are simulated at once


def budget_of(case):
    """Return the budget of a case, what is its problem's own included."""
    return replace(BUDGETS[case.budget], **OWN.get((case.name, case.budget), {}))


@dataclass(frozen=True)
class Row:
    """A method: how it is made, on what it runs, and what the paper printed of it.

    ``starts`` is "seed" if its answers differ by their random start, "draws" if it draws,
    "runs" if its answer is the mean of that many runs; ``then`` sets attributes after
    the training. ``paper`` holds Mean, Std, MAE, trajectory MSE and MAE, for both systems.
    """

    estimator: object
    on: str = "surrogate"
    learns: bool = False
    samples: str = "many"
    starts: str = ""
    then: tuple = ()
    n_pairs: int | None = None  # that it learns from, if not all
    backprop: str = "no"
    paper: str = ""
    paper_seconds: str = ""  # of Table 3

    @property
    def how(self):
        """Return what the measurement hangs on, beside the estimator."""
        return (
            self.on,
            self.learns,
            self.samples,
            self.starts,
            self.then,
            self.n_pairs,
        )


def rows(case):
    """Return {name: Row} of one problem."""
    budget = budget_of(case)
    training = Training(max_epochs=budget.epochs)
    learned = {"design": design, "training": training, "random_state": 0}
    adm = ADMInverter(**learned)
    descent = {"n_starts": 1, "start": "random", "chunk_size": 24}
    n_walkers = 4 * SYSTEMS[case.name]().n_params
    is_large = case.name == "grn"  # seconds a sample, where others take milliseconds
    n_draws = 200 if is_large else 1000
    return {
        "Gauss–Newton, exact": Row(
            GradientInverter(max_solves=0, chunk_size=64), on="exact", backprop="model"
        ),
        "ADM": Row(
            adm,
            learns=True,
            starts="seed",
            backprop="model",
            paper_seconds="0.23",
            paper="0.0117 0.0972 0.1001 0.0559 0.0207 0.0084 0.0115 0.0131 0.0322 0.0568",
        ),
        "ADM, learned": Row(
            adm,
            learns=True,
            starts="seed",
            then=(("kind", "learned"),),
            paper_seconds="0.23",
        ),
        "ADM, Eq. (8)": Row(BatchCoupledADM(**learned), learns=True, starts="seed"),
        "ADM, Eq. (8) normalized": Row(
            BatchCoupledADM(**learned, normalize=True), learns=True, starts="seed"
        ),
        "SGD, 100 steps": Row(
            GradientDescentInverter(optimizer="sgd", **descent),
            samples="few",
            starts="runs",
            backprop="surrogate",
            paper_seconds="112",
            paper="0.0218 0.0901 0.1007 0.0796 0.0277 0.0156 0.0332 – – –",
        ),
        "Adam, 100 steps": Row(
            GradientDescentInverter(optimizer="adam", **descent),
            samples="few",
            starts="runs",
            backprop="surrogate",
            paper_seconds="114",
            paper="0.0756 0.1203 – – – 0.0092 0.0117 0.0129 0.0206 0.0551",
        ),
        "SGLD": Row(
            SGLDInverter(n_starts=20, random_state=0),
            samples="few",
            starts="draws",
            backprop="surrogate",
            paper="0.0367 0.2221 0.2921 0.1744 0.1107 0.0112 0.0156 0.0144 0.0325 0.0612",
        ),
        "MCMC": Row(
            MCMCInverter(n_walkers=n_walkers, **budget.walk),
            samples="few",
            starts="draws",
            backprop="surrogate",
            paper="0.0358 0.2364 0.2895 0.2029 0.0977 0.0203 0.0255 0.0310 0.0333 0.0715",
        ),
        "CMA-ES": Row(
            CMAESInverter(max_iter=1000),
            samples="few",
            paper="0.0272 0.1923 0.1389 0.0671 0.0499 0.0189 0.0235 0.0286 0.0314 0.0720",
        ),
        "iFNO": Row(
            IFNOInverter(**learned),
            learns=True,
            on="exact",
            paper="0.0643 – 0.1665 0.0701 0.0855 0.0233 – 0.0326 0.0299 0.0613",
        ),
        "NIO": Row(
            NIOInverter(**learned),
            learns=True,
            on="exact",
            paper="0.0482 – 0.1587 0.0720 0.0932 0.0255 – 0.0311 0.0328 0.0704",
        ),
        "SPIN-ODE": Row(
            SpinODEInverter(random_state=0),
            on="exact",
            samples="few",
            backprop="model",
            paper="0.0794 – 0.1874 0.0989 0.0886 0.0364 – 0.0330 0.0341 0.0722",
        ),
        "Flow matching": Row(
            FlowMatchingInverter(**learned),
            learns=True,
            on="exact",
            starts="draws",
            paper="0.0300 0.1740 0.1539 0.0973 0.0855 0.0152 0.0211 0.0201 0.0324 0.0596",
        ),
        "Spline flow": Row(
            FlowInverter(**learned, n_draws=n_draws),
            learns=True,
            on="exact",
            starts="draws",
        ),
        "FM-Grad": Row(
            FMGradInverter(**learned),
            learns=True,
            starts="seed",
            paper_seconds="0.21",
            paper="0.0300 0.1741 – – – 0.0152 0.0211 – – –",
        ),
        "MLP regression": Row(
            plain_regression(budget.regression_epochs),
            on="",
            learns=True,
            paper_seconds="0.05",
            paper="0.1023 0.2215 – – – 0.0502 0.0486 – – –",
        ),
        # Not in the paper: what else the package has.
        "Gauss–Newton": Row(
            GradientInverter(max_solves=0),
            samples="few" if is_large else "many",
            backprop="surrogate",
        ),
        "L-BFGS": Row(
            GradientInverter(optimizer="lbfgs", n_starts=1, max_solves=0),
            backprop="surrogate",
        ),
        "Reparam": Row(
            ReparamJointInverter(design=design, random_state=0),
            learns=True,
            n_pairs=10_000,
            samples="few",
            backprop="surrogate",
        ),
        "Neural adjoint": Row(
            NeuralAdjointInverter(random_state=0),
            learns=True,
            n_pairs=10_000,
            samples="few",
            backprop="surrogate",
        ),
    }


def plain_regression(n_epochs):
    """Return scikit-learn's network on readings, zero where there are none."""
    network = make_pipeline(
        SimpleImputer(
            strategy="constant",
            fill_value=0.0,
            add_indicator=True,
            keep_empty_features=True,
        ),
        StandardScaler(copy=False),
        MLPRegressor(
            hidden_layer_sizes=(256, 256, 256), max_iter=n_epochs, random_state=0
        ),
    )
    return TransformedTargetRegressor(network, transformer=StandardScaler())


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problem", nargs="+", default=["pollu", "grn"])
    parser.add_argument("--budget", default="short", choices=BUDGETS)
    parser.add_argument("--fraction", type=float, default=1.0, help="of 1 % noise")
    parser.add_argument("--only", nargs="+", help="names of rows, as printed")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore")  # edges, searches not converged: counted below
    for name in arguments.problem:
        run(
            Case(name, arguments.fraction, arguments.budget, arguments.device),
            arguments,
        )


def run(case, arguments):
    """Fill the tables of one problem, row by row, and draw the pictures."""
    problem, cells = problem_of(case), {}
    settings = vars(arguments) | asdict(budget_of(case))
    error = problem.trajectory_error(
        surrogate_of(case)[0].simulate(problem.test.params)
    )
    settings["surrogate_mse"] = f"{np.mean(error**2):.2e}"
    tag = f"{case.name}" + (f"_{case.fraction:g}" if case.fraction != 1 else "")
    limit, found = problem.laplace_variance(), rows(case)
    table = [{"method": "Bayes limit", "mse": f"{limit.mean():.5f}"}]
    for method, row in found.items():
        if method in (arguments.only or [method]):
            cells[method] = measure(case, row.estimator, *row.how)
            table.append(summary(case, method, row, cells[method], limit))
            print(table[-1], flush=True)
            if not arguments.only:
                write_report(f"ino_table_1_{tag}", table, **settings)
    if arguments.only:
        write_report("ino_tables", table, save=False, **settings)
        return
    kept = ("method", "mse", "Mean", "Std", "s / sample", "paper Mean", "paper Std")
    compared = [
        {column: row.get(column, "") for column in kept}
        for row in table[1:]
        if found[row["method"]].paper_seconds
    ]
    for row in compared:
        row["paper s"] = found[row["method"]].paper_seconds
    settings |= speed(case)
    write_report(f"ino_table_3_{tag}", compared, **settings)
    if case.fraction == 1:
        draw_pictures(problem, cells, drift_path(case), filled_in(case))


# --- what is trained and measured, and kept on disk


@dataclass(frozen=True)
class Case:
    """A problem, its noise, how long is trained for it, and where."""

    name: str
    fraction: float
    budget: str
    device: str


@lru_cache(maxsize=1)
def problem_of(case):
    """Return the problem of a case."""
    budget = budget_of(case)
    return InoProblem(case.name, budget.n_train, 1_000, case.fraction)


@memory.cache
def train_surrogate(case, n_basis, direct, basis_epochs, epochs, n_emulated):
    """Return the surrogate that all methods share, and the seconds of its training."""
    problem = problem_of(case)
    pairs = problem.pairs
    if n_emulated != len(pairs[1]):
        pairs = many_pairs(problem.system, n_emulated)
    start = time.perf_counter()
    surrogate = ODESurrogate(
        problem.system,
        network=Operator(
            attention=False, **direct
        ),  # params alone: nothing to attend to
        n_basis=n_basis,
        basis_epochs=basis_epochs,
        training=Training(max_epochs=epochs),
        device=case.device,
        random_state=0,
        verbose=1,
    ).fit(*pairs)
    return surrogate, time.perf_counter() - start


def many_pairs(system, n_pairs):
    """Return more pairs than a problem holds, simulated part by part."""
    trajectories = np.empty((n_pairs, system.n_times, system.n_channels))
    params = np.empty((n_pairs, system.n_params))
    for seed, first in enumerate(range(0, n_pairs, PART), start=10):
        part = slice(first, min(first + PART, n_pairs))
        pairs = make_inverse_problem(
            system, part.stop - first, n_jobs=-1, random_state=seed
        )
        trajectories[part], params[part] = pairs.trajectories, pairs.params
    return trajectories, params


def surrogate_of(case):
    """Return the surrogate of a case, trained once, for any noise."""
    budget = budget_of(case)
    surrogate, seconds = train_surrogate(
        replace(case, fraction=1.0),
        *DIRECT[case.name],
        budget.basis_epochs,
        budget.surrogate_epochs,
        budget.n_emulated,
    )
    surrogate = copy.copy(surrogate)
    surrogate.system = problem_of(case).system
    surrogate.noise_ = surrogate.system.noise
    return surrogate, seconds


def ready(case, estimator, on):
    """Return an inverter for its model: a surrogate, the exact one, or none."""
    estimator = clone(estimator)
    if on == "surrogate":
        estimator.set_params(model=FrozenEstimator(surrogate_of(case)[0]))
    elif on == "exact":
        estimator.set_params(model=ODESimulator(problem_of(case).system))
    if "device" in estimator.get_params():
        estimator.set_params(device=case.device)
    return estimator


@memory.cache
def train(case, estimator, on, n_pairs=None):
    """Return a method that learns from pairs, and the seconds of its training."""
    problem, estimator = problem_of(case), ready(case, estimator, on)
    trajectories, params = (part[:n_pairs] for part in problem.pairs)
    if not on and not hasattr(estimator, "posterior"):  # it knows nothing of readings
        trajectories = read(problem, trajectories)
    start = time.perf_counter()
    estimator.fit(trajectories, params)
    return estimator, time.perf_counter() - start


def read(problem, trajectories):
    """Return readings of training pairs as the held-out ones are read, in rows."""
    sparse = mask_observations(
        trajectories, n_observed=N_OBSERVED, exclude_first=True, random_state=5
    )
    noisy = add_noise(sparse, problem.noise_std, random_state=6)
    return noisy.reshape(len(noisy), -1).astype(np.float32)


@memory.cache
def measure(case, estimator, on, learns, samples, starts, then, n_pairs):
    """Return what a method answers, by start, and what it costs."""
    budget, problem = budget_of(case), problem_of(case)
    observations = problem.observations[: getattr(budget, samples)]
    training_s = surrogate_of(case)[1] if on == "surrogate" else 0.0
    if learns:
        inverter, seconds = train(case, estimator, on, n_pairs)
        training_s += seconds
        for name, value in then:
            setattr(inverter, name, value)
    else:
        inverter = ready(case, estimator, on)
    n_answers = {"seed": budget.n_starts, "runs": budget.n_descents}.get(starts, 1)
    begin = time.perf_counter()
    answers = [answer(inverter, observations, seed) for seed in range(n_answers)]
    seconds = time.perf_counter() - begin
    first, ends = answers[0], np.stack([estimate(a) for a in answers])
    if starts == "draws":
        ends = first.sample(budget.n_starts, random_state=0).transpose(1, 0, 2)
    is_mean = starts in ("draws", "runs")
    best = (estimate(first) if starts == "draws" else ends.mean(axis=0))[None]
    best = best if is_mean else ends
    cell = {
        "ends": ends,
        "best": best,
        "seconds": seconds / len(observations) / (1 if is_mean else n_answers),
        "training_s": training_s,
        "trajectories": problem.simulate(best[0]),
    }
    if hasattr(first, "interval"):
        cell["coverage"] = problem.coverage(*first.interval(0.9))
    if hasattr(first, "status"):
        cell["not converged"] = int((first.status != 0).sum())
    return cell


def answer(inverter, observations, seed):
    """Return what a method says of observations, from random start number ``seed``."""
    if hasattr(inverter, "_start_seed") and hasattr(inverter, "net_"):  # amortized
        inverter = copy.copy(inverter)
        inverter._start_seed = seed
    elif not hasattr(inverter, "n_features_in_"):  # searches
        inverter = clone(inverter).set_params(random_state=seed).fit(observations)
    if hasattr(inverter, "invert"):
        return inverter.invert(observations)
    return inverter.predict(observations.reshape(len(observations), -1))


def estimate(answer):
    """Return the params of an answer: the mean of a posterior, or the best ones."""
    return getattr(answer, "mean" if hasattr(answer, "interval") else "params", answer)


def summary(case, method, row, cell, limit):
    """Return a row of Table 1."""
    problem, ends = problem_of(case), cell["ends"]
    n_samples = ends.shape[1]
    best = np.stack([problem.scaled_error(params) for params in cell["best"]])
    error = np.stack([problem.scaled_error(params) for params in ends])
    off = problem.trajectory_error(cell["trajectories"])
    many = len(ends) > 1
    values = {
        "method": method,
        "samples": n_samples,
        "starts": len(ends),
        "mse": f"{np.mean(best**2):.5f}",
        "× limit": f"{np.mean(best**2) / limit[:n_samples].mean():.3f}",
        "Mean": f"{np.abs(error.mean(axis=(0, 1))).mean():.4f}",
        "Std": f"{error.std(axis=0).mean():.4f}" if many else "–",
        "MAE": f"{np.abs(error).mean():.4f}",
        "traj. mse": f"{np.mean(off**2):.2e}",
        "traj. mae": f"{np.mean(np.abs(off)):.2e}",
        "coverage": short(cell["coverage"]) if "coverage" in cell else "–",
        "not converged": cell.get("not converged", "–"),
        "s / sample": short(cell["seconds"]),
        "training_s": short(cell["training_s"]),
        "backprop": row.backprop,
    }
    names = ("Mean", "Std", "MAE", "traj. mse", "traj. mae")
    printed = row.paper.split() or 10 * ["–"]
    at = 5 * (case.name == "grn")
    return values | {f"paper {n}": v for n, v in zip(names, printed[at : at + 5])}


@memory.cache
def speed(case):
    """Return seconds of ADM and of the paper's descent, of one sample and of many."""
    observations, budget = problem_of(case).observations, budget_of(case)
    adm, _ = train(case, rows(case)["ADM"].estimator, "surrogate")
    learned = copy.copy(adm)
    learned.kind = "learned"
    descent = GradientDescentInverter(n_starts=budget.n_descents, random_state=0)
    descent = ready(case, descent, "surrogate").fit(observations)
    found = {}
    for name, inverter, many in (
        ("ADM", adm, budget.many if case.name == "pollu" else budget.few),
        ("ADM, learned", learned, budget.many),
        ("100 × 100 descent", descent, 3),
    ):
        for n_samples in (1, many):
            times = []
            for _ in range(3 if inverter is not descent else 1):
                start = time.perf_counter()
                inverter.invert(observations[:n_samples])
                times.append(time.perf_counter() - start)
            found[f"{name}: s / sample of {n_samples}"] = short(min(times) / n_samples)
    return found


# --- what the pictures show


@memory.cache
def drift_path(case, n_samples=64):
    """Return where the drift of some samples is at each step, (n_steps, n, p)."""
    adm, _ = train(case, rows(case)["ADM"].estimator, "surrogate")
    prior = adm.model_.prior_
    seen, simulate = [], adm._simulate_drifting

    def record(quantiles, inputs):
        seen.append(quantiles[:n_samples].double().cpu().numpy())  # chunks are padded
        return simulate(quantiles, inputs)

    adm._simulate_drifting = record
    adm.kind = "learned"
    adm.invert(problem_of(case).observations[:n_samples])
    return np.stack([prior.from_quantile(q) for q in seen[: adm.n_steps]])


@memory.cache
def filled_in(case, n_samples=8, n_train=8_000, epochs=8):
    """Return {attention: trajectories} of the paper's network with and without it."""
    problem, found = problem_of(case), {}
    for attention in (False, True):
        network = Operator(width=32, attention=attention, params_dropout=0.0)
        surrogate = ODESurrogate(
            problem.system,
            design=design,
            network=network,
            n_basis=0,
            training=Training(max_epochs=epochs),
            device=case.device,
            random_state=0,
        ).fit(*(part[:n_train] for part in problem.pairs))
        params = problem.test.params[:n_samples]
        readings = problem.observations[:n_samples]
        found[attention] = surrogate.simulate(params, readings)
    return found


if __name__ == "__main__":
    main()
