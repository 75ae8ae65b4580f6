"""Is the answer right? Arrays in, numbers out; nothing here imports torch."""

from sklearn_inverse.metrics._intervals import interval_coverage, normal_interval
from sklearn_inverse.metrics._params import param_mae, param_mse
from sklearn_inverse.metrics._trajectories import trajectory_mae, trajectory_mse

__all__ = [
    "interval_coverage",
    "normal_interval",
    "param_mae",
    "param_mse",
    "trajectory_mae",
    "trajectory_mse",
]
