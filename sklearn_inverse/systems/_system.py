"""ODESystem: everything the package needs to know about one model of the world."""

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from sklearn_inverse.ode import solve_ivp
from sklearn_inverse.ode._guards import Guards
from sklearn_inverse.ode._problem import kernel_of
from sklearn_inverse.ode._rhs import push_tangents
from sklearn_inverse.ode._steady import conserved, steady_state
from sklearn_inverse.ode.compiled import Untraceable, equations, trace
from sklearn_inverse.probability import JointPrior, NoiseModel, as_noise
from sklearn_inverse.systems._checks import check_system
from sklearn_inverse.systems._declared import (
    Together,
    check_keys,
    find,
    read_nominal,
    read_observe,
    read_start,
    split_params,
)
from sklearn_inverse.systems._events import Schedule
from sklearn_inverse.systems._experiments import (
    Experiment,
    read_experiments,
    read_inputs,
)
from sklearn_inverse.systems._functions import Names, OneSample
from sklearn_inverse.systems._protocol import read_protocol

__all__ = ["ODESystem", "Reference"]

Self = TypeVar("Self", bound="ODESystem")
COMPARED_POINTS = 8  # at which an instrument and its trace are compared
PRINTED = 12  # states whose equations are printed


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
    slice (``y[1:] - y[:-1]``). Arithmetic, NumPy's functions and torch's apply. What is
    known of each experiment is in ``u``, which may be their last argument.

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

    times : array-like of shape (n_times,), default=None
        Output times, increasing; the grid may be uneven. The first is the time at which
        ``states`` hold. None where ``experiments`` have theirs, or will have them.

    observe : list of str or dict, default=None
        What the instrument reports: states by name, or a dict of names, each with a
        function of ``(t, y, p)`` that returns a number, a state's name, or an
        :class:`Increment` of these since the time before. If None, all states.

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

    inputs : list of str or dict, default=None
        Names of what is known of each experiment, or sample, and used as ``u.name`` or
        by name where params are. In a dict, with what each is: a number or a
        :class:`Table`; a pair or a prior, from which training data draw it; or None.
        Unless it is known here or in its experiment, each sample brings its own: as
        ``inputs=`` of ``simulate``, ``fit``, ``posterior``.

    experiments : list of Experiment, default=()
        Several experiments on the same params, each with its own times, inputs, initial
        values, events and observables. Observations run through the times of the first,
        of the second, ….

    Attributes
    ----------
    state_names, param_names, observable_names : list of str
        Names; those of params are of the estimated ones.

    input_names : list of str
        Inputs that each sample brings itself.

    experiments : list of Experiment
        With their names; one where none were given.

    times : ndarray of shape (n_times,)
        Output times of all experiments, in a row.

    n_states, n_params, n_channels, n_times, n_inputs : int
        Sizes; a channel for each observable.

    prior : JointPrior
        What is believed of the params.

    input_prior : JointPrior or None
        From which the inputs of samples are drawn, if that is said of all of them.

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
    >>> print(system)
    ODESystem('epidemic', states=['infected', 'recovered'], params=['contact', 'seed'],
              observables=['cases'], n_times=15)
      infected' = contact*infected*(1 - infected - recovered) - 0.5*infected
      recovered' = 0.5*infected
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
        times: Any = None,
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
        inputs: Any = None,
        experiments: Sequence[Any] = (),
    ):
        given = {k: x for k, x in locals().items() if k not in ("self", "__class__")}
        self._given = given  # for the same with other experiments
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

        taken = [*self.state_names, *self.param_names, *more]
        known, ranges = read_inputs(inputs, taken)
        self.has_experiments = bool(experiments)
        self.is_timed = times is not None or self.has_experiments
        experiments = read_experiments(times, experiments)
        self.protocol = read_protocol(experiments, known, y_names, p_names)
        drawn = {name: ranges.get(name) for name in self.input_names}
        self.input_prior = JointPrior(drawn) if drawn and all(drawn.values()) else None
        # What ``states`` say, before experiments that start otherwise.
        self.common_start = read_start(states, p_names)
        self.alike = isinstance(next(iter(states.values())), Together)
        self.observable_names, self._instrument = read_observe(
            observe, y_names, p_names
        )
        for e in self.experiments:
            for one in e.observables or ():
                find(one, self.observable_names, f"Experiment {e.name!r} measures")
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
        named = ["time", "states", "params", "observables", *self.state_names, *known]
        named += [*self.param_names, *self.constants, *self.observable_names]
        for unit in self.units:
            find(unit, named, "`units` has")
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
    def times(self) -> np.ndarray:
        """Output times of all experiments, in a row."""
        return self.protocol.times

    def check_timed(self) -> None:
        """Raise ValueError where nobody has said yet when it is looked at."""
        if not self.is_timed:
            raise ValueError(
                f"{self.name!r} must have `times`, or `with_experiments([…])`, before it "
                "can be simulated or inverted. Got neither."
            )

    @property
    def experiments(self) -> list[Experiment]:
        """The experiments."""
        return self.protocol.experiments

    @property
    def input_names(self) -> list[str]:
        """Inputs that each sample brings itself."""
        return self.protocol.open_inputs

    @property
    def n_inputs(self) -> int:
        """Number of these."""
        return len(self.input_names)

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
        """Return dy/dt (n_samples, n_states) at times (n_samples,), states and params.

        Here and below, inputs stand behind the params: see :meth:`rows`.
        """
        return self._infused(self.undisturbed(t, y, params), t, params)

    def undisturbed(self, t: Tensor, y: Tensor, params: Tensor) -> Tensor:
        """Return dy/dt without what is infused."""
        if type(self).rhs is not ODESystem.rhs:
            return self.rhs(t, y, params)
        return self._rhs(t, y, params)

    def _infused(self, f: Tensor, t: Tensor, params: Tensor) -> Tensor:
        return self.protocol.infused(self.schedule.infused(f, t, params), t, params)

    @property
    def solved(self) -> Any:
        """What ``solve_ivp`` takes as ``rhs``: the same for copies of this system."""
        if self.kinetics is not None:
            return self.kinetics
        infuses = self.schedule.infuses or self.protocol.infuses
        return (
            self._rhs if type(self).rhs is ODESystem.rhs and not infuses else self.rhs
        )

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
        span = self.protocol.t_eval
        try:
            return self._kernel().model.breaks(span.min().item(), span.max().item())
        except Untraceable:
            return []

    def _kernel(self) -> Any:
        rows = self.nominal_rows()[:1]
        t, y = self.protocol.t_eval[0, :1], self.initial_state(rows)
        events = [*self.schedule.events, *self.protocol.declared_events(rows)]
        return kernel_of(self.solved, t, y, rows, guards=Guards(events))

    def rows(self, params: Tensor, inputs: Tensor | None = None) -> Tensor:
        """Return params, and inputs behind them, of each experiment of each sample.

        Parameters
        ----------
        params : Tensor of shape (n_samples, n_params)
            Params.

        inputs : Tensor of shape (n_samples, n_inputs), default=None
            The inputs that each sample brings itself; None will do if there are none.

        Returns
        -------
        rows : Tensor of shape (n_samples * n_experiments, n_columns)
            The experiments of the first sample, of the second, ….
        """
        return self.protocol.rows(params, inputs)

    def nominal_rows(self) -> Tensor:
        """Return the :meth:`rows` of the nominal params, at typical inputs."""
        inputs = torch.as_tensor(self.typical_inputs)
        return self.rows(torch.as_tensor(self.nominal)[None], inputs[None])

    @property
    def typical_inputs(self) -> np.ndarray:
        """Medians of the inputs that samples bring, ones where nothing is said of them."""
        prior = self.input_prior
        return np.ones(self.n_inputs) if prior is None else prior.median

    def draw_inputs(
        self, n_samples: int, rng: Any, method: str = "random"
    ) -> np.ndarray:
        """Draw the inputs that samples bring, of shape (n_samples, n_inputs)."""
        if self.n_inputs == 0:
            return np.empty((n_samples, 0))
        if self.input_prior is None:
            raise ValueError(
                f"`inputs` must be given, {self.input_names} of each sample, or drawn from "
                f"what the system says of them: inputs={{{self.input_names[0]!r}: (low, "
                "high), …}."
            )
        return self.input_prior.draw(n_samples, rng, method=method)

    def events_of(self, row: Tensor) -> list[float]:
        """Return when something declared happens in one of :meth:`rows`, once each."""
        rows = row[None]
        happens = [*self.schedule.events, *self.protocol.declared_events(rows)]
        times = [e.time(rows) if callable(e.time) else e.time for e in happens]
        known = {float(time) for time in times if time is not None}
        return sorted(time for time in known if np.isfinite(time))

    def initial_state(self, params: Tensor) -> Tensor:
        """Return states (n_samples, n_states) at the first time.

        Those from which it comes to rest, where an experiment begins at a steady state.
        """
        return self.protocol.starts(self.common_start(params), params)

    @property
    def start(self) -> Callable[[Tensor], Tensor]:
        """What ``solve_ivp`` takes as ``y0``: :meth:`initial_state`."""
        return self.initial_state if any(self.protocol.initial) else self.common_start

    def resting(self, t: Tensor, y: Tensor, params: Tensor) -> Tensor:
        """Return dy/dt as it is before an experiment: time stands still at its start."""
        starts = self.protocol.t_eval[:, 0].tolist()
        at = torch.full_like(t, starts[0])
        for e, start in enumerate(starts):
            if start != starts[0]:
                own = params[:, self.protocol.inputs.experiment] == e
                at = torch.where(own, start, at)
        return self.undisturbed(at, y, params)

    def at_rest(
        self, t: Tensor, y0: Tensor, rows: Tensor, **options: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return where states come to rest, which do, and projectors on what is conserved.

        ``options`` are those of ``solve_ivp``.
        """

        def run(t_eval: Tensor, y0: Tensor, params: Tensor) -> Any:
            return solve_ivp(self.resting, t_eval, y0, params, **options)

        span = self.protocol.t_eval
        longest = float((span[:, -1] - span[:, 0]).max())
        with torch.no_grad():
            kept = conserved(self.resting, t, y0, rows)
            rest = steady_state(run, self.resting, longest, t, y0, rows, kept)
        return *rest, kept

    def observables(self, y: Tensor, params: Tensor, t: Tensor | None = None) -> Tensor:
        """Turn states (n_samples, n_times, n_states) into what is reported of them.

        They are those of ``times``, or of other times ``t`` (n_samples, n_times).
        """
        places = self._instrument.places
        if places is not None:
            return y if places == list(range(self.n_states)) else y[..., places]
        points = (x.flatten(0, 1) for x in self._points(y, params, t))
        return self._instrument.report(
            self._instrument(*points).unflatten(0, y.shape[:2])
        )

    def linearized_observables(
        self,
        y: Tensor,
        params: Tensor,
        sensitivities: Tensor,
        slopes: Tensor | None = None,
        t: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Turn states and their derivatives (…, n_states, n_params) into observables'.

        ``slopes`` (n_rows, n_columns, n_params) are those of the rows, where inputs
        stand behind the params.
        """
        places = self._instrument.places
        if places is not None:
            if places != list(range(self.n_states)):
                sensitivities = sensitivities[:, :, places]
            return self.observables(y, params, t), sensitivities
        if slopes is None:
            eye = torch.eye(self.n_params, dtype=params.dtype, device=params.device)
            slopes = eye.expand(len(params), -1, -1)
        points = self._points(y, params, t)
        n = y.shape[:2].numel()
        some = torch.linspace(0, n - 1, COMPARED_POINTS).long()[:n]
        row, time = some // y.shape[1], some % y.shape[1]
        traced = self._instrument.traced(*(x[row, time] for x in points))
        if traced is None:
            along = sensitivities.movedim(-1, 0), slopes.movedim(-1, 0)
            observe = partial(self.observables, t=t)
            pushed = push_tangents(observe, (y, params), along).movedim(0, -1)
            return self.observables(y, params, t), pushed
        times, *others = (x.detach().numpy() for x in points)
        tangents = None, sensitivities.detach().numpy(), slopes[:, None].numpy()
        found = map(torch.as_tensor, traced.push((times[..., None], *others), tangents))
        values, pushed = map(self._instrument.report, found)
        return values, pushed

    def _points(self, y: Tensor, params: Tensor, t: Tensor | None) -> list[Tensor]:
        """Return where observables are seen: times, states and rows (n, n_times, …)."""
        if t is None:
            t = torch.as_tensor(self.times).to(y).expand(len(y), -1)
        rows = params[:, None].expand(-1, t.shape[1], -1)
        if self.protocol.inputs.slope:
            at = self.protocol.at(t.flatten(), rows.flatten(0, 1))
            rows = at.unflatten(0, t.shape)
        return [t, y, rows]

    def with_experiments(self: Self, experiments: Sequence[Experiment]) -> Self:
        """Return the same system, on which these experiments are made.

        Parameters
        ----------
        experiments : list of Experiment
            In the order in which observations run through them.

        Returns
        -------
        system : ODESystem
            Of the same kind.

        Examples
        --------
        >>> from sklearn_inverse.systems import Experiment, ODESystem
        >>> system = ODESystem(
        ...     lambda t, y, p, u: [-p.rate * (1 + u.light) * y.a], states={"a": 1.0},
        ...     params={"rate": (0.1, 2)}, inputs=["light"], noise=0.01,
        ... )
        >>> both = system.with_experiments([
        ...     Experiment([0, 1, 2], inputs={"light": 0}, name="dark"),
        ...     Experiment([0, 5], inputs={"light": 1.5}, name="bright"),
        ... ])
        >>> both.times
        array([0., 1., 2., 0., 5.])
        """
        return type(self)(**self._given | {"times": None, "experiments": experiments})

    def with_noise(self: Self, noise: Any) -> Self:
        """Return the same system measured with other noise, as for the constructor."""
        other = copy.copy(self)
        other.noise = other._read_noise(noise)
        other._given = self._given | {"noise": noise}
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
        """Return the same system with its first ``n_times`` output times only.

        With all of them, where there are several experiments.
        """
        if not 1 <= n_times <= self.n_times:
            raise ValueError(
                f"`n_times` must be between 1 and {self.n_times}, the number of output "
                f"times. Got {n_times!r} instead."
            )
        if len(self.experiments) > 1:
            return self  # the times of the first experiment would come first
        return self.at_times([self.times[:n_times]], self.noise.truncate(n_times))

    def at_times(self: Self, times: Sequence[np.ndarray], noise: NoiseModel) -> Self:
        """Return the same system looked at at other times of each experiment."""
        other = copy.copy(self)
        other.protocol, other.noise = self.protocol.at_times(times), noise
        return other

    def __deepcopy__(self: Self, memo: Any) -> Self:
        # Nothing changes a system once it is made: copies of estimators share it.
        return self

    def equations(self) -> list[str]:
        """Return the equations that ``rhs`` computes, written down from its trace.

        Returns
        -------
        lines : list of str
            One for each state; before them, where they would be long, those of what
            they share. Constants are their values.

        Raises
        ------
        Untraceable
            If ``rhs`` cannot be traced.
        """
        rows = self.nominal_rows()[:1]
        t, y = self.protocol.t_eval[0, :1], self.initial_state(rows)
        graph, nodes = trace(self.rhs, (t, y, rows))
        names = {("t", 0): "t"}
        columns = [*self.param_names, *self.protocol.inputs.column_names]
        for kind, known in (("y", self.state_names), ("p", columns)):
            names |= {(kind, i): name for i, name in enumerate(known)}
        return equations(graph, nodes.tolist(), self.state_names, names)

    def __str__(self) -> str:
        if self.n_states > PRINTED:
            return repr(self)
        try:
            lines = self.equations()
        except Untraceable as reason:
            lines = [f"equations unknown: {reason}"]
        return "\n".join([repr(self), *(f"  {line}" for line in lines)])

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
