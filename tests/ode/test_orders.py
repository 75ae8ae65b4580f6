"""Methods converge at their order, and reproduce the oracles that METHODS name."""

import numpy as np
import pytest
import torch

from sklearn_inverse.ode import METHODS, solve_ivp

ORDERS = {
    "auto": 5,
    "euler": 1,
    "rk4": 4,
    "tsit5": 5,
    "backward_euler": 1,
    "trapezoid": 2,
    "radau3": 3,
    "radau5": 5,
    "rodas5p": 5,
}


def rotation(t, y, params):
    """Autonomous and nonlinear: y = (cos t, sin t)."""
    u, v = y.unbind(-1)
    speed = u**2 + v**2
    return torch.stack([-v * speed, u * speed], dim=-1)


def uneven_rotation(t, y, params):
    """Rotate by the angle t + 2 sin t."""
    return rotation(t, y, params) * (1 + 2 * torch.cos(t))[:, None]


PROBLEMS = {
    "autonomous": (rotation, lambda t: t),
    "non-autonomous": (uneven_rotation, lambda t: t + 2 * np.sin(t)),
}


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize(
    # With steps of given size "auto" is "radau5".
    "method",
    [
        pytest.param(method, marks=pytest.mark.slow if method == "auto" else ())
        for method in METHODS
    ],
)
def test_convergence_order(method, problem):
    rhs, angle = PROBLEMS[problem]
    order, t_end = ORDERS[method], 4.0
    # Small enough to be in the asymptotic range, large enough to be above round-off.
    n_steps = {1: 200, 2: 100, 3: 100, 4: 100, 5: 160}[order]
    errors = []
    for n in (n_steps, 2 * n_steps):
        solution = solve_ivp(
            rhs, [0.0, t_end], [[1.0, 0.0]], method=method, step_size=t_end / n
        )
        assert solution.stats["n_steps"].item() == n
        expected = np.cos(angle(t_end)), np.sin(angle(t_end))
        errors.append(np.abs(solution.y[0, -1].numpy() - expected).max())
    measured = np.log2(errors[0] / errors[1])
    assert measured == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize(
    ("method", "errors"),
    {
        "backward_euler": [2.84e-5, 1.39e-5, 6.85e-6, 3.40e-6],
        "trapezoid": [7.02e-7, 1.75e-7, 4.38e-8, 1.10e-8],
        "radau3": [8.59e-7, 2.06e-7, 4.69e-8, 9.85e-9],
        "radau5": [6.78e-9, 7.65e-10, 8.05e-11, 7.14e-12],
    }.items(),
)
def test_prothero_robinson_errors(method, errors):
    def rhs(t, y, params):
        return -1000 * (y - torch.cos(t)[:, None]) - torch.sin(t)[:, None]

    for n_steps, expected in zip([10, 20, 40, 80], errors):
        y = solve_ivp(
            rhs, [0.0, 1.0], torch.ones(1, 1), method=method, step_size=1 / n_steps
        ).y
        error = abs(y[0, -1, 0].item() - np.cos(1.0))
        assert error == pytest.approx(expected, rel=6e-3)  # printed to three digits


ORACLE = {
    0.05: [1.0254219275, 0.9997917187, 0.9999982866, 1.0000000000],
    0.1: [1.0517091808, 0.9991674992, 0.9999864669, 1.0000000014],
    0.25: [1.1361016668, 0.9948240142, 0.9997961470, 1.0000001303],
    0.5: [1.2974425414, 0.9796746496, 0.9984587443, 1.0000040299],
    1.0: [1.7182818285, 0.9242343145, 0.9888956161, 1.0001226410],
}


@pytest.mark.parametrize("x", ORACLE)
def test_one_step_matching_recovers_the_rate_of_the_oracle_table(x):
    """Fit λ̂ in one step of size h to exact data of y' = −|λ| y, with h|λ| = x.

    Newton's method on the misfit, by the solver's own gradient: what training a stiff
    neural ODE does with a model of one weight.
    """

    def rhs(t, y, params):
        return -params * y

    methods = ["backward_euler", "trapezoid", "radau3", "radau5"]
    for method, expected in zip(methods, ORACLE[x]):
        rate = torch.tensor([[1.0]], dtype=torch.float64, requires_grad=True)
        for _ in range(20):
            y = solve_ivp(
                rhs, [0.0, x], torch.ones(1, 1), rate, method=method, step_size=x
            ).y
            residual = y[0, -1, 0] - np.exp(-x)
            (slope,) = torch.autograd.grad(residual, rate)
            with torch.no_grad():
                rate -= residual / slope
        assert round(rate.item(), 10) == pytest.approx(expected, abs=1.01e-10)


@pytest.mark.parametrize("method", ["tsit5", "rodas5p", "radau5"])
def test_dense_output_is_as_accurate_as_the_tolerance_between_the_steps(method):
    t = np.linspace(0, 2, 201)
    rhs, angle = PROBLEMS["non-autonomous"]
    solution = solve_ivp(rhs, t, [[1.0, 0.0]], method=method, rtol=1e-8, atol=1e-8)
    assert solution.stats["n_steps"].item() < 150
    expected = np.stack([np.cos(angle(t)), np.sin(angle(t))], axis=-1)
    np.testing.assert_allclose(solution.y[0], expected, atol=1e-6)
