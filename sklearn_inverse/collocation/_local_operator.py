r"""Local operator u(t, θ; W) of BiLO for ODEs, its exact derivatives and its losses.

A network that takes the params as inputs solves the equations at θ and, because the
residual's derivative by θ vanishes as well, at all params nearby:

.. math::

    r = u_t - f(t, u, \theta), \qquad
    L_{LO} = \overline{|r|^2} + w \, \overline{\textstyle\sum_j |dr/d\theta_j|^2}

(Zhang, Liu and Lowengrub, "BiLO: bilevel local operator learning for PDE inverse
problems", J. Comput. Phys., 2026), and the same for the errors that r leads to, see
:class:`LocalOperator`. Nothing here optimizes: see ``_bilevel``.

One network per sample, all of them evaluated at once. Every loss is one number per
sample and depends on that sample alone.
"""

import math
import threading
from functools import partial
from numbers import Integral, Real
from typing import NamedTuple

import numpy as np
import torch
from sklearn.base import BaseEstimator
from torch import Tensor
from torch.autograd import forward_ad

from sklearn_inverse.collocation._time_scale import TimeScale
from sklearn_inverse.networks._stacked_mlp import StackedMLP
from sklearn_inverse.ode._rhs import rowwise_jacobian
from sklearn_inverse.systems import ODESystem
from sklearn_inverse.utils._sklearn import Interval, StrOptions

__all__ = ["LocalNetwork", "LocalOperator", "Solution"]

one_at_a_time = threading.RLock()  # torch has one dual level, for all threads


class LocalNetwork(BaseEstimator):
    """Network that stands for the solution, and where it is asked to solve.

    Parameters
    ----------
    width : int, default=32
        Neurons per layer.

    n_layers : int, default=2
        Layers of tanh neurons.

    n_collocation : int, default=51
        Times at which the residual is to vanish, evenly spread on the time scale.

    time_scale : {"linear", "log"}, default="linear"
        "log" spreads the start out, for systems with a fast transient.

    onset : float, default=None
        Time up to which a logarithmic scale is about linear. If None, a hundredth of the
        first interval between output times.

    train_embedding : bool, default=False
        Whether the first layer's weights for the params are trained too.

    Examples
    --------
    >>> from sklearn_inverse.collocation import LocalNetwork
    >>> LocalNetwork(time_scale="log", onset=1e-3)
    LocalNetwork(onset=0.001, time_scale='log')
    """

    _parameter_constraints: dict = {
        "width": [Interval(Integral, 1, None, closed="left")],
        "n_layers": [Interval(Integral, 1, None, closed="left")],
        "n_collocation": [Interval(Integral, 2, None, closed="left")],
        "time_scale": [StrOptions({"linear", "log"})],
        "onset": [Interval(Real, 0, None, closed="neither"), None],
        "train_embedding": ["boolean"],
    }

    def __init__(
        self,
        width=32,
        n_layers=2,
        n_collocation=51,
        time_scale="linear",
        onset=None,
        train_embedding=False,
    ):
        self.width = width
        self.n_layers = n_layers
        self.n_collocation = n_collocation
        self.time_scale = time_scale
        self.onset = onset
        self.train_embedding = train_embedding


class Solution(NamedTuple):
    """States at some params, from which the operator takes its scales and its start.

    Attributes
    ----------
    params : ndarray of shape (n_params,)
        Params in their own units.

    times : ndarray of shape (n_times,)
        Increasing times, from the first to the last.

    states : ndarray of shape (n_times, n_states)
        States at those times.
    """

    params: np.ndarray
    times: np.ndarray
    states: np.ndarray


class LocalOperator:
    r"""States u(t, θ; W) that start exactly where the system starts, and their losses.

    .. math:: u = u_0(\theta) + \tau(t) \, S \, N(\tau(t), \theta; W)

    with the scale S of each state. The residual of state i is divided by
    :math:`S_i (\tau'(t) + |\partial f_i / \partial u_i|)`, taken along a given solution,
    so that every state counts alike: a slow one by its rate, a fast one by how far it
    is from where its fast reactions balance.

    A small residual does not make a small error: what is small but lasts adds up. The
    lower loss therefore also holds, next to the residual and its gradient, the errors
    e that they lead to when each state decays on its own,

    .. math:: e_i' = -\max(-\partial f_i / \partial u_i, 0) \, e_i + r_i,
              \qquad e_i(t_0) = 0,

    the rates taken along the given solution and kept: any would do, for e vanishes where
    r does, but the better they are the better the loss is conditioned.

    Here θ are scaled params. Those that only the noise uses do not reach the network.

    Parameters
    ----------
    system : ODESystem
        The equations and the instrument.

    solution : Solution
        States at the params where the search starts, for the scales.

    network : LocalNetwork
        Sizes, and where the residual is asked to vanish.

    error_weight : float, default=1.0
        Weight of the errors in the lower loss.

    seed : int, default=0
        Of the network's random start.

    dtype, device : torch.dtype, torch.device, default=torch.float32, "cpu"
        Of the network, its residuals and losses.

    Attributes
    ----------
    net : StackedMLP
        The networks.

    idle : Tensor of bool of shape (n_params,)
        Params that only the noise uses.
    """

    def __init__(
        self,
        system: ODESystem,
        solution: Solution,
        network: LocalNetwork,
        *,
        error_weight=1.0,
        seed=0,
        dtype=torch.float32,
        device="cpu",
    ):
        self.system, self.scaler = system, system.prior.scaler
        self.error_weight = error_weight
        self.time_scale = TimeScale(system.times, network.time_scale, network.onset)
        self._options = {"dtype": dtype, "device": device}
        self.idle = noise_only(system, solution).to(device)
        self.net = StackedMLP(
            system.n_params,
            system.n_states,
            width=network.width,
            n_layers=network.n_layers,
            train_embedding=network.train_embedding,
            idle=self.idle,
            seed=seed,
            **self._options,
        )
        scale = state_scale(solution.states)
        t = self.time_scale.spread(network.n_collocation)
        rate = self.time_scale.rate(t)
        diagonal = diagonal_jacobian(system, solution, t)
        stiffness = rate[:, None] + np.abs(diagonal)
        self.scale, self.t = self._tensor(scale), self._tensor(t)
        self.tau = self._tensor(np.linspace(0.0, 1.0, len(t)))
        # Both halves of the residual, u_t and f, divided by its size.
        self._slope_weight = self._tensor(rate[:, None] / stiffness)
        self._rhs_scale = self._tensor(scale * stiffness)
        error = error_of_residual(t, np.maximum(-diagonal, 0.0))
        self._error_of_residual = self._tensor(error * stiffness.T[:, None])
        self._tau_out = self._tensor(self.time_scale.to_unit(system.times))

    def states(self, layers, tau: Tensor, theta: Tensor) -> Tensor:
        """Return u at normalized times, (n_samples, n_points, n_states).

        In the precision of θ, whatever that of the network.
        """
        start = self.system.initial_state(self.scaler.from_scaled_tensor(theta))
        growth = tau[:, None] * self.net.value(layers, tau, theta.to(tau))
        return start[:, None] + self.scale * growth

    def observables(self, layers, theta: Tensor) -> Tensor:
        """Return what is measured, (n_samples, n_times, n_channels), as :meth:`states`."""
        u = self.states(layers, self._tau_out, theta)
        return self.system.observables(u, self.scaler.from_scaled_tensor(theta))

    def linearize(self, layers, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is measured and its derivative by θ, W held fixed.

        Returns
        -------
        observables : Tensor of shape (n_samples, n_times, n_channels)
            As of :meth:`observables`.

        jacobian : Tensor of shape (n_samples, n_times, n_channels, n_params)
            Derivative by each scaled param.
        """
        tau = self._tau_out
        net, net_by_params = self.net.linearize(layers, tau, theta.to(tau))
        params, slope, start, start_by_params = self._at(theta)
        growth = self.scale * tau[:, None]
        u = start[:, None] + growth * net
        u_params = start_by_params[:, :, None] + growth * net_by_params
        slope = slope[:, None, None]
        by_own = u_params.movedim(1, -1) / slope
        found, jacobian = self.system.linearized_observables(u, params, by_own)
        return found, slope * jacobian

    def operator_loss(self, layers, theta, gradient_weight) -> Tensor:
        """Return the lower loss: residual, its gradient by θ, errors; (n_samples,)."""
        residual, gradient = self.residual(layers, theta)
        gradient = math.sqrt(gradient_weight) * gradient
        rows = torch.cat([residual[:, None], gradient], dim=1)
        loss = rows.square().sum(dim=(1, 2, 3))
        if self.error_weight > 0:
            errors = torch.einsum("sij,npjs->npis", self._error_of_residual, rows)
            loss = loss + self.error_weight * errors.square().sum(dim=(1, 2, 3))
        return loss / len(self.tau)

    def residual(self, layers, theta) -> tuple[Tensor, Tensor]:
        """Return the scaled residual and its total derivative by θ.

        Returns
        -------
        residual : Tensor of shape (n_samples, n_points, n_states)
            :math:`u_t - f(t, u, θ)`, divided by its size.

        gradient : Tensor of shape (n_samples, n_params, n_points, n_states)
            :math:`dr/dθ_j = u_{tθ_j} - f_u u_{θ_j} - f_{θ_j}`, divided alike.
        """
        tau = self.tau[:, None]
        net = self.net.jet(layers, self.tau, theta)
        params, slope, start, start_by_params = self._at(theta)
        u = start[:, None] + self.scale * tau * net.value
        u_params = start_by_params[:, :, None] + self.scale * tau * net.by_params
        f, f_params = self._rhs(u, params, u_params, torch.diag_embed(slope))
        u_t = net.value + tau * net.by_time
        u_t_params = net.by_params + tau * net.mixed
        residual = self._slope_weight * u_t - f / self._rhs_scale
        gradient = self._slope_weight * u_t_params - f_params / self._rhs_scale
        return residual, gradient

    def _at(self, theta):
        """Return the params, dk/dθ, u0, and du0/dθ of shape (n_samples, n_params, …)."""
        n_samples, p = theta.shape
        params = self.scaler.from_scaled_tensor(theta)
        slope = self.scaler.slope_tensor(params)
        start, tangents = _push(
            self.system.initial_state,
            (params.repeat_interleave(p, 0), torch.diag_embed(slope).flatten(0, 1)),
        )
        return params, slope, start[::p], tangents.unflatten(0, (n_samples, p))

    def _rhs(self, u, params, u_params, directions):
        """Return f and df/dθ_j, total derivatives along the states' own."""
        # A right-hand side works row by row: one row per sample, direction and point.
        shape = u_params.shape
        n_samples, p, n_points, _ = shape

        def rows(x, n_last):
            return x.expand(n_samples, p, n_points, n_last).contiguous().flatten(0, 2)

        t = self.t.repeat(n_samples * p)
        f, tangent = _push(
            partial(self.system.rhs, t),
            (rows(u[:, None], shape[-1]), rows(u_params, shape[-1])),
            (rows(params[:, None, None], p), rows(directions[:, :, None], p)),
        )
        return f.reshape(shape)[:, 0], tangent.reshape(shape)

    def _tensor(self, array):
        return torch.as_tensor(array).to(**self._options)


def _push(function, *inputs):
    """Return the function and its derivative, from pairs of inputs and directions."""
    with one_at_a_time, forward_ad.dual_level() as level:
        # Not forward_ad.make_dual, which first compiles rules that are not needed here,
        # and warns of its own deprecations meanwhile (torch 2.13: jit.script).
        duals = (torch._make_dual(x, along, level) for x, along in inputs)
        value, pushed = forward_ad.unpack_dual(function(*duals))
    return value, torch.zeros_like(value) if pushed is None else pushed


def noise_only(system, solution):
    """Return which params only the noise uses, of shape (n_params,)."""
    named = [name in system.noise.param_names for name in system.param_names]
    if not any(named):
        return torch.tensor(named)
    t, y = torch.as_tensor(solution.times), torch.as_tensor(solution.states)
    params = torch.as_tensor(solution.params).expand(len(t), -1)
    by_params = [
        rowwise_jacobian(function, params).abs().sum(dim=(0, 1))
        for function in (system.initial_state, lambda p: system.rhs(t, y, p))
    ]
    return torch.tensor(named) & (sum(by_params) == 0)


def state_scale(states):
    """Return by how much each state moves, or its size if it does not.

    Relative throughout: the states of POLLU go down to 1e-18.
    """
    move = np.abs(states - states[0]).max(axis=0)
    size = np.abs(states).max(axis=0)
    scale = np.where(move > 1e-6 * size, move, size)
    return np.where(scale > 0, scale, 1.0)


def diagonal_jacobian(system, solution, t):
    """Return ∂f_i/∂u_i along a solution at times t, (n_times, n_states)."""
    y = np.stack([np.interp(t, solution.times, y) for y in solution.states.T], axis=1)
    n_times, n_states = y.shape
    params = torch.as_tensor(solution.params).expand(n_times * n_states, -1)
    time = torch.as_tensor(t).repeat_interleave(n_states)
    states = torch.as_tensor(y).repeat_interleave(n_states, dim=0)
    axes = torch.eye(n_states, dtype=states.dtype).repeat(n_times, 1)
    _, columns = _push(lambda y: system.rhs(time, y, params), (states, axes))
    jacobian = columns.unflatten(0, (n_times, n_states))
    return jacobian.diagonal(dim1=1, dim2=2).numpy()


def error_of_residual(t, decay):
    """Return the matrices that turn the residuals of each state into its errors.

    Of shape (n_states, n_times, n_times): implicit Euler steps of e' = -decay e + r,
    with the mean of r over each step.
    """
    n_times, n_states = decay.shape
    matrix = np.zeros((n_states, n_times, n_times))
    for i, h in enumerate(np.diff(t)):
        row = matrix[:, i].copy()
        row[:, i : i + 2] += h / 2
        matrix[:, i + 1] = row / (1 + h * decay[i + 1])[:, None]
    return matrix
