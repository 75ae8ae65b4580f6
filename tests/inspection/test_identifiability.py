"""Verdicts agree with what is known of each model by other means."""

import re

import numpy as np
import pytest
import sympy
import torch

from sklearn_inverse import (
    ForwardFunction,
    GradientInverter,
    ODESimulator,
    ODESystem,
    ReactionSystem,
)
from sklearn_inverse.datasets import load_alpha_pinene, read_table
from sklearn_inverse.exceptions import BoundsWarning
from sklearn_inverse.inspection import identifiability
from sklearn_inverse.probability import Beta, LogUniform, NegativeBinomial, Normal
from sklearn_inverse.probability._combinations import blocks, combinations, null_space
from sklearn_inverse.problems import pollu

RATE = LogUniform(0.1, 3)


def verdict_of(system, params, noise, **options):
    """Return the verdict on simulated readings."""
    exact = ODESimulator(system).simulate([params])
    scatter = np.random.default_rng(0).standard_normal(exact.shape)
    readings = (exact + noise * scatter).reshape(1, -1)
    inverter = GradientInverter(system, **{"random_state": 0} | options).fit(readings)
    return identifiability(inverter, readings)


def model(names, function, noise=0.01):
    """Return a forward model of positive params, read at eight times."""
    t = torch.linspace(0.1, 3, 8, dtype=torch.float64)
    return ForwardFunction(
        lambda k: function(t, *k.T[:, :, None]),
        params=dict.fromkeys(names.split(), RATE),
        noise=noise,
    )


@pytest.mark.filterwarnings("ignore::sklearn_inverse.exceptions.BoundsWarning")
@pytest.mark.parametrize(
    ("names", "function", "note"),
    [
        ("a b", lambda t, a, b: torch.exp(-a * b * t), "only a*b is determined"),
        ("a b", lambda t, a, b: torch.exp(-a / b * t), "only a/b is determined"),
        ("a b", lambda t, a, b: torch.exp(-(a + b) * t), "only a + b is determined"),
        ("a b", lambda t, a, b: torch.exp(-a * b**2 * t), "only a*b**2 is determined"),
        (
            "a b c",
            lambda t, a, b, c: a * b * torch.exp(-c / b * t),
            "only a*c and b/c are determined",
        ),
        (
            "a b c d",
            lambda t, a, b, c, d: a * c * d * torch.exp((a - b) * t),
            "only a - b and a*c*d are determined",
        ),
        (
            "a b",
            lambda t, a, b: torch.exp(-a * t) + 0 * b,
            "b has no effect on what is read",
        ),
        (
            "a b c",
            lambda t, a, b, c: torch.exp(-(a * b + torch.sin(c)) * t),
            "of a, b and c only 1 combination can be told",
        ),
    ],
)
def test_what_is_determined_is_told(names, function, note):
    forward = model(names, function)
    readings = forward.fit(None).simulate([[0.7, 0.9, 1.1, 1.4][: len(names.split())]])
    inverter = GradientInverter(forward, prior=None, random_state=0).fit(readings)
    verdict = identifiability(inverter, readings)
    assert verdict.notes == [note]
    involved = [re.search(rf"\b{name}\b", note) is not None for name in names.split()]
    assert [v == "structurally not" for v in verdict.verdicts] == involved
    assert np.isinf(verdict.interval[involved]).all()
    assert note in str(verdict)


def test_two_modes_can_be_exchanged():
    system = ReactionSystem(
        {"A -> B": "k1", "B -> C": "k2"},
        initial={"A": 1.0},
        params={"k1": LogUniform(0.05, 5), "k2": LogUniform(0.05, 5)},
        times=np.linspace(0, 10, 12),
        observe=["C"],
        noise=0.005,
    )
    verdict = verdict_of(system, [1.0, 0.3], 0.005)
    assert verdict.verdicts == ["not unique"] * 2
    assert verdict.notes == ["k1 and k2 can be exchanged"]
    assert repr(verdict) == "Identifiability(0 of 2 params identified)"


def test_another_optimum_is_told():
    forward = ForwardFunction(lambda k: (k - 1) ** 2, {"k": (0.0, 3.0)}, noise=0.01)
    inverter = GradientInverter(forward, random_state=0).fit([[0.25]])
    verdict = identifiability(inverter, [[0.25]])
    assert verdict.verdicts == ["not unique"]
    best, other = sorted([verdict.optimum[0], 2 - verdict.optimum[0]])
    assert verdict.notes[0].startswith("the readings fit as well at k ")
    told = float(verdict.notes[0].rpartition(" ")[2])
    assert min(abs(told - best), abs(told - other)) < 0.01
    assert (best, other) == pytest.approx((0.5, 1.5), abs=0.01)


def epidemic(*, times, susceptible=None):
    """Return weekly counts of an epidemic among 100,000, of which a share is reported."""

    def rhs(t, y, p):
        new = p.contact * y.susceptible * y.infected / 1e5
        return -new, new - p.recovery * y.infected

    params = {
        "contact": (0.5, 6.0),
        "recovery": (0.2, 3.0),
        "seed": LogUniform(1, 500),
        "reported": Beta(2, 5),
        "dispersion": (2.0, 50.0),
    }
    share = {} if susceptible is None else {"at_risk": susceptible}
    return ODESystem(
        rhs,
        states={
            "susceptible": lambda p: 1e5 * (p.at_risk if share else 1.0),
            "infected": "seed",
        },
        params=params | share,
        times=np.arange(float(times)),
        observe={"cases": lambda t, y, p: p.reported * p.recovery * y.infected},
        noise=NegativeBinomial("dispersion"),
    )


def counts(system, params):
    """Return negative binomial counts around the truth."""
    mean, r = ODESimulator(system).simulate([params]), 20.0
    draw = np.random.default_rng(0).negative_binomial(r, r / (r + mean))
    return draw.astype(float).reshape(1, -1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn_inverse.exceptions.NormalityWarning")
@pytest.mark.filterwarnings("ignore::sklearn_inverse.exceptions.BoundsWarning")
def test_what_an_epidemic_says_of_the_share_that_is_reported():
    """All of it tells, if the population is known; its growth alone, or else, does not."""
    whole = epidemic(times=30)
    readings = counts(whole, [2.0, 1.0, 30.0, 0.3, 20.0])
    inverter = GradientInverter(whole, random_state=0).fit(readings)
    verdict = identifiability(inverter, readings)
    assert verdict.verdicts == ["identified"] * 5
    assert verdict.interval[3, 0] < 0.3 < verdict.interval[3, 1]

    growth = epidemic(times=7)
    inverter = GradientInverter(growth, random_state=0).fit(readings[:, :7])
    verdict = identifiability(inverter, readings[:, :7])
    assert verdict.verdicts[3] == "practically not"
    (note,) = verdict.notes
    assert note == "recovery, seed and reported are hardly told apart"
    report = str(inverter.posterior(readings[:, :7])[0])
    assert "contact, recovery, seed and reported are hardly told apart" in report

    unknown = epidemic(times=30, susceptible=Beta(5, 5))
    readings = counts(unknown, [3.3, 1.0, 30.0, 0.3, 20.0, 0.6])
    inverter = GradientInverter(unknown, random_state=0).fit(readings)
    verdict = identifiability(inverter, readings)
    assert [v == "structurally not" for v in verdict.verdicts] == [
        name in ("contact", "seed", "reported", "at_risk") for name in verdict.names
    ]
    assert verdict.notes == [
        "only contact*at_risk, seed/at_risk and reported*at_risk are determined"
    ]
    report = str(inverter.posterior(readings)[0])
    assert "cannot be told apart: only contact*at_risk" in report
    assert "reported*at_risk are known" in report


@pytest.mark.filterwarnings("ignore::sklearn_inverse.exceptions.MisfitWarning")
def test_alpha_pinene_is_identified():
    data = load_alpha_pinene()
    system = ReactionSystem(
        {
            "alpha_pinene -> dipentene": "p1",
            "alpha_pinene -> alloocimene": "p2",
            "alloocimene -> pyronene": "p3",
            "alloocimene <-> dimer": ("p4", "p5"),
        },
        initial={"alpha_pinene": 100.0},
        params={f"p{i}": LogUniform(1e-6, 1e-3) for i in range(1, 6)}
        | {"sigma": LogUniform(1e-3, 100)},
        noise=Normal("sigma"),
    )
    system, observed = read_table(system, data.table)
    inverter = GradientInverter(system, random_state=0).fit(observed)
    verdict = identifiability(inverter, observed)
    assert verdict.verdicts == ["identified"] * 6
    assert verdict.notes == []
    known = data.published["mean"]
    low, high = verdict.interval[:5].T
    assert ((low < known) & (known < high)).all()
    np.testing.assert_allclose(verdict.optimum[:5], known, rtol=2e-3)


def test_a_param_on_its_bound_has_one_limit():
    system = ODESystem(
        lambda t, y, p: [-p.k * y.y - p.loss],
        states={"y": 1.0},
        params={"k": (0.1, 3), "loss": (0.0, 1.0)},
        times=np.linspace(0, 2, 9),
        noise=0.02,
    )
    readings = np.exp(-np.linspace(0, 2, 9))[None] + 0.01
    inverter = GradientInverter(system, prior=None, random_state=0).fit(readings)
    with pytest.warns(BoundsWarning, match="loss"):
        verdict = identifiability(inverter, readings)
    assert verdict.verdicts == ["identified", "practically not"]
    assert verdict.reasons[1] == "no lower limit but its bounds"


def test_what_only_the_prior_holds():
    forward = ForwardFunction(
        lambda k: k @ k.new_tensor([[1.0], [1e-3]]),
        {"a": (0, 9), "b": (0, 1)},
        noise=0.1,
    )
    inverter = GradientInverter(forward, random_state=0).fit([[4.0]])
    more = ForwardFunction(
        lambda k: k @ k.new_tensor([[1.0, 1.0], [1e-3, 2e-3]]),
        {"a": (0, 9), "b": (0, 1)},
        noise=0.1,
    )
    assert identifiability(inverter, [[4.0]]).verdicts == ["structurally not"] * 2
    inverter = GradientInverter(more, random_state=0).fit([[4.0, 4.0]])
    verdict = identifiability(inverter, [[4.0, 4.0]])
    assert verdict.verdicts == ["identified", "practically not"]
    assert verdict.reasons[1] == "only its prior holds it"


def compartments(seed):
    """Return a random linear compartment model whose output the input reaches.

    Returns
    -------
    n : int
        Compartments.

    flows : list of (int, int or None)
        From where to where, None for outside.

    output : int
        The compartment that is read; the first one starts at 1, the others empty.

    is_lost : ndarray of bool
        Which rates the transfer function does not determine, by exact arithmetic.
    """
    rng = np.random.default_rng(seed)
    while True:
        n, output = int(rng.integers(2, 4)), int(rng.integers(2))
        every = [(i, j) for i in range(n) for j in [*range(n), None] if i != j]
        size = int(rng.integers(3, min(6, len(every)) + 1))
        flows = [every[k] for k in rng.choice(len(every), size, replace=False)]
        jacobian = markov_jacobian(n, flows, output, rng.integers(1, 1000, size))
        rank = jacobian.rank()
        if rank >= 2:
            break
    columns = range(jacobian.shape[1])
    others = (jacobian[:, [k for k in columns if k != j]] for j in columns)
    return n, flows, output, np.array([other.rank() == rank for other in others])


def markov_jacobian(n, flows, output, rates):
    """Return the derivatives by the rates of c Aⁱ x₀, which determine c exp(A t) x₀."""
    parts = []
    for i, j in flows:
        part = np.zeros((n, n), dtype=object)
        part[i, i] -= 1
        if j is not None:
            part[j, i] += 1
        parts.append(part)
    matrix = sum(int(rate) * part for rate, part in zip(rates, parts))
    x = np.array([1] + [0] * (n - 1), dtype=object)
    by_rate, rows = [0 * x for _ in flows], []
    for _ in range(2 * n):
        rows.append([d[output] for d in by_rate])
        by_rate = [part @ x + matrix @ d for part, d in zip(parts, by_rate)]
        x = matrix @ x
    return sympy.Matrix(rows)


@pytest.mark.parametrize("seed", range(12))
def test_structure_of_linear_compartment_models(seed):
    n, flows, output, is_lost = compartments(seed)

    def rhs(t, y, p):
        change = [0.0 * y[i] for i in range(n)]
        for k, (i, j) in enumerate(flows):
            flow = p[k] * y[i]
            change[i] = change[i] - flow
            if j is not None:
                change[j] = change[j] + flow
        return change

    system = ODESystem(
        rhs,
        states={f"x{i}": float(i == 0) for i in range(n)},
        params={f"k{i}{'' if j is None else j}": RATE for i, j in flows},
        times=np.linspace(0.2, 6, 15),
        observe=[f"x{output}"],
        noise=1e-4,
    )
    rates = np.random.default_rng(seed).uniform(0.3, 1.5, len(flows))
    verdict = verdict_of(system, rates, 0.0, prior=None, n_starts=1, start=rates)
    np.testing.assert_array_equal(
        np.array(verdict.verdicts) == "structurally not", is_lost
    )
    for j in np.flatnonzero(np.array(verdict.verdicts) == "identified"):
        assert verdict.interval[j, 0] < rates[j] < verdict.interval[j, 1]


def test_compartment_models_are_of_both_kinds():
    lost = np.concatenate([compartments(seed)[3] for seed in range(12)])
    assert 10 < lost.sum() < len(lost) - 10


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn_inverse.exceptions.BoundsWarning")
def test_pollu_from_three_snapshots():
    """O1D is in quasi-steady state: of k16 and k19 only the ratio is told."""
    system = pollu()
    exact = ODESimulator(system).simulate([system.nominal])
    noise = 0.01 * exact.std(axis=1)[0]
    readings = np.full_like(exact, np.nan)
    scatter = noise * np.random.default_rng(0).standard_normal((3, 20))
    readings[:, [33, 66, 99]] = exact[:, [33, 66, 99]] + scatter
    inverter = GradientInverter(system, random_state=0).fit(readings)
    verdict = identifiability(inverter, readings, noise_std=noise)
    by_name = dict(zip(verdict.names, verdict.verdicts))
    assert by_name["k16"] == by_name["k19"] == "structurally not"
    assert "nearly k16/k19" in verdict.notes[0]
    for name in ("k17", "k18", "k21", "k22", "k24", "k25"):
        assert by_name[name] != "identified"
    assert any(note.startswith("k24 and k25 are hardly") for note in verdict.notes)
    assert 13 <= verdict.verdicts.count("identified") <= 18
    inside = (verdict.interval[:, 0] < system.nominal) & (
        verdict.interval[:, 1] > system.nominal
    )
    assert inside.mean() > 0.8


def test_null_space_tells_round_off_from_weakness():
    rng = np.random.default_rng(0)
    root = rng.standard_normal((9, 4))
    root[:, 3] = 1e-9 * root[:, 0] + 1e-9 * rng.standard_normal(9)  # tiny, its own
    assert null_space(root).shape == (4, 0)
    root[:, 3] = 1e-9 * root[:, 0]
    null = null_space(root)
    np.testing.assert_allclose(np.abs(null[:, 0]), [1e-9, 0, 0, 1], atol=1e-12)
    assert null_space(root, smallest=1e-6).shape == (4, 1)


def test_blocks_are_what_moves_together():
    null = np.zeros((5, 2))
    null[[0, 3], 0] = [1, -1]
    null[4, 1] = 1
    assert blocks(np.linalg.qr(null)[0]) == [[0, 3], [4]]


def test_powers_that_are_not_simple_make_no_formula():
    null = np.array([[1.0], [-0.737]])
    one = np.ones(2)
    assert combinations(null / np.linalg.norm(null), one, one, ["a", "b"]) is None
