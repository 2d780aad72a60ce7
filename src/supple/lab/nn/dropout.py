"""Dropout whose masks are cheap to draw on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_BITS = 16
"""Random bits an entry: a mask costs a quarter of a 64-bit number each, a tenth of what ``torch.bernoulli`` takes."""


def dropout(x: Tensor, p: float) -> Tensor:
    """Sets each entry to 0 with probability p and divides the others by 1 - p, so that the mean stays.

    On a CPU p counts as the nearest multiple of 2^-16 up to 1 - 2^-15, in the division too. Elsewhere it is
    :func:`torch.nn.functional.dropout`, where masks cost little. The masks come from torch's own generator.

    Args:
        x: floating-point entries of any shape.
        p: probability, 0 <= p < 1.

    Returns:
        Same shape.

    Source: Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", JMLR 15, 2014.
    """
    if x.device.type != "cpu":
        return nn.functional.dropout(x, p)
    levels = 2**_BITS
    dropped = min(round(p * levels), levels - 2)  # float16 holds 2^15 and not 2^16
    if not dropped:
        return x
    count = -(-x.numel() * _BITS // 64)
    drawn = torch.randint(-(2**63), 2**63 - 1, (count,), device=x.device).view(torch.int16)
    kept = drawn[: x.numel()].view(x.shape) >= dropped - levels // 2
    return x * kept.to(x.dtype).mul_(levels / (levels - dropped))


class Dropout(nn.Dropout):
    """A layer that applies :func:`dropout` in training, and does nothing in evaluation.

    Args:
        p: probability that an entry is dropped, 0 <= p < 1.

    Raises:
        ValueError: if p is out of range.
    """

    def __init__(self, p: float) -> None:
        if not 0 <= p < 1:
            raise ValueError(f"p is {p}; it has to be at least 0 and below 1, since what is kept is divided by 1 - p")
        super().__init__(p)

    def forward(self, x: Tensor) -> Tensor:
        """Applies the layer.

        Args:
            x: entries of any shape.

        Returns:
            Same shape.
        """
        return dropout(x, self.p) if self.training else x
