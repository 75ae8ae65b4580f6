"""ForwardFunction: any differentiable torch function as a forward model."""

import numpy as np
import torch
from torch import Tensor

__all__ = ["ForwardFunction"]


class ForwardFunction:
    """A function of physical params, with what inverters ask of a forward model.

    Parameters
    ----------
    function : callable
        ``function(params) -> trajectories``: a float64 tensor of shape (n_samples,
        n_params) in the params' own units to one of shape (n_samples, n_times,
        n_channels), or (n_samples, n_times) where there is one channel. Differentiable;
        a sample that cannot be simulated is NaN.

    scaler : ParamScaler
        The box of the params.

    n_times, n_channels : int
        Shape of a trajectory.

    device : torch.device
        Where :meth:`simulate` runs.
    """

    def __init__(self, function, scaler, n_times, n_channels, device):
        self.function, self.scaler_, self.device = function, scaler, device
        self.n_times_, self.n_channels_ = n_times, n_channels
        self.n_params_ = len(scaler.bounds)

    def check(self):
        """Run the function at the center of the box; raise if it cannot be used."""
        unit = torch.full((2, self.n_params_), 0.5, device=self.device)
        if not self.forward(unit.requires_grad_()).requires_grad:
            raise ValueError(
                "`forward` must be differentiable: gradients must flow from the "
                "trajectories back to the params. Got a tensor without gradient instead. "
                "Use torch operations throughout, without detach() or NumPy."
            )

    def forward(self, unit_params: Tensor) -> Tensor:
        """Return trajectories (n_samples, n_times, n_channels) at unit params."""
        params = self.scaler_.to_physical_tensor(unit_params.double())
        return self._trajectories(params)

    def simulate(self, params):
        """Return trajectories at physical params, as an ndarray."""
        params = torch.as_tensor(np.array(params, dtype=float), device=self.device)
        with torch.no_grad():
            return self._trajectories(params).double().cpu().numpy()

    def _trajectories(self, params):
        """Call the function, and refuse what is no batch of trajectories."""
        trajectories = self.function(params)
        if not isinstance(trajectories, Tensor):
            raise TypeError(
                "`forward` must return a torch.Tensor. Got "
                f"{type(trajectories).__name__} instead. Compute with torch operations "
                "throughout, so that gradients flow back to the params."
            )
        expected = (len(params), self.n_times_, self.n_channels_)
        if expected[2] == 1 and trajectories.shape == expected[:2]:
            trajectories = trajectories[..., None]
        if trajectories.shape != expected:
            raise ValueError(
                "`forward` must map params of shape (n_samples, n_params) = "
                f"{tuple(params.shape)} to trajectories of shape (n_samples, n_times, "
                f"n_channels) = {expected}, as in the training pairs. Got shape "
                f"{tuple(trajectories.shape)} instead. Check the function and "
                "`n_channels`."
            )
        return trajectories
