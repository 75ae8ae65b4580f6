"""What all inverters that search per sample share: results, warnings, bad input."""

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sklearn_inverse import (
    CMAESInverter,
    GradientInverter,
    ODESimulator,
    ODESystem,
    RefinedInverter,
)
from sklearn_inverse.exceptions import (
    BoundsWarning,
    ConvergenceWarning,
    IntegrationWarning,
    MisfitWarning,
)
from sklearn_inverse.inverse import InversionStatus
from sklearn_inverse.problems import lotka_volterra

NOISE = 0.01


def gauss_newton(model, **options):
    return GradientInverter(model, **{"noise_std": NOISE, "random_state": 0} | options)


def lbfgs(model, **options):
    return gauss_newton(model, optimizer="lbfgs", **options)


def cmaes(model, **options):
    return CMAESInverter(
        model, **{"noise_std": NOISE, "tol": 1e-6, "random_state": 0} | options
    )


def refined(model, **options):
    # A start as bad as can be: the ends of three steps of SGD.
    rough = GradientInverter(
        model,
        optimizer="sgd",
        n_starts=2,
        max_iter=3,
        bounds=options.pop("bounds", None),
        noise_std=NOISE,
        random_state=0,
    )
    return RefinedInverter(rough, model, **{"random_state": 0} | options)


MAKERS = [gauss_newton, lbfgs, cmaes, refined]
each_inverter = pytest.mark.parametrize("make", MAKERS)


@pytest.fixture
def fitted(decay, make_pairs):
    """Return ``fitted(make, model=..., **options)``: an inverter ready to predict."""

    def fit(make, model=None, **options):
        readings, params = make_pairs(5, seed=9)
        return make(model or decay(), **options).fit(readings, params)

    return fit


@each_inverter
def test_recovers_params_from_noisy_and_missing_readings(make, fitted, make_pairs):
    readings, params = make_pairs(20, NOISE)
    readings[::2, 1::2] = np.nan
    inverter = fitted(make)
    result = inverter.invert(readings)
    assert np.abs(result.params - params).max() < 0.1
    assert (result.status == InversionStatus.CONVERGED).all()
    assert result.explained.all()
    assert result.n_readings.tolist() == [4, 8] * 10
    # As a chi-square with that many readings less two params, over 20 samples.
    assert 0.5 < result.misfit.sum() / (result.n_readings - 2).sum() < 1.6
    assert (result.misfit <= result.start_misfit).all()
    assert (result.n_forward >= result.n_iter).all()
    np.testing.assert_array_equal(inverter.predict(readings), result.params)
    flat = readings.reshape(20, -1)
    np.testing.assert_array_equal(inverter.predict(flat), result.params)
    curves = inverter.reconstruct(readings)
    assert np.nanmax(np.abs(curves - readings)) < 5 * NOISE
    assert inverter.score(readings, params) > 0.95


@each_inverter
def test_alone_as_in_a_batch_whatever_the_chunks_and_workers(make, fitted, make_pairs):
    readings, _ = make_pairs(7, NOISE)
    inverter = fitted(make)
    together = inverter.predict(readings)
    alone = np.concatenate([inverter.predict(r[None]) for r in readings])
    np.testing.assert_allclose(alone, together, rtol=1e-7)
    inverter.set_params(chunk_size=2)
    chunked = inverter.predict(readings)
    np.testing.assert_allclose(chunked, together, rtol=1e-7)
    inverter.set_params(n_jobs=2)
    np.testing.assert_array_equal(inverter.predict(readings), chunked)


@each_inverter
def test_same_seed_same_result_and_nothing_global(make, fitted, make_pairs):
    readings, _ = make_pairs(3, NOISE)
    legacy = np.random.mtrand._rand  # the one that nobody should touch
    torch.manual_seed(0)
    before = legacy.get_state()[1].copy(), torch.get_rng_state()
    first = fitted(make).predict(readings)
    np.testing.assert_array_equal(legacy.get_state()[1], before[0])
    assert torch.equal(torch.get_rng_state(), before[1])
    np.testing.assert_array_equal(fitted(make).predict(readings), first)


@each_inverter
def test_survives_a_pipeline_clone_and_pickle(make, fitted, make_pairs, tmp_path):
    readings, params = make_pairs(4, NOISE)
    inverter = fitted(make)
    expected = inverter.predict(readings)
    joblib.dump(inverter, tmp_path / "inverter.joblib")
    again = joblib.load(tmp_path / "inverter.joblib")
    np.testing.assert_array_equal(again.predict(readings), expected)
    copy = clone(inverter)
    assert not hasattr(copy, "surrogate_")
    pipeline = make_pipeline(FunctionTransformer(), copy).fit(readings[..., 0], params)
    np.testing.assert_allclose(pipeline.predict(readings[..., 0]), expected, rtol=1e-2)


def test_grid_search_chooses_the_optimizer_that_has_time(decay, make_pairs):
    readings, params = make_pairs(12)
    search = GridSearchCV(
        GradientInverter(decay(), noise_std=NOISE, random_state=0),
        {"max_iter": [1, 30]},
        cv=2,
    )
    with pytest.warns(ConvergenceWarning):
        search.fit(readings.reshape(12, -1), params)
    assert search.best_params_ == {"max_iter": 30}


@pytest.fixture(scope="module")
def slow_model():
    """Return a simulator that is not compiled, so that chunks go to processes."""

    def drain(t, y, params):  # a function made in a function travels by value
        return -params * y

    system = ODESystem(
        drain, initial_state=[1.0], bounds=[[0.5, 2.0]], times=np.linspace(0, 2, 6)
    )
    simulator = ODESimulator(system, method="tsit5")
    params = np.array([0.7, 1.0, 1.4, 1.8])
    return simulator, simulator.simulate(params[:, None]), params


@each_inverter
def test_chunks_are_inverted_in_other_processes(make, slow_model):
    simulator, readings, params = slow_model
    inverter = make(simulator, chunk_size=2).fit(readings, params)
    here = inverter.predict(readings)
    assert np.abs(here - params).max() < 0.02
    np.testing.assert_array_equal(inverter.set_params(n_jobs=2).predict(readings), here)


def test_models_are_compared_in_other_processes(slow_model):
    simulator, readings, params = slow_model
    scores = cross_val_score(
        gauss_newton(simulator), readings[..., 0], params, cv=2, n_jobs=2
    )
    assert (scores > 0.99).all()


@each_inverter
def test_noise_of_each_reading_can_be_told_at_predict(make, fitted, make_pairs):
    readings, params = make_pairs(6)
    wrong = readings.copy()
    wrong[:, 3] += 0.5
    noise = np.full(readings.shape, NOISE)
    noise[:, 3] = 100.0
    wrong[0, 5] = noise[0, 5] = np.nan
    inverter = fitted(make)
    good = inverter.invert(wrong, noise_std=noise)
    flat = inverter.invert(wrong.reshape(6, -1), noise_std=noise.reshape(6, -1))
    np.testing.assert_array_equal(flat.params, good.params)
    assert good.explained.all()
    assert np.abs(good.params - params).max() < 0.02
    with pytest.warns() as caught:
        inverter.predict(wrong)
    (told,) = [w for w in caught if w.category is MisfitWarning]
    assert "6 of 6 samples" in str(told.message)


@each_inverter
def test_readings_that_no_params_explain_are_reported(make, fitted, make_pairs):
    readings, params = make_pairs(4, NOISE)
    readings[2] = np.sin(9 * np.arange(8))[:, None]
    inverter = fitted(make)
    with pytest.warns() as caught:
        result = inverter.invert(readings)
    (told,) = [w for w in caught if w.category is MisfitWarning]
    assert "1 of 4 samples. The first is row 2" in str(told.message)
    assert result.explained.tolist() == [True, True, False, True]
    assert result.misfit[2] > 1000
    assert np.abs(result.params - params)[[0, 1, 3]].max() < 0.1


@each_inverter
def test_params_at_the_edge_are_named(make, fitted, make_pairs, decay):
    readings, params = make_pairs(4)
    model = decay(bounds=((0.5, 2.0), (0.1, 1.0)))
    params[2] = [1.0, 1.4]
    readings[2] = decay().simulate(params[2:3])[0]
    params[[0, 1, 3], 1] = 0.5
    readings[[0, 1, 3]] = decay().simulate(params[[0, 1, 3]])
    inverter = make(model, noise_std=NOISE).fit(readings[[0, 1]], params[[0, 1]])
    with pytest.warns() as caught:
        inverter.predict(readings)
    (told,) = [w for w in caught if w.category is BoundsWarning]
    assert "in 1 of 4 samples: param 1 (1)" in str(told.message)


def test_the_edge_is_named_after_the_system():
    system = lotka_volterra(
        bounds=[[0.5, 1.6], [0.006, 0.15], [0.2, 1.6], [0.006, 0.15]]
    )
    true = system.nominal.copy()
    true[0] = 0.5
    readings = ODESimulator(system).simulate(true[None])
    true[0] = 0.45
    narrow = system
    readings = ODESimulator(lotka_volterra()).simulate(true[None])
    inverter = GradientInverter(ODESimulator(narrow), noise_std=1.0, random_state=0)
    pair = np.repeat(narrow.nominal[None].clip(0.5001, None), 2, axis=0)
    pair[:, 1:] = narrow.nominal[1:]
    inverter.fit(ODESimulator(narrow).simulate(pair), pair)
    with pytest.warns() as caught:
        inverter.predict(readings)
    assert any("alpha (1)" in str(w.message) for w in caught)


@each_inverter
def test_a_simulator_that_fails_for_some_particles(make, decay, make_pairs):
    readings, params = make_pairs(6)
    # Unit rates up to 0.8 are simulated; steps and draws beyond are lost.
    inverter = make(decay(fails_above=0.8)).fit(readings, params)
    if make is cmaes:
        with pytest.warns(IntegrationWarning, match="points of .* these were dropped"):
            result = inverter.invert(readings)
        assert (result.n_failed > 0).any()
    else:
        result = inverter.invert(readings)
    assert np.abs(result.params - params).max() < 0.02


@each_inverter
def test_a_simulator_that_fails_everywhere_costs_the_estimate(make, decay, make_pairs):
    readings, params = make_pairs(3)
    inverter = make(decay(fails_above=-1.0)).fit(readings, params)
    with pytest.warns() as caught:
        result = inverter.invert(readings)
    assert any("3 samples have none left and are NaN" in str(w.message) for w in caught)
    assert np.isnan(result.params).all()
    assert (result.status == InversionStatus.FAILED).all()
    assert not result.explained.any()


@each_inverter
def test_without_noise_the_params_are_exact(make, decay, make_pairs):
    readings, params = make_pairs(4)
    model = decay()
    maker = {"noise_std": None}
    inverter = make(model, **maker)
    if make is refined:
        inverter.set_params(inverter__noise_std=None)
    result = inverter.fit(readings, params).invert(readings)
    assert np.abs(result.params - params).max() < 1e-5
    assert result.explained.all()


@each_inverter
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda r: np.where(np.arange(3)[:, None, None] == 1, np.nan, r), "row 1"),
        (lambda r: np.where(r > 0, np.inf, r), "infinity"),
        (lambda r: r[:, :5], "8 features|expecting 8"),
        (lambda r: r[0, 0], "Expected 2D array"),
    ],
)
def test_bad_readings_are_refused(make, fitted, make_pairs, spoil, message):
    readings, _ = make_pairs(3)
    with pytest.raises(ValueError, match=message):
        fitted(make).predict(spoil(readings))


@each_inverter
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise_std": -0.1}, "noise_std"),
        ({"noise_std": [0.1, 0.2, 0.3]}, "`noise_std` must be"),
        ({"device": "cuda:7"}, "GPU that is not there"),
        ({"chunk_size": 0}, "chunk_size"),
        ({"n_channels": 3}, "n_channels"),
    ],
)
def test_bad_options_are_refused(make, decay, make_pairs, options, message):
    readings, params = make_pairs(3)
    with pytest.raises(ValueError, match=message):
        make(decay(), **options).fit(readings, params)


@pytest.mark.parametrize("make", MAKERS[:3])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bounds": [[2.0, 0.5], [0.1, 3.0]]}, "lower bound"),
        ({"bounds": [[0.5, 2.0]]}, "n_params, 2"),
        ({"bounds": [[1.9, 2.0], [0.1, 3.0]]}, "within its bounds"),
        ({"scale": "log"}, "scale"),
    ],
)
def test_bad_boxes_are_refused(make, decay, make_pairs, options, message):
    readings, params = make_pairs(3)
    with pytest.raises(ValueError, match=message):
        make(decay(), **options).fit(readings, params)


@each_inverter
def test_noise_of_a_wrong_shape_is_refused_at_predict(make, fitted, make_pairs):
    readings, _ = make_pairs(3)
    with pytest.raises(ValueError, match="`noise_std` must be"):
        fitted(make).predict(readings, noise_std=np.ones((2, 8)))


@each_inverter
def test_unfitted_use_is_refused(make, decay, make_pairs):
    with pytest.raises(NotFittedError):
        make(decay()).predict(make_pairs(2)[0])


@each_inverter
def test_ctrl_c_keeps_what_was_done(make, fitted, make_pairs, monkeypatch):
    readings, _ = make_pairs(6, NOISE)
    inverter = fitted(make, chunk_size=2)
    expected = inverter.predict(readings)
    invert, calls = type(inverter)._invert_chunk, []

    def press(self, *args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return invert(self, *args)

    monkeypatch.setattr(type(inverter), "_invert_chunk", press)
    if make is refined:
        monkeypatch.setattr(
            inverter, "_per_sample", lambda *args: (np.full((6, 1, 2), 0.5),)
        )
    with pytest.warns(ConvergenceWarning, match=r"4 of 6 samples .* 2 are NaN"):
        result = inverter.invert(readings)
    np.testing.assert_allclose(result.params[:4], expected[:4], rtol=1e-3)
    assert np.isnan(result.params[4:]).all()
    assert (result.status[4:] == InversionStatus.INTERRUPTED).all()


@each_inverter
def test_ctrl_c_within_a_chunk_keeps_the_best_so_far(
    make, fitted, make_pairs, monkeypatch, decay
):
    readings, _ = make_pairs(4, NOISE)
    inverter = fitted(make)
    forward, calls = decay.forward, []

    def press(self, unit):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return forward(self, unit)

    monkeypatch.setattr(decay, "forward", press)
    if make is refined:
        monkeypatch.setattr(
            inverter, "_per_sample", lambda *args: (np.full((4, 1, 2), 0.5),)
        )
    with pytest.warns() as caught:
        result = inverter.invert(readings)
    assert any(str(w.message).startswith("Interrupted") for w in caught)
    assert np.isfinite(result.params).all()
    assert (result.status == InversionStatus.INTERRUPTED).any()


@each_inverter
def test_progress_is_shown_if_wanted(make, fitted, make_pairs, capsys):
    readings, _ = make_pairs(3, NOISE)
    fitted(make).predict(readings)
    assert capsys.readouterr().err == ""
    fitted(make, verbose=1).predict(readings)
    assert "3/3" in capsys.readouterr().err
