"""Tsit5 compiled: of order 5, right between its steps, and not for what is stiff."""

import numpy as np
import pytest
import torch

pytest.importorskip("numba")

from sklearn_inverse import problems
from sklearn_inverse.ode import Status, solve_ivp

COMPILED = {"method": "tsit5", "backend": "compiled"}
CYCLE = {"y0": [[1.0, 0.5]], "params": [[1.5, 1.0, 3.0, 1.0]]}


def prey_and_predator(t, y, p):
    hare, lynx = y.unbind(1)
    born, eaten, dies, grows = p.unbind(1)
    return torch.stack([(born - eaten * lynx) * hare, (grows * hare - dies) * lynx], 1)


def swing(t, y, p):
    """Rotate by the angle t + 2 sin t."""
    speed = 1 + 2 * torch.cos(t)
    return torch.stack([-y[:, 1] * speed, y[:, 0] * speed], dim=1)


def swung(t):
    angle = t + 2 * np.sin(t)
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def test_errors_fall_with_the_fifth_power_of_the_step():
    options = {"rtol": 1e9, **COMPILED}  # steps as long as they may be
    errors = []
    for n in (200, 400):
        y = solve_ivp(swing, [0.0, 4.0], [[1.0, 0.0]], max_step=4 / n, **options).y
        errors.append(np.abs(y[0, -1].numpy() - swung(4.0)).max())
    assert np.log2(errors[0] / errors[1]) == pytest.approx(5, abs=0.3)


@pytest.mark.parametrize("rtol", [1e-4, 1e-6, 1e-8])
def test_inner_outputs_are_good_to_ten_times_the_tolerance(rtol):
    t = np.linspace(0, 2, 401)
    solution = solve_ivp(swing, t, [[1.0, 0.0]], rtol=rtol, atol=rtol, **COMPILED)
    assert solution.stats["n_steps"].item() < 120
    assert np.abs(solution.y[0].numpy() - swung(t)).max() < 10 * rtol


def test_states_and_derivatives_are_those_of_torch():
    t, options = np.linspace(0, 3, 13), {"rtol": 1e-10, "sensitivities": True}
    ours, theirs = (
        solve_ivp(
            prey_and_predator, t, **CYCLE, method="tsit5", backend=backend, **options
        )
        for backend in ("compiled", "torch")
    )
    torch.testing.assert_close(ours.y, theirs.y, rtol=1e-8, atol=0)
    size = theirs.sensitivities.abs().amax((0, 1))
    off = (ours.sensitivities - theirs.sensitivities).abs().amax((0, 1))
    assert (off < 1e-7 * size).all()


def test_large_models_take_tables_to_the_same_end(monkeypatch):
    from sklearn_inverse.ode.compiled import _model, trace
    from sklearn_inverse.ode.compiled._kernel import Kernel

    y0, params = (torch.tensor(CYCLE[x], dtype=torch.float64) for x in CYCLE)
    point = torch.zeros(1, dtype=torch.float64), y0, params
    found = []
    for large in (_model.LARGE, 0):
        monkeypatch.setattr(_model, "LARGE", large)
        graph, nodes = trace(prey_and_predator, point)
        kernel = Kernel(graph, nodes.tolist(), n_params=4)
        assert kernel.model.is_large == (large == 0)
        options = {"rtol": 1e-6, "atol": 0.0, "max_steps": 1000, "method": "tsit5"}
        options["y0_tangents"] = np.zeros((1, 2, 4))
        found.append(kernel.solve([0.0, 3.0], y0.numpy(), params.numpy(), **options))
    for key in ("y", "sensitivities"):
        np.testing.assert_allclose(found[0][key], found[1][key], rtol=1e-9)


# -- the choice ----------------------------------------------------------------------------


def test_what_is_not_stiff_stays_explicit():
    solution = solve_ivp(prey_and_predator, np.linspace(0, 20, 50), **CYCLE)
    assert solution.success.all()
    assert solution.stats["n_jac"].item() == 0


@pytest.mark.parametrize(
    "make", [problems.pollu, problems.hires, problems.robertson, problems.oregonator]
)
def test_what_is_stiff_is_told_in_few_steps_and_costs_no_more(make):
    system = make()
    params = torch.as_tensor(system.nominal)[None]
    if system.kinetics is None:
        rhs, start = system.solved, system.initial_state
    else:
        rhs, start, params = system.kinetics, system.rates_initial, system.rates(params)
    auto, implicit = (
        solve_ivp(rhs, system.times, start, params, method=method).stats
        for method in ("auto", "rodas5p")
    )
    assert auto["n_jac"] > 0
    explicit = auto["n_steps"] - auto["n_jac"]
    # One of Tsit5 costs a third to a half.
    assert auto["n_jac"] + 0.5 * explicit < 1.1 * implicit["n_steps"]


def test_an_explicit_method_gives_a_stiff_problem_up_and_says_so():
    system = problems.robertson()
    rates = torch.as_tensor(system.nominal)[None]
    solution = solve_ivp(
        system.kinetics, [0.0, 1e4], system.rates_initial, rates, **COMPILED
    )
    assert solution.status.tolist() == [Status.MAX_STEPS]
    assert "method='auto'" in solution.failure_summary()


def test_a_sample_turns_stiff_on_the_way_whatever_its_companions():
    def ripening(t, y, p):  # what comes of the first state takes up the second, fast
        made, used = y.unbind(1)
        return torch.stack([1 - 0.1 * made, 1 - p[:, 0] * made * used], dim=1)

    k = torch.as_tensor(np.geomspace(0.1, 1e5, 20))[:, None]
    y0 = torch.tensor([[0.0, 1.0]]).expand(20, 2)
    t, options = np.linspace(0, 20, 21), {"sensitivities": True}
    together = solve_ivp(ripening, t, y0, k, **options)
    share = together.stats["n_jac"] / together.stats["n_steps"]
    assert share[0] == 0
    assert 0.2 < share[-1] < 1
    for i in (0, 9, 19):
        alone = solve_ivp(ripening, t, y0[i : i + 1], k[i : i + 1], **options)
        assert torch.equal(alone.y[0], together.y[i])
        assert torch.equal(alone.sensitivities[0], together.sensitivities[i])
        assert alone.stats["n_jac"][0] == together.stats["n_jac"][i]
    tight = solve_ivp(ripening, t, y0, k, rtol=1e-10, method="rodas5p", **options)
    torch.testing.assert_close(together.y, tight.y, rtol=1e-4, atol=1e-9)


def test_derivatives_that_do_not_exist_are_left_to_the_other_method():
    def rising(t, y, p):  # off zero, where the slope of the power is infinite
        power = y[:, 0] ** p[:, 0]
        return torch.stack([1 - y[:, 0], power / (0.3 ** p[:, 0] + power) - y[:, 1]], 1)

    n = torch.tensor([[0.8]], dtype=torch.float64)
    problem = rising, [0.0, 1.0], [[0.0, 0.0]]
    solution = solve_ivp(*problem, n, rtol=1e-8, sensitivities=True, **COMPILED)
    assert solution.success.all()
    assert solution.stats["n_jac"].item() > 0
    up, down = (
        solve_ivp(*problem, n + d, rtol=1e-11).y[0, 1, 1] for d in (1e-4, -1e-4)
    )
    slope = ((up - down) / 2e-4).item()
    found = solution.sensitivities[0, 1, 1, 0].item()
    assert found == pytest.approx(slope, rel=1e-5)
