"""ODESystem: everything the package needs to know about one model of the world.

A system states its equations, what is believed of their params, when and what an
instrument reports, how its readings scatter, and, where one is known, a reference
solution that any integrator must reproduce.
"""

import copy
import difflib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from numbers import Real
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from sklearn_inverse.ode._rhs import push_tangents, rowwise_jacobian
from sklearn_inverse.probability import JointPrior
from sklearn_inverse.probability._noise_model import as_noise
from sklearn_inverse.systems._functions import (
    OneSample,
    check_derivatives,
    check_rows,
    unused,
)
from sklearn_inverse.systems._named import Names
from sklearn_inverse.utils._validation import check_times
from sklearn_inverse.utils._warnings import warn_user

__all__ = ["ODESystem", "Reference"]

Self = TypeVar("Self", bound="ODESystem")
N_POINTS = 6  # samples at which a system is checked


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
    ):
        self.times = _check_times(times)
        self.state_names = _check_names("states", states)
        self._read_params(params)
        y_names = Names("state", self.state_names, hints=self._hints("param", "p"))
        more = self.prior.groups | self.constants
        p_names = Names("param", self.param_names, more, self._hints("state", "y"))
        self._names = y_names, p_names
        self._read_states(states)
        # A subclass may have the methods `rhs` and `jac` instead, for batches.
        shape = (self.n_states,)
        self._functions = []
        if type(self).rhs is ODESystem.rhs:
            self._rhs = OneSample(rhs, "`rhs`", y_names, p_names, shape)
            self._functions.append(self._rhs)
        if jac is not None:
            self.jac = OneSample(jac, "`jac`", y_names, p_names, 2 * shape)
            self._functions.append(self.jac)
        self._read_observe(observe)
        self.noise = as_noise(
            noise,
            self.observable_names,
            n_times=self.n_times,
            param_names=self.param_names,
            constants=self.constants,
        )
        self.nominal = self._check_nominal(nominal)
        self.units = self._check_units(units)
        label = getattr(rhs, "__name__", type(rhs).__name__)
        self.name = name or ("system" if label == "<lambda>" else label)
        self._read_reference(reference, invariants)
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
        """Return the derivatives of the states by time.

        Parameters
        ----------
        t : Tensor of shape (n_samples,)
            Times.

        y : Tensor of shape (n_samples, n_states)
            States.

        params : Tensor of shape (n_samples, n_params)
            Params in their own units.

        Returns
        -------
        f : Tensor of shape (n_samples, n_states)
            In the precision of the params.
        """
        return self._rhs(t, y, params)

    def initial_state(self, params: Tensor) -> Tensor:
        """Return the states at the first time.

        Parameters
        ----------
        params : Tensor of shape (n_samples, n_params)
            Params in their own units.

        Returns
        -------
        y0 : Tensor of shape (n_samples, n_states)
            In the precision of the params.
        """
        numbers = params.new_tensor(self._fixed).expand(len(params), -1)
        computed = [function(params)[:, None] for function in self._computed]
        return torch.cat([numbers, params[:, self._copied], *computed], 1)[
            :, self._order
        ]

    def observables(self, y: Tensor, params: Tensor) -> Tensor:
        """Turn states into what the instrument reports.

        Parameters
        ----------
        y : Tensor of shape (n_samples, n_times, n_states)
            States at ``times``.

        params : Tensor of shape (n_samples, n_params)
            Params in their own units.

        Returns
        -------
        observables : Tensor of shape (n_samples, n_times, n_channels)
            Readings without noise.
        """
        functions = [source for source in self._observe if not isinstance(source, int)]
        if not functions:
            return y if self._observes_all else y[..., self._observe]
        n_times = y.shape[1]
        t = torch.as_tensor(self.times, dtype=y.dtype, device=y.device).repeat(len(y))
        flat = t, y.flatten(0, 1), params.repeat_interleave(n_times, dim=0)
        columns = [
            y[..., source]
            if isinstance(source, int)
            else source(*flat).view(y.shape[:2])
            for source in self._observe
        ]
        return torch.stack(columns, dim=-1)

    def observable_sensitivities(
        self, y: Tensor, params: Tensor, sensitivities: Tensor
    ) -> Tensor:
        """Turn derivatives of the states into derivatives of what is measured.

        Parameters
        ----------
        y : Tensor of shape (n_samples, n_times, n_states)
            States at ``times``.

        params : Tensor of shape (n_samples, n_params)
            Params in their own units.

        sensitivities : Tensor of shape (n_samples, n_times, n_states, n_params)
            Derivatives of the states by the params.

        Returns
        -------
        sensitivities : Tensor of shape (n_samples, n_times, n_channels, n_params)
            Derivatives of the observables by the params, direct ones included.
        """
        if self._observes_all:
            return sensitivities
        if all(isinstance(source, int) for source in self._observe):
            return sensitivities[:, :, self._observe]
        eye = torch.eye(self.n_params, dtype=params.dtype, device=params.device)
        directions = (
            sensitivities.movedim(-1, 0),
            eye[:, None].expand(-1, len(params), -1),
        )
        pushed = push_tangents(self.observables, (y, params), directions)
        return pushed.movedim(0, -1)

    def truncate(self: Self, n_times: int) -> Self:
        """Return the same system with its first output times only.

        Parameters
        ----------
        n_times : int
            Output times to keep, at least one.

        Returns
        -------
        system : ODESystem
            A copy with the shorter time span.
        """
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

    def _hints(self, kind: str, letter: str) -> dict[str, str]:
        names = (
            self.state_names
            if kind == "state"
            else [*self.param_names, *self.constants]
        )
        return {name: f"it is a {kind}, write {letter}.{name}" for name in names}

    def _read_params(self, params: Mapping[Any, Any]) -> None:
        names = [n for key in _check_keys("params", params) for n in _as_tuple(key)]
        twice = [
            n
            for n in [*self.state_names, *names]
            if [*self.state_names, *names].count(n) > 1
        ]
        if twice:
            raise ValueError(
                f"States and params must have different names. Got {twice[0]!r} twice: "
                "call an unknown initial value otherwise, as in states={'x': 'x0'}."
            )
        self.constants = {
            key: float(value)
            for key, value in params.items()
            if isinstance(value, Real) and not isinstance(value, bool)
        }
        priors = {key: p for key, p in params.items() if key not in self.constants}
        if not priors:
            raise ValueError(
                "`params` must leave something to estimate: at least one with a prior, "
                f"such as (low, high). Got {dict(params)!r}."
            )
        self.prior = JointPrior(priors)
        self.param_names = list(self.prior.names)

    def _read_states(self, states: Mapping[str, Any]) -> None:
        """Sort initial values into numbers, params, and functions of them."""
        self._fixed: list[float] = []
        self._copied: list[int] = []
        self._computed: list[OneSample] = []
        kinds: list[list[int]] = [[], [], []]
        for i, (name, value) in enumerate(states.items()):
            value = (
                self.constants.get(value, value) if isinstance(value, str) else value
            )
            if isinstance(value, str):
                known = [*self.param_names, *self.constants]
                self._copied.append(
                    self._find(value, known, f"The state {name!r} starts at")
                )
                kinds[1].append(i)
            elif callable(value):
                what = f"`states[{name!r}]`"
                self._computed.append(OneSample(value, what, None, self._names[1], ()))
                kinds[2].append(i)
            else:
                self._fixed.append(_check_initial(name, value))
                kinds[0].append(i)
        self._order = np.argsort(np.concatenate(kinds)).astype(int).tolist()

    def _read_observe(self, observe: Any) -> None:
        """List what is reported, each as the index of a state or as a function."""
        if observe is None:
            observe = self.state_names
        if isinstance(observe, str):
            observe = [observe]
        if isinstance(observe, Sequence):
            observe = {name: name for name in observe}
        if not isinstance(observe, Mapping):
            raise TypeError(
                "`observe` must be a list of states or a dict of names with functions, as "
                f"in {{'cases': lambda t, y, p: 763 * y[0]}}. Got {observe!r}."
            )
        self.observable_names = _check_names("observe", observe)
        self._observe: list[Any] = []
        for name, source in observe.items():
            if isinstance(source, str):
                self._observe.append(
                    self._find(source, self.state_names, f"The observable {name!r} is")
                )
            else:
                what = f"`observe[{name!r}]`"
                self._observe.append(OneSample(source, what, *self._names, ()))
        self._observes_all = self._observe == list(range(self.n_states))

    @staticmethod
    def _find(name: str, known: Sequence[str], where: str) -> int:
        if name in known:
            return list(known).index(name)
        close = difflib.get_close_matches(name, known, 1)
        meant = f"did you mean {close[0]!r}?" if close else f"known are {list(known)}."
        raise ValueError(
            f"{where} {name!r}, which is not among the names known; {meant}"
        )

    def _check_nominal(self, nominal: Mapping[str, float] | None) -> np.ndarray:
        values = np.array(self.prior.median)
        if nominal is not None and not isinstance(nominal, Mapping):
            raise TypeError(
                "`nominal` must be a dict of params by name, as in "
                f"{{{self.param_names[0]!r}: {values[0]:g}}}. Got {nominal!r}."
            )
        for name, value in (nominal or {}).items():
            if name in self.prior.groups:
                values[self.prior.groups[name]] = value
            else:
                values[self._find(name, self.param_names, "`nominal` has")] = value
        for name, value, prior in zip(self.param_names, values, self.prior.marginals):
            low, high = prior.support
            if not low <= value <= high:
                raise ValueError(
                    "Every nominal value must be possible under its prior. Got "
                    f"{name!r} = {value:g}, whose prior {prior} allows [{low:g}, {high:g}]."
                )
        return values

    def _check_units(self, units: Mapping[str, Any] | None) -> dict[str, Any]:
        names = [*self.state_names, *self.param_names, *self.constants]
        known = [
            "time",
            "states",
            "params",
            "observables",
            *names,
            *self.observable_names,
        ]
        for name in units or {}:
            self._find(name, known, "`units` has")
        return dict(units or {})

    def _read_reference(self, reference: Any, invariants: Any) -> None:
        self.reference: Reference | None = None
        if reference is not None:
            time, states, source = reference
            states = np.asarray(states, dtype=float)
            _check_shape("reference states", states, (self.n_states,))
            self.reference = Reference(float(time), states, source)
        self.invariants = np.zeros((0, self.n_states))
        if invariants is not None:
            self.invariants = np.atleast_2d(np.asarray(invariants, dtype=float))
            n_rows = len(self.invariants)
            _check_shape("invariants", self.invariants, (n_rows, self.n_states))

    def _check(self) -> None:
        """Run all functions, and see that they are what a search can rely on."""
        params = torch.as_tensor(np.array(self.nominal))[None]
        for function in self._computed:
            function.check(params)
        y0 = self.initial_state(params)
        start = torch.as_tensor(self.times[:1])
        self._check_finite("The initial state", y0, "nominal params")
        for function in self._functions:
            function.check(start, y0, params)
        self._check_finite("`rhs`", self.rhs(start, y0, params), "first time")
        functions = [source for source in self._observe if not isinstance(source, int)]
        for function in functions:
            function.check(start, y0, params)

        t, y, params = self._points()
        checked = [("`rhs`", self.state_names, self.rhs)]
        checked += [
            (f.what, ["its value"], lambda *x, f=f: f(*x)[:, None]) for f in functions
        ]
        for what, names, function in checked:
            check_rows(what, function, (t, y, params))
            check_derivatives(what, names, partial(function, t), (y, params))
        check_derivatives("`states`", self.state_names, self.initial_state, (params,))
        if self.jac is not None:
            self._check_jac(t, y, params)
        by_params = [lambda p, f=f: f(t, y, p) for _, _, f in checked]
        idle = unused([self.initial_state, *by_params], params)
        idle_names = [n for n, i in zip(self.param_names, idle) if i]
        idle_names = [n for n in idle_names if n not in self.noise.param_names]
        if idle_names:
            warn_user(
                f"Nothing depends on the param(s) {idle_names}: neither `rhs`, `states`, "
                "`observe` nor `noise`. Their posterior will be their prior; is a name "
                "misspelled?",
                UserWarning,
            )

    def _points(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return times, states and params at which to check: not too special ones."""
        rng = np.random.RandomState(0)
        drawn = self.prior.draw(N_POINTS - 1, rng)
        params = torch.as_tensor(np.concatenate([self.nominal[None], drawn]))
        y = self.initial_state(params).detach()
        size = y.abs().amax(1, keepdim=True)
        size = torch.where(size > 0, size, torch.ones_like(size))
        share = torch.as_tensor(rng.uniform(0.01, 0.1, tuple(y.shape)))
        y = y + share * (y.abs() + 0.1 * size)
        t = np.linspace(self.times[0], self.times[-1], N_POINTS)
        return torch.as_tensor(t), y, params

    def _check_finite(self, what: str, values: Tensor, where: str) -> None:
        bad = ~values[0].isfinite()
        if bad.any():
            i = int(bad.nonzero()[0, 0])
            raise ValueError(
                f"{what} must be finite at the {where}. Got {values[0, i].item()} for "
                f"{self.state_names[i]!r}, at the params "
                f"{dict(zip(self.param_names, self.nominal.tolist()))}."
            )

    def _check_jac(self, t: Tensor, y: Tensor, params: Tensor) -> None:
        given = self.jac(t, y, params)
        found = rowwise_jacobian(lambda y: self.rhs(t, y, params), y)
        size = found.abs().amax()
        wrong = ((given - found).abs() > 1e-6 * (size + found.abs())).any(0)
        if wrong.any():
            i, j = wrong.nonzero()[0].tolist()
            raise ValueError(
                "`jac` must return df/dy, row by row. Automatic differentiation of `rhs` "
                f"finds {found[0, i, j]:g} in row {i}, column {j}; `jac` has "
                f"{given[0, i, j]:g}."
            )


def _as_tuple(key: Any) -> tuple:
    return key if isinstance(key, tuple) else (key,)


def _check_keys(what: str, given: Any) -> list[Any]:
    if not isinstance(given, Mapping) or not given:
        raise TypeError(
            f"`{what}` must be a dict with at least one name, as in "
            f"{{'x': {'(0, 1)' if what == 'params' else '1.0'}}}. Got {given!r}."
        )
    for name in [name for key in given for name in _as_tuple(key)]:
        if not isinstance(name, str) or not name:
            raise TypeError(f"Names in `{what}` must be text. Got {name!r}.")
    return list(given)


def _check_names(what: str, given: Any) -> list[str]:
    """Return the names; any text will do: y["2-PG"] where y.name cannot be written."""
    return [str(name) for name in _check_keys(what, given)]


def _check_initial(name: str, value: Any) -> float:
    if (
        isinstance(value, Real)
        and not isinstance(value, bool)
        and np.isfinite(float(value))
    ):
        return float(value)
    raise ValueError(
        f"The state {name!r} must start at a finite number, a param's name, or a function "
        f"of p. Got {value!r}."
    )


def _check_times(times: Any) -> np.ndarray:
    given = np.asarray(times)
    if given.dtype.kind not in "iuf":
        raise ValueError(
            "`times` must be numbers, in the unit of time of the rates. Got "
            f"{given.ravel()[:1].tolist()} ({given.dtype}). From dates, take "
            "(dates - dates[0]) / np.timedelta64(1, 'D') for days."
        )
    given = np.array(check_times(times))
    if len(given) < 2:
        raise ValueError(
            "`times` must hold at least two times: the first is where `states` hold. Got "
            f"{given.tolist()}. Put the start before it."
        )
    return given


def _check_shape(what: str, value: np.ndarray, shape: tuple[int, ...]) -> None:
    if value.shape != shape:
        raise ValueError(
            f"`{what}` must have shape {shape}, one entry per state. Got {value.shape} "
            "instead."
        )
