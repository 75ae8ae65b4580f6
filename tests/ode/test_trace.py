"""What is traced is the function, at points never seen before; all else is refused."""

import itertools
import math
import subprocess
import sys
import time
import warnings
from functools import lru_cache, partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sklearn_inverse.ode._rhs import rowwise_jacobian
from sklearn_inverse.ode.compiled import _algebra
from sklearn_inverse.ode.compiled._trace import Untraceable, trace
from sklearn_inverse.problems import (
    grn,
    hires,
    lotka_volterra,
    oregonator,
    pollu,
    robertson,
    van_der_pol,
)
from sklearn_inverse.systems import ODESystem, ReactionSystem

RNG = np.random.default_rng(1)
W = torch.as_tensor(RNG.normal(size=(4, 4)))
TIMES = torch.linspace(0, 3, 7, dtype=torch.float64)
TABLE = torch.as_tensor(RNG.uniform(1, 2, 7))
NET = torch.nn.Sequential(
    torch.nn.Linear(4, 6), torch.nn.Softplus(), torch.nn.Linear(6, 4), torch.nn.Tanh()
).double()


def points(n=6, n_states=4, n_params=4, seed=0):
    """Draw times, states and params."""
    rng = np.random.default_rng(seed)
    shapes = (n,), (n, n_states), (n, n_params)
    return [torch.as_tensor(rng.uniform(0.1, 2.5, shape)) for shape in shapes]


def evaluate(graph, nodes, t, y, p):
    variables = {"t": t[:, None], "y": y, "p": p}
    columns = graph.evaluate(
        nodes.ravel().tolist(), {k: np.asarray(x) for k, x in variables.items()}
    )
    columns = [np.broadcast_to(column, len(t)) for column in columns]
    return torch.as_tensor(np.stack(columns, axis=-1))


def jacobian(graph, nodes, t, y, p, by):
    n = (y if by == "y" else p).shape[1]
    seeds = {graph.variable(by, j): {j: graph.constant(1)} for j in range(n)}
    slopes = graph.differentiate(nodes.ravel().tolist(), seeds)
    flat = np.array([s.get(j, graph.constant(0)) for s in slopes for j in range(n)])
    return evaluate(graph, flat, t, y, p).reshape(len(t), -1, n)


def assert_is(traced, rhs, fresh, rtol=1e-9):
    """Compare a trace with the function, and their Jacobians, where those are finite."""
    t, y, p = fresh

    def assert_close(found, expected):
        scale = expected.nan_to_num().abs().flatten(1).amax(1)
        expected = expected.reshape(found.shape)
        allowed = (rtol * scale).reshape(-1, *[1] * (found.ndim - 1)) + 1e-14
        good = (found - expected).abs() <= allowed
        assert (good | (found == expected) | ~expected.isfinite()).all()

    assert_close(evaluate(*traced, *fresh), rhs(*fresh).detach())
    by_state = rowwise_jacobian(lambda y: rhs(t, y, p), y)
    assert_close(jacobian(*traced, *fresh, "y"), by_state.detach())
    by_param = rowwise_jacobian(lambda p: rhs(t, y, p), p)
    assert_close(jacobian(*traced, *fresh, "p"), by_param.detach())


# -- models as they are written -----------------------------------------------------------


def fitzhugh_nagumo(t, y, p):
    v, w = y[:, 0], y[:, 1]
    return torch.stack([p[:, 0] * (v - v**3 / 3 + w), -(v - p[:, 1] + p[:, 2] * w)], 1)


def sir(t, y, p):
    s, i, _ = y[:, :3].unbind(dim=1)
    new = p[:, 0] * s * i / y[:, :3].sum(dim=1)
    return torch.stack((-new, new - p[:, 1] * i, p[:, 1] * i), dim=-1)


def michaelis_menten(t, y, p):
    rate = p[..., :1] * y[..., :1] / (p[..., 1:2] + y[..., :1])
    return torch.cat([-rate, rate - p[..., 2:3] * y[..., 1:2]], dim=-1)


def hill(t, y, p):
    power = y[:, 0] ** p[:, 0]
    repressed = p[:, 1] / (1 + (y[:, 1] / p[:, 2]).pow(p[:, 3]))
    return torch.stack([repressed - y[:, 0], power / (p[:, 2] ** p[:, 0] + power)], 1)


def mapk(t, y, p):
    total = torch.tensor([1.0, 2.0, 3.0, 1.5], dtype=torch.float64)
    signal = torch.cat([torch.exp(-t)[:, None], y[:, :-1]], dim=1)
    on = p * signal * (total - y) / (0.1 + total - y)
    return on - 0.5 * y / (0.2 + y)


def brusselator(t, y, p, laplace):
    u, v = y[:, :2], y[:, 2:]
    reaction = u**2 * v
    return torch.cat(
        [
            p[:, :1] + reaction - (p[:, 1:2] + 1) * u + p[:, 2:3] * laplace(u),
            p[:, 1:2] * u - reaction + p[:, 2:3] * laplace(v),
        ],
        dim=1,
    )


def by_rolls(u):
    return torch.roll(u, 1, dims=1) - 2 * u + torch.roll(u, -1, dims=1)


def by_slices(u):
    out = torch.zeros_like(u)
    out[:, 1:-1] = u[:, 2:] - 2 * u[:, 1:-1] + u[:, :-2]
    out[:, 0] = u[:, 1] - u[:, 0]
    out[:, -1] += u[:, -2] - u[:, -1]
    return out


def pulses(t, y, p):
    dose = torch.where((t > 0.5) & (t <= 1.5), p[:, 0], torch.zeros_like(t))
    late = torch.where(t < 2, 0.0, 1.0)
    return torch.stack([dose - p[:, 1] * y[:, 0], late * y[:, 0], y[:, 1], y[:, 2]], 1)


def tabulated(t, y, p):
    i = torch.searchsorted(TIMES, t, right=True).clamp(1, len(TIMES) - 1)
    slope = (TABLE[i] - TABLE[i - 1]) / (TIMES[i] - TIMES[i - 1])
    force = TABLE[i - 1] + slope * (t - TIMES[i - 1])
    return -p * y + force[:, None]


def by_day(t, y, p):
    day = torch.bucketize(t.detach(), TIMES[1:-1])
    rates = TABLE.expand(len(t), -1).gather(1, day[:, None])
    return -p * y * rates + TABLE[t.floor().long()][:, None]


def forced(t, y, p):
    return torch.exp(-t)[:, None] * p - y + torch.sin(2 * math.pi * t).unsqueeze(-1)


def filled(t, y, p):
    dy = y.new_zeros(y.shape)
    dy[:, 0] = p[:, 0] * y[:, 1]
    dy[:, 1:3] = y[:, :2] * p[:, 1:2]
    dy[:, [3, 0]] += y[:, [0, 3]]
    dy[:, 2].mul_(2).sub_(t)
    dy.select(1, 3).copy_(dy[:, 1].exp())
    return dy


def filled_anew(t, y, p):
    dy = torch.empty(len(y), 4, dtype=torch.float64)
    for i in range(4):
        dy[:, i] = p[:, i] * y[:, (i + 1) % 4]
    dy[:, 0] += t
    return dy


def filled_by_out(t, y, p):
    out = torch.empty_like(y)
    if not y.requires_grad and not p.requires_grad:  # torch cannot differentiate it
        torch.mul(y, p, out=out)
        return out
    return y * p


def jumps(t, y, p):
    whole = torch.stack([y[:, 0].floor(), y[:, 1].round(), y[:, 2] % 0.7, y[:, 3]], 1)
    return whole * p + torch.sign(y - 1) + torch.fmod(y, 0.8)


def extremes(t, y, p):
    kinked = (
        y.clamp(0.5, 1.5) + torch.relu(y - 1) + torch.minimum(y, p) + y.clamp(max=p)
    )
    best, where = y.max(dim=1)
    return kinked * best[:, None] + where[:, None] + p.amin(1, keepdim=True) + y.abs()


def reductions(t, y, p):
    rows = [y.sum(1), p.mean(1), y.prod(1), y.norm(dim=1), (y > 1).sum(1) * t]
    rows += [torch.logsumexp(y, 1), y.std(dim=1), y.cumsum(1)[:, 2], (y > 2).any(1) * t]
    return torch.stack(rows, 1)


def by_autograd(t, y, p):  # a Hamiltonian system
    with torch.enable_grad():
        q = y if y.requires_grad else y.clone().requires_grad_()
        energy = (p * torch.cos(q)).sum(1) + (q**2).sum(1) / 2
        (slope,) = torch.autograd.grad(energy.sum(), q, create_graph=True)
    return torch.cat([slope[:, 2:], -slope[:, :2]], dim=1)


def by_index_add(t, y, p):
    flow = p * y
    there = torch.tensor([1, 2, 3, 0])
    return (-flow).index_add(1, there, flow).index_copy(1, there[:1], y[:, :1])


def masked(t, y, p):
    keep = torch.tensor([True, False, True, False])
    return torch.cat([y[:, keep] * p[:, ~keep], (y * p).masked_fill(y > 1, 0.5)], dim=1)


MODELS = {
    "fitzhugh_nagumo": fitzhugh_nagumo,
    "sir": sir,
    "michaelis_menten": michaelis_menten,
    "hill": hill,
    "mapk": mapk,
    "brusselator_by_rolls": partial(brusselator, laplace=by_rolls),
    "brusselator_by_slices": partial(brusselator, laplace=by_slices),
    "pulses": pulses,
    "tabulated": tabulated,
    "by_day": by_day,
    "forced": forced,
    "filled": filled,
    "filled_anew": filled_anew,
    "filled_by_out": filled_by_out,
    "jumps": jumps,
    "extremes": extremes,
    "reductions": reductions,
    "by_autograd": by_autograd,
    "by_index_add": by_index_add,
    "masked": masked,
    "linear": lambda t, y, p: y @ W.T - p * y,
    "mv": lambda t, y, p: torch.stack([W @ row for row in y]) * p,
    "einsum": lambda t, y, p: torch.einsum("ij,nj,nj->ni", W, y, p),
    "bmm": lambda t, y, p: ((y[:, :, None] * p[:, None]) @ y[..., None])[..., 0],
    "layers": lambda t, y, p: F.linear(y, W, W[0]) + F.silu(y) * torch.softmax(p, 1),
    "network": lambda t, y, p: NET(y) * p,
    "sigmoid": lambda t, y, p: torch.sigmoid(40 * (y - p)) + F.softplus(p - y),
    "constant": lambda t, y, p: torch.ones_like(y),
    "state": lambda t, y, p: y,
    "vmap": torch.func.vmap(lambda t, y, p: p * (W @ y) / torch.linalg.norm(y) + t),
    "diff": lambda t, y, p: F.pad(torch.diff(y), (0, 1)) + y.flip(1) + y.cumprod(1),
    "circular": lambda t, y, p: F.pad(y[:, None], (1, 1), mode="circular")[:, 0] ** 2,
    "cross": lambda t, y, p: torch.linalg.cross(y[:, :3], p[:, :3]),
    "windows": lambda t, y, p: y.unfold(1, 2, 1).mean(-1) @ W[:3, :3].tril(),
    "outer": lambda t, y, p: (y[:, :, None] * p[:, None]).mT.tril().triu(-1).sum(-1),
    "functions": lambda t, y, p: (
        torch.expm1(y) + y.log1p() + y.rsqrt() + y.exp2() + y.log10() + torch.erfc(y)
        + torch.atan2(y, p) + torch.hypot(y, p) + y.tan() + torch.xlogy(y, p)
        + torch.lerp(y, p, 0.3) + torch.addcmul(y, p, p)
        + torch.logaddexp(y, p) + 2**y + torch.special.expit(y) + (y / 3).atanh()
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_traced(name):
    traced = trace(MODELS[name], points())
    assert_is(traced, MODELS[name], points(seed=1))


SYSTEMS = {
    "grn": grn,
    "grn_sigmoid": partial(grn, activation="sigmoid"),
    "grn_hill2": partial(grn, activation="hill2"),
    "hires": hires,
    "lotka_volterra": lotka_volterra,
    "oregonator": oregonator,
    "pollu": pollu,
    "robertson": robertson,
    "van_der_pol": van_der_pol,
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_published_problem_is_traced(name):
    system = SYSTEMS[name]()
    rng = np.random.RandomState(0)

    def draw(n):
        params = torch.as_tensor(system.prior.draw(n, rng))
        y = system.initial_state(params)
        return torch.as_tensor(rng.uniform(size=n)), y, params

    traced = trace(system.rhs, draw(5))
    t, y, params = draw(4)
    assert_is(traced, system.rhs, (t, y + torch.as_tensor(rng.rand(*y.shape)), params))


ONE_SAMPLE = {
    "names": lambda t, y, p: [p.a * y.x, -p.b * y.v, y.x * y.v - t],
    "numpy": lambda t, y, p: np.exp(-p[:3] * t) * y[:] + np.sqrt(y[:]) - np.roll(y, 1),
    "matrix": lambda t, y, p: W.numpy()[:3, :3] @ y + np.dot(W[:3, :3], y) * p.a,
    "where": lambda t, y, p: np.where((t > 1) & (y > 0.5), p[:3], 0.0) - y[:],
    "interp": lambda t, y, p: (
        np.interp(t, TIMES.numpy(), TABLE.numpy()) * y - p[:3] * y
    ),
    "select": lambda t, y, p: np.select([t < 1, t < 2], [y * p.a, y * p.b], -y[:]),
    "by vmap": lambda t, y, p: np.einsum("ij,j->i", W.numpy()[:3, :3], y) * p.c,
    "norm": lambda t, y, p: np.linalg.norm(y) * y + np.outer(y, y) @ p[:3],
    "softmax": lambda t, y, p: torch.softmax(y, -1) + torch.stack(y.unbind(-1)),
    "clip": lambda t, y, p: np.clip(y, 0.2, p.a) + np.maximum(y, 0.5) % 0.3,
    "filled": lambda t, y, p: fill(np.zeros_like(y), y, p),
    "conditions": lambda t, y, p: ((y > 0.3) & (y < p.a)) * 0.1 + (1 - (y > 0.5)) * y,
}


def fill(dy, y, p):
    dy[0] = y[1] * p.a
    dy[1:] = 2 * y[1:]
    dy[2] += y[0]
    return dy


@pytest.mark.filterwarnings("ignore:Nothing depends")
@pytest.mark.parametrize("name", ONE_SAMPLE)
def test_a_function_of_one_sample_is_traced(name):
    system = ODESystem(
        ONE_SAMPLE[name],
        states={"x": 1.0, "v": 0.5, "w": 0.7},
        params=dict.fromkeys("abcd", (0.1, 2.5)),
        times=[0.0, 1.0],
    )
    traced = trace(system.rhs, points(n_states=3))
    assert_is(traced, system.rhs, points(n_states=3, seed=1))


def test_laws_of_reactions_are_traced():
    system = ReactionSystem(
        {"S -> P": "vmax*S**2/(km**2 + S**2)", "P ->": "max(k, 0.1)*exp(-P)"},
        initial={"S": 1.0, "P": 0.5},
        params={"vmax": (1, 2), "km": (0.1, 1), "k": (0.2, 1)},
        times=[0, 1],
    )
    fresh = points(n_states=2, n_params=3, seed=1)
    assert_is(trace(system.rhs, points(n_states=2, n_params=3)), system.rhs, fresh)


# -- functions that are out to deceive ----------------------------------------------------


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
    "newton": newton,
    "shares memory": shares_memory,
    "float32 constant": lambda t, y, p: y * torch.tensor([0.1, 0.2, 0.3, 0.4]),
    "float32 number": lambda t, y, p: torch.tensor(0.1) * y + torch.ones(1),
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
def test_what_cannot_be_traced_is_refused(name):
    rhs, reason = REFUSED[name]
    with pytest.raises(Untraceable, match=reason):
        trace(rhs, points())


@pytest.mark.filterwarnings("ignore:!")
@pytest.mark.parametrize("name", TRACED)
def test_what_looks_odd_is_traced(name):
    def rhs(*inputs):
        return TRACED[name](*(x.clone() for x in inputs))

    assert_is(trace(TRACED[name], points()), rhs, points(seed=1))


def test_a_memo_is_left_with_numbers():
    memo = Memo(by_shape=True)
    trace(memo, points())
    assert all(type(x) is torch.Tensor for x in memo.kept.values())
    assert memo(*points(n=1)).shape == (1, 4)


def test_inputs_are_left_as_they_are():
    inputs = points()
    trace(on_input, inputs)
    for given, before in zip(inputs, points()):
        assert torch.equal(given, before)


def test_an_error_of_the_function_itself_comes_through():
    with pytest.raises(ZeroDivisionError):
        trace(lambda t, y, p: 1 / 0, points())


def test_zero_and_equal_states_are_no_hindrance():
    t, y, p = points()
    traced = trace(MODELS["extremes"], (t * 0, y * 0, p))
    assert_is(traced, MODELS["extremes"], points(seed=1))
    traced = trace(MODELS["sir"], (t[:1], torch.ones(1, 4).double(), p[:1]))
    assert_is(traced, MODELS["sir"], points(seed=1))


def test_rows_that_meet_are_found_with_one_row_too():
    def mixed(t, y, p):
        return p[:, 0] * y[:, :1]  # (n, n)

    with pytest.raises(Untraceable, match="how many rows"):
        trace(mixed, points(n=1))


def test_what_is_kept_of_the_last_call_is_numbers_after_a_refusal():
    kept = {}

    def keeps(t, y, p):
        kept["y"] = y
        return y if y.sum() > 0 else p

    with pytest.raises(Untraceable, match="by a value"):
        trace(keeps, points())
    assert type(kept["y"]) is torch.Tensor


def test_a_trace_is_of_the_function_as_it_was():
    rate = torch.ones(4, dtype=torch.float64)
    traced = trace(lambda t, y, p: rate * y, points())
    rate *= 2
    assert_is(traced, lambda t, y, p: y, points(seed=1))


def test_params_alone_and_shapes_of_any_kind():
    p = points()[2]
    graph, nodes = trace(lambda p: p[:, :, None] * p[:, None], (p,), kinds=("p",))
    assert nodes.shape == (4, 4)
    assert nodes[0, 1] == nodes[1, 0]
    assert graph.nodes[nodes[0, 1]][0] == "mul"
    graph, nodes = trace(lambda p: p.sum(1), (p,), kinds=("p",))
    assert nodes.shape == ()


def test_known_zeros_leave_products_of_matrices_sparse():
    graph, nodes = trace(lambda t, y, p: y @ torch.eye(4).double() * p, points())
    assert len(graph.cone(nodes)) == 12


def test_the_budget_bounds_what_is_written_down(monkeypatch):
    def long(t, y, p):
        for i in range(100):
            y = y + i * p
        return y

    trace(long, points())
    monkeypatch.setattr(_algebra, "MAX_NODES", 500)
    with pytest.raises(Untraceable, match="more than 500 operations"):
        trace(long, points())


def test_what_torch_cannot_differentiate_is_traced_all_the_same():
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
    return p[:, :1] * torch.roll(y, 1, 1) * y - torch.exp(-t)[:, None] * y / (1 + y)
before, start = set(sys.modules), time.perf_counter()
x = torch.rand(5, 26, dtype=torch.float64)
trace(rhs, (x[:, 0], x, x))
print(time.perf_counter() - start)
print([m for m in set(sys.modules) - before if m.startswith(("sympy", "torch._dynamo"))])
"""
    run = [sys.executable, "-c", code]
    out = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    seconds, imported = out.splitlines()
    assert float(seconds) < 0.5  # 0.02 where nothing else runs
    assert imported == "[]"
