"""Dead and dormant units: hidden units that say the same, or hardly anything, on every example."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def dead_units(features: Tensor, saturated: Sequence[float], tolerance: float) -> Tensor:
    """Which units give, on all examples, nothing but the saturated values of their activation function.

    Args:
        features: [..., E, n], outputs of n units on E examples.
        saturated: the saturated values; 0 for ReLU, none for what never saturates.
        tolerance: how near to one of them counts; 0: exactly.

    Returns:
        bool [..., n].

    Source: Hernandez-Garcia et al. (arXiv 2508.00212), correlates of loss of plasticity.
    """
    near = torch.zeros_like(features, dtype=torch.bool)
    for value in saturated:
        near |= (features - value).abs() <= tolerance
    return near.all(dim=-2)


def dormant_units(features: Tensor, most: float = 0.01) -> Tensor:
    """Which units put out at most a small value on all examples. A value below 0 counts as none, however large.

    Args:
        features: [..., E, n], outputs of n units on E examples.
        most: the largest output of a dormant unit.

    Returns:
        bool [..., n].

    Source: Hernandez-Garcia et al. (arXiv 2508.00212), correlates of loss of plasticity in the vision transformer.
    """
    return (features <= most).all(dim=-2)
