"""What operators from params and sparse readings to trajectories share."""

import math

import torch
from torch import Tensor, nn

__all__ = ["ConditionalOperator", "harmonics_of"]

N_HARMONICS = 8


def harmonics_of(times: Tensor) -> Tensor:
    """Return the low harmonics (n_times, 16) of times scaled to [0, 1]."""
    angle = math.pi * times[:, None] * torch.arange(N_HARMONICS).to(times)
    return torch.cat([angle.cos(), angle.sin()], dim=1)


class ConditionalOperator(nn.Module):
    """Params and sparse readings to a trajectory, on top of a trained direct part.

    A subclass implements ``operate``.

    Parameters
    ----------
    times : Tensor of shape (n_times,)
        Time grid scaled to [0, 1].

    n_channels, n_params : int
        Sizes.

    pod : PODNet, default=None
        Trained direct part; its weights stay as they are.

    spread : Tensor of shape (n_channels,), default=None
        Spread of standardized readings, if not one.
    """

    harmonics: Tensor
    spread: Tensor

    def __init__(self, times, n_channels, n_params, *, pod=None, spread=None):
        super().__init__()
        self.register_buffer("harmonics", harmonics_of(times))
        spread = torch.ones(n_channels) if spread is None else spread
        self.register_buffer("spread", spread)
        self.n_told, self.n_seen = n_params + 1, 2 * n_channels
        self.pod = pod
        if pod is not None:
            pod.requires_grad_(False)

    def start_from_direct(self, *last):
        """Zero the last layers: what is learned adds to the direct part, if any."""
        for layer in last if self.pod is not None else ():
            nn.init.zeros_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def operate(self, told: Tensor, seen: Tensor | None) -> Tensor:
        """Return what is added to the direct part.

        Parameters
        ----------
        told : Tensor of shape (n_samples, n_params + 1)
            Centered params, 0 where unknown, and 1 where they are known.

        seen : Tensor of shape (n_samples, n_times, 2 * n_channels) or None
            Readings in units of their spread, 0 where there are none, and 1 where there
            are any.
        """
        raise AssertionError("every operator operates")

    def forward(self, params, has_params, readings=None, mask=None) -> Tensor:
        """Predict standardized trajectories.

        Parameters
        ----------
        params, has_params : Tensor of shape (n_samples, n_params), (n_samples, 1)
            Scaled params, and 1 where they are known, else 0.

        readings, mask : Tensor of shape (n_samples, n_times, n_channels), default=None
            Standardized readings, and 1 where there are any, else 0.

        Returns
        -------
        trajectories : Tensor of shape (n_samples, n_times, n_channels)
            Standardized.
        """
        told = torch.cat([(2 * params - 1) * has_params, has_params], dim=-1)
        seen = None
        if readings is not None:
            seen = torch.cat([readings / self.spread * mask, mask], dim=-1)
        out = self.operate(told, seen)
        if self.pod is not None:
            out = out + self.pod.trajectory(params, has_params)
        return out
