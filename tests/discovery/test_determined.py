"""What the data leave open is said, and what is chosen is called a choice."""

import numpy as np
import pytest

from sklearn_inverse import PolynomialODE
from sklearn_inverse.exceptions import ConvergenceWarning, IdentifiabilityWarning

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
    assert {w.category for w in caught} <= {ConvergenceWarning, IdentifiabilityWarning}
    assert model.is_choice_
    assert model.rank_ < 21


def test_a_system_needs_errors():
    model = fit_open(PolynomialODE(2), [[1.0], [0.5]], [0, 1])
    with pytest.raises(ValueError, match="as many coefficients as data"):
        model.to_system()
