"""Forward models, params to trajectories: the exact one and the learned one."""

from sklearn_inverse.forward._base import ForwardModel
from sklearn_inverse.forward._function import ForwardFunction
from sklearn_inverse.forward._simulator import ODESimulator
from sklearn_inverse.forward._surrogate import ODESurrogate

__all__ = ["ForwardFunction", "ForwardModel", "ODESimulator", "ODESurrogate"]
