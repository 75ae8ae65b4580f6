"""Draws of functions that bend in few places, by Gibbs sampling.

Differences of their values are Cauchy: normal, each with a variance of its own.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

from sklearn_inverse.optim._samplers import agreement

__all__ = ["Drawn", "Kinks", "draw_kinks"]

N_CHAINS = 4
N_CENTERS, N_BURN = 4, 120  # points of linearization, and steps around each of these
N_STEPS, EVERY = 1000, 2  # in a round, of which every second is kept
MAX_ROUNDS, SAME = 6, 1.05  # rounds at most, until R-hat says that chains agree
FARTHEST = 3  # nodes that a kink is moved at once


class Kinks(NamedTuple):
    """Coordinates ``w = basis @ u``, whose u are normal but for what is Cauchy.

    Attributes
    ----------
    basis : ndarray of shape (n_free, n_free)
        What the u make of w.

    differences : ndarray of shape (n_differences, n_free)
        Of u, one function after the other, each from one end to the other.

    column : ndarray of int of shape (n_differences,)
        Which u a difference is, -1 if it follows from others.

    function : ndarray of int of shape (n_differences,)
        Whose difference it is.

    ladders : ndarray of shape (n_functions, n_rungs)
        Scales that a function's differences may have, all as likely.
    """

    basis: np.ndarray
    differences: np.ndarray
    column: np.ndarray
    function: np.ndarray
    ladders: np.ndarray


class Drawn(NamedTuple):
    """Draws of w (n_samples, n_draws, n_free), and how far chains agree in these.

    ``rhat``, ``n_effective``, and the ``center`` of linearization have shape (n_samples,
    n_free).
    """

    draws: np.ndarray
    center: np.ndarray
    rhat: np.ndarray
    n_effective: np.ndarray


def draw_kinks(linearize: Callable, start, kinks: Kinks, seed: int) -> Drawn:
    """Draw coordinates whose differences are Cauchy from their posteriors.

    Normal ones given the variances, and variances given the differences [1]_; neighbors
    exchange variances, by which kinks move, and scales know of no variances. Chains go
    on until they agree. All samples share their random numbers.

    Parameters
    ----------
    linearize : callable
        ``linearize(w, sample)`` returns information (n_rows, n_free, n_free) and slope
        (n_rows, n_free) of the log likelihood, NaN where it cannot be computed.

    start : ndarray of shape (n_samples, n_free)
        Where it is linearized first; later around means of draws.

    kinks : Kinks
        The prior.

    seed : int
        Of the random numbers.

    Returns
    -------
    drawn : Drawn
        2000 draws per sample.

    References
    ----------
    .. [1] Markkanen, Roininen, Huttunen, Lasanen, "Cauchy difference priors for
       edge-preserving Bayesian inversion", J. Inverse Ill-Posed Probl. 27, 225 (2019).
    """
    chains = _Chains(kinks, len(start), np.random.default_rng(seed))
    everyone, center = np.arange(len(start)), start
    for _ in range(N_CENTERS):
        chains.tell(center, *linearize(center, everyone))
        center = chains.walk(N_BURN)[:, N_BURN // 2 :].mean(axis=(1, 2))
    chains.tell(center, *linearize(center, everyone))
    shape = len(start), N_STEPS // EVERY * N_CHAINS, start.shape[1]
    drawn = Drawn(np.empty(shape), center, *np.empty((2, *start.shape)))
    running = everyone
    for _ in range(MAX_ROUNDS):
        recent = chains.walk(N_STEPS)[:, ::EVERY]
        drawn.draws[running] = recent.reshape(len(running), -1, start.shape[1])
        drawn.rhat[running], drawn.n_effective[running] = agreement(recent)
        is_open = np.nanmax(drawn.rhat[running], axis=1) > SAME
        running = running[is_open]
        if len(running) == 0:
            break
        chains.keep(is_open)
    return drawn


class _Chains:
    """Chains of all samples, (n_samples, N_CHAINS, …), and what readings tell."""

    def __init__(self, kinks, n_samples, rng):
        self.kinks, self.rng = kinks, rng
        self.is_own = kinks.column >= 0
        self.extra = kinks.differences[~self.is_own]
        n_functions, n_rungs = kinks.ladders.shape
        shape = n_samples, N_CHAINS, len(kinks.column)
        self.local = np.ones(shape)  # variances in units of the scale's square
        rung = np.linspace(0.3, 0.7, N_CHAINS) * (n_rungs - 1)
        scale = kinks.ladders[:, rung.astype(int)].T
        self.scale = np.broadcast_to(scale, (n_samples, N_CHAINS, n_functions)).copy()
        self.information: Any = None
        self.pull: Any = None

    def tell(self, center, information, slope):
        """Take in what readings tell, linearized; keep what is known where they fail."""
        basis = self.kinks.basis
        pull = (slope + np.einsum("sij,sj->si", information, center)) @ basis
        information = basis.T @ information @ basis
        if self.pull is not None:
            lost = ~np.isfinite(pull).all(axis=1)
            information = np.where(lost[:, None, None], self.information, information)
            pull = np.where(lost[:, None], self.pull, pull)
        self.information, self.pull = information, pull

    def keep(self, index):
        """Go on with some samples only."""
        for name in ("local", "scale", "information", "pull"):
            setattr(self, name, getattr(self, name)[index])

    def walk(self, n_steps):
        """Return where chains go, (n_samples, n_steps, N_CHAINS, n_free)."""
        n_samples, n_free = self.pull.shape
        path = np.empty((n_samples, n_steps, N_CHAINS, n_free))
        for k in range(n_steps):
            path[:, k] = self._step() @ self.kinks.basis.T
        return path

    def _step(self):
        """Move all chains, and return their u."""
        rng, function = self.rng, self.kinks.function
        here, there = self._given(self.local), self._exchanged()
        moved, is_possible = there
        there = self._given(moved)
        odds = np.log(rng.random(N_CHAINS)) < there[-1] - here[-1]
        accepted = (odds & is_possible)[..., None]
        self.local = np.where(accepted, moved, self.local)
        sd = np.where(accepted, there[0], here[0])
        accepted = torch.as_tensor(accepted[..., None])
        factor, pull = (
            torch.where(accepted, b, a) for a, b in zip(here[1:3], there[1:3])
        )
        noise = torch.as_tensor(rng.standard_normal((N_CHAINS, pull.shape[2], 1)))
        z = torch.linalg.solve_triangular(factor.mT, pull + noise, upper=True)
        u = sd * z[..., 0].numpy()
        squares = (u @ self.kinks.differences.T) ** 2
        for f, ladder in enumerate(self.kinks.ladders):
            own = function == f
            # That of the whole, whatever follows from other differences: see the norm
            # of a Cauchy process between known ends.
            power = 2 * own.sum() - (own & self.is_own).sum()
            spread = np.log(ladder**2 + squares[..., own, None]).sum(axis=-2)
            weight = power * np.log(ladder) - spread
            weight = np.exp(weight - weight.max(axis=-1, keepdims=True)).cumsum(axis=-1)
            rung = weight < rng.random((N_CHAINS, 1)) * weight[..., -1:]
            self.scale[..., f] = ladder[rung.sum(axis=-1)]
        relative = squares / self.scale[..., function] ** 2
        n = len(function)
        self.local = (1 + relative) / (2 * rng.standard_exponential((N_CHAINS, n)))
        return u

    def _given(self, local):
        """Return what is normal given variances.

        Standard deviations of the u; the Cholesky factor of their precision in these
        units; what readings pull them to; and how likely the readings are, its log.
        """
        variance = local * self.scale[..., self.kinks.function] ** 2
        sd = np.ones((*local.shape[:2], self.pull.shape[1]))
        sd[..., self.kinks.column[self.is_own]] = np.sqrt(variance[..., self.is_own])
        precision, of_extra = self.information[:, None], variance[..., ~self.is_own]
        if of_extra.shape[-1]:
            rows = self.extra / np.sqrt(of_extra)[..., None]
            precision = precision + rows.swapaxes(-1, -2) @ rows
        precision = sd[..., :, None] * precision * sd[..., None, :]
        np.einsum("...ii->...i", precision)[...] += 1.0
        factor = torch.linalg.cholesky(torch.as_tensor(precision))
        pull = torch.as_tensor((sd * self.pull[:, None])[..., None])
        pull = torch.linalg.solve_triangular(factor, pull, upper=False)
        volume = factor.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
        likely = 0.5 * pull.square().sum(dim=(-2, -1)) - volume
        return sd, factor, pull, likely.numpy() - 0.5 * np.log(of_extra).sum(axis=-1)

    def _exchanged(self):
        """Return local variances, a large one exchanged with one nearby, if there is."""
        rng, n = self.rng, len(self.kinks.function)
        chance = np.sqrt(self.local).cumsum(axis=-1)
        picked = chance < rng.random((N_CHAINS, 1)) * chance[..., -1:]
        one = picked.sum(axis=-1)[..., None]
        away = rng.integers(1, FARTHEST + 1, N_CHAINS) * rng.choice([-1, 1], N_CHAINS)
        other = (one + away[:, None]).clip(0, n - 1)
        function = self.kinks.function
        is_possible = (other == one + away[:, None]) & (
            function[one] == function[other]
        )
        moved = self.local.copy()
        for here, there in ((one, other), (other, one)):
            value = np.take_along_axis(self.local, there, axis=-1)
            np.put_along_axis(moved, here, value, axis=-1)
        return moved, is_possible[..., 0]
