"""Every system keeps the same contract: shapes, derivatives, invariants, reference."""

import copy
import pickle
from functools import partial

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from sklearn_inverse.problems import (
    grn,
    hires,
    lotka_volterra,
    oregonator,
    pollu,
    robertson,
    van_der_pol,
)
from sklearn_inverse.utils._scaling import ParamScaler

SYSTEMS = {
    "pollu": pollu,
    "hires": hires,
    "robertson": robertson,
    "van_der_pol": van_der_pol,
    "oregonator": oregonator,
    "lotka_volterra": lotka_volterra,
    "lotka_volterra-unknown": partial(lotka_volterra, unknown_initial_state=True),
    "grn": grn,
    "grn-sigmoid": partial(grn, activation="sigmoid"),
    "grn-hill2": partial(grn, activation="hill2"),
}

REFERENCES = SYSTEMS.keys() - {"grn-sigmoid", "grn-hill2"}


@pytest.fixture(params=SYSTEMS)
def system(request):
    return SYSTEMS[request.param]()


def random_batch(system, n_samples=5):
    """Draw times, states of the magnitude that the system visits, params in bounds."""
    rng = np.random.default_rng(0)
    unit = rng.uniform(size=(n_samples, system.n_params))
    params = ParamScaler(system.bounds, scale=system.scale).to_physical(unit)
    params = torch.as_tensor(params)
    magnitude = system.initial_state(params).abs() + 1e-3
    if system.reference is not None:
        magnitude = magnitude + torch.as_tensor(system.reference.states).abs()
    y = magnitude * torch.as_tensor(rng.uniform(-1, 1, size=magnitude.shape))
    return torch.as_tensor(rng.uniform(size=n_samples)), y, params


def per_sample(function):
    """Let a function of a batch take one sample, without its leading dimension."""
    return lambda *sample: function(*(x[None] for x in sample))[0]


def autodiff(function, argnum):
    return torch.func.vmap(torch.func.jacrev(per_sample(function), argnums=argnum))


def assert_close(actual, expected, rtol):
    """Compare to within ``rtol`` of the largest entry in the same row."""
    scale = expected.abs().amax(dim=-1, keepdim=True) + torch.finfo(expected.dtype).tiny
    assert ((actual - expected).abs() / scale).max() < rtol


def test_names_and_sizes_agree(system):
    assert len(system.state_names) == system.n_states
    assert len(system.channel_names) == system.n_channels
    assert len(system.param_names) == system.n_params == len(system.bounds)
    assert len(system.times) == system.n_times
    assert system.invariants.shape[1] == system.n_states
    for names in (system.state_names, system.param_names, system.channel_names):
        assert all(isinstance(name, str) for name in names)


def test_units_are_stated_for_time_states_and_params(system):
    assert {"time", "states", "params"} <= set(system.units)
    for kind in ("states", "params"):
        unit = system.units[kind]
        assert isinstance(unit, str) or len(unit) == getattr(system, f"n_{kind}")


def test_nominal_lies_strictly_inside_its_bounds(system):
    assert (system.bounds[:, 0] < system.nominal).all()
    assert (system.nominal < system.bounds[:, 1]).all()


@pytest.mark.parametrize("derivative", ["rhs", "jac"])
def test_a_sample_alone_gives_its_row_of_the_batch(system, derivative):
    function = getattr(system, derivative)
    t, y, params = random_batch(system)
    batch = function(t, y, params)
    assert batch.dtype == torch.float64
    for i in range(len(t)):
        alone = function(t[i : i + 1], y[i : i + 1], params[i : i + 1])
        assert_close(alone, batch[i : i + 1], rtol=1e-13)


def test_a_spoilt_sample_leaves_the_others_as_they_were(system):
    t, y, params = random_batch(system)
    expected = system.rhs(t, y, params)
    y, params = y.clone(), params.clone()
    y[1], params[2] = torch.nan, torch.inf
    others = [0, 3, 4]
    assert torch.equal(system.rhs(t, y, params)[others], expected[others])


def test_closed_form_jacobian_is_the_derivative_of_rhs(system):
    t, y, params = random_batch(system)
    expected = autodiff(system.rhs, 1)(t, y, params)
    assert_close(system.jac(t, y, params), expected, rtol=1e-10)


@pytest.mark.parametrize("system", ["pollu", "robertson"], indirect=True)
def test_closed_form_jacobian_by_params_is_the_derivative_of_rhs(system):
    t, y, params = random_batch(system)
    expected = autodiff(system.rhs, 2)(t, y, params)
    assert_close(system.rhs.jac_params(t, y, params), expected, rtol=1e-10)


def test_single_precision_stays_single(system):
    t, y, params = (x.float() for x in random_batch(system))
    assert system.rhs(t, y, params).dtype == torch.float32
    assert system.jac(t, y, params).dtype == torch.float32


def test_invariants_do_not_change(system):
    t, y, params = random_batch(system)
    dydt = system.rhs(t, y, params)
    invariants = torch.as_tensor(system.invariants)
    drift = dydt @ invariants.T
    gross = dydt.abs() @ invariants.abs().T
    assert (drift.abs() <= 1e-10 * gross).all()


@pytest.mark.parametrize("system", sorted(REFERENCES), indirect=True)
def test_scipy_reproduces_the_reference(system):
    params = torch.as_tensor(system.nominal)

    def at_nominal(function):
        def evaluate(t, y):
            t = torch.tensor(t, dtype=torch.float64)
            return per_sample(function)(t, torch.from_numpy(y), params).numpy()

        return evaluate

    solution = solve_ivp(
        at_nominal(system.rhs),
        (system.times[0], system.reference.time),
        system.initial_state(params[None])[0].numpy(),
        method="Radau",
        jac=at_nominal(system.jac),
        rtol=1e-8,
        atol=1e-20,
    )
    np.testing.assert_allclose(solution.y[:, -1], system.reference.states, rtol=1e-7)


@pytest.mark.parametrize(
    "duplicate", [lambda s: pickle.loads(pickle.dumps(s)), copy.deepcopy]
)
def test_a_copy_computes_the_same_and_shares_nothing(system, duplicate):
    twin = duplicate(system)
    t, y, params = random_batch(system)
    for derivative in ("rhs", "jac"):
        expected = getattr(system, derivative)(t, y, params)
        assert torch.equal(getattr(twin, derivative)(t, y, params), expected)
        bound_to = getattr(getattr(twin, derivative), "__self__", None)
        assert bound_to in (None, twin.rhs)
    assert repr(twin) == repr(system)
    assert twin.bounds is not system.bounds


def test_lotka_volterra_starts_from_its_params_when_they_are_unknown():
    system = lotka_volterra(unknown_initial_state=True, times=range(1900, 1921))
    params = torch.as_tensor(system.nominal)[None] * torch.tensor([[1.0], [1.1]])
    assert torch.equal(system.initial_state(params), params[:, 4:])
    assert system.reference.time == 1920


def test_an_unknown_activation_is_refused():
    with pytest.raises(ValueError, match=r"`activation` must be one of .*Got 'relu'"):
        grn(activation="relu")
