"""Operators other than the C-FNO keep its contract; each is what its paper says."""

import pytest
import torch
from torch import nn

from sklearn_inverse.networks import Operator
from sklearn_inverse.networks._deeponet import DeepONet
from sklearn_inverse.networks._mgno import MgNO, MultigridOperator
from sklearn_inverse.networks._operator import MODULES
from sklearn_inverse.networks._pod import PODNet

N_CHANNELS, N_PARAMS, N_SAMPLES = 3, 2, 4


def make_module(name, n_times=9, **options):
    make, names = MODULES[name]
    sizes = Operator(width=8, n_modes=3, embedding=6)
    options = {n: getattr(sizes, n) for n in names} | options
    return make(torch.linspace(0, 1, n_times), N_CHANNELS, N_PARAMS, **options)


def make_inputs(n_times=9):
    shape = (N_SAMPLES, n_times, N_CHANNELS)
    return {
        "params": torch.rand(N_SAMPLES, N_PARAMS),
        "has_params": torch.ones(N_SAMPLES, 1),
        "readings": torch.randn(shape),
        "mask": (torch.rand(shape) < 0.4).float(),
    }


def make_pod(n_times=9):
    mean = torch.randn(n_times, N_CHANNELS)
    basis = torch.randn(5, n_times * N_CHANNELS)
    return PODNet(mean, basis, torch.rand(5), N_PARAMS, width=6)


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("n_times", [1, 2, 9, 16])
def test_trajectories_of_any_length_come_out(name, n_times):
    module, inputs = make_module(name, n_times), make_inputs(n_times)
    out = module(**inputs)
    assert out.shape == (N_SAMPLES, n_times, N_CHANNELS)
    out.square().sum().backward()
    assert all(p.grad is not None for p in module.parameters())
    alone = module(**{what: value[1:2] for what, value in inputs.items()})
    torch.testing.assert_close(alone[0], out[1])


@pytest.mark.parametrize("name", MODULES)
def test_what_is_not_known_does_not_count(name):
    module, inputs = make_module(name), make_inputs()
    before = module(**inputs)
    inputs["readings"] += (1 - inputs["mask"]) * torch.randn_like(inputs["mask"])
    torch.testing.assert_close(module(**inputs), before)
    told = inputs["params"], inputs["has_params"]
    empty = module(*told, inputs["readings"], torch.zeros_like(inputs["mask"]))
    torch.testing.assert_close(module(*told), empty)
    inputs["has_params"].zero_()
    before = module(**inputs)
    inputs["params"] = torch.rand(N_SAMPLES, N_PARAMS)
    torch.testing.assert_close(module(**inputs), before)


@pytest.mark.parametrize("name", MODULES)
def test_it_starts_from_the_direct_part_alone_and_goes_on(name):
    pod, inputs = make_pod(), make_inputs()
    module = make_module(name, pod=pod)
    direct = pod.trajectory(inputs["params"], inputs["has_params"])
    torch.testing.assert_close(module(**inputs), direct)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        module(**inputs).square().mean().backward()
        optimizer.step()
    assert (module(**inputs) - direct).abs().max() > 1e-3


@pytest.mark.parametrize("name", MODULES)
def test_gradient_by_params_equals_finite_differences(name):
    module = make_module(name).double()
    inputs = {what: value.double() for what, value in make_inputs().items()}
    params = inputs.pop("params").requires_grad_()
    assert torch.autograd.gradcheck(lambda p: module(p, **inputs), params)


def test_a_plain_fno_has_neither_embedding_nor_modulation_nor_attention():
    names = [name for name, _ in make_module("fno").named_parameters()]
    assert not any(
        piece in name for name in names for piece in ("embed", "film", "attention")
    )


# --- DeepONet


def test_deeponet_combines_a_basis_by_its_branch():
    net = DeepONet(5, torch.rand(7, 2), 3, 4, branch=[6], trunk=[6])
    nn.init.normal_(net.bias)
    x = torch.randn(2, 5)
    basis = net.trunk(net.grid).reshape(7, 3, 4)
    expected = torch.einsum("nk,tck->ntc", net.branch(x), basis) + net.bias
    torch.testing.assert_close(net(x), expected)
    many = x.expand(8, 2, 5)
    torch.testing.assert_close(net(many), expected.expand(8, 2, 7, 3))


# --- MgNO


@pytest.mark.parametrize("n_times", [3, 8, 21])
def test_multigrid_operators_are_linear_and_reach_everywhere(n_times):
    operator = MultigridOperator(2, 3, n_times).double()
    u, v = torch.randn(2, 5, 2, n_times, dtype=torch.float64)
    expected = 2 * operator(u) - 3 * operator(v)
    torch.testing.assert_close(operator(2 * u - 3 * v), expected)
    matrix = torch.autograd.functional.jacobian(operator, u[:1])[0, :, :, 0]
    assert matrix.shape == (3, n_times, 2, n_times)
    assert (matrix.abs() > 1e-12).all()


def test_one_cycle_is_the_smoothing_and_the_coarse_correction():
    operator = MultigridOperator(2, 3, 4)
    coarse = operator.coarser
    assert coarse.coarser is None
    f = torch.randn(5, 2, 4)
    u = operator.smooth(f)
    residual = f - operator.operator(u)
    u = u + operator.prolong(coarse.smooth(operator.restrict(residual)))
    expected = u + operator.smooth_again(f - operator.operator(u))
    torch.testing.assert_close(operator(f), expected)


def test_biases_are_functions_of_time():
    module = MgNO(torch.linspace(0, 1, 9), N_CHANNELS, N_PARAMS, width=8, n_layers=1)
    assert [tuple(b.shape) for b in module.biases] == [(8, 9), (N_CHANNELS, 9)]
    before = module(**(inputs := make_inputs()))
    function = torch.randn(N_CHANNELS, 9)
    module.biases[-1].data += function
    torch.testing.assert_close(module(**inputs), before + function.T)
