"""Bad input is refused in one place, with what must hold, what came, what to do."""

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator

from sklearn_inverse.utils._validation import (
    check_bounds,
    check_n_observed,
    check_noise_std,
    check_observations,
    check_params,
    check_scale,
    check_times,
    to_trajectories,
)


class Estimator(BaseEstimator):
    """Something that can take n_features_in_."""


def check(observations, **kwargs):
    return check_observations(Estimator(), observations, reset=True, **kwargs)


def test_two_dimensions_are_read_time_major():
    trajectories = check([[0.0, 10.0, 1.0, 11.0]], n_channels=2)
    np.testing.assert_array_equal(trajectories, [[[0, 10], [1, 11]]])


def test_three_dimensions_are_flattened_at_the_door():
    observations = np.arange(12.0).reshape(2, 3, 2)
    estimator = Estimator()
    trajectories = check_observations(estimator, observations, reset=True)
    np.testing.assert_array_equal(trajectories, observations)
    assert estimator.n_features_in_ == 6
    flat = check_observations(estimator, observations.reshape(2, 6), n_channels=2)
    np.testing.assert_array_equal(flat, observations)


def test_lists_single_precision_and_integers_become_double():
    for observations in ([[1, 2]], np.ones((1, 2), np.float32), np.ones((1, 2), int)):
        assert check(observations).dtype == np.float64


def test_input_is_neither_changed_nor_needed_later():
    observations = np.array([[1.0, np.nan]])
    trajectories = check(observations)
    np.testing.assert_array_equal(observations, [[1.0, np.nan]])
    np.testing.assert_array_equal(trajectories[..., 0], observations)


def test_columns_are_put_in_order_by_their_names_or_refused(frame):
    params = frame({"k2": [2.0], "k1": [1.0]})
    for names, expected in ((["k1", "k2"], [[1.0, 2.0]]), (["k3", "k4"], [[2.0, 1.0]])):
        np.testing.assert_array_equal(check_params(params, names=names), expected)
    with pytest.raises(ValueError, match=r"model's params \['a', 'b'\]. Got \['k2'"):
        check_params(params, names=["a", "b"])
    reversed_view = check_params(np.arange(6.0).reshape(3, 2)[:, ::-1])
    assert torch.as_tensor(reversed_view).tolist() == [[1, 0], [3, 2], [5, 4]]


@pytest.mark.parametrize(
    ("observations", "kwargs", "message"),
    [
        (
            np.ones((2, 3, 2)),
            {"n_channels": 3},
            r"must have n_channels=3 entries on the",
        ),
        (np.ones((2, 5)), {"n_channels": 2}, r"a multiple of n_channels=2. Got 5 col"),
        (
            [[1.0, 2.0], [np.nan, np.nan]],
            {},
            r"NaN in 1 sample\(s\), the first at row 1",
        ),
        ([[1.0, np.inf]], {}, "Input X contains infinity"),
        ([[1.0, -np.inf]], {}, "Input X contains infinity"),
        ([[1.0, 1j]], {}, "Complex data not supported"),
        (np.ones((1, 2, 1)) * 1j, {}, "Complex data not supported"),
        ([["a", "b"]], {}, "could not convert string to float"),
        ([1.0, 2.0], {}, "Expected 2D array, got 1D array instead"),
        (3.0, {}, "Expected 2D array, got scalar array instead"),
        (np.ones((1, 2, 3, 4)), {}, "Found array with dim 4"),
        (np.ones((0, 2)), {}, r"Found array with 0 sample\(s\)"),
        (np.ones((1, 2)), {"ensure_min_samples": 2}, "a minimum of 2 is required"),
    ],
)
def test_bad_observations_are_refused(observations, kwargs, message):
    with pytest.raises(ValueError, match=message):
        check(observations, **kwargs)


def test_columns_that_are_no_multiple_of_channels_are_refused():
    with pytest.raises(ValueError, match="Got 3 columns instead"):
        to_trajectories(np.ones((1, 3)), n_channels=2)


def test_observations_must_agree_with_those_of_the_fit():
    estimator = Estimator()
    check_observations(estimator, np.ones((2, 4)), reset=True)
    with pytest.raises(
        ValueError, match="X has 3 features, but Estimator is expecting 4"
    ):
        check_observations(estimator, np.ones((2, 3)))


def test_one_dimensional_params_are_a_column():
    np.testing.assert_array_equal(check_params([1, 2]), [[1.0], [2.0]])


@pytest.mark.parametrize(
    ("params", "kwargs", "message"),
    [
        (None, {}, "requires y to be passed, but the target y is None"),
        ([[1.0, np.nan]], {}, "Input params contains NaN"),
        ([[np.inf]], {}, "Input params contains infinity"),
        ([["a"]], {}, "could not convert string to float"),
        ([[1j]], {}, "Complex data not supported"),
        ([[1.0]], {"n_samples": 2}, "same number of samples. Got 2 and 1"),
        ([[1.0]], {"n_params": 2}, r"with n_params=2. Got \(1, 1\) instead"),
    ],
)
def test_bad_params_are_refused(params, kwargs, message):
    with pytest.raises(ValueError, match=message):
        check_params(params, **kwargs)


@pytest.mark.parametrize(
    ("bounds", "kwargs", "message"),
    [
        ([0.0, 1.0], {}, r"= \(n_params, 2\): one .* Got shape \(2,\) instead"),
        (
            [[0.0, 1.0]],
            {"n_params": 2},
            r"= \(2, 2\): one .* Got shape \(1, 2\) instead",
        ),
        ([[0.0, 1.0, 2.0]], {}, r"Got shape \(1, 3\) instead"),
        ([[0.0, np.inf]], {}, "`bounds` must be finite"),
        ([[np.nan, 1.0]], {}, "`bounds` must be finite"),
        (
            [[0.0, 1.0], [2.0, 1.0]],
            {},
            r"lower bound must be below .* \[2. 1.\] for param",
        ),
        ([[1.0, 1.0]], {}, "lower bound must be below its upper bound"),
        ([[0.0, 1.0]], {"scale": "log10"}, "log10 scale must have positive bounds"),
        (
            [[0.0, 1.0], [-1.0, 1.0]],
            {"scale": ["linear", "log10"]},
            r"Got \[-1.  1.\] for param 1",
        ),
    ],
)
def test_bad_bounds_are_refused(bounds, kwargs, message):
    with pytest.raises(ValueError, match=message):
        check_bounds(bounds, **kwargs)


@pytest.mark.parametrize("scale", ["cubic", ["linear"], ["linear", "log2"], [1, 2]])
def test_unknown_scales_are_refused(scale):
    with pytest.raises(ValueError, match="'linear', 'log10', or a list of 2 of them"):
        check_scale(scale, n_params=2)


@pytest.mark.parametrize(
    ("times", "kwargs", "message"),
    [
        ([[0.0, 1.0]], {}, r"must have shape \(n_times,\). Got shape \(1, 2\)"),
        ([], {}, r"Got shape \(0,\) instead"),
        ([0.0, 1.0], {"n_times": 3}, r"must have shape \(3,\). Got shape \(2,\)"),
        ([0.0, 0.0], {}, "strictly increasing"),
        ([1.0, 0.0], {}, "strictly increasing"),
        ([0.0, np.nan], {}, "finite and strictly increasing"),
        ([0.0, np.inf], {}, "finite and strictly increasing"),
    ],
)
def test_bad_times_are_refused(times, kwargs, message):
    with pytest.raises(ValueError, match=message):
        check_times(times, **kwargs)


SHAPE = (2, 3, 4)  # samples, times, channels


@pytest.mark.parametrize(
    "noise_std",
    [
        None,
        0,
        0.1,
        [0.1],
        np.ones(4),
        np.ones((3, 4)),
        np.ones(SHAPE),
        np.ones((2, 12)),
    ],
)
def test_noise_broadcasts_to_the_observations(noise_std):
    noise = check_noise_std(noise_std, shape=SHAPE)
    assert np.broadcast_shapes(noise.shape, SHAPE) == SHAPE


def test_flat_noise_is_read_time_major():
    noise = check_noise_std(np.arange(24.0).reshape(2, 12), shape=SHAPE)
    np.testing.assert_array_equal(noise, np.arange(24.0).reshape(SHAPE))


@pytest.mark.parametrize(
    ("noise_std", "message"),
    [
        (-0.1, "must be finite and >= 0. Got -0.1 instead"),
        ([0.1, 0.1, 0.1, -2.0], "must be finite and >= 0. Got -2.0 instead"),
        (np.nan, "must be finite and >= 0. Got nan instead"),
        (np.inf, "must be finite and >= 0. Got inf instead"),
        (np.ones(3), r"one value per channel \(4,\), .* Got shape \(3,\) instead"),
        (np.ones((2, 11)), r"Got shape \(2, 11\) instead"),
        ("loud", "could not convert string to float"),
    ],
)
def test_bad_noise_is_refused(noise_std, message):
    with pytest.raises(ValueError, match=message):
        check_noise_std(noise_std, shape=SHAPE)


@pytest.mark.parametrize(
    ("n_observed", "expected"),
    [
        (None, (5, 5)),
        (2, (2, 2)),
        ((1, 5), (1, 5)),
        ([2, 3], (2, 3)),
        (np.int64(3), (3, 3)),
    ],
)
def test_n_observed_is_a_number_or_a_range(n_observed, expected):
    assert check_n_observed(n_observed, n_times=5) == expected


@pytest.mark.parametrize(
    "n_observed", [0, -1, 6, (0, 2), (3, 2), (1, 6), (1, 2, 3), [1]]
)
def test_n_observed_out_of_range_is_refused(n_observed):
    with pytest.raises(ValueError, match=r"1 <= low <= high <= n_times=5\. Got"):
        check_n_observed(n_observed, n_times=5)
