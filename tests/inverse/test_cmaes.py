"""CMA-ES finds what pycma finds by hand, for many samples in step."""

import cma
import numpy as np
import pytest
import torch

from sklearn_inverse import CMAESInverter, GradientInverter, ODESimulator
from sklearn_inverse.datasets import make_inverse_problem
from sklearn_inverse.inverse import InversionStatus
from sklearn_inverse.problems import lotka_volterra


def test_the_optimum_is_that_of_pycma_by_hand(decay, make_pairs):
    readings, params = make_pairs(3, 0.05)
    inverter = CMAESInverter(decay(), noise_std=0.05, tol=1e-10, random_state=0).fit(
        readings, params
    )
    result = inverter.invert(readings)
    noise = np.sqrt(0.05**2 + (1e-6 * inverter.channel_scaler_.std) ** 2)

    def objective(unit, i):
        curve = decay().simulate(decay().scaler_.to_physical(np.array([unit])))
        misfit = ((curve - readings[i]) / noise) ** 2
        return 0.5 * misfit.sum() + 6 * ((np.asarray(unit) - 0.5) ** 2).sum()

    for i in range(3):
        options = {"bounds": [0, 1], "verbose": -9, "seed": 5}
        best, _ = cma.fmin2(objective, [0.5, 0.5], 0.3, options, args=(i,))
        by_hand = decay().scaler_.to_physical(np.array(best))
        np.testing.assert_allclose(result.params[i], by_hand, rtol=1e-4)


def test_the_optimum_is_that_of_gauss_newton(decay, make_pairs):
    readings, params = make_pairs(20, 0.05)
    pairs = [
        inverter.fit(readings, params).predict(readings)
        for inverter in (
            CMAESInverter(decay(), noise_std=0.05, tol=1e-9, random_state=0),
            GradientInverter(decay(), noise_std=0.05, tol=1e-9, random_state=0),
        )
    ]
    np.testing.assert_allclose(*pairs, rtol=1e-3)


def test_a_generation_of_all_samples_is_one_forward_call(
    decay, make_pairs, monkeypatch
):
    readings, params = make_pairs(12, 0.05)
    inverter = CMAESInverter(decay(), noise_std=0.05, random_state=0).fit(
        readings, params
    )
    forward, sizes = decay.forward, []

    def counted(self, unit):
        sizes.append(len(unit))
        return forward(self, unit)

    monkeypatch.setattr(decay, "forward", counted)
    result = inverter.invert(readings)
    # Two more calls for the misfits at the end and the start.
    assert len(sizes) == result.n_iter.max() + 2
    assert sizes[0] == 12 * 6
    # Those that have converged are not run any more.
    assert sizes[result.n_iter.max() - 1] < sizes[0]


@pytest.mark.parametrize("restarts", ["ipop", "bipop"])
def test_restarts_escape_local_optima(restarts):
    pytest.importorskip("numba")
    system = lotka_volterra()
    pairs = make_inverse_problem(system, 12, noise_std=0.5, random_state=0)
    options = {"noise_std": 0.5, "random_state": 0}
    once = CMAESInverter(ODESimulator(system), **options)
    with pytest.warns() as caught:
        trapped = once.fit(pairs.observations, pairs.params).invert(pairs.observations)
    assert any("or set `restarts`" in str(w.message) for w in caught)
    assert not trapped.explained.all()
    again = CMAESInverter(ODESimulator(system), restarts=restarts, **options)
    result = again.fit(pairs.observations, pairs.params).invert(pairs.observations)
    assert result.explained.all()
    # Samples that needed no restart are as they were.
    same = trapped.explained
    np.testing.assert_array_equal(result.params[same], trapped.params[same])
    assert (result.n_iter[~same] > trapped.n_iter[~same]).all()


def test_one_param_is_searched_too():
    from sklearn_inverse import ODESystem

    def rhs(t, y, params):
        return -params * y

    system = ODESystem(
        rhs, initial_state=[1.0], bounds=[[0.5, 2.0]], times=np.linspace(0, 2, 5)
    )
    k = np.array([0.7, 1.3])
    simulator = ODESimulator(system, method="tsit5")
    readings = simulator.simulate(k[:, None])
    inverter = CMAESInverter(simulator, noise_std=0.01, random_state=0).fit(readings, k)
    np.testing.assert_allclose(inverter.predict(readings), k, rtol=1e-2)


def test_too_few_generations_are_reported(decay, make_pairs):
    readings, params = make_pairs(3, 0.05)
    inverter = CMAESInverter(decay(), max_iter=5, noise_std=1.0, random_state=0).fit(
        readings, params
    )
    with pytest.warns(match="3 of 3 samples did not converge.*allow it more"):
        result = inverter.invert(readings)
    assert (result.status == InversionStatus.MAX_ITER).all()
    assert result.n_iter.tolist() == [5, 5, 5]


def test_no_uncertainty_is_offered(decay):
    assert not hasattr(CMAESInverter(decay()), "sample")
    with pytest.raises(TypeError, match="return_std"):
        CMAESInverter(decay()).predict(torch.zeros(1), return_std=True)
