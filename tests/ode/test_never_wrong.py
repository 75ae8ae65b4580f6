"""What the solver returns with SUCCESS is right, whatever the right-hand side does.

Right values are closed forms, or computed by other means.
"""

import time

import numpy as np
import pytest
import torch
from scipy.linalg import expm

from sklearn_inverse.ode import Status, solve_ivp
from sklearn_inverse.ode._interface import ADAPTIVE


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


# --- outputs inside steps


def follower(t, y, params):
    """Return slopes of a fast state that follows an input, perhaps beside a slow one."""
    force = torch.cos(3 * t)[:, None]
    return torch.cat([-params * (y[:, :1] - force), force - y[:, 1:]], dim=1)


def follower_exactly(t, k):
    def forced(t):
        return (k**2 * np.cos(3 * t) + 3 * k * np.sin(3 * t)) / (k**2 + 9)

    return forced(t) - forced(0) * np.exp(-k * t)


@pytest.mark.parametrize("rtol", [1e-4, 1e-6, 1e-8])
@pytest.mark.parametrize("n_states", [1, 2], ids=["alone", "beside a slow state"])
@pytest.mark.parametrize(
    ("method", "rates"),
    [
        ("radau5", [1e2, 2e2, 1e3, 1e4, 1e6, 1e8]),
        ("rodas5p", [1e2, 1e4, 1e5, 1e6, 1e8]),
        ("tsit5", [1e1, 1e2]),
    ],
)
def test_a_state_that_follows_an_input_is_right_between_the_steps(
    method, rates, n_states, rtol
):
    t, k = np.linspace(0, 2, 21), tensor(*rates)[:, None]
    y0 = torch.zeros(len(k), n_states)
    solution = solve_ivp(follower, t, y0, k, method=method, rtol=rtol, atol=1e-9)
    assert solution.success.all()
    fast = np.stack([follower_exactly(t, rate) for rate in rates])
    assert np.abs(solution.y[..., 0].numpy() - fast).max() < 10 * rtol
    slow = (np.cos(3 * t) + 3 * np.sin(3 * t) - np.exp(-t)) / 10
    assert (
        np.abs(solution.y[..., 1:].numpy() - slow[:, None]).max(initial=0) < 10 * rtol
    )


@pytest.mark.parametrize("method", ["radau5", "rodas5p"])
def test_steps_that_end_on_outputs_are_differentiated_as_others(method):
    k, t = tensor([1e5]).requires_grad_(), np.linspace(0, 2, 21)
    solution = solve_ivp(
        follower,
        t,
        torch.zeros(1, 1),
        k,
        method=method,
        rtol=1e-8,
        atol=1e-12,
        sensitivities=True,
    )
    (by_k,) = torch.autograd.grad(solution.y[0, 7, 0], k)
    # dy/dk = 3 sin 3t / k² to leading order.
    expected = -3 * np.sin(3 * t[7]) / 1e10
    forced = (follower_exactly(t[7], 1e5 + 10) - follower_exactly(t[7], 1e5 - 10)) / 20
    assert solution.sensitivities[0, 7, 0, 0].item() == pytest.approx(
        by_k.item(), rel=1e-9
    )
    assert by_k.item() == pytest.approx(forced, rel=1e-3)
    assert abs(expected) == pytest.approx(abs(forced), rel=1e-3)


RUNS = [(method, "torch") for method in ADAPTIVE] + [
    (method, "compiled") for method in ("auto", "rodas5p", "tsit5")
]


@pytest.mark.parametrize("is_found", [True, False])
@pytest.mark.parametrize(("method", "backend"), RUNS)
def test_a_pulse_that_outputs_see_is_not_stepped_over(method, backend, is_found):
    def rhs(t, y, params):  # of the second, no trace tells the times
        pulse = (t > 5) & (t < 6) if is_found else (t * t > 25) & (t * t < 36)
        return pulse.to(y)[:, None] * (1 - y) - y

    t = np.linspace(0, 10, 1001)
    y = solve_ivp(rhs, t, [[0.0]], method=method, backend=backend).y[0, :, 0]
    during = (1 - np.exp(-2 * (t - 5))) / 2
    expected = np.where(t > 5, np.minimum(during, 0.4323324 * np.exp(6 - t)), 0.0)
    np.testing.assert_allclose(y, expected, atol=1e-5)


@pytest.mark.parametrize(("method", "backend"), RUNS)
def test_a_pulse_that_nothing_tells_of_is_found_by_short_steps(method, backend):
    def rhs(t, y, params):
        return ((t * t > 25) & (t * t < 36)).to(y)[:, None] * (1 - y) - y

    t, options = [0.0, 10.0], {"method": method, "backend": backend, "max_step": 0.9}
    solution = solve_ivp(rhs, t, [[0.0]], **options)
    expected = (1 - np.exp(-2)) / 2 * np.exp(-4)
    assert solution.y[0, 1, 0].item() == pytest.approx(expected, rel=1e-4)
    quiet = solve_ivp(lambda t, y, p: 0 * y, t, [[1.0]], **options)
    assert quiet.stats["n_steps"].item() >= 12


# --- small numbers


@pytest.mark.parametrize("is_found", [True, False])
@pytest.mark.parametrize("method", ADAPTIVE)
def test_a_jump_lifts_a_state_off_zero(method, is_found):
    def pulse(t, y, params):  # of the second, no trace tells the time
        is_on = t > 2.3 if is_found else t * t > 2.3**2
        return 2 * is_on[:, None].to(y) - 0.6 * y

    t = np.linspace(0, 10, 41)
    solution = solve_ivp(pulse, t, [[0.0]], method=method)
    expected = np.where(t > 2.3, 2 / 0.6 * (1 - np.exp(-0.6 * (t - 2.3))), 0.0)
    assert solution.success.all()
    np.testing.assert_allclose(solution.y[0, :, 0], expected, atol=1e-5)


@pytest.mark.parametrize("method", ADAPTIVE)
def test_a_blow_up_still_fails_and_the_message_says_where(method):
    solution = solve_ivp(lambda t, y, p: y**2, [0.0, 0.5, 2.0], [[1.0]], method=method)
    assert solution.status.item() == Status.STEP_UNDERFLOW
    assert solution.y[0, 1, 0].item() == pytest.approx(2.0, rel=1e-5)
    summary = solution.failure_summary()
    assert "at t = 1, where state 0" in summary
    assert "`atol`" in summary


@pytest.mark.parametrize("size", [1.66e-21, 1e-250, 1e250])
@pytest.mark.parametrize("method", ADAPTIVE)
def test_results_do_not_depend_on_units(method, size):
    """Binding in two steps, in moles per cell and others."""
    rates = np.array([[-3e3, 8e3, 0], [3e3, -9.5e3, 16e3], [0, 1.5e3, -16e3]])
    t = np.linspace(0, 1e-3, 21)
    y0 = tensor([1.0, 0.0, 0.0], [size, 0.0, 0.0])
    y = solve_ivp(
        lambda t, y, p: y @ torch.as_tensor(rates.T), t, y0, method=method, rtol=1e-7
    ).y
    expected = np.stack([expm(rates * time)[:, 0] for time in t])
    np.testing.assert_allclose(y[0, 1:], expected[1:], rtol=1e-6)
    np.testing.assert_allclose(y[1] / size, y[0], rtol=1e-9)


# --- derivatives that do not exist


ROOTS = {
    "sqrt": lambda y: torch.sqrt(y),
    "power": lambda y: y**0.5,
    "where": lambda y: torch.where(y > 0, torch.sqrt(y), torch.zeros_like(y)),
}


@pytest.mark.parametrize("root", ROOTS)
@pytest.mark.parametrize("method", ADAPTIVE)
def test_a_tank_fills_from_empty(method, root):
    solution = solve_ivp(
        lambda t, y, p: 1 - ROOTS[root](y), [0.0, 1.0], [[0.0]], method=method
    )
    assert solution.success.all()
    assert solution.y[0, -1, 0].item() == pytest.approx(0.4876095348, abs=2e-6)


@pytest.mark.parametrize("method", ADAPTIVE)
def test_a_root_of_a_state_that_is_lifted_by_another(method):
    def rhs(t, y, params):
        x, v = y.unbind(-1)
        return torch.stack([v, 1 - v.abs() * v - torch.sqrt(x.abs())], dim=-1)

    solution = solve_ivp(rhs, [0.0, 1.0], [[0.0, 0.0]], method=method)
    expected = tensor([0.34667072, 0.53899085])
    torch.testing.assert_close(solution.y[:, -1], expected, rtol=2e-5, atol=0)


@pytest.mark.parametrize("method", ["radau5", "rodas5p"])
def test_a_jacobian_beyond_repair_is_named(method):
    def rhs(t, y, params):  # finite at 1 only
        return torch.where(y == 1, -1 + 0 * torch.sqrt(y - 1), torch.nan)

    solution = solve_ivp(rhs, [0.0, 1.0], [[1.0]], method=method)
    assert solution.status.item() == Status.NON_FINITE_JACOBIAN
    assert "Jacobian" in solution.failure_summary()


def saturation(t, y, params):
    q, c = y.unbind(-1)
    power = c ** params[:, 0]
    return torch.stack([power / (0.3 ** params[:, 0] + power) - q, 1 - c], dim=-1)


@pytest.mark.parametrize(
    ("method", "n", "expected"),
    [
        ("radau5", 0.8, 0.233446),
        ("rodas5p", 1.5, 0.14462),
        ("tsit5", 0.8, 0.233446),
    ],
)
def test_sensitivities_to_a_power_of_what_starts_at_zero(method, n, expected):
    params = tensor([n]).requires_grad_()
    solution = solve_ivp(
        saturation,
        [0.0, 1.0, 5.0],
        [[0.0, 0.0]],
        params,
        method=method,
        sensitivities=True,
    )
    assert solution.success.all()
    assert solution.sensitivities.isfinite().all()
    assert solution.sensitivities[0, -1, 0, 0].item() == pytest.approx(
        expected, abs=1e-5
    )
    solution.y[0, -1, 0].backward()
    assert params.grad.item() == pytest.approx(expected, abs=1e-5)


def test_sensitivities_that_do_not_exist_have_a_status():
    def rhs(t, y, params):  # stays at zero, where the root has no derivative
        return -params * torch.sqrt(y)

    solution = solve_ivp(
        rhs,
        [0.0, 1.0],
        tensor([0.0], [9.0]),
        torch.ones(2, 1),
        method="radau5",
        sensitivities=True,
    )
    assert solution.status.tolist() == [Status.NON_FINITE_SENSITIVITY, Status.SUCCESS]
    assert (solution.y[0] == 0).all()
    # y = (3 - k t / 2)²
    assert solution.sensitivities[1, -1].item() == pytest.approx(-2.5, rel=1e-5)


@pytest.mark.parametrize("method", ADAPTIVE)
def test_gradient_by_the_start_of_what_depends_on_time_alone(method):
    y0 = tensor([0.5]).requires_grad_()
    t = np.linspace(0, 2, 31)
    y = solve_ivp(
        lambda t, y, p: torch.cos(t)[:, None].expand_as(y), t, y0, method=method
    ).y
    y[0, 7, 0].backward()
    assert y0.grad.item() == 1.0


CUT_OFF = {
    "states": lambda t, y, p: torch.tensor(-y.detach().numpy()),
    "in part": lambda t, y, p: -p * y + torch.tensor(0.3 * np.sin(y.detach().numpy())),
    "params": lambda t, y, p: -p.detach() * y,
    "numpy": lambda t, y, p: torch.tensor(-y.numpy()),
}


@pytest.mark.parametrize("rhs", CUT_OFF)
def test_a_rhs_that_is_cut_off_from_differentiation_is_refused(rhs):
    args = (CUT_OFF[rhs], [0.0, 1.0], tensor([1.0]))
    with pytest.raises(ValueError, match="cut off from automatic differentiation"):
        solve_ivp(*args, tensor([2.0]), method="tsit5", sensitivities=True)
    with pytest.raises(ValueError, match="cut off from automatic differentiation"):
        solve_ivp(*args, tensor([2.0]).requires_grad_(), method="tsit5")
    assert solve_ivp(*args, tensor([2.0]), method="tsit5").success.all()


# --- no end


@pytest.mark.parametrize("n_times", [2, 5, 21])
@pytest.mark.parametrize("method", ["rk4", "euler"])
def test_steps_of_given_size_notice_a_blow_up(method, n_times):
    t = np.linspace(0, 2, n_times)
    solution = solve_ivp(lambda t, y, p: y**2, t, [[1.0]], method=method)
    assert solution.status.item() == Status.UNSTABLE
    assert solution.y[0, -1].isnan().all()


JUMPS = {
    "sliding": lambda t, y, p: torch.where(y > 0.5, -1.0, 1.0).to(y),
    "chatter": lambda t, y, p: -torch.sign(y - 0.3),
    "random": lambda t, y, p: torch.randn(y.shape, dtype=y.dtype),
}


@pytest.mark.parametrize(
    ("method", "rhs"),
    [("radau5", "sliding"), ("radau5", "random"), ("rodas5p", "chatter")],
)
def test_what_leads_nowhere_ends_soon(method, rhs):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        start = time.process_time()  # of the whole process, torch's threads included
        solution = solve_ivp(JUMPS[rhs], [0.0, 10.0], [[0.7]], method=method)
    assert not solution.success.any()
    assert time.process_time() - start < 20
