"""Batched numerics in rows and callables; they know no estimator."""
