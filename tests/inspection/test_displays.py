"""Residuals, starts and pairs are drawn as they are."""

import numpy as np
import pytest

from sklearn_inverse import ForwardFunction, GradientInverter
from sklearn_inverse.inspection import PairDisplay, ResidualDisplay, StartsDisplay


def test_residuals_are_by_the_noise(inverter, model, observations):
    display = ResidualDisplay.from_estimator(inverter, observations, sample_index=1)
    # k = 2: read were 2.0 of a, where exp(0) = 1, and 0.3 of b, where it is 2 exp(-2).
    expected = [(2.0 - 1.0) / 0.1, (0.3 - 2 * np.exp(-2.0)) / 0.3]
    np.testing.assert_allclose(display.residuals[[0, 2], [0, 1]], expected, rtol=1e-6)
    assert np.isnan(display.residuals).sum() == 6
    assert display.chi_square_ == pytest.approx(np.square(expected).sum())
    assert np.isnan(display.runs_p_value_)
    assert [line.get_label() for line in display.points_] == ["a", "b"]
    shown = display.axes_[1].lines[-1].get_ydata()
    np.testing.assert_allclose(shown, sorted(expected), rtol=1e-6)


def test_noise_given_with_readings_counts(inverter, observations):
    usual = ResidualDisplay.from_estimator(inverter, observations)
    wider = ResidualDisplay.from_estimator(inverter, observations, noise_std=[0.2, 0.6])
    np.testing.assert_allclose(2 * wider.residuals, usual.residuals)


@pytest.mark.parametrize(
    ("pattern", "is_odd"), [("chance", False), ("wave", True), ("zigzag", True)]
)
def test_waves_and_zigzags_are_no_chance(pattern, is_odd):
    t = np.arange(30.0)
    residuals = {
        "chance": np.random.default_rng(0).standard_normal(30),
        "wave": np.sin(t / 5 + 0.1),
        "zigzag": (-1) ** t,
    }[pattern]
    display = ResidualDisplay(residuals=residuals[:, None], times=t).plot()
    assert (display.runs_p_value_ < 0.01) == is_odd


def test_runs_are_as_rare_as_they_are_said_to_be():
    rng, p_values = np.random.default_rng(0), []
    for _ in range(300):
        noise = rng.standard_normal((15, 3))
        display = ResidualDisplay(residuals=noise, times=np.arange(15.0), starts=[0, 7])
        p_values.append(display._runs_test())
    rejected = np.mean(np.array(p_values) < 0.1)
    assert 0.04 < rejected < 0.14


def two_optima(n_starts):
    model = ForwardFunction(
        lambda k: (k - 1) ** 2 + 0.02 * k, {"k": (0.0, 3.0)}, noise=0.01
    )
    return GradientInverter(model, n_starts=n_starts, random_state=0).fit([[0.25]])


def test_starts_end_on_two_steps():
    display = StartsDisplay.from_estimator(two_optima(8), [[0.25]])
    ends = display.points_.get_ydata()
    assert len(ends) == 8
    assert ends[0] == 0
    assert (np.diff(ends) >= 0).all()
    assert display.n_best_ == (ends < 0.05).sum()
    assert "of 8 on the best optimum" in display.ax_.get_title(loc="left")


def test_starts_of_all_chunks_are_known():
    inverter = two_optima("adaptive").set_params(chunk_size=2)
    readings = [[0.25], [0.3], [0.2]]
    together = inverter.posterior(readings)
    assert together.ends.shape == (3, 12)
    alone = inverter.posterior(readings[2:])
    np.testing.assert_array_equal(together[2].ends, alone.ends)


def test_methods_without_starts_have_none(inverter, observations):
    with pytest.raises(ValueError, match="search from several starts"):
        StartsDisplay.from_estimator(inverter, observations)


def test_pairs_show_correlations_and_truth():
    model = ForwardFunction(
        lambda k: k @ k.new_tensor([[1.0, 0.0, 0.0], [1.0, 0.3, 0.0], [0.0, 0.0, 1.0]]),
        {"a": (0, 9), "b": (0, 9), "c": (0, 9)},
        noise=0.3,
    )
    inverter = GradientInverter(model, random_state=0).fit([[8.0, 1.2, 5.0]])
    display = PairDisplay.from_estimator(
        inverter, [[8.0, 1.2, 5.0]], truth=[4.0, 4.0, 5.0], params=["a", "c"]
    )
    assert display.axes_.shape == (2, 2)
    posterior = inverter.posterior([[8.0, 1.2, 5.0]])
    expected = posterior.correlation[0][np.ix_([0, 2], [0, 2])]
    np.testing.assert_allclose(display.correlation_, expected, atol=0.05)
    texts = display.axes_[0, 1].texts
    assert [t.get_text() for t in texts] == [f"{display.correlation_[0, 1]:+.2f}"]
    truth = display.axes_[1, 0].lines[-1]
    assert (*truth.get_xdata(), *truth.get_ydata()) == (4.0, 5.0)
    assert display.axes_[1, 0].get_ylabel() == "c"


def test_an_estimate_has_no_pairs(point_inverter, observations):
    with pytest.raises(ValueError, match="Only a sample with a posterior"):
        PairDisplay.from_estimator(point_inverter, observations)
