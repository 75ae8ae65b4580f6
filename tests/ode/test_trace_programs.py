"""Programs put together at random are never traced wrong."""

import random

import pytest
import torch

from sklearn_inverse.ode.compiled._trace import trace

W = torch.linspace(-1, 1, 16, dtype=torch.float64).reshape(4, 4)
TABLE = torch.tensor([1.0, 2.0, 0.5, 3.0], dtype=torch.float64)
OF_ONE = [
    torch.sin,
    torch.tanh,
    torch.sigmoid,
    torch.abs,
    lambda x: x.flip(1) + x.roll(1, 1),
    lambda x: x.cumsum(1) / 4 - x.mean(1, keepdim=True),
    lambda x: x[:, [1, 0, 3, 2]],
    lambda x: torch.softmax(x, 1) + torch.logsumexp(x, 1, keepdim=True),
    lambda x: x.clamp(-0.5, 0.7) @ W,
    lambda x: torch.where(x > 0.3, x, x**2),
    lambda x: x.max(1, keepdim=True).values * x.sign(),
    lambda x: x.reshape(-1, 2, 2).mT.contiguous().view(-1, 4),
    lambda x: torch.stack(x.unbind(1)[::-1], 1) + x.norm(dim=1, keepdim=True),
    lambda x: (x > 0).double() * x + x.floor() / 3,
    lambda x: torch.einsum("ni,nj->nj", x, x) / 4,
    lambda x: torch.diff(x, prepend=x[:, :1]),
    lambda x: x.chunk(2, 1)[1].repeat(1, 2),
    lambda x: torch.remainder(x, 0.37) / (2 + torch.cos(x)),
    lambda x: TABLE[torch.bucketize(x.detach(), TABLE[:2].clone())] * x,
]
OF_TWO = [
    torch.add,
    torch.sub,
    torch.mul,
    torch.minimum,
    torch.maximum,
    torch.hypot,
    lambda a, b: a / (b.abs() + 1),
    lambda a, b: torch.where((a > 0) & (b > 0) | (a > b), a, 2 * b),
    lambda a, b: torch.addcmul(a, a, b, value=0.5),
    lambda a, b: (a.abs() + 0.1) ** b.clamp(-2, 2),
    lambda a, b: torch.cat([a[:, :1], b[:, 1:]], 1),
    lambda a, b: torch.linalg.vecdot(a, b)[:, None] * a / 4,
]


def assign(x, y):
    x[:, 0] = y[:, 1]
    x[:, 1:3] += y[:, :2]


def swap(x, y):
    x[:, 0], x[:, 1] = x[:, 1], x[:, 0]  # both are the old x[:, 1]


def write_to_views(x, y):
    x.view(-1, 2, 2)[:, 0] *= y[:, :2]
    x.mT[2] = y[:, 0] * 2
    x.narrow(1, 0, 2).copy_(y[:, 2:])


def write_by_index(x, y):
    x[:, [0, 3]] = y[:, :2]
    x[:, torch.tensor([True, False, True, False])] = y[:, 2:]
    x.index_add_(1, torch.tensor([0, 0, 1]), y[:, :3])


def fill_anew(x, y):
    new = torch.zeros(len(x), 4, dtype=torch.float64)
    new[:, 1] = x[:, 0]
    new[:, 2:] = y[:, :2]
    x.add_(new).masked_fill_(y > 0, 0.1)


IN_PLACE = [assign, swap, write_to_views, write_by_index, fill_anew]


def make_program(seed):
    rng = random.Random(seed)
    kinds = [rng.choice([OF_ONE, OF_ONE, OF_TWO, IN_PLACE]) for _ in range(6)]
    steps = [(kind, rng.choice(kind), rng.random(), rng.random()) for kind in kinds]

    def program(t, y, p):
        found = [y, p, t[:, None] + 0.1 * y, y * p]
        for kind, step, i, j in steps:
            x, z = found[int(i * len(found))], found[int(j * len(found))]
            if kind is IN_PLACE:
                x = x.clone()
                step(x, z)
                found.append(x)
            else:
                found.append(step(x) if kind is OF_ONE else step(x, z))
        return found[-1] + found[-2] * found[-3]

    return program


@pytest.mark.parametrize("seed", range(40))
def test_a_program_is_traced_right(seed, points, assert_is):
    program = make_program(seed)
    assert_is(trace(program, points()), program, points(seed=1), rtol=1e-8)
