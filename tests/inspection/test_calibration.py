"""The picture shows what the metrics say."""

import numpy as np
import pytest

from sklearn_inverse import GradientInverter, ODESystem
from sklearn_inverse.datasets import make_inverse_problem
from sklearn_inverse.inspection import CalibrationDisplay
from sklearn_inverse.metrics import expected_coverage


def normal(scale, n_samples=300):
    rng = np.random.default_rng(0)
    truths = rng.standard_normal((n_samples, 2))
    return scale * rng.standard_normal((n_samples, 99, 2)), truths


def test_narrow_posteriors_hang_below_the_diagonal():
    draws, truths = normal(0.7)
    display = CalibrationDisplay.from_draws(draws, truths, param_names=["a", "b"])
    labels = [line.get_label() for line in display.coverage_]
    assert labels == ["a", "b", "all together"]
    for line in display.coverage_:
        level, coverage = line.get_data()
        assert (coverage[8:33] < level[8:33]).all()
    level, coverage = display.coverage_[1].get_data()
    np.testing.assert_array_equal(
        coverage, expected_coverage(draws, truths, level)[:, 1]
    )
    density = display.ranks_[0].get_data().values
    assert density[0] > 1.5
    assert density[-1] > 1.5
    assert display.p_value_ < 1e-3


def test_right_posteriors_pass():
    display = CalibrationDisplay.from_draws(*normal(1.0))
    assert display.p_value_ > 0.01
    assert [text.get_text() for text in display.legend_.get_texts()][:2] == ["k1", "k2"]
    assert display.ranks_[0].get_data().values.mean() == pytest.approx(1.0)


@pytest.mark.filterwarnings("ignore::sklearn_inverse.exceptions.BoundsWarning")
@pytest.mark.filterwarnings("ignore::sklearn_inverse.exceptions.MisfitWarning")
def test_an_exact_inverter_is_calibrated():
    system = ODESystem(
        lambda t, y, p: [-p.rate * y.amount],
        states={"amount": "start"},
        params={"rate": (0.1, 3.0), "start": (0.5, 2.0)},
        times=np.linspace(0.2, 2, 6),
        noise=0.02,
    )
    pairs = make_inverse_problem(system, 200, noisy=True, random_state=0)
    inverter = GradientInverter(system, n_starts=1, random_state=0)
    inverter.fit(pairs.observations)
    display = CalibrationDisplay.from_estimator(
        inverter, pairs.observations, pairs.params
    )
    assert display.p_value_ > 0.01
    assert display.coverage_[0].get_label() == "rate"
