"""Tensors of which each process holds a block: where the block lies, and what needs all of them.

A sharded tensor is a :class:`torch.distributed.tensor.DTensor`, as ``torch.distributed.fsdp.fully_shard`` makes them.
Everything here takes ordinary tensors too: their block is the whole, and nothing is communicated.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


def is_sharded(tensor: Tensor) -> bool:
    """Whether a tensor is a DTensor, also one of which every process holds everything.

    Args:
        tensor: any tensor.

    Returns:
        True or False.
    """
    # Where nobody has imported the module there are no such tensors, and importing it takes a second.
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def local(tensor: Tensor) -> Tensor:
    """The block of a tensor that this process holds; writing into it writes into the tensor.

    Args:
        tensor: any tensor.

    Returns:
        The block, detached; the tensor itself, detached, if it is not sharded.
    """
    return tensor.to_local().detach() if is_sharded(tensor) else tensor.detach()  # type: ignore[attr-defined]


def gathered(tensor: Tensor) -> Tensor:
    """The whole of a tensor on every process; every process has to ask.

    Args:
        tensor: any tensor.

    Returns:
        A new tensor; the tensor itself, detached, if it is not sharded.
    """
    return tensor.detach().full_tensor() if is_sharded(tensor) else tensor.detach()  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Block:
    """Where in a whole tensor the block lies that this process holds.

    Args:
        whole: shape of the whole tensor.
        shape: shape of the block.
        offset: index of the block's first entry along each dimension.
        mesh: the devices that hold the blocks (a ``DeviceMesh``), or None where this process holds everything.
        placements: how the tensor is divided along each dimension of the mesh.
    """

    whole: torch.Size
    shape: torch.Size
    offset: tuple[int, ...]
    mesh: Any = None
    placements: tuple[Any, ...] = ()

    @property
    def first(self) -> int | None:
        """Row-major index in the whole tensor of the block's first entry, if the others follow it; else None."""
        if self.shape[1:] != self.whole[1:]:
            return None
        return self.offset[0] * self.whole[1:].numel() if self.whole else 0

    def index(self, place: tuple[Tensor, ...]) -> Tensor:
        """Row-major index in the whole tensor of entries of the block.

        Args:
            place: for each dimension, the entries' indices in the block; int64 tensors that broadcast together.

        Returns:
            int64 of the broadcast shape.
        """
        total, stride = torch.zeros((), dtype=torch.int64, device=place[0].device if place else None), 1
        for size, first, along in zip(reversed(self.whole), reversed(self.offset), reversed(place), strict=True):
            total = total + (along + first) * stride
            stride *= size
        return total

    def every_index(self, device: torch.device) -> Tensor:
        """Row-major index in the whole tensor of every entry of the block.

        Args:
            device: where the result lies.

        Returns:
            int64 of the block's shape.
        """
        along = [torch.arange(size, device=device) for size in self.shape]
        return (
            self.index(torch.meshgrid(*along, indexing="ij"))
            if along
            else torch.zeros((), dtype=torch.int64, device=device)
        )

    def of(self, whole: Tensor, leading: int = 0) -> Tensor:
        """The block of a whole tensor.

        Args:
            whole: the whole tensor, with ``leading`` dimensions in front that are not divided.
            leading: number of such dimensions.

        Returns:
            A view.
        """
        for dim, (first, size) in enumerate(zip(self.offset, self.shape, strict=True)):
            whole = whole.narrow(dim + leading, first, size)
        return whole

    def join(self, block: Tensor) -> Tensor:
        """The tensor made of everybody's blocks.

        Args:
            block: this process' block, with one dimension in front that is not divided.

        Returns:
            A sharded tensor; the block itself where this process holds everything.
        """
        if self.mesh is None:
            return block
        from torch.distributed.tensor import DTensor, Shard

        placements = [Shard(p.dim + 1) if p.is_shard() else p for p in self.placements]
        shape = torch.Size((block.shape[0], *self.whole))
        stride = torch.empty(shape, device="meta").stride()
        return DTensor.from_local(
            block.contiguous(), self.mesh, placements, run_check=False, shape=shape, stride=stride
        )

    def split(self, saved: Tensor) -> Tensor:
        """This process' block of what :meth:`join` made, on this mesh or another or in one process.

        Args:
            saved: the tensor, whole or sharded, with one dimension in front that is not divided.

        Returns:
            The block.

        Raises:
            ValueError: if it is of another shape.
        """
        if saved.shape[1:] != self.whole:
            raise ValueError(f"the state has a tensor of shape {tuple(saved.shape[1:])}, not {tuple(self.whole)}")
        return self.of(gathered(saved), leading=1)

    def total(self, sums: Tensor) -> Tensor:
        """The sum over all blocks.

        Args:
            sums: what this process' block adds up to, any shape.

        Returns:
            Same shape, the same on every process.
        """
        if self.mesh is None:
            return sums
        from torch.distributed.tensor import DTensor, Partial, Replicate

        placements = [Partial() if p.is_shard() else Replicate() for p in self.placements]
        return DTensor.from_local(sums, self.mesh, placements, run_check=False).full_tensor()


def block_of(tensor: Tensor) -> Block:
    """Where the block lies that this process holds of a tensor.

    Args:
        tensor: any tensor.

    Returns:
        The block.

    Raises:
        ValueError: if the tensor is divided otherwise than in blocks, or is a sum that has not been carried out.
    """
    if not is_sharded(tensor):
        return Block(tensor.shape, tensor.shape, (0,) * tensor.ndim)
    sharded: Any = tensor
    mesh, shape, offset = sharded.device_mesh, list(tensor.shape), [0] * tensor.ndim
    for along, placement in enumerate(sharded.placements):
        if placement.is_replicate():
            continue
        if not hasattr(placement, "dim") or type(placement).__name__ != "Shard":
            raise ValueError(
                f"it is placed as {sharded.placements}; only blocks (Shard) and copies (Replicate) are known"
            )
        # The blocks are those of torch.chunk: equal ones, the last ones shorter or empty.
        size = -(-shape[placement.dim] // mesh.size(along))
        start = min(mesh.get_local_rank(along) * size, shape[placement.dim])
        offset[placement.dim] += start
        shape[placement.dim] = min(size, shape[placement.dim] - start)
    return Block(tensor.shape, torch.Size(shape), tuple(offset), mesh, tuple(sharded.placements))


@contextmanager
def opened(tensors: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Gathers sharded tensors for a time; what is written into the whole ones ends up in everybody's blocks.

    Args:
        tensors: sharded tensors by name, the same on every process.

    Yields:
        The whole tensors by name; every process has to write the same into them.
    """
    whole = {name: gathered(tensors[name]) for name in sorted(tensors)}
    yield whole
    for name, tensor in tensors.items():
        local(tensor).copy_(block_of(tensor).of(whole[name]))
