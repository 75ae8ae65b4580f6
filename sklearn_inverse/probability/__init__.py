"""What is believed beforehand, how readings scatter, and what is believed after."""

from sklearn_inverse.probability._estimate import Estimate
from sklearn_inverse.probability._functions import GaussianFunction
from sklearn_inverse.probability._groups import GaussianProcess, MultivariateNormal
from sklearn_inverse.probability._joint import JointPrior
from sklearn_inverse.probability._names import LogNormal, Normal
from sklearn_inverse.probability._noise import (
    Binomial,
    Laplace,
    NegativeBinomial,
    Poisson,
    StudentT,
)
from sklearn_inverse.probability._noise_model import NoiseModel, as_noise
from sklearn_inverse.probability._posterior import Posterior
from sklearn_inverse.probability._priors import (
    Beta,
    Gamma,
    HalfNormal,
    LogUniform,
    Uniform,
    as_prior,
)
from sklearn_inverse.probability._status import InversionStatus

__all__ = [
    "Beta",
    "Binomial",
    "Estimate",
    "Gamma",
    "GaussianFunction",
    "GaussianProcess",
    "HalfNormal",
    "InversionStatus",
    "JointPrior",
    "Laplace",
    "LogNormal",
    "LogUniform",
    "MultivariateNormal",
    "NegativeBinomial",
    "NoiseModel",
    "Normal",
    "Poisson",
    "Posterior",
    "StudentT",
    "Uniform",
    "as_noise",
    "as_prior",
]
