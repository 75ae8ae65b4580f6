"""Small systems, and local operators of them."""

import numpy as np
import pytest
import torch

from sklearn_inverse import ODESystem
from sklearn_inverse.collocation import LocalNetwork
from sklearn_inverse.collocation._equations import Solution, as_equations
from sklearn_inverse.collocation._local_operator import LocalOperator
from sklearn_inverse.ode import solve_ivp
from sklearn_inverse.probability import LogUniform

TIMES = np.linspace(0.0, 1.0, 21)


def growth(**options):
    """Exponential growth, the only state's."""
    return ODESystem(
        lambda t, y, p: p.k * y,
        states={"y": 1.0},
        params={"k": (0.5, 4.0)},
        times=TIMES,
        **options,
    )


def logistic():
    return ODESystem(
        lambda t, y, p: p.k * y * (1 - y),
        states={"y": 0.1},
        params={"k": (0.5, 4.0)},
        times=TIMES,
    )


def forced(params=None, **options):
    """Two states, one of which starts at a param; a clock; a param by its logarithm."""

    def rhs(t, y, p):
        return p.a * y.v + np.sin(t), -p.b * y.u * y.v

    return ODESystem(
        rhs,
        states={"u": "a", "v": 1.0},
        params={"a": (0.5, 2.0), "b": LogUniform(0.1, 3.0)} | (params or {}),
        times=TIMES,
        **options,
    )


def solve(system, params, times=None):
    """Return the exact states at params, (n_samples, n_times, n_states)."""
    times = system.times if times is None else times
    params = torch.as_tensor(np.atleast_2d(params))
    start = system.initial_state
    return solve_ivp(system.rhs, times, start, params, rtol=1e-8, atol=1e-20).y.numpy()


def operate(system, params, *, error_weight=1.0, dtype=torch.float64, **network):
    """Return an operator, the solution at params, and params in scaled units."""
    network = LocalNetwork(**network)
    params = np.asarray(params)
    equations = as_equations(system, network)
    unit, values = equations.solve(params[None], equations.also_solved)
    solution = Solution(params, unit, values[0])
    operator = LocalOperator(
        system, solution, network, error_weight=error_weight, dtype=dtype
    )
    theta = torch.as_tensor(operator.scaler.to_scaled(np.atleast_2d(params)))
    return operator, solution, theta


def vary(layers, n):
    """Return n networks that differ: a random change of each copy."""
    noise = torch.Generator().manual_seed(1)
    return [
        x.repeat(n, 1, 1)
        + 0.1 * torch.randn(n, *x.shape[1:], generator=noise, dtype=x.dtype)
        for x in layers
    ]


@pytest.fixture
def make():
    """Return the functions above, under their names."""

    class Make:
        pass

    for function in (growth, logistic, forced, solve, operate, vary):
        setattr(Make, function.__name__, staticmethod(function))
    return Make
