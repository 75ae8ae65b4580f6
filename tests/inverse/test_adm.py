"""ADM recovers a decay rate from two readings, says how sure it is, and is honest."""

import subprocess
import sys

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_inverse import ADMInverter, ODESimulator, ODESurrogate, ODESystem
from sklearn_inverse.exceptions import ConvergenceWarning, ExtrapolationWarning
from sklearn_inverse.utils._scaling import ParamScaler

TIMES = np.linspace(0.0, 2.0, 8)
NOISE = 0.02
BOX = [[0.5, 2.0]]


def decay(k):
    return np.exp(-np.reshape(k, (-1, 1)) * TIMES)


def draw(n_samples, seed):
    return np.random.default_rng(seed).uniform(0.5, 2.0, n_samples)


def read(k, n_observed, seed=3):
    """Noisy readings of a decay at a few random times, NaN elsewhere."""
    rng = np.random.default_rng(seed)
    readings = decay(k) + NOISE * rng.standard_normal((len(k), len(TIMES)))
    unseen = rng.random(readings.shape).argsort(axis=1) >= n_observed
    return np.where(unseen, np.nan, readings)


class ExactDecay(BaseEstimator):
    """Forward model in closed form, NaN above a unit param."""

    scaler_ = ParamScaler(BOX)
    n_times_, n_channels_, n_params_ = len(TIMES), 1, 1

    def __init__(self, fails_above=2.0):
        self.fails_above = fails_above

    def forward(self, unit_params):
        k = self.scaler_.to_physical_tensor(unit_params)
        trajectories = torch.exp(-k * torch.as_tensor(TIMES))[..., None]
        return trajectories.where(unit_params[..., None] <= self.fails_above, torch.nan)

    def simulate(self, params):
        return decay(params)[..., None]


class NoWayBack(torch.autograd.Function):
    """The identity, which cannot be differentiated."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise AssertionError("somebody differentiates through the forward model")


class ForwardOnly(ODESurrogate):
    """A surrogate whose backward pass raises."""

    def forward(self, unit_params):
        return NoWayBack.apply(super().forward(unit_params))


def small_surrogate(cls=ODESurrogate, **kwargs):
    options = {
        "width": 8,
        "n_layers": 1,
        "embedding": 16,
        "n_basis": 3,
        "basis_epochs": 30,
        "max_epochs": 2,
        "random_state": 0,
    }
    return cls(**options | kwargs)


def make_inverter(surrogate=None, **kwargs):
    """Return an inverter that trains in a fraction of a second, and badly."""
    options = {
        "noise_std": NOISE,
        "n_observed": 2,
        "n_steps": 3,
        "width": 16,
        "n_blocks": 1,
        "lr": 3e-3,
        "batch_size": 64,
        "max_epochs": 2,
        "random_state": 0,
    }
    return ADMInverter(surrogate or ExactDecay(), **options | kwargs)


PARAMS = draw(1500, seed=0)
TRAJECTORIES = decay(PARAMS)
NEW_PARAMS = draw(1000, seed=1)
READINGS = read(NEW_PARAMS, n_observed=2)
FEW = slice(0, 300)


@pytest.fixture(scope="module")
def surrogate():
    return small_surrogate(basis_epochs=100).fit(TRAJECTORIES, PARAMS)


@pytest.fixture(scope="module")
def trained(surrogate):
    return make_inverter(
        FrozenEstimator(surrogate),
        n_steps=5,
        width=64,
        max_epochs=60,
        batch_size=128,
        validation_fraction=0.3,
    ).fit(TRAJECTORIES, PARAMS)


@pytest.fixture(scope="module")
def tiny():
    return make_inverter().fit(TRAJECTORIES[FEW], PARAMS[FEW])


def two_channels(params):
    """Amplitude and rate of a decay, seen as it is and a billion times as large."""
    amplitude, k = params.T[..., None]
    u = amplitude * np.exp(-k * TIMES)
    return np.stack([u, 1e9 * u**2], axis=2)


PAIRS_2D = np.random.default_rng(5).uniform([1.0, 0.5], [2.0, 2.0], size=(400, 2))
TRAJECTORIES_2D = two_channels(PAIRS_2D)
READINGS_2D = np.where(np.isin(range(8), [2, 5])[:, None], TRAJECTORIES_2D, np.nan)


@pytest.fixture(scope="module")
def tiny_2d():
    surrogate = small_surrogate(n_channels=2)
    return make_inverter(surrogate, n_channels=2, noise_std=[NOISE, 1e7]).fit(
        TRAJECTORIES_2D, PAIRS_2D
    )


# --- what it recovers


def test_rate_is_recovered_from_two_noisy_readings(trained):
    assert trained.score(READINGS, NEW_PARAMS) > 0.9


def test_intervals_cover_as_often_as_they_say(trained):
    draws = trained.sample(READINGS, 1000)
    low, high = np.quantile(draws, [0.05, 0.95], axis=1)
    covered = (low < NEW_PARAMS) & (high > NEW_PARAMS)
    assert 0.84 < covered.mean() < 0.96


def test_estimate_and_its_std_cover_as_often_as_they_say(trained):
    mean, std = trained.predict(READINGS, return_std=True)
    covered = np.abs(mean - NEW_PARAMS) < 1.645 * std
    assert 0.84 < covered.mean() < 0.97


def test_std_is_larger_where_readings_tell_less(trained):
    early, late = np.full((2, 1, len(TIMES)), np.nan)
    early[0, [0, 1]] = decay(1.0)[0, [0, 1]]
    late[0, [3, 4]] = decay(1.0)[0, [3, 4]]
    std = trained.predict(np.concatenate([early, late]), return_std=True)[1]
    assert std[0] > 1.2 * std[1]


def test_draws_agree_with_estimate_and_std(trained):
    mean, std = trained.predict(READINGS, return_std=True)
    draws = trained.sample(READINGS, n_draws=4000)
    ratio = draws.std(axis=1) / std
    assert np.abs(ratio - 1).mean() < 0.03
    assert np.abs(ratio - 1).max() < 0.3  # heavy tails, far below the box's middle
    assert np.abs(draws.mean(axis=1) - mean).mean() < 0.5 * std.mean()


def test_estimates_and_draws_stay_in_the_box(tiny):
    readings = np.vstack([np.full((1, 8), 50.0), np.full((1, 8), -50.0)])
    readings[:, 2:] = np.nan
    for params in (tiny.predict(readings), tiny.sample(readings)):
        assert ((params >= 0.5 - 1e-9) & (params <= 2.0 + 1e-9)).all()


def test_reconstruction_is_the_trajectory_at_the_estimate(trained, surrogate):
    trajectories = trained.reconstruct(READINGS)
    assert trajectories.shape == (1000, 8, 1)
    expected = surrogate.simulate(trained.predict(READINGS))
    np.testing.assert_array_equal(trajectories, expected)
    assert np.abs(trajectories[..., 0] - decay(NEW_PARAMS)).mean() < 0.05


def test_score_is_r2_averaged_over_params(tiny_2d):
    expected = r2_score(PAIRS_2D, tiny_2d.predict(READINGS_2D))
    flat = READINGS_2D.reshape(400, -1)
    assert tiny_2d.score(flat, PAIRS_2D) == pytest.approx(expected)


# --- shapes and patterns


def test_shapes_follow_the_params_seen_in_fit(tiny, tiny_2d):
    column = make_inverter().fit(TRAJECTORIES[FEW], PARAMS[FEW, None])
    readings_2d = READINGS_2D[:7]
    for inverter, readings, tail in [
        (tiny, READINGS[:7], ()),
        (column, READINGS[:7], (1,)),
        (tiny_2d, readings_2d, (2,)),
        (tiny_2d, readings_2d.reshape(7, -1), (2,)),
    ]:
        mean, std = inverter.predict(readings, return_std=True)
        assert mean.shape == std.shape == (7, *tail)
        assert (std > 0).all()
        assert inverter.predict(readings).shape == (7, *tail)
        assert inverter.sample(readings, n_draws=5).shape == (7, 5, *tail)
        assert inverter.sample(readings, n_draws=1).shape == (7, 1, *tail)
        assert inverter.reconstruct(readings).shape == (7, 8, inverter.n_channels_)
    np.testing.assert_array_equal(
        column.predict(READINGS)[:, 0], tiny.predict(READINGS)
    )


def test_sizes_and_settings_are_remembered(tiny_2d):
    sizes = tiny_2d.n_times_, tiny_2d.n_channels_, tiny_2d.n_params_
    assert sizes == (8, 2, 2)
    assert tiny_2d.n_features_in_ == 16
    assert tiny_2d.n_iter_ == len(tiny_2d.net_.history) == 2
    assert tiny_2d.calibration_.shape == (2,)


def test_spread_is_calibrated_only_on_enough_held_out_pairs(tiny):
    assert tiny.calibration_ != 1.0
    few = make_inverter(validation_fraction=0.01).fit(TRAJECTORIES[FEW], PARAMS[FEW])
    assert few.calibration_ == 1.0


@pytest.mark.filterwarnings("ignore::sklearn_inverse.exceptions.ExtrapolationWarning")
def test_any_pattern_of_missing_readings_is_answered(tiny_2d):
    rng = np.random.default_rng(0)
    readings = TRAJECTORIES_2D[:200].reshape(200, -1).copy()
    readings[rng.random(readings.shape) > rng.random((200, 1))] = np.nan
    readings = readings[~np.isnan(readings).all(axis=1)]
    assert len(readings) > 150
    mean, std = tiny_2d.predict(readings, return_std=True)
    assert np.isfinite(mean).all()
    assert np.isfinite(std).all()


def test_more_readings_than_trained_for_are_thinned_with_a_warning(tiny):
    message = "1 of 2 samples are observed at more than the 2 times that this"
    readings = np.vstack([decay(1.0), READINGS[:1]])
    with pytest.warns(ExtrapolationWarning, match=message) as record:
        answer = tiny.predict(readings)
    assert len(record) == 1
    ends = np.full((1, 8), np.nan)
    ends[0, [0, -1]] = decay(1.0)[0, [0, -1]]
    np.testing.assert_array_equal(answer[:1], tiny.predict(ends))


# --- the forward model is only ever evaluated


def test_nothing_differentiates_through_the_surrogate():
    inverter = make_inverter(small_surrogate(ForwardOnly), rollout=True)
    inverter.fit(TRAJECTORIES[FEW], PARAMS[FEW])
    assert np.isfinite(inverter.predict(READINGS)).all()
    assert isinstance(inverter.surrogate_, ForwardOnly)
    unit = torch.tensor([[0.5]], requires_grad=True)
    with pytest.raises(
        AssertionError, match="differentiates through the forward model"
    ):
        inverter.surrogate_.forward(unit).sum().backward()


def test_training_leaves_the_surrogate_as_it_is(surrogate):
    before = {n: w.clone() for n, w in surrogate.net_.module_.state_dict().items()}
    inverter = make_inverter(FrozenEstimator(surrogate))
    inverter.fit(TRAJECTORIES[FEW], PARAMS[FEW]).predict(READINGS)
    assert inverter.surrogate_.estimator is surrogate
    for name, weight in surrogate.net_.module_.state_dict().items():
        assert torch.equal(weight, before[name])


def test_two_inverters_share_one_frozen_surrogate(surrogate):
    first, second = (
        make_inverter(FrozenEstimator(surrogate), random_state=seed).fit(
            TRAJECTORIES[FEW], PARAMS[FEW]
        )
        for seed in (0, 1)
    )
    assert first.surrogate_.estimator is second.surrogate_.estimator is surrogate


def test_a_surrogate_that_is_not_frozen_is_cloned_and_fitted(surrogate):
    inverter = make_inverter(surrogate).fit(TRAJECTORIES[FEW], PARAMS[FEW])
    assert inverter.surrogate_ is not surrogate
    assert inverter.surrogate is surrogate
    unfitted = small_surrogate()
    make_inverter(unfitted).fit(TRAJECTORIES[FEW], PARAMS[FEW])
    assert not hasattr(unfitted, "net_")


def decay_rhs(t, y, params):
    return -params * y


def test_the_simulator_itself_is_a_forward_model():
    system = ODESystem(decay_rhs, initial_state=[1.0], bounds=BOX, times=TIMES)
    inverter = make_inverter(ODESimulator(system), max_epochs=1, batch_size=30)
    inverter.fit(TRAJECTORIES[FEW], PARAMS[FEW])
    estimates = inverter.predict(READINGS[:20])
    trajectories = inverter.reconstruct(READINGS[:20])
    np.testing.assert_allclose(trajectories[..., 0], decay(estimates), rtol=1e-5)


@pytest.mark.parametrize("fails_above", [0.5, -1.0])
def test_particles_whose_simulation_fails_harm_nobody(fails_above):
    inverter = make_inverter(ExactDecay(fails_above)).fit(TRAJECTORIES, PARAMS)
    mean, std = inverter.predict(READINGS, return_std=True)
    assert np.isfinite(mean).all()
    assert np.isfinite(std).all()


def test_the_default_forward_model_is_a_surrogate(monkeypatch):
    class Quick(ODESurrogate):
        def fit(self, observations, params):
            self.set_params(max_epochs=1, basis_epochs=2, width=4)
            return super().fit(observations, params)

    monkeypatch.setattr("sklearn_inverse.inverse._adm.ODESurrogate", Quick)
    inverter = ADMInverter(max_epochs=1, bounds=[[0.1, 10.0]], scale="log10", width=8)
    inverter.fit(TRAJECTORIES[FEW], PARAMS[FEW])
    np.testing.assert_array_equal(inverter.surrogate_.scaler_.bounds, [[0.1, 10.0]])
    assert inverter.surrogate_.scaler_ == inverter.scaler_


# --- how it trains


@pytest.mark.parametrize(
    "options",
    [
        {"coupling": "batch"},
        {"coupling": "batch", "normalize": False},
        {"coupling": "instance", "normalize": False, "n_coupled": 4},
        {"rollout": False},
        {"rollout": False, "coupling": "batch", "normalize": False},
        {"loss": "l1"},
        {"synthetic": 0.0},
        {"n_particles": 3},
        {"n_blocks": 0, "n_steps": 1},
        {"n_observed": (1, 8)},
        {"n_observed": None, "noise_std": None},
        {"patience": 1},
    ],
    ids=str,
)
def test_every_option_trains(options):
    inverter = make_inverter(**options).fit(TRAJECTORIES[FEW], PARAMS[FEW])
    mean, std = inverter.predict(READINGS, return_std=True)
    assert np.isfinite(mean).all()
    assert np.isfinite(std).all()
    assert np.isfinite(inverter.net_.history[:, "train_loss"]).all()


def test_only_the_channels_named_are_read_in_training():
    kwargs = {"n_channels": 2, "noise_std": None, "n_observed": None}
    inverter = make_inverter(small_surrogate(n_channels=2), observed_channels=[0])
    inverter.set_params(**kwargs).fit(TRAJECTORIES_2D, PAIRS_2D)
    readings = TRAJECTORIES_2D.copy()
    readings[:, :, 1] = np.nan
    assert np.isfinite(inverter.predict(readings)).all()


def test_bounds_narrower_than_those_of_the_surrogate_and_another_scale(surrogate):
    inside = (PARAMS > 0.8) & (PARAMS < 1.6)
    inverter = make_inverter(
        FrozenEstimator(surrogate),
        bounds=[[0.8, 1.6]],
        scale="log10",
        n_observed=None,
        noise_std=None,
        max_epochs=20,
    ).fit(TRAJECTORIES[inside], PARAMS[inside])
    between = (NEW_PARAMS > 0.8) & (NEW_PARAMS < 1.6)
    estimates = inverter.predict(decay(NEW_PARAMS[between]))
    assert r2_score(NEW_PARAMS[between], estimates) > 0.9
    draws = inverter.sample(READINGS[:5])
    assert ((draws > 0.8 - 1e-9) & (draws < 1.6 + 1e-9)).all()
    unit = torch.rand(9, 1)
    np.testing.assert_allclose(
        surrogate.scaler_.to_physical(inverter._to_forward_box(unit).double().numpy()),
        inverter.scaler_.to_physical(unit.double().numpy()),
        rtol=1e-6,
    )


def test_gaps_in_the_training_trajectories_are_bridged():
    gaps = TRAJECTORIES.copy()
    gaps[np.random.default_rng(3).random(gaps.shape) < 0.2] = np.nan
    inverter = make_inverter(max_epochs=20, n_observed=None).fit(gaps, PARAMS)
    assert inverter.score(decay(NEW_PARAMS), NEW_PARAMS) > 0.8


@pytest.mark.parametrize("at", ["on_epoch_begin", "on_batch_end"])
def test_an_interrupted_fit_leaves_a_usable_inverter(press_ctrl_c, at):
    inverter = make_inverter(max_epochs=50, callbacks=[press_ctrl_c(epoch=2, at=at)])
    with pytest.warns(ConvergenceWarning, match="interrupted after 2 of 50 epochs"):
        inverter.fit(TRAJECTORIES, PARAMS)
    assert inverter.n_iter_ == 2
    assert not inverter.net_.module_.training
    mean, std = inverter.predict(READINGS, return_std=True)
    assert np.isfinite(mean).all()
    assert np.isfinite(std).all()


def test_interrupting_the_surrogate_leaves_a_usable_inverter(press_ctrl_c):
    surrogate = small_surrogate(callbacks=[press_ctrl_c(epoch=1)])
    inverter = make_inverter(surrogate)
    with pytest.warns(ConvergenceWarning, match="Training operator was interrupted"):
        inverter.fit(TRAJECTORIES[FEW], PARAMS[FEW])
    assert inverter.surrogate_.n_iter_ == 1
    assert np.isfinite(inverter.predict(READINGS)).all()


def test_verbose_shows_a_bar_for_every_stage(capsys):
    inverter = make_inverter(small_surrogate(verbose=1), verbose=1)
    inverter.fit(TRAJECTORIES[FEW], PARAMS[FEW]).predict(READINGS)
    out, err = capsys.readouterr()
    for stage in ("Training operator", "Training drift", "Drifting"):
        assert f"{stage}: 100%" in err
    assert out == ""


def test_nothing_is_shown_unless_asked_for(capsys):
    inverter = make_inverter(patience=1).fit(TRAJECTORIES[FEW], PARAMS[FEW])
    inverter.predict(READINGS)
    assert capsys.readouterr() == ("", "")


# --- the same again


def assert_same_answers(first, second, readings=READINGS):
    for a, b in zip(
        first.predict(readings, return_std=True),
        second.predict(readings, return_std=True),
    ):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(first.sample(readings, 3), second.sample(readings, 3))


def test_same_random_state_gives_identical_answers():
    first, second = (
        make_inverter(small_surrogate(), rollout=rollout).fit(
            TRAJECTORIES[FEW], PARAMS[FEW]
        )
        for rollout in (True, True)
    )
    assert_same_answers(first, second)
    assert_same_answers(first, first)
    assert_same_answers(first, first.fit(TRAJECTORIES[FEW], PARAMS[FEW]))
    other = make_inverter(small_surrogate(), random_state=1)
    other.fit(TRAJECTORIES[FEW], PARAMS[FEW])
    assert not np.allclose(first.predict(READINGS), other.predict(READINGS))


def test_global_generators_are_left_alone():
    before = torch.get_rng_state(), np.random.mtrand._rand.get_state()[1].copy()
    make_inverter().fit(TRAJECTORIES[FEW], PARAMS[FEW]).sample(READINGS)
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.mtrand._rand.get_state()[1], before[1])


def test_samples_answered_together_or_one_by_one_are_identical(trained, tiny_2d):
    for inverter, readings in [(trained, READINGS), (tiny_2d, READINGS_2D)]:
        mean, std = inverter.predict(readings, return_std=True)
        draws = inverter.sample(readings, 4)
        for i in [0, 1, 60, 127, 128, 199]:  # in two chunks
            one = readings[i : i + 1]
            one_mean, one_std = inverter.predict(one, return_std=True)
            np.testing.assert_array_equal(one_mean[0], mean[i])
            np.testing.assert_array_equal(one_std[0], std[i])
            np.testing.assert_array_equal(inverter.sample(one, 4)[0], draws[i])


# --- as an estimator among others


def test_behind_a_scaler_in_a_pipeline():
    inverter = make_inverter(small_surrogate(), noise_std=None, max_epochs=25)
    pipeline = make_pipeline(StandardScaler(), inverter).fit(TRAJECTORIES, PARAMS)
    readings = np.where(np.isnan(READINGS), np.nan, decay(NEW_PARAMS))
    assert pipeline.score(readings, NEW_PARAMS) > 0.5
    mean, std = pipeline.predict(readings, return_std=True)
    assert mean.shape == std.shape == (1000,)


def test_a_surrogate_fills_readings_in_within_a_pipeline(surrogate):
    inverter = make_inverter(n_observed=None, max_epochs=10)
    pipeline = make_pipeline(FrozenEstimator(surrogate), inverter)
    assert pipeline.fit(TRAJECTORIES, PARAMS).predict(READINGS).shape == (1000,)


def test_grid_search_over_steps_shares_one_surrogate(surrogate):
    search = GridSearchCV(
        make_inverter(FrozenEstimator(surrogate), n_observed=None),
        {"n_steps": [1, 3]},
        cv=2,
        error_score="raise",
    ).fit(TRAJECTORIES[FEW], PARAMS[FEW])
    assert search.best_estimator_.surrogate_.estimator is surrogate
    assert search.best_params_["n_steps"] in (1, 3)


def test_grid_search_reaches_into_the_surrogate():
    search = GridSearchCV(
        make_inverter(small_surrogate(), n_observed=None, bounds=BOX),
        {"surrogate__n_modes": [1, 3]},
        cv=2,
        error_score="raise",
    ).fit(TRAJECTORIES[FEW], PARAMS[FEW])
    modes = search.best_params_["surrogate__n_modes"]
    assert search.best_estimator_.surrogate_.n_modes == modes
    real = search.best_estimator_.surrogate_.net_.module_.blocks[0].spectral.real
    assert len(real) == modes


def test_cross_validation_gives_the_same_scores_for_any_n_jobs(surrogate):
    inverter = make_inverter(FrozenEstimator(surrogate), n_observed=None)
    alone, spread = (
        cross_val_score(inverter, TRAJECTORIES[FEW], PARAMS[FEW], cv=2, n_jobs=n_jobs)
        for n_jobs in (1, 2)
    )
    assert np.isfinite(alone).all()
    np.testing.assert_array_equal(alone, spread)


def test_a_clone_has_the_same_settings_and_no_memory(trained):
    copy = clone(trained)
    assert copy.get_params(deep=False) == trained.get_params(deep=False)
    with pytest.raises(NotFittedError, match="This ADMInverter instance is not fitted"):
        copy.predict(READINGS)


def test_a_dumped_inverter_predicts_identically_in_a_fresh_process(trained, tmp_path):
    joblib.dump((trained, READINGS), tmp_path / "inverter.joblib")
    code = (
        "import sys, joblib\n"
        "inverter, readings = joblib.load(sys.argv[1] + '/inverter.joblib')\n"
        "answers = inverter.predict(readings, return_std=True)\n"
        "answers = *answers, inverter.sample(readings, 3), inverter.reconstruct(readings)\n"
        "joblib.dump(answers, sys.argv[1] + '/answers.joblib')\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code, tmp_path], check=True)
    expected = (
        *trained.predict(READINGS, return_std=True),
        trained.sample(READINGS, 3),
        trained.reconstruct(READINGS),
    )
    for a, b in zip(joblib.load(tmp_path / "answers.joblib"), expected):
        np.testing.assert_array_equal(a, b)


# --- what it refuses


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise_std": -0.1}, "The 'noise_std' parameter of ADMInverter must be"),
        (
            {"noise_std": [-0.1]},
            "`noise_std` must be finite and >= 0. Got -0.1 instead",
        ),
        (
            {"noise_std": np.ones(TRAJECTORIES.shape)},
            "`noise_std` must be a float, one",
        ),
        ({"bounds": [[2.0, 0.5]]}, "Every lower bound must be below its upper bound"),
        (
            {"bounds": [0.5, 2.0]},
            r"`bounds` must have shape \(n_params, 2\) = \(1, 2\)",
        ),
        ({"bounds": [[0.5, 2], [0, 1]]}, r"= \(1, 2\): .* Got shape \(2, 2\) instead"),
        ({"bounds": [[0.5, 1.0]]}, "Every param must lie within its bounds"),
        ({"bounds": [[0.0, 2.0]], "scale": "log10"}, "must have positive bounds"),
        ({"scale": "cubic"}, "The 'scale' parameter of ADMInverter must be"),
        ({"n_observed": 0}, "`n_observed` must be an int or a"),
        ({"n_observed": 9}, "1 <= low <= high <= n_times=8. Got 9 instead"),
        ({"n_observed": (3, 2)}, r"Got \(3, 2\) instead"),
        ({"observed_channels": [1]}, r"indices of the 1 channels, .* Got \[1\]"),
        ({"observed_channels": ["u"]}, r"1 channels, at least one. Got \['u'\]"),
        ({"observed_channels": []}, "`observed_channels` must hold indices"),
        ({"n_channels": 3}, "a multiple of n_channels=3. Got 8 columns instead"),
        ({"device": "tpu9"}, "`device` must be 'auto', 'cpu', 'cuda' or"),
        ({"device": "cuda:99"}, "a GPU that is not there"),
        ({"coupling": "loose"}, "The 'coupling' parameter of ADMInverter must be"),
        ({"n_steps": 0}, "The 'n_steps' parameter of ADMInverter must be"),
    ],
)
def test_wrong_settings_are_refused_by_fit(options, message):
    with pytest.raises(ValueError, match=message):
        make_inverter(**options).fit(TRAJECTORIES, PARAMS)


BAD_READINGS = [
    (np.ones((2, 9)), "X has 9 features, but ADMInverter is expecting 8 features"),
    (np.ones((2, 2, 4)), "3-D observations must have n_channels=1 entries"),
    (np.vstack([np.ones(8), np.full(8, np.nan)]), "NaN in 1 sample.*first at row 1"),
    (np.full((1, 8), np.inf), "Input X contains infinity"),
    (np.full((1, 8), -np.inf), "Input X contains infinity"),
    (np.full((1, 8), 1j), "Complex data not supported"),
    ([["a"] * 8], "could not convert string to float"),
    (np.ones(8), "Expected 2D array, got 1D array instead"),
]


@pytest.mark.parametrize(("readings", "message"), BAD_READINGS)
@pytest.mark.parametrize("method", ["predict", "sample", "reconstruct"])
def test_wrong_readings_are_refused(tiny, method, readings, message):
    with pytest.raises(ValueError, match=message):
        getattr(tiny, method)(readings)


@pytest.mark.parametrize(
    ("observations", "params", "message"),
    [
        (TRAJECTORIES, PARAMS[:-1], "same number of samples. Got 1500 and 1499"),
        (TRAJECTORIES, np.where(PARAMS > 1.9, np.nan, PARAMS), "params contains NaN"),
        (TRAJECTORIES, None, "requires y to be passed, but the target y is None"),
        (TRAJECTORIES + np.inf, PARAMS, "Input X contains infinity"),
        (TRAJECTORIES + 1j, PARAMS, "Complex data not supported"),
        ([["a"] * 8] * 1500, PARAMS, "could not convert string to float"),
        (np.full_like(TRAJECTORIES, np.nan), PARAMS, "Every sample needs at least one"),
        (TRAJECTORIES[:1], PARAMS[:1], "a minimum of 2 is required"),
    ],
)
def test_wrong_training_pairs_are_refused(observations, params, message):
    with pytest.raises(ValueError, match=message):
        make_inverter().fit(observations, params)


def test_a_surrogate_of_other_sizes_is_refused(surrogate):
    message = r"The forward model has \(8, 1, 1\), the pairs have \(4, 1, 1\)"
    with pytest.raises(ValueError, match=message):
        make_inverter(FrozenEstimator(surrogate)).fit(TRAJECTORIES[:, ::2], PARAMS)


@pytest.mark.parametrize("method", ["predict", "sample", "reconstruct"])
def test_an_inverter_answers_only_after_fit(method):
    with pytest.raises(NotFittedError, match="This ADMInverter instance is not fitted"):
        getattr(make_inverter(), method)(READINGS)


def test_what_is_no_forward_model_is_refused():
    with pytest.raises(ValueError, match="implementing 'forward' and 'simulate'"):
        ADMInverter(surrogate=3).fit(TRAJECTORIES[FEW], PARAMS[FEW])
