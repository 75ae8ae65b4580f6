"""The accepted steps of a batch, recorded by the loop and read by the derivatives."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from sklearn_inverse.ode._stepper import Attempt, Walkers

__all__ = ["Step", "Tape"]

MAX_NUMBERS = 8_000_000  # in the factors of the steps linearized together


@dataclass
class Step:
    """One step of some samples, and the outputs inside it."""

    index: Tensor  # which samples of the batch
    t: Tensor
    step: Tensor
    y: Tensor  # at the start
    stages: Tensor
    row: Tensor  # position of each output's sample within ``index``
    column: Tensor  # number of its time
    theta: Tensor  # where that is within the step
    at_end: Tensor


class Tape:
    """The accepted steps of a batch, in the order in which they were taken."""

    def __init__(self):
        self.steps: list[Step] = []

    def record(
        self,
        w: Walkers,
        attempt: Attempt,
        accepted: Tensor,
        row: Tensor,
        column: Tensor,
        theta: Tensor,
        at_end: Tensor,
    ) -> None:
        """Append the accepted steps of one pass of the loop."""
        i = torch.nonzero(accepted)[:, 0]
        if len(i) == 0:
            return
        position = torch.full_like(w.index, -1)
        position[i] = torch.arange(len(i), device=i.device)
        self.steps.append(
            Step(
                index=w.index[i],
                t=w.t[i],
                step=w.step[i],
                y=w.y[i],
                stages=attempt.stages[i],
                row=position[row],
                column=column,
                theta=theta,
                at_end=at_end,
            )
        )

    def blocks(self) -> Iterator[list[Step]]:
        """Yield lists of consecutive steps, of bounded memory together."""
        block: list[Step] = []
        n_numbers = 0
        for step in self.steps:
            block.append(step)
            n_numbers += len(step.index) * step.stages[0].numel() ** 2
            if n_numbers >= MAX_NUMBERS:
                yield block
                block, n_numbers = [], 0
        if block:
            yield block
