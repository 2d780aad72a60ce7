"""What people wrap around a network before they train it, and the network inside."""

from __future__ import annotations

import gc
import sys
from typing import Any

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


def is_compiled(model: nn.Module) -> bool:
    """Whether ``torch.compile`` was used on a network or a part of it; for messages, since it goes through all objects.

    Args:
        model: the network.

    Returns:
        True or False.
    """
    dynamo = sys.modules.get("torch._dynamo")
    modules = {id(module): module for module in model.modules()}
    if dynamo is None or any(getattr(m, "_compiled_call_impl", None) is not None for m in modules.values()):
        return dynamo is not None
    kind = dynamo.OptimizedModule
    return any(issubclass(type(one), kind) and id(one._orig_mod) in modules for one in gc.get_objects())
