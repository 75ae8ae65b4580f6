r"""ReactionSystem: mass-action kinetics written as reaction strings.

Reaction :math:`j` runs at the rate :math:`k_j m_j(y)`, where :math:`m_j` is the product
of its reactants' concentrations. With the stoichiometric matrix :math:`S`,

.. math:: f = S\,\mathrm{diag}(k)\,m(y), \qquad
          \frac{\partial f}{\partial y}
          = S\,\mathrm{diag}(k)\,\frac{\partial m}{\partial y}, \qquad
          \frac{\partial f_i}{\partial k_j} = S_{ij}\,m_j(y).
"""

import numpy as np
import torch

from sklearn_inverse.systems._stoichiometry import (
    left_null_space,
    read_reactions,
    read_sum,
    to_row,
)
from sklearn_inverse.systems._system import ODESystem

__all__ = ["ReactionSystem"]


class ReactionSystem(ODESystem):
    r"""Mass-action kinetics :math:`y' = S\,\mathrm{diag}(k)\,m(y)` from reactions.

    The params are the rate constants, one per reaction and in their order. Derivatives
    by states and by params are in closed form.

    Parameters
    ----------
    reactions : list of str
        Such as ``"HO2 + NO -> NO2 + OH"``, ``"HCHO -> 2 HO2 + CO"``, ``"-> A"`` for a
        source and ``"A ->"`` for a sink. Reactants have whole coefficients, which set
        the order; those of products may be decimals.

    initial_state : dict, array-like of shape (n_states,) or callable
        State at ``times[0]``. A dict names the species that are present; all others
        start at zero. A callable is as for :class:`ODESystem`.

    times : array-like of shape (n_times,)
        Output times, increasing.

    nominal : array-like of shape (n_reactions,), default=None
        Published or typical rate constants. If None, the middle of ``bounds``.

    bounds : array-like of shape (n_reactions, 2), default=None
        Lower and upper bound of each rate constant. If None, half and one and a half
        times ``nominal``.

    state_names : list of str, default=None
        Species in the order of the states. If None, in order of appearance.

    invariants : list of str or array-like, default=None
        What the reactions conserve: sums such as ``"NO + NO2 + 2 N2O5"``, or rows of
        shape (n_invariants, n_states). If None, a basis of the left null space of the
        stoichiometric matrix.

    scale, observe, param_names, channel_names, units, name, reference : object
        As for :class:`ODESystem`.

    Attributes
    ----------
    reactions : list of str
        The reactions, as given.

    stoichiometry : ndarray of shape (n_states, n_reactions)
        :math:`S`: what each reaction makes of each species, less what it uses up.

    Raises
    ------
    ValueError
        If a reaction cannot be read, names a species that ``state_names`` lacks, or if
        the numbers of rate constants, bounds or initial values do not fit.

    See Also
    --------
    ODESystem : Any other system of equations.

    Examples
    --------
    >>> from sklearn_inverse.systems import ReactionSystem
    >>> system = ReactionSystem(
    ...     ["E + S -> ES", "ES -> E + S", "ES -> E + P"],
    ...     initial_state={"E": 1.0, "S": 5.0},
    ...     times=[0.0, 1.0, 2.0],
    ...     nominal=[2.0, 1.0, 0.5],
    ... )
    >>> system.state_names
    ['E', 'S', 'ES', 'P']
    >>> system.stoichiometry.astype(int)
    array([[-1,  1,  1],
           [-1,  1,  0],
           [ 1, -1, -1],
           [ 0,  0,  1]])

    Enzyme and substrate are conserved, whether free or bound:

    >>> len(system.invariants), bool((system.invariants @ system.stoichiometry).any())
    (2, False)
    """

    def __init__(
        self,
        reactions,
        *,
        initial_state,
        times,
        nominal=None,
        bounds=None,
        state_names=None,
        invariants=None,
        scale="linear",
        observe=None,
        param_names=None,
        channel_names=None,
        units=None,
        name=None,
        reference=None,
    ):
        self.reactions = list(reactions)
        used, made, state_names = read_reactions(self.reactions, state_names)
        self.stoichiometry = made - used
        self._tabulate(used.astype(int))
        super().__init__(
            self.rhs,
            initial_state=_check_initial_state(initial_state, state_names),
            bounds=self._check_rate_constants(nominal, bounds),
            times=times,
            nominal=nominal,
            scale=scale,
            observe=observe,
            state_names=state_names,
            param_names=param_names,
            channel_names=channel_names,
            units=units,
            jac=self.jac,
            name=name or "reactions",
            reference=reference,
            invariants=self._check_invariants(invariants, state_names),
        )

    def rhs(self, t, y, params):
        """Return the rates of change ``S diag(k) m(y)``.

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
        return (params * _products(y, self._reactants)) @ self._net.to(y).T

    def jac(self, t, y, params):
        """Return df/dy in closed form.

        Parameters
        ----------
        t, y, params : Tensor
            As for :meth:`rhs`.

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
            As for :meth:`rhs`.

        Returns
        -------
        jacobian : Tensor of shape (n_samples, n_states, n_params)
            Entry ``[:, i, j]`` is the derivative of rate ``i`` by rate constant ``j``.
        """
        return self._net.to(y) * _products(y, self._reactants)[..., None, :]

    def _tabulate(self, used):
        """Lay out what ``rhs`` and ``jac`` gather, multiply and sum."""
        n_states, n_reactions = used.shape
        reactants = [
            np.repeat(np.arange(n_states), used[:, j]) for j in range(n_reactions)
        ]
        self._reactants = _padded(reactants, fill=n_states)
        self._net = torch.as_tensor(self.stoichiometry)
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

    def _check_rate_constants(self, nominal, bounds):
        """Return the bounds, from ``nominal`` if need be."""
        if nominal is None and bounds is None:
            raise ValueError(
                "`nominal` and `bounds` cannot both be None: give the rate constants, "
                "the bounds between which they lie, or both."
            )
        for what, values in (("nominal", nominal), ("bounds", bounds)):
            n_reactions = len(self.reactions)
            if values is not None and np.shape(values)[:1] != (n_reactions,):
                raise ValueError(
                    f"`{what}` must have one entry per reaction, {n_reactions} in all. "
                    f"Got shape {np.shape(values)} instead."
                )
        return np.outer(nominal, [0.5, 1.5]) if bounds is None else bounds

    def _check_invariants(self, invariants, state_names):
        """Return the invariants as an array, from sums or from the reactions."""
        if invariants is None:
            return left_null_space(self.stoichiometry)
        if not all(isinstance(text, str) for text in invariants):
            return invariants
        where = [f"Invariant {text!r}" for text in invariants]
        return [
            to_row(read_sum(text, w), state_names, w)
            for text, w in zip(invariants, where)
        ]


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


def _check_initial_state(initial_state, state_names):
    if callable(initial_state):
        return initial_state
    if isinstance(initial_state, dict):
        return to_row(initial_state, state_names, "`initial_state`")
    if np.shape(initial_state) != (len(state_names),):
        raise ValueError(
            "`initial_state` must be a dict, a function of the params, or have one "
            f"entry per species, shape ({len(state_names)},). Got shape "
            f"{np.shape(initial_state)} instead."
        )
    return initial_state
