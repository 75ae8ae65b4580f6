"""SampledPosterior: a posterior that is told by draws."""

from dataclasses import dataclass, field

import numpy as np

from sklearn_inverse.probability._posterior import Posterior

__all__ = ["SampledPosterior"]


@dataclass(repr=False)
class SampledPosterior(Posterior):
    """What Markov chains have drawn from the posterior of each sample.

    All that it tells is told by ``draws``; ``params`` are the likeliest, and the modes,
    weighed by the draws around them, are those that the chains set out from.

    Attributes
    ----------
    draws : ndarray of shape (n_samples, n_kept, n_params)
        Draws of the params, in their own units, in the order they were made.

    rhat : ndarray of shape (n_samples, n_params)
        Split R-hat of groups of walkers: about one where the chains agree.

    n_effective : ndarray of shape (n_samples, n_params)
        Independent draws that would tell means as precisely.

    Examples
    --------
    >>> from sklearn_inverse import MCMCInverter, ODESystem
    >>> def decay(t, y, p):
    ...     return -p.rate * y.amount
    >>> system = ODESystem(
    ...     decay, states={"amount": 1.0}, params={"rate": (0.1, 3.0)},
    ...     times=[0.0, 1.0, 2.0], noise=0.02,
    ... )
    >>> measured = [[1.0, 0.36, 0.14]]
    >>> inverter = MCMCInverter(system, n_effective=200, random_state=0).fit(measured)
    >>> posterior = inverter.posterior(measured)
    >>> posterior.draws.shape, posterior.mean.round(1)
    ((1, 800, 1), array([[1.]]))
    """

    draws: np.ndarray = field(default_factory=lambda: np.empty(0))
    rhat: np.ndarray = field(default_factory=lambda: np.empty(0))
    n_effective: np.ndarray = field(default_factory=lambda: np.empty(0))

    @property
    def correlation(self) -> np.ndarray:
        """Correlations of the params, (n_samples, n_params, n_params)."""
        return self._correlation_of(self.draws)

    @property
    def contraction(self) -> np.ndarray:
        """Posterior over prior spread in the coordinate."""
        return self.coordinate.to_coordinate(self.draws).std(axis=1)

    def quantile(self, level) -> np.ndarray:
        """Return quantiles, (n_samples, n_params), or with the levels' axis first."""
        return np.quantile(self.draws, self._check_level(level), axis=1)

    def sample(self, n_draws=100, random_state=0) -> np.ndarray:
        """Pick draws at random, (n_samples, n_draws, n_params).

        No draw is picked a second time before all have been picked once.
        """
        self._check_n_draws(n_draws)
        rng = np.random.default_rng(random_state)
        order = rng.permutation(self.draws.shape[1])
        return self.draws[:, np.resize(order, n_draws)]

    def _in_order(self, n_draws):
        return self.draws[0]

    def _moments(self):
        return self.draws.mean(axis=1), self.draws.std(axis=1)

    def _method(self):
        return (
            f"{self.kind}: {self.about['n_walkers']} walkers, {self.n_iter[0]} steps, "
            f"R-hat {self.rhat[0].max():.3f}, "
            f"{self.n_effective[0].min():,.0f} effective draws"
        )

    def _columns(self):
        told = {"rhat": self.rhat, "n_effective": self.n_effective}
        return super()._columns() | told
