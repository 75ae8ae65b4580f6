"""Protocol: all experiments on a system, for many samples at once."""

import copy
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sklearn_inverse.ode import Event as BatchEvent
from sklearn_inverse.ode._rhs import rowwise_jacobian
from sklearn_inverse.systems._declared import (
    Source,
    find,
    read_initial,
    read_value,
    value_of,
)
from sklearn_inverse.systems._events import Schedule
from sklearn_inverse.systems._experiments import Experiment
from sklearn_inverse.systems._functions import TIMES, Names, OneSample
from sklearn_inverse.systems._inputs import Inputs, Table

__all__ = ["Protocol", "read_protocol"]


@dataclass
class Protocol:
    """All experiments on a system, for many samples at once.

    A sample has one *row* for each experiment, one after the other; its columns are
    those of :class:`Inputs`. Output times run through all experiments.

    Parameters
    ----------
    experiments : list of Experiment
        At least one, all with names.

    schedules : list of Schedule
        What happens in each of them alone.

    inputs : Inputs
        Where these stand.

    sources : list of list
        What each input is in each experiment: a number, a :class:`Table`, a column of a
        param, a function of p, or None where each sample has its own.

    initial : list of dict
        Initial values of states by position that differ in each experiment.
    """

    experiments: list[Experiment]
    schedules: list[Schedule]
    inputs: Inputs
    sources: list[list[Any]]
    initial: list[dict[int, Source]]

    def __post_init__(self) -> None:
        self._set_times()
        self.own_events = [list(schedule.events) for schedule in self.schedules]
        if self.inputs.experiment is None:
            return
        for e, events in enumerate(self.own_events):
            for i, event in enumerate(events):
                if event.when is not None:
                    guard = partial(_guard_in, self.inputs.experiment, e, event.when)
                    events[i] = event._replace(when=guard)

    def _set_times(self) -> None:
        """Lay out what belongs to the output times."""
        sizes = [len(e.times) for e in self.experiments]
        self.times = np.concatenate([e.times for e in self.experiments])
        self.first = np.concatenate([[0], np.cumsum(sizes)])
        self.experiment_of = np.repeat(np.arange(len(sizes)), sizes)
        self.place_of = np.concatenate([np.arange(1, n + 1) for n in sizes])
        longest = max(sizes)
        # The last time again where another experiment has more.
        grids = [
            [e.start, *e.times, *[e.times[-1]] * (longest - len(e.times))]
            for e in self.experiments
        ]
        self.t_eval = torch.tensor(np.array(grids, dtype=float))
        self._set_pieces()

    def _set_pieces(self) -> None:
        """Cut what varies with time into pieces that are linear, of all tables at once."""
        inputs, n = self.inputs, self.n_experiments
        cuts = []
        for e, sources in zip(self.experiments, self.sources):
            tables = [x.times for x in sources if isinstance(x, Table)]
            knots = np.unique(np.concatenate([[], *tables]))
            cuts.append(knots[(knots > e.start) & (knots <= e.times[-1])])
        n_knots = max(map(len, cuts))
        knots = np.full((n, n_knots), np.inf)
        pieces = np.zeros((n, n_knots + 1, inputs.n_columns))
        self.varies = torch.zeros(n, inputs.n_columns, dtype=torch.bool)
        if inputs.experiment is not None:
            pieces[..., inputs.experiment] = np.arange(n)[:, None]
        for i, (e, sources) in enumerate(zip(self.experiments, self.sources)):
            knots[i, : len(cuts[i])] = cuts[i]
            begin = np.append(e.start, cuts[i])
            begin = np.pad(begin, (0, n_knots + 1 - len(begin)), mode="edge")
            for name, source in zip(inputs.names, sources):
                level = inputs.level[name]
                if isinstance(source, float):
                    pieces[i, :, level] = source
                elif isinstance(source, Table):
                    both = [level, inputs.slope[name]]
                    self.varies[i, both] = True
                    pieces[i][:, both] = np.transpose(source.pieces(begin))
        self.knots, self.pieces = torch.tensor(knots), torch.tensor(pieces)

    @property
    def n_experiments(self) -> int:
        """How many there are."""
        return len(self.experiments)

    @property
    def open_inputs(self) -> list[str]:
        """The inputs that each sample brings itself, in any experiment."""
        return [
            name
            for i, name in enumerate(self.inputs.names)
            if any(sources[i] is None for sources in self.sources)
        ]

    @property
    def input_functions(self) -> list[OneSample]:
        """Functions of params that inputs are."""
        return [x for xs in self.sources for x in xs if isinstance(x, OneSample)]

    @property
    def initial_sources(self) -> list[Source]:
        """What states start at that start otherwise in an experiment."""
        return [source for own in self.initial for source in own.values()]

    @property
    def is_plain(self) -> bool:
        """Whether params are all that the columns hold."""
        return self.inputs.n_columns == self.inputs.n_params

    def rows(self, params: Tensor, given: Tensor | None = None) -> Tensor:
        """Return the columns (n_samples * n_experiments, n_columns) of samples.

        ``given`` (n_samples, n_open) are the inputs that samples bring themselves.
        """
        if self.is_plain:
            return params
        n, start = len(params), self.pieces[:, 0].to(params)
        place = {name: i for i, name in enumerate(self.open_inputs)}
        blocks = []
        for sources, known in zip(self.sources, start):
            columns = list(known.expand(n, -1).unbind(1))
            columns[: self.inputs.n_params] = params.unbind(1)
            for name, source in zip(self.inputs.names, sources):
                level = self.inputs.level[name]
                if source is None:
                    assert given is not None
                    columns[level] = given[:, place[name]]
                elif isinstance(source, int | OneSample):
                    columns[level] = value_of(source, params)
            blocks.append(torch.stack(columns, dim=1))
        return torch.stack(blocks, dim=1).flatten(0, 1)

    def row_slopes(self, params: Tensor) -> Tensor:
        """Return derivatives (n_rows, n_columns, n_params) of the rows by the params."""
        n, p = params.shape
        eye = torch.eye(self.inputs.n_columns, p, dtype=params.dtype).to(params.device)
        if self.is_plain:
            return eye.expand(n, -1, -1)
        slopes = eye.repeat(n * self.n_experiments, 1, 1)
        for e, sources in enumerate(self.sources):
            for name, source in zip(self.inputs.names, sources):
                rows = slopes[e :: self.n_experiments, self.inputs.level[name]]
                if isinstance(source, int):
                    rows[:, source] = 1.0
                elif isinstance(source, OneSample):
                    rows[:] = rowwise_jacobian(source, params)
        return slopes

    def times_of(self, rows: Tensor) -> Tensor:
        """Return output times (n_rows, n_times) of rows, the start before them."""
        t_eval = self.t_eval.to(rows)
        if self.n_experiments == 1:
            return t_eval.expand(len(rows), -1)
        return t_eval.repeat(len(rows) // self.n_experiments, 1)

    def events(self, rows: Tensor) -> list[BatchEvent]:
        """Return what happens to rows, for ``solve_ivp``."""
        index = self.inputs.index(rows)
        knots = [
            BatchEvent(times[index], None, self.at) for times in self.knots.to(rows).T
        ]
        return knots + self.declared_events(rows)

    def declared_events(self, rows: Tensor) -> list[BatchEvent]:
        """Return the events of experiments, each at its time in rows of its own."""
        index = self.inputs.index(rows)
        return [
            event
            if event.time is None
            else event._replace(time=self._only_in(e, event.time, index))
            for e, events in enumerate(self.own_events)
            for event in events
        ]

    def _only_in(self, e: int, time: Any, index: Tensor) -> Any:
        """Return the time of an event in one experiment, infinite in all others."""
        if self.n_experiments == 1:
            return time
        if not callable(time):
            return torch.where(index == e, float(time), torch.inf)
        return lambda rows: torch.where(
            self.inputs.index(rows) == e, time(rows), torch.inf
        )

    def infused(self, f: Tensor, t: Tensor, rows: Tensor) -> Tensor:
        """Add what is infused in each experiment to rates of change."""
        for e, schedule in enumerate(self.schedules):
            if not schedule.infuses:
                continue
            if self.inputs.experiment is None:
                f = schedule.infused(f, t, rows)
            else:
                here = (rows[:, self.inputs.experiment] == e)[:, None]
                f = torch.where(here, schedule.infused(f, t, rows), f)
        return f

    @property
    def infuses(self) -> bool:
        """Whether anything is added to the rates of change in any experiment."""
        return any(schedule.infuses for schedule in self.schedules)

    @property
    def equilibrates(self) -> bool:
        """Whether any experiment begins at a steady state."""
        return any(e.preequilibrate is not None for e in self.experiments)

    def resting_rows(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return rows under which systems come to rest before their experiments.

        Returns
        -------
        which : Tensor of shape (n_resting,)
            Numbers of the rows to which that happens.

        resting : Tensor of shape (n_resting, n_columns)
            Params and inputs then; what varies stands still.

        own : Tensor of bool of the same shape
            Which columns are those of the experiment.
        """
        index = self.inputs.index(rows)
        t = self.times_of(rows)[:, 0]
        resting, own = self.at(t, rows), torch.ones_like(rows, dtype=torch.bool)
        columns, owns = list(resting.unbind(1)), list(own.unbind(1))
        for name, slope in self.inputs.slope.items():
            level = self.inputs.level[name]
            columns[level] = columns[level] + columns[slope] * t
            columns[slope] = torch.zeros_like(t)
        which = torch.zeros(self.n_experiments, dtype=torch.bool)
        for e, experiment in enumerate(self.experiments):
            which[e] = experiment.preequilibrate is not None
            for name, value in (experiment.preequilibrate or {}).items():
                level = self.inputs.level[name]
                columns[level] = torch.where(index == e, float(value), columns[level])
                owns[level] = owns[level] & (index != e)
        chosen = torch.nonzero(which.to(rows.device)[index])[:, 0]
        return chosen, torch.stack(columns, 1)[chosen], torch.stack(owns, 1)[chosen]

    def starts(self, y0: Tensor, rows: Tensor) -> Tensor:
        """Return initial states (n_rows, n_states), with those of experiments alone."""
        if not any(self.initial):
            return y0
        columns, index = list(y0.unbind(1)), self.inputs.index(rows)
        for e, own in enumerate(self.initial):
            here = torch.nonzero(index == e)[:, 0]  # elsewhere it may not be finite
            for i, source in own.items():
                value = value_of(source, rows[here])
                columns[i] = columns[i].index_put((here,), value)
        return torch.stack(columns, dim=1)

    def outputs(self, of_rows: Tensor) -> Tensor:
        """Gather (n_rows, n_times + 1, …) to (n_samples, n_times, …), times in a row."""
        if self.n_experiments == 1:
            return of_rows[:, 1:]
        by_sample = of_rows.unflatten(0, (-1, self.n_experiments))
        return by_sample[:, self.experiment_of, self.place_of]

    def at(self, t: Tensor, rows: Tensor) -> Tensor:
        """Return rows with the pieces of what varies that hold at times (n_rows,)."""
        if not self.inputs.slope:
            return rows
        index = self.inputs.index(rows).cpu()
        piece = (self.knots[index] <= t.cpu()[:, None]).sum(1)
        known, varies = self.pieces[index, piece], self.varies[index]
        return torch.where(varies.to(rows.device), known.to(rows), rows)

    def measured(self, names: Sequence[str]) -> np.ndarray:
        """Return which observables are measured when, (n_times, n_channels)."""
        mask = np.ones((len(self.times), len(names)), dtype=bool)
        for e, experiment in enumerate(self.experiments):
            if experiment.observables is not None:
                here = np.isin(names, list(experiment.observables))
                mask[self.first[e] : self.first[e + 1]] = here
        return mask

    def elapsed(self) -> np.ndarray:
        """Return the share of its own experiment that is over at each output time."""
        spans = np.array([e.times[-1] - e.start for e in self.experiments])
        starts = np.array([e.start for e in self.experiments])
        spans = np.where(spans > 0, spans, 1.0)
        e = self.experiment_of
        return (self.times - starts[e]) / spans[e]

    def at_times(self, times: Sequence[np.ndarray]) -> "Protocol":
        """Return the same experiments looked at at other times."""
        other = copy.copy(self)
        other.experiments = [copy.copy(e) for e in self.experiments]
        for e, t in zip(other.experiments, times):
            object.__setattr__(e, "times", np.asarray(t, dtype=float))
        other._set_times()
        return other


def read_protocol(
    experiments: list[Experiment],
    known: Mapping[str, Any],
    states: Names,
    params: Names,
) -> Protocol:
    """Read what is declared of experiments; raise where it contradicts the system.

    ``known`` is what the system says of each input. The names of states and params learn
    of the inputs.
    """
    declared = []
    for e in experiments:
        for name in e.inputs or ():
            find(name, list(known), f"`inputs` of experiment {e.name!r} has")
        for name, value in (e.preequilibrate or {}).items():
            find(name, list(known), f"`preequilibrate` of experiment {e.name!r} has")
            if not isinstance(value, Real) or not np.isfinite(float(value)):
                raise TypeError(
                    f"`preequilibrate` must hold numbers. Got {value!r} for {name!r}."
                )
        declared.append([(e.inputs or {}).get(name, known[name]) for name in known])
        for name, value in zip(known, declared[-1]):
            if callable(value) and _first_argument(value) in TIMES:
                raise TypeError(
                    f"Input {name!r} of experiment {e.name!r} is a function of time. Give "
                    "its values in a Table(times, values), or compute it in `rhs`."
                )
    sources = [
        [
            value
            if value is None or isinstance(value, Table)
            else read_value(value, f"Input {name!r} of experiment {e.name!r}", params)
            for name, value in zip(known, values)
        ]
        for e, values in zip(experiments, declared)
    ]
    varying = [
        name
        for name, values in zip(known, zip(*sources))
        if any(isinstance(value, Table) for value in values)
    ]
    n_params = sum(isinstance(place, int) for place in params.places.values())
    inputs = Inputs(list(known), n_params, varying, len(experiments))
    if inputs.n_columns > n_params:
        params.inputs = inputs
        params.hints |= inputs.hints
        states.hints |= inputs.hints
    initial, schedules = [], []
    for e in experiments:
        own = e.initial or {}
        where = f"`initial` of experiment {e.name!r} has"
        places = [states.places[find(n, list(states.places), where)] for n in own]
        initial.append(dict(zip(places, read_initial(own, params))))
        schedules.append(Schedule(e.events, (), states, params))
    return Protocol(experiments, schedules, inputs, sources, initial)


def _first_argument(function: Any) -> str:
    try:
        return next(iter(inspect.signature(function).parameters), "")
    except (TypeError, ValueError):
        return ""


def _guard_in(column, e, when, t: Tensor, y: Tensor, rows: Tensor) -> Tensor:
    """Return what an event waits for in one experiment; in all others, nothing."""
    return torch.where(rows[:, column] == e, when(t, y, rows), 1.0)
