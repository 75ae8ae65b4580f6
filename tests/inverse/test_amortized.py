"""Amortized answers are posteriors of the model, and say what is of another kind."""

import copy
import warnings

import joblib
import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator

from sklearn_inverse import (
    ADMInverter,
    Design,
    ForwardFunction,
    GradientInverter,
    ODESurrogate,
    ODESystem,
    Operator,
    Training,
)
from sklearn_inverse.exceptions import ExtrapolationWarning, MisfitWarning
from sklearn_inverse.inverse._amortized import StoredPairs
from sklearn_inverse.probability import LogNormal

TIMES = np.linspace(0.0, 3.0, 12)
NOISE = 0.03
PARAMS = {"a": LogNormal(1.0, 0.3), "k": (0.3, 2.0)}


def decay(p):
    return p[:, :1] * torch.exp(-p[:, 1:] * torch.as_tensor(TIMES))


def exact(function=decay, noise=NOISE):
    return ForwardFunction(function, PARAMS, noise=noise).fit(None)


def draw(n_samples, seed, noise=0.0, model=None):
    model = model or exact()
    rng = np.random.RandomState(seed)
    params = model.prior_.draw(n_samples, rng)
    means = model.simulate(params)
    return means + noise * rng.standard_normal(means.shape), params


def train(model, n_observed=12, **options):
    """Return an inverter whose network has learned next to nothing."""
    inverter = ADMInverter(
        model,
        design=Design(n_observed=n_observed),
        training=Training(max_epochs=1, batch_size=64),
        **{"n_steps": 2, "width": 16, "n_blocks": 1, "random_state": 0} | options,
    )
    return inverter.fit(*draw(500, seed=0))


@pytest.fixture(scope="module")
def trained():
    return train(exact())


READINGS, TRUTHS = draw(200, seed=1, noise=NOISE)


def test_the_posterior_is_that_of_the_model_however_little_was_learned(trained):
    answer = trained.posterior(READINGS[:50])
    search = GradientInverter(exact(), random_state=0).fit(READINGS)
    expected = search.posterior(READINGS[:50])
    assert {*answer.kind, *expected.kind} == {"laplace"}
    off = np.abs(answer.mean - expected.mean) / expected.std
    assert off.max() < 0.03
    np.testing.assert_allclose(answer.std, expected.std, rtol=0.02)
    assert np.median(answer.n_iter) <= 3
    assert answer.n_optima.max() == 1


@pytest.mark.filterwarnings("ignore::sklearn_inverse.exceptions.MisfitWarning")
def test_what_was_learned_alone_says_so(trained):
    learned = copy.copy(trained).set_params(kind="learned")
    answer = learned.posterior(READINGS[:5])
    assert set(answer.kind) == {"learned"}
    assert (answer.n_linearized == 0).all()
    assert "learned" in str(answer[0])
    # Its residuals follow a course, of which the network may be the reason.
    high = READINGS[:5] + 5
    answer = learned.posterior(high)
    residual = (high - exact().simulate(answer.params)) / NOISE
    products = (residual[:, 1:] * residual[:, :-1]).sum(axis=1)
    assert (products > 0.85 * (residual**2).sum(axis=1)).any()
    assert np.isnan(answer.residual_correlation).all()


def test_runs_at_draws_check_it(trained):
    answer = copy.copy(trained).set_params(max_solves=200).posterior(READINGS[:3])
    assert (answer.n_drawn == 200).all()
    assert (answer.is_confirmed == (answer.overlap >= 0.9)).all()
    assert answer.is_confirmed.any()


def test_a_search_sets_out_from_the_nearest_stored_pair():
    quantiles = torch.arange(300.0)[:, None] / 300
    times = torch.arange(1.0, 7.0)[:, None]
    trajectories = quantiles[:, None] * times
    stored = StoredPairs(quantiles, trajectories, np.array([0.1]), n_stored=100)
    assert stored.step == 3
    truth = quantiles[[3, 78, 201]] + 1e-3
    readings = (truth[:, None] * times).float()
    mask = torch.ones_like(readings)
    mask[:, 2:] = 0.0
    near = stored.nearest(readings * mask, mask)
    assert near.tolist() == [1, 26, 67]
    assert stored.nearest((readings * mask)[1:2], mask[1:2]).tolist() == [26]
    # A training pair is not its own neighbor, but where it is not stored.
    others = stored.nearest(readings * mask, mask, torch.tensor([3, 77, 201]))
    assert others[0] in (0, 2)
    assert others[1] == 26
    assert others[2] in (66, 68)


@pytest.mark.filterwarnings("ignore::sklearn_inverse.exceptions.ExtrapolationWarning")
@pytest.mark.parametrize(("n_read", "n_ways"), [(3, 2), (12, 1)])
def test_two_ways_must_meet_where_readings_are_few(trained, n_read, n_ways):
    readings = READINGS[:20].copy()
    readings[:, n_read:] = np.nan
    answer = trained.posterior(readings)
    assert answer.explained.all()
    assert (answer.n_confirmed >= n_ways).all()
    assert np.median(answer.n_confirmed) == n_ways


@pytest.mark.filterwarnings("ignore::sklearn_inverse.exceptions.ExtrapolationWarning")
def test_a_search_that_was_led_astray_begins_anew():
    # Ten pairs, and a wave with eight optima: neither start is near the right one.
    times = torch.as_tensor(TIMES)
    params = {"w": (0.5, 12.0), "b": (-1.0, 1.0)}
    model = ForwardFunction(
        lambda p: torch.sin(p[:, :1] * times) + p[:, 1:], params, noise=0.02
    ).fit(None)
    rng = np.random.RandomState(0)
    pairs, truth = (model.prior_.draw(n, rng) for n in (10, 12))
    inverter = ADMInverter(
        model,
        design=Design(n_observed=12),
        training=Training(max_epochs=1, batch_size=8, validation_fraction=None),
        n_steps=2,
        width=16,
        n_blocks=1,
        random_state=0,
    ).fit(model.simulate(pairs), pairs)
    answer = inverter.invert(model.simulate(truth))
    assert answer.explained.all()
    np.testing.assert_allclose(answer.mean, truth, atol=0.1)


def test_samples_answered_together_or_alone_are_the_same(trained):
    together = trained.posterior(READINGS)
    for i in (0, 63, 199):
        alone = trained.posterior(READINGS[i : i + 1])
        np.testing.assert_allclose(alone.mean[0], together.mean[i], rtol=1e-9)
        np.testing.assert_allclose(alone.std[0], together.std[i], rtol=1e-9)


# --- is it of my kind?


def growth(p):
    return 2 / (1 + torch.exp(-p[:, 1:] * (torch.as_tensor(TIMES) - 2)))


SPOILED = {
    "times 10": lambda r, m: 10 * r,
    "constant": lambda r, m: r.mean(axis=1, keepdims=True) + 0 * r,
    "negated": lambda r, m: -r,
    "backward": lambda r, m: r[:, ::-1],
    "noisier": lambda r, m: m + 3 * (r - m),
    "outlier": lambda r, m: r + 20 * NOISE * (np.arange(12) == 5)[:, None],
    "another model's": lambda r, m: draw(200, 1, NOISE, exact(growth))[0],
}


@pytest.mark.filterwarnings("ignore::sklearn_inverse.exceptions.ExtrapolationWarning")
@pytest.mark.filterwarnings("ignore::sklearn_inverse.exceptions.BoundsWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
@pytest.mark.parametrize("method", ["adm", "search"])
def test_readings_of_another_kind_are_told_and_get_wider_errors(spoil, method, trained):
    inverter = trained
    if method == "search":
        inverter = GradientInverter(exact(), n_starts=1, random_state=0).fit(READINGS)
    few = slice(60)
    clean = inverter.posterior(READINGS[few])
    readings = spoil(READINGS, exact().simulate(TRUTHS))[few]
    with pytest.warns(MisfitWarning, match=r"rows 0, 1, .* and \d+ more\)"):
        answer = inverter.posterior(readings)
    assert (~answer.explained).mean() > 0.9
    assert ((answer.std > clean.std) | answer.explained[:, None]).mean() > 0.97


@pytest.fixture(scope="module")
def steady():
    training = Training(max_epochs=20, batch_size=64)
    options = {"kind": "learned", "width": 32, "n_steps": 3, "training": training}
    inverter = ADMInverter(
        exact(), design=Design(n_observed=12), random_state=0, **options
    )
    return inverter.fit(*draw(2000, seed=0))


@pytest.mark.filterwarnings("ignore::sklearn_inverse.exceptions.ExtrapolationWarning")
def test_what_was_learned_is_judged_by_what_is_usual(steady):
    assert steady._slacks["learned"] > 1.0  # its estimates are not those of a search
    with pytest.warns(MisfitWarning, match="60 of 60 samples"):
        answer = steady.posterior(10 * READINGS[:60])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MisfitWarning)
        clean = steady.posterior(READINGS[:60])
    assert (answer.std > clean.std).mean() > 0.9
    assert (answer.n_linearized == 0).all()


@pytest.mark.filterwarnings("ignore::sklearn_inverse.exceptions.MisfitWarning")
@pytest.mark.parametrize("n_observed", [2, 12])
def test_readings_of_the_model_are_no_cause_of_alarm(n_observed, trained, steady):
    readings, _ = draw(1000, seed=5, noise=NOISE)
    readings[:, n_observed:] = np.nan
    inverters = [trained, GradientInverter(exact(), n_starts=1).fit(readings)]
    if n_observed == 12:
        inverters.append(steady)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExtrapolationWarning)
        for inverter in inverters:
            assert (~inverter.posterior(readings).explained).mean() < 0.01


def test_a_pattern_that_was_not_trained_for_is_told():
    inverter = train(exact(), n_observed=(3, 5))
    readings = np.repeat(READINGS[:2], 2, axis=0)
    readings[:, 4:] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        inverter.predict(readings)
    sparser, denser = readings.copy(), readings.copy()
    sparser[1, 2:] = np.nan
    denser[2] = READINGS[0]
    for other, message in (
        (sparser, "1 of 4 samples, the first in row 1, are read in a sparser pattern"),
        (denser, "1 of 4 samples, the first in row 2, are read in a denser pattern"),
    ):
        with pytest.warns(ExtrapolationWarning, match=message):
            inverter.predict(other)


# --- which model is searched


class NoWayBack(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()


def test_a_model_without_derivatives_is_refused_with_advice():
    def closed(p):
        return decay(NoWayBack.apply(p))

    with pytest.raises(ValueError, match="Set kind='learned', which only evaluates"):
        train(exact(closed))
    inverter = train(exact(closed), kind="learned")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert np.isfinite(inverter.predict(READINGS)).all()


def test_a_surrogate_of_a_compiled_system_leads_to_the_exact_posterior():
    def rhs(t, y, p):
        return -p.k * y.left

    system = ODESystem(
        rhs, states={"left": "a"}, params=PARAMS, times=TIMES, noise=NOISE
    )
    rough = ODESurrogate(
        system,
        network=Operator(width=8, n_layers=1, embedding=16),
        n_basis=3,
        basis_epochs=20,
        training=Training(max_epochs=1),
        random_state=0,
    )
    with pytest.warns(MisfitWarning, match="error is not small beside the noise"):
        rough.fit(*draw(500, seed=0))
    inverter = train(FrozenEstimator(rough))
    answer = inverter.posterior(READINGS[:20])
    expected = GradientInverter(system, random_state=0).fit(READINGS)
    expected = expected.posterior(READINGS[:20])
    assert (np.abs(answer.mean - expected.mean) < 0.03 * expected.std).all()
    assert inverter.model_ is rough


def test_stored_pairs_are_few_and_travel_along(trained, tmp_path):
    assert len(trained._pairs.quantiles) == 450
    joblib.dump(trained._pairs, tmp_path / "pairs.joblib")
    assert (tmp_path / "pairs.joblib").stat().st_size < 2 * 4 * 450 * 14
