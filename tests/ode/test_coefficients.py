"""What follows from the coefficients agrees with what is printed beside them."""

import numpy as np
import pytest

from sklearn_inverse.ode._coefficients import RADAU5, RADAU5_TRANSFORM, RODAS5P


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
