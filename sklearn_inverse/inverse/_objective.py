"""What a search minimizes: minus the log posterior of params and noise."""

import copy
import math
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from sklearn_inverse.inverse._judged import Judged, judged

__all__ = ["Objective"]

ROWS = 256  # rows whose Jacobians are held together
MANY_ROWS = 4096  # rows whose trajectories are


class Objective:
    r"""Minus the log posterior of scaled params, up to a constant, for each sample.

    .. math:: \Phi_i(x) = -\sum_{tc} \log p\big(y_{itc} \mid F_{tc}(x), \theta(x)\big)
              + \tfrac12 \lVert z(x) \rVert^2

    over what was read, with the noise's params :math:`\theta` and the prior's standard
    coordinate z. All methods take *rows* of coordinates, each of which belongs to a
    sample, so that any number of starts per sample is one batch. The coordinates are
    the scaled params and, for each observable whose noise is unknown, the logarithm of
    its scale relative to the size of the sample's readings. A row whose simulation
    failed has an infinite value and a zero gradient.

    Parameters
    ----------
    model : ForwardModel
        What is inverted.

    noise : NoiseModel
        How readings scatter.

    readings : Tensor of shape (n_samples, n_times, n_channels)
        In double precision, NaN where nothing was measured.

    weighs_prior : bool, default=True
        Whether the prior counts. If False, this is minus the log likelihood.

    noise_std : Tensor of the same shape, default=None
        Noise of each reading, instead of the model's own.

    inputs : Tensor of shape (n_samples, n_inputs), default=None
        Inputs of each sample, where the model has any.

    Attributes
    ----------
    low, high, is_open : Tensor of shape (n_free,)
        Bounds of the coordinates; open ones, where the prior has no mass left, are
        never reached.

    n_forward, n_linearized : Tensor of shape (n_samples,)
        Runs of each sample so far, and those with a Jacobian.

    knows_less : Tensor of bool of shape (n_samples,)
        Of which samples it knows a part only: their optima need not be exact.
    """

    def __init__(
        self, model, noise, readings, *, weighs_prior=True, noise_std=None, inputs=None
    ):
        self.model, self.noise, self.readings = model, noise, readings
        self.weighs_prior, self.noise_std = weighs_prior, noise_std
        self.inputs = inputs
        self.prior, self.n_params = model.prior_, model.n_params_
        if noise_std is not None:
            noise = noise.with_std(1.0)
        self.unknown = np.flatnonzero(noise.has_unknown_scale)
        seen = ~readings.isnan()
        # What lies after the last reading need not be simulated.
        self._n_used = int(seen.any(dim=2).any(dim=0).nonzero().max()) + 1
        self._model = model.truncate(self._n_used)
        self._noise = self.noise.truncate(self._n_used)
        self._seen = seen[:, : self._n_used]
        self._targets = readings[:, : self._n_used]
        self.n_readings = seen.sum(dim=(1, 2))
        self.knows_less = torch.zeros_like(self.n_readings, dtype=torch.bool)
        self.is_eager = model.linearizes_cheaply
        self._prior_weight = 1.0
        self.n_forward = torch.zeros(len(readings), dtype=torch.long)
        self.n_linearized = torch.zeros_like(self.n_forward)
        # Leverages, and the means at which they were found, one row per sample.
        self.leverage: tuple[Tensor, Tensor] | None = None
        self._set_scales()

    def _set_scales(self):
        """Settle the size of readings, the floor of their noise, and the bounds."""
        size = self.readings.nan_to_num().abs().amax(dim=1)
        self.size = torch.where(size > 0, size, 1.0)
        is_relative = torch.as_tensor(self.noise.is_relative, device=size.device)
        self._unit = torch.where(is_relative, 1.0, self.size)  # of unknown scales
        # No solver's trajectory is good for more, however small the noise is said to be.
        is_normal = torch.as_tensor(self.noise.is_normal, device=size.device)
        floor = torch.where(
            is_normal, self.size[:, None], self.readings.nan_to_num().abs()
        )
        error = torch.as_tensor(np.nan_to_num(self.model.error_)).to(size)
        self._error = (error.square() + (self.model.precision * floor) ** 2).sqrt()
        low, high = (
            torch.as_tensor(a).to(size)
            for a in (self.prior.scaled_low, self.prior.scaled_high)
        )
        n_scales = len(self.unknown)
        floor = math.log(0.1 * self.model.precision)
        self.low = torch.cat([low, low.new_full((n_scales,), floor)])
        self.high = torch.cat([high, high.new_full((n_scales,), 5.0)])
        self.is_open = torch.zeros_like(self.low, dtype=torch.bool)
        self.is_open[: self.n_params] = self.weighs_prior

    # --- other objectives of the same samples

    def up_to(self, n_observed: Tensor) -> "Objective":
        """Return the objective that knows the first ``n_observed`` observed times only.

        Parameters
        ----------
        n_observed : Tensor of shape (n_samples,)
            How many of its observed times each sample keeps.
        """
        rank = self.count_up((~self.readings.isnan()).any(dim=2))
        early = (rank <= n_observed[:, None])[..., None]
        shorter = self._like(slice(None), self.readings.where(early, torch.nan))
        shorter.n_forward, shorter.n_linearized = self.n_forward, self.n_linearized
        shorter.size, shorter._error = self.size, self._error
        shorter._unit = self._unit
        shorter.knows_less = shorter.n_readings < self.n_readings
        return shorter

    def tempered(self, weight: float) -> "Objective":
        """Return the objective whose prior counts ``weight`` times."""
        flatter = copy.copy(self)
        flatter._prior_weight = weight
        flatter.knows_less = torch.ones_like(self.knows_less)
        return flatter

    def count_up(self, numbers: Tensor) -> Tensor:
        """Add numbers (n_samples, n_times) up to each time, the earliest first."""
        order = torch.as_tensor(np.argsort(self.model.elapsed_, kind="stable"))
        counts = torch.empty_like(numbers, dtype=torch.long)
        counts[:, order] = numbers[:, order].cumsum(dim=1)
        return counts

    def select(self, sample: Tensor) -> "Objective":
        """Return the objective of rows as samples of their own, with their own counts."""
        return self._like(sample, self.readings[sample])

    def _like(self, sample, readings):
        own = {"noise_std": self.noise_std, "inputs": self.inputs}
        own = {name: None if x is None else x[sample] for name, x in own.items()}
        options = {"weighs_prior": self.weighs_prior} | own
        return Objective(self.model, self.noise, readings, **options)

    # --- values

    def with_scales(self, scaled: Tensor, sample: Tensor) -> Tensor:
        """Append the unknown noise scales that fit the residuals at scaled params."""
        if len(self.unknown) == 0:
            return scaled
        with torch.no_grad():
            mean = self._forward(scaled, sample)
        seen = self._seen[sample] & mean.isfinite()
        off = (
            torch.where(seen, mean - self._targets[sample], 0.0)
            / self.size[sample, None]
        )
        mean_square = off.square().sum(dim=1) / seen.sum(dim=1).clamp(min=1)
        # Of what hardly scatters, or cannot be simulated, start with a tenth.
        scale = torch.where(mean_square > 0, mean_square.sqrt(), 0.1)[:, self.unknown]
        return torch.cat([scaled, scale.clamp(min=1e-15).log()], dim=1)

    def value(self, x: Tensor, sample: Tensor) -> Tensor:
        """Return the objective of each row, infinite where the simulation failed."""
        parts = zip(x.split(MANY_ROWS), sample.split(MANY_ROWS))
        with torch.no_grad():
            return torch.cat([self._value(*rows) for rows in parts])

    def gradient(self, x: Tensor, sample: Tensor) -> tuple[Tensor, Tensor]:
        """Return value and gradient of each row, shapes (n_rows,), (n_rows, n_free)."""
        parts = zip(x.split(MANY_ROWS), sample.split(MANY_ROWS))
        value, gradient = zip(*(self._gradient(*rows) for rows in parts))
        return torch.cat(value), torch.cat(gradient)

    def linearize(self, x: Tensor, sample: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return value, gradient and Hessian of each row.

        The Hessian is that of Fisher scoring for the params and the observed one, made
        positive, for the noise's: positive definite; without a prior, 1e-12 of the
        largest curvature is added to the diagonal.
        """
        parts = [
            self._linearize(*rows) for rows in zip(x.split(ROWS), sample.split(ROWS))
        ]
        value, gradient, hessian = (torch.cat(part) for part in zip(*parts))
        if self.weighs_prior:
            penalty, slope, curvature = self._penalty(x)
            p = self.n_params
            value, gradient[:, :p] = value + penalty, gradient[:, :p] + slope
            hessian[:, :p, :p] += curvature
        # Where noise is thought too large, its observed curvature is next to nothing.
        if len(self.unknown):
            scales = hessian.diagonal(dim1=1, dim2=2)[:, self.n_params :]
            scales += gradient[:, self.n_params :].clamp(min=0) / 2
        return value, gradient, self.lifted(hessian)

    def information(self, x: Tensor, sample: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the information of the readings, and the leverage of each reading.

        Returns
        -------
        information : Tensor of shape (n_rows, n_free, n_free)
            Hessian of the likelihood alone, without the correction by leverages.

        leverage : Tensor of shape (n_rows, n_times, n_channels)
            How much of each reading the params follow, between 0 and 1.

        mean : Tensor of the same shape
            What the model gives.
        """
        kept, self.leverage = self.leverage, None
        try:
            parts = [
                self._inform(*rows) for rows in zip(x.split(ROWS), sample.split(ROWS))
            ]
        finally:
            self.leverage = kept
        information, leverage, mean = (torch.cat(part) for part in zip(*parts))
        return information, leverage, mean

    def sensitivity(self, x: Tensor, sample: Tensor) -> Tensor:
        """Return roots S of the information SᵀS, of shape (n_rows, n, n_free).

        Unlike the information, they tell directions without effect from weak ones; NaN
        where the simulation failed.
        """
        parts = [self._root(*rows) for rows in zip(x.split(ROWS), sample.split(ROWS))]
        return torch.cat(parts)

    @property
    def has_residuals(self) -> bool:
        """Whether half the sum of squared residuals is all that depends on params."""
        is_normal = bool((self.noise.is_normal | self.noise.is_relative).all())
        return is_normal and (self.noise_std is not None or not self.noise.has_unknowns)

    def residuals(self, x: Tensor, sample: Tensor) -> tuple[Tensor, Tensor]:
        """Return standardized residuals (n_rows, n), and by scaled params their Jacobians.

        Of all that was read of any sample, zero where not of a row's own, NaN where the
        simulation failed.
        """
        read = self._seen[sample].flatten(1).any(dim=0)
        parts = (
            self._residuals(*rows) for rows in zip(x.split(ROWS), sample.split(ROWS))
        )
        residual, jacobian = zip(*((r[:, read], j[:, read]) for r, j in parts))
        return torch.cat(residual), torch.cat(jacobian)

    @property
    def has_few_readings(self) -> Tensor:
        """Which samples (n_samples,) have less than two readings for each param.

        Where a prior tells the rest.
        """
        return self.weighs_prior & (self.n_readings < 2 * self.n_params)

    def judge(
        self,
        x: Tensor,
        sample: Tensor,
        hessian: Tensor | None = None,
        n_told: Tensor | float = 0.0,
    ) -> Judged:
        """Judge rows by their readings alone.

        Parameters
        ----------
        x : Tensor of shape (n_rows, n_free)
            Coordinates.

        sample : Tensor of shape (n_rows,)
            Whose they are.

        hessian : Tensor of shape (n_rows, n_free, n_free), default=None
            Of optima, from which ``n_told`` follows.

        n_told : Tensor of shape (n_rows,), default=0
            Of how many readings the fit has taken the scatter up: an effective number of
            params.
        """
        if hessian is not None:
            n_told = self._n_told(x, hessian)
        with torch.no_grad():
            mean = self._forward(x[:, : self.n_params], sample)
            noise, args = self._noise_at(x, sample)
            y, seen = self._targets[sample], self._seen[sample]
            experiment = self.model.experiment_of_[: self._n_used]
            return judged(noise, args, y, mean, seen, self.unknown, experiment, n_told)

    def _n_told(self, x, hessian):
        """Return the effective number of params: those that the prior does not tell."""
        if not self.weighs_prior:
            return ((x > self.low) & (x < self.high)).sum(dim=1).to(x)
        p = self.n_params
        prior = torch.zeros_like(hessian)
        prior[:, :p, :p] = self._penalty(x)[2]
        share = torch.linalg.solve_ex(self.lifted(hessian.clone()), prior)[0]
        share = share.diagonal(dim1=1, dim2=2).sum(dim=1)
        return (p - share.nan_to_num(p)).clamp(0, p)

    def likelihood(self, x: Tensor, sample: Tensor) -> tuple[Tensor, Tensor]:
        """Return minus the log likelihood of rows, differentiable, and Σ 1/σ² (n_rows,).

        By whatever the model's outputs depend on.
        """
        mean = self._forward(x[:, : self.n_params], sample)
        noise, args = self._noise_at(x, sample)
        weight = self._weight(mean, sample, noise, args)
        return self._surprise(mean, sample, noise, args), weight.sum(dim=(1, 2))

    def prior_slope(self, x: Tensor) -> Tensor:
        """Return the gradient of the prior's part, (n_rows, n_params)."""
        return self._penalty(x)[1] if self.weighs_prior else torch.zeros_like(x)

    def apart(self, x: Tensor, sample: Tensor, other: Tensor) -> Tensor:
        """Return the mean square of what other means differ by, in units of the noise.

        Parameters
        ----------
        x : Tensor of shape (n_rows, n_free)
            Coordinates.

        sample : Tensor of shape (n_rows,)
            Whose they are.

        other : Tensor of shape (n_rows, n_times, n_channels)
            What another model makes of them.
        """
        with torch.no_grad():
            mean = self._forward(x[:, : self.n_params], sample)
            noise, args = self._noise_at(x, sample)
            off = (other[:, : self._n_used].to(mean) - mean) / noise.std(mean, args)
            seen = self._seen[sample]
            squares = torch.where(seen, off.square(), 0.0).sum(dim=(1, 2))
            return squares / seen.sum(dim=(1, 2))

    def noise_scale(self, x: Tensor, sample: Tensor) -> Tensor:
        """Return the unknown noise scales (n_rows, n_channels), NaN where known."""
        scale = torch.full_like(self.size[sample], torch.nan)
        scale[:, self.unknown] = self._log_scale(x, sample)[:, self.unknown].exp()
        return scale

    def lifted(self, hessian: Tensor) -> Tensor:
        """Return the Hessian with a curvature where nothing is told, changed in place."""
        params, scales = hessian.diagonal(dim1=1, dim2=2).split(
            [self.n_params, len(self.unknown)], dim=1
        )
        if not self.weighs_prior:
            params += (1e-12 * params.amax(dim=1, keepdim=True)).clamp(min=1e-12)
        scales.clamp_(min=1.0)
        return hessian

    # --- parts

    def _value(self, x, sample):
        mean = self._forward(x[:, : self.n_params], sample)
        value = self._surprise(mean, sample, *self._noise_at(x, sample))
        if self.weighs_prior:
            value = value + self._penalty(x)[0]
        return value

    def _gradient(self, x, sample):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            mean = self._forward(x[:, : self.n_params], sample)
            value = self._surprise(mean, sample, *self._noise_at(x, sample))
            finite = torch.where(value.isfinite(), value, 0.0)
            (gradient,) = torch.autograd.grad(finite.sum(), x)
        value, gradient = value.detach(), gradient.clone()
        if self.weighs_prior:
            penalty, slope, _ = self._penalty(x.detach())
            value = value + penalty
            gradient[:, : self.n_params] += slope
        lost = (value.isfinite() & ~gradient.isfinite().all(dim=1)).nonzero()[:, 0]
        if len(lost):
            # What nobody reads may have no derivative; entry by entry it does not count.
            value[lost], gradient[lost], _ = self.linearize(
                x.detach()[lost], sample[lost]
            )
        return value, torch.where(value.isfinite()[:, None], gradient, 0.0)

    def _linearize(self, x, sample):
        mean, jacobian, failed = self._run(x, sample)
        with torch.enable_grad():
            mean, x = mean.requires_grad_(), x.detach().requires_grad_()
            noise, args = self._noise_at(x, sample)
            value = self._surprise(mean, sample, noise, args)
            depends = any(a.requires_grad for kind in args for a in kind)
            by_mean, by_x = torch.autograd.grad(
                value.sum(), [mean, x], allow_unused=True, create_graph=depends
            )
            own = self._own_curvature(by_x, x)
        by_mean = by_mean.detach().flatten(1)
        gradient = x.new_zeros(x.shape) if by_x is None else by_x.detach().clone()
        gradient[:, : self.n_params] += (by_mean[:, None] @ jacobian)[:, 0]
        weight = self._weight(mean, sample, noise, args)
        hessian = self._fisher(jacobian, weight, own)
        value, failed = value.detach(), failed | ~value.detach().isfinite()
        failed = (
            failed | ~gradient.isfinite().all(1) | ~hessian.isfinite().all(2).all(1)
        )
        value = torch.where(failed, torch.inf, value)
        gradient = torch.where(failed[:, None], 0.0, gradient)
        return value, gradient, torch.where(failed[:, None, None], 0.0, hessian)

    def _inform(self, x, sample):
        mean, jacobian, weight, own, _ = self._run_with_noise(x, sample)
        information = self._fisher(jacobian, weight, own)
        p, hessian = self.n_params, information.clone()
        if self.weighs_prior:
            hessian[:, :p, :p] += self._penalty(x)[2]
        hessian = self.lifted(hessian)
        solved = torch.linalg.solve_ex(hessian[:, :p, :p], jacobian.mT)[0]
        leverage = weight.flatten(1) * (jacobian * solved.mT).sum(dim=2)
        leverage = leverage.nan_to_num().clamp(0, 1).reshape(mean.shape)
        return information, leverage, mean

    def _root(self, x, sample):
        _, jacobian, weight, own, failed = self._run_with_noise(x, sample)
        values, vectors = torch.linalg.eigh(own)
        noise = values.clamp(min=0).sqrt()[..., None] * vectors.mT
        model = x.new_zeros(*jacobian.shape[:2], x.shape[1])
        model[..., : self.n_params] = weight.flatten(1).sqrt()[..., None] * jacobian
        root = torch.cat([model, noise], dim=1)
        return torch.where(failed[:, None, None], torch.nan, root)

    def _residuals(self, x, sample):
        mean, jacobian, failed = self._run(x, sample)
        noise, args = self._noise_at(x, sample)
        y, seen = _rows(self._targets, sample), _rows(self._seen, sample)
        with torch.enable_grad():
            residual = noise.residual(y, mean.requires_grad_(), args)
            (slope,) = torch.autograd.grad(residual[seen.expand_as(mean)].sum(), mean)
        kept = seen & ~failed[:, None, None]
        residual = torch.where(
            kept, residual.detach(), torch.where(seen, torch.nan, 0.0)
        )
        slope = torch.where(seen, slope, 0.0).flatten(1)[..., None]
        return residual.flatten(1), slope * jacobian

    def _run_with_noise(self, x, sample):
        """Return means, Jacobians, weights, the noise's own curvature; what failed."""
        mean, jacobian, failed = self._run(x, sample)
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            noise, args = self._noise_at(x, sample)
            value = self._surprise(mean, sample, noise, args)
            by_x = None
            if value.requires_grad:
                (by_x,) = torch.autograd.grad(
                    value.sum(), x, allow_unused=True, create_graph=True
                )
            own = self._own_curvature(by_x, x)
        return mean, jacobian, self._weight(mean, sample, noise, args), own, failed

    def _run(self, x, sample):
        """Return means and Jacobians at readings, zero elsewhere; which rows failed."""
        self._count(self.n_linearized, sample)
        scaled = x[:, : self.n_params]
        mean, jacobian = self._model.linearize(scaled, *self._told(sample))
        mean = mean[:, : self._n_used].to(x.dtype)
        jacobian = jacobian[:, : self._n_used].to(x.dtype)
        seen = _rows(self._seen, sample)
        # Not measured is not simulated either: NaN times zero is NaN.
        jacobian = torch.where(seen[..., None], jacobian, 0.0).flatten(1, 2)
        failed = (seen & ~mean.isfinite()).flatten(1).any(dim=1)
        failed = failed | ~jacobian.isfinite().all(dim=2).all(dim=1)
        jacobian = torch.where(failed[:, None, None], 0.0, jacobian)
        return mean.detach(), jacobian.detach(), failed

    def _fisher(self, jacobian, weight, own):
        """Return Jᵀ W J in the corner of the params, added to what the noise has."""
        p, hessian = self.n_params, own.clone()
        weight = weight.flatten(1)[..., None]
        hessian[:, :p, :p] += jacobian.mT @ (weight * jacobian)
        return hessian

    def _weight(self, mean, sample, noise, args):
        """Return the Fisher information of each mean, zero where nothing was read."""
        with torch.no_grad():
            weight = noise.weight(mean, args)
            return torch.where(_rows(self._seen, sample), weight, 0.0)

    def _own_curvature(self, by_x, x):
        """Return the observed Hessian by what the noise depends on, made positive."""
        hessian = x.new_zeros(len(x), x.shape[1], x.shape[1])
        if by_x is None or not by_x.requires_grad:
            return hessian
        own = (by_x != 0).any(dim=0).nonzero()[:, 0].tolist()
        for j in own:
            (row,) = torch.autograd.grad(
                by_x[:, j].sum(), x, retain_graph=True, allow_unused=True
            )
            if row is not None:
                hessian[:, j] = row
        hessian = (hessian + hessian.mT) / 2
        if len(own) == 0 or not hessian.isfinite().all():
            return hessian.nan_to_num(posinf=0.0, neginf=0.0)
        values, vectors = torch.linalg.eigh(hessian[:, own][:, :, own])
        positive = (vectors * values.abs()[:, None]) @ vectors.mT
        index = torch.tensor(own, device=x.device)
        hessian[:, index[:, None], index] = positive
        return hessian

    def _surprise(self, mean, sample, noise, args):
        """Return minus the log likelihood of each row's readings."""
        y, seen = _rows(self._targets, sample), _rows(self._seen, sample)
        log_prob = torch.where(seen, noise.log_prob(y, mean, args), 0.0)
        value = -log_prob.sum(dim=(1, 2))
        if self.leverage is not None:
            # Of readings that the params follow, less is left to tell the noise by:
            # half the log determinant of the params' Hessian, its slope held fixed.
            leverage, where = (part[sample] for part in self.leverage)
            weight = noise.weight(where, args)
            share = torch.where(seen, leverage, 0.0)
            log_weight = torch.where(share > 0, weight, 1.0).log()
            value = value + 0.5 * (share * log_weight).sum(dim=(1, 2))
        failed = (seen & ~mean.isfinite()).flatten(1).any(dim=1) | value.isnan()
        return torch.where(failed, torch.inf, value)

    def _noise_at(self, x, sample):
        """Return the noise of each row's readings, model error included, and its args."""
        noise = self._noise_alone if len(self._seen) == 1 else self._noise_of(sample)
        params = x[:, : self.n_params]
        if noise.reads_params:
            params = self.prior.scaler.from_scaled_tensor(params)
        log_scale = self._log_scale(x, sample)
        return noise, noise.arguments(params, self.prior.names, log_scale=log_scale)

    @cached_property
    def _noise_alone(self):
        """The noise of a single sample, that of all rows."""
        return self._noise_of(slice(None))

    def _noise_of(self, sample):
        noise = self._noise
        if self.noise_std is not None:
            std = self.noise_std[sample, : self._n_used]
            noise = noise.with_std(std.cpu().numpy())
        return noise.with_error(self._error[sample, : self._n_used])

    def _log_scale(self, x, sample):
        """Return log scales (n_rows, n_channels) of unknown noise, else of no meaning."""
        log_scale = self._unit[sample].log()
        if len(self.unknown) == 0:
            return log_scale
        place = x.new_zeros(len(self.unknown), log_scale.shape[1])
        place[range(len(self.unknown)), self.unknown] = 1.0
        return log_scale + x[:, self.n_params :] @ place

    def _penalty(self, x):
        """Return the prior's part of value, gradient and Hessian."""
        scaled = x[:, : self.n_params].detach().cpu().numpy()
        return tuple(
            self._prior_weight * torch.as_tensor(a).to(x)
            for a in self.prior.scaled_penalty(scaled)
        )

    def _forward(self, scaled, sample):
        self._count(self.n_forward, sample)
        mean = self._model.forward(scaled, *self._told(sample))
        return mean[:, : self._n_used].to(scaled.dtype)

    def _told(self, sample):
        """Return the inputs of rows, nothing where the model has none."""
        has_inputs = self.inputs is not None and self.inputs.shape[1] > 0
        return (self.inputs[sample],) if has_inputs else ()

    @staticmethod
    def _count(counter, sample):
        counter += torch.bincount(sample.cpu(), minlength=len(counter))


def _rows(array: Tensor, sample: Tensor) -> Tensor:
    """Return what rows have of their samples; of a single sample, to be broadcast."""
    return array if len(array) == 1 else array[sample]
