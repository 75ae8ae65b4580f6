r"""Tableaux of coefficients, which prove themselves when they are made.

Order conditions are checked for the solution, the embedded error estimate and the dense
output alike.
"""

from dataclasses import dataclass, field

import numpy as np

from sklearn_inverse.ode._order_conditions import check_order

__all__ = ["RosenbrockTableau", "RungeKuttaTableau", "StageTransform"]


@dataclass(frozen=True)
class RungeKuttaTableau:
    """A Runge–Kutta method, explicit or implicit.

    Attributes
    ----------
    order : int
        Order of the solution.

    a : ndarray of shape (n_stages, n_stages)
        Butcher matrix. In implicit methods here its last row equals ``b`` (stiffly
        accurate), so that the last stage is the solution.

    b : ndarray of shape (n_stages,)
        Weights.

    error : ndarray of shape (n_stages,), default=None
        Weights of the solution minus those of the embedded one, of order ``order - 1``.

    dense : ndarray of shape (n_powers, n_stages), default=None
        ``dense @ k`` are the coefficients of θ, θ², … of the solution at ``t + θ h``.

    dense_order : int, default=0
        Order of the dense output.
    """

    order: int
    a: np.ndarray
    b: np.ndarray
    error: np.ndarray | None = None
    dense: np.ndarray | None = None
    dense_order: int = 0

    def __post_init__(self):
        check_order(self.order, self.b, self.a, self.a)
        if self.error is not None:
            check_order(self.order - 1, self.b - self.error, self.a, self.a)
            assert abs(self.error).sum() > 1e-3
        if self.dense is not None:
            for theta in (0.3, 0.7, 1.0):
                b = powers(theta, len(self.dense)) @ self.dense
                check_order(self.dense_order, b, self.a, self.a, theta)
            assert np.allclose(self.dense.sum(0), self.b, atol=1e-13)
        if not self.is_explicit:
            assert np.array_equal(self.a[-1], self.b)

    @property
    def c(self) -> np.ndarray:
        """Nodes: times of the stages in units of the step."""
        return self.a.sum(1)

    @property
    def is_explicit(self) -> bool:
        """Whether each stage needs earlier ones only."""
        return not np.triu(self.a).any()


@dataclass(frozen=True)
class StageTransform:
    r"""What simplified Newton iterations on Radau IIA of order 5 need beside the tableau.

    Hairer & Wanner II, Section IV.8: a similarity transform splits the
    :math:`3n \times 3n` system into one real and one complex system of size n.

    Attributes
    ----------
    tableau : RungeKuttaTableau
        The method.

    transform, eigen_real, eigen_complex
        :math:`T` and eigenvalues with :math:`T^{-1} A^{-1} T` in real block form.

    error_weights : ndarray of shape (n_stages,)
        Weights :math:`e` of the embedded error estimate
        :math:`(\gamma_0/h\, I - J)^{-1} (f_n + Z^T e / h)`, Eq. (IV.8.19) there.

    inverse_transform : ndarray of shape (n_stages, n_stages)
        :math:`T^{-1}`.

    dense : ndarray of shape (n_stages, n_stages)
        ``dense @ z`` are the coefficients of θ, θ², θ³ of the collocation polynomial
        through the stage increments ``z``.
    """

    tableau: RungeKuttaTableau
    transform: np.ndarray
    error_weights: np.ndarray
    eigen_real: float = field(init=False)
    eigen_complex: complex = field(init=False)
    inverse_transform: np.ndarray = field(init=False)
    dense: np.ndarray = field(init=False)

    def __post_init__(self):
        a, c = self.tableau.a, self.tableau.c
        inverse_transform = np.linalg.inv(self.transform)
        block = inverse_transform @ np.linalg.inv(a) @ self.transform
        real, alpha, beta = block[0, 0], block[1, 1], block[2, 1]
        expected = np.array([[real, 0, 0], [0, alpha, -beta], [0, beta, alpha]])
        assert np.allclose(block, expected, atol=1e-11)

        # The polynomial P(θ) = Σ_q d_q θ^q takes the values z_i at the nodes c_i.
        vandermonde = np.vander(c, len(c) + 1, increasing=True)[:, 1:]
        for name, value in {
            "inverse_transform": inverse_transform,
            "eigen_real": float(real),
            "eigen_complex": complex(alpha, beta),
            "dense": np.linalg.inv(vandermonde),
        }.items():
            object.__setattr__(self, name, value)


@dataclass(frozen=True)
class RosenbrockTableau:
    r"""A Rosenbrock method in Hairer's transformed form, free of products with J.

    .. math:: (I/(h\gamma) - J)\, u_i = f(t + c_i h, y + \sum_j a_{ij} u_j)
              + \sum_j (C_{ij}/h)\, u_j + h d_i f_t, \qquad
              y_{n+1} = y + \sum_i m_i u_i

    with :math:`m` = (last row of a, 1); the last :math:`u` is the error estimate.

    Attributes
    ----------
    order : int
        Order of the solution; the error estimate and the dense output have one less.

    gamma : float
        Diagonal coefficient.

    a, coupling : ndarray of shape (n_stages, n_stages)
        Strictly lower triangular :math:`a` and :math:`C`.

    h : ndarray of shape (3, n_stages)
        Dense output ``(1-θ) y_n + θ (y_{n+1} + (1-θ) (D_1 + θ (D_2 + θ D_3)))`` with
        ``D = h @ u``.

    c, d : ndarray of shape (n_stages,)
        Nodes, and weights of the time derivative.

    dense : ndarray of shape (4, n_stages)
        ``dense @ u`` are the coefficients of θ, …, θ⁴ of that dense output.
    """

    order: int
    gamma: float
    a: np.ndarray
    coupling: np.ndarray
    h: np.ndarray
    c: np.ndarray = field(init=False)
    d: np.ndarray = field(init=False)
    dense: np.ndarray = field(init=False)

    def __post_init__(self):
        # Back to k_i = Σ_j (Γ⁻¹)_ij u_j of the untransformed method.
        gamma = np.linalg.inv(np.eye(len(self.a)) / self.gamma - self.coupling)
        alpha = self.a @ gamma
        m = np.append(self.a[-1, :-1], 1.0)
        h1, h2, h3 = self.h
        dense = np.stack([m + h1, h2 - h1, h3 - h2, -h3])
        embedded = m - np.eye(len(m))[-1]
        check_order(self.order, m @ gamma, alpha, alpha + gamma)
        check_order(self.order - 1, embedded @ gamma, alpha, alpha + gamma)
        for theta in (0.3, 0.7):
            b = powers(theta, len(dense)) @ dense @ gamma
            check_order(self.order - 1, b, alpha, alpha + gamma, theta)
        for name, value in {
            "c": alpha.sum(1).round(15),
            "d": gamma.sum(1) * (abs(gamma.sum(1)) > 1e-12),
            "dense": dense,
        }.items():
            object.__setattr__(self, name, value)

    @property
    def m(self) -> np.ndarray:
        """Weights of the solution."""
        return self.dense.sum(0)


def powers(theta: float, n: int) -> np.ndarray:
    """Return θ, θ², …, θ^n."""
    return theta ** np.arange(1, n + 1)
