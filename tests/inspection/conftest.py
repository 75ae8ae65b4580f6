"""Pictures are drawn to memory, and closed after each test."""

import matplotlib
import numpy as np
import pytest
import torch

from sklearn_inverse import ForwardFunction
from sklearn_inverse.base import BaseInverter, PosteriorInverter
from sklearn_inverse.probability import Estimate, Normal, Posterior

matplotlib.use("Agg")

TIMES = np.array([0.0, 0.5, 1.0, 3.0])


@pytest.fixture(autouse=True)
def close_figures():
    import matplotlib.pyplot as plt

    yield
    plt.close("all")


def decay(params):
    """Return exp(-k t) and 2 exp(-k t); NaN for negative k."""
    rate = params[:, :1]
    u = torch.exp(-rate * torch.as_tensor(TIMES))
    u = torch.where(rate < 0, torch.nan, u)
    return torch.stack([u, 2 * u], dim=2)


class PointInverter(BaseInverter):
    """Answers k = first reading, without any uncertainty."""

    _needs_pairs = False
    _type = Estimate

    def __init__(self, model=None, *, device="cpu", random_state=None, verbose=0):
        self.model = model
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, observations, params=None):
        self._start_fit(observations, params)
        return self

    def _answer(self, readings, noise_std, inputs):
        n, n_channels = len(readings), readings.shape[2]
        zero = np.zeros(n, dtype=int)
        counts = ("status", "n_iter", "n_forward", "n_linearized", "n_failed")
        return self._type(
            params=readings[:, 0, :1],
            names=self.model_.param_names_,
            misfit=np.ones(n),
            n_readings=zero,
            explained=np.ones(n, dtype=bool),
            start_misfit=np.ones(n),
            n_optima=zero,
            n_confirmed=zero,
            at_bound=np.zeros((n, 1), dtype=bool),
            noise_scale=np.full((n, n_channels), np.nan),
            **dict.fromkeys(counts, zero),
            **self._spread(readings[:, 0, :1]),
        )

    def _spread(self, params):
        return {}


class FakeInverter(PointInverter, PosteriorInverter):
    """Answers k = first reading ± 0.25; the prior is N(1, 10²)."""

    _type = Posterior
    std = 0.25

    def _spread(self, params):
        prior = self.model_.prior_
        return {
            "coordinate": prior,
            "weights": np.ones((len(params), 1)),
            "centers": prior.to_coordinate(params)[:, None],
            "covariances": np.full((len(params), 1, 1, 1), (self.std / 10) ** 2),
        }

    _draw_seed = 0


@pytest.fixture
def model():
    return ForwardFunction(
        decay,
        {"rate": Normal(1.0, 10.0)},
        observables=["a", "b"],
        times=TIMES,
        noise=[0.1, 0.3],
    )


@pytest.fixture
def point_inverter(model, observations):
    return PointInverter(model).fit(observations)


@pytest.fixture
def inverter(model, observations):
    return FakeInverter(model).fit(observations)


@pytest.fixture
def times():
    return TIMES


@pytest.fixture
def observations():
    """Two samples of four times and two observables; each is measured twice."""
    readings = np.full((2, 4, 2), np.nan)
    readings[:, 0, 0] = [1.0, 2.0]
    readings[:, 2, 1] = [0.8, 0.3]
    return readings.reshape(2, 8)
