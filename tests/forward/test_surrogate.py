"""The surrogate learns a family of decays in seconds, and behaves like an estimator."""

import subprocess
import sys

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback

from sklearn_inverse import ODESurrogate
from sklearn_inverse.exceptions import ConvergenceWarning, ExtrapolationWarning
from sklearn_inverse.networks._batches import ShuffledBatches, split_held_out
from sklearn_inverse.utils._torch import spawn_seeds

TIMES = np.linspace(0.0, 2.0, 12)


def decay(k, times=TIMES):
    """Something decays, and what it turns into is measured in units of 1e-18."""
    left = np.exp(-np.asarray(k)[:, None] * times)
    return np.stack([left, 1e-18 * (1 - left)], axis=2)


def draw(n_samples, seed):
    return np.random.default_rng(seed).uniform(0.5, 2.0, n_samples)


def rmse_per_std(predicted, true):
    """Root mean square error per channel, in units of the channel's own spread."""
    return np.sqrt(((predicted - true) ** 2).mean(axis=(0, 1))) / true.std(axis=(0, 1))


def make_surrogate(**kwargs):
    """Return a surrogate that trains in a tenth of a second, and badly."""
    options = {
        "n_channels": 2,
        "width": 8,
        "n_layers": 1,
        "embedding": 16,
        "n_basis": 4,
        "basis_epochs": 5,
        "max_epochs": 2,
        "batch_size": 16,
        "random_state": 0,
    }
    return ODESurrogate(**options | kwargs)


def weights(surrogate):
    return {n: w.numpy() for n, w in surrogate.net_.module_.state_dict().items()}


def assert_same_weights(first, second):
    first, second = weights(first), weights(second)
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


PARAMS = draw(320, seed=0)
TRAJECTORIES = decay(PARAMS)
NEW_PARAMS = draw(150, seed=1)
NEW_TRAJECTORIES = decay(NEW_PARAMS)


@pytest.fixture(scope="module")
def trained():
    return make_surrogate(
        width=16,
        basis_epochs=150,
        max_epochs=40,
        lr=3e-3,
        n_observed=(1, 4),
        observation_dropout=0.2,
        params_dropout=0.6,
    ).fit(TRAJECTORIES, PARAMS)


@pytest.fixture(scope="module")
def tiny():
    return make_surrogate().fit(TRAJECTORIES, PARAMS)


@pytest.fixture(scope="module")
def sparse():
    """Two random readings of each new trajectory."""
    rng = np.random.default_rng(2)
    seen = np.full_like(NEW_TRAJECTORIES, np.nan)
    for row, truth in zip(seen, NEW_TRAJECTORIES):
        at = rng.choice(len(TIMES), size=2, replace=False)
        row[at] = truth[at]
    return seen


# --- what it learns


def test_new_decays_are_emulated_to_three_percent_whatever_their_size(trained):
    error = rmse_per_std(trained.simulate(NEW_PARAMS), NEW_TRAJECTORIES)
    assert (error < 0.03).all()


def test_readings_beside_the_params_do_no_harm(trained, sparse):
    error = rmse_per_std(trained.simulate(NEW_PARAMS, sparse), NEW_TRAJECTORIES)
    assert (error < 0.03).all()


def test_two_readings_halve_the_error_of_the_mean_trajectory(trained, sparse):
    filled = trained.transform(sparse.reshape(150, -1))
    assert filled.shape == (150, 24)
    error = rmse_per_std(filled.reshape(NEW_TRAJECTORIES.shape), NEW_TRAJECTORIES)
    mean_trajectory = TRAJECTORIES.mean(axis=0)
    assert (error < 0.5 * rmse_per_std(mean_trajectory, NEW_TRAJECTORIES)).all()


def test_error_is_that_of_the_held_out_pairs_in_units_of_the_channels(trained):
    split_seed = spawn_seeds(trained.random_state, 4)[0]
    seen, held_out = split_held_out(320, trained.validation_fraction, split_seed)
    assert len(held_out) == 32
    assert not set(seen) & set(held_out)
    residual = trained.simulate(PARAMS[held_out]) - TRAJECTORIES[held_out]
    expected = np.sqrt((residual**2).mean(axis=(0, 1)))
    np.testing.assert_allclose(trained.error_, expected, rtol=1e-6)
    assert trained.error_[1] == pytest.approx(1e-18 * trained.error_[0], rel=0.2)


def test_an_uneven_grid_is_learned_as_well():
    times = np.array([0.0, 0.01, 0.02, 0.1, 0.5, 2.0])
    surrogate = make_surrogate(times=times, basis_epochs=150, max_epochs=5)
    surrogate.fit(decay(PARAMS, times), PARAMS)
    error = rmse_per_std(surrogate.simulate(NEW_PARAMS), decay(NEW_PARAMS, times))
    assert (error < 0.05).all()
    harmonics = surrogate.net_.module_.harmonics[:, 1]  # cos(π t / t_end)
    np.testing.assert_allclose(harmonics, np.cos(np.pi * times / 2), atol=1e-6)


def test_gaps_in_the_training_trajectories_are_bridged():
    gaps = TRAJECTORIES.copy()
    gaps[np.random.default_rng(3).random(gaps.shape) < 0.2] = np.nan
    surrogate = make_surrogate(basis_epochs=60, max_epochs=20, lr=5e-3)
    surrogate.fit(gaps, PARAMS)
    error = rmse_per_std(surrogate.simulate(NEW_PARAMS), NEW_TRAJECTORIES)
    assert (error < 0.1).all()
    scale = TRAJECTORIES.std(axis=(0, 1))
    np.testing.assert_allclose(surrogate.error_ / scale, error, rtol=0.5)


@pytest.mark.parametrize(
    "switches",
    [
        {"n_basis": 0},
        {"film": False, "attention": False},
        {"n_layers": 0},
        {"norm": "batch"},
        {"observation_dropout": 1.0},
        {"observation_dropout": 0.0, "params_dropout": 1.0},
        {"noise_std": [0.1, 1e-19], "n_observed": 3},
        {"scale": "log10", "bounds": [[0.1, 10.0]]},
    ],
    ids=str,
)
def test_every_switch_trains(switches, sparse):
    surrogate = make_surrogate(**switches).fit(TRAJECTORIES, PARAMS)
    assert np.isfinite(surrogate.error_).all()
    assert np.isfinite(surrogate.simulate(NEW_PARAMS, sparse)).all()


# --- how it answers


def test_shapes_follow_the_contract(tiny, sparse):
    assert tiny.simulate(NEW_PARAMS[:, None]).shape == (150, 12, 2)
    assert (tiny.n_times_, tiny.n_channels_, tiny.n_params_) == (12, 2, 1)
    assert tiny.n_features_in_ == 24
    assert tiny.error_.shape == (2,)
    np.testing.assert_array_equal(
        tiny.simulate(NEW_PARAMS), tiny.simulate(NEW_PARAMS[:, None])
    )
    np.testing.assert_array_equal(
        tiny.transform(sparse), tiny.transform(sparse.reshape(150, -1))
    )


def test_samples_answered_together_or_one_by_one_are_identical(tiny, sparse):
    at = [0, 1, 40, 127, 128, 149]  # in two chunks
    together = tiny.simulate(NEW_PARAMS)
    conditioned = tiny.simulate(NEW_PARAMS, sparse)
    filled = tiny.transform(sparse)
    for i in at:
        one = slice(i, i + 1)
        np.testing.assert_array_equal(tiny.simulate(NEW_PARAMS[one])[0], together[i])
        np.testing.assert_array_equal(
            tiny.simulate(NEW_PARAMS[one], sparse[one])[0], conditioned[i]
        )
        np.testing.assert_array_equal(tiny.transform(sparse[one])[0], filled[i])


def test_forward_is_simulate_from_the_unit_box(tiny):
    unit = torch.rand(7, 1, generator=torch.Generator().manual_seed(0))
    expected = tiny.simulate(tiny.scaler_.to_physical(unit.double().numpy()))
    off = (tiny.forward(unit).detach().numpy() - expected) / tiny.error_
    assert np.abs(off).max() < 1e-4


def test_forward_is_differentiable(trained):
    unit = torch.tensor([[0.3], [0.6]], requires_grad=True)
    slope = torch.autograd.grad(trained.forward(unit)[..., 0].sum(), unit)[0]
    k = trained.scaler_.to_physical(unit.detach().double().numpy())
    width = np.ptp(trained.scaler_.bounds)
    expected = (-TIMES * np.exp(-k * TIMES)).sum(axis=1) * width
    np.testing.assert_allclose(slope[:, 0], expected, rtol=0.1)


def test_params_outside_the_box_are_answered_with_a_warning(tiny):
    with pytest.warns(ExtrapolationWarning, match="1 of 2 samples have params outside"):
        assert np.isfinite(tiny.simulate([1.0, 3.0])).all()


# --- how it trains


def test_same_random_state_gives_identical_weights_and_predictions(tiny, sparse):
    again = make_surrogate().fit(TRAJECTORIES, PARAMS)
    assert_same_weights(tiny, again)
    np.testing.assert_array_equal(tiny.transform(sparse), again.transform(sparse))
    other = make_surrogate(random_state=1).fit(TRAJECTORIES, PARAMS)
    assert not np.allclose(tiny.transform(sparse), other.transform(sparse))


def test_training_leaves_global_generators_alone():
    before = torch.get_rng_state(), np.random.mtrand._rand.get_state()[1].copy()
    make_surrogate().fit(TRAJECTORIES, PARAMS)
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.mtrand._rand.get_state()[1], before[1])


def test_warm_start_goes_on_from_the_last_fit():
    surrogate = make_surrogate(warm_start=True, basis_epochs=20, max_epochs=5)
    surrogate.fit(TRAJECTORIES, PARAMS)
    before = surrogate.error_
    scaler, channel_scaler = surrogate.scaler_, surrogate.channel_scaler_
    inner = (PARAMS > 0.6) & (PARAMS < 1.9)
    surrogate.fit(TRAJECTORIES[inner], PARAMS[inner])
    assert (surrogate.error_ < 1.05 * before).all()
    assert surrogate.scaler_ is scaler
    assert surrogate.channel_scaler_ is channel_scaler
    surrogate.set_params(max_epochs=1, lr=1e-12)
    unmoved = surrogate.simulate(NEW_PARAMS)
    surrogate.fit(TRAJECTORIES, PARAMS)
    np.testing.assert_allclose(surrogate.simulate(NEW_PARAMS), unmoved, rtol=1e-4)


def test_without_warm_start_a_fit_forgets_the_last_one(tiny):
    surrogate = make_surrogate().fit(TRAJECTORIES[:50], PARAMS[:50])
    assert_same_weights(surrogate.fit(TRAJECTORIES, PARAMS), tiny)


@pytest.mark.parametrize(
    ("trajectories", "params", "message"),
    [
        (
            TRAJECTORIES[:, :6],
            PARAMS,
            "X has 12 features, but ODESurrogate is expecting",
        ),
        (
            TRAJECTORIES,
            np.c_[PARAMS, PARAMS],
            r"with n_params=1. Got \(320, 2\) instead",
        ),
        (TRAJECTORIES, 2 * PARAMS, "Every param must lie within its bounds"),
        (TRAJECTORIES.reshape(320, 8, 3), PARAMS, "must have n_channels=2 entries on"),
    ],
)
def test_warm_start_asks_for_pairs_like_the_last(tiny, trajectories, params, message):
    surrogate = clone(tiny).set_params(warm_start=True).fit(TRAJECTORIES, PARAMS)
    surrogate.set_params(n_channels=None)
    with pytest.raises(ValueError, match=message):
        surrogate.fit(trajectories, params)


@pytest.mark.parametrize("at", ["on_epoch_begin", "on_batch_end"])
@pytest.mark.parametrize("patience", [None, 5])
def test_an_interrupted_fit_leaves_a_usable_surrogate(press_ctrl_c, at, patience):
    surrogate = make_surrogate(
        max_epochs=50,
        basis_epochs=150,
        callbacks=[press_ctrl_c(epoch=2, at=at)],
        patience=patience,
    )
    with pytest.warns(ConvergenceWarning, match="interrupted after 2 of 50 epochs"):
        surrogate.fit(TRAJECTORIES, PARAMS)
    assert surrogate.n_iter_ == 2
    error = rmse_per_std(surrogate.simulate(NEW_PARAMS), NEW_TRAJECTORIES)
    assert (error < 0.1).all()
    assert np.isfinite(surrogate.error_).all()
    assert not surrogate.net_.module_.training


@pytest.mark.parametrize("patience", [None, 5])
def test_interrupting_the_direct_part_skips_the_operator(monkeypatch, patience):
    batches = ShuffledBatches.__iter__

    def press_ctrl_c(self):
        yield from batches(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(ShuffledBatches, "__iter__", press_ctrl_c)
    surrogate = make_surrogate(basis_epochs=50, patience=patience)
    with pytest.warns(ConvergenceWarning, match="skip was interrupted after 1 of 50"):
        surrogate.fit(TRAJECTORIES, PARAMS)
    assert surrogate.n_iter_ == 0
    assert np.isfinite(surrogate.error_).all()
    assert np.isfinite(surrogate.simulate(NEW_PARAMS)).all()


def test_patience_stops_training_that_no_longer_helps():
    surrogate = make_surrogate(patience=3, max_epochs=50, lr=1e-9)
    surrogate.fit(TRAJECTORIES, PARAMS)
    assert surrogate.n_iter_ < 10


class Listener(Callback):
    """Remember what was called."""

    def __init__(self, log):
        self.log = log

    def on_train_begin(self, net, **kwargs):
        self.log.append("begin")

    def on_epoch_end(self, net, **kwargs):
        self.log.append(sorted(k for k in net.history[-1] if k.endswith("loss")))

    def on_train_end(self, net, **kwargs):
        self.log.append("end")


def test_callbacks_hear_of_every_epoch_and_its_losses():
    log = []
    make_surrogate(callbacks=[Listener(log)]).fit(TRAJECTORIES, PARAMS)
    losses = ["train_loss", "valid_loss"]
    assert log == ["begin", losses, losses, "end"]


def test_verbose_shows_a_bar_of_epochs_with_losses(capsys):
    make_surrogate(verbose=1).fit(TRAJECTORIES, PARAMS)
    out, err = capsys.readouterr()
    assert "Training operator: 100%" in err
    assert "train_loss=" in err
    assert "valid_loss=" in err
    assert out == ""


def test_nothing_is_shown_unless_asked_for(capsys):
    make_surrogate(patience=1, max_epochs=20, lr=1e-9).fit(TRAJECTORIES, PARAMS)
    assert capsys.readouterr() == ("", "")


def test_history_holds_falling_losses(trained):
    train_loss = trained.net_.history[:, "train_loss"]
    assert len(train_loss) == trained.n_iter_ == 40
    assert train_loss[-1] < 0.5 * train_loss[0]


# --- as an estimator among others


def test_a_dumped_surrogate_predicts_identically_in_a_fresh_process(
    tiny, sparse, tmp_path
):
    joblib.dump((tiny, NEW_PARAMS, sparse), tmp_path / "surrogate.joblib")
    code = (
        "import sys, joblib\n"
        "surrogate, params, sparse = joblib.load(sys.argv[1] + '/surrogate.joblib')\n"
        "answers = surrogate.simulate(params, sparse), surrogate.transform(sparse)\n"
        "joblib.dump(answers, sys.argv[1] + '/answers.joblib')\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code, tmp_path], check=True)
    assert (
        joblib.load(tmp_path / "surrogate.joblib")[0].net_.history == tiny.net_.history
    )
    simulated, filled = joblib.load(tmp_path / "answers.joblib")
    np.testing.assert_array_equal(simulated, tiny.simulate(NEW_PARAMS, sparse))
    np.testing.assert_array_equal(filled, tiny.transform(sparse))


def test_a_clone_has_the_same_settings_and_no_memory(tiny):
    copy = clone(tiny)
    assert copy.get_params() == tiny.get_params()
    with pytest.raises(
        NotFittedError, match="This ODESurrogate instance is not fitted"
    ):
        copy.simulate(NEW_PARAMS)


def emulation_score(surrogate, trajectories, params):
    return -rmse_per_std(surrogate.simulate(params), trajectories).mean()


def test_grid_search_chooses_a_working_number_of_modes_and_basis():
    search = GridSearchCV(
        make_surrogate(basis_epochs=30, max_epochs=1, bounds=[[0.5, 2.0]]),
        {"n_modes": [2, 4], "n_basis": [0, 4]},
        scoring=emulation_score,
        cv=2,
        error_score="raise",
    ).fit(TRAJECTORIES, PARAMS)
    assert search.best_params_["n_basis"] == 4
    assert search.best_score_ > -0.5


# --- what it refuses


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"n_channels": 5}, "must have n_channels=5 entries on their last axis"),
        ({"bounds": [[2.0, 0.5]]}, "Every lower bound must be below its upper bound"),
        (
            {"bounds": [0.5, 2.0]},
            r"`bounds` must have shape \(n_params, 2\) = \(1, 2\)",
        ),
        ({"bounds": [[0.5, 1.0]]}, "Every param must lie within its bounds"),
        (
            {"scale": ["linear", "log10"]},
            "`scale` must be 'linear', 'log10', or a list",
        ),
        ({"times": [0.0, 1.0]}, r"`times` must have shape \(12,\)"),
        ({"times": np.zeros(12)}, "strictly increasing"),
        ({"noise_std": [0.1, -1.0]}, "`noise_std` must be finite and >= 0. Got -1.0"),
        ({"noise_std": -1.0}, "The 'noise_std' parameter of ODESurrogate must be"),
        ({"n_observed": 0}, "`n_observed` must be an int or a"),
        ({"n_observed": (1, 13)}, "1 <= low <= high <= n_times=12"),
        ({"device": "tpu9"}, "`device` must be 'auto', 'cpu'"),
        ({"device": "cuda:99"}, "a GPU that is not there"),
        ({"width": 0}, "The 'width' parameter of ODESurrogate must be an int in the"),
        ({"norm": "layer"}, "The 'norm' parameter of ODESurrogate must be"),
    ],
)
def test_wrong_settings_are_refused_by_fit(kwargs, message):
    with pytest.raises(ValueError, match=message):
        make_surrogate(**kwargs).fit(TRAJECTORIES, PARAMS)


def test_noise_of_every_single_reading_means_nothing_in_training():
    with pytest.raises(ValueError, match="`noise_std` must be a float, one value per"):
        make_surrogate(noise_std=np.ones(TRAJECTORIES.shape)).fit(TRAJECTORIES, PARAMS)


@pytest.mark.parametrize(
    ("params", "observations", "message"),
    [
        ([[1.0, 1.0]], None, r"with n_params=1. Got \(1, 2\) instead"),
        ([[np.nan]], None, "Input params contains NaN"),
        ([1.0], NEW_TRAJECTORIES[:2], "same number of samples. Got 2 and 1"),
        ([1.0], NEW_TRAJECTORIES[:1, :6], "X has 12 features, but ODESurrogate is exp"),
        (
            [1.0],
            np.full((1, 24), np.nan),
            "Every sample needs at least one observation",
        ),
        ([1.0], np.full((1, 24), np.inf), "Input X contains infinity"),
    ],
)
def test_wrong_questions_are_refused(tiny, params, observations, message):
    with pytest.raises(ValueError, match=message):
        tiny.simulate(params, observations)


def test_a_surrogate_answers_only_after_fit():
    for ask in (lambda s: s.simulate([1.0]), lambda s: s.transform(TRAJECTORIES)):
        with pytest.raises(NotFittedError):
            ask(make_surrogate())
