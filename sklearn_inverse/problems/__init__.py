"""Published problems, one function each: equations, values, units, reference."""

from sklearn_inverse.problems._grn import grn
from sklearn_inverse.problems._hires import hires
from sklearn_inverse.problems._lotka_volterra import lotka_volterra
from sklearn_inverse.problems._oregonator import oregonator
from sklearn_inverse.problems._pollu import pollu
from sklearn_inverse.problems._robertson import robertson
from sklearn_inverse.problems._van_der_pol import van_der_pol

__all__ = [
    "grn",
    "hires",
    "lotka_volterra",
    "oregonator",
    "pollu",
    "robertson",
    "van_der_pol",
]
