"""Observations out of systems, and measured data with their source."""

from sklearn_inverse.datasets._lynx_hare import load_lynx_hare
from sklearn_inverse.datasets._make import make_inverse_problem
from sklearn_inverse.datasets._measure import add_noise, mask_observations
from sklearn_inverse.datasets._measured import (
    load_alpha_pinene,
    load_indomethacin,
    load_influenza,
    load_theophylline,
)
from sklearn_inverse.datasets._tables import (
    observations_from_table,
    read_table,
    table_from_observations,
)

__all__ = [
    "add_noise",
    "load_alpha_pinene",
    "load_indomethacin",
    "load_influenza",
    "load_lynx_hare",
    "load_theophylline",
    "make_inverse_problem",
    "mask_observations",
    "observations_from_table",
    "read_table",
    "table_from_observations",
]
