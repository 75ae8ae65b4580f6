"""Every system keeps the same contract: shapes, derivatives, invariants, reference."""

import pickle
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sklearn_inverse import ode, problems
from sklearn_inverse.problems import (
    grn,
    hires,
    lotka_volterra,
    oregonator,
    pollu,
    robertson,
    van_der_pol,
)

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
COMPILED = sorted(
    name for name in SYSTEMS if name.split("-")[0] not in ("van_der_pol", "grn")
)


@pytest.fixture(params=SYSTEMS)
def system(request):
    return SYSTEMS[request.param]()


def random_batch(system, n_samples=5):
    """Draw times, states of the magnitude that the system visits, params in bounds."""
    params = torch.as_tensor(system.prior.draw(n_samples, np.random.RandomState(0)))
    magnitude = system.initial_state(params).abs() + 1e-3
    if system.reference is not None:
        magnitude = magnitude + torch.as_tensor(system.reference.states).abs()
    rng = np.random.default_rng(0)
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
    assert len(system.observable_names) == system.n_channels
    assert len(system.param_names) == system.n_params == len(system.bounds)
    assert len(system.times) == system.n_times
    assert system.invariants.shape[1] == system.n_states
    for names in (system.state_names, system.param_names, system.observable_names):
        assert all(isinstance(name, str) for name in names)


def test_units_are_stated_for_time_states_and_params(system):
    assert {"time", "states"} <= set(system.units)
    assert "params" in system.units or set(system.param_names) <= set(system.units)


def test_params_of_published_systems_have_their_published_priors():
    for make in (pollu, hires, oregonator, van_der_pol):
        system = make()
        expected = np.outer(system.nominal, [0.5, 1.5])
        np.testing.assert_allclose(system.bounds, expected, rtol=1e-12)
        assert not system.prior.scaler.is_log.any()
    np.testing.assert_allclose(
        robertson().bounds, np.outer([0.04, 3e7, 1e4], [0.1, 10])
    )
    assert robertson().prior.scaler.is_log.all()
    assert lotka_volterra().prior.scaler.is_log.all()


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


@pytest.mark.parametrize("system", COMPILED, indirect=True)
def test_rates_are_those_of_the_kinetics(system):
    t, y, params = random_batch(system)
    rates = system.rates(params)
    assert rates.shape == (len(params), system.kinetics.stoichiometry.shape[1])
    assert_close(system.kinetics(t, y, rates), system.rhs(t, y, params), rtol=1e-13)
    assert torch.equal(system.rates_initial(rates), system.initial_state(params))
    expected = autodiff(system.rhs, 2)(t, y, params)
    by_params = autodiff(lambda t, y, params: system.rates(params), 2)(t, y, params)
    by_rates = system.kinetics.jac_params(t, y, rates)
    assert_close(by_rates @ by_params, expected, rtol=1e-10)


@pytest.mark.parametrize("name", sorted(SYSTEMS.keys() - COMPILED))
def test_other_systems_have_no_kinetics(name):
    assert SYSTEMS[name]().kinetics is None


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
def test_solver_reproduces_the_reference(system):
    times = [system.times[0], system.reference.time]
    params = torch.as_tensor(np.array(system.nominal))[None]
    if system.kinetics is None:
        y = ode.solve_ivp(
            system.rhs, times, system.initial_state, params, jac=system.jac, rtol=1e-7
        ).y
    else:
        rates = system.rates(params)
        y = ode.solve_ivp(
            system.kinetics, times, system.rates_initial, rates, rtol=1e-9
        ).y
    np.testing.assert_allclose(y[0, -1], system.reference.states, rtol=1e-6)


@pytest.mark.parametrize("name", problems.__all__)
def test_every_problem_can_be_stored(name):
    problem = getattr(problems, name)()
    assert type(pickle.loads(pickle.dumps(problem))) is type(problem)


def test_a_copy_computes_the_same(system):
    twin = pickle.loads(pickle.dumps(system))
    t, y, params = random_batch(system)
    for derivative in ("rhs", "jac"):
        expected = getattr(system, derivative)(t, y, params)
        assert torch.equal(getattr(twin, derivative)(t, y, params), expected)
    assert repr(twin) == repr(system)


def test_lotka_volterra_starts_from_its_params_when_they_are_unknown():
    system = lotka_volterra(unknown_initial_state=True, times=range(1900, 1921))
    params = torch.as_tensor(np.array(system.nominal))[None] * torch.tensor(
        [[1.0], [1.1]]
    )
    assert torch.equal(system.initial_state(params), params[:, 4:])
    assert system.rates(params) is params  # as the rates, so that no chain rule is due
    assert system.reference.time == 1920


def test_lotka_volterra_takes_bounds_by_name_or_all_of_them():
    by_name = lotka_volterra(bounds={"beta": (0.01, 0.1)})
    rows = lotka_volterra().bounds
    rows[1] = 0.01, 0.1
    np.testing.assert_allclose(by_name.bounds, rows)
    np.testing.assert_allclose(lotka_volterra(bounds=rows).bounds, rows)
    # Elsewhere, the published values and the reference at them do not apply.
    elsewhere = lotka_volterra(bounds={"alpha": (1.0, 4.0)})
    np.testing.assert_allclose(elsewhere.nominal[0], 2.0)
    assert elsewhere.reference is None
    with pytest.raises(ValueError, match=r"one \(lower, upper\) row for each of"):
        lotka_volterra(bounds=[[0.1, 1.0]])
    with pytest.raises(ValueError, match=r"`bounds` may hold .*Got \['hare0'\]"):
        lotka_volterra(bounds={"hare0": (1, 100)})


def hires_by_hand(t, y, p):
    binding = p.k_plus * y[5] * y[7]
    bound = binding - (p.k2 + p.k_minus + p.k_star) * y[6]
    return [
        -p.k1 * y[0] + p.k2 * y[1] + p.k6 * y[2] + p.o_ks,
        p.k1 * y[0] - (p.k2 + p.k3) * y[1],
        -(p.k6 + p.k1) * y[2] + p.k2 * y[3] + p.k5 * y[4],
        p.k3 * y[1] + p.k1 * y[2] - (p.k4 + p.k2) * y[3],
        -(p.k1 + p.k5) * y[4] + p.k2 * (y[5] + y[6]),
        -binding + p.k4 * y[3] + p.k1 * y[4] - p.k2 * y[5] + p.k_minus * y[6],
        bound,
        -bound,
    ]


def oregonator_by_hand(t, y, p):
    return [
        p.s * (y[1] + y[0] * (1 - p.q * y[0] - y[1])),
        (y[2] - (1 + y[0]) * y[1]) / p.s,
        p.w * (y[0] - y[2]),
    ]


@pytest.mark.parametrize(
    ("make", "equations"),
    [(hires, hires_by_hand), (oregonator, oregonator_by_hand)],
)
def test_reactions_are_the_published_equations(make, equations):
    system = make()
    t, y, params = random_batch(system)
    for i in range(len(params)):
        p = SimpleNamespace(**dict(zip(system.param_names, params[i])))
        expected = torch.stack(equations(t[i], y[i], p))
        actual = system.rhs(t[i : i + 1], y[i : i + 1], params[i : i + 1])[0]
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-12)


def test_an_unknown_activation_is_refused():
    with pytest.raises(ValueError, match=r"`activation` must be one of .*Got 'relu'"):
        grn(activation="relu")
