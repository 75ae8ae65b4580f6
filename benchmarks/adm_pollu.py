"""Does ADM reach the Bayes limit on POLLU, and does it beat plain regression?

25 rate constants on k · [0.5, 1.5] from three random full-state snapshots with 1 %
noise. ADM (surrogate included) is trained first; a plain network that reads the same
slots with the same width and depth, on the same pairs with freshly drawn readings, gets
the same time. Errors are in unit params (the prior scores MSE 0.0833, MAE 0.25). The
limit is the mean Laplace variance of the same held-out samples, with sensitivities of
the exact simulator.

    python benchmarks/adm_pollu.py --threads 2
"""

import argparse
import copy
import math
import time

import numpy as np
import torch
from _pollu import PolluProblem
from _report import write_report
from sklearn.frozen import FrozenEstimator

from sklearn_inverse import ADMInverter, ODESimulator, ODESurrogate
from sklearn_inverse.networks._drift_batches import ReadingSimulator
from sklearn_inverse.networks._drift_net import DriftNet
from sklearn_inverse.networks._slots import pick_slots
from sklearn_inverse.networks._training import WarmupCosine


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--n-train", type=int, default=50_000)
    parser.add_argument("--basis-epochs", type=int, default=250)
    parser.add_argument("--surrogate-epochs", type=int, default=2)
    parser.add_argument("--adm-epochs", type=int, default=150)
    parser.add_argument("--batch-coupling-epochs", type=int, default=10)
    arguments = parser.parse_args()
    problem = PolluProblem(n_train=arguments.n_train)
    torch.set_num_threads(arguments.threads)
    pairs = problem.train.trajectories, problem.train.params
    rows = [row("Bayes limit, first order", mse=laplace_variance(problem))]

    start = time.perf_counter()
    surrogate = ODESurrogate(
        bounds=problem.system.bounds,
        basis_epochs=arguments.basis_epochs,
        max_epochs=arguments.surrogate_epochs,
        attention=False,  # params alone: nothing to attend to
        random_state=0,
        verbose=1,
    ).fit(*pairs)
    surrogate_s = time.perf_counter() - start
    error = problem.trajectory_error(surrogate.simulate(problem.test.params))
    settings = vars(arguments) | {
        "surrogate_s": round(surrogate_s, 1),
        "surrogate_mse": f"{np.mean(error**2):.2e}",
    }

    def adm(epochs, **kwargs):
        inverter = ADMInverter(
            FrozenEstimator(surrogate),
            noise_std=problem.noise_std,
            n_observed=3,
            max_epochs=epochs,
            random_state=0,
            verbose=1,
            **kwargs,
        )
        start = time.perf_counter()
        inverter.fit(*pairs)
        return inverter, time.perf_counter() - start

    inverter, adm_s = adm(arguments.adm_epochs)
    total_s = surrogate_s + adm_s
    start = time.perf_counter()
    mean, std = inverter.predict(problem.observations, return_std=True)
    answer_s = (time.perf_counter() - start) / len(mean)
    rows.append(
        row(
            "ADM (default)",
            problem,
            mean,
            std,
            training_s=round(total_s, 1),
            ms_per_sample=round(1e3 * answer_s, 2),
        )
    )
    draws = inverter.sample(problem.observations[:200], 400)
    low, high = np.quantile(draws, [0.05, 0.95], axis=1)
    truth = problem.test.params[:200]
    settings["coverage_of_sample_quantiles"] = float(
        np.mean((low < truth) & (truth < high))
    )
    inside = np.abs(mean - problem.test.params) < 1.6449 * std
    settings["coverage_of_single_params"] = np.round(inside.mean(axis=0), 3).tolist()
    error = problem.trajectory_error(inverter.reconstruct(problem.observations))
    settings["reconstruct_mse"] = f"{np.mean(error**2):.2e}"
    write_report("adm_pollu", rows, **settings)

    descent_s = gradient_descent_seconds(inverter, problem)
    settings |= {
        "descent_s_per_sample": round(descent_s, 3),
        "adm_faster_than_descent": round(descent_s / answer_s, 1),
    }
    for share, name in [(1, "plain MLP, same time"), (1 / 8, "plain MLP, an eighth")]:
        seconds = share * total_s
        last, best = plain_regression(problem, inverter, seconds)
        rows.append(row(name, problem, last, training_s=round(seconds, 1)))
        name += ", best held-out"
        rows.append(row(name, problem, best, training_s=round(seconds, 1)))
        write_report("adm_pollu", rows, **settings)

    # The paper's coupling of unrelated samples, and the default for as many epochs.
    for name, options in {
        "ADM, Eq. (8) as printed": {"coupling": "batch", "normalize": False},
        "ADM, Eq. (8) normalized": {"coupling": "batch"},
        "ADM (default), same 10 epochs": {},
    }.items():
        inverter, seconds = adm(arguments.batch_coupling_epochs, **options)
        mean, std = inverter.predict(problem.observations, return_std=True)
        rows.append(row(name, problem, mean, std, training_s=round(seconds, 1)))
    write_report("adm_pollu", rows, **settings)
    print(settings)


def row(method, problem=None, mean=None, std=None, *, mse=None, **rest):
    """One line of the table."""
    values = {"method": method, "mse": mse, "mae": "", "coverage_90": ""}
    if mean is not None:
        error = problem.unit(mean) - problem.unit(problem.test.params)
        # Standard error over samples, for the reader who compares two rows.
        each = np.mean(error**2, axis=1)
        values["mse"] = round(float(each.mean()), 5)
        values["mse_se"] = round(float(each.std() / math.sqrt(len(each))), 5)
        values["mae"] = round(float(np.mean(np.abs(error))), 4)
    if std is not None:
        values["coverage_90"] = round(problem.coverage(mean, std), 3)
    return values | rest


def laplace_variance(problem, step=1e-3):
    """Mean over samples and params of diag (Jᵀ J / σ² + 12 I)⁻¹ at the truth."""
    system, params = problem.system, problem.test.params
    simulator = ODESimulator(system, rtol=1e-8, n_jobs=-1, verbose=1)
    shifts = step * system.nominal * np.eye(system.n_params)
    shifted = simulator.simulate(
        (params[:, None] + shifts).reshape(-1, system.n_params)
    ).reshape(len(params), system.n_params, system.n_times, -1)
    jacobian = (shifted - simulator.simulate(params)[:, None]) / step
    jacobian = (jacobian / problem.noise_std).reshape(len(params), system.n_params, -1)
    seen = ~np.isnan(problem.observations.reshape(len(params), 1, -1))
    jacobian = jacobian * seen
    precision = jacobian @ jacobian.swapaxes(1, 2) + 12 * np.eye(system.n_params)
    variance = np.diagonal(np.linalg.inv(precision), axis1=1, axis2=2)
    return round(float(variance.mean()), 5)


def plain_regression(problem, inverter, seconds, batch_size=512, lr=1e-3):
    """Train a network on readings alone, without forward model or drift.

    Returns its answers with the last weights, and with those that did best on a tenth
    of the pairs held out.
    """
    system, scaler = problem.system, inverter.channel_scaler_
    torch.manual_seed(0)
    truths = torch.as_tensor(problem.unit(problem.train.params)).float()
    trajectories = torch.as_tensor(
        scaler.standardize(problem.train.trajectories)
    ).float()
    noise = torch.as_tensor(problem.noise_std / scaler.std).float()
    every = torch.ones(system.n_channels)
    read = ReadingSimulator((3, 3), every, noise, 3)
    # Its inputs for particle, residual and time are held at zero, so they play no part.
    network = DriftNet(
        3,
        system.n_channels,
        system.n_params,
        torch.linspace(0, 1, system.n_times),
        trajectories.mean(dim=0),
        torch.ones(system.n_channels),
        width=inverter.width,
        n_blocks=inverter.n_blocks,
    )

    def predict(slots):
        n_samples = len(slots.mask)
        middle = torch.full((n_samples, system.n_params), 0.5)
        nothing = torch.zeros_like(slots.readings)
        velocity, _ = network(middle, nothing, *slots, torch.zeros(n_samples))
        return 0.5 + velocity

    rng = torch.Generator().manual_seed(0)
    n_held_out = len(truths) // 10
    held_out = read.draw(trajectories[:n_held_out], rng)
    lowest, best = math.inf, None
    optimizer = torch.optim.Adam(network.parameters(), lr=lr)
    schedule = WarmupCosine(1_000_000)
    start, step = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < seconds:
        share = elapsed / seconds
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1, (step + 1) / 200) * schedule(int(1e6 * share))
        index = torch.randint(n_held_out, len(truths), (batch_size,), generator=rng)
        slots = read.draw(trajectories[index], rng)
        loss = (predict(slots) - truths[index]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        if best is None or step % 500 == 0:
            with torch.no_grad():
                error = (predict(held_out) - truths[:n_held_out]).square().mean()
            if error < lowest:
                lowest, best = error, copy.deepcopy(network.state_dict())
    print(f"plain regression: {step} steps of {batch_size}")
    readings = scaler.standardize(
        problem.observations.reshape(len(problem.observations), system.n_times, -1)
    )
    mask = torch.as_tensor(~np.isnan(readings)).float()
    slots = pick_slots(torch.as_tensor(np.nan_to_num(readings)).float(), mask, 3)

    def answer():
        with torch.no_grad():
            unit = predict(slots).double().numpy()
        return (unit.clip(0, 1) + 0.5) * system.nominal

    last = answer()
    network.load_state_dict(best)
    return last, answer()


def gradient_descent_seconds(inverter, problem, n_samples=3, n_starts=100, n_iter=100):
    """Seconds per sample of the paper's descent: Adam on the L1 misfit, many starts."""
    scaler = inverter.channel_scaler_
    start = time.perf_counter()
    for i in range(n_samples):
        readings = scaler.standardize(
            problem.observations[i].reshape(1, problem.system.n_times, -1)
        )
        mask = torch.as_tensor(~np.isnan(readings))
        readings = torch.as_tensor(np.nan_to_num(readings)).float()
        particles = torch.rand(n_starts, problem.system.n_params).requires_grad_()
        optimizer = torch.optim.Adam([particles], lr=1e-2)
        for _ in range(n_iter):
            simulated = scaler.standardize(inverter.surrogate_.forward(particles))
            misfit = ((simulated - readings).abs() * mask).sum()
            optimizer.zero_grad()
            misfit.backward()
            optimizer.step()
    return (time.perf_counter() - start) / n_samples


if __name__ == "__main__":
    main()
