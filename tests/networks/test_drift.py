"""Drift targets are the paper's Eq. (8) where asked for; particles move and restart."""

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from sklearn_inverse.networks._drift_batches import (
    DriftBatches,
    ReadingSimulator,
    drift_targets,
)
from sklearn_inverse.networks._slots import Slots, pick_slots

# --- drift targets


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


def targets(particles, truths, residuals, dtype=torch.float64, **kwargs):
    tensors = (torch.as_tensor(a, dtype=dtype) for a in (particles, truths, residuals))
    return drift_targets(*tensors, **kwargs).numpy()


# Numbers of particles with an odd number of pairs, so that the median is one of them.
@pytest.mark.parametrize("n_particles", [1, 2, 3, 6, 7])
@pytest.mark.parametrize("normalize", [False, True])
def test_batch_coupling_is_eq_8(n_particles, normalize):
    pairs = draw_pairs(n_particles)
    drift = targets(*pairs, coupling="batch", normalize=normalize)
    np.testing.assert_allclose(drift, eq_8(*pairs, normalize), rtol=1e-6)


@pytest.mark.parametrize("coupling", ["batch", "instance"])
def test_kernel_of_a_particle_alone_is_one(coupling):
    particles, truths, residuals = draw_pairs(1)
    drift = targets(particles, truths, residuals, coupling=coupling, normalize=False)
    weight = np.sqrt((residuals**2).mean())
    np.testing.assert_allclose(drift, weight * (truths - particles))


@pytest.mark.parametrize("n_particles", [1, 6])
def test_instance_coupling_normalized_is_the_way_to_the_truth(n_particles):
    particles, truths, residuals = draw_pairs(n_particles)
    drift = targets(particles, truths, residuals, coupling="instance", normalize=True)
    np.testing.assert_array_equal(drift, truths - particles)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n_particles", "n_coupled"), [(6, 1), (6, 3), (96, 4)])
def test_instance_coupling_as_printed_points_to_the_truth(
    n_particles, n_coupled, dtype
):
    particles, truths, residuals = draw_pairs(n_particles)
    truths = truths[: n_particles // n_coupled].repeat(n_coupled, axis=0)
    drift = targets(
        particles, truths, residuals, dtype, coupling="instance", normalize=False
    )
    gain = (drift * (truths - particles)).sum(1) / ((truths - particles) ** 2).sum(1)
    assert (gain > 0.01).all()
    np.testing.assert_allclose(drift, gain[:, None] * (truths - particles), atol=1e-5)


def test_instance_coupling_does_not_see_other_truths():
    particles, truths, residuals = draw_pairs(6)
    truths = truths[:2].repeat(3, axis=0)
    kwargs = {"coupling": "instance", "normalize": False}
    before = targets(particles, truths, residuals, **kwargs)
    # The other truth, as far away as before: the common bandwidth stays as it is.
    truths[3:] += 0.1
    np.testing.assert_allclose(
        targets(particles, truths, residuals, **kwargs)[:3], before[:3]
    )


@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_kernel_keeps_its_precision_in_large_batches(offset):
    particles, truths, residuals = draw_pairs(150)  # 11175 pairs
    residuals = residuals + offset
    kwargs = {"coupling": "batch", "normalize": True}
    single = targets(particles, truths, residuals, torch.float32, **kwargs)
    np.testing.assert_allclose(
        single, eq_8(particles, truths, residuals, True), atol=1e-3
    )


@pytest.mark.parametrize("coupling", ["batch", "instance"])
@pytest.mark.parametrize("normalize", [False, True])
def test_drift_is_finite_where_all_residuals_vanish(coupling, normalize):
    particles, truths, residuals = draw_pairs(5)
    drift = targets(
        particles, truths, 0 * residuals, coupling=coupling, normalize=normalize
    )
    assert np.isfinite(drift).all()


# --- slots


def slots_by_loop(seen, n_slots):
    """Which observed times each sample keeps, spelled out."""
    kept = []
    for row in seen:
        times = np.flatnonzero(row)
        if len(times) > n_slots:
            ranks = np.linspace(0, len(times) - 1, n_slots) if n_slots > 1 else [0]
            times = times[np.round(ranks).astype(int)]
        kept.append(times.tolist())
    return kept


@pytest.mark.parametrize("n_slots", [1, 2, 3, 7])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_any_pattern_fills_slots_in_order_of_time(n_slots, share):
    generator = torch.Generator().manual_seed(0)
    readings = torch.randn(40, 7, 2, generator=generator)
    mask = (torch.rand(40, 7, 2, generator=generator) < share).float()
    slots = pick_slots(readings, mask, n_slots)
    assert slots.readings.shape == slots.mask.shape == (40, n_slots, 2)
    for i, times in enumerate(slots_by_loop(mask.amax(dim=2) > 0, n_slots)):
        filled = slots.mask[i].amax(dim=1) > 0
        assert slots.time_index[i][filled].tolist() == times
        assert torch.equal(slots.mask[i][filled], mask[i, times])
        assert torch.equal(slots.readings[i][filled], (readings * mask)[i, times])
        assert not slots.readings[i][~filled].any()
        if n_slots < 7:  # empty slots come last, unless every time has a slot
            assert filled.tolist() == sorted(filled.tolist(), reverse=True)


def test_more_observed_times_than_slots_are_thinned_evenly():
    readings = torch.arange(11.0)[None, :, None]
    slots = pick_slots(readings, torch.ones(1, 11, 1), 3)
    assert slots.readings.flatten().tolist() == [0.0, 5.0, 10.0]


def test_empty_slots_have_no_time():
    mask = torch.tensor([[0.0, 1.0, 0.0]])[..., None]
    slots = pick_slots(torch.ones(1, 3, 1), mask, 2)
    harmonics = slots.times(torch.tensor([0.0, 0.5, 1.0]))
    assert torch.allclose(
        harmonics[0, 0, :3], torch.tensor([1.0, 0.0, -1.0]), atol=1e-6
    )
    assert not harmonics[0, 1].any()


def test_residual_of_a_failed_simulation_is_none():
    slots = pick_slots(torch.ones(2, 3, 1), torch.ones(2, 3, 1), 3)
    simulated = torch.zeros(2, 3, 1)
    simulated[1, 1:] = torch.nan
    assert slots.residuals(simulated).flatten().tolist() == [1, 1, 1, 1, 0, 0]


def test_slots_are_taken_and_put_by_sample():
    slots = pick_slots(torch.arange(6.0).reshape(3, 2, 1), torch.ones(3, 2, 1), 2)
    taken = slots.take(torch.tensor([2, 0]))
    assert taken.readings.flatten().tolist() == [4, 5, 0, 1]
    slots.put(torch.tensor([1]), Slots(*(part[:1] for part in taken)))
    assert slots.readings.flatten().tolist() == [0, 1, 4, 5, 4, 5]


# --- readings drawn for training


def draw_slots(trajectories, n_observed, channels=(1.0, 1.0), noise=0.0):
    simulator = ReadingSimulator(
        n_observed, torch.tensor(channels), torch.tensor(noise), n_observed[1]
    )
    return simulator.draw(trajectories, torch.Generator().manual_seed(0))


def test_readings_are_made_at_as_many_random_times_as_asked_for():
    trajectories = torch.randn(300, 6, 2)
    slots = draw_slots(trajectories, (2, 4))
    n_seen = slots.mask[..., 0].sum(dim=1)
    assert sorted(n_seen.unique().tolist()) == [2, 3, 4]
    assert slots.time_index[slots.mask[..., 0] > 0].unique().tolist() == list(range(6))
    assert torch.equal(slots.readings, slots.gather(trajectories) * slots.mask)


def test_channels_that_are_not_observed_are_never_read():
    slots = draw_slots(torch.randn(50, 6, 2), (3, 3), channels=(0.0, 1.0))
    assert not slots.mask[..., 0].any()
    assert not slots.readings[..., 0].any()
    assert slots.mask[..., 1].all()


def test_what_is_unknown_is_never_read():
    trajectories = torch.randn(50, 6, 2)
    trajectories[:, ::2, 0] = torch.nan
    slots = draw_slots(trajectories, (6, 6))
    assert not slots.mask[:, ::2, 0].any()
    assert slots.readings.isfinite().all()


def test_noise_of_the_readings_has_the_size_asked_for():
    slots = draw_slots(torch.zeros(4000, 2, 2), (2, 2), noise=[0.1, 3.0])
    std = slots.readings.std(dim=(0, 1))
    torch.testing.assert_close(std, torch.tensor([0.1, 3.0]), rtol=0.03, atol=0)


# --- pools of particles

TIMES = torch.linspace(0, 1, 5)


def simulate(unit_params):
    return torch.exp(-unit_params[:, None, :1] * TIMES[:, None])


def make_pool(**kwargs):
    truths = torch.rand(30, 2, generator=torch.Generator().manual_seed(0))
    options = {
        "training": True,
        "simulate": simulate,
        "read": ReadingSimulator((1, 3), torch.ones(1), torch.tensor(0.1), 3),
        "batch_size": 12,
        "n_batches": 20,
        "coupling": "instance",
        "normalize": True,
        "n_coupled": 1,
        "synthetic": 0.0,
        "error": torch.zeros(1),
        "rollout": True,
        "n_steps": 4,
        "step_fraction": 0.5,
        "seed": 0,
    }
    return DriftBatches(TensorDataset(truths, simulate(truths)), **options | kwargs)


def test_a_batch_holds_what_the_network_is_to_see():
    inputs, (target, truths, tau) = next(iter(make_pool()))
    assert inputs["particles"].shape == target.shape == truths.shape == (12, 2)
    assert torch.equal(target, truths - inputs["particles"])
    index = inputs["time_index"][..., None]
    simulated = simulate(inputs["particles"]).gather(1, index)
    assert torch.equal(inputs["residuals"], inputs["readings"] - simulated)
    assert ((tau >= 0) & (tau < 1)).all()
    assert torch.equal(tau, inputs["tau"])


def test_an_epoch_has_as_many_batches_as_asked_for():
    assert len(list(make_pool())) == 20
    assert len(list(make_pool(training=False))) < 20


def test_rollout_moves_particles_by_the_velocity_within_the_box():
    pool = make_pool()
    inputs, (target, *_) = pool._batch()
    before, step = inputs["particles"].clone(), pool.step.clone()
    pool.move(target)
    stay = step < 3
    moved = before + 0.5 * target
    torch.testing.assert_close(pool.particles[stay], moved[stay])
    assert torch.equal(pool.step[stay], step[stay] + 1)
    pool.move(100 * torch.ones(12, 2))
    assert pool.particles.max() == 1


def test_arrived_particles_start_anew_with_another_truth():
    pool = make_pool(n_coupled=3)
    truths, readings = pool.truths.clone(), pool.slots.readings.clone()
    arriving = pool.step == 3
    assert 0 < arriving.sum() < 12
    pool.move(torch.zeros(12, 2))
    assert (pool.step[arriving] == 0).all()
    assert torch.equal(pool.truths[~arriving], truths[~arriving])
    assert torch.equal(pool.slots.readings[~arriving], readings[~arriving])
    assert (pool.truths[arriving] != truths[arriving]).any()
    assert (pool.slots.readings[arriving] != readings[arriving]).any()
    for _ in range(4):  # after a whole way, every particle has had a new truth
        pool.move(torch.zeros(12, 2))
    assert (pool.step < 4).all()


@pytest.mark.parametrize("rollout", [False, True])
def test_coupled_particles_share_truth_and_readings_but_not_starts(rollout):
    pool = make_pool(n_coupled=3, rollout=rollout)
    for part in (pool.truths, pool.trajectories, *pool.slots):
        groups = part.reshape(4, 3, *part.shape[1:])
        assert torch.equal(groups, groups[:, :1].expand_as(groups))
    assert len(pool.particles.unique(dim=0)) == 12


def test_without_rollout_states_lie_between_a_start_in_the_box_and_the_truth():
    for inputs, (_, truths, _) in make_pool(rollout=False):
        tau = inputs["tau"][:, None]
        start = (inputs["particles"] - tau * truths) / (1 - tau)
        assert ((start > -1e-3) & (start < 1 + 1e-3)).all()


@pytest.mark.parametrize("rollout", [False, True])
@pytest.mark.parametrize("synthetic", [0.0, 0.5])
def test_same_seed_gives_the_same_batches(rollout, synthetic):
    pools = [make_pool(rollout=rollout, synthetic=synthetic) for _ in range(2)]
    for (first, (drift, *_)), (second, (other_drift, *_)) in zip(*pools):
        assert all(torch.equal(first[name], second[name]) for name in first)
        assert torch.equal(drift, other_drift)
        for pool in pools:
            pool.move(drift)


def test_training_and_held_out_pools_draw_differently():
    held_out = make_pool(training=False)
    assert not torch.equal(make_pool().particles, held_out.particles)


def test_synthetic_truths_stay_in_the_box_and_are_simulated():
    dataset = make_pool().dataset[0]
    pool = make_pool(batch_size=200, synthetic=0.5, error=torch.tensor([0.0]))
    is_new = ~(pool.truths[:, None] == dataset).all(dim=2).any(dim=1)
    assert 60 < is_new.sum() < 140
    assert ((pool.truths >= 0) & (pool.truths <= 1)).all()
    torch.testing.assert_close(pool.trajectories, simulate(pool.truths))
    noisy = make_pool(batch_size=200, synthetic=0.5, error=torch.tensor([0.1]))
    off = (noisy.trajectories - simulate(noisy.truths))[is_new]
    assert off.std() == pytest.approx(0.1, rel=0.1)


def test_held_out_truths_are_never_synthetic():
    pool = make_pool(training=False, synthetic=1.0, batch_size=100)
    assert (pool.truths[:, None] == pool.dataset[0]).all(dim=2).any(dim=1).all()


@pytest.mark.parametrize("coupling", ["batch", "instance"])
def test_field_as_printed_is_scaled_to_the_way_to_go(coupling):
    pool = make_pool(coupling=coupling, normalize=False, batch_size=30)
    _, (target, truths, _) = pool._batch()
    way = (truths - pool.particles).abs().mean()
    assert float(target.abs().mean()) == pytest.approx(float(way), rel=0.01)
