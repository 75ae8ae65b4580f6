"""What a partial differential equation must be, checked once."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sklearn_inverse.exceptions import IdentifiabilityWarning
from sklearn_inverse.systems._declared import check_keys
from sklearn_inverse.utils._warnings import warn_user

__all__ = [
    "check_constraint",
    "check_instruments",
    "check_residual",
    "example",
    "read_domain",
    "read_neumann",
    "unused_params",
]

TIME = "t"
SIDES = {"low": (True, False), "high": (False, True), "both": (True, True)}
SAME = 1e-9  # relative, of what must not depend on something
N_TRIES, N_PLACES = 16, 25  # with other params, at other times and sizes of u


def read_domain(domain: Any) -> dict[str, tuple[float, float]]:
    """Return the intervals by name, one or two of them of space."""
    check_keys("domain", domain)
    found = {}
    for axis, ends in domain.items():
        given = np.asarray(ends, dtype=float)
        if given.shape != (2,) or not -np.inf < given[0] < given[1] < np.inf:
            raise ValueError(
                f"`domain` must have (low, high) of each coordinate. Got {ends!r} for "
                f"{axis!r}."
            )
        found[axis] = (float(given[0]), float(given[1]))
    space = [axis for axis in found if axis != TIME]
    if len(space) not in (1, 2) or max(map(len, space)) != 1:
        raise ValueError(
            "`domain` must have one or two coordinates of space, of one letter each, and "
            f"may have time 't'. Got {list(found)}."
        )
    return found


def read_neumann(neumann: Any, axes: Any) -> list[tuple[bool, bool]]:
    """Return for each coordinate of space whether u is level at its ends."""
    given = dict.fromkeys(neumann, "both") if isinstance(neumann, str) else neumann
    given = {} if given is None else given
    if (
        not isinstance(given, Mapping)
        or not set(given) <= set(axes)
        or not all(isinstance(x, str) and x in SIDES for x in given.values())
    ):
        raise ValueError(
            f"`neumann` must name coordinates of space, {''.join(axes)!r}, or ends of "
            f"these, as {{{next(iter(axes))!r}: 'high'}}, with {list(SIDES)}. Got "
            f"{neumann!r}."
        )
    return [SIDES[given[axis]] if axis in given else (False, False) for axis in axes]


def check_residual(system: Any, times: Tensor, params: Tensor) -> float | None:
    """Return the factor of u.t, None if it varies or there is none.

    Refuse a residual that cannot be run or solved for u.t.
    """
    n = system.n_inner
    bump = np.sin(np.pi * (np.arange(1, n + 1) / (n + 1)))
    states = torch.as_tensor(np.stack([0.3 + bump, 0.2 - 0.5 * bump]))

    def run(rate: float | None, raised: float = 0.0) -> Tensor:
        return _run(
            system,
            "`residual`",
            n,
            lambda t, y, p: system.residual_at(t, y, p, rate),
            (times, states + raised, params),
        )

    off = run(None if system.is_steady else 0.0)
    if not off.isfinite().all():
        raise ValueError(
            "`residual` must be finite inside the prior. Got NaN or infinity."
        )
    if system.is_steady:
        if all(all(grid.level) for grid in system.grids.values()):
            change = run(None, raised=1.0) - off
            if change.abs().amax() <= SAME * off.abs().amax():
                raise ValueError(
                    "A steady solution must be one: insulated all round, and with a "
                    "residual that does not change with u itself, it is open by a "
                    "constant. Give u at an end, or let `domain` have time."
                )
        return None
    one, two = run(1.0), run(2.0)
    factor = one - off
    size = factor.abs().amax()
    if not size > 0 or (factor == 0).any():
        raise ValueError(
            "`residual` must depend on u.t everywhere. Got one that does not: for a "
            "steady problem leave 't' out of `domain`."
        )
    scale = size + off.abs().amax()
    if (two - one - factor).abs().amax() > SAME * scale:
        raise ValueError("`residual` must be linear in u.t. Got one that is not.")
    if (factor - factor[0, 0]).abs().amax() > SAME * scale:
        return None
    whole = float(factor[0, 0])
    return round(whole) if abs(whole - round(whole)) < SAME else whole


def check_constraint(system: Any, times: Tensor, params: Tensor) -> None:
    """Refuse a constraint that leaves boundary values or the start open."""
    states = torch.zeros(len(times), system.n_inner)
    zero, other = (
        _run(
            system,
            "`constraint`",
            int(np.prod(system.shape)),
            lambda t, y, p, n=n: system.constrained(t, n, p).reshape(-1),
            (times, states, params),
        )
        for n in (0.0, 1.0)
    )
    far = (other - zero).abs() > SAME * (1 + zero.abs())
    moved: np.ndarray = far.reshape(len(far), *system.shape).numpy()
    inside = (slice(1, -1),) * len(system.shape)
    for i, (axis, grid) in enumerate(system.grids.items()):
        for end, is_level in zip((0, -1), grid.level):
            at = moved[-1].take([end], axis=i)
            if is_level and not at[(*inside[:i], 0, *inside[i + 1 :])].all():
                raise ValueError(
                    "`constraint` must leave u open where `neumann` has its slope zero. "
                    f"Got one that fixes u at an end of {axis!r}, where n should stand "
                    f"alone, as in {example(system)}."
                )
            if not is_level and at.any():
                raise ValueError(
                    "`constraint` must fix u at all ends, whatever n is: multiply n by "
                    f"what vanishes there, as in {example(system)}. Where not u is given "
                    f"but its slope across is zero, say so: neumann={axis!r}."
                )
    if not system.is_steady and moved[0].any():
        begun = _since("x.t", system.domain[TIME][0])
        raise ValueError(
            "`constraint` must fix what u begins with, whatever n is: multiply n by "
            f"{begun}, as in {example(system)}."
        )
    if not moved[-1][inside].any():
        raise ValueError(
            "`constraint` must leave u open inside: it is the same with n = 0 and n = 1."
        )


def check_instruments(system: Any) -> None:
    """Refuse instruments that see no number whatever the solution is."""
    rng, n = np.random.RandomState(0), system.n_inner
    sizes = 10 ** rng.uniform(-10, 8, N_PLACES) * rng.choice([-1, 1], N_PLACES)
    bump = 0.3 + np.sin(np.pi * (np.arange(1, n + 1) / (n + 1)))
    low, high = (0.0, 0.0) if system.is_steady else system.domain[TIME]
    t = torch.as_tensor(low + (high - low) * rng.uniform(size=N_PLACES))
    params = torch.as_tensor(system.prior.draw(N_PLACES, rng))
    at = t, torch.as_tensor(sizes[:, None] * bump), params
    seen = _run(system, "`observe`", len(system.observable_names), system._read_off, at)
    blind = ~seen.isfinite().any(dim=0).numpy()
    if blind.any():
        named = [name for name, off in zip(system.observable_names, blind) if off]
        raise ValueError(
            "`see` must return numbers. Got NaN or infinity whatever the solution and the "
            f"params for {named[:5]}{' …' if len(named) > 5 else ''}."
        )


def unused_params(system: Any, looks: bool = False) -> list[Any]:
    """Return keys of params that neither residual nor constraint knows of.

    Or of which instruments know nothing, where it is they that are asked about.

    What is not a number is told from what is, even where it makes no difference: a pulse
    or a threshold may be anywhere. Where no other number makes one, a warning says so.
    """
    prior, n = system.prior, system.n_inner
    low, high = (0.0, 0.0) if system.is_steady else system.domain[TIME]
    bump = 0.3 + np.sin(np.pi * (np.arange(1, n + 1) / (n + 1)))
    rng = np.random.RandomState(0)

    def run(t: Tensor, states: Tensor, params: np.ndarray) -> Tensor:
        at = t, states, torch.as_tensor(params)
        if looks:
            n_seen = len(system.observable_names)
            return _run(system, "`observe`", n_seen, system._read_off, at)
        rate = None if system.is_steady else 0.5
        n_nodes = int(np.prod(system.shape))

        def off(t: Any, y: Any, p: Any) -> Any:
            return system.residual_at(t, y, p, rate)

        def ends(t: Any, y: Any, p: Any) -> Any:
            return system.constrained(t, 0.7, p).reshape(-1)

        found = _run(system, "`residual`", n, off, at)
        return torch.cat([found, _run(system, "`constraint`", n_nodes, ends, at)], 1)

    def unchanged(keys: list[Any], other: Any) -> list[Any]:
        # Of any unit; and early times, too.
        sizes = 10 ** rng.uniform(-10, 8, N_PLACES) * rng.choice([-1, 1], N_PLACES)
        share = 10 ** (-6 * rng.uniform(size=N_PLACES) * rng.choice([0, 1], N_PLACES))
        share = share * rng.uniform(size=N_PLACES)
        t = torch.as_tensor(low + (high - low) * share)
        states = torch.as_tensor(sizes[:, None] * bump)
        params, same = prior.draw(N_PLACES, rng), []
        before = run(t, states, params)
        for key in keys:
            changed = params.copy()
            for name in [*key] if isinstance(key, tuple) else [key]:
                place = prior.groups.get(name)
                place = prior.names.index(name) if place is None else place
                changed[:, place] = other[:, place]
            after = run(t, states, changed)
            if ((after == before) | (after.isnan() & before.isnan())).all():
                same.append(key)
        return same

    unused = unchanged(list(system.priors), np.full((N_PLACES, prior.n_params), np.nan))
    idle = [key for key in system.priors if key not in unused]
    for _ in range(N_TRIES):
        idle = unchanged(idle, prior.draw(N_PLACES, rng))
        if not idle:
            return unused
    warn_user(
        f"{'`observe` is' if looks else '`residual` or `constraint` are'} written with "
        f"{idle}, but did not change with it "
        f"at {N_TRIES * N_PLACES} random times and sizes of u: is it multiplied by zero, "
        "or does it act rarely? Readings that it does not reach say nothing of it.",
        IdentifiabilityWarning,
    )
    return unused


def example(system: Any) -> str:
    """Return what leaves u open where it is not known beforehand, to be written."""
    parts = []
    for axis, grid in system.grids.items():
        low, high = _since(f"x.{axis}", grid.low), f"({grid.high:g} - x.{axis})"
        parts += [part for part, free in zip((low, high), grid.level) if not free]
    if not system.is_steady:
        parts.append(_since("x.t", system.domain[TIME][0]))
    return " * ".join(["n", *parts])


def _since(x: str, low: float) -> str:
    """Return what vanishes where an interval begins."""
    sign = "-" if low > 0 else "+"
    return x if low == 0 else f"({x} {sign} {abs(low):g})"


def _run(
    system: Any, what: str, n_values: int, function: Callable[..., Any], at: Any
) -> Tensor:
    try:
        return system.one_sample(function, what, n_values)(*at)
    except (AttributeError, ValueError, TypeError, RuntimeError) as error:
        call = {
            "`residual`": "residual(x, u, p)",
            "`constraint`": "constraint(x, n[, p])",
            "`observe`": "see(x, u, p)",
        }[what]
        raise ValueError(f"{call} cannot be run: {error}") from error
