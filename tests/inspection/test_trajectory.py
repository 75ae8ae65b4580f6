"""The picture shows the chosen sample: its readings, reconstruction and spread."""

import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy import stats
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sklearn_inverse import GradientInverter, ODESystem
from sklearn_inverse.exceptions import IntegrationError, IntegrationWarning
from sklearn_inverse.inspection import TrajectoryDisplay
from sklearn_inverse.probability import LogNormal, Normal

Z80 = 1.2815515655446004  # the middle 80 % of a normal distribution


def legend_texts(display):
    return [text.get_text() for text in display.legend_.get_texts()]


def test_the_artists_hold_the_sample(inverter, observations, times):
    display = TrajectoryDisplay.from_estimator(
        inverter, observations, sample_index=1, n_draws=4000, level=0.8
    )
    assert len(display.axes_) == 2
    np.testing.assert_array_equal(display.line_[1].get_xdata(), times)
    np.testing.assert_allclose(display.line_[1].get_ydata(), 2 * np.exp(-2 * times))
    np.testing.assert_array_equal(display.measurements_[0].get_xydata(), [[0.0, 2.0]])
    np.testing.assert_array_equal(display.measurements_[1].get_xydata(), [[1.0, 0.3]])
    # k is 2 ± 0.25, and falls with the trajectory.
    for end, k in zip(display.band, 2 + 0.25 * Z80 * np.array([1, -1])):
        np.testing.assert_allclose(end[:, 0], np.exp(-k * times), atol=0.01)
    assert [ax.get_title(loc="left") for ax in display.axes_] == ["a", "b"]
    assert [ax.get_xlabel() for ax in display.axes_] == ["", "time"]
    assert legend_texts(display) == [
        "measured",
        "reconstruction",
        "80 % credible (trajectory)",
        "80 % predictive (readings)",
    ]


def test_readings_scatter_as_the_noise_says_around_what_is_believed(
    inverter, observations, times
):
    display = TrajectoryDisplay.from_estimator(
        inverter, observations, n_draws=4000, level=0.8
    )
    for j, (size, std) in enumerate([(1, 0.1), (2, 0.3)]):
        # At the start nothing but noise is unknown; later k is, too.
        np.testing.assert_allclose(
            display.predictive_band[:, 0, j],
            size + std * Z80 * np.array([-1, 1]),
            atol=0.02,
        )
        rng = np.random.default_rng(1)
        u = size * np.exp(-rng.normal(1, 0.25, 40_000)[:, None] * times)
        readings = u + std * rng.standard_normal(u.shape)
        expected = np.quantile(readings, [0.1, 0.9], axis=0)
        np.testing.assert_allclose(display.predictive_band[..., j], expected, atol=0.03)
        outer, inner = (
            np.diff(b[..., j], axis=0) for b in (display.predictive_band, display.band)
        )
        assert (outer > inner).all()


def test_no_bands_without_a_posterior(point_inverter, observations):
    display = TrajectoryDisplay.from_estimator(point_inverter, observations)
    assert display.band is display.predictive_band is None
    assert legend_texts(display) == ["measured", "reconstruction"]


def test_noise_given_with_the_readings_replaces_the_models(inverter, observations):
    def spread(noise_std):
        display = TrajectoryDisplay.from_estimator(
            inverter, observations, sample_index=1, noise_std=noise_std
        )
        return np.diff(display.predictive_band, axis=0)[0, 0] / (2 * 1.645)

    np.testing.assert_allclose(spread(0.5), 0.5, rtol=0.06)
    np.testing.assert_allclose(spread([0.2, 0.7]), [0.2, 0.7], rtol=0.06)
    by_reading = np.full((2, 4, 2), np.nan)
    by_reading[1, 0, 0] = by_reading[1, 2, 1] = 0.4
    np.testing.assert_allclose(spread(by_reading), [0.4, np.nan], rtol=0.06)


def test_a_posterior_is_drawn_as_its_inverter_would(inverter, observations):
    posterior = inverter.posterior(observations)
    options = {"model": inverter.model_, "observations": observations}
    display = TrajectoryDisplay.from_posterior(posterior, 1, **options)
    same = TrajectoryDisplay.from_estimator(inverter, observations, sample_index=1)
    np.testing.assert_array_equal(display.band, same.band)
    np.testing.assert_array_equal(display.predictive_band, same.predictive_band)
    np.testing.assert_array_equal(display.observations, same.observations)
    alone = TrajectoryDisplay.from_posterior(posterior[1], model=inverter.model_)
    np.testing.assert_array_equal(alone.band, same.band)
    assert alone.measurements_ is None


@pytest.fixture(scope="module")
def decaying():
    system = ODESystem(
        lambda t, y, p: [-p.rate * y.amount],
        states={"amount": 2.0},
        params={"rate": (0.1, 3.0)},
        times=[0.0, 1.0, 2.0, 4.0],
        observe={"log": lambda t, y, p: np.log10(y.amount), "amount": "amount"},
        noise={"log": 0.01, "amount": LogNormal()},
        units={"time": "h", "states": "mg"},
    )
    y = 2 * np.exp(-0.7 * system.times)
    rng = np.random.default_rng(0)
    readings = np.stack([np.log10(y), y * np.exp(0.2 * rng.normal(size=4))], axis=1)
    readings = readings.reshape(1, -1)
    inverter = GradientInverter(system, n_starts=1, start=[0.6]).fit(readings)
    return system, readings, inverter.posterior(readings)


def test_a_simulator_is_asked_for_times_between(decaying):
    system, readings, posterior = decaying
    display = TrajectoryDisplay.from_posterior(
        posterior,
        model=system,
        observations=readings,
        truth=np.ones((4, 2)),
        n_draws=20,
    )
    line = display.line_[1]
    assert len(line.get_xdata()) > 100
    assert np.isin(system.times, line.get_xdata()).all()
    expected = 2 * np.exp(-posterior.params[0, 0] * line.get_xdata())
    np.testing.assert_allclose(line.get_ydata(), expected, rtol=1e-5)
    for points in (display.measurements_[1], display.truth_[1]):
        np.testing.assert_array_equal(points.get_xdata(), system.times)


def test_names_and_units_are_the_systems(decaying):
    system, _, posterior = decaying
    display = TrajectoryDisplay.from_posterior(posterior, model=system, n_draws=0)
    assert [ax.get_title(loc="left") for ax in display.axes_] == ["log", "amount"]
    assert [ax.get_ylabel() for ax in display.axes_] == ["", "mg"]
    assert display.axes_[1].get_xlabel() == "time (h)"
    display.plot(overlay=True)
    assert legend_texts(display)[:2] == ["log", "amount (mg)"]


def test_noise_of_unknown_size_is_what_was_found(decaying):
    system, _, posterior = decaying
    display = TrajectoryDisplay.from_posterior(posterior, model=system, n_draws=400)
    scale = posterior.noise_scale[0, 1]
    assert 0.05 < scale < 1.0
    ends = np.log(display.predictive_band[:, 0, 1] / 2.0)
    np.testing.assert_allclose(ends, scale * 1.645 * np.array([-1, 1]), rtol=0.08)


def test_noise_by_time_stays_with_the_times_of_the_model():
    system = ODESystem(
        lambda t, y, p: [-p.rate * y.x],
        states={"x": 1.0},
        params={"rate": Normal(1.0, 0.2)},
        times=[0.0, 1.0, 2.0],
        noise=np.array([[0.1], [0.2], [0.3]]),
    )
    measured = [[1.0, 0.4, 0.1]]
    inverter = GradientInverter(system, n_starts=1, continuation=False).fit(measured)
    display = TrajectoryDisplay.from_estimator(inverter, measured)
    assert len(display.times) == 3
    assert np.diff(display.predictive_band[:, 0, 0]) == pytest.approx(0.329, rel=0.05)


def test_what_no_draw_has_leaves_a_gap_in_the_band():
    draws = np.random.default_rng(0).normal(size=(50, 4, 1))
    draws[:, 0] = -np.inf  # the logarithm of a zero
    display = TrajectoryDisplay.from_predictions(draws[0], draws=draws)
    assert np.isnan(display.band[:, 0]).all()
    assert np.isfinite(display.band[:, 1:]).all()


def test_a_pipeline_is_drawn_as_its_inverter_sees_it(inverter, observations):
    halves = FunctionTransformer(lambda x: x / 2)
    pipeline = make_pipeline(halves, inverter)
    three_d = 2 * observations.reshape(2, 4, 2)
    plain = TrajectoryDisplay.from_estimator(inverter, observations)
    for given in (2 * observations, three_d):
        display = TrajectoryDisplay.from_estimator(pipeline, given)
        np.testing.assert_array_equal(display.observations, plain.observations)
        np.testing.assert_array_equal(display.band, plain.band)


def test_two_and_three_dimensions_agree(inverter, observations):
    three_d = observations.reshape(2, 4, 2)
    flat = TrajectoryDisplay.from_estimator(inverter, observations)
    for estimator in (inverter, make_pipeline(inverter)):
        display = TrajectoryDisplay.from_estimator(estimator, three_d)
        np.testing.assert_array_equal(display.observations, flat.observations)
        np.testing.assert_array_equal(display.band, flat.band)


def test_observables_can_share_a_panel(inverter, observations):
    figure, ax = plt.subplots()
    own = TrajectoryDisplay.from_estimator(
        inverter, observations, overlay=True, truth=np.ones((4, 2)), units="mg"
    )
    given = TrajectoryDisplay.from_estimator(inverter, observations, ax=ax, units="mg")
    assert given.figure_ is figure
    assert given.axes_[0] is ax
    for display in (own, given):
        assert len(display.axes_) == 1
        assert len({line.get_color() for line in display.line_}) == 2
        assert len({points.get_marker() for points in display.measurements_}) == 2
        assert display.axes_[0].get_ylabel() == "mg"
        assert legend_texts(display)[:2] == ["a", "b"]
    assert legend_texts(own)[-1] == "truth"


def test_observables_can_be_chosen_by_name_or_index(inverter, observations):
    display = TrajectoryDisplay.from_estimator(inverter, observations)
    axes = plt.subplots(1, 2)[1]
    display.plot(axes, observables=["b", 0])
    assert list(display.axes_) == list(axes)
    assert [ax.get_title(loc="left") for ax in axes] == ["b", "a"]
    with pytest.raises(ValueError, match=r"\['a', 'b'\] or their indices. Got 'c'"):
        display.plot(observables=["c"])
    with pytest.raises(ValueError, match="Raise `max_panels`"):
        display.plot(observables=[0, 1], max_panels=1)
    with pytest.raises(ValueError, match="must hold 1 axes, one per panel"):
        display.plot(axes, observables=[0])


def test_observables_left_out_are_counted():
    display = TrajectoryDisplay.from_predictions(np.ones((3, 20)), max_panels=5)
    assert len(display.axes_) == 5
    assert display.figure_.get_supxlabel() == "5 of 20 observables"


def test_a_trajectory_alone_is_enough():
    display = TrajectoryDisplay.from_predictions(np.ones((3, 1)))
    assert display.band_ is display.measurements_ is display.truth_ is None
    assert legend_texts(display) == ["reconstruction"]
    assert display.axes_[0].get_xlabel() == "time index"


def test_failed_draws_are_counted_and_left_out(inverter, observations):
    inverter.std = 1.0  # k of sample 0 is 1 ± 1, and fails below 0
    with pytest.warns(IntegrationWarning, match=r"\d\d of 200 draws") as seen:
        display = TrajectoryDisplay.from_estimator(inverter, observations)
    assert len(seen) == 1
    assert seen[0].filename == __file__
    n_lost = int(str(seen[0].message).split()[0])
    expected = 200 * stats.norm.cdf(-1)
    assert n_lost == pytest.approx(expected, abs=4 * np.sqrt(expected))
    assert np.isfinite(display.band).all()
    assert np.isfinite(display.predictive_band).all()
    with pytest.raises(IntegrationError, match="Pass `n_draws=0`"):
        TrajectoryDisplay.from_estimator(inverter, -9 - observations)
    display = TrajectoryDisplay.from_estimator(inverter, observations, n_draws=0)
    assert display.band_ is None


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"sample_index": 2}, "`sample_index` must lie between 0 and 1. Got 2"),
        ({"level": 90}, "`level` must lie between 0 and 1. Got 90"),
        ({"noise_std": [0.1, 0.2, 0.3]}, r"`noise_std` must be a float, .*\(3,\)"),
        ({"truth": np.ones((4, 3))}, r"`truth` must have shape \(4, 2\)"),
        ({"observable_names": ["a"]}, r"`observable_names` must hold 2 entries"),
    ],
)
def test_wrong_input_is_refused(inverter, observations, kwargs, message):
    with pytest.raises(ValueError, match=message):
        TrajectoryDisplay.from_estimator(inverter, observations, **kwargs)


def test_a_whole_batch_or_draws_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="that of one sample"):
        TrajectoryDisplay.from_predictions(np.ones((2, 3, 1)))
    with pytest.raises(ValueError, match=r"`draws` must have shape \(5, 3, 1\). Got"):
        TrajectoryDisplay.from_predictions(np.ones((3, 1)), draws=np.ones((5, 3)))
    with pytest.raises(ValueError, match=r"`times` must have shape \(3,\). Got \(1,\)"):
        TrajectoryDisplay.from_predictions(np.ones((3, 1)), times=[0.0])


def test_without_matplotlib_the_error_names_the_extra():
    code = (
        "import sys\n"
        "sys.modules['matplotlib'] = None\n"
        "from sklearn_inverse.inspection import RecoveryDisplay, TrajectoryDisplay\n"
        "for draw in (\n"
        "    lambda: TrajectoryDisplay.from_predictions([[1.0]]),\n"
        "    lambda: TrajectoryDisplay.from_estimator(None, None),\n"
        "    lambda: TrajectoryDisplay.from_posterior(None, model=None),\n"
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
    assert out.stdout.count('pip install "sklearn-inverse[plot]"') == 5
