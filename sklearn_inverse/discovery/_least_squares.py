"""Levenberg–Marquardt for one problem with many rows, by orthogonal factors.

Normal equations would square the condition of the dictionary, which stiff data make bad
enough.
"""

import numpy as np

__all__ = ["levenberg_marquardt", "triangle"]

MOST_DAMPING = 1e8


def triangle(blocks):
    """Return R of QR of the rows that come in blocks."""
    r = None
    for block in blocks:
        rows = block if r is None else np.vstack([r, block])
        r = np.linalg.qr(rows, mode="r")
    return r


def levenberg_marquardt(problem, x, *, max_iter, tol):
    """Minimize a sum of squares.

    Parameters
    ----------
    problem : object
        ``at(x)`` returns a point with its ``cost``; ``linearize(point)`` the triangular
        factor of the Jacobian of the residuals, with the residuals as its last column.
        ``moved(point, step)`` returns the point that is a step away.

    x : ndarray of shape (n_free,)
        Where to start.

    max_iter : int
        Most linearizations.

    tol : float
        Relative gain at which to stop.

    Returns
    -------
    point, factor, n_iter, converged
        The last point; its linearization; how it went.
    """
    point = problem.at(x)
    damping, n = 1e-8, len(x)
    if not n:
        return point, np.zeros((1, 1)), 0, True
    factor = problem.linearize(point)
    for n_iter in range(1, max_iter + 1):
        r, c = factor[:, :-1], factor[:, -1]
        norms = np.linalg.norm(r, axis=0)
        norms[norms == 0] = 1.0
        while True:
            rows = np.vstack([r / norms, np.sqrt(damping) * np.eye(n)])
            right = np.concatenate([-c, np.zeros(n)])
            scaled = np.linalg.lstsq(rows, right, rcond=None)[0]
            trial = problem.moved(point, scaled / norms)
            if trial.cost < point.cost:
                break
            promised = (c**2).sum() - ((c + r @ (scaled / norms)) ** 2).sum()
            damping *= 10
            if damping > MOST_DAMPING or promised <= 1e-12 * point.cost:
                return point, factor, n_iter, promised <= 1e-6 * point.cost
        damping = max(damping / 10, 1e-12)
        gain = point.cost - trial.cost
        point, factor = trial, problem.linearize(trial)
        small = np.linalg.norm(scaled) <= 1e-11 * np.linalg.norm(point.x * norms)
        if small or gain <= tol * point.cost:
            return point, factor, n_iter, True
    return point, factor, max_iter, False
