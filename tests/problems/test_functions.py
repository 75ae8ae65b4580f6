"""Problems that are functions: closed forms, SciPy, conservation, finite differences."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from sklearn_inverse.problems import (
    billiards,
    kuramoto_sivashinsky,
    navier_stokes,
    wave_packet,
)
from sklearn_inverse.problems._billiards import CUE, RADIUS, aim
from sklearn_inverse.problems._navier_stokes import RADIUS as PULSE
from sklearn_inverse.problems._navier_stokes import (
    SIZE,
    VISCOSITY,
    NavierStokes,
    interpolate,
)

MODELS = {
    "wave_packet": wave_packet,
    "billiards": billiards,
    "kuramoto_sivashinsky": lambda: kuramoto_sivashinsky(time=5.0),
    "navier_stokes": lambda: navier_stokes(n_nodes=16, n_steps=3),
}


def draw(model, n_samples, seed=0):
    rng = np.random.RandomState(seed)
    params = torch.as_tensor(model.prior_.draw(n_samples, rng))
    if model.input_prior_ is None:
        return params, ()
    return params, (torch.as_tensor(model.input_prior_.draw(n_samples, rng)),)


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]().fit(None)


def test_gradients_are_finite_differences(model):
    params, inputs = draw(model, 4, seed=1)
    if "vx" in model.param_names_ and model.n_channels_ == 2:
        params = params * 0.1 + 0.9 * aim(*inputs, inputs[0] + inputs[0].new([0.2, 0]))
    trajectories = model.function(params.requires_grad_(), *inputs)
    weights = torch.randn(trajectories.shape, generator=torch.manual_seed(0)).double()
    (weights * trajectories).sum().backward()
    for j in range(params.shape[1]):
        off = torch.zeros_like(params)
        off[:, j] = 1e-6
        with torch.no_grad():
            up, down = (model.function(params + s * off, *inputs) for s in (1, -1))
        slope = (weights * (up - down)).flatten(1).sum(dim=1) / 2e-6
        size = params.grad.abs().max()
        torch.testing.assert_close(
            params.grad[:, j], slope, rtol=1e-5, atol=1e-6 * size
        )


def test_a_sample_alone_gives_its_row_of_the_batch(model):
    params, inputs = draw(model, 70 if model.n_times_ > 20 else 5)
    with torch.no_grad():
        batch = model.function(params, *inputs)
        alone = model.function(params[-1:], *(i[-1:] for i in inputs))
    assert batch.dtype == torch.float64
    torch.testing.assert_close(alone, batch[-1:], rtol=1e-9, atol=1e-9)


# --- billiards


def test_a_ball_hit_head_on_takes_nine_tenths_of_the_speed():
    model = billiards().fit(None)
    rest = model.simulate([[1.3, 0.0]], inputs=[[0.5, 0.5]])[0, 0]
    at_contact = 1.3 - (0.5 - CUE[0] - 2 * RADIUS)  # friction stops 1.3 after 1.3
    np.testing.assert_allclose(rest, [0.5 + 0.9 * at_contact, 0.5], atol=1e-10)
    short = model.simulate([[0.3399, 0.0], [0.3401, 0.0]], inputs=[[0.5, 0.5]] * 2)
    assert short[0, 0, 0] == 0.5 < short[1, 0, 0] < 0.501


def test_a_ball_that_is_missed_stays_where_it_is():
    params = torch.tensor([[1.0, 0.2], [1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]]).double()
    inputs = torch.tensor([[0.5, 0.5], [0.5, 0.57], [0.5, 0.5], [0.5, 0.5]]).double()
    rest = billiards().function(params.requires_grad_(), inputs)
    torch.testing.assert_close(rest[:, 0], inputs)
    rest.sum().backward()
    assert (params.grad == 0).all()


def test_collisions_are_those_of_a_simulation_in_small_steps():
    """Impulse -(1 + e)/2 (v n) n on equal masses, friction dv/dt = -v."""
    params, inputs = np.array([[1.2, 0.12]]), np.array([[0.5, 0.55]])
    x, v = np.array(CUE), params[0].copy()

    def rolled(time):
        return x + v * (1 - np.exp(-time))

    times = np.linspace(0, 1, 100_001)
    path = x + v * (1 - np.exp(-times))[:, None]
    time = times[np.argmax(np.linalg.norm(path - inputs, axis=1) < 2 * RADIUS)]
    normal = (inputs[0] - rolled(time)) / np.linalg.norm(inputs[0] - rolled(time))
    after = 0.9 * (v * np.exp(-time) @ normal) * normal
    rest = billiards().fit(None).simulate(params, inputs=inputs)[0, 0]
    np.testing.assert_allclose(rest, inputs[0] + after, atol=1e-3)


def test_aim_is_the_inverse():
    rng = np.random.default_rng(0)
    inputs = torch.as_tensor(rng.uniform([0.4, 0.3], [0.6, 0.7], size=(50, 2)))
    ahead = torch.atan2(inputs[:, 1] - CUE[1], inputs[:, 0] - CUE[0])
    angle = ahead + torch.as_tensor(rng.uniform(-0.7, 0.7, 50))
    way = torch.stack([angle.cos(), angle.sin()], dim=1)
    targets = inputs + torch.as_tensor(rng.uniform(0.1, 0.4, (50, 1))) * way
    rest = billiards().function(aim(inputs, targets), inputs)[:, 0]
    torch.testing.assert_close(rest, targets, rtol=0, atol=1e-12)


# --- Kuramoto–Sivashinsky


def test_kuramoto_sivashinsky_is_what_scipy_makes_of_it():
    model = kuramoto_sivashinsky(n_nodes=32, step=0.0125).fit(None)
    solver = model.function
    params, (inputs,) = draw(model, 1, seed=2)
    alpha, beta = params[0].numpy()
    k, n = solver.k, 32
    start = solver.initial(inputs)[0].numpy()

    def slope(t, y):
        v = y.view(complex)
        square = np.fft.rfft(np.fft.irfft(v, n=n) ** 2)[: len(k)]
        out = (k**2 - k**4) * v - 0.5j * k * beta * square
        out[1] += alpha * n / 2
        return out.view(float)

    end = solve_ivp(
        slope, (0, 25), start.view(float), "DOP853", rtol=1e-11, atol=1e-11
    ).y[:, -1]
    expected = np.fft.irfft(end.view(complex), n=n)
    found = model.simulate(params, inputs=inputs)[0, :, 0]
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_initial_states_are_the_waves_that_were_told():
    solver = kuramoto_sivashinsky().function
    inputs = torch.zeros(1, 16).double()
    inputs[0, 1], inputs[0, 10] = 2.0, -3.0  # a2 and b3
    x = 2 * np.pi * solver.nodes / 22
    expected = (2 * np.cos(2 * x) - 3 * np.sin(3 * x)) / np.sqrt(8)
    found = torch.fft.irfft(solver.initial(inputs), n=64)[0]
    np.testing.assert_allclose(found, expected, atol=1e-12)


# --- Navier–Stokes


def test_a_taylor_green_vortex_decays_as_it_should():
    solver = NavierStokes(64, 56, has_obstacles=False)
    k = 2 * np.pi / SIZE * 3
    u = torch.sin(k * solver.x) * torch.cos(k * solver.y)
    v = -torch.cos(k * solver.x) * torch.sin(k * solver.y)
    start = torch.stack([u, v])[None]
    with torch.no_grad():
        end = solver.run(start)
    share = np.exp(-2 * VISCOSITY * k**2 * 56)
    assert share < 0.7
    assert (end - share * start).abs().max() < 0.01 * share


def test_the_flow_is_free_of_divergence_and_stops_at_obstacles():
    model = navier_stokes().fit(None)
    solver = model.function
    params, (inputs,) = draw(model, 1)
    with torch.no_grad():
        waves = solver.confine(solver.stirred(inputs, 50.0) + solver.pulse(params))
        for _ in range(5):
            waves = solver.step(waves)
        u = torch.fft.irfft2(waves, s=(64, 64))[0]
    divergence = 1j * (solver.kx * waves[:, 0] + solver.ky * waves[:, 1])
    assert torch.fft.irfft2(divergence, s=(64, 64)).abs().max() < 1e-6
    assert u[:, solver.open > 0].abs().max() > 0.5
    inside = torch.hypot(solver.x - 70, solver.y - 50) < 4
    assert u[:, inside].square().mean() < 0.1 * u.square().mean()


def test_momentum_of_the_pulse_is_kept_where_nothing_stops_it():
    solver = NavierStokes(64, 10, has_obstacles=False)
    params = torch.tensor([[50.0, 50.0, 1.5, 2.0]]).double()
    with torch.no_grad():
        end = solver.run(solver.pulse(params))
    momentum = end.mean(dim=(2, 3))[0] * SIZE**2
    expected = 2 * np.pi * PULSE**2 * params[0, 2:]
    torch.testing.assert_close(momentum, expected, rtol=1e-6, atol=0)


def test_what_is_not_seen_matters():
    model = navier_stokes(n_nodes=32).fit(None)
    params, (inputs,) = draw(model, 2)
    with torch.no_grad():
        seen = model.function(params, inputs)
        truth = model.function(params, inputs, draw(model, 2, seed=1)[1][0])
    assert 1e-3 < (seen - truth).square().mean().sqrt() < 0.3


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: navier_stokes(n_nodes=15), "even number, 16 at least"),
        (lambda: navier_stokes(n_nodes=8), "even number, 16 at least"),
        (lambda: kuramoto_sivashinsky(n_nodes=16), "must be 24 at least"),
    ],
)
def test_too_few_nodes_are_refused(make, match):
    with pytest.raises(ValueError, match=match):
        make()


def test_nodes_need_be_no_power_of_two():
    fields = torch.arange(36.0).view(1, 1, 6, 6)
    shift = torch.tensor([-7.0, 1.0]).view(1, 2, 1, 1).expand(1, 2, 6, 6)
    moved = interpolate(fields, shift)
    assert torch.equal(moved, fields.roll((-1, 7), dims=(2, 3)))


@pytest.mark.parametrize(("time", "n_steps"), [(0.14, 2), (0.01, 1), (1.1, 11)])
def test_steps_end_at_the_time_that_was_asked_for(time, n_steps):
    solver = kuramoto_sivashinsky(time=time, step=0.1).function
    assert solver.n_steps == n_steps
    growth = solver.k**2 - solver.k**4
    np.testing.assert_allclose(solver.whole**n_steps, np.exp(time * growth))
