"""Several experiments, inputs and tables: simulated in one batch, and differentiated."""

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from sklearn_inverse import (
    CMAESInverter,
    Dose,
    Event,
    Experiment,
    GradientInverter,
    Increment,
    ODESimulator,
    ODESystem,
    ReactionSystem,
    Table,
)
from sklearn_inverse.exceptions import IntegrationWarning

RAMP = Table([2.0, 5.0, 10.0], [300.0, 330.0, 310.0])
THETA = np.array([[0.1, 3000.0], [0.05, 1500.0]])


def arrhenius(t, y, p, u):
    return [-p.a * np.exp(-p.e * (1 / u.temperature - 1 / 300.0)) * y.x]


def reactor(**options):
    return ODESystem(
        arrhenius,
        states={"x": "x0"},
        params={"a": (0.01, 1), "e": (500, 5000)},
        inputs={"temperature": None, "x0": 1.0},
        noise=0.01,
        **options,
    )


def decayed(theta, times, temperature, x0=1.0, start=0.0):
    """Return what is left, in closed form, at temperatures (a function of time)."""

    def rate(t):
        return theta[0] * np.exp(-theta[1] * (1 / temperature(t) - 1 / 300.0))

    def used(t):
        points = [k for k in RAMP.times if start < k < t]
        return quad(rate, start, t, points=points or None, epsabs=0, epsrel=1e-12)[0]

    return np.array([x0 * np.exp(-used(t)) for t in times])


def ramp(t):
    return np.interp(t, RAMP.times, RAMP.values)


def step(t):
    return RAMP.values[np.clip(np.searchsorted(RAMP.times, t, "right") - 1, 0, 2)]


EXPERIMENTS = [
    Experiment([0, 1, 3, 5, 8, 14], inputs={"temperature": RAMP}, name="ramp"),
    Experiment(
        [1, 7, 7, 9],
        inputs={"temperature": 305.0, "x0": 2.0},
        start=0,
        name="constant",
    ),
    Experiment(
        [4, 6, 9],
        inputs={"temperature": Table(RAMP.times, RAMP.values, kind="previous")},
        start=1,
        name="steps",
    ),
]


def closed_form(theta):
    parts = [
        decayed(theta, EXPERIMENTS[0].times, ramp),
        decayed(theta, EXPERIMENTS[1].times, lambda t: 305.0, x0=2.0),
        decayed(theta, EXPERIMENTS[2].times, step, start=1.0),
    ]
    return np.concatenate(parts)


@pytest.mark.parametrize("backend", ["compiled", "torch"])
def test_a_temperature_table_drives_a_rate(backend):
    system = reactor(experiments=EXPERIMENTS)
    assert system.backend_ == "compiled"
    simulator = ODESimulator(system, rtol=1e-8, backend=backend)
    trajectories = simulator.simulate(THETA)
    exact = np.stack([closed_form(theta) for theta in THETA])
    np.testing.assert_allclose(trajectories[..., 0], exact, rtol=1e-7)
    slopes = simulator.sensitivities(THETA)[:, :, 0]
    for j, h in enumerate([1e-5, 0.1]):
        up, down = THETA + h * np.eye(2)[j], THETA - h * np.eye(2)[j]
        by_differences = [
            (closed_form(a) - closed_form(b)) / (2 * h) for a, b in zip(up, down)
        ]
        np.testing.assert_allclose(slopes[..., j], by_differences, rtol=1e-5, atol=1e-9)


def test_default_tolerances_meet_every_kink():
    system = reactor(experiments=EXPERIMENTS)
    off = ODESimulator(system).simulate(THETA[:1])[0, :, 0] / closed_form(THETA[0]) - 1
    assert np.abs(off).max() < 1e-5


def test_experiments_together_are_each_alone():
    together = ODESimulator(reactor(experiments=EXPERIMENTS))
    whole, slopes = together.simulate(THETA), together.sensitivities(THETA)
    first = 0
    for experiment in EXPERIMENTS:
        alone = ODESimulator(reactor(experiments=[experiment]))
        here = slice(first, first + len(experiment.times))
        np.testing.assert_allclose(whole[:, here], alone.simulate(THETA), rtol=1e-9)
        np.testing.assert_allclose(
            slopes[:, here], alone.sensitivities(THETA), rtol=1e-5
        )
        first = here.stop
    assert first == whole.shape[1]
    again = [together.simulate(theta[None])[0] for theta in THETA]
    np.testing.assert_array_equal(whole, again)


def test_samples_bring_inputs_in_order_or_by_name():
    system = reactor(times=[0, 1, 3]).with_experiments(
        [Experiment([0, 1, 3]), Experiment([0, 2], inputs={"temperature": 310.0})]
    )
    assert system.input_names == ["temperature"]
    simulator = ODESimulator(system, rtol=1e-9)
    warm = np.array([300.0, 320.0])
    trajectories = simulator.simulate(THETA, warm)
    for theta, t, found in zip(THETA, warm, trajectories[..., 0]):
        exact = [
            *decayed(theta, [0, 1, 3], lambda _: t),  # noqa: B023
            *decayed(theta, [0, 2], lambda _: 310.0),
        ]
        np.testing.assert_allclose(found, exact, rtol=1e-7)
    for given in (warm[:, None], {"temperature": warm}):
        np.testing.assert_array_equal(simulator.simulate(THETA, given), trajectories)
    one = simulator.simulate(THETA, {"temperature": 300.0})
    np.testing.assert_array_equal(one[0], trajectories[0])


def test_params_of_single_experiments_are_inputs_of_these():
    system = ODESystem(
        lambda t, y, p: [-p.rate * y.x],
        states={"x": 1.0},
        params={"rate": (0.1, 2), "gain_a": (0.5, 2), "gain_b": (0.5, 2)},
        inputs=["gain", "offset"],
        observe={"signal": lambda t, y, p, u: u.gain * y.x + u.offset},
        noise=0.01,
        experiments=[
            Experiment([0, 1, 2], inputs={"gain": "gain_a", "offset": 0}, name="a"),
            Experiment(
                [0, 2],
                inputs={"gain": lambda p: 2 * p.gain_b, "offset": 1},
                name="b",
            ),
        ],
    )
    theta = np.array([[0.5, 1.2, 0.7]])
    x = np.exp(-0.5 * np.array([0, 1, 2, 0, 2]))
    gain = np.array([1.2, 1.2, 1.2, 1.4, 1.4])
    simulator = ODESimulator(system, rtol=1e-9)
    np.testing.assert_allclose(
        simulator.simulate(theta)[0, :, 0], gain * x + [0, 0, 0, 1, 1], rtol=1e-7
    )
    slopes = np.stack(
        [-gain * system.times * x, x * [1, 1, 1, 0, 0], 2 * x * [0, 0, 0, 1, 1]], axis=1
    )
    np.testing.assert_allclose(
        simulator.sensitivities(theta)[0, :, 0], slopes, atol=1e-7
    )


def test_doses_and_events_stay_in_their_experiment():
    system = ODESystem(
        lambda t, y, p: [-p.rate * y.x],
        states={"x": 1.0},
        params={"rate": (0.1, 2), "dose": (1, 5), "lag": (0.1, 0.9)},
        noise=0.01,
        experiments=[
            Experiment([0, 1, 2, 3], name="plain"),
            Experiment([0, 1.5, 3], events=[Dose("x", "dose", [1, 2])], name="boluses"),
            Experiment(
                [0, 1.5, 3],
                events=[Dose("x", 4.0, "lag", duration=0.5), Event(2.0, {"x": 0.0})],
                initial={"x": "dose"},
                name="infusion",
            ),
        ],
    )
    k, dose, lag = 0.7, 2.5, 0.3

    def gone(t):
        return np.exp(-k * np.maximum(t, 0.0)) * (np.asarray(t) >= 0)

    boluses = np.array([0, 1.5, 3])
    infused = dose * gone(1.5) + 8.0 / k * (1 - gone(0.5)) * gone(1.5 - lag - 0.5)
    exact = [
        *gone(np.arange(4.0)),
        *(gone(boluses) + dose * (gone(boluses - 1) + gone(boluses - 2))),
        *[dose, infused, 0.0],
    ]
    for backend in ("compiled", "torch"):
        simulator = ODESimulator(system, rtol=1e-9, backend=backend)
        theta = np.array([[k, dose, lag]])
        np.testing.assert_allclose(
            simulator.simulate(theta)[0, :, 0], exact, rtol=1e-7, atol=1e-12
        )
        by_lag = simulator.sensitivities(theta)[0, :, 0, 2]
        d_infused = k * 8.0 / k * (1 - gone(0.5)) * gone(1.5 - lag - 0.5)
        np.testing.assert_allclose(by_lag[:-2], 0, atol=1e-9)
        np.testing.assert_allclose(by_lag[-2:], [d_infused, 0], rtol=1e-6, atol=1e-9)


def test_increments_are_since_the_time_before():
    system = ODESystem(
        lambda t, y, p: [-p.rate * y.x, p.rate * y.x],
        states={"x": 2.0, "gone": 0.0},
        params={"rate": (0.1, 2)},
        observe={
            "weekly": Increment("gone"),
            "scaled": Increment(lambda t, y, p: 10 * p.rate * y.gone),
            "x": "x",
        },
        noise=0.01,
        experiments=[
            Experiment([1, 2, 4], start=0, name="late"),
            Experiment([0, 3, 3], name="early"),
        ],
    )

    def gone(k, t):
        return 2 * (1 - np.exp(-k * np.asarray(t, dtype=float)))

    def grown(k):
        late, early = (np.diff(gone(k, t)) for t in ([0, 1, 2, 4], [0, 0, 3, 3]))
        return np.concatenate([late, early])

    simulator = ODESimulator(system, rtol=1e-10)
    found = simulator.simulate([[0.7]])[0]
    np.testing.assert_allclose(found[:, 0], grown(0.7), atol=1e-9)
    np.testing.assert_allclose(found[:, 1], 7 * grown(0.7), atol=1e-9)
    np.testing.assert_allclose(found[:, 2], 2 - gone(0.7, system.times), atol=1e-9)
    slopes = simulator.sensitivities([[0.7]])[0, :, :2, 0]
    h = 1e-6
    plain = (grown(0.7 + h) - grown(0.7 - h)) / (2 * h)
    scaled = 10 * grown(0.7) + 7 * plain
    np.testing.assert_allclose(slopes, np.stack([plain, scaled], axis=1), atol=1e-7)


def test_reactions_have_inputs_too():
    system = ReactionSystem(
        {"x ->": "a*exp(-e*(1/temperature - 1/300))"},
        initial={"x": "x0"},
        params={"a": (0.01, 1), "e": (500, 5000)},
        inputs={"temperature": None, "x0": 1.0},
        noise=0.01,
        experiments=EXPERIMENTS,
    )
    simulated = ODESimulator(system, rtol=1e-8).simulate(THETA[:1])
    np.testing.assert_allclose(simulated[0, :, 0], closed_form(THETA[0]), rtol=1e-7)


def test_a_failure_in_one_experiment_is_the_samples():
    system = ODESystem(
        lambda t, y, p, u: [p.rate * u.switch * y.x**2],
        states={"x": 1.0},
        params={"rate": (0.1, 2)},
        inputs=["switch"],
        noise=0.01,
        experiments=[
            Experiment([0, 1, 2], inputs={"switch": 0.0}),
            Experiment([0, 1, 2], inputs={"switch": 1.0}),
        ],
    )
    trajectories, solved = ODESimulator(system).attempt([[0.2], [1.0]])
    assert solved.tolist() == [True, False]
    assert np.isfinite(trajectories[1, :4]).all()
    assert np.isnan(trajectories[1, 5]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inputs": ["x"]}, "Inputs must have names of their own. Got 'x'"),
        ({"inputs": "u"}, "`inputs` must be a list of names"),
        ({"experiments": EXPERIMENTS[0]}, "Put the experiment in brackets"),
        (
            {"experiments": [Experiment([0, 1], inputs={"temperature": lambda t: t})]},
            "is a function of time. Give its values in a Table",
        ),
        ({"times": [0, 1], "experiments": EXPERIMENTS}, "`times` must be left out"),
        ({"experiments": [[0, 1]]}, r"must hold Experiment\(…\). Got \[0, 1\]"),
        (
            {"experiments": [Experiment([0, 1], name="a")] * 2},
            "must have different names. Got 'a' twice",
        ),
        (
            {"experiments": [Experiment([0, 1], inputs={"temprature": 1})]},
            "experiment '1' has 'temprature', .*[Dd]id you mean 'temperature'",
        ),
        (
            {"experiments": [Experiment([0, 1], initial={"y": 1})]},
            "`initial` of experiment '1' has 'y'",
        ),
        (
            {"experiments": [Experiment([0, 1], observables=["z"])]},
            "Experiment '1' measures 'z'",
        ),
        (
            {"rhs": lambda t, y, p: [-p.temperature * y.x]},
            "take u as the last argument",
        ),
    ],
)
def test_what_contradicts_the_system_is_refused(options, message):
    given = {
        "rhs": arrhenius,
        "states": {"x": 1.0},
        "params": {"a": (0.01, 1), "e": (500, 5000)},
        "inputs": ["temperature"],
    }
    with pytest.raises((ValueError, TypeError), match=message):
        ODESystem(**given | options)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Experiment([]), "finite numbers, one at least"),
        (lambda: Experiment([1], name=3), "must be text. Got 3"),
        (
            lambda: Experiment(np.array(["2020-01-01"], dtype="M8[D]")),
            "must be numbers, in the unit of time",
        ),
        (lambda: Experiment([1, 0]), "must increase from its start, 1"),
        (lambda: Experiment([1, 2], start=1.5), "must increase from its start, 1.5"),
        (lambda: Experiment([1, 2], inputs=[3]), "must be a dict by name"),
        (lambda: Table([0, 1], [1.0]), "2 finite numbers"),
        (lambda: Table([1, 0], [1.0, 2.0]), "strictly increasing"),
        (lambda: Table([0, 1], [1.0, 2.0], kind="spline"), "`kind` of a table"),
    ],
)
def test_what_is_no_experiment_or_table_is_refused(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (None, r"`inputs` must hold \['temperature'\] of each sample.*Got None"),
        ([1.0, 2.0, 3.0], r"shape \(n_samples, n_inputs\) = \(2, 1\)"),
        ([1.0, np.nan], "some of them not finite"),
        ({"temp": 1.0}, r"must hold \['temperature'\].*Got \['temp'\]"),
        ({"temperature": [1.0, 2.0, 3.0]}, "one for each of 2 samples"),
        ({"temperature": 300.0, "temp": 1.0}, r"Got \['temperature', 'temp'\]"),
        (
            {"temperature": RAMP},
            "must be numbers. Got Table.*in the system or in one of",
        ),
        ([[RAMP], [RAMP]], "must be numbers"),
    ],
)
def test_wrong_inputs_are_refused(inputs, message):
    with pytest.raises((ValueError, TypeError), match=message):
        ODESimulator(reactor(times=[0, 1])).simulate(THETA, inputs)


def test_inputs_are_picked_from_a_data_frame_by_name():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"who": ["a", "b"], "temperature": [300.0, 310.0]})
    simulator = ODESimulator(reactor(times=[0, 1]))
    expected = simulator.simulate(THETA, [300.0, 310.0])
    np.testing.assert_array_equal(simulator.simulate(THETA, frame), expected)


def test_a_system_without_times_says_so():
    with pytest.raises(ValueError, match="must have `times`, or `with_experiments"):
        ODESimulator(reactor()).simulate(THETA, [300.0, 300.0])
    for inverter in (GradientInverter, CMAESInverter):
        with pytest.raises(ValueError, match="must have `times`, or `with_experiments"):
            inverter(reactor()).fit([[0.5, 0.2, 0.1]], inputs=[300.0])


def test_a_function_of_inputs_in_a_system_without_any_is_told_so():
    with pytest.raises(ValueError, match=r"Got \(t, y, p, u\). One more is for inputs"):
        ODESystem(arrhenius, states={"x": 1.0}, params={"a": (0, 1)}, times=[0, 1])


def test_failures_are_counted_by_samples_not_by_experiments():
    system = ODESystem(
        lambda t, y, p: [p.k * y.x**2],
        states={"x": 1.0},
        params={"k": (-2.0, 2.0)},
        experiments=[Experiment([0, 0.1]), Experiment([0, 1.0]), Experiment([0, 2.0])],
    )
    simulator = ODESimulator(system, max_steps=200)
    with pytest.warns(IntegrationWarning, match="1 of 2 samples could.*is sample 1,"):
        trajectories = simulator.simulate([[-1.0], [1.5]])
    assert np.isnan(trajectories[:, :, 0]).sum() == 2


def test_a_table_that_steps_at_the_last_output_has_stepped():
    system = ODESystem(
        lambda t, y, p, u: [-p.k * u.x * y.a],
        states={"a": 1.0},
        params={"k": (0.1, 2)},
        inputs=["x"],
        observe={"x": lambda t, y, p, u: u.x},
        noise=0.1,
        experiments=[
            Experiment(
                [0, 1, 2], inputs={"x": Table([0, 1, 2], [1, 2, 3], kind="previous")}
            )
        ],
    )
    assert ODESimulator(system).simulate([[0.5]]).ravel().tolist() == [1, 2, 3]


def test_functions_of_one_experiment_are_run_in_no_other():
    system = ODESystem(
        lambda t, y, p, u: [-p.k * y.a],
        states={"a": 1.0},
        params={"k": (0.1, 2)},
        inputs=["x"],
        noise=0.1,
        experiments=[
            Experiment(
                [0, 1],
                inputs={"x": np.e},
                initial={"a": lambda p, u: p.k * np.log(u.x)},
            ),
            Experiment([0, 1], inputs={"x": lambda p: 0 * p.k}),
        ],
    )
    scaled = torch.tensor(system.prior.scaler.to_scaled(np.array([[0.5]])))
    _, jacobian = ODESimulator(system, rtol=1e-9).linearize(scaled)
    gone = np.exp(-0.5)
    wanted = 1.9 * np.array([1, 0.5 * gone, 0, -gone])
    np.testing.assert_allclose(jacobian.ravel(), wanted, atol=1e-6)
