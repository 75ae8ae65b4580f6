"""The door: whether anything can be compiled here, and what has been."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, lru_cache, partial
from types import MethodType
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from sklearn_inverse.ode.compiled._algebra import Untraceable
from sklearn_inverse.ode.compiled._graph import Graph
from sklearn_inverse.ode.compiled._trace import trace

__all__ = [
    "Untraceable",
    "compared_kernel",
    "compared_once",
    "compile_function",
    "compile_mass_action",
    "why_unavailable",
]

N_POINTS = 8  # at which what has been compiled is compared with what is to be solved
RTOL = 1e-8  # of these rates
# Kernels of right-hand sides, or why there is none, by the numbers of states and params.
KNOWN: WeakKeyDictionary = WeakKeyDictionary()
KERNELS: dict = {}  # by their expressions
MAX_KERNELS = 64
# Kernels that need not be compared again, by right-hand side and sizes.
COMPARED: ContextVar[dict | None] = ContextVar("COMPARED", default=None)


@cache
def why_unavailable() -> str | None:
    """Return what compiling would need, in words; None if it can be had."""
    try:
        import numba  # noqa: F401
    except ImportError as error:  # not there, or at odds with NumPy
        return f"numba: pip install numba ({error})"
    return None


def compile_function(
    rhs: Callable[..., Tensor],
    t: Tensor,
    y: Tensor,
    params: Tensor,
    f: Tensor | None = None,
    guards: tuple[Callable[..., Tensor], ...] = (),
):
    """Compile a right-hand side, once for as long as it computes the same.

    Parameters
    ----------
    rhs : callable
        ``rhs(t, y, params)``, as for ``solve_ivp``.

    t, y, params : Tensor
        Where it is tried.

    f : Tensor of shape (n_samples, n_states), default=None
        What it returns there, where that is known.

    guards : tuple of callable, default=()
        Functions of the same of shape (n_samples,), to be compiled beside it.

    Returns
    -------
    kernel : Kernel
        Solves it.

    Raises
    ------
    Untraceable
        If this cannot be compiled. It is not tried again.
    """
    kernel = compared_kernel(rhs, y, params, guards)
    if kernel is not None:
        return kernel
    if isinstance(rhs, nn.Module):
        raise Untraceable("it is a torch.nn.Module, whose weights may be trained")
    if len(y) == 0:  # which says nothing of the next call
        raise Untraceable("there are no samples to try it on")
    n_states, n_params = y.shape[1], params.shape[1]
    known, key = known_of(rhs), (n_states, n_params, *guards)
    function = rhs
    if guards:
        for other in [k for k in known if k[2:] not in ((), guards)]:
            del known[other]  # guards that are made anew for each call must not pile up
        function, f = partial(_beside, rhs, guards), None
    point = [x[:N_POINTS].detach() for x in (t, y, params)]
    found = known.get(key)
    if isinstance(found, Untraceable):
        raise found
    if found is None or not _agree(
        found, function, point, f
    ):  # what it refers to has changed
        try:
            graph, nodes = trace(function, point)
        except Untraceable as reason:
            known[key] = reason.with_traceback(None)
            raise
        rates, values = nodes[:n_states].tolist(), nodes[n_states:].tolist()
        found = known[key] = _kernel(graph, tuple(rates), n_params, tuple(values))
    compared = COMPARED.get()
    if compared is not None:
        compared[rhs, *key] = found
    return found


def _beside(rhs, guards, t: Tensor, y: Tensor, params: Tensor) -> Tensor:
    """Return rates of change, and the values of guards after them."""
    values = [guard(t, y, params)[:, None] for guard in guards]
    return torch.cat([rhs(t, y, params), *values], dim=1)


@contextmanager
def compared_once() -> Iterator[None]:
    """Compare a right-hand side with its kernel at the first solve in here, no more.

    For searches, which solve one system hundreds of times.
    """
    token = COMPARED.set({})
    try:
        yield
    finally:
        COMPARED.reset(token)


def compared_kernel(rhs: Callable, y: Tensor, params: Tensor, guards=()):
    """Return the kernel with which a right-hand side of these sizes was compared."""
    compared = COMPARED.get()
    sizes = y.shape[1], params.shape[1]
    return compared.get((rhs, *sizes, *guards)) if compared else None


def known_of(rhs) -> dict:
    """Return what is known of a right-hand side; nothing of one that cannot be kept."""
    owner, name = rhs, None
    if isinstance(rhs, MethodType):  # made anew whenever it is asked for
        owner, name = rhs.__self__, rhs.__func__.__qualname__
    try:
        return KNOWN.setdefault(owner, {}).setdefault(name, {})
    except TypeError:
        return {}


def _agree(kernel, rhs, point, f) -> bool:
    """Whether a kernel has the rates of change of a right-hand side, and its guards."""
    if f is None:
        with torch.no_grad():
            f = rhs(*(x.clone() for x in point))
    rates = f[:N_POINTS].detach().cpu().numpy()
    found = kernel.rates(*(x.cpu().numpy() for x in point))
    with np.errstate(invalid="ignore"):
        size = np.minimum(abs(found), abs(rates))
        same = (found == rates) | (abs(found - rates) <= RTOL * size)
    return bool((same | np.isnan(found) & np.isnan(rates)).all())


def _kernel(
    graph: Graph, rhs: tuple[int, ...], n_params: int, guards: tuple[int, ...] = ()
):
    """Return the kernel of expressions, the same for the same expressions."""
    cone = graph.cone([*rhs, *guards])
    key = tuple(graph.nodes[i] for i in cone), rhs, n_params, guards
    if key not in KERNELS:
        # Not above: numba takes a second to import, where it is there at all.
        from sklearn_inverse.ode.compiled._kernel import Kernel

        while len(KERNELS) >= MAX_KERNELS:
            KERNELS.pop(next(iter(KERNELS)))
        KERNELS[key] = Kernel(graph, rhs, n_params, guards)
    return KERNELS[key]


def compile_mass_action(stoichiometry, used):
    """Compile mass-action kinetics, once per process however often they are copied.

    Parameters
    ----------
    stoichiometry : array-like of shape (n_states, n_reactions)
        What each reaction makes of each state, less what it uses up.

    used : array-like of int of shape (n_states, n_reactions)
        Order of each reaction in each state.

    Returns
    -------
    kernel : Kernel
        Solves them.
    """
    stoichiometry = np.asarray(stoichiometry, dtype=float)
    used = np.asarray(used, dtype=int)
    return _compile(len(used), stoichiometry.tobytes(), used.tobytes())


@lru_cache(maxsize=32)
def _compile(n_states: int, stoichiometry: bytes, used: bytes):
    """Return the kernel of the reactions whose arrays have these bytes."""
    effects = np.frombuffer(stoichiometry).reshape(n_states, -1)
    orders = np.frombuffer(used, dtype=int).reshape(n_states, -1)
    graph = Graph()
    rhs = mass_action(graph, effects, orders)
    return _kernel(graph, tuple(rhs), effects.shape[1])


def mass_action(graph, stoichiometry, orders) -> list[int]:
    """Return the rates of change of all states as expressions."""
    rates = []
    for j, column in enumerate(orders.T.tolist()):
        rate = graph.variable("p", j)
        for i in np.flatnonzero(column).tolist():
            for _ in range(column[i]):
                rate = graph.call("mul", rate, graph.variable("y", i))
        rates.append(rate)
    rhs = []
    for effects in stoichiometry:
        total = graph.constant(0)
        for j in np.flatnonzero(effects).tolist():
            change = graph.call("mul", graph.constant(effects[j]), rates[j])
            total = graph.call("add", total, change)
        rhs.append(total)
    return rhs
