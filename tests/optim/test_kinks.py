"""Claims: draws of functions with kinks come from their posterior."""

import numpy as np
import pytest
from scipy.stats import cauchy

from sklearn_inverse.inverse._evidence import kinks_of
from sklearn_inverse.optim._kinks import draw_kinks
from sklearn_inverse.probability import GaussianFunction, JointPrior

NODES = 4  # of which two are not known


def kinks(order, scale_range, **options):
    options = {"ends": (0, 0), "scale": scale_range, "order": order} | options
    function = GaussianFunction(NODES, kinks=True, **options)
    prior = JointPrior({"f": function})
    return function, kinks_of(prior, prior.at_scales([1.0]))


def drawn(function, prior, matrix, read):
    """Return draws of the function from readings ``matrix @ f`` with unit noise."""
    size = np.sqrt(np.diag(function.covariance))
    by_w = matrix * size

    def linearize(w, sample):
        information = np.broadcast_to(by_w.T @ by_w, (len(w), *2 * w.shape[1:]))
        return information, (read - w @ by_w.T) @ by_w

    start = np.zeros((len(read), function.size))
    return draw_kinks(linearize, start, prior, seed=0).draws * size


@pytest.mark.parametrize("order", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_draws_agree_with_quadrature(order):
    function, prior = kinks(order, (0.5, 50.0))
    # Readings that tell where the bend is: variances are exchanged only as these allow.
    matrix, read = np.array([[4.0, 2.0], [0.0, 8.0]]), np.array([[8.0, 6.0], [-4, 16]])
    draws = drawn(function, prior, matrix, read)
    at = np.linspace(-4, 4, 641)
    f = np.stack(np.meshgrid(at, at, indexing="ij"), axis=-1)
    bends = f @ function.bends()[0].T
    (ladder,) = prior.ladders
    density = sum(np.prod(s / (s**2 + bends**2), axis=-1) for s in ladder)
    if order == 1:  # given that the jumps add up to zero, which is as likely as 1 / s
        density = sum(s * np.prod(s / (s**2 + bends**2), axis=-1) for s in ladder)
    for own, y in zip(draws, read):
        weight = density * np.exp(-0.5 * ((y - f @ matrix.T) ** 2).sum(axis=-1))
        weight /= weight.sum()
        mean = np.einsum("ij,ijp->p", weight, f)
        std = np.sqrt(np.einsum("ij,ijp->p", weight, (f - mean) ** 2))
        assert np.allclose(own.mean(axis=0), mean, atol=0.1 * std.min())
        assert np.allclose(own.std(axis=0), std, rtol=0.1)


@pytest.mark.slow
def test_without_readings_jumps_between_known_ends_are_those_of_a_cauchy_bridge():
    function, prior = kinks(1, (2.0, 2.0 + 1e-9))
    draws = drawn(function, prior, np.zeros((1, 2)), np.zeros((1, 1)))[0]
    jump = 3 * draws[:, 0]  # slope to the first node; those of the others add up to -it
    at = np.linspace(-200, 200, 400_001)
    density = cauchy.pdf(at, scale=2) * cauchy.pdf(at, scale=4)
    for level in (0.1, 0.25, 0.75, 0.9):
        end = at[np.searchsorted(density.cumsum() / density.sum(), level)]
        assert np.mean(jump < end) == pytest.approx(level, abs=0.04)


@pytest.mark.parametrize("order", [1, 2])
def test_kinks_are_the_same_in_any_unit_of_length(order):
    relative = []
    for length in (1.0, 1e9):
        scales = [s * length ** (0.5 - order) for s in (0.5, 50.0)]
        _, prior = kinks(order, scales, interval=(0, length), ends=None)
        by_w = prior.differences @ np.linalg.inv(prior.basis)
        relative.append(by_w / prior.ladders[0, 0])
    np.testing.assert_allclose(*relative, rtol=1e-9, atol=1e-9 * abs(relative[0]).max())


@pytest.mark.slow
def test_ends_that_are_not_known_have_their_spread():
    for order in (1, 2):
        function, prior = kinks(order, (1.0, 2.0), ends=None, std=0.3)
        matrix = np.zeros((1, NODES))
        draws = drawn(function, prior, matrix, np.zeros((1, 1)))[0][:, [0, -1]]
        held = draws.mean(axis=1) if order == 1 else draws
        assert held.std() == pytest.approx(0.3, rel=0.05)
