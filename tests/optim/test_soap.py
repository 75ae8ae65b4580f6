"""Adam in the eigenbasis of the gradients solves what plain Adam does not."""

import numpy as np
import torch

from sklearn_inverse.optim._soap import StackedAdam


def descend(rotate, n_copies=1, keep=None):
    """Minimize a quadratic whose curvatures differ a millionfold, in a turned basis."""
    rng = np.random.default_rng(0)
    basis = torch.as_tensor(np.linalg.qr(rng.standard_normal((6, 6)))[0])
    curvature = torch.logspace(0, -6, 6, dtype=torch.float64)[:, None]
    x = torch.ones(n_copies, 6, 1, dtype=torch.float64)
    x = x * torch.arange(1, n_copies + 1)[:, None, None]
    optimizer = StackedAdam([x], 0.03, rotate=rotate)
    for step in range(400):
        if keep is not None and step == 100:
            optimizer.keep(keep)
            x = x[keep]
        gradient = basis @ (curvature * (basis.T @ x))
        (move,) = optimizer.moves([gradient], 1 - step / 400)
        x = x + move
    return (curvature * (basis.T @ x).square()).sum(dim=(1, 2))


def test_rotation_pays():
    assert descend(True) < 0.1 * descend(False)


def test_rows_know_nothing_of_each_other():
    for rotate in (True, False):
        alone = descend(rotate)
        beside = descend(rotate, n_copies=3)
        torch.testing.assert_close(beside[:1], alone)
        kept = descend(rotate, n_copies=3, keep=torch.tensor([True, False, True]))
        torch.testing.assert_close(kept, beside[[0, 2]])
