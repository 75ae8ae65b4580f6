"""
Lynx and hare: eight unknowns of a predator-prey model from a fur-trade record
==============================================================================

The Hudson's Bay Company counted pelts of lynx and snowshoe hare for a century. We take
the 21 years from 1900, assume that the two species follow the Lotka-Volterra equations,
and ask for the four rates, the two populations at the start, and how much the counts of
either species scatter. A published Bayesian analysis of the same data, with the same
priors, tells whether we are right.

The exact fit takes seconds; the trained inverter beside it about two minutes.
"""

import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from sklearn_inverse import ADMInverter, GradientInverter, ODESurrogate, ReactionSystem
from sklearn_inverse.datasets import load_lynx_hare, make_inverse_problem
from sklearn_inverse.inspection import (
    PairDisplay,
    ProfileDisplay,
    ResidualDisplay,
    StartsDisplay,
    TrajectoryDisplay,
    identifiability,
)
from sklearn_inverse.probability import LogNormal, Normal

# %%
# The model and its priors, as published: rates around once per year, within their size;
# counts are off by a factor, not by a number, and by how much is unknown too.
system = ReactionSystem(
    {
        "hare -> 2 hare": "alpha",
        "hare + lynx -> lynx": "beta",
        "lynx ->": "gamma",
        "hare + lynx -> hare + 2 lynx": "delta",
    },
    initial={"hare": "hare0", "lynx": "lynx0"},
    params={
        "alpha": Normal(1, 0.5).truncate(low=0),
        "beta": Normal(0.05, 0.05).truncate(low=0),
        "gamma": Normal(1, 0.5).truncate(low=0),
        "delta": Normal(0.05, 0.05).truncate(low=0),
        "hare0": LogNormal(10, 1),
        "lynx0": LogNormal(10, 1),
        "sigma_hare": LogNormal(np.exp(-1), 1),
        "sigma_lynx": LogNormal(np.exp(-1), 1),
    },
    times=np.arange(21.0),
    noise={"hare": LogNormal("sigma_hare"), "lynx": LogNormal("sigma_lynx")},
    units={"time": "years since 1900", "states": "thousand pelts"},
    name="lynx and hare",
)
data = load_lynx_hare()

# %%
# Fit, on the exact model. Nothing is trained.
start = time.perf_counter()
inverter = GradientInverter(system, random_state=0).fit(data.observations)
posterior = inverter.posterior(data.observations)
print(posterior[0])
print(f"\n{time.perf_counter() - start:.1f} s, compiling included")


def compare(title, posterior):
    """Print means and standard deviations beside the published ones."""
    print(
        f"\n{title:12}{'estimate':>10}{'± sd':>9}   {'published':>10}{'± sd':>9}   {'z':>5}"
    )
    published = zip(*(data.published[key] for key in ("param_names", "mean", "std")))
    for (name, mean, std), ours, sd in zip(
        published, posterior.mean[0], posterior.std[0]
    ):
        z = (ours - mean) / std
        print(f"{name:12}{ours:10.4g}{sd:9.2g}   {mean:10.4g}{std:9.2g}   {z:5.2f}")


compare("exact", posterior)
print("z: distance from the published posterior mean, in published standard deviations")

# %%
# What can be known: limits of each param by the readings alone, the prior left out.
print(f"\n{identifiability(inverter, data.observations)}")

# %%
# All pictures on one page. Trajectories: the dark band holds the populations, the light
# one the counts, which scatter around them. Residuals should have no pattern in time,
# and follow the diagonal. Starts that end on one step found one optimum. A profile that
# crosses the dashed line on both sides has two limits. Pairs show which params are tied.
page = plt.figure(figsize=(14, 17), layout="constrained")
top, bottom = page.subfigures(2, 1, height_ratios=(1, 1.1))
left, right = top.subfigures(1, 2, width_ratios=(1, 1.1))
model, readings = inverter.model_, data.observations
told = {"model": model, "observations": readings}
above, below, last = left.subfigures(3, 1, height_ratios=(2.4, 1, 0.8))
TrajectoryDisplay.from_posterior(posterior, **told, ax=above.subplots(2, 1))
ResidualDisplay.from_posterior(posterior, **told, ax=below.subplots(1, 2))
StartsDisplay.from_estimator(inverter, readings, ax=last.subplots())
ProfileDisplay.from_estimator(inverter, readings, ax=right.subplots(4, 2))
PairDisplay.from_posterior(posterior, ax=bottom.subplots(8, 8))
picture = Path("lynx_hare.png")
page.savefig(picture, dpi=100)
print(f"Picture saved to {picture.resolve()}")

# %%
# The amortized road, for comparison: trained on simulated records, it would answer for
# thousands of such records in milliseconds each. For a single one it is the longer way,
# and under priors as broad as these so short a training answers vaguely.
start = time.perf_counter()
pairs = make_inverse_problem(system, 4_000, n_jobs=-1, random_state=0)
amortized = ADMInverter(
    ODESurrogate(system, basis_epochs=100, random_state=0), random_state=0, verbose=1
).set_params(training__max_epochs=15, model__training__max_epochs=2)
amortized.fit(pairs.observations, pairs.params)
compare("amortized", amortized.posterior(data.observations))
print(f"{time.perf_counter() - start:.0f} s, training included")
