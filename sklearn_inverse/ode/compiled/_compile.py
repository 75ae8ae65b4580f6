"""The door: whether anything can be compiled here, and what has been."""

from functools import cache, lru_cache

import numpy as np

from sklearn_inverse.ode.compiled._graph import Graph

__all__ = ["compile_mass_action", "why_unavailable"]


@cache
def why_unavailable() -> str | None:
    """Return what compiling would need, in words; None if it can be had."""
    try:
        import numba  # noqa: F401
    except ImportError as error:  # not there, or at odds with NumPy
        return f"numba: pip install sklearn-inverse[fast] ({error})"
    return None


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
    # Not above: numba takes a second to import, where it is there at all.
    from sklearn_inverse.ode.compiled._kernel import Kernel

    effects = np.frombuffer(stoichiometry).reshape(n_states, -1)
    orders = np.frombuffer(used, dtype=int).reshape(n_states, -1)
    graph = Graph()
    return Kernel(graph, mass_action(graph, effects, orders), effects.shape[1])


def mass_action(graph, stoichiometry, orders) -> list[int]:
    """Return the rates of change of all states as expressions."""
    rates = []
    for j, column in enumerate(orders.T):
        rate = graph.variable("p", j)
        for i in np.flatnonzero(column):
            for _ in range(column[i]):
                rate = graph.call("mul", rate, graph.variable("y", int(i)))
        rates.append(rate)
    rhs = []
    for effects in stoichiometry:
        total = graph.constant(0)
        for j in np.flatnonzero(effects):
            change = graph.call("mul", graph.constant(effects[j]), rates[j])
            total = graph.call("add", total, change)
        rhs.append(total)
    return rhs
