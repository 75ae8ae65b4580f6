"""Where a search ended, one row per problem."""

from typing import NamedTuple

from torch import Tensor

__all__ = ["Optimum"]


class Optimum(NamedTuple):
    """Where an optimizer ended, one row per problem.

    Attributes
    ----------
    x : Tensor of shape (n_rows, n_free)
        Best coordinates.

    value : Tensor of shape (n_rows,)
        The objective there; infinite if the start could not be simulated.

    n_iter : Tensor of shape (n_rows,)
        Iterations.

    status : Tensor of shape (n_rows,)
        Codes of :class:`InversionStatus`.

    hessian : Tensor of shape (n_rows, n_free, n_free) or None
        Hessian of the objective there, if the optimizer had it.
    """

    x: Tensor
    value: Tensor
    n_iter: Tensor
    status: Tensor
    hessian: Tensor | None = None
