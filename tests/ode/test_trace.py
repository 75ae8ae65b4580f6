"""Models as they are written are traced: the same values, the same derivatives."""

import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sklearn_inverse.ode.compiled._trace import trace
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
    "vector times matrix": lambda t, y, p: (W[0] @ y.T)[:, None].squeeze_(1)[:, None] * p,
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
    "mirrored": lambda t, y, p: F.pad(y[:, None], (1, 1), mode="reflect")[:, 0, :4] * p,
    "prolonged": lambda t, y, p: F.pad(y[:, None], (1, 1), mode="replicate")[:, 0] ** 2,
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
def test_a_model_is_traced(name, points, assert_is):
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
def test_a_published_problem_is_traced(name, assert_is):
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
def test_a_function_of_one_sample_is_traced(name, points, assert_is):
    system = ODESystem(
        ONE_SAMPLE[name],
        states={"x": 1.0, "v": 0.5, "w": 0.7},
        params=dict.fromkeys("abcd", (0.1, 2.5)),
        times=[0.0, 1.0],
    )
    traced = trace(system.rhs, points(n_states=3))
    assert_is(traced, system.rhs, points(n_states=3, seed=1))


def test_laws_of_reactions_are_traced(points, assert_is):
    system = ReactionSystem(
        {"S -> P": "vmax*S**2/(km**2 + S**2)", "P ->": "max(k, 0.1)*exp(-P)"},
        initial={"S": 1.0, "P": 0.5},
        params={"vmax": (1, 2), "km": (0.1, 1), "k": (0.2, 1)},
        times=[0, 1],
    )
    fresh = points(n_states=2, n_params=3, seed=1)
    assert_is(trace(system.rhs, points(n_states=2, n_params=3)), system.rhs, fresh)


def test_zero_and_equal_states_are_no_hindrance(points, assert_is):
    t, y, p = points()
    traced = trace(MODELS["extremes"], (t * 0, y * 0, p))
    assert_is(traced, MODELS["extremes"], points(seed=1))
    traced = trace(MODELS["sir"], (t[:1], torch.ones(1, 4).double(), p[:1]))
    assert_is(traced, MODELS["sir"], points(seed=1))
