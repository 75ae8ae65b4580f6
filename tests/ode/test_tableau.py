"""Every method proves its order at import, and a wrong coefficient is refused."""

import dataclasses

import numpy as np
import pytest

from sklearn_inverse.ode import _tableau
from sklearn_inverse.ode._tableau import (
    RADAU5,
    RADAU5_TRANSFORM,
    RODAS5P,
    TSIT5,
    density,
    rooted_trees,
)

RUNGE_KUTTA = [
    "EULER",
    "RK4",
    "TSIT5",
    "BACKWARD_EULER",
    "TRAPEZOID",
    "RADAU3",
    "RADAU5",
]


def test_number_and_density_of_rooted_trees():
    # Hairer, Nørsett & Wanner I, Table II.2.1.
    assert [len(rooted_trees(n)) for n in range(1, 7)] == [1, 1, 2, 4, 9, 20]
    assert sorted(density(tree) for tree in rooted_trees(4)) == [4, 8, 12, 24]


def test_radau_coefficients_match_the_printed_ones():
    printed = [
        [0.19681548, -0.06553543, 0.02377097],
        [0.39442431, 0.29207341, -0.04154875],
        [0.37640306, 0.51248583, 0.11111111],
    ]
    np.testing.assert_allclose(RADAU5.a, printed, atol=5e-9)
    scheme = RADAU5_TRANSFORM
    assert scheme.eigen_real == pytest.approx(3.63783425, abs=5e-9)
    assert scheme.eigen_complex.real == pytest.approx(2.68108287, abs=5e-9)
    assert abs(scheme.eigen_complex.imag) == pytest.approx(3.0504302, abs=5e-8)


def test_rodas5p_nodes_and_time_weights_match_the_printed_ones():
    c = [0, 0.6358126895828704, 0.4095798393397535, 0.9769306725060716]
    c += [0.4288403609558664, 1, 1, 1]
    d = [0.21193756319429014, -0.42387512638858027, -0.3384627126235924]
    d += [1.8046452872882734, 2.325825639765069, 0, 0, 0]
    np.testing.assert_allclose(RODAS5P.c, c, atol=1e-13)
    np.testing.assert_allclose(RODAS5P.d, d, atol=1e-12)


@pytest.mark.parametrize("name", RUNGE_KUTTA)
def test_a_wrong_coefficient_is_refused(name):
    tableau = getattr(_tableau, name)
    wrong = tableau.a.copy()
    wrong[-1, 0] += 1e-8
    with pytest.raises(AssertionError):
        dataclasses.replace(tableau, a=wrong, b=tableau.b + wrong[-1] - tableau.a[-1])


@pytest.mark.parametrize("field", ["error", "dense"])
def test_wrong_error_estimate_or_dense_output_is_refused(field):
    wrong = getattr(TSIT5, field).copy()
    wrong[..., 2] += 1e-8
    with pytest.raises(AssertionError):
        dataclasses.replace(TSIT5, **{field: wrong})


@pytest.mark.parametrize("field", ["a", "coupling", "h"])
def test_a_wrong_coefficient_of_rodas5p_is_refused(field):
    wrong = getattr(RODAS5P, field).copy()
    wrong[2, 0] += 1e-8
    with pytest.raises(AssertionError):
        dataclasses.replace(RODAS5P, **{field: wrong})


def test_one_step_methods_claim_no_more_than_their_order():
    orders = {name: getattr(_tableau, name).order for name in RUNGE_KUTTA}
    for name, order in orders.items():
        with pytest.raises(AssertionError):
            dataclasses.replace(getattr(_tableau, name), order=order + 1)
