"""Methods of the papers as printed, under the same contract, to be compared with."""

from sklearn_inverse.baselines._batch_coupled_adm import BatchCoupledADM
from sklearn_inverse.baselines._gradient_descent import GradientDescentInverter
from sklearn_inverse.baselines._ifno import IFNOInverter
from sklearn_inverse.baselines._neural_adjoint import NeuralAdjointInverter
from sklearn_inverse.baselines._nio import NIOInverter

__all__ = [
    "BatchCoupledADM",
    "GradientDescentInverter",
    "IFNOInverter",
    "NIOInverter",
    "NeuralAdjointInverter",
]
