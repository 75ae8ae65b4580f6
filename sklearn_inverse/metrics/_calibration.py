"""Are posteriors honest? Where the truth lies among the draws, over many samples.

If posteriors are right, the truth of a sample is one more draw: whatever is computed of
both, its rank among the draws is uniform.
"""

import numpy as np
from scipy.special import chdtrc

__all__ = [
    "expected_coverage",
    "posterior_z_and_contraction",
    "sbc_ranks",
    "tarp",
    "uniformity_test",
]

REGIONS = ("central", "ellipsoid")


def sbc_ranks(draws, truths):
    """Rank of each true param among its draws: simulation-based calibration.

    Parameters
    ----------
    draws : array-like of shape (n_samples, n_draws, n_params)
        Draws from each sample's posterior, by random numbers of its own, as
        ``posterior[i].sample(n_draws, random_state=i)``.

    truths : array-like of shape (n_samples, n_params)
        Params that produced the observations, drawn from the prior.

    Returns
    -------
    ranks : ndarray of int of shape (n_samples, n_params)
        How many draws are smaller, from 0 to ``n_draws``: uniform if posteriors are
        right. A histogram like a cup means too narrow posteriors, a cap too wide ones,
        a slope shifted ones.

    See Also
    --------
    uniformity_test : Whether they are uniform.
    tarp : Sees all params together.

    References
    ----------
    .. [1] S. Talts, M. Betancourt, D. Simpson, A. Vehtari, A. Gelman, "Validating
       Bayesian inference algorithms with simulation-based calibration",
       arXiv:1804.06788 (2018).

    Examples
    --------
    >>> from sklearn_inverse.metrics import sbc_ranks
    >>> sbc_ranks([[[0.1], [0.3], [0.7]]], [[0.5]])
    array([[2]])
    """
    draws, truths = _check(draws, truths)
    return (draws < truths[:, None]).sum(axis=1)


def uniformity_test(ranks, n_draws, *, n_bins=10):
    """Test by chi-square whether ranks are uniform.

    Parameters
    ----------
    ranks : array-like of int of shape (n_samples,) or (n_samples, n_params)
        Ranks from 0 to ``n_draws``, of :func:`sbc_ranks` or :func:`tarp`.

    n_draws : int
        Draws among which they are ranks.

    n_bins : int, default=10
        Bins of the histogram. Each should hold five samples at least.

    Returns
    -------
    p_values : ndarray of shape (n_params,)
        Probability of a histogram as uneven as this, if ranks are uniform.

    p_value : float
        The same for all of them together (Bonferroni).

    Raises
    ------
    ValueError
        If bins are too many for so few ranks, or ranks lie outside their range.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_inverse.metrics import uniformity_test
    >>> even = np.arange(1000) % 100
    >>> p_values, p_value = uniformity_test(even, 99)
    >>> p_value
    1.0
    >>> bool(uniformity_test(even // 2, 99)[1] < 1e-6)
    True
    """
    ranks = np.asarray(ranks)
    ranks = ranks[:, None] if ranks.ndim == 1 else ranks
    n_samples = len(ranks)
    if ranks.min() < 0 or ranks.max() > n_draws:
        raise ValueError(
            f"`ranks` must lie between 0 and n_draws={n_draws}. Got {ranks.min()} to "
            f"{ranks.max()}."
        )
    if not 2 <= n_bins <= min(n_samples / 5, n_draws + 1):
        raise ValueError(
            "`n_bins` must be 2 or more, at most n_draws + 1, and leave five samples to "
            f"a bin. Got {n_bins} bins, {n_samples} samples, {n_draws} draws."
        )
    edges = np.ceil(np.arange(n_bins + 1) * (n_draws + 1) / n_bins)
    expected = n_samples * np.diff(edges) / (n_draws + 1)
    bins = np.searchsorted(edges, ranks, side="right") - 1
    counts = (bins[..., None] == np.arange(n_bins)).sum(axis=0)
    chi_square = ((counts - expected) ** 2 / expected).sum(axis=1)
    p_values = chdtrc(n_bins - 1, chi_square)
    return p_values, float(min(1.0, len(p_values) * p_values.min()))


def expected_coverage(draws, truths, levels, *, region="central"):
    """Return how often regions of given probability hold the truth.

    Parameters
    ----------
    draws : array-like of shape (n_samples, n_draws, n_params)
        Draws from each sample's posterior.

    truths : array-like of shape (n_samples, n_params)
        Params that produced the observations.

    levels : array-like of shape (n_levels,)
        Probabilities of the regions.

    region : {"central", "ellipsoid"}, default="central"
        Central intervals of each param, or ellipsoids of all params together, shaped by
        the draws: these see wrong correlations.

    Returns
    -------
    coverage : ndarray of shape (n_levels, n_params) or (n_levels,)
        Fraction of samples, equal to the levels up to ``sqrt(p * (1 - p) / n_samples)``
        if posteriors are right: less means too narrow, more too wide.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_inverse.metrics import expected_coverage
    >>> rng = np.random.default_rng(0)
    >>> truths = rng.standard_normal((2000, 1))
    >>> draws = 0.5 * rng.standard_normal((2000, 200, 1))
    >>> expected_coverage(draws, truths, [0.5, 0.9])[:, 0].round(1)
    array([0.3, 0.6])
    """
    levels = np.atleast_1d(np.asarray(levels, dtype=float))
    if ((levels < 0) | (levels > 1)).any():
        raise ValueError(f"`levels` must lie between 0 and 1. Got {levels} instead.")
    if region not in REGIONS:
        raise ValueError(f"`region` must be one of {REGIONS}. Got {region!r} instead.")
    draws, truths = _check(draws, truths)
    n_draws = draws.shape[1]
    if region == "central":
        place = (sbc_ranks(draws, truths) + 0.5) / (n_draws + 1)
        size = np.abs(2 * place - 1)
    else:
        away = _whitened(draws, truths)
        distance = (away**2).sum(axis=2)
        size = ((distance[:, 1:] < distance[:, :1]).sum(axis=1) + 0.5) / (n_draws + 1)
    return (size <= levels.reshape(-1, *[1] * size.ndim)).mean(axis=1)


def tarp(draws, truths, *, references=None):
    """Rank of each truth's distance to a reference point: all params together.

    "Tests of accuracy with random points": draws that have the right distances to random
    points are right, correlations and all. Shifts are seen better by :func:`sbc_ranks`.

    Parameters
    ----------
    draws : array-like of shape (n_samples, n_draws, n_params)
        Independent draws from each sample's posterior.

    truths : array-like of shape (n_samples, n_params)
        Params that produced the observations.

    references : array-like of shape (n_samples, n_params), default=None
        Points that may depend on the observations, but not on the truths. If None, the
        first draw of each sample, which is then left out.

    Returns
    -------
    ranks : ndarray of int of shape (n_samples,)
        How many draws lie nearer to the reference than the truth does, by the
        covariance of the draws: uniform from 0 to ``n_draws``, or to ``n_draws - 1``
        without ``references``. ``(ranks <= level * n_draws).mean()`` is the expected
        coverage.

    See Also
    --------
    uniformity_test : Whether they are uniform.

    References
    ----------
    .. [1] P. Lemos, A. Coogan, Y. Hezaveh, L. Perreault-Levasseur, "Sampling-based
       accuracy testing of posterior estimators for general inference", ICML (2023).

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_inverse.metrics import tarp, uniformity_test
    >>> rng = np.random.default_rng(0)
    >>> truths = rng.multivariate_normal([0, 0], [[1, -0.6], [-0.6, 1]], 500)
    >>> draws = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], (500, 100))
    >>> bool(uniformity_test(tarp(draws, truths), 99)[1] < 1e-3)
    True
    """
    draws, truths = _check(draws, truths)
    if references is None:
        references, draws = draws[:, 0], draws[:, 1:]
    references = np.asarray(references, dtype=float)
    if references.shape != truths.shape:
        raise ValueError(
            f"`references` must have the shape of `truths`, {truths.shape}. Got "
            f"{references.shape} instead."
        )
    away = _whitened(draws, truths, references)
    distance = (away**2).sum(axis=2)
    return (distance[:, 1:] < distance[:, :1]).sum(axis=1)


def posterior_z_and_contraction(draws, truths, prior_std=None):
    """Return how far posteriors are off, and how much they learned.

    Parameters
    ----------
    draws : array-like of shape (n_samples, n_draws, n_params)
        Draws from each sample's posterior.

    truths : array-like of shape (n_samples, n_params)
        Params that produced the observations.

    prior_std : array-like of shape (n_params,), default=None
        Standard deviation of the prior. If None, that of the truths.

    Returns
    -------
    z : ndarray of shape (n_samples, n_params)
        Posterior mean less truth, in posterior standard deviations: of mean 0 and
        standard deviation 1 if posteriors are right.

    contraction : ndarray of shape (n_samples, n_params)
        One less the posterior's over the prior's variance: 0 where nothing was learned.

    Examples
    --------
    >>> from sklearn_inverse.metrics import posterior_z_and_contraction
    >>> posterior_z_and_contraction([[[1.0], [3.0]]], [[1.0]], prior_std=[10.0])
    (array([[1.]]), array([[0.99]]))
    """
    draws, truths = _check(draws, truths)
    std = draws.std(axis=1)
    prior_std = truths.std(axis=0) if prior_std is None else np.asarray(prior_std)
    z = (draws.mean(axis=1) - truths) / np.where(std > 0, std, np.nan)
    return z, 1 - (std / prior_std) ** 2


def _check(draws, truths):
    """Return draws and truths as finite float arrays of shapes that fit."""
    draws, truths = np.asarray(draws, dtype=float), np.asarray(truths, dtype=float)
    shape = (*draws.shape[:1], *draws.shape[2:])
    if draws.ndim != 3 or draws.size == 0 or truths.shape != shape:
        raise ValueError(
            "`draws` must have shape (n_samples, n_draws, n_params) and `truths` "
            f"(n_samples, n_params). Got {draws.shape} and {truths.shape}."
        )
    failed = ~(np.isfinite(draws).all(axis=(1, 2)) & np.isfinite(truths).all(axis=1))
    if failed.any():
        raise ValueError(
            f"Draws and truths must be finite. Got NaN or infinity in {failed.sum()} of "
            f"{len(failed)} samples, the first at sample {int(np.argmax(failed))}. Leave "
            "failed samples out, and report how many there were."
        )
    return draws, truths


def _whitened(draws, truths, origins=None):
    """Return truths and draws, (n_samples, 1 + n_draws, n_params), as standard points.

    The truth counts for mean and covariance like any draw, so that its rank is uniform
    however few draws there are. They are seen from ``origins``, or from their means.
    """
    points = np.concatenate([truths[:, None], draws], axis=1)
    away = points - points.mean(axis=1, keepdims=True)
    spread = np.sqrt((away**2).mean(axis=1, keepdims=True))
    spread = np.where(spread > 0, spread, 1.0)
    covariance = (away / spread).swapaxes(1, 2) @ (away / spread) / points.shape[1]
    values, vectors = np.linalg.eigh(covariance)
    scale = 1 / np.sqrt(values.clip(min=1e-12 * values.max(axis=1, keepdims=True)))
    away = away if origins is None else points - origins[:, None]
    return (away / spread) @ (vectors * scale[:, None])
