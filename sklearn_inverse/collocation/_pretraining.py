"""Training of the one network that every search starts from."""

import contextlib

import torch
from scipy.optimize import minimize
from torch import Tensor
from torch.nn.utils import parameters_to_vector

from sklearn_inverse.collocation._bilevel import LR_NET, half_cosine
from sklearn_inverse.collocation._equations import N_BATCHES, Solution
from sklearn_inverse.collocation._local_operator import LocalOperator
from sklearn_inverse.optim._soap import StackedAdam

__all__ = ["pretrain"]


def pretrain(
    operator: LocalOperator,
    theta0: Tensor,
    solution: Solution,
    *,
    max_iter,
    gradient_weight,
    progress=None,
) -> list[Tensor]:
    """Train one network at fixed params, on the equations and a known solution.

    One small problem, free of noise: by L-BFGS in time alone, and by SOAP in space, where
    points are drawn anew at every step.

    Parameters
    ----------
    operator : LocalOperator
        What is trained; take one in double precision.

    theta0 : Tensor of shape (1, n_params)
        Scaled params.

    solution : Solution
        The solution at those params.

    max_iter : int
        Most iterations.

    gradient_weight : float
        Weight of the residual's gradient.

    progress : callable, default=None
        Called after every iteration as ``progress(loss)``. A KeyboardInterrupt, there
        or anywhere, ends the training with what was reached.

    Returns
    -------
    layers : list of Tensor of shape (1, n_rows, n_columns)
        The network.
    """
    values = theta0.new_tensor(solution.values)
    layers = operator.net.initial_layers()

    def loss_and_gradients(layers, batch):
        layers = [x.detach().requires_grad_() for x in layers]
        found = operator.solution(layers, solution.unit, theta0)
        loss = operator.operator_loss(layers, theta0, gradient_weight, batch)
        loss = loss + ((found - values) / operator.scale).square().mean()
        return loss.item(), torch.autograd.grad(loss.sum(), layers)

    def tell(loss):
        if progress is not None:
            progress(loss)

    train = _by_soap if operator.equations.is_resampled else _by_lbfgs
    return train(loss_and_gradients, layers, max_iter, tell)


def _by_lbfgs(loss_and_gradients, layers, max_iter, tell):
    """Train on the same points throughout."""
    reached = list(layers)

    def unpack(weights):
        parts = layers[0].new_tensor(weights).split([x.numel() for x in layers])
        return [part.view(x.shape) for part, x in zip(parts, layers)]

    def value(weights):
        loss, gradients = loss_and_gradients(unpack(weights), 0)
        flat = torch.cat([part.flatten() for part in gradients])
        return loss, flat.double().cpu().numpy()

    def callback(intermediate_result):
        reached[:] = unpack(intermediate_result.x)
        tell(intermediate_result.fun)

    with contextlib.suppress(KeyboardInterrupt):
        minimize(
            value,
            parameters_to_vector(layers).double().cpu().numpy(),
            jac=True,
            method="L-BFGS-B",
            callback=callback,
            options={"maxiter": max_iter, "maxfun": 2 * max_iter, "maxcor": 50},
        )
    return reached


def _by_soap(loss_and_gradients, layers, max_iter, tell):
    """Train on other points at every step."""
    rule = StackedAdam(layers, LR_NET["soap"])
    with contextlib.suppress(KeyboardInterrupt):
        for i in range(max_iter):
            loss, gradients = loss_and_gradients(layers, i % N_BATCHES)
            moves = rule.moves(gradients, half_cosine(i / max_iter))
            layers = [x + dx for x, dx in zip(layers, moves)]
            tell(loss)
    return layers
