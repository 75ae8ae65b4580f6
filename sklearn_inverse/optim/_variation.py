"""New starts beside an optimum that is right in most of its coordinates."""

import torch
from torch import Tensor

__all__ = ["vary"]


def vary(best: Tensor, hessian: Tensor, draws: Tensor, generator) -> Tensor:
    """Return optima in which some coordinates that hang together are drawn anew.

    Of many params a search mostly gets all right but a few, which hold each other where
    they are. Which hang together the Hessian says.

    Parameters
    ----------
    best : Tensor of shape (n_samples, n_free)
        The optima.

    hessian : Tensor of shape (n_samples, n_free, n_free)
        The Hessian there.

    draws : Tensor of shape (n_new, n_params)
        Other values of the params, which are the first coordinates.

    generator : torch.Generator
        Draws which coordinates are the first of their blocks, the same for all samples.

    Returns
    -------
    starts : Tensor of shape (n_samples, n_new, n_free)
        Blocks have two coordinates, four and so on, up to half of all, in turn with two
        of all.
    """
    n_samples, (n_new, n_params) = len(best), draws.shape
    sizes = [2**k for k in range(1, n_params.bit_length()) if 2**k <= n_params / 2]
    sizes += 2 * [n_params]
    size = torch.tensor(sizes).repeat(n_new)[:n_new].to(best.device)
    hessian = hessian[:, :n_params, :n_params]
    scale = hessian.diagonal(dim1=1, dim2=2).clamp(min=1e-300).rsqrt()
    coupling = (hessian * scale[:, :, None] * scale[:, None]).abs()
    first = torch.randint(n_params, (n_new,), generator=generator).to(best.device)
    chosen = torch.nn.functional.one_hot(first, n_params).bool()
    chosen = chosen.expand(n_samples, -1, -1).clone()
    for k in range(1, int(size.max())):
        # The strongest tie of each coordinate outside to one inside.
        tie = torch.where(chosen[..., None], coupling[:, None], -1.0).amax(dim=2)
        tie = torch.where(chosen, -1.0, tie)
        next_one = torch.nn.functional.one_hot(tie.argmax(dim=2), n_params).bool()
        chosen |= next_one & (k < size)[:, None]
    starts = best[:, None].repeat(1, n_new, 1)
    starts[..., :n_params] = torch.where(chosen, draws, starts[..., :n_params])
    return starts
