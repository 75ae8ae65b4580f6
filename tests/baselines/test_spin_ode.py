"""SPIN-ODE: neural ODE, rates from its derivatives, fine-tuning through the solver."""

import numpy as np
import pytest
import torch

from sklearn_inverse import (
    Dose,
    Experiment,
    ForwardFunction,
    ODESimulator,
    ODESystem,
    ReactionSystem,
)
from sklearn_inverse.baselines import SpinODEInverter
from sklearn_inverse.baselines._spin_ode import SlopeMisfit
from sklearn_inverse.networks._neural_ode import ShootingMisfit
from sklearn_inverse.optim._standard import InStandard
from sklearn_inverse.probability import InversionStatus, LogUniform

pytestmark = pytest.mark.filterwarnings(
    "ignore::sklearn_inverse.exceptions.MisfitWarning"
)
RATES = np.array([[2.0, 1.0, 0.5], [0.5, 3.0, 2.0]])
TOY = ReactionSystem(
    {"A -> B": "k1", "B -> C": "k2", "B + C -> A": "k3"},
    initial={"A": 1.0},
    params={name: LogUniform(0.1, 10) for name in ("k1", "k2", "k3")},
    times=np.linspace(0, 4, 41),
    noise=1e-3,
)


@pytest.fixture(scope="module")
def readings():
    exact = ODESimulator(TOY).simulate(RATES)
    return exact + 1e-3 * np.random.default_rng(0).standard_normal(exact.shape)


def test_recovers_three_rates_from_a_dense_trajectory_to_one_percent(readings):
    inverter = SpinODEInverter(TOY, max_iter=80, tune_iter=100, random_state=0)
    answer = inverter.fit(readings[:1]).invert(readings[:1])
    np.testing.assert_allclose(answer.params, RATES[:1], rtol=0.01)
    assert answer.explained.all()


def test_derivatives_alone_find_the_rates_nearly(readings):
    inverter = SpinODEInverter(TOY, max_iter=100, tune_iter=0, random_state=0)
    answer = inverter.fit(readings[:1]).invert(readings[:1])
    np.testing.assert_allclose(answer.params, RATES[:1], rtol=0.05)
    assert (answer.n_forward <= 3).all()  # the model only judges


def test_the_rates_of_true_derivatives_are_the_true_ones():
    model = ODESimulator(TOY)
    states = torch.as_tensor(model.simulate(RATES))
    rows = torch.as_tensor(RATES).repeat_interleave(41, dim=0)
    times = torch.as_tensor(TOY.times).repeat(2, 1)
    slopes = TOY.rhs(times.flatten(), states.flatten(0, 1), rows).reshape(states.shape)
    counts = torch.ones(2, 41, 1, dtype=torch.bool)
    draws = torch.rand(8, 3, dtype=torch.float64)
    misfit = SlopeMisfit(model, times[..., None], states, slopes, counts, draws=draws)
    truth = torch.as_tensor(TOY.prior.to_standard(RATES))
    free = InStandard(misfit, torch.arange(2))
    value, gradient = free(truth, torch.arange(2))
    torch.testing.assert_close(value, 0 * value, atol=1e-20, rtol=0)
    torch.testing.assert_close(gradient, 0 * gradient, atol=1e-10, rtol=0)
    z, step = truth + 0.3, 1e-6 * torch.eye(3, dtype=torch.float64)
    _, gradient = free(z, torch.arange(2))
    for j in range(3):
        up, down = (free(z + s * step[j], torch.arange(2))[0] for s in (1, -1))
        torch.testing.assert_close(
            gradient[:, j], (up - down) / 2e-6, rtol=1e-6, atol=0
        )


def test_neural_odes_do_not_feel_each_other_nor_what_was_not_read(readings):
    sparse = torch.as_tensor(readings).clone()
    sparse[1, 1:, 1] = torch.nan
    sparse[1, np.r_[1:7, 9:41]] = torch.nan
    times = torch.as_tensor(TOY.times)
    start = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    options = {"width": 5, "n_layers": 2}
    both = ShootingMisfit(sparse, times, start, **options)
    alone = ShootingMisfit(sparse[1:], times, start, **options)
    x, n = alone.start(0), alone.start(0).shape[1]
    torch.testing.assert_close(both.start(0)[1:, :n], x)
    x[:, -3:] += 0.1
    longer = torch.cat([x, both.start(0)[1:, n:]], dim=1)
    value, gradient = alone(x, torch.tensor([0]))
    told, slope = both(longer, torch.tensor([1]))
    torch.testing.assert_close(told, value)
    torch.testing.assert_close(slope[:, :n], gradient)
    assert not slope[:, n:].any()


def test_answers_do_not_depend_on_company(readings):
    sparse = readings.copy()
    sparse[1, 1::2] = np.nan
    options = {"max_iter": 30, "tune_iter": 20, "random_state": 0}
    together, alone = (
        SpinODEInverter(TOY, chunk_size=n, **options).fit(sparse).predict(sparse)
        for n in (2, 1)
    )
    np.testing.assert_allclose(alone, together, rtol=1e-5)


@pytest.mark.parametrize("call", [20, 90])
def test_ctrl_c_keeps_what_was_found(readings, monkeypatch, call):
    options = {"max_iter": 20, "tune_iter": 50, "random_state": 0}
    inverter = SpinODEInverter(TOY, **options).fit(readings)
    calls = []

    def pressing(function):
        def press(self, *args):
            calls.append(1)
            if len(calls) == call:
                raise KeyboardInterrupt
            return function(self, *args)

        return press

    for cls in (ShootingMisfit, InStandard):
        monkeypatch.setattr(cls, "__call__", pressing(cls.__call__))
    with pytest.warns() as caught:
        answer = inverter.invert(readings)
    assert any(str(w.message).startswith("Interrupted") for w in caught)
    assert (answer.status == InversionStatus.INTERRUPTED).all()
    assert np.isfinite(answer.params).all()


def relax(t, y, p):
    return (p.rate - y.a, y.a - y.b)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"observe": ["a"]}, "all states observed"),
        ({"states": {"a": "rate", "b": 0.0}}, "initial states that are known"),
        ({"events": [Dose("a", 1.0, times=[0.5])]}, "without events"),
        (
            {"experiments": [Experiment(np.arange(1, 6), start=0.0)]},
            "a beginning before",
        ),
    ],
    ids=["observables", "initial states", "events", "start"],
)
def test_what_it_is_not_made_for_is_refused(options, message):
    told = {"states": {"a": 1.0, "b": 0.0}, "params": {"rate": (0.5, 2.0)}} | options
    if "experiments" not in told:
        told["times"] = np.linspace(0, 1, 5)
    system = ODESystem(relax, noise=0.1, **told)
    width = 5 * system.n_channels
    with pytest.raises(ValueError, match=message):
        SpinODEInverter(system).fit(np.ones((1, width)))


def test_a_model_without_a_right_hand_side_is_refused():
    model = ForwardFunction(lambda k: k[:, :1], {"k": (0, 1)}, noise=0.1)
    with pytest.raises(TypeError, match="right-hand side"):
        SpinODEInverter(model).fit([[0.5]])
