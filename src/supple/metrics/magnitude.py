"""How large weights and gradients are."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def mean_magnitude(tensors: Iterable[Tensor]) -> Tensor:
    """Mean absolute value over all entries of several tensors, a network each.

    Args:
        tensors: each [R, ...]; at least one.

    Returns:
        float64 [R].

    Source: Hernandez-Garcia et al. (arXiv 2508.00212), correlates of loss of plasticity.
    """
    flat = [tensor.detach().reshape(len(tensor), -1) for tensor in tensors]
    # vector_norm sums without a copy of the absolute values.
    sums = torch.stack([torch.linalg.vector_norm(tensor, ord=1, dim=1).double() for tensor in flat])
    return sums.sum(dim=0) / sum(tensor.shape[1] for tensor in flat)
