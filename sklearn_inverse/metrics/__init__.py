"""Is the answer right? Arrays in, numbers out; nothing here imports torch."""

from sklearn_inverse.metrics._calibration import (
    expected_coverage,
    posterior_z_and_contraction,
    sbc_ranks,
    tarp,
    uniformity_test,
)
from sklearn_inverse.metrics._intervals import interval_coverage, normal_interval
from sklearn_inverse.metrics._params import param_mae, param_mse
from sklearn_inverse.metrics._segmentations import dice_score
from sklearn_inverse.metrics._trajectories import trajectory_mae, trajectory_mse

__all__ = [
    "dice_score",
    "expected_coverage",
    "interval_coverage",
    "normal_interval",
    "param_mae",
    "param_mse",
    "posterior_z_and_contraction",
    "sbc_ranks",
    "tarp",
    "trajectory_mae",
    "trajectory_mse",
    "uniformity_test",
]
