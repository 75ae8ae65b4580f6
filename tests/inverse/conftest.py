"""A forward model in closed form, y = a exp(-k t), for tests of what is around it."""

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator

from sklearn_inverse.utils._scaling import ParamScaler

TIMES = np.linspace(0.0, 2.0, 8)


class Decay(BaseEstimator):
    """Amplitude and rate of a decay; fails where the unit rate exceeds a limit."""

    n_times_, n_channels_, n_params_ = len(TIMES), 1, 2
    times = TIMES

    def __init__(self, bounds=((0.5, 2.0), (0.1, 3.0)), scale="linear", fails_above=9):
        self.bounds = bounds
        self.scale = scale
        self.fails_above = fails_above

    @property
    def scaler_(self):
        return ParamScaler(self.bounds, scale=self.scale)

    def forward(self, unit):
        params = self.scaler_.to_physical_tensor(unit)
        t = torch.as_tensor(self.times)
        readings = params[:, :1] * torch.exp(-params[:, 1:] * t)
        return readings.where(unit[:, 1:] <= self.fails_above, torch.nan)[..., None]

    def linearize(self, unit):
        def one(u):
            return self.forward(u[None])[0]

        return self.forward(unit), torch.stack(
            [torch.autograd.functional.jacobian(one, u) for u in unit.detach()]
        )

    def simulate(self, params):
        unit = torch.as_tensor(self.scaler_.to_unit(np.asarray(params)))
        return self.forward(unit).numpy()


@pytest.fixture
def decay():
    """Return the class of forward models."""
    return Decay


@pytest.fixture
def make_pairs():
    """Return ``make_pairs(n, noise, seed) -> (readings, params)`` of the decay."""

    def make(n_samples, noise=0.0, seed=0):
        rng = np.random.default_rng(seed)
        unit = rng.uniform(0.2, 0.8, (n_samples, 2))
        params = Decay().scaler_.to_physical(unit)
        readings = Decay().simulate(params)
        return readings + noise * rng.standard_normal(readings.shape), params

    return make
