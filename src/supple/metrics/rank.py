"""How many directions the features of a layer span."""

from __future__ import annotations

import torch
from torch import Tensor


def feature_rank(features: Tensor, share: float = 0.99) -> Tensor:
    """Number of singular values, from the largest on, whose sum reaches a share of the sum of all.

    The paper calls it the stable rank. Features that are all 0, or not all finite, have rank 0. Singular values come
    from the eigenvalues of the features' Gram matrix in float64, many times faster than a singular value
    decomposition of many examples.

    Args:
        features: [..., E, n], outputs of n units on E examples.
        share: share of the sum, 0 < share <= 1.

    Returns:
        int64 [...].

    Source: Hernandez-Garcia et al. (arXiv 2508.00212), correlates of loss of plasticity; Kumar, Agarwal, Ghosh and
    Levine, "Implicit under-parameterization inhibits data-efficient deep reinforcement learning" (ICLR 2021),
    section 3.
    """
    features = features.double()
    # A network that has diverged must not take the others with it.
    features = torch.where(features.isfinite().all(dim=(-2, -1), keepdim=True), features, 0.0)
    if features.shape[-2] < features.shape[-1]:
        features = features.mT
    values = torch.linalg.eigvalsh(features.mT @ features).clamp_(min=0).sqrt_().flip(-1)
    total = values.sum(dim=-1, keepdim=True)
    reached = values.cumsum(dim=-1) >= share * total
    rank = values.shape[-1] - reached.sum(dim=-1) + 1
    # All ranks reach share of nothing; and rounding may keep the whole sum from being reached.
    return torch.where(total.squeeze(-1) > 0, rank.clamp_(max=values.shape[-1]), 0)
