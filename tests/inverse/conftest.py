"""A forward model in closed form, y = a exp(-k t), for tests of what is around it."""

import numpy as np
import pytest
import torch

from sklearn_inverse.forward import ForwardModel
from sklearn_inverse.probability import JointPrior, as_noise

TIMES = np.linspace(0.0, 2.0, 8)


class Decay(ForwardModel):
    """Amplitude and rate of a decay; fails where the scaled rate exceeds a limit."""

    times_ = TIMES
    observable_names_ = ("y",)
    error_ = np.zeros(1)
    is_exact = True

    def __init__(self, params=None, noise=None, fails_above=9):
        self.params = params
        self.noise = noise
        self.fails_above = fails_above

    @property
    def prior_(self):
        return JointPrior(self.params or {"a": (0.5, 2.0), "k": (0.1, 3.0)})

    @property
    def noise_(self):
        return as_noise(self.noise, ["y"], param_names=self.prior_.names)

    def forward(self, scaled):
        params = self.param_scaler_.from_scaled_tensor(scaled)
        t = torch.as_tensor(self.times_)
        readings = params[:, :1] * torch.exp(-params[:, 1:2] * t)
        return readings.where(scaled[:, 1:2] <= self.fails_above, torch.nan)[..., None]

    def simulate(self, params):
        scaled = self.param_scaler_.to_scaled(np.asarray(params, dtype=float))
        return self.forward(torch.as_tensor(scaled)).numpy()


@pytest.fixture
def decay():
    """Return the class of forward models."""
    return Decay


@pytest.fixture
def make_pairs():
    """Return ``make_pairs(n, noise, seed) -> (readings, params)`` of the decay."""

    def make(n_samples, noise=0.0, seed=0):
        rng = np.random.default_rng(seed)
        params = Decay().prior_.from_quantile(rng.uniform(0.2, 0.8, (n_samples, 2)))
        readings = Decay().simulate(params)
        return readings + noise * rng.standard_normal(readings.shape), params

    return make


@pytest.fixture
def press_at(monkeypatch):
    """Return ``press_at(owner, name, call)``: Ctrl-C at a call of a function.

    It returns a list that grows by one with every call.
    """

    def press_at(owner, name, call):
        function, calls = getattr(owner, name), []

        def press(*args, **kwargs):
            calls.append(1)
            if len(calls) == call:
                raise KeyboardInterrupt
            return function(*args, **kwargs)

        monkeypatch.setattr(owner, name, press)
        return calls

    return press_at
