"""Where amortized posteriors by Laplace's approximation hold, on two models of users.

POLLU: 25 rate constants from three snapshots with 1 % noise, five samples. Its exact
posterior is reached by randomize-then-optimize (``max_solves=100_000``); C2ST as sbibm
computes it, of 2,000 draws in the prior's standard coordinate. Between two halves of the
exact draws it says what is within reach.

Patients: one compartment with oral absorption, doses of 3 to 6 mg/kg, and the noise's sd
unknown, twelve simulated patients of ten readings each, one inverter for all of them;
against Markov chains that have converged.

Both answer without a network, from the nearest of 1,000 stored pairs and exact steps.
Seconds are CPU time of one thread.

    python benchmarks/amortized_models.py
"""

import argparse
import time
import warnings

import numpy as np
import torch
from _ino import N_OBSERVED, InoProblem
from _report import short, write_report
from known_posteriors import c2st

from sklearn_inverse import (
    ADMInverter,
    Design,
    GradientInverter,
    MCMCInverter,
    ODESystem,
    Training,
)
from sklearn_inverse.datasets import make_inverse_problem
from sklearn_inverse.probability import LogNormal, Normal

UNTRAINED = Training(max_epochs=0)
CLOSE, SIMILAR = 0.35, (0.8, 1.25)  # means in sds, and sds as a ratio


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n-samples", type=int, default=5, help="of POLLU")
    parser.add_argument("--n-draws", type=int, default=2_000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # the tables tell what is wrong
    write_report("amortized_patients", patients())
    table = []
    for row in pollu(arguments.n_samples, arguments.n_draws):
        table.append(row)
        write_report("amortized_pollu", table, **vars(arguments))


def patients():
    """Return a row for each param: how twelve posteriors compare with chains."""
    system = ODESystem(
        absorption,
        states={"gut": "dose", "plasma": 0.0},
        params={
            "ka": LogNormal(1.5, 0.6),
            "clearance": LogNormal(0.04, 0.4),
            "volume": LogNormal(0.5, 0.3),
            "sigma": LogNormal(0.5, 0.5),
        },
        inputs={"dose": (3.0, 6.0)},
        times=[0.25, 0.5, 1, 2, 3.5, 5, 7, 9, 12, 24],
        observe=["plasma"],
        noise=Normal("sigma"),
    )
    pairs = make_inverse_problem(system, 1_000, random_state=0)
    seen = make_inverse_problem(system, 12, noisy=True, random_state=1)
    start = time.process_time()
    answer = (
        ADMInverter(
            system, design=Design(n_observed=10), training=UNTRAINED, random_state=0
        )
        .fit(pairs.observations, pairs.params, inputs=pairs.inputs)
        .posterior(seen.observations, inputs=seen.inputs)
    )
    seconds = time.process_time() - start
    chains = MCMCInverter(system, random_state=0)
    chains.fit(seen.observations, inputs=seen.inputs)
    exact = chains.posterior(seen.observations, inputs=seen.inputs)
    return [
        {
            "param": name,
            "patients": len(seen.params),
            **compared(answer.mean[:, [j]], answer.std[:, [j]], exact, [j]),
            "chains converged": int(exact.is_confirmed.sum()),
            "s in all": short(seconds),
        }
        for j, name in enumerate(system.prior.names)
    ]


def absorption(t, y, p):
    """Oral absorption into one compartment."""
    absorbed = p.ka * y.gut
    return -absorbed, absorbed / p.volume - p.clearance / p.volume * y.plasma


def pollu(n_samples, n_draws):
    """Yield a row for each sample."""
    problem = InoProblem("pollu", 1_000, 100)
    system, readings = problem.system, problem.observations[:n_samples]
    adm = ADMInverter(
        system, design=Design(n_observed=N_OBSERVED), training=UNTRAINED, random_state=0
    ).fit(*problem.pairs)
    start = time.process_time()
    answer = adm.posterior(readings)
    seconds = (time.process_time() - start) / n_samples
    to_standard = system.prior.to_standard
    laplace = answer.sample(n_draws, random_state=0)
    for i in range(n_samples):
        start = time.process_time()
        reference = GradientInverter(system, max_solves=100_000, random_state=0)
        exact = reference.fit(readings[[i]]).posterior(readings[[i]])
        exact_seconds = time.process_time() - start
        draws = to_standard(exact.sample(n_draws, random_state=0)[0])
        half = n_draws // 2
        yield {
            "sample": i,
            "exact is": str(exact.kind[0]),
            "confirmed": bool(exact.is_confirmed[0]),
            "C2ST": short(c2st(draws, to_standard(laplace[i]))),
            "C2ST of exact halves": short(c2st(draws[:half], draws[half:])),
            "distinct draws": len(np.unique(draws[:, 0])),
            **compared(answer.mean[[i]], answer.std[[i]], exact),
            "s": short(seconds),
            "s of exact": short(exact_seconds),
        }


def compared(mean, std, exact, params=slice(None)):
    """Return how means and sds of posteriors compare with exact ones."""
    away = np.abs(mean - exact.mean[:, params]) / exact.std[:, params]
    ratio = std / exact.std[:, params]
    similar = (ratio >= SIMILAR[0]) & (ratio <= SIMILAR[1])
    return {
        f"means within {CLOSE} sd, %": short(100 * np.mean(away <= CLOSE)),
        "worst": short(away.max()),
        f"sds {SIMILAR[0]} to {SIMILAR[1]}, %": short(100 * np.mean(similar)),
        "sds from": short(ratio.min()),
        "to": short(ratio.max()),
    }


if __name__ == "__main__":
    main()
