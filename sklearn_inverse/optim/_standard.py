"""An objective as a function of the prior's standard coordinate, which has no bounds."""

import torch
from torch import Tensor

__all__ = ["InStandard"]

FARTHEST = 6.0  # standard deviations of the prior


class InStandard:
    """An objective of scaled params as one of standard ones.

    Coordinates beyond the params, the scales of unknown noise, stay as they are.

    Parameters
    ----------
    objective : Objective
        The objective.

    sample : Tensor of shape (n_rows,)
        Which sample each row belongs to.
    """

    def __init__(self, objective, sample: Tensor):
        self.objective, self.sample = objective, sample
        self.prior, self.n_params = objective.prior, objective.n_params

    def __call__(self, z: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return value and gradient by ``z`` of the problems at ``rows``."""
        x = self.to_scaled(z)
        value, gradient = self.objective.gradient(x, self.sample[rows])
        slope = self.prior.standard_slope(x[:, : self.n_params].cpu().numpy())
        slope = torch.as_tensor(slope).to(z)
        p = self.n_params
        own = torch.linalg.solve_ex(slope.mT, gradient[:, :p, None])[0][..., 0]
        return value, torch.cat([own, gradient[:, p:]], dim=1)

    def to_scaled(self, z: Tensor) -> Tensor:
        """Return scaled coordinates."""
        standard = z[:, : self.n_params].clamp(-FARTHEST, FARTHEST).cpu().numpy()
        scaled = self.prior.scaler.to_scaled(self.prior.from_standard(standard))
        return torch.cat([torch.as_tensor(scaled).to(z), z[:, self.n_params :]], dim=1)

    def from_scaled(self, x: Tensor) -> Tensor:
        """Return the standard coordinates of scaled ones."""
        params = self.prior.scaler.from_scaled(x[:, : self.n_params].cpu().numpy())
        standard = torch.as_tensor(self.prior.to_standard(params)).to(x)
        standard = standard.clamp(-FARTHEST, FARTHEST)
        return torch.cat([standard, x[:, self.n_params :]], dim=1)
