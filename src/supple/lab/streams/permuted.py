"""Permuted images: a stream of tasks, each with its own order of the pixels.

Task k of a seed has a new uniformly random permutation of the pixels, and gives every image once in a new random order.
Both are functions of (seed, k), so there is no state: a run resumes by asking for the batch it had come to. With the
60,000 training images of MNIST in batches of 30 a task has 2,000 steps.

Source: Hernandez-Garcia, Dohare, Luo and Sutton, "Reinitializing weights vs units for maintaining plasticity in neural
networks", arXiv 2508.00212; the problem is that of Dohare et al., "Loss of plasticity in deep continual learning",
Nature 632, 2024.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from supple.functional import random
from supple.lab.data.loading import LabelledImages

_PIXELS = random.purpose("permuted", "pixels")
_EXAMPLES = random.purpose("permuted", "examples")


@dataclass(frozen=True, eq=False)
class Task:
    """One task of a stream, for S seeds at once; ``len`` is its number of steps, and iterating gives its batches.

    Pixel j of a permuted image is pixel ``pixels[s, j]`` of the image.

    Args:
        images: uint8 [N, H*W], shared by all tasks of a stream.
        labels: int64 [N].
        pixels: int64 [S, H*W], each row a permutation.
        order: int64 [S, N], each row the order in which a seed sees the images.
        white: the brightness that becomes 1, in the element type of the batches; a tensor without dimensions.
        batch_size: images a batch, B.
    """

    images: Tensor
    labels: Tensor
    pixels: Tensor
    order: Tensor
    white: Tensor
    batch_size: int

    @property
    def steps(self) -> int:
        """Number of batches, floor(N / B): a last incomplete batch is dropped."""
        return self.order.shape[1] // self.batch_size

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return (self.batch(index) for index in range(self.steps))

    def batch(self, index: int) -> tuple[Tensor, Tensor]:
        """One batch of each seed: x [S, B, H*W], brightness from 0 to 1, and labels y int64 [S, B]."""
        if not 0 <= index < self.steps:
            raise IndexError(f"batch {index} of a task of {self.steps} steps; batches go from 0 to {self.steps - 1}")
        return self._gather(self.order.narrow(1, index * self.batch_size, self.batch_size))

    def examples(self, count: int) -> tuple[Tensor, Tensor]:
        """The first images of the task, for measuring a network on them; as :meth:`batch`, [S, count, ...]."""
        if not 0 < count <= self.order.shape[1]:
            raise ValueError(f"{count} examples of a task of {self.order.shape[1]} images; ask for 1 to as many")
        return self._gather(self.order.narrow(1, 0, count))

    def _gather(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Images and labels of given numbers, int64 [S, count]."""
        flat = chosen.reshape(-1)
        # Permuting bytes is quicker than permuting floats, and gather, whose index is a view, than indexing.
        x = self.images.index_select(0, flat).view(*chosen.shape, -1)
        x = x.gather(2, self.pixels.unsqueeze(1).expand_as(x))
        return x.to(self.white.dtype).div_(self.white), self.labels.index_select(0, flat).view(chosen.shape)


class PermutedStream:
    """Permuted images for S seeds at once; what a seed sees does not depend on the other seeds.

    The images lie on the device once, one byte a pixel (47 MB for MNIST). A task adds for each seed 8 bytes a pixel and
    8 bytes an image (0.5 MB for MNIST), and while it is made some three times that. A batch is made when asked for.

    ``seeds`` are 64-bit integers, a sequence or an int64 tensor [S]; ``dtype`` is that of the batches.

    Example:
        >>> stream = PermutedStream(supple.lab.data.mnist10k(), seeds=[0, 1])
        >>> for x, y in stream.task(0):  # [2, 30, 784] and [2, 30]
        ...     pass
    """

    def __init__(
        self,
        images: LabelledImages,
        seeds: Sequence[int] | Tensor,
        batch_size: int = 30,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.seeds = _as_seeds(seeds).to(device)
        if not 1 <= batch_size <= len(images):
            raise ValueError(
                f"batch_size is {batch_size}, but {images.name} has {len(images)} images, so it has to be from 1 to "
                f"{len(images)}"
            )
        if not dtype.is_floating_point:
            raise TypeError(
                f"dtype is {dtype}, but brightness from 0 to 1 needs a floating-point type like torch.float32"
            )
        self.name = images.name
        self.classes = images.classes
        self.images = images.images.to(device).flatten(1)
        self.labels = images.labels.to(device)
        # Division by a number may be a multiplication by its inverse on a GPU; by a tensor it rounds alike everywhere.
        self.white = torch.tensor(255, dtype=dtype, device=device)
        self.batch_size = batch_size

    @property
    def steps(self) -> int:
        """Number of batches a task, floor(N / B)."""
        return len(self.images) // self.batch_size

    @property
    def features(self) -> int:
        """Number of pixels, H*W: what a network takes in."""
        return self.images.shape[1]

    def task(self, index: int) -> Task:
        """The task of an index from 0 to below 2**32."""
        return Task(
            self.images,
            self.labels,
            pixels=random.permutation(self.seeds, _PIXELS, index, self.features),
            order=random.permutation(self.seeds, _EXAMPLES, index, len(self.images)),
            white=self.white,
            batch_size=self.batch_size,
        )

    def __repr__(self) -> str:
        return (
            f"PermutedStream({self.name}, {len(self.seeds)} seeds, batch_size={self.batch_size}, "
            f"steps={self.steps} a task, device={self.seeds.device}, dtype={self.white.dtype})"
        )


def _as_seeds(seeds: Sequence[int] | Tensor) -> Tensor:
    """Seeds as an int64 tensor [S]."""
    given = seeds if isinstance(seeds, Tensor) else list(seeds)
    if len(given) == 0:
        raise ValueError("seeds is empty; a stream needs one integer for each network, such as seeds=[0, 1, 2]")
    tensor = torch.as_tensor(given)
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool or tensor.ndim != 1:
        raise TypeError(
            f"seeds has element type {tensor.dtype} and shape {tuple(tensor.shape)}; it has to be integers [S]"
        )
    return tensor.to(torch.int64)
