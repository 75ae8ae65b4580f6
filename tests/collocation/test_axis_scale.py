"""A coordinate goes to [0, 1] and back, and its rate is its derivative."""

import numpy as np
import pytest

from sklearn_inverse.collocation._axis_scale import AxisScale


@pytest.mark.parametrize("kind", ["linear", "log"])
def test_there_and_back(kind):
    scale = AxisScale(np.array([2.0, 3.0, 60.0]), kind, onset=1e-4)
    tau = np.linspace(0, 1, 11)
    t = scale.to_value(tau)
    assert t[0] == 2.0
    assert (t[1] < 2.001) == (kind == "log")
    np.testing.assert_allclose(scale.to_unit(t), tau, atol=1e-12)
    slope = (scale.to_unit(t * (1 + 1e-7)) - scale.to_unit(t)) / (t * 1e-7)
    np.testing.assert_allclose(scale.rate(t)[3:], slope[3:], rtol=1e-3)
