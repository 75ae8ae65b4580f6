"""What all inverters that search per sample share: answers, warnings, bad input."""

import warnings

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
    ForwardFunction,
    GradientInverter,
    RefinedInverter,
)
from sklearn_inverse.baselines import GradientDescentInverter
from sklearn_inverse.exceptions import (
    BoundsWarning,
    ConvergenceWarning,
    IntegrationWarning,
    MisfitWarning,
)
from sklearn_inverse.probability import InversionStatus

NOISE = 0.01


def gauss_newton(model, **options):
    return GradientInverter(model, **{"random_state": 0} | options)


def lbfgs(model, **options):
    return gauss_newton(model, optimizer="lbfgs", **options)


def cmaes(model, **options):
    return CMAESInverter(model, **{"tol": 1e-6, "random_state": 0} | options)


def refined(model, **options):
    # A start as bad as can be: the ends of three steps of SGD.
    rough = GradientDescentInverter(
        model, optimizer="sgd", n_starts=2, max_iter=3, random_state=0
    )
    return RefinedInverter(rough, model, **{"random_state": 0} | options)


MAKERS = [gauss_newton, lbfgs, cmaes, refined]
each_inverter = pytest.mark.parametrize("make", MAKERS)


@pytest.fixture
def fitted(decay):
    """Return ``fitted(make, model=None, **options)``: an inverter ready to answer."""

    def fit(make, model=None, **options):
        model = model or decay(noise=NOISE)
        return make(model, **options).fit(decay().simulate([[1.0, 1.0]]))

    return fit


def messages(caught, category):
    return [str(w.message) for w in caught if w.category is category]


@each_inverter
def test_recovers_params_from_noisy_and_missing_readings(make, fitted, make_pairs):
    readings, params = make_pairs(10, NOISE)
    readings[::2, 1::2] = np.nan
    inverter = fitted(make)
    answer = inverter.invert(readings)
    assert np.abs(answer.params - params).max() < 0.1
    assert (answer.status == InversionStatus.CONVERGED).all()
    assert answer.explained.all()
    assert answer.n_readings.tolist() == [4, 8] * 5
    # As a chi-square with that many readings less two params, over 10 samples.
    assert 0.4 < answer.misfit.sum() / (answer.n_readings - 2).sum() < 1.7
    assert (answer.misfit <= answer.start_misfit).all()
    assert (answer.n_forward >= answer.n_iter).all()
    flat = readings.reshape(10, -1)
    np.testing.assert_array_equal(inverter.predict(flat), inverter.predict(readings))
    curves = inverter.reconstruct(readings)
    assert np.nanmax(np.abs(curves - readings)) < 5 * NOISE
    assert inverter.score(readings, params) > 0.95


@each_inverter
def test_alone_as_in_a_batch_whatever_the_chunks_and_workers(make, fitted, make_pairs):
    readings, _ = make_pairs(5, NOISE)
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
def test_same_seed_same_answer_and_nothing_global(make, fitted, make_pairs):
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
    assert not hasattr(copy, "model_")
    pipeline = make_pipeline(FunctionTransformer(), copy).fit(readings[..., 0], params)
    np.testing.assert_allclose(pipeline.predict(readings[..., 0]), expected, rtol=1e-2)


@each_inverter
def test_params_of_one_dimension_come_back_so(make):
    rate = np.array([0.7, 1.3])
    readings = drain(torch.as_tensor(rate[:, None])).numpy()
    inverter = make(make_drain()).fit(readings, rate)
    np.testing.assert_allclose(inverter.predict(readings), rate, rtol=1e-2)


def test_grid_search_chooses_the_method_that_has_time(decay, make_pairs):
    readings, params = make_pairs(12)
    search = GridSearchCV(
        gauss_newton(decay(noise=NOISE), n_starts=1), {"max_iter": [1, 30]}, cv=2
    )
    with pytest.warns():
        search.fit(readings.reshape(12, -1), params)
    assert search.best_params_ == {"max_iter": 30}


def drain(params):
    return torch.exp(-params * torch.linspace(0.0, 2.0, 6, dtype=params.dtype))


def make_drain():
    return ForwardFunction(drain, params={"k": (0.5, 2.0)}, noise=NOISE)


@pytest.mark.slow
def test_chunks_are_inverted_in_other_processes():
    def local_drain(params):  # workers cannot import tests: it must go by value
        return torch.exp(-params * torch.linspace(0.0, 2.0, 6, dtype=params.dtype))

    class Busy(ForwardFunction):
        """A model that does not let other threads run: chunks go to processes."""

        may_thread = False

    params = np.array([0.7, 1.0, 1.4, 1.8])[:, None]
    readings = local_drain(torch.as_tensor(params)).numpy()
    model = Busy(local_drain, params={"k": (0.5, 2.0)}, noise=NOISE)
    inverter = gauss_newton(model, chunk_size=2).fit(readings)
    here = inverter.predict(readings)
    assert np.abs(here - params).max() < 0.02
    np.testing.assert_array_equal(inverter.set_params(n_jobs=2).predict(readings), here)
    scores = cross_val_score(gauss_newton(model), readings, params, cv=2, n_jobs=2)
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
    (told,) = messages(caught, MisfitWarning)
    assert "6 of 6 samples" in told


@each_inverter
def test_readings_that_no_params_explain_are_reported(make, fitted, make_pairs):
    readings, params = make_pairs(4, NOISE)
    readings[2] = np.sin(9 * np.arange(8))[:, None]
    with pytest.warns() as caught:
        answer = fitted(make).invert(readings)
    (told,) = messages(caught, MisfitWarning)
    assert "1 of 4 samples (rows 2)" in told
    assert answer.explained.tolist() == [True, True, False, True]
    assert answer.misfit[2] > 1000
    assert np.abs(answer.params - params)[[0, 1, 3]].max() < 0.1


@each_inverter
def test_params_at_their_bounds_are_named(make, fitted, make_pairs, decay):
    readings, _ = make_pairs(4)
    true = np.array([[1.0, 0.5], [1.2, 0.6], [1.0, 1.4], [0.9, 0.4]])
    readings = decay().simulate(true)
    model = decay({"a": (0.5, 2.0), "k": (0.1, 1.0)}, noise=NOISE)
    inverter = fitted(make, model)
    with pytest.warns() as caught:
        answer = inverter.invert(readings)
    (told,) = messages(caught, BoundsWarning)
    assert "in 1 of 4 samples: k (1)" in told
    assert answer.at_bound.nonzero() == (np.array([2]), np.array([1]))


@each_inverter
def test_a_model_that_fails_for_some_params(make, decay, fitted, make_pairs):
    readings, params = make_pairs(6)
    # Scaled rates up to 0.82 are simulated; steps and draws beyond are lost.
    inverter = fitted(make, decay(noise=NOISE, fails_above=0.82))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        answer = inverter.invert(readings)
    told = messages(caught, IntegrationWarning)
    assert len(told) == len(caught) == (answer.n_failed > 0).any()
    if make is cmaes:
        assert told[0].endswith("points of 6 samples; these were dropped.")
    assert np.abs(answer.params - params).max() < 0.02


@each_inverter
def test_a_model_that_fails_everywhere_costs_the_estimate(make, decay, fitted):
    readings = decay().simulate([[1.0, 1.0]] * 3)
    inverter = fitted(make, decay(noise=NOISE, fails_above=-1.0))
    with pytest.warns() as caught:
        answer = inverter.invert(readings)
    (told,) = messages(caught, IntegrationWarning)
    assert "3 samples have none left and are NaN" in told
    assert np.isnan(answer.params).all()
    assert (answer.status == InversionStatus.FAILED).all()
    assert not answer.explained.any()


def test_a_sample_without_estimate_scores_as_the_mean_does(decay, make_pairs):
    readings, params = make_pairs(8, NOISE)
    inverter = gauss_newton(decay(noise=NOISE)).fit(readings, params)
    good = inverter.score(readings, params)
    estimate = inverter.predict(readings)
    estimate[0] = np.nan
    inverter.predict = lambda observations, **known: estimate
    assert 0.3 < inverter.score(readings, params) < good
    estimate[:] = np.nan
    assert inverter.score(readings, params) == pytest.approx(0)


@each_inverter
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda r: np.where(np.arange(3)[:, None, None] == 1, np.nan, r), "row 1"),
        (lambda r: np.where(r > 0, np.inf, r), "infinity"),
        (lambda r: r[:, :5], "8 features|expecting 8"),
        (lambda r: r[0, 0], "Expected 2D array"),
        (lambda r: r[:0], "0 sample"),
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
        ({"device": "cuda:7"}, "GPU that is not there"),
        ({"chunk_size": 0}, "chunk_size"),
        ({"prior": "normal"}, "prior"),
    ],
)
def test_bad_options_are_refused(make, fitted, options, message):
    with pytest.raises(ValueError, match=message):
        fitted(make, **options)


@each_inverter
def test_bad_noise_is_refused_at_predict(make, fitted, make_pairs):
    readings, _ = make_pairs(3)
    for noise_std in (np.ones((2, 8)), -0.1, [0.1, 0.2, 0.3]):
        with pytest.raises(ValueError, match="`noise_std` must"):
            fitted(make).predict(readings, noise_std=noise_std)


@each_inverter
def test_unfitted_use_is_refused(make, decay, make_pairs):
    with pytest.raises(NotFittedError):
        make(decay()).predict(make_pairs(2)[0])


@each_inverter
def test_ctrl_c_keeps_the_chunks_that_were_done(make, fitted, make_pairs, press_at):
    readings, _ = make_pairs(6, NOISE)
    inverter = fitted(make, chunk_size=2)
    expected = inverter.invert(readings)
    press_at(type(inverter), "_search", 3)
    with pytest.warns(ConvergenceWarning, match=r"4 of 6 samples .* 2 are NaN"):
        answer = inverter.invert(readings)
    np.testing.assert_array_equal(answer.params[:4], expected.params[:4])
    assert np.isnan(answer.params[4:]).all()
    assert (answer.status[4:] == InversionStatus.INTERRUPTED).all()


@each_inverter
def test_ctrl_c_within_a_chunk_keeps_the_best_so_far(
    make, fitted, make_pairs, monkeypatch, press_at, decay
):
    readings, _ = make_pairs(4, NOISE)
    inverter = fitted(make)
    if make is refined:
        starts = np.full((4, 1, 2), 0.5)
        monkeypatch.setattr(inverter, "_per_sample", lambda *args: (starts,))
    press_at(decay, "forward", 6)
    with pytest.warns() as caught:
        answer = inverter.invert(readings)
    assert any(str(w.message).startswith("Interrupted") for w in caught)
    assert np.isfinite(answer.params).all()
    assert (answer.status == InversionStatus.INTERRUPTED).any()


@each_inverter
def test_progress_is_shown_if_wanted(make, fitted, make_pairs, capsys):
    readings, _ = make_pairs(3, NOISE)
    fitted(make).predict(readings)
    assert capsys.readouterr().err == ""
    fitted(make, verbose=1).predict(readings)
    assert "3/3" in capsys.readouterr().err
