"""Reading the binary version of CIFAR-10 and CIFAR-100.

A file is a row of records without a header: one byte a label (CIFAR-10: the class; CIFAR-100: the coarse class, then
the fine one), then 3,072 bytes of a 32 x 32 image, all of red, then green, then blue, each row by row (Krizhevsky, "The
CIFAR-10 dataset", section "Binary version").
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_SHAPE = (3, 32, 32)
_PIXELS = 3 * 32 * 32


def parse_cifar(content: bytes, name: str, labels: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The images and labels in the bytes of a file.

    Args:
        content: the bytes.
        name: what the file is called, for errors.
        labels: number of classes that each label byte of a record counts; the last is the one that is taken.

    Returns:
        (images uint8 [N, 3, 32, 32], labels int64 [N]).

    Raises:
        ValueError: if the file is empty, has no whole number of records, or a label is out of range; it names the file.
    """
    length = len(labels) + _PIXELS
    if not content or len(content) % length:
        fault = f"the last has {len(content) % length}" if content else "there is none"
        raise ValueError(
            f"{name} is cut short or not in the binary format of CIFAR-{labels[-1]}: its {len(content)} bytes have to "
            f"be records of {length} bytes, but {fault}; get it again"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, length)
    for column, classes in enumerate(labels):
        worst = int(records[:, column].argmax())
        if records[worst, column] >= classes:
            raise ValueError(
                f"{name} is not in the binary format of CIFAR-{labels[-1]}: byte {column} of record {worst}, a label, "
                f"is {records[worst, column]}, and there are labels from 0 to {classes - 1}"
            )
    images = records[:, len(labels) :].reshape(-1, *_SHAPE).copy()
    return torch.from_numpy(images), torch.from_numpy(records[:, len(labels) - 1].astype(np.int64))
