"""Every method proves its order at import, and a wrong coefficient is refused."""

import dataclasses

import pytest

from sklearn_inverse.ode import _coefficients
from sklearn_inverse.ode._coefficients import RODAS5P, TSIT5

RUNGE_KUTTA = [
    "EULER",
    "RK4",
    "TSIT5",
    "BACKWARD_EULER",
    "TRAPEZOID",
    "RADAU3",
    "RADAU5",
]


@pytest.mark.parametrize("name", RUNGE_KUTTA)
def test_a_wrong_coefficient_is_refused(name):
    tableau = getattr(_coefficients, name)
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
    orders = {name: getattr(_coefficients, name).order for name in RUNGE_KUTTA}
    for name, order in orders.items():
        with pytest.raises(AssertionError):
            dataclasses.replace(getattr(_coefficients, name), order=order + 1)
