"""Inputs: known quantities that a system depends on, constant or tables over time.

Inside, they stand in *columns* behind the params, one row for each experiment of each
sample: a constant one has a column; one that varies has two, its level a and slope b
between two knots, where it is a + b t; where there are several experiments, the last
column holds which it is. Knots are events, at which the next pieces are put in.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sklearn_inverse.systems._functions import Names
from sklearn_inverse.utils._validation import check_times

__all__ = ["Inputs", "Table"]

KINDS = ("linear", "previous")


@dataclass(frozen=True, eq=False)
class Table:
    """A known quantity over time, read from a table.

    Before the first and after the last of its times it stays as it is there. The solver
    stops at each of them.

    Parameters
    ----------
    times : array-like of shape (n_knots,)
        When, increasing.

    values : array-like of shape (n_knots,)
        What it is then.

    kind : {"linear", "previous"}, default="linear"
        How it goes on from one time to the next: in a straight line, or as it was.

    Examples
    --------
    >>> from sklearn_inverse.systems import Table
    >>> Table([0.0, 10.0, 20.0], [298.0, 310.0, 310.0])
    Table(3 times from 0 to 20, linear)
    """

    times: Any
    values: Any
    kind: str = "linear"

    def __post_init__(self) -> None:
        times = check_times(self.times)
        values = np.asarray(self.values, dtype=float)
        if values.shape != times.shape or not np.isfinite(values).all():
            raise ValueError(
                f"`values` of a table must be {len(times)} finite numbers, one for each "
                f"time. Got {np.asarray(self.values).tolist()}."
            )
        if self.kind not in KINDS:
            raise ValueError(
                f"`kind` of a table must be one of {KINDS}. Got {self.kind!r} instead."
            )
        object.__setattr__(self, "times", times)
        object.__setattr__(self, "values", values)

    def __repr__(self) -> str:
        first, last = self.times[[0, -1]]
        return f"Table({len(self.times)} times from {first:g} to {last:g}, {self.kind})"

    def pieces(self, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return level and slope from each of these times on; all knots are among them."""
        place = np.searchsorted(self.times, starts, side="right") - 1
        inside = (place >= 0) & (place < len(self.times) - 1)
        here = place.clip(0)
        slope = np.zeros(len(starts))
        if self.kind == "linear":
            rise = np.append(np.diff(self.values) / np.diff(self.times), 0.0)
            slope = np.where(inside, rise[here], 0.0)
        return self.values[here] - slope * self.times[here], slope


class Inputs:
    """Where the inputs of a system stand behind its params, and what they are.

    Parameters
    ----------
    names : sequence of str
        The inputs.

    n_params : int
        Number of params, in the first columns.

    varying : collection of str, default=()
        Those that are tables in any experiment.

    n_experiments : int, default=1
        Number of experiments.

    Attributes
    ----------
    level, slope : dict of str to int
        Their columns; a slope for those that vary.

    experiment : int or None
        The column that says which experiment a row belongs to.

    n_columns : int
        Of everything.

    over_time, constant : Names
        The inputs of functions of time, and of functions of the params alone.
    """

    def __init__(
        self,
        names: Sequence[str],
        n_params: int,
        varying: Sequence[str] = (),
        n_experiments: int = 1,
    ):
        self.names, self.n_params = list(names), n_params
        self.level = {name: n_params + i for i, name in enumerate(self.names)}
        varying = [name for name in self.names if name in varying]
        first = n_params + len(self.names)
        self.slope = {name: first + i for i, name in enumerate(varying)}
        first += len(varying)
        self.experiment = first if n_experiments > 1 else None
        self.n_columns = first + (n_experiments > 1)
        self.over_time = Names("input", self.names)
        hint = "it varies with time, and is known only where t is"
        still = [name for name in self.names if name not in self.slope]
        self.constant = Names("input", still, hints=dict.fromkeys(varying, hint))

    def at(self, t: Tensor, columns: Tensor) -> Tensor:
        """Return all inputs (n_samples, n_inputs) at times (n_samples,)."""
        values = columns[:, self.n_params : self.n_params + len(self.names)]
        if not self.slope:
            return values
        parts = list(values.unbind(1))
        for name, column in self.slope.items():
            i = self.level[name] - self.n_params
            parts[i] = parts[i] + columns[:, column] * t
        return torch.stack(parts, dim=1)

    def constants(self, columns: Tensor) -> Tensor:
        """Return the inputs that do not vary."""
        places = [self.level[name] for name in self.constant.places]
        if not places:
            return columns[:, :0]
        return torch.stack([columns[:, place] for place in places], dim=1)

    def index(self, columns: Tensor) -> Tensor:
        """Return which experiment each row belongs to."""
        if self.experiment is None:
            return torch.zeros(len(columns), dtype=torch.long, device=columns.device)
        return columns[:, self.experiment].long()

    @property
    def column_names(self) -> list[str]:
        """Names of the columns behind the params."""
        slopes = [f"(slope of {name})" for name in self.slope]
        return [*self.names, *slopes, "experiment"][: self.n_columns - self.n_params]

    @property
    def hints(self) -> Mapping[str, str]:
        """What to say where an input is looked for among states or params."""
        text = "it is an input: take u as the last argument, and write u.{}"
        return {name: text.format(name) for name in self.names}
