r"""Local operator u(t, θ; W) of BiLO for ODEs, its exact derivatives and its losses.

A network that takes the params as inputs solves the equations at θ and, because the
residual's derivative by θ vanishes as well, at all params nearby:

.. math::

    r &= u_t - f(t, u, \theta), \qquad
    L_{LO} = \overline{|r|^2} + w \, \overline{\textstyle\sum_j |dr/d\theta_j|^2} \\
    L_{dat} &= \overline{|h(u(t_{obs}, \theta)) - y|^2}

(Zhang, Liu and Lowengrub, "BiLO: bilevel local operator learning for PDE inverse
problems", J. Comput. Phys., 2026), and the same for the errors that r leads to, see
:class:`LocalOperator`. Nothing here optimizes: see ``_bilevel``.

One network per sample, all of them evaluated at once. Every loss is one number per
sample and depends on that sample alone.
"""

import math
import threading
import warnings
from functools import cache, partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from sklearn_inverse.networks._stacked_mlp import StackedMLP
from sklearn_inverse.systems import ODESystem
from sklearn_inverse.utils._scaling import ParamScaler

__all__ = ["LocalOperator", "Solution"]


one_at_a_time = threading.RLock()  # torch has one dual level, for all threads


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

    Parameters
    ----------
    system : ODESystem
        The equations and the instrument.

    scaler : ParamScaler
        Unit box of θ.

    solution : Solution
        States at the params where the search starts, for the scales.

    width, n_layers, train_embedding, seed : object
        As for :class:`StackedMLP`.

    n_collocation : int
        Points at which the residual is asked to vanish, evenly spread in τ.

    time_scale : TimeScale
        The map τ.

    w_error : float, default=1.0
        Weight of the errors in the lower loss.

    dtype, device : torch.dtype, torch.device, default=torch.float32, "cpu"
        Of all tensors here.

    Attributes
    ----------
    net : StackedMLP
        The networks.
    """

    def __init__(
        self,
        system: ODESystem,
        scaler: ParamScaler,
        solution: Solution,
        *,
        width,
        n_layers,
        n_collocation,
        time_scale,
        w_error=1.0,
        train_embedding=False,
        seed=0,
        dtype=torch.float32,
        device="cpu",
    ):
        load_forward_mode()
        self.system, self.scaler, self.time_scale = system, scaler, time_scale
        self._options = {"dtype": dtype, "device": device}
        self.net = StackedMLP(
            system.n_params,
            system.n_states,
            width=width,
            n_layers=n_layers,
            train_embedding=train_embedding,
            seed=seed,
            **self._options,
        )
        scale = state_scale(solution.states)
        tau = np.linspace(0.0, 1.0, n_collocation)
        t, rate = time_scale.to_time(tau), time_scale.rate(time_scale.to_time(tau))
        diagonal = diagonal_jacobian(system, solution, t)
        stiffness = rate[:, None] + np.abs(diagonal)
        self.scale = self._tensor(scale)
        self.tau, self.t = self._tensor(tau), self._tensor(t)
        # Both halves of the residual, u_t and f, divided by its size.
        self._slope_weight = self._tensor(rate[:, None] / stiffness)
        self._rhs_scale = self._tensor(scale * stiffness)
        error = error_of_residual(t, np.maximum(-diagonal, 0.0))
        self.w_error = w_error
        self._error_of_residual = self._tensor(error * stiffness.T[:, None])
        self._tau_out = self._tensor(time_scale.to_unit(system.times))

    def states(self, layers, tau: Tensor, theta: Tensor) -> Tensor:
        """Return u at normalized times, (n_samples, n_points, n_states)."""
        start = self.system.initial_state(self.scaler.to_physical_tensor(theta))
        growth = tau[:, None] * self.net.value(layers, tau, theta)
        return start[:, None] + self.scale * growth

    def channels(self, layers, theta: Tensor) -> Tensor:
        """Return what is measured, (n_samples, n_times, n_channels)."""
        u = self.states(layers, self._tau_out, theta)
        return self.system.channels(u, self.scaler.to_physical_tensor(theta))

    def linearize(self, layers, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is measured and its derivative by the unit params, W held fixed.

        Returns
        -------
        channels : Tensor of shape (n_samples, n_times, n_channels)
            As of :meth:`channels`.

        jacobian : Tensor of shape (n_samples, n_params, n_times, n_channels)
            Derivative by each param.
        """
        net, net_by_params = self.net.linearize(layers, self._tau_out, theta)
        params, directions, start, start_by_params = self._at(theta)
        growth = self.scale * self._tau_out[:, None]
        u = start[:, None] + growth * net
        u_params = start_by_params[:, :, None] + growth * net_by_params
        if self.system.observe is None:
            return u, u_params
        n_samples, p = theta.shape
        channels, jacobian = _push(
            self.system.channels,
            (u.repeat_interleave(p, dim=0), u_params.flatten(0, 1)),
            (params.repeat_interleave(p, dim=0), directions.flatten(0, 1)),
        )
        return channels[::p], jacobian.unflatten(0, (n_samples, p))

    def data_loss(
        self, layers, theta, readings, weights, prior_precision=0.0
    ) -> Tensor:
        """Return the upper loss: mean of squared weighted misfits, (n_samples,).

        Parameters
        ----------
        layers : list of Tensor
            Weights of the networks.

        theta : Tensor of shape (n_samples, n_params)
            Unit params.

        readings, weights : Tensor of shape (n_samples, n_times, n_channels)
            What was measured, and one over its scale; both zero where nothing was.

        prior_precision : float, default=0.0
            Of a normal prior around the middle of the box; its share is added.
        """
        # Differences of numbers near 1e-18 are weighted before they are squared.
        misfit = weights * (self.channels(layers, theta) - readings)
        n_readings = (weights > 0).sum(dim=(1, 2)).clamp(min=1)
        prior = prior_precision * (theta - 0.5).square().sum(dim=1)
        return (misfit.square().sum(dim=(1, 2)) + prior) / n_readings

    def operator_loss(self, layers, theta, w_rgrad) -> Tensor:
        """Return the lower loss: residual, its gradient by θ, errors; (n_samples,)."""
        residual, gradient = self.residual(layers, theta)
        rows = torch.cat([residual[:, None], math.sqrt(w_rgrad) * gradient], dim=1)
        loss = rows.square().sum(dim=(1, 2, 3))
        if self.w_error > 0:
            errors = torch.einsum("sij,npjs->npis", self._error_of_residual, rows)
            loss = loss + self.w_error * errors.square().sum(dim=(1, 2, 3))
        return loss / len(self.tau)

    def residual(self, layers, theta) -> tuple[Tensor, Tensor]:
        """Return the scaled residual and its total derivative by the unit params.

        Returns
        -------
        residual : Tensor of shape (n_samples, n_points, n_states)
            :math:`u_t - f(t, u, θ)`, divided by its size.

        gradient : Tensor of shape (n_samples, n_params, n_points, n_states)
            :math:`dr/dθ_j = u_{tθ_j} - f_u u_{θ_j} - f_{θ_j}`, divided alike.
        """
        tau = self.tau[:, None]
        net = self.net.jet(layers, self.tau, theta)
        params, directions, start, start_by_params = self._at(theta)
        u = start[:, None] + self.scale * tau * net.value
        u_params = start_by_params[:, :, None] + self.scale * tau * net.by_params
        f, f_params = self._rhs(u, params, u_params, directions)
        slope, slope_params = (
            net.value + tau * net.by_time,
            net.by_params + tau * net.mixed,
        )
        residual = self._slope_weight * slope - f / self._rhs_scale
        gradient = self._slope_weight * slope_params - f_params / self._rhs_scale
        return residual, gradient

    def _at(self, theta):
        """Return the params and u0, and the derivatives of both by the unit params.

        The derivatives have the shape (n_samples, n_params, …).
        """
        n_samples, p = theta.shape
        params, slope = _push(
            self.scaler.to_physical_tensor, (theta, torch.ones_like(theta))
        )
        directions = torch.diag_embed(slope)
        start, tangents = _push(
            self.system.initial_state,
            (params.repeat_interleave(p, dim=0), directions.flatten(0, 1)),
        )
        return params, directions, start[::p], tangents.unflatten(0, (n_samples, p))

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
    with one_at_a_time, forward_ad.dual_level():
        duals = (forward_ad.make_dual(*pair) for pair in inputs)
        value, pushed = forward_ad.unpack_dual(function(*duals))
    return value, torch.zeros_like(value) if pushed is None else pushed


@cache
def load_forward_mode():
    """Let torch load its rules for tangents, which warns of its own deprecations."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch 2.13: jit.script
        _push(torch.sin, (torch.zeros(1), torch.ones(1)))


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
    params = torch.as_tensor(solution.params).expand(n_times, n_states, -1)
    eye = torch.eye(n_states, dtype=torch.float64).expand(n_times, -1, -1)

    def rhs(states):
        time = torch.as_tensor(t).repeat_interleave(n_states)
        return system.rhs(time, states, params.flatten(0, 1))

    states = torch.as_tensor(y).repeat_interleave(n_states, dim=0)
    _, columns = _push(rhs, (states, eye.flatten(0, 1)))
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
