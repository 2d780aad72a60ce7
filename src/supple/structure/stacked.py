"""Many networks of one kind as one module: what the library knows of a population."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Stacked(torch.nn.Module):
    """A module that is R networks of one kind: every parameter has a leading dimension of R replicas.

    Parameter ``p[r]`` is that of network r, under the same name. Replicas are ordered seed-first: with C settings a
    seed, replica s * C + c has seed s and setting c.

    Args:
        seeds: one seed a replica, int64 [R] or integers; replicas that share a seed start from the same values.

    Attributes:
        replicas: R.
        seeds: int64 [R].
        vmapped: whether the modules inside are those of one network, which compute for all replicas at once within
            ``torch.func.vmap``, or one after the other.
        turn: the replica that they compute for, where it is one after the other, as a list of one; else empty.

    Raises:
        ValueError: if ``seeds`` is empty or not one row of integers.
    """

    seeds: Tensor
    vmapped = False

    def __init__(self, seeds: Sequence[int] | Tensor) -> None:
        super().__init__()
        seeds = torch.as_tensor(seeds)
        if seeds.ndim != 1 or not len(seeds) or seeds.is_floating_point() or seeds.dtype == torch.bool:
            raise ValueError(
                f"seeds is {seeds.dtype} of shape {tuple(seeds.shape)}; give one integer a replica, such as [0, 1, 2]"
            )
        self.replicas = len(seeds)
        self.turn: list[int] = []
        self.register_buffer("seeds", seeds.to(torch.int64, copy=True))
