"""A linear layer whose rows do not depend on their place in a batch."""

from torch import Tensor, nn

__all__ = ["Linear", "linear"]

NARROW = 16  # outputs; with fewer, libraries round differently in different rows


class Linear(nn.Linear):
    """``nn.Linear`` that gives a sample the same answer whatever its place."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (…, in_features) to (…, out_features)."""
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return ``x @ weight.T + bias``, computed with more outputs where there are few."""
    missing = NARROW - len(weight)
    if missing <= 0:
        return nn.functional.linear(x, weight, bias)
    if bias is not None:
        bias = nn.functional.pad(bias, (0, missing))
    padded = nn.functional.pad(weight, (0, 0, 0, missing))
    return nn.functional.linear(x, padded, bias)[..., : len(weight)]
