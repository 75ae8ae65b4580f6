"""Do posteriors hold the truth as often as they say?

Params are drawn from the prior, readings simulated from them, and each method answers all
samples. If its posteriors are right, 90 % intervals hold 90 % of the true params; the rank
of a truth among its draws is uniform (SBC), and so is that of its distance from the mean,
by the covariance of the draws (TARP without references), which sees wrong correlations.
"SBC p" and "TARP p" are probabilities of ranks as uneven as these if all is right; of 40
such numbers one is below .025 by chance.

Problems: Lotka-Volterra read at 21 times, both species, log-normal noise of 20 %; POLLU
from three random full-state snapshots with 1 % noise; an epidemic counted weekly, negative
binomial, of unknown start, reporting fraction and dispersion; the Fisher-KPP equation
read at its end in nine points.

    python benchmarks/calibration.py --n-samples 200
"""

import argparse
import time
import warnings

import numpy as np
import torch
from _ino import InoProblem
from _report import RESULTS, short, write_report

from sklearn_inverse import (
    ADMInverter,
    Design,
    GradientInverter,
    Increment,
    MCMCInverter,
    ODESystem,
    Training,
)
from sklearn_inverse.datasets import make_inverse_problem
from sklearn_inverse.inspection import CalibrationDisplay, identifiability
from sklearn_inverse.metrics import (
    expected_coverage,
    sbc_ranks,
    tarp,
    uniformity_test,
)
from sklearn_inverse.probability import Beta, LogNormal, LogUniform, NegativeBinomial
from sklearn_inverse.problems import fisher_kpp, lotka_volterra

N_DRAWS = 199
BUDGET = 100_000  # solves per sample of a search that may go beyond Laplace


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n-samples", type=int, default=200)
    parser.add_argument("--n-pairs", type=int, default=20_000, help="ADM learns from")
    parser.add_argument("--epochs", type=int, default=30, help="of ADM")
    parser.add_argument("--problems", nargs="+", default=list(PROBLEMS))
    parser.add_argument("--only", nargs="+", help="methods, as printed")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore")
    rows = []
    for name in arguments.problems:
        system, readings, truths, design = PROBLEMS[name](arguments.n_samples)
        for method, make in methods(system, arguments, design).items():
            if method not in (arguments.only or [method]):
                continue
            start = time.perf_counter()
            inverter = make()
            if not isinstance(inverter, ADMInverter):
                inverter.fit(readings)
            trained = time.perf_counter()
            posterior = inverter.posterior(readings)
            seconds = (time.perf_counter() - trained) / len(readings)
            draws = [one.sample(N_DRAWS, i)[0] for i, one in enumerate(posterior)]
            draws = np.array(draws)
            rows.append(
                {"problem": name, "method": method}
                | judged(draws, truths)
                | {
                    "kinds": kinds(posterior),
                    "training_s": short(trained - start),
                    "seconds": short(seconds),
                }
            )
            print(rows[-1], flush=True)
            some = set(arguments.problems) < set(PROBLEMS)
            write_report(
                "_".join(["calibration", *arguments.problems * some]),
                rows,
                **vars(arguments),
            )
            display = CalibrationDisplay.from_draws(
                draws, truths, param_names=system.param_names
            )
            display.figure_.savefig(
                RESULTS / f"calibration_{name}_{method.replace(' ', '_')}.png", dpi=80
            )
        if name == "epidemic":
            tell(system, readings, truths)


def judged(draws, truths):
    """Return how honest draws are."""
    covered = expected_coverage(draws, truths, [0.9])[0]
    _, p_ranks = uniformity_test(sbc_ranks(draws, truths), N_DRAWS)
    _, p_tarp = uniformity_test(tarp(draws, truths)[:, None], N_DRAWS - 1)
    return {
        "samples": len(truths),
        "cover": short(covered.mean()),
        "least": short(covered.min()),
        "most": short(covered.max()),
        "sbc_p": short(p_ranks),
        "tarp_p": short(p_tarp),
    }


def kinds(posterior):
    """Return how many posteriors are of which kind."""
    kind, count = np.unique(
        np.broadcast_to(posterior.kind, len(posterior)), return_counts=True
    )
    return ", ".join(f"{n} {k}" for k, n in zip(kind, count))


def methods(system, arguments, design):
    """Return what makes each method."""

    def amortized():
        pairs = make_inverse_problem(system, arguments.n_pairs, random_state=1)
        training = Training(max_epochs=arguments.epochs)
        inverter = ADMInverter(system, design=design, training=training, random_state=0)
        return inverter.fit(pairs.observations, pairs.params)

    return {
        "Laplace": lambda: GradientInverter(system, max_solves=0, random_state=0),
        "escalating": lambda: GradientInverter(
            system, max_solves=BUDGET, random_state=0
        ),
        "MCMC": lambda: MCMCInverter(system, n_effective=200, random_state=0),
        "ADM": amortized,
    }


def predation(n_samples):
    """Return Lotka-Volterra with readings and truths."""
    system = lotka_volterra().with_noise(LogNormal(0.2))
    pairs = make_inverse_problem(system, n_samples, noisy=True, random_state=0)
    return system, pairs.observations, pairs.params, Design(n_observed=21)


def pollution(n_samples):
    """Return POLLU with readings and truths."""
    problem = InoProblem("pollu", n_train=50_000, n_test=1_000)
    readings, truths = problem.observations[:n_samples], problem.test.params[:n_samples]
    return problem.system, readings, truths, Design(n_observed=3)


def epidemic(n_samples):
    """Return weekly counts of an epidemic, and truths."""

    def change(t, y, p):
        new = p.contact * y.susceptible * y.infected
        return -new, new - p.recovery * y.infected, new

    system = ODESystem(
        change,
        states={"susceptible": 1.0, "infected": "seed", "cumulative": 0.0},
        params={
            "contact": (0.3, 1.0),
            "recovery": (0.1, 0.5),
            "reported": Beta(2, 5),
            "seed": LogUniform(1e-6, 1e-3),
            "dispersion": (5, 100),
        },
        times=7.0 * np.arange(16),
        observe={"cases": Increment(lambda t, y, p: 1e5 * p.reported * y.cumulative)},
        noise=NegativeBinomial("dispersion"),
        name="epidemic",
    )
    pairs = make_inverse_problem(system, n_samples, noisy=True, random_state=0)
    return system, pairs.observations, pairs.params, Design(n_observed=16)


def spreading(n_samples):
    """Return Fisher-KPP with readings and truths."""
    system = fisher_kpp()
    pairs = make_inverse_problem(system, n_samples, noisy=True, random_state=0)
    return pairs.system, pairs.observations, pairs.params, Design(n_observed=1)


def tell(system, readings, truths):
    """Print the report and the verdict of the largest epidemic."""
    largest = int(np.argmax(truths[:, 0] / truths[:, 1]))
    inverter = GradientInverter(system, random_state=0).fit(readings[[largest]])
    print(inverter.posterior(readings[[largest]])[0])
    print(identifiability(inverter, readings[[largest]]))


PROBLEMS = {
    "lotka_volterra": predation,
    "pollu": pollution,
    "epidemic": epidemic,
    "fisher_kpp": spreading,
}


if __name__ == "__main__":
    main()
