"""Laplace's approximation around the optima that a search has found."""

import numpy as np
import torch
from torch import Tensor

__all__ = ["REMOTE", "distinct_optima", "factorize", "inverse", "log_weight"]

REMOTE = 100.0  # what an optimum may be above the best: no width makes up for more


def inverse(hessian: Tensor) -> Tensor:
    """Invert in units of the diagonal; positive definite whatever the round-off."""
    scale = hessian.diagonal(dim1=-2, dim2=-1).rsqrt()
    scaled = hessian * scale[..., :, None] * scale[..., None, :]
    values, vectors = torch.linalg.eigh(scaled)
    smallest = 1e-15 * values.amax(dim=-1, keepdim=True)
    root = values.clamp(min=smallest).sqrt()
    vectors = vectors * scale[..., :, None] / root[..., None, :]
    return vectors @ vectors.mT


def factorize(covariance: np.ndarray) -> np.ndarray:
    """Return F with F Fᵀ = covariance (…, n, n), which may be singular."""
    spread = np.sqrt(np.einsum("...pp->...p", covariance))[..., None]
    spread = np.where(spread > 0, spread, 1.0)
    values, vectors = np.linalg.eigh(covariance / spread / spread.swapaxes(-2, -1))
    return spread * vectors * np.sqrt(values.clip(min=0))[..., None, :]


def log_weight(value: Tensor, covariance: Tensor) -> Tensor:
    """Log of the probability mass around optima: ``-value + ½ log det covariance``."""
    return -value + 0.5 * torch.linalg.slogdet(covariance)[1]


def distinct_optima(
    points: Tensor, value: Tensor, hessian: Tensor, *, most: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Tell which ends of a search are different optima.

    An end lies on a better one if it is less than a posterior standard deviation away.

    Parameters
    ----------
    points : Tensor of shape (n_samples, n_ends, n_free)
        Where the searches of each sample ended.

    value : Tensor of shape (n_samples, n_ends)
        The objective there; infinite where nothing was found.

    hessian : Tensor of shape (n_samples, n_ends, n_free, n_free)
        Its Hessian there.

    most : int
        Optima kept per sample.

    Returns
    -------
    index : Tensor of int of shape (n_samples, most)
        Ends that are optima of their own, the best first.

    exists : Tensor of bool of shape (n_samples, most)
        Whether there are so many.

    n_confirmed : Tensor of int of shape (n_samples,)
        How many ends lie on the best optimum.
    """
    n_samples, n_ends = value.shape
    most = min(most, n_ends)
    rows = torch.arange(n_samples, device=value.device)
    is_open = value.isfinite()
    index = torch.zeros(n_samples, most, dtype=torch.long, device=value.device)
    exists = torch.zeros(n_samples, most, dtype=torch.bool, device=value.device)
    n_confirmed = torch.zeros_like(rows)
    for k in range(most):
        best = torch.where(is_open, value, torch.inf).argmin(dim=1)
        index[:, k], exists[:, k] = best, is_open[rows, best]
        away = points - points[rows, best][:, None]
        distance = torch.einsum("sep,spq,seq->se", away, hessian[rows, best], away)
        near = is_open & ((distance < 1) | (away == 0).all(dim=2))
        if k == 0:
            n_confirmed = near.sum(dim=1)
        is_open = is_open & ~near
    return index, exists, n_confirmed
