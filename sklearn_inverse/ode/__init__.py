"""A batched, differentiable solver of stiff and other systems of ODEs."""

from sklearn_inverse.ode._events import Event
from sklearn_inverse.ode._interface import METHODS, solve_ivp
from sklearn_inverse.ode._mass_action import MassAction
from sklearn_inverse.ode._solution import Solution, Status

__all__ = [
    "METHODS",
    "Event",
    "MassAction",
    "Solution",
    "Status",
    "solve_ivp",
]
