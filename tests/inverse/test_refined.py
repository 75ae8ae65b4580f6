"""RefinedInverter starts where it is told, and ends at the exact optimum."""

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sklearn_inverse import (
    CMAESInverter,
    ForwardFunction,
    GradientInverter,
    RefinedInverter,
)
from sklearn_inverse.exceptions import ConvergenceWarning, MisfitWarning
from sklearn_inverse.inverse import _refined
from sklearn_inverse.probability import InversionStatus

NOISE = 0.02


class Guess(BaseEstimator):
    """An inverter that always says the same."""

    def __init__(self, value=(1.0, 1.0), draws=None):
        self.value = value
        self.draws = draws

    def fit(self, observations, params=None):
        return self

    def predict(self, observations):
        return np.tile(np.asarray(self.value, dtype=float), (len(observations), 1))


class GuessWithDraws(Guess):
    """The same with a posterior of two points."""

    def sample(self, observations, n_draws):
        return np.tile(np.asarray(self.draws)[:n_draws], (len(observations), 1, 1))


@pytest.mark.parametrize("noise", [NOISE, None], ids=["known", "estimated"])
def test_any_start_leads_to_the_same_posterior(noise, decay, make_pairs):
    readings, _ = make_pairs(6, NOISE)
    model = decay(noise=noise)
    exact = GradientInverter(model, tol=1e-9, random_state=0).fit(readings)
    mean, std = exact.predict(readings, return_std=True)
    for value in [(1.0, 1.0), (0.6, 2.5), (np.nan, np.nan), (9.0, -3.0)]:
        refined = RefinedInverter(Guess(value), model, tol=1e-9, random_state=0)
        found, sd = refined.fit(readings).predict(readings, return_std=True)
        np.testing.assert_allclose(found, mean, rtol=1e-4)
        np.testing.assert_allclose(sd, std, rtol=1e-3)


def test_the_misfit_before_and_after_is_told(decay, make_pairs):
    readings, _ = make_pairs(4, NOISE)
    refined = RefinedInverter(Guess((0.8, 2.0)), decay(noise=NOISE), random_state=0)
    answer = refined.fit(readings).posterior(readings)
    off = (decay().simulate(np.tile([0.8, 2.0], (4, 1))) - readings) / NOISE
    np.testing.assert_allclose(answer.start_misfit, (off**2).sum((1, 2)), rtol=1e-3)
    assert (answer.misfit < 25).all()
    assert (answer.n_linearized > 1).all()
    assert (answer.n_forward > answer.n_linearized).all()


def test_draws_are_tried_beside_the_estimate(decay, make_pairs):
    readings, params = make_pairs(3, NOISE)
    bad, good = (1.0, 2.9), (1.0, 1.0)
    inner = GuessWithDraws(bad, draws=[bad, good])
    model = decay(noise=NOISE, fails_above=0.9)
    refined = RefinedInverter(
        inner, model, n_draws=2, max_solves=0, random_state=0
    ).fit(readings)
    with pytest.warns(match=r"failed at .* starts or draws of .* dropped\.$"):
        answer = refined.posterior(readings)
    assert (answer.n_failed == 2).all()
    assert answer.explained.all()
    assert np.abs(answer.params - params).max() < 0.1


def test_draws_of_our_own_inverters_come_from_one_answer(decay, make_pairs, press_at):
    readings, _ = make_pairs(2, NOISE)
    inner = GradientInverter(decay(noise=NOISE), n_starts=1, random_state=0)
    refined = RefinedInverter(inner, decay(noise=NOISE), n_draws=3, random_state=0)
    refined.fit(readings)
    calls = press_at(GradientInverter, "_answer", 10**9)
    (starts,) = refined._per_sample(readings, None, np.empty((2, 0)))
    assert starts.shape == (2, 4, 2)
    assert len(calls) == 1


def test_draws_need_a_posterior(decay, make_pairs):
    readings, params = make_pairs(3)
    refined = RefinedInverter(CMAESInverter(decay()), decay(), n_draws=3)
    with pytest.raises(ValueError, match="CMAESInverter, which has none"):
        refined.fit(readings, params)


def test_a_model_of_another_shape_is_refused(decay, make_pairs):
    readings, params = make_pairs(3)
    refined = RefinedInverter(CMAESInverter(decay()), decay())
    with pytest.raises(ValueError, match=r"must agree in \(n_times"):
        refined.fit(readings[:, :5], params)


def test_a_frozen_inverter_and_a_pipeline_can_be_refined(decay, make_pairs):
    readings, params = make_pairs(4, NOISE)
    rough = CMAESInverter(decay(noise=NOISE), tol=0.1, random_state=0)
    flat = FunctionTransformer(lambda r: r.reshape(len(r), -1))
    frozen = FrozenEstimator(rough.fit(readings))
    found = []
    for inner in (frozen, make_pipeline(flat, rough)):
        refined = RefinedInverter(inner, decay(noise=NOISE), random_state=0)
        found.append(refined.fit(readings, params).predict(readings))
    np.testing.assert_allclose(*found, rtol=1e-4)
    assert np.abs(found[0] - params).max() < 0.1


def test_warnings_of_the_first_inverter_are_not_passed_on(decay, make_pairs):
    readings, _ = make_pairs(3, NOISE)
    hasty = CMAESInverter(decay(noise=NOISE), max_iter=2, random_state=0)
    refined = RefinedInverter(hasty, decay(noise=NOISE), random_state=0).fit(readings)
    assert refined.posterior(readings).explained.all()  # warnings are errors here
    with pytest.warns((ConvergenceWarning, MisfitWarning)):
        refined.inverter_.predict(readings)


def test_ctrl_c_in_the_first_search_ends_the_refinement_too(
    decay, make_pairs, press_at
):
    readings, _ = make_pairs(6, NOISE)
    inner = CMAESInverter(decay(noise=NOISE), random_state=0)
    refined = RefinedInverter(inner, decay(noise=NOISE), random_state=0).fit(readings)
    calls = press_at(decay, "forward", 5)
    with pytest.warns(match="0 of 6 samples were inverted"):
        answer = refined.posterior(readings)
    assert (answer.status == InversionStatus.INTERRUPTED).all()
    assert len(calls) < 9
    assert (answer.n_readings == 8).all()


def waves(params):
    t = torch.linspace(0.0, 10.0, 41, dtype=torch.float64)
    return torch.sin(params * t)


@pytest.mark.parametrize("spoiled", [False, True])
def test_a_growing_horizon_is_tried_where_the_estimate_misleads(spoiled, press_at):
    model = ForwardFunction(waves, params={"w": (0.5, 8.0)}, noise=0.1)
    truth, start = (4.3, 3.0) if not spoiled else (4.3, 4.2)
    readings = model.fit(None).simulate([[truth]])
    refined = RefinedInverter(Guess((start,)), model, random_state=0).fit(readings)
    retried = press_at(_refined, "continuation", 10**9)
    answer = refined.posterior(readings)
    assert len(retried) == (not spoiled)
    assert answer.explained.all()
    np.testing.assert_allclose(answer.params, truth, rtol=1e-2)


def test_refinement_does_not_repeat_itself(decay, make_pairs, press_at):
    readings, _ = make_pairs(3, NOISE)
    few = readings.copy()
    few[:, 3:] = np.nan  # less than a first stage holds: there is but one
    few[:, 1] += 1.0
    refined = RefinedInverter(Guess(), decay(noise=NOISE), random_state=0).fit(few)
    calls = press_at(_refined, "continuation", 10**9)
    with pytest.warns(MisfitWarning):
        assert not refined.posterior(few).explained.any()
    assert calls == []
