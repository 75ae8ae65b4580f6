"""The standard coordinate has no bounds, and the gradient is the one by it."""

import numpy as np
import torch

from sklearn_inverse import ForwardFunction
from sklearn_inverse.inverse._objective import Objective
from sklearn_inverse.optim._standard import InStandard
from sklearn_inverse.probability import LogNormal, MultivariateNormal

PRIORS = {
    "a": (0.5, 2.0),
    "k": LogNormal(1.0, 0.5),
    ("b", "c"): MultivariateNormal([0.0, 1.0], [[1.0, 0.4], [0.4, 0.5]]),
}


def curves(params):
    a, k, b, c = params.T[..., None]
    t = torch.linspace(0.0, 2.0, 6, dtype=torch.float64)
    return a * torch.exp(-k * t) + b * t + c * t**2


def make_free(noise=None):
    model = ForwardFunction(curves, params=PRIORS, noise=noise).fit(None)
    readings = torch.as_tensor(model.simulate(model.prior_.median[None]) + 0.1)
    objective = Objective(model, model.noise_, readings)
    sample = torch.zeros(3, dtype=torch.long)
    return InStandard(objective, sample), sample


def test_there_and_back():
    free, _ = make_free()
    z = torch.as_tensor(np.random.default_rng(0).standard_normal((3, 5)))
    torch.testing.assert_close(free.from_scaled(free.to_scaled(z)), z)
    far = free.to_scaled(torch.full((1, 5), 40.0, dtype=torch.float64))
    assert far.isfinite().all()
    assert far[0, 4] == 40  # the level of the noise, as it is


def test_gradient_equals_finite_differences():
    free, sample = make_free()  # with an unknown noise level beside the params
    rng = np.random.default_rng(1)
    z = torch.as_tensor(0.5 * rng.standard_normal((3, 5)))
    rows = torch.arange(3)
    value, gradient = free(z, rows)
    torch.testing.assert_close(
        value, free.objective.value(free.to_scaled(z), sample), rtol=1e-10, atol=0
    )
    for j in range(5):
        step = torch.zeros_like(z)
        step[:, j] = 1e-5
        up, down = (free(z + s, rows)[0] for s in (step, -step))
        torch.testing.assert_close(
            gradient[:, j], (up - down) / 2e-5, rtol=1e-5, atol=1e-5
        )
