"""The searches of joint optimization: a network over all samples, a learned surrogate.

Both end in a guess for each sample, which is then refined within short reach.
"""

import copy
from typing import NamedTuple

import torch
from torch import Tensor

from sklearn_inverse.inverse._gradient import TanhBox
from sklearn_inverse.utils._parallel import progress_bar

__all__ = ["AdjointMisfit", "Guess", "reach", "train_jointly"]

RISE = 1.5  # times the lowest joint loss: a clear rise
PATIENCE = 30  # joint iterations without a lower loss before the rate is lowered
LOWEST_RATE = 0.01  # of the first learning rate: when joint training is stable


class Guess(NamedTuple):
    """What a network proposes for each sample, before any refinement.

    Parameters
    ----------
    unit : Tensor of shape (n_samples, n_params)
        Unit params.

    first : Tensor of shape (n_samples, n_params)
        Those that the method set out from.

    n_iter : int or Tensor of shape (n_samples,)
        Iterations so far.

    interrupted : bool
        Whether Ctrl-C came in between.
    """

    unit: Tensor
    first: Tensor
    n_iter: int | Tensor
    interrupted: bool


def train_jointly(network, inputs, objective, *, lr, max_iter, verbose=0) -> Guess:
    r"""Minimize :math:`\sum_i \Phi_i(N(y_i; \theta))` by Adam, full batch.

    Whenever the loss rises clearly, or stops to fall, training goes back to the best
    weights and halves the learning rate, until that is stable at a hundredth of the
    first. Samples whose simulation failed have no part in loss and gradient.

    Parameters
    ----------
    network : nn.Module
        Is trained.

    inputs : tuple of Tensor
        What the network maps to unit params.

    objective : Objective
        The objective of each sample.

    lr : float
        First learning rate.

    max_iter : int
        Most iterations.

    verbose : int, default=0
        Whether to show a progress bar.

    Returns
    -------
    guess : Guess
        The best params that each sample passed on the way.
    """
    sample = torch.arange(len(inputs[0]), device=inputs[0].device)
    with torch.no_grad():
        first = network(*inputs).double()
    unit, lowest = first.clone(), torch.full_like(first[:, 0], torch.inf)
    kept, reference = copy.deepcopy(network.state_dict()), lowest
    rate, stale, n_iter = lr, 0, 0
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    try:
        for _ in progress_bar(
            range(max_iter), verbose=verbose, desc="Joint training", unit="step"
        ):
            proposed = network(*inputs)
            value, gradient = objective.gradient(proposed.detach().double(), sample)
            better = value < lowest
            unit[better] = proposed.detach().double()[better]
            lowest = value.fmin(lowest)
            n_iter, stale = n_iter + 1, stale + 1
            ratio = loss_ratio(value, reference)
            if ratio < 1 - 1e-4:
                kept, reference = copy.deepcopy(network.state_dict()), value
                stale = 0
            if ratio > RISE or stale > PATIENCE:
                rate, stale = rate / 2, 0
                if rate < LOWEST_RATE * lr:
                    break
                network.load_state_dict(kept)
                optimizer = torch.optim.Adam(network.parameters(), lr=rate)
                continue
            optimizer.zero_grad()
            proposed.backward(gradient.to(proposed) / len(sample))
            optimizer.step()
    except KeyboardInterrupt:
        return Guess(unit, first, n_iter, True)
    return Guess(unit, first, n_iter, False)


def loss_ratio(value, reference):
    """Return the loss over that of the best weights, where both could be simulated."""
    finite = value.isfinite()
    both = finite & reference.isfinite()
    if not both.any():
        return 0.0 if finite.any() else torch.inf
    return float(value[both].sum() / reference[both].sum())


class AdjointMisfit:
    r"""Misfit of a learned surrogate S, with walls around the box it was trained in.

    .. math:: \operatorname{mean}\,(S(u) - y)^2
              + \textstyle\sum \mathrm{relu}(|u - \tfrac12| - \tfrac12)

    Parameters
    ----------
    module : nn.Module
        Unit params to standardized readings.

    readings, mask : Tensor of shape (n_samples, n_times, n_channels)
        Standardized readings and 1 where they were made.

    sample : Tensor of shape (n_rows,)
        Which sample each row belongs to.
    """

    def __init__(self, module, readings, mask, sample):
        self.module, self.sample = module, sample
        self.readings = readings
        self.weights = mask / mask.sum(dim=(1, 2), keepdim=True)

    def __call__(self, unit, rows):
        """Return value and gradient of the problems at ``rows``."""
        sample = self.sample[rows]
        with torch.enable_grad():
            unit = unit.detach().requires_grad_()
            off = self.module(unit) - self.readings[sample]
            misfit = (off.square() * self.weights[sample]).sum(dim=(1, 2))
            value = misfit + ((unit - 0.5).abs() - 0.5).relu().sum(dim=1)
            (gradient,) = torch.autograd.grad(value.sum(), unit)
        return value.detach(), gradient


def reach(zeta, rows, *, longest):
    """Return the box around points that steps of ``longest`` unit params can reach."""
    unit = TanhBox.unit(zeta)
    # Walls of the unit box are infinitely far on this scale.
    return tuple(
        (2 * (unit + step) - 1).clamp(-1, 1).atanh()
        for step in (-longest[rows], longest[rows])
    )
