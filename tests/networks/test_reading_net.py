"""The network of joint optimization takes any length; its batches are never of one."""

import pytest
import torch
from torch import nn

from sklearn_inverse.networks._reading_net import (
    NETWORKS,
    EvenBatches,
    KnownSquares,
    ReadingNet,
    waves,
)


class Mean(nn.Module):
    """A network of one weight."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, readings, mask, inputs):
        return self.weight * readings.mean(dim=1)[:, :2] + inputs[:, :1]


@pytest.mark.parametrize("network", [*NETWORKS, Mean()])
@pytest.mark.parametrize("n_times", [1, 2, 5, 40])
def test_networks_map_any_length_to_quantiles(n_times, network):
    net = ReadingNet(network, n_times, 3, 1, 2)
    readings = 100 * torch.randn(6, n_times, 3)
    told = [torch.ones_like(readings), torch.rand(6, 1)]
    quantiles = net(readings, *told)
    assert quantiles.shape == (6, 2)
    assert ((quantiles >= 0) & (quantiles <= 1)).all()
    if isinstance(network, nn.Module):
        assert net.body is not network
        expected = torch.sigmoid(2 * network(readings, *told))
        torch.testing.assert_close(quantiles, expected)


@pytest.mark.parametrize("network", NETWORKS)
def test_networks_see_readings_masks_and_inputs(network):
    net = ReadingNet(network, 8, 3, 2, 1)
    told = [torch.rand(6, 8, 3), torch.rand(6, 8, 3), torch.rand(6, 2)]
    for part in told:
        part.requires_grad_()
    net(*told).sum().backward()
    assert all(part.grad.abs().max() > 0 for part in told)


def test_a_module_that_returns_something_else_is_refused():
    net = ReadingNet(Mean(), 4, 3, 1, 3)
    with pytest.raises(ValueError, match=r"n_params\) = \(6, 3\). Got \(6, 2\)"):
        net(torch.rand(6, 4, 3), torch.ones(6, 4, 3), torch.rand(6, 1))


def test_waves_tell_every_number_in_its_octaves():
    x = torch.tensor([[0.25, -0.5]])
    octaves = torch.tensor([1.0, 2.0])
    angle = torch.pi * torch.cat([0.25 * octaves, -0.5 * octaves])
    expected = torch.cat([x[0], angle.sin(), angle.cos()])[None]
    torch.testing.assert_close(waves(x, 2), expected)


@pytest.mark.parametrize("n_samples", [2, 3, 7, 8, 9, 100])
def test_no_batch_is_of_a_single_sample(n_samples):
    def draw(index, rng):
        return index

    batches = EvenBatches(n_samples, draw, batch_size=4, seed=0, device="cpu")
    first, second = list(batches), list(batches)
    assert min(len(b) for b in first) >= min(4, n_samples)
    assert sorted(torch.cat(first).tolist()) == list(range(n_samples))
    assert len(first) == batches.n_batches
    if n_samples > 8:
        assert torch.cat(first).tolist() != torch.cat(second).tolist()


def test_unknown_targets_have_no_part_in_the_loss():
    prediction = torch.tensor([[1.0, 5.0]], requires_grad=True)
    loss = KnownSquares()(prediction, torch.tensor([[3.0, torch.nan]]))
    loss.backward()
    assert loss == 2.0
    assert prediction.grad.tolist() == [[-2.0, 0.0]]
