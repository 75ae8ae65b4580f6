"""What inverters minimize: the misfit of a forward model to noisy, masked readings."""

import torch
from torch import Tensor

from sklearn_inverse.forward._linearize import linearize

__all__ = ["PRIOR_PRECISION", "Objective"]

PRIOR_PRECISION = 12.0  # of a uniform param on the unit box: one over its variance
ROWS = 256  # rows whose Jacobians are held together
MANY_ROWS = 4096  # rows whose trajectories are


class Objective:
    r"""Minus the log posterior of unit params, up to a constant, for each sample.

    .. math:: \Phi_i(u) = \frac12 \sum_{tc} \Big(\frac{F_{tc}(u) - y_{itc}}
              {\sigma_{itc}}\Big)^2 + \frac{12}{2} \lVert u - \tfrac12 \rVert^2

    over what was read. The prior is the normal distribution with the mean and the
    variance of the box. All methods take *rows* of unit params, each of which belongs to
    a sample, so that any number of particles per sample is one batch. A row whose
    simulation failed has an infinite value and a zero gradient.

    Parameters
    ----------
    model : object
        Has ``forward(unit) -> trajectories``; may have ``linearize(unit) ->
        (trajectories, jacobian)`` and ``until(n_times)``.

    readings : Tensor of shape (n_samples, n_times, n_channels)
        Readings in double precision, NaN where nothing was measured.

    noise_std : Tensor of the same shape
        Positive standard deviation of each reading, model error included.

    tolerance : Tensor of shape (n_channels,)
        Residuals so small count as explained, however small the noise is said to be.

    loss : {"l2", "l1"}, default="l2"
        "l1" is the sum of absolute scaled residuals instead of half their squares.

    prior_precision : float, default=12.0
        Precision of the prior in the unit box; 0 switches it off.

    Attributes
    ----------
    n_forward, n_linearized : Tensor of shape (n_samples,)
        Forward evaluations of each sample so far, and those with a Jacobian.
    """

    def __init__(
        self,
        model,
        readings: Tensor,
        noise_std: Tensor,
        tolerance: Tensor,
        *,
        loss="l2",
        prior_precision=PRIOR_PRECISION,
    ):
        self.model, self.loss, self.prior_precision = model, loss, prior_precision
        self.readings, self.noise_std = readings, noise_std
        self.tolerance = tolerance
        seen = ~readings.isnan()
        # What lies after the last reading need not be simulated.
        last = int(seen.any(dim=2).any(dim=0).nonzero().max()) + 1
        until = getattr(model, "until", None)
        self._model = until(last) if until and last < readings.shape[1] else model
        self._targets = readings[:, :last].nan_to_num()
        self._weights = torch.where(seen, 1 / noise_std, 0.0)[:, :last]
        self.n_readings = seen.sum(dim=(1, 2))
        self.n_forward = torch.zeros(len(readings), dtype=torch.long)
        self.n_linearized = torch.zeros_like(self.n_forward)

    def up_to(self, n_observed) -> "Objective":
        """Return the objective that knows the first ``n_observed`` observed times only.

        Parameters
        ----------
        n_observed : Tensor of shape (n_samples,)
            How many of its observed times each sample keeps.
        """
        rank = (~self.readings.isnan()).any(dim=2).cumsum(dim=1)
        early = (rank <= n_observed[:, None])[..., None]
        shorter = Objective(
            self.model,
            self.readings.where(early, torch.nan),
            self.noise_std,
            self.tolerance,
            loss=self.loss,
            prior_precision=self.prior_precision,
        )
        shorter.n_forward, shorter.n_linearized = self.n_forward, self.n_linearized
        return shorter

    def value(self, unit: Tensor, sample: Tensor) -> Tensor:
        """Return the objective of each row, infinite where the simulation failed."""
        parts = zip(unit.split(MANY_ROWS), sample.split(MANY_ROWS))
        with torch.no_grad():
            return torch.cat([self._value(*rows) for rows in parts])

    def misfit(self, unit: Tensor, sample: Tensor) -> tuple[Tensor, Tensor]:
        """Judge each row by its readings alone.

        Returns
        -------
        misfit : Tensor of shape (n_rows,)
            Sum of squared residuals, each over its noise; NaN if the simulation failed.

        explained : Tensor of bool of shape (n_rows,)
            Whether that is no more than noise, but for one case in a thousand. Here
            noise counts as no less than ``tolerance``.
        """
        with torch.no_grad():
            residuals, _ = self._residuals(self._forward(unit, sample), sample)
        squares = residuals.square()
        share = (self.noise_std / self.tolerance).clamp(max=1).square()
        share = share[:, : self._targets.shape[1]].flatten(1)[sample]
        n = self.n_readings[sample]
        explained = (squares * share).sum(dim=1) <= n + 3 * (2 * n).sqrt() + 3
        return squares.sum(dim=1), explained

    def gradient(self, unit: Tensor, sample: Tensor):
        """Return value and gradient of each row, shapes (n_rows,), (n_rows, n_params)."""
        parts = zip(unit.split(MANY_ROWS), sample.split(MANY_ROWS))
        value, gradient = zip(*(self._gradient(*rows) for rows in parts))
        return torch.cat(value), torch.cat(gradient)

    def _gradient(self, unit, sample):
        with torch.enable_grad():
            unit = unit.detach().requires_grad_()
            value = self._value(unit, sample)
            finite = torch.where(value.isfinite(), value, 0.0)
            (gradient,) = torch.autograd.grad(finite.sum(), unit)
        usable = value.isfinite()[:, None] & gradient.isfinite()
        return value.detach(), torch.where(usable, gradient, 0.0)

    def linearize(self, unit: Tensor, sample: Tensor):
        """Return value, gradient and Gauss–Newton Hessian of each row.

        Returns
        -------
        value : Tensor of shape (n_rows,)
            The objective.

        gradient : Tensor of shape (n_rows, n_params)
            Its exact gradient.

        hessian : Tensor of shape (n_rows, n_params, n_params)
            :math:`J^T J + 12 I`, positive definite: without a prior, 1e-12 of the
            largest curvature is added to the diagonal.
        """
        parts = [
            self._linearize(*rows) for rows in zip(unit.split(ROWS), sample.split(ROWS))
        ]
        value, gradient, hessian = (torch.cat(part) for part in zip(*parts))
        centerd = unit - 0.5
        value = value + self.prior_precision / 2 * centerd.square().sum(dim=1)
        gradient = gradient + self.prior_precision * centerd
        curvature = hessian.diagonal(dim1=1, dim2=2)
        floor = (1e-12 * curvature.amax(dim=1, keepdim=True)).clamp(min=1e-12)
        curvature += self.prior_precision or floor
        return value, gradient, hessian

    def _linearize(self, unit, sample):
        """Return half the squared misfit, its gradient and Hessian for some rows."""
        self._count(self.n_linearized, sample)
        trajectories, jacobian = linearize(self._model, unit)
        last = self._targets.shape[1]
        residuals, failed = self._residuals(trajectories, sample)
        weights = self._weights[sample]
        jacobian = jacobian[:, :last] * weights[..., None]
        # Not measured is not simulated either: NaN times zero weight is NaN.
        jacobian = torch.where(weights[..., None] > 0, jacobian, 0.0).flatten(1, 2)
        failed = failed | ~jacobian.isfinite().all(dim=2).all(dim=1)
        residuals = torch.where(failed[:, None], 0.0, residuals)
        jacobian = torch.where(failed[:, None, None], 0.0, jacobian)
        value = 0.5 * residuals.square().sum(dim=1)
        gradient = (residuals[:, None] @ jacobian)[:, 0]
        value = torch.where(failed, torch.inf, value)
        return value, gradient, jacobian.mT @ jacobian

    def _value(self, unit, sample):
        residuals, failed = self._residuals(self._forward(unit, sample), sample)
        if self.loss == "l1":
            value = residuals.abs().sum(dim=1)
        else:
            value = 0.5 * residuals.square().sum(dim=1)
        value = value + self.prior_precision / 2 * (unit - 0.5).square().sum(dim=1)
        return torch.where(failed, torch.inf, value)

    def _forward(self, unit, sample):
        self._count(self.n_forward, sample)
        return self._model.forward(unit)

    def _residuals(self, trajectories, sample):
        """Scaled residuals (n_rows, n_readings), zero where unread; which rows failed."""
        weights, targets = self._weights[sample], self._targets[sample]
        simulated = trajectories[:, : targets.shape[1]].to(targets.dtype)
        residuals = (torch.where(weights > 0, simulated, targets) - targets) * weights
        failed = ~residuals.isfinite().flatten(1).all(dim=1)
        return residuals.flatten(1), failed

    @staticmethod
    def _count(counter, sample):
        counter += torch.bincount(sample.cpu(), minlength=len(counter))
