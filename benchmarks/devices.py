"""What does a GPU give in training?

Trains the same surrogate and the same ADM inverter on POLLU on each device, and reports
seconds, the surrogate's error in units of each channel's standard deviation, and the
inverter's error in params scaled to [0, 1] (the prior scores 0.0833).

    python benchmarks/devices.py --devices cuda cpu
"""

import argparse
import time

import numpy as np
import torch
from _ino import N_OBSERVED, InoProblem
from _report import short, write_report
from sklearn.frozen import FrozenEstimator

from sklearn_inverse import ADMInverter, Design, ODESurrogate, Operator, Training


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", nargs="+", default=["cpu"])
    parser.add_argument("--simulate-on", default="cpu")
    parser.add_argument("--n-train", type=int, default=50_000)
    parser.add_argument("--basis-epochs", type=int, default=250)
    parser.add_argument("--surrogate-epochs", type=int, default=4)
    parser.add_argument("--adm-epochs", type=int, default=40)
    arguments = parser.parse_args()
    start = time.perf_counter()
    problem = InoProblem("pollu", arguments.n_train, device=arguments.simulate_on)
    settings = vars(arguments) | {
        "simulation_s": short(time.perf_counter() - start),
        "threads": torch.get_num_threads(),
    }
    if "cuda" in arguments.devices:
        settings["gpu"] = torch.cuda.get_device_name()
    rows = []
    for device in arguments.devices:
        rows.append(trained_on(device, problem, arguments))
        write_report("devices", rows, **settings)


def trained_on(device, problem, arguments):
    """Train surrogate and inverter on one device; return seconds and errors."""
    options = {"device": device, "random_state": 0, "verbose": 1}
    start = time.perf_counter()
    surrogate = ODESurrogate(
        problem.system,
        network=Operator(attention=False),
        basis_epochs=arguments.basis_epochs,
        training=Training(max_epochs=arguments.surrogate_epochs),
        **options,
    ).fit(*problem.pairs)
    surrogate_s = time.perf_counter() - start
    error = problem.trajectory_error(surrogate.simulate(problem.test.params))
    start = time.perf_counter()
    inverter = ADMInverter(
        FrozenEstimator(surrogate),
        design=Design(n_observed=N_OBSERVED),
        training=Training(max_epochs=arguments.adm_epochs),
        **options,
    ).fit(*problem.pairs)
    adm_s = time.perf_counter() - start
    start = time.perf_counter()
    posterior = inverter.posterior(problem.observations)
    answer_s = time.perf_counter() - start
    return {
        "device": device,
        "surrogate_s": short(surrogate_s),
        "surrogate_mse": f"{np.mean(error**2):.2e}",
        "adm_s": short(adm_s),
        "adm_mse": round(float(np.mean(problem.scaled_error(posterior.mean) ** 2)), 5),
        "coverage_90": round(problem.coverage(*posterior.interval(0.9)), 3),
        "ms_per_answer": short(1e3 * answer_s / len(posterior)),
    }


if __name__ == "__main__":
    main()
