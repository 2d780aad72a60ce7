"""Drawing parts of a network again: the baselines that forget at each addition of classes."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn

from supple.lab.nn import ViT
from supple.lab.nn.stacked import initialize
from supple.lab.nn.transformer import Attention, FeedForward

RESETS = ("network", "head", "layer_norms", "attention", "mlp", "momentum")
"""What can be reset: the whole network, parts of it, or only the optimizer's state."""

_KINDS: dict[str, type[nn.Module]] = {"layer_norms": nn.LayerNorm, "attention": Attention, "mlp": FeedForward}


def parameters_of(network: ViT, part: str) -> list[str]:
    """The parameters of a part of the network.

    Args:
        network: the network.
        part: one of :data:`RESETS`.

    Returns:
        Their names; none for "momentum".

    Raises:
        ValueError: if there is no such part.
    """
    if part not in RESETS:
        raise ValueError(f"reset names {part!r}; what can be reset is {', '.join(RESETS)}")
    if part == "network":
        return [name for name, _ in network.named_parameters()]
    if part == "head":
        return [f"output.{name}" for name, _ in network.output.named_parameters()]
    return [
        f"{path}.{name}"
        for path, module in network.named_modules()
        if part in _KINDS and isinstance(module, _KINDS[part])
        for name, _ in module.named_parameters()
    ]


def reset(network: ViT, optimizer: torch.optim.Optimizer, parts: Collection[str], addition: int) -> None:
    """Draws parts of a network again from their initial distributions, as a function of its seed and the addition.

    The optimizer's state of what is drawn again (momentum) starts anew; with "momentum" all of it does.

    Args:
        network: the network.
        optimizer: its optimizer.
        parts: of :data:`RESETS`.
        addition: which addition of classes, 1 or more.

    Raises:
        ValueError: if there is no such part.
    """
    names = dict.fromkeys(name for part in parts for name in parameters_of(network, part))
    seed = torch.tensor([network.seed], device="cpu")
    initialize(network, network.initial_distributions(), seed, names, time=addition)
    parameters = dict(network.named_parameters())
    for name in parameters if "momentum" in parts else names:
        optimizer.state.pop(parameters[name], None)
