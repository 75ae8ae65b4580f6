"""Bilevel optimization of a local operator and params (BiLO, Algorithm 1).

The operator is trained once at the params where every search starts, then copied to
each sample and fine-tuned together with that sample's params.
"""

import contextlib
import math
from numbers import Integral, Real
from typing import Any, NamedTuple

import torch
from sklearn.base import BaseEstimator
from torch import Tensor

from sklearn_inverse.collocation._equations import N_BATCHES
from sklearn_inverse.collocation._local_operator import LocalOperator
from sklearn_inverse.optim._levenberg_marquardt import damped_step, inside
from sklearn_inverse.optim._soap import StackedAdam
from sklearn_inverse.utils._sklearn import Interval, StrOptions

__all__ = ["Bilevel", "FineTuned", "Search", "fine_tune", "fit_jointly", "run"]

CHECK_EVERY = 100  # steps between looks at which samples have settled
# A longer memory than the network's: with a shorter one params circle where they end,
# with AMSGrad's endless one they creep there.
PARAM_BETAS = 0.9, 0.99
MAX_MOVE = (
    0.01  # of the prior's range: params that outrun the network spoil it for good
)
NOISE_SHARE, MAX_MOVE_NOISE = 0.5, 0.1  # for what only the noise uses: none follows
FULL_SHARE = 0.2  # params that rest at smaller steps are at rest
DAMPING = 1e-9  # of the Hessian's diagonal
LR_PARAMS = {"gauss_newton": 0.1, "adam": 3e-3}
N_SHARES, MAX_LR = 20, 0.5  # sum of the shares at full size, and the largest
LR_NET = {"soap": 1e-2, "adam": 1e-3}
IN_SPACE = 0.2  # of the weights' step size there, as points differ at every step


class Bilevel(BaseEstimator):
    """How params and networks move, both at once.

    Parameters
    ----------
    params_optimizer : {"gauss_newton", "adam"}, default="gauss_newton"
        How the params move. "gauss_newton" knows which of them trade off, from the
        network's derivatives by all of them; it moves none by more than 0.01 of the
        prior's range per step. "adam", by the gradient alone, is the paper's.

    lr_params : float, default=None
        Initial step size of the params: a share of the step to where the readings are
        met best ("gauss_newton"), or a step of scaled params ("adam"). If None, 0.1, and
        ``20 / max_iter`` up to 0.5 in searches of less than 200 steps, or 3e-3. Params
        that outrun the network spoil it for good.

    optimizer : {"soap", "adam"}, default="soap"
        How the weights move. "adam" is the paper's, with AMSGrad. "soap" is Adam in the
        eigenbasis of the gradients' mean squares: it reaches far lower residuals in as
        many steps.

    lr_net : float, default=None
        Initial step size of the weights. If None, 1e-2 for "soap" and 1e-3 for "adam", in
        space a fifth of it. Both step sizes fall to zero along half a cosine.

    lower_tol : float, default=None
        While a sample's lower loss is above, its params slow down in proportion; in space,
        where no functions are unknown, by its third power. ``inf`` lets them run. If None,
        0.01, and 0.001 in space, or what it is at the start if that is more.

    max_iter : int, default=2000
        Most steps.

    tol : float, default=3e-4
        A sample is done when no scaled param moves further in a hundred steps of full
        size; while step sizes fall, so does ``tol``, to a fifth.

    Examples
    --------
    >>> from sklearn_inverse.collocation import Bilevel
    >>> Bilevel(params_optimizer="adam", optimizer="adam")  # as in the paper
    Bilevel(optimizer='adam', params_optimizer='adam')
    """

    _parameter_constraints: dict = {
        "params_optimizer": [StrOptions({"gauss_newton", "adam"})],
        "lr_params": [Interval(Real, 0, None, closed="neither"), None],
        "optimizer": [StrOptions({"soap", "adam"})],
        "lr_net": [Interval(Real, 0, None, closed="neither"), None],
        "lower_tol": [Interval(Real, 0, None, closed="neither"), None],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(
        self,
        params_optimizer="gauss_newton",
        lr_params=None,
        optimizer="soap",
        lr_net=None,
        lower_tol=None,
        max_iter=2000,
        tol=3e-4,
    ):
        self.params_optimizer = params_optimizer
        self.lr_params = lr_params
        self.optimizer = optimizer
        self.lr_net = lr_net
        self.lower_tol = lower_tol
        self.max_iter = max_iter
        self.tol = tol


class FineTuned(NamedTuple):
    """What fine-tuning found for each sample.

    Attributes
    ----------
    x : Tensor of shape (n_samples, n_free)
        Scaled params, and whatever else the objective has for coordinates.

    loss : Tensor of shape (n_samples,)
        Lower loss just before the last step.

    n_iter : Tensor of int of shape (n_samples,)
        Steps taken.

    settled : Tensor of bool of shape (n_samples,)
        Whether the params had come to rest.

    layers : list of Tensor of shape (n_samples, n_rows, n_columns)
        The networks.
    """

    x: Tensor
    loss: Tensor
    n_iter: Tensor
    settled: Tensor
    layers: list[Tensor]


def half_cosine(done: float) -> float:
    """Return the share of a step size that is left when so much is done."""
    return 0.5 * (1 + math.cos(math.pi * done))


def fine_tune(
    operator: LocalOperator,
    objective: Any,
    start: Tensor,
    layers0: list[Tensor],
    descent: Bilevel,
    *,
    gradient_weight,
) -> FineTuned:
    """Fit params to readings and networks to the equations there, both at once.

    Parameters
    ----------
    operator : LocalOperator
        Gives the lower loss.

    objective : object
        Gives the upper loss: ``linearize(x, sample) -> (value, gradient, hessian)`` or
        ``gradient(x, sample) -> (value, gradient)``, through the networks whose weights
        it finds in ``model.layers``; ``low``, ``high``, ``is_open`` bound the
        coordinates, of which the first ``n_params`` are scaled params.

    start : Tensor of shape (n_samples, n_free)
        Coordinates, with the params at which ``layers0`` were trained; in double
        precision, whatever that of the networks.

    layers0 : list of Tensor of shape (1, n_rows, n_columns)
        Pre-trained network.

    descent : Bilevel
        How to move. A KeyboardInterrupt ends the search with what was reached.

    gradient_weight : float
        Weight of the residual's gradient.

    Returns
    -------
    result : FineTuned
        One row per sample.
    """
    return run(
        Search(operator, objective, start, layers0, descent, gradient_weight), descent
    )


def fit_jointly(
    operator: LocalOperator,
    objective: Any,
    start: Tensor,
    layers0: list[Tensor],
    descent: Bilevel,
    *,
    data_weight,
) -> FineTuned:
    r"""Fit params and networks to one sum of residuals and misfit, as a PINN does.

    .. math:: \overline{|r|^2} + w \, \overline{|u - d|^2}

    with residuals over their size, misfits over the solution's, and minus the log prior
    in proportion to minus the log likelihood.

    Parameters
    ----------
    operator, objective, start, layers0, descent : object
        As of :func:`fine_tune`.

    data_weight : float
        The weight w.

    Returns
    -------
    result : FineTuned
        One row per sample; its loss is the mean square of the residuals.
    """
    return run(
        _Jointly(operator, objective, start, layers0, descent, data_weight), descent
    )


def run(search, descent) -> FineTuned:
    """Step on until all samples have settled, and return what was found."""
    max_iter, tol = descent.max_iter, descent.tol
    with contextlib.suppress(KeyboardInterrupt), torch.no_grad():
        for n_done in range(1, max_iter + 1):
            share = half_cosine(n_done / (max_iter + 1))
            search.step(share)
            is_look = n_done % CHECK_EVERY == 0
            if is_look and search.drop_settled(tol * max(share, FULL_SHARE)) == 0:
                break
    search.record(settled=False)
    return search.result


class _UnderWay(NamedTuple):
    """Samples under way, one per row, and the steps that they have taken."""

    rows: Tensor
    x: Tensor
    loss: Tensor
    layers: list[Tensor]
    n_done: int


class Search:
    """Samples that are still under way, and what was found for all of them.

    Whatever moves is replaced as one tuple, never changed in place: an interrupt leaves
    the samples as they were before the step, or after it.
    """

    def __init__(self, operator, objective, start, layers0, descent, gradient_weight):
        self.operator, self.objective = operator, objective
        self.max_loss, self.gradient_weight = descent.lower_tol, gradient_weight
        rows = torch.arange(len(start), device=start.device)
        loss = torch.full_like(start[:, 0], math.nan)
        layers = [layer.repeat(len(start), 1, 1) for layer in layers0]
        self.now = _UnderWay(rows, start, loss, layers, 0)
        self.last_x = start
        self.trust = torch.ones_like(loss)  # the least since the last look
        zeros = torch.zeros_like(rows)
        self.result = FineTuned(
            start.clone(),
            loss.clone(),
            zeros,
            zeros.bool(),
            [x.clone() for x in layers],
        )
        kind, lr = descent.params_optimizer, descent.lr_params
        rule = _GaussNewton if kind == "gauss_newton" else _Adam
        if lr is None:
            lr = LR_PARAMS[kind]
            if kind == "gauss_newton":  # however short the search, it is to get there
                lr = min(max(lr, N_SHARES / descent.max_iter), MAX_LR)
        self.upper = rule(objective, start, lr, operator.idle)
        kind, lr = descent.optimizer, descent.lr_net
        if lr is None:
            lr = LR_NET[kind] * (IN_SPACE if operator.equations.is_resampled else 1)
        self.lower = StackedAdam(layers, lr, rotate=kind == "soap")

    def step(self, share):
        """Take one step of both levels, each from where both were before it."""
        now, objective = self.now, self.objective
        objective.model.layers = now.layers
        move = self.upper.move(now.x, now.rows, share)
        layers, loss = self.lowered(share)
        if self.max_loss is None:  # no less than where it was trained
            least = 1e-3 if self.operator.equations.is_resampled else 1e-2
            self.max_loss = max(least, loss.max().item())
        equations = self.operator.equations
        # Of functions networks never learn all directions: their values must not wait.
        patience = 3 if equations.is_resampled and not equations.functions else 1
        trust = (self.max_loss / loss).clamp(max=1) ** patience
        self.trust = self.trust.minimum(trust)
        self.go_on(trust[:, None] * move, loss, layers)

    def lowered(self, share):
        """Return the networks after one step of the lower level, and its loss before."""
        now, p = self.now, self.objective.n_params
        theta = now.x[:, :p].to(now.layers[0])
        with torch.enable_grad():
            layers = [x.detach().requires_grad_() for x in now.layers]
            loss = self.operator.operator_loss(
                layers, theta, self.gradient_weight, now.n_done % N_BATCHES
            )
            gradients = torch.autograd.grad(loss.sum(), layers)
        moves = self.lower.moves(gradients, share)
        return [x + dx for x, dx in zip(now.layers, moves)], loss.detach().double()

    def go_on(self, move, loss, layers):
        """Take what one step moves; a network that has diverged moves no params."""
        # Cut, not squashed: an estimate may lie on a bound and leave it again, and the
        # network never sees params that the prior excludes.
        x = inside(self.now.x, move.nan_to_num(0.0, 0.0, 0.0), self.objective)
        self.now = _UnderWay(self.now.rows, x, loss, layers, self.now.n_done + 1)

    def drop_settled(self, tol):
        """Go on with the samples that moved further than tol; return how many."""
        now = self.now
        moved = (now.x - self.last_x)[:, : self.objective.n_params].abs().amax(dim=1)
        moving = moved > tol * self.trust  # what waits is not at rest
        if not moving.all():
            # A network that has diverged leaves its params where they are.
            self.record(~moving & now.loss.isfinite())
            rows, x, loss = (part[moving] for part in now[:3])
            layers = [layer[moving] for layer in now.layers]
            self.now = _UnderWay(rows, x, loss, layers, now.n_done)
            self.upper.keep(moving)
            self.lower.keep(moving)
        self.last_x, self.trust = self.now.x, torch.ones_like(self.now.loss)
        return len(self.now.rows)

    def record(self, settled):
        """Write the samples under way to the result; ``settled`` ones for good."""
        now, result = self.now, self.result
        pairs = [*zip(result, (now.x, now.loss, now.n_done, settled))]
        for everywhere, here in [*pairs, *zip(result.layers, now.layers)]:
            everywhere[now.rows] = here


class _Jointly(Search):
    """Params and networks go down one loss."""

    def __init__(self, operator, objective, start, layers0, descent, data_weight):
        super().__init__(operator, objective, start, layers0, descent, 0.0)
        self.data_weight = data_weight

    def step(self, share):
        """Take one step."""
        now, objective = self.now, self.objective
        p = objective.n_params
        with torch.enable_grad():
            layers = [x.detach().requires_grad_() for x in now.layers]
            x = now.x.detach().requires_grad_()
            objective.model.layers = layers
            theta = x[:, :p].to(layers[0])
            batch = now.n_done % N_BATCHES
            loss = self.operator.operator_loss(layers, theta, 0.0, batch)
            misfit, precision = objective.likelihood(x, now.rows)
            size = self.operator.scale.double().square().mean()
            weight = self.data_weight * 2 / (size * precision.detach())
            total = loss.double() + weight * misfit
            by_x, *by_layers = torch.autograd.grad(total.sum(), [x, *layers])
        by_x[:, :p] += weight[:, None] * objective.prior_slope(x.detach())[:, :p]
        moves = self.lower.moves(by_layers, share)
        (move,) = self.upper.rule.moves([by_x[..., None]], share)
        layers = [x + dx for x, dx in zip(now.layers, moves)]
        self.go_on(move[..., 0], loss.detach().double(), layers)


class _Adam:
    """Steps of the params down the gradient of the upper loss, each of its own size."""

    def __init__(self, objective, x, lr, idle):
        self.objective = objective
        self.rule = StackedAdam([x[..., None]], lr, rotate=False, betas=PARAM_BETAS)

    def move(self, x, rows, share):
        # dL/dθ goes through the network's input θ only: its weights carry no gradient.
        _, gradient = self.objective.gradient(x, rows)
        (move,) = self.rule.moves([gradient[..., None]], share)
        return move[..., 0]

    def keep(self, rows):
        self.rule.keep(rows)


class _GaussNewton:
    """Shares of the step to where the readings are met best, seen from here.

    The Jacobian goes through the network's input θ, as Adam's gradient does.
    """

    def __init__(self, objective, x, lr, idle):
        n_scales = x.shape[1] - len(idle)
        self.objective = objective
        self.is_noise = torch.cat([idle, idle.new_ones(n_scales)])
        self.share = torch.where(self.is_noise, max(lr, NOISE_SHARE), lr)

    def move(self, x, rows, share):
        objective = self.objective
        _, gradient, hessian = objective.linearize(x, rows)
        # Against a bound, the others go on as if there were no such param.
        held = (x <= objective.low) & (gradient > 0)
        held |= (x >= objective.high) & (gradient < 0)
        damping = torch.full_like(gradient[:, 0], DAMPING)
        move = share * self.share * damped_step(gradient, hessian, held, damping)
        length = move.abs().masked_fill(self.is_noise, 0.0).amax(dim=1, keepdim=True)
        slow = move * (MAX_MOVE / length.clamp(min=1e-300)).clamp(max=1)
        fast = move.clamp(-MAX_MOVE_NOISE, MAX_MOVE_NOISE)
        return torch.where(self.is_noise, fast, slow)

    def keep(self, rows):
        """Nothing is remembered."""
