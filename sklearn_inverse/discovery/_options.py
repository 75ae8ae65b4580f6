"""Options of a PolynomialODE, checked against the states there are."""

from collections.abc import Iterable

import numpy as np

from sklearn_inverse.discovery._monomials import Monomials

__all__ = ["noise_of", "terms_of", "unknown_of"]


def noise_of(noise_std, n_states):
    """Return standard deviations of all states, or None."""
    if noise_std is None:
        return None
    noise = np.asarray(noise_std, dtype=float)
    if noise.shape not in ((), (n_states,)) or not (
        np.isfinite(noise).all() and (noise > 0).all()
    ):
        raise ValueError(
            f"`noise_std` must be one positive number, or one for each of {n_states} "
            f"states. Got {noise_std!r}."
        )
    return np.broadcast_to(noise, n_states)


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
