"""The kernel for mass action: accurate, exact in its tangents, and blind to companions."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

pytest.importorskip("numba")

from sklearn_inverse.ode import Status, solve_ivp
from sklearn_inverse.ode.compiled import compile_mass_action
from sklearn_inverse.ode.compiled._vectors import LANES
from sklearn_inverse.problems import pollu, robertson
from sklearn_inverse.systems._stoichiometry import read_reactions

N_SAMPLES = 3 * LANES + 5  # lanes are refilled, and some stay empty in the end

POLLU, ROBERTSON = pollu(), robertson()
# Sources, sinks, orders up to three, a catalyst, a decimal product.
MIXED = ["-> A", "A -> B", "2 A + B -> 3 C", "B + C -> B + 0.5 A", "3 C -> B", "B ->"]
EXPLOSION = ["2 A -> 3 A"]


def kernel_of(reactions):
    used, made, _ = read_reactions(reactions)
    return compile_mass_action(made - used, used.astype(int))


KERNELS = {
    "pollu": POLLU.kinetics.kernel(),
    "robertson": ROBERTSON.kinetics.kernel(),
    "mixed": kernel_of(MIXED),
    "explosion": kernel_of(EXPLOSION),
}


def draw(name, n_samples=N_SAMPLES):
    """Return a kernel, output times, initial states and rate constants."""
    rng = np.random.default_rng(0)
    if name == "mixed":
        t = np.linspace(0, 3, 31)
        y0 = rng.uniform(0.5, 1.5, (n_samples, 3))
        return KERNELS[name], t, y0, rng.uniform(0.5, 1.5, (n_samples, 6))
    system = {"pollu": POLLU, "robertson": ROBERTSON}[name]
    params = system.nominal * rng.uniform(0.5, 1.5, (n_samples, system.n_params))
    y0 = system.initial_state(torch.as_tensor(params)).numpy().copy()
    return KERNELS[name], np.asarray(system.times), y0, params


def solve(kernel, t, y0, params, rtol=1e-6, atol=1e-20, max_steps=10_000, **kwargs):
    return kernel.solve(
        t, y0, params, rtol=rtol, atol=atol, max_steps=max_steps, **kwargs
    )


def no_tangents(y0, params):
    return np.zeros((*np.shape(y0), np.shape(params)[1]))


def assert_equal(left, right, rows=slice(None)):
    """Assert that two solutions are the same to the last bit."""
    for key in ("y", "status", "n_steps", "n_accepted", "sensitivities"):
        np.testing.assert_array_equal(left[key], right[key][rows])


def error(got, want, y=None):
    """Return the largest error, relative to the largest value of each state."""
    scale = np.abs(want if y is None else y).max(1, keepdims=True)
    return (np.abs(got - want) / scale).max()


@pytest.mark.parametrize("name", ["pollu", "robertson"])
def test_agrees_with_radau(name):
    system = {"pollu": POLLU, "robertson": ROBERTSON}[name]
    kernel, t, y0, params = draw(name, 4)
    got = solve(kernel, t, y0, params, rtol=1e-10)
    y0, params = torch.as_tensor(y0), torch.as_tensor(params)
    want = solve_ivp(system.kinetics, t, y0, params, method="radau5", rtol=1e-10)
    assert (got["status"] == Status.SUCCESS).all()
    assert error(got["y"], want.y.numpy()) < 1e-8


def test_pollu_reaches_the_published_reference():
    kernel, t, y0, _ = draw("pollu", 1)
    y = solve(kernel, t, y0, POLLU.nominal[None], rtol=1e-9)["y"]
    np.testing.assert_allclose(y[0, -1], POLLU.reference[1], rtol=3e-9)


def test_robertson_reaches_the_published_reference():
    time, want, _ = ROBERTSON.reference
    y = solve(KERNELS["robertson"], [0.0, time], [[1.0, 0, 0]], ROBERTSON.nominal[None])
    np.testing.assert_allclose(y["y"][0, -1], want, rtol=1e-5)
    assert y["n_steps"] < 300


def test_error_and_cost_follow_the_tolerance():
    kernel, t, y0, params = draw("pollu", LANES)
    reference = solve(kernel, t, y0, params, rtol=1e-11)["y"][:, 1:]
    n_steps = []
    for rtol in (1e-4, 1e-6, 1e-8):
        solution = solve(kernel, t, y0, params, rtol=rtol)
        # However small the state: O1D is 1e-18 times the others.
        assert np.abs(solution["y"][:, 1:] / reference - 1).max() < 2 * rtol
        n_steps.append(solution["n_steps"].mean())
    assert n_steps[0] < 60
    assert n_steps[1] < 150
    assert n_steps[2] < 420  # two decades cost a factor 100 ** (1 / 5) = 2.5 at most


@pytest.mark.parametrize(
    ("name", "method"),
    [("pollu", "auto"), ("pollu", "rodas5p"), ("mixed", "tsit5"), ("mixed", "rodas5p")],
)
def test_samples_do_not_see_each_other(name, method):
    kernel, t, y0, params = draw(name)
    tangents = np.random.default_rng(1).normal(size=(*y0.shape, params.shape[1]))

    def run(rows):
        options = {"method": method, "y0_tangents": tangents[rows]}
        return solve(kernel, t, y0[rows], params[rows], **options)

    together = run(slice(None))
    assert (together["status"] == Status.SUCCESS).all()
    for i in range(0, N_SAMPLES, 7):
        assert_equal(run([i]), together, [i])
    backwards = np.arange(N_SAMPLES)[::-1]
    assert_equal(run(backwards), together, backwards)
    chunks = [range(11), range(11, N_SAMPLES)]
    with ThreadPoolExecutor(2) as threads:
        for chunk, solution in zip(chunks, threads.map(run, chunks)):
            assert_equal(solution, together, chunk)


def test_states_agree_with_and_without_sensitivities():
    kernel, t, y0, params = draw("pollu")
    plain = solve(kernel, t, y0, params)
    both = solve(kernel, t, y0, params, y0_tangents=no_tangents(y0, params))
    assert plain.pop("sensitivities") is None
    assert both["sensitivities"].shape == (*plain["y"].shape, params.shape[1])
    np.testing.assert_allclose(both["y"], plain["y"], rtol=1e-4, atol=1e-12)
    assert (both["n_steps"] >= 0.9 * plain["n_steps"]).all()
    np.testing.assert_array_equal(both["status"], plain["status"])


def central_differences(function, params, j, width=5e-3):
    """Return the derivative by column j of the params, of order four."""
    shift = np.zeros_like(params)
    shift[:, j] = width * params[:, j]
    far = function(params + 2 * shift) - function(params - 2 * shift)
    near = function(params + shift) - function(params - shift)
    return (8 * near - far) / (12 * shift[:, j, None, None])


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("pollu", "rodas5p"),
        ("pollu", "auto"),
        ("robertson", "auto"),
        ("mixed", "rodas5p"),
        ("mixed", "tsit5"),
    ],
)
def test_sensitivities_are_derivatives(name, method):
    kernel, t, y0, nominal = draw(name, LANES)

    def initial_state(params):
        # So that the states depend on the first param from the start.
        return y0 * (0.9 + 0.1 * params[:, :1] / nominal[:, :1])

    def states(params):
        start = initial_state(params)
        return solve(kernel, t, start, params, rtol=1e-11, method=method)["y"]

    tangents = no_tangents(y0, nominal)
    tangents[..., 0] = 0.1 * y0 / nominal[:, :1]
    for rtol, bound in ((1e-10, 2e-8), (1e-6, 5e-6)):
        options = {"rtol": rtol, "method": method, "y0_tangents": tangents}
        got = solve(kernel, t, y0, nominal, **options)
        for j, k in enumerate(nominal.T[..., None, None]):
            want = central_differences(states, nominal, j)
            got_j = got["sensitivities"][..., j]
            assert error(k * got_j, k * want, got["y"]) < bound, j


def test_sensitivities_carry_on_from_where_they_were():
    kernel, t, y0, params = draw("pollu", 3)
    tangents = no_tangents(y0, params)
    whole = solve(kernel, t, y0, params, rtol=1e-9, y0_tangents=tangents)
    y, tangents = whole["y"][:, 40], whole["sensitivities"][:, 40]
    rest = solve(kernel, t[40:], y, params, rtol=1e-9, y0_tangents=tangents)
    np.testing.assert_array_equal(rest["sensitivities"][:, 0], tangents)
    k = params[:, None, None]
    want = k * whole["sensitivities"][:, 40:]
    assert error(k * rest["sensitivities"], want, rest["y"][..., None]) < 1e-8


def test_sensitivities_of_a_decay():
    kernel = kernel_of(["A -> B"])
    t, k = np.linspace(0, 2, 9), np.array([[0.5], [3.0]])
    solution = solve(
        kernel, t, [[1.0, 0.0]] * 2, k, rtol=1e-9, y0_tangents=np.zeros((2, 2, 1))
    )
    want = -t * np.exp(-k * t)
    np.testing.assert_allclose(solution["sensitivities"][:, :, 0, 0], want, atol=1e-8)
    np.testing.assert_allclose(solution["sensitivities"][:, :, 1, 0], -want, atol=1e-8)


def test_failures_harm_nobody_else():
    kernel, t, y0, params = draw("pollu")
    good = solve(kernel, t, y0, params, y0_tangents=no_tangents(y0, params))
    params[3, 5] = np.nan
    params[9, 0] = np.inf
    y0[-1, 2] = np.nan
    bad = [3, 9, N_SAMPLES - 1]
    solution = solve(kernel, t, y0, params, y0_tangents=no_tangents(y0, params))
    assert (solution["status"][bad] == Status.NON_FINITE).all()
    assert (solution["n_steps"][bad] == 0).all()
    assert np.isnan(solution["y"][bad, 1:]).all()
    assert np.isnan(solution["sensitivities"][bad, 1:]).all()
    np.testing.assert_array_equal(solution["y"][bad, 0], y0[bad])
    rest = np.delete(np.arange(N_SAMPLES), bad)
    assert_equal({k: v[rest] for k, v in solution.items()}, good, rest)


@pytest.mark.parametrize("method", ["auto", "rodas5p", "tsit5"])
def test_explosion_stops_where_it_happens(method):
    # y' = k y² from one: y = 1 / (1 - k t).
    t = np.linspace(0, 1, 101)
    k = np.array([[0.5], [2.0], [0.9], [np.e]])
    solution = solve(
        KERNELS["explosion"],
        t,
        np.ones((4, 1)),
        k,
        method=method,
        y0_tangents=np.zeros((4, 1, 1)),
    )
    exploded = [1, 3]
    np.testing.assert_array_equal(solution["status"] != Status.SUCCESS, k[:, 0] > 1)
    assert np.isin(
        solution["status"][exploded], [Status.STEP_UNDERFLOW, Status.NON_FINITE]
    ).all()
    assert (solution["n_steps"] < 1000).all()
    for key in ("y", "sensitivities"):
        got = solution[key].reshape(4, 101)
        assert np.isfinite(got[k * t < 1 - 1e-6]).all()
        assert np.isnan(got[k * t > 1 + 1e-6]).all()
    safe = k * t < 0.9
    np.testing.assert_allclose(
        solution["y"][safe][:, 0], 1 / (1 - k * t)[safe], rtol=1e-5
    )


def test_max_steps():
    kernel, t, y0, params = draw("pollu")
    cost = solve(kernel, t, y0, params)["n_steps"]
    limit = int(np.median(cost))
    solution = solve(kernel, t, y0, params, max_steps=limit)
    np.testing.assert_array_equal(
        solution["status"], np.where(cost > limit, Status.MAX_STEPS, Status.SUCCESS)
    )
    np.testing.assert_array_equal(solution["n_steps"], np.minimum(cost, limit))
    np.testing.assert_array_equal(np.isnan(solution["y"][:, -1, 0]), cost > limit)


def test_steps_that_underflow_end_the_sample():
    kernel = kernel_of(["A -> B", "B -> A"])
    t = [1e10, 1e10 + 1]  # seconds, of which doubles resolve 2e-6
    y0, k = [[1.0, 0.0]] * 2, [[1e9, 1e-3], [1.0, 1.0]]
    solution = solve(kernel, t, y0, k)
    assert solution["status"].tolist() == [Status.STEP_UNDERFLOW, Status.SUCCESS]


@pytest.mark.parametrize("with_tangents", [False, True])
def test_degenerate_grids(with_tangents):
    kernel, t, y0, params = draw("mixed", 2)
    tangents = np.ones((2, 3, 6)) if with_tangents else None

    def run(t):
        return solve(kernel, t, y0, params, y0_tangents=tangents)

    regular = run(t)
    for times in ([1.0], [1.0, 1.0], [0.0, 0.0, 0.0]):
        start = run(times)
        np.testing.assert_array_equal(start["y"], np.repeat(y0[:, None], len(times), 1))
        assert start["n_steps"].tolist() == [0, 0]
        if with_tangents:
            assert (start["sensitivities"] == 1).all()
    repeated = run(np.repeat(t, 2))
    for key in ("y", "sensitivities") if with_tangents else ("y",):
        np.testing.assert_array_equal(repeated[key][:, ::2], regular[key])
        np.testing.assert_array_equal(repeated[key][:, 1::2], regular[key])
    shifted = run(np.stack([t, t + 1]))  # nothing depends on the time itself
    np.testing.assert_array_equal(shifted["y"][0], regular["y"][0])
    np.testing.assert_allclose(shifted["y"][1], regular["y"][1], rtol=1e-6)


@pytest.mark.parametrize("n_samples", [0, 1])
def test_small_batches(n_samples):
    kernel, t, y0, params = draw("mixed", n_samples)
    solution = solve(kernel, t, y0, params, y0_tangents=no_tangents(y0, params))
    assert solution["y"].shape == (n_samples, len(t), 3)
    assert solution["sensitivities"].shape == (n_samples, len(t), 3, 6)
    assert solution["status"].tolist() == [Status.SUCCESS] * n_samples


def test_arrays_of_any_layout_and_wrong_shapes():
    kernel, t, y0, params = draw("mixed", 3)
    want = solve(kernel, t, y0, params)
    got = solve(
        kernel, list(t), np.asfortranarray(y0), params.tolist(), atol=[1e-20] * 3
    )
    np.testing.assert_array_equal(got["y"], want["y"])
    with pytest.raises(ValueError, match="broadcast"):
        solve(kernel, t, y0, params[:, :-1])
    with pytest.raises(ValueError, match="broadcast"):
        solve(kernel, t, y0, params, y0_tangents=np.zeros((3, 3, 5)))


def test_pickled_kernel_solves_alike():
    kernel, t, y0, params = draw("pollu", 2)
    copy = pickle.loads(pickle.dumps(kernel))
    np.testing.assert_array_equal(
        solve(copy, t, y0, params)["y"], solve(kernel, t, y0, params)["y"]
    )
