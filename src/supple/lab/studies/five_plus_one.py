"""5+1 CIFAR-100: tasks with five new classes and tasks with a single one take turns.

In a task of one class a network learns to give one answer whatever it sees, and then has to tell five classes apart.

Source: Kumar, Marklund and Van Roy, "Maintaining plasticity in continual learning via regenerative regularization",
CoLLAs 2024, and its program: 625 steps a task, batches of 16, an output for each of the 100 classes. The network is
that of Continual ImageNet.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from supple.functional import random
from supple.lab import data
from supple.lab.population.problem import Problem
from supple.lab.streams import Shuffled
from supple.lab.studies.continual_imagenet import convolutions

_ORDER = random.purpose("5+1", "classes")


def make(
    hard: int = 5,
    easy: int = 1,
    steps: int = 625,
    batch_size: int = 16,
    data_dir: Path | None = None,
    verify: bool = True,
) -> Problem:
    """The problem, with so many classes in hard and in easy tasks."""
    source = data.load("cifar100", data_dir, verify=verify)
    return Problem(
        network=lambda seed, hidden=100: convolutions(source.classes, hidden),
        optimizer=lambda parameters, lr=1e-3: torch.optim.Adam(parameters, lr=lr),
        stream=lambda seed: HardAndEasy(source.images, source.labels, seed, (hard, easy), steps, batch_size),
        loss=nn.functional.cross_entropy,
    )


class HardAndEasy:
    """The tasks of a seed: as many as there are new classes for."""

    def __init__(
        self, images: Tensor, labels: Tensor, seed: int, sizes: tuple[int, int], steps: int, batch_size: int
    ) -> None:
        self._images, self._labels = images, labels
        order = random.permutation(torch.tensor([seed]), _ORDER, 0, 100)[0].tolist()
        self.classes: list[list[int]] = []
        while len(order) >= sizes[len(self.classes) % 2]:
            size = sizes[len(self.classes) % 2]
            self.classes.append(order[:size])
            order = order[size:]
        self._steps, self._batch_size = steps, batch_size

    def __len__(self) -> int:
        return len(self.classes)

    def __getitem__(self, task: int) -> Shuffled:
        rows = torch.isin(self._labels, torch.tensor(self.classes[task])).nonzero()[:, 0]
        return Shuffled((self._images[rows] / 255, self._labels[rows]), self._batch_size, batches=self._steps)
