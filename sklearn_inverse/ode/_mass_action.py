r"""Mass-action kinetics as a right-hand side with closed-form derivatives.

.. math:: f = S\,\mathrm{diag}(k)\,m(y), \qquad
          \frac{\partial f}{\partial y}
          = S\,\mathrm{diag}(k)\,\frac{\partial m}{\partial y}, \qquad
          \frac{\partial f_i}{\partial k_j} = S_{ij}\,m_j(y).
"""

import numpy as np
import torch

from sklearn_inverse.ode.compiled import compile_mass_action

__all__ = ["MassAction"]


class MassAction:
    r"""Rates of change :math:`f = S\,\mathrm{diag}(k)\,m(y)` of reacting species.

    A right-hand side for :func:`solve_ivp`: callable, with its derivatives.

    Parameters
    ----------
    stoichiometry : array-like of shape (n_states, n_reactions)
        :math:`S`: what each reaction makes of each species, less what it uses up.

    orders : array-like of int of shape (n_states, n_reactions)
        Order of each reaction in each species: :math:`m_j = \prod_i y_i^{o_{ij}}`.

    Examples
    --------
    >>> import torch
    >>> from sklearn_inverse.ode import MassAction
    >>> dimerize = MassAction([[-2.0], [1.0]], [[2], [0]])  # 2 A -> B
    >>> y, k = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.5]])
    >>> dimerize(None, y, k)
    tensor([[-9.0000,  4.5000]])
    >>> dimerize.jac(None, y, k)
    tensor([[[-6.,  0.],
             [ 3.,  0.]]])
    """

    def __init__(self, stoichiometry, orders):
        self.stoichiometry = np.array(stoichiometry, dtype=float, order="C")
        self.orders = np.asarray(orders)
        shapes = self.stoichiometry.shape, self.orders.shape
        if shapes[0] != shapes[1] or len(shapes[0]) != 2 or 0 in shapes[0]:
            raise ValueError(
                "`stoichiometry` and `orders` must both have shape (n_states, "
                f"n_reactions), with one of each at least. Got {shapes[0]} and "
                f"{shapes[1]} instead."
            )
        if (self.orders < 0).any() or (self.orders != self.orders.astype(int)).any():
            raise ValueError("`orders` must be whole numbers >= 0.")
        self.orders = np.array(self.orders, dtype=int, order="C")
        if not np.isfinite(self.stoichiometry).all():
            raise ValueError("`stoichiometry` must be finite.")
        for array in (self.stoichiometry, self.orders):
            array.setflags(write=False)  # what was made of them would not follow
        self._tabulate()

    def __call__(self, t, y, params):
        """Return the rates of change.

        Parameters
        ----------
        t : Tensor of shape (n_samples,)
            Not used: nothing here depends on time.

        y : Tensor of shape (n_samples, n_states)
            Concentrations.

        params : Tensor of shape (n_samples, n_params)
            Rate constants.

        Returns
        -------
        dydt : Tensor of shape (n_samples, n_states)
            Rates of change.
        """
        rates = params * _products(y, self._reactants)
        return rates @ self._pair.to(y).T @ self._net.to(y).T

    def jac(self, t, y, params):
        """Return df/dy in closed form.

        Parameters
        ----------
        t, y, params : Tensor
            As for the right-hand side.

        Returns
        -------
        jacobian : Tensor of shape (n_samples, n_states, n_states)
            Entry ``[:, i, l]`` is the derivative of rate ``i`` by concentration ``l``.
        """
        k = params.index_select(-1, self._slope_reaction.to(y.device))
        slopes = k * _products(y, self._slope_rest)
        n_states = len(self.stoichiometry)
        return (slopes @ self._slope_effect.to(y)).unflatten(-1, (n_states, n_states))

    def jac_params(self, t, y, params):
        """Return df/dk in closed form.

        Parameters
        ----------
        t, y, params : Tensor
            As for the right-hand side.

        Returns
        -------
        jacobian : Tensor of shape (n_samples, n_states, n_params)
            Entry ``[:, i, j]`` is the derivative of rate ``i`` by rate constant ``j``.
        """
        effects = self._effects.to(y)
        return effects * _products(y, self._reactants)[..., None, :]

    def kernel(self):
        """Return the compiled solver of these reactions; needs numba.

        Returns
        -------
        kernel : Kernel
            Compiled once per process, however often the reactions are copied.
        """
        return compile_mass_action(self.stoichiometry, self.orders)

    def __reduce__(self):
        # The tables are far larger than what they are made from, and travel to workers.
        return type(self), (self.stoichiometry, self.orders)

    def _tabulate(self):
        """Lay out what the derivatives gather, multiply and sum."""
        n_states, n_reactions = self.orders.shape
        reactants = [
            np.repeat(np.arange(n_states), self.orders[:, j])
            for j in range(n_reactions)
        ]
        self._effects = torch.tensor(self.stoichiometry)
        self._reactants = _padded(reactants, fill=n_states)
        # A reaction and its reverse nearly cancel in equilibrium: what is left of the two
        # is summed first, so that what other reactions add is not rounded against them.
        self._net, self._pair = _net_reactions(self.stoichiometry)
        # Product rule: each reactant of reaction j gives one slope, k_j times the other
        # reactants, which acts on the column of that reactant through column j of S.
        slopes = [(j, p) for j, r in enumerate(reactants) for p in range(len(r))]
        rest = [np.delete(reactants[j], p) for j, p in slopes]
        effect = np.zeros((len(slopes), n_states, n_states))
        for matrix, (j, p) in zip(effect, slopes):
            matrix[:, reactants[j][p]] = self.stoichiometry[:, j]
        self._slope_reaction = torch.tensor([j for j, _ in slopes], dtype=torch.long)
        self._slope_rest = _padded(rest, fill=n_states)
        self._slope_effect = torch.as_tensor(effect).flatten(1)


def _net_reactions(stoichiometry):
    """Factor S = net @ pair, where parallel and opposite columns of S share one of net."""
    columns: list[np.ndarray] = []
    pair = np.zeros((0, stoichiometry.shape[1]))
    for j, column in enumerate(stoichiometry.T):
        for sign in (1.0, -1.0):
            known = [
                i for i, c in enumerate(columns) if np.array_equal(c, sign * column)
            ]
            if known:
                pair[known[0], j] = sign
                break
        else:
            columns.append(column)
            pair = np.vstack([pair, np.eye(len(pair.T))[j]])
    return torch.as_tensor(np.stack(columns, axis=1)), torch.as_tensor(pair)


def _products(y, table):
    """Multiply, for each column of ``table``, the states it lists."""
    table = table.to(y.device)
    y = torch.cat([y, torch.ones_like(y[..., :1])], dim=-1)  # padding points at the one
    product = y.index_select(-1, table[0])
    for row in table[1:]:
        product = product * y.index_select(-1, row)
    return product


def _padded(lists, fill):
    """Write lists of indices as the columns of one table, ending in ``fill``."""
    table = np.full((max([1, *map(len, lists)]), len(lists)), fill)
    for column, indices in zip(table.T, lists):
        column[: len(indices)] = indices
    return torch.as_tensor(table)
