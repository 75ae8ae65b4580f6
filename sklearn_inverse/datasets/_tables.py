"""The lab's own table: one row per reading, turned into observations and back."""

import dataclasses
from collections import Counter

import numpy as np
from sklearn.utils import Bunch

from sklearn_inverse.datasets._columns import as_name, as_numbers, read_columns
from sklearn_inverse.systems import ODESystem
from sklearn_inverse.systems._vocabulary import brief, meant

__all__ = ["observations_from_table", "read_table", "table_from_observations"]

KNOWN = ("sample", "experiment", "time", "observable", "value", "noise", "unit")


def read_table(system, table, *, columns=None, start=0.0):
    """Read measured data from a table with one row per reading.

    Parameters
    ----------
    system : ODESystem
        What was measured.

    table : str, path, DataFrame or dict
        A CSV file, a data frame of pandas, polars or their kin, or columns by name; see
        :func:`observations_from_table`.

    columns : dict, default=None
        What columns are called in the table, by their names here, as in
        ``{"time": "t (min)"}``.

    start : float, default=0.0
        When the states have their initial values, in a system without times.

    Returns
    -------
    system : ODESystem
        The same, with the experiments of the table, and its noise if the table has some.

    observations : ndarray of shape (n_samples, n_times * n_channels)
        Readings, NaN where nothing was measured.

    See Also
    --------
    observations_from_table : Where samples have inputs, or noise, of their own.

    Examples
    --------
    >>> from sklearn_inverse import ODESystem
    >>> from sklearn_inverse.datasets import read_table
    >>> system = ODESystem(
    ...     lambda t, y, p, u: [-p.rate * u.light * y.a], states={"a": 1.0},
    ...     params={"rate": (0.1, 2)}, inputs=["light"], noise=0.02,
    ... )
    >>> system, observed = read_table(system, {
    ...     "experiment": ["dim", "dim", "bright", "bright"],
    ...     "light": [1, 1, 3, 3],
    ...     "time": [1, 2, 1, 1],
    ...     "value": [0.5, 0.27, 0.12, 0.14],
    ... })
    >>> system.times, observed
    (array([1., 2., 1., 1.]), array([[0.5 , 0.27, 0.12, 0.14]]))
    """
    data = observations_from_table(system, table, columns=columns, start=start)
    own = [*data.system.input_names] + ["noise"] * (data.noise_std is not None)
    if own:
        raise ValueError(
            f"In this table {own} differ from sample to sample: use "
            "observations_from_table, and hand its `inputs` and `noise_std` to the "
            "inverter with the observations."
        )
    return data.system, data.observations


def observations_from_table(system, table, *, columns=None, start=0.0):
    """Turn a table with one row per reading into observations.

    Its columns are ``time`` and ``value``; ``observable``, where the system reports
    several; ``experiment``, where there are several; ``sample``, where there are several;
    ``noise``, the standard deviation of each reading; ``unit``, which must be what the
    system says; and the inputs of the system by their names. Others are left alone.

    What was read twice is there twice. Times that the system does not have are added.

    Parameters
    ----------
    system : ODESystem
        What was measured. Experiments that it has are found by their names; without
        any, those of the table are made.

    table : str, path, DataFrame or dict
        A CSV file, a data frame of pandas, polars or their kin, or columns by name.

    columns : dict, default=None
        What columns are called in the table, by their names here.

    start : float, default=0.0
        When the states have their initial values, in a system without times.

    Returns
    -------
    data : Bunch
        With the entries

        system : ODESystem
            The same, with the experiments of the table; with its noise, if that is the
            same in all samples.
        observations : ndarray of shape (n_samples, n_times * n_channels)
            Readings, NaN where nothing was measured.
        inputs : ndarray of shape (n_samples, n_inputs)
            Inputs that differ from sample to sample, in the order of
            ``system.input_names``.
        noise_std : ndarray shaped like the observations, or None
            Noise of each reading, where that differs from sample to sample.
        samples : list
            What the samples are called.

    Raises
    ------
    ValueError
        If columns are missing, names are unknown, or entries contradict each other.

    See Also
    --------
    table_from_observations : The reverse.

    Examples
    --------
    >>> from sklearn_inverse.datasets import observations_from_table
    >>> from sklearn_inverse.problems import lotka_volterra
    >>> data = observations_from_table(lotka_volterra(times=[0, 1, 2]), {
    ...     "time": [1.0, 1.5, 1.5], "observable": ["hare", "lynx", "lynx"],
    ...     "value": [31.0, 4.2, 4.4],
    ... })
    >>> data.system.times
    array([0. , 1. , 1.5, 1.5, 2. ])
    """
    if not isinstance(system, ODESystem):
        raise TypeError(f"`system` must be an ODESystem. Got {system!r} instead.")
    rows = _Rows(system, read_columns(table), columns or {})
    experiments = _experiments(system, rows, start)
    inputs, by_experiment = _inputs(system, rows)
    experiments = [_told(e, by_experiment.get(e.name, {})) for e in experiments]
    system = system.with_experiments(experiments)
    index = rows.places(experiments)
    shape = len(rows.samples), system.n_times, system.n_channels
    observations = np.full(shape, np.nan)
    observations[index] = rows.value
    noise = None
    if rows.noise is not None:
        noise = np.full(shape, np.nan)
        noise[index] = rows.noise
        spread = np.nanmax(noise, axis=0, initial=-np.inf)
        if (np.isnan(noise) | (noise == spread)).all():
            known = np.where(np.isfinite(spread), spread, np.nanmax(noise))
            names = system.observable_names
            system = system.with_noise(dict(zip(names, known.T)))
            noise = None
    unknown = [name for name in system.input_names if name not in inputs]
    if unknown:
        ask = meant(unknown[0], rows.unused) or f"It has {brief(rows.unused)} besides."
        raise ValueError(
            f"The table must have a column for each input {unknown} that the system does "
            f"not know. {ask[0].upper()}{ask[1:]}"
        )
    told = [inputs[name] for name in system.input_names]
    return Bunch(
        system=system,
        observations=observations.reshape(len(observations), -1),
        inputs=np.column_stack([np.empty((len(observations), 0)), *told]),
        noise_std=None if noise is None else noise.reshape(len(noise), -1),
        samples=rows.samples,
    )


def table_from_observations(system, observations, *, samples=None):
    """Write observations as columns with one entry per reading.

    Parameters
    ----------
    system : ODESystem
        What was measured.

    observations : array-like of shape (n_samples, n_times * n_channels) or \
(n_samples, n_times, n_channels)
        Readings; nothing is written of those that are NaN.

    samples : list, default=None
        What the samples are called. If None, 0, 1, 2, ….

    Returns
    -------
    columns : dict
        ``sample``, ``experiment``, ``time``, ``observable`` and ``value``: what
        :func:`observations_from_table` reads, and data frames are made of.

    Examples
    --------
    >>> from sklearn_inverse.datasets import table_from_observations
    >>> from sklearn_inverse.problems import lotka_volterra
    >>> system = lotka_volterra(times=[0, 1])
    >>> table_from_observations(system, [[30.0, 4.0, float("nan"), 5.0]])["observable"]
    ['hare', 'lynx', 'lynx']
    """
    shape = -1, system.n_times, system.n_channels
    observations = np.asarray(observations, dtype=float).reshape(shape)
    samples = list(range(len(observations)) if samples is None else samples)
    names = [e.name for e in system.experiments]
    which = system.protocol.experiment_of
    i, t, c = np.nonzero(~np.isnan(observations))
    return {
        "sample": [samples[n] for n in i],
        "experiment": [names[which[n]] for n in t],
        "time": system.times[t].tolist(),
        "observable": [system.observable_names[n] for n in c],
        "value": observations[i, t, c].tolist(),
    }


class _Rows:
    """The readings of a table: one entry per row that holds a value."""

    def __init__(self, system, table, renamed):
        self.system, table = system, dict(table)
        for name, given in renamed.items():
            if given not in table:
                raise ValueError(_missing(given, table, f"for {name!r}, "))
            table[name] = table.pop(given)
        for name in ("time", "value"):
            if name not in table:
                raise ValueError(_missing(name, table, ""))
        known = [*KNOWN, *system.protocol.inputs.names]
        self.unused = [name for name in table if name not in known]
        for name in self.unused:
            close = meant(str(name).lower(), [n for n in known if n not in table])
            if close:
                raise ValueError(
                    f"The table has a column {name!r}; {close} Rename it by `columns`, or "
                    "leave it away."
                )
        value = as_numbers("value", table["value"], empty_is_nan=True)
        kept = np.flatnonzero(~np.isnan(value))
        if not len(kept):
            raise ValueError("The table must hold at least one value. Got none.")
        self.value = value[kept]

        def column(name, default=None):
            given = table.get(name)
            return [default] * len(kept) if given is None else [given[i] for i in kept]

        self.time = as_numbers("time", column("time"))
        names = system.observable_names
        several = [e.name for e in system.experiments]
        if "experiment" not in table and len(several) > 1:
            raise ValueError(
                _missing("experiment", table, f"one of {brief(several)}, ")
            )
        if "observable" not in table and len(names) > 1:
            raise ValueError(_missing("observable", table, f"one of {brief(names)}, "))
        observable = column("observable", names[0])
        experiments = column("experiment", system.experiments[0].name)
        self.experiment = [as_name(name) for name in experiments]
        sample = column("sample", 0)
        self.samples = list(dict.fromkeys(sample))
        self.sample = np.array([self.samples.index(name) for name in sample])
        self.channel = np.array([_place(name, names) for name in observable])
        self._check_measured()
        self.noise = None
        if "noise" in table:
            self.noise = as_numbers("noise", column("noise"))
            if not (self.noise > 0).all():
                raise ValueError(
                    f"`noise` in the table must be > 0. Got {self.noise.min():g}."
                )
        self._check_units(column("unit"))
        self.inputs = {
            name: as_numbers(name, column(name))
            for name in system.protocol.inputs.names
            if name in table
        }

    def _check_measured(self):
        """Refuse readings of what an experiment does not measure."""
        measured = {e.name: e.observables for e in self.system.experiments}
        for experiment, channel in zip(self.experiment, self.channel):
            name, own = self.system.observable_names[channel], measured.get(experiment)
            if own is not None and name not in own:
                raise ValueError(
                    f"Experiment {experiment!r} measures {list(own)}. Got a reading of "
                    f"{name!r}."
                )

    def _check_units(self, units):
        """Refuse readings in other units than those of the system."""
        said = self.system.units
        for unit, channel in zip(units, self.channel):
            name = self.system.observable_names[channel]
            states = {
                s: said["states"] for s in self.system.state_names if "states" in said
            }
            own = (states | said).get(name, said.get("observables"))
            if unit is not None and own is not None and as_name(unit) != own:
                raise ValueError(
                    f"Readings of {name!r} must be in {own!r}, as the system says. Got "
                    f"{unit!r}: convert them, or state other `units`."
                )

    def places(self, experiments):
        """Return where each reading goes: samples, times and channels."""
        times = np.concatenate([e.times for e in experiments])
        owner = np.repeat(
            [e.name for e in experiments], [len(e.times) for e in experiments]
        )
        seen, found = Counter(), []
        for row in zip(self.sample, self.experiment, self.time, self.channel):
            _, experiment, t, _ = row
            here = np.flatnonzero((owner == experiment) & (times == t))
            found.append(here[seen[row]])
            seen[row] += 1
        return self.sample, np.array(found), self.channel


def _experiments(system, rows, start):
    """Return the experiments of a system, with all times of the table."""
    read = list(dict.fromkeys(rows.experiment))
    known = {e.name: e for e in system.experiments}
    if system.has_experiments:
        for name in read:
            if name not in known:
                ask = meant(name, known) or f"it has {brief(known)}"
                raise ValueError(f"The system has no experiment {name!r}; {ask}.")
        experiments = list(known.values())
    else:
        # What is known of the one experiment holds of each in the table.
        experiments = [dataclasses.replace(system.experiments[0], name=n) for n in read]
    extended = []
    for e in experiments:
        begin = e.start if system.is_timed else float(start)
        grid = Counter(e.times.tolist() if system.is_timed else [])
        own = np.array([name == e.name for name in rows.experiment], dtype=bool)
        grid |= _repeats(rows, own)
        times = sorted(grid.elements())
        if not times:
            times = [begin]
        if times[0] < begin:
            raise ValueError(
                f"Times of experiment {e.name!r} must not lie before its start, "
                f"{begin:g}. Got {times[0]:g}; give its start as `start`."
            )
        extended.append(dataclasses.replace(e, times=times, start=begin))
    return extended


def _told(experiment, inputs):
    """Return an experiment with the inputs of the table; refuse others than its own."""
    own = dict(experiment.inputs or {})
    for name, value in inputs.items():
        if name in own and own[name] != value:
            raise ValueError(
                f"The table and the system must agree on the input {name!r} of experiment "
                f"{experiment.name!r}. Got {value:g} and {own[name]!r}."
            )
    return (
        dataclasses.replace(experiment, inputs=own | inputs) if inputs else experiment
    )


def _repeats(rows, own):
    """Return how often each time is needed: as often as anything is read then."""
    most = Counter()
    reads = zip(rows.sample[own], rows.time[own].tolist(), rows.channel[own])
    for (_, t, _), n in Counter(reads).items():
        most[t] = max(most[t], n)
    return most


def _inputs(system, rows):
    """Return inputs of each sample, and those that are the same in all, by experiment."""
    by_sample, by_experiment = {}, {}
    experiment = np.array(rows.experiment)
    for name, values in rows.inputs.items():
        in_experiment, in_sample = (
            _constant(values, groups) for groups in (experiment, rows.sample)
        )
        if in_experiment is not None:
            for e, value in in_experiment.items():
                by_experiment.setdefault(e, {})[name] = value
        elif in_sample is not None:
            by_sample[name] = np.array([in_sample[i] for i in range(len(rows.samples))])
        else:
            raise ValueError(
                f"The input {name!r} must be one number in each experiment, or for each "
                "sample. Got several: what varies with time is a Table in `inputs` of the "
                "experiment."
            )
    return by_sample, by_experiment


def _constant(values, groups):
    """Return the one value of each group, None if any has several."""
    found = {}
    for group, value in zip(groups.tolist(), values.tolist()):
        if found.setdefault(group, value) != value:
            return None
    return found


def _place(name, known):
    if as_name(name) in known:
        return known.index(as_name(name))
    ask = meant(as_name(name), known) or f"it reports {brief(known)}"
    raise ValueError(
        f"The table reads {name!r}, which the system does not report; {ask}."
    )


def _missing(name, table, what):
    ask = meant(name, list(table)) or f"it has {brief(table)}"
    return (
        f"The table must have a column {name!r}; {what}{ask}. If it is called otherwise "
        f"there, say columns={{{name!r}: …}}."
    )
