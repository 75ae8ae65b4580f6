"""Warnings that point at the line of the user's own code."""

import sys
import warnings
from pathlib import Path

import joblib
import sklearn

__all__ = ["warn_user"]

INSIDE = tuple(
    str(path)
    for path in (Path(__file__).parents[1], *sklearn.__path__, *joblib.__path__)
)


def warn_user(message, category):
    """Warn at the nearest line that is neither ours nor scikit-learn's."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_code.co_filename.startswith(INSIDE):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
