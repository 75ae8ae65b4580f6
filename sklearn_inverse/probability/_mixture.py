"""Mixtures of t distributions around the optima of each sample."""

import numpy as np
from scipy.special import logsumexp

from sklearn_inverse.probability._laplace import factorize

__all__ = ["StudentMixture"]

LEAST_DF = 8  # degrees of freedom: tails heavier than what is to be covered


class StudentMixture:
    """A mixture of multivariate t distributions for each sample.

    Parameters
    ----------
    weights : ndarray of shape (n_samples, n_modes)
        Probability of each mode.

    centers : ndarray of shape (n_samples, n_modes, n_free)
        Their centers.

    covariances : ndarray of shape (n_samples, n_modes, n_free, n_free)
        Covariances of the normal distributions that these t's are a little wider than.
    """

    def __init__(self, weights, centers, covariances):
        self.weights, self.centers, self.covariances = weights, centers, covariances
        n_free = centers.shape[2]
        # In many dimensions lengths vary little, and those of a t must not vary more.
        self.df = max(LEAST_DF, 2 * n_free)
        self._factor = factorize(covariances)
        self._inverse = np.linalg.inv(self._factor)
        with np.errstate(divide="ignore"):
            size = np.linalg.slogdet(self._factor)[1]
            self._log_scale = np.log(weights) - size

    def __getitem__(self, index):
        return StudentMixture(
            self.weights[index], self.centers[index], self.covariances[index]
        )

    @classmethod
    def join(cls, mixtures, axis=0):
        """Return one mixture of the samples, or with ``axis=1`` the modes, of several."""
        parts = zip(*((m.weights, m.centers, m.covariances) for m in mixtures))
        return cls(*(np.concatenate(part, axis=axis) for part in parts))

    def with_prior(self, n_params, share):
        """Return it with a mode more: what was believed of standard params before.

        Coordinates beyond the params are as in the first mode.
        """
        p, center = n_params, self.centers[:, :1].copy()
        covariance = self.covariances[:, :1].copy()
        center[..., :p], covariance[..., :p, :], covariance[..., :p] = 0.0, 0.0, 0.0
        covariance[..., range(p), range(p)] = 1.0
        prior = StudentMixture(np.full((len(center), 1), share), center, covariance)
        return StudentMixture.join([self.weighing(1 - share), prior], axis=1)

    def weighing(self, share):
        """Return it as a share of a mixture."""
        return StudentMixture(share * self.weights, self.centers, self.covariances)

    def moments(self):
        """Return means and standard deviations (n_samples, n_free) of the normals."""
        mean = np.einsum("sm,smp->sp", self.weights, self.centers)
        away = (self.centers - mean[:, None]) ** 2
        variance = np.einsum("smpp->smp", self.covariances) + away
        return mean, np.sqrt(np.einsum("sm,smp->sp", self.weights, variance))

    def draw(self, n_draws, rng, *, widen=1.0, by_mode=False):
        """Draw (n_samples, n_draws, n_free) with the same random numbers for all.

        Parameters
        ----------
        n_draws : int
            Draws per sample.

        rng : Generator
            Source of randomness.

        widen : float, default=1.0
            Factor of all deviations from the centers.

        by_mode : bool, default=False
            Whether each mode gets its exact share, the first draws those of the first.
        """
        share = (np.arange(n_draws) + 0.5) / n_draws if by_mode else rng.random(n_draws)
        stretch = widen * np.sqrt(self.df / rng.chisquare(self.df, n_draws))
        noise = stretch[:, None] * rng.standard_normal((n_draws, self.centers.shape[2]))
        ends = self.weights.cumsum(axis=1)[:, None, :-1]
        mode = (share[:, None] > ends).sum(axis=2)
        row = np.arange(len(mode))[:, None]
        moved = np.einsum("sdpq,dq->sdp", self._factor[row, mode], noise)
        return self.centers[row, mode] + moved

    def log_prob(self, points, *, is_normal=False):
        """Return log densities (n_samples, n_points), up to a constant.

        Those of the normal distributions, which have another constant, if asked for.
        """
        return logsumexp(self._by_mode(points, is_normal), axis=1)

    def shares(self, points):
        """Return how large a part (n_samples, n_modes) of the points is each mode's."""
        mode = self._by_mode(points).argmax(axis=1)
        return (mode[..., None] == np.arange(self.weights.shape[1])).mean(axis=1)

    def _by_mode(self, points, is_normal=False):
        value = np.empty((*self.weights.shape, points.shape[1]))
        origin = np.einsum("smpq,smq->smp", self._inverse, self.centers)
        power = (self.df + points.shape[2]) / 2
        for i, own in enumerate(points):  # one by one: there may be many modes
            away = own @ self._inverse[i].mT - origin[i][:, None]
            distance = np.einsum("mdp,mdp->md", away, away)
            fall = 0.5 * distance
            if not is_normal:
                fall = power * np.log1p(distance / self.df)
            value[i] = self._log_scale[i][:, None] - fall
        return value
