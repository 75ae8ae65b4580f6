r"""Normal distributions of the probit :math:`\Phi^{-1}(u)` of quantiles u of the prior.

There the prior is standard normal, so that what the data say nothing of is as before.
"""

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor, nn

from sklearn_inverse.networks._layers import Linear

__all__ = [
    "calibrate",
    "covariance_factor",
    "normal_head",
    "precision_factor",
    "probit",
    "probit_center",
]

EDGE = 1e-4  # quantiles nearer to 0 or 1 count as this
CENTER_EDGE = 0.005  # and of an estimate, for a center that leaves nothing on the wall


def normal_head(width: int, n_params: int) -> nn.Sequential:
    """Features to what :func:`precision_factor` splits; the prior, untrained."""
    n_out = 2 * n_params + n_params * (n_params - 1) // 2
    last = Linear(width, n_out)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(Linear(width, width), nn.SiLU(), last)


def precision_factor(out: Tensor, n_params: int) -> tuple[Tensor, Tensor]:
    """Split a network's output into a mean and a Cholesky factor of the precision.

    ``out`` holds, for each sample, the mean, logarithms of the diagonal, and the entries
    below it, of a lower triangular L; the precision is L Lᵀ.
    """
    mean, log_diagonal, below = out.split(
        [n_params, n_params, n_params * (n_params - 1) // 2], dim=1
    )
    factor = torch.diag_embed(log_diagonal.clamp(-5, 9).exp())
    row, column = torch.tril_indices(n_params, n_params, -1, device=out.device)
    factor[:, row, column] = below
    return mean, factor


def probit(quantiles: Tensor) -> Tensor:
    """Return the normal quantile of quantiles, clipped to ±3.7 at the edge."""
    return torch.special.ndtri(quantiles.double().clamp(EDGE, 1 - EDGE)).float()


def covariance_factor(spread: Tensor, n_params: int) -> np.ndarray:
    """Return factors of the covariances that a network's output stands for."""
    _, precision = precision_factor(spread.double(), n_params)
    eye = torch.eye(n_params).to(precision).expand_as(precision)
    return torch.linalg.solve_triangular(precision.mT, eye, upper=True).cpu().numpy()


def probit_center(estimate, spread):
    r"""Center m of a normal probit whose quantile has the mean ``estimate``.

    :math:`E[\Phi(m + s \varepsilon)] = \Phi(m / \sqrt{1 + s^2})` for a standard normal
    :math:`\varepsilon`.
    """
    inside = np.clip(estimate, CENTER_EDGE, 1 - CENTER_EDGE)
    return ndtri(inside) * np.sqrt(1 + spread**2)


def calibrate(truths, estimate, factor):
    """Return factors on the spread (n_params,) that make 90 % intervals cover 90 %.

    Truths and estimates are quantiles (n_samples, n_params), ``factor`` holds factors of
    the covariances of the probit.
    """
    spread = np.linalg.norm(factor, axis=2)
    truths = ndtri(np.clip(truths, EDGE, 1 - EDGE))
    calibration = np.ones(truths.shape[1])
    for _ in range(5):  # the center depends on the spread, but weakly
        center = probit_center(estimate, np.minimum(calibration * spread, 1))
        off = np.abs(truths - center)
        calibration = np.quantile(off / spread, 0.9, axis=0) / ndtri(0.95)
    return calibration
