"""Hidden parameters of ODE models from sparse, noisy measurements."""

# Under construction on this branch: whoever finishes a class adds its line back here.
from sklearn_inverse.forward import ForwardFunction, ODESimulator
from sklearn_inverse.inverse import GradientInverter
from sklearn_inverse.systems import ODESystem

__version__ = "0.1.0"

__all__ = [
    "ForwardFunction",
    "GradientInverter",
    "ODESimulator",
    "ODESystem",
    "__version__",
]
