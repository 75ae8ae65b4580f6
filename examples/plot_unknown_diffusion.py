"""
An unknown function: the diffusivity of a material from a few noisy readings
============================================================================

A rod is heated along its length and kept cool at both ends. Where it conducts well its
temperature is flat; so from the temperature one can tell the diffusivity D(x). We do not
know its form, only that it is positive, smooth more or less, and one at both ends.

How smooth is for the readings to say: a prior whose scale is not given gets the one under
which they are the likeliest. The exact way solves the equation again and again; BiLO
trains a network on it while D moves, and needs no solver.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from sklearn_inverse import BiLOInverter, GradientInverter, PDESystem, PointValues
from sklearn_inverse.collocation import Bilevel
from sklearn_inverse.probability import GaussianFunction
from sklearn_inverse.systems import FiniteDifferences

# %%
# The equation as in a paper, and what its solution must be at the ends.
x = np.linspace(0, 1, 51)[1:-1]


def make_rod(n_nodes, scale=None):
    """Return the rod, with so many nodes for D."""
    return PDESystem(
        domain={"x": (0, 1)},
        residual=lambda x, u, p: (p.D * u.x).x + np.pi**2 * np.sin(np.pi * x.x),
        constraint=lambda x, n: n * x.x * (1 - x.x),
        params={
            "D": GaussianFunction(
                n_nodes, order=2, scale=scale, ends=(1, 1), link="exp"
            )
        },
        observe=PointValues(x),
        noise=0.01,
        grid=FiniteDifferences(101),
        name="rod",
    )


rod = make_rod(51)

# %%
# What nobody knows: a kink in the middle.
truth = 1.5 - np.abs(x - 0.5)
temperature = rod.solve(truth)[0]
rng = np.random.default_rng(0)
readings = np.interp(x, rod.nodes, temperature) + 0.01 * rng.standard_normal(x.size)

# %%
# One line, and what it found.
inverter = GradientInverter(rod, n_starts=1, max_solves=0).fit([readings])
posterior = inverter.posterior([readings])
low, high = posterior.interval(0.9)
error = np.linalg.norm(posterior.mean - truth) / np.linalg.norm(truth)
print(f"scale {posterior.scales[0, 0]:g}: relative error of D {error:.1%}")
print(f"{np.mean((low < truth) & (truth < high)):.0%} of D inside the 90 % band")

# %%
# BiLO, with the scale that was found, and fewer nodes: each is a direction that the
# network must learn.
coarse = make_rod(17, scale=posterior.scales[0, 0])
bilo = BiLOInverter(coarse, descent=Bilevel(max_iter=800), random_state=0).fit(
    [readings]
)
estimate = bilo.invert([readings])
nodes = np.linspace(0, 1, 17)[1:-1]
apart = estimate.params[0] - np.interp(nodes, x, posterior.mean[0])
print(
    f"BiLO: at most {np.abs(apart).max():.2g} from the exact curve, its temperature "
    f"{estimate.network_error[0]:.1e} from the solution of its own D"
)

# %%
# The temperature, and the diffusivity with its band.
figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
axes[0].plot(x, readings, ".", label="readings")
axes[0].plot(rod.nodes, temperature, label="truth")
axes[0].set(xlabel="x", ylabel="temperature")
axes[1].fill_between(x, low[0], high[0], alpha=0.3, label="90 % band")
axes[1].plot(x, posterior.mean[0], label="posterior mean")
axes[1].plot(nodes, estimate.params[0], "o-", ms=3, label="BiLO")
axes[1].plot(x, truth, "k--", label="truth")
axes[1].set(xlabel="x", ylabel="diffusivity D")
for axis in axes:
    axis.legend()
picture = Path("unknown_diffusion.png")
figure.savefig(picture, dpi=120)
print(f"Picture saved to {picture.resolve()}")
