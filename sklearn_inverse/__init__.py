"""Hidden parameters of ODE models from sparse, noisy measurements."""

from sklearn_inverse.discovery import PolynomialODE
from sklearn_inverse.forward import ForwardFunction, ODESimulator, ODESurrogate
from sklearn_inverse.inverse import (
    ADMInverter,
    BiLOInverter,
    CMAESInverter,
    FlowInverter,
    GradientInverter,
    MCMCInverter,
    RefinedInverter,
    ReparamJointInverter,
)
from sklearn_inverse.networks import Design, Operator, Training
from sklearn_inverse.systems import (
    Dose,
    Event,
    Experiment,
    Increment,
    ODESystem,
    PDESystem,
    PointValues,
    ReactionSystem,
    Table,
)

__version__ = "0.1.0"

__all__ = [
    "ADMInverter",
    "BiLOInverter",
    "CMAESInverter",
    "Design",
    "Dose",
    "Event",
    "Experiment",
    "FlowInverter",
    "ForwardFunction",
    "GradientInverter",
    "Increment",
    "MCMCInverter",
    "ODESimulator",
    "ODESurrogate",
    "ODESystem",
    "Operator",
    "PDESystem",
    "PointValues",
    "PolynomialODE",
    "ReactionSystem",
    "RefinedInverter",
    "ReparamJointInverter",
    "Table",
    "Training",
    "__version__",
]
