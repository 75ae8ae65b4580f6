"""Equations written down from a trace compute what the function does."""

import numpy as np
import pytest
import torch

from sklearn_inverse.ode.compiled import equations, trace
from sklearn_inverse.problems import hires, oregonator, pollu, van_der_pol

NAMES = {("t", 0): "t", ("y", 0): "a", ("y", 1): "b", ("p", 0): "k", ("p", 1): "m"}
FUNCTIONS = {name: getattr(np, name) for name in ("exp", "sqrt", "sin", "where")}


def written(function):
    """Return the equation of a function of t, a, b, k, m."""

    def batched(t, y, p):
        return function(t, *y.unbind(1), *p.unbind(1))[:, None]

    point = (
        torch.ones(2, dtype=torch.float64),
        *torch.rand(2, 2, 2, dtype=torch.float64),
    )
    graph, nodes = trace(batched, point)
    return equations(graph, nodes.tolist(), ["a"], NAMES)


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (lambda t, a, b, k, m: a - a**3 / 3 - b, "a - a**3/3 - b"),
        (lambda t, a, b, k, m: a - (b - k), "a + k - b"),
        (lambda t, a, b, k, m: -(a + b) * k, "-k*(a + b)"),
        (lambda t, a, b, k, m: a / (k + a) / (b * m), "a/((a + k)*b*m)"),
        (lambda t, a, b, k, m: (a / k) ** m * 2, "2*(a/k)**m"),
        (lambda t, a, b, k, m: a ** (-k), "a**(-k)"),
        (lambda t, a, b, k, m: a ** (b**k), "a**(b**k)"),
        (lambda t, a, b, k, m: torch.exp(-k * t) - -2.5, "exp(-k*t) + 2.5"),
        (lambda t, a, b, k, m: torch.where(t < k, a, -b), "where(t < k, a, -b)"),
        (lambda t, a, b, k, m: a + a - 3 * (b + b), "2*a - 3*(2*b)"),
    ],
)
def test_reads_as_one_would_write_it(function, text):
    (line,) = written(function)
    assert line == f"a' = {text}"
    values = dict(zip("tabkm", np.random.default_rng(0).uniform(0.5, 2, (5, 7))))
    found = eval(text, FUNCTIONS | values)
    expected = function(*map(torch.as_tensor, values.values())).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("make", [pollu, hires, oregonator, van_der_pol])
def test_equations_of_a_system_give_its_rates(make):
    system = make()
    rng = np.random.default_rng(0)
    y = rng.uniform(0.5, 2, (3, system.n_states))
    params = system.nominal * rng.uniform(0.5, 2, (3, system.n_params))
    values = dict(zip(system.state_names, y.T)) | dict(
        zip(system.param_names, params.T)
    )
    # Primes and dots of names are no Python.
    plain = {name: f"v{i}" for i, name in enumerate(values)}
    known = {plain[name]: value for name, value in values.items()}
    found = {}
    for line in system.equations():
        name, text = line.split(" = ")
        for old in sorted(values, key=len, reverse=True):
            text = text.replace(old, plain[old])
        known[name] = found[name] = eval(text, dict(known))
    rates = np.stack([found[f"{name}'"] for name in system.state_names], axis=1)
    t = torch.zeros(3, dtype=torch.float64)
    expected = system.rhs(t, *map(torch.as_tensor, (y, params))).numpy()
    np.testing.assert_allclose(rates, expected, rtol=1e-10)


def test_shared_parts_of_long_equations_are_named_and_text_stays_short():
    def squares(t, y, p):
        x = y[:, 0] + p[:, 0]
        for _ in range(40):  # written out, 2**40 terms
            x = torch.sin(x) * torch.cos(x)
        return torch.stack([x, x + 1], dim=1)

    point = (
        torch.ones(2, dtype=torch.float64),
        *torch.rand(2, 2, 2, dtype=torch.float64),
    )
    graph, nodes = trace(squares, point)
    lines = equations(graph, nodes.tolist(), ["a", "b"], NAMES)
    assert lines[0] == "r1 = sin(a + k)*cos(a + k)"
    assert lines[1] == "r2 = sin(r1)*cos(r1)"
    assert lines[-1] == "b' = sin(r39)*cos(r39) + 1"
