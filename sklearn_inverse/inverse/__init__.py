"""Inverters: observations to params, each behind fit and posterior or predict."""

from sklearn_inverse.inverse._adm import ADMInverter
from sklearn_inverse.inverse._bilo import BiLOInverter
from sklearn_inverse.inverse._cmaes import CMAESInverter
from sklearn_inverse.inverse._flow import FlowInverter
from sklearn_inverse.inverse._gradient import GradientInverter
from sklearn_inverse.inverse._mcmc import MCMCInverter
from sklearn_inverse.inverse._refined import RefinedInverter
from sklearn_inverse.inverse._reparam import ReparamJointInverter

__all__ = [
    "ADMInverter",
    "BiLOInverter",
    "CMAESInverter",
    "FlowInverter",
    "GradientInverter",
    "MCMCInverter",
    "RefinedInverter",
    "ReparamJointInverter",
]
