"""Is it right? Show it. Importing this does not import matplotlib; plotting does."""

from sklearn_inverse.inspection._calibration import CalibrationDisplay
from sklearn_inverse.inspection._identifiability import (
    Identifiability,
    identifiability,
)
from sklearn_inverse.inspection._pairs import PairDisplay
from sklearn_inverse.inspection._profile import (
    ProfileDisplay,
    ProfileLikelihood,
    profile_likelihood,
)
from sklearn_inverse.inspection._recovery import RecoveryDisplay
from sklearn_inverse.inspection._residuals import ResidualDisplay
from sklearn_inverse.inspection._starts import StartsDisplay
from sklearn_inverse.inspection._trajectory import TrajectoryDisplay

__all__ = [
    "CalibrationDisplay",
    "Identifiability",
    "PairDisplay",
    "ProfileDisplay",
    "ProfileLikelihood",
    "RecoveryDisplay",
    "ResidualDisplay",
    "StartsDisplay",
    "TrajectoryDisplay",
    "identifiability",
    "profile_likelihood",
]
