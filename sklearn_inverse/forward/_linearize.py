"""Derivatives of any differentiable forward model by its unit params."""

import torch
from torch import Tensor

from sklearn_inverse.ode._rhs import push_tangents

__all__ = ["differentiate", "linearize"]


def linearize(model, unit: Tensor) -> tuple[Tensor, Tensor]:
    """Return trajectories and their Jacobian, by the model's own way if it has one.

    Parameters
    ----------
    model : forward model
        Has ``forward(unit)``, differentiable, and maybe ``linearize(unit)``.

    unit : Tensor of shape (n_samples, n_params)
        Unit params.

    Returns
    -------
    trajectories : Tensor of shape (n_samples, n_times, n_channels)
        In units of the channels.

    jacobian : Tensor of shape (n_samples, n_times, n_channels, n_params)
        Derivative of each reading by each unit param.
    """
    own = getattr(model, "linearize", None)
    return differentiate(model.forward, unit) if own is None else own(unit)


def differentiate(forward, unit: Tensor) -> tuple[Tensor, Tensor]:
    """Push the axes of the unit box through a function, all of them at once."""
    unit = unit.detach()
    eye = torch.eye(unit.shape[1], dtype=unit.dtype, device=unit.device)
    pushed = push_tangents(forward, (unit,), (eye[:, None].expand(-1, len(unit), -1),))
    with torch.no_grad():
        return forward(unit), pushed.movedim(0, -1)
