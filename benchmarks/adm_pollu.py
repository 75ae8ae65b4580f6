"""Does ADM reach the Bayes limit on POLLU, and does it beat plain regression?

25 rate constants on k · [0.5, 1.5] from three random full-state snapshots with 1 %
noise. ADM (surrogate included) is trained first; a plain network that reads the same
slots with the same width and depth, on the same pairs with freshly drawn readings, gets
the same time. Errors are in params scaled to [0, 1] (the prior scores MSE 0.0833, MAE
0.25). The limit is the mean Laplace variance of the same held-out samples, with
sensitivities of the exact simulator. Other methods are in ``ino_tables.py``.

    python benchmarks/adm_pollu.py --threads 2
"""

import argparse
import copy
import math
import time

import numpy as np
import torch
from _ino import N_OBSERVED, InoProblem
from _report import short, write_report
from sklearn.frozen import FrozenEstimator

from sklearn_inverse import ADMInverter, Design, ODESurrogate, Operator, Training
from sklearn_inverse.networks._drift_net import DriftNet
from sklearn_inverse.networks._readings import ReadingSimulator
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
    arguments = parser.parse_args()
    problem = InoProblem("pollu", arguments.n_train)
    torch.set_num_threads(arguments.threads)
    limit = round(float(problem.laplace_variance().mean()), 5)
    rows = [{"method": "Bayes limit, first order", "mse": limit}]

    start = time.perf_counter()
    surrogate = ODESurrogate(
        problem.system,
        network=Operator(attention=False),  # params alone: nothing to attend to
        basis_epochs=arguments.basis_epochs,
        training=Training(max_epochs=arguments.surrogate_epochs),
        random_state=0,
        verbose=1,
    ).fit(*problem.pairs)
    surrogate_s = time.perf_counter() - start
    error = problem.trajectory_error(surrogate.simulate(problem.test.params))
    settings = vars(arguments) | {
        "surrogate_s": round(surrogate_s, 1),
        "surrogate_mse": f"{np.mean(error**2):.2e}",
    }
    start = time.perf_counter()
    inverter = ADMInverter(
        FrozenEstimator(surrogate),
        design=Design(n_observed=N_OBSERVED),
        training=Training(max_epochs=arguments.adm_epochs),
        kind="learned",  # without the exact model's help
        random_state=0,
        verbose=1,
    ).fit(*problem.pairs)
    total_s = surrogate_s + time.perf_counter() - start
    start = time.perf_counter()
    posterior = inverter.posterior(problem.observations)
    answer_s = (time.perf_counter() - start) / len(posterior)
    rows.append(row("ADM, learned", problem, posterior, training_s=short(total_s)))
    rows[-1] |= {"ms_per_sample": short(1e3 * answer_s)}
    lower, upper = posterior.interval(0.9)
    inside = (lower < problem.test.params) & (problem.test.params < upper)
    settings["coverage_of_single_params"] = np.round(inside.mean(axis=0), 3).tolist()
    error = problem.trajectory_error(inverter.reconstruct(problem.observations))
    settings["reconstruct_mse"] = f"{np.mean(error**2):.2e}"
    write_report("adm_pollu", rows, **settings)

    for share, name in [(1, "plain MLP, same time"), (1 / 8, "plain MLP, an eighth")]:
        seconds = share * total_s
        last, best = plain_regression(problem, inverter, seconds)
        rows.append(row(name, problem, params=last, training_s=short(seconds)))
        rows.append(row(f"{name}, best held-out", problem, params=best))
        write_report("adm_pollu", rows, **settings)

    print(settings)


def row(method, problem, posterior=None, params=None, **rest):
    """One line of the table: of a posterior's means, or of params alone."""
    error = problem.scaled_error(posterior.mean if params is None else params)
    each = np.mean(error**2, axis=1)
    values = {
        "method": method,
        "mse": round(float(each.mean()), 5),
        "mae": round(float(np.mean(np.abs(error))), 4),
        # Standard error over samples, for the reader who compares two rows.
        "mse_se": round(float(each.std() / math.sqrt(len(each))), 5),
    }
    if posterior is not None:
        values["coverage_90"] = round(problem.coverage(*posterior.interval(0.9)), 3)
    return values | rest


def plain_regression(problem, inverter, seconds, batch_size=512, lr=1e-3):
    """Train a network on readings alone, without forward model or drift.

    Returns its answers with the last weights, and with those that did best on a tenth
    of the pairs held out.
    """
    system, scaler = problem.system, inverter.reading_scaler_
    trajectories, params = problem.pairs
    torch.manual_seed(0)
    truths = torch.as_tensor(system.prior.to_quantile(params)).float()
    trajectories = torch.as_tensor(scaler.standardize(trajectories)).float()
    n_observed, every = (N_OBSERVED, N_OBSERVED), np.ones(system.n_channels, dtype=bool)
    read = ReadingSimulator(
        inverter.model_, scaler, inverter._to_params, n_observed, every
    )
    # Its inputs for particle, residual and time are held at zero, so they play no part.
    network = DriftNet(
        N_OBSERVED,
        system.n_channels,
        system.n_params,
        torch.linspace(0, 1, system.n_times),
        trajectories.mean(dim=0),
        scaler.spread,
        torch.ones(system.n_channels),
        width=inverter.width,
        n_blocks=inverter.n_blocks,
    )

    def draw(index, rng):
        return pick_slots(*read.draw(truths[index], trajectories[index], rng), 3)

    def predict(slots):
        n_samples = len(slots.mask)
        middle = torch.full((n_samples, system.n_params), 0.5)
        nothing = torch.zeros_like(slots.readings)
        velocity, _ = network(middle, nothing, *slots, torch.zeros(n_samples))
        return 0.5 + velocity

    rng = torch.Generator().manual_seed(0)
    n_held_out = len(truths) // 10
    held_out = draw(slice(n_held_out), rng)
    lowest, best = math.inf, None
    optimizer = torch.optim.Adam(network.parameters(), lr=lr)
    schedule = WarmupCosine(1_000_000)
    start, step = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < seconds:
        share = elapsed / seconds
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1, (step + 1) / 200) * schedule(int(1e6 * share))
        index = torch.randint(n_held_out, len(truths), (batch_size,), generator=rng)
        loss = (predict(draw(index, rng)) - truths[index]).square().mean()
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
    slots = pick_slots(*scaler.prepare(problem.observations, "cpu"), N_OBSERVED)

    def answer():
        with torch.no_grad():
            quantiles = predict(slots).double().numpy()
        return system.prior.from_quantile(quantiles.clip(1e-6, 1 - 1e-6))

    last = answer()
    network.load_state_dict(best)
    return last, answer()


if __name__ == "__main__":
    main()
