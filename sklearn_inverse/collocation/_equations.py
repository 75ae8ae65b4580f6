"""Equations as collocation sees them: conditions that hold for any network, residuals.

A system of ordinary differential equations has the time for its only axis.
"""

from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.stats import qmc
from torch import Tensor

from sklearn_inverse.collocation._axis_scale import AxisScale
from sklearn_inverse.collocation._fields import Field, Namespace, values_of
from sklearn_inverse.collocation._places import Places, Points, Told, along
from sklearn_inverse.ode import solve_ivp
from sklearn_inverse.ode._rhs import push_tangents, rowwise_jacobian
from sklearn_inverse.systems import ODESystem, PDESystem

__all__ = ["ODEEquations", "PDEEquations", "Solution", "as_equations"]

N_DRAWS = 8  # of the prior, for what is usual of a solution
N_BATCHES = 64  # of points, before the first comes again
N_CUSPS = 20  # points of a source in time
N_TIMES = 11  # at which solutions are compared
N_NODES = 17  # along each side of a plane, there
N_POINTS = {1: 100, 2: 300, 3: 600}  # by the number of axes


class Solution(NamedTuple):
    """An exact solution at some params.

    Attributes
    ----------
    params : ndarray of shape (n_params,)
        Params in their own units.

    unit : ndarray of shape (n_points, n_axes)
        Where it is known, on [0, 1].

    values : ndarray of shape (n_points, n_outputs)
        The solution there.
    """

    params: np.ndarray
    unit: np.ndarray
    values: np.ndarray


def as_equations(system, network) -> Any:
    """Return the equations of a system, for a :class:`LocalNetwork`."""
    kind = PDEEquations if isinstance(system, PDESystem) else ODEEquations
    return kind(system, network)


class _Equations:
    """What both kinds share.

    Attributes
    ----------
    scales : dict of str to AxisScale
        By axis.

    functions : dict of str to FunctionOnGrid
        Unknown functions by name.

    n_outputs : int
        Of the network: states, or one solution.

    sources : list of (str, float)
        Axis and place of every source in a point.

    borders : list of (str, float)
        Axis and place of the ends where the slope across is to vanish.
    """

    functions: dict[str, Any] = {}
    sources: list[tuple[str, float]] = []
    borders: list[tuple[str, float]] = []
    n_outputs = 1
    scales: dict[str, AxisScale]

    def points(self, unit, **options) -> Points:
        """Return points at unit coordinates (n_points, n_axes)."""
        return Points.at(self.scales, unit, self.functions, **options)


class ODEEquations(_Equations):
    r"""Ordinary differential equations, with states that start where the system does.

    .. math:: u = u_0(\theta) + \tau(t) \, S \, N(\tau(t), \theta; W)

    with the scale S of each state. The residual of state i is divided by
    :math:`S_i (\tau'(t) + |\partial f_i / \partial u_i|)`, taken along a given solution,
    so that every state counts alike: a slow one by its rate, a fast one by how far it
    is from where its fast reactions balance.
    """

    is_resampled = False

    def __init__(self, system: ODESystem, network):
        self.system, self.n_outputs = system, system.n_states
        scale = AxisScale(system.times, network.time_scale, network.onset)
        self.scales = {"t": scale}
        self.n_points = network.n_collocation or 51
        self._seen = scale.to_unit(system.times)

    def batch(self, index) -> np.ndarray:
        """Return times at which the residual is to vanish, always the same."""
        return np.linspace(0.0, 1.0, self.n_points)[:, None]

    @property
    def also_solved(self) -> np.ndarray:
        """Where solutions are asked for beside the readings' times, (n_more,)."""
        return self.batch(0)[1:-1, 0]

    @property
    def seen(self) -> np.ndarray:
        """Where readings are taken."""
        return self._seen[:, None]

    def idle(self, params) -> Tensor:
        """Return which params only the noise uses, (n_params,)."""
        system = self.system
        named = [name in system.noise.param_names for name in system.param_names]
        if not any(named):
            return torch.tensor(named)
        params = torch.as_tensor(params).expand(len(system.times), -1)
        t, y = torch.as_tensor(system.times), system.initial_state(params)
        by_params = [
            rowwise_jacobian(function, params).abs().sum(dim=(0, 1))
            for function in (system.initial_state, lambda p: system.rhs(t, y, p))
        ]
        return torch.tensor(named) & (sum(by_params) == 0)

    def solve(self, params, more=()) -> tuple[np.ndarray, np.ndarray]:
        """Return where, and exact solutions (n_samples, n_points, n_outputs).

        At output times and ``more`` unit coordinates; NaN where there is none.
        """
        system, scale = self.system, self.scales["t"]
        times = np.union1d(system.times, scale.to_value(np.asarray(more)))
        solution = solve_ivp(
            system.rhs,
            times,
            system.initial_state,
            torch.as_tensor(params),
            rtol=1e-8,
            atol=1e-20,
            jac=system.jac,
        )
        y = solution.y.numpy().copy()
        y[~solution.success.numpy()] = np.nan
        return scale.to_unit(times)[:, None], y

    def settle(self, solution: Solution, **options) -> None:
        """Take scales from a solution."""
        scale = self.scales["t"]
        self.scale = torch.as_tensor(state_scale(solution.values)).to(**options)
        self.size = self.scale  # of what solutions are compared by
        t = scale.to_value(self.batch(0)[:, 0])
        rate, diagonal = scale.rate(t), self._diagonal_jacobian(solution, t)
        stiffness = rate[:, None] + np.abs(diagonal)
        # Both halves of the residual, u_t and f, divided by its size.
        self._slope_weight, self._rhs_scale = (
            torch.as_tensor(x).to(**options)
            for x in (1 / stiffness, state_scale(solution.values) * stiffness)
        )
        errors = error_of_residual(t, np.maximum(-diagonal, 0.0))
        self.error_of_residual = torch.as_tensor(errors * stiffness.T[:, None]).to(
            **options
        )

    def state(self, n: Tensor, places: Places) -> Tensor:
        """Return u (n_rows, n_states) for the network's outputs."""
        start = self.system.initial_state(places.params)
        return start + self.scale.to(n) * places.unit["t"][:, None] * n

    def residual(self, n: Tensor, u: Tensor, places: Places) -> Tensor:
        """Return the scaled residual (n_rows, n_states)."""
        growth = places.by("t", places.unit["t"][:, None] * n)
        t = places.value["t"].detach()
        f = self.system.rhs(t, u, places.params)
        slope_weight, rhs_scale = map(
            places.rows, (self._slope_weight, self._rhs_scale)
        )
        return slope_weight * growth - f / rhs_scale

    def observables(self, u: Tensor, params: Tensor) -> Tensor:
        """Return what is read (n_samples, n_times, n_channels)."""
        return self.system.observables(u, params)

    def linearized_observables(self, u, u_params, params, slope):
        """Return what is read, and its derivatives by scaled params."""
        slope = slope[:, None, None]
        found, by_own = self.system.linearized_observables(u, params, u_params / slope)
        return found, slope * by_own

    def _diagonal_jacobian(self, solution, t):
        """Return ∂f_i/∂u_i along a solution at times t, (n_times, n_states)."""
        known = self.scales["t"].to_value(solution.unit[:, 0])
        y = np.stack([np.interp(t, known, y) for y in solution.values.T], axis=1)
        params = torch.as_tensor(solution.params).expand(len(t), -1)
        time = torch.as_tensor(t)
        with torch.no_grad():
            jacobian = rowwise_jacobian(
                lambda y: self.system.rhs(time, y, params), torch.as_tensor(y)
            )
        return jacobian.diagonal(dim1=1, dim2=2).numpy()


class PDEEquations(_Equations):
    """A partial differential equation, with the hard conditions of its constraint.

    The network is divided by what n usually is in them, the residual by what is left of
    the equation where n is zero: both over draws of the prior.
    """

    is_resampled = True
    also_solved: tuple = ()
    error_of_residual = None

    def __init__(self, system: PDESystem, network):
        self.system = system
        self.scales = {
            axis: AxisScale(np.array(system.domain[axis])) for axis in system.grids
        }
        if "t" in system.domain:
            self.scales["t"] = AxisScale(
                np.array(system.domain["t"]), network.time_scale, network.onset
            )
        self.functions = system.functions
        self.n_points = network.n_collocation or N_POINTS[len(self.scales)]
        # All nodes of a line, and so many that a network is fitted to of a plane.
        most = N_NODES if len(system.shape) > 1 else max(system.shape)
        self._kept = [
            np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(int))
            for n in system.shape
        ]
        self.sources = [_source(at) for at in system.sources]
        self.borders = [
            (axis, end)
            for axis, grid in system.grids.items()
            for end, is_level in zip((grid.low, grid.high), grid.level)
            if is_level
        ]
        if set(self.sources) & set(self.borders):
            raise ValueError(
                "BiLO and PINN take no source at an insulated end: GradientInverter does."
            )
        gathering = system.observe.gathering(system.grids)
        self._gathering = None if gathering is None else torch.as_tensor(gathering)

    def batch(self, index) -> np.ndarray:
        """Return points at which the residual is to vanish; other ones every time."""
        return qmc.LatinHypercube(len(self.scales), seed=index).random(self.n_points)

    @property
    def seen(self) -> np.ndarray:
        """Where readings are taken, the earliest first."""
        return self._grid(self.system.points, self.system._times)

    def interface(self, index, where) -> np.ndarray:
        """Return points of a source or a border, others every time as :meth:`batch`."""
        axis, place = where
        n = len(self.scales) - 1
        more = qmc.LatinHypercube(max(n, 1), seed=index).random(N_CUSPS if n else 1)
        at = np.full((len(more), 1), self.scales[axis].to_unit(place))
        return np.insert(more[:, :n], list(self.scales).index(axis), at.T, axis=1)

    def _grid(self, points, times):
        """Return unit coordinates of points at times, the earliest first."""
        space = zip(self.scales.values(), points.T)
        unit = np.stack([scale.to_unit(x) for scale, x in space], axis=1)
        if "t" not in self.scales:
            return unit
        t = self.scales["t"].to_unit(np.asarray(times))
        later = np.repeat(t, len(unit))[:, None]
        return np.hstack([np.tile(unit, (len(t), 1)), later])

    def idle(self, params) -> Tensor:
        """Return which params only the noise uses, (n_params,)."""
        unused = np.hstack([*self.system.unused, []])
        return torch.tensor([name in unused for name in self.system.prior.names])

    def solve(self, params, more=()) -> tuple[np.ndarray, np.ndarray]:
        """Return where, and exact solutions (n_samples, n_points, n_outputs)."""
        system = self.system
        times = None
        if "t" in self.scales:
            times = np.linspace(*system.domain["t"], N_TIMES)
        u = system.solve(params, times)
        nodes = [g.nodes[i] for g, i in zip(system.grids.values(), self._kept)]
        points = np.stack(np.meshgrid(*nodes, indexing="ij"), axis=-1)
        kept: Any = (..., *np.ix_(*self._kept))
        u = u[kept].reshape(len(u), -1, 1)
        return self._grid(points.reshape(-1, len(nodes)), times), u

    def settle(self, solution: Solution, **options) -> None:
        """Take scales from solutions at draws of the prior."""
        self.scale = self.size = self._size = torch.ones(1).to(**options)
        self._cusp_sizes = dict.fromkeys(self.sources, self._size)
        prior = self.system.prior
        draws = prior.draw(N_DRAWS, np.random.RandomState(0), method="lhs")
        draws = np.concatenate([solution.params[None], draws])
        unit, solved = self.solve(draws)
        good = np.isfinite(solved).all(axis=(1, 2))
        u = torch.as_tensor(solved[good]).to(**options)
        theta = torch.as_tensor(prior.scaler.to_scaled(draws[good])).to(**options)
        self.size = u.square().mean().sqrt().clamp(min=torch.finfo(u.dtype).tiny)[None]
        with torch.enable_grad():
            low, high, _ = self._conditions(theta, unit, (0.0, 1.0), options)
            weight = high - low
            inner = weight.abs() > 0.3 * weight.abs().amax()
            off = (u.reshape(low.shape) - low)[inner] / weight[inner]
            scale = off.square().mean().sqrt()
            self.scale = torch.where(scale > 0, scale, 1.0)[None].detach()
            size = self._usual(theta, self.batch(0), options)
            self._cusp_sizes = {
                source: self._usual(theta, self.interface(0, source), options, source)
                for source in self.sources
            }
        self._size = size

    def _usual(self, theta, points, options, source=None):
        """Return what the residual usually is where n is zero, else one."""
        for n in (0.0, 1.0):
            *_, left = self._conditions(theta, points, (n,), options, source)
            size = left.square().mean().sqrt()
            if size > 0:
                break
        return torch.where(size > 0, size, 1.0)[None].detach()

    def _conditions(self, theta, unit, constants, options, source=None):
        """Return u for constant n's, and the residual of the last, as rows."""
        idle = self.idle(None)
        told = Told(self.system.prior, self.functions, None, idle, **options)
        points = self.points(unit, **options)
        places = Places(points, told, self.scales, theta, self.sources, source)
        found = []
        for constant in constants:
            n = constant + 0 * next(iter(places.unit.values()))[:, None]
            found.append(self.state(n, places)[:, 0])
        left = self.residual(n, found[-1][:, None], places)[:, 0]
        return found[0].detach(), found[-1].detach(), left.detach()

    def state(self, n: Tensor, places: Places) -> Tensor:
        """Return u (n_rows, 1) for the network's outputs."""
        x, p = self._fields(places)
        free = self.scale.to(n) * n[:, 0]
        more = (p,) if self.system._sees_params else ()
        u = self.system.constraint(x, Field(free, places), *more)
        return values_of(u, free)[:, None]

    def residual(self, n: Tensor, u: Tensor, places: Places) -> Tensor:
        """Return the scaled residual (n_rows, 1); of a source its jump, of a border u.x."""
        if places.source in self.borders:
            axis, _ = places.source
            slope = places.by(axis, u[:, 0]) * self.scales[axis].length
            return slope[:, None] / self.size.to(u)
        x, p = self._fields(places)
        off = values_of(self.system.residual(x, Field(u[:, 0], places), p), u[:, 0])
        if places.source is None:
            return off[:, None] / self._size.to(u)
        jump = along(off, places.strength)
        return jump[:, None] / self._cusp_sizes[places.source].to(u)

    def _fields(self, places):
        """Return coordinates and params as the user's functions take them."""
        names = self.system._names
        columns = [Field(column, places) for column in places.params.unbind(1)]
        known: dict[Any, Any] = dict(enumerate(columns))
        known |= {
            name: columns[place]
            for name, place in names.places.items()
            if isinstance(place, int)
        }
        known |= {name: Field(f, places) for name, f in places.functions.items()}
        x = {axis: Field(value, places) for axis, value in places.value.items()}
        x["point"] = lambda **at: Field(places.impulse(_source(at)), places)
        return Namespace(x), Namespace(known | dict(names.constants))

    def observables(self, u: Tensor, params: Tensor) -> Tensor:
        """Return what is read (n_samples, n_times, n_channels)."""
        u, (rows, t) = self._read(u), self._rows(params, len(u))
        seen = self.system.looked_at(u.flatten(0, 1), rows, t)
        return seen.unflatten(0, u.shape[:2])

    def linearized_observables(self, u, u_params, params, slope):
        """Return what is read, and its derivatives by scaled params."""
        found = self.observables(u, params)
        u, (rows, t) = self._read(u), self._rows(params, len(u))
        by_params = self._read(u_params.movedim(-1, 0).flatten(0, 1))
        by_params = by_params.reshape(-1, *u.flatten(0, 1).shape)
        if self.system._sights:
            axes = (
                torch.diag_embed(slope).repeat_interleave(u.shape[1], 0).movedim(1, 0)
            )
            by_params = push_tangents(
                lambda u, p: self.system.looked_at(u, p, t),
                (u.flatten(0, 1), rows),
                (by_params, axes),
            )
        return found, by_params.movedim(0, -1).reshape(*found.shape, -1)

    def _read(self, u):
        """Return what is read of rows (n, n_points, 1) of u, (n, n_times, n_read)."""
        u = u.reshape(len(u), len(self.system._times), -1)
        return u if self._gathering is None else u @ self._gathering.to(u).mT

    def _rows(self, params, n):
        """Return params and times of every reading, (n_samples * n_times, …)."""
        times = torch.as_tensor(self.system._times).to(params)
        return params.repeat_interleave(len(times), dim=0), times.repeat(n)


def _source(at):
    """Return axis and place of a source of which networks are told."""
    (axis, place), *others = at.items()
    if others or not isinstance(place, Real):
        raise ValueError(
            "BiLO and PINN take sources in known places along one coordinate, "
            f"x.point(x=0.5). Got {dict(at)}: GradientInverter takes others."
        )
    return axis, float(place)


def state_scale(states):
    """Return by how much each state moves, or its size if it does not.

    Relative throughout: the states of POLLU go down to 1e-18.
    """
    move = np.abs(states - states[0]).max(axis=0)
    size = np.abs(states).max(axis=0)
    scale = np.where(move > 1e-6 * size, move, size)
    return np.where(scale > 0, scale, 1.0)


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
