"""Warm start: a network that has learned a part of the data goes on with more of it, and generalizes worse than one
that had all of it from the start.

Each task adds images to those before. Accuracy is that on the test images at the end of a task. The method
``layer_reset`` with ``layers = 0`` and a fresh optimizer trains each task from scratch; plain training goes on with the
optimizer as it is, where the authors' makes a new one.

Source: Ash and Adams, "On warm-starting neural network training", NeurIPS 2020. Network and data are ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from supple.functional import random
from supple.lab import data
from supple.lab.nn import MLP
from supple.lab.population.problem import Problem
from supple.lab.streams import Shuffled, Task

_IMAGES = random.purpose("warm start", "images")


def make(
    name: str = "mnist10k",
    first: float = 0.1,
    step: float = 0.9,
    passes: int = 30,
    batch_size: int = 64,
    images: int = 0,
    data_dir: Path | None = None,
    verify: bool = True,
) -> Problem:
    """The problem: tasks with the share ``first`` of the training images, and ``step`` more each; ``images``: of so
    many training images, 0 of all. Of mnist10k, which has no test images, every tenth is one.
    """
    train = data.load(name, data_dir, verify=verify)
    pixels, labels = train.images.flatten(1), train.labels
    if name == "mnist10k":
        kept = torch.arange(len(labels)) % 10 != 0
        test = pixels[~kept], labels[~kept]
        pixels, labels = pixels[kept], labels[kept]
    else:
        other = data.load(name, data_dir, train=False, verify=verify)
        test = other.images.flatten(1), other.labels
    count = images or len(labels)
    if not (0 < first <= 1 and step > 0 and 0 < count <= len(labels)):
        raise ValueError(
            f"first is {first}, step {step} and images {images}; first has to be above 0 and at most 1, step above 0, "
            f"and images at most the {len(labels)} that there are"
        )
    return Problem(
        network=lambda seed, hidden=100, depth=2: MLP(pixels.shape[1], hidden, train.classes, depth, seed=seed),
        optimizer=lambda parameters, lr=1e-3: torch.optim.Adam(parameters, lr=lr),
        stream=lambda seed: Growing((pixels, labels), test, seed, count, (first, step), batch_size, passes),
        loss=nn.functional.cross_entropy,
    )


class Growing:
    """The tasks of a seed, each with more of the images, which come in the seed's order."""

    def __init__(
        self,
        train: tuple[Tensor, Tensor],
        test: tuple[Tensor, Tensor],
        seed: int,
        count: int,
        shares: Sequence[float],
        batch_size: int,
        passes: int,
    ) -> None:
        order = random.permutation(torch.tensor([seed]), _IMAGES, 0, len(train[1]))[0, :count]
        self._pixels, self._labels = train[0][order], train[1][order]
        self._test = DataLoader(TensorDataset(test[0] / 255, test[1]), batch_size=1000)
        self._first, self._step = shares
        self._batch_size, self._passes = batch_size, passes

    def __len__(self) -> int:
        return 1 + math.ceil((1 - self._first) / self._step - 1e-9)

    def __getitem__(self, task: int) -> Task:
        if not 0 <= task < len(self):
            raise IndexError(task)
        count = round(min(1.0, self._first + task * self._step) * len(self._labels))
        learned = Shuffled((self._pixels[:count] / 255, self._labels[:count]), self._batch_size, self._passes)
        return Task(learned, self._test)
