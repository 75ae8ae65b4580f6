"""BPNInverter: bilevel PINN, hypergradients by Broyden's method."""

from numbers import Integral, Real

import torch

from sklearn_inverse.collocation._bilevel import Bilevel, Search, run
from sklearn_inverse.collocation._equations import N_BATCHES
from sklearn_inverse.collocation._local_operator import LocalNetwork
from sklearn_inverse.inverse._collocated import CollocationInverter
from sklearn_inverse.utils._docs import SEARCHING, shared_docs
from sklearn_inverse.utils._sklearn import Interval

__all__ = ["BPNInverter", "broyden", "hypergradient"]


@shared_docs
class BPNInverter(CollocationInverter):
    r"""Recover params by a bilevel physics-informed network (BPN).

    A network u(x; W) that is not told the params solves the equations at these, and the
    params go down the slope of minus the log posterior J there,

    .. math::

        \frac{dJ}{d\theta} = \frac{\partial J}{\partial \theta}
        - \frac{\partial J}{\partial W} H^{-1}
        \frac{\partial^2 L}{\partial W \partial \theta}, \qquad
        H = \frac{\partial^2 L}{\partial W^2},

    by the implicit function theorem, as the weights minimize the mean square L of the
    residuals. Broyden's method solves for the inverse's product from products with H
    alone [1]_.

    Parameters
    ----------
    %(equations)s

    n_lower, n_broyden : int, default=64, 32
        Steps of the weights, and products with H, for each step of the params.

    pretrain_iter : int, default=500
        Iterations at the start, on the exact solution there.

    max_iter : int, default=100
        Steps of the params.

    lr : float, default=1e-3
        Initial step size of the weights, by Adam; it falls along half a cosine.

    lr_params : float, default=1e-2
        That of the scaled params.

    %(searching)s

    Attributes
    ----------
    %(model_)s

    %(pretrained_)s

    %(n_iter_)s

    %(n_features_in_)s

    See Also
    --------
    BiLOInverter : Tells the network the params, and needs no hypergradient.

    References
    ----------
    .. [1] Hao et al., "Bi-level physics-informed neural networks for PDE constrained
       optimization using Broyden's hypergradients", 2023, Algorithms 1 and 2.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_inverse.baselines import BPNInverter
    >>> from sklearn_inverse.problems import boundary_values
    >>> measured = [np.linspace(0, 1, 64) ** 2]
    >>> inverter = BPNInverter(boundary_values(), start=[1, 2], random_state=0)
    >>> inverter.set_params(network__width=8, pretrain_iter=60, n_lower=4, n_broyden=8)
    ... # doctest: +ELLIPSIS
    BPNInverter(...)
    >>> bool(np.abs(inverter.fit(measured).predict(measured) - [0, 1]).max() < 0.05)
    True
    """

    _parameter_constraints: dict = SEARCHING | {
        "model": "no_validation",
        "start": ["array-like", None],
        "network": [LocalNetwork, None],
        "n_lower": [Interval(Integral, 1, None, closed="left")],
        "n_broyden": [Interval(Integral, 1, None, closed="left")],
        "pretrain_iter": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "lr_params": [Interval(Real, 0, None, closed="neither")],
    }
    _option_types = {"network": LocalNetwork}
    _ends_by_converging = False

    def __init__(
        self,
        model=None,
        *,
        start=None,
        network=None,
        n_lower=64,
        n_broyden=32,
        pretrain_iter=500,
        max_iter=100,
        lr=1e-3,
        lr_params=1e-2,
        prior="model",
        chunk_size=64,
        n_jobs=None,
        device="auto",
        random_state=None,
        verbose=0,
    ):
        self.model = model
        self.start = start
        self.network = network
        self.n_lower = n_lower
        self.n_broyden = n_broyden
        self.pretrain_iter = pretrain_iter
        self.max_iter = max_iter
        self.lr = lr
        self.lr_params = lr_params
        self.prior = prior
        self.chunk_size = chunk_size
        self.n_jobs = n_jobs
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def _tune(self, upper, start, layers):
        descent = Bilevel(
            "adam",
            lr_params=self.lr_params,
            optimizer="adam",
            lr_net=self.lr,
            max_iter=self.max_iter,
            tol=0.0,
        )
        search = _Implicit(self._operator, upper, start, layers, descent, 0.0)
        search.n_lower, search.n_broyden = self.n_lower, self.n_broyden
        return run(search, descent), self.max_iter


class _Implicit(Search):
    """Many steps of the networks, then one of the params."""

    n_lower: int
    n_broyden: int

    def step(self, share):
        """Take one step of the params."""
        for _ in range(self.n_lower):
            layers, loss = self.lowered(share)
            self.now = self.now._replace(layers=layers)
        now, objective, p = self.now, self.objective, self.objective.n_params

        def upper(x, layers):
            objective.model.layers = layers
            return objective.likelihood(x, now.rows)[0]

        def lower(x, layers):
            theta, batch = x[:, :p].to(layers[0]), now.n_done % N_BATCHES
            return self.operator.operator_loss(layers, theta, 0.0, batch)

        gradient = hypergradient(upper, lower, now.x, layers, self.n_broyden)
        gradient[:, :p] += objective.prior_slope(now.x)[:, :p]
        (move,) = self.upper.rule.moves([gradient[..., None]], share)
        self.go_on(move[..., 0], loss, layers)


def hypergradient(upper, lower, x, weights, n_broyden):
    """Return the slope by x of an upper loss whose weights minimize a lower one.

    Both are called as ``upper(x, weights)``, one row per sample of x and of each weight,
    and return a loss (n_samples,).
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        weights = [w.detach().requires_grad_() for w in weights]
        direct, *by_weights = torch.autograd.grad(
            upper(x, weights).sum(), [x, *weights], materialize_grads=True
        )
        loss = lower(x, weights).sum()
        slope = _flat(torch.autograd.grad(loss, weights, create_graph=True))

        def product(v):
            return _flat(torch.autograd.grad(slope, weights, v, retain_graph=True))

        z = broyden(product, _flat(by_weights), n_broyden)
        (cross,) = torch.autograd.grad(slope, x, z, materialize_grads=True)
    return direct - cross


def broyden(product, b, n_iter):
    """Solve H z = b for rows (n_samples, n), each with an H of its own.

    ``product(v)`` is H v. Each step is a product and an update of rank one of the inverse;
    of all of them those with the smallest residuals are returned.
    """
    first = product(b)
    scale = _ratio(_dot(b, first), _dot(first, first))  # of the inverse at first
    z, off, pairs = scale * b, scale * first - b, []
    best, least = z, _dot(off, off)
    for _ in range(n_iter):
        step = -scale * off - sum(u * _dot(v, off) for u, v in pairs)
        change = product(step)
        z, off = z + step, off + change
        back = scale * change + sum(u * _dot(v, change) for u, v in pairs)
        left = scale * step + sum(v * _dot(u, step) for u, v in pairs)
        pairs.append((_ratio(step - back, _dot(left, change)), left))
        size = _dot(off, off)
        best = torch.where(size < least, z, best)
        least = torch.minimum(size, least)
    return best


def _dot(a, b):
    return (a * b).sum(dim=1, keepdim=True)


def _ratio(a, b):
    """Divide, to zero where there is nothing to divide by."""
    return torch.where(b == 0, 0.0, a / b)


def _flat(parts):
    return torch.cat([part.flatten(1) for part in parts], dim=1)
