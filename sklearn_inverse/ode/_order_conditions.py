r"""Order conditions: :math:`b \cdot \Phi(t) = \theta^n / \gamma(t)` for all rooted trees.

Hairer, Nørsett & Wanner, "Solving Ordinary Differential Equations I", Section II.2; for
Rosenbrock methods Hairer & Wanner, "… II", Section IV.7.
"""

from functools import cache
from itertools import combinations_with_replacement

import numpy as np

__all__ = ["check_order", "density", "rooted_trees"]


def check_order(order, b, alpha, beta, theta=1.0):
    """Assert ``b · Φ(t) = θ^n / γ(t)`` for every tree t of n <= order nodes."""
    for n in range(1, order + 1):
        for tree in rooted_trees(n):
            got = b @ stage_weights(tree, alpha, beta)
            # Tolerance: coefficients are printed to 15 digits and reach 1e2.
            assert np.isclose(got, theta**n / density(tree), atol=2e-12, rtol=0), tree


def stage_weights(tree: tuple, alpha: np.ndarray, beta: np.ndarray) -> np.ndarray:
    """Φ_j(t) per stage; an only child is reached by β = α + Γ, several by α."""
    matrix = beta if len(tree) == 1 else alpha
    weights = np.ones(len(alpha))
    for child in tree:
        weights = weights * (matrix @ stage_weights(child, alpha, beta))
    return weights


def density(tree: tuple) -> int:
    """Density γ(t) of a tree: its order times the densities of its subtrees."""
    return n_nodes(tree) * int(np.prod([density(child) for child in tree], dtype=int))


def n_nodes(tree: tuple) -> int:
    """Order of a tree."""
    return 1 + sum(map(n_nodes, tree))


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
