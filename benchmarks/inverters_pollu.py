"""How close to the Bayes limit is each inverter on POLLU, and at what cost?

25 rate constants on k · [0.5, 1.5] from three random full-state snapshots, with noise of
1 % and of 0.1 % of each channel's spread. Errors are in params scaled to [0, 1] (the prior
scores MSE 0.0833, MAE 0.25). The limit is the mean Laplace variance of the same samples,
at the true params, under the prior's normal approximation, and with sensitivities of the
exact simulator. Coverage is that of 90 % intervals. Slow methods answer fewer samples; the
limit beside them is of those. One process, ``--threads`` threads.

    python benchmarks/inverters_pollu.py --threads 1
    python benchmarks/inverters_pollu.py --only "Gauss–Newton, exact" "ADM"
"""

import argparse
import copy
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from _pollu import PolluProblem
from _report import short, write_report
from joblib import Memory
from sklearn.frozen import FrozenEstimator

from sklearn_inverse import (
    ADMInverter,
    CMAESInverter,
    Design,
    GradientInverter,
    ODESimulator,
    ODESurrogate,
    Operator,
    RefinedInverter,
    ReparamJointInverter,
    Training,
)
from sklearn_inverse.baselines import GradientDescentInverter, NeuralAdjointInverter
from sklearn_inverse.collocation import Bilevel, LocalNetwork
from sklearn_inverse.inverse import BiLOInverter
from sklearn_inverse.probability import Posterior

FRACTIONS = (1.0, 0.1)  # of 1 % noise
LEARNING = ("Reparam", "Neural")  # these learn from pairs anew
N_PAIRS = 10_000  # of which


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--n-train", type=int, default=50_000)
    parser.add_argument("--basis-epochs", type=int, default=250)
    parser.add_argument("--surrogate-epochs", type=int, default=2)
    parser.add_argument("--adm-epochs", type=int, default=30)
    parser.add_argument("--n-test", type=int, default=1_000)
    parser.add_argument("--n-cmaes", type=int, default=24)
    parser.add_argument("--n-reparam", type=int, default=64)
    parser.add_argument("--n-descent", type=int, default=24)
    parser.add_argument("--n-bilo", type=int, default=8)
    parser.add_argument("--fractions", type=float, nargs="+", default=FRACTIONS)
    parser.add_argument("--only", nargs="+", help="names of inverters, as printed")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    name = "inverters_pollu" + ("_some" if arguments.only else "")
    rows = []
    for fraction in arguments.fractions:
        case = Case(fraction, arguments)
        for method, (n_samples, make) in case.inverters().items():
            if method in (arguments.only or [method]):
                rows.append(case.row(method, make(), n_samples))
                print(rows[-1], flush=True)
                write_report(name, rows, **vars(arguments))


def cached(function):
    """Keep what a training returned on disk, for the next run of this script."""
    return Memory(Path(__file__).parent / ".cache", verbose=0).cache(function)


def train_surrogate(n_train, basis_epochs, surrogate_epochs):
    """Return the fitted surrogate that all inverters share."""
    problem = PolluProblem(n_train)
    return ODESurrogate(
        problem.system,
        network=Operator(attention=False),  # params alone: nothing to attend to
        basis_epochs=basis_epochs,
        training=Training(max_epochs=surrogate_epochs),
        random_state=0,
        verbose=1,
    ).fit(*problem.pairs)


def train_adm(n_train, basis_epochs, surrogate_epochs, adm_epochs, fraction):
    """Return ADM on that surrogate, trained for one noise level."""
    problem = PolluProblem(n_train, fraction=fraction)
    surrogate = cached(train_surrogate)(n_train, basis_epochs, surrogate_epochs)
    return ADMInverter(
        FrozenEstimator(for_noise_of(problem.system, surrogate)),
        design=Design(n_observed=3),
        training=Training(max_epochs=adm_epochs),
        random_state=0,
        verbose=1,
    ).fit(*problem.pairs)


def for_noise_of(system, surrogate):
    """Return the surrogate with the noise of another system, which it never saw."""
    other = copy.copy(surrogate)
    other.system, other.noise_ = system, system.noise
    return other


class Case:
    """The held-out samples at one noise level, and how estimates of them are scored."""

    def __init__(self, fraction, arguments):
        self.arguments, self.fraction = arguments, fraction
        self.problem = PolluProblem(
            arguments.n_train, arguments.n_test, fraction=fraction
        )
        self.sizes = (
            arguments.n_train,
            arguments.basis_epochs,
            arguments.surrogate_epochs,
        )
        self.limit = self.problem.laplace_variance()

    def surrogate(self):
        """Return the surrogate, trained once."""
        surrogate = cached(train_surrogate)(*self.sizes)
        return FrozenEstimator(for_noise_of(self.problem.system, surrogate))

    def adm(self):
        """Return ADM, trained once for each noise level."""
        adm = cached(train_adm)(*self.sizes, self.arguments.adm_epochs, self.fraction)
        return FrozenEstimator(adm)

    def inverters(self):
        """Return {name: (number of samples, how to make the inverter)}."""
        n, exact = self.arguments, ODESimulator(self.problem.system)

        def make(cls, on=self.surrogate, **options):
            return lambda: cls(on(), random_state=0, **options)

        def on_exact():
            return exact

        def refined(inverter):
            return lambda: RefinedInverter(inverter(), exact, random_state=0)

        gauss_newton = make(GradientInverter)
        cmaes = make(CMAESInverter, max_iter=3000)
        found = {
            "Gauss–Newton, exact": (n.n_test, make(GradientInverter, on=on_exact)),
            "Gauss–Newton, exact, one start": (
                n.n_test,
                make(GradientInverter, on=on_exact, n_starts=1),
            ),
            "ADM": (n.n_test, self.adm),
            "ADM, refined": (n.n_test, refined(self.adm)),
            "Gauss–Newton, surrogate": (n.n_test, gauss_newton),
            "Gauss–Newton, surrogate, refined": (n.n_test, refined(gauss_newton)),
            "CMA-ES, surrogate": (n.n_cmaes, cmaes),
            "CMA-ES, surrogate, refined": (n.n_cmaes, refined(cmaes)),
        }
        if self.fraction != 1:
            return found
        lbfgs = make(GradientInverter, optimizer="lbfgs", n_starts=1)
        found["L-BFGS, surrogate"] = n.n_test, lbfgs
        for mode in ("joint", "supervised"):
            reparam = make(ReparamJointInverter, mode=mode, design=Design(n_observed=3))
            found[f"Reparam {mode}, surrogate"] = n.n_reparam, reparam
        adjoint = make(NeuralAdjointInverter)
        found["Neural adjoint, surrogate"] = n.n_reparam, adjoint
        for method in ("adam", "sgd"):
            descent = make(GradientDescentInverter, optimizer=method, chunk_size=8)
            name = f"{method.upper()} 100 steps × 100 starts, surrogate"
            found[name] = n.n_descent, descent
        network = LocalNetwork(width=48, time_scale="log", onset=1e-3)
        bilo = make(
            BiLOInverter,
            on=on_exact,
            network=network,
            descent=Bilevel(params_optimizer="adam"),
        )
        return found | {"BiLO": (n.n_bilo, bilo)}

    def row(self, name, inverter, n_samples):
        """Fit where that is yet to be done, invert, and score."""
        observations = self.problem.observations[:n_samples]
        if name.startswith(LEARNING):
            inverter.fit(*(part[:N_PAIRS] for part in self.problem.pairs))
        else:
            inverter.fit(observations, None)
        with warnings.catch_warnings():
            # Edges, and runs that did not converge: counted below.
            warnings.simplefilter("ignore")
            start = time.perf_counter()
            answer = inverter.invert(observations)
            seconds = time.perf_counter() - start
        is_sure = isinstance(answer, Posterior)
        error = self.problem.scaled_error(answer.mean if is_sure else answer.params)
        mse = np.mean(error**2)
        return {
            "inverter": name,
            "noise": f"{self.fraction:g} %",
            "samples": n_samples,
            "mse": f"{mse:.5f}",
            "mse / limit": f"{mse / self.limit[:n_samples].mean():.3f}",
            "mae": f"{np.mean(np.abs(error)):.4f}",
            "coverage": short(self.problem.coverage(*answer.interval(0.9)))
            if is_sure
            else "",
            "ms / sample": short(1e3 * seconds / n_samples),
            "forward runs": short(answer.n_forward.mean()),
            "with Jacobian": short(answer.n_linearized.mean()),
            "not converged": int((answer.status != 0).sum()),
            "unexplained": int((~answer.explained).sum()),
        }


if __name__ == "__main__":
    main()
