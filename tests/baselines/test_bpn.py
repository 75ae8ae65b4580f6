"""Claims: hypergradients are those of the implicit function theorem; the toy is solved."""

import numpy as np
import pytest
import torch

from sklearn_inverse import PDESystem, PointValues
from sklearn_inverse.baselines import BPNInverter
from sklearn_inverse.baselines._bpn import broyden, hypergradient
from sklearn_inverse.collocation import LocalNetwork
from sklearn_inverse.collocation._equations import Solution, as_equations
from sklearn_inverse.collocation._local_operator import LocalOperator
from sklearn_inverse.problems import boundary_values

X = np.linspace(0.1, 0.9, 9)


def random(*shape, seed=0):
    noise = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=noise, dtype=torch.float64)


def test_broyden_solves_each_system_by_itself():
    matrices, b = random(3, 12, 12) + 4 * torch.eye(12), random(3, 12, seed=1)
    z = broyden(lambda v: (matrices @ v[..., None])[..., 0], b, 24)
    torch.testing.assert_close((matrices @ z[..., None])[..., 0], b)
    alone = broyden(lambda v: v @ matrices[1].T, b[1:2], 24)
    torch.testing.assert_close(alone[0], z[1])


def test_hypergradient_in_closed_form():
    # W* = A⁻¹ B θ of the lower loss, and |W* - d|² + |θ|² above.
    root, b, d = random(2, 5, 5), random(2, 5, 3, seed=1), random(2, 5, 1, seed=2)
    a = root @ root.mT + torch.eye(5)
    x = random(2, 3, seed=3)
    lead = torch.linalg.solve(a, b)
    best = lead @ x[..., None]

    def lower(x, weights):
        (w,) = weights
        half = w.mT @ a @ w / 2 - w.mT @ b @ x[..., None]
        return half[:, 0, 0]

    def upper(x, weights):
        return (weights[0] - d).square().sum(dim=(1, 2)) + x.square().sum(dim=1)

    found = hypergradient(upper, lower, x, [best], 10)
    expected = 2 * (lead.mT @ (best - d))[..., 0] + 2 * x
    torch.testing.assert_close(found, expected)


def test_hypergradient_of_a_network_is_that_with_the_whole_hessian():
    system = PDESystem(
        {"x": (0, 1)},
        lambda x, u, p: p.D * u.xx + np.pi**2 * np.sin(np.pi * x.x) - p.k * u,
        constraint=lambda x, n: n * x.x * (1 - x.x),
        params={"D": (0.5, 4), "k": (0, 2)},
        observe=PointValues(X),
        noise=0.02,
    )
    network, params = LocalNetwork(width=3, n_layers=1), np.array([1.5, 1.0])
    unit, values = as_equations(system, network).solve(params[None])
    solution, options = Solution(params, unit, values[0]), {"dtype": torch.float64}
    operator = LocalOperator(system, solution, network, functions=None, **options)
    theta = torch.as_tensor(system.prior.scaler.to_scaled(params[None]))
    layers = operator.net.initial_layers()
    shapes = [w.shape for w in layers]
    flat = torch.cat([w.flatten() for w in layers])

    def lower(x, layers):
        return operator.operator_loss(layers, x, 0.0)

    def upper(x, layers):
        return (operator.observables(layers, x) - 1.0).square().sum(dim=(1, 2))

    def of_all(loss):
        def function(both):
            parts = both[2:].split([shape.numel() for shape in shapes])
            parts = [w.reshape(shape) for w, shape in zip(parts, shapes)]
            return loss(both[None, :2], parts)[0]

        return function

    both = torch.cat([theta[0], flat])
    second = torch.autograd.functional.hessian(of_all(lower), both)
    first = torch.autograd.functional.jacobian(of_all(upper), both)
    indirect = second[:2, 2:] @ torch.linalg.solve(second[2:, 2:], first[2:])
    found = hypergradient(upper, lower, theta, layers, 60)
    torch.testing.assert_close(found[0], first[:2] - indirect, rtol=1e-4, atol=0)


@pytest.mark.slow
def test_unknown_ends_are_found():
    measured = [np.linspace(0, 1, 64) ** 2]
    inverter = BPNInverter(boundary_values(), start=[1.0, 2.0], random_state=0)
    inverter.set_params(network=LocalNetwork(width=8, n_collocation=32))
    inverter.set_params(pretrain_iter=200, n_lower=4, n_broyden=8)
    estimate = inverter.fit(measured).invert(measured)
    np.testing.assert_allclose(estimate.params, [[0, 1]], atol=0.01)
    assert estimate.network_error[0] < 1e-4
