"""Batches that live on the device: slices of tensors, drawn anew each epoch."""

import math

import numpy as np
import torch
from torch.utils.data import TensorDataset

from sklearn_inverse.utils._parallel import map_chunks
from sklearn_inverse.utils._torch import generator

__all__ = [
    "ReadingBatches",
    "in_chunks",
    "split_held_out",
    "split_pairs",
    "tensor_dataset",
]


class ReadingBatches:
    """Batches for the surrogate: trajectories, seen through masks drawn anew each time.

    Each training batch is of one of three kinds: params known and no readings, both
    known, readings only. Validation goes through the three kinds in turn with the same
    masks every epoch, in the same proportions. ``dataset`` holds scaled params and
    standardized trajectories, NaN where unknown; ``read`` is a ReadingSimulator.
    """

    def __init__(
        self,
        dataset,
        *,
        batch_size,
        training,
        read,
        observation_dropout,
        params_dropout,
        seed,
    ):
        self.params, self.trajectories = dataset.tensors
        self.batch_size, self.training, self.read = batch_size, training, read
        self.observation_dropout = observation_dropout
        self.params_dropout = params_dropout
        self.seed, self.rng = seed, generator(seed, self.params.device)
        self.kind_rng = np.random.default_rng(seed)

    def __iter__(self):
        n_samples, device = len(self.params), self.params.device
        n_batches = math.ceil(n_samples / self.batch_size)
        if self.training:
            order = torch.randperm(n_samples, generator=self.rng, device=device)
            kinds = self.kind_rng.random(n_batches)
        else:
            self.rng = generator(self.seed, device)
            order = torch.arange(n_samples, device=device)
            kinds = (np.arange(n_batches) + 0.5) / n_batches
        for index, kind in zip(order.split(self.batch_size), kinds):
            target = self.trajectories[index]
            has_params = target.new_ones(len(index), 1)
            inputs = {"params": self.params[index], "has_params": has_params}
            if kind >= self.observation_dropout:
                readings, mask = self.read.draw(inputs["params"], target, self.rng)
                inputs |= {"readings": readings, "mask": mask}
                if kind >= 1 - self.params_dropout:
                    inputs["has_params"] = torch.zeros_like(has_params)
            yield inputs, target


def split_held_out(n_samples, fraction, seed):
    """Return indices (train, held_out); at least one sample in each."""
    order = np.random.default_rng(seed).permutation(n_samples)
    n_held_out = min(max(round(fraction * n_samples), 1), n_samples - 1)
    return np.sort(order[n_held_out:]), np.sort(order[:n_held_out])


def split_pairs(*arrays, fraction, seed, device):
    """Return arrays as two float32 datasets on the device: to train on, and held out.

    Arrays but the first may be functions that return some of their rows.
    """
    parts = split_held_out(len(arrays[0]), fraction, seed)
    return [
        tensor_dataset(
            *(a(part) if callable(a) else a[part] for a in arrays), device=device
        )
        for part in parts
    ]


def in_chunks(function, *tensors, chunk_size=128, verbose=0, desc=""):
    """Apply a batched function to chunks of one fixed size, and join the results.

    The last chunk is padded by repeating its last row. Matrix products round differently
    at different sizes; at one fixed size a row's result does not depend on how many
    companions it has.
    """

    def on_chunk(*chunk):
        n_rows = len(chunk[0])
        if n_rows < chunk_size:
            pad = [a[-1:].expand(chunk_size - n_rows, *a.shape[1:]) for a in chunk]
            chunk = [torch.cat([a, b]) for a, b in zip(chunk, pad)]
        return function(*chunk)[:n_rows]

    # Never in workers, whatever joblib backend is set: tensors live on their device.
    outcomes = map_chunks(
        on_chunk, *tensors, chunk_size=chunk_size, n_jobs=1, verbose=verbose, desc=desc
    )
    return torch.cat(outcomes)


def tensor_dataset(*arrays, device):
    """Return arrays as a float32 TensorDataset that lives on the device."""
    return TensorDataset(
        *(torch.as_tensor(a).to(device, torch.float32) for a in arrays)
    )
