"""What solve_ivp is given: checked, and turned into tensors."""

from collections.abc import Callable
from functools import partial
from numbers import Integral, Real

import numpy as np
import torch
from torch import Tensor, nn

from sklearn_inverse.ode._mass_action import MassAction

__all__ = [
    "check_atol",
    "check_options",
    "check_params_y0",
    "check_rhs",
    "check_t_eval",
]


def check_options(methods, method, rtol, step_size, max_steps, max_step, backend):
    """Raise ValueError unless the options are what they should be."""
    if method not in methods:
        raise ValueError(f"`method` must be one of {methods}. Got {method!r}.")
    if backend not in ("auto", "torch", "compiled"):
        raise ValueError(
            f"`backend` must be 'auto', 'torch' or 'compiled'. Got {backend!r}."
        )
    if not (_is_number(rtol, Real) and rtol > 0):
        raise ValueError(f"`rtol` must be > 0. Got {rtol!r} instead.")
    if not (_is_number(max_steps, Integral) and max_steps >= 1):
        raise ValueError(f"`max_steps` must be an integer >= 1. Got {max_steps!r}.")
    for name, size in (("step_size", step_size), ("max_step", max_step)):
        if size is not None and not (_is_number(size, Real) and size > 0):
            raise ValueError(f"`{name}` must be > 0 or None. Got {size!r} instead.")


def _is_number(value, kind) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _as_double(name, values) -> Tensor:
    """Double precision from the start: a list passes through no single one."""
    if not isinstance(values, Tensor):
        # A copy: views may run backwards, and nothing here shall change the caller's.
        values = torch.as_tensor(np.array(values, dtype=float))
    if values.is_complex():
        raise ValueError(f"`{name}` must be real. Got {values.dtype} instead.")
    return values.to(torch.float64)


def check_params_y0(params, y0):
    """Return params and initial states as tensors, and the latter as a function."""
    if params is not None:
        params = _as_double("params", params)
        if params.ndim != 2:
            raise ValueError(
                "`params` must have shape (n_samples, n_params). Got "
                f"{tuple(params.shape)} instead."
            )
    if callable(y0):
        if params is None:
            raise ValueError(
                "`y0` can be a function of the params only if there are some."
            )
        y0_of = y0
        y0 = _as_double("y0", y0_of(params))
    else:
        y0_of = None
        y0 = _as_double("y0", y0)
    if y0.ndim != 2 or y0.shape[1] == 0:
        raise ValueError(
            "`y0` must have shape (n_samples, n_states) with n_states >= 1. Got "
            f"{tuple(y0.shape)} instead."
        )
    params = y0.new_zeros(len(y0), 0) if params is None else params.to(y0.device)
    if len(params) != len(y0):
        raise ValueError(
            "`params` and `y0` must have one row per sample each: shapes (n_samples, "
            f"n_params) and (n_samples, n_states). Got {tuple(params.shape)} and "
            f"{tuple(y0.shape)} instead."
        )
    return params, y0, y0_of or (lambda params: y0)


def check_t_eval(t_eval, y0: Tensor) -> Tensor:
    """Return output times of shape (n_samples, n_times)."""
    n_samples = len(y0)
    given = _as_double("t_eval", t_eval).to(y0.device)
    t_eval = given.expand(n_samples, -1) if given.ndim == 1 else given
    if t_eval.ndim != 2 or len(t_eval) != n_samples or t_eval.shape[1] == 0:
        raise ValueError(
            "`t_eval` must have shape (n_times,) or (n_samples, n_times) with n_samples="
            f"{n_samples}. Got {tuple(t_eval.shape)} instead."
        )
    times = given.detach().cpu().numpy()
    if not np.isfinite(times).all() or (times[..., 1:] < times[..., :-1]).any():
        raise ValueError("`t_eval` must be finite and in increasing order.")
    return t_eval.detach()


def check_atol(atol, y0: Tensor, alike: bool) -> Callable[[Tensor], Tensor]:
    """Return absolute tolerances (n_samples, n_states) as a function of initial states."""
    if not isinstance(alike, (bool, np.bool_)):
        raise TypeError(f"`alike` must be True or False. Got {alike!r}.")
    if atol is None:
        return partial(_negligible, share=1e-14 if alike else 1e-20)
    atol = _as_double("atol", atol).to(y0.device)
    n_states = y0.shape[1]
    if atol.shape not in ((), (n_states,)):
        raise ValueError(
            f"`atol` must be a number or have shape (n_states,) = ({n_states},). Got "
            f"shape {tuple(atol.shape)} instead."
        )
    if not (atol >= 0).all():
        raise ValueError(f"`atol` must be >= 0. Got {atol.min()} instead.")
    return lambda y0: atol.expand(y0.shape)


def _negligible(y0: Tensor, share: float) -> Tensor:
    """Return what is little of the largest initial state of each sample."""
    largest = y0.detach().abs().amax(dim=1, keepdim=True)
    # Where that is not finite, the sample fails for another reason.
    relative = (largest > 0) & largest.isfinite()
    # Where all are zero there is no scale.
    return torch.where(relative, share * largest, 1e-20).expand(y0.shape)


def check_rhs(rhs, jac, t_eval, y0, params):
    """Return f at the start; raise ValueError unless ``rhs`` and ``jac`` are right."""
    if isinstance(rhs, MassAction):
        sizes = (y0.shape[1], params.shape[1])
        if sizes != rhs.stoichiometry.shape:
            raise ValueError(
                f"These reactions have (n_states, n_params) = {rhs.stoichiometry.shape}. "
                f"Got {sizes} in `y0` and `params`."
            )
        return None
    t0, y0, params = t_eval[:, 0].clone(), y0.detach().clone(), params.detach()
    f = rhs(t0, y0, params)
    _check_output("rhs", f, "of `y`", y0.shape)
    if y0._version:
        raise ValueError("`rhs(t, y, params)` must not change `y` in place.")
    if f.requires_grad and not isinstance(rhs, nn.Module):
        raise ValueError(
            "`rhs` depends on tensors that require a gradient, which would not get it. "
            "Hand them over in `params`, make `rhs` a torch.nn.Module that owns them, or "
            "call solve_ivp under torch.no_grad()."
        )
    with torch.no_grad():
        if jac is not None:
            shape = (*y0.shape, y0.shape[1])
            what = "(n_samples, n_states, n_states)"
            _check_output("jac", jac(t0, y0, params), what, shape)
    return f.detach()


def _check_output(name, value, what, shape):
    """Raise ValueError unless ``value`` is a tensor of doubles of that shape."""
    got: object
    if not isinstance(value, Tensor):
        got = type(value).__name__
    elif value.shape != shape:
        got = tuple(value.shape)
    elif value.dtype != torch.float64:
        got = value.dtype
    else:
        return
    raise ValueError(
        f"`{name}(t, y, params)` must return a tensor of the shape {what}, "
        f"{tuple(shape)}, in double precision. Got {got} instead."
    )
