r"""Coefficients of all methods; they prove themselves at import.

Every method's order conditions are checked over the rooted trees of its order (Hairer,
Nørsett & Wanner, "Solving Ordinary Differential Equations I", Section II.2; for
Rosenbrock methods Hairer & Wanner, "… II", Section IV.7), for its solution, its embedded
error estimate and its dense output alike.
"""

from dataclasses import dataclass, field
from functools import cache
from itertools import combinations_with_replacement

import numpy as np

__all__ = [
    "BACKWARD_EULER",
    "EULER",
    "RADAU3",
    "RADAU5",
    "RADAU5_TRANSFORM",
    "RK4",
    "RODAS5P",
    "TRAPEZOID",
    "TSIT5",
    "RosenbrockTableau",
    "RungeKuttaTableau",
    "StageTransform",
]

S6 = 6**0.5


@cache
def rooted_trees(order: int) -> list[tuple]:
    """Rooted trees with ``order`` nodes, each the tuple of its root's subtrees."""
    if order == 1:
        return [()]
    smaller = [tree for n in range(1, order) for tree in rooted_trees(n)]
    forests = (
        forest
        for n_children in range(1, order)
        for forest in combinations_with_replacement(smaller, n_children)
    )
    return [forest for forest in forests if 1 + sum(map(n_nodes, forest)) == order]


def n_nodes(tree: tuple) -> int:
    """Order of a tree."""
    return 1 + sum(map(n_nodes, tree))


def density(tree: tuple) -> int:
    """Density γ(t) of a tree: its order times the densities of its subtrees."""
    return n_nodes(tree) * int(np.prod([density(child) for child in tree], dtype=int))


def stage_weights(tree: tuple, alpha: np.ndarray, beta: np.ndarray) -> np.ndarray:
    """Φ_j(t) per stage; an only child is reached by β = α + Γ, several by α."""
    matrix = beta if len(tree) == 1 else alpha
    weights = np.ones(len(alpha))
    for child in tree:
        weights = weights * (matrix @ stage_weights(child, alpha, beta))
    return weights


def check_order(order, b, alpha, beta, theta=1.0):
    """Assert ``b · Φ(t) = θ^n / γ(t)`` for every tree t of n <= order nodes."""
    for n in range(1, order + 1):
        for tree in rooted_trees(n):
            got = b @ stage_weights(tree, alpha, beta)
            # Tolerance: coefficients are printed to 15 digits and reach 1e2.
            assert np.isclose(got, theta**n / density(tree), atol=2e-12, rtol=0), tree


def powers(theta: float, n: int) -> np.ndarray:
    """Return θ, θ², …, θ^n."""
    return theta ** np.arange(1, n + 1)


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


def lower(*rows) -> np.ndarray:
    """Square matrix from the rows below its diagonal, beginning with the second."""
    matrix = np.zeros((len(rows) + 1, len(rows) + 1))
    for i, row in enumerate(rows, start=1):
        matrix[i, : len(row)] = row
    return matrix


EULER = RungeKuttaTableau(order=1, a=np.zeros((1, 1)), b=np.ones(1))
RK4 = RungeKuttaTableau(
    order=4,
    a=lower([1 / 2], [0, 1 / 2], [0, 0, 1]),
    b=np.array([1 / 6, 1 / 3, 1 / 3, 1 / 6]),
)
BACKWARD_EULER = RungeKuttaTableau(order=1, a=np.ones((1, 1)), b=np.ones(1))
TRAPEZOID = RungeKuttaTableau(
    order=2, a=np.array([[0, 0], [1 / 2, 1 / 2]]), b=np.array([1 / 2, 1 / 2])
)
RADAU3 = RungeKuttaTableau(
    order=3,
    a=np.array([[5 / 12, -1 / 12], [3 / 4, 1 / 4]]),
    b=np.array([3 / 4, 1 / 4]),
)
RADAU5 = RungeKuttaTableau(
    order=5,
    a=np.array(
        [
            [(88 - 7 * S6) / 360, (296 - 169 * S6) / 1800, (-2 + 3 * S6) / 225],
            [(296 + 169 * S6) / 1800, (88 + 7 * S6) / 360, (-2 - 3 * S6) / 225],
            [(16 - S6) / 36, (16 + S6) / 36, 1 / 9],
        ]
    ),
    b=np.array([(16 - S6) / 36, (16 + S6) / 36, 1 / 9]),
)
RADAU5_TRANSFORM = StageTransform(
    RADAU5,
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
    error_weights=np.array([-(13 + 7 * S6) / 3, (-13 + 7 * S6) / 3, -1 / 3]),
)

# Ch. Tsitouras, "Runge–Kutta pairs of order 5(4) satisfying only the first column
# simplifying assumption", Computers & Mathematics with Applications 62 (2011) 770-775.
TSIT5_B = [
    0.09646076681806523,
    0.01,
    0.4798896504144996,
    1.379008574103742,
    -3.290069515436081,
    2.324710524099774,
]
TSIT5 = RungeKuttaTableau(
    order=5,
    a=lower(
        [0.161],
        [-0.008480655492356989, 0.335480655492357],
        [2.8971530571054935, -6.359448489975075, 4.3622954328695815],
        [
            5.325864828439257,
            -11.748883564062828,
            7.4955393428898365,
            -0.09249506636175525,
        ],
        [
            5.86145544294642,
            -12.92096931784711,
            8.159367898576159,
            -0.071584973281401,
            -0.028269050394068383,
        ],
        TSIT5_B,
    ),
    b=np.array([*TSIT5_B, 0.0]),
    error=np.array(
        [
            0.00178001105222577714,
            0.0008164344596567469,
            -0.007880878010261995,
            0.1447110071732629,
            -0.5823571654525552,
            0.45808210592918697,
            -1 / 66,
        ]
    ),
    dense=np.array(
        [
            [1.0, -2.763706197274826, 2.9132554618219126, -1.0530884977290216],
            [0.0, 0.1317, -0.2234, 0.1017],
            [0.0, 3.9302962368947516, -5.941033872131505, 2.490627285651253],
            [0.0, -12.411077166933676, 30.33818863028232, -16.548102889244902],
            [0.0, 37.50931341651104, -88.1789048947664, 47.37952196281928],
            [0.0, -27.896526289197286, 65.09189467479366, -34.87065786149661],
            [0.0, 1.5, -4.0, 2.5],
        ]
    ).T,
    dense_order=4,
)

# G. Steinebach, "Construction of Rosenbrock–Wanner method Rodas5P and numerical
# benchmarks within the Julia Differential Equations package", BIT 63 (2023) 27.
RODAS5P_A = [
    -7.502846399306121,
    2.561846144803919,
    -11.627539656261098,
    -0.18268767659942256,
    0.030198172008377946,
]
RODAS5P = RosenbrockTableau(
    order=5,
    gamma=0.21193756319429014,
    a=lower(
        [3.0],
        [2.849394379747939, 0.45842242204463923],
        [-6.954028509809101, 2.489845061869568, -10.358996098473584],
        [
            2.8029986275628964,
            0.5072464736228206,
            -0.3988312541770524,
            -0.04721187230404641,
        ],
        RODAS5P_A,
        [*RODAS5P_A, 1.0],
        [*RODAS5P_A, 1.0, 1.0],
    ),
    coupling=lower(
        [-14.155112264123755],
        [-17.97296035885952, -2.859693295451294],
        [147.12150275711716, -1.41221402718213, 71.68940251302358],
        [
            165.43517024871676,
            -0.4592823456491126,
            42.90938336958603,
            -5.961986721573306,
        ],
        [
            24.854864614690072,
            -3.0009227002832186,
            47.4931110020768,
            5.5814197821558125,
            -0.6610691825249471,
        ],
        [
            30.91273214028599,
            -3.1208243349937974,
            77.79954646070892,
            34.28646028294783,
            -19.097331116725623,
            -28.087943162872662,
        ],
        [
            37.80277123390563,
            -3.2571969029072276,
            112.26918849496327,
            66.9347231244047,
            -40.06618937091002,
            -54.66780262877968,
            -9.48861652309627,
        ],
    ),
    h=np.array(
        [
            [
                25.948786856663858,
                -2.5579724845846235,
                10.433815404888879,
                -2.3679251022685204,
                0.524948541321073,
                1.1241088310450404,
                0.4272876194431874,
                -0.17202221070155493,
            ],
            [
                -9.91568850695171,
                -0.9689944594115154,
                3.0438037242978453,
                -24.495224566215796,
                20.176138334709044,
                15.98066361424651,
                -6.789040303419874,
                -6.710236069923372,
            ],
            [
                11.419903575922262,
                2.8879645146136994,
                72.92137995996029,
                80.12511834622643,
                -52.072871366152654,
                -59.78993625266729,
                -0.15582684282751913,
                4.883087185713722,
            ],
        ]
    ),
)
