"""Functions written for one sample: run on batches of tensors, and checked once."""

import inspect
import itertools
import linecache
import re
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sklearn_inverse.ode.compiled import Lasting
from sklearn_inverse.systems._values import Value, as_semantic
from sklearn_inverse.systems._vocabulary import (
    IN_PLACE,
    NUMBER,
    OneSampleError,
    brief,
    meant,
)

__all__ = ["Named", "Names", "OneSample", "takes"]

FIRST, LAST = ("t", "y", "p"), ("p",)
INPUTS = "u"  # may follow either
TIMES = ("t", "time", "tau", "ts")
AT_ONCE = 64  # columns that are taken apart beforehand


class Names:
    """Which name stands where in a vector, of a ``kind``: "state" or "param".

    ``more`` names slices of it and known constants; ``hints`` are what to say of names
    that stand elsewhere. Those of the params know the ``inputs`` behind these.
    """

    inputs: Any = None  # Inputs

    def __init__(
        self,
        kind: str,
        names: Sequence[str],
        more: Mapping[str, slice | float] | None = None,
        hints: Mapping[str, str] | None = None,
    ):
        self.kind, self.hints = kind, dict(hints or {})
        more, numbered = more or {}, enumerate(names)
        slices = {name: x for name, x in more.items() if isinstance(x, slice)}
        self.places: dict[str, Any] = {name: i for i, name in numbered} | slices
        self.constants = {k: x for k, x in more.items() if not isinstance(x, slice)}

    def unknown(self, name: str) -> str:
        """Say that there is no such name, and which was meant."""
        known = [*self.places, *self.constants]
        text = f"there is no {self.kind} {name!r}"
        if name in self.hints:
            return f"{text}: {self.hints[name]}"
        close = meant(name, known)
        return f"{text}; {close}" if close else f"{text} among {brief(known)}"


class Named(Value):
    """The states, or the params, of one sample: by name, by position, or as a whole."""

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


class OneSample(Lasting):
    """A function of one sample, run on many.

    ``what`` it is to the user stands in error messages, ``shape`` is what it returns for
    one sample. It takes t, y and p, or p alone where there are no ``states``, t and y where
    there are no ``params``; and u where there are inputs and it has an argument for them.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        what: str,
        states: Names | None,
        params: Names | None,
        shape: tuple[int, ...],
    ):
        self.function, self.what, self.shape = function, what, shape
        self.states, self.params = states, params
        names = LAST if states is None else FIRST
        self.names = self.kinds = names if params is not None else FIRST[:2]
        if self.inputs is not None and takes(function, len(self.names) + 1):
            self.names = (*self.names, INPUTS)

    @property
    def inputs(self) -> Any:
        """What stands behind the params; None where nothing does."""
        return None if self.params is None else self.params.inputs

    def __call__(self, *tensors: Tensor) -> Tensor:
        """Return results (n_samples, *shape) at the tensors that it takes.

        What stands behind the params are inputs.
        """
        return self._rows(self.function(*self._arguments(tensors)), tensors[-1])

    def check(self, *tensors: Tensor) -> Tensor:
        """Run the function for the first time; say in words what is wrong with it."""
        if not callable(self.function):
            raise TypeError(
                f"{self.what} must be a function {self._call(self.names)}. Got "
                f"{self.function!r} instead."
            )
        names = self._check_signature(len(self.names))
        try:
            result = self(*tensors)
        except Exception as error:
            # A number too few or too many says nothing of the order, if one is returned.
            vague = self.shape in ((), (1,)) and str(error).startswith("it must return")
            self._check_order(tensors, names, must_be_named=vague)
            if isinstance(error, (ImportError, NotImplementedError)):
                raise
            raise ValueError(
                f"{self.what} cannot be run: {self._explain(error)}"
            ) from error
        self._check_order(tensors, names, must_be_named=True)
        return result

    def _arguments(self, tensors: Sequence[Tensor]) -> list[Value]:
        columns, inputs = tensors[-1], self.inputs
        last: list[Value] = []
        if self.names[-1] is INPUTS and self.states is None:
            last = [Named(inputs.constants(columns), inputs.constant)]
        elif self.names[-1] is INPUTS:
            last = [Named(inputs.at(tensors[0], columns), inputs.over_time)]
        if self.params is not None:
            params = columns if inputs is None else columns[:, : inputs.n_params]
            last.insert(0, Named(params, self.params))
        if self.states is None:
            return last
        return [Value(tensors[0]), Named(tensors[1], self.states), *last]

    def _rows(self, result: Any, like: Tensor) -> Tensor:
        """Bring what was returned to one row per sample."""
        n, shape = len(like), self.shape
        if type(result) in (tuple, list) and (len(result),) == shape:
            try:  # the usual case: numbers that all are values
                stacked = torch.stack([x._tensor for x in result], dim=1)
                if stacked.shape == (n, *shape) and stacked.dtype == like.dtype:
                    return stacked
            except (AttributeError, RuntimeError):
                pass
        if result is None:
            raise ValueError("it returns None: is a `return` missing?")
        if not isinstance(result, (list, tuple, Value, Tensor, np.ndarray, Real)):
            raise ValueError(f"it must return a list or an array. Got {result!r}.")
        tensor = as_semantic(result, like)
        got = tuple(tensor.shape[:-1])
        if got != shape:
            if int(np.prod(got)) != 1 or int(np.prod(shape)) != 1:
                raise ValueError(self._wrong_shape(got))
            tensor = tensor.reshape(*shape, tensor.shape[-1])
        tensor = tensor.expand(*shape, n).movedim(-1, 0)
        return tensor if tensor.dtype == like.dtype else tensor.to(like.dtype)

    def _wrong_shape(self, got: tuple[int, ...]) -> str:
        if not self.shape:
            return f"it must return one number. Got an array of shape {got}"
        array = f"an array of shape {got}" if got else "one number"
        if len(self.shape) > 1 or self.states is None:
            return f"it must return an array of shape {self.shape}. Got {array}"
        names = self.states.places
        return (
            f"it must return {len(names)} value(s), one per state {brief(names)}. Got "
            f"{got[0] if len(got) == 1 else array}"
        )

    def _call(self, order: Sequence[str]) -> str:
        return f"{self.what.strip('`').split('[')[0]}({', '.join(order)})"

    def _check_signature(self, n_arguments: int) -> list[str]:
        """Return the names of the arguments; refuse another number of them."""
        try:
            signature = inspect.signature(self.function)
        except (TypeError, ValueError):  # not known of functions written in C
            return []
        try:
            return list(signature.bind(*range(n_arguments)).arguments)
        except TypeError:
            more = ", or one more for the inputs" * (self.inputs is not None)
            given = "time, states and params" if self.params else "time and states"
            ask = "Params are taken from p: p.a, or p[0]." if self.params else ""
            if ask and not more and list(signature.parameters)[-1:] == [INPUTS]:
                ask = "One more is for inputs, which the system names: inputs=[…]."
            raise ValueError(
                f"{self.what} is called as {self._call(self.names)}, with one sample's "
                f"{given}: it must take {n_arguments} argument(s){more}. Got {signature}. "
                f"{ask}".rstrip()
            ) from None

    def _check_order(
        self, tensors: Sequence[Tensor], names: list[str], must_be_named: bool
    ) -> None:
        """Refuse arguments in another order, if the function runs with them in it."""
        named = len(names) >= 2 and names[1] in TIMES and names[0] not in TIMES
        if len(tensors) < 2 or (must_be_named and not named):
            return
        arguments, n = self._arguments(tensors), len(tensors)
        swapped: dict[Any, str] = {(1, 0): "two"}
        swapped |= {(1, 0, 2): "first two", (0, 2, 1): "last two"}
        first = 1, 0, *range(2, n)
        for order in [first, *itertools.permutations(range(n))]:
            if order == (*range(n),):
                continue
            moved = *(arguments[i] for i in order), *arguments[n:]
            try:
                self._rows(self.function(*moved), tensors[-1])
            except Exception:
                continue
            names = [*(FIRST[i] for i in order), *self.names[n:]]
            given = f"As {self._call(names)}"
            if order in swapped:
                given = f"With the {swapped[order]} exchanged"
            odeint = ": is it written for odeint?" if order == first else "."
            raise ValueError(
                f"{self.what} is called as {self._call(self.names)}. {given} it would "
                f"run on these states{odeint}"
            )

    def _explain(self, error: BaseException) -> str:
        """Say what went wrong, where, and what to write instead."""
        where, line = self._line(error)
        chain = [error]
        while (cause := chain[-1].__cause__) is not None:
            chain.append(cause)
        text = f"{type(error).__name__}: {error}"
        if isinstance(error, ValueError) and str(error).startswith("it "):
            text = str(error)
        elif isinstance(error, (OneSampleError, AttributeError, IndexError, KeyError)):
            text = str(error.args[0]) if error.args else repr(error)
        if any(isinstance(e, OneSampleError) for e in chain[1:]):
            text = NUMBER  # NumPy's own words, of an array that was to be filled
        called = re.search(r"\bmath\.(\w+)", line)
        if called and any(isinstance(e, OneSampleError) for e in chain):
            name = called[1]
            text = (
                f"`math.{name}` needs a number, but a model's values stand for many "
                f"samples at once. Write `np.{name}` or `torch.{name}`"
            )
        return f"{text.rstrip('.')}{where}."

    def _line(self, error: BaseException) -> tuple[str, str]:
        """Return where in the user's code an error arose, in words and as text."""
        code = getattr(inspect.unwrap(self.function), "__code__", None)
        for frame, number in reversed(list(traceback.walk_tb(error.__traceback__))):
            if code is not None and frame.f_code.co_filename == code.co_filename:
                line = linecache.getline(code.co_filename, number).strip()
                return f" (line {number}{f': `{line}`' if line else ''})", line
        return "", ""


def takes(function: Any, n_arguments: int) -> bool:
    """Whether a function has so many arguments without a default."""
    try:
        arguments = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    kinds = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    asked = [a for a in arguments if a.kind in kinds and a.default is a.empty]
    return len(asked) == n_arguments
