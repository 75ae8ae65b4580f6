"""The stiff solver is accurate, honest about failures, and blind to batch companions."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp as scipy_solve_ivp

from sklearn_inverse.ode import METHODS, Status, solve_ivp
from sklearn_inverse.ode._rhs import rowwise_jacobian


def decay(t, y, params):
    return -params * y


def prothero_robinson(t, y, params):
    return params * (y - torch.cos(t)[:, None]) - torch.sin(t)[:, None]


def van_der_pol(t, y, params):
    y1, y2 = y.unbind(-1)
    return torch.stack([y2, params[:, 0] * (1 - y1**2) * y2 - y1], dim=-1)


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("stiffness", [-1.0, -1e3, -1e6])
def test_error_follows_the_tolerance_on_a_stiff_non_autonomous_problem(stiffness):
    t = np.linspace(0, 5, 11)
    errors = []
    for rtol in (1e-4, 1e-6, 1e-8):
        solution = solve_ivp(
            prothero_robinson, t, tensor([1.0]), tensor([stiffness]), rtol=rtol
        )
        errors.append(np.abs(solution.y[0, -1, 0].item() - np.cos(t[-1])))
        assert errors[-1] < 10 * rtol
    assert errors[2] < max(errors[0], rtol)


@pytest.mark.slow
def test_tightening_the_tolerance_costs_steps_as_a_fifth_order_method_does():
    # Steps grow as tol^(-1/(p+1)) with p = 3 of the estimate asked for rtol^(2/3), so
    # as rtol^(-1/6): a factor 10^(2/3) = 4.6 over four decades.
    t = tensor(0.0, 20.0)
    n_steps = [
        solve_ivp(
            van_der_pol,
            t,
            tensor([2.0, 0.0]),
            tensor([5.0]),
            method="radau5",
            rtol=rtol,
        )
        .stats["n_accepted"]
        .item()
        for rtol in (1e-6, 1e-10)
    ]
    assert 3.5 < n_steps[1] / n_steps[0] < 6.0


def test_dense_output_agrees_with_scipy():
    t = np.linspace(0, 60, 121)
    ours = solve_ivp(van_der_pol, t, tensor([2.0, 0.0]), tensor([30.0]), rtol=1e-8)
    theirs = scipy_solve_ivp(
        lambda t, y: [y[1], 30 * (1 - y[0] ** 2) * y[1] - y[0]],
        (0, 60),
        [2.0, 0.0],
        t_eval=t,
        method="Radau",
        rtol=1e-11,
        atol=1e-13,
    )
    np.testing.assert_allclose(ours.y[0, :, 0], theirs.y[0], rtol=2e-6)


def test_tiny_states_are_resolved_relative_to_themselves():
    y0 = tensor([1e-17, 1.0])
    solution = solve_ivp(decay, [0.0, 1.0], y0, tensor([2.0, 1.0]))
    expected = [1e-17 * np.exp(-2), np.exp(-1)]
    np.testing.assert_allclose(solution.y[0, -1], expected, rtol=1e-3)
    tighter = solve_ivp(decay, [0.0, 1.0], y0, tensor([2.0, 1.0]), atol=1e-26)
    np.testing.assert_allclose(tighter.y[0, -1], expected, rtol=1e-6)


def test_alone_or_in_a_batch_a_sample_comes_out_the_same():
    generator = torch.Generator().manual_seed(0)
    mu = 10 ** (3 * torch.rand(7, 1, dtype=torch.float64, generator=generator))
    y0 = tensor([2.0, 0.0]).expand(7, 2)
    t = torch.linspace(0, 30, 31)
    together = solve_ivp(van_der_pol, t, y0, mu).y
    alone = torch.cat(
        [solve_ivp(van_der_pol, t, y0[:1], mu[i, None]).y for i in range(7)]
    )
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-12)


def test_closed_form_and_automatic_jacobian_give_the_same_solution():
    def jac(t, y, params):
        y1, y2 = y.unbind(-1)
        mu = params[:, 0]
        zero, one = torch.zeros_like(y1), torch.ones_like(y1)
        rows = [zero, one, -2 * mu * y1 * y2 - 1, mu * (1 - y1**2)]
        return torch.stack(rows, dim=-1).reshape(-1, 2, 2)

    args = (van_der_pol, [0.0, 10.0], tensor([2.0, 0.0]), tensor([100.0]))
    given, derived = solve_ivp(*args, jac=jac), solve_ivp(*args)
    torch.testing.assert_close(given.y, derived.y, rtol=1e-12, atol=0)


def test_automatic_jacobian_of_a_constant_rhs_is_zero():
    jacobian = rowwise_jacobian(torch.ones_like, tensor([1.0, 2.0]))
    assert jacobian.shape == (1, 2, 2)
    assert (jacobian == 0).all()


def test_a_sample_that_blows_up_is_nan_from_there_on_and_harms_nobody():
    def explosion(t, y, params):
        return params * y**2  # y = 1 / (1 - k t): infinite at t = 1 / k

    t = tensor(0.0, 0.25, 0.75, 1.0)
    k = tensor([2.0], [0.5])
    solution = solve_ivp(explosion, t, torch.ones(2, 1), k)
    assert solution.status.tolist() == [Status.STEP_UNDERFLOW, Status.SUCCESS]
    assert solution.y[0, :2, 0].tolist() == pytest.approx([1.0, 2.0], rel=5e-6)
    assert solution.y[0, 2:].isnan().all()
    alone = solve_ivp(explosion, t, torch.ones(1, 1), k[1:])
    torch.testing.assert_close(solution.y[1:], alone.y, rtol=1e-12, atol=0)
    assert "1 of 2 samples" in solution.failure_summary()
    assert Status.STEP_UNDERFLOW.sentence in solution.failure_summary()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_non_finite_params_fail_their_own_sample_only(bad):
    solution = solve_ivp(decay, [0.0, 1.0], torch.ones(2, 1), tensor([bad], [1.0]))
    assert solution.status.tolist() == [Status.NON_FINITE, Status.SUCCESS]
    assert solution.y[1].isfinite().all()


def test_a_rhs_that_turns_nan_on_the_way_is_a_failure_not_a_hang():
    def breaks(t, y, params):
        return torch.where(t[:, None] > params, torch.nan, -y)

    solution = solve_ivp(
        breaks, [0.0, 0.4, 1.0], torch.ones(2, 1), tensor([0.5], [2.0])
    )
    assert solution.status[0] != Status.SUCCESS
    assert solution.y[0, 1].isfinite().all()
    assert solution.y[0, 2].isnan().all()
    assert solution.status[1] == Status.SUCCESS


def test_max_steps_is_reported():
    solution = solve_ivp(
        van_der_pol, [0.0, 100.0], tensor([2.0, 0.0]), tensor([1000.0]), max_steps=5
    )
    assert solution.status.item() == Status.MAX_STEPS
    assert solution.stats["n_steps"].item() == 5
    assert "max_steps" in solution.failure_summary()


def test_degenerate_time_grids_and_batches_are_defined():
    one = torch.ones(1, 1)
    k = tensor([1.0])
    single = solve_ivp(decay, [0.0], one, k)
    assert single.y.shape == (1, 1, 1)
    assert single.success.all()
    repeated = solve_ivp(decay, [0.0, 0.0, 1.0, 1.0], one, k).y[0, :, 0]
    assert repeated[0] == repeated[1] == 1
    assert repeated[2] == repeated[3]
    assert solve_ivp(decay, [0.0, 1.0], torch.ones(0, 1), torch.ones(0, 1)).y.shape == (
        0,
        2,
        1,
    )


@pytest.mark.parametrize("method", METHODS)
def test_every_method_knows_degenerate_grids_and_batches(method):
    def solve(t, n_samples=1, **kwargs):
        y0 = torch.ones(n_samples, 1)
        return solve_ivp(decay, t, y0, y0, method=method, **kwargs)

    assert solve([0.0, 1.0], n_samples=0, sensitivities=True).sensitivities.shape == (
        0,
        2,
        1,
        1,
    )
    single = solve([3.0], sensitivities=True)
    assert single.y.tolist() == [[[1.0]]]
    assert single.sensitivities.tolist() == [[[[0.0]]]]
    assert single.success.all()
    assert solve([2.0, 2.0, 2.0]).y.flatten().tolist() == [1.0, 1.0, 1.0]
    repeated = solve([0.0, 0.0, 0.1, 0.1, 0.2], sensitivities=True)
    assert repeated.success.all()
    assert repeated.y[0, 0] == repeated.y[0, 1] == 1
    assert repeated.y[0, 2] == repeated.y[0, 3]
    assert repeated.sensitivities[0, 2] == repeated.sensitivities[0, 3] < 0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n_states", [1, 100])
def test_one_state_and_a_hundred(method, n_states):
    """Heat conduction along a rod, whose slowest mode decays as it must."""

    def heat(t, y, params):
        padded = torch.nn.functional.pad(y, (1, 1))
        return params * (padded[:, 2:] - 2 * y + padded[:, :-2])

    x = torch.arange(1, n_states + 1, dtype=torch.float64) / (n_states + 1)
    y0 = torch.sin(torch.pi * x)[None]
    rate = 4 * np.sin(np.pi / (2 * (n_states + 1))) ** 2
    solution = solve_ivp(
        heat, [0.0, 0.5, 1.0], y0, tensor([1.0]), method=method, step_size=0.05
    )
    assert solution.success.all()
    got = (solution.y[0, -1] / y0[0]).numpy()
    tol = 0.12 if "euler" in method else 2e-3
    np.testing.assert_allclose(got, np.exp(-rate), rtol=tol)


def test_a_singular_jacobian_is_no_trouble():
    def singular(t, y, params):  # ∂f/∂y has rank one, f does not
        total = y.sum(-1, keepdim=True)
        return torch.cat([-total, total - torch.cos(t)[:, None]], dim=-1)

    for method in ("radau5", "rodas5p"):
        solution = solve_ivp(singular, [0.0, 5.0], tensor([1.0, 1.0]), method=method)
        assert solution.success.all()
        # The sum s obeys s' = -cos t, and y1' = -s.
        y1 = 1 - 2 * 5 + (1 - np.cos(5.0))
        assert solution.y[0, -1, 0].item() == pytest.approx(y1, rel=1e-5)


def test_newton_is_damped_where_full_steps_lead_away():
    # y = h arctan-like: the full Newton iteration for one huge step diverges.
    def saturating(t, y, params):
        return -100 * torch.atan(y - 5)

    solution = solve_ivp(
        saturating, [0.0, 10.0], tensor([-60.0], [60.0]), method="backward_euler"
    )
    assert solution.success.all()
    residual = (
        solution.y[:, -1] - solution.y[:, 0] - 10 * saturating(0, solution.y[:, -1], 0)
    )
    assert residual.abs().max() < 1e-9


def test_newton_failure_with_steps_of_given_size_is_reported():
    def no_root(t, y, params):  # y = 1 + h (1 + y²) has no real solution for h = 1
        return params * (1 + y**2)

    solution = solve_ivp(
        no_root,
        [0.0, 1.0, 2.0],
        torch.ones(2, 1),
        tensor([1.0], [-0.2]),
        method="backward_euler",
    )
    assert solution.status.tolist() == [Status.NEWTON_FAILURE, Status.SUCCESS]
    assert solution.y[0, 1:].isnan().all()
    assert solution.y[1].isfinite().all()
    assert "step_size" in solution.failure_summary()


def test_a_discontinuous_rhs_is_passed_or_reported_never_a_hang():
    def jump(t, y, params):
        return torch.where(t[:, None] < 0.5, 1.0, -1e8 * (y - 3))

    for method in ("radau5", "rodas5p"):
        solution = solve_ivp(jump, [0.0, 1.0], torch.ones(1, 1), method=method)
        assert solution.success.all()
        assert solution.y[0, -1, 0].item() == pytest.approx(3.0, rel=1e-6)


@pytest.mark.parametrize("method", ["tsit5", "radau5", "rodas5p"])
def test_a_jump_comes_at_its_own_time_wherever_the_clock_starts(method):
    def dose(t, y, params):  # no derivative by time, and yet not autonomous
        return torch.where(t[:, None] < 10.5, 1.0, 0.0) + 0 * y

    y = solve_ivp(dose, [10.0, 11.0], [[1.0]], method=method, atol=1e-8).y
    assert y[0, -1, 0].item() == pytest.approx(1.5, rel=1e-3)


@pytest.mark.parametrize("method", ["euler", "tsit5", "rk4", "rodas5p"])
def test_explosion_with_steps_of_given_size_is_seen(method):
    def explosion(t, y, params):
        return params * y**3

    solution = solve_ivp(
        explosion,
        [0.0, 0.1, 100.0],
        torch.ones(2, 1),
        tensor([5.0], [-1.0]),
        method=method,
        step_size=0.1,
    )
    seen = Status.NON_FINITE if method == "rodas5p" else Status.UNSTABLE
    assert solution.status.tolist() == [seen, Status.SUCCESS]
    assert solution.y[0, 2].isnan().all()


def test_equal_steps_lead_from_one_output_time_to_the_next():
    times = [0.0, 0.25, 1.0, 1.1]
    one = solve_ivp(decay, times, torch.ones(1, 1), tensor([1.0]), method="rk4")
    assert one.stats["n_steps"].item() == 3
    some = solve_ivp(
        decay, times, torch.ones(1, 1), tensor([1.0]), method="rk4", step_size=0.2
    )
    assert some.stats["n_steps"].item() == 2 + 4 + 1
    at_once = solve_ivp(
        decay,
        times,
        torch.ones(1, 1),
        tensor([1.0]),
        method="radau5",
        step_size=float("inf"),
    )
    assert at_once.stats["n_steps"].item() == 3


def test_lists_pass_through_no_single_precision():
    y = solve_ivp(decay, [0.0, 0.1], [[0.3]], [[0.7]], rtol=1e-10).y[0, -1, 0].item()
    assert y == pytest.approx(0.3 * np.exp(-0.07), rel=1e-10)


def test_each_sample_may_have_its_own_times():
    t = tensor([0.0, 1.0, 2.0], [1.0, 1.5, 4.0])
    y = solve_ivp(decay, t, torch.ones(2, 1), torch.ones(2, 1)).y[..., 0]
    torch.testing.assert_close(y, torch.exp(-(t - t[:, :1])), rtol=5e-6, atol=0)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"method": "rk99"}, "`method` must be one of"),
        ({"rtol": 0.0}, "`rtol` must be > 0"),
        ({"atol": -1.0}, "`atol` must be >= 0"),
        ({"atol": [1.0, 1.0]}, r"`atol` must be a number or have shape \(n_states,\)"),
        ({"rhs": lambda t, y, p: y.float()}, "in double precision. Got torch.float32"),
        ({"jac": lambda t, y, p: y}, r"`jac\(t, y, params\)` must return a tensor"),
        ({"rtol": "small"}, "`rtol` must be > 0. Got 'small'"),
        ({"max_steps": 2.5}, "`max_steps` must be an integer >= 1"),
        ({"step_size": True}, "`step_size` must be > 0 or None. Got True"),
        ({"y0": torch.ones(2, 0)}, "with n_states >= 1"),
        ({"y0": torch.ones(2, 1) * 1j}, "`y0` must be real"),
        ({"rhs": lambda t, y, p: y.mul_(-1)}, "must not change `y` in place"),
        ({"step_size": -0.1}, "`step_size` must be > 0 or None"),
        ({"max_step": 0.0}, "`max_step` must be > 0 or None"),
        ({"max_step": 1.0, "step_size": 1.0}, "make `step_size` smaller"),
        ({"max_step": 1.0, "method": "rk4"}, "by 'rk4' without, steps are of given"),
        ({"y0": lambda p: p[:, 0]}, "`y0` must have shape"),
        ({"y0": torch.ones_like, "params": None}, "only if there are some"),
        ({"max_steps": 0}, "`max_steps` must be an integer >= 1"),
        ({"t_eval": [1.0, 0.0]}, "in increasing order"),
        ({"t_eval": [0.0, torch.nan]}, "must be finite"),
        ({"t_eval": [[0.0, 1.0]] * 3}, "`t_eval` must have shape"),
        ({"y0": torch.ones(2)}, "`y0` must have shape"),
        ({"params": torch.ones(3, 1)}, "must have one row per sample each"),
        ({"rhs": lambda t, y, p: y[:, 0]}, "must return a tensor of the shape of `y`"),
        ({"rhs": lambda t, y, p: 1.0}, "Got float instead"),
    ],
)
def test_wrong_input_is_refused_at_the_door(kwargs, message):
    given = {
        "rhs": decay,
        "t_eval": [0.0, 1.0],
        "y0": torch.ones(2, 1),
        "params": torch.ones(2, 1),
    } | kwargs
    with pytest.raises(ValueError, match=message):
        solve_ivp(
            given.pop("rhs"),
            given.pop("t_eval"),
            given.pop("y0"),
            given.pop("params"),
            **given,
        )
