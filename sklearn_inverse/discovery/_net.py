"""A neural right-hand side, trained through the same implicit steps."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from sklearn_inverse.discovery._fit import Learning, equation_error, misfit, row_weights
from sklearn_inverse.discovery._noisy import lengths_of
from sklearn_inverse.discovery._rhs import plus_known
from sklearn_inverse.discovery._runs import Shots

__all__ = ["learn_net"]

PRIOR_STD = 3.0  # of weights, where readings scatter: states and slopes are of size one
GAIN = 1e-3  # relative, of the last step
RANK = 1e-8  # of the largest singular value of what the last weights are fitted to
ANY_STD = 1e5  # the same where they are exact


class NetRhs:
    """A right-hand side: a linear map and layers of tanh neurons side by side.

    ``layers`` are matrices of shape (n_in + 1, n_out), biases last: first the linear map.
    """

    def __init__(self, layers, center, scale, slope, known=None):
        self.layers, self.known = layers, known
        self.center, self.scale, self.slope = center, scale, slope

    def _forward(self, y):
        """Return the outputs, and what comes into each layer."""
        ones = np.ones((*y.shape[:-1], 1))
        into = [np.concatenate([(y - self.center) / self.scale, ones], axis=-1)]
        linear, *hidden, last = self.layers
        for layer in hidden:
            into.append(np.concatenate([np.tanh(into[-1] @ layer), ones], axis=-1))
        return (into[0] @ linear + into[-1] @ last) * self.slope, into

    def features(self, y):
        """Return what is weighted last: states, neurons, and ones."""
        _, into = self._forward(y)
        return np.concatenate([into[0], into[-1]], axis=-1)

    def _backward(self, into):
        """Return derivatives of the outputs by what comes out of each layer."""
        _, *hidden, last = self.layers
        back = np.broadcast_to(
            np.diag(self.slope), (*into[0].shape[:-1], *last.shape[1:] * 2)
        )
        found = [back]
        for layer, out in zip([*hidden[1:], last][::-1], into[:0:-1]):
            out = out[..., None, :-1]
            found.insert(0, found[0] @ layer[:-1].T * (1 - out**2))
        return [back, *found]

    def __call__(self, t, y):
        """Return the right-hand side and its Jacobian at times and states."""
        f, into = self._forward(y)
        straight, first, *_ = self._backward(into)
        jac = straight @ self.layers[0][:-1].T + first @ self.layers[1][:-1].T
        return plus_known(self.known, t, y, f, jac / self.scale)

    def by_free(self, y, pulled):
        """Return derivatives by all weights of what depends on the outputs at stages."""
        _, into = self._forward(y)
        pulled, parts = pulled.transpose(0, 2, 1, 3), []
        for x, back in zip([into[0], *into], self._backward(into)):
            by_layer = np.einsum("nsk,nsai->naki", x, pulled @ back, optimize=True)
            parts.append(by_layer.reshape(*by_layer.shape[:2], -1))
        return np.concatenate(parts, axis=-1)


class Net:
    """The right-hand sides that a network can make."""

    def __init__(self, shots, hidden, prior_std, known):
        h = shots.steps[:, :1]
        points = np.concatenate([shots.start, shots.paths[:, 0]])
        self.center, self.scale = points.mean(axis=0), points.std(axis=0)
        self.slope = abs((shots.paths[:, 0] - shots.start) / h).max(axis=0)
        for size in (self.scale, self.slope):
            size[size == 0] = 1.0
        d = shots.start.shape[1]
        self.shapes = [(d + 1, d)] + [(a + 1, b) for a, b in pairwise([d, *hidden, d])]
        self.prior_std, self.known = prior_std, known

    def start(self, seed, shots, weights):
        """Return random weights, but the last ones by the trapezoid's equation error."""
        rng = np.random.default_rng(seed)
        parts = [rng.standard_normal(shape) / shape[0] ** 0.5 for shape in self.shapes]
        net = self.rhs(np.concatenate([part.ravel() for part in parts]))
        _, errors = equation_error(net.features, shots, weights, self.known)
        found = [np.linalg.lstsq(m, right, rcond=RANK)[0] for m, right in errors]
        found = np.transpose(found) / self.slope
        parts[0], parts[-1] = np.split(found, [len(parts[0])])
        return np.concatenate([part.ravel() for part in parts])

    def rhs(self, x):
        """Return the right-hand side."""
        ends = np.cumsum([a * b for a, b in self.shapes])[:-1]
        layers = [w.reshape(s) for w, s in zip(np.split(x, ends), self.shapes)]
        return NetRhs(layers, self.center, self.scale, self.slope, self.known)


class LearnedNet(NamedTuple):
    """What :func:`learn_net` returns."""

    rhs: NetRhs
    misfit: float
    n_iter: int
    n_failed: int
    n_steps: int
    converged: bool
    is_choice: bool = False


def learn_net(runs, *, a, substeps, noise, known, hidden, seed, max_iter):
    """Return the network that leads from point to point; with noise, along whole runs."""
    shots = Shots.of(runs)
    net = Net(shots, hidden, ANY_STD if noise is None else PRIOR_STD, known)
    x, n_iter, found = net.start(seed, shots, row_weights(shots, noise)), 0, None
    for n_points in (1,) if noise is None else (1, *lengths_of(runs)):
        free = noise is not None
        problem = Learning.of(runs, net, a, substeps, noise, n_points, free)
        point, more, converged = problem.solve(x, max_iter=max_iter, tol=GAIN)
        n_iter += more
        if found and not point.result.solved.all():
            return found._replace(converged=False, n_iter=n_iter)
        x, solved = point.x, point.result.solved
        found = LearnedNet(
            net.rhs(x),
            misfit(problem, point),
            n_iter,
            int((~solved).sum()),
            len(solved),
            converged,
        )
    return found
