"""BiLO on partial differential equations: what it finds, minimizes, and says."""

import warnings

import numpy as np
import pytest
import torch
from scipy.interpolate import CubicSpline
from scipy.linalg import solveh_banded

from sklearn_inverse import GradientInverter, PDESystem, PointValues
from sklearn_inverse.baselines import PINNInverter
from sklearn_inverse.collocation import Bilevel, LocalNetwork
from sklearn_inverse.collocation._equations import N_CUSPS, PDEEquations, Solution
from sklearn_inverse.collocation._local_operator import LocalOperator
from sklearn_inverse.collocation._places import Places, Told, gradient
from sklearn_inverse.exceptions import ConvergenceWarning
from sklearn_inverse.inverse import BiLOInverter
from sklearn_inverse.problems import boundary_values, point_source, poisson
from sklearn_inverse.systems import Chebyshev, FiniteDifferences, godunov

X = np.linspace(0.1, 0.9, 9)


def diffusion(noise=0.02):
    """D u'' = -π² sin πx, whose solution is sin(πx) / D."""
    return PDESystem(
        {"x": (0, 1)},
        lambda x, u, p: p.D * u.xx + np.pi**2 * np.sin(np.pi * x.x),
        constraint=lambda x, n: n * x.x * (1 - x.x),
        params={"D": (0.5, 4)},
        observe=PointValues(X),
        noise=noise,
    )


def small(**options):
    network = LocalNetwork(width=16, n_collocation=32)
    descent = Bilevel(lr_net=5e-3, lower_tol=0.01, max_iter=400, tol=5e-3)
    options = {"network": network, "descent": descent} | options
    return BiLOInverter(diffusion(), start=[1.0], random_state=0, **options)


@pytest.mark.slow
def test_a_scalar_is_found_and_the_solution_is_compared():
    readings = [np.sin(np.pi * X) / 2]
    inverter = small(pretrain_iter=200).fit(readings)
    estimate = inverter.invert(readings)
    assert estimate.params[0, 0] == pytest.approx(2, abs=0.02)
    assert estimate.network_error[0] < 5e-3
    assert not estimate.is_off[0]
    assert inverter.held_out_loss_ < 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("inverter", [BiLOInverter, PINNInverter])
def test_a_scalar_is_found_in_the_plane(inverter):
    # D ∇²u = -2 π² sin πx sin πy, whose solution is sin πx sin πy / D.
    def wave(x, y):
        return np.sin(np.pi * x) * np.sin(np.pi * y)

    x, y = (at.ravel() for at in np.meshgrid(X[::2], X[::2]))
    plate = PDESystem(
        {"x": (0, 1), "y": (0, 1)},
        lambda x, u, p: p.D * (u.xx + u.yy) + 2 * np.pi**2 * wave(x.x, x.y),
        constraint=lambda x, n: n * x.x * (1 - x.x) * x.y * (1 - x.y),
        params={"D": (0.5, 4)},
        observe=PointValues(x, y=y),
        noise=0.02,
        grid=Chebyshev(11),
    )
    readings = [wave(x, y) / 2]
    options = {"lr": 1e-2, "optimizer": "soap", "data_weight": 10.0, "max_iter": 400}
    if inverter is BiLOInverter:
        descent = Bilevel(lr_net=5e-3, lower_tol=0.01, max_iter=400, tol=5e-3)
        options = {"descent": descent}
    options["network"] = LocalNetwork(width=16, n_collocation=64)
    inverter = inverter(plate, start=[1.0], random_state=0, **options)
    estimate = inverter.set_params(pretrain_iter=200).fit(readings).invert(readings)
    assert estimate.params[0, 0] == pytest.approx(2, abs=0.05)
    assert estimate.network_error[0] < 0.01


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:1 of 1 samples did not converge")
def test_unknown_ends_are_found_in_eighty_steps():
    # The toy of bilevel methods, from (1, 2) to (0, 1), where the objective is zero.
    system, readings = boundary_values(), [np.linspace(0, 1, 64) ** 2]
    exact = GradientInverter(system, max_solves=0).fit(readings).predict(readings)
    assert np.allclose(exact, [0, 1], atol=1e-4)
    inverter = BiLOInverter(system, start=[1.0, 2.0], random_state=0)
    inverter.set_params(descent__max_iter=80)
    estimate = inverter.fit(readings).invert(readings)
    assert np.allclose(estimate.params, [0, 1], atol=0.01)
    assert estimate.n_iter[0] <= 80


def test_a_network_that_was_not_trained_is_said():
    readings = [np.sin(np.pi * X)]  # explained by the start itself
    idle = Bilevel(max_iter=110, lr_net=1e-9, tol=10.0)  # at rest at once
    inverter = small(pretrain_iter=1, descent=idle)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        estimate = inverter.fit(readings).invert(readings)
    assert estimate.is_off[0]
    assert estimate.network_error[0] > 0.1
    said = " ".join(str(w.message) for w in caught)
    assert "further from the exact solution" in said


def test_too_few_points_are_said():
    inverter = small(network=LocalNetwork(width=16, n_collocation=2), pretrain_iter=2)
    with pytest.warns(ConvergenceWarning, match="Raise network__n_collocation"):
        inverter.fit([np.sin(np.pi * X)])


@pytest.mark.slow
def test_a_soft_constraint_trades_the_equation_for_the_readings():
    # Readings that no D explains: half is added to them on one side.
    readings = [np.sin(np.pi * X) / 2 + 0.3 * (X > 0.5)]
    errors = []
    for weight in (1e-2, 1e2):
        inverter = PINNInverter(
            diffusion(),
            start=[1.5],
            network=LocalNetwork(width=16, n_collocation=32),
            data_weight=weight,
            lr=1e-2,
            pretrain_iter=200,
            max_iter=500,
            random_state=0,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            estimate = inverter.fit(readings).invert(readings)
        errors.append(estimate.network_error[0])
    assert errors[0] < 0.05
    assert errors[1] > 5 * errors[0]


class Rod:
    """(D u')' = -π² sin πx by finite differences, D a spline through its nodes."""

    def __init__(self, system, noise, n_nodes=401):
        self.prior, self.noise = system.prior, noise
        self.x = np.linspace(0, 1, n_nodes)
        nodes = np.linspace(0, 1, self.prior.n_params + 2)
        self.read = CubicSpline(nodes, np.eye(len(nodes)))(self.x)
        self.seen = np.searchsorted(self.x, system.points[:, 0] - 1e-9)

    def diffusivity(self, theta):
        return self.read @ np.r_[1.0, self.prior.scaler.from_scaled(theta), 1.0]

    def solve(self, diffusivity):
        h = self.x[1]
        middle = (diffusivity[1:] + diffusivity[:-1]) / 2
        bands = np.stack([np.r_[0, -middle[1:-1]], middle[:-1] + middle[1:]]) / h**2
        force = np.pi**2 * np.sin(np.pi * self.x[1:-1])
        return np.r_[0, solveh_banded(bands, force), 0][self.seen]

    def jacobian(self, theta, local):
        """Return du/dθ at the readings; as "local" has it, of shifts of D all over."""
        if local:
            d, step = self.diffusivity(theta), 1e-5
            shift = (self.solve(d + step) - self.solve(d - step)) / (2 * step)
            params = self.prior.scaler.from_scaled(theta)
            slope = np.log(10) * params * self.prior.scaler.width
            return shift[:, None] * self.read[self.seen, 1:-1] * slope
        step = 1e-5 * np.eye(len(theta))
        up, down = (
            [self.solve(self.diffusivity(theta + s * e)) for e in step] for s in (1, -1)
        )
        return (np.array(up) - np.array(down)).T / 2e-5

    def rest(self, readings, local):
        """Return the params at which Jᵀ(u - d) / σ² and the prior's slope cancel."""
        theta = self.prior.scaler.to_scaled(self.prior.median)
        for _ in range(60):
            exact = self.jacobian(theta, local=False)
            taken = self.jacobian(theta, local)
            off = (self.solve(self.diffusivity(theta)) - readings) / self.noise**2
            _, slope, curvature = self.prior.scaled_penalty(theta)
            hessian = taken.T @ exact / self.noise**2 + curvature
            theta = theta - 0.5 * np.linalg.solve(hessian, taken.T @ off + slope)
        assert np.abs(taken.T @ off + slope).max() < 1e-4 * np.abs(slope).max()
        return self.prior.scaler.from_scaled(theta)


@pytest.mark.slow
def test_what_local_and_basis_minimize():
    # "basis" ends at the minimum of the objective; "local" where
    # diag(u_z)ᵀ(u - d) and the prior's slope cancel, which is elsewhere.
    system, noise = poisson(scale=2.0, n_nodes=17, noise=0.02), 0.02
    rod = Rod(system, noise)
    x = np.linspace(0, 1, 9)[1:-1]
    truth = 1.5 - np.abs(x - 0.5)
    theta = system.prior.scaler.to_scaled(truth)
    clean = rod.solve(rod.diffusivity(theta))
    readings = clean + noise * np.random.default_rng(0).standard_normal(len(clean))
    ends = {name: rod.rest(readings, name == "local") for name in ("basis", "local")}
    # "local" gets there slowly: its Gauss-Newton steps do not fit its own slope.
    descents = {
        "basis": Bilevel(max_iter=1200, tol=1e-5),
        "local": Bilevel(max_iter=1800, lr_params=0.3, tol=1e-5),
    }
    off = {}
    for name, descent in descents.items():
        inverter = BiLOInverter(
            system,
            functions=name,
            pretrain_iter=600,
            descent=descent,
            random_state=0,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = inverter.fit([readings]).predict([readings])[0]
        for end, params in ends.items():
            distance = np.linalg.norm(found - params) / np.linalg.norm(params)
            off[name, end] = distance
    assert off["basis", "basis"] < 0.01
    assert off["basis", "local"] > 0.05
    assert off["local", "local"] < 0.05
    assert off["local", "basis"] > 0.02


def with_source(place=0.3):
    z = (lambda p: p.z) if place == "z" else (lambda p: place)
    return PDESystem(
        {"x": (0, 1)},
        lambda x, u, p: (p.D * u.x).x + x.point(x=z(p)),
        constraint=lambda x, n: n * x.x * (1 - x.x),
        params={"D": (0.5, 4)} | ({"z": (0.2, 0.8)} if place == "z" else {}),
        observe=PointValues(X),
        noise=0.02,
        grid=FiniteDifferences(11),
    )


def test_a_cusp_and_its_slope_by_params_leave_nothing_of_the_equation():
    # D u'' + δ(x - z) = 0 where u = min(x, z) (1 - max(x, z)) / D, of a network whose n
    # is known: u over x (1 - x), of x and the distance.
    equations = PDEEquations(with_source(), LocalNetwork())
    options = {"dtype": torch.float64}
    equations.settle(Solution(np.array([1.0]), None, None), **options)
    (source,) = equations.sources
    assert source == ("x", 0.3)
    scaler = equations.system.prior.scaler
    theta = torch.as_tensor(scaler.to_scaled(np.array([[1.0], [2.5]])))
    idle = equations.idle(None)
    told = Told(equations.system.prior, {}, "basis", idle, **options)
    for at, factor in ((None, 1.0), (source, 1.0), (source, 1.1)):
        unit = equations.interface(0, at) if at else equations.batch(0)
        points = equations.points(unit, **options)
        places = Places(points, told, equations.scales, theta, [source], at)
        x, far = places.value["x"], places._distance(source)
        u = (x + 0.3 - factor * far - 2 * x * 0.3) / (2 * places.params[:, 0])
        n = (u / (x * (1 - x)) / equations.scale)[:, None]
        left = equations.residual(n, equations.state(n, places), places)
        slope = gradient(left, places.shift, keep_graph=False)
        # A jump that is a tenth too large leaves a tenth of the source, at any D.
        expected = 0.0 if factor == 1 else -0.1
        assert torch.allclose(left, torch.full_like(left, expected), atol=1e-9)
        assert slope.abs().max() < 1e-8


def insulated():
    return PDESystem(
        {"x": (0, 2), "t": (0, 1)},
        lambda x, u, p: u.t - p.D * u.xx,
        constraint=lambda x, n: np.cos(np.pi * x.x) + n * x.t,
        params={"D": (0.01, 0.2)},
        observe=PointValues([0.0, 1.0], t=1.0),
        noise=0.01,
        neumann={"x": "both"},
    )


def test_what_networks_leave_at_an_insulated_end_is_their_slope():
    system = insulated()
    equations = PDEEquations(system, LocalNetwork())
    options = {"dtype": torch.float64}
    equations.settle(Solution(np.array([0.1]), None, None), **options)
    assert equations.borders == [("x", 0.0), ("x", 2.0)]
    theta = torch.zeros(1, 1, dtype=torch.float64)
    told = Told(system.prior, {}, "basis", equations.idle(None), **options)
    for border in equations.borders:
        points = equations.points(equations.interface(0, border), **options)
        places = Places(points, told, equations.scales, theta, [], border)
        x, t = places.value["x"], places.value["t"]
        assert (x == border[1]).all()
        n = (0.5 * x / equations.scale)[:, None]
        left = equations.residual(n, equations.state(n, places), places)
        assert torch.allclose(left[:, 0] * equations.size, 2 * 0.5 * t)


def test_insulated_ends_and_sources_are_among_the_losses_each_by_its_weight():
    solution, network = Solution(np.array([1.0]), None, None), LocalNetwork()
    for system, n_more in ((insulated(), (2, N_CUSPS)), (with_source(), (1, 1))):
        operator = LocalOperator(system, solution, network, dtype=torch.float64)
        layers, theta = (
            operator.net.initial_layers(),
            torch.zeros(1, 1, dtype=torch.float64),
        )
        n_points, (n_parts, n) = operator.equations.n_points, n_more
        rows, by_direction = operator.residual(layers, theta)
        assert rows.shape[1] == by_direction.shape[2] == n_points + n_parts * n
        # The mean square of each part counts as that of all points: by hand.
        places = (*operator.equations.sources, *operator.equations.borders)
        parts = [
            operator._left(layers, theta, operator._points(0, at), at, True)[0]
            for at in (None, *places)
        ]
        total = rows.shape[1]
        by_hand = parts[0].square().sum() + sum(
            total * part.square().mean() for part in parts[1:]
        )
        assert torch.allclose(rows.square().sum(), by_hand)


@pytest.mark.slow
def test_particles_of_a_point_source_are_explained_as_by_the_exact_solver():
    system = point_source(n_bins=50, n_nodes=101)
    mean = system.report(torch.tensor([[500.0, 10.0]], dtype=torch.float64))
    counts = np.random.default_rng(0).poisson(mean[0].numpy()).astype(float)
    exact = GradientInverter(system, n_starts=1, max_solves=0).fit(counts)
    inverter = BiLOInverter(system, start=[250.0, 5.0], pretrain_iter=300)
    inverter.set_params(random_state=0, descent__max_iter=600)
    estimate = inverter.fit(counts).invert(counts)
    assert np.allclose(estimate.params, exact.invert(counts).params, rtol=0.01)
    assert estimate.network_error[0] < 1e-3


def test_what_flows_between_nodes_flows_everywhere():
    system = PDESystem(
        {"x": (0, 1)},
        lambda x, u, p: p.D * u.xx + 1 - godunov(lambda u: u**2, u).x,
        constraint=lambda x, n: n * x.x * (1 - x.x),
        params={"D": (0.5, 4)},
        observe=PointValues(X),
        noise=0.02,
        grid=FiniteDifferences(51),
    )
    equations = PDEEquations(system, LocalNetwork())
    equations.settle(Solution(np.array([1.0]), None, None), dtype=torch.float64)
    points = equations.points(equations.batch(0), dtype=torch.float64)
    told = Told(system.prior, {}, None, equations.idle(None), dtype=torch.float64)
    theta = torch.tensor([[0.0]], dtype=torch.float64)
    places = Places(points, told, equations.scales, theta)
    x = places.value["x"]
    u = (x * (1 - x))[:, None]
    n = torch.ones_like(u)
    left = equations.residual(n, u, places) * equations._size
    exact = -2 * 0.5 + 1 - 2 * u[:, 0] * (1 - 2 * x)
    assert torch.allclose(left[:, 0], exact)


@pytest.mark.slow
def test_a_threshold_that_only_the_instrument_knows_is_found():
    # The solution is seen where it is above a threshold, a param of its own.
    see = {"dark": lambda x, u, p: 1 / (1 + np.exp(-20 * (u - p.threshold)))}
    system = PDESystem(
        {"x": (0, 1)},
        lambda x, u, p: p.D * u.xx + np.pi**2 * np.sin(np.pi * x.x),
        constraint=lambda x, n: n * x.x * (1 - x.x),
        params={"D": (0.5, 4), "threshold": (0.1, 0.6)},
        observe=PointValues(X, see=see),
        noise=0.02,
    )
    truth = torch.tensor([[2.0, 0.3]], dtype=torch.float64)
    read, slopes = system.linearized_report(truth)
    exact = 1 / (1 + np.exp(-20 * (np.sin(np.pi * X) / 2 - 0.3)))
    assert np.allclose(read[0, 0], exact)
    step = torch.tensor([[1e-5, 0.0], [0.0, 1e-5]], dtype=torch.float64)
    found = (system.report(truth + step) - system.report(truth - step)) / 2e-5
    assert torch.allclose(slopes[0, 0].mT, found[:, 0], atol=1e-6)
    readings = read[0].numpy()
    for inverter in (
        GradientInverter(system, n_starts=1, max_solves=0),
        BiLOInverter(system, pretrain_iter=300, random_state=0),
    ):
        found = inverter.fit(readings).predict(readings)
        assert np.allclose(found, truth, rtol=0.01)


@pytest.mark.parametrize("inverter", [BiLOInverter, PINNInverter])
@pytest.mark.parametrize(
    ("system", "n", "match"),
    [
        (with_source("z"), 9, r"take sources in known places.*GradientInverter takes"),
    ],
)
def test_what_lives_on_grids_is_refused(inverter, system, n, match):
    with pytest.raises(ValueError, match=match):
        inverter(system, pretrain_iter=1).fit(np.ones((1, n)))


@pytest.mark.parametrize("start", ["random", [np.nan], [1.0, 2.0], ["a"]])
def test_a_start_is_params(start):
    with pytest.raises(ValueError, match=r"array-like or None|or None for the center"):
        small().set_params(start=start).fit([np.sin(np.pi * X)])
