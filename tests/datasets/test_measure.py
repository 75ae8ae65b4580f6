"""Masks keep as many readings as asked, where asked; noise has the size asked for."""

import numpy as np
import pytest

from sklearn_inverse.datasets import add_noise, mask_observations

SHAPE = (300, 8, 3)


@pytest.fixture
def trajectories():
    rng = np.random.default_rng(0)
    return rng.normal(size=SHAPE) * [1.0, 10.0, 1e-18]


def measured(observations):
    return ~np.isnan(observations.reshape(SHAPE))


def test_all_channels_are_measured_together_at_random_times(trajectories):
    mask = measured(mask_observations(trajectories, n_observed=3, random_state=0))
    assert (mask == mask[..., :1]).all()
    assert (mask[..., 0].sum(axis=1) == 3).all()
    # 56 patterns of 3 times out of 8, each about as often as any other.
    assert len(np.unique(mask[..., 0], axis=0)) > 50
    np.testing.assert_allclose(mask.mean(axis=(0, 2)), 3 / 8, atol=0.1)


def test_each_channel_has_times_of_its_own_with_entries(trajectories):
    masked = mask_observations(
        trajectories, n_observed=2, pattern="entries", random_state=0
    )
    mask = measured(masked)
    assert (mask.sum(axis=1) == 2).all()
    assert (mask != mask[..., :1]).any()


@pytest.mark.parametrize("pattern", ["times", "entries"])
def test_a_range_draws_the_number_of_times(trajectories, pattern):
    masked = mask_observations(
        trajectories, n_observed=(1, 4), pattern=pattern, random_state=0
    )
    counts = measured(masked).sum(axis=1)
    assert set(np.unique(counts)) == {1, 2, 3, 4}


def test_only_chosen_channels_and_later_times_are_measured(trajectories):
    masked = mask_observations(
        trajectories, n_observed=4, observables=[2], exclude_first=True
    )
    mask = measured(masked)
    assert not mask[..., :2].any()
    assert not mask[:, 0].any()
    assert (mask.sum(axis=(1, 2)) == 4).all()


def test_nothing_asked_nothing_lost(trajectories):
    np.testing.assert_array_equal(mask_observations(trajectories), trajectories)


@pytest.mark.parametrize("pattern", ["times", "entries"])
def test_gaps_stay_and_are_never_chosen(trajectories, pattern):
    trajectories[:, :6] = np.nan
    trajectories[:, 6, 0] = np.nan
    masked = mask_observations(
        trajectories, n_observed=2, pattern=pattern, random_state=0
    )
    np.testing.assert_array_equal(masked, trajectories)


def test_two_and_three_dimensions_agree(trajectories):
    flat = trajectories.reshape(len(trajectories), -1)
    kwargs = {"n_channels": 3, "random_state": 1}
    for measure in (
        lambda a: mask_observations(a, n_observed=2, **kwargs),
        lambda a: add_noise(a, 0.1, relative=True, **kwargs),
    ):
        assert measure(flat).shape == flat.shape
        assert measure(trajectories).shape == trajectories.shape
        np.testing.assert_array_equal(
            measure(flat), measure(trajectories).reshape(300, -1)
        )


def test_the_input_is_left_as_it_was(trajectories):
    before = trajectories.copy()
    mask_observations(trajectories, n_observed=1)
    add_noise(trajectories, 1.0)
    np.testing.assert_array_equal(trajectories, before)


@pytest.mark.parametrize(
    ("noise_std", "relative", "expected"),
    [
        (2.0, False, [2.0, 2.0, 2.0]),
        ([0.0, 5.0, 1e-18], False, [0.0, 5.0, 1e-18]),
        (np.full(SHAPE, 3.0), False, [3.0, 3.0, 3.0]),
        (0.1, True, [0.1, 1.0, 1e-19]),
    ],
)
def test_noise_has_the_size_asked_for(trajectories, noise_std, relative, expected):
    noisy = add_noise(trajectories, noise_std, relative=relative, random_state=0)
    noise = (noisy - trajectories).std(axis=(0, 1))
    np.testing.assert_allclose(noise, expected, rtol=0.06)


def test_noise_on_what_was_not_measured_stays_nan(trajectories):
    trajectories[0, 1] = np.nan
    noisy = add_noise(trajectories, 0.1, relative=True, random_state=0)
    np.testing.assert_array_equal(np.isnan(noisy), np.isnan(trajectories))


@pytest.mark.parametrize(
    ("change", "kwargs", "message"),
    [
        (lambda a: a, {"n_observed": 9}, "1 <= low <= high <= n_times=8"),
        (lambda a: a, {"n_observed": 0}, "`n_observed` must be"),
        (lambda a: a, {"pattern": "rows"}, "`pattern` must be one of"),
        (lambda a: a, {"observables": [3]}, r"of the 3 observables \[0, 1, 2\]"),
        (lambda a: a, {"observables": []}, "at least one. Got"),
        (lambda a: a, {"n_channels": 2}, r"\(n_samples, n_times, n_channels=2\)"),
        (lambda a: a[..., 0], {"n_channels": 3}, "a multiple of n_channels=3"),
        (lambda a: a[0, 0], {}, "Expected 2D array"),
        (lambda a: a + np.inf, {}, "contains infinity"),
        (lambda a: a + 1j, {}, "Complex data not supported"),
    ],
)
def test_wrong_input_is_refused(trajectories, change, kwargs, message):
    with pytest.raises(ValueError, match=message):
        mask_observations(change(trajectories), **kwargs)


def test_a_sample_with_nothing_left_is_named(trajectories):
    trajectories[4, :, 0] = np.nan
    with pytest.raises(ValueError, match=r"left of 1 sample\(s\), the first at row 4"):
        mask_observations(trajectories, observables=[0])


@pytest.mark.parametrize(
    ("noise_std", "message"),
    [
        (-1.0, ">= 0. Got -1.0"),
        (np.inf, "finite and >= 0"),
        ([1.0, 2.0], r"per channel \(3,\)"),
    ],
)
def test_wrong_noise_is_refused(trajectories, noise_std, message):
    with pytest.raises(ValueError, match=message):
        add_noise(trajectories, noise_std)
