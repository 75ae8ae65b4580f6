"""The stiff solver is accurate, honest about failures, and blind to batch companions."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp as scipy_solve_ivp

from sklearn_inverse.ode import Status, solve_ivp
from sklearn_inverse.ode._newton import autodiff_jacobian


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
    assert errors[2] < errors[0]


def test_tightening_the_tolerance_costs_steps_as_a_fifth_order_method_does():
    # Steps grow as tol^(-1/(p+1)) with p = 3 of the estimate asked for rtol^(2/3), so
    # as rtol^(-1/6): a factor 10^(2/3) = 4.6 over four decades.
    t = tensor(0.0, 20.0)
    n_steps = [
        solve_ivp(van_der_pol, t, tensor([2.0, 0.0]), tensor([5.0]), rtol=rtol)
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
    jacobian = autodiff_jacobian(
        lambda t, y, p: torch.ones_like(y), tensor(0.0), tensor([1.0, 2.0]), None
    )
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
        ({"max_steps": 0}, "`max_steps` must be >= 1"),
        ({"t_eval": [1.0, 0.0]}, "in increasing order"),
        ({"t_eval": [0.0, torch.nan]}, "must be finite"),
        ({"t_eval": [[0.0, 1.0]] * 3}, "`t_eval` must have shape"),
        ({"y0": torch.ones(2)}, "`y0` must have shape"),
        ({"params": torch.ones(3, 1)}, "`params` must have shape"),
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
