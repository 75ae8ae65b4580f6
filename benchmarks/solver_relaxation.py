"""How right are sensitivities through the jumps of a relaxation oscillation?

Van der Pol's oscillator, mu = 1000, t in [0, 2000] at 101 times: derivatives of both states
by mu and by the initial state, largest and median relative error over the times after the
first, at a sweep of tolerances. The reference is the variational equation, by SciPy's
Radau at rtol 1e-12; central differences of our own solves at rtol 1e-13 stand beside it.

    python benchmarks/solver_relaxation.py
"""

import time

import numpy as np
import scipy.integrate
import torch
from _report import short, write_report

from sklearn_inverse.ode import solve_ivp

TIMES = np.linspace(0, 2000, 101)
PARAMS = torch.tensor([[1000.0, 2.0]], dtype=torch.float64)
STEP = 1e-6  # of central differences, relative
CONTENDERS = {
    "compiled": ({"backend": "compiled"}, [1e-4, 1e-6, 1e-8, 1e-10, 1e-12]),
    "radau5, torch": ({"backend": "torch", "method": "radau5"}, [1e-4, 1e-6, 1e-8]),
}


def rhs(t, y, k):
    """Right-hand side."""
    return torch.stack([y[:, 1], k[:, 0] * (1 - y[:, 0] ** 2) * y[:, 1] - y[:, 0]], 1)


def start(k):
    """Return initial states."""
    return torch.stack([k[:, 1], 0 * k[:, 1]], 1)


def solve(params, rtol, **options):
    """Solve by ours."""
    options |= {"rtol": rtol, "max_steps": 200_000}
    return solve_ivp(rhs, TIMES, start, params, **options)


def variational(t, z, mu):
    """Right-hand side of states, derivatives by mu, and those by the initial state."""
    y1, y2, *tangents = z
    by1, by2 = -2 * mu * y1 * y2 - 1, mu * (1 - y1 * y1)
    (a1, a2), (b1, b2) = tangents[:2], tangents[2:]
    own = (1 - y1 * y1) * y2
    return [y2, mu * own - y1, a2, by1 * a1 + by2 * a2 + own, b2, by1 * b1 + by2 * b2]


def main():
    """Run the benchmark."""
    torch.set_num_threads(1)
    z = scipy.integrate.solve_ivp(
        variational,
        TIMES[[0, -1]],
        [2.0, 0, 0, 0, 1, 0],
        "Radau",
        t_eval=TIMES,
        rtol=1e-12,
        atol=1e-16,
        args=(1000.0,),
    ).y.T
    reference = np.stack([z[:, 2:4], z[:, 4:]], axis=2)

    def row(solver, rtol, found, seconds):
        error = np.abs(found / reference - 1)[1:]
        errors = {"median": short(np.median(error)), "largest": short(error.max())}
        return {"solver": solver, "rtol": rtol, **errors, "seconds": short(seconds)}

    move = STEP * PARAMS[0].diag()
    begin = time.perf_counter()
    y = solve(torch.cat([PARAMS + move, PARAMS - move]), 1e-13, backend="compiled").y
    slopes = ((y[:2] - y[2:]) / (2 * move.sum(1))[:, None, None]).permute(1, 2, 0)
    seconds = time.perf_counter() - begin
    with np.errstate(all="ignore"):
        rows = [row("central differences", 1e-13, slopes.numpy(), seconds)]
        for name, (options, rtols) in CONTENDERS.items():
            solve(PARAMS, 1e-3, sensitivities=True, **options)
            for rtol in rtols:
                begin = time.perf_counter()
                found = solve(PARAMS, rtol, sensitivities=True, **options).sensitivities
                seconds = time.perf_counter() - begin
                rows.append(row(name, rtol, found[0].numpy(), seconds))
    write_report("solver_relaxation", rows, threads=1)


if __name__ == "__main__":
    main()
