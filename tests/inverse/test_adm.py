"""ADM recovers a decay rate from two readings, says how sure it is, and is honest."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pytest
import torch
from scipy.stats import kstest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_inverse import (
    ADMInverter,
    Design,
    ForwardFunction,
    ODESurrogate,
    ODESystem,
    Operator,
    Training,
)
from sklearn_inverse.exceptions import (
    ConvergenceWarning,
    ExtrapolationWarning,
    IntegrationWarning,
    MisfitWarning,
)
from sklearn_inverse.probability import (
    GaussianProcess,
    HalfNormal,
    JointPrior,
    LogNormal,
    Poisson,
)

TIMES = np.linspace(0.0, 2.0, 8)
NOISE = 0.02
BOX = {"k": (0.5, 2.0)}
# Toy nets answer badly, and rightly say that readings are not explained.
pytestmark = pytest.mark.filterwarnings(
    "ignore::sklearn_inverse.exceptions.MisfitWarning"
)


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


def exact_decay(params=BOX, noise=NOISE, fails_above=9.0):
    """Forward model in closed form, NaN above a rate."""

    def function(k):
        trajectories = torch.exp(-k[:, :1] * torch.as_tensor(TIMES))
        return trajectories.where(k[:, :1] <= fails_above, torch.nan)

    return ForwardFunction(function, params, noise=noise)


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

    def forward(self, scaled_params):
        return NoWayBack.apply(super().forward(scaled_params))


def small_surrogate(cls=ODESurrogate, max_epochs=2, callbacks=None, **kwargs):
    options = {
        "noise": NOISE,
        "network": Operator(width=8, n_layers=1, embedding=16),
        "n_basis": 3,
        "basis_epochs": 30,
        "training": Training(max_epochs=max_epochs, callbacks=callbacks),
        "random_state": 0,
    }
    return cls(**options | kwargs)


def make_inverter(model=None, n_observed=2, training=None, **kwargs):
    """Return an inverter that trains in a fraction of a second, and badly."""
    options = {
        "design": Design(n_observed),
        "training": Training(
            **{"lr": 3e-3, "batch_size": 64, "max_epochs": 2} | (training or {})
        ),
        "kind": "learned",  # what is a search's is in test_amortized
        "n_steps": 3,
        "width": 16,
        "n_blocks": 1,
        "random_state": 0,
    }
    return ADMInverter(model or exact_decay(), **options | kwargs)


PARAMS = draw(800, seed=0)
TRAJECTORIES = decay(PARAMS)
NEW_PARAMS = draw(300, seed=1)
READINGS = read(NEW_PARAMS, n_observed=2)
FEW = slice(0, 300)
FEW_PAIRS = TRAJECTORIES[FEW], PARAMS[FEW]


@pytest.fixture(scope="module")
def surrogate():
    return small_surrogate(basis_epochs=100, params=BOX).fit(TRAJECTORIES, PARAMS)


@pytest.fixture(scope="module")
def trained(surrogate):
    return make_inverter(
        FrozenEstimator(surrogate),
        n_steps=5,
        width=64,
        training={"max_epochs": 60, "batch_size": 128, "validation_fraction": 0.3},
    ).fit(TRAJECTORIES, PARAMS)


@pytest.fixture(scope="module")
def tiny():
    return make_inverter().fit(*FEW_PAIRS)


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
    surrogate = small_surrogate(n_channels=2, noise=[NOISE, 1e7])
    return make_inverter(surrogate).fit(TRAJECTORIES_2D, PAIRS_2D)


# --- what it recovers


def test_rate_is_recovered_from_two_noisy_readings(trained):
    assert trained.score(READINGS, NEW_PARAMS) > 0.9


def test_intervals_cover_as_often_as_they_say(trained):
    posterior = trained.posterior(READINGS)
    draws = trained.sample(READINGS, 1000)
    mean, std = (a[:, 0] for a in (posterior.mean, posterior.std))
    for low, high in (
        np.quantile(draws, [0.05, 0.95], axis=1),
        [end[:, 0] for end in posterior.interval(0.9)],
        (mean - 1.645 * std, mean + 1.645 * std),
    ):
        covered = (low < NEW_PARAMS) & (high > NEW_PARAMS)
        assert 0.84 < covered.mean() < 0.97
    assert np.abs(draws.std(axis=1) / std - 1).mean() < 0.05
    assert np.abs(draws.mean(axis=1) - mean).mean() < 0.5 * std.mean()


def test_std_is_larger_where_readings_tell_less(trained):
    early, late = np.full((2, 1, len(TIMES)), np.nan)
    early[0, [0, 1]] = decay(1.0)[0, [0, 1]]
    late[0, [3, 4]] = decay(1.0)[0, [3, 4]]
    std = trained.predict(np.concatenate([early, late]), return_std=True)[1]
    assert std[0] > 1.2 * std[1]


@pytest.mark.filterwarnings("ignore::sklearn_inverse.exceptions.ExtrapolationWarning")
def test_estimates_and_draws_stay_in_the_prior_s_support(tiny):
    readings = np.vstack([np.full((1, 8), 50.0), np.full((1, 8), -50.0)])
    readings[:, 2:] = np.nan
    for params in (tiny.predict(readings), tiny.sample(readings)):
        assert ((params >= 0.5 - 1e-9) & (params <= 2.0 + 1e-9)).all()


def test_reconstruction_is_the_trajectory_at_the_estimate(trained, surrogate):
    trajectories = trained.reconstruct(READINGS)
    assert trajectories.shape == (300, 8, 1)
    expected = surrogate.simulate(trained.predict(READINGS))
    np.testing.assert_allclose(trajectories, expected, rtol=1e-6)
    assert np.abs(trajectories[..., 0] - decay(NEW_PARAMS)).mean() < 0.05


def test_score_is_r2_averaged_over_params(tiny_2d):
    expected = r2_score(PAIRS_2D, tiny_2d.predict(READINGS_2D))
    flat = READINGS_2D.reshape(400, -1)
    assert tiny_2d.score(flat, PAIRS_2D) == pytest.approx(expected)


def test_params_are_called_as_the_columns_of_the_pairs(frame):
    pairs = frame({"amplitude": PAIRS_2D[:, 0], "rate": PAIRS_2D[:, 1]})
    inverter = make_inverter(small_surrogate(n_channels=2, noise=[NOISE, 1e7]))
    inverter.fit(TRAJECTORIES_2D, pairs)
    assert inverter.posterior(READINGS_2D[:1]).names == ["amplitude", "rate"]
    score = inverter.score(READINGS_2D, PAIRS_2D)
    assert inverter.score(READINGS_2D, pairs[["rate", "amplitude"]]) == score


# --- prior and noise are the model's


@pytest.mark.parametrize(
    "prior", [LogNormal(1.0, 0.5), HalfNormal(1.0), GaussianProcess([0.0, 1.0], 1.0)]
)
def test_readings_that_tell_nothing_leave_the_prior(prior):
    model = exact_decay({"k": prior}, noise=1e4)
    joint = JointPrior({"k": prior})
    params = joint.draw(600, np.random.RandomState(0))
    trajectories = model.fit(None).simulate(params)
    training = {"max_epochs": 60, "validation_fraction": 0.4}
    inverter = make_inverter(model, training=training, n_steps=1)
    inverter.fit(trajectories, params)
    readings = 1e4 * np.random.default_rng(1).standard_normal((40, 8))
    readings[:, 2:] = np.nan
    draws = inverter.sample(readings, 500).reshape(-1, joint.n_params)
    for column, marginal in zip(draws.T, joint.marginals):
        z = JointPrior({"k": marginal}).to_standard(column[:, None])[:, 0]
        assert kstest(z, "norm").statistic < 0.1
    if joint.n_params > 1:
        expected = joint.draw(4000, np.random.RandomState(1))
        off = np.corrcoef(draws.T)[0, 1] - np.corrcoef(expected.T)[0, 1]
        assert abs(off) < 0.1


def test_noise_that_is_a_param_is_estimated_like_any_other():
    model = exact_decay({"k": (0.5, 2.0), "sigma": (0.01, 0.5)}, noise="sigma")
    rng = np.random.default_rng(0)
    params = np.c_[rng.uniform(0.5, 2.0, 1000), rng.uniform(0.01, 0.5, 1000)]
    inverter = make_inverter(
        model, n_observed=8, training={"max_epochs": 50, "batch_size": 128}, width=64
    ).fit(decay(params[:, 0]), params)
    truth = params[:300]
    noise = truth[:, 1:] * rng.standard_normal((300, 8))
    estimate = inverter.predict(decay(truth[:, 0]) + noise)
    scores = r2_score(truth, estimate, multioutput="raw_values")
    assert (scores > [0.4, 0.6]).all()
    assert inverter.posterior(TRAJECTORIES[:1]).about["noise_is_estimated"]


def test_counts_are_learned_from_trajectories_that_are_none():
    def function(k):
        return 100 * torch.exp(-k * torch.as_tensor(TIMES))

    model = ForwardFunction(function, BOX, noise=Poisson())
    inverter = make_inverter(model, training={"max_epochs": 40}, width=32)
    inverter.fit(100 * TRAJECTORIES, PARAMS)
    counts = np.random.default_rng(0).poisson(100 * decay(NEW_PARAMS)).astype(float)
    counts[:, [0, 1, 3, 4, 5, 6]] = np.nan
    assert inverter.score(counts, NEW_PARAMS) > 0.6
    with pytest.raises(ValueError, match="counts must be whole numbers"):
        inverter.predict(counts + 0.5)


def test_readings_unlike_all_that_was_learned_are_said_to_be_so(trained):
    usual = trained.posterior(READINGS)
    assert usual.explained.mean() > 0.9
    assert (usual.misfit[usual.explained] < 20).all()
    strange = READINGS[:3].copy()
    strange[2, ~np.isnan(strange[2])] = [3.0, -3.0]
    message = (
        r"explain the readings of 1 of 3 samples \(rows 2\); those found mean little"
    )
    with pytest.warns(MisfitWarning, match=message):
        posterior = trained.posterior(strange)
    assert posterior.explained.tolist() == [True, True, False]


def test_ordinary_readings_are_explained_even_if_few_were_held_out():
    training = {"max_epochs": 60, "batch_size": 128}
    inverter = make_inverter(n_steps=5, width=64, training=training)
    inverter.fit(TRAJECTORIES, PARAMS)  # 80 held out
    ordinary = read(draw(4000, seed=7), n_observed=2)
    assert inverter.posterior(ordinary).explained.mean() > 0.99


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
        assert inverter.sample(readings, n_draws=1).shape == (7, 1, *tail)
        assert inverter.reconstruct(readings).shape == (7, 8, inverter.n_channels_)
    np.testing.assert_array_equal(
        column.predict(READINGS)[:, 0], tiny.predict(READINGS)
    )
    assert (tiny_2d.n_times_, tiny_2d.n_channels_, tiny_2d.n_params_) == (8, 2, 2)
    assert tiny_2d.n_features_in_ == 16
    assert tiny_2d.n_iter_ == len(tiny_2d.net_.history) == 2


def test_a_report_says_where_the_answer_is_from(tiny):
    posterior = tiny.posterior(READINGS[:2])
    assert posterior.n_forward.tolist() == [4, 4]
    text = str(posterior[0])
    assert "learned" in text
    assert "normal, sd 0.02" in text


def test_spread_is_calibrated_only_on_enough_held_out_pairs(tiny):
    assert tiny.calibration_ != 1.0
    few = make_inverter(training={"validation_fraction": 0.01}).fit(*FEW_PAIRS)
    assert few.calibration_ == 1.0


@pytest.mark.filterwarnings("ignore::sklearn_inverse.exceptions.ExtrapolationWarning")
def test_any_pattern_of_missing_readings_is_answered(tiny_2d):
    rng = np.random.default_rng(0)
    readings = TRAJECTORIES_2D[:200].reshape(200, -1).copy()
    readings[rng.random(readings.shape) > rng.random((200, 1))] = np.nan
    readings = readings[~np.isnan(readings).all(axis=1)]
    assert len(readings) > 150
    for answer in tiny_2d.predict(readings, return_std=True):
        assert np.isfinite(answer).all()


def test_more_readings_than_trained_for_are_thinned_with_a_warning(trained):
    message = "1 of 2 samples, the first in row 0, are read in a denser pattern than"
    readings = np.vstack([decay(1.0), READINGS[:1]])
    with pytest.warns(ExtrapolationWarning, match=message):
        answer = trained.predict(readings)
    ends = np.full((1, 8), np.nan)
    ends[0, [0, -1]] = decay(1.0)[0, [0, -1]]
    np.testing.assert_array_equal(answer[:1], trained.predict(ends))


# --- the forward model is only ever evaluated


def test_nothing_differentiates_through_the_surrogate():
    inverter = make_inverter(small_surrogate(ForwardOnly)).fit(*FEW_PAIRS)
    assert np.isfinite(inverter.predict(READINGS)).all()
    scaled = torch.tensor([[0.5]], requires_grad=True)
    with pytest.raises(
        AssertionError, match="differentiates through the forward model"
    ):
        inverter.model_.forward(scaled).sum().backward()


def test_a_frozen_surrogate_is_shared_as_it_is(surrogate):
    before = {n: w.clone() for n, w in surrogate.net_.module_.state_dict().items()}
    inverter = make_inverter(FrozenEstimator(surrogate)).fit(*FEW_PAIRS)
    assert inverter.model_ is surrogate
    for name, weight in surrogate.net_.module_.state_dict().items():
        assert torch.equal(weight, before[name])
    inverter = make_inverter(surrogate).fit(*FEW_PAIRS)
    assert inverter.model_ is not surrogate


def test_a_system_stands_for_its_exact_simulator():
    def rhs(t, y, p):
        return -p.k * y.left

    system = ODESystem(rhs, states={"left": 1.0}, params=BOX, times=TIMES, noise=NOISE)
    inverter = make_inverter(system, training={"max_epochs": 1}, n_steps=1)
    inverter.fit(TRAJECTORIES[:40], PARAMS[:40])
    estimates = inverter.predict(READINGS[:20])
    trajectories = inverter.reconstruct(READINGS[:20])
    np.testing.assert_allclose(trajectories[..., 0], decay(estimates), rtol=1e-5)


@pytest.mark.parametrize("fails_above", [1.2, 0.1])
def test_particles_whose_simulation_fails_harm_nobody(fails_above):
    inverter = make_inverter(exact_decay(fails_above=fails_above)).fit(*FEW_PAIRS)
    with pytest.warns(IntegrationWarning, match=r"these were dropped\.$"):
        answers = inverter.predict(READINGS, return_std=True)
    for answer in answers:
        assert np.isfinite(answer).all()


# --- how it trains


@pytest.mark.filterwarnings("ignore::sklearn_inverse.exceptions.ExtrapolationWarning")
@pytest.mark.parametrize(
    "options",
    [
        {"rollout": False},
        {"synthetic_fraction": 0.0},
        {"n_particles": 3},
        {"n_blocks": 0, "n_steps": 1},
        {"gain": 1.0},
        {"n_observed": (1, 8)},
        {"n_observed": None, "model": exact_decay(noise=None)},
        {"design": Design(3, observables=["c1"])},
        {"training": {"patience": 1}},
    ],
    ids=lambda options: "-".join(map(str, options)),
)
def test_every_option_trains_and_matters(options, tiny):
    inverter = make_inverter(**options).fit(*FEW_PAIRS)
    mean, std = inverter.predict(READINGS, return_std=True)
    assert np.isfinite(mean).all()
    assert np.isfinite(std).all()
    if "training" not in options:
        assert not np.allclose(mean, tiny.predict(READINGS))


def test_gaps_in_the_training_trajectories_are_bridged():
    gaps = TRAJECTORIES.copy()
    gaps[np.random.default_rng(3).random(gaps.shape) < 0.2] = np.nan
    inverter = make_inverter(n_observed=None, training={"max_epochs": 20})
    inverter.fit(gaps, PARAMS)
    assert inverter.score(decay(NEW_PARAMS), NEW_PARAMS) > 0.8


def test_pairs_that_never_read_one_observable_train_all_the_same():
    half = TRAJECTORIES_2D.copy()
    half[:, :, 1] = np.nan
    inverter = make_inverter(small_surrogate(n_channels=2, noise=[NOISE, 1e7]))
    inverter.fit(half, PAIRS_2D)
    readings = READINGS_2D.copy()
    with pytest.raises(ValueError, match="trained on every observable that is read"):
        inverter.predict(readings)
    readings[:, :, 1] = np.nan
    assert np.isfinite(inverter.predict(readings)).all()


@pytest.mark.parametrize("at", ["on_epoch_begin", "on_batch_end"])
def test_an_interrupted_fit_leaves_a_usable_inverter(press_ctrl_c, at):
    callbacks = [press_ctrl_c(epoch=2, at=at)]
    inverter = make_inverter(training={"max_epochs": 50, "callbacks": callbacks})
    with pytest.warns(ConvergenceWarning, match="interrupted after 2 of 50 epochs"):
        inverter.fit(TRAJECTORIES, PARAMS)
    assert inverter.n_iter_ == 2
    assert np.isfinite(inverter.predict(READINGS)).all()


def test_interrupting_the_surrogate_ends_it_all(press_ctrl_c):
    inverter = make_inverter(small_surrogate(callbacks=[press_ctrl_c(epoch=1)]))
    with (
        pytest.warns(ConvergenceWarning, match="Training operator was interrupted"),
        pytest.raises(KeyboardInterrupt),
    ):
        inverter.fit(*FEW_PAIRS)
    with pytest.raises(NotFittedError):
        inverter.predict(READINGS)


def test_training_that_diverges_is_an_error():
    inverter = make_inverter(training={"lr": 1e6, "max_epochs": 9})
    with pytest.raises(ValueError, match="Training drift diverged"):
        inverter.fit(*FEW_PAIRS)


def test_readings_that_overflow_single_precision_are_warned_of(tiny):
    huge = np.where(np.isnan(READINGS[:1]), np.nan, 1e150)
    with pytest.warns(ExtrapolationWarning, match="2 readings lie farther"):
        assert np.isfinite(tiny.predict(huge)).all()


def test_progress_is_shown_only_where_asked_for(capsys):
    make_inverter(training={"patience": 1}).fit(*FEW_PAIRS).predict(READINGS)
    assert capsys.readouterr() == ("", "")
    inverter = make_inverter(small_surrogate(verbose=1), verbose=1).fit(*FEW_PAIRS)
    inverter.predict(READINGS)
    out, err = capsys.readouterr()
    for stage in ("Training operator", "Training drift", "Drifting"):
        assert f"{stage}: 100%" in err
    assert out == ""


# --- the same again


def assert_same_answers(first, second):
    for a, b in zip(
        first.predict(READINGS, return_std=True),
        second.predict(READINGS, return_std=True),
    ):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(first.sample(READINGS, 3), second.sample(READINGS, 3))


def test_same_random_state_gives_identical_answers_and_leaves_generators_alone():
    before = torch.get_rng_state(), np.random.mtrand._rand.get_state()[1].copy()
    first, second = (make_inverter(small_surrogate()).fit(*FEW_PAIRS) for _ in range(2))
    assert_same_answers(first, second)
    assert_same_answers(first, first)
    assert_same_answers(first, second.fit(*FEW_PAIRS))
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.mtrand._rand.get_state()[1], before[1])
    other = make_inverter(small_surrogate(), random_state=1).fit(*FEW_PAIRS)
    assert not np.allclose(first.predict(READINGS), other.predict(READINGS))


def test_fits_in_threads_give_what_each_gives_alone(tiny):
    with ThreadPoolExecutor(3) as pool:
        fits = pool.map(lambda _: make_inverter().fit(*FEW_PAIRS), range(6))
        for inverter in fits:
            assert_same_answers(inverter, tiny)


@pytest.mark.parametrize("width", [8, 16])
def test_samples_answered_together_one_by_one_or_reordered_are_identical(width):
    inverter = make_inverter(small_surrogate(), width=width).fit(*FEW_PAIRS)
    mean, std = inverter.predict(READINGS, return_std=True)
    draws = inverter.sample(READINGS, 4)
    order = np.random.default_rng(0).permutation(300)
    np.testing.assert_array_equal(inverter.predict(READINGS[order]), mean[order])
    for i in [0, 60, 127, 128, 199]:  # in two chunks
        one = READINGS[i : i + 1]
        one_mean, one_std = inverter.predict(one, return_std=True)
        np.testing.assert_array_equal(one_mean[0], mean[i])
        np.testing.assert_array_equal(one_std[0], std[i])
        np.testing.assert_array_equal(inverter.sample(one, 4)[0], draws[i])


# --- as an estimator among others


@pytest.mark.filterwarnings("ignore::sklearn_inverse.exceptions.ExtrapolationWarning")
def test_behind_a_scaler_and_a_surrogate_that_fills_readings_in(surrogate):
    few = make_inverter(small_surrogate(noise=None), training={"max_epochs": 10})
    readings = np.where(np.isnan(READINGS), np.nan, decay(NEW_PARAMS))
    for first in (StandardScaler(), FrozenEstimator(surrogate)):
        pipeline = make_pipeline(first, clone(few)).fit(TRAJECTORIES, PARAMS)
        mean, std = pipeline.predict(readings, return_std=True)
        assert mean.shape == std.shape == (300,)
        assert np.isfinite(mean).all()
        assert (std > 0).all()


def test_grid_search_reaches_into_model_and_options():
    search = GridSearchCV(
        make_inverter(small_surrogate(params=BOX), n_observed=None, training=None),
        {"model__network__n_modes": [1, 3], "training__max_epochs": [1]},
        cv=2,
        error_score="raise",
    ).fit(*FEW_PAIRS)
    best = search.best_estimator_
    modes = search.best_params_["model__network__n_modes"]
    assert len(best.model_.net_.module_.blocks[0].spectral.real) == modes
    assert best.n_iter_ == 1
    assert ADMInverter().set_params(design__n_observed=3).design.n_observed == 3


@pytest.mark.slow
def test_a_dumped_inverter_predicts_identically_in_a_fresh_process(trained, tmp_path):
    joblib.dump((trained, READINGS), tmp_path / "inverter.joblib")
    code = (
        "import sys, joblib\n"
        "inverter, readings = joblib.load(sys.argv[1] + '/inverter.joblib')\n"
        "answers = inverter.predict(readings, return_std=True)\n"
        "answers = *answers, inverter.sample(readings, 3), inverter.reconstruct(readings)\n"
        "joblib.dump(answers, sys.argv[1] + '/answers.joblib')\n"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True)
    expected = (
        *trained.predict(READINGS, return_std=True),
        trained.sample(READINGS, 3),
        trained.reconstruct(READINGS),
    )
    for a, b in zip(joblib.load(tmp_path / "answers.joblib"), expected):
        np.testing.assert_array_equal(a, b)


def test_a_clone_has_the_same_settings_and_no_memory(trained):
    copy = clone(trained)
    assert repr(copy) == repr(trained)
    for method in ("predict", "sample", "reconstruct", "posterior"):
        with pytest.raises(NotFittedError, match="This ADMInverter instance is not"):
            getattr(copy, method)(READINGS)


# --- what it refuses


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_observed": 0}, "`n_observed` must be an int or a"),
        ({"n_observed": 9}, "1 <= low <= high <= n_times=8. Got 9 instead"),
        ({"n_observed": (3, 2)}, r"Got \(3, 2\) instead"),
        ({"design": Design(observables=["u"])}, r"observables \['c1'\], at least one"),
        ({"device": "tpu9"}, "`device` must be 'auto', 'cpu', 'cuda' or"),
        ({"device": "cuda:99"}, "a GPU that is not there"),
        ({"training": {"lr": -1.0}}, "The 'lr' parameter of Training must be"),
        ({"n_steps": 0}, "The 'n_steps' parameter of ADMInverter must be"),
        ({"model": exact_decay({"k": (0.5, 1.0)})}, "(?i)param"),
    ],
)
def test_wrong_settings_are_refused_by_fit(options, message):
    with pytest.raises(ValueError, match=message):
        make_inverter(**options).fit(TRAJECTORIES, PARAMS)


def test_what_is_no_forward_model_is_refused():
    with pytest.raises(TypeError, match="`model` must be a system"):
        ADMInverter(model=3).fit(*FEW_PAIRS)


def test_noise_of_other_readings_is_refused(tiny):
    with pytest.raises(
        ValueError, match="answers for the noise that it was trained for"
    ):
        tiny.predict(READINGS, noise_std=0.1)


@pytest.mark.parametrize(
    ("readings", "message"),
    [
        (np.ones((2, 9)), "X has 9 features, but ADMInverter is expecting 8 features"),
        (
            np.vstack([np.ones(8), np.full(8, np.nan)]),
            "NaN in 1 sample.*first at row 1",
        ),
        (np.full((1, 8), -np.inf), "Input X contains infinity"),
    ],
)
def test_wrong_readings_are_refused(tiny, readings, message):
    with pytest.raises(ValueError, match=message):
        tiny.predict(readings)


@pytest.mark.parametrize(
    ("observations", "params", "message"),
    [
        (TRAJECTORIES, PARAMS[:-1], "same number of samples. Got 800 and 799"),
        (TRAJECTORIES, np.where(PARAMS > 1.9, np.nan, PARAMS), "params contains NaN"),
        (TRAJECTORIES, None, "requires y to be passed, but the target y is None"),
        (np.full_like(TRAJECTORIES, np.nan), PARAMS, "Every sample needs at least one"),
        (TRAJECTORIES[:1], PARAMS[:1], "a minimum of 2 is required"),
        (TRAJECTORIES[:, ::2], PARAMS, r"has \(8, 1, 1\), the data have \(4, 1, 1\)"),
    ],
)
def test_wrong_training_pairs_are_refused(observations, params, message):
    with pytest.raises(ValueError, match=message):
        make_inverter().fit(observations, params)
