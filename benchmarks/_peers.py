"""Our solvers and others' on the same problems, by the same measure of error.

SciPy is given NumPy functions of one sample with the Jacobian in closed form, diffrax
the same equations in jax.numpy; both in double precision. How each is tuned is said
where it is called. Needs ``pip install -e ".[bench]"``. Run by itself, this checks every
solver against the published reference solutions:

    python benchmarks/_peers.py
"""

import os

# One thread per process, for everybody; to be set before torch and jax are imported.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"

import re
import time
import warnings
from contextlib import suppress
from functools import cache, cached_property, partial

import diffrax
import jax
import jax.numpy as jnp
import numba
import numpy as np
import scipy.integrate
import torch
from _report import short

from sklearn_inverse import ODESystem
from sklearn_inverse.ode import solve_ivp
from sklearn_inverse.problems import hires, oregonator, pollu, robertson, van_der_pol

jax.config.update("jax_enable_x64", True)
torch.set_num_threads(1)

# Our solvers: what a figure calls them, and how to ask for them.
OURS = {
    "radau5": {"method": "radau5", "backend": "torch"},
    "rodas5p": {"method": "rodas5p", "backend": "torch"},
    "rodas5p, compiled": {"method": "rodas5p", "backend": "compiled"},
}

N_POINTS = 100


def brusselator():
    """Return the one-dimensional Brusselator on 100 points, u and v side by side."""
    names = [f"{kind}{i}" for i in range(N_POINTS) for kind in "uv"]
    x = np.arange(1, N_POINTS + 1) / (N_POINTS + 1)
    start = np.stack([1 + np.sin(2 * np.pi * x), 3 + 0 * x], 1).ravel()

    def brusselator(t, y, p):
        parts = brusselator_parts(y[0::2], y[1::2], (p.A, p.B), np)
        return [rate for pair in zip(*parts) for rate in pair]

    return ODESystem(
        brusselator,
        states=dict(zip(names, start.tolist())),
        params={"A": (0.5, 1.5), "B": (2.0, 4.0)},
        times=np.linspace(0, 10, 11),
    )


STIFF = (pollu, hires, robertson, van_der_pol, oregonator, brusselator)

# Absolute tolerance for all solvers: far below what the states of a system come down to.
ATOL = {
    "pollu": 1e-20,
    "hires": 1e-16,
    "robertson": 1e-18,
    "van_der_pol": 1e-12,
    "oregonator": 1e-9,
    "lotka_volterra": 1e-9,
    "brusselator": 1e-9,
}

MAX_STEPS = 10_000


# ---------------------------------------------------------------------------- problems


class Problem:
    """A system, params for some samples of it, and their reference solutions.

    Parameters
    ----------
    system : ODESystem
        What is solved.

    params : ndarray of shape (n_samples, n_params)
        Params.

    times : ndarray of shape (n_times,), default=None
        Output times. If None, the system's.

    method : str, default="rodas5p"
        Our method that computes the reference solutions.
    """

    floor = 1e-6

    def __init__(self, system, params, times=None, method="rodas5p"):
        self.system, self.params, self.method = system, params, method
        self.times = system.times if times is None else times
        self.y0 = system.initial_state(torch.as_tensor(params)).numpy()
        self.atol = ATOL[system.name]
        self.tight = {"rtol": 1e-11, "atol": 1e-3 * self.atol, "max_steps": 10**6}

    def __len__(self):
        return len(self.params)

    def head(self, n_samples):
        """Return the problem of the first samples, references included."""
        head = Problem(self.system, self.params[:n_samples], self.times, self.method)
        head.reference = self.reference[:n_samples]
        return head

    @cached_property
    def reference(self):
        """Ours at rtol 1e-11; radau5 would lose three digits between its steps."""
        return solve_ours(self, method=self.method, **self.tight)

    def errors(self, y):
        """Error of each sample; infinite where it failed.

        That is the largest, over output times, root mean square over states of
        ``|y - ref| / (|ref| + floor * peak)``, with the peak of each state over its
        trajectory.
        """
        peak = np.abs(self.reference).max(1, keepdims=True)
        scale = np.abs(self.reference) + self.floor * peak
        relative = (y - self.reference) / np.where(scale > 0, scale, 1)
        errors = np.sqrt((relative**2).mean(2)).max(1)
        return np.where(np.isfinite(errors), errors, np.inf)

    def error(self, y):
        """Median over the samples of their :meth:`errors`."""
        return float(np.median(self.errors(y)))


def spread(system, n_samples, width=0.1, seed=0):
    """Draw params within ``width`` of their nominal values."""
    rng = np.random.default_rng(seed)
    return system.nominal * rng.uniform(
        1 - width, 1 + width, (n_samples, system.n_params)
    )


def within_bounds(system, n_samples, seed=0):
    """Draw params within the system's bounds."""
    low, high = system.bounds.T
    return np.random.default_rng(seed).uniform(low, high, (n_samples, len(low)))


# -------------------------------------------------------------------------------- ours


def ours_solution(problem, rtol, params, **options):
    """Return the Solution of one of our methods, differentiable by ``params``."""
    system = problem.system
    options = {"atol": problem.atol, "max_steps": MAX_STEPS, **options, "rtol": rtol}
    if system.kinetics is not None:
        rates, start = system.rates(params), system.rates_initial
        return solve_ivp(system.kinetics, problem.times, start, rates, **options)
    start, jac = system.initial_state, system.jac
    return solve_ivp(system.solved, problem.times, start, params, jac=jac, **options)


def solve_ours(problem, rtol, **options):
    """Solve every sample by one of our methods; (n_samples, n_times, n_states)."""
    params = torch.as_tensor(problem.params)
    return ours_solution(problem, rtol, params, **options).y.numpy()


# ------------------------------------------------------- the equations, for one sample


def hires_rhs(y, k):
    """Right-hand side of HIRES."""
    y1, y2, y3, y4, y5, y6, y7, y8 = y
    k1, k2, k3, k4, k5, k6, k_plus, k_minus, k_star, o_ks = k
    binding = k_plus * y6 * y8
    dy7 = binding - (k2 + k_minus + k_star) * y7
    return [
        -k1 * y1 + k2 * y2 + k6 * y3 + o_ks,
        k1 * y1 - (k2 + k3) * y2,
        -(k6 + k1) * y3 + k2 * y4 + k5 * y5,
        k3 * y2 + k1 * y3 - (k4 + k2) * y4,
        -(k1 + k5) * y5 + k2 * (y6 + y7),
        -binding + k4 * y4 + k1 * y5 - k2 * y6 + k_minus * y7,
        dy7,
        -dy7,
    ]


def hires_jac(y, k):
    """Jacobian of HIRES."""
    k1, k2, k3, k4, k5, k6, k_plus, k_minus, k_star, _ = k
    by6, by8 = k_plus * y[7], k_plus * y[5]
    decay = k2 + k_minus + k_star
    return [
        [-k1, k2, k6, 0, 0, 0, 0, 0],
        [k1, -(k2 + k3), 0, 0, 0, 0, 0, 0],
        [0, 0, -(k6 + k1), k2, k5, 0, 0, 0],
        [0, k3, k1, -(k4 + k2), 0, 0, 0, 0],
        [0, 0, 0, 0, -(k1 + k5), k2, k2, 0],
        [0, 0, 0, k4, k1, -by6 - k2, k_minus, -by8],
        [0, 0, 0, 0, 0, by6, -decay, by8],
        [0, 0, 0, 0, 0, -by6, decay, -by8],
    ]


def robertson_rhs(y, k):
    """Right-hand side of Robertson's reaction."""
    a, b, c = y
    made, burnt, back = k[0] * a, k[1] * b * b, k[2] * b * c
    return [back - made, made - back - burnt, burnt]


def robertson_jac(y, k):
    """Jacobian of Robertson's reaction."""
    _, b, c = y
    k1, k2, k3 = k
    return [
        [-k1, k3 * c, k3 * b],
        [k1, -k3 * c - 2 * k2 * b, -k3 * b],
        [0, 2 * k2 * b, 0],
    ]


def van_der_pol_rhs(y, k):
    """Right-hand side of Van der Pol's oscillator."""
    return [y[1], k[0] * (1 - y[0] * y[0]) * y[1] - y[0]]


def van_der_pol_jac(y, k):
    """Jacobian of Van der Pol's oscillator."""
    return [[0, 1], [-2 * k[0] * y[0] * y[1] - 1, k[0] * (1 - y[0] * y[0])]]


def oregonator_rhs(y, k):
    """Right-hand side of the Oregonator."""
    y1, y2, y3 = y
    s, q, w = k
    return [s * (y2 + y1 * (1 - q * y1 - y2)), (y3 - (1 + y1) * y2) / s, w * (y1 - y3)]


def oregonator_jac(y, k):
    """Jacobian of the Oregonator."""
    y1, y2, _ = y
    s, q, w = k
    return [
        [s * (1 - 2 * q * y1 - y2), s * (1 - y1), 0],
        [-y2 / s, -(1 + y1) / s, 1 / s],
        [w, 0, -w],
    ]


def lotka_volterra_rhs(y, k):
    """Right-hand side of Lotka-Volterra."""
    hare, lynx = y
    return [(k[0] - k[1] * lynx) * hare, (k[3] * hare - k[2]) * lynx]


def brusselator_parts(u, v, k, xp):
    """Rates of change of u and v, which are one and three at both ends."""
    ends = (np.array([end]) for end in (1.0, 3.0))
    wide = (xp.concatenate([end, w, end]) for end, w in zip(ends, (u, v)))
    bends = [0.02 * (N_POINTS + 1) ** 2 * (w[2:] - 2 * w[1:-1] + w[:-2]) for w in wide]
    made = u * u * v
    return k[0] + made - (k[1] + 1) * u + bends[0], k[1] * u - made + bends[1]


def brusselator_rhs(y, k):
    """Right-hand side of the Brusselator, for NumPy and JAX."""
    xp = jnp if isinstance(y, jax.Array) else np
    y = xp.asarray(y)
    return xp.stack(brusselator_parts(y[0::2], y[1::2], k, xp), 1).ravel()


FORMULAS = {
    "hires": (hires_rhs, hires_jac),
    "robertson": (robertson_rhs, robertson_jac),
    "van_der_pol": (van_der_pol_rhs, van_der_pol_jac),
    "oregonator": (oregonator_rhs, oregonator_jac),
    "lotka_volterra": (lotka_volterra_rhs, None),
    "brusselator": (brusselator_rhs, None),
}


class Reactions:
    """Mass action as tables of two reactants per reaction; a missing one is a one.

    Attributes
    ----------
    stoichiometry : ndarray of shape (n_states, n_reactions)
        What each reaction makes of each species, less what it uses up.

    first, second : ndarray of shape (n_reactions,)
        Reactants, as indices of the states with a one appended.

    reaction, reactant, other : ndarray of shape (n_slopes,)
        Derivatives of the rates: of which reaction, by which of its reactants, and the
        reactant that remains.
    """

    def __init__(self, system):
        orders, self.stoichiometry = (
            system.kinetics.orders,
            system.kinetics.stoichiometry,
        )
        one = len(orders)  # index of the one that stands for a missing reactant
        reactants = [np.repeat(np.arange(one), column) for column in orders.T]
        table = np.array([[*r, one, one][:2] for r in reactants])
        self.first, self.second = table.T
        self.reaction, place = np.nonzero(table < one)
        self.reactant = table[self.reaction, place]
        self.other = table[self.reaction, 1 - place]


# ------------------------------------------------------------------------------- SciPy


def numpy_functions(system, params):
    """Return ``f(t, y)`` and its Jacobian for one sample, in NumPy.

    A few equations are fastest as plain arithmetic on floats, the many of POLLU as a
    gather and a product of matrix and vector.
    """
    if system.name in FORMULAS:
        rhs, jac = FORMULAS[system.name]
        k = params.tolist()
        return (
            lambda t, y: np.array(rhs(y.tolist(), k)),
            jac and (lambda t, y: np.array(jac(y.tolist(), k))),
        )
    tables = Reactions(system)
    S, first, second = tables.stoichiometry, tables.first, tables.second
    n_states, n_reactions = S.shape
    with_one = np.ones(n_states + 1)
    slopes = np.zeros((n_reactions, n_states))
    places = tables.reaction * n_states + tables.reactant
    k, k_slopes, other = params, params[tables.reaction], tables.other

    def f(t, y):
        with_one[:-1] = y
        return S @ (k * with_one[first] * with_one[second])

    def jac(t, y):
        with_one[:-1] = y
        slopes.ravel()[places] = k_slopes * with_one[other]
        return S @ slopes

    return f, jac


@cache
def compiled_loops():
    """Return the loops of a mass action and of its Jacobian, compiled."""

    @numba.njit
    def rates(y, k, S, first, second):
        f = np.zeros(len(S))
        one = len(S)
        for j in range(len(k)):
            rate = k[j]
            if first[j] < one:
                rate *= y[first[j]]
            if second[j] < one:
                rate *= y[second[j]]
            for i in range(len(S)):
                f[i] += S[i, j] * rate
        return f

    @numba.njit
    def jacobian(y, k, S, reaction, reactant, other):
        J = np.zeros((len(S), len(S)))
        for m in range(len(reaction)):
            slope = k[reaction[m]]
            if other[m] < len(S):
                slope *= y[other[m]]
            for i in range(len(S)):
                J[i, reactant[m]] += S[i, reaction[m]] * slope
        return J

    return rates, jacobian


def numba_functions(system, params):
    """Return the same for a mass action, compiled by numba: SciPy at its very best."""
    tables = Reactions(system)
    rates, jacobian = compiled_loops()
    S = tables.stoichiometry
    k = system.rates(torch.as_tensor(params)[None])[
        0
    ].numpy()  # some reactions share one
    by_rate = k, S, tables.first, tables.second
    by_slope = k, S, tables.reaction, tables.reactant, tables.other
    return lambda t, y: rates(y, *by_rate), lambda t, y: jacobian(y, *by_slope)


def solve_scipy(problem, rtol, method="odeint", functions=numpy_functions):
    """Solve sample by sample.

    ``"odeint"`` is the same LSODA as ``"LSODA"``, that of scipy.integrate.solve_ivp, but
    steps in compiled code and so takes less than half the time. ``"BDF"`` and
    ``"Radau"`` are SciPy's own, in Python.
    """
    solve_one = _odeint if method == "odeint" else _scipy_solve_ivp
    options = {"rtol": rtol, "atol": problem.atol}
    if problem.system.name == "brusselator":  # whose Jacobian they have to find out
        n = 2 * N_POINTS
        band = scipy.sparse.diags_array(
            np.ones((5, n)), offsets=range(-2, 3), shape=(n, n)
        )
        options |= {"ml": 2, "mu": 2} if method == "odeint" else {"jac_sparsity": band}
    y = np.full((len(problem), len(problem.times), problem.y0.shape[1]), np.nan)
    for i, (y0, params) in enumerate(zip(problem.y0, problem.params)):
        f, jac = functions(problem.system, params)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            solution = solve_one(f, jac, y0, problem.times, method, **options)
        y[i] = np.nan if solution is None else solution
    return y


def _odeint(f, jac, y0, times, method, **options):
    y, info = scipy.integrate.odeint(
        f,
        y0,
        times,
        Dfun=jac,
        tfirst=True,
        mxstep=MAX_STEPS,
        full_output=True,
        **options,
    )
    return y if info["message"] == "Integration successful." else None


def _scipy_solve_ivp(f, jac, y0, times, method, **options):
    span = times[[0, -1]]
    solution = scipy.integrate.solve_ivp(
        f, span, y0, method=method, t_eval=times, jac=jac, **options
    )
    return solution.y.T if solution.success else None


# -------------------------------------------------------------------------- RoadRunner


@cache
def roadrunner_model(make_system):
    """Return a system as RoadRunner has it, compiled from its equations."""
    import antimony
    import roadrunner

    system = make_system()
    names = [*system.state_names, *system.param_names]
    plain = {name: f"v{i}" for i, name in enumerate(names)}
    pattern = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    lines = [f"{name} = 0" for name in plain.values()]
    for line in system.equations():
        left, right = line.replace("**", "^").split(" = ")
        right = re.sub(pattern, lambda found: plain[found[0]], right)
        if left[:-1] in system.state_names and left.endswith("'"):
            lines.append(f"{plain[left[:-1]]}' = {right}")
        else:
            lines.append(f"{left} := {right}")
    antimony.clearPreviousLoads()
    if antimony.loadAntimonyString("\n".join(lines)) < 0:
        raise ValueError(antimony.getLastError())
    model = roadrunner.RoadRunner(antimony.getSBMLString())
    model.timeCourseSelections = [plain[name] for name in system.state_names]
    return model, [plain[name] for name in names]


def solve_roadrunner(problem, rtol, make_system):
    """Solve sample by sample by CVODE, as RoadRunner has it."""
    model, names = roadrunner_model(make_system)
    integrator = model.getIntegrator()
    integrator.relative_tolerance, integrator.absolute_tolerance = rtol, problem.atol
    integrator.maximum_num_steps = MAX_STEPS
    y = np.full((len(problem), len(problem.times), problem.y0.shape[1]), np.nan)
    for i, values in enumerate(np.hstack([problem.y0, problem.params])):
        model.reset()
        for name, value in zip(names, values):
            model[name] = value
        with suppress(RuntimeError):
            y[i] = model.simulate(times=problem.times)
    return y


# ----------------------------------------------------------------------------- diffrax


def jax_function(system):
    """Return ``f(t, y, params)`` for one sample, in jax.numpy."""
    if system.name in FORMULAS:
        rhs, _ = FORMULAS[system.name]
        return lambda t, y, k: jnp.stack(rhs(y, k))
    tables = Reactions(system)

    def f(t, y, k):
        y = jnp.append(y, 1.0)
        return tables.stoichiometry @ (k * y[tables.first] * y[tables.second])

    return f


def diffrax_solver(
    system, times, solver=None, adjoint=None, land=True, max_steps=MAX_STEPS
):
    """Return ``solve(y0, params, rtol) -> y`` for one sample, neither mapped nor jitted.

    Tuned on the five stiff problems for the least time at equal error:

    - Kvaerno5 accepts a Newton iteration as soon as its error is below 0.9 of the
      tolerance instead of 0.01 (``kappa``): two to four times fewer steps, since most
      of the rejected ones were those whose iteration was too slow, and none gets stuck
      at round-off. Full Newton with a Jacobian per iteration is many times slower.
    - The step follows a PI controller (pcoeff 0.4, icoeff 0.3), as diffrax advises for
      harder problems: half as many steps as with the default.
    - Steps land on the output times (``land``): the cubic interpolation of Kvaerno5
      would cost it one to two digits at the outputs.
    """
    f, times = jax_function(system), jnp.asarray(times)
    if solver is None:
        chord = diffrax.with_stepsize_controller_tols(diffrax.VeryChord)(kappa=0.9)
        solver = diffrax.Kvaerno5(root_finder=chord)
    adjoint = adjoint or diffrax.RecursiveCheckpointAdjoint()

    def solve(y0, params, rtol):
        controller = diffrax.PIDController(
            rtol=rtol, atol=ATOL[system.name], pcoeff=0.4, icoeff=0.3
        )
        if land:
            controller = diffrax.ClipStepSizeController(controller, step_ts=times)
        return diffrax.diffeqsolve(
            diffrax.ODETerm(f),
            solver,
            times[0],
            times[-1],
            None,
            y0,
            params,
            saveat=diffrax.SaveAt(ts=times),
            stepsize_controller=controller,
            adjoint=adjoint,
            max_steps=max_steps,
            throw=False,
        ).ys

    return solve


_compiled = {}


def solve_diffrax(problem, rtol, **options):
    """Solve all samples in one vmapped and jitted call, compiled once per shape.

    A sample whose Newton iteration gets stuck holds up the whole batch.
    """
    y0, params, times = problem.y0, problem.params, problem.times
    key = problem.system.name, tuple(times), len(problem), repr(options)
    if key not in _compiled:
        solve = diffrax_solver(problem.system, times, **options)
        mapped = jax.jit(jax.vmap(solve, (0, 0, None)))
        _compiled[key] = mapped.lower(y0, params, rtol).compile()
    return np.asarray(_compiled[key](y0, params, rtol))


# ------------------------------------------------------------------------- comparisons


def interleave(runs, repeats=3, budget_s=5):
    """Time contenders in turn, so that a busy machine is busy for all of them.

    Parameters
    ----------
    runs : dict of str to callable
        Contenders, compiled and warmed up by an earlier call.

    repeats : int, default=3
        Calls of each.

    budget_s : float, default=5
        Seconds after which a slow contender is not called again.

    Returns
    -------
    results : dict
        What the last calls returned.

    seconds : dict
        Median duration of a call.
    """
    results, times = {}, {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            if not times[name] or sum(times[name]) < budget_s:
                start = time.perf_counter()
                results[name] = run()
                times[name].append(time.perf_counter() - start)
    return results, {name: float(np.median(times[name])) for name in runs}


def add_ratios(rows, rtol):
    """Add to our rows at ``rtol`` what each peer costs at the same error.

    Log-log interpolation of the peer's measured errors and costs; "nan" where none of its
    errors was as large or as small. ``rows`` hold ``solver``, ``rtol``, ``error`` and, in
    their last column, the cost.
    """
    cost = list(rows[0])[-1]
    peers = dict.fromkeys(r["solver"] for r in rows if "ours" not in r["solver"])
    for peer in peers:
        measured = [(r["error"], r[cost]) for r in rows if r["solver"] == peer]
        log_errors, log_costs = np.log(sorted(measured)).T
        for row in rows:
            if row["rtol"] == rtol and "ours" in row["solver"]:
                log_cost = np.interp(
                    np.log(row["error"]), log_errors, log_costs, np.nan, np.nan
                )
                row[f"times faster than {peer}"] = short(np.exp(log_cost) / row[cost])


def main():
    """Compare every solver with the published solutions, at rtol 1e-8."""
    print("relative error at the end, against the published; over all outputs")
    for make_system in STIFF[:5]:
        system = make_system()
        end, states, _ = system.reference
        times = np.array([system.times[0], *np.geomspace(1e-5, end, 50)])
        problem = Problem(system, system.nominal[None], times)
        solvers = {name: partial(solve_ours, **how) for name, how in OURS.items()}
        for method in ("odeint", "LSODA", "BDF", "Radau"):
            solvers[f"SciPy {method}"] = partial(solve_scipy, method=method)
        solvers["diffrax Kvaerno5"] = solve_diffrax
        for name, solve in solvers.items():
            y = solve(problem, 1e-8)
            error = np.abs(y[0, -1] / states - 1).max()
            print(f"{system.name:12} {name:18} {error:8.1e} {problem.error(y):8.1e}")


if __name__ == "__main__":
    main()
