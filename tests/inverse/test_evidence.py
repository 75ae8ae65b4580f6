"""Claims: scales of priors of functions are those that the readings like best."""

import re
from contextlib import nullcontext

import numpy as np
import pytest
from scipy.stats import chi2

from sklearn_inverse import GradientInverter, MCMCInverter, PDESystem, PointValues
from sklearn_inverse.exceptions import BoundsWarning, NormalityWarning
from sklearn_inverse.inverse import _evidence
from sklearn_inverse.inverse._search import SearchInverter
from sklearn_inverse.optim._kinks import Drawn
from sklearn_inverse.probability import GaussianFunction, Normal
from sklearn_inverse.problems import burgers, heat, poisson
from sklearn_inverse.systems import FiniteDifferences

QUICK = {"n_starts": 1, "max_solves": 0}
RANGE = (0.25, 16.0)


@pytest.fixture(scope="module")
def readings():
    """Solutions of Poisson's equation for two diffusivities, with noise."""
    system, x = poisson(n_nodes=51), np.linspace(0, 1, 26)[1:-1]
    hat, flat = 1.5 - np.abs(x - 0.5), 1 + 0.1 * np.sin(np.pi * x)
    u = system.solve([hat, flat])
    at = np.linspace(0, 1, 51)[1:-1]
    u = np.stack([np.interp(at, system.nodes, row) for row in u])
    return u + 0.01 * np.random.default_rng(0).standard_normal(u.shape)


@pytest.mark.slow
def test_the_evidence_is_at_its_maximum(readings):
    system = poisson(n_nodes=51, scale=RANGE)
    found = GradientInverter(system, **QUICK).fit(readings).posterior(readings)
    for i, (scale,) in enumerate(found.scales):
        for factor in (0.5, 1, 2):
            given = poisson(n_nodes=51, scale=factor * scale)
            inverter = GradientInverter(given, **QUICK).fit(readings)
            other = inverter.posterior(readings[[i]])
            if factor == 1:
                assert other.log_evidence == pytest.approx(found.log_evidence[i])
                assert np.allclose(other.mean[0], found.mean[i], rtol=1e-4)
                assert np.allclose(other.std[0], found.std[i], rtol=1e-3)
                assert np.allclose(
                    other.contraction[0], found[i].contraction, rtol=1e-3
                )
            else:
                assert other.log_evidence[0] < found.log_evidence[i] + 1e-3


def test_a_batch_equals_one_by_one_and_reports_tell(readings):
    inverter = GradientInverter(poisson(n_nodes=51, scale=RANGE), **QUICK).fit(readings)
    both = inverter.posterior(readings)
    for i in range(2):
        one = inverter.posterior(readings[[i]])
        assert np.allclose(one.scales, both.scales[i])
        assert np.allclose(one.mean, both.mean[i], rtol=1e-6)
    assert f"D {both.scales[0, 0]:.3g}, by evidence" in str(both[0])
    assert "49 readings: as expected" in str(both[0])
    assert both.n_forward.min() > 20  # of all that was tried


def test_groups_may_try_different_numbers_of_starts(readings, monkeypatch):
    # A search beside ends that explain nothing is that of some groups alone.
    search = SearchInverter._search_chunk

    def more_for_one(self, *arrays, **options):
        answer = search(self, *arrays, **options)
        n_more = 6 if len(answer) == 1 and arrays[0].flat[0] == readings[0, 0] else 0
        answer.ends = np.pad(answer.ends, ((0, 0), (0, n_more)), constant_values=np.inf)
        return answer

    monkeypatch.setattr(SearchInverter, "_search_chunk", more_for_one)
    inverter = GradientInverter(poisson(n_nodes=51, scale=RANGE), **QUICK).fit(readings)
    posterior = inverter.posterior(readings)
    assert posterior.scales[0] != posterior.scales[1]
    assert posterior.ends.shape == (2, 7)


def test_likelihood_alone_needs_no_scale(readings):
    inverter = GradientInverter(poisson(n_nodes=11), prior=None, n_starts=1)
    estimate = inverter.fit(readings[:1]).invert(readings[:1])
    assert np.isfinite(estimate.params).all()


def test_a_range_that_is_too_narrow_is_told(readings):
    system = poisson(n_nodes=51, scale=(0.01, 0.3))
    inverter = GradientInverter(system, **QUICK).fit(readings)
    with pytest.warns(BoundsWarning, match="end of its range, 0.3. Give a wider one"):
        posterior = inverter.posterior(readings[:1])
    assert posterior.scales == pytest.approx(0.3)


def source(scale, length=1.0):
    """Return Poisson's equation with an unknown source, in some unit of length."""
    return PDESystem(
        {"x": (0, length)},
        lambda x, u, p: u.xx + p.f / length**2,
        constraint=lambda x, n: n * x.x / length * (1 - x.x / length),
        params={"f": GaussianFunction(5, 2, scale, interval=(0, length))},
        observe=PointValues(np.linspace(0, length, 9)[1:-1]),
        noise=0.001,
        grid=FiniteDifferences(9),
    )


def test_functions_that_vary_less_than_their_range_allows_are_told():
    for end, is_wide in ((0.1, False), (10.0, True)):
        system = source((end, 100.0))
        u = system.solve(np.ones(5))[:, 1:-1]
        inverter = GradientInverter(system, **QUICK).fit(u)
        match = f"to vary less .* its range, {end:g}"
        with pytest.warns(BoundsWarning, match=match) if is_wide else nullcontext():
            assert inverter.posterior(u).scales == pytest.approx(end)


def test_scales_are_found_in_any_unit_of_length():
    found = []
    for length in (1.0, 1e9):
        system = source(None, length)
        u = system.solve(1 + np.sin(5 * np.linspace(0, 1, 5)))[:, 1:-1]
        inverter = GradientInverter(system, **QUICK).fit(u)
        found.append(inverter.posterior(u))
    scales = [po.scales * length**1.5 for po, length in zip(found, (1.0, 1e9))]
    assert scales[0] == pytest.approx(scales[1])
    assert np.allclose(found[0].std, found[1].std, rtol=1e-4)


def test_what_cannot_be_found_is_refused(readings):
    with pytest.raises(ValueError, match="GradientInverter finds it"):
        MCMCInverter(poisson(n_nodes=51)).fit(readings)
    with pytest.raises(ValueError, match="needs noise that is known or has a prior"):
        GradientInverter(poisson(n_nodes=51, noise=Normal())).fit(readings)


def test_functions_with_kinks_are_drawn(readings):
    system = poisson(n_nodes=15, scale=RANGE, kinks=True)
    inverter = GradientInverter(system, n_starts=1, max_solves=100).fit(readings)
    both = inverter.posterior(readings)
    assert both.draws.shape == (2, 2000, 6)
    assert (both.kind == "mcmc").all()
    assert both.is_confirmed.all()
    assert (both.overlap > 0.9).all()
    assert np.isnan(both.log_evidence).all()
    one = inverter.posterior(readings[[1]])
    assert np.allclose(one.draws[0], both.draws[1], rtol=1e-6)
    assert "by evidence; with kinks all that chains tell" in str(one)
    with pytest.raises(ValueError, match="kinks=True is for GradientInverter alone"):
        MCMCInverter(system).fit(readings)


@pytest.mark.slow
def test_draws_around_linearized_readings_may_be_weighed(readings):
    found = [
        GradientInverter(
            poisson(n_nodes=15, scale=RANGE, kinks=True), n_starts=1, max_solves=n
        )
        .fit(readings)
        .posterior(readings)
        for n in (100, 2000)
    ]
    assert (found[1].n_drawn == 2000).all()
    off = (found[0].mean - found[1].mean) / found[1].std
    assert abs(off).max() < 0.15
    assert (off != 0).all()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"rhat": 1.2}, "chains do not agree"),
        ({"draws": 3.0}, "too far from linear: no kinks were let in"),
    ],
)
def test_draws_that_mean_little_are_told(readings, monkeypatch, change, match):
    def worse(linearize, start, kinks, seed):
        draws = np.repeat(start[:, None], 2000, axis=1)
        parts = {"draws": draws, "rhat": np.ones_like(start)}
        parts |= {name: parts[name] * factor for name, factor in change.items()}
        return Drawn(center=start, n_effective=start, **parts)

    monkeypatch.setattr(_evidence, "draw_kinks", worse)
    system = poisson(n_nodes=15, scale=RANGE, kinks=True)
    inverter = GradientInverter(system, **QUICK).fit(readings)
    with pytest.warns(NormalityWarning, match=match):
        posterior = inverter.posterior(readings)
    assert posterior.explained.all()
    assert (posterior.kind == ("mcmc" if "rhat" in change else "laplace")).all()


def test_a_report_counts_what_a_function_follows_in_independent_directions(readings):
    """Of 24 values each is well known, but readings tell three combinations of these."""
    system = poisson(n_nodes=51, scale=1.0)
    posterior = GradientInverter(system, **QUICK).fit(readings).posterior(readings[1:])
    p = float(re.search(r"as expected \(p = ([\d.]+)\)", str(posterior[0]))[1])
    assert (posterior.contraction[0] < 0.5).all()
    misfit = posterior.misfit[0]
    assert chi2.sf(misfit, 43) < p < chi2.sf(misfit, 48)


@pytest.mark.parametrize("n_runs", [100, 2000])
def test_runs_tell_where_draws_are_not_the_posterior(readings, monkeypatch, n_runs):
    """By their overlap with it, or as weighed by it, if all draws are run."""

    def far(linearize, start, kinks, seed):
        away = np.random.default_rng(seed).standard_normal((2000, start.shape[1]))
        draws, ones = start[:, None] + 0.05 * away, np.ones_like(start)
        return Drawn(draws, start + 1, rhat=ones, n_effective=2000 * ones)

    monkeypatch.setattr(_evidence, "draw_kinks", far)
    system = poisson(n_nodes=15, scale=RANGE, kinks=True)
    inverter = GradientInverter(system, n_starts=1, max_solves=n_runs).fit(readings)
    with pytest.warns(NormalityWarning):
        posterior = inverter.posterior(readings)
    assert (posterior.kind == "mcmc").all()
    assert not posterior.is_confirmed.any()


X = np.linspace(0, 1, 51)[1:-1]


@pytest.mark.slow
def test_a_hat_is_found_far_better_with_kinks():
    fine, hat = heat(n_nodes=401), 1 - 2 * abs(X - 0.5)
    u = fine.solve(1 - 2 * abs(np.linspace(0, 1, 201)[1:-1] - 0.5))[0, 0]
    u, noise = np.interp(X, fine.nodes, u), 1e-3**0.5
    read = u + noise * np.random.default_rng(7).standard_normal((10, len(X)))
    error = []
    for kinks in (False, True):
        inverter = GradientInverter(heat(noise=noise, kinks=kinks), **QUICK).fit(read)
        found = inverter.posterior(read)
        error.append(np.mean((found.mean - hat) ** 2))
    low, high = found.interval(0.9)
    assert error[1] < error[0] / 2
    held = (low < hat) & (hat < high)
    assert held.mean() > 0.85
    assert held[:, abs(X - 0.5) < 0.05].mean() > 0.75


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "noise", "truth", "most"),
    [
        (poisson, 0.01, lambda x: 1.5 - abs(x - 0.5), 3.2e-2),
        (heat, 1e-3**0.5, lambda x: 1 - 2 * abs(x - 0.5), 1.5e-3),
    ],
)
def test_functions_of_the_paper_are_found_with_honest_bands(make, noise, truth, most):
    fine = make(n_nodes=401)
    u = fine.solve(truth(np.linspace(0, 1, 201)[1:-1])).reshape(-1)
    u = np.interp(X, fine.nodes, u)
    read = u + noise * np.random.default_rng(7).standard_normal((10, len(X)))
    inverter = GradientInverter(make(noise=noise), **QUICK).fit(read)
    found = inverter.posterior(read)
    low, high = found.interval(0.9)
    covered = np.mean((low < truth(X)) & (truth(X) < high))
    square = np.mean((found.mean - truth(X)) ** 2, axis=1)
    if make is poisson:  # relative
        square = np.sqrt(square / np.mean(truth(X) ** 2))
    assert square.mean() <= most
    assert 0.85 < covered < 0.97


@pytest.mark.slow
@pytest.mark.parametrize(
    ("start", "front"),
    [
        (lambda x: np.sin(2 * np.pi * x), 0.5),
        (lambda x: 1.0 * (abs(x - 0.5) <= 0.25), 0.85),
    ],
)
def test_what_became_a_shock_is_found(start, front):
    fine = burgers(n_nodes=201, n_values=201)
    u = fine.solve(start(fine.nodes[1:-1]))[0, 0]
    read = np.interp(X, fine.nodes, u)
    read = read + 0.05 * np.random.default_rng(0).standard_normal((1, len(X)))
    system = burgers(n_nodes=101, scale=(1.0, 8.0))
    found = GradientInverter(system, **QUICK).fit(read).posterior(read)
    end = system.solve(found.mean)[0, 0]
    behind = system.nodes[np.flatnonzero(end > 0.4).max()]
    low, high = found.interval(0.9)
    covered = np.mean((low < start(X)) & (start(X) < high))
    error = np.abs(found.mean[0] - start(X)).mean()
    assert error < 0.12
    assert behind == pytest.approx(front, abs=2 / 100)
    assert covered > 0.85
