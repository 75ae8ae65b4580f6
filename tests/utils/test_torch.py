"""Devices are checked by name, and randomness never touches a global generator."""

import numpy as np
import pytest
import torch

from sklearn_inverse.utils._torch import (
    SeededInit,
    as_tensor,
    generator,
    resolve_device,
    spawn_seeds,
)


def test_auto_takes_a_gpu_where_there_is_one():
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert resolve_device("auto").type == expected


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu")])
def test_a_device_is_named_by_string_or_object(device):
    assert resolve_device(device) == torch.device("cpu")


@pytest.mark.parametrize(
    ("device", "message"),
    [
        (
            "tpu9",
            "`device` must be 'auto', 'cpu', 'cuda' or 'cuda:<index>'. Got 'tpu9'",
        ),
        ("", "`device` must be 'auto', 'cpu', 'cuda' or 'cuda:<index>'. Got ''"),
        ("cuda:99", r"a GPU that is not there: torch sees \d+ CUDA device"),
        ("meta", "must be on 'cpu' or 'cuda'. Got 'meta' instead, which has not been"),
    ],
)
def test_unknown_and_missing_devices_are_refused(device, message):
    with pytest.raises(ValueError, match=message):
        resolve_device(device)


def test_seeds_are_reproducible_and_differ_from_each_other():
    assert spawn_seeds(3, 4) == spawn_seeds(3, 4)
    assert len(set(spawn_seeds(3, 4))) == 4
    rng = np.random.RandomState(0)
    assert spawn_seeds(rng, 2) != spawn_seeds(rng, 2)


def test_generator_repeats_itself():
    a, b = (torch.rand(3, generator=generator(5)) for _ in range(2))
    assert torch.equal(a, b)


def build():
    nn = torch.nn
    return nn.Sequential(nn.Linear(3, 4), nn.Conv1d(2, 3, 3), nn.GRU(2, 3))


def test_modules_are_initialized_without_the_global_generator():
    before = torch.get_rng_state()
    with SeededInit(7):
        first = build()
    torch.manual_seed(1)
    with SeededInit(7):
        again, bound = build(), torch.nn.Parameter(0.3 * torch.rand(5))
    torch.set_rng_state(before)
    for a, b in zip(first.parameters(), again.parameters()):
        assert torch.equal(a, b)
    assert bound.requires_grad
    with SeededInit(8):
        assert not torch.equal(build()[0].weight, first[0].weight)
    assert torch.equal(torch.get_rng_state(), before)


def test_tensor_is_a_copy_in_single_precision():
    array = np.arange(6.0).reshape(2, 3).T  # not contiguous
    tensor = as_tensor(array, torch.device("cpu"))
    assert tensor.dtype == torch.float32
    tensor += 1
    np.testing.assert_array_equal(tensor.numpy(), array + 1)
    assert array.max() == 5
