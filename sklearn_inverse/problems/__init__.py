"""Published problems, one function each: equations, values, units, reference."""

from sklearn_inverse.problems._billiards import billiards
from sklearn_inverse.problems._boundary_values import boundary_values
from sklearn_inverse.problems._burgers import burgers
from sklearn_inverse.problems._darcy import darcy
from sklearn_inverse.problems._fisher_kpp import fisher_kpp
from sklearn_inverse.problems._fisher_kpp_2d import fisher_kpp_2d
from sklearn_inverse.problems._glioblastoma import glioblastoma
from sklearn_inverse.problems._grn import grn
from sklearn_inverse.problems._heat import heat
from sklearn_inverse.problems._hires import hires
from sklearn_inverse.problems._kuramoto_sivashinsky import kuramoto_sivashinsky
from sklearn_inverse.problems._lotka_volterra import lotka_volterra
from sklearn_inverse.problems._navier_stokes import navier_stokes
from sklearn_inverse.problems._oregonator import oregonator
from sklearn_inverse.problems._point_source import point_source
from sklearn_inverse.problems._poisson import poisson
from sklearn_inverse.problems._pollu import pollu
from sklearn_inverse.problems._robertson import robertson
from sklearn_inverse.problems._van_der_pol import van_der_pol
from sklearn_inverse.problems._wave_packet import wave_packet

__all__ = [
    "billiards",
    "boundary_values",
    "burgers",
    "darcy",
    "fisher_kpp",
    "fisher_kpp_2d",
    "glioblastoma",
    "grn",
    "heat",
    "hires",
    "kuramoto_sivashinsky",
    "lotka_volterra",
    "navier_stokes",
    "oregonator",
    "point_source",
    "poisson",
    "pollu",
    "robertson",
    "van_der_pol",
    "wave_packet",
]
