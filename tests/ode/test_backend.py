"""The compiled kernel and torch are one solver: same door, same answers, same gradients."""

import numpy as np
import pytest
import torch

from sklearn_inverse import ODESimulator
from sklearn_inverse.ode import MassAction, solve_ivp
from sklearn_inverse.problems import pollu

numba = pytest.importorskip("numba")

TIMES = [0.0, 1.0, 20.0, 60.0]


@pytest.fixture(scope="module")
def params():
    system = pollu()
    factors = np.random.default_rng(0).uniform(0.5, 1.5, size=(5, 25))
    return torch.as_tensor(system.nominal * factors)


def solve(params, **kwargs):
    system = pollu()
    kwargs = {"method": "rodas5p", "rtol": 1e-8, **kwargs}
    return solve_ivp(system.kinetics, TIMES, system.initial_state, params, **kwargs)


@pytest.mark.slow
def test_compiled_and_torch_agree(params):
    compiled = solve(params, backend="compiled", sensitivities=True)
    in_torch = solve(params, backend="torch", sensitivities=True)
    torch.testing.assert_close(compiled.y, in_torch.y, rtol=1e-7, atol=1e-25)
    k = params[:, None, None]
    error = (compiled.sensitivities - in_torch.sensitivities) * k
    size = (in_torch.sensitivities * k).abs().amax(-1, keepdim=True)
    assert (error.abs() <= 1e-7 * size).all()


def test_compiled_and_torch_take_about_as_many_steps(params):
    steps = [
        solve(params, backend=backend).stats["n_steps"].double()
        for backend in ("compiled", "torch")
    ]
    assert (steps[0] / steps[1] - 1).abs().max() < 0.05


def test_auto_is_compiled(params):
    auto = solve(params, method="auto")
    assert torch.equal(auto.y, solve(params, method="auto", backend="compiled").y)
    assert not torch.equal(auto.y, solve(params, backend="torch").y)


def test_gradient_through_the_kernel_is_that_of_its_sensitivities(params):
    weights = 1 / solve(params).y.mean(0).clamp(min=1e-30)
    weights[0] = 0
    gradients = []
    for backend in ("compiled", "torch"):
        k = params.clone().requires_grad_()
        (solve(k, backend=backend).y * weights).sum().backward()
        gradients.append(k.grad * params)
    difference = gradients[0] - gradients[1]
    assert difference.abs().max() < 1e-7 * gradients[1].abs().max()


def test_gradient_passes_through_initial_states_that_are_params():
    rhs = MassAction([[-1.0, 1.0], [1.0, -1.0]], [[1, 0], [0, 1]])  # A -> B, B -> A
    gradients = []
    for backend in ("compiled", "torch"):
        k = torch.tensor([[2.0, 1.0], [3.0, 0.5]], dtype=torch.float64)
        k.requires_grad_()
        solution = solve_ivp(
            rhs,
            [0.0, 0.5, 2.0],
            lambda k: torch.cat([k[:, :1] ** 2, 0 * k[:, :1]], dim=1),
            k,
            method="rodas5p",
            rtol=1e-9,
            backend=backend,
        )
        solution.y[:, 1:].square().sum().backward()
        gradients.append(k.grad)
    torch.testing.assert_close(*gradients, rtol=1e-7, atol=0)


@pytest.mark.parametrize("given", [True, False])
def test_gradient_of_more_samples_than_are_held_together(given):
    rhs = MassAction([[-1.0], [1.0]], [[1], [0]])  # A -> B
    start = torch.linspace(0.5, 1.5, 150, dtype=torch.float64)[:, None]
    start = torch.cat([start, torch.zeros_like(start)], dim=1)
    k = torch.linspace(0.1, 2.0, 150, dtype=torch.float64)[:, None].requires_grad_()
    y0 = (
        start
        if given
        else lambda params: torch.cat([start[:, :1] * params, start[:, 1:]], 1)
    )
    y = solve_ivp(rhs, [0.0, 1.0], y0, k, backend="compiled", rtol=1e-9).y
    y[:, -1, 0].sum().backward()
    decayed = (start[:, :1] * torch.exp(-k)).detach()
    expected = -decayed if given else (1 - k.detach()) * decayed
    torch.testing.assert_close(k.grad, expected, rtol=1e-7, atol=1e-10)


@pytest.mark.slow
def test_failed_samples_have_no_gradient_and_nan_is_not_hidden():
    rhs = MassAction([[1.0]], [[2]])  # 2 A -> 3 A explodes at t = 1 / k
    k = torch.tensor([[2.0], [0.5]], dtype=torch.float64, requires_grad=True)
    for backend in ("compiled", "torch"):
        y = solve_ivp(
            rhs,
            [0.0, 0.25, 0.75],
            torch.ones(2, 1),
            k,
            method="rodas5p",
            backend=backend,
        ).y
        reached = torch.where(y.isnan(), 0.0, y).sum()
        (grad,) = torch.autograd.grad(reached, k, retain_graph=True)
        expected = [0.25 / 0.5**2, 0.25 / 0.875**2 + 0.75 / 0.625**2]
        assert grad.flatten().tolist() == pytest.approx(expected, rel=1e-5)
        (grad,) = torch.autograd.grad((y[1, 1:] - 5).sqrt().sum(), k)
        assert grad[1].isnan().all()


def test_tiny_states_far_from_time_zero():
    rhs = MassAction([[-1.0], [1.0]], [[1], [0]])
    for start in (1.0, 43200.0):
        for backend in ("compiled", "torch"):
            solution = solve_ivp(
                rhs, [start, start + 1], [[1.0, 1e-30]], [[1.0]], backend=backend
            )
            assert solution.success.all()
            assert solution.y[0, -1, 0].item() == pytest.approx(np.exp(-1), rel=1e-5)


def test_what_a_subclass_changes_is_not_compiled_away():
    class Doubled(MassAction):
        def __call__(self, t, y, params):
            return super().__call__(t, y, 2 * params)

    y = solve_ivp(
        Doubled([[-1.0]], [[1]]),
        [0.0, 1.0],
        [[1.0]],
        [[1.0]],
        jac=lambda t, y, k: -2 * k[..., None],
    ).y
    assert y[0, -1, 0].item() == pytest.approx(np.exp(-2), rel=1e-5)


def test_reactions_cannot_be_changed_behind_the_tables():
    rhs = MassAction([[-1.0]], [[1]])
    with pytest.raises(ValueError, match="read-only"):
        rhs.stoichiometry *= 2


@pytest.mark.slow
def test_large_networks_are_compiled_by_auto():
    n = 600  # a chain: 1200 effects
    stoichiometry = np.eye(n, k=0) * -1 + np.eye(n, k=-1)
    rhs = MassAction(stoichiometry, np.eye(n, dtype=int))
    y0 = torch.zeros(1, n)
    y0[0, 0] = 1.0
    problem = rhs, [0.0, 1e-3], y0, torch.ones(1, n)
    y, compiled = (
        solve_ivp(*problem, rtol=1e-3, atol=1e-6, backend=backend).y
        for backend in ("auto", "compiled")
    )
    assert torch.equal(y, compiled)
    assert y[0, -1, 0].item() == pytest.approx(np.exp(-1e-3), rel=1e-4)


def test_gradient_by_what_else_the_initial_states_depend_on_is_left_to_torch():
    rhs = MassAction([[-1.0]], [[1]])
    scale = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    k = torch.ones(1, 1, dtype=torch.float64)
    solution = solve_ivp(rhs, [0.0, 1.0], lambda params: scale * params, k)
    solution.y[0, -1, 0].backward()
    assert scale.grad.item() == pytest.approx(np.exp(-1), rel=1e-5)


def test_initial_states_with_gradient_are_left_to_torch(params):
    y0 = pollu().initial_state(params).clone().requires_grad_()
    rhs = pollu().kinetics
    solution = solve_ivp(rhs, [0.0, 1.0], y0, params, method="rodas5p")
    solution.y.sum().backward()
    assert y0.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"backend": "fortran"}, "`backend` must be 'auto', 'torch' or 'compiled'"),
        ({"backend": "compiled", "method": "radau5"}, "needs method='rodas5p'"),
        ({"backend": "compiled", "step_size": 0.1}, "with step_size=None"),
    ],
)
def test_what_cannot_be_compiled_is_refused(params, kwargs, message):
    with pytest.raises(ValueError, match=message):
        solve(params, **kwargs)


def test_what_cannot_be_traced_is_refused_or_left_to_torch():
    def decay(t, y, k):
        return -k * y if (y > 0).all() else k * y

    def solve(backend):
        one = torch.ones(1, 1)
        options = {"method": "rodas5p", "backend": backend}
        return solve_ivp(decay, [0.0, 1.0], one, one, **options)

    assert solve("auto").success.all()
    with pytest.raises(ValueError, match=r"not for this right-hand side: .*line \d+"):
        solve("compiled")


def test_missing_numba_is_named(params, monkeypatch):
    monkeypatch.setattr(
        "sklearn_inverse.ode._problem.why_unavailable",
        lambda: "numba: pip install numba",
    )
    with pytest.raises(ValueError, match="pip install numba"):
        solve(params, backend="compiled")
    assert torch.equal(solve(params).y, solve(params, backend="torch").y)


def test_compiled_simulation_does_not_depend_on_n_jobs_or_chunks(params):
    simulator = ODESimulator(pollu(), backend="compiled")
    together = simulator.simulate(params)
    for kwargs in ({"chunk_size": 1}, {"chunk_size": 2, "n_jobs": 2}):
        parts = simulator.set_params(**kwargs).simulate(params)
        np.testing.assert_array_equal(parts, together)
    sensitivities = simulator.sensitivities(params)
    alone = simulator.set_params(chunk_size=5, n_jobs=None).sensitivities(params)
    np.testing.assert_array_equal(sensitivities, alone)


def test_wrong_numbers_of_states_or_params_are_refused(params):
    with pytest.raises(ValueError, match=r"have \(n_states, n_params\) = \(20, 25\)"):
        solve(params[:, :24])


@pytest.mark.parametrize(
    ("stoichiometry", "orders", "message"),
    [
        ([[1.0]], [[1], [0]], "must both have shape"),
        ([1.0], [1], "must both have shape"),
        ([[1.0]], [[-1]], "whole numbers >= 0"),
        ([[1.0]], [[0.5]], "whole numbers >= 0"),
    ],
)
def test_wrong_reactions_are_refused(stoichiometry, orders, message):
    with pytest.raises(ValueError, match=message):
        MassAction(stoichiometry, orders)


def test_steps_follow_the_sensitivities_of_a_relaxation_oscillation():
    # Van der Pol, mu = 1000: an error e of a state that jumps within dt is one of e / dt
    # of the derivative by the time of the jump. Steps that follow the states alone give
    # derivatives that are off by ten times their size at rtol 1e-6.
    times = np.linspace(0, 2000, 101)

    def rhs(t, y, k):
        return torch.stack(
            [y[:, 1], k[:, 0] * (1 - y[:, 0] ** 2) * y[:, 1] - y[:, 0]], 1
        )

    def solve(params, **kwargs):
        def start(k):
            return torch.stack([k[:, 1], 0 * k[:, 1]], 1)

        kwargs |= {"backend": "compiled", "max_steps": 100_000}
        return solve_ivp(rhs, times, start, params, **kwargs)

    params = torch.tensor([[1000.0, 2.0]], dtype=torch.float64)
    step = 1e-6 * params[0].diag()
    ends = solve(torch.cat([params + step, params - step]), rtol=1e-13).y[:, 1:, 0]
    expected = ((ends[:2] - ends[2:]) / (2 * step.diag()[:, None])).T
    errors = []
    for rtol in (1e-6, 1e-8, 1e-10):
        found = solve(params, rtol=rtol, sensitivities=True).sensitivities[0, 1:, 0]
        errors.append((found / expected - 1).abs().max().item())
    assert (np.array(errors) < [0.5, 2e-3, 1.5e-5]).all()
