"""Pictures are drawn to memory, and closed after each test."""

import matplotlib
import numpy as np
import pytest
from sklearn.base import BaseEstimator

from sklearn_inverse.utils._scaling import ParamScaler

matplotlib.use("Agg")

TIMES = np.array([0.0, 0.5, 1.0, 3.0])


@pytest.fixture(autouse=True)
def close_figures():
    import matplotlib.pyplot as plt

    yield
    plt.close("all")


class Decay:
    """Forward model u = exp(-k t) and 2 exp(-k t); NaN for negative k."""

    def simulate(self, params):
        u = np.exp(-params[:, :1] * TIMES)[..., None] * [1.0, 2.0]
        return np.where(params[:, :1, None] < 0, np.nan, u)


class FakeInverter(BaseEstimator):
    """Answers k = first reading, with draws evenly spread over k ± half_width."""

    def __init__(self, half_width=0.5):
        self.half_width = half_width

    def fit(self, observations, params):
        self.surrogate_ = Decay()
        self.scaler_ = ParamScaler([[0.0, 6.0]])
        return self

    def predict(self, observations, return_std=False):
        params = np.asarray(observations).reshape(len(observations), -1)[:, :1]
        return (params, np.full(params.shape, 0.3)) if return_std else params

    def sample(self, observations, n_draws):
        spread = np.linspace(-self.half_width, self.half_width, n_draws)
        return self.predict(observations)[:, None] + spread[:, None]

    def reconstruct(self, observations):
        return self.surrogate_.simulate(self.predict(observations))


class NoPosterior(FakeInverter):
    """The same without any uncertainty."""

    sample = property()  # raises AttributeError

    def predict(self, observations):
        return super().predict(observations)


@pytest.fixture
def point_inverter():
    return NoPosterior().fit(None, None)


@pytest.fixture
def inverter():
    return FakeInverter().fit(None, None)


@pytest.fixture
def times():
    return TIMES


@pytest.fixture
def observations():
    """Two samples of four times and two channels; each is measured twice."""
    readings = np.full((2, 4, 2), np.nan)
    readings[:, 0, 0] = [1.0, 2.0]
    readings[:, 2, 1] = [0.8, 0.3]
    return readings.reshape(2, 8)
