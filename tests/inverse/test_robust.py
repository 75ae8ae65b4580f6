"""What once went wrong at the edges: interrupts, singular curvature, odd readings."""

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sklearn_inverse import (
    CMAESInverter,
    GradientInverter,
    ODESimulator,
    ODESurrogate,
    ReactionSystem,
    RefinedInverter,
)
from sklearn_inverse.datasets import make_inverse_problem
from sklearn_inverse.exceptions import BoundsWarning
from sklearn_inverse.inverse import InversionStatus
from sklearn_inverse.inverse._gradient import growing_horizons
from sklearn_inverse.optim._lbfgs import lbfgs
from sklearn_inverse.optim._levenberg_marquardt import levenberg_marquardt
from sklearn_inverse.problems import lotka_volterra, pollu

TRUTH = np.array([1.5, 1.0, 3.0, 1.0])


@pytest.fixture(scope="module")
def ten_periods():
    """Return a simulator with many local optima, and exact readings of it."""
    pytest.importorskip("numba")
    system = ReactionSystem(
        ["X -> 2 X", "X + Y -> Y", "Y ->", "X + Y -> X + 2 Y"],
        initial_state={"X": 1.0, "Y": 1.0},
        nominal=TRUTH,
        bounds=[[0.01, 10.0]] * 4,
        scale="log10",
        times=np.linspace(0.0, 30.0, 301),
    )
    return ODESimulator(system), ODESimulator(system).simulate(TRUTH[None])


def fit_pairs(inverter, simulator):
    system = simulator.system
    params = np.stack([system.nominal, 0.9 * system.nominal + 0.1])
    return inverter.fit(simulator.simulate(params), params)


def press_at(monkeypatch, owner, name, call):
    """Interrupt the ``call``-th call of a method."""
    method, calls = getattr(owner, name), []

    def press(*args, **kwargs):
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return method(*args, **kwargs)

    monkeypatch.setattr(owner, name, press)
    return calls


@pytest.mark.parametrize("optimizer", ["gauss_newton", "lbfgs"])
def test_a_param_that_nothing_tells_of_costs_no_other_sample(
    optimizer, decay, make_pairs
):
    readings, params = make_pairs(3, 0.01)
    readings[1, 1:] = np.nan  # the reading at time zero knows no rate
    inverter = GradientInverter(
        decay(), optimizer=optimizer, prior=None, noise_std=0.01, random_state=0
    ).fit(readings, params)
    mean, std = inverter.predict(readings, return_std=True)
    assert np.abs(mean - params)[[0, 2]].max() < 0.1
    assert std[1, 1] == pytest.approx(2.9)  # the whole box, no more
    assert (std[[0, 2]] < 0.2).all()
    assert np.isfinite(inverter.sample(readings, 5)).all()


@pytest.mark.filterwarnings("ignore::sklearn_inverse.exceptions.BoundsWarning")
@pytest.mark.filterwarnings("ignore::sklearn_inverse.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("prior", ["normal", None])
def test_covariances_are_positive_however_ill_conditioned(prior):
    pytest.importorskip("numba")
    pairs = make_inverse_problem(pollu(), 12, n_observed=3, random_state=0)
    inverter = GradientInverter(ODESimulator(pollu()), prior=prior, random_state=0)
    inverter.fit(pairs.trajectories, pairs.params)
    result = inverter.invert(pairs.observations)
    covariance = result.covariance
    np.testing.assert_array_equal(covariance, covariance.swapaxes(1, 2))
    assert (np.einsum("npp->np", covariance) > 0).all()
    assert np.isfinite(inverter.sample(pairs.observations, 3)).all()


@pytest.mark.filterwarnings("ignore::sklearn_inverse.exceptions.BoundsWarning")
def test_exact_readings_are_trusted_no_further_than_the_solver():
    pytest.importorskip("numba")
    system = lotka_volterra()
    pairs = make_inverse_problem(system, 20, random_state=0)
    inverter = GradientInverter(ODESimulator(system), random_state=0)
    inverter.fit(pairs.trajectories, pairs.params)
    other = ODESimulator(system, rtol=1e-10).simulate(pairs.params)
    mean, std = inverter.predict(other, return_std=True)
    assert (np.abs(mean - pairs.params) < 2 * std).all()


def test_threads_leave_the_attention_of_torch_as_it_was():
    k = np.linspace(0.5, 2.0, 40)[:, None]
    readings = np.exp(-k * np.linspace(0, 2, 9))
    surrogate = ODESurrogate(max_epochs=2, random_state=0).fit(readings, k)
    cuda = torch.backends.cuda
    before = cuda.flash_sdp_enabled(), cuda.math_sdp_enabled()
    GradientInverter(
        FrozenEstimator(surrogate),
        noise_std=0.05,
        chunk_size=4,
        n_jobs=2,
        random_state=0,
    ).fit(readings, k).predict(readings[5:35])
    assert (cuda.flash_sdp_enabled(), cuda.math_sdp_enabled()) == before


def test_ctrl_c_in_the_first_search_ends_the_refinement_too(
    decay, make_pairs, monkeypatch
):
    readings, params = make_pairs(6, 0.02)
    inner = CMAESInverter(decay(), noise_std=0.02, random_state=0)
    refined = RefinedInverter(inner, decay(), random_state=0).fit(readings, params)
    calls = press_at(monkeypatch, decay, "forward", 5)
    with pytest.warns(match="0 of 6 samples were inverted"):
        result = refined.invert(readings)
    assert (result.status == InversionStatus.INTERRUPTED).all()
    assert len(calls) < 9
    assert (result.n_readings == 8).all()


def test_ctrl_c_at_a_second_start_keeps_the_first(decay, make_pairs, monkeypatch):
    readings, params = make_pairs(6, 0.02)
    readings[3] = np.sin(9 * np.arange(8))[:, None]  # alone in need of a second
    inverter = GradientInverter(
        decay(), noise_std=0.02, n_starts=1, horizon="full", random_state=0
    ).fit(readings, params)
    with pytest.warns():
        once = inverter.invert(readings)
    calls = press_at(monkeypatch, decay, "linearize", 10**9)
    with pytest.warns():
        inverter.invert(readings)
    monkeypatch.undo()
    inverter.set_params(n_starts=2)
    press_at(monkeypatch, decay, "linearize", len(calls) + 1)
    with pytest.warns() as caught:
        result = inverter.invert(readings)
    assert any("5 of 6 samples were inverted to" in str(w.message) for w in caught)
    np.testing.assert_array_equal(result.params, once.params)


def test_ctrl_c_in_an_early_stage_makes_nothing_worse(ten_periods, monkeypatch):
    simulator, readings = ten_periods
    inverter = fit_pairs(
        GradientInverter(simulator, start="random", n_starts=1, random_state=7),
        simulator,
    )
    inverter.set_params(max_iter=2)
    with pytest.warns():
        once = inverter.invert(readings)
    calls = press_at(monkeypatch, ODESimulator, "linearize", 10**9)
    with pytest.warns():
        inverter.invert(readings)
    monkeypatch.undo()
    inverter.set_params(n_starts=2)
    press_at(monkeypatch, ODESimulator, "linearize", len(calls) + 2)
    with pytest.warns() as caught:
        result = inverter.invert(readings)
    assert any(str(w.message).startswith("Interrupted") for w in caught)
    assert result.misfit[0] <= once.misfit[0] * (1 + 1e-9)


def test_ctrl_c_is_not_mistaken_for_failure(decay, make_pairs, monkeypatch):
    readings, params = make_pairs(6, 0.02)
    inverter = GradientInverter(
        decay(fails_above=0.7),
        optimizer="adam",
        n_starts=20,
        noise_std=0.02,
        chunk_size=2,
        random_state=0,
    ).fit(readings, params)
    calls = press_at(monkeypatch, decay, "forward", 5)
    with pytest.warns() as caught:
        result = inverter.invert(readings)
    assert any(str(w.message).startswith("Interrupted") for w in caught)
    assert (result.status == InversionStatus.INTERRUPTED).all()
    assert len(calls) < 15


def test_a_sample_without_estimate_scores_as_the_mean_does(decay, make_pairs):
    readings, params = make_pairs(8, 0.01)
    model = decay(bounds=((0.5, 2.0), (0.1, 3.0)), fails_above=2.0)
    inverter = CMAESInverter(model, noise_std=0.01, random_state=0)
    inverter.fit(readings, params)
    good = inverter.score(readings, params)
    estimate = inverter.predict(readings)
    estimate[0] = np.nan
    inverter.predict = lambda observations: estimate
    assert 0.3 < inverter.score(readings, params) < good
    estimate[:] = np.nan
    assert inverter.score(readings, params) == pytest.approx(0)


def test_a_sample_takes_only_the_stages_that_tell_it_more(ten_periods):
    simulator, readings = ten_periods
    both = np.repeat(readings, 2, axis=0)
    both[0, 12:] = np.nan
    inverter = fit_pairs(
        GradientInverter(
            simulator, noise_std=0.05, max_iter=3, n_starts=1, random_state=0
        ),
        simulator,
    )
    with pytest.warns():
        alone, together = inverter.invert(both[:1]), inverter.invert(both)
    np.testing.assert_allclose(together.params[0], alone.params[0], rtol=1e-4)
    assert together.n_iter[0] == alone.n_iter[0]


def test_a_first_stage_holds_readings_enough(decay, make_pairs):
    readings, _ = make_pairs(1)
    readings = np.repeat(readings, 3, axis=2)
    readings[:, :3, 1:] = np.nan  # early times have one channel, later ones three
    model = decay()
    model.n_channels_ = 3
    inverter = GradientInverter(decay(), random_state=0).fit(*make_pairs(3))
    inverter.channel_scaler_.std = np.ones(3)
    objective = inverter._objective(readings, 0.1 + 0 * readings)
    first, _ = growing_horizons(objective, n_params=2)[0]
    assert first.n_readings.item() == 6  # four at least: three times have but three


def test_refinement_tries_a_growing_horizon_where_the_estimate_misleads(ten_periods):
    simulator, readings = ten_periods
    inner = GradientInverter(simulator, max_iter=1, n_starts=1, random_state=0)
    refined = fit_pairs(RefinedInverter(inner, simulator, random_state=0), simulator)
    result = refined.invert(readings)
    assert result.explained.all()
    np.testing.assert_allclose(result.params[0], TRUTH, rtol=1e-3)


def test_refinement_does_not_repeat_itself(decay, make_pairs, monkeypatch):
    readings, params = make_pairs(3, 0.02)
    inner = CMAESInverter(decay(), noise_std=0.02, random_state=0)
    refined = RefinedInverter(inner, decay(), random_state=0).fit(readings, params)
    few = readings.copy()
    few[:, 3:] = np.nan  # less than a first stage holds: there is but one
    few[:, 1] += 1.0
    calls = press_at(monkeypatch, decay, "linearize", 10**9)
    with pytest.warns():
        result = refined.invert(few)
    assert not result.explained.any()
    assert len(calls) <= result.n_iter.max() + 1


def test_a_pipeline_can_be_refined(decay, make_pairs):
    readings, params = make_pairs(4, 0.02)
    flat = FunctionTransformer(lambda r: r.reshape(len(r), -1))
    inner = make_pipeline(flat, CMAESInverter(decay(), noise_std=0.02, random_state=0))
    refined = RefinedInverter(inner, decay(), noise_std=0.02, random_state=0)
    assert refined.fit(readings, params).invert(readings).explained.all()


def test_a_model_needs_no_more_than_simulate_and_forward(decay, make_pairs):
    readings, params = make_pairs(4, 0.02)

    class Bare(decay):
        linearize = property()  # raises AttributeError

    found = [
        GradientInverter(model, bounds=box, noise_std=0.02, random_state=0)
        .fit(readings, params)
        .predict(readings)
        for box in (None, [[0.6, 1.9], [0.2, 2.9]])
        for model in (decay(), Bare())
    ]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-8)
    np.testing.assert_allclose(found[2], found[3], rtol=1e-8)


def test_a_channel_that_the_surrogate_never_saw_is_refused(decay, make_pairs):
    readings, params = make_pairs(4, 0.02)

    class Unseen(decay):
        error_ = np.array([np.nan])

    with pytest.raises(ValueError, match="trained on every channel that is read"):
        GradientInverter(Unseen(), random_state=0).fit(readings, params)


def test_draws_are_counted_in_whole_numbers(decay, make_pairs):
    readings, params = make_pairs(2, 0.02)
    inverter = GradientInverter(decay(), noise_std=0.02, random_state=0)
    inverter.fit(readings, params)
    for n_draws in (0, -1, 2.5):
        with pytest.raises(ValueError, match="`n_draws` must be an int >= 1"):
            inverter.sample(readings, n_draws)


def test_no_readings_at_all_are_refused(decay, make_pairs):
    readings, params = make_pairs(2, 0.02)
    inverter = GradientInverter(decay(), noise_std=0.02, random_state=0)
    inverter.fit(readings, params)
    with pytest.raises(ValueError, match="0 sample"):
        inverter.predict(readings[:0])


class Bowl:
    """Squared distance to a point, whose derivatives or values may fail."""

    def __init__(self, no_slope_above=9.0, grain=0.0):
        self.no_slope_above, self.grain = no_slope_above, grain

    def value(self, unit, sample):
        value = 50 * (unit - 0.8).square().sum(dim=1) + 1
        return (value / self.grain).round() * self.grain if self.grain else value

    def linearize(self, unit, sample):
        value = self.value(unit, sample)
        value = torch.where(unit[:, 0] > self.no_slope_above, torch.inf, value)
        return value, 100 * (unit - 0.8), 100 * torch.eye(2).double().expand(1, -1, -1)


def run(bowl, tol=1e-6):
    start = torch.full((1, 2), 0.3, dtype=torch.float64)
    return levenberg_marquardt(bowl, start, torch.zeros(1).long(), max_iter=60, tol=tol)


def test_a_step_to_where_there_are_no_derivatives_is_taken_back():
    end = run(Bowl(no_slope_above=0.6))
    assert end.unit[0, 0] <= 0.6
    assert end.value.isfinite().all()


def test_round_off_of_the_model_is_not_taken_for_a_stall():
    end = run(Bowl(grain=1e-3), tol=1e-5)
    assert end.status[0] == InversionStatus.CONVERGED
    assert (end.unit - 0.8).abs().max() < 0.01


def test_a_search_that_is_stuck_does_not_claim_to_have_converged():
    def cliff(x, rows):
        # The slope points over the edge of what can be computed.
        value = torch.where(x[:, 0] > 0, torch.inf, 10 - x[:, 1])
        gradient = torch.tensor([[-1e3, -1.0]], dtype=torch.float64)
        return value, gradient.expand(len(x), -1).clone()

    start = torch.zeros(1, 2, dtype=torch.float64)
    end = lbfgs(cliff, start, max_iter=50, tol=1e-8)
    assert end.status[0] in (InversionStatus.STALLED, InversionStatus.MAX_ITER)


@pytest.mark.filterwarnings(f"ignore::{BoundsWarning.__module__}.BoundsWarning")
def test_memory_of_one_pair_is_enough_for_a_bowl():
    def bowl(x, rows):
        return 50 * (x - 0.8).square().sum(dim=1), 100 * (x - 0.8)

    end = lbfgs(bowl, torch.zeros(1, 3).double(), max_iter=50, tol=1e-12, memory=1)
    assert (end.unit - 0.8).abs().max() < 1e-5
