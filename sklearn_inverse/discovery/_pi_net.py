"""The paper's polynomial network, trained through the same implicit steps by gradients."""

from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from sklearn_inverse.discovery._fit import Learning, misfit
from sklearn_inverse.discovery._rhs import Dictionary, Monomials, RightHandSide
from sklearn_inverse.discovery._runs import Shots, largest_of

__all__ = ["PiNet", "learn_pi_net"]

LR = 1e-2  # of Adam, at its largest
GRADIENTS = 10  # of Adam, and again of L-BFGS, for one that `max_iter` allows
GAIN = 1e-15  # relative, at which L-BFGS stops


class PiNet(torch.nn.Module):
    r"""Polynomials as products of linear maps of states in units of their size.

    :math:`x_1 = U_1 z + b_1`, :math:`x_n = (U_n z + b_n) x_{n-1} + x_{n-1}` elementwise,
    and :math:`f = C x_N + \beta` in units of the slopes. ``width`` is that of the x.
    """

    def __init__(self, size, slope, degree, width):
        super().__init__()
        d, options = len(size), {"dtype": torch.float64}
        maps = [torch.nn.Linear(d, width, **options) for _ in range(degree)]
        self.maps = torch.nn.ModuleList(maps)
        self.last = torch.nn.Linear(width, d, **options)
        self.register_buffer("size", torch.as_tensor(size))
        self.register_buffer("slope", torch.as_tensor(slope))

    def forward(self, y):
        """Return right-hand sides (n, n_states) at states (n, n_states)."""
        first, *others = (layer(y / self.size) for layer in self.maps)
        for factor in others:
            first = factor * first + first
        return self.last(first) * self.slope

    def expand(self, monomials):
        """Return the same as coefficients (n_states, n_terms) of monomials."""
        exponents = [tuple(row) for row in monomials.exponents.tolist()]
        place = {row: i for i, row in enumerate(exponents)}
        n, d = monomials.exponents.shape
        # Each monomial times each state, and times 1; none is beyond the degree.
        times = self.size.new_zeros(d + 1, n, n)
        times[d] = torch.eye(n)
        for i, row in enumerate(exponents):
            for j in range(d):
                more = tuple(power + (k == j) for k, power in enumerate(row))
                if more in place:
                    times[j, i, place[more]] = 1.0
        x = self.size.new_zeros(1, n)
        x[0, 0] = 1.0
        for i, layer in enumerate(self.maps):
            factor = torch.cat([layer.weight, layer.bias[:, None] + (i > 0)], dim=1)
            x = torch.einsum("hj,ht,jts->hs", factor, x.expand(len(factor), n), times)
        x = self.last.weight @ x
        x[:, 0] = x[:, 0] + self.last.bias
        unit = (self.size ** torch.as_tensor(monomials.exponents)).prod(dim=1)
        return x * self.slope[:, None] / unit


class Steps(torch.autograd.Function):
    """What implicit steps with coefficients miss: the mean of the weighted squares."""

    @staticmethod
    def forward(ctx, coef, problem):
        """Take all steps."""
        point = problem.at(coef.detach().numpy().ravel())
        n_rows, slope = (problem.weights > 0).sum(), problem.gradient(point)
        ctx.slope = torch.from_numpy(slope).view_as(coef) / n_rows
        return coef.new_tensor(point.cost / n_rows)

    @staticmethod
    def backward(ctx, pulled):
        """Return derivatives by the implicit function theorem."""
        return pulled * ctx.slope, None


class Missed(torch.nn.Module):
    """A network, called for what its steps miss: skorch asks for something to call."""

    def __init__(self, net, problem):
        super().__init__()
        self.net, self.problem = net, problem

    def forward(self, x=None):
        """Return that, whatever x."""
        return Steps.apply(self.net.expand(self.problem.model.monomials), self.problem)


class Mean(torch.nn.Module):
    """A loss that was made already."""

    def forward(self, prediction, target):
        """Return it."""
        return prediction


class LearnedPiNet(NamedTuple):
    """What :func:`learn_pi_net` returns."""

    net: PiNet
    monomials: Monomials
    rhs: RightHandSide
    misfit: float
    n_iter: int
    n_failed: int
    n_steps: int
    converged: bool
    is_choice: bool = False


def learn_pi_net(runs, monomials, *, a, substeps, noise, known, seed, max_iter):
    """Return the network that leads from point to point, and its coefficients."""
    from sklearn_inverse.networks._training import fit_net

    d, n_terms = monomials.exponents.shape[1], len(monomials.names)
    model = Dictionary(monomials, [np.eye(n_terms)] * d, known)
    shots = Shots.of(runs)
    change = abs(shots.paths[:, 0] - shots.start)
    largest, slope = change.max(axis=0), (change / shots.steps[:, :1]).max(axis=0)
    largest, slope = (np.where(size > 0, size, 1.0) for size in (largest, slope))
    # Exact data first as in the paper: weights of each change would lead Adam astray.
    stages = [largest, None] if noise is None else [noise]
    problems = [Learning.of(runs, model, a, substeps, sd) for sd in stages]

    def make():
        degree = monomials.exponents.sum(axis=1).max()
        return Missed(PiNet(largest_of(runs), slope, degree, n_terms), problems[0])

    n = GRADIENTS * max_iter
    nothing = torch.zeros(1)
    trained = fit_net(
        make,
        Mean,
        lambda dataset, training: [(nothing, nothing)],
        torch.utils.data.TensorDataset(nothing, nothing),
        None,
        lr=LR,
        max_epochs=n,
        n_batches=1,
        patience=None,
        callbacks=None,
        verbose=0,
        desc="Training of the network",
        seed=seed,
        device="cpu",
    )
    missed = trained.module_
    params = list(missed.parameters())

    def value(x):
        vector_to_parameters(torch.from_numpy(x), params)
        loss = missed() / unit
        gradients = [g.contiguous() for g in torch.autograd.grad(loss, params)]
        return loss.item(), parameters_to_vector(gradients).numpy()

    options = {"maxiter": n, "maxfun": n, "maxcor": 50, "ftol": GAIN, "gtol": 0.0}
    x, n_iter = parameters_to_vector(params).detach().numpy(), n
    for missed.problem in problems:
        unit = missed().item() or 1.0
        found = minimize(value, x, jac=True, method="L-BFGS-B", options=options)
        x, n_iter = found.x, n_iter + found.nfev
        vector_to_parameters(torch.from_numpy(x), params)
    with torch.no_grad():
        coef = missed.net.expand(monomials).numpy()
    problem = missed.problem
    point = problem.at(coef.ravel())
    if noise is not None:  # what steps start from is off, too
        problem = Learning.of(runs, model, a, substeps, noise, free=True)
        problem.linearize(point := problem.at(point.x))
        point = problem.moved(point, np.zeros_like(point.x))
    solved = point.result.solved
    return LearnedPiNet(
        missed.net,
        monomials,
        RightHandSide(monomials, coef, known),
        misfit(problem, point),
        n_iter,
        int((~solved).sum()),
        len(solved),
        found.success,
    )
