"""ReactionSystem: mass-action kinetics written as reaction strings."""

import numpy as np

from sklearn_inverse.ode import MassAction
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

    Reaction :math:`j` runs at the rate :math:`k_j m_j(y)`, where :math:`m_j` is the
    product of its reactants' concentrations. The params are the rate constants, one per
    reaction and in their order.

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
        mass_action = MassAction(self.stoichiometry, used)
        super().__init__(
            mass_action,
            jac=mass_action.jac,
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
            name=name or "reactions",
            reference=reference,
            invariants=self._check_invariants(invariants, state_names),
        )

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
