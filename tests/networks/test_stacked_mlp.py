"""Networks of a stack are networks of their own."""

import pytest
import torch

from sklearn_inverse.networks._stacked_mlp import StackedMLP


@pytest.mark.parametrize("n_layers", [1, 3])
@pytest.mark.parametrize("train_embedding", [False, True])
def test_a_stack_equals_its_networks_one_by_one(n_layers, train_embedding):
    net = StackedMLP(
        2,
        3,
        2,
        width=8,
        n_layers=n_layers,
        fan_in=3,
        train_embedding=train_embedding,
        seed=0,
        dtype=torch.float64,
        device="cpu",
    )
    layers = [torch.cat(pair) for pair in zip(*(net.initial_layers() for _ in "ab"))]
    assert net.n_weights == sum(x[0].numel() for x in layers)
    unit, told = torch.rand(2, 5, 2).double(), torch.rand(2, 5, 3).double()
    together = net.value(layers, unit, told)
    for i in range(2):
        *hidden, w, b = [x[i] for x in layers[train_embedding:]]
        embedding = layers[0][i] if train_embedding else net.embedding
        h = (2 * unit[i] - 1) @ hidden[0] + told[i] @ embedding + hidden[1]
        for inner, bias in zip(hidden[2::2], hidden[3::2]):
            h = h.tanh() @ inner + bias
        torch.testing.assert_close(together[i], h.tanh() @ w + b)
