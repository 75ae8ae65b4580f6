"""Functions that are out to deceive: traced right, or refused with a reason."""

import itertools
import math
import subprocess
import sys
import time
import warnings
from functools import lru_cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sklearn_inverse.ode.compiled import _algebra
from sklearn_inverse.ode.compiled._trace import Untraceable, trace

RNG = np.random.default_rng(1)
W = torch.as_tensor(RNG.normal(size=(4, 4)))


class Memo:
    """Keeps something from the first call, or by the shape."""

    def __init__(self, by_shape=False):
        self.kept, self.by_shape = {}, by_shape

    def __call__(self, t, y, p):
        key = y.shape if self.by_shape else ()
        if key not in self.kept:
            self.kept[key] = torch.ones(4).to(y) * 2
        return self.kept[key] * y


class Keeper:
    """Keeps what it computed of the first states."""

    def __call__(self, t, y, p):
        if not hasattr(self, "kept"):
            self.kept = y.sum()
        return self.kept * y


class StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, y):
        return y.round()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def caught(t, y, p):
    try:
        fast = float(y[0, 0]) > 1e6
    except Exception:
        fast = False
    return y * 2 if fast else y


def cut_off(t, y, p):
    with torch.no_grad():
        force = y * p
    return force - y


def cut_off_unless_large(t, y, p):
    return torch.where(y > 1e6, y.detach() * p, y)


def cut_off_writing(t, y, p):
    dy = torch.zeros_like(y)
    with torch.no_grad():
        dy.copy_(y)
    return dy + y


def written_by_data(t, y, p):
    dy = y.clone()
    dy.data[:, 0] = p[:, 0]
    return dy


def on_input(t, y, p):
    y[:, 0] = p[:, 0]
    y *= 2
    return y


def global_counter(t, y, p, counter=itertools.count()):  # noqa: B008
    return y * next(counter)


def by_shape(t, y, p):
    return y if len(y) > 1 else 2 * y


def loop_until(t, y, p):
    while y.abs().max() > 1:
        y = y / 2
    return y


def raises_for_one(t, y, p):
    if len(y) == 1:
        raise KeyError("one")
    return y


def prints(t, y, p):
    print(f"y = {y}, first {y[0, 0]:.2f}" if len(y) == 1 else "")
    return y * p


def through_lists(t, y, p):
    return torch.tensor(y.tolist(), dtype=torch.float64) * p


def newton(t, y, p):
    x = y
    for _ in range(3):
        x = x - (x**2 - p) / (2 * x)
    return x


def shares_memory(t, y, p):
    dy = torch.zeros(4, len(y), dtype=torch.float64).T
    dy[:, 0] = y[:, 0]
    dy.mT[1] = y[:, 1]
    flat = dy.reshape(-1)  # a copy here, not a view
    flat *= 5
    return dy + p


def computes_with_filled(t, y, p):
    dy = torch.zeros(len(y), 4, dtype=torch.float64)
    dy[:, 0] = y[:, 0]
    return dy * 2  # torch itself, of a tensor that holds no expression


def prepared_for_an_error(t, y, p):
    try:
        return torch.stack([y, p[:, :1]], dim=1)
    except RuntimeError:
        return y * p


def dtype_by_type(t, y, p):
    return y if type(y) is torch.Tensor else 2 * y


REFUSED = {
    "branch": (lambda t, y, p: y if y[0, 0] > 0 else -y, "decides by a value.*line"),
    "any": (lambda t, y, p: y if (y > 0).any() else -y, "decides by a value"),
    "max": (lambda t, y, p: y * max(y[0, 0], 0.3), "decides by a value"),
    "float": (lambda t, y, p: y * float(t[0]), "decides by a value|takes a value"),
    "item": (lambda t, y, p: y * t[0].item(), "value"),
    "math.exp": (lambda t, y, p: y * math.exp(t[0]), "value"),
    "numpy": (lambda t, y, p: torch.as_tensor(np.exp(y.numpy())), "value out of torch"),
    "asarray": (lambda t, y, p: torch.as_tensor(np.sin(np.asarray(y))), "out of torch"),
    "np.interp": (
        lambda t, y, p: y * torch.as_tensor(np.interp(t, [0, 1], [0, 1]))[:, None],
        "out of torch",
    ),
    "tolist": (through_lists, "value out of torch"),
    "caught": (caught, "decides by a value|takes a value"),
    "while": (loop_until, "decides by a value"),
    "mask": (lambda t, y, p: y[y > 0].reshape(y.shape), "decides by a value"),
    "nonzero": (lambda t, y, p: y * torch.nonzero(y > 0).sum(), "decides by a value"),
    "detach": (lambda t, y, p: y.detach() * p, "cuts"),
    "data": (lambda t, y, p: y.data * p, "cuts"),
    "data written": (written_by_data, "cuts"),
    "no_grad": (cut_off, "cuts"),
    "detach somewhere": (cut_off_unless_large, "cuts"),
    "no_grad writing": (cut_off_writing, "cuts"),
    "straight through": (lambda t, y, p: StraightThrough.apply(y), "cuts"),
    "rand": (lambda t, y, p: y * torch.rand(4).double(), "something else each time"),
    "rand_like": (lambda t, y, p: y * torch.rand_like(y), "something else each time"),
    "numpy random": (lambda t, y, p: y * RNG.uniform(), "something else each time"),
    "dropout": (lambda t, y, p: F.dropout(y), "something else each time"),
    "clock": (lambda t, y, p: y * time.perf_counter(), "something else each time"),
    "counter": (global_counter, "something else each time"),
    "float32": (lambda t, y, p: y.float() * p.float(), "double precision"),
    "float32 inside": (lambda t, y, p: y.float().double(), "float32"),
    "single numbers": (lambda t, y, p: torch.where(y > 1, 0.1, 0.3) * y, "float32"),
    "scaled condition": (lambda t, y, p: (y > 1) * 0.1 * y, "float32"),
    "divided count": (lambda t, y, p: (y > 1).sum(1, keepdim=True) / 3 * y, "float32"),
    "bits": (lambda t, y, p: (y.long() & 1) * y, "bits"),
    "complex": (lambda t, y, p: (y * 1j).imag, "complex|not known"),
    "polar": (lambda t, y, p: torch.view_as_real(torch.polar(y, p))[..., 0], "torch's"),
    "rows": (lambda t, y, p: y - y.mean(0), "values are not"),
    "all rows": (lambda t, y, p: y * y.mean(), "values are not"),
    "rows sorted": (lambda t, y, p: y.sort(dim=0).values, "sorts"),
    "sorted": (lambda t, y, p: y.sort(dim=1).values, "sorts"),
    "top": (lambda t, y, p: y.topk(2, dim=1).values, "sorts"),
    "shape": (by_shape, "values are not"),
    "type": (dtype_by_type, "values are not"),
    "one row": (raises_for_one, "fails by KeyError"),
    "solve": (lambda t, y, p: torch.linalg.solve(W, y.T).T, "torch's `.*linalg"),
    "eig": (lambda t, y, p: y @ torch.linalg.inv(torch.diag_embed(y))[0], "torch's"),
    "norm of order 3": (lambda t, y, p: y * y.norm(3, dim=1, keepdim=True), "order 3"),
    "empty": (lambda t, y, p: torch.empty_like(y).mul_(0).add_(y), "values|each time"),
    "squeeze": (lambda t, y, p: (y[:, :1] * p[:, :1]).squeeze(), "shape|values"),
    "filled": (computes_with_filled, "values are not"),
    "list": (lambda t, y, p: [y, p], "returns list"),
    "none": (lambda t, y, p: None, "returns NoneType"),
    "fewer": (lambda t, y, p: y[:1], "one row for each"),
    "special": (lambda t, y, p: torch.special.bessel_j0(y), "torch's `special_bessel"),
}
TRACED = {
    "memo": Memo(),
    "keeper": Keeper(),
    "memo by shape": Memo(by_shape=True),
    "cached": lambda t, y, p: y @ weights(4) * p,
    "on input": on_input,
    "prints": prints,
    "prepared for an error": prepared_for_an_error,
    "newton": newton,
    "shares memory": shares_memory,
    "float32 constant": lambda t, y, p: y * torch.tensor([0.1, 0.2, 0.3, 0.4]),
    "float32 number": lambda t, y, p: torch.tensor(0.1) * y + torch.ones(1),
    "masks": lambda t, y, p: (y > 1).float() * p + (1 - (y > 1).float()) * y,
    "short numbers": lambda t, y, p: torch.where(y > 1, 0.5, 2.0) * y + (p > y) * 0.25,
    "logic": lambda t, y, p: (~(y > 1) & (p > 1) | (y > p) ^ (y < 2)) * y,
    "integers": lambda t, y, p: y * torch.arange(4) + torch.tensor(3) / 2,
    "numpy numbers": lambda t, y, p: np.float64(2.0) * y + np.int64(3) + y / np.pi,
    "numpy array": lambda t, y, p: y * torch.as_tensor(np.arange(4.0)),
    "no_grad for constants": lambda t, y, p: y * constants(),
    "condition of a detached": lambda t, y, p: torch.where(y.detach() > 1, y, p),
    "jacrev": lambda t, y, p: (
        torch.func.vmap(torch.func.jacrev(torch.sin))(y).sum(-1) * p
    ),
    "many steps": lambda t, y, p: sum((y * p**k for k in range(5)), start=t[:, None]),
    "warns": lambda t, y, p: (warnings.warn("!", stacklevel=1) or y) * p,
    "infinite": lambda t, y, p: (
        torch.log(y - 1) * p + torch.cat([y[:, :3], 0 * y[:, :1] / 0], 1)
    ),
    "infinite branch": lambda t, y, p: torch.where(y > 9, torch.sqrt(9 - y - y), y),
    "requires_grad": lambda t, y, p: y * torch.ones(4).double().requires_grad_(),
    "equilibrium": lambda t, y, p: y / 3 - y * (1 / 3),
}


@lru_cache
def weights(n):
    return torch.arange(n * n, dtype=torch.float64).reshape(n, n)


def constants():
    with torch.no_grad():
        return torch.ones(4, dtype=torch.float64) * 2


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_traced_is_refused(name, points):
    rhs, reason = REFUSED[name]
    with pytest.raises(Untraceable, match=reason):
        trace(rhs, points())


@pytest.mark.filterwarnings("ignore:!")
@pytest.mark.parametrize("name", TRACED)
def test_what_looks_odd_is_traced(name, points, assert_is):
    def rhs(*inputs):
        return TRACED[name](*(x.clone() for x in inputs))

    assert_is(trace(TRACED[name], points()), rhs, points(seed=1))


def test_a_memo_is_left_with_numbers(points):
    memo = Memo(by_shape=True)
    trace(memo, points())
    assert all(type(x) is torch.Tensor for x in memo.kept.values())
    assert memo(*points(n=1)).shape == (1, 4)


def test_inputs_are_left_as_they_are(points):
    inputs = points()
    trace(on_input, inputs)
    for given, before in zip(inputs, points()):
        assert torch.equal(given, before)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_caller_may_do_without_derivatives(mode, points, assert_is):
    with mode():
        traced = trace(newton, points())
    assert_is(traced, newton, points(seed=1))


def test_an_error_of_the_function_itself_comes_through(points):
    with pytest.raises(ZeroDivisionError):
        trace(lambda t, y, p: 1 / 0, points())


def test_rows_that_meet_are_found_with_one_row_too(points):
    def mixed(t, y, p):
        return p[:, 0] * y[:, :1]  # (n, n)

    with pytest.raises(Untraceable, match="how many rows"):
        trace(mixed, points(n=1))


def test_what_is_kept_of_the_last_call_is_numbers_after_a_refusal(points):
    kept = {}

    def keeps(t, y, p):
        kept["y"] = y
        return y if y.sum() > 0 else p

    with pytest.raises(Untraceable, match="by a value"):
        trace(keeps, points())
    assert type(kept["y"]) is torch.Tensor


def test_a_trace_is_of_the_function_as_it_was(points, assert_is):
    rate = torch.ones(4, dtype=torch.float64)
    traced = trace(lambda t, y, p: rate * y, points())
    rate *= 2
    assert_is(traced, lambda t, y, p: y, points(seed=1))


def test_there_is_nothing_beyond_the_end_of_a_table(points, evaluate):
    table = torch.arange(5.0, dtype=torch.float64)
    traced = trace(lambda t, y, p: table[t.long() - 1][:, None] * y, points())
    t, y, p = points(n=3)
    t = torch.tensor([0.5, 4.0, 6.0]).double()
    found = evaluate(*traced, t, y, p) / y
    np.testing.assert_allclose(found[:, 0], [4.0, 3.0, np.nan], rtol=1e-15)


def test_params_alone_and_shapes_of_any_kind(points):
    p = points()[2]
    graph, nodes = trace(lambda p: p[:, :, None] * p[:, None], (p,), kinds=("p",))
    assert nodes.shape == (4, 4)
    assert nodes[0, 1] == nodes[1, 0]
    assert graph.nodes[nodes[0, 1]][0] == "mul"
    graph, nodes = trace(lambda p: p.sum(1), (p,), kinds=("p",))
    assert nodes.shape == ()


def test_known_zeros_leave_products_of_matrices_sparse(points):
    graph, nodes = trace(lambda t, y, p: y @ torch.eye(4).double() * p, points())
    assert len(graph.cone(nodes)) == 12


def test_the_budget_bounds_what_is_written_down(monkeypatch, points):
    def long(t, y, p):
        for i in range(100):
            y = y + i * p
        return y

    trace(long, points())
    monkeypatch.setattr(_algebra, "MAX_NODES", 500)
    with pytest.raises(Untraceable, match="more than 500 operations"):
        trace(long, points())


def test_what_torch_cannot_differentiate_is_traced_all_the_same(
    points, evaluate, jacobian
):
    def steps(t, y, p):
        return torch.heaviside(t - 1, t)[:, None] * p - y // 0.3

    traced, fresh = trace(steps, points()), points(seed=1)
    np.testing.assert_allclose(evaluate(*traced, *fresh), steps(*fresh), rtol=1e-14)
    assert (jacobian(*traced, *fresh, "y") == 0).all()


def test_a_trace_takes_milliseconds_and_imports_nothing():
    code = """
import sys, time, torch
from sklearn_inverse.ode.compiled._trace import trace
def rhs(t, y, p):
    dose = torch.where((t > 0.2) & ~(t >= 0.5), 1.0, 0.0)[:, None]
    dy = p[:, :1] * torch.roll(y, 1, 1) - torch.exp(-t)[:, None] * y / (1 + y**2) + dose
    dy[:, 0] += torch.sigmoid(y[:, 1:]).sum(1)
    return dy
before, start = set(sys.modules), time.perf_counter()
x = torch.rand(5, 26, dtype=torch.float64)
trace(rhs, (x[:, 0], x, x))
print(time.perf_counter() - start)
slow = {"sympy", "torch._dynamo", "torch.distributed.tensor"}
print(sorted(slow & set(sys.modules) - before))
"""
    run = [sys.executable, "-c", code]
    out = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    seconds, imported = out.splitlines()
    assert float(seconds) < 0.5  # 0.02 where nothing else runs
    assert imported == "[]"
