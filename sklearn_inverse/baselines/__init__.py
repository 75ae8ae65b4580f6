"""Methods of the papers as printed, under the same contract, to be compared with."""

from sklearn_inverse.baselines._batch_coupled_adm import BatchCoupledADM
from sklearn_inverse.baselines._flow_matching import FlowMatchingInverter
from sklearn_inverse.baselines._gradient_descent import GradientDescentInverter
from sklearn_inverse.baselines._neural_adjoint import NeuralAdjointInverter

__all__ = [
    "BatchCoupledADM",
    "FlowMatchingInverter",
    "GradientDescentInverter",
    "NeuralAdjointInverter",
]
