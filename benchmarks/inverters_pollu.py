"""How close to the Bayes limit is each inverter on POLLU, and at what cost?

25 rate constants on k · [0.5, 1.5] from three random full-state snapshots, with noise of
1 % and of 0.1 % of each channel's spread. Errors are in unit params (the prior scores MSE
0.0833, MAE 0.25). The limit is the mean Laplace variance of the same samples, at the true
params and with sensitivities of the exact simulator. Coverage is that of mean ± 1.645 sd,
nominally 90 %. Slow methods answer fewer samples; the limit beside them is of those.
One process, ``--threads`` threads.

    python benchmarks/inverters_pollu.py --threads 1
"""

import argparse
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
    BiLOInverter,
    CMAESInverter,
    GradientInverter,
    ODESimulator,
    ODESurrogate,
    RefinedInverter,
    ReparamJointInverter,
)
from sklearn_inverse.datasets import add_noise

FRACTIONS = (1.0, 0.1)  # of 1 % noise


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
    parser.add_argument("--only", default="", help="inverters whose name holds this")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    problem = PolluProblem(n_train=arguments.n_train)
    sizes = arguments.n_train, arguments.basis_epochs, arguments.surrogate_epochs
    rows = []
    for fraction in FRACTIONS:
        case = Case(problem, fraction)
        surrogate = cached(train_surrogate)(*sizes)
        adm = cached(train_adm)(*sizes, arguments.adm_epochs, fraction)
        for name, n_samples, inverter in inverters(case, surrogate, adm, arguments):
            if arguments.only in name:
                rows.append(case.row(name, inverter, n_samples))
                print(rows[-1], flush=True)
    name = "_".join(["inverters_pollu", *arguments.only.lower().split()])
    write_report(name, rows, **vars(arguments))


def cached(function):
    """Keep what a training returned on disk, for the next run of this script."""
    return Memory(Path(__file__).parent / ".cache", verbose=0).cache(function)


def train_surrogate(n_train, basis_epochs, surrogate_epochs):
    """Return the fitted surrogate that all inverters share."""
    problem = PolluProblem(n_train=n_train)
    return ODESurrogate(
        bounds=problem.system.bounds,
        basis_epochs=basis_epochs,
        max_epochs=surrogate_epochs,
        attention=False,  # params alone: nothing to attend to
        random_state=0,
        verbose=1,
    ).fit(problem.train.trajectories, problem.train.params)


def train_adm(n_train, basis_epochs, surrogate_epochs, adm_epochs, fraction):
    """Return ADM on that surrogate, trained for one noise level."""
    problem = PolluProblem(n_train=n_train)
    surrogate = cached(train_surrogate)(n_train, basis_epochs, surrogate_epochs)
    return ADMInverter(
        FrozenEstimator(surrogate),
        noise_std=fraction * problem.noise_std,
        n_observed=3,
        max_epochs=adm_epochs,
        random_state=0,
        verbose=1,
    ).fit(problem.train.trajectories, problem.train.params)


def inverters(case, surrogate, adm, arguments):
    """Yield (name, number of samples, unfitted inverter) for one noise level."""
    options = {"noise_std": case.noise_std, "random_state": 0}
    learned = FrozenEstimator(surrogate)
    exact = ODESimulator(case.problem.system)
    full, few = arguments.n_test, arguments.n_descent
    adm = FrozenEstimator(adm)
    gauss_newton = GradientInverter(learned, **options)
    cmaes = CMAESInverter(learned, max_iter=3000, **options)
    yield "Gauss–Newton, exact", full, GradientInverter(exact, **options)
    yield (
        "Gauss–Newton, exact, random start",
        full,
        GradientInverter(exact, start="random", **options),
    )
    yield "ADM", full, adm
    yield "ADM, refined", full, RefinedInverter(adm, exact, **options)
    yield "Gauss–Newton, surrogate", full, gauss_newton
    yield (
        "Gauss–Newton, surrogate, refined",
        full,
        RefinedInverter(gauss_newton, exact, **options),
    )
    yield "CMA-ES, surrogate", arguments.n_cmaes, cmaes
    yield (
        "CMA-ES, surrogate, refined",
        arguments.n_cmaes,
        RefinedInverter(cmaes, exact, **options),
    )
    if case.fraction != 1:
        return
    yield (
        "L-BFGS, surrogate",
        full,
        GradientInverter(learned, optimizer="lbfgs", **options),
    )
    for mode in ("joint", "supervised", "neural_adjoint"):
        yield (
            f"Reparam {mode}, surrogate",
            arguments.n_reparam,
            ReparamJointInverter(learned, mode=mode, n_observed=3, **options),
        )
    for method in ("adam", "sgd"):
        yield (
            f"{method.upper()} 100 steps × 100 starts, surrogate",
            few,
            GradientInverter(learned, optimizer=method, chunk_size=8, **options),
        )
    yield (
        "BiLO",
        arguments.n_bilo,
        BiLOInverter(
            system=case.problem.system,
            time_scale="log",
            onset=1e-3,
            width=48,
            upper="adam",
            **options,
        ),
    )


class Case:
    """The held-out samples at one noise level, and how estimates of them are scored."""

    def __init__(self, problem, fraction):
        self.problem, self.fraction = problem, fraction
        self.noise_std = fraction * problem.noise_std
        self.observations = problem.observations
        if fraction != 1:
            unseen = np.isnan(problem.observations)
            sparse = np.where(unseen, np.nan, problem.test.trajectories)
            self.observations = add_noise(sparse, self.noise_std, random_state=4)
        self.limit = self.laplace_variance()

    def laplace_variance(self):
        """Return the first-order posterior variance of each sample, over its params."""
        simulator = ODESimulator(self.problem.system, n_jobs=-1)
        params = self.problem.test.params
        width = simulator.scaler_.width
        variance = []
        for part in np.array_split(np.arange(len(params)), 10):
            jacobian = simulator.sensitivities(params[part]) * width
            jacobian = jacobian / self.noise_std[:, None]
            seen = ~np.isnan(self.observations[part])
            jacobian = np.where(seen[..., None], jacobian, 0.0)
            jacobian = jacobian.reshape(len(part), -1, len(width))
            hessian = jacobian.mT @ jacobian + 12 * np.eye(len(width))
            covariance = np.linalg.inv(hessian)
            variance.append(np.einsum("npp->n", covariance) / len(width))
        return np.concatenate(variance)

    def row(self, name, inverter, n_samples):
        """Fit on a few pairs (all that is trained is frozen), invert, and score."""
        n_pairs = 10_000 if name.startswith("Reparam") else 2_000
        pairs = self.problem.train.trajectories, self.problem.train.params
        inverter = inverter.fit(*(part[:n_pairs] for part in pairs))
        observations = self.observations[:n_samples]
        result = None
        with warnings.catch_warnings():
            # Edges, and runs that did not converge: counted below.
            warnings.simplefilter("ignore")
            start = time.perf_counter()
            if hasattr(inverter, "invert"):
                result = inverter.invert(observations)
                params, std = result.params, self.laplace_std(result)
            else:
                params, std = inverter.predict(observations, return_std=True)
            seconds = time.perf_counter() - start
        error = self.problem.unit(params) - self.problem.unit(
            self.problem.test.params[:n_samples]
        )
        limit = self.limit[:n_samples].mean()
        row = {
            "inverter": name,
            "noise": f"{self.fraction:g} %",
            "samples": n_samples,
            "mse": f"{np.mean(error**2):.5f}",
            "mse / limit": f"{np.mean(error**2) / limit:.3f}",
            "mae": f"{np.mean(np.abs(error)):.4f}",
            "coverage": self.coverage(params, std),
            "ms / sample": short(1e3 * seconds / n_samples),
        }
        if result is not None:
            row |= {
                "forward runs": short(result.n_forward.mean()),
                "with Jacobian": short(result.n_linearized.mean()),
                "not converged": int((result.status != 0).sum()),
                "unexplained": int((~result.explained).sum()),
            }
        return row

    def laplace_std(self, result):
        """Return standard deviations in units of the params, if there are any."""
        if result.covariance is None:
            return None
        unit_std = np.sqrt(np.einsum("npp->np", result.covariance))
        return unit_std * np.ptp(self.problem.system.bounds, axis=1)

    def coverage(self, params, std):
        """Return the share of params within mean ± 1.645 sd."""
        if std is None:
            return ""
        off = np.abs(params - self.problem.test.params[: len(params)])
        return f"{np.mean(off < 1.6449 * std):.4f}"


if __name__ == "__main__":
    main()
