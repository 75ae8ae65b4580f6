"""Stiff systems whose equations are polynomials, solved by SciPy to round-off."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.integrate import solve_ivp

STARTS = [[1, 0, 0], [0.5, 0.3, 0.2], [0.2, 0, 1], [0.7, 0.6, 0.4], [0.1, 1, 0.1]]


def kaps(t, y):
    return [-1002 * y[0] + 1000 * y[1] ** 2, y[0] - y[1] - y[1] ** 2]


def robertson(t, y):
    """Robertson's problem with its second state in units of 1e-4."""
    fast, slow = y[1] * y[2], y[1] ** 2
    first = -0.04 * y[0] + fast
    return [first, 400 * y[0] - 1e4 * fast - 3e3 * slow, 0.3 * slow]


TRUTH = {
    kaps: [{"y1": -1002, "y2^2": 1000}, {"y1": 1, "y2": -1, "y2^2": -1}],
    robertson: [
        {"y1": -0.04, "y2*y3": 1},
        {"y1": 400, "y2*y3": -1e4, "y2^2": -3e3},
        {"y2^2": 0.3},
    ],
}


def solved(rhs, y0, times, max_step=np.inf):
    options = {"method": "Radau", "rtol": 1e-12, "atol": 1e-14, "max_step": max_step}
    return solve_ivp(rhs, (times[0], times[-1]), y0, t_eval=times, **options).y.T


def true_coef(rhs, terms):
    return np.array([[row.get(term, 0.0) for term in terms] for row in TRUTH[rhs]])


def relative_error(model, rhs):
    """Return the largest relative error of coefficients that are not zero."""
    truth = true_coef(rhs, model.feature_names_)
    there = truth != 0
    return abs(model.coef_[there] / truth[there] - 1).max()


@pytest.fixture(scope="session")
def kaps_run():
    """160 points of Kaps' problem from off its slow manifold, and their times."""
    times = np.concatenate([[0], np.geomspace(1e-5, 5, 159)])
    return solved(kaps, [2, 1], times), times


@pytest.fixture(scope="session")
def robertson_runs():
    """Five runs of 350 points, and their times."""
    times = np.concatenate([[0], np.geomspace(1e-5, 40, 349)])
    return np.array([solved(robertson, y0, times) for y0 in STARTS]), times


@pytest.fixture(scope="session")
def stiff():
    """Return the systems, and what their coefficients are compared by."""
    return SimpleNamespace(
        kaps=kaps,
        robertson=robertson,
        solved=solved,
        true_coef=true_coef,
        relative_error=relative_error,
    )
