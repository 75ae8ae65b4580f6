"""Learn the equations themselves from trajectories."""

from sklearn_inverse.discovery._polynomial_ode import PolynomialODE

__all__ = ["PolynomialODE"]
