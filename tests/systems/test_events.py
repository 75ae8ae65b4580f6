"""Doses and other events by name: exact, carried along with the system, and fitted."""

import copy
import pickle

import numpy as np
import pytest
import torch
from scipy.linalg import expm
from sklearn.base import clone

from sklearn_inverse import (
    BiLOInverter,
    Dose,
    Event,
    GradientInverter,
    ODESimulator,
    ODESystem,
    ReactionSystem,
)

pytest.importorskip("numba")

NOMINAL = {"out": 0.11, "lost": 0.1, "dose": 100.0, "second": 12.3, "length": 1.0}
PARAMS = {name: (0.5 * value, 1.5 * value) for name, value in NOMINAL.items()}


def flow(t, y, p):
    return -p.out * y.gut, p.out * y.gut - p.lost * y.blood


def make(*events, params=("out", "lost", "dose", "second"), rhs=flow, **options):
    defaults = {
        "states": {"gut": 100.0, "blood": 100.0},
        "params": {name: PARAMS[name] for name in params},
        "nominal": {name: NOMINAL[name] for name in params},
        "times": np.linspace(0, 24, 13),
        "noise": 1.0,
        "events": events,
    }
    return ODESystem(rhs, **(defaults | options))


def simulate(system, params=None, **options):
    simulator = ODESimulator(system, rtol=1e-9, **options)
    return simulator.simulate(system.nominal[None] if params is None else params)


def exact(times, duration=None):
    """Solve the nominal system with doses at 0 and 12.3 by the matrix exponential."""
    rates = np.zeros((3, 3))
    rates[:2, :2] = [[-0.11, 0], [0.11, -0.1]]
    rows = []
    for t in times:
        y, now = np.array([100.0, 100.0, 1.0]), 0.0
        for start in (0.0, 12.3):
            y, now = expm(rates * (min(t, start) - now)) @ y, min(t, start)
            if duration is None:
                y[0] += 100.0 * (t >= start)
            else:
                infusion = rates.copy()
                infusion[0, 2] = 100.0 / duration
                end = min(t, start + duration)
                y, now = expm(infusion * max(end - now, 0)) @ y, max(end, now)
        rows.append((expm(rates * (t - now)) @ y)[:2])
    return np.array(rows)


@pytest.mark.parametrize("duration", [None, 1.0, 0.1, 0.001, "length"])
def test_doses_are_exact_and_compiled(duration):
    names = list(PARAMS) if duration == "length" else list(PARAMS)[:4]
    system = make(Dose("gut", "dose", [0, "second"], duration=duration), params=names)
    assert system.backend_ == "compiled"
    expected = exact(system.times, 1.0 if duration == "length" else duration)
    np.testing.assert_allclose(simulate(system)[0], expected, rtol=1e-8)
    in_torch = simulate(system, method="rodas5p", backend="torch")
    np.testing.assert_allclose(in_torch[0], expected, rtol=1e-8)


@pytest.mark.parametrize("duration", [None, "length"])
def test_sensitivities_and_gradients_are_those_of_differences(duration):
    names = list(PARAMS) if duration else list(PARAMS)[:4]
    system = make(Dose("gut", "dose", [0, "second"], duration=duration), params=names)
    simulator = ODESimulator(system, rtol=1e-10)
    found = simulator.sensitivities(system.nominal[None])[0]
    for j, value in enumerate(system.nominal):
        steps = [k * 1e-4 * value for k in (-2, -1, 1, 2)]
        rows = system.nominal + np.outer(steps, np.eye(len(names))[j])
        y = simulator.simulate(rows)
        slope = (8 * (y[2] - y[1]) - (y[3] - y[0])) / (12 * steps[2])
        atol = 1e-6 * np.abs(slope).max()
        np.testing.assert_allclose(found[..., j], slope, rtol=0, atol=atol)
    scaled = torch.full((1, len(names)), 0.4, dtype=torch.float64, requires_grad=True)
    y, jacobian = simulator.linearize(scaled)
    weights = torch.rand(y.shape, dtype=torch.float64)
    (weights * simulator.forward(scaled)).sum().backward()
    expected = torch.einsum("ntc,ntcp->np", weights, jacobian)
    torch.testing.assert_close(scaled.grad, expected)


def test_events_set_states_to_numbers_params_and_functions():
    def all_at_once(t, y, p):
        return p.dose, y.blood + 0.5 * y.gut + t

    by_name = {"gut": "dose", "blood": lambda t, y, p: y.blood + 0.5 * y.gut + t}
    both = [
        simulate(
            make(Event(lambda p: p.second / 2, change), Event("second", {"gut": 3}))
        )
        for change in (by_name, all_at_once)
    ]
    np.testing.assert_array_equal(*both)
    moment = make(Event("second", by_name), times=[0.0, 12.3])
    before = expm(12.3 * np.array([[-0.11, 0], [0.11, -0.1]])) @ [100, 100]
    after = [100.0, before[1] + 0.5 * before[0] + 12.3]
    np.testing.assert_allclose(simulate(moment)[0, 1], after, rtol=1e-8)


def thermostat(**params):
    """Heat a room by a relay, which is a state; its thresholds are params."""
    events = [
        Event(
            when=lambda t, y, p: y.room - p.low, direction=-1, change={"heater": 1.0}
        ),
        Event(
            when=lambda t, y, p: y.room - p.high, direction=1, change={"heater": 0.0}
        ),
    ]
    return ODESystem(
        lambda t, y, p: [p.power * y.heater - p.loss * y.room, 0.0],
        states={"room": 20.0, "heater": 0.0},
        params={"low": (17, 19), "high": (21, 23)} | params,
        times=np.linspace(0, 3, 10),
        observe=["room"],
        noise=0.1,
        events=events,
    )


@pytest.mark.parametrize("backend", ["compiled", "torch"])
def test_events_that_states_trigger_by_name(backend):
    system = thermostat(loss=(0.5, 1.5), power=(25, 35))
    assert system.backend_ == "compiled"
    simulator = ODESimulator(system, rtol=1e-9, method="rodas5p", backend=backend)
    y = simulator.simulate(system.nominal[None])[0, :, 0]
    assert system.nominal.tolist() == [18, 22, 1, 30]
    off = np.log(20 / 18)  # then heated until 22, then cooling again, in closed form
    up, down = np.log((30 - 18) / (30 - 22)), np.log(22 / 18)
    since = (system.times - off) % (up + down)
    heated = 30 - 12 * np.exp(-since)
    cooled = 22 * np.exp(-(since - up))
    expected = np.where(since < up, heated, cooled)
    expected = np.where(system.times < off, 20 * np.exp(-system.times), expected)
    np.testing.assert_allclose(y, expected, rtol=1e-7)
    found = simulator.sensitivities(system.nominal[None])[0, :, 0]
    for j, value in enumerate(system.nominal):
        rows = system.nominal + np.outer([-1e-5, 1e-5], np.eye(4)[j] * value)
        low, high = simulator.simulate(rows)[..., 0]
        slope = (high - low) / (2e-5 * value)
        np.testing.assert_allclose(found[:, j], slope, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_threshold_that_only_an_event_knows_is_fitted():
    system = thermostat(loss=1.0, power=30.0)
    truth = np.array([[18.3, 21.6]])
    rng = np.random.default_rng(0)
    clean = simulate(system, truth)
    measured = clean + 0.1 * rng.standard_normal(clean.shape)
    posterior = (
        GradientInverter(system, random_state=0).fit(measured).posterior(measured)
    )
    assert posterior.explained[0]
    assert (np.abs(posterior.mean[0] - truth[0]) < 4 * posterior.std[0]).all()


def test_events_stay_with_the_system():
    system = make(Dose("gut", "dose", [0, "second"], duration=0.5))
    expected = simulate(system)
    params = np.concatenate([system.nominal[None], 0.9 * system.nominal[None]])
    np.testing.assert_array_equal(simulate(system, params)[:1], expected)
    others = [pickle.loads(pickle.dumps(system)), copy.deepcopy(system)]
    others += [system.with_noise(0.1), clone(ODESimulator(system)).system]
    for other in others:
        np.testing.assert_array_equal(simulate(other), expected)
    for n_times in (3, 8):  # before and after the second dose
        short = simulate(system.truncate(n_times))
        np.testing.assert_allclose(short, expected[:, :n_times], rtol=1e-8)
    t, y = torch.tensor([0.25, 1.0]).double(), torch.zeros(2, 2).double()
    rates = system.rhs(t, y, torch.as_tensor(params))
    np.testing.assert_allclose(rates[:, 0], [200.0, 0.0])


def test_reactions_take_events():
    options = {"initial": {"A": 1.0}, "nominal": {"k": 2.0}, "times": [0.0, 1.0, 2.0]}
    doses = [Dose("A", 1.0, 1.0), Dose("B", 3.0, 0.5, duration=0.1)]
    system = ReactionSystem({"A -> B": "k"}, events=doses, **options)
    assert system.backend_ == "compiled"
    a = np.exp(-2.0 * np.arange(3)) + np.array([0, 1, np.exp(-2.0)])
    found = simulate(system)[0]
    np.testing.assert_allclose(found[:, 0], a, rtol=1e-8)
    np.testing.assert_allclose(found.sum(1), [1.0, 5.0, 5.0], rtol=1e-8)
    without = ReactionSystem({"A -> B": "k"}, **options)
    assert without.kinetics is not None
    assert system.kinetics is None


def test_a_lag_that_acts_through_a_comparison_alone_is_fitted():
    def lagged(t, y, p):
        return [np.where(t < p.lag, 0.0, p.rate) - 0.5 * y[0]]

    system = ODESystem(
        lagged,
        states={"x": 0.0},
        params={"rate": (1, 3), "lag": (0.5, 3.5)},
        times=np.linspace(0, 6, 25),
        noise=0.01,
    )
    rng = np.random.default_rng(0)
    clean = simulate(system, [[1.7, 1.37]])
    measured = clean + 0.01 * rng.standard_normal(clean.shape)
    fitted = GradientInverter(system, random_state=0).fit(measured)
    posterior = fitted.posterior(measured)
    np.testing.assert_allclose(posterior.mean[0], [1.7, 1.37], rtol=0.02)
    assert (np.abs(posterior.mean[0] - [1.7, 1.37]) < 4 * posterior.std[0]).all()


def test_the_time_of_a_dose_and_the_rates_are_fitted():
    system = make(Dose("gut", "dose", [0, "second"]), noise=1.0)
    rng = np.random.default_rng(0)
    truth = np.array([0.13, 0.09, 110.0, 10.7])
    clean = simulate(system, truth[None])
    measured = clean + rng.standard_normal(clean.shape)
    posterior = (
        GradientInverter(system, random_state=0).fit(measured).posterior(measured)
    )
    error = np.abs(posterior.mean[0] - truth)
    assert (error < 4 * posterior.std[0]).all()
    assert (posterior.std[0] < 0.05 * truth).all()


def test_a_param_of_a_short_pulse_is_not_said_to_be_idle():
    ODESystem(
        lambda t, y, p: [p.rate * ((t > 5) & (t < 5.1)) - y[0]],
        states={"x": 0.0},
        params={"rate": (1, 3)},
        times=[0.0, 10.0],
    )


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"events": Dose("gut", 1, 0)}, TypeError, "must be a list"),
        ({"events": [3.0]}, TypeError, r"must hold Event\(…\) and Dose"),
        (
            {"events": [Dose("gutt", 1, 0)]},
            ValueError,
            "goes to 'gutt'.*mean 'gut'",
        ),
        ({"events": [Dose("gut", "doze", 0)]}, ValueError, "'doze'.*mean 'dose'"),
        (
            {"events": [Dose("gut", 1, [0, np.nan])]},
            ValueError,
            "must be a finite number",
        ),
        ({"events": [Dose("gut", [1, 2], [0, 1, 2])]}, ValueError, "for each of its 3"),
        ({"events": [Dose("gut", 1, 0, duration=-1)]}, ValueError, "must be > 0"),
        ({"events": [Event("secnd")]}, ValueError, "'secnd'.*mean 'second'"),
        ({"events": [Event()]}, ValueError, "either `time` or `when`"),
        ({"events": [Event(1.0, when=flow)]}, ValueError, "either `time` or `when`"),
        ({"events": [Event(1.0, direction=1)]}, ValueError, "goes with `when`"),
        (
            {"events": [Event(when=lambda t, y, p: y.liver)]},
            ValueError,
            "`when` of an event cannot be run: there is no state 'liver'",
        ),
        (
            {"events": [Event(when=flow)]},
            ValueError,
            "`when` of an event cannot be run",
        ),
        ({"events": [Event(1.0, {"liver": 0})]}, ValueError, "has 'liver'"),
        ({"events": [Event(1.0, 5.0)]}, TypeError, "must be a dict of states"),
        (
            {"events": [Event(1.0, lambda t, y, p: [y.gut])]},
            ValueError,
            "`change` of an event cannot be run: it must return 2 value",
        ),
        ({"events": [Event(lambda p: p.never)]}, ValueError, "no param 'never'"),
        ({"breakpoints": [np.inf]}, ValueError, "A breakpoint must be a finite number"),
        ({"breakpoints": 3.0}, TypeError, "must be a list"),
    ],
)
def test_wrong_events_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        make(**options)


def test_bilo_says_that_it_knows_no_events():
    system = make(Dose("gut", "dose", ["second"]))
    with pytest.raises(ValueError, match="takes no system with events"):
        BiLOInverter(system).fit(simulate(system))
