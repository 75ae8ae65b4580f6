"""A rate is read as it stands, and whatever is not arithmetic is refused by name."""

import ast
import pickle

import numpy as np
import pytest
import torch

from sklearn_inverse.systems._rates import Rates, monomials, names_in, parse_rate

VALUES = {"A": 0.7, "S": 2.5, "k": 3.0, "vmax": 1.5, "km": 0.4, "µ": 1.1}


def evaluate(text, dtype=torch.float64, **options):
    columns = [torch.tensor([[VALUES[n]] * 2], dtype=dtype).T for n in VALUES]
    rates = Rates([parse_rate(text, "R")], [list(VALUES)], **options)
    return rates(torch.cat(columns, dim=1))


@pytest.mark.parametrize(
    "text",
    [
        "3",
        "-2.5e-3",
        "k",
        "2*k*A",
        "vmax*S/(km+S)",
        "k * A**2 - -S",
        "k**-A",
        "exp(-k / 8.314) + log(S) + sqrt(2) + tanh(A)",
        "sin(S) + cos(S) + abs(-A)",
        "min(A, S, 1) * max(k, 5)",
        "  µ * A  ",
        "2**3**2",
    ],
)
def test_an_expression_has_the_value_that_numpy_gives_it(text):
    functions = {name: getattr(np, name) for name in ("exp", "log", "sqrt", "tanh")}
    functions |= {"sin": np.sin, "cos": np.cos, "abs": abs, "min": min, "max": max}
    known = functions | VALUES | {"μ": VALUES["µ"]}  # two letters, one identifier
    expected = eval(text.strip(), known)
    np.testing.assert_allclose(evaluate(text), [[expected]] * 2, rtol=1e-14)
    assert evaluate(text, dtype=torch.float32).dtype == torch.float32


def test_rates_take_several_tensors_constants_and_gradients():
    trees = [parse_rate(rate, "R") for rate in ("k * A", "g", 2)]
    rates = Rates(trees, [["A"], ["k"]], {"g": 9.81})
    A = torch.tensor([[2.0], [3.0]], requires_grad=True)
    k = torch.tensor([[5.0], [7.0]], requires_grad=True)
    values = rates(A, k)
    torch.testing.assert_close(values, torch.tensor([[10, 9.81, 2], [21, 9.81, 2]]))
    by_a, by_k = torch.autograd.grad(values.sum(), (A, k))
    assert torch.equal(by_a, k)
    assert torch.equal(by_k, A)
    assert torch.equal(pickle.loads(pickle.dumps(rates))(A, k), values)


@pytest.mark.parametrize(
    ("rate", "message"),
    [
        ("__import__('os').system('true')", r"holds .__import__\('os'\).system"),
        ("A.__class__", r"R holds 'A.__class__'. A rate may consist of numbers, names"),
        ("np.exp(A)", r"holds 'np.exp\(A\)'.* functions abs, cos, exp, log, max, min"),
        ("exp(A, S)", r"calls 'exp\(A, S\)': .* every other function one"),
        ("min(A)", "min and max take two values"),
        ("max(A, *S)", r"holds '\*S'"),
        ("exp(x=A)", r"holds 'exp\(x=A\)'"),
        ("exp + 1", "holds 'exp'"),
        ("k^2", r"uses '\^': a power is written '\*\*'"),
        ("A if S else k", "holds 'A if S else k'"),
        ("A < S", "holds 'A < S'"),
        ("k, A", r"holds '\(k, A\)'"),
        ("'k'", "holds \"'k'\""),
        ("True", "holds 'True'"),
        ("2j", "holds '2j'"),
        ("lambda: 1", "holds 'lambda: 1'"),
        ("k *", r"R cannot be read: 'k \*' is not an expression"),
        ("PfrX'E * k", "Names in it must consist of letters, digits and _"),
        ("", "cannot be read"),
        ("1 / 0", "holds '1.0 / 0.0', not a finite number"),
        ("9**9**9", "not a finite number"),
        ("(-1)**0.5 * k", "not a finite number"),
        ("9" * 400, "not a finite number"),
        (float("nan"), "not a finite number"),
        (np.inf, "not a finite number"),
        (None, "must be a number, the name of a param, or an expression.*Got None"),
        (True, "Got True"),
    ],
)
def test_what_is_not_arithmetic_is_refused(rate, message):
    with pytest.raises(ValueError, match=message):
        parse_rate(rate, "R")


@pytest.mark.parametrize(
    "text",
    [
        "k",
        "k*A",
        "k*A*(1 - A/km)",
        "-(A - S)**3/2",
        "k*(A - S/km) + +vmax*A**2",
        "exp(k)*A*S*A",
    ],
)
def test_a_polynomial_is_the_sum_of_its_monomials(text):
    terms = monomials(parse_rate(text, "R"), {"A", "S"})
    total = 0.0
    for coefficient, orders in terms:
        assert not {"A", "S"} & set(names_in(coefficient))
        factor = evaluate(ast.unparse(coefficient))
        total += factor * VALUES["A"] ** orders["A"] * VALUES["S"] ** orders["S"]
    torch.testing.assert_close(total, evaluate(text), rtol=1e-13, atol=0)


@pytest.mark.parametrize(
    "text",
    [
        "vmax*S/(km+S)",
        "A**k",
        "A**0.5",
        "k**A",
        "exp(A)",
        "A/A",
        "(A + S)**4 * (A - S)**4",
    ],
)
def test_what_is_no_short_polynomial_has_no_monomials(text):
    assert monomials(parse_rate(text, "R"), {"A", "S"}) is None
