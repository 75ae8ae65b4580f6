r"""Events: the integration stops there, and starts anew after them.

Between two of its events, each sample is an initial value problem of its own. An event at
the time :math:`b(k)` takes the state :math:`y^-` to :math:`y^+ = g(b, y^-, k)`. With S the
sensitivity of the state before it, at a fixed time, and :math:`f^\mp` the rates of change
on both sides, that after it is

.. math:: S^+ = g_t\,b' + g_y\,(S + f^-\,b') + g_k - f^+\,b',

where a later event stops what would have been lost and gained meanwhile
(E. Rozenvasser, "General sensitivity equations of discontinuous systems", Automation and
Remote Control 28 (1967) 400-404).
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sklearn_inverse.ode._events import Event
from sklearn_inverse.ode._guards import AHEAD, Guards, Moment
from sklearn_inverse.ode._rhs import Rhs, push_tangents
from sklearn_inverse.ode._solution import STOPPED, Solution, Status
from sklearn_inverse.ode._step_size import EPS

__all__ = ["solve_between"]

APART = 1e-9  # of the time span: how far simultaneous events are moved from each other
MAX_AT_ONCE = 3  # times in a row that an event may follow itself at once


def solve_between(
    run: Any,
    rhs: Rhs,
    events: Sequence[Event],
    guards: Guards,
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
    run : InTorch or Compiled
        ``run(t_eval, y0, params, tangents, starts)`` solves until a guard is crossed.

    rhs : callable
        The right-hand side.

    events : sequence of Event
        What changes at given times; of those at one time, the first is first.

    guards : Guards
        Those that states trigger.

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
    params = params.clone()  # legs see what is switched
    legs = Legs(times, slopes, t_eval, params)
    state = y0.clone()
    triggered = Triggered(guards, rhs, t_eval, run.max_steps)
    for number in range(legs.n_events + 1):
        going = status == Status.SUCCESS
        now = legs.begin(number).clone()
        for e, rows in legs.events_before(number, going):
            before, after = legs.sides(number, rows)
            state[rows], pushed = _happen(
                events[e].change,
                partial(_rates, rhs, *before),
                partial(_rates, rhs, *after),
                now[rows],
                state[rows],
                params[rows],
                None if tangents is None else tangents[rows],
                None if slopes is None else slopes[rows, e],
            )
            if tangents is not None:
                tangents[rows] = pushed
            switch = events[e].switch
            if switch is not None:
                params[rows] = switch(legs.begin(number)[rows], params[rows])
        while True:
            rows, t_leg, output, place = legs.cut(number, going, now)
            if len(rows) == 0 and (number < legs.n_events or solution.stats):
                break
            begin = now[rows], state[rows], params[rows]
            part = run(
                t_leg,
                *begin[1:],
                None if tangents is None else tangents[rows],
                triggered.starts(rows, *begin),
            )
            now[rows] = reached = part.stats["t_reached"]
            stopped = part.status == STOPPED
            last = part.y[..., 0].isfinite().sum(1) - 1  # that is known
            everyone = torch.arange(len(rows), device=rows.device)
            state[rows] = part.y[everyone, last]
            known = ~stopped[place[0]] | (t_leg[place] < reached[place[0]])
            output, place = (tuple(i[known] for i in ij) for ij in (output, place))
            y[output] = part.y[place]
            if sensitivities is not None and tangents is not None:
                assert part.sensitivities is not None
                sensitivities[output] = part.sensitivities[place]
                tangents[rows] = part.sensitivities[everyone, last]
            status[rows] = torch.where(stopped, Status.SUCCESS, part.status)
            fired = part.stats.pop("fired", None)
            for name, values in part.stats.items():
                total = solution.stats.setdefault(name, values.new_zeros(len(y0)))
                total[rows] = values + (total[rows] if name.startswith("n_") else 0)
            rows = rows[stopped]
            if len(rows) == 0:
                break
            assert fired is not None
            triggered.happen(rows, fired[stopped], now, state, params, tangents)
            status[rows] = triggered.status(rows, now)
            ended = rows[status[rows] == Status.TERMINATED]
            at, column = torch.nonzero(t_eval[ended] == now[ended, None], as_tuple=True)
            y[ended[at], column] = state[ended[at]]
            if sensitivities is not None and tangents is not None:
                sensitivities[ended[at], column] = tangents[ended[at]]
            going = torch.zeros_like(going)
            going[rows] = status[rows] == Status.SUCCESS
    return solution


class Triggered:
    """Events that states trigger, as they happen.

    Parameters
    ----------
    guards : Guards
        What they wait for.

    rhs : callable
        The right-hand side.

    t_eval : Tensor of shape (n_samples, n_times)
        Output times.

    max_steps : int
        Number of events after which a sample is given up.
    """

    def __init__(self, guards: Guards, rhs: Rhs, t_eval: Tensor, max_steps: int):
        self.guards, self.rhs, self.max_steps = guards, rhs, max_steps
        self.span = t_eval[:, -1] - t_eval[:, 0]
        self.fired = t_eval.new_zeros(len(t_eval), len(guards))
        self.offset = torch.zeros_like(self.fired)
        self.last = torch.full_like(self.fired, -torch.inf)  # time of each
        self.n_at_once = torch.zeros_like(self.fired)
        self.count = torch.zeros_like(self.span, dtype=torch.int64)

    def starts(
        self, rows: Tensor, t: Tensor, y: Tensor, params: Tensor
    ) -> Tensor | None:
        """Return how a leg starts, as :meth:`Guards.starts`; None without guards."""
        if not self.guards:
            return None
        known = self.fired[rows], self.offset[rows], self.span[rows]
        starts = self.guards.starts(self.rhs, t, y, params, *known)
        self.fired[rows], self.offset[rows] = 0, starts[:, 1]
        return starts

    def happen(
        self,
        rows: Tensor,
        fired: Tensor,
        now: Tensor,
        state: Tensor,
        params: Tensor,
        tangents: Tensor | None,
    ) -> None:
        """Let the events happen that ``fired``: signs (n_rows, n_guards), or zero."""
        self.fired[rows] = fired
        self.count[rows] += 1
        for g, event in enumerate(self.guards.events):
            which = rows[fired[:, g] != 0]
            if len(which) == 0:
                continue
            t, y, k = now[which], state[which], params[which]
            moment = Moment(
                event, self.rhs, t, y, k, self.fired[which, g], self.span[which]
            )
            s = None if tangents is None else tangents[which]
            slopes = None if s is None else moment.slopes(y, s)
            state[which], pushed = _happen(
                event.change, moment.before, moment.after, t, y, k, s, slopes
            )
            if tangents is not None:
                tangents[which] = pushed

    def status(self, rows: Tensor, now: Tensor) -> Tensor:
        """Status of samples in which events have happened."""
        t, fired, last = now[rows, None], self.fired[rows] != 0, self.last[rows]
        # Of bounces, infinitely many may happen before a time that none of them reaches.
        at_once = fired & (t - last <= AHEAD * self.span[rows, None])
        n_at_once = torch.where(fired, at_once * (self.n_at_once[rows] + 1), 0)
        self.last[rows], self.n_at_once[rows] = torch.where(fired, t, last), n_at_once
        status = torch.zeros_like(self.count[rows])
        status[(n_at_once >= MAX_AT_ONCE).any(1)] = Status.NO_PROGRESS
        status[self.count[rows] >= self.max_steps] = Status.MAX_STEPS
        terminal = fired.new_tensor([event.terminal for event in self.guards.events])
        status[(fired & terminal).any(1)] = Status.TERMINATED
        return status


class Legs:
    """Each sample's way, from one of its events to the next in the order of their times.

    Parameters
    ----------
    times, slopes, t_eval, params : Tensor
        As for :func:`solve_between`.
    """

    def __init__(
        self, times: Tensor, slopes: Tensor | None, t_eval: Tensor, params: Tensor
    ):
        first, last = t_eval[:, :1], t_eval[:, -1:]
        times = torch.where(times < first, -torch.inf, times)
        times = torch.where(times > last, torch.inf, times)
        self.t_eval, self.params, self.n_events = t_eval, params, times.shape[1]
        self.times, self.order = times.sort(dim=1, stable=True)
        self.slopes = slopes
        if slopes is not None:
            self.slopes = slopes.take_along_dim(self.order[:, :, None], 1)
        self.happens = self.times.isfinite()
        inner = self.times.maximum(first).minimum(last)
        self.edges = torch.cat([first, inner, last], dim=1)

    def begin(self, number: int) -> Tensor:
        """Return when a leg begins, (n_samples,)."""
        return self.edges[:, number]

    def events_before(
        self, number: int, solved: Tensor
    ) -> Iterator[tuple[int, Tensor]]:
        """Yield events at the start of a leg, with their samples."""
        if number > 0:
            order, happens = self.order[:, number - 1], self.happens[:, number - 1]
            happens = happens & solved
            for e in order[happens].unique().tolist():
                yield e, torch.nonzero(happens & (order == e))[:, 0]

    def sides(self, number: int, rows: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return times and params at which to see rates before and after an event.

        It is the one at the start of a leg, of the samples at ``rows``.
        """
        return [self._side(number, n, rows) for n in (number - 1, number)]

    def _side(
        self, number: int, n_happened: int, rows: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return time and params at the start of a leg, ``n_happened`` events being past.

        What the right-hand side does by itself comes with the last of the events at a
        time, unless params move them in different ways: then each brings its own, and
        those that have happened are moved apart from those that have not.
        """
        t, params = self.begin(number)[rows], self.params[rows]
        at_once = self.times[rows] == t[:, None]
        has_happened = torch.arange(self.n_events, device=t.device) < n_happened
        follows = (at_once & ~has_happened).any(1)
        side = torch.where(follows, _before(t, t), _after(t))
        between = follows & (at_once & has_happened).any(1)
        if self.slopes is None or not between.any():
            return side, params
        slopes, which = self.slopes[rows], at_once[:, :, None]
        highest = torch.where(which, slopes, -torch.inf).amax(1)
        lowest = torch.where(which, slopes, torch.inf).amin(1)
        apart = torch.nonzero(between & (highest != lowest).any(1))[:, 0]
        if len(apart):
            # Move time and params so that t - b(k) has the sign that it is to have.
            span = (self.t_eval[:, -1] - self.t_eval[:, 0])[rows][apart]
            size = torch.where(params == 0, 1.0, params.abs())[apart]
            by_params = -slopes[apart] * size[:, None]
            by_time = span[:, None, None].expand(*by_params.shape[:2], 1)
            matrix = torch.cat([by_time, by_params], dim=2) * which[apart]
            sign = torch.where(has_happened, 1.0, -1.0).to(t)
            goal = sign * span[:, None] * at_once[apart]
            move = APART * (torch.linalg.pinv(matrix, rtol=1e-6) @ goal[:, :, None])
            side[apart] = t[apart] + span * move[:, 0, 0]
            params[apart] = params[apart] + size * move[:, 1:, 0]
        return side, params

    def cut(self, number: int, going: Tensor, now: Tensor):
        """Return what is to be solved of a leg, by samples that are ``going``, from now.

        Returns
        -------
        rows : Tensor of shape (n_rows,)
            The samples that get on; in the last leg, all that are going.

        t_leg : Tensor of shape (n_rows, n_times + 2)
            Its start, output times within it and its end.

        output, place : tuple of Tensor
            Where, in all outputs and in those of the leg, output times are.
        """
        begin, end = now, self.edges[:, number + 1]
        is_last = number == self.n_events
        rows = torch.nonzero(going & ((end > begin) | is_last))[:, 0]
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
            starts = starts & (begin == self.edges[rows, number, None])
            begin = torch.where(starts, _after(begin), begin)
        end = torch.maximum(begin, end)
        asked = t_eval[:, columns].maximum(begin).minimum(end)
        row, column = torch.nonzero(inside[:, columns], as_tuple=True)
        t_leg = torch.cat([begin, asked, end], dim=1)
        return rows, t_leg, (rows[row], columns[column]), (row, column + 1)


def _rates(rhs: Rhs, t: Tensor, params: Tensor, y: Tensor) -> Tensor:
    return rhs(t, y, params)


def _happen(change, before, after, t, y, params, tangents, slopes):
    """Return states after an event, and their tangents at a fixed time.

    Rates of change are ``before(y)`` and ``after(y)`` it.
    """
    new = y if change is None else change(t, y, params).to(y)
    if tangents is None:
        return new, None
    moves = bool((slopes != 0).any())
    if moves:
        tangents = tangents + before(y)[:, :, None] * slopes[:, None]
    if change is not None:
        eye = torch.eye(params.shape[1], dtype=y.dtype, device=y.device)
        along = (
            slopes.mT,
            tangents.movedim(-1, 0),
            eye[:, None].expand(-1, *params.shape),
        )
        tangents = push_tangents(change, (t, y, params), along).movedim(0, -1)
    if moves:
        tangents = tangents - after(new)[:, :, None] * slopes[:, None]
    return new, tangents


# Stages lie at t + c h, rounded: a few units in the last place are left out around events.


def _after(t: Tensor) -> Tensor:
    return torch.nextafter(t + 4 * EPS * t.abs(), torch.full_like(t, torch.inf))


def _before(t: Tensor, start: Tensor) -> Tensor:
    size = torch.maximum(t.abs(), start.abs())
    return torch.nextafter(t - 4 * EPS * size, torch.full_like(t, -torch.inf))
