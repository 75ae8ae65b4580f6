"""The noise of all observables of a system: which kind, with which arguments.

``as_noise`` makes a NoiseModel of what users write. Its tensors have the shape (n, n_times,
n_channels): ``mean`` is what the forward model gives, ``y`` the readings (NaN unread), and
``args`` what ``arguments`` made of the params, to be computed once per params.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import groupby
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from sklearn_inverse.probability._noise import Argument, Arguments, Noise, NormalNoise

__all__ = ["NoiseModel", "as_noise"]

ModelArguments: TypeAlias = tuple[Arguments, ...]  # one per kind


def as_noise(
    value: Any,
    observable_names: Sequence[str],
    *,
    n_times: int | None = None,
    param_names: Sequence[str] | None = None,
    constants: Mapping[str, float] | None = None,
) -> "NoiseModel":
    """Make the noise model of what stands as ``noise=``.

    Parameters
    ----------
    value : object
        A kind of noise; a number, array or param's name, which is the standard deviation
        of normal noise (None: unknown); a list with one of these per observable; or a
        dict of them by observable. A NoiseModel is returned as it is.

    observable_names : sequence of str
        Names of the observables, in order.

    n_times : int, default=None
        Number of times, which arrays over the times must have.

    param_names : sequence of str, default=None
        Names of the estimated params, against which names are checked. Needed where an
        argument is a function.

    constants : dict, default=None
        Values of the params that are known: they replace their names.

    Returns
    -------
    noise : NoiseModel
        One kind of noise per observable.

    Raises
    ------
    TypeError
        If something stands there that is no noise.

    ValueError
        If names or lengths do not fit.
    """
    if isinstance(value, NoiseModel):
        return value
    names, constants = tuple(observable_names), dict(constants or {})
    if isinstance(value, Mapping):
        unknown, missing = set(value) - set(names), set(names) - set(value)
        if unknown or missing:
            raise ValueError(
                f"`noise` must have one entry per observable {list(names)}. "
                + (f"Got none for {sorted(missing)}." if missing else "")
                + (f"Got unknown names {sorted(unknown, key=str)}." if unknown else "")
            )
        kinds = [_spread(_as_kind(value[name]), 1)[0] for name in names]
    elif isinstance(value, (list, tuple)) and any(isinstance(v, Noise) for v in value):
        if len(value) != len(names):
            raise ValueError(
                f"A list of noise must have one entry per observable {list(names)}. Got "
                f"{len(value)} entries."
            )
        kinds = [_spread(_as_kind(v), 1)[0] for v in value]
    else:
        kinds = _spread(_as_kind(value), len(names))
    kinds = [_map(kind, lambda v: _known(v, constants)) for kind in kinds]
    for name, kind in zip(names, kinds):
        _check_times(kind, name, n_times)
    entries = dict.fromkeys(v for kind in kinds for v in _values(kind))
    functions = {
        function: _names_used(function, param_names, constants)
        for function in filter(callable, entries)
    }
    noise = NoiseModel(tuple(kinds), names, functions, constants)
    if param_names is not None:
        _check_names(noise.param_names, param_names)
    return noise


@dataclass(frozen=True, repr=False, eq=False)
class NoiseModel:
    """One kind of noise per observable; made by `as_noise`.

    Attributes
    ----------
    kinds : tuple of Noise
        One per observable; arguments are numbers, tuples over the times, names of params,
        functions of the params, or None (unknown scale).

    observable_names : tuple of str
        Names of the observables, in order.

    functions : dict
        Names of the params that each function among the arguments uses.

    constants : dict
        Params with known values, for those functions.

    noise_std : ndarray broadcastable to (n_samples, n_times, n_channels) or None
        Scales given per reading (`with_std`).

    error : ndarray of shape (n_channels,) or None
        Standard deviation of the model's own error (`with_error`).
    """

    kinds: tuple[Noise, ...]
    observable_names: tuple[str, ...]
    functions: Mapping[Callable, tuple[str, ...]] = field(default_factory=dict)
    constants: Mapping[str, float] = field(default_factory=dict)
    noise_std: np.ndarray | None = None
    error: np.ndarray | None = None

    def __repr__(self) -> str:
        pairs = zip(self.observable_names, self.kinds)
        return f"NoiseModel({{{', '.join(f'{n!r}: {kind!r}' for n, kind in pairs)}}})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, NoiseModel):
            return NotImplemented
        return all(
            np.array_equal(mine, yours)
            if isinstance(mine, np.ndarray) and isinstance(yours, np.ndarray)
            else mine is yours or (type(mine) is type(yours) and mine == yours)
            for mine, yours in (
                (getattr(self, f.name), getattr(other, f.name)) for f in fields(self)
            )
        )

    def __hash__(self) -> int:
        return hash((self.kinds, self.observable_names))

    @property
    def n_channels(self) -> int:
        """Number of observables."""
        return len(self.kinds)

    @property
    def param_names(self) -> tuple[str, ...]:
        """Names of the params that the noise uses, each once."""
        used: list[str] = []
        for kind in self.kinds:
            for name in self._live(kind):
                value = getattr(kind, name)
                if callable(value):
                    used.extend(self.functions[value])
                elif isinstance(value, str):
                    used.append(value)
        return tuple(dict.fromkeys(used))

    @property
    def has_unknown_scale(self) -> np.ndarray:
        """Which observables have an unknown scale, of shape (n_channels,)."""
        return np.array(
            [
                any(getattr(kind, name) is None for name in self._live(kind))
                for kind in self.kinds
            ]
        )

    # -- variants --------------------------------------------------------------------------

    def with_std(self, noise_std: ArrayLike | None) -> "NoiseModel":
        """Replace the scales by ``noise_std``, broadcastable to the observations.

        With more than one row, `arguments` must be told which row each params belong to.
        """
        if noise_std is None:
            return replace(self, noise_std=None)
        for name, kind in zip(self.observable_names, self.kinds):
            if not kind.has_scale:
                raise ValueError(
                    f"`noise_std` cannot replace the noise of {name!r}: {kind} has no "
                    "scale. Leave `noise_std` away."
                )
        std = np.array(noise_std, dtype=float)
        std = std.reshape((1,) * (3 - std.ndim) + std.shape)
        if std.shape[2] not in (1, self.n_channels) or not (std >= 0).all():
            raise ValueError(
                "`noise_std` must be >= 0 and broadcast to (n_samples, n_times, "
                f"{self.n_channels}). Got shape {np.shape(noise_std)}, smallest value "
                f"{np.min(std)}."
            )
        std = np.repeat(std, self.n_channels // std.shape[2], axis=2)
        std.flags.writeable = False
        return replace(self, noise_std=std)

    def with_error(self, error: ArrayLike | None) -> "NoiseModel":
        """Add the model's own error, a standard deviation per observable, to the variance.

        It widens `log_prob`, `weight`, `residual` and `std`. `sample` stays as it is:
        readings of the means it is given.
        """
        if error is None or not np.any(error):
            return replace(self, error=None)
        error = np.broadcast_to(
            np.asarray(error, dtype=float), (self.n_channels,)
        ).copy()
        if not (np.isfinite(error) & (error >= 0)).all():
            raise ValueError(
                f"The model's error must be finite and >= 0. Got {error.tolist()}."
            )
        error.flags.writeable = False
        return replace(self, error=error)

    def truncate(self, n_times: int) -> "NoiseModel":
        """Keep the noise of the first ``n_times`` times."""

        def first(value: Argument) -> Argument:
            return value[:n_times] if isinstance(value, tuple) else value

        std = self.noise_std
        return replace(
            self,
            kinds=tuple(_map(kind, first) for kind in self.kinds),
            noise_std=std if std is None or std.shape[1] == 1 else std[:, :n_times],
        )

    # -- tensors ---------------------------------------------------------------------------

    def arguments(
        self,
        params: Tensor,
        param_names: Sequence[str],
        log_scale: Tensor | None = None,
        sample: Any = None,
    ) -> ModelArguments:
        """Return the arguments of the noise at each row of params, differentiably.

        Parameters
        ----------
        params : Tensor of shape (n, n_params)
            In physical units.

        param_names : sequence of str
            Names of the columns.

        log_scale : Tensor of shape (n, n_channels), default=None
            Natural log of the scale where it is unknown; other columns are not used. If
            None, unknown scales are 0: sampling adds no noise, and `log_prob` is -inf.

        sample : array-like of int, shape (n,), default=None
            Row of `noise_std` for each row of params. If None, the same row.

        Returns
        -------
        args : tuple of tuples of Tensors
            To be passed on; each tensor broadcasts to (n, n_times, channels of a kind).
        """
        columns = dict(zip(param_names, params.unbind(1)))
        made: dict[Any, Tensor] = {}

        def column(value: Argument, channel: int) -> Tensor:  # (n or 1, n_times or 1)
            if value is None:
                if log_scale is None:
                    return params.new_zeros(1, 1)
                return log_scale[:, channel, None].exp()
            if value not in made:
                made[value] = self._column(value, params, columns)
            return made[value]

        def stack(name: str, channels: list[int]) -> Tensor:
            if name == "scale" and self.noise_std is not None:
                std = self.noise_std[:, :, channels]
                if sample is not None and len(std) > 1:
                    std = std[np.asarray(sample)]
                return torch.as_tensor(std).to(params)
            values = [getattr(self.kinds[c], name) for c in channels]
            if values[0] is not None and all(v == values[0] for v in values):
                return column(values[0], channels[0])[:, :, None]
            parts = map(column, values, channels)
            return torch.stack(torch.broadcast_tensors(*parts), dim=-1)

        return tuple(
            tuple(stack(name, channels) for name in kind.argument_names)
            for kind, channels in self._groups
        )

    def log_prob(self, y: Tensor, mean: Tensor, args: ModelArguments) -> Tensor:
        """Log density of each reading: 0 where unread, -inf where impossible, never NaN."""
        return self._each("log_prob", args, y, mean)

    def weight(self, mean: Tensor, args: ModelArguments) -> Tensor:
        """Fisher information of each mean (also where nothing is read)."""
        return self._each("weight", args, mean)

    def residual(self, y: Tensor, mean: Tensor, args: ModelArguments) -> Tensor:
        """Return deviations about N(0, 1): 0 where unread, inf where impossible.

        Pearson residuals for counts, normal scores for Student t (without gradient) and
        Laplace.
        """
        return self._each("residual", args, y, mean)

    def std(self, mean: Tensor, args: ModelArguments) -> Tensor:
        """Return the standard deviation of readings (Student t with df <= 2: its scale)."""
        return self._each("std", args, mean)

    def sample(
        self, mean: Tensor, args: ModelArguments, generator: Any = None
    ) -> Tensor:
        """Draw readings on the device of ``mean`` and ``generator``, without gradient."""
        return self._each("sample", args, mean, generator=generator)

    def stabilize(self, y: Any) -> Any:
        """Map readings (…, n_channels) to where noise is about uniform, elementwise."""
        return self._each("stabilize", None, y)

    def restore(self, stable: Any) -> Any:
        """Undo `stabilize`."""
        return self._each("restore", None, stable)

    # -- for users -------------------------------------------------------------------------

    def check_observations(self, y: ArrayLike) -> None:
        """Refuse readings (n_samples, n_times, n_channels) that the noise cannot give."""
        y = np.asarray(y, dtype=float)
        for channel, (name, kind) in enumerate(zip(self.observable_names, self.kinds)):
            wrong, must = kind.refused(y[..., channel])
            if wrong.any():
                sample, time = np.argwhere(wrong)[0]
                raise ValueError(
                    f"Observable {name!r} has the reading {y[sample, time, channel]:g} "
                    f"(sample {sample}, time {time}; {wrong.sum()} like it): {must}."
                )

    def describe(self) -> str:
        """Say the noise in words, for reports."""
        texts: dict[str, list[str]] = {}
        for name, kind in zip(self.observable_names, self.kinds):
            given = self.noise_std is not None
            text = (
                f"{kind.label}, scale given per reading" if given else kind.describe()
            )
            texts.setdefault(text, []).append(name)
        if len(texts) == 1:
            return next(iter(texts))
        return "; ".join(f"{', '.join(names)}: {text}" for text, names in texts.items())

    # -- inside ----------------------------------------------------------------------------

    @property
    def _groups(self) -> list[tuple[Noise, list[int]]]:
        """Each kind with its channels."""
        order = sorted(range(self.n_channels), key=lambda c: self.kinds[c].name)
        groups = groupby(order, key=lambda c: type(self.kinds[c]))
        return [(self.kinds[c[0]], c) for c in (list(c) for _, c in groups)]

    def _each(
        self, method: str, args: ModelArguments | None, *values: Any, **options: Any
    ) -> Any:
        """Call a method of every kind on its channels, and put the results together."""
        groups, parts, order = self._groups, [], []
        widen = method in ("log_prob", "weight", "residual", "std")
        for i, (kind, channels) in enumerate(groups):
            inputs = [v if len(groups) == 1 else v[..., channels] for v in values]
            if args is not None:
                inputs.append(args[i])
            if widen and self.error is not None:
                options["error"] = torch.as_tensor(self.error[channels]).to(inputs[0])
            parts.append(getattr(kind, method)(*inputs, **options))
            order.extend(channels)
        if len(parts) == 1:
            return parts[0]
        back = np.argsort(order)
        if isinstance(parts[0], Tensor):
            return torch.cat(parts, dim=-1)[..., back]
        return np.concatenate(parts, axis=-1)[..., back]

    def _live(self, kind: Noise) -> list[str]:
        """Names of the arguments that `noise_std` does not replace."""
        given = self.noise_std is not None
        return [n for n in kind.argument_names if not (given and n == "scale")]

    def _column(
        self, value: Argument, params: Tensor, columns: dict[str, Tensor]
    ) -> Tensor:
        if isinstance(value, str):
            if value not in columns:
                _check_names((value,), columns)
            return columns[value][:, None]
        if callable(value):
            result = _call(value, columns, self.constants)
            return result[:, None] if result.ndim == 1 else result
        return params.new_tensor(value).reshape(1, -1)


class _Params:
    """Params of one sample by name; a vector param as the vector of its members."""

    def __init__(self, values: Mapping[str, Any], seen: list[str]):
        self._values, self._seen = values, seen

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self[name]

    def __getitem__(self, name: str) -> Any:
        values = self._values
        if name in values:
            self._seen.append(name)
            return values[name]
        parts = [key for key in values if key.startswith(f"{name}[")]
        if not parts:
            raise AttributeError(f"There is no param {name!r} among {list(values)}.")
        self._seen.extend(parts)
        return torch.stack([torch.as_tensor(values[key]) for key in parts])


def _call(
    function: Callable,
    columns: Mapping[str, Tensor],
    constants: Mapping[str, float],
    seen: list[str] | None = None,
) -> Tensor:
    """Call a function of one sample's params on all of them."""

    def one(row: dict[str, Tensor]) -> Tensor:
        value = function(_Params({**constants, **row}, [] if seen is None else seen))
        if isinstance(value, (list, tuple)):
            return torch.stack([torch.as_tensor(v) for v in value])
        return torch.as_tensor(value)

    return torch.func.vmap(one)(dict(columns))


def _names_used(
    function: Callable,
    param_names: Sequence[str] | None,
    constants: Mapping[str, float],
) -> tuple[str, ...]:
    """Names of the params that a function among the arguments asks for."""
    if param_names is None:
        raise ValueError(
            "`param_names` must be given where noise is a function of them."
        )
    seen: list[str] = []
    ones = {name: torch.ones(1, dtype=torch.float64) for name in param_names}
    try:
        _call(function, ones, constants, seen)
    except Exception as error:
        raise ValueError(
            f"The noise's function {_title(function)} must take the params p of one sample "
            "(p.name) and return a positive number, by arithmetic and torch functions. "
            f"It failed: {error}"
        ) from error
    return tuple(name for name in dict.fromkeys(seen) if name in ones)


def _title(function: Callable) -> str:
    return getattr(function, "__qualname__", repr(function))


def _as_kind(value: Any) -> Noise:
    if isinstance(value, Noise):
        return value
    try:
        return NormalNoise(value)
    except TypeError as error:
        raise TypeError(
            "`noise` must be a number, an array, a param's name, a kind of noise such as "
            "Normal(0.1), LogNormal('sigma') or Poisson(), or a list or dict of these by "
            f"observable. Got {value!r}"
            + (" with two arguments, a prior." if hasattr(value, "support") else ".")
        ) from error


def _spread(noise: Noise, n_channels: int) -> list[Noise]:
    """Return the noise of each channel, arguments over observables taken apart."""

    def entry(value: Argument, name: str, channel: int) -> Argument:
        if not isinstance(value, tuple):
            return value
        if isinstance(value[0], tuple):  # (n_times or 1, n_channels or 1)
            if len(value[0]) not in (1, n_channels):
                raise ValueError(
                    f"The {name} of {noise.name} noise must have one column per "
                    f"observable ({n_channels}). Got {len(value[0])}."
                )
            column = tuple(row[channel % len(row)] for row in value)
            return column[0] if len(column) == 1 else column
        if len(value) in (1, n_channels):
            return value[channel % len(value)]
        if n_channels == 1 and all(isinstance(v, (int, float)) for v in value):
            return value  # one per time
        raise ValueError(
            f"The {name} of {noise.name} noise must have one entry per observable "
            f"({n_channels}). Got {len(value)}."
        )

    return [
        replace(
            noise,
            **{n: entry(getattr(noise, n), n, channel) for n in noise.argument_names},
        )
        for channel in range(n_channels)
    ]


def _map(kind: Noise, change: Callable[[Argument], Argument]) -> Noise:
    return replace(kind, **{n: change(getattr(kind, n)) for n in kind.argument_names})


def _values(kind: Noise) -> list[Argument]:
    return [getattr(kind, name) for name in kind.argument_names]


def _known(value: Argument, constants: Mapping[str, float]) -> Argument:
    return (
        float(constants[value])
        if isinstance(value, str) and value in constants
        else value
    )


def _check_times(kind: Noise, observable: str, n_times: int | None) -> None:
    for name in kind.argument_names:
        value = getattr(kind, name)
        if isinstance(value, tuple) and n_times not in (None, len(value)):
            raise ValueError(
                f"The {name} of the noise of {observable!r} must be one number or one per "
                f"time ({n_times}). Got {len(value)}."
            )


def _check_names(used: Sequence[str], param_names: Any) -> None:
    unknown = [name for name in used if name not in param_names]
    if unknown:
        raise ValueError(
            f"`noise` names the param {unknown[0]!r}, which is not among the params "
            f"{list(param_names)}. Give it a prior in `params`."
        )
