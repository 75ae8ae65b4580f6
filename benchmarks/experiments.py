"""What several experiments, doses and inputs cost, beside other ways to the same answer.

One thread: OMP_NUM_THREADS=1 python benchmarks/experiments.py
"""

import time

import numpy as np
from scipy.optimize import curve_fit, least_squares
from scipy.special import lambertw

from sklearn_inverse import Experiment, GradientInverter, ODESimulator, ODESystem
from sklearn_inverse.datasets import read_table
from sklearn_inverse.probability import LogUniform

PATH = "examples/progress_curves.csv"
RATES = [f"k{i}" for i in range(1, 8)]
SPECIES = [f"x{i}" for i in range(1, 8)]
MEASURED = [
    ["x2"],
    ["x1", "x3"],
    ["x2", "x4", "x5"],
    ["x3", "x5", "x6", "x7"],
    ["x1", "x2", "x4", "x6", "x7"],
    ["x4", "x7"],
]
GRIDS = [
    np.linspace(0.5, end, n)
    for end, n in zip((6, 10, 20, 30, 15, 40), (8, 10, 12, 12, 9, 14))
]
TRUTH = np.array([0.8, 0.5, 0.3, 0.6, 0.2, 0.4, 0.1, 1, 3, 2, 5, 4, 8])


def enzyme(t, y, p, u):
    """Turn a substrate over, by Michaelis and Menten."""
    rate = p.vmax * u.warmth * y.s / (p.km + y.s)
    return -rate, rate


def timed(function):
    """Return a result, and the seconds it took."""
    begin = time.perf_counter()
    result = function()
    return result, time.perf_counter() - begin


def progress_curves():
    """Fit three progress curves, from CSV to report, beside the closed form."""
    system = ODESystem(
        lambda t, y, p: enzyme(t, y, p, Warm),
        states={"s": "s0", "product": 0.0},
        inputs=["s0"],
        params={"vmax": (0.1, 10), "km": (0.1, 50), "sigma": (0.001, 1)},
        observe=["product"],
        noise="sigma",
    )

    def fit():
        known, observed = read_table(system, PATH)
        inverter = GradientInverter(known, random_state=0).fit(observed)
        posterior = inverter.posterior(observed)
        return posterior, str(posterior[0])

    fit()  # compiled
    (posterior, _), seconds = timed(fit)
    data = np.genfromtxt(PATH, delimiter=",", skip_header=1, usecols=(1, 2, 3))

    def closed(x, vmax, km):
        s0, t = x
        return s0 - km * np.real(lambertw(s0 / km * np.exp((s0 - vmax * t) / km)))

    best, covariance = curve_fit(closed, data[:, :2].T, data[:, 2], p0=[1, 1])
    error = np.sqrt(np.diag(covariance))
    off = posterior.mean[0, :2] / best - 1, posterior.std[0, :2] / error - 1
    print(
        f"progress curves: {seconds:.2f} s from CSV to report; off curve_fit by", *off
    )


class Warm:
    """One temperature for all."""

    warmth = 1.0


def six_at_once():
    """Simulate six experiments of 1,000 samples, and 6,000 samples of one."""
    common = {
        "rhs": enzyme,
        "states": {"s": 4.0, "product": 0.0},
        "params": {"vmax": (0.1, 10), "km": (0.1, 50)},
        "noise": 0.05,
        "inputs": ["warmth"],
    }
    times = np.linspace(0, 10, 11)
    six, one = (
        ODESystem(
            **common,
            experiments=[
                Experiment(times, inputs={"warmth": 1 + i / 10}) for i in range(n)
            ],
        )
        for n in (6, 1)
    )
    params = six.prior.draw(1000, np.random.RandomState(0))
    for name in ("simulate", "sensitivities"):
        ratios = []
        for _ in range(7):
            seconds = [
                timed(lambda s=s, p=p: getattr(ODESimulator(s), name)(p))[1]  # noqa: B023
                for s, p in ((six, params), (one, np.repeat(params, 6, axis=0)))
            ]
            ratios.append(seconds[0] / seconds[1])
        print(f"{name}: 6 x 1,000 cost {np.median(ratios):.2f} times 6,000")


def chain(t, y, p):
    """Pass something on through seven states."""
    flow = [p[i] * y[i] for i in range(7)]
    return [-flow[0], *(flow[i] - flow[i + 1] for i in range(6))]


def seven_states():
    """Fit 13 params of a chain in six experiments, beside a multistart of SciPy's."""
    starts = [f"start{c}" for c in range(6)]
    system = ODESystem(
        chain,
        states=dict.fromkeys(SPECIES, 0.0),
        params=dict.fromkeys([*RATES, *starts], LogUniform(1e-4, 1e4)),
        noise=1.0,
        experiments=[
            Experiment(times, initial={"x1": start}, observables=names, start=0)
            for times, start, names in zip(GRIDS, starts, MEASURED)
        ],
    )
    rng = np.random.default_rng(5)
    mask = system.protocol.measured(system.observable_names)
    clean = ODESimulator(system, rtol=1e-10).simulate(TRUTH[None])[0]
    std = 0.03 * np.abs(clean) + 0.01
    readings = np.where(mask, clean + std * rng.standard_normal(std.shape), np.nan)
    inverter = GradientInverter(system, prior=None, random_state=0)

    def fit():
        fitted = inverter.fit(readings[None])
        return fitted.posterior(readings[None], noise_std=std[None])

    fit()  # compiled
    posterior, seconds = timed(fit)

    def residuals(log):
        theta = 10**log
        k = theta[:7]
        values, vectors = np.linalg.eig(np.diag(-k) + np.diag(k[:6], -1))
        inverse = np.linalg.inv(vectors)
        parts = []
        for times, amount in zip(GRIDS, theta[7:]):
            weights = vectors * (amount * inverse[:, 0])
            parts.append(np.real(weights @ np.exp(np.outer(values, times))).T)
        return ((np.concatenate(parts) - readings) / std)[mask]

    costs = []
    for start in [np.log10(TRUTH), *rng.uniform(-4, 4, (59, 13))]:
        try:
            end = least_squares(residuals, start, bounds=(-4, 4), xtol=1e-12)
        except (ValueError, np.linalg.LinAlgError):
            continue
        costs.append(end.cost)
    mine = 0.5 * (residuals(np.log10(posterior.params[0])) ** 2).sum()
    gap = mine - min(costs)
    print(
        f"seven states: {seconds:.2f} s, {gap:.1e} above the best of {len(costs)} starts"
    )


if __name__ == "__main__":
    progress_curves()
    six_at_once()
    seven_states()
