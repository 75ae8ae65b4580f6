"""Plain gradient descent of many problems at once, as the papers do it."""

from collections.abc import Callable

import torch
from torch import Tensor

from sklearn_inverse.optim._optimum import Optimum
from sklearn_inverse.probability._status import InversionStatus

__all__ = ["descend"]


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
