"""Continual ImageNet: in each task a network learns to tell two other classes apart, on images of 32 x 32.

The files are those of the authors' program: a folder with ``0.npy``, ``1.npy`` and so on, an array [images, 3, 32, 32]
a class, of which the first 600 are for training. Each seed has its own order of the classes, and another when all have
come.

Source: Dohare et al., "Loss of plasticity in deep continual learning", Nature 632, 2024, in the form of Kumar, Marklund
and Van Roy, arXiv 2308.11958, section 4.2 and appendix A.1: 500 tasks of 120 steps (10 passes), of which no two have a
class in common, batches of 100, two outputs that are not reset, two convolutions of 16 channels and two layers of 100.
Dohare et al. have 250 passes, classes that come again, outputs that start anew with each task, and a larger network.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from supple.functional import random
from supple.lab.population.problem import Problem
from supple.lab.streams import Shuffled

_ORDER = random.purpose("continual imagenet", "classes")


def make(
    data_dir: str | Path | None = None,
    classes: int = 1000,
    images: int = 600,
    steps: int = 120,
    batch_size: int = 100,
) -> Problem:
    """The problem, with the first so many images of each of so many classes in ``data_dir``.

    ValueError if the folder does not have them.
    """
    if data_dir is None:
        raise ValueError(
            "Continual ImageNet needs its files: give a folder with --data-dir that has 0.npy, 1.npy and so on, an "
            "array [images, 3, 32, 32] a class"
        )
    if classes < 2:
        raise ValueError(f"classes is {classes}; it has to be 2 or more")
    files = [Path(data_dir) / f"{number}.npy" for number in range(classes)]
    for file in files:
        if not file.is_file():
            raise ValueError(f"there is no {file}; the problem has {classes} classes, 0.npy to {classes - 1}.npy")
    return Problem(
        network=lambda seed, hidden=100: convolutions(2, hidden),
        optimizer=lambda parameters, lr=1e-3: torch.optim.Adam(parameters, lr=lr),
        stream=lambda seed: Pairs(files, seed, images, steps, batch_size),
        loss=nn.functional.cross_entropy,
    )


def convolutions(outputs: int, hidden: int) -> nn.Sequential:
    """The network: twice 16 channels of 5 x 5 and a maximum over 2 x 2, and then two layers of hidden units."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(400, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, outputs),
    )  # fmt: skip


def read(file: Path, images: int) -> Tensor:
    """The first images of a class, float32 from 0 to 1 where they are bytes; ValueError if they are no such images."""
    try:
        found = np.load(file, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise ValueError(f"{file} cannot be read as an array ({error})") from error
    if found.shape[1:] != (3, 32, 32) or len(found) < images:
        raise ValueError(f"{file} has shape {found.shape}; it has to be [{images} or more, 3, 32, 32]")
    chosen = torch.from_numpy(np.array(found[:images]))
    return chosen / 255 if chosen.dtype == torch.uint8 else chosen.float()


class Pairs:
    """The tasks of a seed."""

    def __init__(self, files: list[Path], seed: int, images: int, steps: int, batch_size: int) -> None:
        self._files, self._seed, self._images = files, torch.tensor([seed]), images
        self._steps, self._batch_size = steps, batch_size

    def classes(self, task: int) -> list[int]:
        """The two classes of a task, the first of which has label 0."""
        turn, place = divmod(task, len(self._files) // 2)
        order = random.permutation(self._seed, _ORDER, turn, len(self._files))[0]
        return [int(number) for number in order[2 * place : 2 * place + 2]]

    def __getitem__(self, task: int) -> Batches:
        return Batches(self, task)

    def examples(self, task: int) -> tuple[Tensor, Tensor]:
        """The images of a task, with their labels."""
        pixels = torch.cat([read(self._files[number], self._images) for number in self.classes(task)])
        return pixels, torch.arange(2).repeat_interleave(self._images)


class Batches:
    """The batches of a task, whose files are read when the first is asked for."""

    def __init__(self, pairs: Pairs, task: int) -> None:
        self._pairs, self._task = pairs, task

    def __len__(self) -> int:
        return self._pairs._steps

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        pairs = self._pairs
        return iter(Shuffled(pairs.examples(self._task), pairs._batch_size, batches=pairs._steps))
