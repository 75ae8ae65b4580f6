"""How fast are models that are not mass action, written as functions, once compiled?

FitzHugh-Nagumo (2 states, 4 params, 301 times) and Kholodenko's MAPK cascade (8 states,
22 params, 17 times; fitted in 10 of them), one thread. Tracing and compiling from an empty
cache and from a full one; trajectories a second with and without the derivatives by all
params; one trajectory against SciPy's odeint with a right-hand side in plain Python, at the
same tolerances; one fit of one data set, from ``fit`` to the posterior, against SciPy's
least_squares with LSODA from one start. The loop over the steps, which numba compiles once
per machine, is there beforehand.

    python benchmarks/compiled_models.py
"""

import argparse
import os
import tempfile
import time

import numpy as np
import torch
from _report import short, write_report
from scipy.integrate import odeint
from scipy.optimize import least_squares

from sklearn_inverse import GradientInverter, ODESimulator, ODESystem
from sklearn_inverse.ode.compiled import _compile
from sklearn_inverse.probability import LogUniform

RTOL, ATOL = 1e-6, 1e-9
ACTIVE = {
    **{"V1": 2.5, "V2": 0.25, "k3": 0.025, "k4": 0.025, "V5": 0.75},
    **{"V6": 0.75, "k7": 0.025, "k8": 0.025, "V9": 0.5, "V10": 0.5},
}
OTHERS = {"n": 1.0, "Ki": 9.0, "K1": 10.0, "K2": 8.0}
OTHERS |= {f"K{i}": 15.0 for i in range(3, 11)}


def fitzhugh_nagumo(t, y, p):
    """Spikes of a neuron."""
    v, w = y
    return v - v**3 / 3 - w + p.i, p.c * (v + p.a - p.b * w)


def mapk(t, y, p):
    """Cascade of kinases with feedback (Kholodenko 2000)."""
    a, a1, b, b1, b2, c, c1, c2 = y
    v1 = p.V1 * a / ((1 + (c2 / p.Ki) ** p.n) * (p.K1 + a))
    v2 = p.V2 * a1 / (p.K2 + a1)
    v3, v4 = p.k3 * a1 * b / (p.K3 + b), p.k4 * a1 * b1 / (p.K4 + b1)
    v5, v6 = p.V5 * b2 / (p.K5 + b2), p.V6 * b1 / (p.K6 + b1)
    v7, v8 = p.k7 * b2 * c / (p.K7 + c), p.k8 * b2 * c1 / (p.K8 + c1)
    v9, v10 = p.V9 * c2 / (p.K9 + c2), p.V10 * c1 / (p.K10 + c1)
    by_a, by_b = (v2 - v1, v1 - v2), (v6 - v3, v3 + v5 - v4 - v6, v4 - v5)
    return *by_a, *by_b, v10 - v7, v7 + v9 - v8 - v10, v8 - v9


def factor_two(values):
    """Return priors within a factor of two of values."""
    return {name: LogUniform(x / 2, 2 * x) for name, x in values.items()}


def systems():
    """Return each system with how it is fitted, and the truth of what is fitted."""
    names = [f"{x}{i}" for x, n in (("a", 2), ("b", 3), ("c", 3)) for i in range(n)]
    states = dict(zip(names, (90.0, 10, 280, 10, 10, 280, 10, 10)))
    spikes = {"a": 0.7, "b": 0.8, "c": 0.08, "i": 0.5}
    neuron = ODESystem(
        fitzhugh_nagumo,
        states={"v": 1.0, "w": 1.0},
        params={name: LogUniform(0.01, 5) for name in spikes},
        times=np.linspace(0, 30, 301),
        noise=0.05,
        nominal=spikes,
    )
    options = {"states": states, "times": np.linspace(0, 1500, 17), "noise": 3.0}
    options["observe"] = ["b2", "c1", "c2"]
    cascade = ODESystem(mapk, params=factor_two(ACTIVE | OTHERS), **options)
    fitted = ODESystem(mapk, params=factor_two(ACTIVE) | OTHERS, **options)
    return {
        "FitzHugh-Nagumo": (neuron, neuron, 0.05),
        "MAPK": (cascade, fitted, 3.0),
    }


def seconds(function, repeats=5):
    """Return the shortest of several runs."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def build(system):
    """Return seconds to trace and to compile, with derivatives, as if never done."""
    _compile.KNOWN.clear()
    _compile.KERNELS.clear()
    params = torch.as_tensor(system.nominal)[None]
    t, y = torch.as_tensor(system.times[:1]), system.initial_state(params)
    start = time.perf_counter()
    kernel = _compile.compile_function(system.solved, t, y, params)
    traced = time.perf_counter() - start
    for with_tangents in (False, True):
        kernel._build(with_tangents)
    return traced, time.perf_counter() - start - traced


def scipy_rates(system):
    """Return the right-hand side for odeint: plain Python, one sample."""
    names, constants = system.param_names, system.constants

    class Params:
        def __init__(self, values):
            self.__dict__.update(constants)
            self.__dict__.update(zip(names, values))

    function = system.solved.function
    return Params, lambda y, t, p: function(t, y, p)


def fit_scipy(system, noise_std, readings, start):
    """Fit by least_squares with LSODA, in logarithms; return the params."""
    make, rates = scipy_rates(system)
    channels = [system.state_names.index(name) for name in system.observable_names]
    y0 = system.initial_state(torch.as_tensor(system.nominal)[None])[0].numpy()
    bounds = np.log(system.bounds).T

    def residual(logs):
        y = odeint(rates, y0, system.times, (make(np.exp(logs)),), rtol=RTOL, atol=ATOL)
        off = (y[:, channels] - readings) / noise_std
        return off[~np.isnan(off)]

    return np.exp(least_squares(residual, np.log(start), bounds=bounds).x)


def measure(name, system, fitted, noise_std, n_samples):
    """Return one row."""
    build(system)  # imports what it needs
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SKLEARN_INVERSE_CACHE"] = folder
        traced, cold = build(system)
        warm = sum(build(system))
        del os.environ["SKLEARN_INVERSE_CACHE"]
    simulator = ODESimulator(system, atol=ATOL)
    rng = np.random.default_rng(0)
    params = system.nominal * rng.uniform(0.8, 1.25, (n_samples, system.n_params))
    some = params[: n_samples // 10]
    one = system.nominal[None]
    make, rates = scipy_rates(system)
    y0 = system.initial_state(torch.as_tensor(one))[0].numpy()

    def solve_scipy():
        odeint(rates, y0, system.times, (make(one[0]),), rtol=RTOL, atol=ATOL)

    simulator.simulate(params[:8])
    simulator.sensitivities(params[:8])
    truth = fitted.nominal
    readings = ODESimulator(fitted, atol=ATOL).simulate(truth[None])
    readings += noise_std * rng.standard_normal(readings.shape)
    readings[:, 0] = np.nan
    inverter = GradientInverter(fitted, n_starts=3, random_state=0)
    inverter.fit(readings).posterior(readings)
    posterior = inverter.posterior(readings)
    start = np.exp(rng.uniform(*np.log(fitted.bounds).T))
    peer = fit_scipy(fitted, noise_std, readings[0], start)
    return {
        "model": name,
        "trace_ms": short(1e3 * traced),
        "compile_s": short(cold),
        "from_cache_ms": short(1e3 * warm),
        "per_s": short(n_samples / seconds(lambda: simulator.simulate(params))),
        "with_sensitivities_per_s": short(
            len(some) / seconds(lambda: simulator.sensitivities(some))
        ),
        "one_ms": short(1e3 * seconds(lambda: simulator.simulate(one), 30)),
        "odeint_ms": short(1e3 * seconds(solve_scipy, 30)),
        "fit_s": short(seconds(lambda: inverter.fit(readings).posterior(readings), 3)),
        "least_squares_s": short(
            seconds(lambda: fit_scipy(fitted, noise_std, readings[0], start), 1)
        ),
        "off_sd": short(np.abs((posterior.mean[0] - truth) / posterior.std[0]).max()),
        "least_squares_off_sd": short(np.abs((peer - truth) / posterior.std[0]).max()),
    }


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n-samples", type=int, default=2_000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name, problem in systems().items():
        rows.append(measure(name, *problem, arguments.n_samples))
        write_report("compiled_models", rows, threads=1, **vars(arguments))


if __name__ == "__main__":
    main()
