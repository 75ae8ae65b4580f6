"""What is looked at when a system is made, so that no search meets it first."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from sklearn_inverse.ode._rhs import push_tangents, rowwise_jacobian
from sklearn_inverse.ode._steady import conserved
from sklearn_inverse.systems._functions import OneSample
from sklearn_inverse.utils._warnings import warn_user

if TYPE_CHECKING:
    from sklearn_inverse.systems._system import ODESystem

__all__ = ["check_system"]

N_POINTS = 6  # samples at which a system is checked
N_STARTS = 12  # from which another steady state is looked for
OTHER = 1e-3  # of the states: how far another one is off


def check_system(system: "ODESystem") -> None:
    """Run all functions of a system, and see that they are what a search can rely on."""
    protocol = system.protocol
    for function in protocol.input_functions:
        function.check(torch.as_tensor(system.nominal)[None])
    params = system.nominal_rows()
    t = protocol.times_of(params)[:, 0]
    schedules = [system.schedule, *protocol.schedules]
    functions = [f for schedule in schedules for f in schedule.functions]
    starts = [*system.common_start.sources, *protocol.initial_sources]
    functions += [f for f in starts if isinstance(f, OneSample)]
    of_params = [f for f in functions if f.states is None]
    changes = [f for f in functions if f.states is not None]
    for function in of_params:
        function.check(params)
    y0 = system.initial_state(params)
    # Of inputs of which nothing is said until there are samples, little can be.
    is_known = system.n_inputs == 0 or system.input_prior is not None
    if is_known:
        _check_finite("The initial state", y0, "nominal params", system)
    observed = system._instrument.functions
    for function in [*system._functions, *observed, *changes]:
        function.check(t, y0, params)
    if is_known:
        _check_finite("`rhs`", system.rhs(t, y0, params), "first time", system)

    t, y, params = _points(system)

    def as_column(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda *tensors: function(*tensors)[:, None]

    checked: list[tuple[str, list[str], Callable[..., Tensor]]]
    checked = [("`rhs`", system.state_names, system.rhs)]
    for f in [*observed, *changes]:
        is_number = f.shape == ()
        names = ["its value"] if is_number else system.state_names
        if f in observed and not is_number:
            names = system.observable_names
        checked.append((f.what, names, as_column(f) if is_number else f))
    for what, names, batched in checked:
        _check_rows(what, batched, (t, y, params))
        _check_derivatives(what, names, partial(batched, t), (y, params))
    start = system.initial_state
    _check_derivatives("`states`", system.state_names, start, (params,))
    for f in of_params:
        _check_derivatives(f.what, ["its value"], as_column(f), (params,))
    if isinstance(system.jac, OneSample):
        _check_jac(system, t, y, params)
    used: list[Callable[..., Tensor]] = [
        start,
        *(partial(f, t, y) for _, _, f in checked),
        *(as_column(q) for schedule in schedules for q in schedule.quantities),
    ]
    if protocol.equilibrates and is_known:
        _check_rest(system)
    _check_event_times(system)
    names = _idle(system, used, params) if is_known else []
    if names:  # unless they decide when something jumps, or act between two jumps only
        breaks = system.breaks()
        jumps = [float(jump(params[:1])) for jump in breaks]
        span = protocol.t_eval
        edges = np.unique([span.min().item(), *jumps, span.max().item()])
        used += map(as_column, breaks)
        for middle in (edges[1:] + edges[:-1]) / 2:
            at = torch.full_like(t, middle)
            used += [partial(f, at, y) for _, _, f in checked]
        names = _idle(system, used, params)
    for part in system.prior.groups.values():  # neighbors know each other
        group = system.param_names[part]
        if not set(group) <= set(names):
            names = [name for name in names if name not in group]
    if names:
        warn_user(
            f"Nothing depends on the param(s) {names}: neither `rhs`, `states`, `observe`, "
            "`events` nor `noise`. They can only be returned as their prior has them; is a "
            "name misspelled?",
            UserWarning,
        )


def _check_event_times(system: "ODESystem") -> None:
    """Warn of changes at known times before an experiment has begun."""
    starts = system.protocol.t_eval[:, 0].tolist()
    groups = [(min(starts), "every experiment", system.schedule)]
    for e, start, own in zip(system.experiments, starts, system.protocol.schedules):
        groups.append((start, f"experiment {e.name!r}", own))
    for start, where, schedule in groups:
        early = [
            event.time
            for event in schedule.events
            if isinstance(event.time, float) and event.change and event.time < start
        ]
        if early:
            warn_user(
                f"What happens at t = {early[0]:g} comes before the start of {where}, "
                f"{start:g}: it will not happen. Let it begin earlier (`start`, or the "
                "first of `times`).",
                UserWarning,
            )


def _check_rest(system: "ODESystem") -> None:
    """Warn where nominal params have several steady states, or none."""
    rows = system.nominal_rows()
    which, resting, _ = system.protocol.resting_rows(rows)
    t, y0 = system.protocol.times_of(rows)[which, 0], system.common_start(rows)[which]
    for one in range(len(which)):
        repeated = resting[[one]].expand(N_STARTS + 1, -1)
        kept = conserved(system.resting, t[[one]], y0[[one]], resting[[one]])[0]
        starts = torch.cat([y0[[one]], _other_starts(y0[one], kept)])
        rest, settled, _ = system.at_rest(
            t[[one]].expand(len(starts)), starts, repeated
        )
        name = system.experiments[int(which[one])].name
        if not settled[0]:
            text = "does not come to rest at nominal params"
        else:
            size = rest[0].abs().amax().clamp(min=1e-300)
            off = (rest - rest[0]).abs().amax(1) > OTHER * size
            if not (off & settled).any():
                continue
            other = rest[int(torch.nonzero(off & settled)[0])]
            text = (
                "may come to rest in several ways at nominal params: from `states` at "
                f"{_brief(rest[0])}, from others at {_brief(other)}. It is taken to have "
                "been at `states` before"
            )
        warn_user(f"Before experiment {name!r} {system.name!r} {text}.", UserWarning)


def _other_starts(y0: Tensor, kept: Tensor) -> Tensor:
    """Return initial states that keep what is conserved; none negative that was not."""
    rng = np.random.RandomState(0)
    size = torch.where(y0 == 0, y0.abs().amax().clamp(min=1.0), y0.abs())
    way = torch.as_tensor(rng.standard_normal((N_STARTS, len(y0)))) * size
    way = way - way @ kept
    rises = (y0 == 0) & (kept.abs() < 1e-9).all(0)  # free, and with no other way to go
    way = torch.where(rises, way.abs(), way)
    room = torch.where((way < 0) & (y0 >= 0), -y0 / way, torch.inf).amin(1)
    share = torch.as_tensor(rng.uniform(0.2, 0.95, N_STARTS))
    return y0 + (share * room.clamp(max=3.0))[:, None] * way


def _brief(y: Tensor) -> str:
    return (
        "[" + ", ".join(f"{x:.3g}" for x in y.tolist()[:6]) + ", …" * (len(y) > 6) + "]"
    )


def _points(system: "ODESystem") -> tuple[Tensor, Tensor, Tensor]:
    """Return times, states and rows of params at which to check: not too special ones."""
    rng = np.random.RandomState(0)
    drawn = system.prior.draw(N_POINTS - 1, rng)
    params = torch.as_tensor(np.concatenate([system.nominal[None], drawn]))
    inputs = system.typical_inputs * rng.uniform(0.9, 1.1, (N_POINTS, system.n_inputs))
    params = system.rows(params, torch.as_tensor(inputs))
    y = system.initial_state(params).detach()
    size = y.abs().amax(1, keepdim=True)
    size = torch.where(size > 0, size, 1.0)
    share = torch.as_tensor(rng.uniform(0.01, 0.1, tuple(y.shape)))
    y = y + share * (y.abs() + 0.1 * size)
    t = system.protocol.times_of(params)
    share = torch.linspace(0, 1, N_POINTS, dtype=t.dtype)
    share = share.repeat_interleave(len(t) // N_POINTS)
    t = t[:, 0] + share * (t[:, -1] - t[:, 0])
    return t, y, system.protocol.at(t, params)


def _check_finite(what: str, values: Tensor, where: str, system: "ODESystem") -> None:
    for name, value in zip(system.state_names, values[0].tolist()):
        if not np.isfinite(value):
            params = dict(zip(system.param_names, system.nominal.tolist()))
            raise ValueError(
                f"{what} must be finite at the {where}. Got {value} for {name!r}, at the "
                f"params {params}."
            )


def _check_rows(
    what: str, function: Callable[..., Tensor], tensors: Sequence[Tensor]
) -> None:
    """Refuse a function whose rows depend on each other, or on chance."""
    together, again = function(*tensors), function(*tensors)
    apart = [function(*(x[i : i + 1] for x in tensors)) for i in range(len(together))]
    size = together.abs().nan_to_num(0, 0, 0).amax()
    for other in (again, torch.cat(apart)):
        if not torch.allclose(
            together, other, 1e-8, 1e-10 * float(size), equal_nan=True
        ):
            raise ValueError(
                f"{what} must give the same each time, and for each sample whatever stands "
                "beside it. Got different values for the same arguments: is something "
                "random in it, or kept from one call to the next? Randomness in the "
                "readings is what `noise` is for."
            )


def _check_derivatives(
    what: str,
    names: Sequence[str],
    function: Callable[..., Tensor],
    points: Sequence[Tensor],
) -> None:
    """Refuse a function that is cut off from automatic differentiation.

    Its derivative along a random direction is compared with differences: where those of
    two steps agree on one number, automatic differentiation must give that too.
    """
    rng = np.random.RandomState(0)
    points = [x.detach() for x in points]
    along = [
        x * torch.as_tensor(rng.uniform(0.5, 1.5, x.shape), dtype=x.dtype)
        for x in points
    ]
    (pushed,) = push_tangents(function, points, [d[None] for d in along])
    with torch.no_grad():
        down, small_down, small_up, up = (
            function(*(x + h * d for x, d in zip(points, along)))
            for h in (-1e-4, -1e-5, 1e-5, 1e-4)
        )
        size = function(*points).abs()
    small, large = (small_up - small_down) / 2e-5, (up - down) / 2e-4
    sure = (small - large).abs() <= 1e-3 * small.abs()
    sure &= small.abs() > 1e-6 * size
    wrong = sure & ((pushed - small).abs() > 0.02 * small.abs())
    for j in range(wrong.shape[1]):
        if int(wrong[:, j].sum()) >= max(2, int(sure[:, j].sum()) / 2):
            raise ValueError(
                f"{what} is cut off from differentiation: {names[j]} changes with the "
                "states and params, but automatic differentiation finds "
                f"{'no' if not pushed[:, j].any() else 'another'} derivative. Compute with "
                "y and p themselves: no .detach() or .numpy(), no torch.tensor(…) or "
                "torch.no_grad() on the way."
            )


def _idle(
    system: "ODESystem", used: Sequence[Callable[[Tensor], Tensor]], params: Tensor
) -> list[str]:
    """Return the params on which neither these functions nor the noise depend."""
    columns = _used(used, params)
    slopes = system.protocol.row_slopes(torch.as_tensor(system.nominal)[None])
    acts = (columns[:, None] & (slopes != 0).any(0)).any(0).tolist()
    params_of_noise = system.noise.param_names
    return [
        name
        for name, does in zip(system.param_names, acts)
        if not does and name not in params_of_noise
    ]


def _used(functions: Sequence[Callable[[Tensor], Tensor]], params: Tensor) -> Tensor:
    """Return which columns change any of the results, of shape (n_columns,)."""
    used = torch.zeros(params.shape[1], dtype=torch.bool)
    for function in functions:
        with torch.enable_grad():
            x = params.detach().clone().requires_grad_()
            f = function(x)
            # Even weights would cancel in reactions, which take as much as they give.
            weights = torch.linspace(0.5, 1.5, f[0].numel(), dtype=f.dtype).exp()
            weights = weights.view(f[0].shape)
            if not f.requires_grad:
                continue
            (slope,) = torch.autograd.grad((weights * f).sum(), x, allow_unused=True)
        if slope is not None:
            used |= (slope != 0).any(0)
    return used


def _check_jac(system: "ODESystem", t: Tensor, y: Tensor, params: Tensor) -> None:
    """Compare a given Jacobian with automatic differentiation."""
    given = system.jac(t, y, params)
    found = rowwise_jacobian(lambda y: system.rhs(t, y, params), y)
    size = found.abs().amax((1, 2), keepdim=True)
    wrong = ((given - found).abs() > 1e-6 * (size + found.abs())).any(0)
    if wrong.any():
        i, j = wrong.nonzero()[0].tolist()
        raise ValueError(
            "`jac` must return df/dy, row by row. Automatic differentiation of `rhs` finds "
            f"{found[0, i, j]:g} in row {i}, column {j}; `jac` has {given[0, i, j]:g}."
        )
