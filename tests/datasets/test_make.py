"""A made problem is what the system does to params of its box, measured as asked.

And it is reproducible: nothing but ``random_state`` decides it.
"""

import numpy as np
import pytest

from sklearn_inverse.datasets import make_inverse_problem
from sklearn_inverse.exceptions import IntegrationError, IntegrationWarning
from sklearn_inverse.systems import ODESystem


def decay(t, y, params):
    return -params[..., :1] * y


@pytest.fixture
def system():
    return ODESystem(
        decay,
        initial_state=lambda params: params[:, 1:].repeat(1, 2),
        bounds=[[0.5, 2.0], [1e-3, 1e3]],
        scale=["linear", "log10"],
        times=[0.0, 0.5, 2.0],
        channel_names=["a", "b"],
        name="decay",
    )


class Exponential:
    """The closed form of ``decay``, which fails where ``fails(params)`` says so."""

    def __init__(self, times, fails=lambda params: np.zeros(len(params), dtype=bool)):
        self.times, self.fails = times, fails

    def simulate(self, params):
        rate, initial = params[:, :1, None], params[:, 1:, None]
        u = np.repeat(initial * np.exp(-rate * self.times[:, None]), 2, axis=2)
        u[self.fails(params), 1:] = np.nan
        return u


@pytest.mark.parametrize("sampling", ["lhs", "uniform", "sobol"])
def test_trajectories_belong_to_params_that_fill_the_box(system, sampling):
    problem = make_inverse_problem(system, 60, sampling=sampling, random_state=0)
    expected = Exponential(system.times).simulate(problem.params)
    np.testing.assert_allclose(problem.trajectories, expected, rtol=1e-4)
    np.testing.assert_array_equal(
        problem.observations, problem.trajectories.reshape(60, -1)
    )
    rate, initial = problem.params.T
    for unit in ((rate - 0.5) / 1.5, (np.log10(initial) + 3) / 6):
        assert (unit >= 0).all()
        assert (unit <= 1).all()
        counts = np.histogram(unit, bins=5, range=(0, 1))[0]
        assert counts.min() >= 5
    assert problem.n_failed == 0
    assert problem.system is system


def test_every_stratum_of_a_latin_hypercube_holds_one_draw(system):
    fake = Exponential(system.times)
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
        observed_channels=["b"],
        simulator=Exponential(system.times),
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


def test_params_depend_neither_on_noise_nor_on_times(system):
    fake = Exponential(system.times)
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


@pytest.mark.parametrize("sampling", ["lhs", "uniform", "sobol"])
def test_failed_draws_are_drawn_again_and_counted(system, sampling):
    drawn = []

    def fails(params):
        drawn.append(len(params))
        return params[:, 0] > 1.0

    with pytest.warns(
        IntegrationWarning, match="draws could not be integrated"
    ) as seen:
        problem = make_inverse_problem(
            system,
            40,
            sampling=sampling,
            simulator=Exponential(system.times, fails),
            random_state=0,
        )
    assert len(seen) == 1
    assert (problem.params[:, 0] <= 1.0).all()
    assert np.isfinite(problem.observations).all()
    assert problem.n_failed == sum(drawn) - 40 > 0
    expected = Exponential(system.times).simulate(problem.params)
    np.testing.assert_array_equal(problem.trajectories, expected)


@pytest.mark.parametrize("n_samples", [1, 500])
def test_a_box_without_solutions_is_given_up(system, n_samples):
    everywhere = Exponential(system.times, lambda p: np.ones(len(p), dtype=bool))
    with pytest.raises(IntegrationError, match="of 'decay' could not be integrated"):
        make_inverse_problem(system, n_samples, simulator=everywhere)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"n_samples": 0}, "`n_samples` must be an int >= 1. Got 0"),
        ({"sampling": "grid"}, "`sampling` must be one of"),
        ({"noise_std": -1.0}, "`noise_std` must be finite and >= 0"),
        ({"noise_std": [1.0, 1.0, 1.0]}, r"one value per channel \(2,\)"),
        ({"n_observed": 4}, "n_times=3. Got 4"),
        ({"observed_channels": ["c"]}, r"\['a', 'b'\]. Got \['c'\]"),
        ({"observed_channels": [2]}, "index between 0 and 1"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_simulated(system, kwargs, message):
    with pytest.raises(ValueError, match=message):
        make_inverse_problem(system, simulator=None, **{"n_samples": 5, **kwargs})


def test_what_is_no_system_is_refused():
    with pytest.raises(TypeError, match="`system` must be an ODESystem"):
        make_inverse_problem(5, 5)
