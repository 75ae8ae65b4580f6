"""Chains tell posteriors of any shape as brute force does."""

import numpy as np
import pytest
import scipy.stats
import torch
from sklearn.frozen import FrozenEstimator

from sklearn_inverse import (
    ForwardFunction,
    MCMCInverter,
    ODESurrogate,
    Operator,
    ReactionSystem,
    Training,
)
from sklearn_inverse.datasets import load_lynx_hare
from sklearn_inverse.exceptions import (
    ConvergenceWarning,
    IntegrationWarning,
)
from sklearn_inverse.inverse import _mcmc
from sklearn_inverse.optim import _samplers
from sklearn_inverse.probability import (
    InversionStatus,
    LogNormal,
    NegativeBinomial,
    Normal,
)

NODES = 801  # of each param's quantiles, in brute force


def draw(model, readings, **options):
    """Return the posterior of some readings, one sample per row."""
    inverter = MCMCInverter(model, **{"random_state": 0} | options)
    return inverter.fit(readings).posterior(readings)


class Grid:
    """The posterior of two params by brute force, on a grid of prior quantiles."""

    def __init__(self, model, reading, noise):
        u = (np.arange(NODES) + 0.5) / NODES
        prior = model.fit(None).prior_
        pairs = np.stack(np.meshgrid(u, u, indexing="ij"), axis=-1).reshape(-1, 2)
        self.params = prior.from_quantile(pairs)
        off = (model.simulate(self.params)[..., 0] - reading) / noise
        weight = np.exp(-0.5 * (off**2).sum(axis=1))
        self.weight = weight / weight.sum()
        self.mean = self.weight @ self.params
        self.std = np.sqrt(self.weight @ (self.params - self.mean) ** 2)

    def ranks(self, draws):
        """Return the posterior's distribution functions at draws (n_draws, 2)."""
        columns = []
        for params, drawn in zip(self.params.T, draws.T):
            order = np.argsort(params)
            total = self.weight[order].cumsum()
            columns.append(np.interp(drawn, params[order], total))
        return np.stack(columns, axis=1)


SHAPES = {
    # (function, priors, reading, noise)
    "banana": (
        lambda k: k[:, 1:] + k[:, :1] ** 2,
        {"a": Normal(0, 1), "b": Normal(0, 1)},
        [1.0],
        0.4,
    ),
    "flat, cut off by its box": (
        lambda k: k[:, :1] * k[:, 1:],
        {"a": (0.0, 1.0), "b": (0.0, 1.0)},
        [1.0],
        0.5,
    ),
    "two optima": (
        lambda k: torch.cat([k[:, :1] ** 2, k[:, :1] ** 2 + k[:, 1:]], dim=1),
        {"a": Normal(0.3, 1), "b": Normal(0, 1)},
        [1.0, 1.5],
        0.3,
    ),
}


@pytest.mark.parametrize("moves", ["evolution", "hamiltonian"])
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_that_brute_force_knows(shape, moves):
    function, priors, reading, noise = SHAPES[shape]
    model = ForwardFunction(function, params=priors, noise=noise)
    grid = Grid(model, reading, noise)
    posterior = draw(model, [reading], moves=moves, n_walkers=128)
    assert (np.abs(posterior.mean[0] - grid.mean) < 0.1 * grid.std).all()
    np.testing.assert_allclose(posterior.std[0], grid.std, rtol=0.1)
    ranks = grid.ranks(posterior.draws[0])
    levels = np.linspace(0.05, 0.95, 19)
    np.testing.assert_allclose(
        np.quantile(ranks, levels, axis=0), np.stack([levels] * 2, axis=1), atol=0.04
    )
    if shape == "two optima":  # normal distributions there know too, but not how many
        assert posterior.weights[0, 0] == pytest.approx(
            grid.weight[grid.params[:, 0] > 0].sum(), abs=0.04
        )


def test_noise_that_is_not_known_is_integrated_over():
    """The marginal posterior of a mean is Student's t."""
    y = np.random.default_rng(0).normal(2.0, 0.5, 6)
    model = ForwardFunction(lambda k: k + torch.zeros(6), params={"mean": (-50, 50)})
    posterior = draw(model, [y], n_effective=3000)
    known = scipy.stats.t(5, y.mean(), y.std(ddof=1) / np.sqrt(6))
    lower, upper = posterior.interval(0.9)
    assert posterior.mean[0, 0] == pytest.approx(y.mean(), abs=0.1 * known.std())
    np.testing.assert_allclose(
        [lower[0, 0], upper[0, 0]], known.interval(0.9), rtol=0.03
    )
    assert posterior.noise_scale[0, 0] == pytest.approx(y.std(ddof=1), rel=0.1)


def positive(mean, std):
    return Normal(mean, std).truncate(low=0)


@pytest.mark.slow
def test_boarding_school_influenza():
    """England 1978: means and deviations by quadrature, which Laplace's miss by a third."""
    cases = [np.nan, 3, 8, 26, 76, 225, 298, 258, 233, 189, 128, 68, 29, 14, 4]
    system = ReactionSystem(
        {"S + I -> 2 I": "beta/763", "I -> R": "gamma"},
        initial={"S": 762, "I": 1},
        params={
            "beta": positive(2, 1),
            "gamma": positive(0.4, 0.5),
            "inverse_dispersion": scipy.stats.expon(scale=1 / 5),
        },
        times=np.arange(15.0),
        observe={"in_bed": lambda t, y, p: y.I},
        noise=NegativeBinomial(lambda p: 1 / p.inverse_dispersion),
    )
    posterior = draw(system, [cases], n_starts=2, n_effective=2000)
    mean, std = [1.7349, 0.5420, 0.1375], np.array([0.0528, 0.0454, 0.0748])
    assert (np.abs(posterior.mean[0] - mean) < 0.1 * std).all()
    np.testing.assert_allclose(posterior.std[0], std, rtol=0.1)
    assert "mcmc: " in str(posterior[0])


PREDATION = {
    "hare -> 2 hare": "alpha",
    "hare + lynx -> lynx": "beta",
    "lynx ->": "gamma",
    "hare + lynx -> hare + 2 lynx": "delta",
}


def sbibm_lotka_volterra():
    """Return sbibm's system, and its first observation."""
    rate, contact = LogNormal(np.exp(-0.125), 0.5), LogNormal(np.exp(-3), 0.5)
    system = ReactionSystem(
        PREDATION,
        initial={"hare": 30, "lynx": 1},
        params={"alpha": rate, "beta": contact, "gamma": rate, "delta": contact},
        times=2.1 * np.arange(10),
        noise=LogNormal(0.1),
    )
    readings = (
        "31.78 1.197 .297 .7115 2.942 11.48 36.09 .4623 .3808 .9174 "
        ".891 27.04 4.356 .7844 .171 .1326 8.727 16.97 2.79 .4757"
    )
    return system, np.array(readings.split(), dtype=float).reshape(1, 2, 10).mT


@pytest.mark.slow
def test_sbibm_lotka_volterra():
    system, readings = sbibm_lotka_volterra()
    posterior = draw(system, readings, n_starts=1)
    mean = np.array([0.6835, 0.1047, 0.8965, 0.1178])
    assert (np.abs(posterior.mean[0] - mean) < [0.0015, 6e-4, 0.0025, 4e-4]).all()
    np.testing.assert_allclose(posterior.std[0], [0.009, 0.006, 0.016, 0.002], rtol=0.2)


@pytest.mark.slow
def test_lynx_and_hare():
    """Stan's posterior, both noise levels estimated: eight unknowns."""
    data = load_lynx_hare()
    rate, contact = positive(1, 0.5), positive(0.05, 0.05)
    noise = LogNormal(np.exp(-1), 1)
    system = ReactionSystem(
        PREDATION,
        initial={"hare": "hare0", "lynx": "lynx0"},
        params={
            **{"alpha": rate, "beta": contact, "gamma": rate, "delta": contact},
            **{"hare0": LogNormal(10, 1), "lynx0": LogNormal(10, 1)},
            **{"sigma_hare": noise, "sigma_lynx": noise},
        },
        times=np.arange(21.0),
        noise={"hare": LogNormal("sigma_hare"), "lynx": LogNormal("sigma_lynx")},
    )
    posterior = draw(system, data.observations)
    mean, std = data.published["mean"], data.published["std"]
    assert (np.abs(posterior.mean[0] - mean) < 0.12 * std).all()
    np.testing.assert_allclose(posterior.std[0], std, rtol=0.1)


def line(noise=0.1, limit=None):
    """Return a straight line that cannot be simulated where its slope is too large."""
    t = torch.linspace(0.0, 1.0, 5, dtype=torch.float64)

    def function(k):
        readings = k[:, :1] + k[:, 1:] * t
        return (
            readings if limit is None else readings.where(k[:, 1:] < limit, torch.nan)
        )

    return ForwardFunction(
        function, params={"level": Normal(0, 1), "slope": Normal(0, 1)}, noise=noise
    )


LINES = np.array(
    [[0.0, 0.3, 0.4, 0.8, 1.1], [0.5, 0.4, 0.6, 0.5, 0.4], [0.9, 1.0, 1.1, 1.2, 1.1]]
)
QUICK = {"n_effective": 200, "n_starts": 1}


@pytest.mark.slow
@pytest.mark.parametrize("moves", ["evolution", "hamiltonian"])
def test_a_region_that_fails_is_left_out_and_counted(moves):
    with pytest.warns(
        IntegrationWarning, match=r"failed at \d+ proposals of 1 samples"
    ):
        posterior = draw(line(noise=0.5, limit=1.0), LINES[:1], moves=moves)
    free = draw(line(noise=0.5), LINES[:1], n_effective=4000)
    kept = free.draws[0, free.draws[0, :, 1] < 1.0]
    assert posterior.draws[..., 1].max() < 1.0
    np.testing.assert_allclose(
        posterior.mean[0], kept.mean(axis=0), atol=0.1 * kept.std()
    )
    assert posterior.n_failed[0] > 100


def test_a_sample_draws_the_same_alone_and_again():
    inverter = MCMCInverter(line(), chunk_size=2, random_state=0, **QUICK).fit(LINES)
    posterior = inverter.posterior(LINES)
    alone = inverter.posterior(LINES[1:2])
    np.testing.assert_allclose(alone.draws, posterior.draws[1:2], rtol=1e-6)
    again = MCMCInverter(line(), random_state=1, **QUICK).fit(LINES[:1])
    assert not np.allclose(again.posterior(LINES[:1]).draws, posterior.draws[:1])
    mean, std = inverter.predict(LINES[:2], return_std=True)
    np.testing.assert_array_equal(mean, posterior.mean[:2])
    np.testing.assert_array_equal(std, posterior.std[:2])


def test_chains_on_a_shared_surrogate_tell_its_posterior():
    """As the papers' row "MCMC" has it; the surrogate's own error is added to the noise."""
    times, rate = np.linspace(0, 2, 8), np.linspace(0.5, 2, 200)[:, None]
    options = {"network": Operator(n_layers=0, embedding=4), "n_basis": 2}
    options |= {"basis_epochs": 20, "training": Training(max_epochs=1)}
    surrogate = ODESurrogate(noise=0.1, random_state=0, **options)
    surrogate.fit(np.exp(-rate * times), rate)
    reading = np.where(np.arange(8) % 3 == 2, np.exp(-1.2 * times), np.nan)[None]
    posterior = draw(FrozenEstimator(surrogate), reading, **QUICK)
    off = surrogate.simulate(rate)[..., 0] - reading
    noise = np.hypot(0.1, surrogate.error_)
    weight = np.exp(-0.5 * np.nansum((off / noise) ** 2, axis=1))
    mean = np.average(rate[:, 0], weights=weight)
    std = np.average((rate[:, 0] - mean) ** 2, weights=weight) ** 0.5
    assert posterior.is_confirmed.all()
    assert posterior.mean[0, 0] == pytest.approx(mean, abs=0.15 * std)
    assert posterior.std[0, 0] == pytest.approx(std, rel=0.1)


@pytest.mark.slow
def test_trajectories_need_fewer_moves_in_many_dimensions():
    """Twelve params, skewed by their priors, of which sums and differences are read."""
    n = 12
    matrix = torch.as_tensor(np.random.default_rng(0).standard_normal((8, n)))
    model = ForwardFunction(
        lambda k: k @ matrix.T,
        params={f"k{i}": LogNormal(1.0, 0.4) for i in range(n)},
        noise=0.5,
    )
    reading = model.fit(None).simulate([[1.3] * n]).reshape(1, -1)
    by_evolution, by_slope = (
        draw(model, reading, n_effective=500, n_starts=1, moves=moves)
        for moves in ("evolution", "hamiltonian")
    )
    assert by_slope.is_confirmed[0]
    assert by_slope.n_iter[0] < by_evolution.n_iter[0] / 2
    off = np.abs(by_slope.mean - by_evolution.mean) / by_slope.std
    assert off.max() < 0.25  # of 500 draws each


def test_the_posterior_tells_all_of_its_draws():
    posterior = draw(line(), LINES, **QUICK)
    assert (posterior.kind == "mcmc").all()
    assert posterior.is_confirmed.all()
    draws = posterior.draws
    np.testing.assert_allclose(posterior.mean, draws.mean(axis=1))
    np.testing.assert_allclose(posterior.quantile(0.3), np.quantile(draws, 0.3, axis=1))
    np.testing.assert_allclose(
        posterior.correlation[0], np.corrcoef(draws[0].T), atol=1e-12
    )
    np.testing.assert_allclose(
        posterior.covariance[1], np.cov(draws[1].T, bias=True), rtol=1e-9
    )
    np.testing.assert_allclose(posterior.contraction, draws.std(axis=1), rtol=1e-6)
    n_kept = draws.shape[1]
    np.testing.assert_array_equal(
        np.sort(posterior.sample(n_kept), axis=1), np.sort(draws, axis=1)
    )
    np.testing.assert_array_equal(posterior[1:].draws, draws[1:])
    frame = posterior.to_frame()
    assert {"std", "rhat", "n_effective"} <= set(frame.columns)
    assert "effective draws; prior: as stated" in str(posterior[2])
    with pytest.raises(ValueError, match="`n_draws` must be an int >= 1"):
        posterior.sample(0)


def test_chains_that_do_not_agree_say_so():
    with pytest.warns(
        ConvergenceWarning, match=r"R-hat is .* of 5,000 effective draws"
    ):
        posterior = draw(line(), LINES[:1], max_iter=20, n_effective=5000)
    assert posterior.status[0] == InversionStatus.MAX_ITER
    assert posterior.n_iter[0] == 20
    assert np.isfinite(posterior.draws).all()


def test_ctrl_c_keeps_the_chains_so_far(press_at):
    inverter = MCMCInverter(line(), random_state=0, n_effective=5000).fit(LINES)
    calls = press_at(_samplers._Walkers, "move", 45)
    with pytest.warns(ConvergenceWarning, match="Interrupted: 0 of 3 samples"):
        posterior = inverter.posterior(LINES)
    assert len(calls) == 45
    assert (posterior.status == InversionStatus.INTERRUPTED).all()
    assert (posterior.n_iter == 44).all()
    assert np.isfinite(posterior.mean).all()
    assert np.isfinite(posterior.rhat).all()


def test_ctrl_c_in_the_search_leaves_no_draws(press_at):
    inverter = MCMCInverter(line(), random_state=0).fit(LINES)
    press_at(_mcmc, "levenberg_marquardt", 1)
    with pytest.warns(ConvergenceWarning, match="Of the others 3 are NaN"):
        posterior = inverter.posterior(LINES)
    assert np.isnan(posterior.mean).all()
    assert "nothing was found" in str(posterior[0])


def test_too_few_walkers_are_refused():
    with pytest.raises(ValueError, match="n_walkers=4 for 2 of these; set n_walkers=8"):
        MCMCInverter(line(), n_walkers=4).fit(LINES)
