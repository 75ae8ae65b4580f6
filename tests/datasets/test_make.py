"""A made problem is what a system does to draws from its prior, measured as asked.

And it is reproducible: nothing but ``random_state`` decides it.
"""

import threading
import warnings

import numpy as np
import pytest
import torch
from scipy import stats

from sklearn_inverse.datasets import make_inverse_problem
from sklearn_inverse.exceptions import IntegrationError, IntegrationWarning
from sklearn_inverse.forward import ForwardModel, ODESimulator
from sklearn_inverse.probability import (
    HalfNormal,
    LogNormal,
    LogUniform,
    NegativeBinomial,
    Normal,
    Poisson,
)
from sklearn_inverse.systems import ODESystem


def decay(t, y, p):
    return -p.rate * y


def make_system(noise=None, **params):
    return ODESystem(
        decay,
        states={"a": "initial", "b": "initial"},
        params={"rate": (0.5, 2.0), "initial": LogUniform(1e-3, 1e3), **params},
        times=[0.0, 0.5, 2.0],
        noise=noise,
    )


@pytest.fixture(scope="module")
def system():
    return make_system()


class Exponential(ForwardModel):
    """The closed form of ``decay``, which fails where ``fails(params)`` says so."""

    def __init__(self, system, fails=lambda params: np.zeros(len(params), dtype=bool)):
        self.system, self.fails = system, fails

    def simulate(self, params):
        rate, initial = params[:, :1, None], params[:, 1:2, None]
        times = self.system.times[:, None]
        u = np.repeat(initial * np.exp(-rate * times), 2, axis=2)
        u[self.fails(params), 1:] = np.nan
        return u


@pytest.mark.parametrize("sampling", ["lhs", "random", "sobol"])
def test_trajectories_belong_to_params_that_fill_the_prior(system, sampling):
    problem = make_inverse_problem(system, 60, sampling=sampling, random_state=0)
    expected = Exponential(system).simulate(problem.params)
    np.testing.assert_allclose(problem.trajectories, expected, rtol=1e-4)
    np.testing.assert_array_equal(
        problem.observations, problem.trajectories.reshape(60, -1)
    )
    scaled = system.prior.scaler.to_scaled(problem.params)
    for column in scaled.T:
        counts = np.histogram(column, bins=5, range=(0, 1))[0]
        assert counts.sum() == 60
        assert counts.min() >= 5
    assert problem.n_failed == 0
    assert problem.system is system
    assert problem.noise_std is None


def test_draws_follow_priors_without_bounds():
    system = make_system(rate=HalfNormal(0.5), initial=LogNormal(2.0, 0.7))
    params = make_inverse_problem(
        system, 400, simulator=Exponential(system), random_state=0
    ).params
    for column, law in zip(
        params.T, (stats.halfnorm(scale=0.5), stats.lognorm(0.7, scale=2.0))
    ):
        assert stats.kstest(column, law.cdf).statistic < 0.01  # a Latin hypercube


def test_every_stratum_of_a_latin_hypercube_holds_one_draw(system):
    fake = Exponential(system)
    problem = make_inverse_problem(system, 50, simulator=fake, random_state=0)
    stratum = np.floor((problem.params[:, 0] - 0.5) / 1.5 * 50)
    np.testing.assert_array_equal(np.sort(stratum), np.arange(50))


def test_readings_are_sparse_and_noisy_as_asked(system):
    problem = make_inverse_problem(
        system,
        2000,
        noise_std=0.1,
        relative_noise=True,
        n_observed=2,
        observables=["b"],
        simulator=Exponential(system),
        random_state=0,
    )
    observations = problem.observations.reshape(problem.trajectories.shape)
    assert np.isnan(observations[..., 0]).all()
    assert ((~np.isnan(observations[..., 1])).sum(axis=1) == 2).all()
    np.testing.assert_allclose(
        problem.noise_std, 0.1 * problem.trajectories.std(axis=(0, 1))
    )
    noise = np.nanstd((observations - problem.trajectories)[..., 1])
    assert noise == pytest.approx(problem.noise_std[1], rel=0.05)


@pytest.mark.parametrize(
    ("noise", "standardized"),
    [
        (0.2, lambda y, mean, p: (y - mean) / 0.2),
        (Normal("sigma"), lambda y, mean, p: (y - mean) / p[:, 2, None, None]),
        (LogNormal("sigma"), lambda y, mean, p: np.log(y / mean) / p[:, 2, None, None]),
        (Poisson(), lambda y, mean, p: (y - mean) / np.sqrt(mean)),
        (
            NegativeBinomial("sigma"),
            lambda y, mean, p: (
                (y - mean) / np.sqrt(mean + mean**2 / p[:, 2, None, None])
            ),
        ),
    ],
    ids=["number", "param", "log", "counts", "dispersed"],
)
def test_noise_is_the_systems_at_each_samples_own_params(noise, standardized):
    scatter = {"sigma": (0.1, 3.0)} if "sigma" in repr(noise) else {}
    system = make_system(noise, initial=(10, 20), **scatter)
    problem = make_inverse_problem(
        system, 3000, noisy=True, simulator=Exponential(system), random_state=0
    )
    readings = problem.observations.reshape(problem.trajectories.shape)
    z = standardized(readings, problem.trajectories, problem.params)
    assert abs(z.mean()) < 0.03
    assert z.std() == pytest.approx(1.0, abs=0.03)
    # … in the samples with little noise as in those with much.
    few = problem.params[:, -1] < np.median(problem.params[:, -1])
    assert z[few].std() == pytest.approx(z[~few].std(), rel=0.06)
    if isinstance(noise, (type(Poisson()), NegativeBinomial)):
        np.testing.assert_array_equal(readings, np.round(readings))


def test_a_given_scale_replaces_the_systems():
    system = make_system(LogNormal("sigma"), sigma=(5.0, 9.0))
    problem = make_inverse_problem(
        system,
        2000,
        noise_std=[0.1, 0.3],
        simulator=Exponential(system),
        random_state=0,
    )
    ratio = (
        problem.observations.reshape(problem.trajectories.shape) / problem.trajectories
    )
    np.testing.assert_allclose(np.log(ratio).std(axis=(0, 1)), [0.1, 0.3], rtol=0.05)
    np.testing.assert_array_equal(problem.noise_std, [0.1, 0.3])


def test_params_depend_neither_on_noise_nor_on_times(system):
    fake = Exponential(system)
    dense = make_inverse_problem(system, 9, simulator=fake, random_state=3)
    sparse = make_inverse_problem(
        system, 9, simulator=fake, random_state=3, noise_std=1.0, n_observed=1
    )
    np.testing.assert_array_equal(dense.params, sparse.params)


def test_the_seed_decides_whatever_n_jobs(system):
    kwargs = {"noise_std": 0.1, "n_observed": (1, 2)}
    one = make_inverse_problem(system, 12, n_jobs=1, random_state=5, **kwargs)
    two = make_inverse_problem(system, 12, n_jobs=2, random_state=5, **kwargs)
    other = make_inverse_problem(system, 12, random_state=6, **kwargs)
    for entry in ("observations", "params", "trajectories"):
        np.testing.assert_array_equal(one[entry], two[entry])
        assert not np.array_equal(one[entry], other[entry])


@pytest.mark.parametrize("sampling", ["lhs", "random", "sobol"])
def test_failed_draws_are_drawn_again_and_counted(system, sampling):
    drawn = []

    def fails(params):
        drawn.append(len(params))
        return params[:, 0] > 1.0

    fake = Exponential(system, fails)
    with pytest.warns(IntegrationWarning, match="could not be integrated") as seen:
        problem = make_inverse_problem(
            system, 40, sampling=sampling, simulator=fake, random_state=0
        )
    assert len(seen) == 1
    assert seen[0].filename == __file__
    assert (problem.params[:, 0] <= 1.0).all()
    assert np.isfinite(problem.observations).all()
    assert problem.n_failed == sum(drawn) - 40 > 0
    expected = Exponential(system).simulate(problem.params)
    np.testing.assert_array_equal(problem.trajectories, expected)


def explode(t, y, p):
    return p.k * y.x**2


def test_the_simulators_own_failures_are_counted_and_warned_of_once():
    system = ODESystem(
        explode, states={"x": 1.0}, params={"k": (-2.0, 2.0)}, times=[0, 0.4, 1]
    )
    simulator = ODESimulator(system, max_steps=60)
    with pytest.warns(IntegrationWarning) as seen:
        problem = make_inverse_problem(system, 12, simulator=simulator, random_state=0)
    assert len(seen) == 1
    assert f"{problem.n_failed} of {12 + problem.n_failed} draws" in str(
        seen[0].message
    )
    assert problem.n_failed >= 3
    assert problem.params.max() < 1.0


def fails_fast(params):
    return params[:, 0] > 1.0


@pytest.mark.filterwarnings("ignore:.* draws could not be integrated")
def test_what_fails_after_the_last_reading_is_no_failure(system):
    fake = Exponential(system, fails_fast)
    problem = make_inverse_problem(
        system, 60, n_observed=1, simulator=fake, random_state=0
    )
    observations = problem.observations
    assert ((~np.isnan(observations)).sum(axis=1) == 2).all()
    late = np.isnan(observations[:, 0])
    assert problem.params[late, 0].max() < 1.0 < problem.params[~late, 0].max()


def test_a_logarithm_of_zero_is_not_measured_and_no_failure():
    def chain(t, y, p):
        return -p.k1 * y.a, p.k1 * y.a - p.k2 * y.b

    system = ODESystem(
        chain,
        states={"a": 1.0, "b": 0.0},
        params={"k1": (0.4, 1.2), "k2": (0.1, 0.5)},
        times=[0.0, 0.5, 2.0, 8.0],
        observe={"log_b": lambda t, y, p: np.log10(y.b)},
        noise=0.02,
    )
    problem = make_inverse_problem(system, 20, noisy=True, random_state=0)
    assert problem.n_failed == 0
    for values in (problem.observations, problem.trajectories[..., 0]):
        assert np.isnan(values[:, 0]).all()
        assert np.isfinite(values[:, 1:]).all()


@pytest.mark.parametrize("n_samples", [1, 500])
def test_a_prior_without_solutions_is_given_up(system, n_samples):
    everywhere = Exponential(system, lambda p: np.ones(len(p), dtype=bool))
    with pytest.raises(IntegrationError, match="of 'decay' could not be integrated"):
        make_inverse_problem(system, n_samples, simulator=everywhere)


@pytest.mark.filterwarnings("ignore:.* draws could not be integrated")
def test_threads_leave_warning_filters_and_the_global_seed_alone(system):
    before, state = list(warnings.filters), torch.get_rng_state()
    fake, made = Exponential(system, fails_fast), []
    options = {"noise_std": 0.1, "simulator": fake, "random_state": 1}

    def work():
        made.append(make_inverse_problem(system, 10, **options))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert warnings.filters == before
    assert torch.equal(torch.get_rng_state(), state)
    for other in made[1:]:
        np.testing.assert_array_equal(made[0].observations, other.observations)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"n_samples": 0}, "`n_samples` must be an int >= 1. Got 0"),
        ({"sampling": "grid"}, "`sampling` must be one of"),
        ({"noise_std": -1.0}, "`noise_std` must be finite and >= 0"),
        ({"noise_std": [1.0, 1.0, 1.0]}, r"one value per channel \(2,\)"),
        ({"noisy": True}, r"noise of 'decay' must be known .* \['a', 'b'\]"),
        ({"n_observed": 4}, "n_times=3. Got 4"),
        ({"observables": ["c"]}, r"\['a', 'b'\], at least one. Got \['c'\]"),
        ({"observables": [2]}, r"Got \[2\]"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_simulated(system, kwargs, message):
    fake = Exponential(system, lambda params: 1 / 0)
    with pytest.raises(ValueError, match=message):
        make_inverse_problem(system, **{"n_samples": 5, "simulator": fake, **kwargs})


def test_noise_without_a_scale_is_not_replaced():
    counts = make_system(Poisson())
    with pytest.raises(ValueError, match="`noise_std` must be left out"):
        make_inverse_problem(counts, 5, noise_std=0.1)
    logs = make_system(LogNormal(0.1))
    with pytest.raises(ValueError, match="`relative_noise` must be False"):
        make_inverse_problem(logs, 5, noise_std=0.1, relative_noise=True)


def test_what_is_no_system_or_forward_model_is_refused(system):
    with pytest.raises(TypeError, match="`system` must be an ODESystem"):
        make_inverse_problem(5, 5)
    with pytest.raises(TypeError, match="`simulator` must be a forward model"):
        make_inverse_problem(system, 5, simulator=5)
