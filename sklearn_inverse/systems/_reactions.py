"""ReactionSystem: kinetics written as reactions with their rates."""

import ast
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sklearn_inverse.ode import MassAction
from sklearn_inverse.ode._rhs import rowwise_jacobian
from sklearn_inverse.systems._rates import (
    Rates,
    monomials,
    names_in,
    parse_rate,
    plain,
    times_names,
)
from sklearn_inverse.systems._stoichiometry import (
    Reaction,
    left_null_space,
    read_reaction,
    read_reactions,
    read_sum,
    to_row,
)
from sklearn_inverse.systems._system import ODESystem
from sklearn_inverse.systems._vocabulary import brief, meant

__all__ = ["ReactionSystem"]


class ReactionSystem(ODESystem):
    r"""Kinetics :math:`y' = S\,r(y; p)` from reactions and their rates.

    Where rates are mass action, or other polynomials of the species, the system is
    solved by compiled code, far faster than any other.

    Parameters
    ----------
    reactions : dict, list of (str, rate) or list of str
        Reactions such as ``"HO2 + NO -> NO2 + OH"``, ``"HCHO -> 2 HO2 + CO"``, ``"-> A"``
        for a source and ``"A ->"`` for a sink, with their rates; a list where the same
        reaction comes twice. A rate is one of

        - a rate constant: a param's name, a number, or an expression of params, such as
          ``"2*k1"``. Reaction j then runs at this times the product of its reactants, as
          often as their whole coefficients say (2 A: :math:`k A^2`);
        - a law, such as ``"vmax*S/(km + S)"``: an expression that holds a species. It is
          the whole rate.

        Expressions consist of numbers, names, ``+ - * / **``, parentheses, abs, cos, exp,
        log, max, min, sin, sqrt and tanh. A reversible reaction ``"A + B <-> C"`` has a
        pair of rates (forward, backward). A list of reactions alone has the rate
        constants ``k1``, ``k2`` and so on.

    initial : dict
        Species with their values at ``times[0]``: a number, the name of a param, or a
        function of p. All others start at zero.

    params : dict, default=None
        As for :class:`ODESystem`. If None, those that the rates name, each within half
        and one and a half times ``nominal``.

    times : array-like of shape (n_times,), default=None
        Output times, increasing. None where ``experiments`` have theirs.

    nominal : dict, default=None
        As for :class:`ODESystem`. Without ``params``, values of all that the rates name;
        a list will do, in order of appearance.

    species : list of str, default=None
        The states in their order; they may hold more than react. If None, in order of
        appearance.

    invariants : list of str or array-like, default=None
        What the reactions conserve: sums such as ``"NO + NO2 + 2 N2O5"``, or rows of
        shape (n_invariants, n_states). If None, a basis of the left null space of the
        stoichiometric matrix.

    observe, noise, units, name, reference, events, breakpoints : object
        As for :class:`ODESystem`.

    inputs, experiments : object
        As for :class:`ODESystem`. Rates may name inputs that change from experiment to
        experiment, or with time.

    Attributes
    ----------
    reactions : list of str
        The reactions; a reversible one is there in both directions.

    stoichiometry : ndarray of shape (n_states, n_reactions)
        :math:`S`: what each reaction makes of each species, less what it uses up.

    kinetics : MassAction or None
        The same as mass action, for the compiled solver, where the rates are
        polynomials and nothing happens: its params are :meth:`rates`.

    See Also
    --------
    ODESystem : Any other system of equations.

    Notes
    -----
    Of Catalyst and Cantera, ``→``, ``-->``, ``=>``, ``⇌``, ``<-->``, ``<=>`` and ``0`` or
    ``∅`` for nothing are read where they mean the same there as here.

    Examples
    --------
    >>> from sklearn_inverse.systems import ReactionSystem
    >>> system = ReactionSystem(
    ...     {"E + S <-> ES": ("on", "off"), "ES -> E + P": "2*off", "P ->": "v*P/(1 + P)"},
    ...     initial={"E": 1.0, "S": "s0"},
    ...     params={"on": (1, 3), "off": (0.5, 2), "v": 0.1, "s0": (4, 6)},
    ...     times=[0.0, 1.0, 2.0],
    ... )
    >>> system.state_names, system.param_names
    (['E', 'S', 'ES', 'P'], ['on', 'off', 's0'])
    >>> system.stoichiometry.astype(int)
    array([[-1,  1,  1,  0],
           [-1,  1,  0,  0],
           [ 1, -1, -1,  0],
           [ 0,  0,  1, -1]])

    The enzyme is conserved, whether free or bound:

    >>> system.invariants
    array([[1., 0., 1., 0.]])
    """

    _as_params: list[int] | None = None  # the rates, where each of them is a param

    def __init__(
        self,
        reactions: Mapping[str, Any] | Sequence[Any],
        *,
        initial: Mapping[str, Any],
        params: Mapping[Any, Any] | None = None,
        times: Any = None,
        nominal: Any = None,
        species: Sequence[str] | None = None,
        invariants: Any = None,
        observe: Any = None,
        noise: Any = None,
        units: Mapping[str, Any] | None = None,
        name: str | None = None,
        reference: Any = None,
        events: Sequence[Any] = (),
        breakpoints: Sequence[Any] = (),
        inputs: Any = None,
        experiments: Sequence[Any] = (),
    ):
        given = {k: x for k, x in locals().items() if k not in ("self", "__class__")}
        read = [pair for entry in _entries(reactions) for pair in _directions(*entry)]
        self.reactions = [reaction.text for reaction, _ in read]
        used, made, state_names = read_reactions(self.reactions, species)
        if len(set(state_names)) < len(state_names):
            raise ValueError(f"`species` must differ. Got {state_names} instead.")
        self.stoichiometry = made - used
        variables = {plain(s) for s in state_names}
        self._laws = []  # whole rates, rate constants times reactants
        for reaction, rate in read:
            is_law = not variables.isdisjoint(names_in(rate))
            _check_meaning(reaction, is_law)
            self._laws.append(rate if is_law else times_names(rate, reaction.used))
        self._initial = _check_initial(initial, state_names)
        if params is None:
            names = dict.fromkeys(n for _, rate in read for n in names_in(rate))
            known = variables | {plain(name) for name in inputs or ()}
            params, nominal = _around(nominal, [n for n in names if n not in known])
        super().__init__(
            self.rhs,
            states=self._initial,
            params=params,
            times=times,
            observe=observe,
            noise=noise,
            nominal=nominal,
            units=units,
            name=name or "reactions",
            reference=reference,
            invariants=self._check_invariants(invariants),
            events=events,
            breakpoints=breakpoints,
            inputs=inputs,
            experiments=experiments,
        )
        self._given = given

    def rates(self, params: Tensor) -> Tensor:
        """Return rate constants of ``kinetics``, (n_samples, n_rates).

        Initial values that depend on params stand at the end, as rate constants of
        reactions in which nothing takes part. Where rate constants and params are the
        same, this is ``params`` itself.
        """
        if self._as_params == list(range(self.n_params)):
            return params
        if self._as_params is not None:
            return params[:, self._as_params]
        rates = self._rates(params)
        if not self._unknown:
            return rates
        return torch.cat([rates, self.initial_state(params)[:, self._unknown]], dim=1)

    def rates_initial(self, rates: Tensor) -> Tensor:
        """Return states (n_samples, n_states) at the first time, from :meth:`rates`."""
        y0 = rates.new_tensor(self._known).expand(len(rates), -1)
        if not self._unknown:
            return y0
        index = torch.tensor(self._unknown, device=rates.device)
        return y0.index_copy(1, index, rates[:, -len(self._unknown) :])

    def rhs(self, t: Tensor, y: Tensor, params: Tensor) -> Tensor:
        """Return dy/dt (n_samples, n_states) at times (n_samples,), states and params."""
        if self.kinetics is not None:
            return self.kinetics(t, y, self.rates(params))
        return self._infused(self.undisturbed(t, y, params), t, params)

    def undisturbed(self, t: Tensor, y: Tensor, params: Tensor) -> Tensor:
        """Return dy/dt without what is infused."""
        inputs = self.protocol.inputs
        rates = self._rates(y, params[:, : self.n_params], inputs.at(t, params))
        return rates @ y.new_tensor(self.stoichiometry).T

    def jac(self, t: Tensor, y: Tensor, params: Tensor) -> Tensor:
        """Return derivatives of :meth:`rhs` by states, (n_samples, n_states, n_states)."""
        if self.kinetics is not None:
            return self.kinetics.jac(t, y, self.rates(params))
        return rowwise_jacobian(lambda y: self.rhs(t, y, params), y)

    def _check(self) -> None:
        """Make functions of the rates, now that all names are known."""
        inputs = self.protocol.inputs.names
        names = [*self.state_names, *self.param_names, *self.constants, *inputs]
        known = [plain(name) for name in names]
        for reaction, rate in zip(self.reactions, self._laws):
            for name in names_in(rate):
                if name not in known:
                    ask = meant(name, known) or f"known are {brief(known)}."
                    raise ValueError(
                        f"The rate of {reaction!r} names {name!r}, which is neither a "
                        f"species nor a param nor an input; {ask}"
                    )
        starts = self.common_start.sources
        self._unknown = [i for i, x in enumerate(starts) if not isinstance(x, float)]
        self._known = [x if isinstance(x, float) else 0.0 for x in starts]
        groups, rates = [self.state_names, self.param_names, inputs], self._laws
        # Events are functions of the params, which rate constants of `kinetics` are not.
        terms = _as_mass_action(self._laws, self.state_names)
        plain_one = self.protocol.is_plain and not any(self.protocol.initial)
        happens = [self.schedule, *self.protocol.schedules]
        if terms is not None and plain_one and not any(x.events for x in happens):
            column, rates, orders = terms
            silent = np.zeros((self.n_states, len(self._unknown)))
            self.kinetics = MassAction(
                np.hstack([self.stoichiometry[:, column], silent]),
                np.hstack([orders, silent]),
            )
            groups = [self.param_names]
        self._rates = Rates(rates, groups, self.constants)
        column_of = {name: i for i, name in enumerate(self.param_names)}
        places: list[Any] = [
            column_of.get(rate.id) if isinstance(rate, ast.Name) else None
            for rate in rates
        ]
        places += [starts[i] for i in self._unknown]
        if all(isinstance(place, int) for place in places):
            self._as_params = places
        super()._check()

    def _check_invariants(self, invariants: Any) -> Any:
        """Return the invariants as an array, from sums or from the reactions."""
        if invariants is None:
            return left_null_space(self.stoichiometry)
        if not all(isinstance(text, str) for text in invariants):
            return invariants
        return [
            to_row(read_sum(text, where), list(self._initial), where)
            for text in invariants
            for where in [f"Invariant {text!r}"]
        ]


def _entries(reactions: Any) -> list[tuple[str, Any]]:
    """Return reactions with their rates."""
    if isinstance(reactions, Mapping):
        return list(reactions.items())
    entries = list(reactions) if isinstance(reactions, Iterable) else []
    if isinstance(reactions, str) or not entries:
        raise ValueError(
            "`reactions` must be a dict such as {'A -> B': 'k'}, a list of such pairs, "
            f"or a list of reactions, with one at least. Got {reactions!r} instead."
        )
    if all(isinstance(entry, str) for entry in entries):
        names = (f"k{n}" for n in itertools.count(1))
        both = [len(read_reaction(text)) == 2 for text in entries]
        return [
            (text, (next(names), next(names)) if two else next(names))
            for text, two in zip(entries, both)
        ]
    for entry in entries:
        if not (isinstance(entry, (tuple, list)) and len(entry) == 2):
            raise ValueError(
                "Entries of `reactions` must be pairs of a reaction and its rate, or all "
                f"of them reactions alone. Got {entry!r} instead."
            )
    return [(text, rate) for text, rate in entries]


def _directions(text: Any, rate: Any) -> list[tuple[Reaction, ast.expr]]:
    """Read a reaction with its rate, or both directions with theirs."""
    if not isinstance(text, str):
        raise ValueError(f"A reaction must be text such as 'A -> B'. Got {text!r}.")
    found = read_reaction(text)
    rates = list(rate) if isinstance(rate, (tuple, list)) else [rate]
    if len(rates) != len(found):
        want = "one rate" if len(found) == 1 else "a pair of rates (forward, backward)"
        raise ValueError(f"Reaction {text!r} must have {want}. Got {rate!r} instead.")
    where = f"The rate of {text!r}"
    return [(reaction, parse_rate(r, where)) for reaction, r in zip(found, rates)]


def _check_meaning(reaction: Reaction, is_law: bool) -> None:
    """Raise ValueError where a reaction with such a rate can be read in two ways."""
    other = reaction.why_ambiguous(is_law)
    if other:
        kind = "a law" if is_law else "a rate constant"
        raise ValueError(
            f"Reaction {reaction.text!r} has the arrow {reaction.arrow!r} and {kind}: "
            f"{other}. Write '->' or '<->' for what `ReactionSystem` makes of it."
        )
    if not is_law and any(n % 1 for n in reaction.used.values()):
        raise ValueError(
            f"Reaction {reaction.text!r} must have whole coefficients on its left, since "
            "they set the order of the reaction, or a law as its rate."
        )


def _check_initial(initial: Any, species: list[str]) -> dict[str, Any]:
    """Return the initial values of all species."""
    if not isinstance(initial, Mapping):
        raise ValueError(
            "`initial` must be a dict of species and what they start at, such as "
            f"{{{species[0]!r}: 1.0}}. Got {initial!r} instead."
        )
    to_row(dict.fromkeys(initial, 0.0), species, "`initial`")
    return {name: initial.get(name, 0.0) for name in species}


def _around(nominal: Any, names: list[str]) -> tuple[dict[str, Any], dict[str, float]]:
    """Return params within half and one and a half times their nominal values."""
    if nominal is None:
        raise ValueError(
            f"`params` must say what is believed of {names}, as in "
            f"{{{names[0] if names else 'k'!r}: (0.1, 10)}}, or `nominal` give values "
            "around which they lie. Got neither."
        )
    if not isinstance(nominal, Mapping):
        if np.shape(nominal) != (len(names),):
            raise ValueError(
                f"`nominal` must have one value for each of {names}. Got shape "
                f"{np.shape(nominal)} instead."
            )
        nominal = dict(zip(names, nominal))
    params = {k: tuple(sorted((0.5 * v, 1.5 * v))) for k, v in nominal.items()}
    return params, {name: float(value) for name, value in nominal.items()}


def _as_mass_action(
    laws: list[ast.expr], species: list[str]
) -> tuple[list[int], list[ast.expr], np.ndarray] | None:
    """Write the rates as sums of mass-action terms, None where they are no polynomials.

    Each term belongs to the reaction of that column, has this rate constant, and these
    orders in the species.
    """
    names = [plain(name) for name in species]
    polynomials = [monomials(law, set(names)) for law in laws]
    if None in polynomials:
        return None
    terms = [(j, *term) for j, sum_ in enumerate(polynomials) for term in sum_ or []]
    columns, constants, powers = (list(part) for part in zip(*terms))
    orders = [[power[name] for name in names] for power in powers]
    return columns, constants, np.array(orders).T
