"""FM-Grad learns the gradient of the L1 misfit, which is autograd's."""

import numpy as np
import pytest
import torch

from sklearn_inverse import ForwardFunction, Training
from sklearn_inverse.baselines import FMGradInverter
from sklearn_inverse.networks._slots import pick_slots
from sklearn_inverse.probability import Normal

TIMES = torch.linspace(0.0, 2.0, 8, dtype=torch.float64)
PARAMS = np.random.default_rng(0).uniform(0.6, 1.9, (200, 2))


def decay(params):
    return params[:, :1] * torch.exp(-params[:, 1:] * TIMES)


def decay_or_nothing(params):
    return decay(params).where(params[:, 1:] <= 1.8, torch.nan)


CURVES = decay(torch.as_tensor(PARAMS)).numpy()
UNIFORM = {"a": (0.5, 2.0), "k": (0.5, 2.0)}


def make_baseline(function=decay, priors=UNIFORM, **options):
    model = ForwardFunction(function, priors, noise=0.02)
    options = {"n_steps": 3, "width": 16, "n_blocks": 1, "random_state": 0} | options
    options.setdefault("training", Training(max_epochs=2, batch_size=32))
    return FMGradInverter(model, **options)


def draw_slots(baseline, n_samples=20):
    """Return particles, and readings of which half are missing."""
    rng = np.random.default_rng(1)
    readings = CURVES[:n_samples] + 0.02 * rng.standard_normal((n_samples, 8))
    readings[:, :3] = np.nan
    readings[rng.random(readings.shape) < 0.3] = np.nan
    readings[:, 5] = CURVES[:n_samples, 5]
    readings = readings[..., None]
    prepared = baseline.reading_scaler_.prepare(readings, "cpu")
    particles = torch.as_tensor(rng.random((n_samples, 2))).float()
    slots = pick_slots(*prepared, torch.zeros(n_samples, 0), 6)
    return particles, slots, readings[..., 0]


@pytest.mark.parametrize(
    "priors",
    [UNIFORM, {"a": Normal(1, 0.3), "k": Normal(1, 0.5)}],
    ids=["uniform", "normal"],
)
def test_target_is_autograds_gradient(priors):
    """Of the misfit as printed, over its number of readings, by scaled params."""
    baseline = make_baseline(priors=priors).fit(CURVES, PARAMS)
    particles, slots, readings = draw_slots(baseline)
    misfit, down = baseline._way_down(particles, slots)
    prior, scaler = baseline.model_.prior_, baseline.reading_scaler_
    x = torch.as_tensor(prior.quantile_to_scaled(particles.double().numpy()))
    x.requires_grad_()
    simulated = decay(prior.scaler.from_scaled_tensor(x))
    size = float(scaler.standardize(torch.tensor([[[1.0]]])))
    size -= float(scaler.standardize(torch.tensor([[[0.0]]])))
    off = (size * (simulated - torch.as_tensor(readings))).abs()
    expected = off.nanmean(dim=1)
    (gradient,) = torch.autograd.grad(expected.sum(), x)
    # The particles are quantiles u, which move by du/dx as fast.
    steps = 1e-6 * torch.eye(2, dtype=torch.float64)
    ends = [prior.scaled_to_quantile(x.detach() + s * steps[:, None]) for s in (1, -1)]
    speed = np.einsum("iji->ji", ends[0] - ends[1]) / 2e-6
    torch.testing.assert_close(misfit[:, 0].double(), expected, rtol=1e-4, atol=1e-6)
    aim = -gradient * torch.as_tensor(speed)
    torch.testing.assert_close(down.double(), aim, rtol=1e-3, atol=1e-5)


def test_steps_end_where_the_misfit_would_vanish_inside_the_cube():
    baseline = make_baseline().fit(CURVES, PARAMS)
    particles, slots, _ = draw_slots(baseline)
    misfit, down = baseline._way_down(particles, slots)
    step = baseline._polyak_step(particles, None, None, slots)
    there = particles + step
    assert ((there >= 0) & (there <= 1)).all()
    inner = ((there > 0) & (there < 1)).all(dim=1)
    assert inner.sum() >= 5
    gain = (down * step).sum(dim=1)
    torch.testing.assert_close(gain[inner], misfit[inner, 0], rtol=1e-4, atol=1e-6)


def test_it_learns_to_descend():
    training = Training(max_epochs=30, batch_size=64, lr=5e-3)
    baseline = make_baseline(training=training, width=32, n_steps=10)
    trained = baseline.fit(CURVES, PARAMS)
    assert trained.score(CURVES, PARAMS) > 0.8
    assert trained.posterior(CURVES[:3]).kind.tolist() == 3 * ["learned"]


def test_particles_that_cannot_be_simulated_have_no_target():
    baseline = make_baseline(decay_or_nothing).fit(
        CURVES[:50], PARAMS[:50].clip(0, 1.7)
    )
    particles, slots, _ = draw_slots(baseline)
    particles[:10, 1] = 0.99
    misfit, down = baseline._way_down(particles, slots)
    step = baseline._polyak_step(particles, None, None, slots)
    assert not misfit[:10].any()
    assert not down[:10].any()
    assert not step[:10].any()
    assert down[10:].any()
