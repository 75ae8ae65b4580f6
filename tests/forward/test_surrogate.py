"""The surrogate learns a family of decays in seconds, and behaves like an estimator."""

import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from copy import copy

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback

from sklearn_inverse import (
    Design,
    GradientInverter,
    ODESurrogate,
    ODESystem,
    Operator,
    Training,
)
from sklearn_inverse.datasets import make_inverse_problem
from sklearn_inverse.exceptions import (
    ConvergenceWarning,
    ExtrapolationWarning,
    MisfitWarning,
)
from sklearn_inverse.inspection import TrajectoryDisplay
from sklearn_inverse.networks._batches import split_held_out
from sklearn_inverse.networks._operator import NoiseError
from sklearn_inverse.networks._reading_net import EvenBatches
from sklearn_inverse.probability import LogNormal, Poisson
from sklearn_inverse.problems import fisher_kpp, poisson
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


def make_surrogate(system=None, training=None, network=None, **kwargs):
    """Return a surrogate that trains in a tenth of a second, and badly."""
    options = {
        "n_channels": None if system else 2,
        "n_basis": 4,
        "basis_epochs": 5,
        "network": Operator(
            **{"width": 8, "n_layers": 1, "embedding": 16} | (network or {})
        ),
        "training": Training(**{"max_epochs": 2, "batch_size": 16} | (training or {})),
        "random_state": 0,
    }
    return ODESurrogate(system, **options | kwargs)


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
def fitted():
    surrogate = make_surrogate(
        network={"width": 16, "observation_dropout": 0.2, "params_dropout": 0.6},
        training={"max_epochs": 40, "lr": 3e-3},
        basis_epochs=150,
        design=Design(n_observed=(1, 4)),
        noise=[1e-4, 1e-22],
    )
    with pytest.warns(
        MisfitWarning, match="error is not small beside the noise of c1 .*, c2 "
    ):
        return surrogate.fit(TRAJECTORIES, PARAMS)


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


def test_new_decays_are_emulated_to_three_percent_whatever_their_size(fitted, sparse):
    for readings in (None, sparse):
        simulated = fitted.simulate(NEW_PARAMS, readings)
        assert (rmse_per_std(simulated, NEW_TRAJECTORIES) < 0.03).all()


def test_two_readings_halve_the_error_of_the_mean_trajectory(fitted, sparse):
    filled = fitted.transform(sparse.reshape(150, -1))
    assert filled.shape == (150, 24)
    error = rmse_per_std(filled.reshape(NEW_TRAJECTORIES.shape), NEW_TRAJECTORIES)
    mean_trajectory = TRAJECTORIES.mean(axis=0)
    assert (error < 0.5 * rmse_per_std(mean_trajectory, NEW_TRAJECTORIES)).all()


def test_error_is_that_of_the_held_out_pairs_in_units_of_the_channels(fitted):
    split_seed = spawn_seeds(fitted.random_state, 5)[0]
    seen, held_out = split_held_out(320, 0.1, split_seed)
    assert len(held_out) == 32
    assert not set(seen) & set(held_out)
    residual = fitted.simulate(PARAMS[held_out]) - TRAJECTORIES[held_out]
    expected = np.sqrt((residual**2).mean(axis=(0, 1)))
    np.testing.assert_allclose(fitted.error_, expected, rtol=1e-4)
    assert fitted.error_[1] == pytest.approx(1e-18 * fitted.error_[0], rel=0.2)


def counted(params):
    """Return what grows over three decades, to 10 %."""
    params = np.asarray(params)
    return np.exp(params[:, :1] * (1 + TIMES) + np.sin(4 * params[:, 1:] * TIMES))


def train_for_noise(**options):
    rng = np.random.default_rng(0)
    params = np.stack([rng.uniform(0.5, 2, 1000), rng.uniform(0, 1, 1000)], axis=1)
    surrogate = ODESurrogate(
        params={"a": (0.5, 2.0), "b": (0.0, 1.0)},
        noise=LogNormal(0.1),
        loss="noise",
        random_state=0,
        **options,
    )
    return surrogate.fit(counted(params), params)


@pytest.mark.filterwarnings("ignore::sklearn_inverse.exceptions.MisfitWarning")
@pytest.mark.parametrize("max_epochs", [0, 3])
def test_trained_for_the_noise_its_error_is_told_in_units_of_it(max_epochs):
    training = Training(max_epochs=max_epochs)
    surrogate = train_for_noise(basis_epochs=80, training=training)
    rng = np.random.default_rng(1)
    params = np.stack([rng.uniform(0.5, 2, 500), rng.uniform(0, 1, 500)], axis=1)
    off = np.log(surrogate.simulate(params)[..., 0] / counted(params)) / 0.1
    told = surrogate.error_in_noise_[:, 0]
    np.testing.assert_allclose(np.quantile(np.abs(off), [0.5, 0.95]), told, rtol=0.35)
    assert told[0] < 0.2
    assert surrogate.error_ == 0  # readings would hardly notice


def test_errors_that_readings_notice_are_warned_of_and_count():
    with pytest.warns(MisfitWarning, match="not small beside the noise"):
        surrogate = train_for_noise(basis_epochs=1, training=Training(max_epochs=0))
    assert surrogate.error_in_noise_[1, 0] > 0.3
    assert surrogate.error_[0] > 0


def test_errors_far_out_count_as_logarithms():
    error, unit = torch.tensor([[[0.1, 40.0]]]), torch.tensor([0.5, 2.0])
    target = torch.zeros(1, 1, 2)
    expected = (np.arcsinh(0.2) ** 2 + np.arcsinh(20) ** 2) / 2
    assert float(NoiseError(unit)(error, target)) == pytest.approx(expected, rel=1e-6)
    target[..., 1] = torch.nan
    expected = np.arcsinh(0.2) ** 2 / 2
    assert float(NoiseError(unit)(error, target)) == pytest.approx(expected, rel=1e-6)


def test_an_error_below_the_noise_is_nothing_to_warn_of():
    make_surrogate(noise=[1.0, 1e-18], basis_epochs=50).fit(TRAJECTORIES, PARAMS)


def test_noise_too_small_for_single_precision_is_warned_of_in_numbers():
    with pytest.warns(MisfitWarning, match=r"noise of c1 \(\S*\d times\)"):
        make_surrogate(noise=[1e-15, 1.0]).fit(TRAJECTORIES, PARAMS)


@pytest.mark.parametrize("n_read", [0, 2])
def test_what_no_held_out_pair_reads_is_judged_on_those_trained_on(n_read):
    split_seed = spawn_seeds(make_surrogate().random_state, 5)[0]
    seen, _ = split_held_out(320, 0.1, split_seed)
    rare = TRAJECTORIES.copy()
    rare[np.setdiff1d(range(320), seen[:n_read]), :, 1] = np.nan
    error = make_surrogate().fit(rare, PARAMS).error_
    assert error[0] > 0
    assert error[1] > 0 if n_read else np.isnan(error[1])


def test_an_uneven_grid_is_learned_as_well():
    times = np.array([0.0, 0.01, 0.02, 0.1, 0.5, 2.0])
    surrogate = make_surrogate(
        times=times, basis_epochs=150, training={"max_epochs": 5}
    )
    surrogate.fit(decay(PARAMS, times), PARAMS)
    error = rmse_per_std(surrogate.simulate(NEW_PARAMS), decay(NEW_PARAMS, times))
    assert (error < 0.05).all()
    harmonics = surrogate.net_.module_.harmonics[:, 1]  # cos(π t / t_end)
    np.testing.assert_allclose(harmonics, np.cos(np.pi * times / 2), atol=1e-6)


@pytest.mark.parametrize("module", ["cfno", "fno", "deeponet", "mgno"])
def test_every_operator_learns_decays_without_a_direct_part(module, sparse):
    surrogate = make_surrogate(
        network={
            "module": module,
            "embedding": 32,
            "observation_dropout": 0.5,
            "params_dropout": 0.0,
        },
        training={"max_epochs": 14, "lr": 1e-2, "batch_size": 32},
        n_basis=0,
        design=Design(n_observed=(1, 4)),
    ).fit(TRAJECTORIES, PARAMS)
    for readings in (None, sparse):
        simulated = surrogate.simulate(NEW_PARAMS, readings)
        assert (rmse_per_std(simulated, NEW_TRAJECTORIES) < 0.1).all()
    again = pickle.loads(pickle.dumps(surrogate))
    np.testing.assert_array_equal(again.simulate(NEW_PARAMS, sparse), simulated)
    x = torch.rand(5, 1, dtype=torch.float64, requires_grad=True)
    scale = torch.as_tensor(TRAJECTORIES.std(axis=(0, 1)))
    jacobian = surrogate.linearize(x)[1] / scale[:, None]
    scaled = surrogate.forward(x) / scale
    (gradient,) = torch.autograd.grad(scaled.sum(), x)
    torch.testing.assert_close(jacobian.sum((1, 2)), gradient, rtol=1e-4, atol=1e-4)


def test_gaps_in_the_training_trajectories_are_bridged():
    gaps = TRAJECTORIES.copy()
    gaps[np.random.default_rng(3).random(gaps.shape) < 0.2] = np.nan
    surrogate = make_surrogate(basis_epochs=60, training={"max_epochs": 20, "lr": 5e-3})
    surrogate.fit(gaps, PARAMS)
    error = rmse_per_std(surrogate.simulate(NEW_PARAMS), NEW_TRAJECTORIES)
    assert (error < 0.1).all()
    scale = TRAJECTORIES.std(axis=(0, 1))
    np.testing.assert_allclose(surrogate.error_ / scale, error, rtol=0.5)


@pytest.mark.parametrize(
    "switches",
    [
        {"n_basis": 0},
        {"network": {"film": False, "attention": False}},
        {"network": {"n_layers": 0}},
        {"network": {"norm": "batch"}},
        {"network": {"observation_dropout": 1.0}},
        {"network": {"observation_dropout": 0.0, "params_dropout": 1.0}},
        {"noise": [0.3, 3e-19], "design": Design(3, ["c2"])},
        {"params": {"k": LogNormal(1.0, 1.0)}},
    ],
    ids=str,
)
def test_every_switch_trains(switches, sparse):
    surrogate = make_surrogate(**switches).fit(TRAJECTORIES, PARAMS)
    assert np.isfinite(surrogate.error_).all()
    assert np.isfinite(surrogate.simulate(NEW_PARAMS, sparse)).all()


@pytest.mark.parametrize("noise", [LogNormal(0.1), Poisson()])
def test_what_must_be_positive_is_learned_where_its_noise_is_uniform(noise):
    counts = 100 * TRAJECTORIES[:, :, :1]
    surrogate = make_surrogate(n_channels=1, noise=noise, basis_epochs=200)
    surrogate.fit(counts, PARAMS)
    simulated = surrogate.simulate(NEW_PARAMS)
    assert (simulated >= 0).all()
    np.testing.assert_allclose(simulated, 100 * NEW_TRAJECTORIES[:, :, :1], rtol=0.2)


# --- what it knows of params and observables


def test_a_system_says_all_there_is_to_know():
    def relax(t, y, p):
        return -p.rate * y.left, p.rate * y.left

    system = ODESystem(
        relax,
        states={"left": 1.0, "gone": 0.0},
        params={"rate": (0.4, 2.1)},
        times=TIMES,
        noise=0.5,
    )
    surrogate = make_surrogate(system).fit(TRAJECTORIES * [1.0, 1e18], PARAMS)
    assert surrogate.prior_ is system.prior
    assert surrogate.param_names_ == ["rate"]
    assert surrogate.observable_names_ == ["left", "gone"]
    assert surrogate.noise_ is system.noise
    np.testing.assert_array_equal(surrogate.times_, TIMES)
    with pytest.raises(ValueError, match=r"A system has its own \['noise'\]"):
        clone(surrogate).set_params(noise=1.0).fit(TRAJECTORIES, PARAMS)
    with pytest.raises(ValueError, match=r"\(12, 2\). Got \(6, 2\) instead"):
        surrogate.fit(TRAJECTORIES[:, ::2], PARAMS)


def test_without_a_system_names_are_numbers_or_those_of_the_columns(tiny, frame):
    assert tiny.param_names_ == ["k1"]
    assert tiny.observable_names_ == ["c1", "c2"]
    assert tiny.times_.tolist() == list(range(12))
    pairs = frame({"a": PARAMS, "b": PARAMS[::-1]})
    named = make_surrogate().fit(TRAJECTORIES, pairs)
    assert named.param_names_ == ["a", "b"]
    swapped = pairs[["b", "a"]]
    np.testing.assert_array_equal(named.simulate(swapped), named.simulate(pairs))


def test_options_can_be_set_by_name_where_none_stands():
    surrogate = ODESurrogate().set_params(training__lr=0.1, network__width=3)
    assert (surrogate.training.lr, surrogate.network.width) == (0.1, 3)
    search = GridSearchCV(
        make_surrogate(training={"max_epochs": 1}, params={"k": (0.5, 2.0)}),
        {"network__n_modes": [2, 4], "n_basis": [0, 4]},
        scoring=lambda s, x, y: -rmse_per_std(s.simulate(y), x).mean(),
        cv=2,
        error_score="raise",
    ).fit(TRAJECTORIES, PARAMS)
    assert search.best_params_["n_basis"] == 4


# --- how it answers


def test_shapes_follow_the_contract(tiny, sparse):
    assert tiny.simulate(NEW_PARAMS[:, None]).shape == (150, 12, 2)
    assert (tiny.n_times_, tiny.n_channels_, tiny.n_params_) == (12, 2, 1)
    assert tiny.n_features_in_ == 24
    assert tiny.error_.shape == (2,)
    np.testing.assert_array_equal(
        tiny.transform(sparse), tiny.transform(sparse.reshape(150, -1))
    )


def test_what_is_filled_in_is_called_by_observable_and_time(tiny, sparse):
    names = tiny.get_feature_names_out()
    assert len(names) == 24
    assert names[:3].tolist() == ["c1(0)", "c2(0)", "c1(1)"]
    given = [f"reading {i}" for i in range(24)]
    assert tiny.get_feature_names_out(given).tolist() == given
    pytest.importorskip("pandas")
    filled = copy(tiny).set_output(transform="pandas").transform(sparse)
    assert filled.columns.tolist() == names.tolist()
    np.testing.assert_array_equal(filled, tiny.transform(sparse))


def test_samples_answered_together_one_by_one_or_reordered_are_identical(tiny, sparse):
    order = np.random.default_rng(0).permutation(150)  # in two chunks
    for ask in (
        lambda at: tiny.simulate(NEW_PARAMS[at]),
        lambda at: tiny.simulate(NEW_PARAMS[at], sparse[at]),
        lambda at: tiny.transform(sparse[at]),
    ):
        together = ask(slice(None))
        np.testing.assert_array_equal(ask(order), together[order])
        for i in (0, 60, 127, 149):
            np.testing.assert_array_equal(ask([i])[0], together[i])


def test_forward_is_simulate_from_scaled_params_with_derivatives(fitted):
    scaled = torch.rand(7, 1, generator=torch.Generator().manual_seed(0)).double()
    k = fitted.param_scaler_.from_scaled(scaled.numpy())
    scaled.requires_grad_()
    trajectories = fitted.forward(scaled)
    off = (trajectories.detach().numpy() - fitted.simulate(k)) / fitted.error_
    assert np.abs(off).max() < 1e-3
    slope = torch.autograd.grad(trajectories[..., 0].sum(), scaled)[0]
    width = np.ptp(fitted.param_scaler_.bounds)
    expected = (-TIMES * np.exp(-k * TIMES)).sum(axis=1) * width
    np.testing.assert_allclose(slope[:, 0], expected, rtol=0.2)
    again, jacobian = fitted.linearize(scaled)
    off = (again - trajectories).detach().numpy() / fitted.error_
    assert np.abs(off).max() < 1e-3
    summed = jacobian[..., 0, :].sum(dim=1)
    np.testing.assert_allclose(summed, slope, rtol=1e-3)


def test_values_without_gradient_do_not_depend_on_company(fitted):
    scaled = torch.rand(75, 1, dtype=torch.float64)
    with torch.no_grad():
        together = fitted.forward(scaled)
        alone = torch.cat([fitted.forward(x) for x in scaled[:, None]])
        assert torch.equal(together, alone)
    torch.testing.assert_close(fitted.forward(scaled), together, rtol=1e-5, atol=1e-5)


def test_params_and_readings_far_from_training_are_answered_with_a_warning(tiny):
    with pytest.warns(ExtrapolationWarning, match="1 of 2 samples have params outside"):
        assert np.isfinite(tiny.simulate([1.0, 3.0])).all()
    with pytest.warns(ExtrapolationWarning, match="24 readings lie farther"):
        assert np.isfinite(tiny.transform(np.full((1, 24), 1e150))).all()


# --- how it trains


def test_same_random_state_gives_identical_weights_and_leaves_generators_alone(
    tiny, sparse
):
    before = torch.get_rng_state(), np.random.mtrand._rand.get_state()[1].copy()
    again = make_surrogate().fit(TRAJECTORIES, PARAMS)
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.mtrand._rand.get_state()[1], before[1])
    assert_same_weights(tiny, again)
    np.testing.assert_array_equal(tiny.transform(sparse), again.transform(sparse))
    other = make_surrogate(random_state=1).fit(TRAJECTORIES, PARAMS)
    assert not np.allclose(tiny.transform(sparse), other.transform(sparse))


def test_fits_in_threads_give_what_each_gives_alone(tiny):
    alone = make_surrogate(random_state=1).fit(TRAJECTORIES, PARAMS)
    seeds = [0, 1] * 3
    with ThreadPoolExecutor(4) as pool:
        together = pool.map(
            lambda seed: make_surrogate(random_state=seed).fit(TRAJECTORIES, PARAMS),
            seeds,
        )
        for seed, surrogate in zip(seeds, together):
            assert_same_weights(surrogate, alone if seed else tiny)


def test_warm_start_goes_on_from_the_last_fit():
    surrogate = make_surrogate(
        warm_start=True, basis_epochs=20, training={"max_epochs": 5}
    ).fit(TRAJECTORIES, PARAMS)
    before, prior = surrogate.error_, surrogate.prior_
    inner = (PARAMS > 0.6) & (PARAMS < 1.9)
    surrogate.fit(TRAJECTORIES[inner], PARAMS[inner])
    assert (surrogate.error_ < 1.05 * before).all()
    assert surrogate.prior_ is prior
    surrogate.set_params(training__max_epochs=1, training__lr=1e-12)
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
        (TRAJECTORIES, np.c_[PARAMS, PARAMS], r"n_params=1. Got \(320, 2\) instead"),
        (TRAJECTORIES, 2 * PARAMS, "(?i)param"),
    ],
)
def test_warm_start_asks_for_pairs_like_the_last(tiny, trajectories, params, message):
    surrogate = clone(tiny).set_params(warm_start=True).fit(TRAJECTORIES, PARAMS)
    surrogate.set_params(n_channels=None)
    with pytest.raises(ValueError, match=message):
        surrogate.fit(trajectories, params)


@pytest.mark.parametrize(
    ("at", "patience"), [("on_epoch_begin", None), ("on_batch_end", 5)]
)
def test_an_interrupted_fit_leaves_a_usable_surrogate(press_ctrl_c, at, patience):
    surrogate = make_surrogate(
        basis_epochs=150,
        training={
            "max_epochs": 50,
            "callbacks": [press_ctrl_c(epoch=2, at=at)],
            "patience": patience,
        },
    )
    with pytest.warns(ConvergenceWarning, match="interrupted after 2 of 50 epochs"):
        surrogate.fit(TRAJECTORIES, PARAMS)
    assert surrogate.was_interrupted
    assert surrogate.n_iter_ == 2
    error = rmse_per_std(surrogate.simulate(NEW_PARAMS), NEW_TRAJECTORIES)
    assert (error < 0.1).all()
    assert not surrogate.net_.module_.training


def test_interrupting_the_direct_part_skips_the_operator(monkeypatch):
    batches = EvenBatches.__iter__

    def press_ctrl_c(self):
        yield from batches(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(EvenBatches, "__iter__", press_ctrl_c)
    surrogate = make_surrogate(basis_epochs=50)
    with pytest.warns(ConvergenceWarning, match="part was interrupted after 1 of 50"):
        surrogate.fit(TRAJECTORIES, PARAMS)
    assert surrogate.was_interrupted
    assert surrogate.n_iter_ == 0
    assert np.isfinite(surrogate.simulate(NEW_PARAMS)).all()


@pytest.mark.parametrize("network", [{}, {"norm": "batch"}])
def test_training_that_diverges_is_an_error(network):
    surrogate = make_surrogate(network=network, training={"lr": 1e6, "max_epochs": 9})
    with pytest.raises(ValueError, match=r"Training operator diverged: .*lr=1e"):
        surrogate.fit(TRAJECTORIES, PARAMS)
    with pytest.raises(NotFittedError):
        surrogate.simulate(NEW_PARAMS)


def test_patience_stops_training_that_no_longer_helps():
    surrogate = make_surrogate(training={"patience": 3, "max_epochs": 50, "lr": 1e-9})
    surrogate.fit(TRAJECTORIES, PARAMS)
    assert surrogate.n_iter_ < 10
    assert not surrogate.was_interrupted


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
    make_surrogate(training={"callbacks": [Listener(log)]}).fit(TRAJECTORIES, PARAMS)
    losses = ["train_loss", "valid_loss"]
    assert log == ["begin", losses, losses, "end"]


def test_progress_is_shown_only_where_asked_for(capsys):
    make_surrogate(training={"patience": 1}).fit(TRAJECTORIES, PARAMS)
    assert capsys.readouterr() == ("", "")
    make_surrogate(verbose=1).fit(TRAJECTORIES, PARAMS)
    out, err = capsys.readouterr()
    assert "Training operator: 100%" in err
    assert "train_loss=" in err
    assert "valid_loss=" in err
    assert out == ""


# --- as an estimator among others


@pytest.mark.slow
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
    again = joblib.load(tmp_path / "surrogate.joblib")[0]
    assert again.net_.history == tiny.net_.history
    simulated, filled = joblib.load(tmp_path / "answers.joblib")
    np.testing.assert_array_equal(simulated, tiny.simulate(NEW_PARAMS, sparse))
    np.testing.assert_array_equal(filled, tiny.transform(sparse))


def test_a_clone_has_the_same_settings_and_no_memory(tiny):
    copy = clone(tiny)
    assert repr(copy) == repr(tiny)
    for ask in (lambda s: s.simulate([1.0]), lambda s: s.transform(TRAJECTORIES)):
        with pytest.raises(NotFittedError, match="This ODESurrogate instance is not"):
            ask(copy)


# --- what it refuses


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"n_channels": 5}, "must have n_channels=5 entries on their last axis"),
        ({"params": {"k": (2.0, 0.5)}}, "(?i)below|low"),
        ({"params": {"k": (0.5, 1.0)}}, "(?i)param"),
        ({"params": {"k": (0, 3), "l": (0, 3)}}, r"n_params=2. Got \(320, 1\) instead"),
        ({"times": [0.0, 1.0]}, r"`times` must have shape \(12,\)"),
        ({"times": np.zeros(12)}, "strictly increasing"),
        ({"noise": [0.1, -1.0]}, "must be positive and finite. Got -1"),
        ({"noise": "sigma"}, "'sigma', which is not among the params"),
        ({"design": Design(0)}, "`n_observed` must be an int or a"),
        ({"design": Design((1, 13))}, "1 <= low <= high <= n_times=12"),
        ({"device": "tpu9"}, "`device` must be 'auto', 'cpu'"),
        ({"device": "cuda:99"}, "a GPU that is not there"),
        ({"network": {"width": 0}}, "The 'width' parameter of Operator must be an int"),
        ({"training": {"lr": 0.0}}, "The 'lr' parameter of Training must be"),
        ({"design": 3}, "The 'design' parameter of ODESurrogate must be"),
    ],
)
def test_wrong_settings_are_refused_by_fit(kwargs, message):
    with pytest.raises(ValueError, match=message):
        make_surrogate(**kwargs).fit(TRAJECTORIES, PARAMS)


@pytest.mark.parametrize(
    ("params", "observations", "message"),
    [
        ([[1.0, 1.0]], None, r"with n_params=1. Got \(1, 2\) instead"),
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


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn_inverse.exceptions.MisfitWarning")
@pytest.mark.parametrize(
    ("system", "error"),
    [
        (poisson(scale=1.0, n_nodes=21, noise=0.05), 0.02),
        (fisher_kpp(noise=0.05), 0.08),  # D and rho can hardly be told from each other
    ],
)
def test_a_deeponet_stands_for_a_pde(system, error):
    pairs = make_inverse_problem(system, 512, random_state=0)
    network = {"module": "deeponet", "embedding": 64, "observation_dropout": 1.0}
    training = {"max_epochs": 60, "lr": 5e-3, "batch_size": 64}
    surrogate = make_surrogate(system, training, network, n_basis=0)
    surrogate.fit(pairs.observations, pairs.params)
    exact = surrogate.exact_.simulate(pairs.params[:5])
    model = FrozenEstimator(surrogate)
    inverter = GradientInverter(model, n_starts=1, max_solves=0).fit(exact)
    found = inverter.posterior(exact)
    assert abs(surrogate.exact_.simulate(found.mean) - exact).max() < error


@pytest.mark.filterwarnings("ignore::sklearn_inverse.exceptions.MisfitWarning")
def test_a_steady_pde_has_one_time_and_an_observable_for_each_point():
    system = poisson(scale=1.0, n_nodes=21)
    pairs = make_inverse_problem(system, 32, random_state=0)
    surrogate = make_surrogate(system).fit(pairs.observations, pairs.params)
    assert surrogate.simulate(pairs.params).shape == (32, 1, 49)
    exact = surrogate.exact_.simulate(pairs.params).reshape(32, -1)
    np.testing.assert_array_equal(exact, pairs.observations)
    assert (surrogate.exact_.error_ == 0).all()  # as what is learned with it asks
    assert surrogate.get_feature_names_out()[0] == "u(0.02)(0)"
    inverter = GradientInverter(FrozenEstimator(surrogate), n_starts=1, max_solves=0)
    inverter.fit(pairs.observations)
    display = TrajectoryDisplay.from_estimator(inverter, pairs.observations[:1])
    assert display.trajectory.shape == (1, 49)
