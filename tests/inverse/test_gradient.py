"""Gauss–Newton and L-BFGS find optima and are as sure as they say."""

import numpy as np
import pytest
import torch
from scipy import stats

from sklearn_inverse import (
    ForwardFunction,
    GradientInverter,
    ODESimulator,
    ODESystem,
    ReactionSystem,
)
from sklearn_inverse.datasets import add_noise, mask_observations
from sklearn_inverse.probability import (
    HalfNormal,
    LogNormal,
    LogUniform,
    Normal,
    Poisson,
    StudentT,
)
from sklearn_inverse.problems import pollu

TRUTH = np.array([1.5, 1.0, 3.0, 1.0])


def hard_lotka_volterra(n_times, noise=None):
    """Ten periods: out of phase by one is a local optimum."""
    return ReactionSystem(
        {
            "X -> 2 X": "a",
            "X + Y -> Y": "b",
            "Y ->": "c",
            "X + Y -> X + 2 Y": "d",
        },
        initial={"X": 1.0, "Y": 1.0},
        params=dict.fromkeys("abcd", LogUniform(0.01, 10.0)),
        times=np.linspace(0.0, 30.0, n_times),
        noise=noise,
    )


@pytest.fixture(scope="module")
def snapshots():
    """POLLU: 100 samples of three full snapshots with 1 % noise."""
    system = pollu()
    params = system.prior.draw(100, np.random.RandomState(0))
    clean = ODESimulator(system).simulate(params)
    noise_std = 0.01 * clean.std(axis=(0, 1))
    noisy = add_noise(clean, noise_std, random_state=1)
    return mask_observations(noisy, n_observed=3, random_state=2), params, noise_std


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn_inverse.exceptions.BoundsWarning")
def test_pollu_errors_are_what_the_posterior_says(snapshots):
    readings, params, noise_std = snapshots
    inverter = GradientInverter(pollu(), n_starts=1, random_state=0).fit(readings)
    posterior = inverter.posterior(readings, noise_std=noise_std)
    width = np.ptp(pollu().bounds, axis=1)
    error, std = (posterior.mean - params) / width, posterior.std / width
    # 100 samples × 25 params, correlated: about 5 % and 1 %.
    assert np.mean(error**2) / np.mean(std**2) == pytest.approx(1.0, abs=0.12)
    lower, upper = posterior.interval(0.9)
    inside = (params > lower) & (params < upper)
    assert inside.mean() == pytest.approx(0.90, abs=0.03)
    draws = posterior.sample(50)
    assert (draws >= pollu().bounds[:, 0]).all()
    assert (draws <= pollu().bounds[:, 1]).all()
    # Params that three snapshots tell nothing of are said to be known by the prior.
    assert "only by its prior" in str(posterior[0])


@pytest.mark.parametrize("seed", range(3))
def test_continuation_solves_hard_lotka_volterra(seed):
    system = hard_lotka_volterra(301)
    readings = ODESimulator(system, rtol=1e-9).simulate(TRUTH[None])
    inverter = GradientInverter(
        ODESimulator(system, rtol=1e-7), start="random", n_starts=3, random_state=seed
    ).fit(readings)
    assert np.abs(inverter.predict(readings) / TRUTH - 1).max() < 1e-4


def test_hard_lotka_volterra_sparse_and_noisy_is_within_its_errors():
    exact = ODESimulator(hard_lotka_volterra(31))
    clean = exact.simulate(TRUTH[None])
    noise = 0.05 * clean.std(axis=(0, 1))
    rng = np.random.default_rng(0)
    readings = clean + noise * rng.standard_normal((10, *clean.shape[1:]))
    readings[:, 0] = np.nan
    inverter = GradientInverter(exact, random_state=1).fit(readings)
    jacobian = (exact.sensitivities(TRUTH[None])[0] / noise[:, None])[1:].reshape(-1, 4)
    bound = np.sqrt(np.diag(np.linalg.inv(jacobian.T @ jacobian)))
    z = (inverter.predict(readings, noise_std=noise) - TRUTH) / bound
    assert np.sqrt(np.mean(z**2)) < 1.5
    assert np.abs(z).max() < 4.5


@pytest.mark.filterwarnings("ignore::sklearn_inverse.exceptions.BoundsWarning")
@pytest.mark.filterwarnings("ignore::sklearn_inverse.exceptions.MisfitWarning")
def test_the_best_of_many_optima_is_found_by_drawing_a_few_params_anew():
    """Six waves, read twice: each has optima of its own, and few starts hit all six."""
    times = torch.tensor([1.0, 2.3], dtype=torch.float64)

    def waves(frequency):
        return torch.sin(frequency[..., None, :] * times[:, None])

    model = ForwardFunction(
        waves, params={f"w{i}": (0.5, 3.5) for i in range(6)}, noise=0.01
    )
    rng = np.random.default_rng(0)
    truth = rng.uniform(0.6, 3.4, (12, 6))
    measured = waves(torch.tensor(truth)).numpy() + rng.normal(0, 0.01, (12, 2, 6))
    share = []
    for n_starts in ("adaptive", 12):
        inverter = GradientInverter(
            model, n_starts=n_starts, max_solves=0, chunk_size=5, random_state=0
        ).fit(measured)
        answer = inverter.invert(measured)
        right = (np.abs(answer.params - truth) < 0.1).all(axis=1)
        assert (answer.explained == right).all()
        share.append(right.mean())
        alone = inverter.invert(measured[3:4])
        assert alone.n_forward[0] == answer.n_forward[3]  # whoever is with it
    assert share[0] >= 0.75
    assert share[1] <= 0.5


def test_fitting_all_at_once_is_trapped_and_says_so():
    system = hard_lotka_volterra(301, noise=0.01)
    readings = ODESimulator(system).simulate(TRUTH[None])
    inverter = GradientInverter(
        system, continuation=False, start="random", n_starts=2, random_state=0
    ).fit(readings)
    with pytest.warns() as caught:
        posterior = inverter.posterior(readings)
    assert not posterior.explained[0]
    assert any("No params were found" in str(w.message) for w in caught)


def test_starts_that_agree_end_an_adaptive_search(decay, make_pairs):
    readings, _ = make_pairs(5, noise=0.02)
    posterior = GradientInverter(decay(noise=0.02)).fit(readings).posterior(readings)
    assert (posterior.n_confirmed == 6).all()
    assert (posterior.n_optima == 1).all()


def test_a_start_can_be_given(decay, make_pairs):
    readings, params = make_pairs(2)
    model = decay(noise=1e-3)
    there = GradientInverter(model, start=params[0], n_starts=1).fit(readings)
    assert there.posterior(readings[:1]).start_misfit[0] < 1e-6
    outside = GradientInverter(model, start=[9.0, 1.0])
    with pytest.raises(ValueError, match="within its prior's support"):
        outside.fit(readings)
    with pytest.raises(ValueError, match=r"shape \(n_params,\) = \(2,\)"):
        GradientInverter(model, start=[1.0]).fit(readings)


def test_both_optimizers_find_the_same_maximum_and_covariance(decay, make_pairs):
    readings, _ = make_pairs(4, noise=0.05)
    newton, descent = (
        GradientInverter(decay(noise=0.05), optimizer=optimizer, tol=1e-10, n_starts=1)
        .fit(readings)
        .posterior(readings)
        for optimizer in ("gauss_newton", "lbfgs")
    )
    np.testing.assert_allclose(descent.params, newton.params, rtol=1e-3)
    np.testing.assert_allclose(descent.std, newton.std, rtol=1e-2)


def linear(priors, noise):
    """Return readings that are linear in the params: the posterior is known."""
    design = torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0], [1.0, 3.0]]).double()
    return ForwardFunction(lambda k: k @ design.T, params=priors, noise=noise), design


def test_the_posterior_of_a_linear_model_is_exact():
    priors = {"level": Normal(1.0, 0.5), "slope": Normal(0.0, 0.3)}
    model, design = linear(priors, 0.2)
    readings = np.array([[0.7, 1.1, np.nan, 2.2]])
    posterior = GradientInverter(model).fit(readings).posterior(readings)
    rows = design.numpy()[[0, 1, 3]]
    precision = rows.T @ rows / 0.04 + np.diag([4.0, 1 / 0.09])
    mean = np.linalg.solve(
        precision, rows.T @ readings[0, [0, 1, 3]] / 0.04 + [4.0, 0.0]
    )
    np.testing.assert_allclose(posterior.mean[0], mean, rtol=1e-5)
    std = np.sqrt(np.diag(np.linalg.inv(precision)))
    np.testing.assert_allclose(posterior.std[0], std, rtol=1e-5)


@pytest.mark.parametrize("prior", [LogNormal(2.0, 0.7), HalfNormal(1.5)], ids=repr)
def test_readings_that_tell_nothing_leave_the_prior(prior):
    model = ForwardFunction(
        lambda k: 0 * k[:, :1] + 1.0, params={"k": prior}, noise=0.1
    )
    posterior = GradientInverter(model, n_starts=1).fit([[1.02]]).posterior([[1.02]])
    levels = np.array([0.05, 0.5, 0.95])
    np.testing.assert_allclose(
        posterior.quantile(levels)[:, 0, 0],
        prior.from_standard(stats.norm.ppf(levels)),
        rtol=1e-5,
    )


@pytest.mark.parametrize("prior", ["model", None])
def test_unknown_noise_is_estimated_without_bias(prior):
    """Straight lines: SSE / (n - p) is the noise, on average, and what is said."""
    priors = {"level": Normal(0.0, 50.0), "slope": Normal(0.0, 50.0)}
    model, design = linear(priors, None)
    rng = np.random.default_rng(0)
    params = rng.normal(size=(150, 2))
    readings = params @ design.numpy().T + 0.1 * rng.standard_normal((150, 4))
    inverter = GradientInverter(model, n_starts=1, prior=prior).fit(readings)
    posterior = inverter.posterior(readings)
    variance = np.mean(posterior.noise_scale**2)
    assert variance == pytest.approx(0.01, rel=0.2)
    slope, residuals, *_ = np.linalg.lstsq(design.numpy(), readings.T)
    np.testing.assert_allclose(posterior.params, slope.T, atol=1e-4)
    np.testing.assert_allclose(
        posterior.noise_scale[:, 0] ** 2, residuals / 2, rtol=0.02
    )


def test_noise_given_with_readings_replaces_the_models(decay, make_pairs):
    readings, _ = make_pairs(3, noise=0.02)
    inverter = GradientInverter(decay(noise=0.5), n_starts=1).fit(readings)
    stated = GradientInverter(decay(noise=0.02), n_starts=1).fit(readings)
    given = inverter.posterior(readings, noise_std=0.02)
    np.testing.assert_allclose(given.std, stated.posterior(readings).std, rtol=1e-6)
    per_reading = np.full(readings.shape, 0.02)
    per_reading[:, 3:] = 1e3  # as good as not measured
    few = readings.copy()
    few[:, 3:] = np.nan
    np.testing.assert_allclose(
        inverter.predict(readings, noise_std=per_reading),
        stated.predict(few),
        rtol=1e-3,
    )


@pytest.mark.filterwarnings("ignore::sklearn_inverse.exceptions.MisfitWarning")
def test_counts_and_heavy_tails_are_weighed_as_they_scatter(decay):
    rng = np.random.default_rng(0)
    params = {"a": (50.0, 200.0), "k": (0.1, 3.0)}
    model = decay(params, noise=Poisson())
    truth = model.prior_.from_quantile(rng.uniform(0.2, 0.8, (200, 2)))
    counts = rng.poisson(model.simulate(truth)).astype(float)
    inverter = GradientInverter(model, n_starts=1).fit(counts)
    lower, upper = inverter.posterior(counts).interval(0.9)
    covered = ((lower < truth) & (truth < upper)).mean()
    assert covered == pytest.approx(0.9, abs=0.04)

    model = decay(noise=StudentT(2.5, 0.02))
    readings = model.simulate([[1.2, 1.0]])
    readings[0, 2] += 1.0  # fifty scales off
    posterior = GradientInverter(model).fit(readings).posterior(readings)
    np.testing.assert_allclose(posterior.params[0], [1.2, 1.0], atol=0.02)


def test_a_models_own_error_widens_the_posterior(decay, make_pairs):
    readings, _ = make_pairs(3, noise=0.02)
    sharp = decay(noise=0.02)
    blunt = decay(noise=0.02)
    blunt.error_ = np.array([0.06])
    blunt.__sklearn_clone__ = lambda: blunt
    spread = [
        GradientInverter(model, n_starts=1, prior=None)
        .fit(readings)
        .posterior(readings)
        .std
        for model in (sharp, blunt)
    ]
    ratio = np.hypot(0.02, 0.06) / 0.02
    np.testing.assert_allclose(spread[1] / spread[0], ratio, rtol=0.05)


@pytest.mark.parametrize("optimizer", ["gauss_newton", "lbfgs"])
@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_an_entry_that_is_not_finite_where_nothing_was_read_does_no_harm(
    backend, optimizer
):
    # log10 of B, which is zero at the start: its derivative there is no number.
    system = ReactionSystem(
        {"A -> B": "k1", "B -> C": "k2"},
        initial={"A": 1.0, "B": 0.0, "C": 0.0},
        params=dict.fromkeys(["k1", "k2"], LogUniform(0.05, 5.0)),
        times=np.append(0.0, np.linspace(0.5, 8.0, 16)),
        observe={"log B": lambda t, y, p: torch.log10(y[1])},
        noise=0.01,
    )
    t, k1, k2 = system.times[1:], 0.7, 0.25
    b = k1 / (k1 - k2) * (np.exp(-k2 * t) - np.exp(-k1 * t))
    readings = np.append(np.nan, np.log10(b))[None, :, None]
    inverter = GradientInverter(
        ODESimulator(system, backend=backend), optimizer=optimizer, n_starts=1
    )
    estimate = inverter.fit(readings).predict(readings)
    np.testing.assert_allclose(estimate, [[k1, k2]], atol=0.001)


def test_a_search_runs_a_traced_function_a_few_times_only_and_sees_it_change():
    known, calls = {"rate": 1.0}, []

    def decay(t, y, p):
        calls.append(1)
        return -known["rate"] * p.k * y.a

    system = ODESystem(
        decay,
        states={"a": 1.0},
        params={"k": (0.1, 5.0)},
        times=np.linspace(0, 2, 9),
        noise=0.01,
    )
    observations = np.exp(-1.5 * system.times)[None]
    inverter = GradientInverter(system, n_starts=3, random_state=0).fit(observations)
    calls.clear()
    posterior = inverter.posterior(observations)
    assert len(calls) < 10 < posterior.n_linearized[0]
    assert posterior.mean[0, 0] == pytest.approx(1.5, rel=1e-2)
    known["rate"] = 0.5
    assert inverter.posterior(observations).mean[0, 0] == pytest.approx(3.0, rel=1e-2)


def test_evidence_of_a_linear_model_is_that_of_its_readings():
    matrix = torch.tensor([[1.0, 0.3], [0.2, -1.0], [0.5, 0.5]], dtype=torch.float64)
    model = ForwardFunction(
        lambda p: p @ matrix.T, {"a": Normal(0.5, 2.0), "b": Normal(0, 1)}, noise=0.3
    )
    readings = np.array([[1.0, 0.2, -0.4], [0.1, 0.3, 0.2]])
    posterior = GradientInverter(model).fit(readings).posterior(readings)
    a = matrix.numpy()
    covariance = a @ np.diag([4.0, 1.0]) @ a.T + 0.09 * np.eye(3)
    exact = stats.multivariate_normal(a @ [0.5, 0.0], covariance).logpdf(readings)
    assert np.allclose(posterior.log_evidence, exact, rtol=1e-6)
    flat = GradientInverter(model, prior=None, max_solves=0).fit(readings)
    assert np.isnan(flat.posterior(readings).log_evidence).all()
    unstated = ForwardFunction(model.function, model.params)
    answer = GradientInverter(unstated, max_solves=0).fit(readings).posterior(readings)
    assert np.isnan(answer.log_evidence).all()  # no prior says how large noise may be


def test_evidence_counts_all_modes():
    model = ForwardFunction(
        lambda k: k**2 * torch.ones(3), params={"k": (-1, 1)}, noise=0.05
    )
    readings = np.array([[0.25, 0.3, 0.22]])
    posterior = GradientInverter(model, random_state=0).fit(readings)
    k = np.linspace(-1, 1, 2001)
    likelihood = stats.norm(k[:, None] ** 2, 0.05).pdf(readings).prod(axis=1)
    exact = np.log(np.trapezoid(likelihood / 2, k))
    assert posterior.posterior(readings).log_evidence == pytest.approx(exact, abs=0.02)


@pytest.mark.parametrize("noise", [1.0, None])
def test_a_chaotic_course_is_followed_slowly(noise):
    """Errors grow eightyfold from a half of the readings to all: doubling is too fast."""
    system = ODESystem(
        lambda t, y, p: [
            p.s * (y.y - y.x),
            y.x * (p.r - y.z) - y.y,
            y.x * y.y - p.b * y.z,
        ],
        states={"x": -8.0, "y": 7.0, "z": 27.0},
        params={"s": (5, 15), "r": (20, 40), "b": (1, 4)},
        times=np.linspace(0, 8, 161),
        observe=["x", "z"],
        noise=noise,
        name="lorenz",
    )
    clean = ODESimulator(system).simulate([[10, 28, 8 / 3]])
    readings = clean + np.random.default_rng(0).standard_normal(clean.shape)
    search = GradientInverter(system, n_starts=1, max_solves=0, random_state=0)
    posterior = search.fit(readings).posterior(readings)
    off = posterior.mean[0] - [10, 28, 8 / 3]
    assert (np.abs(off) < 3 * posterior.std[0]).all()
    assert posterior.explained[0]


def test_a_report_says_that_residuals_follow_a_course():
    """Growth that slows down, fitted by growth that does not, with noise unknown."""
    system = ODESystem(
        lambda t, y, p: [p.rate * y.n],
        states={"n": 1.0},
        params={"rate": (0.01, 2)},
        times=np.linspace(0, 4, 30),
        noise=None,
    )
    noise = 0.02 * np.random.default_rng(0).standard_normal((1, 30, 1))
    slowing = 3 / (1 + 2 * np.exp(-system.times))
    growing = np.exp(0.3 * system.times)
    right, wrong = (
        GradientInverter(system, random_state=0)
        .fit(course[None, :, None] + noise)
        .posterior(course[None, :, None] + noise)
        for course in (growing, slowing)
    )
    assert right.explained.all()
    assert wrong.explained.all()  # more than half the variance
    assert np.isnan(right.residual_correlation).all()
    assert wrong.residual_correlation[0, 0] > 0.5
    assert "residuals follow the ones before them (n +" in str(wrong[0])
    assert "residuals" not in str(right[0])
