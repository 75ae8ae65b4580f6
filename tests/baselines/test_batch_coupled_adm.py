"""The baseline drifts as the paper's Eq. (8) says, and is ADM in all else."""

import numpy as np
import pytest
import torch

from sklearn_inverse import ADMInverter, ForwardFunction, Training
from sklearn_inverse.baselines import BatchCoupledADM
from sklearn_inverse.baselines._batch_coupled_adm import ScaledDrift, batch_drift

TIMES = np.linspace(0.0, 2.0, 8)
PARAMS = np.random.default_rng(0).uniform(0.5, 2.0, (200, 1))


def decay(params):
    return torch.exp(-params * torch.as_tensor(TIMES))


def make_baseline(cls=BatchCoupledADM, **kwargs):
    model = ForwardFunction(decay, {"k": (0.5, 2.0)}, noise=0.02)
    options = {"n_steps": 3, "width": 16, "n_blocks": 1, "random_state": 0}
    options["training"] = Training(max_epochs=2, batch_size=32)
    return cls(model, **options | kwargs)


def eq_8(particles, truths, residuals, normalize=False):
    """Eq. (8) as printed, entry by entry, with residuals divided by √dim first."""
    n = len(particles)
    flat = residuals.reshape(n, -1) / np.sqrt(residuals[0].size)
    pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
    distances = [np.linalg.norm(flat[i] - flat[j]) for i, j in pairs]
    sigma = np.median(distances) ** 2 / np.log(n) if pairs else None
    drift = np.zeros_like(particles)
    for i in range(n):
        total = 0.0
        for j in range(n):
            distance = np.linalg.norm(flat[i] - flat[j])
            kernel = np.exp(-(distance**2) / sigma) if pairs else 1.0
            weight = kernel * np.linalg.norm(flat[j])
            drift[i] -= weight * (particles[i] - truths[j])
            total += weight
        drift[i] /= total if normalize else n
    return drift


def draw_pairs(n_particles, seed=0):
    rng = np.random.default_rng(seed)
    shapes = (n_particles, 3), (n_particles, 3), (n_particles, 4, 2)
    return tuple(rng.random(shape) for shape in shapes)


def drift_of(particles, truths, residuals, dtype=torch.float64, **kwargs):
    tensors = (torch.as_tensor(a, dtype=dtype) for a in (particles, truths, residuals))
    return batch_drift(*tensors, **kwargs).numpy()


# Numbers of particles with an odd number of pairs, so that the median is one of them.
@pytest.mark.parametrize("n_particles", [1, 2, 3, 6, 7])
@pytest.mark.parametrize("normalize", [False, True])
def test_drift_is_eq_8(n_particles, normalize):
    pairs = draw_pairs(n_particles)
    drift = drift_of(*pairs, normalize=normalize)
    np.testing.assert_allclose(drift, eq_8(*pairs, normalize), rtol=1e-6)


@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_kernel_keeps_its_precision_in_large_batches(offset):
    particles, truths, residuals = draw_pairs(150)  # 11175 pairs
    residuals = residuals + offset
    single = drift_of(particles, truths, residuals, torch.float32, normalize=True)
    expected = eq_8(particles, truths, residuals, True)
    np.testing.assert_allclose(single, expected, atol=1e-3)


@pytest.mark.parametrize("normalize", [False, True])
def test_drift_is_finite_where_all_residuals_vanish(normalize):
    particles, truths, residuals = draw_pairs(5)
    drift = drift_of(particles, truths, 0 * residuals, normalize=normalize)
    assert np.isfinite(drift).all()


def test_field_as_printed_is_scaled_once_to_the_way_to_go():
    particles, truths, residuals = map(torch.as_tensor, draw_pairs(30))
    drift = ScaledDrift(normalize=False)
    target = drift(particles, truths, residuals)
    way = (truths - particles).abs().mean()
    assert float(target.abs().mean()) == pytest.approx(float(way))
    again = drift(particles, truths, 2 * residuals)
    torch.testing.assert_close(again, 2 * target)


@pytest.mark.parametrize(
    "options",
    [{}, {"normalize": True}, {"n_coupled": 4}, {"loss": "l2"}],
    ids=str,
)
def test_every_option_trains_and_answers(options):
    trajectories = np.exp(-PARAMS * TIMES)
    answers = [
        make_baseline(**given).fit(trajectories, PARAMS).predict(trajectories[:9])
        for given in (options, options | {"random_state": 1})
    ]
    assert np.isfinite(answers[0]).all()
    assert not np.allclose(*answers)


@pytest.mark.slow
def test_l1_is_another_loss_and_unrelated_truths_blur_the_estimate():
    trajectories = np.exp(-PARAMS * TIMES)
    training = Training(max_epochs=40, batch_size=64, lr=5e-3)
    scores = {
        name: make_baseline(cls, training=training, width=32, **options)
        .fit(trajectories, PARAMS)
        .score(trajectories, PARAMS)
        for name, cls, options in [
            ("l1", BatchCoupledADM, {}),
            ("l2", BatchCoupledADM, {"loss": "l2"}),
            ("own truth", ADMInverter, {}),
        ]
    }
    assert scores["l1"] != scores["l2"]
    assert scores["own truth"] > 0.9
    assert scores["own truth"] > max(scores["l1"], scores["l2"]) + 0.02
