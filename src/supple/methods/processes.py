"""Features of hidden units when several processes train one network, each on its part of the batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from supple.functional.sharding import is_sharded
from supple.methods.features import FeatureReader


def data_groups(model: nn.Module, group: Any, reads_features: bool) -> list[Any]:
    """The groups of processes over which the features of a batch have to be summed, one after the other.

    Args:
        model: the network, not wrapped.
        group: the process group of ``DistributedDataParallel`` or the one that was given, or None.
        reads_features: whether features are read at all.

    Returns:
        Process groups; none where one process sees the whole batch.

    Raises:
        ValueError: if the network is sharded in another way than by ``fully_shard``, or several processes run and it is
            not said which of them train this network together.
    """
    sharded = [(name, p) for name, p in model.named_parameters() if is_sharded(p)]
    if sharded:
        from torch.distributed.fsdp import FSDPModule

        name, parameter = sharded[0][0], sharded[0][1]
        divided = [placement for placement in parameter.placements if placement.is_shard()]  # type: ignore[attr-defined]
        if len(divided) > 1 or not any(isinstance(module, FSDPModule) for module in model.modules()):
            raise ValueError(
                f"{name} is placed as {parameter.placements}; hidden units are found "  # type: ignore[attr-defined]
                "where torch.distributed.fsdp.fully_shard divides the parameters, not where tensor parallelism divides "
                "the features too"
            )
        mesh = parameter.device_mesh  # type: ignore[attr-defined]
        return [mesh.get_group(dim) for dim in range(mesh.ndim)]
    if group is not None:
        return [group]
    if reads_features and torch.distributed.is_available() and torch.distributed.is_initialized():
        processes = torch.distributed.get_world_size()
        if processes > 1:
            raise ValueError(
                f"{processes} processes run, each with features of its own part of the batch, so that each would "
                "replace other units. Pass the DistributedDataParallel module as model, or process_group="
                "torch.distributed.group.WORLD (or the group of the processes that train this network together)"
            )
    return []


def share(readers: Iterable[FeatureReader], groups: Sequence[Any], device: torch.device) -> None:
    """Replaces what each reader read by what all processes read together: one small sum for all readers.

    A process that read nothing, as where a layer runs only for some examples, adds zeros, so that all add up numbers of
    the same layers. What no process read stays unread everywhere.

    Args:
        readers: the readers, the same on every process.
        groups: process groups, from :func:`data_groups`.
        device: where the network lies.
    """
    # In double precision: who read nothing does not know in which type the others compute.
    parts, unread = [], []
    for reader in (readers := list(readers)):
        total, examples = reader.take_sum()
        unread.append(total is None)
        sums = torch.zeros(reader.shape) if total is None else total
        parts += [sums.to(device, torch.float64), torch.as_tensor(examples, dtype=torch.float64, device=device)]
    if not parts:
        return
    flat = torch.cat([part.flatten() for part in parts])
    for group in groups:
        torch.distributed.all_reduce(flat, group=group)
    pieces = [piece.view(part.shape) for piece, part in zip(flat.split([p.numel() for p in parts]), parts, strict=True)]
    for reader, alone, total, examples in zip(readers, unread, pieces[::2], pieces[1::2], strict=True):
        # Only who read nothing has to look, and wait for the device, to learn whether others did.
        if not alone or examples > 0:
            reader.put_sum(total, examples)
