"""Plain gradient descent of many problems at once, with noise or without."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from sklearn_inverse.optim._optimum import Optimum
from sklearn_inverse.probability._status import InversionStatus

__all__ = ["descend", "langevin"]

LONGEST = 1.0  # way that the gradient alone may move a chain in one step
LOOK = 10  # steps after which a chain on its way looks how steep it is


def descend(
    function: Callable, start: Tensor, *, method: str, lr: float, max_iter: int
) -> Optimum:
    """Follow the gradient for a number of steps, by SGD or Adam (full gradients).

    Parameters
    ----------
    function : callable
        As for :func:`lbfgs`.

    start : Tensor of shape (n_rows, n_free)
        Where to start.

    method : {"sgd", "adam"}
        Plain gradient steps, or Adam's.

    lr : float
        Learning rate.

    max_iter : int
        Steps.

    Returns
    -------
    optimum : Optimum
        The last point, as in the paper, not the best.
    """
    x = start.clone().requires_grad_()
    rows = torch.arange(len(x), device=x.device)
    optimizer = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[method]([x], lr=lr)
    status = torch.full_like(rows, InversionStatus.MAX_ITER)
    n_iter = torch.zeros_like(rows)
    try:
        for _ in range(max_iter):
            value, x.grad = function(x.detach(), rows)
            optimizer.step()
            n_iter += 1
    except KeyboardInterrupt:
        status[:] = InversionStatus.INTERRUPTED
    value, _ = function(x.detach(), rows)
    status[~value.isfinite()] = InversionStatus.FAILED
    return Optimum(x.detach(), value, n_iter, status)


def langevin(
    function: Callable,
    start: Tensor,
    step: Callable,
    *,
    n_chains: int,
    max_iter: int,
    stride: int,
    seed: int,
) -> tuple[Tensor, Optimum]:
    r"""Follow the gradient with noise, by the Euler-Maruyama scheme.

    .. math:: x \leftarrow x - \tfrac\eta2 \nabla U(x) + \sqrt\eta\,\xi, \qquad
              \xi \sim N(0, I)

    whose stationary law tends to :math:`e^{-U}` as :math:`\eta` does to zero. A step to
    where U is not finite is not taken, unless from there.

    Parameters
    ----------
    function : callable
        As for :func:`lbfgs`: U and its gradient.

    start : Tensor of shape (n_samples * n_chains, n_free)
        Where to start; all samples share the random numbers of their chains.

    step : callable
        ``step(x)`` returns step sizes :math:`\eta` (n_samples * n_chains, 1) at points.
        In the first half of the steps, of which nothing is kept, each chain has its own,
        asked for every tenth; then all of a sample have the smallest of theirs.

    n_chains : int
        Chains of each sample.

    max_iter : int
        Steps.

    stride : int
        Of the second half of the steps, every so many-th is kept.

    seed : int
        Of the noise.

    Returns
    -------
    trail : Tensor of shape (n_points, n_rows, n_free)
        Points kept, NaN where U is not finite; the last, if Ctrl-C came before any was.

    end : Optimum
        Where the chains ended.
    """
    x, rng = start.clone(), np.random.default_rng(seed)
    rows = torch.arange(len(x), device=x.device)
    value, gradient = function(x, rows)
    status = torch.full_like(rows, InversionStatus.MAX_ITER)
    eta, trail, n_iter = step(x), [], 0
    try:
        while n_iter < max_iter:
            if n_iter == max_iter // 2:  # from here on there is a stationary law
                least = step(x).reshape(-1, n_chains).amin(dim=1)
                eta = least.repeat_interleave(n_chains)[:, None]
            elif 0 < n_iter < max_iter // 2 and n_iter % LOOK == 0:
                eta = step(x)
            drift = eta / 2 * gradient
            length = drift.norm(dim=1, keepdim=True).clamp(min=LONGEST)
            noise = torch.as_tensor(rng.standard_normal((n_chains, x.shape[1]))).to(x)
            noise = noise.repeat(len(x) // n_chains, 1)
            there = x - LONGEST / length * drift + eta.sqrt() * noise
            new_value, new_gradient = function(there, rows)
            taken = new_value.isfinite() | ~value.isfinite()
            x = torch.where(taken[:, None], there, x)
            value = torch.where(taken, new_value, value)
            gradient = torch.where(taken[:, None], new_gradient, gradient)
            n_iter += 1
            if n_iter > max_iter // 2 and (max_iter - n_iter) % stride == 0:
                trail.append(x.where(value.isfinite()[:, None], torch.nan))
    except KeyboardInterrupt:
        status[:] = InversionStatus.INTERRUPTED
    status[~value.isfinite()] = InversionStatus.FAILED
    end = Optimum(x, value, torch.full_like(rows, n_iter), status)
    return torch.stack(trail or [x]), end
