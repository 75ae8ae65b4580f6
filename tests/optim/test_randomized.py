"""Randomized optimization draws from bent densities, and knows how well it does."""

import numpy as np
import pytest

from sklearn_inverse.optim._randomized import _solve, randomized

NARROW = 0.05
OPTIONS = {"max_solves": 60_000, "n_enough": 1500, "n_kept": 2000, "seed": 0}


def bent(z, sample=None):
    """Residuals of a valley b = exp(a) - 1 of width NARROW in a standard normal prior."""
    a, b = z.T
    residual = np.stack([a, b, (b - np.expm1(a)) / NARROW], axis=1)
    jacobian = np.zeros((len(z), 3, 2))
    jacobian[:, 0, 0] = jacobian[:, 1, 1] = 1.0
    jacobian[:, 2, 0], jacobian[:, 2, 1] = -np.exp(a) / NARROW, 1 / NARROW
    return residual, jacobian


def density_of(residuals):
    return lambda z, sample: -0.5 * (residuals(z)[0] ** 2).sum(axis=1)


def line(z, sample=None):
    """Residuals of a linear model."""
    design = np.array([[1.0, 0.0], [0.0, 1.0], [3.0, 1.0], [0.0, 0.5]])
    residual = z @ design.T - np.array([0.0, 0.0, 2.0, 1.0])
    return residual, np.broadcast_to(design, (len(z), 4, 2))


def brute(residuals, n=1500):
    """Return mean and standard deviation by a grid."""
    axes = np.linspace(-4, 4, n)
    z = np.stack(np.meshgrid(axes, axes), axis=-1).reshape(-1, 2)
    value = density_of(residuals)(z, None)
    weight = np.exp(value - value.max())
    weight /= weight.sum()
    mean = weight @ z
    return mean, np.sqrt(weight @ (z - mean) ** 2)


def optimum(residuals, z):
    """Return it, by Gauss-Newton steps."""
    for _ in range(50):
        residual, jacobian = residuals(z[None])
        z = z - np.linalg.lstsq(jacobian[0], residual[0])[0]
    return z


def test_of_a_linear_model_all_draws_weigh_the_same():
    found = randomized(line, density_of(line), optimum(line, np.zeros(2)), **OPTIONS)
    assert found.agrees
    assert found.share == pytest.approx(1.0)
    assert found.n_draws == 2000
    mean, std = brute(line)
    np.testing.assert_allclose(found.draws.mean(axis=0), mean, atol=0.1 * std.max())
    np.testing.assert_allclose(found.draws.std(axis=0), std, rtol=0.05)


def test_draws_follow_a_valley_that_bends():
    """Where normal distributions around the optimum share nothing with the density."""
    found = randomized(bent, density_of(bent), optimum(bent, np.zeros(2)), **OPTIONS)
    mean, std = brute(bent)
    assert found.share > 0.2
    assert found.agrees
    np.testing.assert_allclose(found.draws.mean(axis=0), mean, atol=0.1 * std.max())
    np.testing.assert_allclose(found.draws.std(axis=0), std, rtol=0.08)


def test_what_cannot_be_computed_is_never_drawn_and_a_share_of_it_is_no_agreement():
    def frail(z, sample=None):
        residual, jacobian = line(z)
        return np.where(z[:, :1] > 0.6, np.nan, residual), jacobian

    center = optimum(line, np.zeros(2))
    found = randomized(frail, density_of(frail), center, **OPTIONS)
    assert not found.agrees
    assert (found.draws[:, 0] <= 0.6).all()


def test_a_budget_that_does_not_reach_is_not_used_up():
    center = optimum(bent, np.zeros(2))
    options = OPTIONS | {"n_enough": 10**6}
    found = randomized(bent, density_of(bent), center, **options)
    assert found.n_draws == 1000
    assert not found.agrees
    assert np.isfinite(found.draws).all()


def test_half_as_many_draws_as_asked_for_are_worth_a_budget():
    options = OPTIONS | {"max_solves": 3_500}  # for 1,000 draws
    found = randomized(line, density_of(line), optimum(line, np.zeros(2)), **options)
    assert found.n_effective == pytest.approx(1000)
    assert found.agrees


def test_what_lies_beyond_a_fold_is_not_reached():
    """A density of draws is that of one branch: there Qᵀr' keeps its sign."""

    def folded(z, sample=None):
        residual = np.concatenate([z, (np.sin(3 * z) - 0.9) / 0.5], axis=1)
        return residual, np.stack([np.ones_like(z), 3 * np.cos(3 * z) / 0.5], axis=1)

    center = np.array([0.337])  # the optimum
    residual, jacobian = folded(center[None])
    basis, slope = np.linalg.qr(jacobian[0])
    aim = np.random.default_rng(0).standard_normal((1000, 1))
    found = _solve(folded, basis, aim, center, residual[0] @ basis, slope)
    z, log_drawn, _ = found
    solved = np.abs(folded(z)[0] @ basis - aim)[:, 0] < 1e-3
    ahead = (folded(z)[1][:, :, 0] @ basis)[:, 0] * slope[0, 0] > 0
    assert (solved & ~ahead).any()
    assert ahead[np.isfinite(log_drawn)].all()
    assert np.isfinite(log_drawn).mean() > 0.5
