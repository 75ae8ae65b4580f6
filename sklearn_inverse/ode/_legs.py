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

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from sklearn_inverse.ode._events import Event
from sklearn_inverse.ode._rhs import Rhs, push_tangents
from sklearn_inverse.ode._solution import Solution, Status
from sklearn_inverse.ode._step_size import EPS

__all__ = ["solve_between"]

APART = 1e-9  # of the time span: how far simultaneous events are moved from each other


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
    params = params.clone()  # legs see what is switched
    legs = Legs(times, slopes, t_eval, params)
    state = y0.clone()
    for number in range(legs.n_events + 1):
        solved = status == Status.SUCCESS
        for e, rows in legs.events_before(number, solved):
            state[rows], pushed = _happen(
                events[e].change,
                rhs,
                legs.begin(number)[rows],
                state[rows],
                params[rows],
                None if tangents is None else tangents[rows],
                None if slopes is None else slopes[rows, e],
                legs.sides(number, rows),
            )
            if tangents is not None:
                tangents[rows] = pushed
            switch = events[e].switch
            if switch is not None:
                params[rows] = switch(legs.begin(number)[rows], params[rows])
        rows, t_leg, output, place = legs.cut(number, solved)
        if len(rows) == 0 and number < legs.n_events:
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
        for name, values in part.stats.items():
            total = solution.stats.setdefault(name, values.new_zeros(len(y0)))
            total[rows] = values + (total[rows] if name.startswith("n_") else 0)
    return solution


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

    def cut(self, number: int, solved: Tensor):
        """Return what is to be solved of a leg.

        Returns
        -------
        rows : Tensor of shape (n_rows,)
            The samples that get on; in the last leg, all that have not failed.

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


def _happen(change, rhs, t, y, params, tangents, slopes, sides):
    """Return states after an event, and their tangents at a fixed time."""
    new = y if change is None else change(t, y, params).to(y)
    if tangents is None:
        return new, None
    moves = bool((slopes != 0).any())
    before, after = sides
    if moves:
        f = rhs(before[0], y, before[1])
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
        f = rhs(after[0], new, after[1])
        tangents = tangents - f[:, :, None] * slopes[:, None]
    return new, tangents


# Stages lie at t + c h, rounded: a few units in the last place are left out around events.


def _after(t: Tensor) -> Tensor:
    return torch.nextafter(t + 4 * EPS * t.abs(), torch.full_like(t, torch.inf))


def _before(t: Tensor, start: Tensor) -> Tensor:
    size = torch.maximum(t.abs(), start.abs())
    return torch.nextafter(t - 4 * EPS * size, torch.full_like(t, -torch.inf))
