"""Errors and warnings of the package, each named after its cause."""

from sklearn.exceptions import ConvergenceWarning

__all__ = [
    "BoundsWarning",
    "ConvergenceWarning",
    "ExtrapolationWarning",
    "IdentifiabilityWarning",
    "IntegrationError",
    "IntegrationWarning",
    "MisfitWarning",
    "NormalityWarning",
]


class IntegrationError(RuntimeError):
    """Raised when no sample at all could be integrated, so nothing can go on."""


class IntegrationWarning(ConvergenceWarning):
    """Issued once per call when some samples could not be integrated.

    Their trajectories are NaN from the time of failure on; the others are untouched.
    """


class ExtrapolationWarning(UserWarning):
    """Issued when a learned model is asked for params outside its training box."""


class IdentifiabilityWarning(UserWarning):
    """Issued when other equations fit the data as well, so that those told are a choice."""


class BoundsWarning(UserWarning):
    """Issued when readings push an estimate against the bounds of its box."""


class MisfitWarning(UserWarning):
    """Issued when no params that were found explain the readings to within their noise."""


class NormalityWarning(UserWarning):
    """Issued when runs of the model do not confirm the posteriors that are told."""
