r"""Adam for stacks of matrices, in the eigenbasis of what their gradients have been.

For the gradient G of a matrix W, running means of :math:`G G^T` and :math:`G^T G` have
the eigenvectors Q and R; Adam then acts on :math:`Q^T G R` (SOAP: Vyas et al., "SOAP:
improving and stabilizing Shampoo using Adam", ICLR 2025, Algorithm 3). Residuals of
differential equations are so badly conditioned that this reaches a loss hundreds of
times lower than Adam does in as many steps, at a few per cent more per step.

Every matrix of a stack has moments and bases of its own: the samples stay independent.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["StackedAdam"]

BETAS = 0.95, 0.95
BASIS_BETA = 0.95
BASIS_EVERY = 10  # steps between updates of the bases
SHIFT = 1e-3  # of the mean eigenvalue


class StackedAdam:
    """Adam on stacks of matrices, rotated or as it is.

    Parameters
    ----------
    stacks : list of Tensor of shape (n_samples, n_rows, n_columns)
        What is to be moved; only the shapes count.

    lr : float
        Step size.

    rotate : bool, default=True
        Whether to work in the eigenbasis (SOAP). If False, plain Adam with AMSGrad; in a
        basis that turns, the largest second moment there ever was means nothing.

    betas : (float, float), default=BETAS
        Memory of the mean gradient and of its mean square.
    """

    def __init__(
        self,
        stacks: list[Tensor],
        lr: float,
        *,
        rotate: bool = True,
        betas: tuple[float, float] = BETAS,
    ):
        self.lr, self.n_steps = lr, 0
        self.rotate, self.betas = rotate, betas
        self._states = [_State.zeros(x, rotate) for x in stacks]

    def moves(self, gradients: Sequence[Tensor], share: float = 1.0) -> list[Tensor]:
        """Return what ``share`` of the step size adds to each stack."""
        self.n_steps += 1
        debias_1, debias_2 = (1 - beta**self.n_steps for beta in self.betas)
        moves = []
        for state, gradient in zip(self._states, gradients):
            if state.bases:
                state.turn(gradient, self.n_steps)
            gradient = state.rotate(gradient)
            state.first.lerp_(gradient, 1 - self.betas[0])
            state.second.lerp_(gradient.square(), 1 - self.betas[1])
            second = state.second
            if not self.rotate:
                second = torch.maximum(state.largest, second, out=state.largest)
            # Gradients may be as small as the losses are: no absolute floor but the
            # smallest number that keeps 0 / 0 away.
            size = (second / debias_2).sqrt_().clamp_(min=1e-30)
            direction = state.rotate(state.first / (debias_1 * size), back=True)
            moves.append(direction.mul_(-share * self.lr))
        return moves

    def keep(self, rows: Tensor) -> None:
        """Go on with some of the samples."""
        for state in self._states:
            state.keep(rows)


@dataclass
class _State:
    """Moments of one stack in the rotated basis, and the bases of its two sides."""

    first: Tensor
    second: Tensor
    largest: Tensor
    bases: dict[int, Tensor]
    squares: dict[int, Tensor]

    @classmethod
    def zeros(cls, x: Tensor, rotate: bool) -> "_State":
        # A single row, such as a bias, is left as it is: bases for it gain nothing.
        rotate = rotate and x.shape[1] > 1
        sides = [side for side in (1, 2) if rotate and x.shape[side] > 1]
        squares = {i: x.new_zeros(len(x), x.shape[i], x.shape[i]) for i in sides}
        bases = {i: torch.eye(x.shape[i]).to(x).expand_as(squares[i]) for i in sides}
        zero = torch.zeros_like(x)
        return cls(zero, zero.clone(), zero.clone(), bases, squares)

    def rotate(self, matrix: Tensor, back: bool = False) -> Tensor:
        """Return Qᵀ G R, or Q G Rᵀ on the way back; a side without basis is left."""
        if 1 in self.bases:
            q = self.bases[1]
            matrix = (q if back else q.mT) @ matrix
        if 2 in self.bases:
            r = self.bases[2]
            matrix = matrix @ (r.mT if back else r)
        return matrix

    def turn(self, gradient: Tensor, n_steps: int) -> None:
        """Follow the mean squares of the gradients with the bases."""
        squares = {1: lambda: gradient @ gradient.mT, 2: lambda: gradient.mT @ gradient}
        for side, mean in self.squares.items():
            mean.lerp_(squares[side](), 1 - BASIS_BETA)
        if n_steps % BASIS_EVERY == 0:
            first = self.rotate(self.first, back=True)
            for side, mean in self.squares.items():
                self.bases[side] = _iterate(mean, self.bases[side])
            self.first = self.rotate(first)

    def keep(self, rows: Tensor) -> None:
        self.first, self.second, self.largest = (
            moment[rows] for moment in (self.first, self.second, self.largest)
        )
        self.bases = {side: basis[rows] for side, basis in self.bases.items()}
        self.squares = {side: mean[rows] for side, mean in self.squares.items()}


def _iterate(mean: Tensor, basis: Tensor) -> Tensor:
    """Return the basis after one step of orthogonal iteration.

    The shift holds directions still in which there has been no gradient to speak of:
    rounding would turn them, and a sample's path would depend on its companions.
    """
    shift = SHIFT * mean.diagonal(dim1=1, dim2=2).mean(dim=1)[:, None, None]
    return torch.linalg.qr(mean @ basis + shift * basis)[0]
