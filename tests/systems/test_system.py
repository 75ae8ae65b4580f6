"""An ODESystem reads like a paper; one that cannot be right is refused in words."""

import copy
import datetime
import math
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, clone
from torch.autograd import forward_ad

from sklearn_inverse.ode import solve_ivp
from sklearn_inverse.probability import (
    Beta,
    GaussianProcess,
    LogNormal,
    MultivariateNormal,
    NegativeBinomial,
    Normal,
)
from sklearn_inverse.systems import ODESystem, Reference


def epidemic(t, y, p):
    new = p.contact * y.susceptible * y.infected
    return -new, new - p.recovery * y.infected


def by_position(t, y, p):
    new = p[0] * y[0] * y[1]
    return np.array([-new, new - p[1] * y[1]])


def cases(t, y, p):
    return 763 * p.reported * y.infected


def start(p):
    return 1 - p.seed


OPTIONS = {
    "states": {"susceptible": start, "infected": "seed"},
    "params": {
        "contact": (0.2, 4),
        "recovery": (0.1, 2),
        "seed": LogNormal(1e-3, 1),
        "reported": Beta(2, 5),
        "dispersion": (1, 100),
    },
    "times": np.arange(15),
    "observe": {"cases": cases},
    "noise": NegativeBinomial("dispersion"),
}


def make_system(rhs=epidemic, **options):
    return ODESystem(rhs, **(OPTIONS | options))


def make_oscillator(rhs, **options):
    """Two states and two params, to be got wrong in one place."""
    defaults = {
        "states": {"x": 1.0, "v": 0.5},
        "params": {"k": (1, 4), "damping": (0.1, 1)},
        "times": [0.0, 1.0, 3.0],
    }
    return ODESystem(rhs, **(defaults | options))


def oscillate(t, y, p):
    return y.v, -p.k * y.x - p.damping * y.v


# -- what a system is ----------------------------------------------------------------------


def test_names_sizes_and_defaults():
    system = make_system()
    assert repr(system) == (
        "ODESystem('epidemic', states=['susceptible', 'infected'], params=['contact', "
        "'recovery', 'seed', 'reported', 'dispersion'], observables=['cases'], "
        "n_times=15)"
    )
    sizes = system.n_states, system.n_params, system.n_channels, system.n_times
    assert sizes == (2, 5, 1, 15)
    np.testing.assert_allclose(system.nominal[:3], [2.1, 1.05, 1e-3])
    np.testing.assert_allclose(system.bounds[0], [0.2, 4])
    assert system.noise.param_names == ("dispersion",)
    assert system.jac is system.kinetics is system.reference is None
    assert system.invariants.shape == (0, 2)
    plain = make_oscillator(oscillate)
    assert plain.observable_names == ["x", "v"]
    assert plain.noise.has_unknown_scale.all()


def test_rhs_by_name_and_by_position_are_the_same_on_batches():
    y = torch.rand(7, 2, dtype=torch.float64)
    params = torch.rand(7, 5, dtype=torch.float64)
    by_name = make_system().rhs(torch.zeros(7), y, params)
    other = make_system(by_position, nominal={"contact": 1.7}).rhs(
        torch.zeros(7), y, params
    )
    new = params[:, 0] * y[:, 0] * y[:, 1]
    expected = torch.stack([-new, new - params[:, 1] * y[:, 1]], dim=1)
    torch.testing.assert_close(by_name, expected)
    torch.testing.assert_close(other, expected)


def test_initial_values_are_numbers_params_and_functions():
    states = {"a": "k1", "b": 2.0, "c": lambda p: p.k0 * p.k1, "d": "known"}
    system = ODESystem(
        lambda t, y, p: -y,
        states=states,
        params={"k0": (0, 1), "k1": (0, 2), "known": 7.0},
        times=[0, 1],
    )
    params = torch.tensor([[0.5, 1.0], [0.25, 2.0]], requires_grad=True)
    y0 = system.initial_state(params)
    assert y0.tolist() == [[1, 2, 0.5, 7], [2, 2, 0.5, 7]]
    assert y0.dtype == torch.float32
    (gradient,) = torch.autograd.grad(y0.sum(), params)
    assert gradient.tolist() == [[1, 1.5], [2, 1.25]]
    assert system.constants == {"known": 7.0}


def test_observables_see_times_states_and_params():
    observe = {
        "total": lambda t, y, p: p.k * (y.x + y.v) + t,
        "position": "x",
        "one": lambda t, y, p: 1.0,
    }
    system = make_oscillator(oscillate, observe=observe)
    y = torch.arange(12.0, dtype=torch.float64).view(2, 3, 2)
    params = torch.tensor([[1.0, 0.0], [10.0, 0.0]], dtype=torch.float64)
    readings = system.observables(y, params)
    assert readings[:, :, 0].tolist() == [[1, 6, 12], [130, 171, 213]]
    torch.testing.assert_close(readings[:, :, 1], y[:, :, 0])
    assert (readings[:, :, 2] == 1).all()
    some = make_oscillator(oscillate, observe=["v"])
    torch.testing.assert_close(some.observables(y, params), y[:, :, 1:])


def test_sensitivities_of_observables_are_those_of_differences():
    system = make_system(times=[0.0, 4.0, 8.0])
    nominal = torch.as_tensor(system.nominal)
    steps = torch.diag(1e-5 * nominal)

    def solve(params, **options):
        options |= {"method": "tsit5", "rtol": 1e-9, "atol": 1e-12}
        start = system.initial_state
        return solve_ivp(system.rhs, system.times, start, params, **options)

    params = torch.cat([nominal + steps, nominal - steps])
    up, down = system.observables(solve(params).y, params).split(system.n_params)
    expected = ((up - down) / (2e-5 * nominal)[:, None, None]).permute(1, 2, 0)
    solution = solve(nominal[None], sensitivities=True)
    _, (found,) = system.linearized_observables(
        solution.y, nominal[None], solution.sensitivities
    )
    scale = expected.abs().amax((0, 1)) + 1e-6
    assert ((found - expected).abs() < 1e-5 * scale).all()
    states = make_oscillator(oscillate, observe=["v"])
    some = torch.rand(1, 3, 2, 2)
    assert torch.equal(
        states.linearized_observables(some[..., 0], None, some)[1], some[:, :, 1:]
    )


def test_forward_mode_passes_through():
    system = make_system()
    params = torch.as_tensor(system.nominal).repeat(3, 1)
    tangent = torch.ones_like(params)

    def through(params):
        y = system.initial_state(params)
        f = system.rhs(torch.zeros(3), y, params)
        return system.observables(f[:, None].expand(-1, 15, -1), params)

    with forward_ad.dual_level() as level:
        dual = through(torch._make_dual(params, tangent, level=level))
        pushed = forward_ad.unpack_dual(dual).tangent
    _, pulled = torch.autograd.functional.jvp(through, params, tangent)
    torch.testing.assert_close(pushed, pulled)


def test_groups_of_params_are_vectors():
    curve = GaussianProcess(np.linspace(0, 1, 4), length=0.3)
    system = ODESystem(
        lambda t, y, p: [p.curve @ np.ones(4) * p.a - y.x, p.b + p.curve[0] + y.x],
        states={"x": "curve[2]", "z": lambda p: np.sum(p.curve)},
        params={"curve": curve, ("a", "b"): MultivariateNormal([1, 2], np.eye(2))},
        times=[0, 1],
        nominal={"curve": [1, 2, 3, 4]},
    )
    assert system.param_names == [*(f"curve[{i}]" for i in range(4)), "a", "b"]
    params = torch.as_tensor(system.nominal)[None]
    assert system.initial_state(params).tolist() == [[3, 10]]
    f = system.rhs(torch.zeros(1), system.initial_state(params), params)
    assert f.tolist() == [[7, 6]]


def test_names_may_be_any_text():
    system = ODESystem(
        lambda t, y, p: -p["k (1/s)"] * y["2-PG"],
        states={"2-PG": 1.0},
        params={"k (1/s)": (0, 1)},
        times=[0, 1],
    )
    assert system.state_names == ["2-PG"]


def test_truncate_keeps_the_first_times():
    noise = Normal(np.linspace(1, 2, 15)[:, None])
    system = make_system(noise=noise, params=OPTIONS["params"] | {"dispersion": 3})
    shorter = system.truncate(4)
    assert (shorter.n_times, system.n_times) == (4, 15)
    params = torch.as_tensor(system.nominal)[None]
    assert shorter.observables(torch.rand(1, 4, 2).double(), params).shape == (1, 4, 1)
    args = shorter.noise.arguments(params, system.param_names)
    assert shorter.noise.std(torch.ones(1, 4, 1), args).shape == (1, 4, 1)
    for n_times in (0, 16):
        with pytest.raises(ValueError, match=f"between 1 and 15.*Got {n_times}"):
            system.truncate(n_times)


class Holder(BaseEstimator):
    def __init__(self, system=None):
        self.system = system


def test_a_system_is_pickled_and_shared_by_clones():
    system = make_system()
    again = pickle.loads(pickle.dumps(system))
    assert repr(again) == repr(system)
    params = torch.as_tensor(system.nominal)[None]
    y = system.initial_state(params)
    t = torch.zeros(1)
    assert torch.equal(again.rhs(t, y, params), system.rhs(t, y, params))
    assert clone(Holder(system)).system is copy.deepcopy(system) is system


def test_a_given_jacobian_is_for_one_sample_too():
    def jac(t, y, p):
        return [[0, 1], [-p.k, -p.damping]]

    system = make_oscillator(oscillate, jac=jac)
    params = torch.tensor([[2.0, 0.5], [3.0, 0.25]])
    found = system.jac(torch.zeros(2), torch.zeros(2, 2), params)
    assert found.tolist() == [[[0, 1], [-2, -0.5]], [[0, 1], [-3, -0.25]]]


def test_a_reference_tuple_gets_its_names():
    reference = make_oscillator(oscillate, reference=(3, [0.1, 0.2], "book")).reference
    assert isinstance(reference, Reference)
    assert (reference.time, reference.source) == (3.0, "book")


# -- what is refused -----------------------------------------------------------------------


def refused(rhs, message, **options):
    with pytest.raises(ValueError, match=message) as caught:
        make_oscillator(rhs, **options)
    return caught.value


@pytest.mark.parametrize(
    ("rhs", "message"),
    [
        (lambda y, t, p: [y[1], -y[0]], "first two exchanged.*written for odeint?"),
        (lambda x, t, k: [x * t, k[0]][:2], "cannot be run"),
        (lambda t, p, y: [y.v, -p.k * y.x], "With the last two exchanged it would run"),
        (lambda p, t, y: [y.v, -p.k * y.x], r"As rhs\(p, t, y\) it would run"),
        (lambda t, y: y, r"called as rhs\(t, y, p\).* 3 argument.*Got \(t, y\)"),
        (lambda y, t, k, d: y, r"Params are taken from p: p\.a"),
        (lambda t, y, p: [y.v], r"must return 2 value\(s\).*\['x', 'v'\]. Got 1"),
        (lambda t, y, p: [y.v, y.x, 0], "Got 3"),
        (lambda t, y, p: p.k, "Got one number"),
        (lambda t, y, p: None, "is a `return` missing"),
        (lambda t, y, p: {"x": y.v}, "must return a list"),
        (lambda t, y, p: [y.v, -p.kk * y.x], "no param 'kk'; did you mean 'k'"),
        (lambda t, y, p: [y.w, -p.k], "no state 'w' among"),
        (lambda t, y, p: [y.v, y.k], r"no state 'k': it is a param, write p\.k"),
        (lambda t, y, p: [p.v, y.x], r"no param 'v': it is a state, write y\.v"),
        (lambda t, y, p: -p[:, :1] * y, r"indexed by \[:, :1\].*for one sample"),
        (lambda t, y, p: [y.v, math.exp(y.x)], "`math.exp` needs a number.*`np.exp`"),
        (lambda t, y, p: [y.v if y.x > 1 else 0, y.x], r"np\.where.*\(line \d+: `"),
        (lambda t, y, p: y.numpy(), "`.numpy` would cut the model off"),
        (lambda t, y, p: [y.v, 1 / 0], "ZeroDivisionError: division by zero"),
        (lambda t, y, p: [y.v, np.log(-y.x)], "finite at the first time. Got nan.*'v'"),
        (lambda t, y, p: y * torch.rand(()), "something random"),
        (lambda t, y, p: y * np.random.rand(), "something random"),  # noqa: NPY002
    ],
)
def test_a_right_hand_side_that_cannot_be_right_is_refused(rhs, message):
    refused(rhs, message)


def test_errors_keep_their_cause():
    def fail(t, y, p):
        return [y.v, {}["missing"]]

    error = refused(fail, r"cannot be run: missing \(line \d+: `return")
    assert isinstance(error.__cause__, KeyError)

    def need(t, y, p):
        import no_such_module  # noqa: F401

    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        make_oscillator(need)


def test_filling_an_array_of_numbers_is_refused():
    def fill(t, y, p):
        dy = np.zeros(2)
        dy[0] = y.v
        return dy

    refused(fill, "rather than filling np.zeros")


def cut_off(t, y, p):
    with torch.no_grad():
        return [y.v * p.k, -y.x]


def partly_cut_off(t, y, p):
    with torch.no_grad():
        force = p.k * y.x
    return [y.v, -force - p.damping * y.v]


def kept_from_before(t, y, p, calls=[]):  # noqa: B006
    calls.append(1)
    return y * len(calls)


def test_a_cut_off_right_hand_side_is_refused():
    refused(cut_off, "cut off from differentiation: x changes.*finds no derivative")
    refused(partly_cut_off, "cut off from differentiation: v.*another derivative")
    refused(kept_from_before, "kept from one call to the next")
    observe = {"sum": lambda t, y, p: sum(cut_off(t, y, p))}
    with pytest.raises(ValueError, match=r"`observe\['sum'\]` is cut off"):
        make_oscillator(oscillate, observe=observe)


@pytest.mark.parametrize(
    "rhs",
    [
        lambda t, y, p: [np.sqrt(y.x - 1), -y.x],  # derivative infinite at the start
        lambda t, y, p: [np.floor(3 * y.x) * p.k, -p.damping * np.maximum(y.v, 0.5)],
        lambda t, y, p: (
            [np.where(t < 1, 5, 0) * p.k, p.damping - y.x.mean(0)]
            if False
            else [np.where(t < 1, 5, 0) * p.k, p.damping - y.mean(0)]
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:Nothing depends")
def test_kinks_jumps_and_infinite_slopes_are_let_pass(rhs):
    make_oscillator(rhs)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"times": [0.0, 1.0, 1.0]}, ValueError, "strictly increasing"),
        ({"times": [0.0]}, ValueError, "at least two times"),
        (
            {"times": [datetime.date(2020, 1, d) for d in (1, 2)]},
            ValueError,
            "From dates",
        ),
        ({"times": np.array(["2020-01-01"], "M8[D]")}, ValueError, "From dates"),
        ({"times": ["0", "1"]}, ValueError, "must be numbers"),
        ({"states": {"x": np.nan, "v": 0.0}}, ValueError, "'x' must be a finite"),
        ({"states": {"x": [1, 2], "v": 0.0}}, ValueError, "'x' must be a finite"),
        (
            {"states": {"x": "kk", "v": 0}},
            ValueError,
            "is 'kk', which.*Did you mean 'k'",
        ),
        (
            {"states": {"x": lambda p: np.log(-p.k), "v": 0}},
            ValueError,
            "finite at the nominal params. Got nan for 'x'",
        ),
        (
            {"states": {"x": lambda p: p.j, "v": 0}},
            ValueError,
            r"`states\['x'\]` cannot be run: there is no param 'j'",
        ),
        (
            {"states": {"x": lambda p: [p.k, p.k], "v": 0}},
            ValueError,
            r"must return one number. Got an array of shape \(2,\)",
        ),
        ({"states": [1.0, 0.0]}, TypeError, "`states` must be a dict"),
        (
            {"states": {"k": 1.0, "v": 0.0}},
            ValueError,
            "different names. Got 'k' twice",
        ),
        ({"params": {"k": 1.0, "damping": 2.0}}, ValueError, "something to estimate"),
        ({"params": {3: (1, 2)}}, TypeError, "must be text. Got 3"),
        ({"params": [(1, 2)]}, TypeError, "`params` must be a dict"),
        ({"nominal": {"k": 5.0}}, ValueError, r"Got 'k' = 5.*allows \[1, 4\]"),
        ({"nominal": {"kk": 5.0}}, ValueError, "`nominal` has 'kk'.*Did you mean 'k'"),
        ({"nominal": [1.0, 0.5]}, TypeError, "dict of params by name"),
        ({"observe": ["w"]}, ValueError, "observable 'w' is 'w'.*Known are"),
        ({"observe": lambda t, y, p: y}, TypeError, "dict of names with functions"),
        ({"observe": {"w": 1.0}}, TypeError, r"`observe\['w'\]` must be a function"),
        ({"observe": {"w": lambda t, y, p: y}}, ValueError, "must return one number"),
        ({"noise": Normal("sigma")}, ValueError, "sigma"),
        ({"units": {"tme": "s"}}, ValueError, "`units` has 'tme'.*Did you mean 'time'"),
        ({"jac": lambda t, y, p: y}, ValueError, r"array of shape \(2, 2\)"),
        (
            {"jac": lambda t, y, p: [[0, 1], [p.k, 0]]},
            ValueError,
            "finds -2.5 in row 1, column 0; `jac` has 2.5",
        ),
        ({"reference": (1.0, [1.0], "")}, ValueError, r"`reference states` .*\(1,\)"),
        ({"invariants": [[1, 1, 1]]}, ValueError, r"`invariants` .*\(1, 2\)"),
    ],
)
def test_contradictions_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        make_oscillator(oscillate, **options)


def test_a_param_that_nothing_uses_is_named():
    params = {"k": (1, 4), "damping": (0.1, 1), "dampnig": (0, 1), "s": (0.1, 1)}
    with pytest.warns(UserWarning, match=r"param\(s\) \['dampnig'\]") as caught:
        make_oscillator(oscillate, params=params, noise=Normal("s"))
    assert caught[0].filename == __file__


def test_print_shows_the_equations_and_repr_stays_short():
    system = ODESystem(
        lambda t, y, p: (y.v - y.v**3 / 3 - y.w + p.i, 0.08 * (y.v + p.a - y.w)),
        states={"v": 1.0, "w": 1.0},
        params={"i": (0.1, 1), "a": (0.1, 1)},
        times=[0.0, 1.0],
        name="neuron",
    )
    assert "\n" not in repr(system)
    first, *lines = str(system).splitlines()
    assert first == repr(system)
    assert lines == ["  v' = i + v - v**3/3 - w", "  w' = 0.08*(v + a - w)"]


def test_print_says_why_equations_are_not_known():
    table = torch.eye(2, dtype=torch.float64)

    def rhs(t, y, p):
        return torch.linalg.solve(table * p.k, torch.stack([y.a, y.b]))

    system = ODESystem(
        rhs, states={"a": 1.0, "b": 1.0}, params={"k": (1, 2)}, times=[0, 1]
    )
    reason = system.backend_.removeprefix("torch: ")
    assert str(system).splitlines()[1] == f"  equations unknown: {reason}"
