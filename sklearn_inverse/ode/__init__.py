"""A batched stiff ODE solver in plain torch: every sample has its own step size."""

from sklearn_inverse.ode._interface import solve_ivp
from sklearn_inverse.ode._solution import Solution, Status

__all__ = ["Solution", "Status", "solve_ivp"]
