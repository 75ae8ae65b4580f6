"""RefinedInverter starts where it is told, and ends at the exact optimum."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator

from sklearn_inverse import CMAESInverter, GradientInverter, RefinedInverter


class Guess(BaseEstimator):
    """An inverter that always says the same; no better than its box."""

    def __init__(self, value=(1.0, 1.0), box=None, draws=None):
        self.value = value
        self.box = box
        self.draws = draws

    def fit(self, observations, params):
        self.scaler_ = self.box
        return self

    def predict(self, observations):
        return np.tile(np.asarray(self.value, dtype=float), (len(observations), 1))


class GuessWithDraws(Guess):
    """The same with a posterior of two points."""

    def sample(self, observations, n_draws):
        return np.tile(np.asarray(self.draws)[:n_draws], (len(observations), 1, 1))


def test_any_start_leads_to_the_same_end(decay, make_pairs):
    readings, params = make_pairs(6, 0.02)
    exact = GradientInverter(decay(), noise_std=0.02, tol=1e-9, random_state=0)
    mean, std = exact.fit(readings, params).predict(readings, return_std=True)
    for value in [(1.0, 1.0), (0.6, 2.5), (np.nan, np.nan)]:
        refined = RefinedInverter(
            Guess(value, box=decay().scaler_),
            decay(),
            noise_std=0.02,
            tol=1e-9,
            random_state=0,
        ).fit(readings, params)
        found, sd = refined.predict(readings, return_std=True)
        np.testing.assert_allclose(found, mean, rtol=1e-4)
        np.testing.assert_allclose(sd, std, rtol=1e-3)


def test_the_misfit_before_and_after_is_told(decay, make_pairs):
    readings, params = make_pairs(4, 0.02)
    refined = RefinedInverter(
        Guess((0.8, 2.0), box=decay().scaler_), decay(), noise_std=0.02, random_state=0
    ).fit(readings, params)
    result = refined.invert(readings)
    off = (decay().simulate(np.tile([0.8, 2.0], (4, 1))) - readings) / 0.02
    np.testing.assert_allclose(result.start_misfit, (off**2).sum((1, 2)), rtol=1e-6)
    assert (result.misfit < 25).all()
    assert (result.n_linearized > 1).all()
    assert (result.n_forward > result.n_linearized).all()


def test_noise_and_box_are_the_inverters_own(decay, make_pairs):
    readings, params = make_pairs(4, 0.02)
    inner = CMAESInverter(
        decay(), bounds=[[0.6, 1.9], [0.2, 2.9]], noise_std=0.02, random_state=0
    )
    refined = RefinedInverter(inner, decay(), random_state=0).fit(readings, params)
    assert refined.scaler_ == refined.inverter_.scaler_
    result = refined.invert(readings)
    assert result.explained.all()
    refined.set_params(inverter__noise_std=0.2, noise_std=None).fit(readings, params)
    # Ten times the noise: a hundredth of the misfit, but for the prior's pull.
    assert (refined.invert(readings).misfit < result.misfit / 3).all()


def test_draws_are_tried_where_the_estimate_cannot_be_simulated(decay, make_pairs):
    readings, params = make_pairs(3, 0.02)
    readings, params = readings[params[:, 1] < 2], params[params[:, 1] < 2]
    model = decay(fails_above=0.7)
    bad, good = (1.0, 2.9), (1.0, 1.0)
    inner = GuessWithDraws(bad, box=decay().scaler_, draws=[bad, good])
    refined = RefinedInverter(
        inner, model, n_particles=2, noise_std=0.02, random_state=0
    ).fit(readings, params)
    with pytest.warns(match="failed at .* starts of .* dropped. 0 samples"):
        result = refined.invert(readings)
    assert (result.n_failed == 2).all()
    assert result.explained.all()


def test_draws_need_a_posterior(decay, make_pairs):
    readings, params = make_pairs(3)
    refined = RefinedInverter(CMAESInverter(decay()), decay(), n_particles=3)
    with pytest.raises(ValueError, match="CMAESInverter, which has none"):
        refined.fit(readings, params)


def test_a_simulator_of_another_shape_is_refused(decay, make_pairs):
    readings, params = make_pairs(3)
    refined = RefinedInverter(CMAESInverter(decay()), decay())
    with pytest.raises(ValueError, match=r"must agree in \(n_times"):
        refined.fit(readings[:, :5], params)
