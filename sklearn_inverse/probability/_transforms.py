"""The prior of all params together: by name, in groups, to be drawn from."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import qmc

from sklearn_inverse.probability._coordinates import Coordinates
from sklearn_inverse.probability._families import Columns
from sklearn_inverse.probability._groups import Group
from sklearn_inverse.probability._prior import LN_10, Prior
from sklearn_inverse.probability._priors import as_prior

__all__ = ["JointPrior"]


class JointPrior(Coordinates):
    """Prior of all params of a system.

    Arrays of params have shape (..., n_params), in the order of ``names``. Immutable,
    equal by value.

    Parameters
    ----------
    priors : dict
        Maps a param's name to its prior, or to a pair (low, high), or to a frozen SciPy
        distribution. A group of params has a tuple of names as its key; with a single
        name for key, its params are called ``name[0]``, ``name[1]``, ...

    Attributes
    ----------
    names : list of str
        Names of the params.

    n_params : int
        Their number.

    marginals : list of Prior
        Priors of the params one by one.

    groups : dict
        Slice of the params of each group that goes by a single name.

    scaler : ParamScaler
        Map between params and scaled params.

    scaled_low, scaled_high : ndarray of shape (n_params,)
        Ends of the support in scaled params, perhaps infinite.

    is_quantile_scaled : bool
        Whether quantiles and scaled params are the same.

    mixing : ndarray of shape (n_params, n_params)
        Matrix A that makes the correlated coordinates w = A z of standard ones.

    median : ndarray of shape (n_params,)
        Medians of the params one by one.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_inverse.probability import JointPrior, LogNormal
    >>> prior = JointPrior({"rate": (1, 3), "seed": LogNormal(0.1, 1)})
    >>> prior.from_standard(np.zeros(2))
    array([2. , 0.1])
    """

    def __init__(self, priors: dict[Any, Any]):
        if not isinstance(priors, dict) or not priors:
            raise TypeError(
                "`priors` must be a dict of at least one param's name and prior. Got "
                f"{priors!r}."
            )
        self.priors = {
            key: prior if isinstance(prior, Group) else as_prior(prior)
            for key, prior in priors.items()
        }
        self.names: list[str] = []
        self.marginals: list[Prior] = []
        self.groups: dict[str, slice] = {}
        blocks = [self._add(key, prior) for key, prior in self.priors.items()]
        if len(set(self.names)) < len(self.names):
            raise ValueError(f"Names of params must differ. Got {self.names}.")

        super().__init__(self.marginals, blocks)

    def _add(self, key, prior) -> np.ndarray:
        """Take in a prior, and return its correlation."""
        names = list(key) if isinstance(key, tuple) else [key]
        if not all(isinstance(name, str) for name in names):
            raise TypeError(
                f"Keys of `priors` must be names, or tuples of names. Got {key!r}."
            )
        if isinstance(prior, Prior):
            if isinstance(key, tuple):
                raise TypeError(
                    "Several params need a prior for groups, such as MultivariateNormal. "
                    f"Got {prior!r} for {key!r}."
                )
            self.names += names
            self.marginals.append(prior)
            return np.ones((1, 1))
        if not isinstance(key, tuple):
            start = len(self.names)
            self.groups[key] = slice(start, start + prior.size)
            names = [f"{key}[{i}]" for i in range(prior.size)]
        elif len(key) != prior.size:
            raise ValueError(
                f"A group must have a name for each of its params. Got {len(key)} names "
                f"{key!r} for {prior.size} params of {prior!r}."
            )
        self.names += names
        self.marginals += prior.marginals
        return prior.correlation

    @classmethod
    def from_range(cls, params, names=None) -> JointPrior:
        """Take uniform priors on the range of training params.

        Parameters
        ----------
        params : array-like of shape (n_samples, n_params)
            Training params. One that never varies gets a width of 1 %.

        names : list of str, default=None
            Names of the params. If None, ``param_0``, ``param_1``, ...

        Returns
        -------
        prior : JointPrior
            Of the params in the order of the columns.
        """
        params = np.asarray(params, dtype=float)
        low, high = params.min(axis=0), params.max(axis=0)
        pad = np.where(high > low, 0.0, 0.005 * np.abs(low) + (low == 0))
        if names is None:
            names = [f"param_{j}" for j in range(len(low))]
        return cls(dict(zip(names, zip(low - pad, high + pad))))

    def log_prob(self, params):
        """Return the natural logarithm of the prior's density.

        Parameters
        ----------
        params : array-like of shape (..., n_params)
            In their own units.

        Returns
        -------
        log_prob : ndarray of shape (...,)
            Minus infinity outside the support.
        """
        params = np.asarray(params, dtype=float)
        x = self._to_scaled(params)
        inside = (params >= self._low) & (params <= self._high)
        by_param = self._each(Columns.log_density, x) - self._log_width
        if self.scaler.has_log:  # dk = ln(10) k width dx
            slope = LN_10 * np.maximum(params, self._lowest)
            by_param = by_param - np.log(np.where(self.scaler.is_log, slope, 1.0))
        log_prob = (by_param + np.zeros(params.shape)).sum(axis=-1)
        if self._factor is not None:
            w = self._each(Columns.to_standard, x)
            copula = (w * w).sum(axis=-1) - (w @ self._precision * w).sum(axis=-1)
            log_prob = log_prob + 0.5 * copula - self._log_volume
        return np.where(inside.all(axis=-1), log_prob, -np.inf)

    def draw(self, n_draws, rng, method="random"):
        """Draw params from the prior.

        Parameters
        ----------
        n_draws : int
            Number of draws.

        rng : RandomState
            Source of randomness.

        method : {"random", "lhs", "sobol"}, default="random"
            Independent draws, a Latin hypercube, or a scrambled Sobol' sequence.

        Returns
        -------
        params : ndarray of shape (n_draws, n_params)
            In their own units.
        """
        if method == "random":
            return self.from_standard(rng.standard_normal((n_draws, self.n_params)))
        seed = rng.randint(2**31 - 1)
        if method == "lhs":
            u = qmc.LatinHypercube(self.n_params, seed=seed).random(n_draws)
        elif method == "sobol":
            # Sobol' sequences come in powers of two; SciPy warns of any other length.
            n_bits = int(n_draws - 1).bit_length()
            u = qmc.Sobol(self.n_params, seed=seed).random_base2(n_bits)[:n_draws]
        else:
            raise ValueError(
                f"`method` must be 'random', 'lhs' or 'sobol'. Got {method!r}."
            )
        return self.from_quantile(np.clip(u, 1e-16, 1 - 1e-16))

    def check_inside(self, params):
        """Raise ValueError naming the first param outside its prior's support.

        Parameters
        ----------
        params : ndarray of shape (n_samples, n_params)
            In their own units.
        """
        outside = (params < self._low) | (params > self._high)
        if outside.any():
            i, j = np.argwhere(outside)[0]
            raise ValueError(
                f"Every param must lie within its prior's support. Got {params[i, j]:g} "
                f"for {self.names[j]!r} of sample {i}, whose prior is "
                f"{self.marginals[j]!r}."
            )

    def __repr__(self):
        return f"JointPrior({self.priors!r})"

    def __eq__(self, other):
        if not isinstance(other, JointPrior):
            return NotImplemented
        return list(self.priors.items()) == list(other.priors.items())

    def __hash__(self):
        return hash(tuple(self.priors.items()))

    def __reduce__(self):
        return JointPrior, (self.priors,)
