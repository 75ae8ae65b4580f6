"""Device, tensors and randomness: what sits between NumPy outside and torch inside."""

import numpy as np
import torch
from sklearn.utils import check_random_state
from torch import nn
from torch.overrides import TorchFunctionMode

__all__ = ["SeededInit", "as_tensor", "generator", "resolve_device", "spawn_seeds"]


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


class SeededInit(TorchFunctionMode):
    """Initialize nn.Modules from a generator of their own, in this thread alone.

    Their constructors draw from torch's global generator, which all threads share.

    Parameters
    ----------
    seed : int
        Seed of the weights.
    """

    RANDOM = frozenset(
        {
            nn.init.kaiming_uniform_,
            nn.init.uniform_,
            nn.init.normal_,
            nn.init.xavier_uniform_,
            torch.Tensor.uniform_,
            torch.Tensor.normal_,
            torch.rand,
            torch.randn,
        }
    )

    def __init__(self, seed):
        super().__init__()
        self.generator = generator(seed)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """Hand the generator to what is random."""
        kwargs = dict(kwargs or {})
        if func in self.RANDOM and kwargs.get("generator") is None:
            kwargs["generator"] = self.generator
        return func(*args, **kwargs)


def as_tensor(array, device, dtype=torch.float32):
    """Copy an ndarray to a tensor on ``device``; double precision until the last cast."""
    return torch.as_tensor(np.ascontiguousarray(array)).to(device=device, dtype=dtype)
