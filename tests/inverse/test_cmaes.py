"""CMA-ES finds what pycma finds by hand, for many samples in step."""

import cma
import numpy as np
import pytest
import torch
from scipy.special import ndtr, ndtri

from sklearn_inverse import CMAESInverter, ForwardFunction, GradientInverter
from sklearn_inverse.inverse._cmaes import Evolution, Settings
from sklearn_inverse.probability import InversionStatus, LogNormal

pytestmark = pytest.mark.filterwarnings(
    "ignore::sklearn_inverse.exceptions.BoundsWarning"
)


def test_the_optimum_is_that_of_pycma_by_hand(decay, make_pairs):
    readings, _ = make_pairs(3, 0.05)
    inverter = CMAESInverter(decay(noise=0.05), tol=1e-10, random_state=0)
    answer = inverter.fit(readings).invert(readings)
    low, width = np.array([0.5, 0.1]), np.array([1.5, 2.9])

    def objective(z, i):
        curve = decay().simulate([low + width * ndtr(z)])
        misfit = ((curve - readings[i]) / 0.05) ** 2
        return 0.5 * misfit.sum() + 0.5 * (np.asarray(z) ** 2).sum()

    for i in range(3):
        options = {"verbose": -9, "seed": 5}
        best, _ = cma.fmin2(objective, [0.0, 0.0], 1.0, options, args=(i,))
        np.testing.assert_allclose(
            answer.params[i], low + width * ndtr(best), rtol=1e-4
        )


@pytest.mark.parametrize("noise", [0.05, None], ids=["known", "estimated"])
@pytest.mark.parametrize("prior", ["model", None])
def test_the_optimum_has_the_least_objective(noise, prior, decay, make_pairs):
    readings, _ = make_pairs(3, 0.05)
    options = {"prior": prior, "tol": 1e-9, "random_state": 0}
    inverter = CMAESInverter(decay(noise=noise), **options).fit(readings)
    exact = GradientInverter(decay(noise=noise), **options).fit(readings)
    answer, known = inverter.invert(readings), exact.invert(readings)
    if prior is None or noise is not None:
        np.testing.assert_allclose(answer.params, known.params, rtol=1e-3)
    else:  # there its posterior is of the noise's marginal mode
        np.testing.assert_allclose(answer.params, known.params, rtol=0.02)
    if noise is None:
        rms = np.sqrt(((inverter.reconstruct(readings) - readings) ** 2).mean(axis=1))
        np.testing.assert_allclose(answer.noise_scale, rms, rtol=1e-2)


def test_unbounded_params_are_searched_in_their_prior():
    t = torch.linspace(0.0, 2.0, 8, dtype=torch.float64)
    priors = {"k": LogNormal(1.0, 2.0), "b": LogNormal(1e-3, 1.0)}
    model = ForwardFunction(
        lambda p: torch.exp(-p[:, :1] * t) + p[:, 1:], params=priors, noise=1e-4
    )
    readings = model.fit(None).simulate([[30.0, 5e-3]])
    inverter = CMAESInverter(model, tol=1e-8, random_state=0).fit(readings)
    estimate = inverter.predict(readings)
    exact = GradientInverter(model, random_state=0).fit(readings).invert(readings)
    np.testing.assert_allclose(estimate, exact.params, rtol=1e-2)


def test_a_generation_of_all_samples_is_one_forward_call(
    decay, make_pairs, monkeypatch
):
    readings, _ = make_pairs(12, 0.05)
    inverter = CMAESInverter(decay(noise=0.05), random_state=0).fit(readings)
    forward, sizes = decay.forward, []

    def counted(self, scaled):
        sizes.append(len(scaled))
        return forward(self, scaled)

    monkeypatch.setattr(decay, "forward", counted)
    answer = inverter.invert(readings)
    # Two more calls for the misfits at the end and the start.
    assert len(sizes) == answer.n_iter.max() + 2
    assert sizes[0] == 12 * 6
    # Those that have converged are not run any more.
    assert sizes[answer.n_iter.max() - 1] < sizes[0]
    assert answer.n_forward.sum() == sum(sizes)


def waves(params):
    t = torch.linspace(0.0, 10.0, 60, dtype=torch.float64)
    return torch.sin(params[:, :1] * t) + 0 * params[:, 1:]


@pytest.mark.parametrize("restarts", ["ipop", "bipop"])
def test_restarts_escape_local_optima(restarts):
    model = ForwardFunction(waves, params={"w": (0.5, 9), "idle": (0, 1)}, noise=0.1)
    readings = model.fit(None).simulate([[4.0, 0.5], [5.0, 0.5], [8.0, 0.5]])
    once = CMAESInverter(model, sigma0=0.1, random_state=0).fit(readings)
    with pytest.warns() as caught:
        trapped = once.invert(readings)
    assert any("or set `restarts`" in str(w.message) for w in caught)
    again = CMAESInverter(model, sigma0=0.1, restarts=restarts, random_state=0)
    answer = again.fit(readings).invert(readings)
    assert answer.explained.all()
    # Samples that needed no restart are as they were.
    same = trapped.explained
    np.testing.assert_array_equal(answer.params[same], trapped.params[same])
    assert (answer.n_iter[~same] > trapped.n_iter[~same]).all()


def run_sizes(restarts, n_restarts=3, seed=0):
    """Return (popsize, sigma) of the runs of a strategy that never finds anything."""
    settings = Settings(0.5, None, 3, 1e-4, restarts, n_restarts)
    evolution, runs = Evolution(np.zeros(3), 3, settings, seed), []
    while True:
        runs.append((evolution.strategy.popsize, evolution.strategy.sigma0))
        while not evolution.has_ended():
            evolution.tell(np.random.default_rng(0).random(len(evolution.ask())))
        if not evolution.restart():
            return runs


@pytest.mark.parametrize("seed", range(5))
def test_ipop_doubles_the_population_and_bipop_tries_small_ones_between(seed):
    ipop = run_sizes("ipop", seed=seed)
    assert ipop == [(7, 0.5), (14, 0.5), (28, 0.5), (56, 0.5)]
    bipop = run_sizes("bipop", seed=seed)
    assert [run for run in bipop if run in ipop] == ipop
    largest, n_small = 0, 0
    for popsize, sigma in bipop:
        if (popsize, sigma) in ipop:
            largest = popsize
        else:
            assert 7 <= popsize <= largest / 2
            assert 0.005 <= sigma < 0.5
            n_small += 1
    assert n_small >= 3


def test_one_param_is_searched_too():
    t = torch.linspace(0.0, 2.0, 5, dtype=torch.float64)
    model = ForwardFunction(
        lambda k: torch.exp(-k * t), params={"k": (0.5, 2.0)}, noise=0.01
    )
    k = np.array([[0.7], [1.3]])
    readings = model.fit(None).simulate(k)
    inverter = CMAESInverter(model, random_state=0).fit(readings)
    np.testing.assert_allclose(inverter.predict(readings), k, rtol=1e-2)


def test_the_first_step_is_as_long_as_said(decay, make_pairs, monkeypatch):
    readings, _ = make_pairs(1)
    spreads = []
    for sigma0 in (0.01, 1.0):
        seen = []
        forward = decay.forward
        monkeypatch.setattr(
            decay,
            "forward",
            lambda self, x, f=forward, s=seen: s.append(x) or f(self, x),
        )
        CMAESInverter(decay(noise=1.0), sigma0=sigma0, random_state=0).fit(readings)
        monkeypatch.undo()
        spreads.append(ndtri(seen[0].numpy()).std())
    assert spreads[1] / spreads[0] == pytest.approx(100, rel=1e-6)


def test_too_few_generations_are_reported(decay, make_pairs):
    readings, _ = make_pairs(3, 0.05)
    inverter = CMAESInverter(decay(noise=1.0), max_iter=5, random_state=0)
    inverter.fit(readings)
    with pytest.warns(match="3 of 3 samples did not converge.*allow it more"):
        answer = inverter.invert(readings)
    assert (answer.status == InversionStatus.MAX_ITER).all()
    assert answer.n_iter.tolist() == [5, 5, 5]


def test_no_uncertainty_is_offered(decay):
    assert not hasattr(CMAESInverter(decay()), "sample")
    assert not hasattr(CMAESInverter(decay()), "posterior")
    with pytest.raises(TypeError, match="return_std"):
        CMAESInverter(decay()).predict(torch.zeros(1), return_std=True)
