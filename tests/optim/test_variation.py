"""New starts replace coordinates that hang together, and leave the others as they are."""

import torch

from sklearn_inverse.optim._variation import vary
from sklearn_inverse.utils._torch import generator


def coupled_in_pairs(n_free):
    """Return a Hessian whose coordinates hang together in pairs, on any scales."""
    hessian = torch.eye(n_free).double()
    for i in range(0, n_free - 1, 2):
        hessian[i, i + 1] = hessian[i + 1, i] = 0.9
    scale = torch.logspace(-6, 6, n_free).double()
    return scale[:, None] * hessian * scale


def test_what_is_tied_is_drawn_together():
    best, draws = torch.zeros(2, 9).double(), torch.ones(64, 8).double()
    hessian = coupled_in_pairs(9).repeat(2, 1, 1)
    starts = vary(best, hessian, draws, generator(0))
    assert starts.shape == (2, 64, 9)
    assert (starts[..., 8] == 0).all()  # the scale of the noise is not drawn
    pairs = starts[..., :8].unflatten(2, (4, 2))
    assert (pairs[..., 0] == pairs[..., 1]).all()
    assert starts.sum(dim=2)[0, :8].tolist() == 2 * [2, 4, 8, 8]  # 8: from afar
    beside = starts[starts.sum(dim=2) < 8]
    assert (beside.amax(dim=0)[:8] == 1).all()  # every coordinate has its turn


def test_samples_do_not_hang_on_their_company():
    rng = generator(1)
    best = torch.rand(3, 6, generator=rng).double()
    root = torch.rand(3, 6, 6, generator=rng).double()
    hessian = root @ root.mT + torch.eye(6)
    draws = torch.rand(5, 6, generator=rng).double()
    together = vary(best, hessian, draws, generator(0))
    alone = vary(best[1:2], hessian[1:2], draws, generator(0))
    torch.testing.assert_close(together[1:2], alone, rtol=0, atol=0)


def test_a_single_param_is_drawn_anew():
    starts = vary(
        torch.zeros(1, 1), torch.ones(1, 1, 1), torch.ones(2, 1), generator(0)
    )
    assert starts.flatten().tolist() == [1, 1]
