"""Importance sampling: how well a mixture covers a density of each sample."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from sklearn_inverse.probability._mixture import StudentMixture

__all__ = ["Weighed", "weigh"]


class Weighed(NamedTuple):
    """What weighed draws say of the density of each sample.

    Attributes
    ----------
    share : ndarray of shape (n_samples,)
        Effective share of the draws.

    pareto_k : ndarray of shape (n_samples,)
        How heavy the tail of their weights is.

    mean, std : ndarray of shape (n_samples, n_free)
        Weighed means and standard deviations.
    """

    share: np.ndarray
    pareto_k: np.ndarray
    mean: np.ndarray
    std: np.ndarray


def weigh(
    log_density: Callable, mixture: StudentMixture, n_draws: int, seed: int
) -> Weighed:
    """Weigh draws of a mixture by the density they should have come from.

    Parameters
    ----------
    log_density : callable
        ``log_density(rows, sample)``, rows of shape (n_rows, n_free): minus infinity
        outside of the support, NaN where it cannot be computed.

    mixture : StudentMixture
        What is drawn from.

    n_draws : int
        Draws per sample.

    seed : int
        Seed of the draws, which samples share.

    Returns
    -------
    weighed : Weighed
        What the draws say.
    """
    from arviz_stats.base import array_stats  # takes a second to import

    draws = mixture.draw(n_draws, np.random.default_rng(seed))
    sample = np.repeat(np.arange(len(draws)), n_draws)
    value = log_density(draws.reshape(len(sample), -1), sample).reshape(len(draws), -1)
    log_weight = np.nan_to_num(value, nan=-np.inf, neginf=-np.inf)
    log_weight = log_weight - mixture.log_prob(draws)
    log_weight -= log_weight.max(axis=1, keepdims=True)
    weight = np.exp(log_weight)
    weight /= weight.sum(axis=1, keepdims=True)
    mean = np.einsum("sd,sdp->sp", weight, draws)
    variance = np.einsum("sd,sdp->sp", weight, (draws - mean[:, None]) ** 2)
    # It wants them as those of leave-one-out: minus the log likelihoods.
    tails = [array_stats.psislw(-one.clip(-500))[1] for one in log_weight]
    share = 1 / (weight**2).sum(axis=1) / n_draws
    return Weighed(share, np.array(tails), mean, np.sqrt(variance))
