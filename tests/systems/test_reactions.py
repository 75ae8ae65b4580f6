"""Reactions and rates become the equations that a chemist would write by hand."""

import pickle

import numpy as np
import pytest
import torch

from sklearn_inverse.ode import solve_ivp
from sklearn_inverse.probability import LogUniform
from sklearn_inverse.problems import pollu
from sklearn_inverse.systems import ODESystem, ReactionSystem


def reaction_system(reactions, **options):
    """Give every rate constant of a list one, two, …, and every species zero."""
    if isinstance(reactions, list) and "params" not in options:
        n = sum(2 if "<" in text or "⇌" in text else 1 for text in reactions)
        options.setdefault("nominal", np.arange(1.0, n + 1))
    options.setdefault("initial", {})
    return ReactionSystem(reactions, times=[0.0, 1.0], **options)


def evaluate(system, function, y):
    params = torch.as_tensor(np.array(system.nominal))[None]
    y = torch.as_tensor(np.array([y], dtype=float))
    return function(torch.zeros(1), y, params)[0].detach().numpy()


def drawn(system, n_samples=4):
    return torch.as_tensor(system.prior.draw(n_samples, np.random.RandomState(0)))


def start_at_share(p):
    return p.share * p.total


@pytest.mark.parametrize(
    ("reaction", "stoichiometry", "rate"),
    [
        ("A -> B", [-1, 1], 2.0),
        ("A + B -> C", [-1, -1, 1], 6.0),
        ("2 A -> B", [-2, 1], 4.0),
        ("2A->B", [-2, 1], 4.0),
        ("A + A -> B", [-2, 1], 4.0),
        ("2 A + B -> 3 A", [1, -1], 12.0),
        ("A + E -> B + E", [-1, 0, 1], 6.0),
        ("A -> 0.5 B + 1.25 C", [-1, 0.5, 1.25], 2.0),
        ("-> A", [1], 1.0),
        ("A ->", [-1], 2.0),
        ("O(1D) + CH3' -> α_2", [-1, -1, 1], 6.0),
        ("∅ → A", [1], 1.0),
        ("A --> 0", [-1], 2.0),
    ],
)
def test_one_reaction(reaction, stoichiometry, rate):
    """With concentrations 2, 3, 5 in order of appearance and a rate constant of one."""
    system = reaction_system([reaction])
    np.testing.assert_array_equal(system.stoichiometry[:, 0], stoichiometry)
    y = [2.0, 3.0, 5.0][: system.n_states]
    expected = rate * np.array(stoichiometry)
    np.testing.assert_array_equal(evaluate(system, system.rhs, y), expected)
    np.testing.assert_array_equal(
        evaluate(system, system.kinetics.jac_params, y).T[0], expected
    )


def test_jacobian_of_a_third_order_reaction_beside_a_source_and_a_sink():
    # a' = 1 - 2a + 3a²b - 4a,  b' = 2a - 3a²b
    system = reaction_system(["-> A", "A -> B", "2 A + B -> 3 A", "A ->"])
    jacobian = evaluate(system, system.jac, [5.0, 7.0])
    expected = [[-2 + 6 * 5 * 7 - 4, 3 * 25], [2 - 6 * 5 * 7, -3 * 25]]
    np.testing.assert_array_equal(jacobian, expected)


def test_a_source_alone_has_a_zero_jacobian():
    system = reaction_system(["-> A"])
    np.testing.assert_array_equal(evaluate(system, system.jac, [3.0]), [[0.0]])


def test_states_follow_species_and_an_inert_one_stays():
    system = reaction_system(
        ["A -> B"], species=["B", "N2", "A"], initial={"A": 2, "N2": 1}
    )
    assert system.state_names == ["B", "N2", "A"]
    y0 = system.initial_state(torch.ones(1, 1, dtype=torch.float64))
    assert y0.tolist() == [[0.0, 1.0, 2.0]]
    np.testing.assert_array_equal(evaluate(system, system.rhs, [0, 1, 2]), [2, 0, -2])


def test_params_default_to_half_around_nominal():
    system = reaction_system(["A -> B", "B -> A"], nominal=[1.0, 2.0])
    assert system.param_names == ["k1", "k2"]
    np.testing.assert_array_equal(system.bounds, [[0.5, 1.5], [1.0, 3.0]])
    system = reaction_system({"A -> B": "a*b", "B -> A": 3}, nominal={"b": 4, "a": -1})
    assert dict(zip(system.param_names, system.nominal)) == {"b": 4.0, "a": -1.0}
    np.testing.assert_array_equal(system.bounds, [[2, 6], [-1.5, -0.5]])
    assert system.kinetics is not None


@pytest.mark.parametrize("arrow", ["<->", "⇌", "<=>", "<-->"])
def test_a_reversible_reaction_is_two(arrow):
    system = reaction_system([f"A + B {arrow} C", "-> A"])
    assert system.reactions == ["A + B -> C", "C -> A + B", "-> A"]
    assert system.param_names == ["k1", "k2", "k3"]
    np.testing.assert_array_equal(
        evaluate(system, system.rhs, [2, 3, 5]), [-6 + 10 + 3, -6 + 10, 6 - 10]
    )


def test_rate_constants_may_be_shared_fixed_or_products():
    system = reaction_system(
        [
            ("A -> B", "k"),
            ("A -> B", "k*g"),  # the same reaction, by another road
            ("B <-> C", ("2*k", 7)),
            ("C ->", "exp(-1/g) / k"),
        ],
        params={"k": (1, 3), "g": 3.0},
    )
    assert system.param_names == ["k"]
    a, b, c, k = 2.0, 3.0, 5.0, 2.0
    gone = np.exp(-1 / 3) / k * c
    expected = [
        -4 * k * a,
        4 * k * a - 2 * k * b + 7 * c,
        2 * k * b - 7 * c - gone,
    ]
    np.testing.assert_allclose(evaluate(system, system.rhs, [a, b, c]), expected)
    rates = system.rates(torch.tensor([[k]], dtype=torch.float64))
    np.testing.assert_allclose(rates, [[k, 3 * k, 2 * k, 7, np.exp(-1 / 3) / k]])


def michaelis_menten(**options):
    return reaction_system(
        {"S -> P": "vmax*S/(km + S)", "P <-> Q": ("k", "k*Q*P")},
        initial={"S": 2.0},
        params={"vmax": (1, 3), "km": 0.5, "k": LogUniform(0.1, 10)},
        **options,
    )


def test_a_law_is_the_whole_rate():
    system = michaelis_menten()
    assert system.kinetics is None
    s, p, q = 2.0, 3.0, 5.0
    first, second = 2 * s / (0.5 + s), p - q * p
    np.testing.assert_allclose(
        evaluate(system, system.rhs, [s, p, q]), [-first, first - second, second]
    )
    slope = 2 * 0.5 / (0.5 + s) ** 2
    expected = [[-slope, 0, 0], [slope, q - 1, p], [0, 1 - q, -p]]
    np.testing.assert_allclose(evaluate(system, system.jac, [s, p, q]), expected)


def test_beside_a_law_rate_constants_stay_mass_action():
    system = reaction_system(
        {"2 X' + O(1D) -> B": "k", "B ->": "k*B/(1 + B)"}, params={"k": (1, 3)}
    )
    x, o, b = 3.0, 5.0, 7.0
    made, gone = 2 * x**2 * o, 2 * b / (1 + b)
    np.testing.assert_allclose(
        evaluate(system, system.rhs, [x, o, b]), [-2 * made, -made, made - gone]
    )


def saturation(t, y, p):
    first = p.vmax * y.S / (p.km + y.S)
    second = p.k * y.P - p.k * y.Q * y.P
    return -first, first - second, second


def test_laws_and_functions_give_the_same_trajectories():
    system = michaelis_menten()
    by_function = ODESystem(
        saturation,
        states={"S": 2.0, "P": 0.0, "Q": 0.0},
        params={"vmax": (1, 3), "km": 0.5, "k": LogUniform(0.1, 10)},
        times=[0.0, 1.0],
    )
    params = drawn(system)
    first, second = (
        solve_ivp(s.rhs, s.times, s.initial_state, params, rtol=1e-9, jac=s.jac).y
        for s in (system, by_function)
    )
    torch.testing.assert_close(first, second, rtol=1e-7, atol=1e-12)


def growth(births="-> N", rate="r*N*(1 - N/K)", **deaths):
    """Logistic growth, said by a law or by reactions, with unknown beginnings."""
    return reaction_system(
        {births: rate, "M ->": "r"} | deaths,
        initial={"N": start_at_share, "M": "total"},
        params={"total": (1, 2), "share": (0.1, 0.4), "r": (1, 3), "K": (2, 4)},
        species=["N", "M"],
    )


def test_polynomial_laws_are_mass_action():
    system = growth()
    by_reactions = growth("N -> 2 N", "r", **{"2 N -> N": "r/K"})
    params = drawn(system)
    trajectories = [
        solve_ivp(s.kinetics, s.times, s.rates_initial, s.rates(params), rtol=1e-9).y
        for s in (system, by_reactions)
    ]
    torch.testing.assert_close(*trajectories, rtol=1e-7, atol=0)
    n, m = 0.3, 2.0
    r, K = system.nominal[2:]
    np.testing.assert_allclose(
        evaluate(system, system.rhs, [n, m]), [r * n * (1 - n / K), -r * m]
    )


def test_sensitivities_by_rates_chain_to_those_by_params():
    """Whether by the rates of the compiled solver or by the right-hand side itself."""
    system = growth()
    params = drawn(system)
    rates = system.rates(params)
    assert rates.shape == (4, 3 + 2)  # three terms, two unknown beginnings
    torch.testing.assert_close(
        system.rates_initial(rates), system.initial_state(params)
    )
    options = {"rtol": 1e-10, "sensitivities": True}
    by_rates = solve_ivp(
        system.kinetics, system.times, system.rates_initial, rates, **options
    ).sensitivities
    chain = torch.func.vmap(torch.func.jacrev(lambda p: system.rates(p[None])[0]))
    by_params = solve_ivp(
        system.rhs,
        system.times,
        system.initial_state,
        params,
        jac=system.jac,
        **options,
    ).sensitivities
    torch.testing.assert_close(
        by_rates @ chain(params)[:, None], by_params, rtol=1e-6, atol=1e-8
    )


def test_params_that_are_the_rates_are_handed_on():
    system = reaction_system(
        {"A -> 2 A": "k"}, initial={"A": "A0"}, params={"k": (1, 2), "A0": (3, 4)}
    )
    params = drawn(system)
    assert system.rates(params) is params
    assert system.rates_initial(params).tolist() == params[:, 1:].tolist()


@pytest.mark.parametrize("make", [growth, michaelis_menten])
def test_a_pickled_system_computes_the_same(make):
    system = make()
    twin = pickle.loads(pickle.dumps(system))
    y, params = torch.rand(4, system.n_states).double(), drawn(system)
    t = torch.zeros(4)
    assert torch.equal(twin.rhs(t, y, params), system.rhs(t, y, params))
    assert (twin.kinetics is None) == (system.kinetics is None)


def test_invariants_span_all_that_is_conserved():
    system = reaction_system(["2 A -> B", "B -> 2 A", "C + B -> 3 D"])
    null_space = system.invariants
    assert np.linalg.matrix_rank(null_space) == 4 - 2
    np.testing.assert_array_equal(null_space @ system.stoichiometry, 0.0)
    assert reaction_system(["-> A", "A -> B"]).invariants.shape == (0, 2)


def test_invariants_may_be_given_as_sums_or_as_rows():
    by_sum = reaction_system(["2 A -> B"], invariants=["A + 2 B"])
    by_row = reaction_system(["2 A -> B"], invariants=[[1, 2]])
    np.testing.assert_array_equal(by_sum.invariants, [[1, 2]])
    np.testing.assert_array_equal(by_row.invariants, [[1, 2]])


K = {"k": (1, 2)}


@pytest.mark.parametrize(
    ("reactions", "options", "message"),
    [
        (["A -> B -> C"], {}, "exactly one '->'"),
        (["->"], {}, "A source is '-> A' and a sink 'A ->'"),
        (["0 -> ∅"], {}, "cannot be read: it must look like"),
        (["A -> B", "A + -> C"], {}, r"Reaction 'A \+ -> C' cannot be read at ''"),
        (["A B -> C"], {}, "cannot be read at 'A B'"),
        (["A -> -1 B"], {}, "cannot be read at '-1 B'"),
        (["0 A -> B"], {}, "cannot be read at '0 A'"),
        (["k1, A -> B"], {}, "'k1, A'.*Rates stand beside their reaction, not in it"),
        (["A = B"], {}, "the arrow '=', which is not read: write '->', or '<->'"),
        (["A <- B"], {}, "the arrow '<-'"),
        (["A ⇄ B"], {}, "the arrow '⇄'"),
        (
            ["H + O2 (+M) -> HO2 (+M)"],
            {},
            "third body with a falloff, which is not read",
        ),
        (["0.5 A -> B"], {}, "'0.5 A -> B' must have whole coefficients on its left"),
        (
            ["A => B"],
            {},
            "'=>' and a rate constant: mass action in Cantera, and in Cata",
        ),
        (["2 A --> B"], {}, "'-->' and a rate constant: in Catalyst a rate divided by"),
        ({"A --> B": "k*A/(1 + A)"}, {"params": K}, "'-->' and a law: in Catalyst"),
        (["A -> X"], {"species": ["A", "B"]}, r"names the species 'X', .*\['A', 'B'\]"),
        (["A -> B"], {"species": ["A", "B", "A"]}, "`species` must differ"),
        (["A -> B"], {"initial": {"X": 1.0}}, "`initial` names .* 'X'"),
        (["A -> B"], {"initial": [1.0]}, r"`initial` must be a dict .*Got \[1.0\]"),
        (["A -> B"], {"invariants": ["A + X"]}, r"Invariant 'A \+ X' names"),
        (["A -> B"], {"nominal": [1.0, 2.0]}, r"each of \['k1'\]. Got shape \(2,\)"),
        (["A -> B"], {"nominal": None}, r"`params` must say what .*\['k1'\].*neither"),
        ([], {}, r"with one at least. Got \[\]"),
        ("A -> B", {}, "`reactions` must be a dict such as"),
        (["A -> B", ("B -> A", "k")], {"params": K}, "or all of them reactions alone"),
        ({"A <-> B": "k"}, {"params": K}, r"a pair of rates \(forward, backward\)"),
        ({"A -> B": ("k", "k")}, {"params": K}, "'A -> B' must have one rate"),
        ({"A -> B": "l"}, {"params": K}, "names 'l', which is neither a species nor"),
        ({"A -> B": "kk"}, {"params": K}, "did you mean 'k'"),
        ({"A -> B": "k^2"}, {"params": K}, r"The rate of 'A -> B' uses '\^'"),
        ({"A -> B": "np.exp(k)"}, {"params": K}, "The rate of 'A -> B' holds 'np.exp"),
        ({"A -> B": None}, {"params": K}, "The rate of 'A -> B' must be a number"),
        ({1: "k"}, {"params": K}, "A reaction must be text such as 'A -> B'. Got 1"),
        ({"A -> B": "k"}, {"params": {"A": (0, 1), "k": (1, 2)}}, "different names"),
    ],
)
def test_what_is_wrong_is_said(reactions, options, message):
    with pytest.raises(ValueError, match=message):
        reaction_system(reactions, **options)


def test_arrows_of_catalyst_and_cantera_are_read_where_both_mean_the_same():
    system = reaction_system(
        [
            ("A => B", "k*A/(1 + A)"),
            ("=> A", "k"),
            ("A --> B", "k"),
            ("A <=> B", (1, 2)),
        ],
        params=K,
    )
    assert system.n_states == 2
    assert len(system.reactions) == 5


def pollu_by_hand(k, y):
    """POLLU's twenty equations, written out; ``k`` and ``y`` count from one."""
    r = np.zeros(26)
    r[1] = k[1] * y[1]
    r[2] = k[2] * y[2] * y[4]
    r[3] = k[3] * y[5] * y[2]
    r[4] = k[4] * y[7]
    r[5] = k[5] * y[7]
    r[6] = k[6] * y[7] * y[6]
    r[7] = k[7] * y[9]
    r[8] = k[8] * y[9] * y[6]
    r[9] = k[9] * y[11] * y[2]
    r[10] = k[10] * y[11] * y[1]
    r[11] = k[11] * y[13]
    r[12] = k[12] * y[10] * y[2]
    r[13] = k[13] * y[14]
    r[14] = k[14] * y[1] * y[6]
    r[15] = k[15] * y[3]
    r[16] = k[16] * y[4]
    r[17] = k[17] * y[4]
    r[18] = k[18] * y[16]
    r[19] = k[19] * y[16]
    r[20] = k[20] * y[17] * y[6]
    r[21] = k[21] * y[19]
    r[22] = k[22] * y[19]
    r[23] = k[23] * y[1] * y[4]
    r[24] = k[24] * y[19] * y[1]
    r[25] = k[25] * y[20]
    gains = r[2] + r[3] + r[9] + r[11] + r[12] + r[22] + r[25]
    return [
        gains - r[1] - r[10] - r[14] - r[23] - r[24],
        -r[2] - r[3] - r[9] - r[12] + r[1] + r[21],
        -r[15] + r[1] + r[17] + r[19] + r[22],
        -r[2] - r[16] - r[17] - r[23] + r[15],
        -r[3] + 2 * r[4] + r[6] + r[7] + r[13] + r[20],
        -r[6] - r[8] - r[14] - r[20] + r[3] + 2 * r[18],
        -r[4] - r[5] - r[6] + r[13],
        r[4] + r[5] + r[6] + r[7],
        -r[7] - r[8],
        -r[12] + r[7] + r[9],
        -r[9] - r[10] + r[8] + r[11],
        r[9],
        -r[11] + r[10],
        -r[13] + r[12],
        r[14],
        -r[18] - r[19] + r[16],
        -r[20],
        r[20],
        -r[21] - r[22] - r[24] + r[23] + r[25],
        -r[25] + r[24],
    ]


def test_pollu_is_the_published_system():
    rng = np.random.default_rng(0)
    system = pollu()
    y = rng.uniform(size=20)
    expected = pollu_by_hand(np.r_[np.nan, system.nominal], np.r_[np.nan, y])
    np.testing.assert_allclose(evaluate(system, system.rhs, y), expected, rtol=1e-12)
    assert np.linalg.matrix_rank(system.stoichiometry) == 17
    assert np.linalg.matrix_rank(system.invariants) == 20 - 17
    y0 = system.initial_state(torch.ones(1, 25, dtype=torch.float64))[0].numpy()
    # Nitrogen, sulphur and carbon in the air at the start, in ppm.
    np.testing.assert_allclose(system.invariants @ y0, [0.2, 0.007, 0.42], rtol=1e-14)
