"""Labelled images: what a data set is once it is read."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Grey or colour images, each with the number of its class.

    Images are uint8 [N, H, W], or [N, C, H, W] with C colours, brightness from 0 to 255; labels int64 [N],
    0 <= label < classes. The name is for errors and results.
    """

    images: Tensor
    labels: Tensor
    classes: int
    name: str

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.labels.dtype != torch.int64:
            raise TypeError(
                f"{self.name}: images have element type {self.images.dtype} and labels {self.labels.dtype}; they have "
                "to be torch.uint8 and torch.int64"
            )
        if self.images.ndim not in (3, 4) or self.labels.ndim != 1:
            raise ValueError(
                f"{self.name}: images have shape {tuple(self.images.shape)} and labels {tuple(self.labels.shape)}; "
                "they have to be [N, H, W] or [N, C, H, W], and [N]"
            )
        if len(self.images) != len(self.labels):
            raise ValueError(f"{self.name}: {len(self.images)} images but {len(self.labels)} labels")
        if len(self.labels) and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < self.classes:
            raise ValueError(
                f"{self.name}: labels go from {int(self.labels.min())} to {int(self.labels.max())}, but with "
                f"classes={self.classes} they have to lie from 0 to {self.classes - 1}"
            )

    def first_of_each_class(self, count: int) -> LabelledImages:
        """The first images of each class, in their order; of a class with fewer all of them."""
        which = nn.functional.one_hot(self.labels, self.classes).cumsum(dim=0)
        chosen = which.gather(1, self.labels[:, None])[:, 0] <= count
        return LabelledImages(self.images[chosen], self.labels[chosen], self.classes, self.name)

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        size = " x ".join(map(str, self.images.shape[1:]))
        return f"LabelledImages({self.name}: {len(self)} images of {size}, {self.classes} classes)"
