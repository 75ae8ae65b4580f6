"""Any right-hand side that is traced is solved as torch solves it, and never wrongly."""

import numpy as np
import pytest
import torch

pytest.importorskip("numba")

from sklearn_inverse.ode import Status, solve_ivp
from sklearn_inverse.ode.compiled import Untraceable, _arithmetic, compile_function
from sklearn_inverse.ode.compiled._kernel import Kernel
from sklearn_inverse.ode.compiled._trace import trace
from sklearn_inverse.ode.compiled._vectors import LANES


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def fitzhugh_nagumo(t, y, p):
    v, w = y.unbind(1)
    a, b, c = p.unbind(1)
    return torch.stack([c * (v - v**3 / 3 + w), -(v - a + b * w) / c], 1)


def cascade(t, y, p):
    """Hill kinetics with a variable exponent, saturation, a signal that fades."""
    signal = torch.exp(-0.3 * t)
    on = p[:, 0] * signal * (1.5 - y[:, 0]) / (0.1 + 1.5 - y[:, 0])
    hill = y[:, 0] ** p[:, 2] / (0.3 ** p[:, 2] + y[:, 0] ** p[:, 2])
    return torch.stack([on - p[:, 1] * y[:, 0], hill - y[:, 1]], 1)


def odd(t, y, p):
    """Functions that need the C library, of one and of two numbers."""
    a, b = y.unbind(1)
    first = torch.tanh(a * p[:, 0]) - torch.sin(t) * torch.log1p(b * b)
    second = torch.atan2(a, 1 + b * b) - torch.erf(b) + torch.clamp(a, -0.5, 0.5)
    return torch.stack([-a + 0.3 * first, -b + p[:, 1] * second], 1)


MODELS = {
    "spikes": (fitzhugh_nagumo, [-1.0, 1.0], [0.2, 0.3, 3.0], 10.0),
    "cascade": (cascade, [0.5, 0.1], [1.0, 0.7, 2.5], 5.0),
    "odd": (odd, [0.7, -0.4], [1.3, 0.6], 5.0),
}


def draw(name, n_samples=3):
    rhs, y0, params, t_end = MODELS[name]
    factors = np.random.default_rng(0).uniform(0.8, 1.2, (n_samples, len(params)))
    params = torch.as_tensor(factors) * tensor(*params)
    return rhs, np.linspace(0, t_end, 11), tensor(y0).repeat(n_samples, 1), params


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_agrees_with_torch_sensitivities_included(name):
    problem = draw(name)
    options = {"method": "rodas5p", "sensitivities": True}
    got = solve_ivp(*problem, rtol=1e-8, backend="compiled", **options)
    # In torch, steps do not follow the errors of sensitivities.
    want = solve_ivp(*problem, rtol=1e-11, backend="torch", **options)
    assert got.success.all()
    np.testing.assert_allclose(got.y, want.y, rtol=1e-7, atol=2e-7)
    scale = want.sensitivities.abs().amax((0, 1)) + 1e-300  # where a param does not act
    off = (got.sensitivities - want.sensitivities) / scale
    assert off.abs().max() < 3e-7


@pytest.mark.parametrize("name", MODELS)
def test_company_changes_not_a_bit(name):
    rhs, t, y0, params = draw(name, 2 * LANES + 3)

    def run(rows):
        return solve_ivp(rhs, t, y0[rows], params[rows], sensitivities=True)

    together = run(slice(None))
    for i in range(0, len(y0), 5):
        alone = run([i])
        assert torch.equal(alone.y, together.y[[i]])
        assert torch.equal(alone.sensitivities, together.sensitivities[[i]])


@pytest.mark.parametrize("lanes", [0, 4])
def test_functions_of_the_library_are_the_same_however_wide(lanes, monkeypatch):
    rhs, t, y0, params = draw("odd")
    options = {"rtol": 1e-8, "atol": 0.0, "max_steps": 1000}
    found = []
    for width in (None, lanes):
        if width is not None:
            if _arithmetic.load_vector_functions() < width:
                pytest.skip("no vector functions here")
            monkeypatch.setattr(
                "sklearn_inverse.ode.compiled._arithmetic.load_vector_functions",
                lambda: lanes,
            )
            monkeypatch.setattr(
                "sklearn_inverse.ode.compiled._code.load_vector_functions",
                lambda: lanes,
            )
        graph, nodes = trace(rhs, (tensor(0.0).repeat(3), y0, params))
        kernel = Kernel(graph, nodes.tolist(), n_params=2)
        found.append(kernel.solve(t, y0.numpy(), params.numpy(), **options)["y"])
    np.testing.assert_allclose(*found, rtol=1e-10)


def test_what_a_right_hand_side_refers_to_may_change():
    factor = 1.0

    def decay(t, y, p):
        return -factor * y

    def end():
        return solve_ivp(decay, [0.0, 1.0], [[1.0]], backend="compiled").y[0, -1, 0]

    assert end().item() == pytest.approx(np.exp(-1), rel=1e-6)
    factor = 2.0
    assert end().item() == pytest.approx(np.exp(-2), rel=1e-6)


def test_the_same_expressions_share_a_kernel():
    def first(t, y, p):
        return -(p * y)

    def second(t, y, p):
        return -(y * p)

    point = tensor(0.0), tensor([1.0]), tensor([2.0])
    kernel = compile_function(first, *point)
    assert compile_function(second, *point) is kernel
    assert compile_function(lambda t, y, p: p * y, *point) is not kernel


def test_why_there_is_no_kernel_is_found_out_once():
    calls = 0

    def branch(t, y, p):
        nonlocal calls
        calls += 1
        return -y if (y > 0).all() else y

    point = tensor(0.0), tensor([1.0]), tensor([2.0])
    with pytest.raises(Untraceable):
        compile_function(branch, *point)
    before = calls
    with pytest.raises(Untraceable):
        compile_function(branch, *point)
    assert calls == before
    with pytest.raises(Untraceable, match="Module"):
        compile_function(torch.nn.Identity(), *point)


# -- never silently wrong -----------------------------------------------------------------


def solve(rhs, t, y0, params=None, **options):
    params = None if params is None else tensor(*params)
    return solve_ivp(rhs, t, tensor(*y0), params, backend="compiled", **options)


@pytest.mark.parametrize("rtol", [1e-4, 1e-6, 1e-8])
@pytest.mark.parametrize("has_neighbor", [False, True])
def test_a_fast_follower_is_right_between_steps(rtol, has_neighbor):
    def rhs(t, y, k):
        drive = torch.cos(3 * t)[:, None]
        follower = -k * (y[:, :1] - drive)
        return torch.cat([follower, drive - y[:, 1:]], 1) if has_neighbor else follower

    t, k = np.linspace(0, 2, 21), 10.0 ** np.arange(2, 9)[:, None]
    y0 = torch.zeros(len(k), 1 + has_neighbor, dtype=torch.float64)
    solution = solve_ivp(rhs, t, y0, k, rtol=rtol, atol=1e-9 * rtol, backend="compiled")

    def slow(t):
        return (k * k * np.cos(3 * t) + 3 * k * np.sin(3 * t)) / (k * k + 9)

    error = solution.y[..., 0].numpy() - (slow(t) - slow(0) * np.exp(-k * t))
    assert solution.success.all()
    assert np.abs(error).max() < 10 * rtol
    if has_neighbor:  # nothing is paid for where the follower is not the only state
        assert solution.stats["n_jac"].max() < 160


@pytest.mark.parametrize("is_found", [True, False])
def test_a_jump_lifts_a_state_off_zero(is_found):
    def rhs(t, y, p):  # of the second, the trace does not tell the time
        jumps = t > 2.3 if is_found else t * t > 2.3**2
        return torch.where(jumps, 2.0, 0.0)[:, None] - 0.6 * y

    t = np.linspace(0, 10, 41)
    solution = solve(rhs, t, [[0.0]])
    want = np.where(t > 2.3, 2 / 0.6 * (1 - np.exp(-0.6 * (t - 2.3))), 0)
    assert solution.success.all()
    np.testing.assert_allclose(solution.y[0, :, 0], want, rtol=1e-5)


@pytest.mark.parametrize("n", [1.5, 0.8])
def test_roots_at_zero_have_derivatives_afterwards(n):
    def rhs(t, y, p):
        power = y[:, 0] ** p[:, 0]
        q = power / (0.3 ** p[:, 0] + power) - y[:, 1]
        return torch.stack([1 - y[:, 0], q], 1)

    t, y0 = [0.0, 1.0, 5.0], [[0.0, 0.0]]
    solution = solve(rhs, t, y0, [[n]], rtol=1e-8, sensitivities=True)
    near = [solve(rhs, t, y0, [[n + d]], rtol=1e-11).y[0, 1:, 1] for d in (1e-4, -1e-4)]
    want = (near[0] - near[1]) / 2e-4
    np.testing.assert_allclose(solution.sensitivities[0, 1:, 1, 0], want, rtol=1e-5)
    height = solve(lambda t, y, p: 1 - y.sqrt(), [0.0, 1.0], [[0.0]])
    assert height.y[0, -1, 0].item() == pytest.approx(0.4876095348, rel=1e-6)


def test_what_cannot_go_on_says_so():
    explosion = solve(lambda t, y, p: y * y, [0.0, 0.5, 1.5], [[1.0]])
    assert explosion.status[0] in (Status.STEP_UNDERFLOW, Status.NON_FINITE)
    assert explosion.y[0, 1, 0].item() == pytest.approx(2, rel=1e-5)
    assert explosion.y[0, -1, 0].isnan()
    sliding = solve(lambda t, y, p: 1 - 2 * (y > 0.5).double(), [0.0, 2.0], [[0.0]])
    assert not sliding.success.any()


def test_tolerances_follow_each_sample():
    # B <-> BL <-> BLL, in moles per cell.
    def rhs(t, y, p):
        one = 3000 * y[:, 0] - 8000 * y[:, 1]
        two = 1500 * y[:, 1] - 16000 * y[:, 2]
        return torch.stack([-one, one - two, two], 1)

    amounts = tensor([1.0], [1.66e-21])
    y0 = amounts * tensor(1.0, 0.0, 0.0)
    y = solve_ivp(rhs, [0.0, 5e-5, 1e-3], y0).y / amounts[:, None]
    np.testing.assert_allclose(y[1], y[0], rtol=1e-6)
