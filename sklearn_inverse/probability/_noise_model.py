"""The noise of all observables of a system.

``as_noise`` makes a NoiseModel of what users write. Its tensors have the shape (n, n_times,
n_channels): ``mean`` is what the forward model gives, ``y`` the readings (NaN unread), and
``args`` what ``arguments`` makes of the params, once for several calls.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import SimpleNamespace
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Generator, Tensor

from sklearn_inverse.probability._noise import Counts, LogNormalNoise, NormalNoise
from sklearn_inverse.probability._noise_base import (
    Argument,
    Arguments,
    Noise,
    is_open,
)
from sklearn_inverse.probability._priors import Prior

__all__ = ["NoiseModel", "as_noise"]

LISTED = 12  # observables with different noise

ModelArguments: TypeAlias = tuple[Arguments, ...]  # one tuple per kind


def as_noise(
    value: Any,
    observable_names: Sequence[str],
    *,
    n_times: int | None = None,
    param_names: Sequence[str] | None = None,
    constants: Mapping[str, float] | None = None,
    wrap: Callable[[Callable], Callable[[Tensor], Tensor]] | None = None,
) -> "NoiseModel":
    """Make the noise model of what stands as ``noise=``.

    Parameters
    ----------
    value : object
        A kind of noise; a number, array, param's name or function of the params, which
        is the standard deviation of normal noise (None: unknown); a list with one of
        these per observable; or a dict of them by observable. A NoiseModel is returned
        as it is.

    observable_names : sequence of str
        Names of the observables, in order.

    n_times : int, default=None
        Number of times, which arrays over the times must have.

    param_names : sequence of str, default=None
        Names of the estimated params, against which names are checked.

    constants : dict, default=None
        Values of params that are known: they replace their names.

    wrap : callable, default=None
        Makes of a function of one sample's named params one of params (n, n_params) in
        the order of `param_names`, returning (n,) or (n, n_times). If None, functions
        are called with a namespace of columns (n,) and constants.

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
    names, known = tuple(observable_names), dict(constants or {})
    if isinstance(value, (list, tuple)) and any(isinstance(v, Noise) for v in value):
        value = (
            dict(zip(names, value))
            if len(value) == len(names)
            else dict(enumerate(value))
        )
    if isinstance(value, Mapping):
        if set(value) != set(names):
            raise ValueError(
                f"`noise` must have one entry for each observable {list(names)}. Got "
                f"entries for {list(value)}."
            )
        kinds = [_as_kind(value[name])._spread(1)[0] for name in names]
    else:
        kinds = _as_kind(value)._spread(len(names))

    def settle(value: Argument, name: str) -> Argument:
        if isinstance(value, tuple) and n_times not in (None, len(value)):
            raise ValueError(
                f"The {name} of noise must be one number or one for each of {n_times} "
                f"times. Got {len(value)}."
            )
        if callable(value):
            return _function(value, wrap, known, param_names)
        if isinstance(value, str):
            if value in known:
                return float(known[value])
            if param_names is not None:
                _check_name(value, param_names)
        return value

    return NoiseModel(tuple(kind._change(settle) for kind in kinds), names)


@dataclass(frozen=True, repr=False)
class NoiseModel:
    """One kind of noise per observable; made by `as_noise`.

    Attributes
    ----------
    kinds : tuple of Noise
        One per observable. Arguments are numbers, tuples over the times, names of params,
        functions of the params, or None (an unknown scale).

    observable_names : tuple of str
        Names of the observables, in order.

    noise_std, error : Tensor broadcastable to (n, n_times, n_channels), or None
        Given by `with_std` and `with_error`.
    """

    kinds: tuple[Noise, ...]
    observable_names: tuple[str, ...]
    noise_std: Tensor | None = field(default=None, compare=False)
    error: Tensor | None = field(default=None, compare=False)

    def __repr__(self) -> str:
        pairs = zip(self.observable_names, self.kinds)
        return f"NoiseModel({{{', '.join(f'{n!r}: {kind!r}' for n, kind in pairs)}}})"

    @property
    def n_channels(self) -> int:
        """Number of observables."""
        return len(self.kinds)

    @property
    def param_names(self) -> tuple[str, ...]:
        """Names of the params that the noise depends on, each once."""
        used: list[str] = []
        for value in self._live():
            used += [value] if isinstance(value, str) else getattr(value, "names", ())
        return tuple(dict.fromkeys(used))

    @property
    def has_unknowns(self) -> bool:
        """Whether any argument is estimated."""
        return any(map(is_open, self._live()))

    @cached_property
    def reads_params(self) -> bool:
        """Whether any argument depends on the params."""
        return any(value is not None and is_open(value) for value in self._live())

    @property
    def has_unknown_scale(self) -> np.ndarray:
        """Whether the scale of each observable is unknown, of shape (n_channels,)."""
        return np.array([None in self._live(kind) for kind in self.kinds])

    @property
    def is_relative(self) -> np.ndarray:
        """Which observables have a scale without a unit, of shape (n_channels,)."""
        return np.array([isinstance(kind, LogNormalNoise) for kind in self.kinds])

    @property
    def is_normal(self) -> np.ndarray:
        """Whether the noise of each observable is normal, of shape (n_channels,)."""
        return np.array([isinstance(kind, NormalNoise) for kind in self.kinds])

    @property
    def is_count(self) -> np.ndarray:
        """Which observables are counted, of shape (n_channels,)."""
        return np.array([isinstance(kind, Counts) for kind in self.kinds])

    def with_std(self, noise_std: ArrayLike | Tensor) -> "NoiseModel":
        """Replace all scales by ``noise_std``, broadcastable to the means."""
        for name, kind in zip(self.observable_names, self.kinds):
            if "scale" not in kind._arguments():
                raise ValueError(
                    f"`noise_std` must be left out: observable {name!r} has {kind} noise, "
                    "which has no scale."
                )
        std = self._positive(noise_std, "noise_std")
        return replace(self, noise_std=std.clamp(min=1e-100))  # its square is above 0

    def with_error(self, error: ArrayLike | Tensor) -> "NoiseModel":
        """Add the square of the model's own ``error`` to the variance of readings.

        Broadcastable to the means. It widens `log_prob`, `weight`, `residual` and `std`;
        `sample` stays as it is, readings of the means it is given.
        """
        return replace(
            self, error=None if error is None else self._positive(error, "error")
        )

    def truncate(self, n_times: int) -> "NoiseModel":
        """Keep the noise of the first ``n_times`` times."""

        def first(value: Argument, name: str) -> Argument:
            return value[:n_times] if isinstance(value, tuple) else value

        return replace(self, kinds=tuple(kind._change(first) for kind in self.kinds))

    def arguments(
        self,
        params: Tensor,
        param_names: Sequence[str],
        log_scale: Tensor | None = None,
    ) -> ModelArguments:
        """Return the arguments of the noise at each row of params, differentiably.

        Parameters
        ----------
        params : Tensor of shape (n, n_params)
            In physical units.

        param_names : sequence of str
            Names of the columns.

        log_scale : Tensor of shape (n, n_channels), default=None
            Natural log of the scales that are unknown; the columns of others are not
            read. If None, unknown scales are 0: `sample` adds no noise, and `log_prob` is
            -inf.

        Returns
        -------
        args : tuple of tuples of Tensor
            To be passed on.
        """
        columns = dict(zip(param_names, params.unbind(1)))

        def column(value: Argument, channel: int) -> Tensor:  # (n or 1, n_times or 1)
            if value is None:
                if log_scale is None:
                    return params.new_zeros(1, 1)
                return log_scale[:, channel, None].exp()
            if isinstance(value, str):
                _check_name(value, columns)
                return columns[value][:, None]
            if callable(value):
                return value(params, columns)
            return params.new_tensor(value).reshape(1, -1)

        def stack(name: str, channels: list[int]) -> Tensor:
            if name == "scale" and self.noise_std is not None:
                return _take(self.noise_std.to(params), channels)
            values = [getattr(self.kinds[c], name) for c in channels]
            if values[0] is not None and len(set(values)) == 1:
                return column(values[0], channels[0])[:, :, None]
            parts = [column(v, c) for v, c in zip(values, channels)]
            return torch.stack(torch.broadcast_tensors(*parts), dim=-1)

        return tuple(
            tuple(
                stack(name, channels) for name in self.kinds[channels[0]]._arguments()
            )
            for _, channels in self._groups
        )

    def log_prob(self, y: Tensor, mean: Tensor, args: ModelArguments) -> Tensor:
        """Log density of each reading: 0 where unread, -inf where impossible, never NaN."""
        return self._each("_log_prob", mean, args, self._errors(mean), y=y)

    def weight(self, mean: Tensor, args: ModelArguments) -> Tensor:
        """Fisher information of each mean, read or not; 0 where it is clamped."""
        return self._each("_weight", mean, args, self._errors(mean))

    def residual(self, y: Tensor, mean: Tensor, args: ModelArguments) -> Tensor:
        """Return deviations that are about N(0, 1): 0 unread, inf where impossible.

        Pearson residuals for counts, normal scores for Student t (no gradient), Laplace.
        """
        return self._each("_residual", mean, args, self._errors(mean), y=y)

    def std(self, mean: Tensor, args: ModelArguments) -> Tensor:
        """Return the standard deviation of readings (Student t with df <= 2: its scale)."""
        return self._each("_std", mean, args, self._errors(mean))

    def sample(
        self, mean: Tensor, args: ModelArguments, generator: Generator | None = None
    ) -> Tensor:
        """Draw readings on the device of mean and generator, without gradient."""
        return self._each("_sample", mean, args, [generator] * len(args))

    def stabilize(self, y: Any) -> Any:
        """Map readings (…, n_channels) to where noise is about uniform, elementwise."""
        return self._map("_stabilize", y)

    def restore(self, stable: Any) -> Any:
        """Undo `stabilize`."""
        return self._map("_restore", stable)

    def check_observations(self, y: ArrayLike) -> None:
        """Refuse readings (n_samples, n_times, n_channels) that the noise cannot give."""
        y = np.asarray(y, dtype=float)
        for channel, (name, kind) in enumerate(zip(self.observable_names, self.kinds)):
            wrong = kind._refused(y[..., channel])
            if wrong.any():
                sample, time = np.argwhere(wrong)[0]
                raise ValueError(
                    f"Observable {name!r} has the reading {y[sample, time, channel]:g} "
                    f"(sample {sample}, time {time}; {wrong.sum()} of the kind): "
                    f"{kind._must}."
                )

    def describe(self) -> str:
        """Say the noise in words, for reports."""
        given = "scale given by reading" if self.noise_std is not None else ""
        texts: dict[str, list[str]] = {}
        for name, kind in zip(self.observable_names, self.kinds):
            text = f"{kind._label}, {given}" if given else kind._describe()
            texts.setdefault(text, []).append(name)
        if len(texts) > LISTED:
            of = (
                [self.kinds[channel] for channel in channels]
                for _, channels in self._groups
            )
            told = {k[0]._describe(k): len(k) for k in of}
            if len(told) == 1:
                return next(iter(told))
            return "; ".join(f"{n} observables: {text}" for text, n in told.items())
        if len(texts) == 1:
            return next(iter(texts))
        return "; ".join(f"{', '.join(names)}: {text}" for text, names in texts.items())

    @cached_property
    def _groups(self) -> list[tuple[type[Noise], list[int]]]:
        """Kinds, each with its observables."""
        groups: dict[type[Noise], list[int]] = {}
        for channel, kind in enumerate(self.kinds):
            groups.setdefault(type(kind), []).append(channel)
        return list(groups.items())

    def _live(self, *kinds: Noise) -> list[Argument]:
        """Return the arguments of kinds (or all) that `noise_std` does not replace."""
        given = [] if self.noise_std is None else ["scale"]
        pairs = [pair for k in kinds or self.kinds for pair in k._arguments().items()]
        return [value for name, value in pairs if name not in given]

    def _positive(self, value: ArrayLike | Tensor, name: str) -> Tensor:
        tensor = torch.as_tensor(value)
        tensor = tensor if tensor.is_floating_point() else tensor.double()
        if tensor.ndim > 3 or (
            tensor.ndim and tensor.shape[-1] not in (1, self.n_channels)
        ):
            raise ValueError(
                f"`{name}` must broadcast to (n_samples, n_times, {self.n_channels}). Got "
                f"shape {tuple(tensor.shape)}."
            )
        if (tensor < 0).any():
            raise ValueError(f"`{name}` must be >= 0. Got {tensor.min():g}.")
        return tensor.expand(*tensor.shape[:-1], self.n_channels)

    def _errors(self, mean: Tensor) -> list[Tensor | None]:
        """Return the model's error for each kind."""
        if self.error is None:
            return [None] * len(self._groups)
        error = self.error.to(mean)
        return [_take(error, channels) for _, channels in self._groups]

    def _each(self, method: str, mean: Tensor, *parts: Any, **values: Tensor) -> Tensor:
        """Call a method of every kind on its channels, and put the results together."""
        if len(self._groups) == 1:
            return getattr(self._groups[0][0], method)(
                mean, *(p[0] for p in parts), **values
            )
        results, order = [], []
        for (kind, channels), *own in zip(self._groups, *parts):
            of_kind = {name: _take(value, channels) for name, value in values.items()}
            results.append(
                getattr(kind, method)(_take(mean, channels), *own, **of_kind)
            )
            order.extend(channels)
        return torch.cat(results, dim=-1)[..., np.argsort(order)]

    def _map(self, method: str, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return self._map(method, torch.as_tensor(np.asarray(value))).numpy()
        return self._each(method, value)


@dataclass(frozen=True)
class _Function:
    """A user's function of params, as an argument of noise."""

    function: Callable
    wrapped: Callable[[Tensor], Tensor] | None = field(compare=False)
    constants: tuple[tuple[str, float], ...]
    names: tuple[str, ...] = ()  # of the params it depends on

    def __repr__(self) -> str:
        return getattr(self.function, "__qualname__", repr(self.function))

    def __call__(self, params: Tensor, columns: Mapping[str, Tensor]) -> Tensor:
        if self.wrapped is not None:
            value = self.wrapped(params)
        else:
            value = self.function(SimpleNamespace(**dict(self.constants), **columns))
            value = torch.as_tensor(value).to(params)
        return value if value.ndim == 2 else value.reshape(-1, 1)


def _function(
    function: Callable,
    wrap: Callable[[Callable], Callable[[Tensor], Tensor]] | None,
    known: Mapping[str, float],
    param_names: Sequence[str] | None,
) -> _Function:
    """Make an argument of a function, and find out what it depends on."""
    made = _Function(function, wrap(function) if wrap else None, tuple(known.items()))
    if param_names is None:
        return made
    positive = torch.linspace(0.5, 1.5, 7, dtype=torch.float64)
    params = positive[:, None].repeat(1, len(param_names)).requires_grad_()
    try:
        value = made(params, dict(zip(param_names, params.unbind(1))))
        (slope,) = torch.autograd.grad(value.sum() + 0 * params.sum(), params)
    except Exception as error:
        raise ValueError(
            f"{made}, of which `noise` is a function, must make a positive number of the "
            "params p of one sample, by arithmetic and torch functions of p.name. It "
            f"failed: {error}"
        ) from error
    used = (slope != 0).any(0).nonzero()[:, 0].tolist()
    return replace(made, names=tuple(param_names[j] for j in used))


def _take(tensor: Tensor, channels: list[int]) -> Tensor:
    whole = tensor.ndim == 0 or len(channels) == tensor.shape[-1]
    return tensor if whole else tensor[..., channels]


def _as_kind(value: Any) -> Noise:
    if isinstance(value, Noise):
        return value
    try:
        return NormalNoise(value)
    except TypeError as error:
        raise TypeError(
            "`noise` must be a number, an array, a param's name, or noise as Normal(0.1), "
            "LogNormal('sigma') or Poisson(), or a list or dict of these by observable. "
            f"Got {value!r}{', a prior.' if isinstance(value, Prior) else '.'}"
        ) from error


def _check_name(name: str, param_names: Any) -> None:
    if name not in param_names:
        raise ValueError(
            f"`noise` names {name!r}, which is not among the params {list(param_names)}. "
            "Give it a prior in `params`."
        )
