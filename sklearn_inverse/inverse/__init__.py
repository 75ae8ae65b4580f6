"""Inverters: observations to params, each behind fit and predict."""

from sklearn_inverse.inverse._adm import ADMInverter

__all__ = ["ADMInverter"]
