"""Stiff equations are found as they are, from data in every form."""

import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from sklearn.base import clone

from sklearn_inverse import GradientInverter, PolynomialODE
from sklearn_inverse.datasets import load_lynx_hare
from sklearn_inverse.discovery._noisy import eliminated, exchanged, neighbors
from sklearn_inverse.discovery._pi_net import PiNet
from sklearn_inverse.discovery._polynomial_ode import METHODS
from sklearn_inverse.discovery._rhs import Monomials, RightHandSide
from sklearn_inverse.discovery._runs import Run, Shots, as_runs, scatter
from sklearn_inverse.discovery._steps import take_steps
from sklearn_inverse.discovery._system import _spread
from sklearn_inverse.exceptions import (
    ConvergenceWarning,
    IdentifiabilityWarning,
    IntegrationWarning,
    MisfitWarning,
)
from sklearn_inverse.probability import MultivariateNormal

long_steps = pytest.mark.filterwarnings(
    "ignore:Steps are too long:sklearn_inverse.exceptions.MisfitWarning"
)
ORDERS = {"backward_euler": 1, "trapezoid": 2, "radau3": 3, "radau5": 5}
# Of a step of size h along y' = -k y, solved for k: what the stability functions say.
ORACLE = {
    "backward_euler": [1.0254219275, 1.0517091808, 1.1361016668, 1.7182818285],
    "trapezoid": [0.9997917187, 0.9991674992, 0.9948240142, 0.9242343145],
    "radau3": [0.9999982866, 0.9999864669, 0.9997961470, 0.9888956161],
    "radau5": [1.0, 1.0000000014, 1.0000001303, 1.0001226410],
}


@long_steps
@pytest.mark.parametrize("method", ORDERS)
@pytest.mark.parametrize("degree", [1, 2])
def test_a_linear_equation_has_the_error_of_the_step(method, degree):
    for x, expected in zip([0.05, 0.1, 0.25, 1.0], ORACLE[method]):
        t = np.arange(6) * x / 1000
        model = PolynomialODE(degree, method=method).fit(np.exp(-1000 * t), t)
        assert model.coef_[0, 1] / -1000 == pytest.approx(expected, abs=2e-10)
        assert np.count_nonzero(model.coef_) == 1


def test_steps_that_are_too_long_are_told(capsys):
    t = np.arange(6.0)
    with pytest.warns(MisfitWarning, match=r"move coefficients by up to 0\.29 of"):
        model = PolynomialODE(1, method="backward_euler").fit(np.exp(-t), t)
    # Halved, they would find 2 (sqrt(e) - 1); one linearization tells most of it.
    found, expected = model.coef_[0, 1], -2 * (np.exp(0.5) - 1)
    assert model.step_error_[0, 1] == pytest.approx(expected - found, rel=0.25)
    model.print()
    assert (
        "half as long, they move coefficients by up to 29 %" in capsys.readouterr().out
    )
    exact = PolynomialODE(1).fit(np.exp(-t), t)
    assert abs(exact.step_error_[0, 1]) == pytest.approx(
        abs(1 + exact.coef_[0, 1]), rel=0.1
    )


@pytest.fixture(scope="module")
def transients(stiff):
    """Kaps' problem from two starts while its fast state is fast; divisible in two."""
    t = np.linspace(0, 0.01, 81)
    starts = [[2, 1], [0.3, 1.5]]
    return np.array(
        [stiff.solved(stiff.kaps, y0, t, max_step=5e-6) for y0 in starts]
    ), t


@long_steps
@pytest.mark.parametrize(("method", "order"), ORDERS.items())
def test_errors_fall_with_the_order_of_the_step(method, order, transients, stiff):
    errors = []
    for every in (2, 1):
        y, t = transients[0][:, ::every], transients[1][::every]
        model = PolynomialODE(method=method).fit(y, t)
        errors.append(stiff.relative_error(model, stiff.kaps))
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.2)


def test_kaps_is_found_from_160_points(kaps_run, stiff):
    model = PolynomialODE().fit(*kaps_run)
    assert np.array_equal(
        model.coef_ != 0, stiff.true_coef(stiff.kaps, model.feature_names_) != 0
    )
    assert stiff.relative_error(model, stiff.kaps) < 1e-5
    assert model.equations_[0] == "y1' = -1002*y1 + 1000*y2^2"
    assert model.rank_ == 6
    assert not model.is_choice_
    assert model.identifiable_.all()
    assert model.score(*kaps_run) > 0.999999


def test_robertson_is_found_from_five_starts(robertson_runs, stiff):
    model = PolynomialODE().fit(*robertson_runs)
    truth = stiff.true_coef(stiff.robertson, model.feature_names_)
    assert np.array_equal(model.coef_ != 0, truth != 0)
    assert stiff.relative_error(model, stiff.robertson) < 1e-6
    assert model.relations_ == ["y1 + 0.0001*y2 + y3 is constant in each run"]


@long_steps
@pytest.mark.filterwarnings("ignore:Some coefficients")  # which is so
@pytest.mark.parametrize(
    ("method", "error"),
    [("backward_euler", 0.2), ("trapezoid", 5e-3), ("radau3", 5e-4)],
)
def test_steps_of_low_order_find_it_roughly(method, error, kaps_run, stiff):
    assert (
        stiff.relative_error(PolynomialODE(method=method).fit(*kaps_run), stiff.kaps)
        < error
    )


@long_steps
def test_substeps_make_up_for_the_order(kaps_run, stiff):
    once, more = (
        PolynomialODE(method="trapezoid", substeps=n).fit(*kaps_run) for n in (1, 4)
    )
    assert (
        stiff.relative_error(more, stiff.kaps)
        < stiff.relative_error(once, stiff.kaps) / 5
    )


def test_gaps_and_runs_of_unequal_length_are_no_matter(robertson_runs, stiff):
    runs, times = robertson_runs
    runs = [run.copy() for run in runs]
    runs[0][5, 1] = runs[2][-1, 0] = np.nan
    runs[1][7] = np.nan
    runs[3] = runs[3][:100]
    all_times = [times[: len(run)] for run in runs]
    model = PolynomialODE().fit(runs, all_times)
    assert stiff.relative_error(model, stiff.robertson) < 1e-6


def test_a_table_says_the_same_as_arrays(kaps_run):
    y, t = kaps_run
    table = {
        "time": np.tile(t, 2),
        "observable": np.repeat(["fast", "slow"], len(t)),
        "value": y.T.ravel(),
    }
    model = PolynomialODE().fit(table)
    other = PolynomialODE(state_names=["fast", "slow"]).fit(y, t)
    assert model.equations_ == other.equations_
    assert model.state_names_ == ["fast", "slow"]
    assert np.array_equal(model.coef_, other.coef_)


def test_what_is_known_is_not_learned_again(kaps_run, stiff):
    def linear(t, y):
        return [-1002 * y.y1, y.y1 - y.y2]

    model = PolynomialODE(known=linear).fit(*kaps_run)
    kept = model.coef_[model.coef_ != 0]
    np.testing.assert_allclose(kept, [1000, -1], rtol=1e-5)
    assert model.equations_[0] == "y1' = known + 1000*y2^2"

    def first(t, y):
        return [-1002 * y[0] + 1000 * y[1] ** 2, 0.0]

    second = PolynomialODE(known=first, unknown=["y2"]).fit(*kaps_run)
    truth = stiff.true_coef(stiff.kaps, second.feature_names_)[1]
    assert abs(second.coef_[1] - truth).max() < 1e-5
    assert not second.coef_[0].any()
    np.testing.assert_allclose(
        second.simulate([2, 1], kaps_run[1]), kaps_run[0], atol=1e-5
    )


def test_terms_may_be_given(kaps_run):
    terms = {"y1": ["y1", "y2^2"], "y2": ["y1", "y2", "y2^2"]}
    model = PolynomialODE(terms=terms, threshold=0).fit(*kaps_run)
    kept = model.coef_[model.coef_ != 0]
    np.testing.assert_allclose(kept, [-1002, 1000, 1, -1, -1], rtol=1e-5)
    assert np.array_equal(model.identifiable_, model.coef_ != 0)
    once = {name: iter(some) for name, some in terms.items()}
    again = PolynomialODE(terms=once, threshold=0).fit(*kaps_run)
    assert again.equations_ == model.equations_


def test_names_may_be_an_array():
    model = PolynomialODE(1, state_names=np.array(["a", "b"])).fit(POINTS, GRID)
    assert model.equations_[1].startswith("b' = ")
    assert [type(name) for name in model.state_names_] == [str, str]


@pytest.mark.parametrize("widen", [0, -1, np.nan])
def test_a_prior_has_a_width(widen, kaps_run):
    with pytest.raises(ValueError, match="`widen` must be a number larger than 0"):
        PolynomialODE(method="radau3").fit(*kaps_run).to_system(widen=widen)


def test_known_parts_may_depend_on_time(stiff):
    def driven(t, y):
        return [np.cos(t)]

    t = np.linspace(0, 6, 61)
    y = stiff.solved(lambda t, y: np.cos(t) - 3 * y, [1.0], t)
    model = PolynomialODE(1, known=driven).fit(y, t)
    assert model.coef_[0].tolist() == pytest.approx([0, -3], abs=1e-5)


def test_an_unseen_start_is_predicted(robertson_runs, stiff):
    model = PolynomialODE().fit(*robertson_runs)
    t = np.linspace(0, 40, 9)
    starts = [[0.3, 0.1, 0.9], [0.9, 0.2, 0.0]]
    expected = [stiff.solved(stiff.robertson, y0, t) for y0 in starts]
    np.testing.assert_allclose(model.simulate(starts, t), expected, rtol=1e-5)
    assert model.simulate(starts[0], t).shape == (9, 3)


def test_the_system_refines_on_whole_trajectories(kaps_run, stiff):
    y, t = (part[::4] for part in kaps_run)
    model = PolynomialODE(method="radau3").fit(y, t)
    assert stiff.relative_error(model, stiff.kaps) > 5e-4
    system = model.to_system(noise=1e-5)
    assert system.param_names[:2] == ["y1_from_y1", "y1_from_y2_y2"]
    inverter = GradientInverter(system, max_solves=0, random_state=0)
    posterior = inverter.fit(model.observations_).posterior(model.observations_)
    truth = [-1002, 1000, 1, -1, -1]
    assert abs(posterior.mean[0] / truth - 1).max() < 1e-4
    assert (abs(posterior.mean[0] - truth) < 4 * posterior.std[0]).all()


def test_it_is_an_estimator_as_others_are(kaps_run, capsys):
    model = PolynomialODE(method="radau3", threshold=0.02)
    twin = clone(model).set_params(degree=2)
    assert twin.get_params() == model.get_params()
    model.fit(*kaps_run)
    assert np.array_equal(twin.fit(*kaps_run).coef_, model.coef_)
    again = pickle.loads(pickle.dumps(model))
    assert again.equations_ == model.equations_
    assert np.array_equal(
        again.simulate([2, 1], [0, 1]), model.simulate([2, 1], [0, 1])
    )
    model.print(precision=2)
    printed = capsys.readouterr().out
    assert printed.startswith("y1' = -1e+03*y1 + 1e+03*y2^2\n")
    assert "6 of 6 monomials" in printed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"degree": -1}, "degree"),
        ({"method": "euler"}, "method"),
        ({"threshold": 1.0}, "threshold"),
        ({"noise_std": [0.1, -1.0]}, "positive number, or one for each of 2 states"),
        ({"unknown": ["z"]}, "`unknown` must name some of the states"),
        ({"terms": {"y1": ["y3"]}}, "`terms` must name monomials"),
        ({"terms": {"z": ["y1"]}}, "`terms` must name monomials"),
        ({"terms": {"y1": "y1"}}, "`terms` must be lists of monomials.*'y1': 'y1'"),
        ({"terms": {"y1": None}}, "`terms` must be lists of monomials.*'y1': None"),
        ({"terms": {"y1": ["y2*y1"]}}, r"Write 'y2\*y1' as 'y1\*y2'"),
        ({"terms": {"y1": ["y1"]}, "unknown": ["y2"]}, "which `unknown` does not name"),
        ({"state_names": ["a"]}, r"called \['a'\]. Got 2 column"),
        ({"state_names": ["a", "a"]}, "must be different"),
        ({"state_names": ["a b", "c"]}, "must be words"),
        ({"degree": 120}, "lower `degree`"),
        ({"known": lambda t: [0, 0]}, r"known\(t, y\).*time and states.*Got \(t\)\.$"),
        ({"known": lambda t, y, p: [0, 0]}, r"known\(t, y\).*must take 2 argument"),
        ({"known": lambda y, t: [y[0], 0]}, r"known\(t, y\). With the two exchanged"),
        ({"known": lambda t, y: [y[2], 0]}, "`known` cannot be run"),
    ],
)
def test_wrong_options_are_told(change, message, kaps_run):
    with pytest.raises(ValueError, match=message):
        PolynomialODE().set_params(**change).fit(*kaps_run)


GRID = np.arange(4.0)
POINTS = np.column_stack([np.exp(-GRID), np.exp(-2 * GRID)])


@pytest.mark.parametrize(
    ("trajectories", "times", "message"),
    [
        (POINTS, GRID[:3], "one per point. Got 3 times and 4 points"),
        (POINTS, GRID[::-1], "increase strictly"),
        (POINTS, [0, 1, 1, 2], "average those measured at the same time"),
        (POINTS, None, "`times` must be given"),
        (POINTS[:1], GRID[:1], "another point behind it"),
        (
            np.where(GRID[:, None] >= 0, [1.0, np.nan], 0),
            GRID,
            "nothing but NaN of 'y2'",
        ),
        (np.full((4, 2), np.inf), GRID, "Got infinity in run 0"),
        ([POINTS, POINTS[:3, :1]], [GRID, GRID[:3]], "same states"),
        ([POINTS, POINTS[:3]], [GRID], "Got 1 for 2 run"),
        (["a", "b"], GRID, "must be an array of shape"),
        (np.zeros((2, 2, 2, 2)), GRID, "must be an array of shape"),
        ({"time": [0.0], "value": [1.0]}, None, "no column"),
        ({"y1": GRID}, GRID, "Got dict"),
        (POINTS, GRID.astype("datetime64[h]"), "`times` must be numbers.*days"),
        ([POINTS], [list(GRID.astype("timedelta64[s]"))], "`times` must be numbers"),
        (
            {"time": list(GRID.astype("M8[D]")), "observable": "abcd", "value": GRID},
            None,
            "'time' must hold numbers.*date",
        ),
    ],
)
def test_wrong_data_are_told(trajectories, times, message):
    with pytest.raises(ValueError, match=message):
        PolynomialODE().fit(trajectories, times)


def test_no_point_at_which_all_was_measured_is_told():
    y = POINTS.copy()
    y[::2, 0] = y[1::2, 1] = np.nan
    with pytest.raises(ValueError, match="all states were measured"):
        PolynomialODE().fit(y, GRID)


def test_an_early_end_and_a_blow_up_are_told(kaps_run):
    with pytest.warns(ConvergenceWarning, match="raise `max_iter`"):
        PolynomialODE(method="backward_euler", max_iter=1).fit(*kaps_run)
    t = np.linspace(0, 0.5, 21)
    model = PolynomialODE().fit(1 / (1 - t), t)
    assert model.coef_[0].tolist() == pytest.approx([0, 0, 1], abs=1e-8)
    with pytest.warns(IntegrationWarning):
        assert np.isnan(model.simulate([1.0], [0, 0.5, 2.0])[-1]).all()


def test_reversed_views_are_read_as_they_are(kaps_run):
    model, start = PolynomialODE().fit(*kaps_run), np.array([1.0, 2.0])
    backward = model.simulate(start[::-1], np.array([1.0, 0.5, 0.0])[::-1])
    np.testing.assert_array_equal(backward, model.simulate([2, 1], [0, 0.5, 1]))


def test_simulate_wants_all_states(kaps_run):
    with pytest.raises(ValueError, match=r"Got shape \(3,\)"):
        PolynomialODE().fit(*kaps_run).simulate([1, 2, 3], [0, 1])


@pytest.mark.parametrize("level", [0.001, 0.01])
def test_noisy_runs_of_a_system_that_is_not_stiff_tell_it(level):
    def predation(t, y):
        return [y[0] - 0.5 * y[0] * y[1], -0.8 * y[1] + 0.3 * y[0] * y[1]]

    t, rng = np.linspace(0, 20, 61), np.random.default_rng(0)
    options = {"method": "DOP853", "rtol": 1e-9, "t_eval": t}
    runs = [solve_ivp(predation, (0, 20), y0, **options).y for y0 in ([2, 1], [4, 3])]
    runs = np.swapaxes(runs, 1, 2)
    noise = level * runs.max(axis=(0, 1))
    model = PolynomialODE(noise_std=noise).fit(
        runs + noise * rng.standard_normal(runs.shape), t
    )
    kept = model.coef_ != 0
    assert np.argwhere(kept).tolist() == [[0, 1], [0, 4], [1, 2], [1, 4]]
    off = model.coef_[kept] - [1, -0.5, -0.8, 0.3]
    assert (abs(off) < 4 * model.coef_std_[kept]).all()
    assert abs(off).max() < 5 * level
    system = model.to_system()
    assert system.param_names[-1] == "y2(2)"  # states at the start are unknown too
    assert system.n_params == 4 + 4


@pytest.mark.slow
def test_a_stiff_system_is_found_in_noisy_runs_as_far_as_they_tell(stiff):
    t = np.concatenate([[0], np.geomspace(1e-5, 5, 99)])
    starts = [[2, 1], [0.2, 2], [1, 0.4]]
    runs = np.array([stiff.solved(stiff.kaps, y0, t) for y0 in starts])
    noise = 0.001 * runs.max(axis=(0, 1))
    rng = np.random.default_rng(0)
    model = PolynomialODE(noise_std=noise)
    model.fit(runs + noise * rng.standard_normal(runs.shape), t)
    # Of the slow equation, y1 - y2^2 is nothing but in the first moments.
    assert np.argwhere(model.coef_).tolist() == [[0, 1], [0, 5], [1, 2]]
    kept = model.coef_ != 0
    off = model.coef_[kept] - [-1002, 1000, -1]
    assert (abs(off) < 4 * model.coef_std_[kept]).all()
    assert (abs(off) < 0.01 * abs(model.coef_[kept])).all()
    assert all(rise < 10 for _, rise in model.alternatives_)


@pytest.mark.slow
def test_robertson_is_found_in_noisy_runs(robertson_runs, stiff, capsys):
    runs, times = robertson_runs
    noise = 0.001 * runs.max(axis=(0, 1))
    rng = np.random.default_rng(0)
    model = PolynomialODE(noise_std=noise)
    model.fit(runs + noise * rng.standard_normal(runs.shape), times)
    # y1' = -0.3 y2^2, which holds on the slow manifold, explains them as well.
    truth = stiff.true_coef(stiff.robertson, model.feature_names_)
    assert np.array_equal(model.coef_[1:] != 0, truth[1:] != 0)
    np.testing.assert_allclose(model.coef_[1:], truth[1:], rtol=0.02)
    assert model.equations_[0].startswith("y1' = -0.30")
    model.print()
    assert "or       y1' = -0.04" in capsys.readouterr().out


@pytest.mark.slow
def test_a_fast_equation_is_found_where_noise_hides_how_fast_it_is(
    robertson_runs, stiff
):
    """At 1 % single steps say of y2' but the ratios."""
    runs, times = robertson_runs
    noise = 0.01 * runs.max(axis=(0, 1))
    rng = np.random.default_rng(0)
    model = PolynomialODE(noise_std=noise)
    model.fit(runs + noise * rng.standard_normal(runs.shape), times)
    fast = stiff.true_coef(stiff.robertson, model.feature_names_)[1]
    np.testing.assert_allclose(model.coef_[1], fast, rtol=0.05)
    # Of y1' what holds on the slow manifold; the truth is listed.
    assert model.equations_[0].startswith("y1' = -0.30")
    assert any(line.startswith("y1' = -0.04") for line, _ in model.alternatives_)


@pytest.fixture(scope="module")
def slow_runs():
    """Return runs whose states change by about the noise from point to point."""

    def growth(t, y):
        return [y[0] - 0.63 * y[0] * y[1], 0.7 - 0.7 * y[1]]

    t, rng = np.linspace(0, 6, 61), np.random.default_rng(0)
    options = {"rtol": 1e-9, "atol": 1e-11, "t_eval": t}
    starts = [[2, 1.6], [1, 0.4], [3, 0.2]]
    runs = [solve_ivp(growth, (0, 6), y0, **options).y.T for y0 in starts]
    noise = 0.02 * np.max(runs, axis=(0, 1))
    return runs + noise * rng.standard_normal((3, 61, 2)), t, noise, np.array(runs)


@pytest.mark.parametrize("is_known", [True, False])
def test_whole_runs_tell_terms_that_single_steps_do_not(slow_runs, is_known):
    runs, t, noise, _ = slow_runs
    model = PolynomialODE(noise_std=noise if is_known else "estimate").fit(runs, t)
    kept = model.coef_ != 0
    assert np.argwhere(kept).tolist() == [[0, 1], [0, 4], [1, 0], [1, 2]]
    off = model.coef_[kept] - [1, -0.63, 0.7, -0.7]
    assert (abs(off) < 3 * model.coef_std_[kept]).all()
    np.testing.assert_allclose(model.noise_std_, noise, rtol=0.1)
    assert model.to_system().n_params == 4 + 6


def test_readings_without_noise_are_found_to_be_exact(slow_runs, kaps_run):
    exact, t = slow_runs[3], slow_runs[1]
    for data in [(exact, t), kaps_run]:
        model = PolynomialODE(noise_std="estimate").fit(*data)
        assert model.noise_std_ is None
        assert np.array_equal(model.coef_, PolynomialODE().fit(*data).coef_)


def test_equations_that_leave_more_than_neighbors_scatter_are_told(slow_runs):
    noisy, t, _, exact = slow_runs
    runs = exact + 0.1 * (noisy - exact)
    with pytest.warns(MisfitWarning, match="times what neighboring readings scatter"):
        PolynomialODE(1, noise_std="estimate").fit(runs, t)
    with pytest.raises(ValueError, match="three readings in a row"):
        PolynomialODE(noise_std="estimate").fit(runs[:, :2], t[:2])


@pytest.mark.parametrize("seed", range(5))
def test_changes_of_single_terms_go_on_until_none_pays(seed):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((20, 6))
    rows[:, 5] = rows[:, 4] + 0.1 * rows[:, 5]
    x, truth = np.array([[1.0, 0, -2, 0, 3, 0], [1, 0.5, 0, 0, 0, 3]])
    target = rows @ truth + 0.1 * rng.standard_normal(20)
    factor = np.linalg.qr(np.column_stack([rows, rows @ x - target]), mode="r")

    def criterion(inside):
        some = rows[:, inside]
        left = target - some @ np.linalg.lstsq(some, target)[0]
        return (left**2).sum() + 1.5 * inside.sum()

    found = exchanged(factor, x, x != 0, 1.5, most=99)
    inside = found != 0
    reached = ((rows @ found - target) ** 2).sum() + 1.5 * inside.sum()
    assert reached == pytest.approx(criterion(inside))
    flips = np.eye(6, dtype=bool)
    pairs = [flips[i] | flips[j] for i in range(6) for j in range(i)]
    pairs = [pair for pair in pairs if (inside & pair).sum() == 1]
    rises = [criterion(inside ^ flip) - reached for flip in [*flips, *pairs]]
    assert min(rises) > -0.01
    once = exchanged(factor, x, x != 0, 1.5, most=1) != 0
    assert (once ^ (x != 0)).sum() in (1, 2)


@pytest.fixture(scope="module")
def decays():
    """Return times, two runs of a chain of decays, and noise of 1 % of each reading."""
    t = np.linspace(0, 4, 41)
    runs = [
        np.exp(-t)[:, None] * np.column_stack([a + 0 * t, a * t + 1]) for a in (1, 3)
    ]
    return t, runs, [0.01 * abs(y) for y in runs]


def test_readings_may_have_noise_of_their_own(decays):
    t, runs, noise = decays
    rng = np.random.default_rng(0)
    read = [y + sd * rng.standard_normal(y.shape) for y, sd in zip(runs, noise)]
    terms = {"y1": ["y1"], "y2": ["y1", "y2"]}
    options = {"terms": terms, "threshold": 0}
    model = PolynomialODE(1, noise_std=noise[:1], **options).fit(read[:1], [t])
    typical = np.sqrt(np.mean(np.square(noise[0]), axis=0))
    np.testing.assert_allclose(model.noise_std_, typical)
    found, std = model.coef_[0, 1], model.coef_std_[0, 1]
    assert abs(found + 1) < 3 * std
    # Small readings are as good as large ones, which one noise for all would not say.
    one = PolynomialODE(1, noise_std=typical, **options).fit(read[:1], [t])
    assert std < one.coef_std_[0, 1] / 2
    with pytest.raises(ValueError, match="`noise` must be given"):
        model.to_system()


def test_noise_of_runs_may_be_the_same_for_all(decays):
    t, runs, _ = decays
    rng = np.random.default_rng(0)
    read = [y + 0.01 * rng.standard_normal(y.shape) for y in runs]
    once = PolynomialODE(1, noise_std=[0.01, 0.02]).fit(read, t)
    each = PolynomialODE(1, noise_std=[[0.01, 0.02]] * 2).fit(read, t)
    np.testing.assert_allclose(each.coef_, once.coef_, rtol=1e-6)
    assert each.to_system().n_params == once.to_system().n_params


@pytest.mark.parametrize("wrong", [0, 1, 2, 3])
def test_wrong_noise_of_readings_is_told(wrong, decays):
    t, runs, noise = decays
    some = [noise[:1], [0 * sd for sd in noise], [sd[:5] for sd in noise], noise[0]]
    with pytest.raises(ValueError, match=r"`noise_std` .* positive"):
        PolynomialODE(1, noise_std=some[wrong]).fit(runs, t)


@pytest.mark.parametrize("degree", [1, 2])
def test_the_papers_network_is_what_it_expands_to(degree, capsys):
    t = np.linspace(0, 0.025, 26)
    model = PolynomialODE(degree, module="pi_net", max_iter=25, random_state=0)
    model.fit(np.exp(-1000 * t), t)
    oracle = -1000.122641 if degree == 1 else -1000  # of Radau's steps of this size
    assert model.coef_[0, 1] == pytest.approx(oracle, rel=1e-3)
    y = np.linspace(0, 1, 7)[:, None]
    made = model.net_(torch.from_numpy(y)).detach().numpy()
    expanded = y ** np.arange(degree + 1) @ model.coef_.T
    np.testing.assert_allclose(expanded, made, atol=1e-12 * abs(made).max())
    model.print()
    assert capsys.readouterr().out.startswith("y1' = ")
    with pytest.raises(ValueError, match="A system needs terms"):
        model.to_system()
    with pytest.warns(ConvergenceWarning, match="take module='polynomial'"):
        model.set_params(max_iter=1).fit(np.exp(-t), t)


def test_networks_of_many_states_are_expanded_too():
    rng = np.random.default_rng(0)
    net = PiNet(np.array([1.0, 2.0, 0.5]), np.array([1.0, 3.0, 2.0]), 3, 4)
    monomials, y = Monomials(["a", "b", "c"], 3), rng.standard_normal((9, 3))
    made = net(torch.from_numpy(y)).detach().numpy()
    coef = net.expand(monomials).detach().numpy()
    np.testing.assert_allclose(monomials(y) @ coef.T, made, rtol=1e-12)


def pendulum_runs():
    """Return times, four runs of a damped pendulum, and one from another start."""

    def pendulum(t, y):
        return [y[1], -np.sin(y[0]) - 0.1 * y[1]]

    t = np.linspace(0, 8, 81)
    options = {"rtol": 1e-9, "atol": 1e-11, "t_eval": t}
    starts = [(2, 0), (1, 1), (-1.5, 0.5), (0, -2), (1.5, -0.5)]
    runs = [solve_ivp(pendulum, (0, 8), y0, **options).y.T for y0 in starts]
    return t, np.array(runs[:4]), runs[4]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The fit stopped before its end")
def test_a_net_predicts_where_there_are_no_polynomials():
    t, runs, unseen = pendulum_runs()
    # What is known need not be learned.
    model = PolynomialODE(
        module="mlp",
        known=swinging,
        hidden_layer_sizes=(6,),
        random_state=0,
    ).fit(runs, t)
    assert abs(model.simulate(unseen[0], t) - unseen).max() < 0.02
    assert model.equations_[1] == "y2' = known + net(y1, y2)"
    twin = pickle.loads(pickle.dumps(clone(model).fit(runs, t)))
    assert np.array_equal(twin.simulate([1, 0], t), model.simulate([1, 0], t))
    with pytest.raises(ValueError, match="A system needs terms"):
        model.to_system()


def swinging(t, y):
    return [y[1], -0.1 * y[1]]


@pytest.mark.slow
def test_a_net_learns_from_noisy_runs():
    t, runs, unseen = pendulum_runs()
    noise = np.random.default_rng(0).standard_normal(runs.shape)
    model = PolynomialODE(module="mlp", noise_std="estimate", random_state=0)
    model.fit(runs + 0.02 * noise, t)
    np.testing.assert_allclose(model.noise_std_, 0.02, rtol=0.2)
    assert abs(model.simulate(unseen[0], t) - unseen).max() < 0.1


@pytest.mark.slow
def test_a_net_takes_stiff_steps(kaps_run, stiff, capsys):
    y, t = (part[::2] for part in kaps_run)
    runs = [y] + [stiff.solved(stiff.kaps, y0, t) for y0 in ([0.2, 2], [1, 0.4])]
    model = PolynomialODE(module="mlp", random_state=0)
    with pytest.warns(MisfitWarning, match="miss"):  # slow states, to a few percent
        model.fit(runs, [t] * 3)
    unseen = stiff.solved(stiff.kaps, [1.5, 1.2], t)
    assert abs(model.simulate(unseen[0], t) - unseen).max() < 0.02
    model.print()
    assert capsys.readouterr().out == "y1' = net(y1, y2)\ny2' = net(y1, y2)\n"


@pytest.mark.parametrize(
    ("module", "change"),
    [
        ("mlp", {"terms": {"y1": ["y1"]}}),
        ("mlp", {"unknown": ["y1"]}),
        ("mlp", {"hidden_layer_sizes": (0,)}),
        ("mlp", {"degree": 3}),
        ("pi_net", {"terms": {"y1": ["y1"]}}),
        ("pi_net", {"threshold": 0.1}),
        ("pi_net", {"hidden_layer_sizes": (8,)}),
        ("polynomial", {"hidden_layer_sizes": (8,)}),
    ],
)
def test_what_is_of_no_use_is_refused(module, change, kaps_run):
    with pytest.raises(ValueError, match=f"`{next(iter(change))}` must be"):
        PolynomialODE(module=module, **change).fit(*kaps_run)


def test_what_is_left_out_raises_the_sum_of_squares_least():
    rng = np.random.default_rng(0)
    rows, x = rng.standard_normal((30, 5)), np.array([3.0, 0.01, -2.0, 0.02, 1.0])
    factor = np.linalg.qr(
        np.column_stack([rows, 0.1 * rng.standard_normal(30)]), mode="r"
    )
    found = eliminated(factor, x, penalty=1.0)
    assert found.nonzero()[0].tolist() == [0, 2, 4]
    kept = found != 0
    target = factor[:, :-1] @ x - factor[:, -1]
    exact = np.linalg.lstsq(factor[:, :-1][:, kept], target)[0]
    np.testing.assert_allclose(found[kept], exact, rtol=1e-6)
    # From it, back to what the full problem knows: none of one or two terms is better.
    penalty = 1e-3
    others = neighbors(factor, x * (x > 0.5), np.arange(5), penalty, np.inf, 50)
    costs = [
        ((factor[:, :-1] @ (y - x * (x > 0.5)) + factor[:, -1]) ** 2).sum()
        for y in others
    ]
    sizes = [np.count_nonzero(y) for y in others]
    assert {1, 2, 3} == set(sizes)
    rises = np.array(costs) + penalty * np.array(sizes)
    assert (np.diff(rises) > -1e-9).all()


def test_equations_that_do_not_explain_the_readings_are_told(kaps_run):
    with pytest.warns(MisfitWarning, match="times what `noise_std` says") as told:
        PolynomialODE(1, noise_std=0.001).fit(*kaps_run)
    (text,) = (str(w.message) for w in told if w.category is MisfitWarning)
    assert "or `noise_std` is too small" in text
    assert "noise_std='estimate'" in text
    assert "threshold" not in text  # which decides nothing with noise
    y = 1 + 0.1 * np.random.default_rng(0).standard_normal(30)
    model = PolynomialODE(0, noise_std=0.1).fit(y, np.arange(30.0))
    with pytest.raises(ValueError, match="Got none: raise `degree`"):
        model.to_system()


def test_runs_near_a_divide_set_out_from_where_shorter_pieces_were():
    """From readings, Duffing's oscillator would go to the other well."""
    t, rng = np.linspace(0, 15, 200), np.random.default_rng(3)

    def duffing(t, y):
        return [y[1], -0.2 * y[1] + y[0] - y[0] ** 3]

    runs = [
        solve_ivp(duffing, (0, 15), y0, t_eval=t, rtol=1e-9, atol=1e-11).y.T
        for y0 in ([1.5, 0], [-1, 0.5])
    ]
    noise = 0.01 * np.concatenate(runs).std(axis=0)
    read = [y + noise * rng.standard_normal(y.shape) for y in runs]
    model = PolynomialODE(3, noise_std=noise).fit(read, [t, t])
    assert np.argwhere(model.coef_).tolist() == [[0, 2], [1, 1], [1, 2], [1, 6]]
    np.testing.assert_allclose(
        model.coef_[model.coef_ != 0], [1, 1, -0.2, -1], rtol=0.01
    )


@pytest.mark.filterwarnings("ignore::sklearn_inverse.exceptions.IdentifiabilityWarning")
def test_rivals_are_listed_by_what_readings_say_and_not_by_how_they_were_chosen():
    """y3 = y1 + y2: for y1' = -y1 stands y2 - y3, one of six pairs of four terms."""
    t, noise = np.linspace(0, 2, 100), 0.01
    fast, slow = np.exp(-t), np.exp(-2 * t)
    runs = [
        np.stack([a * fast, b * slow, a * fast + b * slow], axis=1)
        for a, b in ((1.0, 0.5), (0.3, 1.2))
    ]
    rng = np.random.default_rng(0)
    read = np.array(runs) + noise * rng.standard_normal((2, 100, 3))
    model = PolynomialODE(1, noise_std=noise).fit(read, t)
    (rise,) = (rise for line, rise in model.alternatives_ if line.startswith("y1' ="))
    # A second term costs log(600) by Bayes' criterion, and 2 log(4) of being one of four.
    assert 10 < rise < np.log(600) + 2 * np.log(4) + 3


def oscillating(y0, t):
    def pair(t, y):
        return [y[0] - 0.5 * y[0] * y[1], -y[1] + 0.3 * y[0] * y[1]]

    span = 0.0, t[-1]
    return solve_ivp(pair, span, y0, t_eval=t, rtol=1e-10, atol=1e-12).y.T


def michaelis_menten(t, y):
    bound, freed, made = 2 * y[0] * y[1], y[2], y[2]
    return [freed - bound, freed + made - bound, bound - freed - made, made]


@pytest.mark.filterwarnings("ignore::sklearn_inverse.exceptions.IdentifiabilityWarning")
@pytest.mark.parametrize("noise", [None, 0.01])
def test_an_enzyme_is_found_though_its_sums_are_conserved(stiff, noise):
    """Several terms stand for one that is absent: no single change leads from them."""
    t, rng = np.linspace(0, 6, 41), np.random.default_rng(101)
    starts = ([2, 0.5, 0, 0], [1, 1, 0, 0], [3, 0.3, 0, 0])
    runs = np.array([stiff.solved(michaelis_menten, y0, t) for y0 in starts])
    if noise:
        noise = noise * runs.max(axis=(0, 1))
        runs = runs + noise * rng.standard_normal(runs.shape)
    model = PolynomialODE(noise_std=noise).fit(runs, t)
    bound = {"y1*y2": -2.0, "y3": 1.0}
    whole = {"y1*y2": -2.0, "y3": 2.0}
    rows = [bound, whole, {name: -c for name, c in whole.items()}, {"y3": 1.0}]
    truth = [[row.get(name, 0.0) for name in model.feature_names_] for row in rows]
    truth = np.array(truth)
    assert np.array_equal(model.coef_ != 0, truth != 0)
    np.testing.assert_allclose(
        model.coef_, truth, rtol=0.2 if noise is not None else 1e-3
    )


def chain(t, y):
    return [-10 * y[0], 10 * y[0] - y[1], y[1] - 0.05 * y[2], 0.05 * y[2]]


@pytest.mark.filterwarnings("ignore::sklearn_inverse.exceptions.IdentifiabilityWarning")
def test_a_chain_with_two_totals_is_found_by_its_degree(stiff, capsys):
    """(sum - 1) (sum - 3) = 0 is a relation of second degree between its states."""
    t = np.concatenate([[0], np.geomspace(1e-3, 60, 40)])
    starts = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [1, 1, 0, 1]])
    model = PolynomialODE().fit([stiff.solved(chain, y0, t) for y0 in starts], t)
    assert model.rank_ == 14
    rows = [
        {"y1": -10.0},
        {"y1": 10.0, "y2": -1.0},
        {"y2": 1.0, "y3": -0.05},
        {"y3": 0.05},
    ]
    truth = [[row.get(name, 0.0) for name in model.feature_names_] for row in rows]
    np.testing.assert_allclose(model.coef_, truth, rtol=1e-3)
    model.print()
    assert "least degree" in capsys.readouterr().out


@pytest.mark.parametrize("noise", [0.02, None])
def test_errors_are_the_same_in_all_units(noise):
    def growth(t, y):
        return [1 - 0.3 * y[0] - 0.2 * y[0] ** 2, 0.2 * y[0] ** 2 - 0.5 * y[1]]

    t, rng = np.linspace(0, 8, 41), np.random.default_rng(3)
    runs = [
        solve_ivp(growth, (0, 8), y0, t_eval=t, rtol=1e-10, atol=1e-12).y.T
        + (noise or 0.0) * rng.standard_normal((41, 2))
        for y0 in ([0, 0], [5, 1], [2, 6])
    ]
    relative = []
    for unit in ([1, 1], [1e-9, 1e-9], [1e5, 1e-4]):
        sd = noise and noise * np.array(unit)
        model = PolynomialODE(noise_std=sd).fit([y * unit for y in runs], t)
        kept = model.coef_ != 0
        relative.append(model.coef_std_[kept] / abs(model.coef_[kept]))
    np.testing.assert_allclose(relative[1:], [relative[0]] * 2, rtol=1e-3)


@pytest.mark.filterwarnings("ignore::sklearn_inverse.exceptions.IdentifiabilityWarning")
def test_a_channel_of_noise_costs_its_own_directions():
    t, rng, noise = np.linspace(0, 8, 41), np.random.default_rng(0), 0.02
    runs = [np.c_[oscillating(y0, t), 0 * t] for y0 in ([2, 1], [5, 3])]
    read = [y + noise * rng.standard_normal(y.shape) for y in runs]
    model = PolynomialODE(noise_std=noise).fit(read, t)
    blank = np.array(["y3" in name for name in model.feature_names_])
    assert not model.identifiable_[:, blank].any()
    assert model.identifiable_[:, [1, 2, 5]].all()  # y1, y2 and their product
    assert model.relations_ == ["y3 = 0"]
    assert np.argwhere(model.coef_).tolist() == [[0, 1], [0, 5], [1, 2], [1, 5]]
    # What never exceeds its noise says nothing, and no more.
    assert PolynomialODE(noise_std=20.0).fit(read, t).relations_ == []


@pytest.mark.filterwarnings("ignore::sklearn_inverse.exceptions.IdentifiabilityWarning")
def test_what_nine_repeats_see_moving_is_not_constant():
    t, rng = np.tile(np.linspace(0, 1, 20), 9), np.random.default_rng(0)
    value = 1 + 0.5 * t + 0.1 * rng.standard_normal(len(t))
    table = {"time": t, "observable": ["y"] * len(t), "value": value}
    assert PolynomialODE(1, noise_std=0.1).fit(table).relations_ == []


@pytest.mark.filterwarnings("ignore::sklearn_inverse.exceptions.IdentifiabilityWarning")
def test_no_term_is_less_than_its_error():
    t = np.linspace(0, 8, 41)
    read = oscillating([2, 1], t).round(5)
    model = PolynomialODE(threshold=1e-9).fit(read, t)
    kept = model.coef_ != 0
    assert (abs(model.coef_) >= model.coef_std_)[kept].all()


def test_what_is_told_of_rank_goes_with_the_noise_in_the_end():
    t, rng = np.arange(0, 20.1), np.random.default_rng(100)
    runs = [oscillating(y0, t) for y0 in ([2, 1], [5, 3])]
    noise = 0.02 * np.concatenate(runs).std(axis=0)
    read = [y + noise * rng.standard_normal(y.shape) for y in runs]
    estimated = PolynomialODE(noise_std="estimate").fit(read, t)
    stated = PolynomialODE(noise_std=estimated.noise_std_).fit(read, t)
    assert estimated.rank_ == stated.rank_ == 6
    assert not estimated.is_choice_


@pytest.mark.filterwarnings(
    "ignore::sklearn_inverse.exceptions.IdentifiabilityWarning",
    "ignore::sklearn_inverse.exceptions.MisfitWarning",
)
def test_few_points_conserve_nothing():
    t = np.linspace(0, 8, 41)
    run = oscillating([2, 1], t)
    assert PolynomialODE().fit(run[:2], t[:2]).relations_ == []
    run[1:, 0] = np.nan
    assert PolynomialODE().fit(run, t).relations_ == []


@pytest.mark.filterwarnings("ignore::sklearn_inverse.exceptions.IdentifiabilityWarning")
def test_sums_are_conserved_as_far_as_single_precision_tells(stiff):
    def decay(t, y):
        return [-y[0], y[0] - 0.5 * y[1], 0.5 * y[1]]

    t = np.linspace(0, 8, 41)
    runs = [stiff.solved(decay, y0, t) for y0 in ([1, 0, 0], [0.2, 0.5, 0.3])]
    model = PolynomialODE().fit([y.astype(np.float32) for y in runs], t)
    assert model.relations_ == ["y1 + y2 + y3 = 1"]
    assert model.equations_[1] == "y2' = y1 - 0.5*y2"


@pytest.mark.filterwarnings("ignore::sklearn_inverse.exceptions.IdentifiabilityWarning")
def test_a_state_that_is_always_zero_has_no_terms():
    t = np.linspace(0, 8, 41)
    model = PolynomialODE().fit(np.c_[oscillating([2, 1], t), 0 * t], t)
    assert model.equations_[2] == "y3' = 0"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn_inverse.exceptions.IdentifiabilityWarning")
def test_what_single_steps_do_not_tell_is_begun_from_longer_ones():
    """Fifteen years of hare and lynx, a quarter off: over a step nothing moves the hare."""
    data = load_lynx_hare()
    y, t = data.observations.reshape(21, 2), data.times
    model = PolynomialODE(noise_std=0.25 * y.mean(axis=0)).fit(y[:15], t[:15])
    assert np.argwhere(model.coef_).tolist() == [[0, 1], [0, 4], [1, 2], [1, 4]]


@pytest.fixture(scope="module")
def hires_runs(stiff):
    """Twenty runs of HIRES on an adaptive solver's own steps, and its coefficients."""

    def hires(t, y):
        bound = 280 * y[5] * y[7] - 1.81 * y[6]
        return [
            -1.71 * y[0] + 0.43 * y[1] + 8.32 * y[2] + 0.0007,
            1.71 * y[0] - 8.75 * y[1],
            -10.03 * y[2] + 0.43 * y[3] + 0.035 * y[4],
            8.32 * y[1] + 1.71 * y[2] - 1.12 * y[3],
            -1.745 * y[4] + 0.43 * y[5] + 0.43 * y[6],
            -280 * y[5] * y[7] + 0.69 * (y[3] + y[6]) + 1.71 * y[4] - 0.43 * y[5],
            bound,
            -bound,
        ]

    rng = np.random.default_rng(0)
    starts = rng.uniform(0, [1.5, 1, 1, 1, 1, 1, 1, 0.05], (20, 8))
    span, runs, times = (0, 321.8122), [], []
    for y0 in starts:
        own = solve_ivp(hires, span, y0, method="Radau", rtol=1e-4, atol=1e-8).t
        times.append(own)
        runs.append(stiff.solved(hires, y0, own))
    expected = [0.0007, -1.71, 0.43, 8.32, 1.71, -8.75, -10.03, 0.43, 0.035]
    expected += [8.32, 1.71, -1.12, -1.745, 0.43, 0.43, 0.69, 1.71, -0.43, 0.69, -280]
    expected += [-1.81, 280, 1.81, -280]
    return runs, times, expected


@pytest.mark.slow
def test_all_of_hires_is_found_from_twenty_starts(hires_runs):
    runs, times, expected = hires_runs
    model = PolynomialODE().fit(runs, times)
    assert np.count_nonzero(model.coef_) == 24
    np.testing.assert_allclose(model.coef_[model.coef_ != 0], expected, rtol=2e-4)
    assert model.relations_ == ["y7 + y8 is constant in each run"]


def test_noise_that_is_not_stated_is_told():
    t = np.linspace(0, 5, 101)
    clean = solve_ivp(
        lambda t, y: [1.5 * y[0] - y[0] * y[1], -3 * y[1] + y[0] * y[1]],
        (0, 5),
        [2, 1],
        t_eval=t,
        rtol=1e-10,
    ).y.T
    noisy = clean + 0.01 * np.random.default_rng(0).standard_normal(clean.shape)
    with pytest.warns(MisfitWarning, match="state `noise_std`"):
        PolynomialODE(degree=2).fit(noisy, t)
    assert PolynomialODE(degree=2).fit(clean, t).equations_[1] == "y2' = -3*y2 + y1*y2"


@pytest.mark.parametrize("rtol", [1e-6, 1e-8, 1e-12])
@pytest.mark.parametrize("method", ["RK45", "Radau"])
def test_the_error_of_a_solver_is_no_signal(method, rtol):
    """On a circle 1 - y1² - y2² is zero, but for that error."""
    times = np.linspace(0, 6, 41)
    options = {"method": method, "t_eval": times, "rtol": rtol, "atol": rtol}
    found = solve_ivp(lambda t, y: [y[1], -y[0]], (0, 6), [1, 0], **options)
    with pytest.warns(IdentifiabilityWarning, match="5 of 6 monomials"):
        model = PolynomialODE().fit(found.y.T, times)
    truth = np.array([[0, 0, 1, 0, 0, 0], [0, -1, 0, 0, 0, 0]])
    np.testing.assert_allclose(model.coef_, truth, atol=max(50 * rtol, 1e-6))
    if rtol < 1e-6:
        assert model.equations_ == ["y1' = y2", "y2' = -y1"]
        assert model.relations_ == ["1 - y1^2 - y2^2 = 0"]


def test_a_step_past_a_pole_is_none():
    """Along y' = y one of 10 shrinks, and one of 2 is what its stability function says."""
    shots = Shots.of([Run(np.arange(2.0), np.ones((2, 1)), np.ones((2, 1)))])
    a = METHODS["radau5"].a
    for z, is_step in ((2.0, True), (10.0, False)):
        rhs = RightHandSide(Monomials(["y1"], 1), np.array([[0, z]]))
        result = take_steps(rhs, a, shots)
        assert result.solved.tolist() == [is_step]
        if is_step:
            grown = (1 + 2 * z / 5 + z**2 / 20) / (
                1 - 3 * z / 5 + 3 * z**2 / 20 - z**3 / 60
            )
            assert result.ends.item() == pytest.approx(grown)


def test_another_fit_leaves_nothing_of_the_last_one():
    times = np.linspace(0, 3, 13)
    model = PolynomialODE(random_state=0).fit(np.exp(-times)[:, None], times)
    model.set_params(module="mlp", hidden_layer_sizes=(3,)).fit(
        np.exp(-times)[:, None], times
    )
    assert not hasattr(model, "coef_")


@pytest.mark.filterwarnings("ignore:The fit stopped before its end")
@pytest.mark.parametrize(
    "options",
    [
        {"module": "mlp", "hidden_layer_sizes": (4,)},
        {"module": "pi_net", "degree": 1, "max_iter": 30},
    ],
)
def test_a_net_estimates_noise_from_what_it_leaves(options):
    times, rng = np.linspace(0, 3, 41), np.random.default_rng(0)
    readings = 2 * np.exp(-1.5 * times) + 0.02 * rng.standard_normal(41)
    net = PolynomialODE(noise_std="estimate", random_state=0, **options)
    net.fit(readings[:, None], times)
    assert net.noise_std_[0] == pytest.approx(0.02, rel=0.3)


@pytest.mark.parametrize("seed", [0, 5])
def test_scatter_of_few_readings_is_not_taken_for_sure(seed):
    """Neighbors that are close by chance are no sign that equations are wrong."""
    times, rng = np.linspace(0, 3, 11), np.random.default_rng(seed)
    readings = 2 * np.exp(-1.5 * times) + 0.02 * rng.standard_normal(11)
    model = PolynomialODE(noise_std="estimate").fit(readings[:, None], times)
    assert model.equations_[0].endswith("*y1")


def test_a_system_does_not_pool_noise_that_differs_from_run_to_run():
    t = np.linspace(0, 2, 21)
    rng, sds = np.random.default_rng(0), (1e-3, 3e-2)
    runs = [np.exp(-t)[:, None] + sd * rng.standard_normal((21, 1)) for sd in sds]
    given = [np.array([sd]) for sd in sds]
    model = PolynomialODE(degree=1, noise_std=given).fit(runs, [t, t])
    with pytest.raises(ValueError, match="from run to run"):
        model.to_system()
    runs[0][3] = np.nan
    same = [np.full(21, 2e-2)] * 2  # one state: as trajectories may be given
    model = PolynomialODE(degree=1, noise_std=same).fit(runs, [t, t])
    assert model.to_system().noise is not None
    for wrong, message in (
        ([[0.1], [-0.1]], "Got -0.1 in run 1"),
        ([[[0.1], [0.1, 0.2]], [0.1]], "must be a list of positive arrays"),
    ):
        with pytest.raises(ValueError, match=message):
            PolynomialODE(degree=1, noise_std=wrong).fit(runs, [t, t])


@pytest.mark.parametrize("seed", range(6))
def test_the_prior_of_coefficients_is_symmetric_to_the_last_digit(seed):
    rng = np.random.default_rng(seed)
    mean = rng.uniform(0.2, 2, 4)
    half = rng.standard_normal((4, 4)) * [1e-3, 1e-5, 1e-7, 1e-9]
    model = SimpleNamespace(covariance_=half @ half.T, is_choice_=False)
    spread = _spread(model, mean, widen=10.0)
    assert np.array_equal(spread, spread.T)
    assert MultivariateNormal(mean, spread).size == 4


def test_a_mean_of_repeats_has_less_noise_than_a_reading(decays):
    t, (y, _), _ = decays
    rng, n_repeats = np.random.default_rng(0), 9
    read = y + 0.03 * rng.standard_normal((n_repeats, *y.shape))
    table = {
        "time": np.tile(np.repeat(t, 2), n_repeats),
        "observable": np.tile(["a", "b"], n_repeats * len(t)),
        "value": read.ravel(),
    }
    options = {"terms": {"a": ["a"], "b": ["a", "b"]}, "threshold": 0}
    once = PolynomialODE(1, noise_std=0.01, state_names=["a", "b"], **options)
    once.fit(read.mean(axis=0), t)
    for noise_std in (0.03, [[0.03, 0.03]]):
        model = PolynomialODE(1, noise_std=noise_std, **options).fit(table)
        np.testing.assert_allclose(model.coef_, once.coef_, rtol=1e-6)
        np.testing.assert_allclose(model.coef_std_, once.coef_std_, rtol=1e-6)
        scales = [kind.scale for kind in model.to_system().noise.kinds]
        assert scales == pytest.approx([0.01, 0.01])
    model = PolynomialODE(1, noise_std="estimate", **options).fit(table)
    np.testing.assert_allclose(model.noise_std_, 0.03, rtol=0.2)
    fewer = {name: column[:-40] for name, column in table.items()}
    model = PolynomialODE(1, noise_std=0.03, **options).fit(fewer)
    with pytest.raises(ValueError, match=r"`noise` must be given.*how many repeats"):
        model.to_system()


def test_scatter_is_in_units_of_the_noise_of_readings():
    rng, noise = np.random.default_rng(0), np.geomspace(0.1, 10, 4000)[:, None]
    run = Run(np.arange(4000.0), 0.3 * noise * rng.standard_normal((4000, 1)), noise)
    assert scatter([run]) == pytest.approx(0.3, rel=0.05)


def test_params_of_a_system_have_names_of_their_own():
    t = np.linspace(0, 1, 11)
    y = np.column_stack([1 - np.exp(-2 * t) / 2 + t**2 / 2, np.exp(-t), t])
    names = ["a", "b", "b_b"]
    terms = {"a": ["b^2", "b_b"], "b": ["b"], "b_b": ["1"]}
    model = PolynomialODE(2, terms=terms, threshold=0, state_names=names).fit(y, t)
    assert model.to_system(noise=0.1).param_names == [
        *("a_from_b_b", "a_from_b_b_2", "b_from_b", "b_b_from_1")
    ]


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_columns_of_frames_go_by_name(library, kaps_run):
    frame = pytest.importorskip(library).DataFrame
    y, t = kaps_run
    right = frame({"fast": y[:, 0], "slow": y[:, 1]})
    other = right[["slow", "fast"]]
    model = PolynomialODE().fit([right, other[:80]], [t, t[:80]])
    assert model.state_names_ == ["fast", "slow"]
    assert model.equations_[1] == "slow' = fast - slow - slow^2"
    assert model.score(other, t) == model.score(y, t) > 0.999
    start = model.simulate(other[:1], t[:3])
    np.testing.assert_array_equal(start, model.simulate(y[:1], t[:3]))
    named = PolynomialODE(state_names=["slow", "fast"]).fit(right, t)
    assert named.equations_ == ["slow' = -slow + fast - slow^2", model.equations_[0]]
    strange = frame({"fast": y[:, 0], "y2": y[:, 1]})
    for wrong in (
        lambda: model.score(strange, t),
        lambda: PolynomialODE().fit([right, strange], [t, t]),
        lambda: PolynomialODE(state_names=["a", "b"]).fit(right, t),
    ):
        with pytest.raises(
            ValueError, match="columns of data frames must be the states"
        ):
            wrong()


def test_a_score_says_that_the_data_are_wrong():
    model = PolynomialODE(1).fit(POINTS, GRID)
    with pytest.raises(ValueError, match=r"`trajectories` must .* Got 1 column"):
        model.score(POINTS[:, :1], GRID)
    table = {"time": GRID, "observable": ["a"] * 4, "value": GRID}
    with pytest.raises(ValueError, match=r"table must have readings .* but of \['a'\]"):
        model.score(table)
    with pytest.raises(ValueError, match="two readings"):
        model.score(POINTS[:2], GRID[:2])


def test_runs_may_be_objects_tensors_or_masked():
    runs, times = [POINTS, POINTS[:3]], [GRID, GRID[:3]]
    objects = np.array([*runs, None], dtype=object)[:2]
    model = PolynomialODE(1).fit(runs, times)
    tensors = [torch.tensor(y, requires_grad=True) for y in runs]
    masked = [np.ma.masked_equal(y, POINTS[3, 1]) for y in runs]
    for some in (objects, tensors):
        assert np.array_equal(PolynomialODE(1).fit(some, times).coef_, model.coef_)
    model = PolynomialODE(1).fit(tensors[0], torch.tensor(GRID, requires_grad=True))
    assert np.array_equal(model.coef_, PolynomialODE(1).fit(POINTS, GRID).coef_)
    for some in (masked, masked[0]):
        fitted = PolynomialODE(1).fit(some, times if some is masked else GRID)
        assert np.isnan(fitted.runs_[0].states).tolist() == 3 * [[False] * 2] + [
            [False, True]
        ]


def test_noise_of_repeats_goes_with_its_state():
    table = {
        "time": [0, 1, 2, 0, 1, 2, 0, 1, 2],
        "observable": ["a"] * 6 + ["b"] * 3,
        "value": np.arange(9.0),
    }
    (run,), names = as_runs(table, None, ["b", "a"])
    assert names == ["b", "a"]
    np.testing.assert_allclose(run.noise, [[1, np.sqrt(0.5)]] * 3)
