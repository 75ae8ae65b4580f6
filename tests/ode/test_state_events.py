"""Events that states trigger: at their very time, differentiable, and never without end."""

import numpy as np
import pytest
import torch

from sklearn_inverse.ode import Event, MassAction, Status, solve_ivp

pytest.importorskip("numba")

RUNS = [
    ("compiled", "rodas5p"),
    ("torch", "rodas5p"),
    ("torch", "radau5"),
    ("torch", "tsit5"),
    ("compiled", "tsit5"),
]
BACKENDS = ["compiled", "torch"]


def matrix(value):
    return torch.as_tensor(value, dtype=torch.float64)


def columns(*values):
    return torch.stack(values, dim=1)


def fall(t, y, p):
    """Params: gravity, and the share of the speed that a bounce leaves."""
    return columns(y[:, 1], -p[:, 0] + 0 * y[:, 1])


BOUNCE = Event(
    when=lambda t, y, p: y[:, 0],
    change=lambda t, y, p: columns(y[:, 0], -p[:, 1] * y[:, 1]),
    direction=-1,
)


def ball(times, p, height=5.0):
    """Heights in closed form, differentiable by gravity and restitution."""
    g, e = p
    rows = []
    for t in times:
        start, speed, from_ = -((2 * height / g) ** 0.5), (2 * height * g) ** 0.5, 0
        while t > start + 2 * speed / g:
            start, speed = start + 2 * speed / g, e * speed
            from_ += 1
        rows.append(speed * (t - start) - g * (t - start) ** 2 / 2)
    return torch.stack(rows)


@pytest.mark.parametrize(("backend", "method"), RUNS)
def test_a_ball_bounces_as_in_closed_form_with_its_derivatives(backend, method):
    t = np.linspace(0, 6, 25)
    p = matrix([[9.81, 0.8], [3.0, 0.95]]).requires_grad_()
    options = {"backend": backend, "method": method, "rtol": 1e-9, "events": [BOUNCE]}
    y0 = matrix([[5.0, 0.0]]).expand(2, 2)
    solution = solve_ivp(fall, t, y0, p, sensitivities=True, **options)
    assert solution.success.all()
    for i, row in enumerate(p.detach()):
        exact = ball(t, row)
        torch.testing.assert_close(solution.y[i, :, 0], exact, rtol=0, atol=1e-10)
        slopes = torch.autograd.functional.jacobian(lambda row: ball(t, row), row)
        found = solution.sensitivities[i, :, 0]
        torch.testing.assert_close(found, slopes, rtol=0, atol=1e-8)
    weights = torch.rand(2, 25, 2, dtype=torch.float64)
    (solution.y * weights).sum().backward()
    expected = torch.einsum("btip,bti->bp", solution.sensitivities, weights)
    torch.testing.assert_close(p.grad, expected)


def test_no_sample_knows_of_the_others():
    p = columns(torch.full((20,), 9.81), torch.linspace(0.3, 0.99, 20)).double()
    y0 = matrix([[5.0, 0.0]]).expand(20, 2)
    options = {"backend": "compiled", "events": [BOUNCE]}
    together = solve_ivp(fall, np.linspace(0, 1.5, 7), y0, p, **options)
    for i in (0, 7, 19):
        one = slice(i, i + 1)
        alone = solve_ivp(fall, np.linspace(0, 1.5, 7), y0[one], p[one], **options)
        assert torch.equal(together.y[one], alone.y)
        assert together.stats["n_steps"][i] == alone.stats["n_steps"][0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_reported_at_the_very_time_is_the_state_after_it(backend):
    event = Event(when=lambda t, y, p: t - 1, change=lambda t, y, p: y + 1)
    t = [0.0, 1.0, 1.5, 2.0]
    options = {"backend": backend, "method": "rodas5p", "events": [event]}
    y = solve_ivp(lambda t, y, p: 0 * y, t, [[1.0]], **options).y
    assert y[0, :, 0].tolist() == [1.0, 2.0, 2.0, 2.0]
    last = solve_ivp(lambda t, y, p: 0 * y, [0.0, 1.0], [[1.0]], **options).y
    assert last[0, :, 0].tolist() == [1.0, 2.0]


# -- a relay with hysteresis ---------------------------------------------------------------


def room(t, y, p):
    """Temperature and heater; params: loss, power, lower and upper threshold."""
    return columns(p[:, 1] * y[:, 1] - p[:, 0] * y[:, 0], 0 * y[:, 1])


def switch(state):
    return lambda t, y, p: columns(y[:, 0], torch.full_like(y[:, 1], state))


THERMOSTAT = [
    Event(when=lambda t, y, p: y[:, 0] - p[:, 2], change=switch(1.0), direction=-1),
    Event(when=lambda t, y, p: y[:, 0] - p[:, 3], change=switch(0.0), direction=1),
]


def temperature(times, p, start):
    """Return the closed form, from ``start`` with the heater off."""
    k, power, low, high = p
    rows = []
    for t in times:
        now, value, heat = 0.0, matrix(start), 0.0
        while True:
            goal, edge = heat * power / k, high if heat else low
            until = now + torch.log((value - goal) / (edge - goal)) / k
            if t < until:
                break
            now, value, heat = until, edge, 1.0 - heat
        rows.append(goal + (value - goal) * torch.exp(-k * (t - now)))
    return torch.stack(rows)


@pytest.mark.parametrize(("backend", "method"), RUNS)
def test_a_thermostat_keeps_its_period_and_knows_its_thresholds(backend, method):
    t = np.linspace(0, 4, 14)
    p = matrix([[1.0, 30.0, 18.0, 22.0], [0.5, 20.0, 19.0, 20.0]])
    y0 = matrix([[20.5, 0.0]]).expand(2, 2)
    options = {"backend": backend, "method": method, "rtol": 1e-9}
    solution = solve_ivp(
        room, t, y0, p, events=THERMOSTAT, sensitivities=True, **options
    )
    assert solution.success.all()
    for i, row in enumerate(p):
        exact = temperature(t, row, 20.5)
        torch.testing.assert_close(solution.y[i, :, 0], exact, rtol=1e-7, atol=0)
        slopes = torch.autograd.functional.jacobian(
            lambda row: temperature(t, row, 20.5), row
        )
        found = solution.sensitivities[i, :, 0]
        torch.testing.assert_close(found, slopes, rtol=1e-6, atol=1e-6)


# -- what triggers -------------------------------------------------------------------------


def count_and_note(t, y, p):
    return columns(y[:, 0], y[:, 1] + 1, t)


def wave(t, y, p):
    return columns(torch.cos(t), 0 * t, 0 * t)


@pytest.mark.parametrize(("backend", "method"), RUNS)
@pytest.mark.parametrize(
    ("direction", "n", "last"),
    [(1, 2, 13 / 6), (-1, 2, 17 / 6), (0, 4, 17 / 6)],
)
def test_direction(backend, method, direction, n, last):
    event = Event(
        when=lambda t, y, p: y[:, 0] - 0.5, change=count_and_note, direction=direction
    )
    options = {"backend": backend, "method": method, "rtol": 1e-9, "events": [event]}
    y = solve_ivp(wave, [0.0, 10.0], [[0.0, 0.0, 0.0]], **options).y[0, -1]
    assert y[1] == n
    assert y[2].item() == pytest.approx(last * np.pi, rel=1e-8)


@pytest.mark.parametrize(("backend", "method"), RUNS)
def test_two_crossings_that_an_output_tells_apart_are_both_seen(backend, method):
    event = Event(when=lambda t, y, p: (t - 5) * (t - 5.1), change=count_and_note)
    options = {"backend": backend, "method": method, "events": [event]}
    t = [0.0, 5.05, 10.0]

    def still(t, y, p):
        return 0 * y

    y = solve_ivp(still, t, [[1.0, 0.0, 0.0]], **options).y[0]
    assert y[:, 1].tolist() == [0, 1, 2]
    assert y[1, 2].item() == pytest.approx(5, rel=1e-14)
    assert y[2, 2].item() == pytest.approx(5.1, rel=1e-14)


@pytest.mark.parametrize(("backend", "method"), RUNS[:3])
def test_a_state_that_follows_an_input_triggers_in_time(backend, method):
    def follow(t, y, p):  # y = sin t - cos t / 1e5 to first order
        return columns(-1e5 * (y[:, 0] - torch.sin(t)), 0 * t, 0 * t)

    event = Event(when=lambda t, y, p: y[:, 0] - 0.5, change=count_and_note)
    options = {"backend": backend, "method": method, "rtol": 1e-8, "atol": 1e-12}
    y = solve_ivp(follow, [0.0, 10.0], [[0.0, 0.0, 0.0]], events=[event], **options).y
    assert y[0, -1, 1] == 4
    assert y[0, -1, 2].item() == pytest.approx(17 / 6 * np.pi + 1e-5, abs=1e-7)


@pytest.mark.parametrize(("backend", "method"), RUNS)
def test_rates_may_jump_where_an_event_only_stops(backend, method):
    def two_speeds(t, y, p):
        return torch.where(y[:, 0] < p[:, 2], p[:, 0], p[:, 1])[:, None]

    event = Event(when=lambda t, y, p: y[:, 0] - p[:, 2])
    p = matrix([[1.0, 3.0, 0.7], [2.0, 0.5, 1.1]])
    options = {"backend": backend, "method": method, "rtol": 1e-9, "events": [event]}
    y0, t = torch.zeros(2, 1), [0.0, 2.0]
    solution = solve_ivp(two_speeds, t, y0, p, sensitivities=True, **options)

    def exact(p):
        slow, fast, edge = p.T
        return edge + fast * (2 - edge / slow)

    torch.testing.assert_close(solution.y[:, 1, 0], exact(p), rtol=1e-8, atol=0)
    slopes = torch.autograd.functional.jacobian(exact, p)
    slopes = columns(*[slopes[i, i] for i in range(2)]).mT
    found = solution.sensitivities[:, 1, 0]
    torch.testing.assert_close(found, slopes, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("backend", BACKENDS)
def test_those_at_given_times_happen_beside_them(backend):
    def decay(t, y, p):
        return -p[:, :1] * y

    events = [  # topped up below a quarter, and one more at 1
        Event(1.0, lambda t, y, p: y + 1),
        Event(
            when=lambda t, y, p: y[:, 0] - 0.25,
            change=lambda t, y, p: y + 0.75,
            direction=-1,
        ),
    ]
    k = matrix([[1.0], [2.0]])
    options = {"backend": backend, "method": "rodas5p", "rtol": 1e-9}
    y = solve_ivp(decay, [0.0, 2.0], torch.ones(2, 1), k, events=events, **options).y
    slow = (np.exp(-1) + 1) * np.exp(-1)
    refill = np.log(4) / 2  # before the dose, and after it
    at_dose = np.exp(-2 * (1 - refill)) + 1
    later = 1 + np.log(4 * at_dose) / 2
    fast = np.exp(-2 * (2 - later))
    np.testing.assert_allclose(y[:, 1, 0], [slow, fast], rtol=1e-8)


def test_mass_action_takes_them():
    refill = Event(when=lambda t, y, p: y[:, 0] - 0.5, change=lambda t, y, p: 2 * y)
    rhs = MassAction([[-1.0]], [[1]])
    for backend in BACKENDS:
        options = {"method": "rodas5p", "backend": backend, "rtol": 1e-9}
        y = solve_ivp(rhs, [0.0, 1.0], [[1.0]], [[1.0]], events=[refill], **options).y
        assert y[0, 1, 0].item() == pytest.approx(2 * np.exp(-1), rel=1e-8)


# -- how it ends ---------------------------------------------------------------------------


@pytest.mark.parametrize(("backend", "method"), RUNS)
def test_a_terminal_event_ends_its_sample_alone(backend, method):
    def decay(t, y, p):
        return -p * y

    event = Event(when=lambda t, y, p: y[:, 0] - 0.5, terminal=True)
    k = matrix([[1.0], [0.1]]).requires_grad_()
    t = [0.0, 0.3, 0.6, 0.9]
    options = {"backend": backend, "method": method, "rtol": 1e-9, "events": [event]}
    solution = solve_ivp(decay, t, torch.ones(2, 1), k, **options)
    assert solution.status.tolist() == [Status.TERMINATED, Status.SUCCESS]
    assert solution.success.all()
    assert solution.failure_summary() == ""
    assert solution.stats["t_reached"][0].item() == pytest.approx(np.log(2), rel=1e-8)
    assert solution.y[0, :, 0].isnan().tolist() == [False, False, False, True]
    assert solution.y[1].isfinite().all()
    solution.y.nan_to_num().sum().backward()
    expected = [-0.3 * np.exp(-0.3) - 0.6 * np.exp(-0.6)]
    expected += [-sum(t * np.exp(-0.1 * t) for t in (0.3, 0.6, 0.9))]
    np.testing.assert_allclose(k.grad[:, 0], expected, rtol=1e-7)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("restitution", [0.5, 1e-3])
def test_endless_bounces_end(backend, restitution):
    p, y0 = matrix([[10.0, restitution], [10.0, 0.95]]), matrix([[5.0, 0.0]])
    options = {"backend": backend, "method": "rodas5p", "events": [BOUNCE]}
    t = [0.0, 0.5, 4.0]
    solution = solve_ivp(fall, t, y0.expand(2, 2), p, **options)
    assert solution.status.tolist() == [Status.NO_PROGRESS, Status.SUCCESS]
    rest = (1 + restitution) / (1 - restitution)  # when the ball has come to rest
    assert solution.stats["t_reached"][0].item() == pytest.approx(rest, rel=1e-5)
    assert solution.y[0, :, 0].isnan().tolist() == [False, False, True]
    assert "faster" in solution.failure_summary()


def test_more_events_than_steps_are_too_many():
    event = Event(when=lambda t, y, p: torch.sin(20 * t), change=count_and_note)
    options = {"events": [event], "max_steps": 30}
    solution = solve_ivp(wave, np.linspace(0, 10, 400), [[0.0, 0.0, 0.0]], **options)
    assert solution.status.item() == Status.MAX_STEPS
    assert solution.stats["t_reached"].item() == pytest.approx(30 * np.pi / 20)


def test_no_samples_are_let_pass():
    y0, p = torch.ones(0, 2), torch.ones(0, 2)
    solution = solve_ivp(fall, [0.0, 1.0], y0, p, events=[BOUNCE], sensitivities=True)
    assert solution.sensitivities.shape == (0, 2, 2, 2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_guard_that_is_undefined_costs_its_sample_alone(backend):
    event = Event(when=lambda t, y, p: torch.sqrt(p[:, 0] - t) + 1)
    options = {"backend": backend, "method": "rodas5p", "events": [event]}
    k = matrix([[0.5], [2.0]])
    solution = solve_ivp(lambda t, y, p: -y, [0, 1.0], torch.ones(2, 1), k, **options)
    assert solution.status.tolist() == [Status.NON_FINITE, Status.SUCCESS]


def test_what_cannot_be_traced_runs_in_torch():
    def when(t, y, p):
        return y[:, 0] - (p[:, 0] if p[0, 0].item() > 0 else 0)

    arguments = lambda t, y, p: -y, [0.0, 1.0], [[1.0]], [[0.5]]
    event = Event(when=when, change=lambda t, y, p: 2 * y)
    y = solve_ivp(*arguments, events=[event], rtol=1e-9).y
    assert y[0, 1, 0].item() == pytest.approx(2 * np.exp(-1), rel=1e-8)
    with pytest.raises(ValueError, match="`backend='compiled'`"):
        solve_ivp(*arguments, events=[event], backend="compiled")


def test_steps_of_given_size_are_not_for_them():
    for options in ({"method": "rk4"}, {"step_size": 0.1}):
        arguments = fall, [0.0, 3.0], [[5.0, 0.0]], [[9.81, 0.8]]
        with pytest.raises(ValueError, match="needs steps that follow the error"):
            solve_ivp(*arguments, events=[BOUNCE], **options)


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (Event(), "either `time` or `when`"),
        (Event(1.0, when=lambda t, y, p: t), "either `time` or `when`"),
        (Event(when=lambda t, y, p: t, direction=2), "`direction` of an event must be"),
        (Event(1.0, direction=1), "those of an event with `when`"),
        (Event(1.0, terminal=True), "those of an event with `when`"),
        (
            Event(when=lambda t, y, p: y),
            r"`when\(t, y, params\)` of an event must return",
        ),
        (Event(when=lambda t, y, p: y.sub_(1)[:, 0]), "must not change `y` in place"),
    ],
)
def test_wrong_events_are_refused(event, message):
    with pytest.raises(ValueError, match=message):
        solve_ivp(lambda t, y, p: -y, [0.0, 2.0], torch.ones(2, 1), events=[event])
