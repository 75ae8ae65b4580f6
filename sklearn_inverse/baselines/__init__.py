"""Methods of the papers as printed, under the same contract, to be compared with."""

from sklearn_inverse.baselines._batch_coupled_adm import BatchCoupledADM
from sklearn_inverse.baselines._bpn import BPNInverter
from sklearn_inverse.baselines._flow_matching import FlowMatchingInverter
from sklearn_inverse.baselines._fm_grad import FMGradInverter
from sklearn_inverse.baselines._gradient_descent import GradientDescentInverter
from sklearn_inverse.baselines._ifno import IFNOInverter
from sklearn_inverse.baselines._neural_adjoint import NeuralAdjointInverter
from sklearn_inverse.baselines._nio import NIOInverter
from sklearn_inverse.baselines._pinn import PINNInverter
from sklearn_inverse.baselines._sgld import SGLDInverter
from sklearn_inverse.baselines._spin_ode import SpinODEInverter

__all__ = [
    "BPNInverter",
    "BatchCoupledADM",
    "FMGradInverter",
    "FlowMatchingInverter",
    "GradientDescentInverter",
    "IFNOInverter",
    "NIOInverter",
    "NeuralAdjointInverter",
    "PINNInverter",
    "SGLDInverter",
    "SpinODEInverter",
]
