"""The Radau IIA coefficients are those of Hairer & Wanner, and a wrong one is refused."""

import dataclasses

import numpy as np
import pytest

from sklearn_inverse.ode._tableau import RADAU5


def test_coefficients_match_the_printed_ones():
    printed = [
        [0.19681548, -0.06553543, 0.02377097],
        [0.39442431, 0.29207341, -0.04154875],
        [0.37640306, 0.51248583, 0.11111111],
    ]
    np.testing.assert_allclose(RADAU5.a, printed, atol=5e-9)
    assert RADAU5.eigen_real == pytest.approx(3.63783425, abs=5e-9)
    assert RADAU5.eigen_complex.real == pytest.approx(2.68108287, abs=5e-9)
    assert abs(RADAU5.eigen_complex.imag) == pytest.approx(3.0504302, abs=5e-8)


def test_a_wrong_coefficient_is_refused():
    wrong = RADAU5.a.copy()
    wrong[0, 1] += 1e-6
    with pytest.raises(AssertionError):
        dataclasses.replace(RADAU5, a=wrong)
