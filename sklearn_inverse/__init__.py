"""Hidden parameters of ODE models from sparse, noisy measurements."""

__version__ = "0.1.0"
