"""Device, tensors and randomness: what sits between NumPy outside and torch inside."""

from contextlib import contextmanager

import numpy as np
import torch
from sklearn.utils import check_random_state

__all__ = ["as_tensor", "fork_rng", "generator", "resolve_device", "spawn_seeds"]


def resolve_device(device):
    """Return the torch device named by an estimator's ``device`` parameter.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda", …} or torch.device
        "auto" takes CUDA where there is one, and the CPU otherwise.

    Returns
    -------
    device : torch.device
        A device that exists on this machine.

    Raises
    ------
    ValueError
        If the name is unknown, or names a GPU that is not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"`device` must be 'auto', 'cpu', 'cuda' or 'cuda:<index>'. Got {device!r} "
            "instead."
        ) from error
    if resolved.type == "cuda" and (resolved.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"`device={device!r}` asks for a GPU that is not there: torch sees "
            f"{torch.cuda.device_count()} CUDA device(s). Use device='auto' or 'cpu'."
        )
    if resolved.type not in ("cpu", "cuda"):
        raise ValueError(
            f"`device` must be on 'cpu' or 'cuda'. Got {device!r} instead, which has not "
            "been tested."
        )
    return resolved


def spawn_seeds(random_state, n_seeds):
    """Draw independent seeds from ``random_state``, one for each thing that is random."""
    rng = check_random_state(random_state)
    return [int(s) for s in rng.randint(np.iinfo(np.int32).max, size=n_seeds)]


def generator(seed, device="cpu"):
    """Return a torch Generator seeded with ``seed`` on ``device``."""
    return torch.Generator(device=device).manual_seed(seed)


@contextmanager
def fork_rng(seed, device):
    """Run a block with torch's global generators seeded, and restore them after it.

    For code that takes no Generator (the initialization of nn.Module weights).
    """
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def as_tensor(array, device, dtype=torch.float32):
    """Copy an ndarray to a tensor on ``device``; double precision until the last cast."""
    return torch.as_tensor(np.ascontiguousarray(array)).to(device=device, dtype=dtype)
