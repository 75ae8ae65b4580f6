"""What the data leave open is said, and what is chosen is called a choice."""

import numpy as np
import pytest
import torch

from sklearn_inverse import GradientInverter, PolynomialODE
from sklearn_inverse.exceptions import (
    ConvergenceWarning,
    IdentifiabilityWarning,
    MisfitWarning,
)
from sklearn_inverse.inspection import identifiability

T = np.arange(10.0)
DECAY = np.exp(-T / 3)


def fit_open(model, y, t=T):
    with pytest.warns(IdentifiabilityWarning):
        return model.fit(y, t)


def test_one_run_of_robertson_leaves_four_directions_of_ten(robertson_runs, stiff):
    runs, times = robertson_runs
    with pytest.warns(IdentifiabilityWarning, match=r"6 of 10 monomials apart: y1 \+"):
        model = PolynomialODE().fit(runs[0], times)
    assert model.rank_ == 6
    assert model.relations_ == ["y1 + 0.0001*y2 + y3 = 1"]
    assert model.is_choice_
    assert not model.identifiable_.any()
    # The choice happens to be the truth.
    truth = stiff.true_coef(stiff.robertson, model.feature_names_)
    assert np.array_equal(model.coef_ != 0, truth != 0)
    assert stiff.relative_error(model, stiff.robertson) < 1e-5


@pytest.mark.parametrize(
    ("second", "relation"),
    [
        (np.full(10, 2.0), "y2 = 2"),
        (np.zeros(10), "y2 = 0"),
        (2 * DECAY, "y1 - 0.5*y2 = 0"),
        (1 - DECAY, "y1 + y2 = 1"),
    ],
)
def test_states_that_tell_nothing_of_their_own_are_named(second, relation):
    model = fit_open(PolynomialODE(1), np.column_stack([DECAY, second]))
    assert model.relations_ == [relation]
    assert model.rank_ == 2
    assert model.score(np.column_stack([DECAY, second]), T) == pytest.approx(1)


def test_a_curve_on_which_all_points_lie_is_named():
    y = np.column_stack([DECAY**2, DECAY])
    model = fit_open(PolynomialODE(2), y)
    assert model.relations_ == ["y1 - y2^2 = 0"]
    assert model.rank_ == 5
    assert model.identifiable_[0].tolist() == [True, False, True, True, True, False]


def test_two_points_are_one_equation(capsys):
    model = fit_open(PolynomialODE(1), [[1.0], [0.5]], [0, 1])
    assert model.rank_ == 1
    assert np.isnan(model.coef_std_[model.coef_ != 0]).all()
    model.print()
    assert "errors   unknown" in capsys.readouterr().out
    assert model.simulate([1.0], [0, 1])[1, 0] == pytest.approx(0.5, rel=1e-3)


def test_nothing_moves():
    model = fit_open(PolynomialODE(2), np.ones((5, 2)), np.arange(5))
    assert not model.coef_.any()
    assert model.equations_ == ["y1' = 0", "y2' = 0"]
    with pytest.raises(ValueError, match="lower `threshold`"):
        model.to_system()


def test_too_high_a_degree_is_told(kaps_run):
    y, t = (part[::20] for part in kaps_run)
    with pytest.warns() as caught:
        model = PolynomialODE(5).fit(y, t)
    known = {ConvergenceWarning, IdentifiabilityWarning, MisfitWarning}
    assert {w.category for w in caught} <= known
    assert model.is_choice_
    assert model.rank_ < 21


def test_a_system_needs_errors():
    model = fit_open(PolynomialODE(2), [[1.0], [0.5]], [0, 1])
    with pytest.raises(ValueError, match="as many coefficients as data"):
        model.to_system()


@pytest.mark.slow
@pytest.mark.parametrize("moves", [False, True])
@pytest.mark.filterwarnings("ignore::sklearn_inverse.exceptions.IdentifiabilityWarning")
@pytest.mark.filterwarnings("ignore::sklearn_inverse.exceptions.NormalityWarning")
def test_the_verdict_on_the_system_agrees(moves):
    second = 2 + moves * np.sin(T)
    model = PolynomialODE(
        2,
        terms={"y1": ["y1", "y1*y2"]},
        unknown=["y1"],
        known=lambda t, y: [0.0, moves * torch.cos(t)],
        threshold=0,
    ).fit(np.column_stack([DECAY, second]), T)
    told = model.identifiable_[model.coef_ != 0]
    assert told.tolist() == [moves, moves]
    inverter = GradientInverter(model.to_system(noise=1e-3), random_state=0)
    inverter.fit(model.observations_)
    verdict = identifiability(inverter, model.observations_)
    assert verdict.verdicts == [
        "identified" if it else "structurally not" for it in told
    ]
    if not moves:
        assert verdict.notes == ["only y1_from_y1 + 2*y1_from_y1_y2 is determined"]
