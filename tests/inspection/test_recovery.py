"""The picture sets recovered against true params and tells hits from misses."""

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.metrics import r2_score
from sklearn.pipeline import make_pipeline

from sklearn_inverse import GradientInverter, ODESystem
from sklearn_inverse.inspection import RecoveryDisplay
from sklearn_inverse.probability import LogUniform


@pytest.fixture
def recovered():
    rng = np.random.default_rng(0)
    unit = rng.uniform(size=(50, 2))
    true = np.stack([0.5 + unit[:, 0], 10 ** (4 * unit[:, 1] - 2)], axis=1)
    std = np.stack([np.full(50, 0.1), 0.2 * true[:, 1]], axis=1)
    return true, rng.normal(true, std), std


BOX = {"bounds": [[0.5, 1.5], [1e-2, 1e2]], "scale": ["linear", "log10"]}


def points(container):
    return container.lines[0].get_xydata()


def test_every_sample_is_drawn_once_as_hit_or_miss(recovered):
    true, predicted, std = recovered
    display = RecoveryDisplay.from_predictions(
        true, predicted, std=std, level=0.8, **BOX
    )
    hit = np.abs(true - predicted) <= 1.2815515655446004 * std
    for j in range(2):
        pairs = np.stack([true[:, j], predicted[:, j]], axis=1)
        inside, outside = display.inside_[j], display.outside_[j]
        np.testing.assert_array_equal(points(inside), pairs[hit[:, j]])
        np.testing.assert_array_equal(points(outside), pairs[~hit[:, j]])
        coverage = f"{100 * hit[:, j].mean():.0f} % inside"
        r2 = f"R² = {r2_score(true[:, j], predicted[:, j]):.2f}"
        assert display.text_[j].get_text() == f"{r2}\n{coverage}"
    assert [text.get_text() for text in display.legend_.get_texts()] == [
        "80 % interval holds the truth",
        "80 % interval misses the truth",
    ]


def test_no_error_bars_without_a_posterior(point_inverter, observations):
    display = RecoveryDisplay.from_estimator(
        point_inverter, observations, np.array([[1.1], [1.9]])
    )
    assert display.lower is None
    np.testing.assert_array_equal(display.predicted[:, 0], [1.0, 2.0])


@pytest.mark.parametrize("size", [8e-18, 8e-4, 0.02, 2.0, 800.0, 2.4e4, 5e11])
def test_labels_of_ticks_never_run_into_each_other(size):
    true = size * np.random.default_rng(0).uniform(0.5, 1.5, (50, 9))
    bounds = np.full((9, 2), [0.5 * size, 1.5 * size])
    display = RecoveryDisplay.from_predictions(true, true, bounds=bounds)
    display.figure_.canvas.draw()
    for ax in display.axes_:
        ends = [label.get_window_extent() for label in ax.get_xticklabels()]
        assert all(left.x1 + 2 < right.x0 for left, right in pairwise(ends))


def test_axes_span_the_prior_on_its_scale(recovered):
    true, predicted, std = recovered
    display = RecoveryDisplay.from_predictions(
        true, predicted, std=std, param_names=["α", "β"], units=["1/h", ""], **BOX
    )
    linear, log = display.axes_
    np.testing.assert_allclose(linear.get_xlim(), [0.45, 1.55])
    np.testing.assert_allclose(log.get_ylim(), [10**-2.2, 10**2.2])
    assert (linear.get_xscale(), log.get_xscale()) == ("linear", "log")
    assert [ax.get_title(loc="left") for ax in display.axes_] == ["α (1/h)", "β"]
    assert [ax.get_ylabel() for ax in display.axes_] == ["recovered", ""]
    for ax, line in zip(display.axes_, display.identity_):
        np.testing.assert_array_equal(line.get_xdata(), ax.get_xlim())
        np.testing.assert_array_equal(line.get_ydata(), ax.get_ylim())


def test_error_bars_end_at_the_bounds():
    display = RecoveryDisplay.from_predictions(
        [0.2, 0.9], [0.1, 1.2], std=[0.5, 0.5], bounds=[[0.0, 1.0]]
    )
    (bars,) = display.inside_[0].lines[2]
    ends = [segment[:, 1] for segment in bars.get_segments()]
    # The second lies outside its box, and keeps the lower half of its bar.
    np.testing.assert_allclose(ends, [[0.0, 0.922], [0.378, 1.2]], atol=1e-3)


def test_error_bars_of_an_inverter_are_its_posteriors_intervals(inverter, observations):
    params = np.array([[1.1], [5.0]])
    display = RecoveryDisplay.from_estimator(inverter, observations, params)
    np.testing.assert_allclose(display.predicted, [[1.0], [2.0]])
    np.testing.assert_allclose(
        display.upper - display.lower, 2 * 1.645 * 0.25, rtol=1e-3
    )
    np.testing.assert_allclose(points(display.outside_[0]), [[5.0, 2.0]])
    assert display.axes_[0].get_title(loc="left") == "rate"
    assert display.legend_.get_texts()[0].get_text().startswith("90 %")
    posterior = inverter.posterior(observations)
    wide = RecoveryDisplay.from_posterior(posterior, params, level=0.99, units="1/h")
    np.testing.assert_allclose(wide.upper - wide.lower, 2 * 2.5758 * 0.25, rtol=1e-3)
    assert wide.axes_[0].get_title(loc="left") == "rate (1/h)"


def test_axes_span_the_prior_of_the_model_unless_told_otherwise(
    inverter, point_inverter, observations
):
    low, high = 1 + 10 * 3.0902 * np.array([-1, 1])  # 0.1 % and 99.9 %
    margin = 0.05 * (high - low)
    for estimator in (inverter, point_inverter, make_pipeline(inverter)):
        display = RecoveryDisplay.from_estimator(estimator, observations, [1.0, 2.0])
        expected = [low - margin, high + margin]
        np.testing.assert_allclose(display.axes_[0].get_xlim(), expected, rtol=1e-3)
        display = RecoveryDisplay.from_estimator(
            estimator, observations, [1.0, 2.0], bounds=[[0.0, 10.0]]
        )
        np.testing.assert_allclose(display.axes_[0].get_xlim(), [-0.5, 10.5])


def test_units_of_params_are_the_systems():
    system = ODESystem(
        lambda t, y, p: [-p.rate * y.x],
        states={"x": 1.0},
        params={"rate": LogUniform(0.1, 10.0)},
        times=[0.0, 1.0, 2.0],
        noise=0.05,
        units={"params": "1/h"},
    )
    measured = [[1.0, 0.37, 0.14]]
    inverter = GradientInverter(system, n_starts=1).fit(measured)
    display = RecoveryDisplay.from_estimator(inverter, measured, [[1.0]])
    assert display.axes_[0].get_title(loc="left") == "rate (1/h)"
    assert display.axes_[0].get_xscale() == "log"


@pytest.mark.parametrize("n_samples", [1, 20])
def test_without_std_there_are_no_bars_and_no_legend(n_samples):
    true = np.linspace(1, 2, n_samples)
    display = RecoveryDisplay.from_predictions(true, true)
    assert display.legend_ is None
    assert display.inside_[0].lines[2] == ()
    np.testing.assert_array_equal(points(display.inside_[0])[:, 0], true)


def test_params_left_out_are_counted_and_can_be_chosen(recovered):
    true = np.random.default_rng(0).uniform(size=(9, 25))
    display = RecoveryDisplay.from_predictions(true, true)
    assert len(display.axes_) == 12
    assert display.figure_.get_supxlabel() == "12 of 25 params"
    axes = plt.subplots(1, 2)[1]
    display.plot(axes, chosen=["k7", 24])
    assert [ax.get_title(loc="left") for ax in axes] == ["k7", "k25"]
    with pytest.raises(ValueError, match=r"names out of .* Got 25"):
        display.plot(chosen=[25])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"predicted": np.full((50, 2), np.nan)},
            "`predicted` must be finite.*50 of 50",
        ),
        ({"std": np.ones((50, 3))}, r"`std` must have the shape of `true`, \(50, 2\)"),
        ({"std": -np.ones((50, 2))}, "`std` must be >= 0"),
        ({"std": None, "interval": ([1.0], [2.0])}, "`interval` must have the shape"),
        ({"bounds": [[0.0, 1.0]]}, r"\(n_params, 2\) = \(2, 2\)"),
        ({"scale": "log"}, "`scale` must be"),
    ],
)
def test_wrong_input_is_refused(recovered, change, message):
    true, predicted, std = recovered
    arguments = {"true": true, "predicted": predicted, "std": std, **BOX, **change}
    with pytest.raises(ValueError, match=message):
        RecoveryDisplay.from_predictions(**arguments)


def test_few_decades_have_labels_between_them_and_long_titles_two_lines():
    true = np.array([[0.3, 1e-5], [1.4, 1e3]])
    display = RecoveryDisplay.from_predictions(
        true, true, scale="log10", units=["thousand pelts a year", "1/h"]
    )
    labels = [
        [text.get_text() for text in ax.get_xticklabels() if text.get_text()]
        for ax in display.axes_
    ]
    assert {"0.5", "1"} <= set(labels[0])
    assert any("10^{0}" in label for label in labels[1])
    titles = [ax.get_title(loc="left") for ax in display.axes_]
    assert titles == ["k1\n(thousand pelts a year)", "k2 (1/h)"]
