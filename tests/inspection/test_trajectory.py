"""The picture shows the chosen sample: its readings, reconstruction and spread."""

import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sklearn_inverse.exceptions import IntegrationError, IntegrationWarning
from sklearn_inverse.inspection import TrajectoryDisplay


def legend_texts(display):
    return [text.get_text() for text in display.legend_.get_texts()]


def test_the_artists_hold_the_sample(inverter, observations, times):
    display = TrajectoryDisplay.from_estimator(
        inverter,
        observations,
        sample_index=1,
        n_draws=101,
        level=0.8,
        times=times,
        channel_names=["a", "b"],
        units=["mg", "kg"],
        time_label="time (h)",
    )
    assert len(display.axes_) == 2
    np.testing.assert_array_equal(display.line_[1].get_xdata(), times)
    np.testing.assert_allclose(display.line_[1].get_ydata(), 2 * np.exp(-2 * times))
    np.testing.assert_array_equal(display.measurements_[0].get_xydata(), [[0.0, 2.0]])
    np.testing.assert_array_equal(display.measurements_[1].get_xydata(), [[1.0, 0.3]])
    # Draws of k spread evenly over 2 ± 0.5: the middle 80 % are 2 ± 0.4.
    np.testing.assert_allclose(display.lower[:, 0], np.exp(-2.4 * times))
    np.testing.assert_allclose(display.upper[:, 0], np.exp(-1.6 * times))
    assert [ax.get_title(loc="left") for ax in display.axes_] == ["a", "b"]
    assert [ax.get_ylabel() for ax in display.axes_] == ["mg", "kg"]
    assert [ax.get_xlabel() for ax in display.axes_] == ["", "time (h)"]
    assert legend_texts(display) == ["measured", "reconstruction", "80 % interval"]


def test_no_band_without_a_posterior(point_inverter, observations):
    display = TrajectoryDisplay.from_estimator(point_inverter, observations)
    assert display.lower is None
    assert legend_texts(display) == ["measured", "reconstruction"]


def test_a_pipeline_is_drawn_in_the_units_transform_gives(inverter, observations):
    logs = FunctionTransformer(np.log, inverse_func=np.exp)
    pipeline = make_pipeline(logs, inverter)
    display = TrajectoryDisplay.from_estimator(
        pipeline, np.exp(observations), transform=np.exp
    )
    plain = TrajectoryDisplay.from_estimator(inverter, observations)
    np.testing.assert_allclose(display.observations, np.exp(plain.observations))
    np.testing.assert_allclose(display.trajectory, np.exp(plain.trajectory))
    np.testing.assert_allclose(display.upper, np.exp(plain.upper), rtol=1e-3)


def test_two_and_three_dimensions_agree(inverter, observations):
    three_d = observations.reshape(2, 4, 2)
    flat = TrajectoryDisplay.from_estimator(inverter, observations)
    for estimator in (inverter, make_pipeline(inverter)):
        display = TrajectoryDisplay.from_estimator(estimator, three_d)
        np.testing.assert_array_equal(display.observations, flat.observations)
        np.testing.assert_array_equal(display.lower, flat.lower)


def test_channels_can_share_a_panel(inverter, observations):
    kwargs = {"channel_names": ["a", "b"], "units": "mg"}
    figure, ax = plt.subplots()
    own = TrajectoryDisplay.from_estimator(
        inverter, observations, overlay=True, truth=np.ones((4, 2)), **kwargs
    )
    given = TrajectoryDisplay.from_estimator(inverter, observations, ax=ax, **kwargs)
    assert given.figure_ is figure
    assert given.axes_[0] is ax
    for display in (own, given):
        assert len(display.axes_) == 1
        assert len({line.get_color() for line in display.line_}) == 2
        assert len({points.get_marker() for points in display.measurements_}) == 2
        assert display.axes_[0].get_ylabel() == "mg"
        assert legend_texts(display)[:2] == ["a", "b"]
    assert legend_texts(own)[-1] == "truth"


def test_channels_can_be_chosen_by_name_or_index(inverter, observations):
    display = TrajectoryDisplay.from_estimator(inverter, observations)
    axes = plt.subplots(1, 2)[1]
    display.plot(axes, channels=["c2", 0])
    assert list(display.axes_) == list(axes)
    assert [ax.get_title(loc="left") for ax in axes] == ["c2", "c1"]
    with pytest.raises(ValueError, match=r"\['c1', 'c2'\] or their indices. Got 'c3'"):
        display.plot(channels=["c3"])
    with pytest.raises(ValueError, match="Raise `max_panels`"):
        display.plot(channels=[0, 1], max_panels=1)
    with pytest.raises(ValueError, match="must hold 1 axes, one per panel"):
        display.plot(axes, channels=[0])


def test_channels_left_out_are_counted():
    display = TrajectoryDisplay.from_predictions(np.ones((3, 20)), max_panels=5)
    assert len(display.axes_) == 5
    assert display.figure_.get_supxlabel() == "5 of 20 channels"


def test_a_trajectory_alone_is_enough():
    display = TrajectoryDisplay.from_predictions(np.ones((3, 1)))
    assert display.band_ is display.measurements_ is display.truth_ is None
    assert legend_texts(display) == ["reconstruction"]
    assert display.axes_[0].get_xlabel() == "time index"


def test_failed_draws_are_counted_and_left_out(inverter, observations):
    inverter.half_width = 2.0  # k of sample 0 is 1 ± 2, and fails below 0
    with pytest.warns(IntegrationWarning, match="50 of 200 draws") as seen:
        display = TrajectoryDisplay.from_estimator(inverter, observations)
    assert len(seen) == 1
    assert np.isfinite(display.lower).all()
    with pytest.raises(IntegrationError, match="Pass `n_draws=0`"):
        TrajectoryDisplay.from_estimator(inverter, -9 - observations)
    display = TrajectoryDisplay.from_estimator(inverter, observations, n_draws=0)
    assert display.band_ is None


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"sample_index": 2}, "`sample_index` must lie between 0 and 1. Got 2"),
        ({"level": 90}, "`level` must lie between 0 and 1. Got 90"),
        ({"times": [0.0]}, r"`times` must have shape \(4,\). Got \(1,\)"),
        ({"truth": np.ones((4, 3))}, r"`truth` must have shape \(4, 2\)"),
        ({"channel_names": ["a"]}, r"`channel_names` must hold 2 entries. Got \['a'\]"),
    ],
)
def test_wrong_input_is_refused(inverter, observations, kwargs, message):
    with pytest.raises(ValueError, match=message):
        TrajectoryDisplay.from_estimator(inverter, observations, **kwargs)


def test_a_whole_batch_is_no_sample():
    with pytest.raises(ValueError, match="that of one sample"):
        TrajectoryDisplay.from_predictions(np.ones((2, 3, 1)))


def test_without_matplotlib_the_error_names_the_extra():
    code = (
        "import sys\n"
        "sys.modules['matplotlib'] = None\n"
        "from sklearn_inverse.inspection import RecoveryDisplay, TrajectoryDisplay\n"
        "for draw in (\n"
        "    lambda: TrajectoryDisplay.from_predictions([[1.0]]),\n"
        "    lambda: TrajectoryDisplay.from_estimator(None, None),\n"
        "    lambda: RecoveryDisplay.from_predictions([1.0, 2.0], [1.0, 2.0]),\n"
        "    lambda: RecoveryDisplay.from_estimator(None, None, None),\n"
        "):\n"
        "    try:\n"
        "        draw()\n"
        "    except ImportError as error:\n"
        "        print(error)\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert out.stdout.count('pip install "sklearn-inverse[plot]"') == 4
