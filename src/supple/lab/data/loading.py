"""Labelled images, and data sets of them read into memory by name."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from os import PathLike

import numpy as np
import torch
from torch import Tensor, nn

from supple.lab.data.fetching import check_own_files, obtain
from supple.lab.data.formats import decompress, parse_cifar, parse_idx, read_content
from supple.lab.data.sources import DATA_SETS, data_set

Folder = str | PathLike[str] | None
"""A folder with the files; None: the cache, filled by a download where needed. See `obtain` in fetching.py."""
NAMES = (*DATA_SETS, "mnist10k")
"""The data sets that :func:`load` knows."""


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


def _assemble(images: tuple[str, bytes], labels: tuple[str, bytes], classes: int, name: str) -> LabelledImages:
    """Labelled images of two IDX files, each a pair of where it lies and its uncompressed content."""
    pixels, numbers = parse_idx(images[1], images[0]), parse_idx(labels[1], labels[0])
    for array, shape, (path, _) in ((pixels, "[N, H, W]", images), (numbers, "[N]", labels)):
        if array.dtype != np.uint8 or array.ndim != shape.count(",") + 1:
            raise ValueError(f"{path} holds {array.dtype.name} of shape {array.shape}; it has to be uint8 {shape}")
    if len(pixels) != len(numbers):
        raise ValueError(
            f"{images[0]} holds {len(pixels)} images, but {labels[0]} holds {len(numbers)} labels; give two files that "
            "belong together"
        )
    if len(numbers) and numbers.max() >= classes:
        raise ValueError(
            f"{labels[0]} holds label {numbers.max()}, but {name} has classes={classes}, so labels from 0 to "
            f"{classes - 1}; read_labelled_images takes another number of classes"
        )
    return LabelledImages(torch.from_numpy(pixels), torch.from_numpy(numbers.astype(np.int64)), classes, name)


def read_labelled_images(
    images: str | PathLike[str], labels: str | PathLike[str], *, classes: int, name: str
) -> LabelledImages:
    """Reads a data set of your own from two IDX files, plain or compressed with gzip or xz.

    They hold uint8 [N, H, W] and uint8 [N]; ValueError if a file is damaged or holds something else, or the two do not
    fit together.
    """
    return _assemble((str(images), read_content(images)), (str(labels), read_content(labels)), classes, name)


_COARSE = {"cifar10": (), "cifar100": (20,)}
"""Number of coarse classes that a label byte in front of that of the class counts."""


def _cifar(name: str, data_dir: Folder, train: bool, verify: bool) -> LabelledImages:
    source = data_set(name)
    labels = (*_COARSE[name], source.classes)
    parts = []
    for file in source.digests:
        if file.startswith("test") != train:
            found = obtain(source, file, data_dir, verify=verify)
            place = str(found.path) if found.path.name.startswith(file) else f"{file} in {found.path}"
            parts.append(parse_cifar(found.content, place, labels))
    images, numbers = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return LabelledImages(images, numbers, source.classes, name)


def _mnist_like(name: str, data_dir: Folder, train: bool, verify: bool) -> LabelledImages:
    source, part = data_set(name), "train" if train else "t10k"
    images, labels = (
        obtain(source, f"{part}-{kind}", data_dir, verify=verify) for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
    )
    return _assemble((str(images.path), images.content), (str(labels.path), labels.content), source.classes, name)


def load(name: str, data_dir: Folder = None, train: bool = True, *, verify: bool = True) -> LabelledImages:
    """Reads the training or the test images of a data set, one of :data:`NAMES`; errors as of `obtain` in fetching.py.

    ``verify`` says whether files in ``data_dir`` have to be those of the data set.
    """
    if name != "mnist10k":
        source = data_set(name)
        return (_cifar if name in _COARSE else _mnist_like)(source.name, data_dir, train, verify)
    if not train:
        raise ValueError(
            "mnist10k has no test images: it is a part of MNIST's training images; use mnist for test images"
        )
    if data_dir is not None:
        raise ValueError(
            f"mnist10k is part of supple and is in no folder: leave data_dir out, or read {data_dir} as mnist"
        )
    check_own_files(data_dir, verify)
    return mnist10k()


def mnist10k() -> LabelledImages:
    """The first 10,000 training images of MNIST, which are part of supple: no download."""
    folder = resources.files("supple.lab.data") / "mnist10k"
    images, labels = (
        (f"supple/lab/data/mnist10k/{file}", decompress((folder / file).read_bytes(), file))
        for file in ("images-idx3-ubyte.xz", "labels-idx1-ubyte.xz")
    )
    return _assemble(images, labels, 10, "mnist10k")
