"""Does a growing horizon solve the Lotka–Volterra fit that traps global optimizers?

SciML's hard problem: prey and predators over ten periods (t up to 30), four rates, box
[0.01, 10]⁴ on a log scale, truth (1.5, 1, 3, 1), start (1, 1). Twenty seeds, each with at
most three random starts, for 3,001 readings of both without noise (solved: all rates to
1e-4), the same with noise of standard deviation 0.2, and 30 readings with 5 % noise
(errors in units of the Cramér–Rao bound). Without noise its level is estimated, too.
"full" fits all readings at once. Published for the noise-free problem: DIRECT-L, CRS2,
ISRES, ESCH all wrong after 3.5 to 83 s.

    python benchmarks/inverters_lotka.py
"""

import time
import warnings

import numpy as np
import torch
from _report import short, write_report

from sklearn_inverse import GradientInverter, ODESimulator, ReactionSystem
from sklearn_inverse.probability import LogUniform

TRUTH = np.array([1.5, 1.0, 3.0, 1.0])
SEEDS = 20
CASES = {  # name: (output times, noise of both channels, or of their spread)
    "3,001 readings, exact": (3001, 0.0, False),
    "3,001 readings, noise 0.2": (3001, 0.2, False),
    "30 readings, noise 5 %": (31, 0.05, True),
}


def main():
    """Run the benchmark."""
    torch.set_num_threads(1)
    rows = []
    for name, (n_times, noise, is_relative) in CASES.items():
        problem = Problem(n_times, noise, is_relative)
        rows += [problem.row(name, continuation) for continuation in (True, False)]
    write_report("inverters_lotka", rows, seeds=SEEDS, n_starts=3, threads=1)


class Problem:
    """One set of readings of the hard problem, with a noise of its own for each seed."""

    def __init__(self, n_times, noise, is_relative):
        system = ReactionSystem(
            {
                "X -> 2 X": "a",
                "X + Y -> Y": "b",
                "Y ->": "c",
                "X + Y -> X + 2 Y": "d",
            },
            initial={"X": 1.0, "Y": 1.0},
            params=dict.fromkeys("abcd", LogUniform(0.01, 10.0)),
            times=np.linspace(0.0, 30.0, n_times),
        )
        self.simulator = ODESimulator(system, rtol=1e-8)
        self.clean = ODESimulator(system, rtol=1e-10).simulate(TRUTH[None])[0]
        self.noise = noise * (self.clean.std(axis=0) if is_relative else np.ones(2))

    def row(self, name, continuation):
        """Invert every seed, and score."""
        errors, z, seconds, runs, explained = [], [], [], [], []
        bound, is_noisy = self.cramer_rao(), self.noise.any()
        for seed in range(SEEDS):
            rng = np.random.default_rng(seed)
            readings = self.clean + self.noise * rng.standard_normal(self.clean.shape)
            readings[0] = np.nan  # the initial state is known
            inverter = GradientInverter(
                self.simulator,
                start="random",
                n_starts=3,
                continuation=continuation,
                random_state=seed,
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # failures are counted below
                inverter.fit(readings[None])
                start = time.perf_counter()
                posterior = inverter.posterior(
                    readings[None], noise_std=self.noise if is_noisy else None
                )
            seconds.append(time.perf_counter() - start)
            errors.append(np.abs(posterior.params[0] / TRUTH - 1).max())
            z.append((posterior.params[0] - TRUTH) / bound)
            runs.append(posterior.n_forward[0] + posterior.n_linearized[0])
            explained.append(posterior.explained[0])
        errors = np.array(errors)
        solved = np.abs(z).max(axis=1) < 5 if is_noisy else errors < 1e-4
        row = {
            "readings": name,
            "horizon": "growing" if continuation else "full",
            "solved": f"{solved.sum()} of {SEEDS}",
            "said to be explained": int(np.sum(explained)),
            "median error": short(np.median(errors)),
            "worst error": short(errors.max()),
            "median s": short(np.median(seconds)),
            "worst s": short(max(seconds)),
            "median solves": int(np.median(runs)),
        }
        if is_noisy:
            rms = np.sqrt(np.mean(np.square(z), axis=0))
            row["rms error / Cramér–Rao bound"] = " ".join(f"{r:.3g}" for r in rms)
        print(row, flush=True)
        return row

    def cramer_rao(self):
        """Return the smallest possible standard deviations; infinite if exact."""
        if not self.noise.any():
            return np.full(4, np.inf)
        jacobian = (
            self.simulator.sensitivities(TRUTH[None])[0, 1:] / self.noise[:, None]
        )
        jacobian = jacobian.reshape(-1, 4)
        return np.sqrt(np.diag(np.linalg.inv(jacobian.T @ jacobian)))


if __name__ == "__main__":
    main()
