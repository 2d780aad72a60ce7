"""5+1 CIFAR-100: hard tasks of five new classes and easy ones of a single new class take turns.

In an easy task a network learns to give one answer whatever it sees, and then has to tell five classes apart.

Networks are compared by the hard tasks alone, as in the paper, since all do well in easy ones: an average over both
would follow their shares in it. So a task of the laboratory is a hard one, and the easy one comes between it and the
next. Methods act at each change of the data, before easy and before hard ones.

Source: Kumar, Marklund and Van Roy, "Maintaining plasticity in continual learning via regenerative regularization",
CoLLAs 2024, section 4.2 and appendix A.1: 15 hard and 15 easy tasks of 780 steps, batches of 32, an output for each of
the 100 classes. The network is that of Continual ImageNet. Brightness is from 0 to 1 here, and standardized in their
program.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from supple.functional import random
from supple.lab import data
from supple.lab.population.problem import Problem
from supple.lab.streams import Shuffled, Task
from supple.lab.studies.continual_imagenet import convolutions

_ORDER = random.purpose("5+1", "classes")


def make(
    hard: int = 5,
    easy: int = 1,
    steps: int = 780,
    batch_size: int = 32,
    data_dir: Path | None = None,
    verify: bool = True,
) -> Problem:
    """The problem, with so many classes in hard and in easy tasks, and so many steps in each of both."""
    source = data.load("cifar100", data_dir, verify=verify)
    return Problem(
        network=lambda seed, hidden=100: convolutions(source.classes, hidden),
        optimizer=lambda parameters, lr=1e-3: torch.optim.Adam(parameters, lr=lr),
        stream=lambda seed: HardAndEasy(source.images, source.labels, seed, (hard, easy), steps, batch_size),
        loss=nn.functional.cross_entropy,
    )


class HardAndEasy:
    """The hard tasks of a seed, each with the easy one after it: as many as there are new classes for."""

    def __init__(
        self, images: Tensor, labels: Tensor, seed: int, sizes: tuple[int, int], steps: int, batch_size: int
    ) -> None:
        self._images, self._labels = images, labels
        order = random.permutation(torch.tensor([seed]), _ORDER, 0, 100)[0]
        both = sum(sizes)
        self.classes = [some.split(sizes) for some in order.split(both) if len(some) == both]
        self._steps, self._batch_size = steps, batch_size

    def __len__(self) -> int:
        return len(self.classes)

    def __getitem__(self, task: int) -> Task:
        hard, easy = map(self._of, self.classes[task])
        return Task(hard, later=easy)

    def _of(self, classes: Tensor) -> Shuffled:
        rows = torch.isin(self._labels, classes).nonzero()[:, 0]
        return Shuffled((self._images[rows] / 255, self._labels[rows]), self._batch_size, batches=self._steps)
