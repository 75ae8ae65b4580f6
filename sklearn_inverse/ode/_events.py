r"""Events at given times: the integration stops there, and starts anew after them.

Between two of its events, each sample is an initial value problem of its own. An event at
the time :math:`b(k)` takes the state :math:`y^-` to :math:`y^+ = g(b, y^-, k)`. With S the
sensitivity of the state before it, at a fixed time, and :math:`f^\mp` the rates of change
on both sides, that after it is

.. math:: S^+ = g_t\,b' + g_y\,(S + f^-\,b') + g_k - f^+\,b',

where a later event stops what would have been lost and gained meanwhile
(E. Rozenvasser, "General sensitivity equations of discontinuous systems", Automation and
Remote Control 28 (1967) 400-404).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from sklearn_inverse.ode._rhs import Rhs, push_tangents, rowwise_jacobian
from sklearn_inverse.ode._solution import Solution, Status
from sklearn_inverse.ode._step_size import EPS

__all__ = ["Event", "check_events", "event_times", "needed_events", "solve_between"]


class Event(NamedTuple):
    """Something that happens at a time: states change, or the right-hand side jumps.

    Parameters
    ----------
    time : float, Tensor of shape (n_samples,) or callable
        When; ``time(params)`` of shape (n_samples,) where params decide that.

    change : callable, default=None
        ``change(t, y, params)`` returns the states after it, row by row as a right-hand
        side does. If None, only no step passes over this time, so that a right-hand side
        may jump there.

    Examples
    --------
    >>> import torch
    >>> from sklearn_inverse.ode import Event, solve_ivp
    >>> dose = Event(1.0, lambda t, y, params: y + 1)
    >>> y = solve_ivp(lambda t, y, params: -y, [0.0, 1.0, 2.0], [[1.0]], events=[dose]).y
    >>> exact = torch.tensor([1.0, 1 + 1 / torch.e, (1 + 1 / torch.e) / torch.e])
    >>> (y[0, :, 0] - exact).abs().max() < 1e-5
    tensor(True)
    """

    time: float | Tensor | Callable[[Tensor], Tensor]
    change: Rhs | None = None


def event_times(
    events: Sequence[Event], params: Tensor, with_slopes: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Return the times of all events, and their derivatives by the params.

    Returns
    -------
    times : Tensor of shape (n_samples, n_events)
        Times.

    slopes : Tensor of shape (n_samples, n_events, n_params) or None
        Derivatives, if they are asked for.
    """
    times, slopes = [], []
    for event in events:
        time = event.time(params) if callable(event.time) else event.time
        times.append(torch.as_tensor(time).to(params).expand(len(params)))
        if with_slopes and callable(event.time):
            slopes.append(
                rowwise_jacobian(partial(_as_column, event.time), params)[:, 0]
            )
        else:
            slopes.append(torch.zeros_like(params))
    return torch.stack(times, 1), torch.stack(slopes, 1) if with_slopes else None


def _as_column(function: Callable[[Tensor], Tensor], params: Tensor) -> Tensor:
    return function(params)[:, None]


def needed_events(
    events: Sequence[Event], times: Tensor, slopes: Tensor | None, t_eval: Tensor
) -> list[int]:
    """Return which events happen in any sample; of breakpoints that are alike, the last."""
    happens = ((times >= t_eval[:, :1]) & (times <= t_eval[:, -1:])) | times.isnan()
    needed: dict[object, int] = {}
    for e in torch.nonzero(happens.any(0))[:, 0].tolist():
        key: object = e
        if events[e].change is None:
            when = times[:, e, None]
            if slopes is not None:
                when = torch.cat([when, slopes[:, e]], dim=1)
            key = when.cpu().numpy().tobytes()
        needed[key] = e
    return sorted(needed.values())


def check_events(events, t_eval: Tensor, y0: Tensor, params: Tensor) -> list[Event]:
    """Return the events; raise ValueError unless they are what they should be."""
    events = list(events)
    for event in events:
        if not isinstance(event, Event):
            raise ValueError(
                f"`events` must hold objects of class Event. Got {event!r}."
            )
        time = event.time(params.detach()) if callable(event.time) else event.time
        time = torch.as_tensor(time)
        if time.shape not in ((), (len(y0),)):
            raise ValueError(
                "The time of an event must be a number or of shape (n_samples,) = "
                f"({len(y0)},). Got {tuple(time.shape)} instead."
            )
        results = [("time", time)]
        if event.change is not None:
            t0, start = t_eval[:, 0].clone(), y0.detach().clone()
            new = event.change(t0, start, params.detach())
            results.append(("change", new))
            if not isinstance(new, Tensor) or new.shape != y0.shape:
                got = (
                    tuple(new.shape) if isinstance(new, Tensor) else type(new).__name__
                )
                raise ValueError(
                    "`change(t, y, params)` of an event must return a tensor of the shape "
                    f"of `y`, {tuple(y0.shape)}. Got {got} instead."
                )
            if start._version:
                raise ValueError("`change(t, y, params)` must not change `y` in place.")
        for name, value in results:
            if value.requires_grad:
                raise ValueError(
                    f"The {name} of an event depends on tensors that require a gradient, "
                    "which would not get it. Hand them over in `params`."
                )
    return events


def solve_between(
    run: Callable[..., Solution],
    rhs: Rhs,
    events: Sequence[Event],
    times: Tensor,
    slopes: Tensor | None,
    t_eval: Tensor,
    y0: Tensor,
    params: Tensor,
    tangents: Tensor | None,
) -> Solution:
    """Solve from each sample's events to its next ones.

    Parameters
    ----------
    run : callable
        ``run(t_eval, y0, params, tangents)`` solves without events.

    rhs : callable
        The right-hand side.

    events : sequence of Event
        What changes; of those at one time, the first is first.

    times : Tensor of shape (n_samples, n_events)
        When. Those before the first or after the last output time do not happen.

    slopes : Tensor of shape (n_samples, n_events, n_params) or None
        Derivatives of the times by the params.

    t_eval, y0, params : Tensor
        As for ``solve_ivp``.

    tangents : Tensor of shape (n_samples, n_states, n_params) or None
        Derivatives of ``y0``; None if no sensitivities are asked for.

    Returns
    -------
    solution : Solution
        The state at the time of an event is that after it.
    """
    y0 = torch.where(times.isnan().any(1, keepdim=True), torch.nan, y0)
    sensitivities = None
    if tangents is not None:
        tangents = tangents.clone()
        shape = (*t_eval.shape, *tangents.shape[1:])
        sensitivities = y0.new_full(shape, torch.nan)
    y = y0.new_full((*t_eval.shape, y0.shape[1]), torch.nan)
    status = torch.zeros(len(y0), dtype=torch.int64, device=y0.device)
    solution = Solution(y, status, {}, sensitivities)
    legs = Legs(times, t_eval)
    state = y0.clone()
    for number in range(legs.n_events + 1):
        solved = status == Status.SUCCESS
        for e, rows, t_after in legs.events_before(number, solved):
            state[rows], pushed = _happen(
                events[e].change,
                rhs,
                legs.begin(number)[rows],
                t_after,
                state[rows],
                params[rows],
                None if slopes is None else slopes[rows, e],
                None if tangents is None else tangents[rows],
            )
            if tangents is not None:
                tangents[rows] = pushed
        rows, t_leg, output, place = legs.cut(number, solved)
        if len(rows) == 0:
            continue
        part = run(
            t_leg,
            state[rows],
            params[rows],
            None if tangents is None else tangents[rows],
        )
        y[output], state[rows] = part.y[place], part.y[:, -1]
        if sensitivities is not None and tangents is not None:
            assert part.sensitivities is not None
            sensitivities[output] = part.sensitivities[place]
            tangents[rows] = part.sensitivities[:, -1]
        status[rows] = part.status
        for name, counts in part.stats.items():
            solution.stats.setdefault(name, torch.zeros_like(status))[rows] += counts
    return solution


class Legs:
    """Each sample's way, from one of its events to the next in the order of their times.

    Parameters
    ----------
    times : Tensor of shape (n_samples, n_events)
        When they happen.

    t_eval : Tensor of shape (n_samples, n_times)
        Output times.
    """

    def __init__(self, times: Tensor, t_eval: Tensor):
        first, last = t_eval[:, :1], t_eval[:, -1:]
        times = torch.where(times < first, -torch.inf, times)
        times = torch.where(times > last, torch.inf, times)
        self.t_eval, self.n_events = t_eval, times.shape[1]
        self.times, self.order = times.sort(dim=1, stable=True)
        self.happens = self.times.isfinite()
        inner = self.times.maximum(first).minimum(last)
        self.edges = torch.cat([first, inner, last], dim=1)

    def begin(self, number: int) -> Tensor:
        """Return when a leg begins, (n_samples,)."""
        return self.edges[:, number]

    def events_before(self, number: int, solved: Tensor):
        """Yield events at the start of a leg, with their samples and a time after them."""
        if number == 0:
            return
        column, begin = number - 1, self.begin(number)
        order, happens = self.order[:, column], self.happens[:, column] & solved
        # What the right-hand side does by itself comes with the last of those at a time.
        is_last = torch.ones_like(happens)
        if number < self.n_events:
            is_last = self.times[:, number] > self.times[:, column]
        t_after = torch.where(is_last, _after(begin), _before(begin, begin))
        for e in order[happens].unique().tolist():
            rows = torch.nonzero(happens & (order == e))[:, 0]
            yield e, rows, t_after[rows]

    def cut(self, number: int, solved: Tensor):
        """Return what is to be solved of a leg.

        Returns
        -------
        rows : Tensor of shape (n_rows,)
            The samples that get on; all, in the last leg.

        t_leg : Tensor of shape (n_rows, n_times + 2)
            Its start, output times within it and its end.

        output, place : tuple of Tensor
            Where, in all outputs and in those of the leg, output times are.
        """
        begin, end = self.edges[:, number], self.edges[:, number + 1]
        is_last = number == self.n_events
        rows = torch.nonzero(solved & ((end > begin) | is_last))[:, 0]
        t_eval, begin, end = self.t_eval[rows], begin[rows, None], end[rows, None]
        inside = t_eval >= begin
        if not is_last:
            inside = inside & (t_eval < end)
        columns = torch.nonzero(inside.any(0))[:, 0]
        # Each side of a jump of the right-hand side is to see its own branch.
        if not is_last:
            stops = self.happens[rows, number, None]
            end = torch.where(stops, _before(end, begin), end)
        if number > 0:
            starts = self.happens[rows, number - 1, None]
            begin = torch.where(starts, _after(begin), begin)
        end = torch.maximum(begin, end)
        asked = t_eval[:, columns].maximum(begin).minimum(end)
        row, column = torch.nonzero(inside[:, columns], as_tuple=True)
        t_leg = torch.cat([begin, asked, end], dim=1)
        return rows, t_leg, (rows[row], columns[column]), (row, column + 1)


def _happen(change, rhs, t, t_after, y, params, slopes, tangents):
    """Return states after an event, and their tangents at a fixed time."""
    new = y if change is None else change(t, y, params).to(y)
    if tangents is None:
        return new, None
    moves = bool((slopes != 0).any())
    if moves:
        f = rhs(_before(t, t), y, params)
        tangents = tangents + f[:, :, None] * slopes[:, None]
    if change is not None:
        eye = torch.eye(params.shape[1], dtype=y.dtype, device=y.device)
        along = (
            slopes.mT,
            tangents.movedim(-1, 0),
            eye[:, None].expand(-1, *params.shape),
        )
        tangents = push_tangents(change, (t, y, params), along).movedim(0, -1)
    if moves:
        tangents = tangents - rhs(t_after, new, params)[:, :, None] * slopes[:, None]
    return new, tangents


# Stages lie at t + c h, rounded: a few units in the last place away from the event's time.


def _after(t: Tensor) -> Tensor:
    return torch.nextafter(t + 4 * EPS * t.abs(), torch.full_like(t, torch.inf))


def _before(t: Tensor, start: Tensor) -> Tensor:
    size = torch.maximum(t.abs(), start.abs())
    return torch.nextafter(t - 4 * EPS * size, torch.full_like(t, -torch.inf))
