"""
POLLU: which of 25 rate constants do three snapshots of the air tell?
=====================================================================

POLLU is a scheme of 25 reactions among 20 air pollutants, with rate constants from 1e-4
to 4e11 and radicals down to 1e-18. We see all species at three moments of an hour, with
1 % noise, and want the constants. Some cannot be known from any such data: the method
must say so instead of printing a number.

Runs in about five minutes on two cores.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from sklearn_inverse import ADMInverter, Design, ODESurrogate, Training
from sklearn_inverse.datasets import (
    add_noise,
    make_inverse_problem,
    mask_observations,
)
from sklearn_inverse.inspection import RecoveryDisplay
from sklearn_inverse.metrics import interval_coverage, param_mse
from sklearn_inverse.problems import pollu

# %%
# Simulated pairs to learn from, and others to be judged on.
system = pollu()
train = make_inverse_problem(system, 12_000, n_jobs=-1, random_state=0, verbose=1)
test = make_inverse_problem(system, 300, sampling="random", random_state=1)

# %%
# What is measured of the test samples: all species at three random times, 1 % noise.
noise_std = 0.01 * train.trajectories.std(axis=(0, 1))
snapshots = mask_observations(
    test.trajectories, n_observed=3, exclude_first=True, random_state=2
)
snapshots = add_noise(snapshots, noise_std, random_state=3)

# %%
# The inverter is told how sparse and how noisy the measurements will be.
system = system.with_noise(noise_std)
inverter = ADMInverter(
    ODESurrogate(
        system,
        basis_epochs=250,
        training=Training(max_epochs=3),
        random_state=0,
        verbose=1,
    ),
    design=Design(n_observed=3),
    training=Training(max_epochs=120),
    random_state=0,
    verbose=1,
)
inverter.fit(train.trajectories, train.params)
posterior = inverter.posterior(snapshots)
mean, std = posterior.mean, posterior.std

# %%
# Is it right, and are its error bars honest? The prior alone would score 0.083.
mse = param_mse(test.params, mean, bounds=system.bounds)
covered = interval_coverage(test.params, *posterior.interval(0.9))
print(f"\nparam MSE (unit params) {mse:.4f}; 90 % intervals cover {covered:.1%}")

# %%
# What can be known: compare the posterior spread with that of the prior. A param whose
# spread has not shrunk is not told by these data, whatever the method. One that is told
# only together with another shows in the correlation of posterior draws.
low, high = system.bounds.T
prior_std = (high - low) / np.sqrt(12)
shrinkage = std.mean(axis=0) / prior_std
correlation = posterior[0].correlation[0] - np.eye(system.n_params)
print(f"\n{'':5}{'reaction':28}{'truth':>10}{'estimate':>10}{'± sd':>9}   verdict")
for j in np.argsort(shrinkage):
    if shrinkage[j] < 0.35:
        verdict = "known"
    else:
        verdict = "partly known" if shrinkage[j] < 0.8 else "cannot be known from this"
        partner = np.argmax(np.abs(correlation[j]))
        if np.abs(correlation[j, partner]) > 0.5:
            verdict += f", tied to {system.param_names[partner]}"
    print(
        f"{system.param_names[j]:5}{system.reactions[j]:28}{test.params[0, j]:10.3g}"
        f"{mean[0, j]:10.3g}{std[0, j]:9.2g}   {verdict}"
    )

# %%
# Three constants of each kind: recovered against true, with 90 % intervals.
order = np.argsort(shrinkage)
chosen = [system.param_names[j] for j in order[[0, 1, 2, 11, 12, 13, -3, -2, -1]]]
display = RecoveryDisplay.from_estimator(
    inverter, snapshots, test.params, chosen=chosen
)
picture = Path("pollu.png")
display.figure_.savefig(picture, dpi=120, bbox_inches="tight")
plt.close(display.figure_)
print(f"Picture saved to {picture.resolve()}")
