"""Options of a PolynomialODE, checked against the states there are."""

from collections.abc import Iterable
from numbers import Integral

import numpy as np

from sklearn_inverse.discovery._fit import EXACT, ROUNDING
from sklearn_inverse.discovery._rhs import Monomials
from sklearn_inverse.discovery._runs import largest_of, scatter

__all__ = [
    "by_reading",
    "hidden_of",
    "in_units",
    "noise_of",
    "terms_of",
    "unknown_of",
]


def noise_of(noise_std, runs, names):
    """Return standard deviations of all states, or None where they are exact."""
    n_states = len(names)
    if noise_std is None:
        return None
    if isinstance(noise_std, str):
        noise, largest = scatter(runs), largest_of(runs)
        if np.isnan(noise).any():
            raise ValueError(
                "To estimate the noise, each state must have three readings in a row in "
                "some run. Got none of state(s) "
                f"{[n for n, s in zip(names, noise) if np.isnan(s)]}: state `noise_std`."
            )
        exact = (noise <= EXACT * largest).all()
        return None if exact else np.maximum(noise, ROUNDING * largest)
    try:
        noise = np.asarray(noise_std, dtype=float)
    except (TypeError, ValueError):
        noise = np.array(np.nan)
    if noise.shape not in ((), (n_states,)) or not (
        np.isfinite(noise).all() and (noise > 0).all() and noise_std is not True
    ):
        raise ValueError(
            f"`noise_std` must be 'estimate', one positive number, or one for each of "
            f"{n_states} states. Got {noise_std!r}."
        )
    return np.broadcast_to(noise, n_states)


def by_reading(noise_std):
    """Return whether noise is stated run by run, not by state."""
    rows = (
        noise_std if isinstance(noise_std, (list, tuple)) else np.atleast_1d(noise_std)
    )
    return any(isinstance(x, (list, tuple)) or np.ndim(x) for x in rows)


def in_units(runs):
    """Return root mean squares of the noise of readings, and runs in units of them."""
    noise = [np.where(np.isnan(run.states), np.nan, run.noise) for run in runs]
    typical = np.sqrt(np.nanmean(np.concatenate(noise) ** 2, axis=0))
    noise = [np.nan_to_num(sd / typical, nan=1.0) for sd in noise]
    return typical, [run._replace(noise=sd) for run, sd in zip(runs, noise)]


def hidden_of(sizes):
    """Return the numbers of neurons of each layer."""
    if not len(sizes) or not all(
        isinstance(n, Integral) and not isinstance(n, bool) and n > 0 for n in sizes
    ):
        raise ValueError(
            f"`hidden_layer_sizes` must be positive integers, one per layer. Got {sizes!r}."
        )
    return list(sizes)


def unknown_of(unknown, names):
    """Return indices of the states whose equations have unknown terms."""
    if unknown is None:
        return list(range(len(names)))
    strange = [name for name in unknown if name not in names]
    if strange or not len(unknown):
        raise ValueError(
            f"`unknown` must name some of the states {names}. Got {unknown!r}."
        )
    return [i for i, name in enumerate(names) if name in list(unknown)]


def terms_of(terms, names, degree, unknown):
    """Return the terms that are possible, by state, for the states that are named."""
    possible = Monomials(names, degree).names if terms else []
    found = {}
    for name, some in (terms or {}).items():
        if name in names and names.index(name) not in unknown:
            raise ValueError(
                f"`terms` must be of equations that are unknown. Got {name!r}, which "
                "`unknown` does not name."
            )
        if isinstance(some, str) or not isinstance(some, Iterable):
            raise ValueError(
                f"`terms` must be lists of monomials, by state. Got {name!r}: {some!r}."
            )
        some = list(some)  # once: it may be a generator
        strange = [term for term in some if term not in possible]
        if name not in names or strange:
            raise ValueError(
                f"`terms` must name monomials of {names} up to degree {degree}, as "
                f"{possible[-1]!r}, by state. Got {name!r}: {some!r}."
                + _meant(strange, possible)
            )
        found[name] = some
    return found


def _meant(strange, possible):
    """Return how monomials are written whose factors are in another order."""
    in_order = {tuple(sorted(term.split("*"))): term for term in possible}
    pairs = [(t, in_order.get(tuple(sorted(str(t).split("*"))))) for t in strange]
    return "".join(f" Write {term!r} as {meant!r}." for term, meant in pairs if meant)
