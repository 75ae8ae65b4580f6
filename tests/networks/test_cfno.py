"""The operator is the paper's: spectral products, FiLM, attention, each a switch."""

import numpy as np
import pytest
import torch

from sklearn_inverse.networks._cfno import (
    CFNO,
    Block,
    CrossAttention,
    SpectralConv,
    plain_attention,
)
from sklearn_inverse.networks._layers import Linear
from sklearn_inverse.networks._pod import PODNet

N_TIMES, N_CHANNELS, N_PARAMS, N_SAMPLES = 9, 3, 2, 4


def make_pod():
    return PODNet(
        torch.randn(N_TIMES, N_CHANNELS),
        torch.randn(5, N_TIMES * N_CHANNELS),
        torch.rand(5),
        N_PARAMS,
        width=6,
        n_layers=3,
    )


def make_module(**kwargs):
    options = {"width": 8, "n_layers": 2, "n_modes": 3, "embedding": 6} | kwargs
    return CFNO(torch.linspace(0, 1, N_TIMES), N_CHANNELS, N_PARAMS, **options)


@pytest.fixture
def inputs():
    shape = (N_SAMPLES, N_TIMES, N_CHANNELS)
    return {
        "params": torch.rand(N_SAMPLES, N_PARAMS),
        "has_params": torch.ones(N_SAMPLES, 1),
        "readings": torch.randn(shape),
        "mask": (torch.rand(shape) < 0.4).float(),
    }


@pytest.mark.parametrize("n_times", [1, 2, 9, 12])
@pytest.mark.parametrize("n_modes", [1, 3, 100])
def test_spectral_convolution_is_a_product_of_truncated_ffts(n_times, n_modes):
    spectral = SpectralConv(n_times, 4, n_modes)
    z = torch.randn(n_times, 5, 4)
    modes = torch.fft.rfft(z, dim=0)[:n_modes]
    weights = torch.complex(spectral.real, spectral.imag)
    product = torch.einsum("kbi,kio->kbo", modes, weights)
    expected = torch.fft.irfft(product, n=n_times, dim=0)
    torch.testing.assert_close(spectral(z), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", [None, "batch"])
@pytest.mark.parametrize("film", [True, False])
def test_block_is_the_paper_s_equation(film, norm):
    block = Block(N_TIMES, 4, 3, 6, film, norm)
    z, z_params = torch.randn(N_TIMES, 5, 4), torch.randn(5, 6)
    c = block.spectral(z) + block.pointwise(z)
    if norm:
        c = (c - c.mean((0, 1))) / (c.var((0, 1), unbiased=False) + 1e-5).sqrt()
    alpha, beta = torch.zeros(5, 4), torch.zeros(5, 4)
    if film:
        alpha, beta = block.film(z_params).split(4, dim=1)
    expected = block.mix(c.clamp(min=0) * (1 + alpha) + beta)
    torch.testing.assert_close(block(z, z_params), expected)


def test_attention_asks_from_the_feature_before_the_blocks():
    attention = CrossAttention(4)
    z0, z = torch.randn(2, N_TIMES, 5, 4)
    out = attention(z0, z)
    for i in range(5):
        q = attention.query(z0[:, i])
        k, v = attention.key(z[:, i]), attention.value(z[:, i])
        expected = z[:, i] + (q @ k.T / 4**0.5).softmax(dim=1) @ v
        torch.testing.assert_close(out[:, i], expected)
    with plain_attention():
        torch.testing.assert_close(attention(z0, z), out)


def test_rows_of_narrow_layers_do_not_depend_on_their_place():
    layer, x = Linear(11, 3), torch.randn(128, 11)
    order = torch.randperm(128)
    assert torch.equal(layer(x[order]), layer(x)[order])
    torch.testing.assert_close(layer(x), x @ layer.weight.T + layer.bias)


SWITCHES = [
    {},
    {"film": False},
    {"attention": False},
    {"film": False, "attention": False},  # a plain FNO
    {"norm": "batch"},
    {"n_layers": 0},
    {"n_layers": 0, "attention": False},
    {"n_modes": 1000},
    {"embedding": 0},
]


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
@pytest.mark.parametrize("with_pod", [False, True])
def test_every_switch_keeps_shapes_and_leaves_no_parameter_unused(
    switches, with_pod, inputs
):
    module = make_module(**switches, pod=make_pod() if with_pod else None)
    out = module(**inputs)
    assert out.shape == (N_SAMPLES, N_TIMES, N_CHANNELS)
    out.square().sum().backward()
    without_gradient = {n for n, p in module.named_parameters() if p.grad is None}
    frozen = {n for n, _ in module.named_parameters() if n.startswith("pod.")}
    assert without_gradient == frozen


def test_every_parameter_but_one_moves_the_output(inputs):
    module = make_module()
    module(**inputs).square().sum().backward()
    still = [n for n, p in module.named_parameters() if p.grad.abs().max() < 1e-6]
    # softmax does not see a constant added to all keys
    assert still == ["attention.key.bias"]


@pytest.mark.parametrize(
    ("switch", "piece"),
    [
        ({"film": False}, "film"),
        ({"attention": False}, "attention"),
        ({"norm": None}, "norm"),
        ({"n_layers": 0}, "blocks"),
        ({"pod": None}, "pod"),
    ],
)
def test_a_piece_switched_off_is_gone(switch, piece):
    everything = {"norm": "batch", "pod": make_pod()}
    names = [n for n, _ in make_module(**everything).named_parameters()]
    assert any(piece in n for n in names)
    names = [n for n, _ in make_module(**everything | switch).named_parameters()]
    assert not any(piece in n for n in names)


@pytest.mark.parametrize("with_pod", [False, True])
def test_gradient_by_params_equals_finite_differences(with_pod, inputs):
    module = make_module(pod=make_pod() if with_pod else None)
    torch.nn.init.normal_(module.project[-1].weight)
    module.double()
    inputs = {name: value.double() for name, value in inputs.items()}
    params = inputs.pop("params").requires_grad_()
    assert torch.autograd.gradcheck(lambda p: module(p, **inputs), params)
    del inputs["readings"], inputs["mask"]
    assert torch.autograd.gradcheck(lambda p: module(p, **inputs), params)


def test_only_readings_under_the_mask_count(inputs):
    module = make_module()
    before = module(**inputs)
    mask, noise = inputs["mask"], torch.randn(N_SAMPLES, N_TIMES, N_CHANNELS)
    inputs["readings"] = inputs["readings"] + (1 - mask) * noise
    torch.testing.assert_close(module(**inputs), before)
    inputs["readings"] = inputs["readings"] + mask * noise
    assert not torch.allclose(module(**inputs), before)


def test_no_readings_is_the_same_as_an_empty_mask(inputs):
    module = make_module()
    inputs["mask"].zero_()
    empty = module(**inputs)
    torch.testing.assert_close(module(inputs["params"], inputs["has_params"]), empty)


@pytest.mark.parametrize("with_pod", [False, True])
def test_params_do_not_count_where_they_are_unknown(with_pod, inputs):
    module = make_module(pod=make_pod() if with_pod else None)
    torch.nn.init.normal_(module.project[-1].weight)
    inputs["has_params"].zero_()
    before = module(**inputs)
    inputs["params"] = torch.rand(N_SAMPLES, N_PARAMS)
    torch.testing.assert_close(module(**inputs), before)


def test_samples_do_not_see_each_other(inputs):
    module = make_module()
    together = module(**inputs)
    for i in range(N_SAMPLES):
        alone = module(**{name: value[i : i + 1] for name, value in inputs.items()})
        torch.testing.assert_close(alone[0], together[i])


def test_operator_starts_from_the_direct_part_alone(inputs):
    pod = make_pod()
    module = make_module(pod=pod)
    expected = pod.trajectory(inputs["params"], inputs["has_params"])
    torch.testing.assert_close(module(**inputs), expected)


def test_pod_is_the_mean_plus_coefficients_times_basis(inputs):
    pod = make_pod()
    params, has_params = inputs["params"], inputs["has_params"]
    deviation = (pod(params) @ pod.basis).reshape(N_SAMPLES, N_TIMES, N_CHANNELS)
    torch.testing.assert_close(pod.trajectory(params, has_params), pod.mean + deviation)
    unknown = pod.trajectory(params, 0 * has_params)
    np.testing.assert_array_equal(
        unknown.detach().numpy(), pod.mean.expand_as(unknown).numpy()
    )
