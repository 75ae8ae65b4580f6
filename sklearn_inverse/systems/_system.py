"""ODESystem: everything the package needs to know about one model of the world."""

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from sklearn_inverse.ode._guards import Guards
from sklearn_inverse.ode._problem import kernel_of
from sklearn_inverse.ode._rhs import push_tangents
from sklearn_inverse.ode.compiled import Untraceable
from sklearn_inverse.probability import JointPrior, NoiseModel, as_noise
from sklearn_inverse.systems._checks import check_system
from sklearn_inverse.systems._declared import (
    check_keys,
    check_times,
    find,
    read_initial,
    read_nominal,
    read_observe,
    split_params,
    value_of,
)
from sklearn_inverse.systems._events import Schedule
from sklearn_inverse.systems._functions import Names, OneSample

__all__ = ["ODESystem", "Reference"]

Self = TypeVar("Self", bound="ODESystem")


class Reference(NamedTuple):
    """A known solution of a system at its nominal params.

    Parameters
    ----------
    time : float
        Time of the reference, starting from the system's first time.

    states : ndarray of shape (n_states,)
        All states at that time.

    source : str
        Where the numbers come from.

    Examples
    --------
    >>> from sklearn_inverse.problems import hires
    >>> hires().reference.time
    321.8122
    """

    time: float
    states: np.ndarray
    source: str


class ODESystem:
    r"""A parametrized initial value problem :math:`y' = f(t, y; p)` and its instrument.

    Its functions are written for one sample, as in a paper: ``t`` is a number, ``y`` and
    ``p`` are vectors whose entries go by name (``y.infected``, ``p["k 1"]``), position or
    slice (``y[1:] - y[:-1]``). Arithmetic, NumPy's functions and torch's apply.

    Parameters
    ----------
    rhs : callable
        ``rhs(t, y, p) -> dy/dt``: a list, tuple or array with one entry per state.

    states : dict
        Names of the states, with their values at ``times[0]``: a number, the name of a
        param, or a function of p.

    params : dict
        Names of the params, with what is believed of them: a prior, a pair (low, high)
        for a uniform one, or a frozen SciPy distribution. A number is a constant that is
        known: it goes by its name, and is not estimated. A tuple of names has a
        ``MultivariateNormal``; a name with a ``GaussianProcess`` is a vector ``p.name``.

    times : array-like of shape (n_times,)
        Output times, increasing; the grid may be uneven. The first is the time at which
        ``states`` hold.

    observe : list of str or dict, default=None
        What the instrument reports: states by name, or a dict of names, each with a
        function of ``(t, y, p)`` that returns a number, or a state's name. If None, all
        states.

    noise : object, default=None
        How readings scatter: a noise model of ``sklearn_inverse.probability``, a standard
        deviation, the name of the param that it is, a list with one of these per
        observable, or a dict. If None, normal with an unknown standard deviation for each
        observable.

    jac : callable, default=None
        ``jac(t, y, p) -> df/dy``, rows of one sample's matrix. If None, automatic
        differentiation.

    nominal : dict, default=None
        Published or typical values of params, by name. Those not given are the medians
        of their priors.

    units : dict, default=None
        Units in words: of ``"time"``, of all ``"states"``, ``"params"`` or
        ``"observables"``, or of one of them by its name.

    name : str, default=None
        Name of the system. If None, the name of ``rhs``.

    reference : Reference or tuple, default=None
        ``(time, states, source)`` of a known solution at ``nominal``.

    invariants : array-like of shape (n_invariants, n_states), default=None
        Each row ``c`` states that ``c @ y`` stays constant along every solution.

    events : list of Event or Dose, default=()
        What happens at given times, at times that are params, or as a function of the
        states crosses zero: :class:`Event` changes states, :class:`Dose` adds to one.
        What is reported at the very time of an event is the state after it. Those before
        the first and after the last of ``times`` do not happen.

    breakpoints : list, default=()
        Times at which ``rhs`` may jump: numbers, names of params, or functions of p. The
        solver stops on them. Where ``rhs`` compares ``t`` with numbers or params, and can
        be compiled, that is found and need not be said.

    Attributes
    ----------
    state_names, param_names, observable_names : list of str
        Names; those of params are of the estimated ones.

    n_states, n_params, n_channels, n_times : int
        Sizes; a channel for each observable.

    prior : JointPrior
        What is believed of the params.

    noise : NoiseModel
        How readings scatter.

    nominal : ndarray of shape (n_params,)
        Nominal values of the params.

    constants : dict
        Params that are known.

    schedule : Schedule
        What happens, as ``solve_ivp`` takes it.

    Raises
    ------
    ValueError
        If a function cannot be run for one sample, is cut off from differentiation or
        random, or if names, sizes or values contradict each other.

    See Also
    --------
    ReactionSystem : The same from reaction strings.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_inverse.systems import ODESystem
    >>> from sklearn_inverse.probability import LogNormal
    >>> def epidemic(t, y, p):
    ...     new = p.contact * (1 - y.infected - y.recovered) * y.infected
    ...     return new - p.recovery * y.infected, p.recovery * y.infected
    >>> system = ODESystem(
    ...     epidemic,
    ...     states={"infected": "seed", "recovered": 0.0},
    ...     params={"contact": (1, 3), "recovery": 0.5, "seed": LogNormal(0.01, 0.5)},
    ...     times=np.arange(15),
    ...     observe={"cases": lambda t, y, p: 763 * y.infected},
    ...     noise=5.0,
    ... )
    >>> system
    ODESystem('epidemic', states=['infected', 'recovered'], params=['contact', 'seed'],
              observables=['cases'], n_times=15)
    >>> system.nominal
    array([2.  , 0.01])
    """

    kinetics: Any = None  # MassAction, where the compiled solver takes that
    jac: Any = None  # jac(t, y, params) of shape (n_samples, n_states, n_states)

    def __init__(
        self,
        rhs: Callable[..., Any],
        *,
        states: Mapping[str, Any],
        params: Mapping[Any, Any],
        times: Any,
        observe: Any = None,
        noise: Any = None,
        jac: Callable[..., Any] | None = None,
        nominal: Mapping[str, float] | None = None,
        units: Mapping[str, Any] | None = None,
        name: str | None = None,
        reference: Any = None,
        invariants: Any = None,
        events: Sequence[Any] = (),
        breakpoints: Sequence[Any] = (),
    ):
        self.times = check_times(times)
        self.state_names = check_keys("states", states)
        priors, self.constants = split_params(params, self.state_names)
        self.prior = JointPrior(priors)
        self.param_names = list(self.prior.names)
        # What to say where a state is looked for among the params, or the reverse.
        hints = {name: f"it is a param, write p.{name}" for name in self.param_names}
        y_names = Names("state", self.state_names, hints=hints)
        hints = {name: f"it is a state, write y.{name}" for name in self.state_names}
        more = self.prior.groups | self.constants
        p_names = Names("param", self.param_names, more, hints)

        self._initial_sources = read_initial(states, p_names)
        observed = read_observe(observe, y_names, p_names)
        self.observable_names, self._sources = list(observed), list(observed.values())
        self._observed = [f for f in self._sources if isinstance(f, OneSample)]
        # A subclass may have the methods `rhs` and `jac` instead, for batches.
        shape = (self.n_states,)
        self._functions = []
        if type(self).rhs is ODESystem.rhs:
            self._rhs = OneSample(rhs, "`rhs`", y_names, p_names, shape)
            self._functions.append(self._rhs)
        if jac is not None:
            self.jac = OneSample(jac, "`jac`", y_names, p_names, 2 * shape)
            self._functions.append(self.jac)
        self.schedule = Schedule(events, breakpoints, y_names, p_names)
        self.noise = self._read_noise(noise)
        self.nominal = read_nominal(nominal, self.prior)
        label = getattr(rhs, "__name__", type(rhs).__name__)
        self.name = name or ("system" if label == "<lambda>" else label)
        self.units = dict(units or {})
        known = ["time", "states", "params", "observables", *self.state_names]
        known += [*self.param_names, *self.constants, *self.observable_names]
        for unit in self.units:
            find(unit, known, "`units` has")
        self.reference: Reference | None = None
        if reference is not None:
            time, at, source = reference
            at = _shaped("reference states", at, shape)
            self.reference = Reference(float(time), at, source)
        rows = np.zeros((0, self.n_states)) if invariants is None else invariants
        rows = np.atleast_2d(np.asarray(rows, dtype=float))
        self.invariants = _shaped("invariants", rows, (len(rows), self.n_states))
        self._check()

    @property
    def n_times(self) -> int:
        """Number of output times."""
        return len(self.times)

    @property
    def n_states(self) -> int:
        """Number of states."""
        return len(self.state_names)

    @property
    def n_params(self) -> int:
        """Number of params to be estimated."""
        return len(self.param_names)

    @property
    def n_channels(self) -> int:
        """Number of observables."""
        return len(self.observable_names)

    @property
    def bounds(self) -> np.ndarray:
        """Range of each param, (n_params, 2): the prior's support where it is bounded."""
        return self.prior.scaler.bounds

    def rhs(self, t: Tensor, y: Tensor, params: Tensor) -> Tensor:
        """Return dy/dt (n_samples, n_states) at times (n_samples,), states and params."""
        return self.schedule.infused(self._rhs(t, y, params), t, params)

    @property
    def solved(self) -> Any:
        """What ``solve_ivp`` takes as ``rhs``: the same for copies of this system."""
        if self.kinetics is not None:
            return self.kinetics
        is_plain = type(self).rhs is ODESystem.rhs and not self.schedule.infuses
        return self._rhs if is_plain else self.rhs

    @cached_property
    def backend_(self) -> str:
        """How it is solved: "compiled", or "torch" and why, tens of times slower."""
        try:
            self._kernel()
        except Untraceable as reason:
            return f"torch: {reason}"
        return "compiled"

    def breaks(self) -> list[Callable[[Tensor], Tensor]]:
        """Return the times at which ``rhs`` is seen to jump, as functions of params."""
        try:
            return self._kernel().model.breaks(*self.times[[0, -1]].tolist())
        except Untraceable:
            return []

    def _kernel(self) -> Any:
        params = torch.as_tensor(self.nominal)[None]
        t, y = torch.as_tensor(self.times[:1]), self.initial_state(params)
        guards = Guards(self.schedule.events)
        return kernel_of(self.solved, t, y, params, guards=guards)

    def initial_state(self, params: Tensor) -> Tensor:
        """Return states (n_samples, n_states) at the first time."""
        columns = [value_of(source, params) for source in self._initial_sources]
        return torch.stack(columns, dim=1)

    def observables(self, y: Tensor, params: Tensor) -> Tensor:
        """Turn states (n_samples, n_times, n_states) into what is reported of them."""
        if self._sources == list(range(self.n_states)):
            return y
        if not self._observed:
            return y[..., self._sources]
        t = torch.as_tensor(self.times, dtype=y.dtype, device=y.device).repeat(len(y))
        flat = t, y.flatten(0, 1), params.repeat_interleave(y.shape[1], dim=0)
        columns = [
            source(*flat).view(y.shape[:2])
            if source in self._observed
            else y[..., source]
            for source in self._sources
        ]
        return torch.stack(columns, dim=-1)

    def observable_sensitivities(
        self, y: Tensor, params: Tensor, sensitivities: Tensor
    ) -> Tensor:
        """Turn derivatives of states (…, n_states, n_params) into those of observables."""
        if not self._observed:
            return sensitivities[:, :, self._sources]
        eye = torch.eye(self.n_params, dtype=params.dtype, device=params.device)
        along = sensitivities.movedim(-1, 0), eye[:, None].expand(-1, len(params), -1)
        return push_tangents(self.observables, (y, params), along).movedim(0, -1)

    def with_noise(self: Self, noise: Any) -> Self:
        """Return the same system measured with other noise, as for the constructor."""
        other = copy.copy(self)
        other.noise = other._read_noise(noise)
        return other

    def _read_noise(self, noise: Any) -> NoiseModel:
        return as_noise(
            noise,
            self.observable_names,
            n_times=self.n_times,
            param_names=self.param_names,
            constants=self.constants,
        )

    def truncate(self: Self, n_times: int) -> Self:
        """Return the same system with its first ``n_times`` output times only."""
        if not 1 <= n_times <= self.n_times:
            raise ValueError(
                f"`n_times` must be between 1 and {self.n_times}, the number of output "
                f"times. Got {n_times!r} instead."
            )
        shorter = copy.copy(self)
        shorter.times = self.times[:n_times]
        shorter.noise = self.noise.truncate(n_times)
        return shorter

    def __deepcopy__(self: Self, memo: Any) -> Self:
        # Nothing changes a system once it is made: copies of estimators share it.
        return self

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.name!r}, states={self.state_names}, "
            f"params={self.param_names}, observables={self.observable_names}, "
            f"n_times={self.n_times})"
        )

    def _check(self) -> None:
        check_system(self)


def _shaped(what: str, value: Any, shape: tuple[int, ...]) -> np.ndarray:
    value = np.asarray(value, dtype=float)
    if value.shape != shape:
        raise ValueError(
            f"`{what}` must have shape {shape}, one entry per state. Got {value.shape} "
            "instead."
        )
    return value
