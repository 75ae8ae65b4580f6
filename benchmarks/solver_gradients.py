"""What does a gradient through the solver cost, and how right is it?

POLLU, 64 samples with all 25 rate constants within their bounds. The loss is the mean
square difference to the nominal trajectory at three times, all 20 species, each in units
of its standard deviation. Value and gradient: ours by ``loss.backward()``, diffrax's
Kvaerno5 by ``jit(vmap(value_and_grad))`` through its default adjoint,
RecursiveCheckpointAdjoint. The error is that of the gradient by the unit params: relative,
in the 2-norm, median over samples. The reference is ours (rodas5p) at rtol 1e-11; that
diffrax approaches it as its own tolerance falls shows that it is right. Costs are compared
at the gradient error of ours at rtol 1e-6.

Then the sensitivities of all 100 x 20 outputs by all 25 params, beside the plain solve:
ours by ``sensitivities=True``, diffrax by ``jacfwd`` through its ForwardMode adjoint.

One core; compilation is not counted.

    python benchmarks/solver_gradients.py
"""

import argparse
from functools import partial

import diffrax
import jax
import numpy as np
import torch
from _peers import (
    OURS,
    Problem,
    add_ratios,
    diffrax_solver,
    interleave,
    ours_solution,
    within_bounds,
)
from _report import short, write_report

from sklearn_inverse.problems import pollu

TIMES = np.array([0.0, 5.0, 20.0, 60.0])
RTOLS = [1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8]


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n-samples", type=int, default=64)
    parser.add_argument("--rtol", type=float, default=1e-6, help="that of ours")
    parser.add_argument("--quick", action="store_true", help="two samples")
    arguments = parser.parse_args()
    rtols, effort = RTOLS, {"repeats": 3, "budget_s": 8}
    if arguments.quick:
        rtols, effort = [1e-3, 1e-5], {"repeats": 1, "budget_s": 0}
        arguments.n_samples = 2

    system = pollu()
    params = within_bounds(system, arguments.n_samples)
    settings = {"save": not arguments.quick, **vars(arguments)}
    rows = compare_gradients(Problem(system, params, TIMES), rtols, effort)
    add_ratios(rows, arguments.rtol)
    write_report("solver_gradients", rows, **settings)
    problem = Problem(system, params)
    rows = compare_sensitivities(problem, rtols[:4], arguments.rtol, effort)
    add_ratios(rows, arguments.rtol)
    write_report("solver_sensitivities", rows, **settings)


def compare_gradients(problem, rtols, effort):
    """Return time and error of value and gradient for each solver and tolerance."""
    nominal = Problem(problem.system, problem.system.nominal[None], problem.times)
    target = nominal.reference[0, 1:]
    std = problem.reference[:, 1:].std((0, 1))
    unit = np.ptp(problem.system.bounds, axis=1)

    def ours(rtol, **how):
        params = torch.tensor(problem.params, requires_grad=True)
        y = ours_solution(problem, rtol, params, **how).y[:, 1:]
        loss = (((y - torch.as_tensor(target)) / torch.as_tensor(std)) ** 2).mean(
            (1, 2)
        )
        loss.sum().backward()
        return unit * params.grad.numpy()

    solve = diffrax_solver(problem.system, problem.times)

    def loss_of_one(params, y0, rtol):
        return (((solve(y0, params, rtol)[1:] - target) / std) ** 2).mean()

    mapped = jax.jit(jax.vmap(jax.value_and_grad(loss_of_one), (0, 0, None)))

    def by_diffrax(rtol):
        return unit * np.asarray(mapped(problem.params, problem.y0, rtol)[1])

    contenders = {f"ours: {name}": partial(ours, **how) for name, how in OURS.items()}
    contenders["diffrax Kvaerno5"] = by_diffrax
    reference = ours(method="rodas5p", **problem.tight)
    for run in contenders.values():  # compiles, and warms up
        run(rtols[0])
    rows = []
    for rtol in rtols:
        runs = {name: partial(run, rtol) for name, run in contenders.items()}
        answers, seconds = interleave(runs, **effort)
        for name, gradient in answers.items():
            row = {
                "solver": name,
                "rtol": rtol,
                "error": relative_error(gradient, reference),
                "ms_per_sample": short(1e3 * seconds[name] / len(problem)),
            }
            rows.append(row)
            print(row, flush=True)
    return rows


def compare_sensitivities(problem, rtols, ours_at, effort):
    """Return time of the plain solve and of all sensitivities, and their error."""
    unit = np.ptp(problem.system.bounds, axis=1)
    std = problem.reference.std((0, 1))[:, None]

    def ours(wanted, rtol, **how):
        params = torch.as_tensor(problem.params)
        solution = ours_solution(problem, rtol, params, sensitivities=wanted, **how)
        return solution.sensitivities.numpy() * unit / std if wanted else None

    solve = diffrax_solver(problem.system, problem.times, adjoint=diffrax.ForwardMode())
    mapped = {
        wanted: jax.jit(jax.vmap(function, (0, 0, None)))
        for wanted, function in ((False, solve), (True, jax.jacfwd(solve, argnums=1)))
    }

    def by_diffrax(wanted, rtol):
        result = np.asarray(mapped[wanted](problem.y0, problem.params, rtol))
        return result * unit / std if wanted else None

    contenders = {
        (f"ours: {name}", ours_at): partial(ours, rtol=ours_at, **how)
        for name, how in OURS.items()
    }
    for rtol in rtols:
        contenders["diffrax Kvaerno5", rtol] = partial(by_diffrax, rtol=rtol)
    runs = {
        (*name, wanted): partial(run, wanted)
        for name, run in contenders.items()
        for wanted in (False, True)
    }
    for run in runs.values():  # compiles, and warms up
        run()
    answers, seconds = interleave(runs, **effort)
    reference = ours(True, method="rodas5p", **problem.tight)
    rows = []
    for name, rtol in contenders:
        plain, full = (1e3 * seconds[name, rtol, wanted] for wanted in (False, True))
        row = {
            "solver": name,
            "rtol": rtol,
            "error": relative_error(answers[name, rtol, True], reference),
            "times_a_plain_solve": short(full / plain),
            "plain_ms": short(plain / len(problem)),
            "ms_per_sample": short(full / len(problem)),
        }
        rows.append(row)
    return rows


def relative_error(values, reference):
    """Median over samples of the relative error in the 2-norm."""
    n_samples = len(reference)
    difference = np.linalg.norm((values - reference).reshape(n_samples, -1), axis=1)
    size = np.linalg.norm(reference.reshape(n_samples, -1), axis=1)
    return short(np.median(difference / size))


if __name__ == "__main__":
    main()
