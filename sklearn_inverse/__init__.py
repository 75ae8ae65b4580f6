"""Hidden parameters of ODE models from sparse, noisy measurements."""

# Under construction on this branch: whoever finishes a class adds its line back here.
from sklearn_inverse.forward import ForwardFunction, ODESimulator, ODESurrogate
from sklearn_inverse.inverse import (
    ADMInverter,
    CMAESInverter,
    GradientInverter,
    RefinedInverter,
    ReparamJointInverter,
)
from sklearn_inverse.networks import Design, Operator, ReadingNetwork, Training
from sklearn_inverse.systems import ODESystem, ReactionSystem

__version__ = "0.1.0"

__all__ = [
    "ADMInverter",
    "CMAESInverter",
    "Design",
    "ForwardFunction",
    "GradientInverter",
    "ODESimulator",
    "ODESurrogate",
    "ODESystem",
    "Operator",
    "ReactionSystem",
    "ReadingNetwork",
    "RefinedInverter",
    "ReparamJointInverter",
    "Training",
    "__version__",
]
