"""An ODESystem that contradicts itself is refused, with what is wrong and where."""

import numpy as np
import pytest
import torch

from sklearn_inverse.systems import ODESystem, Reference


def decay(t, y, params):
    return -params[..., :1] * y


def drop_a_state(t, y, params):
    return y[..., :1]


def flatten(t, y, params):
    return y.flatten()


def total(t, y, params):
    return params[..., :1] * y.sum(dim=-1, keepdim=True) + t[:, None]


def start_at_params(params):
    return params


def start_flat(params):
    return params[:, 0]


def make_system(rhs=decay, **options):
    defaults = {
        "initial_state": [1.0, 2.0],
        "bounds": [[0.5, 2.0], [0.1, 10.0]],
        "times": [0.0, 1.0, 3.0],
    }
    return ODESystem(rhs, **(defaults | options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rhs": drop_a_state}, r"`rhs` must have shape \(1, 2\).*Got \(1, 1\)"),
        ({"bounds": [[0.5, 2.0], [10.0, 0.1]]}, r"Got \[10\. +0\.1\] for param 1"),
        ({"bounds": [0.5, 2.0]}, r"`bounds` must have shape.*Got shape \(2,\)"),
        ({"bounds": [[0.5, np.inf]]}, "`bounds` must be finite"),
        ({"bounds": [[0.0, 1.0]], "scale": "log10"}, "must have positive bounds"),
        ({"scale": "log"}, "`scale` must be 'linear', 'log10', or a list of 2"),
        ({"times": [0.0, 1.0, 1.0]}, "strictly increasing"),
        ({"times": [[0.0, 1.0]]}, r"`times` must have shape.*Got shape \(1, 2\)"),
        ({"nominal": [1.0, 20.0]}, r"within its bounds. Got 20 for param 1"),
        ({"nominal": [1.0]}, r"`nominal` must have shape \(2,\).*Got \(1,\)"),
        ({"state_names": ["a", "a"]}, "`state_names` must hold 2 different names"),
        ({"param_names": ["a"]}, "`param_names` must hold 2 different names"),
        ({"observe": flatten}, r"n_channels\) = \(1, 3, n_channels\). Got \(6,\)"),
        ({"observe": total, "channel_names": ["a", "b"]}, "must hold 1 different"),
        ({"initial_state": 1.0}, r"`initial_state` must have shape \(n_states,\)"),
        ({"initial_state": start_flat}, r"n_samples = 1. Got \(1,\) instead"),
        ({"reference": (1.0, [1.0], "")}, r"`reference states` .* Got \(1,\)"),
        ({"invariants": [[1.0, 1.0, 1.0]]}, r"`invariants` .*\(1, 2\).*Got \(1, 3\)"),
    ],
)
def test_what_is_wrong_is_said(options, message):
    with pytest.raises(ValueError, match=message):
        make_system(**options)


def test_nominal_defaults_to_the_middle_on_the_scale_of_each_param():
    system = make_system(scale=["linear", "log10"])
    np.testing.assert_allclose(system.nominal, [1.25, 1.0])


def test_defaults_name_everything():
    system = make_system()
    assert system.state_names == system.channel_names == ["y1", "y2"]
    assert system.param_names == ["k1", "k2"]
    assert make_system(observe=total).channel_names == ["c1"]
    assert system.name == "decay"
    assert system.units == {}
    assert system.invariants.shape == (0, 2)


def test_a_fixed_initial_state_serves_every_sample_in_its_precision():
    system = make_system()
    for dtype in (torch.float32, torch.float64):
        y0 = system.initial_state(torch.ones(3, 2, dtype=dtype))
        assert y0.dtype == dtype
        assert y0.tolist() == [[1.0, 2.0]] * 3


def test_initial_values_may_be_params():
    system = make_system(initial_state=start_at_params)
    params = torch.tensor([[1.0, 5.0], [2.0, 6.0]], requires_grad=True)
    y0 = system.initial_state(params)
    assert torch.equal(y0, params)
    (gradient,) = torch.autograd.grad(y0.sum(), params)
    assert torch.equal(gradient, torch.ones(2, 2))


def test_observe_sees_times_states_and_params():
    system = make_system(observe=total)
    y = torch.arange(12.0, dtype=torch.float64).reshape(2, 3, 2)
    params = torch.tensor([[1.0, 0.0], [10.0, 0.0]], dtype=torch.float64)
    channels = system.channels(y, params)
    expected = [[[1.0], [6.0], [12.0]], [[130.0], [171.0], [213.0]]]
    assert channels.tolist() == expected


def test_a_reference_tuple_gets_its_names():
    reference = make_system(reference=(3, [0.1, 0.2], "a book")).reference
    assert isinstance(reference, Reference)
    assert (reference.time, reference.source) == (3.0, "a book")
    np.testing.assert_array_equal(reference.states, [0.1, 0.2])
