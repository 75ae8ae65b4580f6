"""Posteriors are as simple as they may be, and say so where they are not."""

import warnings

import numpy as np
import pytest
import torch

from sklearn_inverse import ForwardFunction, GradientInverter, RefinedInverter
from sklearn_inverse.exceptions import (
    ConvergenceWarning,
    IntegrationWarning,
    NormalityWarning,
)
from sklearn_inverse.inverse import _checked_search
from sklearn_inverse.optim import _importance, _randomized, _samplers
from sklearn_inverse.probability import InversionStatus, Normal

NODES = 801  # of each param's quantiles, in brute force
BUDGET = 20_000


def banana(noise=0.4):
    """Return a model whose posteriors bend the more, the less is read."""
    return ForwardFunction(
        lambda k: k[:, 1:] + k[:, :1] ** 2,
        params={"a": Normal(0, 1), "b": Normal(0, 1)},
        noise=noise,
    )


def box():
    """Return a model whose posterior is flat, and cut off by the prior's bounds."""
    return ForwardFunction(
        lambda k: k.sum(dim=1, keepdim=True),
        params={"a": (0.0, 1.0), "b": (0.0, 1.0)},
        noise=0.05,
    )


def squares():
    """Return a model of which the sign of a param is never known."""
    return ForwardFunction(
        lambda k: torch.cat([k[:, :1] ** 2, k[:, :1] ** 2 + k[:, 1:]], dim=1),
        params={"a": Normal(0.3, 1), "b": Normal(0, 1)},
        noise=0.6,
    )


def line(noise=0.1):
    t = torch.linspace(0.0, 1.0, 5, dtype=torch.float64)
    return ForwardFunction(
        lambda k: k[:, :1] + k[:, 1:] * t,
        params={"level": Normal(0, 1), "slope": Normal(0, 1)},
        noise=noise,
    )


def plateau():
    """Return a model that says nothing of one param where the other is small."""
    return ForwardFunction(
        lambda k: k[:, :1] * torch.exp(-k[:, 1:]),
        params={"a": (0.0, 5.0), "b": Normal(0, 1)},
        noise=0.3,
    )


CASES = {
    # (model, reading, noise)
    "banana": (banana(), [1.0], 0.4),
    "box": (box(), [1.0], 0.05),
    "two modes": (squares(), [1.0, 1.5], 0.6),
    "plateau": (plateau(), [0.2], 0.3),
}
LINE = [[0.0, 0.3, 0.4, 0.8, 1.1]]
# Only the third is nearly normal.
MIXED = [[-0.9, -0.7], [1.0, 1.0], [4.0, 4.5], [0.1, 2.0]]


def answer(model, readings, max_solves=BUDGET, **options):
    options = {"n_starts": 4, "random_state": 0} | options
    inverter = GradientInverter(model, max_solves=max_solves, **options)
    return inverter.fit(readings).posterior(readings)


def brute_force(model, reading, noise):
    """Return points of a grid of prior quantiles, and their posterior weights."""
    u = (np.arange(NODES) + 0.5) / NODES
    model = model.fit(None)
    pairs = np.stack(np.meshgrid(u, u, indexing="ij"), axis=-1).reshape(-1, 2)
    params = model.prior_.from_quantile(pairs)
    off = (model.simulate(params)[..., 0] - reading) / noise
    weight = np.exp(-0.5 * (off**2).sum(axis=1))
    return params, weight / weight.sum()


@pytest.mark.parametrize("case", CASES)
def test_a_posterior_that_is_not_normal_is_flagged_and_then_found(case):
    model, reading, noise = CASES[case]
    with pytest.warns(NormalityWarning, match=r"told by laplace.*max_solves=100_000"):
        rough = answer(model, [reading], max_solves=200)
    assert rough.kind[0] == "laplace"
    assert not rough.is_confirmed[0]
    assert "NOT confirmed by 200 runs of the model" in str(rough[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        posterior = answer(model, [reading])
    assert posterior.kind[0] == "importance"
    assert posterior.is_confirmed[0]
    params, weight = brute_force(model, reading, noise)
    mean = weight @ params
    std = np.sqrt(weight @ (params - mean) ** 2)
    assert (np.abs(posterior.mean[0] - mean) < 0.1 * std).all()
    np.testing.assert_allclose(posterior.std[0], std, rtol=0.08)
    for j, column in enumerate(params.T):
        order = np.argsort(column)
        total = weight[order].cumsum()
        levels = np.interp(
            posterior.quantile([0.05, 0.3, 0.7, 0.95])[:, 0, j], column[order], total
        )
        np.testing.assert_allclose(levels, [0.05, 0.3, 0.7, 0.95], atol=0.035)


def test_what_is_normal_is_confirmed_and_left_as_it_is():
    posterior = answer(line(), LINE)
    plain = answer(line(), LINE, max_solves=0)
    assert posterior.kind[0] == plain.kind[0] == "laplace"
    assert posterior.is_confirmed[0]
    assert posterior.overlap[0] > 0.99
    np.testing.assert_array_equal(plain.mean, posterior.mean)
    assert posterior.n_forward[0] - plain.n_forward[0] == 200 == posterior.n_drawn[0]
    assert "checked on 200 runs of the model: overlap 100 %" in str(posterior[0])
    assert np.isnan(plain.overlap).all()
    assert not plain.is_confirmed.any()
    assert "laplace, not checked" in str(plain[0])


def test_noise_levels_are_checked_too():
    y = np.random.default_rng(0).normal(2.0, 0.5, (2, 30))
    model = ForwardFunction(lambda k: k + torch.zeros(30), params={"mean": (-50, 50)})
    posterior = answer(model, y, max_solves=200)
    assert posterior.is_confirmed.all()
    with pytest.warns(NormalityWarning, match="of 2 of 2 samples"):
        few = answer(model, np.where(np.arange(30) < 4, y, np.nan), max_solves=200)
    assert not few.is_confirmed.any()  # these are Student's


def test_without_a_prior_nothing_is_checked():
    posterior = answer(line(), LINE, prior=None)
    assert posterior.n_drawn[0] == 0
    assert "not checked" in str(posterior[0])


def test_kinds_are_the_samples_own_whatever_the_company():
    together = answer(squares(), MIXED, chunk_size=3)
    assert together.kind.tolist() == ["importance"] * 2 + ["laplace", "importance"]
    assert together.is_confirmed.all()
    for i in (1, 2):
        alone = answer(squares(), MIXED[i : i + 1])
        for ours in (alone, together[i]):
            assert ours.kind[0] == together.kind[i]
        np.testing.assert_allclose(alone.draws, together[i].draws, rtol=1e-6)
        np.testing.assert_allclose(alone.mean[0], together.mean[i], rtol=1e-6)
        np.testing.assert_allclose(alone.sample(9)[0], together.sample(9)[i], rtol=1e-6)
        np.testing.assert_allclose(
            alone.correlation[0], together.correlation[i], rtol=1e-6
        )
    told = ~np.isnan(together.draws).any(axis=(1, 2))
    np.testing.assert_array_equal(told, together.kind != "laplace")
    np.testing.assert_allclose(
        together.mean[told], together.draws[told].mean(axis=1), rtol=1e-12
    )
    median = together.quantile([0.5, 0.9])
    assert median.shape == (2, 4, 2)
    np.testing.assert_allclose(
        median[0, told], np.median(together.draws[told], axis=1), rtol=1e-12
    )
    assert np.isfinite(together.contraction).all()
    picked = together[together.kind == "laplace"]
    np.testing.assert_array_equal(picked.std[0], together.std[2])
    frame = together.to_frame()
    assert frame["kind"].tolist()[::2] == together.kind.tolist()
    assert "importance: 5,200 runs of the model" in str(together[0])


def never(self, *args):
    """Let rounds of importance sampling never agree."""


def test_chains_follow_where_rounds_do_not_agree(monkeypatch):
    monkeypatch.setattr(_importance._Cloud, "_compare", never)
    model, reading, noise = CASES["banana"]
    posterior = answer(model, [reading], max_solves=100_000)
    assert posterior.kind[0] == "mcmc"
    assert posterior.is_confirmed[0]
    assert posterior.rhat.max() < 1.01
    params, weight = brute_force(model, reading, noise)
    mean = weight @ params
    std = np.sqrt(weight @ (params - mean) ** 2)
    assert (np.abs(posterior.mean[0] - mean) < 0.1 * std).all()
    assert "mcmc: " in str(posterior[0])


def test_randomized_optimization_tells_a_bent_valley_of_one_optimum(monkeypatch):
    """Where rounds of importance sampling do not agree, and before chains are tried."""
    monkeypatch.setattr(_importance._Cloud, "_compare", never)
    model = ForwardFunction(
        lambda k: k[:, 1:] - torch.expm1(k[:, :1]),
        params={"a": Normal(0, 1), "b": Normal(0, 1)},
        noise=0.1,
    )
    posterior = answer(model, [[0.2]], max_solves=100_000)
    assert posterior.kind[0] == "importance"
    assert posterior.is_confirmed[0]
    assert posterior.n_effective.min() >= 2000
    assert posterior.n_linearized[0] > 4000
    params, weight = brute_force(model, [0.2], 0.1)
    mean = weight @ params
    std = np.sqrt(weight @ (params - mean) ** 2)
    assert (np.abs(posterior.mean[0] - mean) < 0.1 * std).all()
    np.testing.assert_allclose(posterior.std[0], std, rtol=0.08)


def test_no_more_runs_are_made_than_allowed(monkeypatch):
    """Where nothing agrees, and every way is tried."""
    monkeypatch.setattr(_importance._Cloud, "_compare", never)
    monkeypatch.setattr(_randomized, "_agree", never)
    model = ForwardFunction(
        lambda k: k[:, 1:] - torch.expm1(k[:, :1]),
        params={"a": Normal(0, 1), "b": Normal(0, 1)},
        noise=0.1,
    )
    posterior = answer(model, [[0.2]], max_solves=40_000)
    assert 20_000 < posterior.n_drawn[0] <= 40_000


@pytest.mark.parametrize(
    ("max_solves", "kind"),
    [(100, "laplace"), (3000, "laplace"), (4500, "importance"), (30_000, "importance")],
)
def test_the_budget_is_kept_and_its_end_is_told(max_solves, kind, monkeypatch):
    monkeypatch.setattr(_importance._Cloud, "_compare", never)
    monkeypatch.setattr(_checked_search, "TOL", 1e-6)
    model, reading, _ = CASES["banana"]
    before = answer(model, [reading], max_solves=0)
    with pytest.warns(NormalityWarning, match=f"told by {kind}"):
        posterior = answer(model, [reading], max_solves=max_solves)
    assert posterior.kind[0] == kind
    assert not posterior.is_confirmed[0]
    assert posterior.n_drawn[0] <= max_solves
    # The run at the median of the draws, which tells the noise, is no draw.
    assert posterior.n_forward[0] - before.n_forward[0] - posterior.n_drawn[0] in (0, 1)
    if kind != "laplace":
        assert "do NOT agree" in str(posterior[0])


def test_draws_that_fail_are_counted():
    model = ForwardFunction(
        lambda k: (k[:, 1:] + k[:, :1] ** 2).where(k[:, :1] < 1.5, torch.nan),
        params={"a": Normal(0, 1), "b": Normal(0, 1)},
        noise=0.4,
    )
    with pytest.warns(IntegrationWarning, match="starts or draws of 1 samples"):
        posterior = answer(model, [[1.0]])
    assert posterior.is_confirmed[0]
    assert posterior.n_failed[0] > 50
    assert posterior.draws[..., 0].max() < 1.5


@pytest.mark.parametrize(
    ("where", "kind"),
    [
        ((_checked_search, "weigh", 1), "laplace"),
        ((_importance._Cloud, "draw", 5), "importance"),
        # Nine steps of chains tell less than what they began with.
        ((_samplers._Walkers, "move", 9), "importance"),
    ],
)
def test_ctrl_c_keeps_what_was_reached(where, kind, press_at, monkeypatch):
    if where[0] is _samplers._Walkers:
        monkeypatch.setattr(_importance._Cloud, "_compare", never)
        inverters = _checked_search.CheckedInverter
        monkeypatch.setattr(inverters, "_randomize", lambda *args: args[-2].agrees)
    model = banana()
    inverter = GradientInverter(model, max_solves=100_000, random_state=0)
    inverter.fit([[1.0]])
    press_at(*where)
    with pytest.warns((ConvergenceWarning, NormalityWarning)):
        posterior = inverter.posterior([[1.0], [0.9]])
    assert (posterior.kind == kind).all()
    assert (posterior.status == InversionStatus.INTERRUPTED).all()
    assert not posterior.is_confirmed.any()
    assert np.isfinite(posterior.mean).all()


def test_a_refined_answer_is_checked_and_sampled_too():
    model, reading, _ = CASES["banana"]
    rough = GradientInverter(model, max_solves=0, random_state=0)
    refined = RefinedInverter(rough, model, max_solves=BUDGET, random_state=0)
    posterior = refined.fit([reading]).posterior([reading])
    assert posterior.kind[0] == "importance"
    assert posterior.is_confirmed[0]
