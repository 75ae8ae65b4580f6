"""How near does BiLO come to the truth, and what do its parts contribute?

All readings are exact, the prior does not count. Growth y' = k y and logistic growth
y' = k y (1 - y), 21 times up to 1, from k = 1 to 2. Lotka–Volterra with four rates, 21
times up to 5, from half and from one and a half times the truth, with one part turned off
at a time: the errors that residuals add up to, the residuals' gradient, the Gauss–Newton
steps; then with rates off in different directions, and the classic rates 1.5, 1, 3, 1 in
the box [0.3, 6], which oscillate faster. Least squares through the simulator solve all of
these but the classic ones from half, a local optimum. Then POLLU, 25 rates from three
snapshots with 1 % noise. "gradient" is the error of the upper level's gradient at the
start, relative to exact sensitivities; "net" the network's error there, relative to the
spread of the observables.

    python benchmarks/inverters_bilo.py
"""

import time
import warnings

import numpy as np
import torch
from _ino import InoProblem
from _report import short, write_report
from sklearn.base import clone

from sklearn_inverse import ODESimulator, ODESystem, ReactionSystem
from sklearn_inverse.collocation import Bilevel, LocalNetwork
from sklearn_inverse.inverse import BiLOInverter
from sklearn_inverse.probability import LogUniform
from sklearn_inverse.problems import lotka_volterra

NOISE = 0.01  # of each observable's spread: how closely readings are to be met
MIXED = np.array([0.6, 1.4, 1.3, 0.7])
VARIANTS = {
    "default": {},
    "error_weight=0": {"error_weight": 0.0},
    "residual_gradient_weight=0": {"residual_gradient_weight": 0.0},
    "params_optimizer=adam": {"descent": Bilevel(params_optimizer="adam")},
    "as the paper": {
        "error_weight": 0.0,
        "descent": Bilevel(
            params_optimizer="adam", optimizer="adam", lr_net=1e-3, lr_params=1e-3
        ),
    },
}


def growth(t, y, p):
    """Exponential growth."""
    return p.k * y.size


def logistic(t, y, p):
    """Logistic growth."""
    return p.k * y.size * (1 - y.size)


def main():
    """Run the benchmark."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows = []
    for rhs, start in ((growth, 1.0), (logistic, 0.1)):
        system = ODESystem(
            rhs,
            states={"size": start},
            params={"k": (0.5, 4.0)},
            times=np.linspace(0.0, 1.0, 21),
        )
        for variant in VARIANTS:
            rows.append(row(system, [2.0], [1.0], "1 to 2", variant))
    system = lotka_volterra(times=np.linspace(0.0, 5.0, 21))
    truth = system.nominal
    for factor in (0.5, 1.5):
        for variant in VARIANTS:
            rows.append(row(system, truth, factor * truth, f"x {factor}", variant))
    rows.append(row(system, truth, MIXED * truth, "mixed", "default"))
    classic = ReactionSystem(
        {"X -> 2 X": "a", "X + Y -> Y": "b", "Y ->": "c", "X + Y -> X + 2 Y": "d"},
        initial={"X": 1.0, "Y": 1.0},
        params=dict.fromkeys("abcd", LogUniform(0.3, 6.0)),
        times=np.linspace(0.0, 5.0, 21),
        name="classic",
    )
    truth = np.array([1.5, 1.0, 3.0, 1.0])
    for factor in (0.5, 1.5):
        rows.append(row(classic, truth, factor * truth, f"x {factor}", "default"))
    rows += [pollu_row(optimizer) for optimizer in ("gauss_newton", "adam")]
    write_report("inverters_bilo", rows, threads=1, seed=0, **cost())


def row(system, truth, start, start_name, variant):
    """Recover one truth from exact readings."""
    truth, start = np.asarray(truth), np.clip(start, *np.array(system.bounds).T)
    readings = ODESimulator(system, rtol=1e-9).simulate(truth[None])
    spread = readings[0].std(axis=0)
    simulator = ODESimulator(system.with_noise(NOISE * spread), rtol=1e-9)
    inverter = BiLOInverter(
        simulator, start=start, prior=None, random_state=0, **VARIANTS[variant]
    ).fit(readings)
    begin = time.perf_counter()
    estimate = inverter.invert(readings)
    seconds = time.perf_counter() - begin
    result = {
        "system": system.name,
        "start": start_name,
        "variant": variant,
        "worst relative error": short(np.abs(estimate.params[0] / truth - 1).max()),
        "steps": int(estimate.n_iter[0]),
        "settled": bool(estimate.status[0] == 0),
        "s": short(seconds),
        "net": short(np.max(inverter.operator_error_ / spread)),
        "gradient": short(gradient_error(inverter, simulator, readings[0], start)),
    }
    print(result, flush=True)
    return result


def gradient_error(inverter, simulator, readings, start):
    """Compare the upper level's gradient at the start with exact sensitivities."""
    theta = inverter._start.cpu()
    layers = [layer.float() for layer in inverter._layers]
    _, jacobian = inverter._operator.linearize(layers, theta)
    mean, exact = simulator.linearize(theta)
    misfit = (mean[0] - torch.as_tensor(readings)) / torch.as_tensor(
        readings.std(axis=0) ** 2
    )
    expected, found = (
        torch.einsum("tc,tcp->p", misfit, j[0].double()) for j in (exact, jacobian)
    )
    return float((found - expected).norm() / expected.norm())


def pollu_row(params_optimizer, n_samples=4):
    """Invert three snapshots of all species, with 1 % noise."""
    problem = InoProblem("pollu", 2_000, 100)
    readings = problem.observations[:n_samples]
    inverter = BiLOInverter(
        problem.system,
        network=LocalNetwork(width=48, time_scale="log", onset=1e-3),
        pretrain_iter=1000,
        descent=Bilevel(params_optimizer=params_optimizer, max_iter=1000),
        random_state=0,
    ).fit(readings)
    begin = time.perf_counter()
    found = inverter.predict(readings)
    seconds = time.perf_counter() - begin
    middle = np.stack([problem.system.nominal] * n_samples)
    error, prior = (
        np.sqrt(np.mean(problem.scaled_error(x) ** 2)) for x in (found, middle)
    )
    result = {
        "system": f"POLLU, {n_samples} samples",
        "start": "center",
        "variant": f"params_optimizer={params_optimizer}",
        "steps": inverter.descent.max_iter,
        "s": short(seconds),
        "net": short(np.max(inverter.operator_error_ / problem.channel_std)),
        "rms scaled error": short(error),
        "of the prior": short(prior),
    }
    print(result, flush=True)
    return result


def cost(n_steps=200):
    """Time steps of a default network: of many samples together, and per variant."""
    system = lotka_volterra(times=np.linspace(0.0, 5.0, 21))
    readings = ODESimulator(system).simulate(np.stack([0.8 * system.nominal] * 32))
    found = {}
    for variant, n_samples in (
        ("default", 1),
        ("default", 32),
        ("params_optimizer=adam", 1),
        ("error_weight=0", 1),
    ):
        inverter = BiLOInverter(
            system.with_noise(NOISE * readings[0].std(axis=0)),
            pretrain_iter=50,
            random_state=0,
            **VARIANTS[variant],
        )
        inverter = clone(inverter)  # variants share their options
        inverter.set_params(descent__max_iter=n_steps, descent__tol=0.0).fit(readings)
        begin = time.perf_counter()
        inverter.predict(readings[:n_samples])
        seconds = (time.perf_counter() - begin) / n_steps
        found[f"ms per step, {variant}, {n_samples} samples"] = short(1e3 * seconds)
    for name, value in found.items():
        print(name, value)
    return found


if __name__ == "__main__":
    main()
