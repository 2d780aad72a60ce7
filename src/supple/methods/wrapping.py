"""What people wrap around a network before they train it, and the network inside."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def unwrapped(model: nn.Module) -> tuple[nn.Module, Any]:
    """The network inside of what ``torch.compile`` and ``DistributedDataParallel`` make of it.

    They hold the network itself, whose parameters and modules they use, so a method acts on it in the same way, and its
    random numbers, which depend on the names of parameters, are the same with and without them.

    Args:
        model: the network, wrapped or not.

    Returns:
        (network, process group of the innermost ``DistributedDataParallel``, or None).

    Raises:
        ValueError: if it is wrapped in ``FullyShardedDataParallel``, which hides the parameters.
    """
    group = None
    while True:
        kinds = {kind.__name__ for kind in type(model).__mro__}
        if "FullyShardedDataParallel" in kinds:
            raise ValueError(
                "model is a FullyShardedDataParallel, which flattens parameters into one; use "
                "torch.distributed.fsdp.fully_shard, which keeps them"
            )
        if isinstance(getattr(model, "_orig_mod", None), nn.Module):
            model = model._orig_mod  # type: ignore[assignment]
        elif isinstance(model, nn.parallel.DistributedDataParallel):
            model, group = model.module, model.process_group
        else:
            return model, group


def unwrapped_optimizer(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimizer inside of what a trainer makes of it.

    Accelerate and Lightning wrap optimizers in classes that keep the real one in an attribute ``optimizer``.

    Args:
        optimizer: the optimizer, wrapped or not.

    Returns:
        The innermost optimizer.
    """
    while isinstance(inner := getattr(optimizer, "optimizer", None), torch.optim.Optimizer):
        optimizer = inner
    return optimizer
