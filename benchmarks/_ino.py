"""The two problems of the INO paper, which several benchmarks share.

POLLU: 25 rate constants within ±50 %. GRN: 40 interactions of a ring of 20 genes, within
±3. Of both, the full state (20 species or genes) is read at three random times of 100,
with noise of 1 % of each channel's spread.
"""

import numpy as np

from sklearn_inverse import ODESimulator
from sklearn_inverse.datasets import (
    add_noise,
    make_inverse_problem,
    mask_observations,
)
from sklearn_inverse.problems import grn, pollu

SYSTEMS = {"pollu": pollu, "grn": grn}
NOISE = 0.01  # of each channel's standard deviation over samples and times
N_OBSERVED = 3


class InoProblem:
    """Training trajectories, and held-out ones with and without sparse noisy readings.

    Parameters
    ----------
    name : {"pollu", "grn"}, default="pollu"
        The system.

    n_train, n_test : int
        Samples.

    fraction : float, default=1.0
        Of 1 % noise.

    device : str, default="cpu"
        Where to simulate.

    seed : int, default=1
        Of the held-out samples.
    """

    def __init__(
        self,
        name="pollu",
        n_train=50_000,
        n_test=1_000,
        fraction=1.0,
        device="cpu",
        seed=1,
    ):
        self.name, system = name, SYSTEMS[name]()
        simulator = ODESimulator(system, device=device, n_jobs=-1)
        self.train, self.test = (
            make_inverse_problem(
                system, n, sampling=sampling, simulator=simulator, random_state=seed
            )
            for n, sampling, seed in ((n_train, "lhs", 0), (n_test, "random", seed))
        )
        self.channel_std = self.train.trajectories.std(axis=(0, 1))
        self.noise_std = fraction * NOISE * self.channel_std
        self.system = system.with_noise(self.noise_std)
        sparse = mask_observations(
            self.test.trajectories,
            n_observed=N_OBSERVED,
            exclude_first=True,
            random_state=seed + 1,
        )
        noise_seed = seed + 2 if fraction == 1 else seed + 3
        self.observations = add_noise(sparse, self.noise_std, random_state=noise_seed)

    @property
    def pairs(self):
        """Trajectories and params to learn from."""
        return self.train.trajectories, self.train.params

    def simulate(self, params):
        """Return trajectories of the exact model."""
        return ODESimulator(self.system).simulate(params)

    def scaled_error(self, params):
        """Return how far estimates of the first samples are off, on [0, 1]."""
        scaler = self.system.prior.scaler
        truth = self.test.params[: len(params)]
        return scaler.to_scaled(params) - scaler.to_scaled(truth)

    def trajectory_error(self, trajectories):
        """Return the standardized error against the first held-out trajectories."""
        truth = self.test.trajectories[: len(trajectories)]
        return (trajectories - truth) / self.channel_std

    def coverage(self, lower, upper):
        """Return the share of params inside intervals of the first samples."""
        truth = self.test.params[: len(lower)]
        return float(np.mean((lower < truth) & (truth < upper)))

    def laplace_variance(self):
        """Return the first-order posterior variance of each sample, over its params.

        At the truth, of params scaled to [0, 1], whose prior has a variance of 1/12.
        """
        simulator = ODESimulator(self.system, n_jobs=-1)
        params, width = self.test.params, self.system.prior.scaler.width
        variance = []
        for first in range(0, len(params), 100):
            part = slice(first, first + 100)
            jacobian = simulator.sensitivities(params[part]) * width
            seen = ~np.isnan(self.observations[part])
            jacobian = jacobian / self.noise_std[:, None] * seen[..., None]
            jacobian = jacobian.reshape(len(jacobian), -1, len(width))
            precision = jacobian.mT @ jacobian + 12 * np.eye(len(width))
            covariance = np.linalg.inv(precision)
            variance.append(np.einsum("npp->n", covariance) / len(width))
        return np.concatenate(variance)
