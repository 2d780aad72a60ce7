"""Dead units: hidden units that say the same on every example."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from supple.nn import MLP, StackedMLP


def dead_units(features: Tensor, saturated: Sequence[float], tolerance: float) -> Tensor:
    """Which units give, on all examples, nothing but the saturated values of their activation function.

    Args:
        features: [..., E, n], outputs of n units on E examples.
        saturated: the saturated values; 0 for ReLU.
        tolerance: how near to one of them counts; 0: exactly.

    Returns:
        bool [..., n].

    Source: Hernandez-Garcia et al. (arXiv 2508.00212), correlates of loss of plasticity.
    """
    near = torch.stack([(features - value).abs() <= tolerance for value in saturated]).any(dim=0)
    return near.all(dim=-2)


@torch.no_grad()
def dead_share(network: MLP | StackedMLP, x: Tensor) -> Tensor:
    """Share of all hidden units of a network that are dead on the given examples.

    Args:
        network: a network, or a stack of them.
        x: examples, as the network takes them.

    Returns:
        A scalar, or [R] for a stack; 0 to 1.
    """
    kind = network.architecture.kind
    dead: list[Tensor] = []
    handles = [
        block.activation.register_forward_hook(
            lambda module, inputs, output: dead.append(dead_units(output, kind.saturated, kind.tolerance))
        )
        for block in network.blocks
    ]
    try:
        network(x)
    finally:
        for handle in handles:
            handle.remove()
    return torch.cat(dead, dim=-1).float().mean(dim=-1)
