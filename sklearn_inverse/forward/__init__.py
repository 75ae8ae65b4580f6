"""Forward models, params to trajectories: the exact one and the learned one."""

from sklearn_inverse.forward._simulator import ODESimulator
from sklearn_inverse.forward._surrogate import ODESurrogate

__all__ = ["ODESimulator", "ODESurrogate"]
