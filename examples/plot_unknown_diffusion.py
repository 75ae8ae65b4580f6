"""
An unknown function: the diffusivity of a material from a few noisy readings
============================================================================

A rod is heated along its length and kept cool at both ends. Where it conducts well its
temperature is flat; so from the temperature one can tell the diffusivity D(x). We do not
know its form, only that it is positive, smooth more or less, and one at both ends.

How smooth is for the readings to say: of several priors we take the one under which they
are the likeliest.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from sklearn_inverse import GradientInverter, PDESystem, PointValues
from sklearn_inverse.probability import GaussianFunction
from sklearn_inverse.systems import FiniteDifferences

# %%
# The equation as in a paper, and what its solution must be at the ends.
x = np.linspace(0, 1, 51)[1:-1]


def rod(scale):
    """Return the rod, its log-diffusivity bending as much as ``scale`` says."""
    diffusivity = GaussianFunction(51, order=2, scale=scale, ends=(1, 1), link="exp")
    return PDESystem(
        domain={"x": (0, 1)},
        residual=lambda x, u, p: (p.D * u.x).x + np.pi**2 * np.sin(np.pi * x.x),
        constraint=lambda x, n: n * x.x * (1 - x.x),
        params={"D": diffusivity},
        observe=PointValues(x),
        noise=0.01,
        grid=FiniteDifferences(101),
        name="rod",
    )


# %%
# What nobody knows: a kink in the middle.
truth = 1.5 - np.abs(x - 0.5)
temperature = rod(1).solve(truth)[0]
rng = np.random.default_rng(0)
readings = np.interp(x, rod(1).nodes, temperature) + 0.01 * rng.standard_normal(x.size)

# %%
# One answer for each scale of the prior, and the evidence for each.
scales, answers = [0.25, 0.5, 1, 2, 4, 8], []
for scale in scales:
    inverter = GradientInverter(rod(scale), n_starts=1, max_solves=0).fit([readings])
    answers.append(inverter.posterior([readings]))
evidence = np.array([answer.log_evidence[0] for answer in answers])
best = int(evidence.argmax())
low, high = answers[best].interval(0.9)
error = np.linalg.norm(answers[best].mean - truth) / np.linalg.norm(truth)
print(f"scale {scales[best]:g}: relative error of D {error:.1%}")
print(f"{np.mean((low < truth) & (truth < high)):.0%} of D inside the 90 % band")

# %%
# The temperature, the diffusivity with its band, and how the scale was chosen.
figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
axes[0].plot(x, readings, ".", label="readings")
axes[0].plot(rod(1).nodes, temperature, label="truth")
axes[0].set(xlabel="x", ylabel="temperature")
axes[1].fill_between(x, low[0], high[0], alpha=0.3, label="90 % band")
axes[1].plot(x, answers[best].mean[0], label="posterior mean")
axes[1].plot(x, truth, "k--", label="truth")
axes[1].set(xlabel="x", ylabel="diffusivity D")
axes[2].plot(np.log2(scales), evidence, "o-")
axes[2].set_xticks(np.log2(scales), [f"{scale:g}" for scale in scales])
axes[2].set(xlabel="scale of the prior", ylabel="log evidence")
for axis in axes[:2]:
    axis.legend()
picture = Path("unknown_diffusion.png")
figure.savefig(picture, dpi=120)
print(f"Picture saved to {picture.resolve()}")
