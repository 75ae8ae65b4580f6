"""What is traced beside a right-hand side computes what torch does, and never wrongly."""

import numpy as np
import pytest
import torch

from sklearn_inverse import Increment, ODESimulator, ODESystem
from sklearn_inverse.ode._rhs import push_tangents, rowwise_jacobian
from sklearn_inverse.ode.compiled import Lasting, _rows, compared_once
from sklearn_inverse.systems import Dose, Event, Table


class Rows(Lasting):
    """A function that lasts."""

    def __init__(self, function, kinds=("t", "y", "p")):
        self.function, self.kinds = function, kinds

    def __call__(self, *inputs):
        return self.function(*inputs)


def looked_at(t, y, p):
    """Look at states in four ways."""
    a, b = y.unbind(1)
    seen = (
        p[:, 0] * torch.exp(-t) * a / (1 + b**2),
        torch.log(a) + torch.sin(b * p[:, 1]),
    )
    return torch.stack([*seen, torch.where(a > b, a * b, p[:, 2]), b], dim=1)


RNG = np.random.default_rng(0)
POINT = [torch.as_tensor(RNG.uniform(0.5, 2, s)) for s in ((11,), (11, 2), (11, 3))]
ALONG = [torch.as_tensor(RNG.normal(size=(5, *x.shape))) for x in POINT]


def test_values_and_derivatives_are_those_of_torch():
    function = Rows(looked_at)
    traced = function.traced(*POINT)
    columns = [x.numpy().reshape(11, -1) for x in POINT]
    np.testing.assert_allclose(traced(*columns), looked_at(*POINT), rtol=1e-12)
    pushed = push_tangents(function, POINT, ALONG)
    expected = push_tangents(looked_at, POINT, ALONG)
    torch.testing.assert_close(pushed, expected, rtol=1e-10, atol=1e-13)
    start = Rows(lambda p: torch.stack([p[:, 0] ** 1.5, p[:, 2] / p[:, 1]], 1), ("p",))
    found = rowwise_jacobian(start, POINT[2])
    expected = rowwise_jacobian(start.function, POINT[2])
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-13)


def test_a_row_is_the_same_alone_and_among_others(monkeypatch):
    function = Rows(looked_at)
    together = push_tangents(function, POINT, ALONG)
    with monkeypatch.context() as patch:  # few rows at a time
        patch.setattr(_rows, "MANY", 100)
        assert torch.equal(push_tangents(function, POINT, ALONG), together)
    for i in range(len(POINT[0])):
        alone = [x[i : i + 1] for x in POINT], [x[:, i : i + 1] for x in ALONG]
        assert torch.equal(push_tangents(function, *alone), together[:, i : i + 1])


def test_what_changes_is_noticed_but_where_nothing_may(monkeypatch):
    factor = [2.0]
    function = Rows(lambda p: factor[0] * p.square(), ("p",))
    x = POINT[2][:, :1]
    assert torch.equal(rowwise_jacobian(function, x)[:, 0], 4 * x)
    factor[0] = 3.0
    assert torch.equal(rowwise_jacobian(function, x)[:, 0], 6 * x)
    n_traced = []
    monkeypatch.setattr(_rows, "trace", lambda *args: n_traced.append(args))
    with compared_once():
        for _ in range(2):
            assert torch.equal(rowwise_jacobian(function, x)[:, 0], 6 * x)
    assert not n_traced


def test_gradients_still_pass_through():
    x = POINT[2].clone().requires_grad_()
    function = Rows(lambda p: p.prod(1, keepdim=True), ("p",))
    slopes = rowwise_jacobian(function, x)
    (bent,) = torch.autograd.grad(slopes[:, 0, 0].sum(), x)
    torch.testing.assert_close(bent[:, 1], x[:, 2].detach())


def decay(t, y, p, u):
    return [-p.rate * y.a, p.rate * y.a - u.drain * y.b]


def make(weight=lambda y: y.a, **more):
    """Return a system with everything that can be traced."""
    options = {
        "states": {"a": lambda p: np.exp(p.log_start), "b": "rest"},
        "params": {"rate": (0.1, 2), "log_start": (-1, 1), "rest": (0.1, 1)},
        "times": np.linspace(0, 3, 7),
        "inputs": {"drain": Table([0.0, 1.0, 4.0], [0.5, 1.0, 0.2]), "gain": 1.5},
        "observe": {
            "light": lambda t, y, p, u: (
                u.gain * np.log1p(weight(y) * y.b) + u.drain * t
            ),
            "grown": Increment(lambda t, y, p: p.rate * y.a * np.exp(-t)),
            "b": "b",
        },
        "events": [
            Dose("a", amount=lambda p: p.rate**2, times=[1.2]),
            Event("rest", {"b": lambda t, y, p: y.b + np.sqrt(p.rate) * t}),
        ],
        "noise": 0.1,
    }
    return ODESystem(decay, **options | more)


PARAMS = np.random.default_rng(1).uniform([0.3, -0.5, 0.2], [1.5, 0.5, 0.9], (3, 3))


def test_a_system_has_the_derivatives_that_differences_have():
    simulator = ODESimulator(make(), rtol=1e-10)
    found = simulator.sensitivities(PARAMS)
    for j in range(3):
        h = 1e-5 * np.eye(3)[j]
        change = simulator.simulate(PARAMS + h) - simulator.simulate(PARAMS - h)
        np.testing.assert_allclose(found[..., j], change / 2e-5, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["traced", "untraceable"])
def test_torch_does_the_same_where_nothing_is_traced(kind, monkeypatch):
    def weight(y):
        if kind == "untraceable" and float(y.a._tensor.detach().sum()) > 1e9:
            return y.b
        return y.a

    simulator = ODESimulator(make(weight))
    scaled = torch.as_tensor(simulator.param_scaler_.to_scaled(PARAMS))
    found = simulator.linearize(scaled)
    traced = simulator.system._instrument.traced
    points = [torch.ones(1).double(), torch.ones(1, 2).double()]
    points.append(simulator._rows(torch.as_tensor(PARAMS[:1]), None))
    assert (traced(*points) is None) == (kind == "untraceable")
    with monkeypatch.context() as patch:
        patch.setattr(Lasting, "traced", lambda *_: None)
        expected = simulator.linearize(scaled)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(found[1], expected[1], rtol=1e-9, atol=1e-12)
    x = scaled.clone().requires_grad_()
    simulator.forward(x).sum().backward()
    torch.testing.assert_close(x.grad, found[1].sum((1, 2)), rtol=1e-6, atol=1e-9)
    for i in range(len(scaled)):
        alone = simulator.linearize(scaled[[i]])
        assert all(torch.equal(a, f[[i]]) for a, f in zip(alone, found))


def test_an_instrument_that_changes_is_noticed():
    power = [1.0]
    system = make(lambda y: y.a ** power[0])
    simulator = ODESimulator(system)
    first = simulator.sensitivities(PARAMS)
    power[0] = 2.0
    second = simulator.sensitivities(PARAMS)
    assert not np.allclose(first, second)
    fresh = ODESimulator(make(lambda y: y.a**2)).sensitivities(PARAMS)
    np.testing.assert_allclose(second, fresh, rtol=1e-9, atol=1e-12)
