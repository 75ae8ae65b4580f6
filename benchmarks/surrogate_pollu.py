"""How well does the surrogate learn POLLU, in how much time, and what does skorch cost?

Trains ODESurrogate for about three and for about ten minutes, and the paper's
network (batch norm, no direct part) beside them; reports the error as emulator (params
alone), as conditional emulator (params and three snapshots) and as imputer (three
snapshots alone), in units of each channel's standard deviation. Then times an epoch of
the fit against a bare torch loop over the same batches.

    python benchmarks/surrogate_pollu.py --threads 2
"""

import argparse
import time

import numpy as np
import torch
from _ino import InoProblem
from _report import write_report

import sklearn_inverse.networks._operator as operator_module
from sklearn_inverse import Design, ODESurrogate, Operator, Training
from sklearn_inverse.networks._training import fit_net

SETTINGS = {
    "short": {"basis_epochs": 250, "training": Training(max_epochs=4)},
    "long": {"basis_epochs": 700, "training": Training(max_epochs=14)},
    "paper's network": {
        "n_basis": 0,
        "network": Operator(norm="batch"),
        "training": Training(max_epochs=8),
    },
}


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--n-train", type=int, default=50_000)
    arguments = parser.parse_args()
    problem = InoProblem("pollu", arguments.n_train)
    torch.set_num_threads(arguments.threads)

    rows = []
    for name, setting in SETTINGS.items():
        surrogate = ODESurrogate(
            problem.system,
            design=Design(n_observed=3),
            random_state=0,
            verbose=1,
            **setting,
        )
        start = time.perf_counter()
        surrogate.fit(*problem.pairs)
        seconds = time.perf_counter() - start
        params, readings = problem.test.params, problem.observations
        filled = surrogate.transform(readings).reshape(problem.test.trajectories.shape)
        answers = {
            "emulator": surrogate.simulate(params),
            "conditional": surrogate.simulate(params, readings),
            "imputer": filled,
        }
        row = {"network": name, "training_s": round(seconds, 1)}
        for use, trajectories in answers.items():
            error = problem.trajectory_error(trajectories)
            row[f"{use}_mse"] = f"{np.mean(error**2):.2e}"
            row[f"{use}_mae"] = f"{np.mean(np.abs(error)):.2e}"
        rows.append(row)
        write_report("surrogate_pollu", rows, **vars(arguments), fits=repr(SETTINGS))

    overhead = skorch_overhead(problem)
    write_report("surrogate_overhead", [overhead], **vars(arguments))


def skorch_overhead(problem, n_samples=5_000, n_rounds=5):
    """Time an epoch of ``fit`` and of a bare loop over the same batches, in turn."""
    captured = {}

    def capture(make_module, criterion, iterator, train, valid, **kwargs):
        if valid is not None:
            captured.update(make_module=make_module, iterator=iterator, train=train)
            captured.update(criterion=criterion, lr=kwargs["lr"])
        return fit_net(make_module, criterion, iterator, train, valid, **kwargs)

    operator_module.fit_net = capture
    try:
        surrogate = ODESurrogate(
            basis_epochs=1, training=Training(max_epochs=1), random_state=0
        )
        surrogate.fit(*(part[:n_samples] for part in problem.pairs))
    finally:
        operator_module.fit_net = fit_net

    def with_skorch():
        fit_net(
            captured["make_module"],
            captured["criterion"],
            captured["iterator"],
            captured["train"],
            None,
            lr=captured["lr"],
            max_epochs=1,
            n_batches=1,
            patience=None,
            callbacks=None,
            verbose=0,
            desc="",
            seed=0,
            device=torch.device("cpu"),
        )

    def bare():
        network = captured["make_module"]()
        criterion = captured["criterion"]()
        optimizer = torch.optim.Adam(network.parameters(), lr=captured["lr"])
        for inputs, target in captured["iterator"](captured["train"], training=True):
            optimizer.zero_grad()
            criterion(network(**inputs), target).backward()
            optimizer.step()

    ratios, seconds = [], []
    for _ in range(n_rounds):
        times = []
        for run in (with_skorch, bare):
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
        ratios.append(times[0] / times[1])
        seconds.append(times)
    skorch_s, bare_s = np.median(seconds, axis=0)
    return {
        "epoch_skorch_s": round(float(skorch_s), 2),
        "epoch_bare_s": round(float(bare_s), 2),
        "ratio_median": round(float(np.median(ratios)), 3),
    }


if __name__ == "__main__":
    main()
