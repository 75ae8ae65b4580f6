"""Experiments: what is done to a system, and when it is looked at."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from sklearn_inverse.probability._priors import as_prior
from sklearn_inverse.systems._declared import (
    check_keys,
    check_times,
)
from sklearn_inverse.systems._inputs import Table

__all__ = ["Experiment", "read_experiments", "read_inputs"]

UNTIMED = (0.0, 1.0)  # of a system whose experiments are not known yet


@dataclass(frozen=True, eq=False)
class Experiment:
    """One of several experiments on the same params.

    Parameters
    ----------
    times : array-like of shape (n_times,)
        When it is looked at, in increasing order; a time that comes twice is measured
        twice.

    inputs : dict, default=None
        Inputs of the system by name: each a number, a :class:`Table`, the name of a
        param, or a function of p. Those left out are as the system has them, or given
        for each sample.

    initial : dict, default=None
        States that start otherwise here: numbers, names of params or inputs, or
        functions of p. What comes to rest before does so without them.

    events : list of Event or Dose, default=()
        What happens here besides the events of the system.

    observables : list of str, default=None
        What is measured here. If None, everything that the system reports.

    start : float, default=None
        When the states have their initial values. If None, at the first of ``times``.

    preequilibrate : dict, default=None
        Inputs, by name, under which the system has come to rest before the start; those
        left out are as in the experiment then. It begins at the steady state to which
        the system's own initial values lead. If None, at these.

    name : str, default=None
        Its name. If None, its number, from 1.

    See Also
    --------
    ODESystem.with_experiments : Where they go.

    Examples
    --------
    >>> from sklearn_inverse.systems import Dose, Experiment
    >>> low = Experiment([0, 1, 2], inputs={"temperature": 298.0}, name="cold")
    >>> fed = Experiment([1, 5], initial={"s": 2.0}, events=[Dose("s", 1.0, [3])], start=0)
    """

    times: Any
    inputs: Mapping[str, Any] | None = None
    initial: Mapping[str, Any] | None = None
    events: Sequence[Any] = ()
    observables: Sequence[str] | None = None
    start: Any = None
    preequilibrate: Mapping[str, Any] | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        if np.asarray(self.times).dtype.kind not in "iuf":
            raise ValueError(
                "`times` of an experiment must be numbers, in the unit of time of the "
                f"rates. Got {self.times!r}."
            )
        if self.name is not None and not (isinstance(self.name, str) and self.name):
            raise TypeError(
                f"The name of an experiment must be text. Got {self.name!r}."
            )
        times = np.array(self.times, dtype=float, ndmin=1)
        start = times[:1].sum() if self.start is None else float(self.start)
        if times.ndim != 1 or not len(times) or not np.isfinite([start, *times]).all():
            raise ValueError(
                f"`times` of an experiment must be finite numbers, one at least. Got "
                f"{self.times!r}."
            )
        if (np.diff([start, *times]) < 0).any():
            raise ValueError(
                f"`times` of an experiment must increase from its start, {start:g}. Got "
                f"{times.tolist()}."
            )
        for what in ("inputs", "initial", "preequilibrate"):
            value = getattr(self, what)
            if not isinstance(value, (Mapping, type(None))):
                raise TypeError(
                    f"`{what}` of an experiment must be a dict by name. Got {value!r}."
                )
        object.__setattr__(self, "times", times)
        object.__setattr__(self, "start", start)


def read_inputs(
    inputs: Any, taken: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what is known of each input, None if nothing, and priors of these."""
    if isinstance(inputs, str):
        raise TypeError(f"`inputs` must be a list of names, or a dict. Got {inputs!r}.")
    if not isinstance(inputs, Mapping):
        inputs = dict.fromkeys(inputs or ())
    if inputs:
        check_keys("inputs", inputs)
    known: dict[str, Any] = {}
    priors: dict[str, Any] = {}
    for name, value in inputs.items():
        if name in taken:
            raise ValueError(
                f"Inputs must have names of their own. Got {name!r}, which is a state or "
                "a param."
            )
        if value is None or isinstance(value, (Table, Real)):
            known[name] = value
        else:
            known[name], priors[name] = None, as_prior(value)
    return known, priors


def read_experiments(times: Any, experiments: Sequence[Any]) -> list[Experiment]:
    """Return the experiments, all with names; one where only times are given."""
    if isinstance(experiments, Experiment):
        raise TypeError("`experiments` must be a list. Put the experiment in brackets.")
    experiments = list(experiments)
    if experiments and times is not None:
        raise ValueError(
            "`times` must be left out where there are `experiments`, which have their own."
        )
    if not experiments:
        experiments = [Experiment(UNTIMED if times is None else check_times(times))]
    for e in experiments:
        if not isinstance(e, Experiment):
            raise TypeError(f"`experiments` must hold Experiment(…). Got {e!r}.")
    named = [
        e if e.name is not None else _renamed(e, str(i + 1))
        for i, e in enumerate(experiments)
    ]
    names = [e.name for e in named]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(
            f"Experiments must have different names. Got {twice[0]!r} twice."
        )
    return named


def _renamed(experiment: Experiment, name: str) -> Experiment:
    other = copy.copy(experiment)
    object.__setattr__(other, "name", name)
    return other
