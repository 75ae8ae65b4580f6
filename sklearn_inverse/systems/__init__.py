"""Models of the world: equations, unknowns, units, and what an instrument reports."""

from sklearn_inverse.systems._declared import Increment
from sklearn_inverse.systems._events import Dose, Event
from sklearn_inverse.systems._experiments import Experiment
from sklearn_inverse.systems._fields import godunov
from sklearn_inverse.systems._grids import Chebyshev, FiniteDifferences
from sklearn_inverse.systems._inputs import Table
from sklearn_inverse.systems._observed import ParticleCounts, PointValues
from sklearn_inverse.systems._pde import PDESystem
from sklearn_inverse.systems._reactions import ReactionSystem
from sklearn_inverse.systems._system import ODESystem, Reference

__all__ = [
    "Chebyshev",
    "Dose",
    "Event",
    "Experiment",
    "FiniteDifferences",
    "Increment",
    "ODESystem",
    "PDESystem",
    "ParticleCounts",
    "PointValues",
    "ReactionSystem",
    "Reference",
    "Table",
    "godunov",
]
