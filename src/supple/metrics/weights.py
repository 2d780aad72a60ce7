"""How large weights and gradients are, and how far weights have moved."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from supple.methods.arguments import is_normalization


def mean_magnitude(tensors: Iterable[Tensor]) -> Tensor:
    """Mean absolute value over all entries of several tensors, a network each.

    Args:
        tensors: each [R, ...]; at least one.

    Returns:
        float64 [R].

    Source: Hernandez-Garcia et al. (arXiv 2508.00212), correlates of loss of plasticity.
    """
    flat = _flat(tensors)
    # vector_norm sums without a copy of the absolute values.
    return _sum([torch.linalg.vector_norm(tensor, ord=1, dim=1) for tensor in flat]) / _entries(flat)


def zero_share(tensors: Iterable[Tensor]) -> Tensor:
    """Share of the entries of several tensors that are exactly 0, a network each; of gradients, what does not learn.

    Args:
        tensors: each [R, ...]; at least one.

    Returns:
        float64 [R], 0 to 1.

    Source: Abbas et al., "Loss of plasticity in continual deep reinforcement learning" (CoLLAs 2023, arXiv 2303.07507),
    which finds that gradients of networks that lose plasticity become small and sparse.
    """
    flat = _flat(tensors)
    return _sum([(tensor == 0).sum(dim=1) for tensor in flat]) / _entries(flat)


def distance(tensors: Iterable[Tensor], others: Iterable[Tensor]) -> Tensor:
    """The Euclidean distance of several tensors, taken as one vector, from as many others, a network each.

    From the initial weights it is what L2 Init and the like keep small.

    Args:
        tensors: each [R, ...]; at least one.
        others: the same shapes.

    Returns:
        float64 [R].

    Source: Kumar, Marklund and Van Roy, "Maintaining plasticity in continual learning via regenerative regularization"
    (arXiv 2308.11958), which keeps its square small.
    """
    pairs = zip(tensors, others, strict=True)
    return _norm([(one.detach() - other.to(one.device)).reshape(len(one), -1) for one, other in pairs])


def update_ratio(before: Iterable[Tensor], after: Iterable[Tensor]) -> Tensor:
    """How large an update is relative to the weights, |w' - w| / |w| (Euclidean), a network each.

    It is the learning rate that counts where a normalization makes the size of weights meaningless: with weights that
    grow and updates that do not, a network learns more and more slowly.

    Args:
        before: tensors before the update, each [R, ...]; at least one.
        after: the same after it.

    Returns:
        float64 [R]; 0 where nothing changed.

    Source: Lyle et al., "Normalization and effective learning rates in reinforcement learning" (NeurIPS 2024, arXiv
    2407.01800); the ratio is that of You, Gitman and Ginsburg (arXiv 1708.03888).
    """
    before = list(before)
    change = distance(after, before)
    return torch.where(change > 0, change / _norm([tensor.reshape(len(tensor), -1) for tensor in before]), change)


def normalization_scales(model: nn.Module) -> dict[str, Tensor]:
    """What the normalization layers of a model multiply by, whose shrinking takes a layer's outputs away.

    Args:
        model: any module.

    Returns:
        By the name of the layer, its ``scale`` where it has such a tensor, as where that is 1 + weight; else its
        weight.

    Source: Hernandez-Garcia et al. (arXiv 2508.00212), correlates of loss of plasticity.
    """
    found = {}
    for name, module in model.named_modules():
        if is_normalization(module):
            scale = getattr(module, "scale", None)
            scale = scale if isinstance(scale, Tensor) else getattr(module, "weight", None)
            if isinstance(scale, Tensor):
                found[name] = scale.detach()
    return found


def _entries(flat: list[Tensor]) -> int:
    return sum(tensor.shape[1] for tensor in flat)


def _flat(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Each tensor [R, ...] as [R, entries]; sparse gradients as what they stand for."""
    return [tensor.detach().to_dense().reshape(len(tensor), -1) for tensor in tensors]


def _sum(parts: list[Tensor]) -> Tensor:
    return torch.stack([part.double() for part in parts]).sum(dim=0)


def _norm(flat: list[Tensor]) -> Tensor:
    return _sum([torch.linalg.vector_norm(tensor, dim=1).double().square() for tensor in flat]).sqrt()
