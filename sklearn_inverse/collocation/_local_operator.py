r"""Local operator u(x, θ; W) of BiLO, its exact derivatives and its losses.

A network that is told the params solves the equations at θ and, because the residual's
derivative by θ vanishes as well, at all params nearby:

.. math::

    L_{LO} = \overline{|r|^2} + w \, \overline{\textstyle\sum_j |dr/d\theta_j|^2}

(Zhang, Liu and Lowengrub, "BiLO: bilevel local operator learning for PDE inverse
problems", J. Comput. Phys., 2026), and for ordinary differential equations the same for
the errors that r leads to, see :class:`LocalOperator`. What is not told the params is a
physics-informed network (PINN). Nothing here optimizes: see ``_bilevel``.

One network per sample, all of them evaluated at once. Every loss is one number per
sample and depends on that sample alone.
"""

import math
from numbers import Integral, Real

import torch
from sklearn.base import BaseEstimator
from torch import Tensor

from sklearn_inverse.collocation._equations import N_BATCHES, Solution, as_equations
from sklearn_inverse.collocation._places import Places, Told, gradient
from sklearn_inverse.networks._stacked_mlp import StackedMLP
from sklearn_inverse.utils._sklearn import Interval, StrOptions

__all__ = ["LocalNetwork", "LocalOperator"]

HELD_OUT = N_BATCHES  # batch of points at which nothing is trained


class LocalNetwork(BaseEstimator):
    """Network that stands for the solution, and where it is asked to solve.

    Parameters
    ----------
    width : int, default=None
        Neurons per layer. If None, 32, and 48 where there is space.

    n_layers : int, default=2
        Layers of tanh neurons.

    n_collocation : int, default=None
        Points at which the residual is to vanish. If there is time only, evenly spread
        on its scale, by default 51; in space other ones at every step, by default 100,
        300 and 600 of one, two and three coordinates, time among them.

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
        "width": [Interval(Integral, 1, None, closed="left"), None],
        "n_layers": [Interval(Integral, 1, None, closed="left")],
        "n_collocation": [Interval(Integral, 2, None, closed="left"), None],
        "time_scale": [StrOptions({"linear", "log"})],
        "onset": [Interval(Real, 0, None, closed="neither"), None],
        "train_embedding": ["boolean"],
    }

    def __init__(
        self,
        width=None,
        n_layers=2,
        n_collocation=None,
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


class LocalOperator:
    r"""A solution that fulfills the hard conditions, and its losses.

    A small residual does not make a small error: what is small but lasts adds up. Where
    time is the only coordinate, the lower loss therefore also holds, next to the residual
    and its gradient, the errors e that they lead to when each state decays on its own,

    .. math:: e_i' = -\max(-\partial f_i / \partial u_i, 0) \, e_i + r_i,
              \qquad e_i(t_0) = 0,

    the rates taken along the given solution and kept: any would do, for e vanishes where
    r does, but the better they are the better the loss is conditioned.

    Here θ are scaled params. Those that only the noise uses do not reach the network.

    Parameters
    ----------
    system : ODESystem or PDESystem
        The equations and the instrument.

    solution : Solution
        Exact solution where the search starts, for the scales.

    network : LocalNetwork
        Sizes, and where the residual is asked to vanish.

    functions : {"basis", "local", None}, default="basis"
        What the network is told of params and unknown functions, see :class:`Told`.

    error_weight : float, default=1.0
        Weight of the errors in the lower loss.

    seed : int, default=0
        Of the network's random start.

    dtype, device : torch.dtype, torch.device, default=torch.float32, "cpu"
        Of the network, its residuals and losses.

    Attributes
    ----------
    equations : ODEEquations or PDEEquations
        What is solved.

    net : StackedMLP
        The networks.

    idle : Tensor of bool of shape (n_params,)
        Params that only the noise uses.
    """

    def __init__(
        self,
        system,
        solution: Solution,
        network: LocalNetwork,
        *,
        functions="basis",
        error_weight=1.0,
        seed=0,
        dtype=torch.float32,
        device="cpu",
    ):
        self.system, self.scaler = system, system.prior.scaler
        self.equations = equations = as_equations(system, network)
        self.error_weight = error_weight
        self._options = {"dtype": dtype, "device": device}
        equations.settle(solution, **self._options)
        self.idle = equations.idle(solution.params).to(device)
        self._told = Told(
            system.prior, equations.functions, functions, self.idle, **self._options
        )
        in_space = equations.is_resampled
        self.net = StackedMLP(
            len(equations.scales) + len(equations.sources),
            self._told.n_directions,
            equations.n_outputs,
            width=network.width or (48 if in_space else 32),
            n_layers=network.n_layers,
            fan_in=self._told.fan_in,
            train_embedding=network.train_embedding,
            seed=seed,
            **self._options,
        )
        self._seen = equations.points(equations.seen, **self._options)
        self._batches: dict = {}

    @property
    def scale(self) -> Tensor:
        """Tensor of shape (n_outputs,): size of the solution, for comparing."""
        return self.equations.size

    def solution(self, layers, unit, theta: Tensor) -> Tensor:
        """Return u at unit coordinates (n_points, n_axes): (n_samples, n_points, …).

        In the precision of θ, whatever that of the network.
        """
        points = self.equations.points(unit, **self._options)
        return self._released(self._solution(layers, points, theta)[0], layers, theta)

    def observables(self, layers, theta: Tensor) -> Tensor:
        """Return what is measured (n_samples, n_times, n_channels), as :meth:`solution`."""
        u, _ = self._solution(layers, self._seen, theta)
        u = self._released(u, layers, theta)
        return self.equations.observables(u, self.scaler.from_scaled_tensor(theta))

    def linearize(self, layers, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is measured and its derivative by θ, W held fixed.

        Returns
        -------
        observables : Tensor of shape (n_samples, n_times, n_channels)
            As of :meth:`observables`.

        jacobian : Tensor of shape (n_samples, n_times, n_channels, n_params)
            Derivative by each scaled param; with ``functions="local"`` that of the
            method, which takes each value of a function to matter at its place only.
        """
        theta = theta.detach()
        with torch.enable_grad():
            u, places = self._solution(layers, self._seen, theta)
            rows = gradient(u.flatten(0, 1), places.shift, keep_graph=False)
        by_direction = rows.unflatten(0, places.shape)
        u_params = self._told.by_params(by_direction, theta, self._seen)
        params = self.scaler.from_scaled_tensor(theta)
        slope = self.scaler.slope_tensor(params)
        return self.equations.linearized_observables(
            u.detach(), u_params, params, slope
        )

    def operator_loss(self, layers, theta, gradient_weight, batch=0) -> Tensor:
        """Return the lower loss: residual, its gradient by θ, errors; (n_samples,)."""
        residual, by_direction = self.residual(
            layers, theta, batch, gradient_weight > 0
        )
        rows = residual[:, None]
        if gradient_weight > 0:
            by_direction = math.sqrt(gradient_weight) * by_direction
            rows = torch.cat([rows, by_direction], dim=1)
        loss = rows.square().sum(dim=(1, 2, 3))
        lasting = self.equations.error_of_residual
        if self.error_weight > 0 and lasting is not None:
            errors = torch.einsum("sij,npjs->npis", lasting, rows)
            loss = loss + self.error_weight * errors.square().sum(dim=(1, 2, 3))
        return loss / residual.shape[1]

    def residual(self, layers, theta, batch=0, with_gradient=True):
        """Return the scaled residual and its total derivative by θ.

        Parameters
        ----------
        layers : list of Tensor
            The networks.

        theta : Tensor of shape (n_samples, n_params)
            Scaled params.

        batch : int, default=0
            Which points, where there are others.

        with_gradient : bool, default=True
            Whether the derivative is wanted.

        Returns
        -------
        residual : Tensor of shape (n_samples, n_points, n_outputs)
            What the equations leave, divided by its size; behind the points the jumps at
            sources and slopes at borders, each by a weight as large as all points'.

        gradient : Tensor of shape (n_samples, n_directions, n_points, n_outputs)
            Its derivatives by what the network is told, divided alike.
        """
        found = [
            self._left(
                layers, theta, self._points(batch, source), source, with_gradient
            )
            for source in (None, *self.equations.sources, *self.equations.borders)
        ]
        if len(found) == 1:
            return found[0]
        sizes = [part.shape[1] for part, _ in found]
        weights = [1.0, *(math.sqrt(sum(sizes) / n) for n in sizes[1:])]
        residual = torch.cat([w * r for w, (r, _) in zip(weights, found)], dim=1)
        if not with_gradient:
            return residual, None
        return residual, torch.cat([w * g for w, (_, g) in zip(weights, found)], dim=2)

    def _left(self, layers, theta, points, source, with_gradient):
        """Return the residual at points, and its total derivative."""
        equations, told, by_direction = self.equations, self._told, None
        with torch.enable_grad():
            places = Places(
                points, told, equations.scales, theta, equations.sources, source
            )
            n = places.network(self.net, layers)
            u = equations.state(n, places)
            residual = equations.residual(n, u, places)
            if with_gradient:
                rows = gradient(residual, places.shift, keep_graph=True)
                by_direction = rows.unflatten(0, places.shape).movedim(-1, 1)
        return residual.unflatten(0, places.shape), by_direction

    def _points(self, batch, source):
        equations = self.equations
        batch = batch if equations.is_resampled else 0
        if (batch, source) not in self._batches:
            unit = (
                equations.interface(batch, source) if source else equations.batch(batch)
            )
            points = equations.points(unit, **self._options)
            self._batches[batch, source] = points
        return self._batches[batch, source]

    def _solution(self, layers, points, theta):
        """Return u, (n_samples, n_points, n_outputs), and the places."""
        with torch.enable_grad():  # conditions may hold derivatives
            equations = self.equations
            places = Places(
                points, self._told, equations.scales, theta, equations.sources
            )
            u = equations.state(places.network(self.net, layers), places)
        return u.unflatten(0, places.shape), places

    @staticmethod
    def _released(u, layers, theta):
        """Drop the graph that only derivatives by coordinates needed."""
        asked = any(x.requires_grad for x in (theta, *layers))
        return u if asked and torch.is_grad_enabled() else u.detach()
