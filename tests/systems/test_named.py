"""What a function gives for one sample in NumPy, it gives on batches, with derivatives."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.autograd import forward_ad

from sklearn_inverse.systems._functions import Named, Names, OneSample
from sklearn_inverse.systems._values import Value
from sklearn_inverse.systems._vocabulary import OneSampleError

RNG = np.random.RandomState(0)
A, C = RNG.rand(3, 3), RNG.rand(3)
W = torch.as_tensor(A)
X = RNG.uniform(0.1, 1, (4, 3))
NAMES = Names("param", ["a", "b", "c"], {"pair": slice(1, 3), "known": 2.5})


def filled(y):
    d = np.zeros_like(y)
    d[0] = y[1]
    d[1:] = 2 * y[1:]
    d[2] += y[0]
    return d


# Called with an array, these are NumPy's; with values, ours.
FUNCTIONS = {
    "arithmetic": lambda y: [y[0] + 1, 2 - y[1] / 3, -y[2] * y[0] % 0.3],
    "powers": lambda y: y**2 + 2**y + np.power(y, 1.5) + y // 0.3,
    "numbers of NumPy": lambda y: np.float64(2) * y + np.int64(1),
    "known vector": lambda y: C * y - y / C,
    "list": lambda y: y * [1, 2, 3] + [0.0, y[0], 1.0],
    "known matrix": lambda y: A @ y + y @ A + np.dot(A, y) + np.matmul(A, y),
    "inner": lambda y: [y @ y, np.dot(y, C), np.inner(C, y)],
    "outer": lambda y: np.outer(y, y) @ C + (y[:, None] * y[None, :]).sum(axis=-1),
    "matrices": lambda y: (A * y) @ (A * y) @ y,
    "einsum": lambda y: np.einsum("ij,j->i", A, y),
    "slices": lambda y: [y[-1] + y[0], *(y[1:] - y[:-1])],
    "reversed": lambda y: y[::-1] + y[[2, 0, 1]] + y[np.array([0, 0, 1])],
    "ellipsis": lambda y: [y[..., 0], y[..., 1], y[..., 2]],
    "roll": lambda y: np.roll(y, 1) - 2 * y + np.roll(y, -1),
    "diff": lambda y: np.concatenate([[0.0], np.diff(y)]) + np.diff(y, prepend=0.5),
    "append": lambda y: np.append(y[:2], 0.5) + np.hstack([y[0], y[1:]]),
    "stack": lambda y: np.stack([y[0], 0.5, y[2]]) + np.flip(y),
    "sums": lambda y: [np.sum(y), y.mean(), np.sum([y[0], y[1]])],
    "axes": lambda y: (A * y).sum(axis=0) + np.sum(A * y, axis=-1) + np.cumsum(y),
    "extremes": lambda y: [np.max(y), y.min(), np.prod(y)],
    "norm": lambda y: np.linalg.norm(y) * y + np.trapezoid(y),
    "where": lambda y: np.where(y > 0.5, y, 0.1) + np.where(y[0] < 0.5, 1.0, 0.2),
    "select": lambda y: np.select([y > 0.7, y > 0.3], [y, 2 * y], 0.0),
    "conditions": lambda y: ((y > 0.3) & (y < 0.8)) * 0.1 + (1 - (y > 0.5)) * y,
    "conditions and lists": lambda y: (y > 0.5) * [0.5, 1, 2] + y[0] * (y > 0.4),
    "clip": lambda y: np.clip(y, 0.2, 0.6) + np.maximum(y, 0.5) + np.minimum(0.4, y),
    "interp": lambda y: np.interp(y, [0.2, 0.3, 0.6], [1.0, 2.0, 0.0]),
    "functions": lambda y: np.exp(-y) / np.sqrt(y) + np.hypot(y, C) - np.log1p(y),
    "object array": lambda y: np.exp(np.array([y[0], y[1], y[2]])) * 2,
    "filled": filled,
    "constant": lambda y: [0, 1.5, y[0]],
    "all constant": lambda y: np.array([1.0, 2.0, 3.0]),
    "shape": lambda y: [*(y.T * y.shape[0] * len(y) * y.ndim).copy()],
}
TORCH = {
    "stack": lambda y: torch.stack([y[0], y[1] * 2, y[2]], -1),
    "where": lambda y: torch.where(y > 0.5, y, torch.zeros(())).exp(),
    "linear": lambda y: F.linear(y, W, W[0]) + W @ y,
    "softmax": lambda y: torch.softmax(y, -1) + torch.stack(y.unbind(-1)),
    "sums": lambda y: y.sum(-1, keepdim=True) * torch.sum(y) * y.clamp(min=0.3),
    "cat": lambda y: torch.cat([y[1:], y[:1]]) + torch.roll(y, 1, 0),
    "reflected": lambda y: W[0] * y - W[0] / y + torch.maximum(y, torch.tensor(0.5)),
    "norm": lambda y: torch.linalg.norm(y) * y.reshape(3, 1)[:, 0],
}


def on_many(function):
    return OneSample(function, "`f`", None, NAMES, (3,))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_do_as_arrays_of_numpy(name):
    function = FUNCTIONS[name]
    expected = [np.array(function(x), dtype=float) for x in X]
    for dtype, rtol in ((torch.float64, 1e-12), (torch.float32, 1e-4)):
        result = on_many(function)(torch.as_tensor(X, dtype=dtype))
        assert result.dtype == dtype
        np.testing.assert_allclose(result, expected, rtol=rtol)


@pytest.mark.parametrize("name", TORCH)
def test_values_do_as_tensors_of_torch(name):
    x = torch.as_tensor(X)
    expected = torch.stack([TORCH[name](row) for row in x])
    torch.testing.assert_close(on_many(TORCH[name])(x), expected)


@pytest.mark.parametrize(
    "function",
    [
        FUNCTIONS[k]
        for k in ("outer", "diff", "interp", "norm", "einsum", "object array")
    ]
    + list(TORCH.values()),
)
def test_derivatives_flow_backward_and_forward(function):
    x = torch.as_tensor(X).requires_grad_()
    batched = on_many(function)
    assert torch.autograd.gradcheck(batched, (x,))
    tangent = torch.rand_like(x)
    _, backward = torch.autograd.functional.jvp(batched, x, tangent)
    with forward_ad.dual_level() as level:
        dual = batched(torch._make_dual(x.detach(), tangent, level=level))
        forward = forward_ad.unpack_dual(dual).tangent
    torch.testing.assert_close(forward, backward)


def test_names_positions_groups_and_constants():
    p = Named(torch.as_tensor(X), NAMES)
    for value in (p.b, p["b"], p[1], p[-2], list(p)[1], p.pair[0], p["pair"][0]):
        assert torch.equal(value._tensor, torch.as_tensor(X[:, 1]))
    assert p.known == p["known"] == 2.5
    assert len(p) == 3
    a, b, _ = p
    assert isinstance(a * b, Value)


def test_names_come_before_methods():
    y = Named(torch.as_tensor(X), Names("state", ["T", "sum", "mean"]))
    assert torch.equal(y.T._tensor, torch.as_tensor(X[:, 0]))
    assert torch.equal(y.sum._tensor, torch.as_tensor(X[:, 1]))


def test_many_names_are_found_as_they_are_asked_for():
    names = Names("state", [f"u{i}" for i in range(100)])
    rows = torch.arange(200.0).view(2, 100)
    y = Named(rows, names)
    assert "_columns" not in vars(y)
    assert y.u7._tensor.tolist() == y[7]._tensor.tolist() == [7, 107]
    assert (y[1:] - y[:-1])._tensor.shape == (99, 2)


def in_place(p):
    p[0] = 1.0


def by_attribute(p):
    p.a = 1.0


def fill_numbers(p):
    np.zeros(3)[0] = p.a


def fill_tensor(p):
    torch.zeros(3)[0] = p.a


def add_to_array(p):
    total = np.zeros(3)
    total += p


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (float, OneSampleError, "plain number"),
        (lambda p: range(3)[p.a], OneSampleError, "plain number"),
        (fill_tensor, OneSampleError, "return a list"),
        (lambda p: 1 if p.a > 1 else 2, OneSampleError, r"np\.where\(condition"),
        (lambda p: max(p.a, 0), OneSampleError, r"np\.maximum"),
        (lambda p: p.a > 0 and p.b > 0, OneSampleError, "& for `and`"),
        (in_place, OneSampleError, "in place"),
        (by_attribute, OneSampleError, "in place"),
        (add_to_array, OneSampleError, "in place"),
        (lambda p: p.a.add_(1), OneSampleError, "in place"),
        (lambda p: p.numpy(), OneSampleError, "cut the model off"),
        (lambda p: p.a.detach(), OneSampleError, "cut the model off"),
        (lambda p: np.linalg.inv(p), OneSampleError, r"numpy\.linalg\.inv does not"),
        (lambda p: np.spacing(p.a), OneSampleError, "`spacing` does not"),
        (lambda p: torch.tensor([p.a, p.b]), OneSampleError, r"write torch\.stack"),
        (lambda p: p * [p.a, p], OneSampleError, r"Join them by np\.concatenate"),
        (lambda p: p.a + "1", OneSampleError, "Got '1'"),
        (lambda p: p[p.a], OneSampleError, "plain number"),
        (lambda p: p.knwon, AttributeError, "no param 'knwon'; did you mean 'known'"),
        (lambda p: p["x"], KeyError, "no param 'x' among"),
        (lambda p: p[3], IndexError, "3 params, counted from 0; index 3"),
        (lambda p: p[:, 0], IndexError, r"vector is indexed by \[:, 0\].*one sample"),
        (lambda p: p.a[0], IndexError, r"number is indexed by \[0\].*one sample"),
        (lambda p: p.sum(axis=1), IndexError, "no axis 1"),
        (lambda p: p.a.x, AttributeError, "number of one sample has no attribute"),
        (lambda p: list(p.a), OneSampleError, "cannot be iterated"),
        (lambda p: len(p.a), OneSampleError, "no length"),
    ],
)
def test_what_cannot_be_done_is_said(function, error, message):
    with pytest.raises(error, match=message):
        function(Named(torch.as_tensor(X), NAMES))


def test_numpy_fills_no_array_of_numbers():
    with pytest.raises(ValueError, match="setting an array element") as caught:
        fill_numbers(Named(torch.as_tensor(X), NAMES))
    assert isinstance(caught.value.__cause__, OneSampleError)


@pytest.mark.gpu
def test_values_stay_on_their_device():
    x = torch.as_tensor(X, device="cuda")
    for function in FUNCTIONS.values():
        assert on_many(function)(x).device == x.device
