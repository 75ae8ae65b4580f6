"""Claims: PDE systems solve published problems, and every inverter takes them."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from sklearn_inverse import (
    ForwardFunction,
    GradientInverter,
    MCMCInverter,
    ODESimulator,
    PDESystem,
    PointValues,
)
from sklearn_inverse.datasets import make_inverse_problem
from sklearn_inverse.exceptions import IdentifiabilityWarning
from sklearn_inverse.forward._base import as_forward_model
from sklearn_inverse.ode import solve_ivp
from sklearn_inverse.probability import GaussianFunction, Normal
from sklearn_inverse.problems import burgers, fisher_kpp, heat, point_source, poisson
from sklearn_inverse.systems import (
    Chebyshev,
    FiniteDifferences,
    ParticleCounts,
    godunov,
)
from sklearn_inverse.systems._newton import Stencil, newton

X = np.linspace(0.1, 0.9, 9)
HAT = np.linspace(0, 1, 51)[1:-1]
HAT = 1.5 - np.abs(HAT - 0.5)
SEE = {"square": lambda x, u, p: u**2, "weighed": lambda x, u, p: u * x.x / p.D}


def diffusion(**options):
    """D u'' = -π² sin πx, whose solution is sin(πx) / D."""
    given = {
        "domain": {"x": (0, 1)},
        "residual": lambda x, u, p: p.D * u.xx + np.pi**2 * np.sin(np.pi * x.x),
        "constraint": lambda x, n: n * x.x * (1 - x.x),
        "params": {"D": (0.5, 4)},
        "observe": PointValues(X),
        "noise": 0.01,
    }
    return PDESystem(**given | options)


def decaying(**options):
    """u_t = D u_xx, whose solution is sin(πx) e^(-D π² t)."""
    given = {
        "domain": {"x": (0, 1), "t": (0, 1)},
        "residual": lambda x, u, p: u.t - p.D * u.xx,
        "constraint": lambda x, n: np.sin(np.pi * x.x) + n * x.x * (1 - x.x) * x.t,
        "params": {"D": (0.01, 0.2)},
        "observe": PointValues(X, t=[0.5, 1.0]),
        "noise": 0.01,
        "grid": Chebyshev(13),
    }
    return PDESystem(**given | options)


# --- grids


def test_chebyshev_derivatives_converge_exponentially():
    errors = []
    for n_nodes in (8, 12, 16):
        grid = Chebyshev(n_nodes).on(-1, 2)
        x = grid.nodes
        slope, _ = grid.derivative(np.sin(2 * x), 0)
        errors.append(np.abs(slope - 2 * np.cos(2 * x)).max())
        assert np.allclose(grid.interpolation(x), np.eye(n_nodes))
    assert errors[1] < 1e-2 * errors[0]
    assert errors[2] < 1e-2 * errors[1] < 1e-4


@pytest.mark.parametrize("grid", [Chebyshev(20), FiniteDifferences(400)])
def test_interpolation_between_nodes(grid):
    points = np.linspace(0, 1, 7)
    read = grid.interpolation(points) @ np.sin(3 * grid.nodes)
    assert np.allclose(read, np.sin(3 * points), atol=1e-5)


def test_finite_differences_are_of_second_order():
    exact = np.array([0.294640489253, 0.634945368865, 0.854750306378])
    errors = []
    for n_nodes in (41, 81):
        system = poisson(n_nodes=n_nodes)
        nodes = system.functions["D"].prior.nodes[1:-1]
        u = system.solve(1.5 - np.abs(nodes - 0.5))[0]
        read = np.interp([0.1, 0.25, 0.5], system.nodes, u)
        errors.append(np.abs(read - exact).max())
    assert errors[1] < 1.5e-4
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.1)


# --- published values


@pytest.mark.parametrize(
    ("params", "values"),
    [
        (
            (1, 1),
            (0.1903259453, 0.3713432999, 0.5240726513, 0.6241990237, 0.6585975638),
        ),
        (
            (2, 2),
            (0.3250309532, 0.5564439161, 0.6979649900, 0.7730861550, 0.7965831827),
        ),
        (
            (1, 2),
            (0.3442363509, 0.5853919203, 0.7347317662, 0.8135224578, 0.8377428988),
        ),
    ],
)
def test_fisher_kpp_equals_published_values(params, values):
    simulator = ODESimulator(fisher_kpp().semidiscretize(), rtol=1e-9, atol=1e-12)
    u = simulator.simulate([params])[0, 0]
    assert np.allclose(u, [*values, *values[-2::-1]], atol=1e-8)


def test_fisher_kpp_is_compiled_and_its_sensitivities_are_published():
    system = fisher_kpp().semidiscretize()
    assert system.backend_ == "compiled"
    slopes = ODESimulator(system, rtol=1e-8).sensitivities([[2, 2]])[0, 0]
    by_diffusion = [-0.0256, -0.0340, -0.0369, -0.0387, -0.0393]
    by_growth = [0.1420, 0.1902, 0.1823, 0.1633, 0.1551]
    assert np.allclose(slopes[:5], np.stack([by_diffusion, by_growth], 1), atol=6e-5)


def test_heat_equals_its_series():
    x, m = np.linspace(0, 1, 51)[1:-1], np.arange(1, 400, 2)
    waves = np.sin(m * np.pi / 2) * np.exp(-0.01 * (m * np.pi) ** 2) / m**2
    series = 8 / np.pi**2 * np.sin(m * np.pi * x[:, None]) @ waves
    start = 1 - 2 * np.abs(x - 0.5)
    u = ODESimulator(heat().semidiscretize()).simulate(start[None])[0, 0]
    assert np.abs(u - series).max() < 2e-4


def test_decay_in_closed_form_at_several_times():
    system = decaying()
    rate = np.array([[0.05], [0.1]])
    whole = system.solve(rate, times=[0.25, 1.0])
    t = np.array([0.25, 1.0])[:, None]
    exact = np.sin(np.pi * system.nodes) * np.exp(-rate[:, None] * np.pi**2 * t)
    assert whole.shape == (2, 2, 13)
    assert np.allclose(whole, exact, atol=2e-5)
    read = ODESimulator(system.semidiscretize()).simulate(rate)
    exact = np.exp(-rate * np.pi**2)[:, None] * np.sin(np.pi * X)
    assert np.allclose(read[:, 1:], exact, atol=2e-5)


def stepped(start, n_nodes=1001):
    """Solve Burgers' equation by Godunov's scheme, 1000 steps of .001."""
    x = np.linspace(0, 1, n_nodes)
    u = start(x)
    u[[0, -1]] = 0
    for _ in range(1000):
        flow = 0.1 * np.maximum(np.maximum(u[:-1], 0), -np.minimum(u[1:], 0)) ** 2
        u[1:-1] -= 1e-3 * (n_nodes - 1) * np.diff(flow)
    return x, u


@pytest.mark.parametrize("ends", ["both", "low", "high"])
@pytest.mark.parametrize("grid", [Chebyshev(11), FiniteDifferences(21)])
def test_insulated_ends_have_closed_forms(grid, ends):
    # u = 1 + cos kx or sin kx, times e^(-D k² t): level where it is largest.
    k, wave = {
        "both": (2 * np.pi, np.cos),  # zero at a node, by symmetry only
        "low": (np.pi / 2, np.cos),
        "high": (np.pi / 2, np.sin),
    }[ends]
    factor = {"both": lambda x: 1, "low": lambda x: 1 - x, "high": lambda x: x}[ends]
    x = np.linspace(0, 1, 5)
    errors = []
    for n_nodes in (grid.n_nodes, 2 * grid.n_nodes - 1):
        system = decaying(
            constraint=lambda x, n: 1 + wave(k * x.x) + n * factor(x.x) * x.t,
            observe=PointValues(x, t=1.0),
            grid=type(grid)(n_nodes),
            neumann={"x": ends},
        )
        exact = 1 + wave(k * x) * np.exp(-0.05 * k**2)
        simulator = ODESimulator(system.semidiscretize(), rtol=1e-9)
        errors.append(abs(simulator.simulate([[0.05]])[0, 0] - exact).max())
        assert system.solve([0.05])[0, 0, [0, -1]] == pytest.approx(
            exact[[0, -1]], 0.02
        )
    if isinstance(grid, Chebyshev):
        assert errors[1] < 1e-7
    else:
        assert errors[0] < 5e-3
        assert errors[1] < 0.35 * errors[0]  # of second order


def test_a_source_near_an_insulated_end_loses_nothing():
    # u'' = -δ(x - s), level at 0 and zero at 1: u(0) = 1 - s.
    system = diffusion(
        residual=lambda x, u, p: p.D * u.xx + x.point(x=p.s),
        constraint=lambda x, n: n * (1 - x.x),
        params={"D": (0.5, 4), "s": (0.0, 1.0)},
        grid=FiniteDifferences(51),
        neumann={"x": "low"},
    )
    for s in (0.0, 0.002, 0.01, 0.02, 0.03, 0.04, 0.3):
        assert system.solve([1.0, s])[0, 0] == pytest.approx(1 - s, abs=0.02)
        assert system.solve([1.0, s])[0, 10] == pytest.approx(0.8, abs=1e-9) or s > 0.2


def melting(unit=1.0, zero=0.0, width=2.0):
    """Heat that melts something near 273, in degrees of another unit and zero."""

    def residual(x, u, p):
        kelvin = unit * u + zero
        return (1 + 20 * np.exp(-(((kelvin - 273) / width) ** 2))) * u.t - p.D * u.xx

    def constraint(x, n):
        start = 263 + 20 * x.x + 10 * np.sin(np.pi * x.x)
        return (start - zero) / unit + n * x.x * (1 - x.x) * x.t

    return decaying(
        residual=residual,
        constraint=constraint,
        params={"D": (0.05, 0.5)},
        grid=Chebyshev(33),
    )


def test_a_capacity_is_felt_in_all_units():
    kelvin = melting().solve([0.2])
    assert np.allclose(melting(10.0, 273.0).solve([0.2]) * 10 + 273, kelvin, rtol=1e-6)
    assert kelvin[0, 0, 16] == pytest.approx(278.2543, rel=1e-6)


def test_a_capacity_is_looked_for_where_the_constraint_is():
    assert melting(width=0.02)._rate_told.factor is None


def test_a_capacity_may_change_late():
    system = decaying(residual=lambda x, u, p: (1 + 9 * (x.t > 0.8)) * u.t - p.D * u.xx)
    u = system.solve([0.1], times=[1.0])[0, 0, 6]
    assert u == pytest.approx(np.exp(-0.1 * np.pi**2 * 0.82), rel=1e-4)


@pytest.mark.parametrize("size", [1e-10, 9e-10, 3e6])
def test_a_capacity_may_have_any_size(size):
    system = decaying(
        residual=lambda x, u, p: size * u.t - p.k * u.xx,
        params={"k": (0.05 * size, 0.2 * size)},
    )
    u = system.solve([0.1 * size], times=[1.0])[0, 0, 6]
    assert u == pytest.approx(np.exp(-0.1 * np.pi**2), rel=1e-5)


@pytest.mark.parametrize(
    ("domain", "constraint"),
    [
        ({"x": (0, 2e-5)}, lambda x, n: n * x.x * (2e-5 - x.x)),
        (
            {"x": (-3e6, 1e6 + 0.1)},
            lambda x, n: n * (x.x + 3e6) * (1e6 + 0.1 - x.x),
        ),
        ({"x": (0, 1), "t": (0, 1e-9)}, lambda x, n: n * x.x * (1 - x.x) * x.t),
        (
            {"x": (0, 1), "t": (0, 1)},
            lambda x, n: 2e9 + 1e9 * np.sin(np.pi * x.x) + n * x.x * (1 - x.x) * x.t,
        ),
    ],
)
def test_constraints_may_be_in_any_unit(domain, constraint):
    steady = "t" not in domain
    middle = [np.mean(domain["x"])]
    PDESystem(
        domain,
        lambda x, u, p: p.D * u.xx + (1.0 if steady else u.t),
        constraint=constraint,
        params={"D": (0.5, 4)},
        observe=PointValues(middle, t=None if steady else domain["t"][1]),
        noise=0.1,
    )


def test_a_rate_may_be_any_share_of_its_equation():
    # In seconds that last 1e-17 of a unit of time, a rate of one is round-off.
    x, end = np.linspace(0.1, 0.9, 9), 1e-17
    system = decaying(
        domain={"x": (0, 1), "t": (0, end)},
        params={"D": (0.05 / end, 0.2 / end)},
        observe=PointValues(x, t=end),
    )
    u = system.solve([0.1 / end])[0, 0, 6]
    assert u == pytest.approx(np.exp(-0.1 * np.pi**2), rel=1e-5)


def test_a_constraint_that_fixes_u_inside_is_refused():
    with pytest.raises(ValueError, match="at some nodes it is the same"):
        diffusion(constraint=lambda x, n: n * x.x * (1 - x.x) * (x.x - 0.5))


def test_an_advised_constraint_has_all_digits():
    with pytest.raises(ValueError, match=r"n \* \(x.x - 0.1234567\) \* \(1 - x.x\)"):
        diffusion(
            domain={"x": (0.1234567, 1)},
            observe=PointValues([0.5]),
            constraint=lambda x, n: n * (x.x - 0.123457) * (1 - x.x),
        )


@pytest.mark.parametrize("residual", ["xxx", "xxxx"])
@pytest.mark.parametrize("n_nodes", [5, 9, 17, 33])
def test_conditions_that_are_missing_are_told(residual, n_nodes):
    with pytest.raises(ValueError, match="Does it need more conditions"):
        diffusion(
            residual=lambda x, u, p: p.D * getattr(u, residual) - 1,
            grid=Chebyshev(n_nodes),
        )


def test_many_nodes_are_not_taken_for_singular():
    for grid in (Chebyshev(301), FiniteDifferences(5001)):
        u = diffusion(grid=grid).solve([1.0])[0]
        assert u[len(u) // 2] == pytest.approx(1, abs=1e-6)


def test_params_go_by_name_in_a_series():
    pandas = pytest.importorskip("pandas")
    system = decaying(
        residual=lambda x, u, p: u.t - p.D * u.xx - p.q * u,
        params={"D": (0.05, 0.5), "q": (0.1, 2.0)},
    )
    by_name = system.solve(pandas.Series({"q": 1.0, "D": 0.2}))
    assert np.array_equal(by_name, system.solve([0.2, 1.0]))


def test_no_samples_have_no_readings():
    model = as_forward_model(decaying().semidiscretize())
    assert model.forward(torch.empty(0, 1)).shape == (0, 2, 9)


def test_a_steady_solution_that_is_open_by_a_constant_is_refused():
    options = {"constraint": lambda x, n: n, "neumann": "x"}
    with pytest.raises(ValueError, match="open by a constant"):
        diffusion(**options)
    u = diffusion(residual=lambda x, u, p: u.xx - p.D * (u - 2), **options).solve([1.0])
    assert np.allclose(u, 2)


def test_a_state_that_is_zero_by_symmetry_costs_no_steps():
    # cos πx at the node 1/2 is round-off, and not a quantity of its own.
    def n_steps(n_nodes):
        system = decaying(
            constraint=lambda x, n: np.cos(np.pi * x.x) + n * x.t,
            grid=FiniteDifferences(n_nodes),
            neumann="x",
        ).semidiscretize()
        p = torch.tensor([[0.05]], dtype=torch.float64)
        t = torch.tensor([0.0, 1.0], dtype=torch.float64)
        given = system.solved, t, system.initial_state(p), p
        return solve_ivp(*given, alike=system.alike).stats["n_steps"].item()

    assert n_steps(21) < 1.5 * n_steps(20)


@pytest.mark.parametrize(
    ("start", "front"),
    [
        (lambda x: np.sin(2 * np.pi * x), 0.5),
        # The mean of the speeds 0 and .2, for a time of 1.
        (lambda x: 1.0 * (abs(x - 0.5) <= 0.25), 0.85),
    ],
)
def test_shocks_are_those_of_godunov_to_first_order(start, front):
    x, reference = stepped(start)
    errors = []
    for n_nodes in (51, 101):
        system = burgers(n_nodes=n_nodes, n_values=n_nodes)
        f = start(system.nodes)[1:-1]
        u = system.solve(f)[0, 0]
        errors.append(np.abs(np.interp(x, system.nodes, u) - reference).mean())
        # What flows out of one volume flows into the next: nothing is lost.
        assert u.sum() == pytest.approx(f.sum(), abs=1e-6 * n_nodes)
        assert -1e-6 <= u[: n_nodes // 2].min() <= u.max() <= 1
    assert 0.5 < np.log2(errors[0] / errors[1]) < 1.3
    assert errors[1] < 0.025
    behind = system.nodes[np.flatnonzero(u > 0.4).max()]
    assert behind == pytest.approx(front, abs=2 / (n_nodes - 1))


# --- steady problems


def nonlinear():
    """0.01 u'' + k tanh u = f with u = sin³ 6x for k = 0.7, between ±0.7."""

    def residual(x, u, p):
        s, c = np.sin(6 * x.x), np.cos(6 * x.x)
        bend = 108 * (2 * s * c**2 - s**3)
        return 0.01 * (u.xx - bend) + p.k * np.tanh(u) - 0.7 * np.tanh(s**3)

    end = np.sin(4.2) ** 3
    return PDESystem(
        {"x": (-0.7, 0.7)},
        residual,
        constraint=lambda x, n: end * x.x / 0.7 + n * (0.7 - x.x) * (x.x + 0.7),
        params={"k": (0.5, 0.9)},
        observe=PointValues(np.linspace(-0.6, 0.6, 6)),
        noise=0.01,
        grid=Chebyshev(65),
    )


def test_a_nonlinear_problem_is_solved_and_differentiated():
    system = nonlinear()
    x = np.linspace(-0.6, 0.6, 6)
    k = torch.tensor([[0.7], [0.62]], dtype=torch.float64, requires_grad=True)
    read = system.report(k)
    assert np.allclose(read[0, 0].detach(), np.sin(6 * x) ** 3, atol=1e-6)
    (slope,) = torch.autograd.grad(read.sum(), k)
    step = 1e-5
    near = [system.report(k.detach() + s).sum(dim=(1, 2)) for s in (step, -step)]
    assert np.allclose(slope[:, 0], (near[0] - near[1]) / (2 * step), rtol=1e-5)


def test_sparse_and_dense_slopes_are_the_same_and_finite_differences():
    n, k = 320, torch.tensor([[2.0, 1.0], [3.0, 0.5]]).double()
    system = diffusion(
        residual=lambda x, u, p: (p.D * (1 + u**2) * u.x).x + p.f,
        params={"D": (0.5, 4), "f": (0.1, 2)},
        grid=FiniteDifferences(n),
    )
    assert system._stencil.is_sparse
    read, slope = system.linearized_report(k)
    k.requires_grad_()
    assert torch.allclose(system.report(k), read, rtol=1e-12)
    weights = torch.randn(read.shape, generator=torch.Generator().manual_seed(0))
    (pulled,) = torch.autograd.grad((weights * system.report(k)).sum(), k)
    assert torch.allclose(pulled, torch.einsum("stc,stcp->sp", weights.double(), slope))
    for j in range(2):
        step = 1e-5 * torch.eye(2).double()[j]
        with torch.no_grad():
            up, down = system.report(k + step), system.report(k - step)
        assert torch.allclose(slope[..., j], (up - down) / 2e-5, rtol=1e-6, atol=1e-9)
    system._stencil.is_sparse = False
    assert torch.allclose(system.linearized_report(k)[1], slope, rtol=1e-9)


def test_newton_steps_that_overshoot_are_shortened():
    start = torch.tensor(
        [[3.0], [3.0]], dtype=torch.float64
    )  # from 1.4 on they diverge
    goal = torch.tensor(
        [[0.5], [2.0]], dtype=torch.float64
    )  # an arctangent is below 1.6
    one = Stencil([(1, True)])
    u, inverse = newton(lambda u, p: torch.atan(u) - p, start, goal, one)
    assert u[0, 0] == pytest.approx(np.tan(0.5), rel=1e-12)
    slope = inverse(torch.ones_like(u))[0, 0]
    assert slope == pytest.approx(1 / np.cos(0.5) ** 2, rel=1e-6)
    assert u[1].isnan()


def test_a_batch_equals_one_by_one_and_failures_stay_alone():
    system = diffusion(
        residual=lambda x, u, p: p.D * u.xx + np.pi**2 * np.sin(np.pi * x.x),
        params={"D": (-1, 4)},
    )
    rates = np.array([[2.0], [0.0], [0.5]])
    u = system.solve(rates)
    assert np.isnan(u[1]).all()
    assert np.allclose(u[[0]], system.solve(rates[[0]]), rtol=1e-12)
    assert np.allclose(u[[0, 2]], np.sin(np.pi * system.nodes) / rates[[0, 2]])


def density(x, birth, death):
    """Density of particles born in the middle of (0, 1), in closed form."""
    s = np.sqrt(death)
    rise = np.sinh(s * np.minimum(x, 0.5)) * np.sinh(s * (1 - np.maximum(x, 0.5)))
    return birth / s * rise / np.sinh(s)


def total(birth, death):
    """Integral of the density."""
    return birth / death * (1 - 1 / np.cosh(np.sqrt(death) / 2))


@pytest.mark.parametrize(
    ("params", "quarter", "middle", "whole"),
    [
        ((500, 10), 27.3248314422, 72.6359018237, 30.2614512564),
        ((250, 5), 19.4362623067, 45.1061861505, 20.4645031062),
    ],
)
def test_a_source_in_a_point_has_its_published_density(params, quarter, middle, whole):
    assert density(0.25, *params) == pytest.approx(quarter, rel=1e-8)
    errors = []
    for n_nodes in (101, 201):
        system = point_source(n_nodes=n_nodes, n_snapshots=1)
        u = system.solve(params)[0]
        read = np.interp([0.25, 0.5], system.nodes, u)
        counted = system.report(torch.tensor([params], dtype=torch.float64)).sum()
        errors.append([*read, counted] / np.array([quarter, middle, whole]) - 1)
    assert np.abs(errors[1]).max() < 5e-5
    assert np.allclose(np.log2(np.divide(*errors)), 2, atol=0.05)


def test_a_source_may_lie_between_nodes_and_be_looked_for():
    system = PDESystem(
        {"x": (0, 1)},
        lambda x, u, p: u.xx + x.point(x=p.z),
        constraint=lambda x, n: n * x.x * (1 - x.x),
        params={"z": (0.2, 0.8)},
        observe=PointValues(X),
        noise=1e-3,
        grid=FiniteDifferences(41),
    )
    z = 0.4321
    exact = np.minimum(X, z) * (1 - np.maximum(X, z))
    assert np.allclose(system.report(torch.tensor([[z]]).double()), exact, atol=1e-3)
    inverter = GradientInverter(system, max_solves=0, random_state=0).fit([exact])
    assert inverter.predict([exact]) == pytest.approx(z, abs=1e-3)


def snapshots(rng, params, n_snapshots=100):
    """Draw positions of particles, by thinning."""
    most = density(0.5, *params)
    x = rng.random(rng.poisson(n_snapshots * most))
    return x[rng.random(len(x)) < density(x, *params) / most]


def test_expected_counts_are_shares_of_all_particles():
    one, many = (point_source(n_snapshots=n, n_nodes=51) for n in (1, 100))
    params = torch.tensor([[500.0, 10.0]], dtype=torch.float64)
    assert torch.allclose(many.report(params), 100 * one.report(params))
    assert one.report(params).sum().item() == pytest.approx(total(500, 10), rel=5e-3)


@pytest.mark.slow
def test_counts_tell_what_positions_do():
    system, rng = point_source(), np.random.default_rng(0)
    seen = [snapshots(rng, (500, 10)) for _ in range(3)]
    counts = system.observe.count(seen)
    assert counts.sum(axis=1).tolist() == [len(x) for x in seen]
    posterior = GradientInverter(system, n_starts=1).fit(counts).posterior(counts)
    for x, params, std in zip(seen, posterior.params, posterior.std):
        # Maximum of the likelihood of the positions themselves.
        best = minimize(
            lambda v, x=x: (
                100 * total(*np.exp(v)) - np.log(density(x, *np.exp(v))).sum()
            ),
            np.log([500, 10]),
            method="Nelder-Mead",
        )
        assert (np.abs(params - np.exp(best.x)) < 0.1 * std).all()
        assert (np.abs(params - [500, 10]) < 4 * std).all()


# --- functions of other coordinates than that of space


def test_a_function_of_time_is_integrated_over_its_kinks():
    # u_t = x (1 - x) f(t): the integral of f is that of its straight pieces.
    system = decaying(
        residual=lambda x, u, p: u.t - x.x * (1 - x.x) * p.f,
        constraint=lambda x, n: n * x.x * (1 - x.x) * x.t,
        params={"f": GaussianFunction(9, over="t")},
        grid=Chebyshev(5),
    )
    f = np.random.default_rng(0).standard_normal(9)
    whole = np.r_[0, np.cumsum((f[1:] + f[:-1]) / 16)]
    u = system.solve(f, times=system.functions["f"].prior.nodes)[0]
    shape = system.nodes * (1 - system.nodes)
    assert np.allclose(u, whole[:, None] * shape, atol=1e-6)


def test_an_unknown_temperature_at_an_end_is_found():
    system = PDESystem(
        {"x": (0, 1), "t": (0, 1)},
        lambda x, u, p: u.t - 0.1 * u.xx,
        constraint=lambda x, n, p: p.f * (1 - x.x) + n * x.x * (1 - x.x) * x.t,
        params={"f": GaussianFunction(9, order=2, scale=10.0, over="t")},
        observe=PointValues([0.1, 0.3], t=np.arange(1, 11) / 10),
        noise=0.01,
        grid=FiniteDifferences(9),
    )
    t = system.functions["f"].prior.nodes
    truth = np.sin(6 * t) + t
    lines = ODESimulator(system.semidiscretize())
    read = lines.simulate(truth[None]).reshape(1, -1)
    slope = lines.sensitivities(truth[None]).reshape(-1, 9)
    assert np.allclose(slope @ truth, read[0], atol=1e-5)  # u is linear in f
    read = read + 0.01 * np.random.default_rng(0).standard_normal(read.shape)
    posterior = (
        GradientInverter(system, n_starts=1, max_solves=0).fit(read).posterior(read)
    )
    assert (np.abs(posterior.mean - truth) < 3.5 * posterior.std).all()
    assert (posterior.std < 0.1).all()


# --- inverters


def test_params_are_found():
    read = [np.sin(np.pi * X) / 2]
    posterior = GradientInverter(diffusion()).fit(read).posterior(read)
    # d(u/σ)/dD = sin(πx) / (σ D²)
    exact = 0.01 * 4 / np.linalg.norm(np.sin(np.pi * X))
    assert posterior.mean[0, 0] == pytest.approx(2, abs=1e-3)
    assert posterior.std[0, 0] == pytest.approx(exact, rel=0.01)


@pytest.mark.slow
def test_a_system_in_time_is_inverted_by_other_methods_too():
    system = decaying()
    pairs = make_inverse_problem(system, 2, noisy=True, random_state=0)
    assert pairs.observations.shape == (2, 18)
    inverter = MCMCInverter(system, n_walkers=8, n_effective=50, random_state=0)
    answer = inverter.fit(pairs.observations).posterior(pairs.observations)
    assert (np.abs(answer.mean - pairs.params) < 4 * answer.std).all()


def test_pairs_of_a_steady_system_are_drawn_from_its_prior():
    system = point_source(n_bins=10, n_nodes=41)
    pairs = make_inverse_problem(system, 40, noisy=True, random_state=0)
    assert (pairs.observations == pairs.observations.round()).all()
    with torch.no_grad():
        expected = system.report(torch.as_tensor(pairs.params)).numpy()
    assert np.allclose(pairs.trajectories, expected)
    away = (pairs.observations - expected[:, 0]) / np.sqrt(expected[:, 0])
    assert np.mean(away**2) == pytest.approx(1, abs=0.25)  # Poisson's
    again = make_inverse_problem(system, 40, n_observed=1, random_state=0)
    assert (again.params == pairs.params).all()
    learned = GradientInverter(system, max_solves=0, n_starts=1)
    inverted = learned.fit(pairs.observations[:4]).posterior(pairs.observations[:4])
    low, high = inverted.interval(0.999)
    assert ((low < pairs.params[:4]) & (pairs.params[:4] < high)).all()


def test_fisher_kpp_without_noise():
    system = fisher_kpp(noise=1e-4)  # at 1e-2, D = 3.9 and rho = 2.4 do as well
    read = ODESimulator(system.semidiscretize()).simulate([[2, 2]]).reshape(1, -1)
    inverter = GradientInverter(system, max_solves=0).fit(read)
    assert np.allclose(inverter.predict(read), 2, atol=1e-4)


def test_an_unknown_diffusivity_has_a_band_that_holds_it():
    system = poisson(scale=2.0)
    x = np.linspace(0, 1, 51)[1:-1]
    u = np.interp(x, system.nodes, system.solve(HAT)[0])
    read = u + 0.01 * np.random.default_rng(1).standard_normal((4, 49))
    inverter = GradientInverter(system, n_starts=1, max_solves=0).fit(read)
    posterior = inverter.posterior(read)
    low, high = posterior.interval(0.9)
    assert str(posterior[0]).startswith("poisson: 49 readings")
    assert np.linalg.norm(posterior.mean - HAT) < 0.05 * np.linalg.norm([HAT] * 4)
    assert 0.85 < np.mean((low < HAT) & (high > HAT)) <= 1


def test_models_are_of_the_kind_that_solves_them():
    assert isinstance(as_forward_model(diffusion()), ForwardFunction)
    assert isinstance(as_forward_model(decaying()), ODESimulator)


# --- what is refused


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"domain": {"t": (0, 1)}}, "one or two coordinates"),
        ({"domain": {"x": (1, 0)}}, "low, high"),
        ({"constraint": None}, r"must be a function .* n \* x\.x \* \(1 - x\.x\)"),
        ({"constraint": lambda x, n: n}, "must fix u at all ends"),
        ({"constraint": lambda x, n: 1 - x.x}, "must leave u open inside"),
        ({"residual": lambda x, u, p: p.D * u.tt}, r"there is no \.tt"),
        ({"residual": lambda x, u, p: p.k * u.xx}, "there is no param 'k'"),
        ({"residual": lambda x, u, p: p.D.x * u.xx}, r"no \.x of what is the same"),
        ({"residual": lambda x, u, p: u.xx + p.D * x.y}, "the domain has"),
        ({"residual": lambda x, u, p: u.xx / (0 * p.D)}, "must be finite"),
        ({"residual": lambda x, u, p: p.D * u.xx + max(u, 0)}, r"write np\.where"),
        ({"residual": lambda x, u, p: p.D * u.xx + math.sin(x.x)}, r"write np\.sin"),
        ({"residual": lambda x, u, p: p.D(x.x) * u.xx}, r"write p\.D, not"),
        ({"residual": lambda x, u, p: (p.D * u.xx, u)}, "one function of the"),
        ({"residual": lambda x, u, p: u.xx + 1}, r"changes with \['D'\]"),
        ({"grid": 33}, r"must be Chebyshev\(33\)"),
        ({"observe": PointValues([0.5, 1.5])}, "inside the domain"),
        ({"observe": PointValues([0.5], t=1.0)}, "has no 't'"),
        ({"observe": PointValues([0.5], y=[0.5])}, "points of 1 coordinate"),
        ({"observe": ParticleCounts([0.5, 0.2])}, "Edges of bins must increase"),
        ({"observe": ParticleCounts([0, 1], 0)}, "must be >= 1"),
        ({"observe": ParticleCounts([0, 1], math.inf)}, "whole number"),
        ({"observe": ParticleCounts([0, 1], "a")}, "whole number"),
        ({"observe": [0.5]}, "PointValues\\(x, t\\) or ParticleCounts"),
        ({"observe": PointValues(X, see=abs)}, "`see` must be a dict"),
        ({"observe": PointValues(X, see={"a": lambda u: u})}, r"see\(x, u, p\) cannot"),
        ({"observe": PointValues(X, see={"a": lambda x, u, p: p.k})}, "no param 'k'"),
        (
            {"observe": PointValues(X, see={"a": lambda x, u, p: u[0]})},
            "one value for each of",
        ),
        (
            {"observe": PointValues(X, see={"a": lambda x, u, p: 1.0})},
            "one value for each of",
        ),
        (
            {
                "params": {"D": (0.5, 4), "k": (0, 1)},
                "observe": PointValues(X, see=SEE),
            },
            r"changes with \['k'\]",
        ),
        (
            {"residual": lambda x, u, p: p.D * u.xx + x.point(x=0.3)},
            "source in a point",
        ),
        ({"residual": lambda x, u, p: p.D * u.xx + x.point(z=1)}, "has coordinates"),
        ({"observe": PointValues([0.5, 0.3, 0.5])}, "each point once"),
        ({"params": ["D"]}, "must be a dict"),
        ({"params": {"D": None}}, "of an unknown function GaussianFunction"),
        ({"params": {"D": lambda x: 1 + x}}, "of an unknown function GaussianFunction"),
        ({"params": {"D": GaussianFunction(9, interval=(0, 2))}}, "must live on"),
        ({"params": {"D": GaussianFunction(9, over="t")}}, r"which coordinates.*'x'"),
        ({"grid": Chebyshev(33), "params": {}}, "at least one name"),
    ],
)
def test_what_cannot_be_is_refused(options, match):
    with pytest.raises((ValueError, TypeError), match=match):
        diffusion(**options)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"residual": lambda x, u, p: u.xx * p.D}, "must depend on u.t"),
        ({"residual": lambda x, u, p: u.t**2 - p.D * u.xx}, "linear in u.t"),
        ({"residual": lambda x, u, p: u.xt - p.D * u.xx}, "by time there is u.t"),
        ({"residual": lambda x, u, p: u.t + godunov(lambda u: u**2, u).x}, "neighbors"),
        ({"constraint": lambda x, n: n * x.x * (1 - x.x)}, "what u begins with"),
        ({"observe": PointValues(X)}, "when it is read"),
        ({"observe": PointValues(X, t=[1.0, 0.5])}, "must increase"),
        ({"domain": {"x": (0, 1), "t": (-1, 1)}}, r"by \(x\.t \+ 1\)"),
        ({"neumann": "y"}, "coordinates of space, 'x'"),
        ({"neumann": {"x": "left"}}, "'low', 'high', 'both'"),
        ({"neumann": {"x": ["low"]}}, "'low', 'high', 'both'"),
        ({"neumann": {"x": "high"}}, "leave u open"),
        ({"constraint": lambda x, n: n * x.t}, "neumann='x'"),
    ],
)
def test_what_cannot_be_in_time_is_refused(options, match):
    with pytest.raises(ValueError, match=match):
        decaying(**options)


def test_instruments_see_what_they_make_of_the_solution_at_each_point():
    system = diffusion(observe=PointValues(X, see=SEE))
    u = np.sin(np.pi * X) / 2
    (read,) = system.report(torch.tensor([[2.0]], dtype=torch.float64))
    assert np.allclose(read[0], np.concatenate([u**2, u * X / 2]), rtol=1e-6)
    assert system.observable_names[8:10] == ["square(0.9)", "weighed(0.1)"]
    over_time = {"late": lambda x, u, p: x.t * u / p.D}
    lines = decaying(observe=PointValues(X, t=[0.5, 1.0], see=over_time))
    late = ODESimulator(lines.semidiscretize()).simulate([[0.1]])[0]
    plain = ODESimulator(decaying().semidiscretize()).simulate([[0.1]])[0]
    assert np.allclose(late, plain * [[5.0], [10.0]], rtol=1e-6)


def test_a_source_has_no_effect_where_the_solution_is_given():
    system = diffusion(
        residual=lambda x, u, p: u.xx + x.point(x=p.z),
        params={"z": (0.0, 1.0)},
        grid=FiniteDifferences(11),
    )
    z = np.array([0.0, 1e-3, 0.03, 1.0])  # Green's function is
    green = np.minimum(X, z[:, None]) * (1 - np.maximum(X, z[:, None]))
    read = system.report(torch.as_tensor(z)[:, None])[:, 0]
    assert np.allclose(read, green, atol=1e-12)


def test_the_noise_of_an_instrument_is_that_of_its_points():
    at = PointValues(X, see=SEE)
    system = diffusion(observe=at, noise={"square": 0.1, "weighed": Normal("D")})
    by_point = dict.fromkeys(system.observable_names[:9], 0.1)
    by_point |= dict.fromkeys(system.observable_names[9:], Normal("D"))
    assert system.noise == by_point
    with pytest.raises(ValueError, match="squared"):
        diffusion(observe=at, noise={"squared": 0.1, "weighed": 0.1})


@pytest.mark.parametrize(
    ("see", "match"),
    [
        (lambda x, u, p: u * np.nan, r"whatever the solution.*\['dark\(0.1\)', .* …"),
        (
            lambda x, u, p: u + np.where(x.x < 0.15, np.nan, 0),
            r"params for \['dark\(0.1\)'\]\.",
        ),
    ],
)
def test_instruments_that_see_nothing_are_refused(see, match):
    with pytest.raises(ValueError, match=match):
        diffusion(observe=PointValues(X, see={"dark": see, "light": lambda x, u, p: u}))


def test_points_that_are_close_keep_apart():
    near = PointValues([0.5, 0.5 + 1e-8, 0.6], t=[0.5, 1.0])
    names = decaying(observe=near).semidiscretize().observable_names
    assert names == ["u(0.5)", "u(0.50000001)", "u(0.6)"]


def test_params_of_a_solution_are_as_many_as_the_system_has():
    one = diffusion().solve([2.0])
    np.testing.assert_array_equal(diffusion().solve([[2.0]]), one)
    for params in ([2.0, 0.5], [[2.0, 0.5]]):
        with pytest.raises(ValueError, match="n_params=1"):
            diffusion().solve(params)


def test_a_solution_is_asked_for_from_the_start_on():
    for times in ([1.0, 0.5], [-0.5, 0.5], [np.nan]):
        with pytest.raises(ValueError, match="`times` must increase from the start, 0"):
            decaying().solve([[0.1]], times=times)


def test_a_steady_problem_has_no_ordinary_equations():
    with pytest.raises(ValueError, match="needs time in the `domain`"):
        diffusion().semidiscretize()


def test_third_derivatives_need_chebyshev():
    dispersive = {"residual": lambda x, u, p: u.t + p.D * u.xxx}
    assert decaying(**dispersive)
    with pytest.raises(ValueError, match="take Chebyshev"):
        decaying(grid=FiniteDifferences(21), **dispersive)


def test_a_factor_of_the_rate_may_vary():
    system = decaying(residual=lambda x, u, p: (1 + x.x) * (u.t - p.D * u.xx))
    rate = np.array([[0.1]])
    assert np.allclose(system.solve(rate), decaying().solve(rate), atol=1e-6)


@pytest.mark.parametrize(
    ("source", "match"),
    [
        (lambda x, u, p: x.point(x=1.5), "must lie in the domain, from 0 to 1"),
        (lambda x, u, p: x.point(x=-0.1), "must lie in the domain"),
        (lambda x, u, p: x.point(x=0.0), "no source changes it. Got 0.0"),
        (lambda x, u, p: godunov(lambda u: u**2, u, along="y").x, r"\['x'\]. Got al"),
        (lambda x, u, p: godunov(lambda u: u**2, 1.0).x, r"solution u\. Got float"),
        (lambda x, u, p: godunov(lambda u: u * (1 - u), u).x, "godunov must be convex"),
        (lambda x, u, p: godunov(lambda u: p.D * u * (1 - u), u).x, "must be convex"),
        (lambda x, u, p: godunov(lambda u: (u - 0.5) ** 2, u).x, "must be convex"),
    ],
)
def test_wrong_sources_and_fluxes_are_refused(source, match):
    with pytest.raises(ValueError, match=match):
        diffusion(
            residual=lambda x, u, p: p.D * u.xx + source(x, u, p),
            grid=FiniteDifferences(11),
        )


@pytest.mark.parametrize(
    ("positions", "match"),
    [
        ([0.1, 0.3], "one list for each sample"),
        ([], "one sample at least"),
        ([[0.1, math.nan]], "must lie in the bins"),
        ([[0.1], [0.2, 1.5]], r"Got \[1.5\] in sample 1"),
    ],
)
def test_what_is_no_position_is_not_counted(positions, match):
    with pytest.raises(ValueError, match=match):
        ParticleCounts([0, 0.5, 1]).count(positions)


def test_no_particles_are_counted_as_none():
    counts = ParticleCounts([0, 0.5, 1]).count([[], [0.0, 1.0]])
    assert counts.tolist() == [[0, 0], [1, 1]]


@pytest.mark.parametrize(
    "residual",
    [
        lambda x, u, p: u.t - u.xx - p.a * np.where(np.abs(x.t - 0.5) < 0.05, 1, 0),
        lambda x, u, p: u.t - u.xx - p.a * np.exp(-(((x.t - 0.5) / 0.003) ** 2)),
        lambda x, u, p: u.t - u.xx + np.maximum(u - 30 * p.a, 0),
        lambda x, u, p: u.t - u.xx - np.maximum(0.1 * p.a - x.t, 0),
    ],
)
def test_a_param_may_act_at_some_times_or_sizes_alone(residual):
    system = PDESystem(
        {"x": (0, 1), "t": (0, 1)},
        residual,
        constraint=lambda x, n: n * x.x * (1 - x.x) * x.t,
        params={"a": (1, 3)},
        observe=PointValues([0.5], t=[0.5, 1.0]),
        noise=0.01,
        grid=Chebyshev(9),
    )
    assert not system.unused


def test_a_param_that_is_multiplied_by_zero_is_told():
    with pytest.warns(IdentifiabilityWarning, match=r"\['b'\].*multiplied by zero"):
        PDESystem(
            {"x": (0, 1)},
            lambda x, u, p: p.a * u.xx - 0 * p.b * u + 1,
            constraint=lambda x, n: n * x.x * (1 - x.x),
            params={"a": (1, 3), "b": (1, 3)},
            observe=PointValues([0.5]),
            noise=0.01,
            grid=Chebyshev(9),
        )


def test_a_function_of_time_stays_what_it_is_at_its_end():
    def until(source):
        return PDESystem(
            {"x": (0, 1), "t": (0, 1)},
            lambda x, u, p: u.t - 0.1 * u.xx - p.g,
            constraint=lambda x, n: n * x.x * (1 - x.x) * x.t,
            params={"g": source},
            observe=PointValues([0.5], t=1.0),
            noise=0.01,
            grid=Chebyshev(9),
        )

    function = until(GaussianFunction(5, over="t")).solve(np.ones(5), times=[1, 1.5, 3])
    number = until((0.5, 2.0)).solve([1.0], times=[1, 1.5, 3])
    np.testing.assert_allclose(function, number, rtol=1e-5)


@pytest.mark.parametrize(
    ("rate", "k"),
    [
        (lambda x, u, k: 1e-6 * u**4 / (u**4 + k**4), (1e-7, 5e-7)),  # moles per liter
        (lambda x, u, k: np.where(u > k, u - k, 0 * u), (1e4, 5e4)),
        (lambda x, u, k: np.where(x.t < k, 1.0, 0.0), (0.1, 1)),  # of 100
    ],
)
def test_what_acts_in_other_units_or_early_is_not_called_idle(rate, k):
    PDESystem(
        {"x": (0, 1), "t": (0, 100)},
        lambda x, u, p: u.t - p.D * u.xx - rate(x, u, p.k),
        constraint=lambda x, n: (1 + n * x.t) * x.x * (1 - x.x),
        params={"D": (0.5, 4), "k": k},
        observe=PointValues(X, t=100.0),
        noise=0.01,
        grid=FiniteDifferences(9),
    )


def test_instruments_do_not_take_functions():
    with pytest.raises(ValueError, match="Got the unknown function 'D'"):
        diffusion(
            params={"D": GaussianFunction(9, order=2, link="exp", scale=1.0)},
            observe=PointValues(X, see={"flux": lambda x, u, p: p.D * u}),
        )
