"""How fast are 1,000 Lotka-Volterra trajectories, by explicit methods?

Params within 30 % of their nominal values, and within the system's bounds, where some
samples need many times as many steps as others; t in [0, 20], 100 output times, double
precision, one core. Ours is tsit5, in torch and compiled; beside it torchode's Tsit5 as it
is and under torch.compile, torchdiffeq's dopri5 and diffrax's Tsit5. Error as in
``work_precision.py``. Every solver is measured at several tolerances, and "times faster"
is the ratio of times at the error that ours has at rtol 1e-6, by log-log interpolation.
Medians of five calls; compilation, half a minute for torchode, is not counted.

torch.jit, which torchode's documentation recommends too, does not get through it with the
version of torch used here: its compiler fails with an internal error.

    python benchmarks/solver_nonstiff.py
"""

import argparse
from functools import partial

import diffrax
import numpy as np
import torch
import torchdiffeq
import torchode
from _peers import (
    Problem,
    add_ratios,
    interleave,
    solve_diffrax,
    solve_ours,
    spread,
    within_bounds,
)
from _report import short, write_report

from sklearn_inverse.problems import lotka_volterra

RTOLS = [1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8]
OURS = {
    "tsit5": {"method": "tsit5", "backend": "torch"},
    "tsit5, compiled": {"method": "tsit5", "backend": "compiled"},
    "auto, compiled": {"method": "auto", "backend": "compiled"},
    "rodas5p, compiled": {"method": "rodas5p", "backend": "compiled"},
}


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n-samples", type=int, default=1_000)
    parser.add_argument("--rtol", type=float, default=1e-6, help="that of ours")
    parser.add_argument("--quick", action="store_true", help="without torch.compile")
    arguments = parser.parse_args()
    rtols, effort = RTOLS, {"repeats": 5, "budget_s": 10}
    if arguments.quick:
        rtols, effort = [1e-4, 1e-6], {"repeats": 1}

    system, n_samples = lotka_volterra(), arguments.n_samples
    draws = {
        "within 30 %": spread(system, n_samples, 0.3),
        "within bounds": within_bounds(system, n_samples),
    }
    rows = []
    for name, params in draws.items():
        problem = Problem(system, params, np.linspace(0.0, 20.0, 100), method="tsit5")
        some = compare(problem, rtols, effort, with_compile=not arguments.quick)
        add_ratios(some, arguments.rtol)
        rows += [{"params": name, **row} for row in some]
    settings = {"save": not arguments.quick, **vars(arguments)}
    write_report("solver_nonstiff", rows, **settings)


def compare(problem, rtols, effort, with_compile):
    """Return error and time of each solver at each tolerance."""
    contenders = {
        f"ours: {name}": partial(solve_ours, problem, **how)
        for name, how in OURS.items()
    }
    contenders["torchode Tsit5"] = Torchode(problem)
    if with_compile:
        contenders["torchode Tsit5, compiled"] = Torchode(problem, torch.compile)
    contenders["torchdiffeq dopri5"] = partial(solve_torchdiffeq, problem)
    contenders["diffrax Tsit5"] = partial(
        solve_diffrax, problem, solver=diffrax.Tsit5(), land=False
    )
    rows = []
    for run in contenders.values():  # compiles, and warms up
        run(rtols[0])
    for rtol in rtols:
        runs = {name: partial(run, rtol) for name, run in contenders.items()}
        answers, seconds = interleave(runs, **effort)
        for name, y in answers.items():
            row = {
                "solver": name,
                "rtol": rtol,
                "error": short(problem.error(y)),
                "ms_per_batch": short(1e3 * seconds[name]),
            }
            rows.append(row)
            print(row, flush=True)
    return rows


class LotkaVolterra(torch.nn.Module):
    """Right-hand side with the params inside, as torchode and torchdiffeq want it."""

    def __init__(self, params):
        super().__init__()
        self.register_buffer("params", torch.as_tensor(params))

    def forward(self, t, y):
        """Return the rates of change."""
        hare, lynx = y.unbind(-1)
        alpha, beta, gamma, delta = self.params.unbind(-1)
        dydt = [(alpha - beta * lynx) * hare, (delta * hare - gamma) * lynx]
        return torch.stack(dydt, dim=-1)


class Torchode:
    """Tsit5 of torchode, built and compiled once.

    Of its controllers, PI (pcoeff 0.4, icoeff 0.3) has the least time at equal error.
    """

    def __init__(self, problem, transform=lambda solve: solve):
        term = torchode.ODETerm(LotkaVolterra(problem.params))
        self.controller = torchode.PIDController(
            problem.atol, 1e-3, pcoeff=0.4, icoeff=0.3, dcoeff=0.0, term=term
        )
        adjoint = torchode.AutoDiffAdjoint(torchode.Tsit5(term=term), self.controller)
        self.solve = transform(adjoint.solve)
        self.problem = torchode.InitialValueProblem(
            y0=torch.as_tensor(problem.y0).contiguous(),
            t_eval=torch.as_tensor(problem.times).repeat(len(problem), 1),
        )

    @torch.no_grad()
    def __call__(self, rtol):
        """Solve all samples."""
        self.controller.rtol.fill_(rtol)
        return self.solve(self.problem).ys.numpy()


@torch.no_grad()
def solve_torchdiffeq(problem, rtol):
    """Solve all samples with one step size for the whole batch."""
    y = torchdiffeq.odeint(
        LotkaVolterra(problem.params),
        torch.as_tensor(problem.y0),
        torch.as_tensor(problem.times),
        rtol=rtol,
        atol=problem.atol,
        method="dopri5",
    )
    return y.transpose(0, 1).numpy()


if __name__ == "__main__":
    main()
