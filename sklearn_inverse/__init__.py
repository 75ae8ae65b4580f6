"""Hidden parameters of ODE models from sparse, noisy measurements."""

from sklearn_inverse.forward import ODESimulator, ODESurrogate
from sklearn_inverse.inverse import ADMInverter, GradientInverter
from sklearn_inverse.systems import ODESystem, ReactionSystem

__version__ = "0.1.0"

__all__ = [
    "ADMInverter",
    "GradientInverter",
    "ODESimulator",
    "ODESurrogate",
    "ODESystem",
    "ReactionSystem",
    "__version__",
]
