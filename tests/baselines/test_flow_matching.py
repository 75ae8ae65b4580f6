"""Flow matching carries noise to both modes, and its estimate is the mean of draws."""

import numpy as np
import pytest
import torch

from sklearn_inverse import Design, ForwardFunction, Training
from sklearn_inverse.baselines import FlowMatchingInverter


@pytest.fixture(scope="module")
def squares():
    model = ForwardFunction(lambda k: k**2, params={"k": (-1, 1)}, noise=0.1)
    k = np.random.default_rng(0).uniform(-1, 1, (2000, 1))
    inverter = FlowMatchingInverter(
        model,
        design=Design(n_observed=1),
        training=Training(lr=3e-3, batch_size=128, max_epochs=40),
        n_draws=500,
        width=64,
        n_blocks=2,
        random_state=0,
    )
    return inverter.fit(k**2, k)


def test_both_modes_are_drawn_and_the_estimate_is_their_mean(squares):
    posterior = squares.posterior([[0.5]])
    draws = posterior.draws[0, :, 0]
    assert posterior.kind[0] == "learned"
    for sign in (-1, 1):
        side = draws[sign * draws > 0.3]
        assert 0.4 < len(side) / len(draws) < 0.6
        assert abs(np.median(side) - sign * 0.7) < 0.06
    np.testing.assert_allclose(squares.predict([[0.5]]), [[draws.mean()]])


def test_paths_are_straight_from_noise_to_the_truth(squares):
    z = torch.linspace(-2, 2, 50)[:, None]
    more, target = squares._task(z, torch.Generator().manual_seed(0))
    rest = (1 - more["tau"])[:, None] * target
    torch.testing.assert_close(more["x"] + rest, z)


def test_a_sample_has_the_same_draws_in_any_company(squares):
    readings = np.linspace(0.1, 0.8, 20)[:, None]
    together = squares.sample(readings, 30)
    np.testing.assert_array_equal(squares.sample(readings[7:8], 30)[0], together[7])


def test_euler_s_steps_begin_at_the_noise(squares, monkeypatch):
    module, asked = squares.net_.module_, []

    def velocity(known, x, tau):
        asked.append(float(tau))
        return x

    monkeypatch.setattr(module, "_velocity", velocity)
    monkeypatch.setattr(module, "_read", lambda **slots: torch.zeros(1, 64))
    end = module.draw(torch.ones(1, 1))
    assert end.item() == pytest.approx((1 + 1 / 20) ** 20, rel=1e-5)
    assert asked == pytest.approx(np.arange(20) / 20)
