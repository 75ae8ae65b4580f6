"""What do large sparse models cost, compiled, one solve at a time?

The Brusselator in one dimension by the method of lines, 150 copies of Robertson's
reactions, and a random network of 53 species and 650 reversible reactions, one thread.
Tracing and compiling happen once. Beside them SciPy: LSODA with the band given (odeint,
right-hand side in NumPy), BDF with the sparsity given, LSODA; tolerances are the same.

Then straight-line code against loops over tables, by the number of operations, with one
sample and with 64: which is why models have the one or the other.

    python benchmarks/large_models.py
"""

import os
import tempfile
import time

import numpy as np
import torch
from _report import short, write_report
from scipy.integrate import odeint
from scipy.integrate import solve_ivp as solve_scipy
from scipy.sparse import block_diag

from sklearn_inverse.ode import MassAction, solve_ivp
from sklearn_inverse.ode.compiled import _model
from sklearn_inverse.ode.compiled._kernel import Kernel
from sklearn_inverse.ode.compiled._trace import trace

RTOL, ATOL = 1e-6, 1e-9


def brusselator(n):
    """Return right-hand side, initial states, times, and SciPy's solve, for n points."""
    spread, x = 0.02 * (n + 1) ** 2, np.arange(1, n + 1) / (n + 1)

    def rhs(t, y, p):
        u, v = y[:, 0::2], y[:, 1::2]
        edge = torch.ones_like(u[:, :1])
        wide = torch.cat([edge, u, edge], 1), torch.cat([3 * edge, v, 3 * edge], 1)
        bends = [spread * (w[:, 2:] - 2 * w[:, 1:-1] + w[:, :-2]) for w in wide]
        made = u * u * v
        both = 1 + made - 4 * u + bends[0], 3 * u - made + bends[1]
        return torch.stack(both, 2).flatten(1)

    def rates(y, t):
        u, v, out = y[0::2], y[1::2], np.empty_like(y)
        wide = np.concatenate([[1], u, [1]]), np.concatenate([[3], v, [3]])
        bends = [spread * (w[2:] - 2 * w[1:-1] + w[:-2]) for w in wide]
        made = u * u * v
        out[0::2], out[1::2] = 1 + made - 4 * u + bends[0], 3 * u - made + bends[1]
        return out

    y0 = np.stack([1 + np.sin(2 * np.pi * x), 3 + 0 * x], 1).ravel()
    t = np.linspace(0, 10, 11)
    options = {"ml": 2, "mu": 2, "rtol": RTOL, "atol": ATOL}
    return rhs, y0, None, t, lambda: odeint(rates, y0, t, **options)[-1]


def robertsons(n):
    """Return the same for n copies of Robertson's reactions."""

    def slopes(a, b, c):
        fast, back = 3e7 * b * b, 1e4 * b * c - 0.04 * a
        return back, -back - fast, fast

    def rhs(t, y, p):
        parts = slopes(y[:, 0::3], y[:, 1::3], y[:, 2::3])
        return torch.stack(parts, 2).flatten(1)

    def rates(t, y):
        return np.stack(slopes(y[0::3], y[1::3], y[2::3]), 1).ravel()

    y0, t = np.tile([1.0, 0.0, 0.0], n), np.array([0.0, 40.0, 1e5])
    options = {"jac_sparsity": block_diag([np.ones((3, 3))] * n), "method": "BDF"}
    options |= {"t_eval": t, "rtol": RTOL, "atol": ATOL}
    return (
        rhs,
        y0,
        None,
        t,
        lambda: solve_scipy(rates, (0, t[-1]), y0, **options).y[:, -1],
    )


def network(n_species, n_reactions):
    """Return the same for a random network."""
    rng = np.random.default_rng(0)
    effects = np.zeros((n_species, 2 * n_reactions))
    orders = np.zeros(effects.shape, dtype=int)
    for r in range(n_reactions):
        a, b, c, d = rng.choice(n_species, 4, replace=False)
        effects[[a, b], 2 * r] = effects[[c, d], 2 * r + 1] = -1
        effects[[c, d], 2 * r] = effects[[a, b], 2 * r + 1] = 1
        orders[[a, b], 2 * r] = orders[[c, d], 2 * r + 1] = 1
    k = 10 ** rng.uniform(-2, 3, 2 * n_reactions)
    y0, t = rng.uniform(0, 1, n_species), np.linspace(0, 10, 11)
    pairs = [np.flatnonzero(column) for column in orders.T]
    first, second = np.array(pairs).T

    def rates(y, t):
        return effects @ (k * y[first] * y[second])

    options = {"rtol": RTOL, "atol": ATOL}
    rhs = MassAction(effects, orders)
    return rhs, y0, k, t, lambda: odeint(rates, y0, t, **options)[-1]


def measure(name, rhs, y0, k, t, solve_peer):
    """Return one row."""
    params = None if k is None else k[None]

    def solve():
        return solve_ivp(rhs, t, y0[None], params, atol=ATOL, backend="compiled")

    with tempfile.TemporaryDirectory() as folder:
        os.environ["SKLEARN_INVERSE_CACHE"] = folder
        start = time.perf_counter()
        solution = solve()
        first = time.perf_counter() - start
        del os.environ["SKLEARN_INVERSE_CACHE"]
    times: dict = {solve: [], solve_peer: []}
    for _ in range(5):
        for function, own in times.items():
            start = time.perf_counter()
            result = function()
            own.append(time.perf_counter() - start)
    ours, peer = (min(own) for own in times.values())
    off = np.abs(solution.y[0, -1].numpy() - result) / np.abs(result).max()
    return {
        "model": name,
        "states": len(y0),
        "first_s": short(first),
        "solve_ms": short(1e3 * ours),
        "scipy_ms": short(1e3 * peer),
        "ratio": short(ours / peer),
        "difference": f"{off.max():.1e}",
    }


def compare_codes(name, rhs, y0, k, t, _):
    """Return one row on straight-line code and loops over tables."""
    params = np.zeros((1, 0)) if k is None else k[None]
    point = [torch.as_tensor(x) for x in (np.zeros(1), y0[None], params)]
    graph, nodes = trace(rhs, point)
    given = _model.LARGE
    kernels, builds = [], []
    for limit in (np.inf, 0):
        _model.LARGE = limit
        kernels.append(Kernel(graph, nodes.tolist(), params.shape[1]))
        with tempfile.TemporaryDirectory() as folder:
            os.environ["SKLEARN_INVERSE_CACHE"] = folder
            start = time.perf_counter()
            kernels[-1]._build(with_tangents=False)
            builds.append(time.perf_counter() - start)
            del os.environ["SKLEARN_INVERSE_CACHE"]
    _model.LARGE = given
    row = {"model": name, "operations": kernels[0].model.n_operations}
    row |= dict(zip(("straight_build_s", "tables_build_s"), map(short, builds)))
    options = {"rtol": RTOL, "atol": ATOL, "max_steps": 10_000}
    for n_samples in (1, 64):
        starts = np.linspace(0.9, 1.1, n_samples)[:, None] * y0
        times: list = [[], []]
        for _ in range(10):
            for kernel, own in zip(kernels, times):
                start = time.perf_counter()
                kernel.solve(t, starts, np.tile(params, (n_samples, 1)), **options)
                own.append(time.perf_counter() - start)
        row[f"tables / straight, {n_samples}"] = short(min(times[1]) / min(times[0]))
    return row


def main():
    """Run the benchmark."""
    torch.set_num_threads(1)
    warm = brusselator(10)  # the loop over the steps, and what is imported once
    solve_ivp(warm[0], warm[3], warm[1][None], backend="compiled")
    rows = []
    problems = {
        f"Brusselator, {n:,} points": brusselator(n) for n in (50, 100, 500, 2000, 5000)
    }
    problems["150 x Robertson"] = robertsons(150)
    problems["53 species, 650 reversible reactions"] = network(53, 650)
    for name, problem in problems.items():
        rows.append(measure(name, *problem))
        write_report("large_models", rows, threads=1, rtol=RTOL, atol=ATOL)
    rows = []
    problems = {
        f"Brusselator, {n} points": brusselator(n) for n in (10, 25, 50, 100, 200)
    }
    for size in ((20, 40), (20, 100), (53, 300)):
        problems["{} species, {} reactions".format(*size)] = network(*size)
    for name, problem in problems.items():
        rows.append(compare_codes(name, *problem))
        write_report("large_models_codes", rows, threads=1, rtol=RTOL, atol=ATOL)


if __name__ == "__main__":
    main()
