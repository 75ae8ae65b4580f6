"""PDESystem: a partial differential equation, described once."""

import inspect
import itertools
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sklearn_inverse.ode._rhs import push_tangents
from sklearn_inverse.probability import GaussianFunction, JointPrior, as_noise
from sklearn_inverse.systems._declared import Together, check_keys, split_params
from sklearn_inverse.systems._experiments import Experiment
from sklearn_inverse.systems._fields import (
    Coordinates,
    Field,
    FunctionOnGrid,
    ParamsOnGrid,
    values_at,
)
from sklearn_inverse.systems._functions import Names, OneSample, takes
from sklearn_inverse.systems._grids import CONSTANT, INNER, NODE, Chebyshev, Grid
from sklearn_inverse.systems._newton import Stencil, newton, solve
from sklearn_inverse.systems._observed import ParticleCounts, PointValues, read_times
from sklearn_inverse.systems._pde_checks import (
    check_constraint,
    check_fluxes,
    check_instruments,
    check_residual,
    example,
    read_domain,
    read_neumann,
    unused_params,
)
from sklearn_inverse.systems._system import ODESystem
from sklearn_inverse.utils._validation import check_params

__all__ = ["PDESystem", "PointValues"]

TIME = "t"
HELD = 2**24  # numbers of Jacobians that are held together


class PDESystem:
    r"""A partial differential equation for u, with what is known of it.

    It reads like the paper that it comes from, and inverters take it for ``model``.
    With time in its domain it becomes an :class:`ODESystem` for the values at the nodes
    (method of lines), else Newton's method solves for them, and the implicit function
    theorem differentiates.

    Parameters
    ----------
    domain : dict of str to (float, float)
        Intervals by the names of their coordinates, one or two of space, and of time,
        which is ``"t"``: ``{"x": (0, 1), "t": (0, 2)}``.

    residual : callable
        ``residual(x, u, p)`` is zero where the equation holds: x.x and x.t are
        coordinates, u is the solution with its derivatives u.x, u.xx, u.t, and p the
        params by name, functions among them. Products have derivatives too:
        ``(p.D * u.x).x``. ``x.point(x=0.5)`` is a source in a point. It must be linear in
        u.t.

    constraint : callable
        ``constraint(x, n)``, or ``constraint(x, n, p)``, is what u must be whatever n is:
        boundary values, and where there is time what u begins with. As in
        ``np.sin(np.pi * x.x) + n * x.x * (1 - x.x) * x.t``.

    params : dict
        Priors, as of :class:`ODESystem`; of an unknown function of space, time or both, a
        :class:`~sklearn_inverse.probability.GaussianFunction`, ``over="t"`` say, which
        other inverters than :class:`GradientInverter` need with one number for its
        ``scale``.

    observe : PointValues or ParticleCounts
        What is read: the solution, or what instruments ``see`` of it.

    noise : object, default=None
        How readings scatter, as of :class:`ODESystem`; in a dict, the name of an
        instrument is that of its readings at all points.

    grid : Grid or dict of str to Grid, default=None
        :class:`Chebyshev` or :class:`FiniteDifferences` nodes along each coordinate, or
        by its name; by default 33 of the former. In two dimensions only the latter are
        compiled.

    nominal : dict, default=None
        Typical params, at which a system in time is tried out and compiled; by default
        medians of their priors.

    neumann : str or dict of str to {"low", "high", "both"}, default=None
        Ends where not u is given but its slope across is zero: of an insulated rod
        ``"x"``, of a plane ``"xy"``, ``{"x": "high"}`` of one end. There the constraint
        leaves u open: ``start + n * x.t``.

    name : str, default="pde"
        Its name.

    Attributes
    ----------
    nodes : ndarray of shape (n_nodes,), or tuple of two
        Where :meth:`solve` gives the solution, along each coordinate.

    prior : JointPrior
        What is believed of the params.

    observable_names : list of str
        One for each point.

    unused : list of str
        Params that neither residual nor constraint changes with: those of the noise,
        and of what instruments see.

    See Also
    --------
    ODESystem : Without space.

    References
    ----------
    .. [1] Zhang et al., "BiLO: Bilevel local operator learning for PDE inverse
       problems": hard constraints, residuals.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_inverse import GradientInverter, PDESystem, PointValues
    >>> x = np.linspace(0.1, 0.9, 9)
    >>> poisson = PDESystem(
    ...     {"x": (0, 1)},
    ...     lambda x, u, p: p.D * u.xx + np.pi**2 * np.sin(np.pi * x.x),
    ...     constraint=lambda x, n: n * x.x * (1 - x.x),
    ...     params={"D": (0.5, 4)},
    ...     observe=PointValues(x),
    ...     noise=0.01,
    ... )
    >>> measured = [np.sin(np.pi * x) / 2]
    >>> GradientInverter(poisson).fit(measured).predict(measured).round(3)
    array([[2.]])
    """

    def __init__(
        self,
        domain: Mapping[str, Any],
        residual: Callable[..., Any],
        *,
        constraint: Any = None,
        params: Mapping[Any, Any],
        observe: PointValues | ParticleCounts,
        noise: Any = None,
        grid: Grid | Mapping[str, Grid] | None = None,
        nominal: Mapping[str, float] | None = None,
        neumann: str | Mapping[str, str] | None = None,
        name: str = "pde",
    ):
        self.domain = read_domain(domain)
        check_keys("params", params)
        space = [axis for axis in self.domain if axis != TIME]
        self.neumann = neumann
        self.grids = self._read_grids(Chebyshev(33) if grid is None else grid, space)
        self.residual, self.constraint = residual, constraint
        for what, given, call in (
            ("residual", residual, "residual(x, u, p), zero where the equation holds"),
            (
                "constraint",
                constraint,
                "constraint(x, n), what u is at the ends and begins with whatever n is, "
                f"as lambda x, n: {example(self)}",
            ),
        ):
            if not callable(given):
                raise TypeError(f"`{what}` must be a function {call}. Got {given!r}.")
        self.params, self.nominal = params, nominal
        self.observe, self.name = observe, name
        for key, prior in params.items():
            if prior is None or isinstance(prior, type) or inspect.isfunction(prior):
                raise TypeError(
                    f"The param {key!r} must have a prior: a pair (low, high), or of an "
                    "unknown function GaussianFunction(order=2, link='exp'), say. Got "
                    f"{prior!r}."
                )
        self.functions = {
            key: FunctionOnGrid(key, prior, self.domain, self.grids)
            for key, prior in params.items()
            if isinstance(prior, GaussianFunction)
        }
        self._times = read_times(self.domain, observe)
        self._weights, names = observe.read(self.grids)
        self._sights = getattr(observe, "see", None) or {}
        if self._sights:
            check_keys("see", self._sights)
        self.observable_names = [
            name.replace("u(", f"{see}(", 1) for see in self._sights for name in names
        ] or names
        self.noise = self._noise_by_point(noise, names)
        self._sees_params = takes(constraint, 3)
        self._rate_told: Any = None
        self._check()

    @property
    def nodes(self) -> Any:
        """Where :meth:`solve` gives the solution, along each coordinate."""
        nodes = tuple(grid.nodes for grid in self.grids.values())
        return nodes if len(nodes) > 1 else nodes[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of nodes along each coordinate."""
        return tuple(grid.n_nodes for grid in self.grids.values())

    @property
    def n_inner(self) -> int:
        """Number of nodes at which u is not known beforehand."""
        return int(np.prod([n - 2 for n in self.shape]))

    @property
    def points(self) -> np.ndarray:
        """Points at which the solution is looked at, (n_points, n_coordinates)."""
        return self.observe.points(self.grids)

    @cached_property
    def sources(self) -> list[dict[str, Any]]:
        """Points of the sources in the residual, by coordinate."""
        told: list[dict[str, Any]] = []
        start = 0.0 if self.is_steady else self.domain[TIME][0]
        rate = None if self.is_steady else 0.0
        run = self.one_sample(
            lambda t, y, p: self.residual_at(t, y, p, rate, told),
            "`residual`",
            self.n_inner,
        )
        params = torch.as_tensor(self.prior.median)[None]
        run(params.new_tensor([start]), params.new_ones(1, self.n_inner), params)
        return told

    @property
    def is_steady(self) -> bool:
        """Whether there is no time in its domain."""
        return TIME not in self.domain

    @cached_property
    def prior(self) -> JointPrior:
        """What is believed of the params."""
        return JointPrior(self.priors)

    @property
    def priors(self) -> dict[Any, Any]:
        """Priors of what is to be estimated."""
        return split_params(self.params, self._node_names)[0]

    @property
    def _node_names(self) -> list[str]:
        places = itertools.product(*(range(1, n - 1) for n in self.shape))
        return [f"u[{','.join(map(str, place))}]" for place in places]

    # --- what is solved

    def semidiscretize(self) -> ODESystem:
        """Return the ordinary differential equations of the values at inner nodes."""
        if self.is_steady:
            raise ValueError(
                "This needs time in the `domain`: a steady problem has no ordinary "
                "differential equations. Give it to an inverter, or `solve` it."
            )
        return self._lines

    @cached_property
    def _lines(self) -> ODESystem:
        start, _ = self.domain[TIME]
        return ODESystem(
            self._rate,
            states=dict.fromkeys(self._node_names, Together(self._start)),
            params=self.params,
            experiments=[Experiment(self._times, start=start)],
            breakpoints=sorted({t for f in self.functions.values() for t in f.kinks}),
            observe=Together(self._read_off, self.observable_names),
            noise=self.noise,
            nominal=self.nominal,
            name=self.name,
        )

    def solve(self, params: Any, times: Any = None) -> np.ndarray:
        """Return the solution at all nodes.

        Parameters
        ----------
        params : array-like of shape (n_samples, n_params) or (n_params,)
            Params in their own units.

        times : array-like of shape (n_times,), default=None
            Increasing, from the start of the domain on. By default those of the readings;
            none where the problem is steady.

        Returns
        -------
        u : ndarray of shape (n_samples, n_times, n_nodes) or (n_samples, n_nodes)
            The solution, with two axes for nodes in two dimensions; NaN for samples that
            have none.
        """
        from sklearn_inverse.ode import solve_ivp

        if hasattr(params, "to_frame"):  # a series: one sample, by name
            params = params.to_frame().T
        given = params if hasattr(params, "columns") else np.atleast_2d(params)
        names, n_params = self.prior.names, self.prior.n_params
        p = torch.tensor(check_params(given, n_params=n_params, names=names))
        if self.is_steady:
            with torch.no_grad():
                return self._solution(p).unflatten(1, self.shape).numpy()
        system, first = self.semidiscretize(), self.domain[TIME][0]
        times = np.atleast_1d(self._times if times is None else times).astype(float)
        if not (np.diff(times, prepend=first) >= 0).all():
            raise ValueError(
                f"`times` must increase from the start, {first:g}. Got {times.tolist()}."
            )
        t = torch.as_tensor(np.concatenate([[first], times])).expand(len(p), -1)
        with torch.no_grad():
            start = system.initial_state(p)
            y = solve_ivp(system.solved, t, start, p, alike=system.alike).y[:, 1:]
            n = len(times)
            rows = p.repeat_interleave(n, dim=0)
            u = self._all_nodes(t[:, 1:].flatten(), y.flatten(0, 1), rows)
        return u.unflatten(1, self.shape).unflatten(0, (len(p), n)).numpy()

    def report(self, params: Tensor) -> Tensor:
        """Return what is read of the steady solution, differentiably.

        Parameters
        ----------
        params : Tensor of shape (n_samples, n_params)
            Params in their own units.

        Returns
        -------
        readings : Tensor of shape (n_samples, 1, n_points)
            NaN for samples that have no solution.
        """
        weights = torch.as_tensor(self._weights).to(params)
        return self.looked_at(self._solution(params) @ weights.mT, params)[:, None]

    def linearized_report(self, params: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is read of the steady solution, and its derivatives by params.

        Parameters and readings are those of :meth:`report`.

        Returns
        -------
        readings : Tensor of shape (n_samples, 1, n_points)
            NaN for samples that have no solution.

        by_params : Tensor of shape (n_samples, 1, n_points, n_params)
            Their derivatives, by the implicit function theorem.
        """
        n, (n_rows, n_params) = self.n_inner, params.shape
        most = max(HELD // max(self._stencil.n_held, n * n_params), 1)
        if n_rows > most:
            parts = [self.linearized_report(part) for part in params.split(most)]
            read, by_params = map(torch.cat, zip(*parts))
            return read, by_params
        params = params.detach()
        off, u, inverse = self._solved(params)
        axes = torch.eye(n_params).to(params)[:, None].expand(-1, n_rows, -1)
        by_params = -inverse(push_tangents(partial(off, u), (params,), (axes,)))
        with torch.no_grad():
            whole = self._all_nodes(params[:, 0], u, params)
        by_params = push_tangents(
            lambda u, p: self._all_nodes(p[:, 0], u, p), (u, params), (by_params, axes)
        )
        weights = torch.as_tensor(self._weights).to(params).mT
        read, by_params = whole @ weights, by_params @ weights
        if self._sights:
            by_params = push_tangents(self.looked_at, (read, params), (by_params, axes))
            read = self.looked_at(read, params)
        return read[:, None], by_params.permute(1, 2, 0)[:, None]

    def looked_at(
        self, u: Tensor, params: Tensor, times: Tensor | None = None
    ) -> Tensor:
        """Return what is seen (n_rows, n_observables) of the solution at the points."""
        if not self._sights:
            return u
        times = params[:, 0] if times is None else times  # any, where there is none
        shape = (len(self.observable_names),)
        names = Names("point", list(map(str, range(u.shape[1]))))
        return OneSample(self._look, "`observe`", names, self._names, shape)(
            times, u, params
        )

    def _solution(self, params: Tensor) -> Tensor:
        """Return the steady solution at all nodes, flat."""
        most = max(HELD // self._stencil.n_held, 1)
        if len(params) > most:
            return torch.cat([self._solution(part) for part in params.split(most)])
        off, u, inverse = self._solved(params.detach())
        # A further step, of which only the params count (implicit function theorem).
        u = u - solve(inverse, off(u, params))
        solved = u.isfinite().all(dim=1, keepdim=True)
        whole = self._all_nodes(params[:, 0], u, params)
        return torch.where(solved, whole, torch.nan)

    def _solved(self, params: Tensor) -> tuple[Any, Tensor, Any]:
        """Return the residual of steady solutions, these, and its inverse derivatives."""
        off, start = self._steady(params)
        with torch.no_grad():
            return off, *newton(off, start, params, self._stencil)

    def _steady(self, params: Tensor) -> tuple[Any, Tensor]:
        """Return the residual of values at the inner nodes, and where to begin."""
        residual = self.one_sample(self._off, "`residual`", self.n_inner)
        start = OneSample(
            self._start, "`constraint`", None, self._names, residual.shape
        )

        def off(u: Tensor, p: Tensor) -> Tensor:
            return residual(p[:, 0], u, p)  # any number: there is no time

        with torch.no_grad():
            return off, start(params)

    def is_open(self, params: Tensor) -> bool:
        """Whether a steady problem leaves something of its solution open."""
        off, start = self._steady(params)
        with torch.no_grad():
            if not self._stencil.inverse(off, start, params).is_singular().any():
                return False
            u, inverse = newton(off, start, params, self._stencil)
            return bool((u.isnan().any(dim=1) & inverse.is_singular()).any())

    @cached_property
    def _stencil(self) -> Stencil:
        grids = self.grids.values()
        return Stencil([(grid.n_nodes - 2, grid.is_local) for grid in grids])

    def _all_nodes(self, t: Tensor, y: Tensor, params: Tensor) -> Tensor:
        """Return the solution at all nodes, flat, of that at the inner ones."""
        n_nodes = int(np.prod(self.shape))
        whole = self.one_sample(
            lambda *at: self._whole(*at).reshape(-1), "`constraint`", n_nodes
        )
        return whole(t, y, params)

    # --- functions of one sample

    def _rate(self, t: Any, y: Any, p: Any) -> Any:
        """Return du/dt at the inner nodes, from a residual that is linear in it."""
        off = self.residual_at(t, y, p, rate=0.0)
        factor, probe = self._rate_told
        if factor is None:
            factor = (self.residual_at(t, y, p, rate=probe) - off) / probe
        return -off / factor

    def _off(self, t: Any, y: Any, p: Any) -> Any:
        return self.residual_at(t, y, p, rate=None)

    def residual_at(
        self,
        t: Any,
        y: Any,
        p: Any,
        rate: float | None,
        told: Any = None,
        fluxes: list[Any] | None = None,
    ) -> Any:
        """Return the residual at the inner nodes, flat.

        Sources are added to ``told``, and to ``fluxes`` how convex these are.
        """
        by_time = None
        if rate is not None:
            by_time = Field(self.grids, rate, (CONSTANT,) * len(self.grids))
        u = Field(self.grids, self._whole(t, y, p), rate=by_time, told=fluxes)
        off = self.residual(self._at(t, told), u, self._on_grid(t, p))
        inner = tuple(n - 2 for n in self.shape)
        return values_at(off, INNER, inner).reshape(-1)

    def _whole(self, t: Any, y: Any, p: Any) -> Any:
        """Return the solution at all nodes, its ends from the constraint."""
        ends, whole = self.constrained(t, 0.0, p), y[:]
        if len(self.shape) > 1:
            whole = whole.reshape(tuple(n - 2 for n in self.shape))
        for axis, grid in reversed([*enumerate(self.grids.values())]):
            # As far as it is whole along later axes, and not yet along earlier ones.
            frame, along = ends[(slice(1, -1),) * axis], (slice(None),) * axis
            given = frame[(*along, slice(1))], frame[(*along, slice(-1, None))]
            whole = grid.with_ends(whole, given, axis)
        return whole

    def _read_off(self, t: Any, y: Any, p: Any) -> Any:
        """Return what is seen of the solution."""
        whole, read = self._whole(t, y, p).reshape(-1), []
        for weights in self._weights:
            used = np.flatnonzero(weights)
            read.append(weights[used] @ whole[used])
        return self._look(t, np.stack(read), p)

    def _look(self, t: Any, u: Any, p: Any) -> Any:
        """Return what instruments make of the solution at the points."""
        if not self._sights:
            return u
        x = SimpleNamespace(**dict(zip(self.grids, self.points.T)))
        if not self.is_steady:
            x.t = t
        seen = []
        for name, see in self._sights.items():
            one = see(x, u[:], _Numbers(p, self.functions) if self.functions else p)
            if tuple(getattr(one, "shape", ())) != (len(self.points),):
                raise ValueError(
                    f"`see` must return one value for each of {len(self.points)} points. "
                    f"Got shape {tuple(getattr(one, 'shape', ()))} of {name!r}."
                )
            seen.append(one)
        return np.concatenate(seen)

    def _start(self, p: Any) -> Any:
        """Return what u begins with, or is first thought to be, at the inner nodes."""
        start = None if self.is_steady else self.domain[TIME][0]
        inner = (slice(1, -1),) * len(self.shape)
        return self.constrained(start, 0.0, p)[inner].reshape(-1)

    def constrained(self, t: Any, n: float, p: Any) -> Any:
        """Return the constraint at all nodes, for a constant n."""
        field = Field(self.grids, np.full(self.shape, n))
        last = (self._on_grid(t, p),) if self._sees_params else ()
        value = self.constraint(self._at(t), field, *last)
        return values_at(value, NODE, self.shape)

    def _at(self, t: Any, told: Any = None) -> Coordinates:
        return Coordinates(self.grids, None if self.is_steady else t, told)

    def _on_grid(self, t: Any, p: Any) -> ParamsOnGrid:
        return ParamsOnGrid(p, self.functions, self.grids, t)

    # --- what is checked at construction

    @cached_property
    def _names(self) -> Names:
        _, constants = split_params(self.params, self._node_names)
        more: dict[str, slice | float] = {**self.prior.groups, **constants}
        return Names("param", self.prior.names, more)

    def _noise_by_point(self, noise: Any, names: list[str]) -> Any:
        """Return the noise, that of an instrument as that of each of its points."""
        if not isinstance(noise, Mapping):
            return noise
        by_point: dict[Any, Any] = {}
        for key, kind in noise.items():
            own = [n.replace("u(", f"{key}(", 1) for n in names]
            by_point |= dict.fromkeys(own if key in self._sights else [key], kind)
        return by_point

    def _read_grids(self, given: Any, axes: list[str]) -> dict[str, Grid]:
        by_axis = given if isinstance(given, Mapping) else dict.fromkeys(axes, given)
        if set(by_axis) != set(axes) or not all(
            isinstance(grid, Grid) for grid in by_axis.values()
        ):
            raise TypeError(
                "`grid` must be Chebyshev(33), say, or FiniteDifferences(101), or one of "
                f"these for each of {axes}. Got {given!r}."
            )
        return {
            axis: by_axis[axis].on(*self.domain[axis], level)
            for axis, level in zip(axes, read_neumann(self.neumann, axes))
        }

    def _check(self) -> None:
        """Try the functions out, in the middle of the prior and elsewhere."""
        noise = as_noise(
            self.noise, self.observable_names, param_names=self.prior.names
        )
        z = np.stack(
            [np.zeros(self.prior.n_params), 0.3 * np.ones(self.prior.n_params)]
        )
        params = torch.as_tensor(self.prior.from_standard(z))
        low, high = (0.0, 0.0) if self.is_steady else self.domain[TIME]
        times = torch.tensor([low, low + 0.7 * (high - low)], dtype=torch.float64)
        check_constraint(self, times, params)
        check_fluxes(self)
        self._rate_told = check_residual(self, times, params)
        self.unused = unused_params(self)
        if self._sights:
            check_instruments(self)
        unseen = unused_params(self, looks=True) if self._sights else self.unused
        idle = [
            key
            for key in self.unused
            if key in unseen and not {key, *np.atleast_1d(key)} & set(noise.param_names)
        ]
        if idle:
            raise ValueError(
                "`residual`, `constraint` or `noise` must depend on every param. Got "
                f"nothing that changes with {idle}: take it out of `params`."
            )

    def one_sample(self, function: Any, what: str, n_values: int) -> OneSample:
        """Return a function of t, values at the inner nodes and params, for batches."""
        names = Names("node", self._node_names)
        return OneSample(function, what, names, self._names, (n_values,))

    def __repr__(self) -> str:
        return (
            f"PDESystem({self.name!r}, domain={self.domain}, grid={self.grids}, "
            f"params={self.prior.names})"
        )

    def __deepcopy__(self, memo: Any) -> "PDESystem":
        return self  # nothing changes it: copies of estimators share it


class _Numbers:
    """Params of an instrument, which unknown functions are not among."""

    def __init__(self, p: Any, functions: Any):
        self._p, self._functions = p, functions

    def __getattr__(self, name: str) -> Any:
        if name in self._functions:
            raise ValueError(
                f"`see` takes params that are numbers. Got the unknown function {name!r}: "
                "let the residual have it."
            )
        return getattr(self._p, name)

    def __getitem__(self, key: Any) -> Any:
        return getattr(self, key) if isinstance(key, str) else self._p[key]
