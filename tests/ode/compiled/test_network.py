"""Elimination knows where the factors fill in, and fills in little."""

import numpy as np
import pytest

pytest.importorskip("numba")

from sklearn_inverse.ode.compiled._network import Network, eliminate


def test_factors_are_zero_where_they_are_said_to_be():
    rng = np.random.default_rng(0)
    for n in (1, 2, 7, 20):
        pattern = (rng.random((n, n)) < 0.2) | np.eye(n, dtype=bool)
        order, filled = eliminate(pattern)
        assert sorted(order) == list(range(n))
        factors = (pattern * rng.uniform(0.1, 1, (n, n)) + n * np.eye(n))[order][
            :, order
        ]
        assert filled[factors != 0].all()
        for p in range(n):
            factors[p + 1 :, p] /= factors[p, p]
            rest = factors[p + 1 :, p + 1 :]
            rest -= np.outer(factors[p + 1 :, p], factors[p, p + 1 :])
        assert (factors[~filled] == 0).all()


def test_an_arrow_does_not_fill_in():
    arrow = np.eye(6, dtype=bool)
    arrow[0] = arrow[:, 0] = True
    order, filled = eliminate(arrow)
    assert filled.sum() == arrow.sum()
    assert order[-1] == 0 or order[-2] == 0


def test_rows_follow_each_other_without_overlap():
    # 2 A -> B, B -> 2 A
    network = Network(np.array([[-2.0, 2], [1, -1]]), np.array([[2, 0], [0, 1]]))
    rows = network.lay_out()
    starts = rows[4:]
    assert list(starts) == sorted(starts)
    assert rows.n_states == rows.n_reactions == 2
    assert rows.f - rows.y == 2
    assert rows.n_slopes == 3  # A twice, B once
    assert rows.n_curves == 2  # only those of A depend on a state
