"""Bilevel optimization of a local operator and params (BiLO, Algorithm 1).

The operator is trained once at the params where every search starts, then copied to
each sample and fine-tuned together with that sample's params.
"""

import contextlib
import math
from typing import NamedTuple

import torch
from scipy.optimize import minimize
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from sklearn_inverse.collocation._local_operator import LocalOperator, Solution
from sklearn_inverse.optim._soap import StackedAdam

__all__ = ["FineTuned", "fine_tune", "pretrain"]

CHECK_EVERY = 100  # steps between looks at which samples have settled
# A longer memory than the network's: with a shorter one params circle where they end,
# with AMSGrad's endless one they creep there.
PARAM_BETAS = 0.9, 0.99
MAX_MOVE = 0.01  # of the box: params that outrun the network spoil it for good
FULL_SHARE = 0.2  # params that rest at smaller steps are at rest
DAMPING = 1e-9  # of the Gauss–Newton Hessian's mean diagonal


class FineTuned(NamedTuple):
    """What fine-tuning found for each sample.

    Attributes
    ----------
    theta : Tensor of shape (n_samples, n_params)
        Unit params.

    data_loss, operator_loss : Tensor of shape (n_samples,)
        Upper and lower loss just before the last step.

    n_iter : Tensor of int of shape (n_samples,)
        Steps taken.

    settled : Tensor of bool of shape (n_samples,)
        Whether the params had come to rest.
    """

    theta: Tensor
    data_loss: Tensor
    operator_loss: Tensor
    n_iter: Tensor
    settled: Tensor


def pretrain(
    operator: LocalOperator,
    theta0: Tensor,
    solution: Solution,
    *,
    max_iter,
    w_rgrad,
    progress=None,
) -> list[Tensor]:
    """Train one network at fixed params, on the equations and a known solution.

    One small problem, free of noise: L-BFGS gets its loss a hundred times lower than
    Adam does in the same time.

    Parameters
    ----------
    operator : LocalOperator
        What is trained; take one in double precision.

    theta0 : Tensor of shape (1, n_params)
        Unit params.

    solution : Solution
        The solution at those params.

    max_iter : int
        Most iterations.

    w_rgrad : float
        Weight of the residual's gradient.

    progress : callable, default=None
        Called after every iteration as ``progress(loss)``. A KeyboardInterrupt, there
        or anywhere, ends the training with what was reached.

    Returns
    -------
    layers : list of Tensor of shape (1, n_rows, n_columns)
        The network.
    """
    tau = operator.time_scale.to_unit(solution.times)
    tau, states = (theta0.new_tensor(x) for x in (tau, solution.states))
    layers = [x.requires_grad_() for x in operator.net.initial_layers()]

    def loss_and_gradient(weights):
        load(weights)
        misfit = (operator.states(layers, tau, theta0) - states) / operator.scale
        loss = operator.operator_loss(layers, theta0, w_rgrad) + misfit.square().mean()
        gradient = torch.autograd.grad(loss.sum(), layers)
        return loss.item(), parameters_to_vector(gradient).double().cpu().numpy()

    def load(weights):
        with torch.no_grad():
            vector_to_parameters(theta0.new_tensor(weights), layers)

    reached = parameters_to_vector(layers).detach().double().cpu().numpy()

    def callback(intermediate_result):
        nonlocal reached
        reached = intermediate_result.x.copy()
        if progress is not None:
            progress(intermediate_result.fun)

    with contextlib.suppress(KeyboardInterrupt):
        minimize(
            loss_and_gradient,
            reached,
            jac=True,
            method="L-BFGS-B",
            callback=callback,
            options={"maxiter": max_iter, "maxfun": 2 * max_iter, "maxcor": 50},
        )
    load(reached)
    return [x.detach() for x in layers]


def fine_tune(
    operator: LocalOperator,
    readings: Tensor,
    weights: Tensor,
    theta0: Tensor,
    layers0: list[Tensor],
    *,
    max_iter,
    lr_net,
    lr_params,
    w_rgrad,
    prior_precision=0.0,
    max_loss=math.inf,
    tol=0.0,
    upper="gauss_newton",
    rotate=True,
    progress=None,
) -> FineTuned:
    """Fit params to readings and networks to the equations there, both at once.

    Parameters
    ----------
    operator : LocalOperator
        Gives both losses.

    readings, weights : Tensor of shape (n_samples, n_times, n_channels)
        As for :meth:`LocalOperator.data_loss`.

    theta0 : Tensor of shape (1, n_params)
        Unit params at which ``layers0`` were trained.

    layers0 : list of Tensor of shape (1, n_rows, n_columns)
        Pre-trained network.

    max_iter : int
        Most steps. Step sizes fall to zero along half a cosine.

    lr_net, lr_params : float
        Initial step sizes; for "gauss_newton" the params' is a share of the step that
        it proposes.

    w_rgrad : float
        Weight of the residual's gradient.

    prior_precision : float, default=0.0
        Of a normal prior around the middle of the box, in the upper loss.

    max_loss : float, default=inf
        Where the lower loss is above, the params go by so much less: never faster than
        the network can follow.

    tol : float, default=0.0
        A sample is done when no param moves further in a hundred steps of full size; of
        shorter ones, in proportion, but no less than a fifth.

    upper : {"gauss_newton", "adam"}, default="gauss_newton"
        How the params move.

    rotate : bool, default=True
        As for :class:`StackedAdam`.

    progress : callable, default=None
        Called as ``progress(n_done, theta, data_loss, operator_loss)`` with the samples
        that are not done, a hundred steps apart. A KeyboardInterrupt, there or anywhere,
        ends the search with what was reached.

    Returns
    -------
    result : FineTuned
        One row per sample, in the order of the readings.
    """
    search = _Search(operator, readings, weights, theta0, layers0)
    search.set_options(w_rgrad, prior_precision, max_loss)
    search.start(upper, lr_params, lr_net, rotate)
    with contextlib.suppress(KeyboardInterrupt), torch.no_grad():
        for n_done in range(1, max_iter + 1):
            share = 0.5 * (1 + math.cos(math.pi * n_done / (max_iter + 1)))
            search.step(share)
            if n_done % CHECK_EVERY == 0:
                if progress is not None:
                    progress(n_done, search.now.theta, *search.now.losses)
                if search.drop_settled(tol * max(share, FULL_SHARE)) == 0:
                    break
    search.record(settled=False)
    return search.result


class _Search:
    """Samples that are still under way, and what was found for all of them.

    Whatever moves is replaced as one tuple, never changed in place: an interrupt leaves
    the samples as they were before the step, or after it.
    """

    def __init__(self, operator, readings, weights, theta0, layers0):
        n_samples = len(readings)
        self.operator = operator
        nan = theta0.new_full((n_samples,), math.nan)
        rows = torch.arange(n_samples, device=theta0.device)
        self.now = _UnderWay(
            rows=rows,
            readings=readings,
            weights=weights,
            theta=theta0.repeat(n_samples, 1),
            layers=[x.repeat(n_samples, 1, 1) for x in layers0],
            losses=(nan, nan),
            n_done=0,
        )
        self.last_theta = self.now.theta
        self.result = FineTuned(
            self.now.theta.clone(),
            nan.clone(),
            nan.clone(),
            torch.zeros_like(rows),
            torch.zeros_like(rows, dtype=torch.bool),
        )

    def set_options(self, w_rgrad, prior_precision, max_loss):
        self.w_rgrad, self.prior_precision = w_rgrad, prior_precision
        self.max_loss = max_loss

    def start(self, upper, lr_params, lr_net, rotate):
        rules = {"gauss_newton": _GaussNewton, "adam": _Adam}
        self.upper = rules[upper](
            self.operator, self.prior_precision, self.now.theta, lr_params
        )
        self.lower = StackedAdam(self.now.layers, lr_net, rotate=rotate)

    def step(self, share):
        """Take one step of both levels, each from where both were before it."""
        now = self.now
        upper_loss, move = self.upper.step(now, share)
        with torch.enable_grad():
            layers = [x.detach().requires_grad_() for x in now.layers]
            lower_loss = self.operator.operator_loss(layers, now.theta, self.w_rgrad)
            gradients = torch.autograd.grad(lower_loss.sum(), layers)
        lower_loss = lower_loss.detach()
        moves = self.lower.moves(gradients, share)
        trust = (self.max_loss / lower_loss).clamp(max=1)[:, None]
        self.now = now._replace(
            # Clamped, not squashed: an estimate may lie on the wall and leave it again,
            # and the network never sees params that the box excludes.
            theta=(now.theta + trust * move).clamp(0, 1),
            layers=[x + dx for x, dx in zip(now.layers, moves)],
            losses=(upper_loss, lower_loss),
            n_done=now.n_done + 1,
        )

    def drop_settled(self, tol):
        """Go on with the samples that moved further than tol; return how many."""
        moving = (self.now.theta - self.last_theta).abs().amax(dim=1) > tol
        if not moving.all():
            self.record(~moving)
            self.now = self.now.keep(moving)
            self.upper.keep(moving)
            self.lower.keep(moving)
        self.last_theta = self.now.theta
        return len(self.now.rows)

    def record(self, settled):
        """Write the samples under way to the result; ``settled`` ones for good."""
        now = self.now
        found = now.theta, *now.losses, now.n_done, settled
        for everywhere, here in zip(self.result, found):
            everywhere[now.rows] = here


class _UnderWay(NamedTuple):
    """Samples under way, one per row, and the steps that they have taken."""

    rows: Tensor
    readings: Tensor
    weights: Tensor
    theta: Tensor
    layers: list[Tensor]
    losses: tuple[Tensor, Tensor]
    n_done: int

    def keep(self, rows):
        """Return some of the samples."""
        return _UnderWay(
            *(x[rows] for x in self[:4]),
            layers=[x[rows] for x in self.layers],
            losses=tuple(x[rows] for x in self.losses),
            n_done=self.n_done,
        )


class _Adam:
    """Steps of the params down the gradient of the upper loss, each of its own size."""

    def __init__(self, operator, prior_precision, theta, lr):
        self.operator, self.prior_precision = operator, prior_precision
        self.rule = StackedAdam([theta[..., None]], lr, rotate=False, betas=PARAM_BETAS)

    def step(self, now, share):
        """Return the upper loss and how to move."""
        with torch.enable_grad():
            theta = now.theta.clone().requires_grad_()
            # ∂L_dat/∂θ goes through the input θ only: the layers carry no gradient.
            loss = self.operator.data_loss(
                now.layers, theta, now.readings, now.weights, self.prior_precision
            )
            (gradient,) = torch.autograd.grad(loss.sum(), theta)
        (move,) = self.rule.moves([gradient[..., None]], share)
        return loss.detach(), move[..., 0]

    def keep(self, rows):
        self.rule.keep(rows)


class _GaussNewton:
    """Shares of the step to where the readings are met best, seen from here.

    The Jacobian goes through the network's input θ, as Adam's gradient does.
    """

    def __init__(self, operator, prior_precision, theta, lr):
        self.operator, self.prior_precision, self.lr = operator, prior_precision, lr

    def step(self, now, share):
        """Return the upper loss and how to move."""
        channels, jacobian = self.operator.linearize(now.layers, now.theta)
        misfit = (now.weights * (channels - now.readings)).flatten(1).double()
        # Weights may be 1e20: in single precision their squares overflow.
        jacobian = (now.weights[:, None] * jacobian).flatten(2).double()
        centerd = now.theta.double() - 0.5
        gradient = (jacobian @ misfit[..., None])[..., 0]
        gradient = gradient + self.prior_precision * centerd
        hessian = jacobian @ jacobian.mT
        # Against the wall, the others go on as if there were no such param.
        held = (now.theta <= 0) & (gradient > 0) | (now.theta >= 1) & (gradient < 0)
        gradient = gradient.masked_fill(held, 0.0)
        hessian = hessian.masked_fill(held[:, None] | held[..., None], 0.0)
        size = hessian.diagonal(dim1=1, dim2=2).mean(dim=1)[:, None]
        floor = self.prior_precision + (DAMPING * size).clamp(min=1e-300)
        hessian = hessian + torch.diag_embed(floor.expand_as(gradient) + held)
        move = -share * self.lr * torch.linalg.solve(hessian, gradient)
        length = move.abs().amax(dim=1, keepdim=True)
        move = move * (MAX_MOVE / length.clamp(min=1e-300)).clamp(max=1)
        n_readings = (now.weights > 0).sum(dim=(1, 2)).clamp(min=1)
        prior = self.prior_precision * centerd.square().sum(dim=1)
        loss = (misfit.square().sum(dim=1) + prior) / n_readings
        return loss.to(now.theta), move.to(now.theta)

    def keep(self, rows):
        """Nothing is remembered."""
