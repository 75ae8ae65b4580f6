"""The simulator reproduces published solutions, and one bad sample harms no other."""

import copy

import numpy as np
import pytest
import torch

from sklearn_inverse import ODESimulator, ODESystem
from sklearn_inverse.exceptions import IntegrationWarning
from sklearn_inverse.problems import (
    grn,
    hires,
    lotka_volterra,
    oregonator,
    pollu,
    robertson,
    van_der_pol,
)

SYSTEMS = [grn, hires, lotka_volterra, oregonator, pollu, robertson, van_der_pol]


LONG = {oregonator, van_der_pol}  # of thousands of steps, which cost radau5 a minute


@pytest.mark.parametrize(
    ("make_system", "method"),
    [(make_system, "rodas5p") for make_system in SYSTEMS]
    + [
        pytest.param(make, "radau5", marks=[pytest.mark.slow] if make in LONG else [])
        for make in SYSTEMS
    ],
)
def test_published_reference_is_reproduced(make_system, method):
    system = copy.copy(make_system())
    times = [np.array([system.times[0], system.reference.time])]
    system = system.at_times(times, system.noise)
    simulator = ODESimulator(system, method=method, rtol=1e-7)
    states = simulator.simulate(system.nominal[None])[0, -1]
    np.testing.assert_allclose(states, system.reference.states, rtol=1e-6)


def test_pollu_keeps_its_three_invariants():
    system = pollu()
    assert len(system.invariants) == 3
    rng = np.random.default_rng(0)
    params = system.nominal * rng.uniform(0.5, 1.5, size=(4, 25))
    trajectories = ODESimulator(system).simulate(params)
    conserved = trajectories @ system.invariants.T
    np.testing.assert_allclose(conserved, conserved[:, :1] + 0 * conserved, rtol=1e-9)


def explosive(t, y, p):
    """Explode where the param is positive: y = 1 / (1 - k t)."""
    return p.k * y.x**2


@pytest.fixture(scope="module")
def explosive_system():
    return ODESystem(
        explosive, states={"x": 1.0}, params={"k": (-2.0, 2.0)}, times=[0.0, 0.4, 1.0]
    )


def test_failed_samples_are_counted_in_one_warning_and_harm_nobody(explosive_system):
    simulator = ODESimulator(explosive_system, max_steps=200)
    with pytest.warns(IntegrationWarning, match="1 of 3 samples") as record:
        trajectories = simulator.simulate([[-1.0], [2.0], [0.5]])
    assert len(record) == 1
    assert record[0].filename == __file__
    assert np.isnan(trajectories[:, :, 0]).tolist() == [
        [False] * 3,
        [False, False, True],
        [False] * 3,
    ]
    np.testing.assert_allclose(
        trajectories[2, :, 0], 1 / (1 - 0.5 * np.array([0, 0.4, 1])), rtol=1e-5
    )


def test_an_attempt_says_nothing_of_failures_but_tells_them(explosive_system):
    simulator = ODESimulator(explosive_system, max_steps=200)
    trajectories, is_solved = simulator.attempt([[-1.0], [2.0]])
    assert is_solved.tolist() == [True, False]
    assert np.isnan(trajectories[1, 2, 0])


def test_what_is_solved_but_not_finite_is_no_failure():
    system = ODESystem(
        lambda t, y, p: [p.k],
        states={"x": 0.0},
        params={"k": (0.5, 2.0)},
        times=[0.0, 1.0],
        observe={"log_x": lambda t, y, p: np.log10(y.x), "x": "x"},
        noise=0.1,
    )
    simulator = ODESimulator(system)
    trajectories = simulator.simulate([[1.0]])  # without a warning
    np.testing.assert_allclose(trajectories, [[[-np.inf, 0.0], [0.0, 1.0]]], atol=1e-9)
    assert simulator.attempt([[1.0]])[1].all()


def test_result_does_not_depend_on_n_jobs_or_chunks():
    system = lotka_volterra()
    low, high = system.bounds.T
    params = np.random.default_rng(0).uniform(low, high, size=(5, 4))
    alone = ODESimulator(system, chunk_size=2).simulate(params)
    spread = ODESimulator(system, chunk_size=2, n_jobs=2).simulate(params)
    np.testing.assert_array_equal(alone, spread)
    together = ODESimulator(system, chunk_size=5).simulate(params)
    np.testing.assert_allclose(together, alone, rtol=1e-10)


def test_forward_takes_scaled_params_and_agrees_with_simulate():
    simulator = ODESimulator(lotka_volterra())
    scaled = torch.tensor([[0.2, 0.4, 0.6, 0.8]], dtype=torch.float64)
    params = simulator.param_scaler_.from_scaled(scaled.numpy())
    np.testing.assert_allclose(
        simulator.forward(scaled).numpy(), simulator.simulate(params), rtol=1e-10
    )


def test_it_knows_what_its_system_states():
    system = lotka_volterra()
    simulator = ODESimulator(system)
    assert simulator.prior_ == system.prior
    assert simulator.noise_ == system.noise
    assert simulator.param_names_ == system.param_names
    assert simulator.observable_names_ == ["hare", "lynx"]
    assert (simulator.n_times_, simulator.n_channels_, simulator.n_params_) == (
        21,
        2,
        4,
    )
    assert simulator.is_exact
    assert simulator.is_ready
    assert not simulator.error_.any()
    assert simulator.fit(None) is simulator


def test_auto_leaves_what_is_compiled_on_the_cpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    system = pollu()
    assert ODESimulator(system).device_for("auto").type == "cpu"
    assert ODESimulator(system, backend="torch").device_for("auto").type == "cuda"
    assert ODESimulator(system).device_for("cuda").type == "cuda"


def test_truncated_it_gives_the_first_times():
    simulator = ODESimulator(lotka_volterra(), rtol=1e-8)
    params = simulator.system.nominal[None]
    short = simulator.truncate(6)
    np.testing.assert_array_equal(short.times_, np.arange(6.0))
    np.testing.assert_allclose(
        short.simulate(params), simulator.simulate(params)[:, :6], rtol=1e-6
    )
    assert simulator.truncate(21) is simulator


def test_jacobian_is_that_of_forward():
    simulator = ODESimulator(lotka_volterra(), rtol=1e-9)
    scaled = torch.full((1, 4), 0.4, dtype=torch.float64)
    trajectories, jacobian = simulator.linearize(scaled)
    torch.testing.assert_close(trajectories, simulator.forward(scaled))
    step = 1e-4 * torch.eye(4, dtype=torch.float64)
    up, down = simulator.forward(scaled + step), simulator.forward(scaled - step)
    expected = (up - down).movedim(0, -1) / 2e-4
    torch.testing.assert_close(jacobian[0], expected, rtol=1e-4, atol=1e-4)


def test_columns_are_taken_by_their_names(frame):
    system = lotka_volterra()
    simulator = ODESimulator(system)
    params = frame(dict(zip(system.param_names, system.bounds)))
    swapped = simulator.simulate(params[system.param_names[::-1]])
    np.testing.assert_array_equal(swapped, simulator.simulate(params))


def test_forward_refuses_the_wrong_number_of_params():
    with pytest.raises(ValueError, match="`scaled_params` must have shape"):
        ODESimulator(lotka_volterra()).forward(torch.rand(2, 3))


def test_forward_hands_gradients_back_that_equal_the_sensitivities():
    simulator = ODESimulator(lotka_volterra(unknown_initial_state=True), rtol=1e-8)
    scaled = torch.full((2, 6), 0.4, dtype=torch.float64, requires_grad=True)
    y = simulator.forward(scaled)
    (by_scaled,) = torch.autograd.grad(y[1, -1, 0], scaled)
    params = simulator.param_scaler_.from_scaled(scaled.detach().numpy())
    sensitivities = simulator.sensitivities(params)
    assert sensitivities.shape == (2, 21, 2, 6)
    # Params are on a log10 scale: dk/dx = k ln(10) width.
    by_params = sensitivities[1, -1, 0] * params[1]
    expected = by_params * np.log(10) * simulator.param_scaler_.width
    assert (by_scaled[0] == 0).all()
    np.testing.assert_allclose(by_scaled[1], expected, rtol=1e-9)


def test_sensitivities_pass_through_the_instrument():
    system = ODESystem(
        lambda t, y, p: [-p.rate * y.x, p.rate * y.x],
        states={"x": 2.0, "z": 0.5},
        params={"rate": (0.5, 2.0), "scale": (1.0, 3.0)},
        times=[0.0, 1.0, 3.0],
        observe={
            "total": lambda t, y, p: y.x + y.z,
            "drifting": lambda t, y, p: p.scale * (1 + t) * y.x,
        },
    )
    t = system.times
    sensitivities = ODESimulator(system, rtol=1e-9).sensitivities([[0.7, 1.5]])
    decayed = 2 * np.exp(-0.7 * t)
    np.testing.assert_allclose(sensitivities[0, :, 0], 0, atol=1e-8)
    by_rate, by_scale = sensitivities[0, :, 1].T
    np.testing.assert_allclose(by_rate, -1.5 * (1 + t) * t * decayed, rtol=1e-6)
    np.testing.assert_allclose(by_scale, (1 + t) * decayed, rtol=1e-6)


def test_failed_samples_have_no_sensitivities(explosive_system):
    simulator = ODESimulator(explosive_system, max_steps=200)
    with pytest.warns(IntegrationWarning, match="1 of 2 samples"):
        sensitivities = simulator.sensitivities([[2.0], [0.5]])
    assert np.isnan(sensitivities[0, 2]).all()
    assert np.isfinite(sensitivities[1]).all()


@pytest.mark.parametrize(
    ("method", "step_size", "tol"),
    [("rk4", 0.02, 1e-6), ("radau3", 0.05, 1e-4), ("tsit5", None, 1e-4)],
)
def test_other_methods_and_steps_of_given_size(method, step_size, tol):
    system = lotka_volterra(times=range(5))
    exact = ODESimulator(system, rtol=1e-9).simulate(system.nominal[None])
    simulator = ODESimulator(system, method=method, step_size=step_size)
    trajectories = simulator.simulate(system.nominal[None])
    np.testing.assert_allclose(trajectories, exact, rtol=tol)


def test_short_steps_find_what_no_trace_tells():
    system = ODESystem(
        lambda t, y, p: [p.rate * ((t * t > 25) * (t * t < 36) - y[0])],
        states={"x": 0.0},
        params={"rate": (1, 3)},
        times=[0.0, 10.0],
    )
    found = ODESimulator(system, max_step=0.9).simulate([[2.0]])[0, 1, 0]
    assert found == pytest.approx(np.exp(-8) - np.exp(-10), rel=1e-4)


def test_verbose_shows_a_progress_bar(capsys, explosive_system):
    ODESimulator(explosive_system, verbose=1).simulate([[0.1]])
    assert "Simulating explosive: 100%" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kwargs", "params", "message"),
    [
        ({"rtol": -1.0}, [[0.1]], "The 'rtol' parameter of ODESimulator must be"),
        (
            {"method": "magic"},
            [[0.1]],
            "The 'method' parameter of ODESimulator must be",
        ),
        ({"step_size": 0.0}, [[0.1]], "The 'step_size' parameter of ODESimulator must"),
        ({"device": "tpu9"}, [[0.1]], "`device` must be 'auto', 'cpu'"),
        ({"device": "cuda:99"}, [[0.1]], "a GPU that is not there"),
        (
            {},
            [[0.1, 0.2]],
            r"`params` must have shape \(n_samples, n_params\) with n_par",
        ),
        ({}, [[np.nan]], "params contains NaN"),
        ({}, [["x"]], "could not convert string to float"),
    ],
)
def test_wrong_input_is_refused_at_the_door(explosive_system, kwargs, params, message):
    with pytest.raises(ValueError, match=message):
        ODESimulator(explosive_system, **kwargs).simulate(params)


def test_parameters_that_change_between_calls_are_validated_again():
    simulator = ODESimulator(pollu())
    params = pollu().nominal[None]
    simulator.simulate(params)
    simulator.rtol = -1.0
    with pytest.raises(ValueError, match="rtol"):
        simulator.simulate(params)
