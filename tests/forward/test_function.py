"""Any differentiable torch function is a forward model; what is none is refused."""

import numpy as np
import pytest
import torch
from sklearn.base import clone

from sklearn_inverse import ForwardFunction
from sklearn_inverse.probability import LogUniform

TIMES = torch.linspace(0.0, 2.0, 8, dtype=torch.float64)
PRIORS = {"a": (1.0, 2.0), "k": LogUniform(0.5, 2.0)}


def two_observables(params):
    u = params[:, :1] * torch.exp(-params[:, 1:] * TIMES)
    return torch.stack([u, 1e9 * u**2], dim=2)


def one(params):
    return two_observables(params)[..., 0]


def test_it_simulates_in_units_and_linearizes_exactly_in_scaled_params():
    model = ForwardFunction(two_observables, params=PRIORS).fit(None)
    scaled = torch.rand(5, 2, dtype=torch.float64)
    trajectories, jacobian = model.linearize(scaled)
    torch.testing.assert_close(trajectories, model.forward(scaled))
    expected = torch.autograd.functional.jacobian(model.forward, scaled)
    expected = expected.diagonal(dim1=0, dim2=3).movedim(-1, 0)
    torch.testing.assert_close(jacobian, expected)
    params = model.param_scaler_.from_scaled(scaled.numpy())
    np.testing.assert_allclose(model.simulate(params), trajectories)


def test_it_knows_what_it_was_told_and_counts_the_rest():
    model = ForwardFunction(one, params=PRIORS, observables=["u"], times=TIMES.numpy())
    model.fit(None)
    assert model.param_names_ == ["a", "k"]
    assert (model.observable_names_, model.n_times_, model.n_params_) == (["u"], 8, 2)
    np.testing.assert_array_equal(model.times_, TIMES)
    bare = ForwardFunction(two_observables)
    assert not bare.is_ready
    bare.fit(None, [[1.0, 0.5], [2.0, 2.0]])
    assert bare.param_names_ == ["k1", "k2"]
    assert bare.observable_names_ == ["c1", "c2"]
    np.testing.assert_allclose(bare.prior_.scaler.bounds, [[1, 2], [0.5, 2]])
    assert not clone(bare).is_ready


def test_columns_give_params_their_names_and_their_order(frame):
    pairs = frame({"a": [1.0, 2.0], "rate": [0.5, 2.0]})
    model = ForwardFunction(one).fit(None, pairs)
    assert model.param_names_ == ["a", "rate"]
    swapped = model.simulate(pairs[["rate", "a"]])
    np.testing.assert_array_equal(swapped, model.simulate(pairs))


def to_numpy(params):
    return one(params.detach()).numpy()


def without_gradient(params):
    return one(params.detach())


def of_one_sample(params):
    return one(params)[0]


def of_fewer(params):
    return one(params)[:1]


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (to_numpy, TypeError, "must return a torch.Tensor. Got ndarray"),
        (without_gradient, ValueError, "must be differentiable"),
        (of_one_sample, ValueError, r"Got shape \(8, 1\)|Got shape \(8,\)"),
        (of_fewer, ValueError, r"\(2, 2\) to trajectories .* Got shape \(1, 8, 1\)"),
        (3, ValueError, "'function' parameter"),
    ],
)
def test_what_is_no_batch_of_trajectories_is_refused(function, error, message):
    with pytest.raises(error, match=message):
        ForwardFunction(function, params=PRIORS).fit(None)


def test_a_function_without_a_prior_is_refused():
    with pytest.raises(ValueError, match="needs a prior: give `params`"):
        ForwardFunction(one).fit(None)


def test_a_dict_without_inputs_means_none():
    model = ForwardFunction(one, params=PRIORS, inputs={}).fit(None)
    assert model.input_prior_ is None
    params = model.prior_.median[None]
    assert model.simulate(params).shape[0] == 1
