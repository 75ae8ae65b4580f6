r"""Coefficients of the collocation methods; they prove themselves at import.

Radau IIA of order 5 (Hairer & Wanner, "Solving Ordinary Differential Equations II",
2nd ed., Table IV.5.6), with the similarity transform of Section IV.8 that splits the
:math:`3n \times 3n` Newton system into one real and one complex system of size n.
"""

from dataclasses import dataclass, field

import numpy as np

__all__ = ["RADAU5", "CollocationTableau"]

S6 = 6**0.5


@dataclass(frozen=True)
class CollocationTableau:
    r"""A stiffly accurate collocation method and what its implementation needs.

    Attributes
    ----------
    order : int
        Order of the method.

    a : ndarray of shape (n_stages, n_stages)
        Butcher matrix; its last row holds the weights (stiffly accurate).

    c : ndarray of shape (n_stages,)
        Collocation nodes, the last of them 1.

    error_weights : ndarray of shape (n_stages,)
        Weights :math:`e` of the embedded error estimate
        :math:`(\gamma_0/h\, I - J)^{-1} (f_n + Z^T e / h)`, Eq. (IV.8.19) there.

    transform, eigen_real, eigen_complex
        :math:`T` and eigenvalues with :math:`T^{-1} A^{-1} T` in real block form.

    inverse_transform : ndarray of shape (n_stages, n_stages)
        :math:`T^{-1}`.

    dense : ndarray of shape (n_stages, n_stages)
        ``Z.T @ dense`` are the coefficients of θ, θ², θ³ of the collocation polynomial.
    """

    order: int
    a: np.ndarray
    c: np.ndarray
    error_weights: np.ndarray
    transform: np.ndarray
    eigen_real: float = field(init=False)
    eigen_complex: complex = field(init=False)
    inverse_transform: np.ndarray = field(init=False)
    dense: np.ndarray = field(init=False)

    def __post_init__(self):
        a, c, order = self.a, self.c, self.order
        s = len(c)
        # Collocation conditions C(s), and B(order) for the weights in the last row.
        for q in range(1, s + 1):
            assert np.allclose(a @ c ** (q - 1), c**q / q, atol=1e-14)
        for q in range(1, order + 1):
            assert np.isclose(a[-1] @ c ** (q - 1), 1 / q, atol=1e-14)

        inverse_transform = np.linalg.inv(self.transform)
        block = inverse_transform @ np.linalg.inv(a) @ self.transform
        real, alpha, beta = block[0, 0], block[1, 1], block[2, 1]
        expected = np.array([[real, 0, 0], [0, alpha, -beta], [0, beta, alpha]])
        assert np.allclose(block, expected, atol=1e-11)

        # The polynomial P(θ) = Σ_q d_q θ^q takes the values Z_i at the nodes c_i.
        dense = np.linalg.inv(np.vander(c, s + 1, increasing=True)[:, 1:]).T
        assert np.allclose((c[:, None] ** np.arange(1, s + 1)) @ dense.T, np.eye(s))
        for name, value in {
            "inverse_transform": inverse_transform,
            "eigen_real": float(real),
            "eigen_complex": complex(alpha, beta),
            "dense": dense,
        }.items():
            object.__setattr__(self, name, value)


RADAU5 = CollocationTableau(
    order=5,
    a=np.array(
        [
            [(88 - 7 * S6) / 360, (296 - 169 * S6) / 1800, (-2 + 3 * S6) / 225],
            [(296 + 169 * S6) / 1800, (88 + 7 * S6) / 360, (-2 - 3 * S6) / 225],
            [(16 - S6) / 36, (16 + S6) / 36, 1 / 9],
        ]
    ),
    c=np.array([(4 - S6) / 10, (4 + S6) / 10, 1.0]),
    error_weights=np.array([-(13 + 7 * S6) / 3, (-13 + 7 * S6) / 3, -1 / 3]),
    transform=np.array(
        [
            [
                0.091232394870892942792,
                -0.14125529502095420843,
                -0.030029194105147424492,
            ],
            [0.24171793270710701896, 0.20412935229379993199, 0.38294211275726193779],
            [0.96604818261509293619, 1.0, 0.0],
        ]
    ),
)
