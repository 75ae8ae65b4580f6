"""Elimination knows where the factors fill in, and fills in little."""

import numpy as np
import pytest

pytest.importorskip("numba")

from sklearn_inverse.ode.compiled import Graph
from sklearn_inverse.ode.compiled._compile import mass_action
from sklearn_inverse.ode.compiled._model import Model, eliminate


def test_factors_are_zero_where_they_are_said_to_be():
    rng = np.random.default_rng(0)
    for n in (1, 2, 7, 20):
        pattern = (rng.random((n, n)) < 0.2) | np.eye(n, dtype=bool)
        order, places = eliminate([np.flatnonzero(row).tolist() for row in pattern])
        filled = np.zeros((n, n), dtype=bool)
        filled[tuple(np.transpose(places))] = True
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
    order, filled = eliminate([range(6), *([0] for _ in range(5))])
    assert len(filled) == 6 + 2 * 5
    assert order[-1] == 0 or order[-2] == 0


def test_rows_follow_each_other_without_overlap():
    # 2 A -> B, B -> 2 A
    graph = Graph()
    effects, orders = np.array([[-2.0, 2], [1, -1]]), np.array([[2, 0], [0, 1]])
    model = Model(graph, mass_action(graph, effects, orders), n_params=2)
    rows = model.lay_out(with_tangents=True)
    starts = rows[6:]
    assert list(starts) == sorted(starts)
    assert rows.n_states == rows.n_params == 2
    assert rows.peak - rows.y == 2
    assert rows.n_slopes == 4  # either by either
    assert rows.n_curves == 2  # only those by A depend on a state
    assert rows.n_sources == 4
    assert model.lay_out(with_tangents=False).n_curves == 0
