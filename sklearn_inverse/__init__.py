"""Hidden parameters of ODE models from sparse, noisy measurements."""

from sklearn_inverse.forward import ODESimulator, ODESurrogate
from sklearn_inverse.inverse import (
    ADMInverter,
    BiLOInverter,
    CMAESInverter,
    GradientInverter,
    RefinedInverter,
    ReparamJointInverter,
)
from sklearn_inverse.systems import ODESystem, ReactionSystem

__version__ = "0.1.0"

__all__ = [
    "ADMInverter",
    "BiLOInverter",
    "CMAESInverter",
    "GradientInverter",
    "ODESimulator",
    "ODESurrogate",
    "ODESystem",
    "ReactionSystem",
    "RefinedInverter",
    "ReparamJointInverter",
    "__version__",
]
