"""Claims: PDE systems in the plane have the solutions that are known, and are found."""

import numpy as np
import pytest
import torch

from sklearn_inverse import GradientInverter, ODESimulator, PDESystem, PointValues
from sklearn_inverse.probability import GaussianFunction
from sklearn_inverse.problems import darcy, fisher_kpp_2d
from sklearn_inverse.systems import Chebyshev, FiniteDifferences, godunov

AT = {"x": [0.3, 0.5, 0.9], "y": [0.2, 0.6, 0.7]}


def wave(x, y):
    return np.sin(np.pi * x) * np.sin(np.pi * y / 2)


def cooling(**options):
    """u_t = a u_xx + b u_yy on (0, 1) × (0, 2)."""
    given = {
        "domain": {"x": (0, 1), "y": (0, 2), "t": (0, 1)},
        "residual": lambda x, u, p: u.t - p.a * u.xx - p.b * u.yy,
        "constraint": lambda x, n: (
            wave(x.x, x.y) + n * x.x * (1 - x.x) * x.y * (2 - x.y) * x.t
        ),
        "params": {"a": (0.01, 0.2), "b": (0.01, 0.2)},
        "observe": PointValues(**AT, t=[0.5, 1.0]),
        "noise": 0.01,
        "grid": {"x": FiniteDifferences(13), "y": FiniteDifferences(17)},
    }
    return PDESystem(**given | options)


def cooled(a, b, t, x, y):
    """Solution in closed form."""
    return wave(x, y) * np.exp(-(a + b / 4) * np.pi**2 * t)


def test_a_wave_decays_in_closed_form_to_second_order():
    errors = []
    for n in (9, 17):
        system = cooling(
            grid={"x": FiniteDifferences(n), "y": FiniteDifferences(n + 2)}
        )
        u = system.solve([0.1, 0.05])
        x, y = np.meshgrid(*system.nodes, indexing="ij")
        assert u.shape == (1, 2, n, n + 2)
        errors.append(np.abs(u[0, 1] - cooled(0.1, 0.05, 1.0, x, y)).max())
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.3)


def test_an_insulated_plane_at_rest_is_known():
    # u = cos πx cos πy, of second order.
    def off(n):
        plane = PDESystem(
            {"x": (0, 1), "y": (0, 1)},
            lambda x, u, p: (
                (u.x.x + u.yy - p.k * u)
                + (2 * np.pi**2 + 3) * np.cos(np.pi * x.x) * np.cos(np.pi * x.y)
            ),
            constraint=lambda x, n: n,
            params={"k": (0.5, 10)},
            observe=PointValues([0.0, 1.0], y=[0.5, 1.0]),
            noise=0.01,
            grid=FiniteDifferences(n),
            neumann="xy",
        )
        x, y = np.meshgrid(*plane.nodes, indexing="ij")
        u = plane.solve([3.0])[0]
        return abs(u - np.cos(np.pi * x) * np.cos(np.pi * y)).max()

    coarse, fine = off(11), off(21)
    assert coarse < 0.03
    assert fine < 0.35 * coarse


@pytest.mark.parametrize("mixed", [False, True])
def test_chebyshev_nodes_along_one_side_or_both(mixed):
    along_y = FiniteDifferences(41) if mixed else Chebyshev(11)
    system = cooling(grid={"x": Chebyshev(11), "y": along_y})
    u = system.solve([0.1, 0.05])[0, 1]
    x, y = np.meshgrid(*system.nodes, indexing="ij")
    error = np.abs(u - cooled(0.1, 0.05, 1.0, x, y)).max()
    assert error < (1e-3 if mixed else 1e-5)


def test_derivatives_of_products_and_both_coordinates():
    def residual(x, u, p):
        # -∇·(A ∇u) + u_xy + u_x, with A = 1 + xy and u = sin πx sin πy
        s, c = np.sin(np.pi * x.x), np.cos(np.pi * x.x)
        v, d = np.sin(np.pi * x.y), np.cos(np.pi * x.y)
        a = 1 + x.x * x.y
        flow = ((a * u.x).x + (a * u.y).y) * p.A
        bend = np.pi * (x.y * c * v + x.x * s * d) - 2 * np.pi**2 * a * s * v
        return flow - u.xy - u.x - bend + np.pi**2 * c * d + np.pi * c * v

    errors = []
    for n in (9, 17):
        system = PDESystem(
            {"x": (0, 1), "y": (0, 1)},
            residual,
            constraint=lambda x, n: n * x.x * (1 - x.x) * x.y * (1 - x.y),
            params={"A": (0.5, 2)},
            observe=PointValues(**AT),
            noise=1e-3,
            grid=FiniteDifferences(n),
        )
        x, y = np.meshgrid(*system.nodes, indexing="ij")
        exact = np.sin(np.pi * x) * np.sin(np.pi * y)
        errors.append(np.abs(system.solve([1.0])[0] - exact).max())
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.2)
    read = system.report(torch.ones(1, 1).double())[0, 0]
    exact = [np.sin(np.pi * a) * np.sin(np.pi * b) for a, b in zip(*AT.values())]
    assert np.allclose(read, exact, atol=0.02)  # between nodes, linear


def poisson(**functions):
    """u_xx + u_yy + f = 0 on the unit square, f the product of the functions."""

    def residual(x, u, p):
        f = 1.0
        for name in functions:
            f = f * getattr(p, name)
        return u.xx + u.yy + f

    return PDESystem(
        {"x": (0, 1), "y": (0, 1)},
        residual,
        constraint=lambda x, n: n * x.x * (1 - x.x) * x.y * (1 - x.y),
        params=functions,
        observe=PointValues([0.2, 0.4, 0.5, 0.7], y=[0.3, 0.5, 0.5, 0.8]),
        noise=1e-3,
        grid={"x": FiniteDifferences(17), "y": FiniteDifferences(21)},
    )


def test_functions_of_one_coordinate_and_of_two():
    # f = sin πx sin 2πy of which u is the (5π²)th part.
    nodes = np.linspace(0, 1, 41)
    a, b = np.sin(np.pi * nodes), np.sin(2 * np.pi * nodes)
    apart = poisson(
        a=GaussianFunction(41, over="x"), b=GaussianFunction(41, over="y")
    ).solve(np.r_[a, b])
    x, y = np.linspace(0, 1, 17), np.linspace(0, 1, 21)
    exact = np.outer(np.sin(np.pi * x), np.sin(2 * np.pi * y)) / (5 * np.pi**2)
    assert np.abs(apart[0] - exact).max() < 0.01 * exact.max()
    system = poisson(f=GaussianFunction((9, 11), over="xy"))
    x, y = (
        at.ravel()
        for at in np.meshgrid(*system.functions["f"].prior.nodes, indexing="ij")
    )
    both = system.solve(np.sin(np.pi * x) * np.sin(2 * np.pi * y))
    turned = poisson(f=GaussianFunction((11, 9), over="yx"))
    y, x = (
        at.ravel()
        for at in np.meshgrid(*turned.functions["f"].prior.nodes, indexing="ij")
    )
    same = turned.solve(np.sin(np.pi * x) * np.sin(2 * np.pi * y))
    assert np.allclose(both, same, rtol=1e-9, atol=1e-15)
    assert np.abs(both[0] - exact).max() < 0.05 * exact.max()


def test_a_source_in_the_plane_has_a_band_that_holds_it():
    prior = GaussianFunction(6, order=2, scale=30.0, std=10.0, over="xy")
    system = poisson(f=prior)
    x, y = (at.ravel() for at in np.meshgrid(*prior.nodes, indexing="ij"))
    truth = 10 * np.sin(np.pi * x) * np.sin(np.pi * y) + 5 * x
    read = system.report(torch.as_tensor(truth)[None])[0].numpy()
    read = read + 1e-3 * np.random.default_rng(0).standard_normal(read.shape)
    posterior = (
        GradientInverter(system, n_starts=1, max_solves=0).fit(read).posterior(read)
    )
    low, high = posterior.interval(0.9)
    assert 0.8 < np.mean((low < truth) & (truth < high)) <= 1


def test_a_function_of_space_and_time():
    # u_t = f(x, t) with f = x (1 - x) t, straight in t.
    system = PDESystem(
        {"x": (0, 1), "t": (0, 1)},
        lambda x, u, p: u.t - p.f,
        constraint=lambda x, n: n * x.x * (1 - x.x) * x.t,
        params={"f": GaussianFunction((5, 3), over="xt")},
        observe=PointValues([0.5], t=1.0),
        noise=0.01,
        grid=FiniteDifferences(5),
    )
    x, t = np.meshgrid(*system.functions["f"].prior.nodes, indexing="ij")
    u = system.solve((x * (1 - x) * t).ravel(), times=[0.5, 1.0])[0]
    shape = system.nodes * (1 - system.nodes)
    assert np.allclose(u, [shape / 8, shape / 2], atol=1e-7)


def test_darcy_in_a_uniform_material_is_known():
    errors = []
    for n_nodes in (21, 41):
        system = darcy(n_nodes=n_nodes, n_values=6)
        u = system.solve(np.full((2, 36), [[-60.0], [60.0]]))
        middle = u[:, n_nodes // 2, n_nodes // 2]
        assert np.allclose(3 * u[0], 12 * u[1], rtol=1e-9)
        errors.append(3 * middle[0] - 0.0736713532815)
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.1)
    assert abs(errors[1]) < 1e-4


def test_slopes_by_permeability_are_finite_differences():
    system = darcy(n_nodes=21, n_values=6)
    assert system._stencil.is_sparse
    g = torch.as_tensor(system.prior.draw(2, np.random.RandomState(0)))
    read, slope = system.linearized_report(g)
    assert torch.allclose(system.report(g[1:]), read[1:], rtol=1e-10)
    for j in (0, 14, 35):
        step = 1e-5 * torch.eye(36).double()[j]
        found = (system.report(g + step) - system.report(g - step)) / 2e-5
        torch.testing.assert_close(slope[..., j], found, rtol=1e-5, atol=1e-10)


@pytest.mark.slow
def test_darcy_finds_where_each_kind_is():
    system = darcy(n_nodes=31, n_values=11, noise=1e-5)
    x, y = (at.ravel() for at in np.meshgrid(*system.functions["g"].prior.nodes))
    truth = np.where(np.hypot(x - 0.4, y - 0.5) < 0.25, 4.0, -4.0)
    read = system.report(torch.as_tensor(truth)[None])[0].numpy()
    read = read + 1e-5 * np.random.default_rng(0).standard_normal(read.shape)
    posterior = (
        GradientInverter(system, n_starts=1, max_solves=0).fit(read).posterior(read)
    )
    assert str(posterior[0]).startswith("darcy: 841 readings, 121 params")
    assert "… and 101 more" in str(posterior[0])
    assert np.mean((posterior.mean > 0) == (truth > 0)) > 0.97


def test_a_flow_along_a_side():
    system = PDESystem(
        {"x": (0, 1), "y": (0, 1), "t": (0, 1)},
        lambda x, u, p: u.t + godunov(lambda u: p.v * u, u, along="y", lowest=-9).y,
        constraint=lambda x, n: (
            np.exp(-50 * ((x.x - 0.5) ** 2 + (x.y - 0.3) ** 2))
            * np.sin(np.pi * x.x)
            * np.sin(np.pi * x.y)
            + n * x.x * (1 - x.x) * x.y * (1 - x.y) * x.t
        ),
        params={"v": (0.1, 0.5)},
        observe=PointValues([0.5], t=1.0, y=[0.5]),
        noise=0.01,
        grid=FiniteDifferences(21),
    )
    start, end = system.solve([0.3], times=[0.0, 1.0])[0]
    x, y = np.meshgrid(*system.nodes, indexing="ij")
    assert end.sum() == pytest.approx(start.sum(), rel=3e-2)
    for along, moved in ((x, 0.0), (y, 0.3)):
        means = [(along * u).sum() / u.sum() for u in (start, end)]
        assert means[1] - means[0] == pytest.approx(moved, abs=0.03)


def test_two_params_are_found_and_the_kernel_is_compiled():
    system = fisher_kpp_2d(n_nodes=12)
    lines = system.semidiscretize()
    assert lines.backend_ == "compiled"
    read = ODESimulator(lines).simulate([[2.0, 1.5]]).reshape(1, -1)
    inverter = GradientInverter(system, n_starts=1, max_solves=0).fit(read)
    posterior = inverter.posterior(read)
    assert (np.abs(posterior.mean - [2, 1.5]) < 0.2 * posterior.std).all()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"constraint": lambda x, n: wave(x.x, x.y) + n * x.x * x.t}, "at all ends"),
        ({"observe": PointValues([0.5], t=1.0)}, "points of 2 coordinate"),
        ({"observe": PointValues([0.5], t=1.0, y=[0.5, 1])}, "as many x as y"),
        ({"observe": PointValues([0.5], t=1.0, y=[2.5])}, "y from 0 to 2"),
        ({"grid": {"x": Chebyshev(9)}}, r"for each of \['x', 'y'\]"),
        ({"domain": {"x": (0, 1), "y": (0, 1), "z": (0, 1)}}, "one or two coord"),
        ({"residual": lambda x, u, p: u.t - p.a * u.xx - p.b * u.zz}, r"no \.zz"),
        (
            {"params": {"a": GaussianFunction(5), "b": (0, 1)}},
            r"must say which coordinates.*over='xy'",
        ),
        (
            {"params": {"a": GaussianFunction(5, over="xy"), "b": (0, 1)}},
            r"interval=\(\(0.0, 1.0\), \(0.0, 2.0\)\)",
        ),
    ],
)
def test_what_cannot_be_is_refused(options, match):
    with pytest.raises((ValueError, TypeError), match=match):
        cooling(**options)


@pytest.mark.slow
def test_many_nodes_are_compiled_and_inverted():
    system = fisher_kpp_2d()
    read = ODESimulator(system.semidiscretize()).simulate([[2.0, 2.0]]).reshape(1, -1)
    inverter = GradientInverter(system, n_starts=1, max_solves=0)
    posterior = inverter.fit(read).posterior(read)
    assert (np.abs(posterior.mean - 2) < 0.2 * posterior.std).all()


def test_points_go_by_the_names_of_their_coordinates():
    def read(domain):
        return PDESystem(
            domain,
            lambda x, u, p: p.D * (u.xx + u.yy) + 8 * x.x,
            constraint=lambda x, n: n * x.x * (1 - x.x) * x.y * (2 - x.y),
            params={"D": (0.5, 2)},
            observe=PointValues([0.75], y=[0.5]),
            noise=0.01,
            grid={axis: FiniteDifferences(9) for axis in domain},
        ).report(torch.ones(1, 1).double())

    one = read({"x": (0, 1), "y": (0, 2)})
    other = read({"y": (0, 2), "x": (0, 1)})
    assert one.item() == pytest.approx(other.item(), rel=1e-9)
