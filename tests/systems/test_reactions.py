"""Reaction strings become the equations that a chemist would write by hand."""

import numpy as np
import pytest
import torch

from sklearn_inverse.problems import pollu
from sklearn_inverse.systems import ReactionSystem


def reaction_system(reactions, **options):
    """Give every reaction a rate constant, and every species a concentration of one."""
    options.setdefault("nominal", np.arange(1.0, len(reactions) + 1))
    if "initial_state" not in options:
        options["initial_state"] = {}
    return ReactionSystem(reactions, times=[0.0, 1.0], **options)


def evaluate(system, function, y):
    params = torch.as_tensor(system.nominal)[None]
    y = torch.as_tensor(np.array([y], dtype=float))
    return function(torch.zeros(1), y, params)[0].numpy()


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
        evaluate(system, system.rhs.jac_params, y).T[0], expected
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


def test_states_follow_their_names_and_an_inert_species_stays():
    system = reaction_system(
        ["A -> B"], state_names=["B", "N2", "A"], initial_state={"A": 2, "N2": 1}
    )
    assert system.state_names == ["B", "N2", "A"]
    y0 = system.initial_state(torch.ones(1, 1, dtype=torch.float64))
    assert y0.tolist() == [[0.0, 1.0, 2.0]]
    np.testing.assert_array_equal(evaluate(system, system.rhs, [0, 1, 2]), [2, 0, -2])


def test_bounds_default_to_half_around_nominal_and_nominal_to_their_middle():
    np.testing.assert_array_equal(reaction_system(["A -> B"]).bounds, [[0.5, 1.5]])
    system = reaction_system(
        ["A -> B"], nominal=None, bounds=[[1e-2, 1e4]], scale="log10"
    )
    np.testing.assert_allclose(system.nominal, [10.0])


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


@pytest.mark.parametrize(
    ("reactions", "options", "message"),
    [
        (["A => B"], {}, r"Reaction 'A => B' cannot be read.*exactly one '->'"),
        (["A -> B -> C"], {}, "exactly one '->'"),
        (["->"], {}, "A source is '-> A' and a sink 'A ->'"),
        (["A -> B", "A + -> C"], {}, r"Reaction 'A \+ -> C' cannot be read at ''"),
        (["A B -> C"], {}, "cannot be read at 'A B'"),
        (["A -> -1 B"], {}, "cannot be read at '-1 B'"),
        (["0.5 A -> B"], {}, "'0.5 A -> B' must have whole coefficients on its left"),
        (
            ["A -> X"],
            {"state_names": ["A", "B"]},
            r"Reaction 'A -> X' names the species 'X', .* states: \['A', 'B'\]",
        ),
        (["A -> B"], {"initial_state": {"X": 1.0}}, "`initial_state` names .* 'X'"),
        (["A -> B"], {"initial_state": [1.0]}, r"shape \(2,\). Got shape \(1,\)"),
        (["A -> B"], {"invariants": ["A + X"]}, r"Invariant 'A \+ X' names"),
        (["A -> B"], {"nominal": [1.0, 2.0]}, r"`nominal` .* 1 in all.*shape \(2,\)"),
        (["A -> B"], {"nominal": 1.0}, r"`nominal` must have one entry per reaction"),
        (["A -> B"], {"bounds": [[1, 2], [1, 2]]}, "`bounds` must have one entry per"),
        (["A -> B"], {"nominal": None}, "`nominal` and `bounds` cannot both be None"),
        (["A -> B"], {"nominal": [-1.0]}, "lower bound must be below its upper"),
        (["A -> B"], {"state_names": ["A", "B", "A"]}, "3 different names"),
    ],
)
def test_what_is_wrong_is_said(reactions, options, message):
    with pytest.raises(ValueError, match=message):
        reaction_system(reactions, **options)


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
