"""The neural adjoint learns params to readings, and runs that network backwards."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone

from sklearn_inverse import ForwardFunction, Training
from sklearn_inverse.baselines import NeuralAdjointInverter
from sklearn_inverse.baselines._neural_adjoint import AdjointMisfit, AdjointNet
from sklearn_inverse.probability import InversionStatus, LogUniform

pytestmark = pytest.mark.filterwarnings(
    "ignore::sklearn_inverse.exceptions.MisfitWarning",
    "ignore::sklearn_inverse.exceptions.BoundsWarning",
)
TIMES = torch.linspace(0.0, 2.0, 8, dtype=torch.float64)
RATES = np.random.default_rng(0).uniform(0.5, 2.0, (200, 1))


def decay(params):
    return torch.exp(-params * TIMES)


CURVES = decay(torch.as_tensor(RATES)).numpy()


def make_inverter(function=decay, **options):
    model = ForwardFunction(function, params={"k": LogUniform(0.5, 2.0)}, noise=0.02)
    options = {"width": 32, "n_starts": 4, "random_state": 0} | options
    options.setdefault("training", Training(max_epochs=20, batch_size=32))
    return NeuralAdjointInverter(model, **options)


@pytest.fixture(scope="module")
def inverter():
    return make_inverter().fit(CURVES, RATES)


def test_recovers_a_rate_despite_missing_readings(inverter):
    readings = CURVES[:20].copy()
    readings[np.random.default_rng(0).random(readings.shape) < 0.5] = np.nan
    readings[:, 3] = CURVES[:20, 3]
    answer = inverter.invert(readings)
    assert np.abs(answer.params - RATES[:20]).mean() < 0.1
    assert (answer.status == InversionStatus.CONVERGED).all()
    assert (answer.n_forward == 2).all()  # the model only judges


def test_companions_do_not_matter_and_nothing_is_forgotten(inverter):
    together = inverter.predict(CURVES[:20])
    np.testing.assert_allclose(inverter.predict(CURVES[3:4]), together[3:4], rtol=1e-6)
    again = pickle.loads(pickle.dumps(inverter))
    np.testing.assert_array_equal(again.predict(CURVES[:20]), together)
    again = clone(inverter).fit(CURVES, RATES)
    np.testing.assert_array_equal(again.predict(CURVES[:20]), together)


def test_more_starts_find_a_lower_misfit_of_the_network(inverter):
    module = inverter.net_.module_.double()
    readings = torch.as_tensor(CURVES[:20, :, None])
    readings = inverter.reading_scaler_.standardize(readings)
    none, everyone = torch.zeros(20, 0), torch.arange(20)
    misfit = AdjointMisfit(module, readings, torch.ones_like(readings), none, everyone)
    values = []
    for n_starts in (1, 16):
        inverter.set_params(n_starts=n_starts)
        k = torch.as_tensor(inverter.predict(CURVES[:20]))
        quantiles = (k / 0.5).log2() / 2
        values.append(misfit(quantiles, everyone)[0])
    inverter.set_params(n_starts=4)
    module.float()
    assert (values[1] <= values[0] + 1e-8).all()
    assert values[1].sum() < values[0].sum()


def test_walls_stand_around_the_quantiles():
    module = AdjointNet(4, 1, 1, width=4).eval().double()
    one = torch.zeros(1, 4, 1, dtype=torch.float64)
    rows, none = torch.zeros(1).long(), torch.zeros(1, 0)
    misfit = AdjointMisfit(module, one, torch.ones_like(one), none, rows)

    def off(quantiles):
        return (module(quantiles, none) ** 2).mean()

    for quantile, slope in ((1.7, 1.0), (-0.7, -1.0)):
        at = torch.tensor([[quantile]], dtype=torch.float64)
        inside = torch.tensor([[quantile % 1]], dtype=torch.float64)
        wall = misfit(at, rows)[0] - off(at)
        assert wall.item() == pytest.approx(abs(quantile - 0.5) - 0.5)
        assert misfit(inside, rows)[0].item() == pytest.approx(off(inside).item())
        step = torch.autograd.functional.jacobian(off, at)
        assert (misfit(at, rows)[1] - step).item() == pytest.approx(slope)


def test_ctrl_c_keeps_what_was_found(inverter, monkeypatch):
    forward, calls = AdjointNet.forward, []

    def interrupted(self, params, inputs):
        calls.append(len(params))
        if len(calls) == 5:
            raise KeyboardInterrupt
        return forward(self, params, inputs)

    monkeypatch.setattr(AdjointNet, "forward", interrupted)
    with pytest.warns(match="Interrupted: 0 of 20 samples"):
        answer = inverter.invert(CURVES[:20])
    assert np.isfinite(answer.params).all()


def test_what_the_model_cannot_simulate_is_nan():
    def decay_or_nothing(params):
        return decay(params).where(params <= 1.3, torch.nan)

    frail = make_inverter(decay_or_nothing).fit(CURVES, RATES)
    with pytest.warns(match="have none left and are NaN"):
        answer = frail.invert(CURVES)
    assert np.isnan(answer.params[RATES[:, 0] > 1.6]).all()
    assert np.isfinite(answer.params[RATES[:, 0] < 1.1]).all()


def test_it_needs_pairs():
    with pytest.raises(ValueError, match="requires y"):
        make_inverter().fit(CURVES, None)
