"""The papers' gradient baseline descends, averages its starts and claims no certainty."""

import numpy as np
import pytest
import torch

from sklearn_inverse import ForwardFunction
from sklearn_inverse.baselines import GradientDescentInverter
from sklearn_inverse.probability import InversionStatus

TIMES = torch.linspace(0.0, 2.0, 8, dtype=torch.float64)
PARAMS = np.array([[1.0, 1.0], [0.8, 2.0], [1.5, 0.5], [1.2, 1.4]])


def decay(params):
    return params[:, :1] * torch.exp(-params[:, 1:] * TIMES)


def decay_or_nothing(params):
    return decay(params).where(params[:, 1:] <= 2.2, torch.nan)


def make_inverter(function=decay, noise=0.2, **options):
    priors = {"a": (0.5, 2.0), "k": (0.1, 3.0)}
    model = ForwardFunction(function, params=priors, noise=noise)
    return GradientDescentInverter(
        model, **{"n_starts": 10, "random_state": 0} | options
    )


READINGS = decay(torch.as_tensor(PARAMS)).numpy()


@pytest.mark.parametrize(("optimizer", "error"), [("adam", 0.1), ("sgd", 0.3)])
def test_it_averages_its_starts_and_claims_no_certainty(optimizer, error):
    inverter = make_inverter(optimizer=optimizer).fit(READINGS)
    answer = inverter.invert(READINGS)
    assert answer.n_iter.tolist() == [10 * 100] * 4
    assert answer.n_forward.tolist() == [10 * 101 + 2] * 4
    # Adam gets there in a hundred steps; SGD, of one step size for all, not quite.
    assert np.abs(answer.params - PARAMS).mean() < error
    alone = make_inverter(optimizer=optimizer, start=[1.0, 1.0], n_starts=1)
    assert np.abs(alone.fit(READINGS).predict(READINGS) - answer.params).max() > 1e-6
    assert not hasattr(inverter, "sample")
    assert not hasattr(inverter, "posterior")


def test_it_minimizes_the_mean_absolute_error():
    """An outlier among eight readings has no pull."""
    spoiled = READINGS.copy()
    spoiled[:, 2] += 1.0
    inverter = make_inverter(n_starts=1, lr=0.01, max_iter=400, noise=1.0)
    estimate = inverter.fit(spoiled).predict(spoiled)
    assert np.abs(estimate - PARAMS).max() < 0.05


def test_steps_are_as_long_as_the_learning_rate_says():
    estimates = {
        lr: make_inverter(n_starts=1, lr=lr, max_iter=1, noise=None)
        .fit(READINGS)
        .invert(READINGS)
        .params
        for lr in (1e-4, 2e-4)
    }
    center = [1.25, 1.55]
    moved = [np.abs(estimates[lr] - center) for lr in (1e-4, 2e-4)]
    np.testing.assert_allclose(moved[1] / moved[0], 2.0, rtol=1e-3)


def test_starts_that_cannot_be_simulated_are_dropped():
    inverter = make_inverter(decay_or_nothing, start="random").fit(READINGS)
    with pytest.warns(match="failed at .* starts of 4 samples"):
        answer = inverter.invert(READINGS)
    assert (answer.n_failed >= 2).all()
    assert np.isfinite(answer.params).all()


def test_ctrl_c_is_not_mistaken_for_failure(monkeypatch):
    inverter = make_inverter(decay_or_nothing, chunk_size=2).fit(READINGS)
    forward, calls = ForwardFunction.forward, []

    def press(self, scaled):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return forward(self, scaled)

    monkeypatch.setattr(ForwardFunction, "forward", press)
    with pytest.warns() as caught:
        answer = inverter.invert(READINGS)
    assert any(str(w.message).startswith("Interrupted") for w in caught)
    assert (answer.status == InversionStatus.INTERRUPTED).all()
    assert np.isfinite(answer.params[:2]).all()
    assert len(calls) < 12
