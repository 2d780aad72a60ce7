"""Random flips, crops and rotations of a batch of images, on the device where the images are.

All three only move pixels, so together they are one table of where each pixel comes from, and one gather.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from supple.functional import random

_PURPOSE = random.purpose("augmentation")


@dataclass(frozen=True)
class Augmentation:
    """Normalization of images, and random changes for training.

    In this order: brightness from 0 to 1 is normalized by colour; the image is flipped left to right with probability
    ``flip``; it is padded on all sides by reflection and cropped to its size at a uniformly random place; it is rotated
    counterclockwise around its middle by an angle uniform between two bounds, where each pixel takes the value of the
    nearest, and 0, the mean colour, where there is none.

    These are, one after the other, ``Normalize``, ``RandomHorizontalFlip``, ``RandomCrop(padding_mode="reflect")`` and
    ``RandomRotation`` of torchvision, with other random numbers.

    ``mean`` and ``std`` are of brightness from 0 to 1, a number a colour; ``degrees`` are the bounds of the angle.

    Example:
        >>> augmentation = Augmentation(mean=(0.5,), std=(0.5,))
        >>> images = torch.zeros(6, 1, 8, 8, dtype=torch.uint8)
        >>> numbers = augmentation.numbers(torch.tensor([7]), epoch=0, count=6)
        >>> augmentation(images, numbers).shape
        torch.Size([6, 1, 8, 8])

    Source of the settings: Hernandez-Garcia, Dohare, Luo and Sutton, arXiv 2508.00212.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: float = 0.5
    padding: int = 4
    degrees: tuple[float, float] = (0.0, 15.0)

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not all(std > 0 for std in self.std):
            raise ValueError(
                f"mean is {self.mean} and std {self.std}; they have to be a number a colour, those of std above 0"
            )
        if not 0 <= self.flip <= 1:
            raise ValueError(f"flip is {self.flip}; it is a probability, from 0 to 1")
        if self.padding < 0:
            raise ValueError(f"padding is {self.padding}; it has to be 0 or more")
        if not self.degrees[0] <= self.degrees[1]:
            raise ValueError(f"degrees is {self.degrees}; the first bound may not be above the second")

    def numbers(self, seed: Tensor, epoch: int, count: int) -> Tensor:
        """The random numbers of an epoch (0 <= epoch < 2**32): a function of (seed, epoch, number of the image).

        From int64 [1] to float32 [count, 4] in (0, 1): for flip, top and left of the crop, and angle of each image.
        """
        return random.uniform(seed, _PURPOSE, epoch, 4 * count).view(count, 4)

    def normalize(self, images: Tensor) -> Tensor:
        """Images without random changes, from uint8 to float32 [B, C, H, W]."""
        if images.shape[1] != len(self.mean):
            raise ValueError(f"images have {images.shape[1]} colours, but the augmentation has {len(self.mean)} means")
        scale = [1 / (255 * std) for std in self.std]
        shift = [-mean / std for mean, std in zip(self.mean, self.std, strict=True)]
        return torch.addcmul(_by_colour(shift, images), images.float(), _by_colour(scale, images))

    def __call__(self, images: Tensor, numbers: Tensor) -> Tensor:
        """Changed and normalized images, from uint8 to float32 [B, C, H, W], with :meth:`numbers` [B, 4]."""
        height, width = images.shape[-2:]
        if self.padding >= min(height, width):
            raise ValueError(f"padding is {self.padding}; images of {height} x {width} can be padded by fewer pixels")
        row, column, inside = self._rotated(height, width, numbers[:, 3])
        top, left = (numbers[:, 1:3] * (2 * self.padding + 1)).long().unbind(dim=1)
        row = _reflected(row + top[:, None, None] - self.padding, height)
        column = _reflected(column + left[:, None, None] - self.padding, width)
        flipped = (numbers[:, 0] < self.flip)[:, None, None]
        column = torch.where(flipped, width - 1 - column, column)
        place = (row * width + column).flatten(1).unsqueeze(1).expand(-1, images.shape[1], -1)
        moved = images.flatten(2).gather(2, place).view(images.shape)
        return self.normalize(moved) * inside.unsqueeze(1)

    def _rotated(self, height: int, width: int, numbers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Where each pixel of B rotated images comes from: row, column, and whether there is one, each [B, H, W]."""
        low, high = self.degrees
        # In float64, so that the nearest pixel is the same on every device.
        angle = torch.deg2rad(low + (high - low) * numbers.double())[:, None, None]
        sine, cosine = angle.sin(), angle.cos()
        middle_y, middle_x = (height - 1) / 2, (width - 1) / 2
        y = torch.arange(height, device=numbers.device, dtype=torch.float64)[:, None] - middle_y
        x = torch.arange(width, device=numbers.device, dtype=torch.float64) - middle_x
        # Rows are counted from above, so a counterclockwise turn brings up what lies below on the right.
        row = (sine * x + cosine * y + middle_y).round().long()
        column = (cosine * x - sine * y + middle_x).round().long()
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        return row.clamp(0, height - 1), column.clamp(0, width - 1), inside


def _by_colour(values: list[float], images: Tensor) -> Tensor:
    """One number a colour, [C, 1, 1]; filled on the device, since a copy from the host would be waited for."""
    return torch.stack([torch.full((1, 1), value, device=images.device) for value in values])


def _reflected(index: Tensor, size: int) -> Tensor:
    """What stands at an index of a row padded by reflection: -1 is 1, and size is size - 2."""
    last = size - 1
    return last - (last - index.abs()).abs()


def channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of brightness from 0 to 1, a number a colour, of uint8 images [N, C, H, W]."""
    # Counting the 256 values takes far less memory than a floating-point copy of all images.
    counts = torch.stack([images[:, colour].flatten().bincount(minlength=256) for colour in range(images.shape[1])])
    shares = counts.double() / counts.sum(dim=1, keepdim=True)
    values = torch.arange(256, device=images.device, dtype=torch.float64) / 255
    mean = shares @ values
    variance = (shares * (values - mean[:, None]) ** 2).sum(dim=1)
    return tuple(mean.tolist()), tuple(variance.sqrt().tolist())


CIFAR100_MEAN, CIFAR100_STD = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
"""What the study normalizes CIFAR-100 with."""
