"""What is believed beforehand, how readings scatter, and what is believed after."""

from sklearn_inverse.probability._groups import GaussianProcess, MultivariateNormal
from sklearn_inverse.probability._names import LogNormal, Normal
from sklearn_inverse.probability._priors import (
    Beta,
    Gamma,
    HalfNormal,
    LogUniform,
    Uniform,
    as_prior,
)
from sklearn_inverse.probability._transforms import JointPrior

__all__ = [
    "Beta",
    "Gamma",
    "GaussianProcess",
    "HalfNormal",
    "JointPrior",
    "LogNormal",
    "LogUniform",
    "MultivariateNormal",
    "Normal",
    "Uniform",
    "as_prior",
]
