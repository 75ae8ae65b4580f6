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

    def value(self, z: Tensor, rows: Tensor) -> Tensor:
        """Return values alone, NaN where the simulation failed.

        Beyond the bounds of noise scales they are infinite.
        """
        p, objective = self.n_params, self.objective
        value = objective.value(self.to_scaled(z), self.sample[rows])
        squares = z[:, :p].square() - z[:, :p].clamp(-FARTHEST, FARTHEST).square()
        value = torch.where(value.isfinite(), value, torch.nan)
        value = value + 0.5 * squares.sum(dim=1)
        scales, low, high = z[:, p:], objective.low[p:], objective.high[p:]
        outside = ((scales < low) | (scales > high)).any(dim=1)
        return torch.where(outside, torch.inf, value)

    def curvature(self, z: Tensor, rows: Tensor) -> Tensor:
        """Return the largest curvature of each row, zero where the simulation failed."""
        x, p = self.to_scaled(z), self.n_params
        value, _, hessian = self.objective.linearize(x, self.sample[rows])
        slope = torch.eye(x.shape[1]).to(x).repeat(len(x), 1, 1)
        slope[:, :p, :p] = torch.as_tensor(
            self.prior.standard_slope(x[:, :p].cpu().numpy())
        )
        back = torch.linalg.inv(slope)
        known = value.isfinite()[:, None, None]
        hessian = torch.where(known, back.mT @ hessian @ back, 0.0)
        return torch.linalg.eigvalsh(hessian)[:, -1]

    def residuals(self, z: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return standardized residuals of prior and readings, and their Jacobians.

        Shapes (n_rows, n_params + n_readings) and an axis of params more; NaN where the
        simulation failed.
        """
        x = self.to_scaled(z)
        residual, jacobian = self.objective.residuals(x, self.sample[rows])
        slope = torch.as_tensor(self.prior.standard_slope(x.cpu().numpy())).to(z)
        jacobian = torch.linalg.solve_ex(slope.mT, jacobian.mT)[0].mT
        eye = torch.eye(self.n_params).to(z).expand(len(z), -1, -1)
        return torch.cat([z, residual], dim=1), torch.cat([eye, jacobian], dim=1)

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
