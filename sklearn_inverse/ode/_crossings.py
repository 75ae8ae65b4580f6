"""Events that states trigger: the first in each step, found on its dense output."""

import torch
from torch import Tensor

from sklearn_inverse.ode._guards import N_PLACES, Guards
from sklearn_inverse.ode._stepper import Attempt, Stepper, Walkers

__all__ = ["find_events"]

N_HALVINGS = 52  # to the last bit of a step


def find_events(
    method: Stepper,
    guards: Guards,
    w: Walkers,
    attempt: Attempt,
    accepted: Tensor,
    row: Tensor,
    theta: Tensor,
) -> None:
    """Find the first event in each accepted step, and note it in ``attempt``.

    Parameters
    ----------
    method : Stepper
        Attempted the steps.

    guards : Guards
        What events wait for.

    w : Walkers
        The samples; signs of their guards are brought up to date.

    attempt : Attempt
        Their steps.

    accepted : Tensor of shape (n_samples,)
        Which of these are taken.

    row, theta : Tensor of shape (n_outputs,)
        Outputs inside the steps: whose, and where.
    """
    n_most = int(torch.bincount(row, minlength=1).max())
    places = torch.ones(len(w.t), n_most + N_PLACES).to(w.t)
    places[:, :N_PLACES] = torch.arange(1, N_PLACES + 1).to(w.t) / N_PLACES
    first = torch.searchsorted(row, row)
    places[row, N_PLACES + torch.arange(len(row), device=row.device) - first] = theta
    places = places.sort(dim=1).values

    def look(theta: Tensor) -> Tensor:
        inside = method.stage_weights(theta)[:, None] @ attempt.stages
        y = w.y + inside[:, 0]
        return guards(w.t + theta * w.step, y, w.params) - w.offset

    sign = w.sign.clone()
    before, after = torch.zeros_like(w.t), torch.zeros_like(w.t)
    value = sign
    for theta in places.unbind(1):
        value = look(theta)
        left = accepted & (after == 0)
        found = left & guards.happen(sign, value).any(1)
        after = torch.where(found, theta, after)
        left = left & ~found
        before = torch.where(left, theta, before)
        turned = left[:, None] & (sign * value <= 0)
        sign = torch.where(turned, value.sign(), sign)
    sign = torch.where(accepted[:, None] & value.isnan(), torch.nan, sign)
    happened = after > 0
    attempt.stop, attempt.fired = torch.ones_like(w.t), torch.zeros_like(sign)
    if happened.any():
        for _ in range(N_HALVINGS):
            theta = (before + after) / 2
            found = guards.happen(sign, look(theta)).any(1)
            after = torch.where(found, theta, after)
            before = torch.where(found, before, theta)
        attempt.stop = torch.where(happened, after, 1.0)
        crossed = happened[:, None] & guards.happen(sign, look(after))
        attempt.fired = torch.where(crossed, -sign, 0.0)
    w.sign = sign
