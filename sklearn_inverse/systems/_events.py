"""Events, doses and breakpoints: what happens to a system, as it is declared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from sklearn_inverse.ode import Event as BatchEvent
from sklearn_inverse.ode.compiled import Lasting
from sklearn_inverse.systems._declared import Source, find, read_value, value_of
from sklearn_inverse.systems._functions import Names, OneSample

__all__ = ["Dose", "Event", "Schedule"]


@dataclass(frozen=True)
class Event:
    """States that change at once: the solver stops there, and derivatives are exact.

    Parameters
    ----------
    time : float, str or callable, default=None
        A number, the name of a param, or a function of p.

    change : dict or callable, default=None
        New values of states by name: each a number, the name of a param, or a function
        of ``(t, y, p)``, of the state just before; or one such function that returns all
        states. If None, the solver only stops there, as at a breakpoint.

    when : callable, default=None
        Instead of ``time``: a function of ``(t, y, p)`` that crosses zero as it happens.
        That is looked for at all outputs and three times within each step: what comes
        and goes between is not seen. Where another event makes it jump over zero,
        nothing happens.

    direction : {-1, 0, 1}, default=0
        Whether ``when`` must fall (-1) or rise (1) through zero, or either (0).

    See Also
    --------
    Dose : What is added to a state, at once or over some time.

    Examples
    --------
    >>> from sklearn_inverse.systems import Event
    >>> Event(24.0, {"medium": 1.0, "cells": lambda t, y, p: p.kept * y.cells}).time
    24.0

    A ball that leaves the floor with a share of its speed:

    >>> bounce = Event(
    ...     when=lambda t, y, p: y.height,
    ...     direction=-1,
    ...     change={"speed": lambda t, y, p: -p.restitution * y.speed},
    ... )
    """

    time: Any = None
    change: Any = None
    when: Any = None
    direction: int = 0


@dataclass(frozen=True)
class Dose:
    """An amount that is added to a state, once or several times.

    Parameters
    ----------
    state : str
        Name of the state.

    amount : float, str or callable
        A number, the name of a param, or a function of p, in units of the state; or a
        list of these, one for each time.

    times : list of float, str or callable
        When: numbers, names of params, or functions of p.

    duration : float, str or callable, default=None
        How long each dose is infused, at a constant rate. If None, it is there at once.

    See Also
    --------
    Event : Any other change of states.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_inverse import ODESystem
    >>> from sklearn_inverse.systems import Dose
    >>> system = ODESystem(
    ...     lambda t, y, p: [-p.absorption * y.gut, p.absorption * y.gut - 0.1 * y.blood],
    ...     states={"gut": 0.0, "blood": 0.0},
    ...     params={"absorption": (0.5, 2), "dose": (50, 150)},
    ...     times=np.linspace(0, 48, 25),
    ...     events=[Dose("gut", amount="dose", times=[0, 24])],
    ... )
    """

    state: str
    amount: Any
    times: Any
    duration: Any = None


class Schedule:
    """What happens to a system, read from its declaration, for many samples at once.

    Parameters
    ----------
    events : sequence of Event or Dose
        As declared.

    breakpoints : sequence of float, str or callable
        Further times at which the right-hand side may jump.

    states, params : Names
        Of the system.

    Attributes
    ----------
    events : list of sklearn_inverse.ode.Event
        The same for ``solve_ivp``.

    functions : list of OneSample
        The user's functions.

    quantities : list of callable
        Times, amounts and durations as functions of the params.
    """

    def __init__(
        self,
        events: Sequence[Any],
        breakpoints: Sequence[Any],
        states: Names,
        params: Names,
    ):
        self._states, self._params = states, params
        self.events: list[BatchEvent] = []
        self.functions: list[OneSample] = []
        self.quantities: list[Quantity] = []
        self._infusions: list[tuple[int, Quantity, Quantity, Quantity, Quantity]] = []
        stops = []
        for event in _as_list("events", events, (Event, Dose)):
            if isinstance(event, Event):
                self.events.append(self._read_event(event))
            else:
                stops += self._read_dose(event)
        for time in _as_list("breakpoints", breakpoints, None):
            stops.append(self._quantity(time, "A breakpoint"))
        # At the time of a change, what the right-hand side does by itself comes last.
        self.events += [BatchEvent(time.plain) for time in stops]

    def infused(self, f: Tensor, t: Tensor, params: Tensor) -> Tensor:
        """Add what is infused at a time to rates of change (n_samples, n_states)."""
        if not self._infusions:
            return f
        columns = list(f.unbind(1))
        for place, start, end, amount, duration in self._infusions:
            during = (t >= start(params)) & (t < end(params))
            rate = amount(params) / duration(params)
            columns[place] = columns[place] + torch.where(during, rate, 0.0)
        return torch.stack(columns, dim=1)

    @property
    def infuses(self) -> bool:
        """Whether something is added to the rates of change."""
        return bool(self._infusions)

    def _read_event(self, event: Event) -> BatchEvent:
        """Return an event as ``solve_ivp`` takes it."""
        if (event.time is None) == (event.when is None):
            raise ValueError(
                "An event must have either `time` or `when`, a function of (t, y, p) that "
                f"crosses zero as it happens. Got {event!r}."
            )
        if event.direction not in (-1, 0, 1) or (
            event.direction and event.time is not None
        ):
            raise ValueError(
                "`direction` of an event must be -1, 0 or 1, and goes with `when`. Got "
                f"{event!r}."
            )
        change = self._read_change(event.change)
        if event.when is None:
            return BatchEvent(
                self._quantity(event.time, "The time of an event"), change
            )
        when = OneSample(
            event.when, "`when` of an event", self._states, self._params, ()
        )
        self.functions.append(when)
        return BatchEvent(when=when, change=change, direction=event.direction)

    def _read_dose(self, dose: Dose) -> list["Quantity"]:
        """Take a dose down; return at which times its rate jumps."""
        place = self._place(dose.state, "A dose goes to")
        where = f"the dose to {dose.state!r}"
        single = isinstance(dose.times, (str, Real)) or callable(dose.times)
        times = [dose.times] if single else list(dose.times)
        amounts = dose.amount
        if isinstance(amounts, (str, Real)) or callable(amounts):
            amounts = [amounts] * len(times)
        if len(amounts) != len(times):
            raise ValueError(
                f"There must be one amount of {where} for each of its {len(times)} times, "
                f"or one for all. Got {len(amounts)}."
            )
        if isinstance(dose.duration, Real) and not float(dose.duration) > 0:
            raise ValueError(
                f"The duration of {where} must be > 0, or None for all of it at once. Got "
                f"{dose.duration!r}."
            )
        stops = []
        for time, amount in zip(times, amounts):
            start = self._quantity(time, f"The time of {where}")
            size = self._quantity(amount, f"The amount of {where}")
            if dose.duration is None:
                self.events.append(BatchEvent(start.plain, Bolus(place, size)))
                continue
            what = f"The duration of {where}"
            duration = self._quantity(dose.duration, what)
            end = Quantity(*start.sources, *duration.sources)
            self._infusions.append((place, start, end, size, duration))
            stops += [start, end]
        return stops

    def _read_change(self, change: Any) -> "Change | OneSample | None":
        states, params = self._states, self._params
        if change is None:
            return None
        if callable(change):
            shape = (len(states.places),)
            function = OneSample(change, "`change` of an event", states, params, shape)
            self.functions.append(function)
            return function
        if not isinstance(change, Mapping) or not change:
            raise TypeError(
                "`change` of an event must be a dict of states, as in {'x': 1.0}, or a "
                f"function of (t, y, p). Got {change!r}."
            )
        new: dict[int, OneSample | Quantity] = {}
        for name, value in change.items():
            place = self._place(name, "`change` of an event has")
            if callable(value):
                what = f"`change[{name!r}]` of an event"
                function = OneSample(value, what, states, params, ())
                self.functions.append(function)
                new[place] = function
            else:
                new[place] = self._quantity(value, f"What an event makes of {name!r}")
        return Change(new)

    def _quantity(self, value: Any, what: str) -> "Quantity":
        source = read_value(value, what, self._params)
        if isinstance(source, OneSample):
            self.functions.append(source)
        self.quantities.append(Quantity(source))
        return self.quantities[-1]

    def _place(self, name: Any, where: str) -> int:
        return self._states.places[find(name, list(self._states.places), where)]


class Quantity(Lasting):
    """A sum of numbers, params and functions of params, for many samples."""

    kinds = ("p",)

    def __init__(self, *sources: Source):
        self.sources = sources

    @property
    def plain(self) -> "float | Quantity":
        """The number that it is, where no param decides it."""
        numbers = [source for source in self.sources if isinstance(source, float)]
        return sum(numbers) if len(numbers) == len(self.sources) else self

    def __call__(self, params: Tensor) -> Tensor:
        """Return one number for each sample."""
        first, *others = (value_of(source, params) for source in self.sources)
        return sum(others, start=first)


class Bolus(Lasting):
    """An amount that is added to a state at once."""

    def __init__(self, place: int, amount: Quantity):
        self.place, self.amount = place, amount

    def __call__(self, t: Tensor, y: Tensor, params: Tensor) -> Tensor:
        """Return the states after it."""
        columns = list(y.unbind(1))
        columns[self.place] = columns[self.place] + self.amount(params)
        return torch.stack(columns, dim=1)


class Change(Lasting):
    """New values of some states."""

    def __init__(self, new: dict[int, OneSample | Quantity]):
        self.new = new

    def __call__(self, t: Tensor, y: Tensor, params: Tensor) -> Tensor:
        """Return the states after it."""
        columns = list(y.unbind(1))
        for place, value in self.new.items():
            given = (t, y, params) if isinstance(value, OneSample) else (params,)
            columns[place] = value(*given)
        return torch.stack(columns, dim=1)


def _as_list(what: str, given: Any, kinds: tuple[type, ...] | None) -> list[Any]:
    """Return what was given as a list of objects of these kinds."""
    if isinstance(given, (str, *(kinds or ()))) or not hasattr(given, "__iter__"):
        raise TypeError(f"`{what}` must be a list. Got {given!r}: put it in brackets.")
    for one in given:
        if kinds is not None and not isinstance(one, kinds):
            raise TypeError(f"`{what}` must hold Event(…) and Dose(…). Got {one!r}.")
    return list(given)
