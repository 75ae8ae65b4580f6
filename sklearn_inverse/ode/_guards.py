r"""Events that states trigger: they happen as a guard, a function w(t, y, k), crosses zero.

The loops end a sample's leg where a guard has crossed; what follows is done here. With S
the sensitivity of the state at a fixed time, and f the rates of change before the event,
its time :math:`b(k)` moves by

.. math:: b' = -\frac{w_y S + w_k}{w_t + w_y f}

(implicit function theorem), and the state after it as with events at given times.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from sklearn_inverse.ode._events import Event
from sklearn_inverse.ode._rhs import Rhs, push_tangents

__all__ = ["AHEAD", "N_PLACES", "Guards", "Moment"]

AHEAD = 1e-9  # of the time span: within it, a guard that has crossed does not again
BESIDE = 1e-12  # of times and states: where both sides of an event are seen
N_PLACES = 4  # of a step: at whose ends guards are looked at, besides at outputs


class Guards:
    """What the events of a batch wait for.

    Parameters
    ----------
    events : sequence of Event
        Those with ``when``.
    """

    def __init__(self, events: Sequence[Event] = ()):
        self.events = [event for event in events if event.when is not None]
        self.functions = tuple(event.when for event in self.events if event.when)
        self.directions = [float(event.direction) for event in self.events]

    def __len__(self) -> int:
        return len(self.events)

    def __call__(self, t: Tensor, y: Tensor, params: Tensor) -> Tensor:
        """Return the values (n_samples, n_guards) of all."""
        return torch.stack([when(t, y, params) for when in self.functions], dim=1)

    def happen(self, sign: Tensor, value: Tensor) -> Tensor:
        """Whether guards of a sign, at a value now, have crossed in their direction."""
        crossed = (sign != 0) & (sign * value <= 0)
        return crossed & (sign * sign.new_tensor(self.directions) <= 0)

    def starts(
        self,
        rhs: Rhs,
        t: Tensor,
        y: Tensor,
        params: Tensor,
        fired: Tensor,
        offset: Tensor,
        span: Tensor,
    ) -> Tensor:
        """Return signs with which a leg starts, and what is taken off values in it.

        A guard that has just crossed zero is off it by round-off: then its direction
        counts. A ball that bounces is on the floor, and not below it.

        Returns
        -------
        starts : Tensor of shape (n_samples, 2, n_guards)
            Both.
        """
        value = self(t, y, params)
        along = torch.ones_like(t), rhs(t, y, params), torch.zeros_like(params)
        (slope,) = push_tangents(self, (t, y, params), [x[None] for x in along])
        off = torch.where(fired != 0, value - offset, value)
        ahead = off + AHEAD * span[:, None] * slope
        sign = torch.where((fired != 0) | (value == 0), ahead, value).sign()
        return torch.stack([sign, torch.where(sign * value < 0, value, 0.0)], dim=1)


class Moment:
    """When one event is triggered: rates of change on both sides, and how params move it.

    Parameters
    ----------
    event : Event
        Which.

    rhs : callable
        The right-hand side.

    t, y, params : Tensor
        Where samples are.

    sign : Tensor of shape (n_samples,)
        Of the guard, after it.

    span : Tensor of shape (n_samples,)
        Times that matter.
    """

    def __init__(
        self,
        event: Event,
        rhs: Rhs,
        t: Tensor,
        y: Tensor,
        params: Tensor,
        sign: Tensor,
        span: Tensor,
    ):
        self.event, self.rhs, self.t, self.params = event, rhs, t, params
        assert event.when is not None
        with torch.enable_grad():
            inputs = [x.detach().requires_grad_() for x in (t, y, params)]
            value = event.when(*inputs)
            slopes: Sequence[Tensor | None] = (None, None, None)
            if value.requires_grad:
                slopes = torch.autograd.grad(value.sum(), inputs, allow_unused=True)
        self.by_time, self.by_state, self.by_params = (
            torch.zeros_like(x) if s is None else s for x, s in zip(inputs, slopes)
        )
        # Where comparisons with just this guard are sure of their side.
        size = y.abs() + span[:, None] * rhs(t, y, params).abs()
        by_time, by_state = span * self.by_time, size * self.by_state
        norm = (by_time**2 + by_state.square().sum(1)).sqrt()
        way = torch.where(norm > 0, BESIDE * sign / norm, 0.0)
        self.move_t, self.move_y = way * span * by_time, way[:, None] * size * by_state

    def before(self, y: Tensor) -> Tensor:
        """Return rates of change before it."""
        return self.rhs(self.t - self.move_t, y - self.move_y, self.params)

    def after(self, y: Tensor) -> Tensor:
        """Return rates of change after it, at the new states."""
        if self.event.change is not None:
            return self.rhs(self.t, y, self.params)
        return self.rhs(self.t + self.move_t, y + self.move_y, self.params)

    def slopes(self, y: Tensor, tangents: Tensor) -> Tensor:
        """Return how params move its time, (n_samples, n_params)."""
        moved = torch.einsum("bi,bik->bk", self.by_state, tangents) + self.by_params
        speed = self.by_time + (self.by_state * self.before(y)).sum(1)
        return -moved / speed[:, None]
