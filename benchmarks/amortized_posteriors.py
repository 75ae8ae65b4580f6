"""Do amortized posteriors hold, at the numbers of simulations that people have?

sbibm's Lotka-Volterra and SIR, three observations each, from 1,000 and 10,000 simulations:
C2ST to the reference draws (.5: no classifier tells them apart, 1: always), as in
``known_posteriors.py``. All train on one thread. "flow" and "ADM learned" know no more
than what a network has learned; "surrogate" is Laplace's approximation on a surrogate
trained for the noise, from which no exact model is reached; "exact steps" are those of
``ADMInverter`` by default, on the exact model, from where the network or the nearest of
1,000 stored pairs says, and "pairs alone" the same without a network. Where sbi and
BayesFlow are installed they are trained on the same simulations, noise drawn once.

Seconds are those of the process's own CPU time. Rows are written as they come, and those
that are there already are kept: a run that was stopped goes on where it was.

    python benchmarks/amortized_posteriors.py --sbibm sbibm/tasks
"""

import argparse
import json
import os
import time
import warnings
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import torch
from _report import RESULTS, short, write_report
from known_posteriors import OBSERVATIONS, c2st, read, sbibm_predation, sbibm_sir
from sklearn.frozen import FrozenEstimator

from sklearn_inverse import (
    ADMInverter,
    Design,
    FlowInverter,
    GradientInverter,
    ODESurrogate,
    Training,
)
from sklearn_inverse.datasets import make_inverse_problem

NAME = "amortized_posteriors"
SYSTEMS = {"lotka_volterra": sbibm_predation, "sir": sbibm_sir}
SIZES = 10_000, 1_000
SEEN = Design(n_observed=10)  # all of them
# Epochs by number of simulations, within a hundred seconds each.
FLOW, DRIFT, DIRECT = (
    {10_000: 50, 1_000: 200},
    {10_000: 15, 1_000: 100},
    {10_000: 200, 1_000: 600},
)


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sbibm", type=Path, required=True, help="folder of its tasks")
    parser.add_argument("--n-draws", type=int, default=2_000, help="sbibm's are 10,000")
    parser.add_argument("--tasks", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES, choices=SIZES)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cells = product(arguments.sizes, arguments.tasks, arguments.methods)
    for size, task, method in cells:
        if not any(
            (row["task"], row["method"], row["simulations"]) == (task, method, size)
            for row in finished()
        ):
            row = cell(task, method, size, arguments.sbibm, arguments.n_draws)
            if row is not None:
                rows = [*finished(), row]  # others may have come meanwhile
                write_report(NAME, rows, n_draws=arguments.n_draws, threads=1)


def finished():
    """Return the rows that are there."""
    path = RESULTS / f"{NAME}.json"
    return json.loads(path.read_text())["rows"] if path.exists() else []


def cell(task, method, size, folder, n_draws):
    """Train one method and compare its draws with the reference's, or return None."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the table tells what is wrong
        answer, seconds = METHODS[method](task, size, n_draws)
        if answer is None:
            return None
        scores, off, spent = [], [], 0.0
        for number in OBSERVATIONS:
            files = folder / task / "files" / f"num_observation_{number}"
            readings = read(files / "observation.csv")[0].reshape(-1, 10).T[None]
            reference = read(files / "reference_posterior_samples.csv.bz2")
            start = time.process_time()
            draws = answer(readings)
            spent += time.process_time() - start
            scores.append(c2st(reference, draws))
            away = draws.mean(axis=0) - reference.mean(axis=0)
            off.append(np.abs(away / reference.std(axis=0)).max())
    return {
        "task": task,
        "method": method,
        "simulations": size,
        "C2ST": round(float(np.mean(scores)), 3),
        **{f"C2ST {i}": round(s, 3) for i, s in zip(OBSERVATIONS, scores)},
        "worst z of means": short(max(off)),
        "training s": round(seconds),
        "s a sample": short(spent / len(OBSERVATIONS)),
    }


@cache
def simulations(task, size):
    """Return a system and pairs of it; compile it."""
    system = SYSTEMS[task]()
    return system, make_inverse_problem(system, size, random_state=0)


def fitted(inverter, task, size):
    """Fit an inverter; return it and the seconds that took."""
    _, pairs = simulations(task, size)
    start = time.process_time()
    inverter.fit(pairs.observations, pairs.params)
    return inverter, time.process_time() - start


def drawing(inverter, n_draws):
    """Return draws of an inverter's posterior, as a function of readings."""
    return lambda readings: inverter.posterior(readings).sample(n_draws)[0]


def flow(task, size, n_draws):
    """Train a spline flow."""
    system, _ = simulations(task, size)
    training = Training(max_epochs=FLOW[size])
    inverter = FlowInverter(
        system, design=SEEN, training=training, n_draws=n_draws, random_state=0
    )
    inverter, seconds = fitted(inverter, task, size)
    return drawing(inverter, n_draws), seconds


@cache
def adm(task, size, max_epochs):
    """Train ADM on the exact model."""
    system, _ = simulations(task, size)
    training = Training(max_epochs=max_epochs)
    inverter = ADMInverter(system, design=SEEN, training=training, random_state=0)
    return fitted(inverter, task, size)


def adm_learned(task, size, n_draws):
    """Return what ADM's network has learned."""
    inverter, seconds = adm(task, size, DRIFT[size])
    inverter.kind = "learned"
    return drawing(inverter, n_draws), seconds


def exact_steps(task, size, n_draws):
    """Go on by exact steps from there."""
    inverter, seconds = adm(task, size, DRIFT[size])
    inverter.kind = "laplace"
    return drawing(inverter, n_draws), seconds


def pairs_alone(task, size, n_draws):
    """Set out from the nearest stored pair, or from what a random network says."""
    inverter, seconds = adm(task, size, 0)
    return drawing(inverter, n_draws), seconds


class Alone(ODESurrogate):
    """A surrogate of what is not at hand."""

    @property
    def exact_(self):
        """Itself."""
        return self


def surrogate(task, size, n_draws):
    """Train a surrogate for the noise, and search on it."""
    system, _ = simulations(task, size)
    model = Alone(
        system,
        loss="noise",
        basis_epochs=DIRECT[size],
        training=Training(max_epochs=0),
        random_state=0,
    )
    model, seconds = fitted(model, task, size)
    model = FrozenEstimator(model)

    def answer(readings):
        inverter = GradientInverter(model, max_solves=0, random_state=0)
        return inverter.fit(readings).posterior(readings).sample(n_draws)[0]

    return answer, seconds


def as_others_like_it(task, size):
    """Return standard params and readings in rows, and the ways there and back.

    Noise is drawn once; readings of numbers with log-normal noise are logarithms.
    """
    system, _ = simulations(task, size)
    pairs = make_inverse_problem(system, size, noisy=True, random_state=0)
    size_of = np.log if task == "lotka_volterra" else np.asarray

    def rows(readings):
        return size_of(readings.reshape(len(readings), -1)).astype(np.float32)

    z = system.prior.to_standard(pairs.params).astype(np.float32)
    return z, rows(pairs.observations), rows, system.prior.from_standard


def npe(density_estimator):
    """Return sbi's neural posterior estimation with one density estimator."""

    def train(task, size, n_draws):
        try:
            from sbi.inference import NPE
        except ImportError:
            return None, None
        z, x, rows, back = as_others_like_it(task, size)
        torch.manual_seed(0)
        start = time.process_time()
        inference = NPE(density_estimator=density_estimator, show_progress_bars=False)
        inference.append_simulations(torch.as_tensor(z), torch.as_tensor(x)).train()
        n_params = z.shape[1]
        prior = torch.distributions.MultivariateNormal(
            torch.zeros(n_params), torch.eye(n_params)
        )
        posterior = inference.build_posterior(prior=prior)
        seconds = time.process_time() - start

        def answer(readings):
            x = torch.as_tensor(rows(readings))
            draws = posterior.sample((n_draws,), x=x, show_progress_bars=False)
            return back(draws.double().numpy())

        return answer, seconds

    return train


def bayesflow(task, size, n_draws):
    """Train BayesFlow's default, a coupling flow, for 100 epochs."""
    os.environ["KERAS_BACKEND"] = "torch"
    try:
        from bayesflow import BasicWorkflow
        from keras.utils import set_random_seed
    except ImportError:
        return None, None
    z, x, rows, back = as_others_like_it(task, size)
    set_random_seed(0)
    start = time.process_time()
    workflow = BasicWorkflow(
        inference_variables=["z"], inference_conditions=["x"], standardize="all"
    )
    workflow.fit_offline({"z": z, "x": x}, epochs=100, batch_size=128, verbose=0)
    seconds = time.process_time() - start

    def answer(readings):
        conditions = {"x": rows(readings)}
        draws = workflow.sample(num_samples=n_draws, conditions=conditions)["z"]
        return back(draws[0].astype(float))

    return answer, seconds


METHODS = {
    "flow": flow,
    "surrogate": surrogate,
    "pairs alone": pairs_alone,
    "ADM learned": adm_learned,
    "exact steps": exact_steps,
    "sbi NPE, NSF": npe("nsf"),
    "sbi NPE, MAF": npe("maf"),
    "BayesFlow": bayesflow,
}

if __name__ == "__main__":
    main()
