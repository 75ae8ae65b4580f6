"""The POLLU problem that several benchmarks share: 25 rate constants, three snapshots."""

from pathlib import Path

import numpy as np
from joblib import Memory

from sklearn_inverse.datasets import (
    add_noise,
    make_inverse_problem,
    mask_observations,
)
from sklearn_inverse.problems import pollu

NOISE = 0.01  # of each channel's standard deviation over samples and times
N_OBSERVED = 3


def simulate(n_samples, sampling, seed):
    """Draw and simulate pairs; the result is kept on disk for the next benchmark."""
    return make_inverse_problem(
        pollu(), n_samples, sampling=sampling, n_jobs=-1, random_state=seed, verbose=1
    )


class PolluProblem:
    """Training trajectories, and held-out ones with and without sparse noisy readings."""

    def __init__(self, n_train=50_000, n_test=1_000, seed=0):
        self.system = pollu()
        cached = Memory(Path(__file__).parent / ".cache", verbose=0).cache(simulate)
        train, test = cached(n_train, "lhs", seed), cached(n_test, "uniform", seed + 1)
        self.train, self.test = train, test
        self.channel_std = train.trajectories.std(axis=(0, 1))
        self.noise_std = NOISE * self.channel_std
        sparse = mask_observations(
            test.trajectories,
            n_observed=N_OBSERVED,
            exclude_first=True,
            random_state=seed + 2,
        )
        self.observations = add_noise(sparse, self.noise_std, random_state=seed + 3)

    def unit(self, params):
        """Params on the unit box k · [0.5, 1.5]."""
        return params / self.system.nominal - 0.5

    def trajectory_error(self, trajectories):
        """Standardized error against the held-out trajectories."""
        return (trajectories - self.test.trajectories) / self.channel_std

    def coverage(self, mean, std, z=1.6449):
        """Share of held-out params inside mean ± z std."""
        return float(np.mean(np.abs(mean - self.test.params) < z * std))
