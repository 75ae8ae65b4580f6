"""Profile likelihoods equal closed forms and SciPy's, and are open where they must be."""

from functools import partial

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.stats import chi2

from sklearn_inverse import ForwardFunction, GradientInverter, ODESimulator, ODESystem
from sklearn_inverse.exceptions import BoundsWarning
from sklearn_inverse.inspection import ProfileDisplay, _profile, profile_likelihood
from sklearn_inverse.inverse._objective import Objective
from sklearn_inverse.probability import LogUniform, Normal

THRESHOLD = chi2.ppf(0.95, 1)
MISRA_X = np.array(
    [
        *(77.6, 114.9, 141.1, 190.8, 239.9, 289.0, 332.8, 378.4, 434.8, 477.3),
        *(536.8, 593.1, 689.1, 760.0),
    ]
)
MISRA_Y = np.array(
    [
        *(10.07, 14.73, 17.94, 23.93, 29.61, 35.18, 40.02, 44.82, 50.76, 55.05),
        *(61.01, 66.40, 75.47, 81.78),
    ]
)


def measure(system, params, noise, seed=0):
    """Return readings of a system, (1, n_times * n_channels)."""
    exact = ODESimulator(system).simulate([params])
    rng = np.random.default_rng(seed)
    return (exact + noise * rng.standard_normal(exact.shape)).reshape(1, -1)


def profiles_of(system, readings, prior=None, **options):
    inverter = GradientInverter(system, prior=prior, random_state=0).fit(readings)
    return profile_likelihood(inverter, readings, **options)


def test_misra1a_has_scipys_profiles():
    """NIST's Misra1a, whose noise is unknown: n log(SSE / SSE_min)."""
    system = ODESystem(
        lambda t, y, p: [p.b2 * (p.b1 - y.y)],
        states={"y": 0.0},
        params={"b1": (100, 500), "b2": (1e-4, 1e-3)},
        times=np.append(0.0, MISRA_X),
    )
    profiles = profiles_of(system, np.append(np.nan, MISRA_Y)[None])

    def sse(b1, b2):
        return ((MISRA_Y - b1 * (1 - np.exp(-b2 * MISRA_X))) ** 2).sum()

    def sse_at_b1(b1):
        options = {"bounds": (3, 10), "method": "bounded", "options": {"xatol": 1e-9}}
        return minimize_scalar(lambda b2: sse(b1, 1e-4 * b2), **options).fun

    def sse_at_b2(b2):
        shape = 1 - np.exp(-b2 * MISRA_X)
        return sse(MISRA_Y @ shape / (shape @ shape), b2)

    for k, profile in enumerate([sse_at_b1, sse_at_b2]):
        known = [14 * np.log(profile(b) / 0.12455138894) for b in profiles.values[k]]
        np.testing.assert_allclose(profiles.deviances[k], known, atol=1e-3)
        ends = [14 * np.log(profile(b) / 0.12455138894) for b in profiles.interval[k]]
        np.testing.assert_allclose(ends, THRESHOLD, rtol=1e-3)
    np.testing.assert_allclose(profiles.optimum, [238.94212918, 5.5015643e-4], 1e-4)


def linear():
    matrix = np.random.default_rng(0).standard_normal((9, 3))
    readings = matrix @ [0.3, -0.2, 0.5] + 0.1
    tensor = torch.as_tensor(matrix)
    model = ForwardFunction(
        lambda k: k @ tensor.T, params=dict.fromkeys("abc", Normal(0, 1)), noise=0.1
    )
    return model, matrix, readings


@pytest.mark.parametrize("prior", [None, "model"])
def test_profiles_of_a_linear_model_are_parabolas(prior):
    model, matrix, readings = linear()
    profiles = profiles_of(model, readings[None], prior=prior)
    assert profiles.kind == ("likelihood" if prior is None else "posterior")
    precision = 100 * matrix.T @ matrix + (np.eye(3) if prior else 0)
    covariance = np.linalg.inv(precision)
    best = covariance @ matrix.T @ readings * 100
    for j, (values, deviances) in enumerate(zip(profiles.values, profiles.deviances)):
        parabola = (values - best[j]) ** 2 / covariance[j, j]
        np.testing.assert_allclose(deviances, parabola, atol=1e-5)
        half = np.sqrt(THRESHOLD * covariance[j, j])
        np.testing.assert_allclose(
            profiles.interval[j], best[j] + [-half, half], rtol=1e-4
        )
        assert (np.diff(values) > 0).all()


def product():
    return ODESystem(
        lambda t, y, p: [-p.a * p.b * y.y],
        states={"y": 1.0},
        params={"a": LogUniform(0.1, 10), "b": LogUniform(0.1, 10)},
        times=np.linspace(0, 3, 8),
        noise=0.02,
    )


def test_a_flat_direction_is_open_on_both_sides():
    """Though the bounds of a keep b from its own."""
    profiles = profiles_of(product(), measure(product(), [1.0, 1.5], 0.02))
    assert profiles.interval.tolist() == [[-np.inf, np.inf]] * 2


def test_the_prior_closes_what_readings_leave_open():
    readings = measure(product(), [1.0, 1.5], 0.02)
    profiles = profiles_of(product(), readings, prior="model")
    assert np.isfinite(profiles.interval).all()


def fast_and_slow():
    return ODESystem(
        lambda t, y, p: [-p.fast * y.a, p.fast * y.a - p.slow * y.b],
        states={"a": 1.0, "b": 0.0},
        params={"fast": LogUniform(0.1, 1e4), "slow": LogUniform(0.01, 10)},
        times=np.arange(1.0, 6),
        observe=["b"],
        noise=0.02,
    )


def test_a_rate_faster_than_sampling_has_a_lower_limit_only():
    readings = measure(fast_and_slow(), [50, 0.5], 0.02)
    profiles = profiles_of(fast_and_slow(), readings)
    (low, high), slow = profiles.interval
    assert 1 < low < 50
    assert high == np.inf
    assert np.isfinite(slow).all()


def two_modes():
    return ODESystem(
        lambda t, y, p: [-p.k1 * y.a, p.k1 * y.a - p.k2 * y.b, p.k2 * y.b],
        states={"a": 1.0, "b": 0.0, "c": 0.0},
        params={"k1": LogUniform(0.05, 5), "k2": LogUniform(0.05, 5)},
        times=np.linspace(0, 10, 12),
        observe=["c"],
        noise=0.005,
    )


def test_profiles_go_on_to_other_optima():
    profiles = profiles_of(two_modes(), measure(two_modes(), [1.0, 0.3], 0.005))
    for values, deviances in zip(profiles.values, profiles.deviances):
        both = values[deviances < 0.01]
        assert both.min() == pytest.approx(0.3, rel=0.05)
        assert both.max() == pytest.approx(1.0, rel=0.05)
        assert deviances[(values > 0.4) & (values < 0.8)].min() > 50


def test_ten_profiles_cost_few_more_calls_than_one(monkeypatch):
    n = 10

    def chain(t, y, p):
        flow = [p[i] * y[i] for i in range(n)]
        return [-flow[0]] + [flow[i - 1] - flow[i] for i in range(1, n)]

    system = ODESystem(
        chain,
        states={f"y{i}": 1 + 0.1 * i for i in range(n)},
        params={f"k{i}": LogUniform(0.1, 10) for i in range(n)},
        times=np.linspace(0, 4, 9),
        noise=0.05,
    )
    readings = measure(system, np.linspace(0.5, 2, n), 0.05)
    inverter = GradientInverter(system, prior=None, random_state=0).fit(readings)
    calls = []

    def counted(function):
        def call(self, x, sample):
            calls.append(len(x))
            return function(self, x, sample)

        return call

    for name in ("value", "linearize"):
        monkeypatch.setattr(Objective, name, counted(getattr(Objective, name)))

    def count(run):
        calls.clear()
        run()
        return len(calls)

    search = count(lambda: inverter.invert(readings))
    one = count(lambda: profile_likelihood(inverter, readings, params=["k4"]))
    ten = count(lambda: profile_likelihood(inverter, readings))
    assert search < one
    assert ten - search < 2 * (one - search)


def test_a_better_optimum_met_on_the_way_is_taken():
    """The search saw one start, in the shallower of two wells."""
    model = ForwardFunction(
        lambda k: torch.stack([k**2, k], dim=2), {"k": (-2, 2)}, noise=[0.8, 2.0]
    )
    readings = [[1.0, 1.0]]
    inverter = GradientInverter(
        model, prior=None, n_starts=1, start=[-1.2], random_state=0
    ).fit(readings)
    assert inverter.predict(readings)[0, 0] < -0.8
    profiles = profile_likelihood(inverter, readings)
    assert profiles.optimum[0] == pytest.approx(1.0, abs=1e-3)
    assert profiles.deviances[0].min() > -1e-3


def test_a_param_on_its_bound_is_open_there():
    system = ODESystem(
        lambda t, y, p: [-p.k * y.y - p.loss],
        states={"y": 1.0},
        params={"k": (0.1, 3), "loss": (0.0, 1.0)},
        times=np.linspace(0, 2, 9),
        noise=0.02,
    )
    readings = np.exp(-np.linspace(0, 2, 9))[None] + 0.01
    with pytest.warns(BoundsWarning, match="loss"):
        profiles = profiles_of(system, readings)
    assert profiles.interval[1, 0] == -np.inf
    assert np.isfinite(profiles.interval[1, 1])


def valley():
    """Return Rosenbrock's valley as a forward model."""
    return ForwardFunction(
        lambda k: torch.stack([10 * (k[:, 1] - k[:, 0] ** 2), k[:, 0]], dim=1),
        params={"a": (-3, 3), "b": (-1, 9)},
        noise=0.5,
    )


def test_a_curved_valley_is_followed():
    """Of b = a², known to ±.05, and a = 1 ± .5: limits of b are those of a² nearly."""
    profiles = profiles_of(valley(), [[0.0, 1.0]])
    half = 0.5 * THRESHOLD**0.5
    np.testing.assert_allclose(profiles.interval[0], [1 - half, 1 + half], rtol=1e-3)
    a = np.linspace(-3, 3, 200001)
    for b, deviance in zip(profiles.values[1], profiles.deviances[1]):
        known = ((20 * (b - a**2)) ** 2 + 4 * (a - 1) ** 2).min()
        assert deviance == pytest.approx(known, abs=1e-3)


def test_limits_that_did_not_converge_are_not_told(monkeypatch):
    inverter = GradientInverter(valley(), prior=None, random_state=0).fit([[0.0, 1.0]])
    hasty = partial(_profile.profile, max_iter=1)
    monkeypatch.setattr(_profile, "profile", hasty)
    interval = profile_likelihood(inverter, [[0.0, 1.0]]).interval
    assert np.isnan(interval[1]).any()


def test_a_limit_beyond_what_can_be_run_is_not_told():
    model = ForwardFunction(
        lambda k: torch.where(k > 1.2, torch.nan, 1 / k) * torch.ones(3),
        params={"k": (0.1, 3.0)},
        noise=0.5,
    )
    inverter = GradientInverter(model, prior=None, n_starts=1, start=[1.0])
    readings = [[1.0, 1.0, 1.1]]
    ((low, high),) = profile_likelihood(inverter.fit(readings), readings).interval
    half = 0.5 * (THRESHOLD / 3) ** 0.5
    assert 1 / low == pytest.approx(np.mean(readings) + half, rel=1e-3)
    assert np.isnan(high)


def test_noise_of_the_readings_counts():
    model, _, readings = linear()
    inverter = GradientInverter(model, prior=None).fit(readings[None])
    wide = profile_likelihood(inverter, readings[None], params="a", noise_std=0.2)
    narrow = profile_likelihood(inverter, readings[None], params="a")
    np.testing.assert_allclose(
        np.diff(wide.interval), 2 * np.diff(narrow.interval), 1e-4
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": 1.0}, "`level` must lie between"),
        ({"n_points": 2}, "`n_points` must be at least 4"),
        ({"params": ["d"]}, "`params` must hold names"),
        ({"sample_index": 3}, "`sample_index` must lie between"),
    ],
)
def test_bad_arguments_are_named(options, message):
    model, _, readings = linear()
    inverter = GradientInverter(model).fit(readings[None])
    with pytest.raises(ValueError, match=message):
        profile_likelihood(inverter, readings[None], **options)


def test_an_inverter_that_does_not_search_is_refused(inverter, observations):
    with pytest.raises(TypeError, match="one that searches"):
        profile_likelihood(inverter, observations)


def test_display_draws_profiles_and_threshold():
    model, _, readings = linear()
    inverter = GradientInverter(model, prior=None).fit(readings[None])
    display = ProfileDisplay.from_estimator(inverter, readings[None], params=["a", "c"])
    assert [ax.get_xlabel() for ax in display.axes_] == ["a", "c"]
    assert "profile likelihood" in display.axes_[0].get_ylabel()
    drawn = display.lines_[1].get_xydata()
    np.testing.assert_array_equal(drawn[:, 1], display.profiles.deviances[1])
    heights = [line.get_ydata()[0] for line in display.axes_[0].lines]
    assert heights[1] == pytest.approx(THRESHOLD)
    assert len(display.legend_.get_texts()) == 2
