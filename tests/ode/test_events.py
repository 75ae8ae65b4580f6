"""Events: exact, each sample at its own times, and differentiable by times and changes."""

import numpy as np
import pytest
import torch
from scipy.linalg import expm

from sklearn_inverse.ode import Event, MassAction, Status, solve_ivp

pytest.importorskip("numba")

BACKENDS = ["compiled", "torch"]
RATES = np.array([[-0.11, 0.0], [0.11, -0.1]])
TIMES = np.array([0.0, 5.0, 11.0, 12.0, 12.0005, 12.05, 12.5, 15.0, 24.0])
Y0 = [[100.0, 100.0]]
TIGHT = {"method": "rodas5p", "rtol": 1e-9}


def matrix(value):
    return torch.as_tensor(value, dtype=torch.float64)


def two_compartments(t, y, p):
    """Params: rate out of the first, rate out of the second, dose, its time and length."""
    during = (t >= p[:, 3]) & (t < p[:, 3] + p[:, 4])
    rate = torch.where(during, p[:, 2] / p[:, 4], 0.0)
    passed = p[:, 0] * y[:, 0]
    return torch.stack([rate - passed, passed - p[:, 1] * y[:, 1]], dim=1)


def decay(t, y, p):
    return -p[:, :1] * y


def add_one(t, y, p):
    return y + 1


def give(t, y, p):
    return y + p[:, 2:3] * y.new_tensor([1.0, 0.0])


def infused(times, given, start, duration):
    """Solve both compartments by the matrix exponential, from (100, 100) at 0."""
    rows = []
    for t in times:
        y, now = np.array([100.0, 100.0, 1.0]), 0.0
        for end, rate in [
            (start, 0),
            (start + duration, given / duration),
            (np.inf, 0),
        ]:
            augmented = np.zeros((3, 3))
            augmented[:2, :2], augmented[0, 2] = RATES, rate
            step = min(max(t, now), end) - now
            y, now = expm(augmented * step) @ y, now + step
        rows.append(y[:2])
    return np.array(rows)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_bolus_is_exact_and_reported_at_its_own_time(backend):
    p = matrix([[0.11, 0.1, 100.0, -5.0, 1.0]])
    doses = [Event(time, give) for time in (12.0, 0.0, -1.0, 30.0)]
    options = TIGHT | {"backend": backend, "events": doses}
    y = solve_ivp(two_compartments, TIMES, Y0, p, **options).y[0].numpy()
    first = np.array([expm(RATES * t) @ [200.0, 100.0] for t in TIMES])
    second = [expm(RATES * max(t - 12, 0)) @ [100.0 * (t >= 12), 0.0] for t in TIMES]
    np.testing.assert_allclose(y, first + second, rtol=1e-8)


@pytest.mark.parametrize("backend", BACKENDS)
def test_infusions_however_short_are_found_and_exact_with_their_derivatives(backend):
    durations = [1.0, 0.1, 0.001]
    rows = [[0.11, 0.1, 100.0, 12.0, duration] for duration in durations]
    y0 = matrix([[100.0, 100.0]]).expand(3, 2)
    options = TIGHT | {"backend": backend, "sensitivities": True}
    solution = solve_ivp(two_compartments, TIMES, y0, matrix(rows), **options)
    for y, row in zip(solution.y.numpy(), rows):
        np.testing.assert_allclose(y, infused(TIMES, *row[2:]), rtol=1e-8)
    # By dose, time and duration, away from the corners at which outputs lie.
    at = [1, 2, 6, 7, 8]
    for s, row in zip(solution.sensitivities[:, at].numpy(), rows):
        for j, h in ((2, 1.0), (3, 1e-3), (4, 1e-2 * row[4])):
            steps = np.eye(5)[j] * h
            values = {
                k: infused(TIMES[at], *(row + k * steps)[2:]) for k in (-2, -1, 1, 2)
            }
            # Of fourth order.
            slope = 8 * (values[1] - values[-1]) - (values[2] - values[-2])
            slope /= 12 * h
            atol = 1e-6 * np.abs(slope).max()
            np.testing.assert_allclose(s[:, :, j], slope, rtol=0, atol=atol)


@pytest.mark.parametrize("backend", BACKENDS)
def test_fifty_doses_at_each_samples_own_times(backend):
    rng = np.random.default_rng(0)
    n = 20 if backend == "compiled" else 3
    when, k = (
        matrix(rng.uniform(0, 100, (n, 50))),
        matrix(rng.uniform(0.05, 0.5, (n, 1))),
    )
    doses = [Event(column, add_one) for column in when.unbind(1)]
    t = torch.linspace(0, 100, 41, dtype=torch.float64)
    options = TIGHT | {"backend": backend}
    y = solve_ivp(decay, t, torch.ones(n, 1), k, events=doses, **options).y
    since = t[None, :, None] - when[:, None]
    exact = torch.exp(-k * t)
    exact += torch.where(since >= 0, torch.exp(-k[:, :, None] * since), 0.0).sum(2)
    torch.testing.assert_close(y[..., 0], exact, rtol=1e-8, atol=0)
    alone = solve_ivp(
        decay,
        t,
        torch.ones(1, 1),
        k[2:3],
        events=[Event(column[2:3], add_one) for column in when.unbind(1)],
        **options,
    ).y
    exactly = {"rtol": 0, "atol": 0} if backend == "compiled" else {}
    torch.testing.assert_close(y[2:3], alone, **exactly)


def moved(t, y, p):
    """Make of the state what depends on all there is."""
    return p[:, 1:2] * y**2 + 0.1 * t[:, None] * y


@pytest.mark.parametrize(
    ("backend", "method"),
    [
        ("compiled", "rodas5p"),
        ("compiled", "tsit5"),
        ("torch", "radau5"),
        ("torch", "tsit5"),
    ],
)
def test_derivatives_by_time_and_change_are_those_of_the_closed_form(backend, method):
    t = torch.tensor([0.0, 0.5, 1.5, 2.0], dtype=torch.float64)

    def exact(p):  # decay at k up to b; then from what the event has made of it
        k, a, b = p.T[:, :, None]
        before = torch.exp(-k * b)
        after = a * before**2 + 0.1 * b * before
        return torch.where(t < b, torch.exp(-k * t), after * torch.exp(-k * (t - b)))

    p = matrix([[0.7, 1.3, 0.9], [1.1, 0.4, 1.7]]).requires_grad_()
    expected = torch.autograd.functional.jacobian(exact, p)
    expected = torch.stack([expected[i, :, i] for i in range(2)])
    event = Event(lambda p: p[:, 2], moved)
    options = {"method": method, "backend": backend, "rtol": 1e-10, "events": [event]}
    solution = solve_ivp(decay, t, torch.ones(2, 1), p, sensitivities=True, **options)
    torch.testing.assert_close(solution.y[..., 0], exact(p), rtol=1e-7, atol=0)
    found = solution.sensitivities[:, :, 0]
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)
    weights = torch.rand(2, 4, 1, dtype=torch.float64)
    (solution.y * weights).sum().backward()
    torch.testing.assert_close(
        p.grad, torch.einsum("btp,bt->bp", found, weights[..., 0])
    )


def test_gradients_of_more_samples_than_are_held_together():
    k = torch.linspace(0.1, 2.0, 150, dtype=torch.float64)[:, None].requires_grad_()
    when = torch.linspace(0.1, 0.9, 150, dtype=torch.float64)
    event = Event(when, add_one)
    y = solve_ivp(decay, [0.0, 1.0], torch.ones(150, 1), k, events=[event], **TIGHT).y
    y[:, -1].sum().backward()
    left = (1 - when)[:, None]
    expected = -torch.exp(-k) - left * torch.exp(-k * left)
    torch.testing.assert_close(k.grad, expected.detach(), rtol=1e-7, atol=0)


def test_simultaneous_events_happen_in_the_order_of_the_list():
    def double(t, y, p):
        return 2 * y

    k = torch.ones(2, 1, dtype=torch.float64)
    late = torch.tensor([1.0, 1.5], dtype=torch.float64)
    for events, values in (
        ([Event(1.0, add_one), Event(late, double)], [4.0, 2.0]),
        ([Event(late, double), Event(1.0, add_one)], [3.0, 2.0]),
    ):
        y = solve_ivp(lambda t, y, p: 0 * p, [0.0, 1.0, 2.0], k, k, events=events).y
        assert y[:, 1, 0].tolist() == values
        assert y[1, 2, 0] == 4.0


def test_simultaneous_jumps_are_differentiated_each_by_its_own_params():
    def pulses(t, y, p):  # the first ends as the second begins, at 1 and at p[1] = 1
        first = torch.where(t < p[:, 0], 2.0, 0.0)
        second = torch.where((t >= p[:, 1]) & (t < 3), 5.0, 0.0)
        third = torch.where(t >= 1, 7.0, 0.0)
        return (first + second + third)[:, None] + 0 * y

    k = matrix([[1.0, 1.0], [1.0, 1.5], [1.5, 1.0]])
    for events in ([], [Event(lambda p: p[:, 0], lambda t, y, p: y + t[:, None])]):
        options = {"sensitivities": True, "events": events}
        solution = solve_ivp(pulses, [0.0, 4.0], torch.zeros(3, 1), k, **options)
        extra = len(events)
        exact = 2 * k[:, 0] + 5 * (3 - k[:, 1]) + 21 + extra * k[:, 0]
        torch.testing.assert_close(solution.y[:, 1, 0], exact)
        expected = matrix([[2.0 + extra, -5.0]]).expand(3, 2)
        torch.testing.assert_close(solution.sensitivities[:, 1, 0], expected)


# -- right-hand sides that jump by themselves ----------------------------------------------


@pytest.mark.parametrize("method", ["rodas5p", "radau5", "tsit5"])
def test_a_pulse_shorter_than_a_step_is_not_missed(method):
    def gate(t, y, p):
        return torch.where((t > 5) & (t < 6), 1.0, 0.0)[:, None] * (1 - y) - y

    t = np.linspace(0, 10, 1001)
    y = solve_ivp(gate, t, [[0.0]], method=method, rtol=1e-8).y[0, :, 0]
    assert y[500] == 0
    assert y[600].item() == pytest.approx((1 - np.exp(-2)) / 2, rel=1e-8)


@pytest.mark.parametrize("method", ["rodas5p", "radau5"])
def test_an_exact_zero_is_lifted(method):
    def lifted(t, y, p):
        return 2 * (t > 2.3).double()[:, None] - 0.6 * y

    t = np.linspace(0, 10, 41)
    solution = solve_ivp(lifted, t, [[0.0]], method=method)
    exact = np.where(t > 2.3, 2 / 0.6 * (1 - np.exp(-0.6 * (t - 2.3))), 0.0)
    assert solution.success.all()
    np.testing.assert_allclose(solution.y[0, :, 0], exact, rtol=1e-5)


@pytest.mark.parametrize("method", ["rodas5p", "radau5", "tsit5"])
def test_params_that_act_through_comparisons_have_their_derivatives(method):
    def lag(t, y, p):
        return torch.where(t <= p[:, 0], 1.0, 2.0)[:, None].double()

    k = matrix([[0.4], [0.7]]).requires_grad_()
    options = {"method": method, "sensitivities": True}
    solution = solve_ivp(lag, [0.0, 1.0], torch.zeros(2, 1), k, **options)
    torch.testing.assert_close(solution.y[:, 1], 2 - k, rtol=1e-9, atol=0)
    torch.testing.assert_close(
        solution.sensitivities[:, 1, 0], matrix([[-1.0], [-1.0]])
    )
    (grad,) = torch.autograd.grad(solution.y[:, 1].sum(), k)
    torch.testing.assert_close(grad, matrix([[-1.0], [-1.0]]))


def test_tables_are_stopped_at_where_they_jump_and_not_where_they_bend():
    nodes = torch.linspace(1, 9, 5, dtype=torch.float64)
    levels = torch.tensor([0.0, 4.0, 0.0, 1.0, 0.0, 2.0], dtype=torch.float64)

    def steps(t, y, p):
        return levels[torch.searchsorted(nodes, t, right=True)][:, None] + 0 * y

    def bends(t, y, p):
        return (nodes - t[:, None]).abs().sum(1)[:, None] + (t[:, None] - 3).clamp(
            0
        ) * y

    y = solve_ivp(steps, np.arange(11.0), [[0.0]], rtol=1e-9).y[0, :, 0]
    exact = np.cumsum([0, 0, 4, 4, 0, 0, 1, 1, 0, 0, 2])
    np.testing.assert_allclose(y, exact, atol=1e-9)
    n_steps = solve_ivp(bends, [0.0, 2.0], [[0.0]]).stats["n_steps"]
    given = solve_ivp(bends, [0.0, 2.0], [[0.0]], events=[Event(1.0)]).stats["n_steps"]
    assert n_steps != given


def test_what_is_periodic_is_stopped_at_in_each_period():
    def daily(t, y, p):
        pulse, night = t % 24 < 0.1, t % 24 > p[:, 0]
        rate = torch.where(pulse, 10.0, 0.0) + torch.where(night, 1.0, 0.0)
        return rate[:, None] + 0 * y

    options = {"rtol": 1e-9, "sensitivities": True}
    solution = solve_ivp(daily, [0.0, 240.0], [[0.0]], matrix([[20.0]]), **options)
    assert solution.y[0, 1, 0].item() == pytest.approx(10 + 40, rel=1e-9)
    assert solution.sensitivities[0, 1, 0].item() == pytest.approx(-10, rel=1e-9)


# -- failures and errors -------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_sample_that_fails_harms_nobody(backend):
    def explode(t, y, p):
        return p * y**2

    k = matrix([[0.1], [0.7], [0.2]])
    options = {"method": "rodas5p", "backend": backend, "events": [Event(1.0, add_one)]}
    t = [0.0, 0.9, 1.0, 1.2, 1.4]
    k.requires_grad_()
    solution = solve_ivp(explode, t, torch.ones(3, 1), k, **options)
    assert solution.success.tolist() == [True, False, True]
    assert solution.y[1, :, 0].isnan().tolist() == [False, False, False, False, True]
    (grad,) = torch.autograd.grad(solution.y.nan_to_num().sum(), k)
    others = torch.tensor([0, 2])
    alone = k.detach()[others].requires_grad_()
    rest = solve_ivp(explode, t, torch.ones(2, 1), alone, **options)
    torch.testing.assert_close(solution.y[others], rest.y)
    (expected,) = torch.autograd.grad(rest.y.sum(), alone)
    torch.testing.assert_close(grad[others], expected)
    assert (solution.stats["n_steps"] > 0).all()


def test_a_time_that_is_undefined_costs_its_sample_alone():
    k = matrix([[1.0], [-1.0]])
    event = Event(lambda p: 0.5 * p[:, 0].log().exp(), add_one)
    solution = solve_ivp(decay, [0.0, 1.0], torch.ones(2, 1), k, events=[event])
    assert solution.status.tolist() == [Status.SUCCESS, Status.NON_FINITE]
    assert solution.y[0].isfinite().all()


def test_no_samples_and_no_params_are_let_pass():
    arguments = decay, [0.0, 0.5, 1.0]
    options = {"events": [Event(0.5, add_one)], "sensitivities": True}
    empty = solve_ivp(*arguments, torch.ones(0, 1), torch.ones(0, 1), **options)
    assert empty.sensitivities.shape == (0, 3, 1, 1)
    alone = solve_ivp(lambda t, y, p: -y, arguments[1], torch.ones(2, 1), **options)
    assert alone.sensitivities.shape == (2, 3, 1, 0)
    one = torch.ones(1, 1, dtype=torch.float64)
    assert solve_ivp(*arguments, one, one, backend="compiled").success.all()


def test_mass_action_takes_events():
    rhs = MassAction([[-1.0]], [[1]])
    for backend in BACKENDS:
        options = TIGHT | {"backend": backend, "events": [Event(101.0, add_one)]}
        y = solve_ivp(rhs, [100.0, 101.0, 102.0], [[1.0]], [[1.0]], **options).y
        after = 1 + np.exp(-1)
        np.testing.assert_allclose(y[0, 1:, 0], [after, after * np.exp(-1)], rtol=1e-8)


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (1.0, "must hold objects of class Event"),
        (Event(torch.ones(3)), r"of shape \(n_samples,\) = \(2,\)"),
        (Event(1.0, lambda t, y, p: y[:, 0]), "tensor of the shape of `y`"),
        (Event(1.0, lambda t, y, p: y.add_(1)), "must not change `y` in place"),
        (Event(torch.tensor(1.0, requires_grad=True)), "Hand them over in `params`"),
    ],
)
def test_wrong_events_are_refused(event, message):
    with pytest.raises(ValueError, match=message):
        solve_ivp(decay, [0.0, 2.0], torch.ones(2, 1), torch.ones(2, 1), events=[event])


def test_gradients_that_events_do_not_give_are_refused():
    y0 = torch.ones(1, 1, dtype=torch.float64, requires_grad=True)
    layer = torch.nn.Linear(1, 1, dtype=torch.float64)

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, t, y, params):
            return self.layer(y)

    for rhs, start in ((decay, y0), (Net(), y0.detach())):
        arguments = rhs, [0.0, 2.0], start, torch.ones(1, 1)
        with pytest.raises(ValueError, match="gradients are those by the params"):
            solve_ivp(*arguments, events=[Event(1.0)])
        with torch.no_grad():
            assert solve_ivp(*arguments, events=[Event(1.0)]).success.all()
