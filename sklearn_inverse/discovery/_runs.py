"""Measured runs, in whichever form they come, and the pieces that are fitted."""

from typing import NamedTuple

import numpy as np

from sklearn_inverse.datasets._columns import DATES, as_name, as_numbers, read_columns

__all__ = ["Run", "Shots", "as_runs", "in_order", "largest_of", "plain", "scatter"]

NORMAL = 0.6744897501960817  # median of |x| of a standard normal x
FORMS = (
    "`trajectories` must be an array of shape (n_times, n_states) or (n_runs, n_times, "
    "n_states), a list of runs of shape (n_times, n_states), or a table with columns "
    "'time', 'observable' and 'value'"
)


class Run(NamedTuple):
    """States that were measured at increasing times, NaN where one was not."""

    times: np.ndarray  # (n_times,)
    states: np.ndarray  # (n_times, n_states)
    noise: np.ndarray  # the same; of readings, in units of that of their state


def as_runs(trajectories, times, state_names=None, noise=None):
    """Return runs, and the names of their states.

    Points at which nothing was measured are left out. ``noise`` has one entry for each run.
    """
    if state_names is not None:
        state_names = np.asarray(
            state_names
        ).tolist()  # of an array, not NumPy's strings
    table = times is None
    if table:
        runs, names = _from_table(trajectories)
        if state_names is not None:
            missing = [name for name in state_names if name not in names]
            if missing:
                raise ValueError(
                    f"The table must have readings of the states {state_names}. Got none "
                    f"of {missing}, but of {names}."
                )
            order = [names.index(name) for name in state_names]
            runs = [Run(t, y[:, order], sd[:, order]) for t, y, sd in runs]
            names = list(state_names)
    else:
        trajectories, names = in_order(trajectories, state_names)
        runs = _from_arrays(trajectories, times)
        d = runs[0].states.shape[1]
        names = list(names or [f"y{i + 1}" for i in range(d)])
    _check_names(names, runs[0].states.shape[1])
    if noise is not None:
        runs = _with_noise(runs, noise)
    kept = []
    for i, (t, y, noise) in enumerate(runs):
        if len(t) != len(y):
            raise ValueError(
                f"`times` must be one per point. Got {len(t)} times and {len(y)} points in "
                f"run {i}."
            )
        if np.isinf(y).any():
            raise ValueError(
                f"`trajectories` must be finite, or NaN where nothing was measured. Got "
                f"infinity in run {i}."
            )
        if not np.isfinite(t).all() or not (np.diff(t) > 0).all():
            raise ValueError(
                f"`times` must be finite and increase strictly. Those of run {i} do not: "
                "sort the points; average those measured at the same time, or make them "
                "runs of their own."
            )
        seen = ~np.isnan(y).all(axis=1)
        kept.append(Run(t[seen], y[seen], noise[seen]))
    never = np.isnan(np.concatenate([run.states for run in kept])).all(axis=0)
    if never.any():
        raise ValueError(
            f"Every state must be measured. Got nothing but NaN of "
            f"{names[int(np.argmax(never))]!r}: leave it out, or write the equations down "
            "and use an inverter."
        )
    return kept, names


def _with_noise(runs, noise):
    """Return runs with the noise of their readings."""
    try:
        if len(runs) == 1 and len(noise) != 1:
            noise = [noise]
        parts = [np.asarray(sd, dtype=float) for sd in noise]
        made = []
        for run, sd in zip(runs, parts, strict=True):
            if run.states.shape[1] == 1 and sd.shape == (len(run.states),):
                sd = sd[:, None]
            made.append(
                run._replace(noise=run.noise * np.broadcast_to(sd, run.noise.shape))
            )
    except (TypeError, ValueError) as error:
        raise ValueError(
            "`noise_std` of readings must be a list of positive arrays, one for each of "
            f"{len(runs)} run(s), of shape (n_states,) or (n_times, n_states). Got "
            f"{len(noise)}: {error}."
        ) from error
    for i, (_, y, n) in enumerate(made):
        wrong = n[~np.isnan(y) & (~(n > 0) | np.isinf(n))]
        if len(wrong):
            raise ValueError(
                f"`noise_std` must be positive and finite. Got {wrong[0]} in run {i}."
            )
    return made


def _check_names(names, n_states):
    if len(names) != n_states:
        raise ValueError(
            "`trajectories` must have one column for each of the states, which are called "
            f"{names}. Got {n_states} column(s)."
        )
    if len(set(names)) < len(names):
        raise ValueError(f"Names of states must be different. Got {names}.")
    for name in names:
        if not str(name).isidentifier():
            raise ValueError(
                f"Names of states must be words, as in Python. Got {name!r}: rename it."
            )


def in_order(trajectories, names=None):
    """Return trajectories whose columns are in the order of names, and these.

    Names are those of the first data frame if None; columns of others have none.
    """
    several = isinstance(trajectories, (list, tuple)) or (
        isinstance(trajectories, np.ndarray)
        and trajectories.dtype == object
        and trajectories.ndim > 0
    )
    parts = list(trajectories) if several else [trajectories]
    for i, part in enumerate(parts):
        columns = list(getattr(part, "columns", ()))
        if columns and all(isinstance(name, str) for name in columns):
            names = names or columns
            if len(columns) != len(names) or set(columns) != set(names):
                raise ValueError(
                    f"The columns of data frames must be the states {names}, in any order. "
                    f"Got {columns}: rename or select them, or pass an array, whose "
                    "columns are taken as they stand."
                )
            if columns != names:
                part = part[names]
        parts[i] = plain(part)
    return (parts if several else parts[0]), names


def plain(values):
    """Return values with NaN where they are masked; of a tensor, without its gradients."""
    if isinstance(values, np.ma.MaskedArray):
        return values.astype(float).filled(np.nan)
    return values.detach().cpu() if hasattr(values, "detach") else values


def _from_arrays(trajectories, times):
    try:
        whole = np.asarray(trajectories, dtype=float)
    except (TypeError, ValueError):
        whole = None
    if whole is not None and whole.ndim == 1:
        whole = whole[:, None]
    if whole is not None and whole.ndim == 2:
        runs, times = [whole], [times]
    elif whole is not None and whole.ndim == 3:
        runs = list(whole)
    elif whole is None and isinstance(trajectories, (list, tuple)):
        runs = [_numbers(FORMS, run) for run in trajectories]
    else:
        kind, shape = type(trajectories).__name__, f"shape {np.shape(whole)}"
        raise ValueError(f"{FORMS}. Got {kind if whole is None else shape}.")
    if not runs or any(r.ndim != 2 or not r.size for r in runs):
        raise ValueError(f"{FORMS}. Got shapes {[r.shape for r in runs]}.")
    if len({run.shape[1] for run in runs}) > 1:
        raise ValueError(
            "All runs must have the same states. Got runs of "
            f"{sorted({run.shape[1] for run in runs})} states."
        )
    if len(times) and np.ndim(next(iter(times))) == 0:  # the same for all
        times = [times] * len(runs)
    if len(times) != len(runs):
        raise ValueError(
            "`times` must be the times of all runs, or one array for each of them. Got "
            f"{len(times)} for {len(runs)} run(s)."
        )
    what = "`times` must be one array of numbers, or one for each run"
    times = [_numbers(what, plain(_without_dates(t))) for t in times]
    if any(t.ndim != 1 for t in times):
        raise ValueError(f"{what}. Got shapes {[t.shape for t in times]}.")
    return [Run(t, y, np.ones_like(y)) for t, y in zip(times, runs)]


def _without_dates(values):
    """Refuse dates, which NumPy would take for numbers, in a unit of their own."""
    first = next(iter(values), None) if np.iterable(values) else values
    if isinstance(first, DATES):
        raise ValueError(
            f"`times` must be numbers. Got {first!r}: take the days since the first, say."
        )
    return values


def _numbers(what, values):
    try:
        return np.asarray(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what}. Got {type(values).__name__}: {error}.") from error


def _from_table(table):
    """Return one run for each sample and experiment of a table of readings."""
    if isinstance(table, (list, tuple, np.ndarray)):
        raise ValueError(f"`times` must be given with arrays; {FORMS}. Got no times.")
    columns = read_columns(table)
    missing = [c for c in ("time", "observable", "value") if c not in columns]
    if missing:
        raise ValueError(f"{FORMS}. Got no column {missing}, only {list(columns)}.")
    time = as_numbers("time", columns["time"])
    value = as_numbers("value", columns["value"], empty_is_nan=True)
    observable = [as_name(name) for name in columns["observable"]]
    names = list(dict.fromkeys(observable))
    which = [columns.get(c, [0] * len(time)) for c in ("sample", "experiment")]
    keys = list(zip(*which))
    runs = []
    for key in dict.fromkeys(keys):
        rows = [i for i, k in enumerate(keys) if k == key]
        t, place = np.unique(time[rows], return_inverse=True)
        cells = place * len(names) + [names.index(observable[i]) for i in rows]
        known = ~np.isnan(value[rows])
        size = len(t) * len(names)
        count = np.bincount(cells[known], minlength=size)  # repeats are averaged
        total = np.bincount(cells[known], value[rows][known], minlength=size)
        mean = np.divide(total, count, out=np.full(size, np.nan), where=count > 0)
        noise = 1 / np.sqrt(np.maximum(count, 1))  # of means of such of noise 1
        shape = len(t), len(names)
        runs.append(Run(t, mean.reshape(shape), noise.reshape(shape)))
    return runs, names


def largest_of(runs):
    """Return the largest size of each state; 1 where it is always 0."""
    largest = np.nanmax(abs(np.concatenate([run.states for run in runs])), axis=0)
    return np.where(largest > 0, largest, 1.0)


def scatter(runs):
    """Return how much each state scatters about polynomials through its neighbors.

    In units of the noise of its readings: the normal standard deviation that the median
    of what they miss says. A line through one on either side, or a cubic through two,
    whichever misses less; curves only add. NaN where a state has no three readings in a
    row.
    """
    found = []
    for state in range(runs[0].states.shape[1]):
        seen = [
            (t[ok := ~np.isnan(y[:, state])], y[ok, state], noise[ok, state])
            for t, y, noise in runs
        ]
        sizes = []
        for n_sides in (1, 2):
            left = [_unlike_neighbors(*run, n_sides) for run in seen]
            left = np.concatenate(left)
            sizes.append(np.median(abs(left)) / NORMAL if len(left) else np.nan)
        found.append(sizes[0] if np.isnan(sizes[1]) else min(sizes))
    return np.array(found)


def _unlike_neighbors(t, x, noise, n):
    """Return what polynomials through n neighbors on either side miss, by the noise."""
    windows = np.lib.stride_tricks.sliding_window_view
    if len(t) <= 2 * n:
        return np.empty(0)
    others = [i for i in range(2 * n + 1) if i != n]
    t, x, noise = (windows(part, 2 * n + 1) for part in (t, x, noise))
    now, around = t[:, n, None, None], t[:, others]
    # Lagrange's weights: products over the other nodes.
    apart = around[:, :, None] - around[:, None, :]
    share = (now - around[:, None, :]) / np.where(apart == 0, 1.0, apart)
    weights = np.where(np.eye(2 * n, dtype=bool), 1.0, share).prod(axis=2)
    missed = x[:, n] - (weights * x[:, others]).sum(axis=1)
    around = (weights**2 * noise[:, others] ** 2).sum(axis=1)
    return missed / np.sqrt(noise[:, n] ** 2 + around)


class Shots(NamedTuple):
    """Pieces of runs: from a point at which all is known, over the points behind it.

    A shot of one step leads from a point to the next. Where not everything was measured
    there, it goes on to a point where it was. Those that are shorter than the longest
    have steps of size 0 at their end.

    Attributes
    ----------
    begin : ndarray of shape (n_shots,)
        Times from which to go.

    start : ndarray of shape (n_shots, n_states)
        Measured states there.

    steps : ndarray of shape (n_shots, n_steps)
        Sizes of the steps.

    targets : ndarray of shape (n_shots, n_steps, n_states)
        Measured states behind each step, NaN where there are none.

    paths : ndarray of shape (n_shots, n_steps, n_states)
        Roughly the states there, from which Newton's method starts.

    noise : ndarray of shape (n_shots, 1 + n_steps, n_states)
        Of the readings at the start and behind each step, in units of that of their state.

    row : ndarray of int of shape (n_shots,)
        Which point of all runs is the first.
    """

    begin: np.ndarray
    start: np.ndarray
    steps: np.ndarray
    targets: np.ndarray
    paths: np.ndarray
    noise: np.ndarray
    row: np.ndarray

    @classmethod
    def of(cls, runs, n_points=1):
        """Cut runs; each shot goes over ``n_points`` points at least, if there are."""
        pieces, before = [], 0
        for t, y, noise in runs:
            whole = np.flatnonzero(~np.isnan(y).any(axis=1))
            path = np.column_stack([_bridged(t, column) for column in y.T])
            i = whole[0] if len(whole) else len(t)
            while i < len(t) - 1:
                later = whole[whole >= i + n_points]
                end = later[0] if len(later) else len(t) - 1
                pieces.append((i, end, t, y, path, noise, before + i))
                i = end if len(later) else len(t)
            before += len(t)
        if not pieces:
            raise ValueError(
                "At least one run must have a point at which all states were measured, and "
                "another point behind it. Got none: fill in what is missing, by "
                "interpolation or from a model, where that can be defended."
            )
        n_steps = max(end - i for i, end, *_ in pieces)
        d = pieces[0][3].shape[1]
        steps = np.zeros((len(pieces), n_steps))
        targets = np.full((len(pieces), n_steps, d), np.nan)
        paths = np.zeros_like(targets)
        scale = np.ones((len(pieces), n_steps + 1, d))
        begin, start = np.empty(len(pieces)), np.empty((len(pieces), d))
        for k, (i, end, t, y, path, noise, _) in enumerate(pieces):
            n = end - i
            begin[k], start[k] = t[i], y[i]
            steps[k, :n] = np.diff(t[i : end + 1])
            targets[k, :n] = y[i + 1 : end + 1]
            paths[k, :n] = path[i + 1 : end + 1]
            scale[k, : n + 1] = noise[i : end + 1]
        row = np.array([piece[-1] for piece in pieces])
        return cls(begin, start, steps, targets, paths, scale, row)

    def divided(self, n):
        """Return the same with each step cut into n."""
        before = np.concatenate([self.start[:, None], self.paths[:, :-1]], axis=1)
        parts = np.arange(1, n + 1)[:, None] / n
        paths = before[:, :, None] + parts * (self.paths - before)[:, :, None]
        targets = np.full_like(paths, np.nan)
        targets[:, :, -1] = self.targets
        steps = np.repeat(self.steps / n, n, axis=1)
        shape = (*steps.shape, self.start.shape[1])
        return self._replace(
            steps=steps, targets=targets.reshape(shape), paths=paths.reshape(shape)
        )

    def some(self, rows):
        """Return some of them."""
        return Shots(*(part[rows] for part in self))


def _bridged(t, column):
    """Return a state at all times, on straight lines between those measured."""
    seen = ~np.isnan(column)
    return np.interp(t, t[seen], column[seen]) if seen.any() else np.zeros_like(t)
