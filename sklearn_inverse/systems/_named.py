"""States and params by name, as a user's functions see them."""

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from sklearn_inverse.systems._values import Value
from sklearn_inverse.systems._vocabulary import IN_PLACE, OneSampleError, brief

__all__ = ["Named", "Names"]

AT_ONCE = 64  # columns that are taken apart beforehand


class Names:
    """Which name stands where in a vector.

    Parameters
    ----------
    kind : str
        What is named: "state" or "param".

    names : sequence of str
        One for each entry.

    more : mapping, default=None
        Further names: a slice for a group of entries, a number for a known constant.

    hints : mapping, default=None
        What to say of names that stand elsewhere.
    """

    def __init__(
        self,
        kind: str,
        names: Sequence[str],
        more: Mapping[str, slice | float] | None = None,
        hints: Mapping[str, str] | None = None,
    ):
        self.kind, self.hints = kind, dict(hints or {})
        self.places: dict[str, int | slice | float] = {
            n: i for i, n in enumerate(names)
        }
        self.constants: dict[str, float] = {}
        for name, place in (more or {}).items():
            if isinstance(place, slice):
                self.places[name] = place
            else:
                self.constants[name] = place

    def unknown(self, name: str) -> str:
        """Say that there is no such name, and which was meant."""
        known = [*self.places, *self.constants]
        text = f"there is no {self.kind} {name!r}"
        if name in self.hints:
            return f"{text}: {self.hints[name]}"
        close = difflib.get_close_matches(name, known, 1)
        if close:
            return f"{text}; did you mean {close[0]!r}?"
        return f"{text} among {brief(known)}"


class Named(Value):
    """The states, or the params, of one sample: by name, by position, or as a whole.

    Parameters
    ----------
    rows : Tensor of shape (n_samples, n_entries)
        Entries of all samples.

    names : Names
        Which name stands where.
    """

    def __init__(self, rows: Tensor, names: Names):
        attributes = self.__dict__
        attributes["_rows"], attributes["_names"] = rows, names
        attributes.update(names.constants)
        if rows.shape[1] <= AT_ONCE:  # then names are found without __getattr__
            attributes["_columns"] = columns = [Value(x) for x in rows.unbind(1)]
            attributes.update(zip(names.places, columns))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name == "_tensor":
            tensor = self._rows.mT
            _put(self, tensor)
            return tensor
        if name == "_columns":
            found: Any = [Value(x) for x in self._rows.unbind(1)]
        else:
            place = self._names.places.get(name)
            if type(place) is int:
                found = self._columns[place]
            elif place is not None:
                found = Value(self._tensor[place])
            elif hasattr(Tensor, name) or name == "copy":
                return Value.__getattr__(self, name)
            else:
                raise AttributeError(self._names.unknown(name))
        self.__dict__[name] = found
        return found

    def __setattr__(self, name: str, value: Any) -> None:
        raise OneSampleError(IN_PLACE)

    def __getitem__(self, key: Any) -> Any:
        if type(key) is int:
            columns = self._columns
            if -len(columns) <= key < len(columns):
                return columns[key]
            kind, n = self._names.kind, len(columns)
            raise IndexError(
                f"there are {n} {kind}s, counted from 0; index {key} is not among them"
            )
        if isinstance(key, str):
            if key not in self._names.places and key not in self._names.constants:
                raise KeyError(self._names.unknown(key))
            return getattr(self, key)
        return super().__getitem__(key)

    def __iter__(self) -> Iterator[Value]:
        return iter(self._columns)


_put: Callable[[Value, Tensor], None] = vars(Value)["_tensor"].__set__
