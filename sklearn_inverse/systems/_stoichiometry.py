"""Reaction strings to numbers: who takes part in a reaction, and what is conserved."""

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np

__all__ = [
    "Reaction",
    "left_null_space",
    "read_reaction",
    "read_reactions",
    "read_sum",
    "to_row",
]

# "NO2", "2 NO2", "0.5 O(1D)": maybe a coefficient, then a name, beginning in a letter.
TERM = re.compile(r"(\d+(?:\.\d*)?)?\s*([^\W\d][\w()*']*)")
# Whatever looks like an arrow, and of these the ones that are read.
ARROW = re.compile(r"[-=<>~]*[=<>~][-=<>~]*|[\u2190-\u21ff\u27f0-\u27ff\u2900-\u297f]")
ONE_WAY = ("->", "→", "-->", "=>")
BOTH_WAYS = ("<->", "⇌", "<-->", "<=>")
NOTHING = ("", "0", "∅")


class Reaction(NamedTuple):
    """One direction of a reaction: how many of each species it uses up and makes."""

    text: str
    used: dict[str, float]
    made: dict[str, float]
    arrow: str = "->"

    def why_ambiguous(self, is_law: bool) -> str | None:
        """Return what else this arrow may mean with such a rate, None if nothing."""
        if self.arrow == "=>" and self.used and not is_law:
            return "mass action in Cantera, and in Catalyst a rate that is constant"
        if "--" in self.arrow and is_law:
            return "in Catalyst a law that the reactants multiply once more"
        if "--" in self.arrow and max(self.used.values(), default=0) > 1:
            return "in Catalyst a rate divided by the factorials of the coefficients"
        return None


def read_reaction(text: str) -> list[Reaction]:
    """Read ``"A -> B"`` as one reaction, and ``"A <-> B"`` as two."""
    where = f"Reaction {text!r}"
    arrows = ARROW.findall(text)
    sides = [side.strip() for side in ARROW.split(text)]
    if len(arrows) != 1 or all(side in NOTHING for side in sides):
        raise ValueError(
            f"{where} cannot be read: it must look like 'A + 2 B -> C', with exactly "
            "one '->', or one '<->' if it is reversible. A source is '-> A' and a sink "
            "'A ->'."
        )
    if arrows[0] not in ONE_WAY + BOTH_WAYS:
        raise ValueError(
            f"{where} has the arrow {arrows[0]!r}, which is not read: write '->', or "
            "'<->' if it is reversible."
        )
    if "(+" in text.replace(" ", ""):
        raise ValueError(
            f"{where} has a third body with a falloff, which is not read: write its "
            "rate as a law."
        )
    left, right = (read_sum(side, where) for side in sides)
    if arrows[0] in ONE_WAY:
        return [Reaction(text, left, right, arrows[0])]
    return [
        Reaction(f"{sides[0]} -> {sides[1]}", left, right, arrows[0]),
        Reaction(f"{sides[1]} -> {sides[0]}", right, left, arrows[0]),
    ]


def read_reactions(
    reactions: Sequence[str], species: Sequence[str] | None = None
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return how many each reaction uses up and makes of each species, and the species.

    Arrays have shape (n_states, n_reactions); reversible reactions count as two. The
    rows are those of ``species``, or in order of appearance.
    """
    read = [reaction for text in reactions for reaction in read_reaction(text)]
    if species is None:  # a dict keeps the order and drops repetitions
        species = list(dict.fromkeys(s for r in read for s in [*r.used, *r.made]))
    used, made = (
        np.array([to_row(side, species, f"Reaction {r.text!r}") for r, side in sides]).T
        for sides in ([(r, r.used) for r in read], [(r, r.made) for r in read])
    )
    return used, made, list(species)


def read_sum(text: str, where: str) -> dict[str, float]:
    """Read ``"A + 2 B + A"`` as ``{"A": 2, "B": 2}``, and nothing as ``{}``.

    ``where`` names the culprit in error messages.
    """
    total: dict[str, float] = {}
    for term in [] if text.strip() in NOTHING else text.split("+"):
        match = TERM.fullmatch(term.strip())
        if match is None or float(match[1] or 1) == 0:
            raise ValueError(
                f"{where} cannot be read at {term.strip()!r}: a term must be a species "
                "such as 'NO2', after a coefficient if need be, as in '2 NO2'. Rates "
                "stand beside their reaction, not in it."
            )
        coefficient, species = match.groups(default="1")
        total[species] = total.get(species, 0.0) + float(coefficient)
    return total


def to_row(
    total: Mapping[str, float], species: Sequence[str], where: str
) -> np.ndarray:
    """Lay ``{species: number}`` out as an array with one entry per state."""
    unknown = [name for name in total if name not in species]
    if unknown:
        raise ValueError(
            f"{where} names the species {unknown[0]!r}, which is not among the states: "
            f"{list(species)}."
        )
    return np.array([total.get(name, 0.0) for name in species], dtype=float)


def left_null_space(matrix: np.ndarray) -> np.ndarray:
    """Return a basis of ``{c : c @ matrix = 0}`` as rows, by exact elimination."""
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
