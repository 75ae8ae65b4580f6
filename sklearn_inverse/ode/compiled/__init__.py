"""Solvers in machine code. Numba, an extra, waits until there is something to compile."""

from sklearn_inverse.ode.compiled._compile import compile_mass_action, why_unavailable

__all__ = ["compile_mass_action", "why_unavailable"]
