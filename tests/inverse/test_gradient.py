"""GradientInverter reaches the Bayes limit, knows how sure to be, and is global."""

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator

from sklearn_inverse import (
    GradientInverter,
    ODESimulator,
    ReactionSystem,
    RefinedInverter,
)
from sklearn_inverse.datasets import make_inverse_problem
from sklearn_inverse.exceptions import BoundsWarning
from sklearn_inverse.problems import pollu
from sklearn_inverse.utils._scaling import ParamScaler

pytest.importorskip("numba")  # in torch alone these would take minutes

TRUTH = np.array([1.5, 1.0, 3.0, 1.0])


def hard_lotka_volterra(n_times):
    """Ten periods: out of phase by one is a local optimum."""
    return ReactionSystem(
        ["X -> 2 X", "X + Y -> Y", "Y ->", "X + Y -> X + 2 Y"],
        initial_state={"X": 1.0, "Y": 1.0},
        nominal=TRUTH,
        bounds=[[0.01, 10.0]] * 4,
        scale="log10",
        times=np.linspace(0.0, 30.0, n_times),
    )


@pytest.fixture(scope="module")
def snapshots():
    """POLLU: 150 samples of three full snapshots with 1 % noise."""
    pairs = make_inverse_problem(
        pollu(),
        150,
        sampling="uniform",
        noise_std=0.01,
        relative_noise=True,
        n_observed=3,
        random_state=0,
    )
    return pairs


@pytest.mark.filterwarnings("ignore::sklearn_inverse.exceptions.BoundsWarning")
def test_pollu_errors_are_what_the_covariance_says(snapshots):
    inverter = GradientInverter(
        ODESimulator(pollu()), noise_std=snapshots.noise_std, random_state=0
    ).fit(snapshots.trajectories, snapshots.params)
    mean, std = inverter.predict(snapshots.observations, return_std=True)
    width = np.ptp(pollu().bounds, axis=1)
    error, std = (mean - snapshots.params) / width, std / width
    # 150 samples × 25 params, correlated: about 4 % and 1 %.
    assert np.mean(error**2) / np.mean(std**2) == pytest.approx(1.0, abs=0.12)
    assert np.mean(np.abs(error) < 1.6449 * std) == pytest.approx(0.90, abs=0.03)
    draws = inverter.sample(snapshots.observations, 200)
    assert draws.shape == (150, 200, 25)
    low, high = np.quantile(draws, [0.05, 0.95], axis=1)
    inside = (snapshots.params > low) & (snapshots.params < high)
    assert inside.mean() == pytest.approx(0.90, abs=0.04)
    assert (draws >= pollu().bounds[:, 0]).all()
    assert (draws <= pollu().bounds[:, 1]).all()


@pytest.mark.filterwarnings("ignore::sklearn_inverse.exceptions.BoundsWarning")
def test_refinement_ends_where_the_exact_search_does(snapshots):
    exact = GradientInverter(
        ODESimulator(pollu()), noise_std=snapshots.noise_std, random_state=0
    ).fit(snapshots.trajectories, snapshots.params)
    # Looser tolerances stand for the error of a surrogate.
    rough = GradientInverter(
        ODESimulator(pollu(), rtol=1e-3),
        noise_std=snapshots.noise_std,
        max_iter=5,
        random_state=0,
    )
    refined = RefinedInverter(rough, ODESimulator(pollu()), random_state=0)
    refined.fit(snapshots.trajectories, snapshots.params)
    few = snapshots.observations[:40]
    result, known = refined.invert(few), exact.invert(few)
    assert (result.misfit <= result.start_misfit * (1 + 1e-6)).mean() > 0.7
    sd = np.sqrt(np.einsum("npp->np", known.covariance)) * np.ptp(
        pollu().bounds, axis=1
    )
    assert np.median(np.abs(result.params - known.params) / sd) < 1e-2
    np.testing.assert_allclose(result.misfit, known.misfit, rtol=0.02)


@pytest.mark.parametrize("seed", range(4))
def test_a_growing_horizon_solves_hard_lotka_volterra(seed):
    system = hard_lotka_volterra(3001)
    readings = ODESimulator(system, rtol=1e-9).simulate(TRUTH[None])
    inverter = GradientInverter(
        ODESimulator(system, rtol=1e-7), start="random", n_starts=3, random_state=seed
    ).fit(np.repeat(readings, 2, axis=0), np.stack([TRUTH, TRUTH]))
    assert np.abs(inverter.predict(readings) / TRUTH - 1).max() < 1e-4


def test_hard_lotka_volterra_sparse_and_noisy_is_within_its_errors():
    system = hard_lotka_volterra(31)
    exact = ODESimulator(system, rtol=1e-6)
    clean = exact.simulate(TRUTH[None])
    noise = 0.05 * clean.std(axis=(0, 1))
    rng = np.random.default_rng(0)
    readings = clean + noise * rng.standard_normal((10, *clean.shape[1:]))
    readings[:, 0] = np.nan
    inverter = GradientInverter(
        exact, start="random", n_starts=3, noise_std=noise, random_state=1
    ).fit(np.repeat(clean, 2, axis=0), np.stack([TRUTH, TRUTH]))
    jacobian = (exact.sensitivities(TRUTH[None])[0] / noise[:, None])[1:].reshape(-1, 4)
    bound = np.sqrt(np.diag(np.linalg.inv(jacobian.T @ jacobian)))
    z = (inverter.predict(readings) - TRUTH) / bound
    assert np.sqrt(np.mean(z**2)) < 1.5
    assert np.abs(z).max() < 4.5


def test_fitting_all_at_once_is_trapped_and_says_so():
    system = hard_lotka_volterra(301)
    readings = ODESimulator(system).simulate(TRUTH[None])
    inverter = GradientInverter(
        ODESimulator(system), horizon="full", start="random", n_starts=2, random_state=0
    ).fit(np.repeat(readings, 2, axis=0), np.stack([TRUTH, TRUTH]))
    with pytest.warns() as caught:
        result = inverter.invert(readings)
    assert not result.explained[0]
    assert any("No params were found" in str(w.message) for w in caught)


def test_starts_end_with_the_first_that_explains(decay, make_pairs):
    readings, params = make_pairs(5, 0.01)
    costs = []
    for n_starts in (1, 5):
        inverter = GradientInverter(
            decay(), noise_std=0.01, n_starts=n_starts, random_state=0
        ).fit(readings, params)
        costs.append(inverter.invert(readings).n_forward.tolist())
    assert costs[0] == costs[1]


def test_a_start_can_be_given(decay, make_pairs):
    readings, params = make_pairs(3, 0.01)
    inverter = GradientInverter(
        decay(), noise_std=0.01, start=params[0], random_state=0
    ).fit(readings, params)
    result = inverter.invert(np.repeat(decay().simulate(params[:1]), 2, axis=0))
    assert (result.start_misfit < 1e-6).all()
    assert (result.n_iter <= 3).all()
    for start, message in [
        ([1.0], r"finite params of shape \(n_params,\) = \(2,\)"),
        ([9.0, 1.0], "within its bounds"),
        ("middle", "start"),
    ]:
        with pytest.raises(ValueError, match=message):
            inverter.set_params(start=start).fit(readings, params)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_the_papers_baseline_averages_its_starts_and_claims_no_certainty(
    optimizer, decay, make_pairs
):
    readings, params = make_pairs(4)
    inverter = GradientInverter(
        decay(), optimizer=optimizer, n_starts=20, noise_std=0.2, random_state=0
    ).fit(readings, params)
    result = inverter.invert(readings)
    assert result.n_iter.tolist() == [20 * 100] * 4
    # Adam gets there in a hundred steps; SGD, of one step size for all, swings about.
    assert np.abs(result.params - params).mean() < (0.1 if optimizer == "adam" else 0.6)
    alone = GradientInverter(
        decay(),
        optimizer=optimizer,
        start=[1.0, 1.0],
        n_starts=1,
        noise_std=0.2,
        random_state=0,
    ).fit(readings, params)
    assert np.abs(alone.predict(readings) - result.params).max() > 1e-6
    with pytest.raises(
        AttributeError, match=r"gives no uncertainty. Use 'gauss_newton"
    ):
        inverter.predict(readings, return_std=True)
    assert not hasattr(inverter, "sample")
    assert hasattr(inverter.set_params(optimizer="lbfgs"), "sample")


def test_both_curved_searches_find_the_same_maximum_and_covariance(decay, make_pairs):
    readings, params = make_pairs(6, 0.05)
    found = [
        GradientInverter(
            decay(), optimizer=optimizer, tol=1e-10, noise_std=0.05, random_state=0
        )
        .fit(readings, params)
        .predict(readings, return_std=True)
        for optimizer in ("gauss_newton", "lbfgs")
    ]
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-4)
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-3)


def test_the_posterior_of_a_linear_model_is_exact():
    """The model is y = k t: mean and variance are known in closed form."""
    times = np.array([0.5, 1.0, 2.0])

    class Linear(BaseEstimator):
        n_times_, n_channels_, n_params_ = 3, 1, 1
        scaler_ = ParamScaler([[0.0, 4.0]])

        def forward(self, unit):
            return (4 * unit * torch.as_tensor(times))[..., None]

        def linearize(self, unit):
            slope = 4 * torch.as_tensor(times)[None, :, None, None]
            return self.forward(unit), slope.expand(len(unit), -1, -1, -1)

        def simulate(self, params):
            return (params * times)[..., None]

    k = np.array([1.0, 2.5])
    readings = k[:, None] * times + 0.3
    inverter = GradientInverter(Linear(), tol=1e-12, noise_std=0.5, random_state=0)
    inverter.fit(readings, k)
    mean, std = inverter.predict(readings, return_std=True)
    precision = (times**2).sum() / 0.25 + 12 / 16
    expected = (readings @ times / 0.25 + 2.0 * 12 / 16) / precision
    np.testing.assert_allclose(mean, expected, rtol=1e-4)
    np.testing.assert_allclose(std, 1 / np.sqrt(precision), rtol=1e-4)
    draws = inverter.sample(readings, 4000)
    assert draws.shape == (2, 4000)
    np.testing.assert_allclose(draws.std(axis=1), std, rtol=0.05)


def test_a_surrogates_own_error_widens_the_posterior(decay, make_pairs):
    readings, params = make_pairs(5, 0.01)

    class Erring(decay):
        error_ = np.array([0.1])

    stds = [
        GradientInverter(model, noise_std=0.01, random_state=0)
        .fit(readings, params)
        .predict(readings, return_std=True)[1]
        for model in (decay(), Erring())
    ]
    assert (stds[1] > 3 * stds[0]).all()


def test_bounds_narrower_than_the_simulators_hold(decay, make_pairs):
    readings, params = make_pairs(4)
    params[:, 1] = np.clip(params[:, 1], 0.9, 1.2)
    readings = decay().simulate(params)
    inverter = GradientInverter(
        decay(), bounds=[[0.5, 2.0], [0.9, 1.2]], noise_std=0.01, random_state=0
    ).fit(readings, params)
    outside = decay().simulate([[1.0, 2.5]])
    with pytest.warns() as caught:
        estimate = inverter.predict(outside)
    assert any(w.category is BoundsWarning for w in caught)
    assert estimate[0, 1] == pytest.approx(1.2)
