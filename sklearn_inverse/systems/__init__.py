"""Models of the world: equations, unknowns, units, and what an instrument reports."""

from sklearn_inverse.systems._grn import grn
from sklearn_inverse.systems._hires import hires
from sklearn_inverse.systems._lotka_volterra import lotka_volterra
from sklearn_inverse.systems._oregonator import oregonator
from sklearn_inverse.systems._pollu import pollu
from sklearn_inverse.systems._reactions import ReactionSystem
from sklearn_inverse.systems._robertson import robertson
from sklearn_inverse.systems._system import ODESystem, Reference
from sklearn_inverse.systems._van_der_pol import van_der_pol

__all__ = [
    "ODESystem",
    "ReactionSystem",
    "Reference",
    "grn",
    "hires",
    "lotka_volterra",
    "oregonator",
    "pollu",
    "robertson",
    "van_der_pol",
]
