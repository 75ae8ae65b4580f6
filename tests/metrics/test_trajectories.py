"""Trajectory errors are in units of each observable's spread, over what was measured."""

import numpy as np
import pytest

from sklearn_inverse.metrics import trajectory_mae, trajectory_mse


@pytest.fixture
def true():
    rng = np.random.default_rng(0)
    return rng.normal(size=(5, 7, 2)) * [1.0, 1e-18] + [3.0, 1e-18]


def test_a_channel_mean_scores_one_whatever_the_magnitude(true):
    mean = np.broadcast_to(true.mean(axis=(0, 1)), true.shape)
    errors = trajectory_mse(true, mean, multioutput="raw_values")
    np.testing.assert_allclose(errors, [1.0, 1.0])


def test_agrees_with_the_formula(true):
    predicted = 1.1 * true
    expected = np.abs(0.1 * true / true.std(axis=(0, 1))).mean(axis=(0, 1))
    mae = trajectory_mae(true, predicted, multioutput="raw_values")
    np.testing.assert_allclose(mae, expected)
    assert trajectory_mae(true, predicted) == pytest.approx(expected.mean())


def test_the_std_of_other_data_can_be_the_unit(true):
    shifted = true + np.array([1.0, 1e-18])
    errors = trajectory_mse(
        true, shifted, observable_std=[2.0, 1e-18], multioutput="raw_values"
    )
    np.testing.assert_allclose(errors, [0.25, 1.0])


def test_what_was_not_measured_does_not_count(true):
    predicted = true + 1.0
    predicted[0, 0] = 1e6
    true[0, 0] = np.nan
    measured = trajectory_mse(true, predicted, observable_std=[1.0, 1.0])
    assert measured == pytest.approx(1.0)


def test_a_channel_never_measured_is_nan_and_stays_out_of_the_average(true):
    true[..., 1] = np.nan
    predicted = np.nan_to_num(true)
    errors = trajectory_mse(true, predicted, multioutput="raw_values")
    assert errors[0] == 0.0
    assert np.isnan(errors[1])
    assert trajectory_mse(true, predicted) == 0.0


def test_a_constant_channel_is_measured_in_its_magnitude():
    true = np.full((2, 3, 1), 1e-18)
    assert trajectory_mae(true, 1.5 * true) == pytest.approx(0.5)


def test_a_failed_sample_does_not_pass_silently(true):
    predicted = true.copy()
    predicted[3, 2:] = np.nan
    with pytest.raises(ValueError, match="in 1 of 5 samples, the first at sample 3"):
        trajectory_mse(true, predicted)


@pytest.mark.parametrize(
    ("change", "kwargs", "message"),
    [
        (
            lambda a: a[0],
            {},
            r"\(n_samples, n_times, n_channels\).* Got shape \(7, 2\)",
        ),
        (lambda a: a * np.inf, {}, "Got 70 infinite"),
        (lambda a: a * np.nan, {}, "at least one measured value"),
        (lambda a: a, {"observable_std": [1.0]}, r"per observable, shape \(2,\)"),
        (lambda a: a, {"observable_std": [1.0, 0.0]}, "one positive, finite value"),
        (lambda a: a, {"multioutput": "sum"}, "`multioutput` must be one of"),
    ],
)
def test_wrong_input_is_refused(true, change, kwargs, message):
    with pytest.raises(ValueError, match=message):
        trajectory_mse(change(true), true, **kwargs)
