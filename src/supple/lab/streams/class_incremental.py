"""Class-incremental images: a stream that begins with a few classes and adds more, until all have come.

The order of the classes, the order of the images in each epoch and their augmentation are functions of the seed, so
there is no state: a run resumes by asking for the epoch it had come to.

Source: Hernandez-Garcia, Dohare, Luo and Sutton, "Reinitializing weights vs units for maintaining plasticity in neural
networks", arXiv 2508.00212; the problem is that of Dohare et al., "Loss of plasticity in deep continual learning",
Nature 632, 2024.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from supple.functional import random
from supple.lab.data.augmentation import CIFAR100_MEAN, CIFAR100_STD, Augmentation, channel_statistics
from supple.lab.data.loading import LabelledImages

_CLASSES = random.purpose("class incremental", "classes")
_EXAMPLES = random.purpose("class incremental", "examples")
_MEASURED = random.purpose("class incremental", "measured")


@dataclass(frozen=True, eq=False)
class Part:
    """Images for one purpose (training, validation or test), sorted by the arrival of their class.

    Args:
        images: uint8 [N, C, H, W]; in each class in the order of the data set.
        labels: int64 [N], the place of each image's class in the order of arrival.
        ends: for each class, the number of images of this class and all that arrive before it.
    """

    images: Tensor
    labels: Tensor
    ends: tuple[int, ...]

    def of(self, start: int, stop: int) -> Part:
        """The images of classes ``start`` to below ``stop`` in order of arrival; views, no copies."""
        first = self.ends[start - 1] if start else 0
        last = self.ends[stop - 1] if stop else 0
        ends = tuple(end - first for end in self.ends[start:stop])
        return Part(self.images[first:last], self.labels[first:last], ends)

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Epoch:
    """One pass over the training images of the classes seen so far, in a new random order, newly augmented.

    ``len`` is its number of steps, and iterating gives its batches.

    ``order``, int64 [N], is that in which they come, and ``numbers``, float32 [N, 4], are those of their augmentation.
    """

    part: Part
    order: Tensor
    numbers: Tensor
    augmentation: Augmentation
    batch_size: int

    @property
    def classes(self) -> int:
        """Number of classes seen so far."""
        return len(self.part.ends)

    def __len__(self) -> int:
        return len(self.order) // self.batch_size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return (self.batch(index) for index in range(len(self)))

    def batch(self, index: int) -> tuple[Tensor, Tensor]:
        """One batch: x float32 [B, C, H, W], augmented and normalized; y int64 [B], classes in order of arrival."""
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} of an epoch of {len(self)}; batches go from 0 to {len(self) - 1}")
        chosen = self.order.narrow(0, index * self.batch_size, self.batch_size)
        images, labels = (tensor.index_select(0, chosen) for tensor in (self.part.images, self.part.labels))
        return self.augmentation(images, self.numbers.index_select(0, chosen)), labels


class ClassIncrementalStream:
    """Classes of a labelled image set that come a few at a time, in an order drawn by the seed.

    There are ``first`` classes at first and ``step`` more at each addition, with ``epochs`` epochs for each; the last
    addition brings what is left. Labels are places in the order of arrival, so the classes seen so far are always the
    first k, and so are the outputs of a network that they need.

    The first ``validation`` training images of each class, in the order of the data set, are kept for validation. All
    images lie on the device once, one byte a colour and pixel (184 MB for CIFAR-100). A batch is made when asked for; a
    last incomplete batch of an epoch is dropped.

    ``augmentation`` is by default that of the study, with its mean and standard deviation for CIFAR-100 and those of
    the training images for others.

    ``order``, int64 [classes] on the CPU, are the data set's numbers of the classes in order of arrival.

    Example:
        >>> from supple.lab.data import LabelledImages
        >>> pictures = LabelledImages(torch.arange(40 * 64).view(40, 8, 8).byte(), torch.arange(40) % 4, 4, "toy")
        >>> stream = ClassIncrementalStream(pictures, pictures, first=2, step=2, epochs=3, validation=1, batch_size=6)
        >>> [stream.classes(epoch) for epoch in range(stream.epochs)]
        [2, 2, 2, 4, 4, 4]
        >>> for x, y in stream.epoch(0):  # [6, 1, 8, 8] and [6]
        ...     pass
    """

    def __init__(
        self,
        train: LabelledImages,
        test: LabelledImages,
        seed: int = 0,
        *,
        first: int = 5,
        step: int = 5,
        epochs: int = 100,
        classes: int | None = None,
        validation: int = 50,
        batch_size: int = 90,
        augmentation: Augmentation | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        total = train.classes if classes is None else classes
        if train.classes != test.classes or train.images.shape[1:] != test.images.shape[1:]:
            raise ValueError(f"{train!r} for training and {test!r} for test do not belong together")
        for name, value in (("step", step), ("epochs", epochs), ("validation", validation)):
            if value < 1:
                raise ValueError(f"{name} is {value}; it has to be 1 or more")
        if not 1 <= first <= total <= train.classes:
            raise ValueError(
                f"first is {first} and classes {total}; the data set has {train.classes} classes, so first has to be "
                f"from 1 to classes, and classes not above {train.classes}"
            )
        self.name, self.seed, self.batch_size = train.name, seed, batch_size
        self.epochs_each = epochs
        self.sizes = (*range(first, total, step), total)
        self._seed = torch.tensor([seed], device=device)
        self.order = random.permutation(torch.tensor([seed], device="cpu"), _CLASSES, 0, train.classes)[0, :total]
        self.training = _part(train, self.order, validation, None, "for training", device)
        self.validation = _part(train, self.order, 0, validation, "for validation", device)
        self.test = _part(test, self.order, 0, None, "for test", device)
        if not 1 <= batch_size <= self.training.ends[first - 1]:
            raise ValueError(
                f"batch_size is {batch_size}, but the first {first} classes of {self.name} have "
                f"{self.training.ends[first - 1]} images for training, so it has to be from 1 to as many"
            )
        if augmentation is None:
            normalization = (CIFAR100_MEAN, CIFAR100_STD) if train.name == "cifar100" else None
            augmentation = Augmentation(*(normalization or channel_statistics(self.training.images)))
        self.augmentation = augmentation

    @property
    def epochs(self) -> int:
        """Number of epochs in all."""
        return len(self.sizes) * self.epochs_each

    def addition(self, epoch: int) -> int:
        """Which addition an epoch belongs to; 0 for the first classes."""
        if not 0 <= epoch < self.epochs:
            raise IndexError(f"epoch {epoch} of a stream of {self.epochs}; epochs go from 0 to {self.epochs - 1}")
        return epoch // self.epochs_each

    def classes(self, epoch: int) -> int:
        """How many classes have been seen in an epoch."""
        return self.sizes[self.addition(epoch)]

    def steps(self, epoch: int) -> int:
        """Number of batches of an epoch, floor(N / B) with N the training images of the classes seen so far."""
        return self.training.ends[self.classes(epoch) - 1] // self.batch_size

    def epoch(self, index: int) -> Epoch:
        """The epoch of an index, 0 <= index < ``epochs``."""
        part = self.training.of(0, self.classes(index))
        return Epoch(
            part,
            order=random.permutation(self._seed, _EXAMPLES, index, len(part))[0],
            numbers=self.augmentation.numbers(self._seed, index, len(part)),
            augmentation=self.augmentation,
            batch_size=self.batch_size,
        )

    def examples(self, addition: int, count: int, *, new: bool) -> Tensor:
        """At most ``count`` training images without augmentation, chosen at random, for measuring a network on them.

        They are of the classes that an addition brings, or else of those before it: float32 [count, C, H, W].
        """
        before = self.sizes[addition - 1] if addition else 0
        part = self.training.of(before, self.sizes[addition]) if new else self.training.of(0, before)
        chosen = random.permutation(self._seed, _MEASURED, 2 * addition + new, len(part))[0, :count]
        return self.augmentation.normalize(part.images.index_select(0, chosen))

    def __repr__(self) -> str:
        return (
            f"ClassIncrementalStream({self.name}, seed={self.seed}, classes={'-'.join(map(str, self.sizes))}, "
            f"{self.epochs_each} epochs each, batch_size={self.batch_size}, device={self._seed.device})"
        )


def _part(
    images: LabelledImages, order: Tensor, start: int, stop: int | None, purpose: str, device: torch.device | str
) -> Part:
    """Images ``start`` to ``stop`` of each class, the classes in the given order."""
    chosen = []
    for label in order.tolist():
        chosen.append((images.labels == label).nonzero().squeeze(1)[start:stop])
        if not len(chosen[-1]):
            raise ValueError(f"{images.name}: class {label} has no images left {purpose}; keep fewer for validation")
    sizes = [len(some) for some in chosen]
    pixels = images.images if images.images.ndim == 4 else images.images.unsqueeze(1)
    labels = torch.arange(len(order)).repeat_interleave(torch.tensor(sizes))
    return Part(pixels[torch.cat(chosen)].to(device), labels.to(device), tuple(accumulate(sizes)))
