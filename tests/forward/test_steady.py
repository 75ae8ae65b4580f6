"""Experiments that begin at a steady state: which one, to what accuracy, and its slopes."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from sklearn_inverse import Dose, Experiment, ODESimulator, ODESystem, Table
from sklearn_inverse.exceptions import IntegrationWarning


def cascade(t, y, p, u):
    activation = p.k1 * (1 + u.signal) * y.a - p.k2 * y.active
    return [-activation, activation, p.made + p.kx * y.active - p.lost * y.m]


SIGNALLED = ODESystem(
    cascade,
    states={"a": "total", "active": 0.0, "m": 0.0},
    params={
        "k1": (0.01, 1),
        "k2": (0.01, 1),
        "made": (0.1, 1),
        "kx": (0.1, 2),
        "lost": (0.01, 1),
        "total": (1, 5),
    },
    inputs=["signal"],
    noise=0.01,
    experiments=[
        Experiment([0, 1, 5], inputs={"signal": 3.0}, preequilibrate={"signal": 0.0}),
        Experiment([0, 9], inputs={"signal": 0.0}, preequilibrate={}),
        Experiment(
            [0, 3],
            inputs={"signal": 2.0},
            initial={"m": 1.0},
            preequilibrate={"signal": 1.0},
        ),
        Experiment([0, 3], inputs={"signal": 2.0}),
    ],
)
THETA = np.array([[0.1, 0.2, 0.5, 1.0, 0.05, 2.0], [0.3, 0.1, 0.2, 0.4, 0.02, 4.0]])


def after_a_long_run(theta):
    """Return all experiments, their beginnings by integration over 5,000 units."""

    def run(y, signal, times):
        k1, k2, made, kx, lost, _ = theta

        def f(t, y):
            activation = k1 * (1 + signal) * y[0] - k2 * y[1]
            return [-activation, activation, made + kx * y[1] - lost * y[2]]

        options = {"method": "LSODA", "rtol": 1e-12, "atol": 1e-14}
        return solve_ivp(f, (0, times[-1]), y, t_eval=times, **options).y.T

    first = [theta[5], 0.0, 0.0]
    rest, other = (run(first, s, [0, 5000])[-1] for s in (0.0, 1.0))
    parts = [run(rest, 3.0, [0, 1, 5]), run(rest, 0.0, [0, 9])]
    parts += [run([*other[:2], 1.0], 2.0, [0, 3]), run(first, 2.0, [0, 3])]
    return np.concatenate(parts)


@pytest.mark.parametrize("backend", ["compiled", "torch"])
def test_rest_is_that_of_a_long_run(backend):
    simulator = ODESimulator(SIGNALLED, rtol=1e-10, backend=backend)
    wanted = np.stack([after_a_long_run(theta) for theta in THETA])
    np.testing.assert_allclose(simulator.simulate(THETA), wanted, rtol=1e-8, atol=1e-9)


def test_its_slopes_are_exact_where_something_is_conserved_too():
    simulator = ODESimulator(SIGNALLED, rtol=1e-9)
    slopes = simulator.sensitivities(THETA[:1])[0]
    for j, value in enumerate(THETA[0]):
        h = 1e-5 * value * np.eye(6)[j]
        differences = after_a_long_run(THETA[0] + h) - after_a_long_run(THETA[0] - h)
        wanted = differences / (2e-5 * value)
        size = np.abs(wanted).max()
        np.testing.assert_allclose(slopes[..., j], wanted, atol=1e-6 * size)
    scaled = torch.tensor(SIGNALLED.prior.scaler.to_scaled(THETA), requires_grad=True)
    simulator.forward(scaled).sum().backward()
    jacobian = simulator.linearize(scaled.detach())[1]
    np.testing.assert_allclose(scaled.grad, jacobian.sum((1, 2)), rtol=1e-9)


def test_what_does_not_come_to_rest_is_said():
    def oscillator(t, y, p):
        return [y.v, p.mu * (1 - y.x**2) * y.v - y.x]

    with pytest.warns(UserWarning, match="'1' 'oscillator' does not come to rest"):
        system = ODESystem(
            oscillator,
            states={"x": 1.0, "v": 0.0},
            params={"mu": (-2, 2)},
            nominal={"mu": 1.0},
            noise=0.01,
            experiments=[Experiment([0, 1], preequilibrate={})],
        )
    with pytest.warns(IntegrationWarning, match="1 × The system does not come to rest"):
        trajectories = ODESimulator(system).simulate([[1.0], [-1.0]])
    assert np.isnan(trajectories[0]).all()
    np.testing.assert_allclose(trajectories[1], 0, atol=1e-9)


def test_that_there_are_two_ways_to_rest_is_said():
    def toggle(t, y, p):
        return [p.a / (1 + y.v**2) - y.u, p.a / (1 + y.u**2) - y.v]

    with pytest.warns(
        UserWarning, match=r"several ways .*\[4.27, 0.234\], from others"
    ):
        system = ODESystem(
            toggle,
            states={"u": 3.0, "v": 0.0},
            params={"a": (3, 6)},
            noise=0.01,
            experiments=[Experiment([0, 1], preequilibrate={})],
        )
    u, v = ODESimulator(system).simulate([[4.5]])[0, 0]
    assert u == pytest.approx(4.5 / (1 + v**2), rel=1e-9)
    assert u > 4


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sgnal": 0.0}, "experiment '1' has 'sgnal', .*mean 'signal'"),
        ({"signal": "k1"}, "must hold numbers. Got 'k1'"),
    ],
)
def test_what_nothing_can_rest_under_is_refused(given, message):
    experiment = Experiment([0, 1], inputs={"signal": 1.0}, preequilibrate=given)
    with pytest.raises((ValueError, TypeError), match=message):
        SIGNALLED.with_experiments([experiment])


def exchange(t, y, p, u):
    flow = u.s * p.k * y.a - y.b
    return [-flow, flow]


def test_rest_comes_before_what_the_experiment_brings():
    # A dose that is still to come, an infusion from the start on, and a jump later on.
    closed = ODESystem(
        exchange,
        states={"a": "total", "b": 0.0},
        params={"k": (0.1, 2), "total": (1, 3)},
        inputs=["s"],
        noise=0.1,
        experiments=[
            Experiment(
                [0, 1, 3],
                inputs={"s": Table([0, 2], [1, 3])},
                events=[Dose("a", 3.0, [1], duration=1)],
                preequilibrate={"s": 2.0},
            )
        ],
    )
    simulator = ODESimulator(closed, rtol=1e-9)
    np.testing.assert_allclose(simulator.simulate([[0.5, 2.0]])[0, 0], [1, 1])
    slopes = simulator.sensitivities([[0.5, 2.0]])[0, 0]
    np.testing.assert_allclose(slopes, [[-1, 0.5], [1, 0.5]], atol=1e-7)
    open_system = ODESystem(
        lambda t, y, p, u: [u.s + np.where(t > 0.5, p.late, 0.0) - p.k * y.a],
        states={"a": 1.0},
        params={"k": (0.1, 2), "late": (0, 1)},
        inputs=["s"],
        noise=0.1,
        experiments=[
            Experiment(
                [0, 1],
                inputs={"s": 1.0},
                events=[Dose("a", 3.0, [0], duration=2)],
                preequilibrate={"s": 2.0},
            )
        ],
    )
    found = ODESimulator(open_system, rtol=1e-9).simulate([[0.5, 0.3]])[0, :, 0]
    at_the_end = 5 - np.exp(-0.5) + 0.6 * (1 - np.exp(-0.25))
    np.testing.assert_allclose(found, [4, at_the_end], rtol=1e-7)


@pytest.mark.parametrize(
    ("before", "now", "wanted"),
    [(1.0, 0.0, [0.0, 1.0]), (0.0, 1.0, [-2.3 / 2.25, 1 / 1.5])],
)
def test_what_is_conserved_is_that_of_the_rest(before, now, wanted):
    system = ODESystem(
        lambda t, y, p, u: [
            u.s * (p.made - y.a) - p.k * y.a + y.b,
            p.k * y.a - y.b,
        ],
        states={"a": 1.0, "b": "made"},
        params={"k": (0.1, 2), "made": (0.5, 3)},
        inputs=["s"],
        noise=0.01,
        experiments=[
            Experiment([0, 1], inputs={"s": now}, preequilibrate={"s": before})
        ],
    )
    slopes = ODESimulator(system, rtol=1e-9).sensitivities([[0.5, 1.3]])
    np.testing.assert_allclose(slopes[0, 0, 0], wanted, atol=1e-7)


def test_rest_does_not_depend_on_a_param_that_acts_only_later():
    system = ODESystem(
        lambda t, y, p, u: [1 + u.s - p.k * y.a],
        states={"a": 1.0},
        params={"k": (0.1, 2), "later": (0.5, 2)},
        inputs=["s"],
        noise=0.01,
        experiments=[
            Experiment([0, 1], inputs={"s": "later"}, preequilibrate={"s": 0.0})
        ],
    )
    slopes = ODESimulator(system, rtol=1e-9).sensitivities([[0.5, 1.0]])[0, :, 0]
    np.testing.assert_allclose(slopes[0], [-4, 0], atol=1e-9)
    assert slopes[1, 1] == pytest.approx((1 - np.exp(-0.5)) / 0.5, rel=1e-7)
