"""The wave packet of Holl & Thuerey: where in a noisy signal did the packet pass?

u(t) = A sin(t - t0) exp(-(t - t0)² / σ²) + noise at t = 1 … 256; t0 is sought. The misfit
has a local minimum at every period of the carrier, and where the packet is pushed out of
the window altogether its loss is lower than at most of them: a lower loss is not yet the
right answer. A, σ, noise and prior of t0 are not given in the paper; these are ours.
"""

import numpy as np
import torch

from sklearn_inverse import ForwardFunction

AMPLITUDE = 1.0
WIDTH = 20.0
NOISE = 0.1
TIMES = np.arange(1.0, 257.0)
BOX = (1.0, 256.0)
PRIOR = (56.0, 200.0)
INSIDE = (36.0, 220.0)  # a packet centered outside has left what the prior can produce


def wave_packet(params):
    """Trajectories (n_samples, n_times) of params (n_samples, 1), differentiably."""
    shift = torch.as_tensor(TIMES, device=params.device) - params
    return AMPLITUDE * shift.sin() * torch.exp(-((shift / WIDTH) ** 2))


MODEL = ForwardFunction(wave_packet, {"t0": BOX}, times=TIMES, noise=NOISE)


def draw_prior(n_samples, seed):
    """Draw t0 of shape (n_samples, 1)."""
    return np.random.default_rng(seed).uniform(*PRIOR, size=(n_samples, 1))


def trajectories(params):
    """Trajectories (n_samples, n_times) without noise, as an ndarray."""
    return wave_packet(torch.as_tensor(params)).numpy()


def readings(params, seed):
    """Trajectories with noise."""
    clean = trajectories(params)
    rng = np.random.default_rng(seed)
    return clean + NOISE * rng.standard_normal(clean.shape)


def squared_loss(params, observations):
    """Squared L2 distance of trajectories to observations, (n_samples,)."""
    return ((trajectories(params) - observations) ** 2).sum(axis=1)
