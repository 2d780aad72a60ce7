"""New values for reinitialized entries, made only where they are needed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from supple.functional.initial import Distribution, sample, sample_at
from supple.functional.sharding import Block


@dataclass(frozen=True)
class Draw:
    """Values drawn from a distribution for a parameter, or the block of it that this process holds.

    An entry's value is a function of its index in the whole parameter, so it does not matter which are asked for.

    Args:
        distribution: what is drawn from.
        seed: int64 [rows], seeds of the replicas.
        purpose: what the numbers are for, from :func:`supple.functional.random.purpose`.
        step: step of the method.
        block: where the entries lie in the whole parameter.
    """

    distribution: Distribution
    seed: Tensor
    purpose: int
    step: int
    block: Block

    def all(self) -> Tensor:
        """Values of all entries, float32 [rows, *block]."""
        if self.block.mesh is None:
            return sample(self.distribution, self.seed, self.purpose, self.step, self.block.whole)
        index = self.block.every_index(self.seed.device)
        seed = self.seed.view(-1, *(1,) * index.ndim)
        return sample_at(self.distribution, seed, self.purpose, self.step, index)

    def at(self, place: tuple[Tensor, ...]) -> Tensor:
        """Values of some entries.

        Args:
            place: (replica, index along each dimension), int64 [M] each.

        Returns:
            float32 [M].
        """
        rows, *along = place
        index = self.block.index(tuple(along)).expand(rows.shape)
        return sample_at(self.distribution, self.seed[rows], self.purpose, self.step, index)


New = Tensor | float | Draw
"""New values of a parameter: a tensor [rows, *block], one number, or a draw."""


def everywhere(new: New, dtype: torch.dtype) -> Tensor | float:
    """New values of all entries.

    Args:
        new: the values.
        dtype: their type, if they are a tensor.

    Returns:
        [rows, *block], or a number.
    """
    values = new.all() if isinstance(new, Draw) else new
    return values.to(dtype) if isinstance(values, Tensor) else values


def at(new: New, place: tuple[Tensor, ...], dtype: torch.dtype) -> Tensor:
    """New values of some entries.

    Args:
        new: the values.
        place: (replica, index along each dimension), int64 [M] each.
        dtype: their type.

    Returns:
        [M].
    """
    if isinstance(new, Draw):
        return new.at(place).to(dtype)
    if isinstance(new, Tensor):
        return new[place].to(dtype)
    return torch.full(place[0].shape, new, dtype=dtype, device=place[0].device)
