"""Options kept by topic: None stands for defaults, which can be seen and set by name."""

from numbers import Integral

import pytest
from sklearn.base import BaseEstimator, clone
from sklearn.utils._param_validation import InvalidParameterError

from sklearn_inverse.utils._options import NestedOptions
from sklearn_inverse.utils._sklearn import Interval


class Net(BaseEstimator):
    _parameter_constraints: dict = {
        "width": [Interval(Integral, 1, None, closed="left")]
    }

    def __init__(self, width=32, depth=2):
        self.width = width
        self.depth = depth


class Estimator(NestedOptions, BaseEstimator):
    _option_types = {"net": Net}

    def __init__(self, net=None, seed=0):
        self.net = net
        self.seed = seed


def test_defaults_are_seen_and_set_by_name():
    estimator = Estimator()
    shown = {"net": None, "net__width": 32, "net__depth": 2, "seed": 0}
    assert estimator.get_params() == shown
    assert estimator.get_params(deep=False) == {"net": None, "seed": 0}
    assert estimator.set_params(net__width=8) is estimator
    assert (estimator.net.width, estimator.net.depth) == (8, 2)
    assert clone(estimator).get_params()["net__width"] == 8
    estimator.set_params(net=Net(16), net__depth=1)
    assert (estimator.net.width, estimator.net.depth) == (16, 1)


def test_wrong_names_change_nothing():
    estimator = Estimator()
    for wrong in ("net__wdith", "seed__width", "other__width"):
        with pytest.raises((ValueError, AttributeError)):
            estimator.set_params(**{wrong: 1})
    assert estimator.net is None


def test_estimator_works_with_a_checked_copy():
    net = Net(width=4)
    copy = Estimator(net)._options("net", depth=7)
    assert (copy.width, copy.depth, net.depth) == (4, 7, 2)
    assert Estimator()._options("net").width == 32
    with pytest.raises(InvalidParameterError, match="'width' parameter of Net"):
        Estimator(Net(0))._options("net")
