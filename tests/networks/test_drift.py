"""Slots keep what was read, readings scatter as the noise says, particles move on."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.special import ndtr
from torch.utils.data import TensorDataset

from sklearn_inverse.networks._drift import Drift
from sklearn_inverse.networks._drift_batches import DriftBatches
from sklearn_inverse.networks._options import Design
from sklearn_inverse.networks._probit import (
    calibrate,
    covariance_factor,
    precision_factor,
    probit_center,
)
from sklearn_inverse.networks._readings import ReadingScaler, ReadingSimulator
from sklearn_inverse.networks._slots import Slots, pick_slots
from sklearn_inverse.probability import LogNormal, Poisson, as_noise

# --- slots


def slots_of(readings, mask, n_slots):
    """Return the slots of samples without inputs."""
    return pick_slots(readings, mask, readings[:, 0, :0], n_slots)


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
    slots = slots_of(readings, mask, n_slots)
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
    slots = slots_of(readings, torch.ones(1, 11, 1), 3)
    assert slots.readings.flatten().tolist() == [0.0, 5.0, 10.0]


def test_empty_slots_have_no_time():
    mask = torch.tensor([[0.0, 1.0, 0.0]])[..., None]
    slots = slots_of(torch.ones(1, 3, 1), mask, 2)
    harmonics = slots.times(torch.tensor([0.0, 0.5, 1.0]))
    assert torch.allclose(
        harmonics[0, 0, :3], torch.tensor([1.0, 0.0, -1.0]), atol=1e-6
    )
    assert not harmonics[0, 1].any()


def test_residual_of_a_failed_simulation_is_none():
    slots = slots_of(torch.ones(2, 3, 1), torch.ones(2, 3, 1), 3)
    simulated = torch.zeros(2, 3, 1)
    simulated[1, 1:] = torch.nan
    assert slots.residuals(simulated).flatten().tolist() == [1, 1, 1, 1, 0, 0]


def test_slots_are_taken_and_put_by_sample():
    slots = slots_of(torch.arange(6.0).reshape(3, 2, 1), torch.ones(3, 2, 1), 2)
    taken = slots.take(torch.tensor([2, 0]))
    assert taken.readings.flatten().tolist() == [4, 5, 0, 1]
    slots.put(torch.tensor([1]), Slots(*(part[:1] for part in taken)))
    assert slots.readings.flatten().tolist() == [0, 1, 4, 5, 4, 5]


# --- readings drawn for training

NAMES = ["u", "v"]


def make_reader(
    noise, trajectories, n_observed=(1, 6), observables=None, time_index=None
):
    """Return a simulator of readings whose params are (sigma, k)."""
    model = SimpleNamespace(noise_=as_noise(noise, NAMES), param_names_=["sigma", "k"])
    scaler = ReadingScaler(model.noise_, trajectories)
    design = Design(n_observed, observables, time_index)
    design = design._settle(trajectories.shape[1], NAMES)
    return ReadingSimulator(model, scaler, lambda params: params, *design)


def draw(reader, trajectories, params=None, seed=0):
    """Return readings in their own units and their mask."""
    params = torch.full((len(trajectories), 2), 0.5) if params is None else params
    standardized = torch.as_tensor(reader.scaler.standardize(trajectories)).float()
    rng = torch.Generator().manual_seed(seed)
    readings, mask = reader.draw(params, standardized, rng)
    return reader.scaler.restore(readings).numpy(), mask.numpy()


def trajectories(n_samples=300, seed=0):
    return (5 + np.random.default_rng(seed).random((n_samples, 6, 2))) * [1.0, 1e-18]


def test_readings_are_made_at_as_many_random_times_as_asked_for():
    reader = make_reader(1e-30, trajectories(), (2, 4))
    readings, mask = draw(reader, trajectories())
    n_seen = mask[..., 0].sum(axis=1)
    assert sorted(set(n_seen)) == [2, 3, 4]
    assert (mask.sum(axis=(0, 2)) > 0).all()
    np.testing.assert_allclose(readings[mask > 0], trajectories()[mask > 0], rtol=1e-6)


@pytest.mark.parametrize("time_index", [[1, 4, 5], [1, -2, -1, 4]])
def test_readings_are_made_at_the_times_of_the_design(time_index):
    for n_observed, counts in ((3, {3}), (None, {1, 2, 3})):
        reader = make_reader(0.1, trajectories(), n_observed, ["v"], time_index)
        _, mask = draw(reader, trajectories())
        assert set(mask[..., 1].sum(axis=1)) == counts
        assert np.argwhere(mask.any(axis=0)).tolist() == [[1, 1], [4, 1], [5, 1]]
    for wrong in ([6], [], ["v"]):
        with pytest.raises(ValueError, match="indices of the 6 times, at least one"):
            Design(time_index=wrong)._settle(6, NAMES)
    with pytest.raises(ValueError, match="n_times=1"):
        Design(2, time_index=[3])._settle(6, NAMES)


def test_observables_that_are_not_named_and_gaps_are_never_read():
    gaps = trajectories()
    gaps[:, ::2, 1] = np.nan
    _, mask = draw(make_reader(0.1, gaps, (6, 6), ["v"]), gaps)
    assert not mask[..., 0].any()
    assert not mask[:, ::2, 1].any()
    assert mask[:, 1::2, 1].all()


def test_noise_is_that_of_each_sample_s_own_params():
    flat = np.full((4000, 6, 2), 3.0)
    params = torch.tensor([[0.1, 1.0], [1.0, 1.0]]).repeat(2000, 1)
    reader = make_reader("sigma", flat + np.random.default_rng(0).random(flat.shape))
    off = draw(reader, flat, params)[0] - 3
    mask = draw(reader, flat, params)[1] > 0
    for first, sigma in enumerate((0.1, 1.0)):
        assert off[first::2][mask[first::2]].std() == pytest.approx(sigma, rel=0.03)


@pytest.mark.parametrize("noise", [Poisson(), LogNormal(0.1)])
def test_networks_see_readings_where_noise_is_uniform(noise):
    means = np.stack([np.full((500, 6), 4.0), np.full((500, 6), 400.0)], axis=2)
    means[:, 0] = 0.0  # what has not begun yet
    reader = make_reader(noise, means, (6, 6))
    assert np.isfinite(reader.scaler.standardize(means)).all()
    back = reader.scaler.restore(reader.scaler.standardize(means))
    np.testing.assert_allclose(back[:, 1:], means[:, 1:], rtol=1e-9)
    readings, _ = draw(reader, means)
    spread = reader.noise.stabilize(readings[:, 1:]).std(axis=(0, 1))
    assert spread[0] == pytest.approx(spread[1], rel=0.1)


def test_noise_that_is_not_stated_differs_from_sample_to_sample():
    truth = trajectories(2000)
    reader = make_reader(None, truth, (6, 6))
    off = (draw(reader, truth)[0] - truth)[..., 0].std(axis=1) / truth[..., 0].std()
    assert off.min() < 0.005
    assert 0.2 < np.quantile(off, 0.95) < 0.4


def settled(noise, truth):
    reader = make_reader(noise, truth)
    standardized = torch.as_tensor(reader.scaler.standardize(truth)).float()
    params = torch.ones(len(truth), 2)
    reader.settle(params, standardized, torch.Generator().manual_seed(0))
    return reader.scaler


def test_usual_noise_is_told_in_spreads():
    truth, noise = trajectories(), np.array([0.1, 1e-19])
    scaler = settled({"u": 0.1, "v": 1e-19}, truth)
    expected = noise / truth.std(axis=(0, 1))
    np.testing.assert_allclose(scaler.noise_size, expected, rtol=0.05)
    np.testing.assert_allclose(scaler.size_of(noise, truth), expected)


def test_readings_far_off_stay_within_single_precision():
    scaler = settled(0.1, trajectories())
    far = np.full((1, 6, 2), 1e150)
    assert np.abs(scaler.standardize(far)[..., 0]).max() < 40
    with pytest.warns(
        UserWarning, match="12 readings lie farther .* the first in row 0"
    ):
        scaler.warn_of_far(far)
    readings, mask = scaler.prepare(far, "cpu")
    assert readings.isfinite().all()
    assert mask.all()


def test_readings_that_noise_explains_are_not_far():
    scaler = settled(100.0, trajectories())
    scaler.warn_of_far(np.full((1, 6, 2), [500.0, 0.0]))


@pytest.mark.parametrize("wrong", [[], ["w"], [2], [-3], [0.5]])
def test_observables_that_are_not_there_are_refused(wrong):
    with pytest.raises(ValueError, match="names or indices of the 2 observables"):
        Design(observables=wrong)._settle(6, NAMES)
    assert Design(3, ["v", -2])._settle(6, NAMES)[1].all()


# --- drifting


def test_estimate_and_spread_are_means_over_all_starts():
    def stay(particles, *_):
        return torch.zeros_like(particles), particles.repeat(1, 5)[:, :5]

    slots = slots_of(torch.ones(2, 4, 1), torch.ones(2, 4, 1), 4)
    drift = Drift(lambda particles, inputs: torch.ones(len(particles), 4, 1), 3, 7.0)
    starts = np.array([[0.0, 0.2], [0.3, 0.4], [0.9, 1.0]], dtype=np.float32)
    estimate, factor = drift.arrive(stay, slots, starts)
    mean = starts.mean(axis=0)
    np.testing.assert_allclose(estimate, [mean, mean], rtol=1e-6)
    expected = covariance_factor(torch.tensor(mean).repeat(2, 3)[:, :5], 2)
    np.testing.assert_allclose(factor, expected, rtol=1e-5)


# --- normal distributions of the probit


def test_spread_is_that_of_the_precision_and_its_center_gives_the_estimate():
    out = torch.randn(5, 9, generator=torch.Generator().manual_seed(0))
    factor = covariance_factor(out, 3)
    _, precision = precision_factor(out.double(), 3)
    product = factor @ factor.mT @ (precision @ precision.mT).numpy()
    np.testing.assert_allclose(
        product, np.eye(3).repeat(5).reshape(3, 3, 5).T, atol=1e-9
    )
    draws = 0.7 * np.random.default_rng(0).standard_normal(100_000)
    mean = ndtr(probit_center(0.8, 0.7) + draws).mean()
    assert mean == pytest.approx(0.8, abs=0.003)


def test_calibrated_intervals_cover_nine_in_ten():
    rng = np.random.default_rng(0)
    z = rng.standard_normal((4000, 1))
    found = 0.96 * z + 0.2 * rng.standard_normal(z.shape)
    factor = np.full((4000, 1, 1), 0.1)
    (stretch,) = calibrate(ndtr(z), ndtr(found / np.sqrt(1.04)), factor)
    center = probit_center(ndtr(found / np.sqrt(1.04)), 0.1 * stretch)
    covered = np.abs(z - center) < 1.645 * 0.1 * stretch
    assert covered.mean() == pytest.approx(0.9, abs=0.01)


# --- pools of particles

TIMES = torch.linspace(0, 1, 5)


def simulate(quantiles, inputs=None):
    return torch.exp(-quantiles[:, None, :1] * TIMES[:, None])


def read(quantiles, trajectories, inputs, rng):
    """Read the first three times, with noise."""
    mask = torch.zeros_like(trajectories)
    mask[:, :3] = 1
    noise = torch.randn(trajectories.shape, generator=rng)
    return pick_slots((trajectories + 0.1 * noise) * mask, mask, inputs, 3)


def make_pool(**kwargs):
    truths = torch.rand(30, 2, generator=torch.Generator().manual_seed(0))
    options = {
        "training": True,
        "drift": Drift(simulate, 4, gain=4 * np.log(2)),  # half the way in each step
        "read": read,
        "batch_size": 12,
        "n_batches": 20,
        "synthetic": 0.0,
        "error": torch.zeros(1),
        "rollout": True,
        "seed": 0,
    }
    return DriftBatches(
        TensorDataset(truths, simulate(truths), truths[:, :0]), **options | kwargs
    )


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


def test_rollout_moves_particles_by_the_velocity_within_the_cube():
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
    pool = make_pool(n_coupled=3, batch_size=30)
    truths, readings = pool.truths.clone(), pool.slots.readings.clone()
    arriving = pool.step == 3
    assert 0 < arriving.sum() < 30
    pool.move(torch.zeros(30, 2))
    assert (pool.step[arriving] == 0).all()
    assert torch.equal(pool.truths[~arriving], truths[~arriving])
    assert torch.equal(pool.slots.readings[~arriving], readings[~arriving])
    assert (pool.truths[arriving] != truths[arriving]).any()
    assert (pool.slots.readings[arriving] != readings[arriving]).any()
    for _ in range(4):  # after a whole way, every particle has had a new truth
        pool.move(torch.zeros(30, 2))
    assert (pool.step < 4).all()


@pytest.mark.parametrize("rollout", [False, True])
def test_coupled_particles_share_truth_and_readings_but_not_starts(rollout):
    pool = make_pool(n_coupled=3, rollout=rollout)
    for part in (pool.truths, pool.trajectories, *pool.slots):
        groups = part.reshape(4, 3, *part.shape[1:])
        assert torch.equal(groups, groups[:, :1].expand_as(groups))
    assert len(pool.particles.unique(dim=0)) == 12


def test_without_rollout_states_lie_between_a_start_in_the_cube_and_the_truth():
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


def test_synthetic_truths_stay_in_the_cube_and_are_simulated():
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
