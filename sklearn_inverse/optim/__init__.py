"""Batched numerics in rows and callables; they know no estimator."""

from sklearn_inverse.optim._status import InversionStatus

__all__ = ["InversionStatus"]
