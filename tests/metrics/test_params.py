"""Param errors are measured in units of the bounds, and failures never drop out."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import sklearn_inverse
from sklearn_inverse.metrics import param_mae, param_mse

BOUNDS = [[1.0, 3.0], [1e-5, 1e5]]
SCALE = ["linear", "log10"]


def test_errors_are_fractions_of_the_box():
    true, predicted = [[1.0, 1e-5]], [[2.0, 1e5]]  # half the box, and all of it
    kwargs = {"bounds": BOUNDS, "scale": SCALE}
    mae = param_mae(true, predicted, multioutput="raw_values", **kwargs)
    mse = param_mse(true, predicted, multioutput="raw_values", **kwargs)
    np.testing.assert_allclose(mae, [0.5, 1.0])
    np.testing.assert_allclose(mse, [0.25, 1.0])
    assert param_mae(true, predicted, **kwargs) == pytest.approx(0.75)
    assert param_mse(true, predicted, **kwargs) == pytest.approx(0.625)


def test_the_middle_of_a_uniform_prior_scores_one_twelfth_and_one_quarter():
    unit = (np.arange(10_000) + 0.5) / 10_000
    true = np.stack([1 + 2 * unit, 10 ** (-5 + 10 * unit)], axis=1)
    middle = np.tile([2.0, 1.0], (len(unit), 1))
    mse = param_mse(true, middle, bounds=BOUNDS, scale=SCALE)
    mae = param_mae(true, middle, bounds=BOUNDS, scale=SCALE)
    assert (mse, mae) == pytest.approx((1 / 12, 1 / 4), rel=1e-6)


def test_one_dimensional_params_are_one_param():
    errors = param_mse(
        [0.0, 1.0], [0.0, 0.0], bounds=[[0, 2]], multioutput="raw_values"
    )
    np.testing.assert_allclose(errors, [0.125])


@pytest.mark.parametrize(
    ("true", "predicted", "kwargs", "message"),
    [
        ([[1.0, 2.0]], [[1.0]], {}, r"shape of `true`, \(1, 2\). Got \(1, 1\)"),
        ([[1.0, 2.0]], [[np.nan, 2.0]], {}, "in 1 of 1 samples, the first at sample 0"),
        ([[np.nan, 2.0]], [[1.0, 2.0]], {}, "`true` must be finite. Got 1"),
        (np.ones((0, 2)), np.ones((0, 2)), {}, "none of them zero"),
        ([[1.0, 2.0]], [[1.0, -2.0]], {}, "positive. Got -2 for param 1 of sample 0"),
        ([[1.0, 2.0]], [[1.0, 2.0]], {"multioutput": "mean"}, "`multioutput` must be"),
        ([[1.0]], [[1.0]], {}, r"\(n_params, 2\) = \(1, 2\)"),
    ],
)
def test_wrong_input_is_refused(true, predicted, kwargs, message):
    for metric in (param_mse, param_mae):
        with pytest.raises(ValueError, match=message):
            metric(true, predicted, bounds=BOUNDS, scale=SCALE, **kwargs)


def test_metrics_never_import_torch():
    # The package root imports torch for its estimators, so leave the root out.
    code = (
        "import sys, types\n"
        "root = types.ModuleType('sklearn_inverse')\n"
        f"root.__path__ = [{str(Path(sklearn_inverse.__file__).parent)!r}]\n"
        "sys.modules['sklearn_inverse'] = root\n"
        "import sklearn_inverse.metrics\n"
        "print('torch' in sys.modules)"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "False"
