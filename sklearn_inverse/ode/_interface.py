"""solve_ivp: the one door to the solvers."""

import torch
from torch import Tensor

from sklearn_inverse.ode._loop import integrate
from sklearn_inverse.ode._radau import Radau5
from sklearn_inverse.ode._solution import Solution

__all__ = ["solve_ivp"]

METHODS = {"radau5": Radau5}


@torch.no_grad()
def solve_ivp(
    rhs,
    t_eval,
    y0,
    params=None,
    *,
    method="radau5",
    rtol=1e-6,
    atol=1e-20,
    jac=None,
    max_steps=10_000,
) -> Solution:
    r"""Solve a batch of stiff initial value problems :math:`y' = f(t, y; k)`.

    Every sample has its own step size, error control and status; a sample that fails
    leaves the others untouched, and no result depends on the companions in the batch.
    All arithmetic is in double precision.

    Parameters
    ----------
    rhs : callable
        ``rhs(t, y, params) -> dy/dt`` in torch: ``t`` of shape (n_samples,), ``y`` and
        the result (n_samples, n_states), ``params`` (n_samples, n_params). Row ``i`` may
        depend on row ``i`` only.

    t_eval : array-like of shape (n_times,) or (n_samples, n_times)
        Output times in increasing order; the first is the time of ``y0``.

    y0 : array-like of shape (n_samples, n_states)
        Initial states.

    params : array-like of shape (n_samples, n_params), default=None
        Params handed to ``rhs``. If None, an empty tensor of shape (n_samples, 0).

    method : {"radau5"}, default="radau5"
        Radau IIA of order 5 with simplified Newton and dense output of order 3 [1]_.

    rtol : float, default=1e-6
        Tolerated local error of each state, relative to the state itself, however small
        it is. The floor is the round-off of the largest value that the state has had.
        Steps end with errors near or below ``rtol``; output times inside a step are
        interpolated, a few times less accurately.

    atol : float or array-like of shape (n_states,), default=1e-20
        Tolerated local error in units of the states, added to the relative one. The
        default resolves radicals of 1e-18 beside species of order one. A state that
        starts at zero costs about ten steps per decade between ``atol`` and its later
        size: raise ``atol`` where small values do not matter.

    jac : callable, default=None
        ``jac(t, y, params) -> ∂f/∂y`` of shape (n_samples, n_states, n_states). If None,
        automatic differentiation of ``rhs``.

    max_steps : int, default=10000
        Attempted steps after which a sample is given up.

    Returns
    -------
    solution : Solution
        ``y`` of shape (n_samples, n_times, n_states), ``status`` and ``stats``.

    Raises
    ------
    ValueError
        If shapes, times, tolerances or the method are not as described.

    References
    ----------
    .. [1] E. Hairer, G. Wanner, "Solving Ordinary Differential Equations II", 2nd ed.,
       Springer, 1996, Section IV.8.

    Examples
    --------
    >>> import torch
    >>> from sklearn_inverse.ode import solve_ivp
    >>> def decay(t, y, params):
    ...     return -params * y
    >>> k = torch.tensor([[1.0], [1e6]], dtype=torch.float64)
    >>> solution = solve_ivp(decay, [0.0, 0.5, 1.0], torch.ones(2, 1), k)
    >>> (solution.y[0, :, 0] - torch.exp(-torch.tensor([0.0, 0.5, 1.0]))).abs().max() < 1e-6
    tensor(True)
    >>> solution.success
    tensor([True, True])
    """
    if method not in METHODS:
        raise ValueError(f"`method` must be one of {list(METHODS)}. Got {method!r}.")
    if not rtol > 0:
        raise ValueError(f"`rtol` must be > 0. Got {rtol} instead.")
    if max_steps < 1:
        raise ValueError(f"`max_steps` must be >= 1. Got {max_steps} instead.")
    y0 = torch.as_tensor(y0).to(torch.float64)
    if y0.ndim != 2:
        raise ValueError(
            f"`y0` must have shape (n_samples, n_states). Got {tuple(y0.shape)} instead."
        )
    n_samples, n_states = y0.shape
    t_eval = _check_t_eval(t_eval, n_samples, y0)
    if params is None:
        params = y0.new_zeros(n_samples, 0)
    params = torch.as_tensor(params).to(y0)
    if params.ndim != 2 or len(params) != n_samples:
        raise ValueError(
            f"`params` must have shape (n_samples, n_params) with n_samples={n_samples}. "
            f"Got {tuple(params.shape)} instead."
        )
    atol = torch.as_tensor(atol).to(y0).expand(n_states)
    if not (atol >= 0).all():
        raise ValueError(f"`atol` must be >= 0. Got {atol.min()} instead.")
    f = rhs(t_eval[:, 0], y0, params)
    if not isinstance(f, Tensor) or f.shape != y0.shape:
        shape = tuple(f.shape) if isinstance(f, Tensor) else type(f).__name__
        raise ValueError(
            "`rhs(t, y, params)` must return a tensor of the shape of `y`, "
            f"{tuple(y0.shape)}. Got {shape} instead."
        )
    return integrate(
        METHODS[method](rhs, jac, rtol, atol), t_eval, y0, params, max_steps
    )


def _check_t_eval(t_eval, n_samples: int, y0: Tensor) -> Tensor:
    """Return output times of shape (n_samples, n_times)."""
    t_eval = torch.as_tensor(t_eval).to(y0)
    if t_eval.ndim == 1:
        t_eval = t_eval.expand(n_samples, -1)
    if t_eval.ndim != 2 or len(t_eval) != n_samples or t_eval.shape[1] == 0:
        raise ValueError(
            "`t_eval` must have shape (n_times,) or (n_samples, n_times) with n_samples="
            f"{n_samples}. Got {tuple(t_eval.shape)} instead."
        )
    if not t_eval.isfinite().all() or (t_eval.diff(dim=1) < 0).any():
        raise ValueError("`t_eval` must be finite and in increasing order.")
    return t_eval
