"""A wave packet whose time of passage is sought."""

import numpy as np
import torch

from sklearn_inverse.forward import ForwardFunction

__all__ = ["wave_packet"]

TIMES = np.arange(1.0, 257.0)
WIDTH = 20.0


def wave_packet(*, noise=0.1):
    r"""Return the packet whose time of passage is sought, with an optimum every period.

    Parameters
    ----------
    noise : object, default=0.1
        How readings scatter.

    Returns
    -------
    model : ForwardFunction
        Param ``t0`` in (1, 256); the signal at t = 1, …, 256.

    Notes
    -----
    .. math:: u(t) = \sin(t - t_0)\, e^{-(t - t_0)^2 / 20^2}

    The loss has a local minimum at every period of the carrier. Where the packet is
    pushed out of the window altogether it is lower than at most of them: a lower loss is
    not yet the right answer. Width, noise and range are not given in [1]_.

    References
    ----------
    .. [1] P. Holl, N. Thuerey, "The unreasonable effectiveness of solving inverse
       problems with neural networks", arXiv:2408.08119, 2024.
    """
    return ForwardFunction(
        packet, {"t0": (1, 256)}, times=TIMES, noise=noise, name="wave_packet"
    )


def packet(params):
    """Return signals (n_samples, n_times) of params (n_samples, 1)."""
    shift = torch.as_tensor(TIMES, device=params.device) - params
    return shift.sin() * torch.exp(-((shift / WIDTH) ** 2))
