"""Coverage counts the truths inside their intervals; normal intervals hold theirs."""

import numpy as np
import pytest

from sklearn_inverse.metrics import interval_coverage, normal_interval


def test_coverage_is_the_fraction_inside_ends_included():
    true = np.array([[0.0, 0.0], [1.0, 2.0], [5.0, -1.0]])
    lower, upper = np.zeros((3, 2)), np.ones((3, 2))
    per_param = interval_coverage(true, lower, upper, multioutput="raw_values")
    np.testing.assert_allclose(per_param, [2 / 3, 1 / 3])
    assert interval_coverage(true, lower, upper) == pytest.approx(0.5)
    assert interval_coverage(true[:, 0], lower[:, 0], upper[:, 0]) == per_param[0]


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_normal_intervals_cover_at_their_level(level):
    rng = np.random.default_rng(0)
    mean, std = rng.normal(size=(2, 20_000))
    std = np.abs(std)
    lower, upper = normal_interval(mean, std, level=level)
    coverage = interval_coverage(rng.normal(mean, std), lower, upper)
    assert coverage == pytest.approx(level, abs=4 * np.sqrt(level * (1 - level) / 2e4))


@pytest.mark.parametrize(
    ("lower", "upper", "message"),
    [
        ([2.0], [1.0], r"Got \[2, 1\] for param 0 of sample 0"),
        ([np.nan], [1.0], "`lower` must be finite. Got NaN or infinity in 1 of 1"),
        ([0.0], [1.0, 2.0], r"`upper` must have the shape of `true`"),
    ],
)
def test_wrong_intervals_are_refused(lower, upper, message):
    with pytest.raises(ValueError, match=message):
        interval_coverage([0.5], lower, upper)


@pytest.mark.parametrize(
    ("mean", "std", "level", "message"),
    [
        ([0.0], [1.0], 90, "between 0 and 1. Got 90"),
        ([0.0], [-1.0], 0.9, "`std` must be >= 0. Got -1.0"),
        ([0.0], [1.0, 1.0], 0.9, r"same shape. Got \(1,\) and \(2,\)"),
    ],
)
def test_wrong_normal_intervals_are_refused(mean, std, level, message):
    with pytest.raises(ValueError, match=message):
        normal_interval(mean, std, level=level)
