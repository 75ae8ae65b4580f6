"""What is known of each sample reaches a function, and the networks beside its readings."""

import numpy as np
import pytest
import sklearn
import torch
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sklearn_inverse import (
    CMAESInverter,
    Design,
    ForwardFunction,
    GradientInverter,
    ReparamJointInverter,
    Training,
)
from sklearn_inverse.baselines import NeuralAdjointInverter

# Wrong inputs explain nothing, and a bare network little.
pytestmark = pytest.mark.filterwarnings(
    "ignore::sklearn_inverse.exceptions.MisfitWarning",
    "ignore::sklearn_inverse.exceptions.BoundsWarning",
)
TIMES = torch.linspace(0.0, 2.0, 6, dtype=torch.float64)


def decay(params, inputs):
    return inputs * torch.exp(-params * TIMES)


MODEL = ForwardFunction(
    decay, params={"k": (0.5, 2.0)}, inputs={"start": (0.5, 5.0)}, noise=0.02
)
RNG = np.random.default_rng(0)
K, START = RNG.uniform(0.5, 2.0, (200, 1)), RNG.uniform(0.5, 5.0, (200, 1))
CURVES = MODEL.fit(None).simulate(K, inputs=START)
# Cut off before the start could be read from them.
READINGS = CURVES.copy()
READINGS[:, 0] = np.nan
FEW = slice(20)
INVERTERS = {
    "gradient": GradientInverter(MODEL, n_starts=1, max_solves=0),
    "cmaes": CMAESInverter(MODEL, random_state=0),
    "joint": ReparamJointInverter(
        MODEL, network="mlp", training=Training(max_epochs=5), max_iter=5
    ),
    "bare": ReparamJointInverter(
        MODEL,
        network="mlp",
        mode="supervised",
        refine=False,
        design=Design(n_observed=(4, 6)),
        training=Training(lr=0.01, max_epochs=100),
        random_state=0,
    ),
    "adjoint": NeuralAdjointInverter(
        MODEL,
        n_starts=4,
        training=Training(lr=0.01, max_epochs=100),
        random_state=0,
    ),
}


def test_a_function_is_told_its_inputs_in_order_or_by_name():
    np.testing.assert_allclose(CURVES[:, 0, 0], START[:, 0])
    by_name = MODEL.simulate(K, inputs={"start": START[:, 0]})
    np.testing.assert_array_equal(by_name, CURVES)
    assert MODEL.input_names_ == ["start"]
    scaled = torch.rand(5, 1).double()
    told = torch.as_tensor(START[:5])
    _, jacobian = MODEL.linearize(scaled, told)
    k = torch.as_tensor(MODEL.param_scaler_.from_scaled(scaled.numpy()))
    expected = -1.5 * TIMES * decay(k, told)
    torch.testing.assert_close(jacobian[:, :, 0, 0], expected)
    with pytest.raises(ValueError, match=r"`inputs` must hold \['start'\]"):
        MODEL.simulate(K)
    with pytest.raises(ValueError, match="finite numbers of shape"):
        MODEL.simulate(K, inputs=START[:3])


@pytest.mark.parametrize("name", INVERTERS)
def test_inverters_use_what_is_known_of_each_sample(name):
    inverter = INVERTERS[name]
    pairs = (CURVES, K) if name in ("joint", "bare", "adjoint") else (CURVES,)
    inverter.fit(*pairs, inputs=START)
    found = inverter.predict(READINGS[FEW], inputs=START[FEW]).reshape(-1, 1)
    error = np.abs(found - K[FEW]).mean()
    assert error < (0.2 if name in ("adjoint", "bare") else 0.01)
    wrong = inverter.predict(READINGS[FEW], inputs=START[FEW][::-1]).reshape(-1, 1)
    assert np.abs(wrong - K[FEW]).mean() > 2 * error
    with pytest.raises(ValueError, match=r"`inputs` must hold \['start'\]"):
        inverter.predict(READINGS[FEW])


def test_inputs_are_routed_as_metadata():
    inverter = clone(INVERTERS["bare"])
    with sklearn.config_context(enable_metadata_routing=True):
        inverter.set_fit_request(inputs=True).set_predict_request(inputs=True)
        pipe = make_pipeline(FunctionTransformer(), inverter)
        pipe.fit(CURVES.reshape(200, -1), K, inputs=START)
        found = pipe.predict(CURVES[FEW].reshape(20, -1), inputs=START[FEW])
    assert np.abs(found - K[FEW]).mean() < 0.2
