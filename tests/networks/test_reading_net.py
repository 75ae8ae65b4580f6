"""The network of joint optimization takes any length; its batches are never of one."""

import pytest
import torch

from sklearn_inverse.networks._reading_net import EvenBatches, KnownSquares, ReadingNet


@pytest.mark.parametrize("architecture", ["conv", "mlp"])
@pytest.mark.parametrize("n_times", [1, 2, 5, 40])
def test_networks_map_any_length_to_quantiles(n_times, architecture):
    net = ReadingNet(n_times, 3, 2, architecture=architecture, width=8)
    readings = 100 * torch.randn(6, n_times, 3)
    quantiles = net(readings, torch.ones_like(readings))
    assert quantiles.shape == (6, 2)
    assert ((quantiles >= 0) & (quantiles <= 1)).all()


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
