"""How near does BiLO come to the truth, and what do its parts contribute?

All readings are exact. Growth y' = k y and logistic growth y' = k y (1 - y), 21 times up
to 1, from k = 1 to 2. Lotka–Volterra with four rates, 21 times up to 5, from half and
from one and a half times the truth, with one part turned off at a time: the errors that
residuals add up to, the residuals' gradient, the Gauss–Newton steps; then with rates off
in different directions, and the classic rates 1.5, 1, 3, 1 in the box [0.3, 6], which
oscillate faster. Least squares through the simulator solve all of these but the classic
ones from half, a local optimum. Then POLLU, 25 rates from
three snapshots with 1 % noise. "gradient" is the error of the upper level's gradient at
the start, relative to exact sensitivities; "net" the network's error there, relative to
the spread of the channels.

    python benchmarks/inverters_bilo.py
"""

import time
import warnings

import numpy as np
import torch
from _report import short, write_report

from sklearn_inverse import BiLOInverter, ODESimulator, ODESystem, ReactionSystem
from sklearn_inverse.datasets import make_inverse_problem
from sklearn_inverse.problems import lotka_volterra, pollu

BOX = [[0.5, 4.0]]
MIXED = np.array([0.6, 1.4, 1.3, 0.7])
VARIANTS = {
    "default": {},
    "w_error=0": {"w_error": 0.0},
    "w_rgrad=0": {"w_rgrad": 0.0},
    "upper=adam": {"upper": "adam"},
    "as the paper": {
        "w_error": 0.0,
        "upper": "adam",
        "optimizer": "adam",
        "lr_net": 1e-3,
        "lr_params": 1e-3,
    },
}


def growth(t, y, params):
    """Exponential growth."""
    return params * y


def logistic(t, y, params):
    """Logistic growth."""
    return params * y * (1 - y)


def main():
    """Run the benchmark."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    times = np.linspace(0.0, 1.0, 21)
    rows = []
    for name, rhs, start in (("growth", growth, 1.0), ("logistic", logistic, 0.1)):
        system = ODESystem(rhs, initial_state=[start], bounds=BOX, times=times)
        for variant in VARIANTS:
            rows.append(row(name, system, [2.0], [1.0], "1 to 2", variant))
    system = lotka_volterra(times=np.linspace(0.0, 5.0, 21))
    for factor in (0.5, 1.5):
        for variant in VARIANTS:
            start, truth = factor * system.nominal, system.nominal
            rows.append(row("LV", system, truth, start, f"x {factor}", variant))
    start = MIXED * system.nominal
    rows.append(row("LV", system, system.nominal, start, "mixed", "default"))
    classic = ReactionSystem(
        ["X -> 2 X", "X + Y -> Y", "Y ->", "X + Y -> X + 2 Y"],
        initial_state={"X": 1.0, "Y": 1.0},
        nominal=[1.5, 1.0, 3.0, 1.0],
        bounds=[[0.3, 6.0]] * 4,
        scale="log10",
        times=np.linspace(0.0, 5.0, 21),
    )
    for factor in (0.5, 1.5):
        start, truth = factor * classic.nominal, classic.nominal
        rows.append(row("classic LV", classic, truth, start, f"x {factor}", "default"))
    rows += [pollu_row(upper) for upper in ("gauss_newton", "adam")]
    write_report("inverters_bilo", rows, threads=1, seed=0, **cost())


def row(name, system, truth, start, start_name, variant):
    """Recover one truth from exact readings."""
    truth, start = np.asarray(truth), np.clip(start, *np.array(system.bounds).T)
    simulator = ODESimulator(system, rtol=1e-9)
    pairs = simulator.simulate(np.stack([truth, truth]))
    inverter = BiLOInverter(
        system=system,
        n_channels=pairs.shape[2],
        start=start,
        random_state=0,
        **VARIANTS[variant],
    )
    inverter.fit(pairs, np.stack([truth, truth]))
    begin = time.perf_counter()
    result = inverter.invert(pairs[:1])
    seconds = time.perf_counter() - begin
    found = result.params[0]
    return {
        "system": name,
        "start": start_name,
        "variant": variant,
        "worst relative error": short(np.abs(found / truth - 1).max()),
        "steps": int(result.n_iter[0]),
        "settled": bool(result.status[0] == 0),
        "s": short(seconds),
        "net": short(np.max(inverter.operator_error_ / inverter.channel_scaler_.std)),
        "gradient": short(gradient_error(inverter, simulator, pairs[0], start)),
    }


def gradient_error(inverter, simulator, readings, start):
    """Compare the upper level's gradient at the start with exact sensitivities."""
    weights = 1 / inverter.channel_scaler_.std
    theta = torch.as_tensor(inverter._start_unit).float()
    layers = [layer.float() for layer in inverter._layers]
    _, jacobian = inverter._operator.linearize(layers, theta)
    jacobian = jacobian[0].double().numpy()
    misfit = (simulator.simulate(start[None])[0] - readings) * weights**2
    step = torch.as_tensor(inverter._start_unit)
    slope = torch.func.jacfwd(inverter.scaler_.to_physical_tensor)(step[0]).numpy()
    exact = simulator.sensitivities(start[None])[0] @ slope
    expected = np.einsum("tc,tcp->p", misfit, exact)
    found = np.einsum("tc,ptc->p", misfit, jacobian)
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def pollu_row(upper, n_samples=4):
    """Invert three snapshots of all species, with 1 % noise."""
    system = pollu()
    pairs = make_inverse_problem(system, 8, random_state=0)
    y = pairs.observations.reshape(8, system.n_times, system.n_channels)
    rng = np.random.default_rng(0)
    noise = 0.01 * y.std(axis=(0, 1))
    readings = y + noise * rng.standard_normal(y.shape)
    hidden = rng.random((8, system.n_times - 1)).argsort(axis=1) >= 3
    readings[:, 0] = np.nan
    readings[:, 1:][hidden] = np.nan
    inverter = BiLOInverter(
        system=system,
        noise_std=noise,
        n_channels=system.n_channels,
        time_scale="log",
        onset=1e-3,
        width=48,
        pretrain_iter=1000,
        upper=upper,
        max_iter=1000,
        random_state=0,
    )
    inverter.fit(y, pairs.params)
    begin = time.perf_counter()
    found = inverter.predict(readings[:n_samples])
    seconds = time.perf_counter() - begin
    unit, truth = (inverter.scaler_.to_unit(x) for x in (found, pairs.params))
    error = np.sqrt(np.mean((unit - truth[:n_samples]) ** 2))
    prior = np.sqrt(np.mean((0.5 - truth[:n_samples]) ** 2))
    return {
        "system": f"POLLU, {n_samples} samples",
        "start": "center",
        "variant": f"upper={upper}",
        "steps": inverter.max_iter,
        "s": short(seconds),
        "net": short(np.max(inverter.operator_error_ / inverter.channel_scaler_.std)),
        "rms unit error": short(error),
        "of the prior": short(prior),
    }


def cost(n_steps=200):
    """Time steps of a default network: of many samples together, and per variant."""
    system = lotka_volterra(times=np.linspace(0.0, 5.0, 21))
    params = np.stack([0.8 * system.nominal] * 32)
    pairs = ODESimulator(system).simulate(params)
    found = {}
    for variant, n_samples in (
        ("default", 1),
        ("default", 32),
        ("upper=adam", 1),
        ("w_error=0", 1),
    ):
        inverter = BiLOInverter(
            system=system,
            n_channels=2,
            pretrain_iter=50,
            max_iter=n_steps,
            tol=0.0,
            random_state=0,
            **VARIANTS[variant],
        ).fit(pairs, params)
        begin = time.perf_counter()
        inverter.predict(pairs[:n_samples])
        seconds = (time.perf_counter() - begin) / n_steps
        found[f"ms per step, {variant}, {n_samples} samples"] = short(1e3 * seconds)
    for name, value in found.items():
        print(name, value)
    return found


if __name__ == "__main__":
    main()
