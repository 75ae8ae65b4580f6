"""Derivatives pushed through the layers are those of automatic differentiation."""

import pytest
import torch

from sklearn_inverse.networks._stacked_mlp import StackedMLP


@pytest.mark.parametrize("n_layers", [1, 3])
@pytest.mark.parametrize("train_embedding", [False, True])
def test_pushed_derivatives_are_exact(n_layers, train_embedding):
    net = StackedMLP(
        3,
        2,
        width=8,
        n_layers=n_layers,
        train_embedding=train_embedding,
        idle=torch.tensor([False, False, True]),
        seed=0,
        dtype=torch.float64,
        device="cpu",
    )
    layers = net.initial_layers()
    tau = torch.linspace(0, 1, 5, dtype=torch.float64)
    theta = torch.tensor([[0.3, 0.6, 0.9]], dtype=torch.float64)
    jet = net.jet(layers, tau, theta)

    def value(tau, theta):
        return net.value(layers, tau[None], theta[None])[0, 0]

    def by_time(tau, theta):
        return torch.func.jacrev(value)(tau, theta)

    for i, point in enumerate(tau):
        mixed = torch.func.jacrev(by_time, argnums=1)(point, theta[0])
        by_params = torch.func.jacrev(value, argnums=1)(point, theta[0])
        torch.testing.assert_close(jet.value[0, i], value(point, theta[0]))
        torch.testing.assert_close(jet.by_time[0, i], by_time(point, theta[0]))
        torch.testing.assert_close(jet.by_params[0, :, i], by_params.T)
        torch.testing.assert_close(jet.mixed[0, :, i], mixed.T)
    values, by_params = net.linearize(layers, tau, theta)
    torch.testing.assert_close(values, jet.value)
    torch.testing.assert_close(by_params, jet.by_params)
    assert jet.by_params[0, 0].all()
    assert not jet.by_params[0, 2].any()
