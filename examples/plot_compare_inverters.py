"""
Six inverters and two refinements on one problem: error against time
====================================================================

Predators and prey over ten years, both counted in eight of them with 5 % noise; four rate
constants, each unknown by a factor of 1.5 either way. Some methods learn first and answer
in milliseconds; others search anew for every sample. Refinement on the exact simulator
brings any of them to what the data allow: the line marked "limit" is the error of an ideal
method, to first order.

Runs in about three minutes on two cores.
"""

import time
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.frozen import FrozenEstimator

from sklearn_inverse import (
    ADMInverter,
    BiLOInverter,
    CMAESInverter,
    Design,
    GradientInverter,
    ODESimulator,
    ODESurrogate,
    RefinedInverter,
    ReparamJointInverter,
    Training,
)
from sklearn_inverse.datasets import add_noise, make_inverse_problem, mask_observations
from sklearn_inverse.exceptions import BoundsWarning, ConvergenceWarning, MisfitWarning
from sklearn_inverse.problems import lotka_volterra

# %%
# The problem: pairs to learn from, and sparse noisy counts of other samples.
nominal = lotka_volterra().nominal
system = lotka_volterra(
    bounds=np.outer(nominal, [1 / 1.5, 1.5]), times=np.linspace(0, 10, 21)
)
train = make_inverse_problem(system, 4_000, random_state=0)
test = make_inverse_problem(system, 40, sampling="random", random_state=1)
noise_std = 0.05 * train.trajectories.std(axis=(0, 1))
counts = mask_observations(
    test.trajectories, n_observed=8, exclude_first=True, random_state=2
)
counts = add_noise(counts, noise_std, random_state=3)

# %%
# One learned forward model serves all that want one.
system = system.with_noise(noise_std)
surrogate = ODESurrogate(
    system,
    basis_epochs=150,
    training=Training(max_epochs=10),
    random_state=0,
    verbose=1,
).fit(train.trajectories, train.params)
shared = FrozenEstimator(surrogate)
options = {"random_state": 0}
design = Design(n_observed=8)
adm = ADMInverter(
    shared, design=design, training=Training(max_epochs=40), verbose=1, **options
)
reparam = ReparamJointInverter(shared, design=design, **options)
inverters = {
    "ADM": adm,
    "Gauss–Newton, surrogate": GradientInverter(shared, **options),
    "Gauss–Newton, exact": GradientInverter(system, **options),
    "CMA-ES, surrogate": CMAESInverter(shared, **options),
    "Reparam, surrogate": reparam,
    "BiLO": BiLOInverter(system, **options),
    "ADM, refined": RefinedInverter(adm, system, **options),
    "Reparam, refined": RefinedInverter(reparam, system, **options),
}

# %%
# Fit on the pairs, answer for the samples. What is odd about single samples (an estimate
# on the wall of its box, a search cut short) is told by warnings; here they are silent.
rows = []
for name, inverter in inverters.items():
    with warnings.catch_warnings():
        for category in (BoundsWarning, ConvergenceWarning, MisfitWarning):
            warnings.simplefilter("ignore", category)
        start = time.perf_counter()
        inverter.fit(train.trajectories, train.params)
        fit_s = time.perf_counter() - start
        start = time.perf_counter()
        estimate = inverter.predict(counts)
        ms = 1e3 * (time.perf_counter() - start) / len(counts)
    scaler = system.prior.scaler
    error = scaler.to_scaled(estimate) - scaler.to_scaled(test.params)
    rows.append((name, np.sqrt(np.mean(error**2)), ms, fit_s))

# %%
# What an ideal method would reach: the mean posterior variance at the true params, from
# the sensitivities of the exact simulator.
stretch = np.log(10) * test.params * scaler.width
jacobian = ODESimulator(system).sensitivities(test.params) * stretch[:, None, None]
jacobian = np.where(np.isnan(counts)[..., None], 0, jacobian / noise_std[:, None])
jacobian = jacobian.reshape(len(counts), -1, system.n_params)
covariance = np.linalg.inv(jacobian.mT @ jacobian + 12 * np.eye(system.n_params))
limit = np.sqrt(np.einsum("npp->", covariance) / test.params.size)

# %%
# One table, one picture.
print(f"\n{'':26}{'rms error':>10}{'× limit':>9}{'ms/sample':>11}{'fit (s)':>9}")
for name, error, ms, fit_s in rows:
    print(f"{name:26}{error:10.4f}{error / limit:9.2f}{ms:11.3g}{fit_s:9.1f}")
print(f"{'limit (first order)':26}{limit:10.4f}{1:9.2f}")

figure, ax = plt.subplots(figsize=(8, 4.5), layout="constrained")
for i, (name, error, ms, _) in enumerate(rows):
    is_learned = "ADM" in name or "Reparam" in name
    marker = "*" if "refined" in name else "o" if is_learned else "s"
    ax.plot(ms, error, marker, color=f"C{i}", ms=11, label=name)
ax.axhline(limit, color="k", lw=1, ls="--", label="limit (first order)")
ax.set(xscale="log", xlabel="time per sample (ms)")
ax.set(ylabel="rms error (share of the box)", ylim=(0, None))
ax.set_title("Lotka–Volterra, eight counts of both species, 5 % noise")
figure.legend(loc="outside right upper", frameon=False)
picture = Path("compare_inverters.png")
figure.savefig(picture, dpi=120)
plt.close(figure)
print(f"Picture saved to {picture.resolve()}")
