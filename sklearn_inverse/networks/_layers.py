"""Layers whose rows do not depend on their place in a batch."""

from torch import Tensor, nn

__all__ = ["Linear", "ResidualBlocks", "linear"]

NARROW = 16  # outputs; with fewer, libraries round differently in different rows


class Linear(nn.Linear):
    """``nn.Linear`` that gives a sample the same answer whatever its place."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (…, in_features) to (…, out_features)."""
        return linear(x, self.weight, self.bias)


class ResidualBlocks(nn.ModuleList):
    """Residual layers of one width, and an activation behind the last."""

    def __init__(self, width: int, n_blocks: int):
        super().__init__(Linear(width, width) for _ in range(n_blocks))

    def forward(self, h: Tensor) -> Tensor:
        """Map (…, width) to the same shape."""
        for block in self:
            h = h + block(nn.functional.silu(h))
        return nn.functional.silu(h)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return ``x @ weight.T + bias``, computed with more outputs where there are few."""
    missing = NARROW - len(weight)
    if missing <= 0:
        return nn.functional.linear(x, weight, bias)
    if bias is not None:
        bias = nn.functional.pad(bias, (0, missing))
    padded = nn.functional.pad(weight, (0, 0, 0, missing))
    return nn.functional.linear(x, padded, bias)[..., : len(weight)]
