"""What a partial differential equation must be, checked once."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sklearn_inverse.exceptions import IdentifiabilityWarning
from sklearn_inverse.systems._declared import check_keys
from sklearn_inverse.utils._warnings import warn_user

__all__ = [
    "Rate",
    "check_constraint",
    "check_fluxes",
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
SIZES = [None, *((e, e + 3) for e in range(-9, 9, 3))]  # decades of u; None: its own


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


class Rate(NamedTuple):
    """How a residual depends on u.t.

    Attributes
    ----------
    factor : float or None
        What stands before u.t, None if it varies.

    probe : float
        A u.t whose share of the residual is as large as that of all else.
    """

    factor: float | None
    probe: float


def check_residual(system: Any, times: Tensor, params: Tensor) -> Rate | None:
    """Return how it depends on u.t, None if there is no time.

    Refuse a residual that cannot be run or solved for u.t, or has no single solution.
    """
    n = system.n_inner
    bump = np.sin(np.pi * (np.arange(1, n + 1) / (n + 1)))
    states = torch.as_tensor(np.stack([0.3 + bump, 0.2 - 0.5 * bump]))

    def run(rate: float | None, at: Any = (times, states, params)) -> Tensor:
        def residual(t: Any, y: Any, p: Any) -> Any:
            return system.residual_at(t, y, p, rate)

        return _run(system, "`residual`", n, residual, at)

    off = run(None if system.is_steady else 0.0)
    if not off.isfinite().all():
        raise ValueError(
            "`residual` must be finite inside the prior. Got NaN or infinity."
        )
    if system.is_steady:
        if all(all(grid.level) for grid in system.grids.values()):
            change = run(None, (times, states + 1.0, params)) - off
            if change.abs().amax() <= SAME * off.abs().amax():
                raise ValueError(
                    "A steady solution must be one: insulated all round, and with a "
                    "residual that does not change with u itself, it is open by a "
                    "constant. Give u at an end, or let `domain` have time."
                )
        if system.is_open(params[1:]):  # not where a prior has its middle, at zero say
            raise ValueError(
                "A steady solution must be one: here derivatives of `residual` by the "
                "values of u are singular, so that something is open. Does it need more "
                "conditions than u at the ends, as derivatives higher than the second do?"
            )
        return None
    probe = _telling(lambda rate: run(rate) - off, off)
    factor = (run(probe) - off) / probe
    size = factor.abs().amax()
    if not size > 0 or (factor == 0).any():
        raise ValueError(
            "`residual` must depend on u.t everywhere. Got one that does not: for a "
            "steady problem leave 't' out of `domain`."
        )
    twice = (run(2 * probe) - off) / probe
    if not (twice - 2 * factor).abs().amax() <= SAME * size:
        raise ValueError("`residual` must be linear in u.t. Got one that is not.")
    if (factor - factor[0, 0]).abs().amax() > SAME * size:
        return Rate(None, probe)
    whole = float(factor[0, 0])
    rng = np.random.RandomState(0)
    for exponents in SIZES:
        at = _tried(system, rng, exponents)
        off = run(0.0, at)
        own = probe * max(
            1.0, float(off.nan_to_num(0, 0, 0).abs().amax() / size / probe)
        )
        here = (run(own, at) - off) / own
        if ((here - whole).abs() > SAME * size).any():
            return Rate(None, probe)
    is_whole = round(whole) != 0 and abs(whole - round(whole)) < SAME * abs(whole)
    return Rate(round(whole) if is_whole else whole, probe)


def _telling(change: Callable[[float], Tensor], beside: Tensor) -> float:
    """Return a size at which what changes is as large as what stands beside it."""
    for exponent in range(0, 31, 3):
        if change(10.0**exponent).abs().amax() >= beside.abs().amax():
            break
    return 10.0**exponent


def _tried(system: Any, rng: Any, exponents: tuple[int, int] | None) -> Any:
    """Return times, states and params at which to try, states of sizes so many decades.

    Without exponents, as different from node to node as the constraint is.
    """
    low, high = (0.0, 0.0) if system.is_steady else system.domain[TIME]
    t = torch.as_tensor(low + (high - low) * rng.uniform(size=N_PLACES))
    params = torch.as_tensor(system.prior.draw(N_PLACES, rng))
    n = system.n_inner
    shape = N_PLACES, n
    if exponents is None:
        ends = _run(
            system,
            "`constraint`",
            int(np.prod(system.shape)),
            lambda t, y, p: system.constrained(t, 0.0, p).reshape(-1),
            (t, torch.zeros(shape, dtype=torch.float64), params),
        ).numpy()
        least, most = np.nanmin(ends, axis=1), np.nanmax(ends, axis=1)
        spread = most - least
        spread = np.where(spread > 0, spread, np.maximum(abs(most), 1.0))
        states = least[:, None] + spread[:, None] * rng.uniform(size=shape)
    else:
        sizes = 10 ** rng.uniform(*exponents, N_PLACES)
        sizes = sizes * rng.choice([-1, 1], N_PLACES)
        states = sizes[:, None] * (0.3 + np.sin(np.pi * np.arange(1, n + 1) / (n + 1)))
    return t, torch.as_tensor(states), params


def check_constraint(system: Any, times: Tensor, params: Tensor) -> None:
    """Refuse a constraint that leaves boundary values or the start open."""
    states = torch.zeros(len(times), system.n_inner)

    def run(n: float) -> Tensor:
        def constrained(t: Any, y: Any, p: Any) -> Any:
            return system.constrained(t, n, p).reshape(-1)

        n_nodes = int(np.prod(system.shape))
        return _run(
            system, "`constraint`", n_nodes, constrained, (times, states, params)
        )

    zero = run(0.0)
    by_n = (run(_telling(lambda n: run(n) - zero, zero)) - zero).abs()
    far = by_n > SAME * by_n.amax()
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
    if not moved[-1][inside].all():
        where = "it is the same whatever n is"
        if moved[-1][inside].any():
            where = "at some nodes it is the same whatever n is"
        raise ValueError(f"`constraint` must leave u open inside: {where}.")


def check_fluxes(system: Any) -> None:
    """Refuse fluxes of ``godunov`` that are not convex in the range of the constraint."""
    rate = None if system.is_steady else 0.0
    fluxes: list[Any] = []

    def residual(t: Any, y: Any, p: Any) -> Any:
        return system.residual_at(t, y, p, rate, fluxes=fluxes)

    at = _tried(system, np.random.RandomState(0), None)
    _run(system, "`residual`", system.n_inner, residual, at)
    values = [torch.as_tensor(getattr(x, "_tensor", x)) for x in fluxes]
    for bent, above, size in zip(values[::3], values[1::3], values[2::3]):
        if ((bent < -SAME * size) | (above < -SAME * size)).any():
            raise ValueError(
                "The flux of godunov must be convex where u is, with its minimum at "
                "`lowest`. Got one that is not, between the least and the largest value of "
                "`constraint`: of a concave one take -u for the solution."
            )


def check_instruments(system: Any) -> None:
    """Refuse instruments that see no number whatever the solution is."""
    at = _tried(system, np.random.RandomState(0), (-10, 8))
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
        low, high = _since(f"x.{axis}", grid.low), f"({_written(grid.high)} - x.{axis})"
        parts += [part for part, free in zip((low, high), grid.level) if not free]
    if not system.is_steady:
        parts.append(_since("x.t", system.domain[TIME][0]))
    return " * ".join(["n", *parts])


def _since(x: str, low: float) -> str:
    """Return what vanishes where an interval begins."""
    sign = "-" if low > 0 else "+"
    return x if low == 0 else f"({x} {sign} {_written(abs(low))})"


def _written(number: float) -> str:
    """Return a number with all its digits."""
    return repr(float(number)).removesuffix(".0")


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
