"""
Lynx and hare: the params of a predator-prey model from a fur-trade record
==========================================================================

The Hudson's Bay Company counted pelts of lynx and snowshoe hare for a century. We take
the 21 years from 1900, assume that the two species follow the Lotka-Volterra equations,
and ask for the four rates and the two populations at the start: six unknowns, one noisy
record. A published Bayesian analysis of the same data tells whether we are right.

Runs in about three minutes on two cores.
"""

from pathlib import Path

import numpy as np
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sklearn_inverse import ADMInverter, ODESimulator, ODESurrogate
from sklearn_inverse.datasets import load_lynx_hare, make_inverse_problem
from sklearn_inverse.inspection import TrajectoryDisplay
from sklearn_inverse.problems import lotka_volterra

# %%
# The model, with a box for each unknown. The box is what we think possible beforehand:
# rates within a factor of two to three of once per year or per pelt-year.
bounds = {
    "alpha": (0.25, 1.2),
    "beta": (0.01, 0.07),
    "gamma": (0.35, 1.6),
    "delta": (0.009, 0.06),
    "hare0": (15.0, 75.0),
    "lynx0": (2.5, 14.0),
}
system = lotka_volterra(unknown_initial_state=True, bounds=list(bounds.values()))

# %%
# Simulated records teach the inverter. They are exact; it adds the noise itself.
simulated = make_inverse_problem(
    system, n_samples=20_000, n_jobs=-1, random_state=0, verbose=1
)

# %%
# Counts are off by a factor, not by a number: on their logarithms the noise is 0.25
# everywhere. The pipeline takes the logarithm on the way in.
inverter = make_pipeline(
    FunctionTransformer(np.log),
    ADMInverter(
        ODESurrogate(
            n_channels=system.n_channels,
            bounds=system.bounds,
            scale="log10",
            max_epochs=4,
            basis_epochs=150,
            random_state=0,
            verbose=1,
        ),
        n_channels=system.n_channels,
        noise_std=0.25,
        n_observed=system.n_times,
        max_epochs=60,
        random_state=0,
        verbose=1,
    ),
)
inverter.fit(simulated.observations, simulated.params)

# %%
# The real record, and what was published about it.
data = load_lynx_hare()
log_counts = inverter[:-1].transform(data.observations)
mean, std = inverter[-1].predict(log_counts, return_std=True)

print(f"\n{'':8}{'estimate':>10}{'± sd':>9}   {'published':>10}{'± sd':>9}   {'z':>5}")
for j, name in enumerate(system.param_names):
    published, spread = data.published["mean"][j], data.published["std"][j]
    z = (mean[0, j] - published) / spread
    print(
        f"{name:8}{mean[0, j]:10.4g}{std[0, j]:9.2g}   {published:10.4g}{spread:9.2g}"
        f"   {z:5.2f}"
    )
print("z: distance from the published posterior mean, in published standard deviations")

# %%
# Draws from the posterior, run through the exact solver month by month: does the model
# explain the record, and how sure is it between the counts?
months = np.linspace(0, 20, 241)
exact = ODESimulator(
    lotka_volterra(
        unknown_initial_state=True, bounds=list(bounds.values()), times=months
    )
)
draws = inverter[-1].sample(log_counts, n_draws=300)[0]
counts = np.full((len(months), 2), np.nan)
counts[::12] = data.observations.reshape(-1, 2)
display = TrajectoryDisplay.from_predictions(
    exact.simulate(mean)[0],
    observations=counts,
    draws=exact.simulate(draws),
    times=1900 + months,
    channel_names=system.channel_names,
    units="thousand pelts",
    time_label="year",
)
display.axes_[-1].set_xticks(range(1900, 1921, 4))
display.axes_[0].set_title(
    "Hudson's Bay pelts, Lotka-Volterra", loc="right", fontsize="medium"
)
picture = Path("lynx_hare.png")
display.figure_.savefig(picture, dpi=150, bbox_inches="tight")
print(f"Picture saved to {picture.resolve()}")
