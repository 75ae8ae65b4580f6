"""Inverters: observations to params, each behind fit and predict."""

from sklearn_inverse.inverse._adm import ADMInverter
from sklearn_inverse.inverse._bilo import BiLOInverter
from sklearn_inverse.inverse._cmaes import CMAESInverter
from sklearn_inverse.inverse._gradient import GradientInverter
from sklearn_inverse.inverse._refined import RefinedInverter
from sklearn_inverse.inverse._reparam import ReparamJointInverter
from sklearn_inverse.inverse._result import InversionResult
from sklearn_inverse.optim._status import InversionStatus

__all__ = [
    "ADMInverter",
    "BiLOInverter",
    "CMAESInverter",
    "GradientInverter",
    "InversionResult",
    "InversionStatus",
    "RefinedInverter",
    "ReparamJointInverter",
]
