"""Scaling is undone exactly, and no channel is too small for it."""

import numpy as np
import pytest
import torch

from sklearn_inverse.utils._scaling import ChannelScaler, ParamScaler

BOUNDS = np.array([[-2.0, 3.0], [1e-8, 1e4], [0.5, 1.5]])
SCALE = ["linear", "log10", "linear"]


@pytest.fixture
def scaler():
    return ParamScaler(BOUNDS, scale=SCALE)


@pytest.fixture
def unit():
    return np.random.default_rng(0).random((50, 3))


def test_bounds_are_the_corners_of_the_unit_box(scaler):
    corners = np.array([[0.0, 0, 0], [1, 1, 1]])
    np.testing.assert_allclose(scaler.to_scaled(BOUNDS.T), corners, atol=1e-15)


def test_middle_of_a_log10_box_is_the_geometric_mean(scaler):
    middle = scaler.from_scaled(np.full((1, 3), 0.5))
    np.testing.assert_allclose(middle, [[0.5, 1e-2, 1.0]])


def test_params_come_back_from_the_unit_box(scaler, unit):
    params = scaler.from_scaled(unit)
    assert (params >= BOUNDS[:, 0]).all()
    assert (params <= BOUNDS[:, 1]).all()
    np.testing.assert_allclose(scaler.to_scaled(params), unit, rtol=1e-12)


def test_any_number_of_leading_dimensions_is_mapped(scaler, unit):
    many = scaler.from_scaled(unit.reshape(5, 10, 3))
    np.testing.assert_array_equal(many.reshape(50, 3), scaler.from_scaled(unit))


def test_tensors_are_mapped_as_arrays_are(scaler, unit):
    params = scaler.from_scaled_tensor(torch.from_numpy(unit))
    np.testing.assert_allclose(params.numpy(), scaler.from_scaled(unit), rtol=1e-12)
    back = scaler.to_scaled_tensor(params)
    np.testing.assert_allclose(back.numpy(), unit, rtol=1e-12)


def test_gradient_of_the_map_equals_finite_differences(scaler, unit):
    u = torch.from_numpy(unit[:4]).requires_grad_()
    assert torch.autograd.gradcheck(scaler.from_scaled_tensor, u, rtol=1e-5)
    k = (1 + u).detach().requires_grad_()
    assert torch.autograd.gradcheck(scaler.to_scaled_tensor, k, rtol=1e-5)


def test_box_of_the_training_params_is_the_default():
    params = np.array([[1.0, 5.0], [3.0, 5.0]])
    scaler = ParamScaler.from_data(params)
    np.testing.assert_array_equal(scaler.bounds[0], [1.0, 3.0])
    low, high = scaler.bounds[1]  # never varies, yet has a box around it
    assert low < 5.0 < high


def test_a_param_that_is_always_zero_has_a_box():
    scaler = ParamScaler.from_data(np.zeros((3, 1)))
    np.testing.assert_allclose(scaler.to_scaled(np.zeros((1, 1))), [[0.5]])


def test_params_outside_their_bounds_are_named():
    params = np.array([[0.5, 0.5], [0.5, 1.5]])
    message = r"Got 1.5 for param 1 of sample 1, whose bounds are \[0, 1\] \(1 value"
    with pytest.raises(ValueError, match=message):
        ParamScaler.from_data(params, bounds=[[0.0, 1.0], [0.0, 1.0]])


def test_log10_of_training_params_that_reach_zero_is_refused():
    with pytest.raises(ValueError, match="log10 scale must have positive bounds"):
        ParamScaler.from_data(np.array([[0.0], [1.0]]), scale="log10")


def test_scalers_are_equal_by_value():
    assert ParamScaler(BOUNDS, scale=SCALE) == ParamScaler(BOUNDS.tolist(), scale=SCALE)
    assert ParamScaler(BOUNDS, scale=SCALE) != ParamScaler(BOUNDS)
    assert ParamScaler(BOUNDS) != ParamScaler(2 * BOUNDS)


@pytest.fixture
def trajectories():
    """Channels of size 1e-18, 1 and 1e6; the fourth never varies, the fifth is zero."""
    rng = np.random.default_rng(1)
    varied = (3 + rng.standard_normal((6, 7, 3))) * [1e-18, 1.0, 1e6]
    constant = np.broadcast_to([42.0, 0.0], (6, 7, 2))
    return np.concatenate([varied, constant], axis=2)


def test_channels_have_mean_zero_and_spread_one_whatever_their_size(trajectories):
    standardized = ChannelScaler(trajectories).standardize(trajectories)
    np.testing.assert_allclose(standardized.mean(axis=(0, 1)), 0, atol=1e-12)
    np.testing.assert_allclose(
        standardized.std(axis=(0, 1)), [1, 1, 1, 0, 0], atol=1e-12
    )


def test_a_constant_channel_is_divided_by_its_size_and_zero_by_one(trajectories):
    scaler = ChannelScaler(trajectories)
    np.testing.assert_array_equal(scaler.std[3:], [42.0, 1.0])
    np.testing.assert_allclose(scaler.mean[3:], [42.0, 0.0])


def test_round_off_around_a_constant_is_not_taken_for_spread():
    jitter = 7e-18 * (1 + 1e-13 * np.random.default_rng(0).standard_normal((5, 4, 1)))
    standardized = ChannelScaler(jitter).standardize(jitter)
    assert np.abs(standardized).max() < 1e-9


def test_channels_come_back_from_their_standard_scale(trajectories):
    scaler = ChannelScaler(trajectories)
    back = scaler.restore(scaler.standardize(trajectories))
    np.testing.assert_allclose(back, trajectories, rtol=1e-12)


def test_missing_readings_change_neither_statistics_nor_each_other(trajectories):
    gaps = trajectories.copy()
    gaps[2, 3:] = np.nan
    scaler = ChannelScaler(gaps)
    np.testing.assert_allclose(scaler.mean, np.nanmean(gaps, axis=(0, 1)), rtol=1e-12)
    np.testing.assert_allclose(
        scaler.std[:3], np.nanstd(gaps, axis=(0, 1))[:3], rtol=1e-12
    )
    np.testing.assert_array_equal(np.isnan(scaler.standardize(gaps)), np.isnan(gaps))


def test_a_channel_never_measured_has_finite_scale():
    scaler = ChannelScaler(np.full((2, 3, 1), np.nan))
    assert (scaler.mean, scaler.std) == (0.0, 1.0)


def test_tensors_are_standardized_as_arrays_are(trajectories):
    scaler = ChannelScaler(trajectories)
    tensor = torch.from_numpy(trajectories)
    np.testing.assert_allclose(
        scaler.standardize(tensor).numpy(), scaler.standardize(trajectories)
    )
    np.testing.assert_allclose(
        scaler.restore(tensor).numpy(), scaler.restore(trajectories)
    )
