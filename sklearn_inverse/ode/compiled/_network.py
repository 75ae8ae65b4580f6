"""The reactions as the compiled code sees them: in the order of elimination."""

import numpy as np

from sklearn_inverse.ode.compiled._vectors import LANES
from sklearn_inverse.ode.compiled._workspace import N_STAGES, ORDER, Rows

__all__ = ["Network"]


class Network:
    """The reactions, with the states in the order of their elimination.

    Parameters
    ----------
    stoichiometry : ndarray of shape (n_states, n_reactions)
        What each reaction makes of each state, less what it uses up.

    used : ndarray of shape (n_states, n_reactions)
        Order of each reaction in each state.

    Attributes
    ----------
    order : ndarray of shape (n_states,)
        The states as given, in the order of their elimination.

    reactants : list of list of int
        Reactants of each reaction, as often as its order says.

    slopes : list of tuple (reaction, state, rest)
        The product rule: each reactant and the rest of its reaction's.

    curved : list of int
        Slopes that depend on the states, for there is a rest.

    slopes_of : list of list of tuple (slope, reaction)
        Slopes by each state.

    effects : list of dict of int to float
        Non-zero stoichiometry of each state, by reaction.

    factors : dict of (int, int) to int
        Number of each non-zero of the factors of W, row by row.
    """

    def __init__(self, stoichiometry, used):
        reactants = [
            np.repeat(np.arange(len(used)), orders) for orders in np.transpose(used)
        ]
        pattern = np.eye(len(used), dtype=bool)
        for column, states in zip(stoichiometry.T, reactants):
            pattern[np.ix_(column != 0, states)] = True
        self.order, filled = eliminate(pattern)
        place = np.argsort(self.order)
        self.reactants = [place[states].tolist() for states in reactants]
        self.slopes = [
            (j, state, states[:p] + states[p + 1 :])
            for j, states in enumerate(self.reactants)
            for p, state in enumerate(states)
        ]
        self.curved = [s for s, (*_, rest) in enumerate(self.slopes) if rest]
        self.slopes_of = [
            [(s, j) for s, (j, by, _) in enumerate(self.slopes) if by == state]
            for state in range(len(used))
        ]
        self.effects = [
            {int(j): float(row[j]) for j in np.flatnonzero(row)}
            for row in stoichiometry[self.order]
        ]
        self.factors = {
            (i, j): number for number, (i, j) in enumerate(np.argwhere(filled).tolist())
        }

    def lay_out(self):
        """Return the :class:`Rows` of the workspace."""
        n_states, n_reactions = len(self.effects), len(self.reactants)
        n_slopes, n_curves = len(self.slopes), len(self.curved)
        blocks = -(-n_states // LANES)
        counts = dict.fromkeys(Rows._fields[4:-1], 1) | {
            "k": n_reactions,
            **dict.fromkeys(("y", "f", "peak", "stage", "y_new", "coupled"), n_states),
            "factors": len(self.factors),
            "u": N_STAGES * n_states,
            "slope": N_STAGES * n_slopes,
            "dense": ORDER,
            "lane_y": blocks,
            "lane_u": N_STAGES * blocks,
            "lane_out": blocks,
            "curve": N_STAGES * n_curves,
            "source": N_STAGES * n_reactions,
            "forcing": n_reactions,
            "tangent": n_reactions * n_states,
            "v": N_STAGES * n_states,
        }
        starts = np.cumsum([0, *counts.values()]).tolist()
        return Rows(n_states, n_reactions, n_slopes, n_curves, *starts)


def eliminate(pattern):
    """Order pivots on the diagonal so that elimination fills in little (Markowitz).

    Parameters
    ----------
    pattern : ndarray of bool of shape (n, n)
        Where the matrix may differ from zero.

    Returns
    -------
    order : ndarray of shape (n,)
        Pivots in their order.

    filled : ndarray of bool of shape (n, n)
        Where the factors may differ from zero, in that order.
    """
    filled = pattern.copy()
    order, left = [], list(range(len(pattern)))
    while left:
        rest = filled[np.ix_(left, left)]
        cost = (rest.sum(0) - 1) * (rest.sum(1) - 1)
        pivot = left.pop(int(np.argmin(cost)))
        order.append(pivot)
        rows = [i for i in left if filled[i, pivot]]
        columns = [j for j in left if filled[pivot, j]]
        filled[np.ix_(rows, columns)] = True
    return np.array(order, dtype=np.int64), filled[np.ix_(order, order)]
