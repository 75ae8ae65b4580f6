"""What the words of a system stand for: initial values, observables, times and names."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sklearn_inverse.ode.compiled import Lasting
from sklearn_inverse.systems._functions import Names, OneSample
from sklearn_inverse.systems._vocabulary import brief, meant
from sklearn_inverse.utils._validation import check_times as check_increasing

__all__ = [
    "Increment",
    "Instrument",
    "Source",
    "Start",
    "Together",
    "check_keys",
    "check_times",
    "find",
    "read_initial",
    "read_nominal",
    "read_observe",
    "read_start",
    "read_value",
    "split_params",
    "value_of",
]

Source = float | int | OneSample  # a known number, a column, or a function


def read_initial(states: Mapping[str, Any], names: Names) -> list[Source]:
    """Return what each state starts at: a number, a param's place, or a function."""
    return [
        read_value(
            value, f"The initial value of {name!r}", names, f"`states[{name!r}]`"
        )
        for name, value in states.items()
    ]


def read_value(value: Any, what: str, names: Names, code: str = "") -> Source:
    """Return a number, a param's place, or a function of p.

    ``what`` it is in words, and in ``code``, stands in error messages.
    """
    if isinstance(value, str):
        value = names.constants.get(value, value)
    if isinstance(value, str):
        places = {k: j for k, j in names.places.items() if isinstance(j, int)}
        if names.inputs is not None:
            still = names.inputs.constant.places
            places |= {k: names.inputs.level[k] for k in still}
        known = [*places, *names.constants]
        return places[find(value, known, f"{what} is")]
    if callable(value):
        return OneSample(value, code or what, None, names, ())
    if _is_number(value) and np.isfinite(float(value)):
        return float(value)
    raise ValueError(
        f"{what} must be a finite number, a param's name, or a function of p. Got "
        f"{value!r}."
    )


def value_of(source: Source, params: Tensor) -> Tensor:
    """Return what a source is worth at params, one number for each sample."""
    if isinstance(source, OneSample):
        return source(params)
    if isinstance(source, int):
        return params[:, source]
    return params.new_full((len(params),), source)


@dataclass(frozen=True)
class Together:
    """One function for what all states start at, or for all observables."""

    function: Any
    names: Sequence[str] = ()  # of observables


def read_start(states: Mapping[str, Any], names: Names) -> "Start":
    """Return what all states start at."""
    first = next(iter(states.values()))
    if not isinstance(first, Together):
        return Start(read_initial(states, names))
    shape = (len(states),)
    return Start([OneSample(first.function, "`states`", None, names, shape)])


class Start(Lasting):
    """What all states start at: a source for each, or one function of all."""

    kinds = ("p",)

    def __init__(self, sources: Sequence[Source]):
        self.sources = sources

    def __call__(self, params: Tensor) -> Tensor:
        """Return states (n_samples, n_states)."""
        first = self.sources[0]
        if isinstance(first, OneSample) and first.shape:
            return first(params)
        return torch.stack([value_of(x, params) for x in self.sources], dim=1)


@dataclass(frozen=True)
class Increment:
    """An observable that reports what something has grown by since the time before.

    Weekly counts are increments of a cumulative number: whatever the instrument reports
    is what has been added since its last output time, and since the start for the first.

    Parameters
    ----------
    of : str or callable
        A state's name, or a function of ``(t, y, p)``.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_inverse import GradientInverter, Increment, ODESystem
    >>> from sklearn_inverse.probability import Beta, LogUniform, NegativeBinomial
    >>> def epidemic(t, y, p):
    ...     new = p.contact * y.susceptible * y.infected
    ...     return -new, new - p.recovery * y.infected, new
    >>> system = ODESystem(
    ...     epidemic,
    ...     states={"susceptible": 1.0, "infected": "seed", "cumulative": 0.0},
    ...     params={"contact": (0.2, 1), "recovery": (0.1, 0.5), "reported": Beta(2, 5),
    ...             "seed": LogUniform(1e-7, 1e-2), "dispersion": (1, 100)},
    ...     times=7 * np.arange(16),
    ...     observe={"cases": Increment(lambda t, y, p: 1e5 * p.reported * y.cumulative)},
    ...     noise=NegativeBinomial("dispersion"),
    ... )
    """

    of: Any


class Instrument(Lasting):
    """What observables are made of: places of states, functions, increments of these.

    Or one function of all of them.
    """

    def __init__(self, sources: Sequence[Any]):
        self.sources = sources

    def __call__(self, t: Tensor, y: Tensor, params: Tensor) -> Tensor:
        """Return what is looked at (n, n_observables) at times (n,), states and rows."""
        columns = [
            y[:, source] if isinstance(source, int) else source(t, y, params)
            for source in self._inner
        ]
        return columns[0] if columns[0].ndim > 1 else torch.stack(columns, dim=1)

    @property
    def _inner(self) -> list[Any]:
        """What the increments are of."""
        inner = list(self.sources)
        for c, source in enumerate(inner):
            while isinstance(source, Increment):
                inner[c] = source = source.of
        return inner

    @property
    def functions(self) -> list[OneSample]:
        """The user's functions."""
        return [source for source in self._inner if isinstance(source, OneSample)]

    @property
    def places(self) -> list[int] | None:
        """Which states are reported, None unless that is all."""
        known = [source for source in self.sources if isinstance(source, int)]
        return known if len(known) == len(self.sources) else None

    def report(self, values: Tensor) -> Tensor:
        """Return what is reported of values (n, n_times, n_observables, …)."""
        columns = list(values.unbind(2))
        for c, source in enumerate(self.sources):
            while isinstance(source, Increment):
                columns[c] = columns[c].diff(dim=1, prepend=columns[c][:, :1])
                source = source.of
        return torch.stack(columns, dim=2)


def read_observe(
    observe: Any, states: Names, params: Names
) -> tuple[list[str], Instrument]:
    """Return the names of observables, and what they are made of."""
    known = list(states.places)
    if isinstance(observe, Together):
        names = list(observe.names)
        source = OneSample(observe.function, "`observe`", states, params, (len(names),))
        return names, Instrument([source])
    if observe is None:
        observe = known
    if isinstance(observe, str):
        observe = [observe]
    if isinstance(observe, Sequence):
        observe = {name: name for name in observe}
    if not isinstance(observe, Mapping):
        raise TypeError(
            "`observe` must be a list of states or a dict of names with functions, as "
            f"in {{'cases': lambda t, y, p: 763 * y[0]}}. Got {observe!r}."
        )
    check_keys("observe", observe)

    def read(name: str, source: Any) -> Any:
        if isinstance(source, Increment):
            return Increment(read(name, source.of))
        if isinstance(source, str):
            return states.places[find(source, known, f"The observable {name!r} is")]
        return OneSample(source, f"`observe[{name!r}]`", states, params, ())

    return list(observe), Instrument([read(*item) for item in observe.items()])


def split_params(
    params: Mapping[Any, Any], state_names: list[str]
) -> tuple[dict[Any, Any], dict[str, float]]:
    """Return priors of what is estimated, and values of what is known."""
    names = [*state_names, *check_keys("params", params)]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(
            f"States and params must have different names. Got {twice[0]!r} twice: "
            "call an unknown initial value otherwise, as in states={'x': 'x0'}."
        )
    constants = {
        key: float(value) for key, value in params.items() if _is_number(value)
    }
    priors = {key: prior for key, prior in params.items() if key not in constants}
    if not priors:
        raise ValueError(
            "`params` must leave something to estimate: at least one with a prior, such "
            f"as (low, high). Got {dict(params)!r}."
        )
    return priors, constants


def read_nominal(nominal: Any, prior: Any) -> np.ndarray:
    """Return nominal values of all params: medians of the prior where none are given."""
    values = np.array(prior.median)
    if nominal is not None and not isinstance(nominal, Mapping):
        raise TypeError(
            "`nominal` must be a dict of params by name, as in "
            f"{{{prior.names[0]!r}: {values[0]:g}}}. Got {nominal!r}."
        )
    for name, value in (nominal or {}).items():
        if name in prior.groups:
            values[prior.groups[name]] = value
        else:
            find(name, prior.names, "`nominal` has")
            values[prior.names.index(name)] = value
    for name, value, one in zip(prior.names, values, prior.marginals):
        low, high = one.support
        if not low <= value <= high:
            raise ValueError(
                "Every nominal value must be possible under its prior. Got "
                f"{name!r} = {value:g}, whose prior {one} allows [{low:g}, {high:g}]."
            )
    return values


def find(name: str, known: Sequence[str], where: str) -> str:
    """Return the name if it is known; else say which may be meant."""
    if name in known:
        return name
    ask = (
        meant(str(name), known).replace("did", "Did", 1) or f"Known are {brief(known)}."
    )
    raise ValueError(f"{where} {name!r}, which is not known here. {ask}")


def check_keys(what: str, given: Any) -> list[str]:
    """Return names; any text will do: y["2-PG"] where y.name cannot be written."""
    if not isinstance(given, Mapping) or not given:
        raise TypeError(
            f"`{what}` must be a dict with at least one name, as in "
            f"{{'x': {'(0, 1)' if what == 'params' else '1.0'}}}. Got {given!r}."
        )
    names = [n for key in given for n in (key if isinstance(key, tuple) else (key,))]
    for name in names:
        if not isinstance(name, str) or not name:
            raise TypeError(f"Names in `{what}` must be text. Got {name!r}.")
    return names


def check_times(times: Any) -> np.ndarray:
    """Return output times as numbers, at least two of them, increasing."""
    given = np.asarray(times)
    if given.dtype.kind not in "iuf":
        raise ValueError(
            "`times` must be numbers, in the unit of time of the rates. Got "
            f"{given.ravel()[:1].tolist()} ({given.dtype}). From dates, take "
            "(dates - dates[0]) / np.timedelta64(1, 'D') for days."
        )
    given = np.array(check_increasing(times))
    if len(given) < 2:
        raise ValueError(
            "`times` must hold at least two times: at the first, `states` hold. Got "
            f"{given.tolist()}. Put the start before it."
        )
    return given


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
