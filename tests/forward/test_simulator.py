"""The simulator reproduces published solutions, and one bad sample harms no other."""

import numpy as np
import pytest
import torch

from sklearn_inverse import ODESimulator, ODESystem
from sklearn_inverse.exceptions import IntegrationWarning
from sklearn_inverse.ode import solve_ivp
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


def solve_to_reference(system, method, rtol):
    params = torch.as_tensor(system.nominal)[None]
    times = [system.times[0], system.reference.time]
    solution = solve_ivp(
        system.rhs,
        times,
        system.initial_state(params),
        params,
        method=method,
        rtol=rtol,
        jac=system.jac,
    )
    assert solution.success.all()
    return solution.y[0, -1].numpy()


# The rates of Robertson's reactions cancel to ten digits at t = 1e11, and Rosenbrock stages
# feel that round-off more than collocation does.
@pytest.mark.parametrize(
    ("method", "rtol", "error"), [("radau5", 1e-10, 1e-8), ("rodas5p", 1e-7, 1e-6)]
)
@pytest.mark.parametrize("make_system", SYSTEMS, ids=lambda f: f.__name__)
def test_published_reference_is_reproduced(make_system, method, rtol, error):
    system = make_system()
    y = solve_to_reference(system, method, rtol)
    np.testing.assert_allclose(y, system.reference.states, rtol=error)


def test_pollu_keeps_its_three_invariants():
    system = pollu()
    assert len(system.invariants) == 3
    rng = np.random.default_rng(0)
    params = system.nominal * rng.uniform(0.5, 1.5, size=(4, 25))
    trajectories = ODESimulator(system).simulate(params)
    conserved = trajectories @ system.invariants.T
    np.testing.assert_allclose(conserved, conserved[:, :1] + 0 * conserved, rtol=1e-9)


def explosive(t, y, params):
    """Explode where the param is positive: y = 1 / (1 - k t)."""
    return params * y**2


@pytest.fixture
def explosive_system():
    return ODESystem(
        explosive, initial_state=[1.0], bounds=[[-2.0, 2.0]], times=[0.0, 0.4, 1.0]
    )


def test_failed_samples_are_counted_in_one_warning_and_harm_nobody(explosive_system):
    simulator = ODESimulator(explosive_system)
    with pytest.warns(IntegrationWarning, match="1 of 3 samples") as record:
        trajectories = simulator.simulate([[-1.0], [2.0], [0.5]])
    assert len(record) == 1
    assert np.isnan(trajectories[:, :, 0]).tolist() == [
        [False] * 3,
        [False, False, True],
        [False] * 3,
    ]
    np.testing.assert_allclose(
        trajectories[2, :, 0], 1 / (1 - 0.5 * np.array([0, 0.4, 1])), rtol=1e-5
    )


def test_result_does_not_depend_on_n_jobs_or_chunks():
    system = lotka_volterra()
    low, high = system.bounds.T
    params = np.random.default_rng(0).uniform(low, high, size=(5, 4))
    alone = ODESimulator(system, chunk_size=2).simulate(params)
    spread = ODESimulator(system, chunk_size=2, n_jobs=2).simulate(params)
    np.testing.assert_array_equal(alone, spread)
    together = ODESimulator(system, chunk_size=5).simulate(params)
    np.testing.assert_allclose(together, alone, rtol=1e-10)


def test_forward_takes_unit_params_and_agrees_with_simulate():
    simulator = ODESimulator(lotka_volterra())
    unit = torch.tensor([[0.2, 0.4, 0.6, 0.8]], dtype=torch.float64)
    params = simulator.scaler_.to_physical(unit.numpy())
    np.testing.assert_allclose(
        simulator.forward(unit).numpy(), simulator.simulate(params), rtol=1e-10
    )


def test_forward_refuses_the_wrong_number_of_params():
    with pytest.raises(ValueError, match="`unit_params` must have shape"):
        ODESimulator(lotka_volterra()).forward(torch.rand(2, 3))


def test_forward_hands_gradients_back_that_equal_the_sensitivities():
    simulator = ODESimulator(lotka_volterra(unknown_initial_state=True), rtol=1e-8)
    unit = torch.full((2, 6), 0.4, dtype=torch.float64, requires_grad=True)
    y = simulator.forward(unit)
    (by_unit,) = torch.autograd.grad(y[1, -1, 0], unit)
    params = simulator.scaler_.to_physical(unit.detach().numpy())
    sensitivities = simulator.sensitivities(params)
    assert sensitivities.shape == (2, 21, 2, 6)
    # Params are on a log10 scale: dk/du = k ln(10) width.
    by_params = sensitivities[1, -1, 0] * params[1]
    expected = by_params * np.log(10) * simulator.scaler_.width
    assert (by_unit[0] == 0).all()
    np.testing.assert_allclose(by_unit[1], expected, rtol=1e-9)


def observe_sum_and_scaled(t, y, params):
    """Report a sum of states, and a state on an unknown scale that drifts with time."""
    scaled = params[..., 1] * (1 + t) * y[..., 0]
    return torch.stack([y.sum(-1), scaled], dim=-1)


def decay_and_growth(t, y, params):
    return torch.stack([-params[:, 0] * y[:, 0], params[:, 0] * y[:, 0]], dim=-1)


def test_sensitivities_pass_through_the_instrument():
    system = ODESystem(
        decay_and_growth,
        initial_state=[2.0, 0.5],
        bounds=[[0.5, 2.0], [1.0, 3.0]],
        times=[0.0, 1.0, 3.0],
        observe=observe_sum_and_scaled,
    )
    t = system.times
    sensitivities = ODESimulator(system, rtol=1e-9).sensitivities([[0.7, 1.5]])
    decayed = 2 * np.exp(-0.7 * t)
    np.testing.assert_allclose(sensitivities[0, :, 0], 0, atol=1e-8)
    by_rate, by_scale = sensitivities[0, :, 1].T
    np.testing.assert_allclose(by_rate, -1.5 * (1 + t) * t * decayed, rtol=1e-6)
    np.testing.assert_allclose(by_scale, (1 + t) * decayed, rtol=1e-6)


def first_param_decay(t, y, params):
    return -params[:, :1] * y


def accumulate(t, y, params):
    """Report what has come by until each time, on a scale, and a constant."""
    total = torch.cumsum(y, dim=1) * params.squeeze(1)[:, None, 1:]
    return torch.cat([total, torch.ones_like(total)], dim=-1)


def test_sensitivities_through_an_instrument_with_a_memory():
    system = ODESystem(
        first_param_decay,
        initial_state=[1.0],
        bounds=[[0.5, 2.0], [1.0, 3.0]],
        times=[0.0, 0.5, 1.5],
        observe=accumulate,
    )
    sensitivities = ODESimulator(system, rtol=1e-9).sensitivities([[0.7, 1.5]])
    t = system.times
    decayed = np.exp(-0.7 * t)
    by_rate, by_scale = sensitivities[0, :, 0].T
    np.testing.assert_allclose(by_rate, 1.5 * np.cumsum(-t * decayed), rtol=1e-6)
    np.testing.assert_allclose(by_scale, np.cumsum(decayed), rtol=1e-6)
    assert (sensitivities[0, :, 1] == 0).all()


def test_failed_samples_have_no_sensitivities(explosive_system):
    simulator = ODESimulator(explosive_system)
    with pytest.warns(IntegrationWarning, match="1 of 2 samples"):
        sensitivities = simulator.sensitivities([[2.0], [0.5]])
    assert np.isnan(sensitivities[0, 2]).all()
    assert np.isfinite(sensitivities[1]).all()


@pytest.mark.parametrize(
    ("method", "step_size", "tol"),
    [("rk4", 0.02, 1e-6), ("radau3", 0.02, 1e-4), ("tsit5", None, 1e-4)],
)
def test_other_methods_and_steps_of_given_size(method, step_size, tol):
    system = lotka_volterra()
    exact = ODESimulator(system, rtol=1e-9).simulate(system.nominal[None])
    simulator = ODESimulator(system, method=method, step_size=step_size)
    trajectories = simulator.simulate(system.nominal[None])
    np.testing.assert_allclose(trajectories, exact, rtol=tol)


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
