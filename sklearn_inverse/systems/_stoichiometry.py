"""Reaction strings to numbers: who takes part in a reaction, and what is conserved."""

import re
from fractions import Fraction

import numpy as np

__all__ = ["left_null_space", "read_reactions", "read_sum", "to_row"]

# "NO2", "2 NO2", "0.5 O(1D)": maybe a coefficient, then a name, beginning in a letter.
TERM = re.compile(r"(\d+(?:\.\d*)?)?\s*([^\W\d][\w()*']*)")


def read_reactions(reactions, state_names=None):
    """Read reactions such as ``"2 A -> B"``.

    Parameters
    ----------
    reactions : list of str
        The reactions.

    state_names : list of str, default=None
        Species in the order of the rows. If None, in order of appearance.

    Returns
    -------
    used, made : ndarray of shape (n_states, n_reactions)
        How many of each species each reaction uses up and makes.

    state_names : list of str
        Species in the order of the rows.

    Raises
    ------
    ValueError
        If a reaction has no single arrow, is empty on both sides, holds a term that
        cannot be read or an unknown species, or uses up a fraction of a molecule.
    """
    where = [f"Reaction {text!r}" for text in reactions]
    sides = [_split(text, w) for text, w in zip(reactions, where)]
    if state_names is None:
        # A dict keeps the order and drops repetitions.
        state_names = list(dict.fromkeys(s for r in sides for side in r for s in side))
    used, made = (
        np.array([to_row(r[i], state_names, w) for r, w in zip(sides, where)]).T
        for i in (0, 1)
    )
    fractional = (used % 1).any(axis=0)
    if fractional.any():
        raise ValueError(
            f"{where[np.argmax(fractional)]} must have whole coefficients on its left, "
            "since they set the order of the reaction."
        )
    return used, made, state_names


def _split(text, where):
    """Read ``"2 A -> B"`` as ``{"A": 2}, {"B": 1}``."""
    sides = text.split("->")
    if len(sides) != 2 or not "".join(sides).strip():
        raise ValueError(
            f"{where} cannot be read: it must look like 'A + 2 B -> C', with exactly "
            "one '->'. A source is '-> A' and a sink 'A ->'."
        )
    return [read_sum(side, where) for side in sides]


def read_sum(text, where):
    """Read ``"A + 2 B + A"`` as ``{"A": 2, "B": 2}``, and nothing as ``{}``.

    ``where`` names the culprit in error messages.
    """
    total = {}
    for term in text.split("+") if text.strip() else []:
        match = TERM.fullmatch(term.strip())
        if match is None:
            raise ValueError(
                f"{where} cannot be read at {term.strip()!r}: a term must be a species "
                "such as 'NO2', after a coefficient if need be, as in '2 NO2'."
            )
        coefficient, species = match.groups(default="1")
        total[species] = total.get(species, 0.0) + float(coefficient)
    return total


def to_row(total, state_names, where):
    """Lay ``{species: number}`` out as an array with one entry per state."""
    unknown = [species for species in total if species not in state_names]
    if unknown:
        raise ValueError(
            f"{where} names the species {unknown[0]!r}, which is not among the states: "
            f"{list(state_names)}."
        )
    return np.array([total.get(species, 0.0) for species in state_names], dtype=float)


def left_null_space(matrix):
    """Return a basis of ``{c : c @ matrix = 0}`` as rows, by exact elimination.

    Parameters
    ----------
    matrix : ndarray of shape (n_rows, n_columns)
        Small rational numbers.

    Returns
    -------
    basis : ndarray of shape (n_rows - rank, n_rows)
        For a stoichiometric matrix, one conserved sum of states per row.
    """
    n_rows, n_columns = matrix.shape
    # Eliminate in [matrix | I]: beside a row that vanishes stands what made it vanish.
    rows = [
        [Fraction(x).limit_denominator(10**6) for x in row]
        for row in np.hstack([matrix, np.eye(n_rows)])
    ]
    rank = 0
    for j in range(n_columns):
        pivot = next((i for i in range(rank, n_rows) if rows[i][j]), None)
        if pivot is None:
            continue
        rows[rank], rows[pivot] = rows[pivot], rows[rank]
        for i in range(rank + 1, n_rows):
            factor = rows[i][j] / rows[rank][j]
            if factor:
                rows[i] = [a - factor * b for a, b in zip(rows[i], rows[rank])]
        rank += 1
    basis = [row[n_columns:] for row in rows[rank:]]
    return np.array(basis, dtype=float).reshape(n_rows - rank, n_rows)
