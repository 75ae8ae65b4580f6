"""Is it right? Show it. Importing this does not import matplotlib; plotting does."""

from sklearn_inverse.inspection._recovery import RecoveryDisplay
from sklearn_inverse.inspection._trajectory import TrajectoryDisplay

__all__ = ["RecoveryDisplay", "TrajectoryDisplay"]
