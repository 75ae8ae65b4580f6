"""Gradients and sensitivities are exact, agree with each other, and know no companions."""

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_inverse.ode import METHODS, Status, solve_ivp
from sklearn_inverse.ode._interface import ADAPTIVE
from sklearn_inverse.problems import hires, pollu, van_der_pol

TIMES = [0.0, 0.1, 0.25, 0.4]


def forced_van_der_pol(t, y, params):
    """Non-autonomous, nonlinear, and without a Jacobian in closed form."""
    y1, y2 = y.unbind(-1)
    force = params[:, 1] * torch.sin(t)
    return torch.stack([y2, params[:, 0] * (1 - y1**2) * y2 - y1 + force], dim=-1)


def random_problem(n_samples=3):
    generator = torch.Generator().manual_seed(0)
    options = {"dtype": torch.float64, "generator": generator}
    y0 = 1 + torch.rand(n_samples, 2, **options)
    params = 2 + torch.rand(n_samples, 2, **options)
    return y0.requires_grad_(), params.requires_grad_()


@pytest.mark.parametrize("method", METHODS)
def test_gradcheck_with_steps_of_given_size(method):
    def solve(y0, params):
        options = {"method": method, "step_size": 0.1}
        return solve_ivp(forced_van_der_pol, TIMES, y0, params, **options).y

    assert torch.autograd.gradcheck(solve, random_problem())


@pytest.mark.parametrize("method", METHODS)
def test_sensitivities_equal_reverse_mode_through_initial_states_too(method):
    _, params = random_problem()

    def y0_of(params):
        return torch.stack([params[:, 0] ** 2, params[:, 0] * params[:, 1]], dim=-1) / 9

    step_size = None if method in ADAPTIVE else 0.1
    solution = solve_ivp(
        forced_van_der_pol,
        TIMES,
        y0_of,
        params,
        method=method,
        step_size=step_size,
        sensitivities=True,
    )
    by_params = torch.stack(
        [
            torch.autograd.grad(solution.y[:, i, j].sum(), params, retain_graph=True)[0]
            for i in range(len(TIMES))
            for j in range(2)
        ],
        dim=1,
    )
    sensitivities = solution.sensitivities.flatten(1, 2)
    assert sensitivities.abs().max() > 0.1
    torch.testing.assert_close(sensitivities, by_params, rtol=1e-12, atol=1e-13)


def finite_differences(solve, params, j, step=1e-3):
    """Differentiate by param ``j``: central differences, extrapolated once."""
    slopes = []
    for h in (step, step / 2):
        up, down = params.clone(), params.clone()
        up[:, j] *= 1 + h
        down[:, j] *= 1 - h
        slopes.append((solve(up) - solve(down)) / (2 * h * params[:, j]))
    return (4 * slopes[1] - slopes[0]) / 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make_system", "t_end", "columns"),
    [
        pytest.param(pollu, 60.0, [0, 24], marks=pytest.mark.slow),
        pytest.param(hires, 321.8122, [6], marks=pytest.mark.slow),
        (van_der_pol, 700.0, [0]),
    ],
    ids=["pollu", "hires", "van_der_pol"],
)
def test_stiff_derivatives_equal_finite_differences(make_system, t_end, columns):
    system = make_system()
    params = torch.as_tensor(system.nominal)[None]
    times = [system.times[0], t_end]

    def solve(params, rtol=1e-11, **kwargs):
        return solve_ivp(
            system.rhs,
            times,
            system.initial_state,
            params,
            method="radau5",
            rtol=rtol,
            jac=system.jac,
            **kwargs,
        )

    tracked = params.clone().requires_grad_()
    solution = solve(tracked, sensitivities=True)
    forward = solution.sensitivities[0, -1]
    weights = 1 / solution.y[0, -1].detach()  # every state counts, however small
    (weights * solution.y[0, -1]).sum().backward()
    torch.testing.assert_close(tracked.grad[0], weights @ forward, rtol=1e-9, atol=0)

    size = (forward * params).abs().amax(1)
    for j in columns:
        expected = finite_differences(lambda p: solve(p).y[0, -1], params, j)
        error = (forward[:, j] - expected).abs() * params[0, j] / size
        assert error.max() < 1e-6


@pytest.mark.parametrize("method", ADAPTIVE)
def test_derivatives_do_not_depend_on_companions(method):
    y0, params = random_problem(5)

    def solve(rows):
        k = params[rows].detach().requires_grad_()
        solution = solve_ivp(
            forced_van_der_pol,
            [0.0, 0.7, 3.0],
            y0[rows].detach(),
            k,
            method=method,
            sensitivities=True,
        )
        solution.y.square().sum().backward()
        return k.grad, solution.sensitivities

    together = solve(slice(None))
    alone = [torch.cat(x) for x in zip(*(solve(slice(i, i + 1)) for i in range(5)))]
    for got, expected in zip(together, alone):
        torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("method", ["rk4", "radau5", "rodas5p"])
def test_weights_of_a_network_get_their_gradient(method):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2)).double()

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = layers

        def forward(self, t, y, params):
            return self.layers(y)

    def loss():
        solution = solve_ivp(
            Net(), [0.0, 0.5, 1.0], torch.ones(4, 2), method=method, step_size=0.25
        )
        return solution.y[:, 1:].square().sum()

    loss().backward()
    weight = layers[0].weight
    got = weight.grad[3, 1].item()
    values = []
    for h in (1e-5, -1e-5):
        with torch.no_grad():
            weight[3, 1] += h
            values.append(loss().item())
            weight[3, 1] -= h
    assert got == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-6)


def test_a_failed_sample_has_no_sensitivities_and_leaves_the_others_theirs():
    def explosion(t, y, params):
        return params * y**2

    k = torch.tensor([[2.0], [0.5]], dtype=torch.float64, requires_grad=True)
    solution = solve_ivp(
        explosion, [0.0, 0.25, 0.75], torch.ones(2, 1), k, sensitivities=True
    )
    assert solution.status.tolist() == [Status.STEP_UNDERFLOW, Status.SUCCESS]
    assert solution.sensitivities[0, 2].isnan().all()
    # y = 1 / (1 - k t), so dy/dk = t y².
    expected = 0.75 / (1 - 0.5 * 0.75) ** 2
    assert solution.sensitivities[1, 2].item() == pytest.approx(expected, rel=1e-5)
    solution.y[:, 2].nan_to_num().sum().backward()
    assert k.grad.tolist() == [[0.0], [pytest.approx(expected, rel=1e-5)]]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "rhs",
    [
        lambda t, y, params: torch.ones_like(y),
        lambda t, y, params: -y,
        lambda t, y, params: torch.sign(params) * y,
    ],
    ids=["constant", "no params", "sign of params"],
)
def test_what_has_no_derivative_has_sensitivity_zero(method, rhs):
    k = torch.ones(2, 1)
    solution = solve_ivp(
        rhs, [0.0, 0.1], k, k, method=method, step_size=0.05, sensitivities=True
    )
    assert solution.sensitivities.tolist() == [[[[0.0]]] * 2] * 2
    without = solve_ivp(
        lambda t, y, params: -y, [0.0, 0.1], k, method=method, sensitivities=True
    )
    assert without.sensitivities.shape == (2, 2, 1, 0)


@pytest.mark.parametrize("method", ADAPTIVE)
def test_gradient_through_outputs_within_steps_where_nothing_has_a_derivative(method):
    y0 = torch.ones(1, 1, dtype=torch.float64, requires_grad=True)
    t = np.linspace(0, 1, 21)
    solve_ivp(
        lambda t, y, p: torch.ones_like(y), t, y0, method=method
    ).y.sum().backward()
    assert y0.grad.item() == pytest.approx(21)


def test_weights_that_would_get_no_gradient_are_refused():
    layer = nn.Linear(1, 1).double()
    with pytest.raises(ValueError, match=r"make `rhs` a torch.nn.Module"):
        solve_ivp(lambda t, y, params: layer(y), [0.0, 1.0], torch.ones(1, 1))
    with torch.no_grad():
        assert solve_ivp(lambda t, y, p: layer(y), [0.0, 1.0], torch.ones(1, 1)).success


def test_gradient_has_the_precision_of_its_leaf():
    k = torch.tensor([[1.0]], requires_grad=True)
    solve_ivp(
        lambda t, y, p: -p * y, [0.0, 1.0], torch.ones(1, 1), k
    ).y.sum().backward()
    assert k.grad.dtype == torch.float32
    assert k.grad.item() == pytest.approx(-np.exp(-1), rel=1e-5)


def test_a_failed_sample_with_gradient_by_its_start_spreads_no_nan():
    y0 = torch.ones(2, 1, dtype=torch.float64, requires_grad=True)
    k = torch.tensor([[2.0], [0.5]], dtype=torch.float64)
    y = solve_ivp(lambda t, y, p: p * y**2, [0.0, 0.75], y0, k).y
    torch.where(y.isnan(), 0.0, (y - 1) ** 2).sum().backward()
    assert y0.grad.isfinite().all()


def test_nothing_is_recorded_where_no_gradient_is_asked_for():
    y0, params = random_problem()
    with torch.no_grad():
        assert not solve_ivp(forced_van_der_pol, TIMES, y0, params).y.requires_grad
    detached = solve_ivp(forced_van_der_pol, TIMES, y0.detach(), params.detach())
    assert not detached.y.requires_grad
    assert detached.sensitivities is None


def test_gradient_by_initial_states_of_a_stiff_decay_keeps_its_relative_accuracy():
    y0 = torch.ones(1, 1, dtype=torch.float64, requires_grad=True)

    def decay(t, y, params):
        return -50 * y

    solution = solve_ivp(decay, np.linspace(0, 1, 3), y0, rtol=1e-10)
    solution.y[0, -1, 0].backward()
    assert y0.grad.item() == pytest.approx(np.exp(-50), rel=1e-6)
