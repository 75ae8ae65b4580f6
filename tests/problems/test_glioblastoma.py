"""Claims: the tumor grows as its equation says, and is found from its segmentations."""

import numpy as np
import pytest
import torch
from scipy.linalg import expm

from sklearn_inverse import GradientInverter, ODESimulator, PDESystem, PointValues
from sklearn_inverse.collocation import LocalNetwork
from sklearn_inverse.collocation._equations import Solution, as_equations
from sklearn_inverse.collocation._local_operator import LocalOperator
from sklearn_inverse.problems import glioblastoma
from sklearn_inverse.problems._glioblastoma import brain

TRUTH = np.array([[1.0, 1.0, 0.3, 0.6]])


def spreading(tissue, n_nodes):
    """Make a tumor that does not grow."""
    system = glioblastoma(tissue=tissue, n_nodes=n_nodes)
    return PDESystem(
        system.domain,
        system.residual,
        constraint=system.constraint,
        params={"D": (0.5, 5), "rho": 0.0},
        observe=PointValues([0.0], t=250.0, y=[0.0]),
        noise=0.1,
        grid=system.grids,
    )


def test_shares_of_tissue_are_shares():
    x, y = np.meshgrid(*[np.linspace(-64, 64, 65)] * 2, indexing="ij")
    white, gray = brain(x, y)
    there = white + gray
    assert min(white.min(), gray.min()) >= 0
    assert there.max() <= 1
    assert max(there[[0, -1]].max(), there[:, [0, -1]].max()) < 2e-3
    assert there[36, 33] < 0.5 < there[41, 37]  # in a ventricle, and at the start


def test_cells_leave_nothing_and_what_is_new_has_grown():
    system = glioblastoma(n_nodes=17)
    lines = system.semidiscretize()
    x, y = np.meshgrid(*system.nodes, indexing="ij")
    there = sum(brain(x, y))[1:-1, 1:-1].ravel()
    far = np.maximum(np.abs(x), np.abs(y))[1:-1, 1:-1].ravel() > 45
    u = np.where(far, 0, np.random.default_rng(0).random((3, there.size)))
    p = system.prior.draw(3, np.random.RandomState(0))
    rates = lines.rhs(*(torch.as_tensor(a) for a in (np.zeros(3), u, p))).numpy()
    grown = 0.03 * p[:, 1:2] * u * (1 - u)
    assert np.allclose(rates @ there, grown @ there, rtol=1e-9)
    assert np.abs(rates - grown).max() > 10 * np.abs(grown).max()  # cells move, too


@pytest.mark.slow
def test_in_one_kind_of_matter_cells_spread_in_closed_form():
    system = spreading(lambda x, y: (1 + 0 * x + 0 * y, 0 * x), 33)
    (u,) = system.solve([2.0], times=[100.0])[:, 0]
    at = system.nodes[0]
    # Along each side on its own, with the exponential of a matrix on the same nodes …
    spread = np.diff(np.eye(31), n=2, axis=0, prepend=0, append=0)
    starts = [np.exp(-0.1 * (at - z) ** 2) * (1 - (at / 64) ** 2) for z in (18, 10)]
    step = expm(0.6 * 100 / 16 * spread)
    along = [np.r_[0, step @ start[1:-1], 0] for start in starts]
    assert np.abs(u - 0.1 * np.outer(*along)).max() < 1e-3 * u.max()
    # … and far from the sides in the plane, but for the error of these nodes.
    wide = 1 + 4 * 0.1 * 0.6 * 100
    x, y = np.meshgrid(*system.nodes, indexing="ij")
    exact = np.exp(-0.1 * ((x - 18) ** 2 + (y - 10) ** 2) / wide) / wide
    exact = 0.1 * (1 - (18 / 64) ** 2) * (1 - (10 / 64) ** 2) * exact
    assert np.abs(u - exact).max() < 0.05 * u.max()


@pytest.mark.slow
def test_slopes_are_differences_and_params_are_found():
    system = glioblastoma(n_nodes=33)
    simulator = ODESimulator(system.semidiscretize())
    mean = simulator.simulate(TRUTH)[0]
    step = 1e-3 * TRUTH[0] * np.eye(4)
    rows = torch.as_tensor(simulator.param_scaler_.to_scaled(TRUTH))
    _, slopes = simulator.linearize(rows)
    by_scaled = (
        slopes[0, 0].numpy()
        * simulator.param_scaler_.slope_tensor(torch.as_tensor(TRUTH)).numpy() ** -1.0
    )
    found = (simulator.simulate(TRUTH + step) - simulator.simulate(TRUTH - step))[:, 0]
    found = found.T / (2e-3 * TRUTH[0])
    assert np.allclose(by_scaled, found, atol=2e-3 * np.abs(found).max())
    scale = np.array([kind.scale for kind in simulator.system.noise.kinds])
    read = mean + scale * np.random.default_rng(0).standard_normal((4, mean.size))
    inverter = GradientInverter(system, n_starts=1, max_solves=0).fit(read)
    posterior = inverter.posterior(read)
    assert posterior.explained.all()
    z = (posterior.mean - TRUTH) / posterior.std
    assert np.sqrt(np.mean(z**2)) < 1.6


@pytest.mark.parametrize(
    "tissue",
    [3, lambda x, y: x, lambda x, y: (0.6, 0.4), lambda x, y: (0 * x, 0 * y)],
)
def test_tissue_that_is_no_map_is_refused(tissue):
    with pytest.raises(ValueError, match="`tissue` must be a function"):
        glioblastoma(tissue=tissue, n_nodes=9)


def test_the_map_has_slopes_in_single_precision():
    system = glioblastoma(n_nodes=9)
    network = LocalNetwork(width=4, n_collocation=50)
    params = TRUTH[0]
    unit, values = as_equations(system, network).solve(params[None])
    solution = Solution(params, unit, values[0])
    operator = LocalOperator(
        system, solution, network, functions="basis", seed=0, dtype=torch.float32
    )
    theta = torch.as_tensor(system.prior.scaler.to_scaled(params[None])).float()
    layers = [w.repeat(1, 1, 1) for w in operator.net.initial_layers()]
    assert operator.operator_loss(layers, theta, 0.1, 0).isfinite().all()
