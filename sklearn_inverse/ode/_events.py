"""Events: what happens to a batch, each sample at its own times."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sklearn_inverse.ode._rhs import Rhs, rowwise_jacobian

__all__ = ["Event", "check_events", "event_times", "needed_events"]


class Event(NamedTuple):
    """Something that happens: states change, or the right-hand side jumps.

    Parameters
    ----------
    time : float, Tensor of shape (n_samples,) or callable, default=None
        When; ``time(params)`` of shape (n_samples,) where params decide that.

    change : callable, default=None
        ``change(t, y, params)`` returns the states after it, row by row as a right-hand
        side does. If None, only no step passes over this time, so that a right-hand side
        may jump there.

    switch : callable, default=None
        ``switch(t, params)`` returns the params from then on: those that stand for known
        inputs may be others. Derivatives by these are of no meaning.
    when : callable, default=None
        Instead of ``time``: ``when(t, y, params)`` of shape (n_samples,), which crosses
        zero as it happens. That is looked for at all outputs and three times within each
        step: what comes and goes between is not seen (see ``max_step``). Where another
        event makes it jump over zero, nothing happens.

    direction : {-1, 0, 1}, default=0
        Whether ``when`` must fall (-1) or rise (1) through zero, or either (0).

    terminal : bool, default=False
        Whether the sample ends with it; its later outputs are NaN.

    Examples
    --------
    >>> import torch
    >>> from sklearn_inverse.ode import Event, solve_ivp
    >>> dose = Event(1.0, lambda t, y, params: y + 1)
    >>> y = solve_ivp(lambda t, y, params: -y, [0.0, 1.0, 2.0], [[1.0]], events=[dose]).y
    >>> exact = torch.tensor([1.0, 1 + 1 / torch.e, (1 + 1 / torch.e) / torch.e])
    >>> (y[0, :, 0] - exact).abs().max() < 1e-5
    tensor(True)

    A ball that is dropped from 5 m, and leaves the floor with half of its speed:

    >>> bounce = Event(
    ...     when=lambda t, y, params: y[:, 0],
    ...     change=lambda t, y, params: torch.stack([y[:, 0], -0.5 * y[:, 1]], dim=1),
    ...     direction=-1,
    ... )
    >>> def fall(t, y, params):
    ...     return torch.stack([y[:, 1], torch.full_like(y[:, 1], -10.0)], dim=1)
    >>> y = solve_ivp(fall, [0.0, 1.0, 1.5], [[5.0, 0.0]], events=[bounce]).y
    >>> y[0, 2, 0].round(decimals=6)  # amid its second flight
    tensor(1.2500, dtype=torch.float64)
    """

    time: float | Tensor | Callable[[Tensor], Tensor] | None = None
    change: Rhs | None = None
    switch: Callable[[Tensor, Tensor], Tensor] | None = None
    when: Rhs | None = None
    direction: int = 0
    terminal: bool = False


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
            slopes.append(rowwise_jacobian(event.time, params))
        else:
            slopes.append(torch.zeros_like(params))
    return torch.stack(times, 1), torch.stack(slopes, 1) if with_slopes else None


def needed_events(
    events: Sequence[Event], times: Tensor, slopes: Tensor | None, t_eval: Tensor
) -> list[int]:
    """Return which events happen in any sample; of breakpoints that are alike, the last."""
    happens = ((times >= t_eval[:, :1]) & (times <= t_eval[:, -1:])) | times.isnan()
    needed: dict[object, int] = {}
    for e in torch.nonzero(happens.any(0))[:, 0].tolist():
        key: object = e
        if events[e].change is None and events[e].switch is None:
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
        if (event.time is None) == (event.when is None):
            raise ValueError(
                f"An event must have either `time` or `when`. Got {event!r}."
            )
        if event.direction not in (-1, 0, 1):
            raise ValueError(
                f"`direction` of an event must be -1, 0 or 1. Got {event.direction!r}."
            )
        if event.when is None and (event.direction or event.terminal):
            raise ValueError(
                "`direction` and `terminal` are those of an event with `when`; for one at "
                f"a `time`, end `t_eval` there. Got {event!r}."
            )
        results = []
        if event.time is not None:
            time = event.time(params.detach()) if callable(event.time) else event.time
            time = torch.as_tensor(time)
            if time.shape not in ((), (len(y0),)):
                raise ValueError(
                    "The time of an event must be a number or of shape (n_samples,) = "
                    f"({len(y0)},). Got {tuple(time.shape)} instead."
                )
            results.append(("time", time))
        for name, function, shape in (
            ("when", event.when, y0.shape[:1]),
            ("change", event.change, y0.shape),
        ):
            if function is None:
                continue
            t0, start = t_eval[:, 0].clone(), y0.detach().clone()
            new = function(t0, start, params.detach())
            results.append((name, new))
            if not isinstance(new, Tensor) or new.shape != shape:
                got = (
                    tuple(new.shape) if isinstance(new, Tensor) else type(new).__name__
                )
                what = (
                    "of the shape of `y`"
                    if name == "change"
                    else "of shape (n_samples,)"
                )
                raise ValueError(
                    f"`{name}(t, y, params)` of an event must return a tensor {what}, "
                    f"{tuple(shape)}. Got {got} instead."
                )
            if start._version:
                raise ValueError(
                    f"`{name}(t, y, params)` must not change `y` in place."
                )
        for name, value in results:
            if value.requires_grad:
                raise ValueError(
                    f"The {name} of an event depends on tensors that require a gradient, "
                    "which would not get it. Hand them over in `params`."
                )
    return events
