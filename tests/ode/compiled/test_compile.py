"""The same reactions are compiled once, and other ones are not taken for them."""

import numpy as np
import pytest

from sklearn_inverse.ode import MassAction
from sklearn_inverse.ode.compiled import compile_mass_action

pytest.importorskip("numba")


def test_reactions_are_compiled_once_however_often_they_are_copied():
    kernel = compile_mass_action([[-1.0], [1.0]], [[1], [0]])
    assert compile_mass_action(np.array([[-1], [1]]), np.array([[1.0], [0]])) is kernel
    assert MassAction([[-1.0], [1.0]], [[1], [0]]).kernel() is kernel
    # The same numbers, as one state in two reactions.
    assert compile_mass_action([[-1.0, 1.0]], [[1, 0]]) is not kernel
