"""Loops that train one network, as programs do that train one network at a time.

Both compute the same as a population's replica of the same seed, from the same initial values and on the same batches.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset

from supple.lab.bench.settings import STEP_SIZES
from supple.lab.nn import MLP
from supple.lab.streams import PermutedStream


def sequential(hidden: int, seed: int, inputs: int = 784, outputs: int = 10) -> nn.Sequential:
    """An ordinary network inputs-h-h-h-outputs, with the initial values of replica ``seed`` of a population.

    Args:
        hidden: units of each hidden layer.
        seed: its seed.
        inputs: number of inputs.
        outputs: number of outputs.

    Returns:
        Linear layers with ReLU between them.
    """
    network = nn.Sequential(
        nn.Linear(inputs, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, outputs),
    )
    source = MLP(inputs, hidden, outputs, seed=seed)
    with torch.no_grad():
        for parameter, value in zip(network.parameters(), source.parameters(), strict=True):
            parameter.copy_(value)
    return network


class PermutedImages(Dataset[tuple[Tensor, int]]):
    """A data set whose items are permuted one by one when they are asked for.

    Args:
        images: uint8 [N, pixels].
        labels: int64 [N].
        pixels: int64 [pixels], the permutation.
    """

    def __init__(self, images: Tensor, labels: Tensor, pixels: Tensor) -> None:
        self.images, self.labels, self.pixels = images, labels, pixels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return (self.images[index].float() / 255)[self.pixels], int(self.labels[index])


class Loop:
    """What the two loops share: a network, its optimizer, and a stream of one seed.

    Args:
        hidden: units of each hidden layer.
        stream: tasks of one seed, on the CPU.
        device: where to train.

    Attributes:
        steps_left: steps of the current task that are still to be taken.
        loss: sum over the steps of the current task.
        hits: examples of the current task classified rightly before they were learned from.
    """

    replicas = 1
    action_share = 0.0

    def __init__(self, hidden: int, stream: PermutedStream, device: str = "cpu") -> None:
        self.stream, self.device = stream, torch.device(device)
        self.network = sequential(hidden, int(stream.seeds[0]), stream.features, stream.classes).to(self.device)
        self.tasks = 0
        self.steps_left = 0

    def acts_next(self) -> bool:
        """Whether the next step is one at which a method acts: never."""
        return False

    def skip_to_action(self) -> None:
        """There is no action to skip to."""


class PlainLoop(Loop):
    """A loop as research code is written: a data loader over images permuted one by one, and metrics read each step."""

    def __init__(self, hidden: int, stream: PermutedStream, device: str = "cpu") -> None:
        super().__init__(hidden, stream, device)
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=STEP_SIZES["sgd"])

    def start_task(self) -> None:
        """Goes on to the next task."""
        task = self.stream.task(self.tasks)
        dataset = PermutedImages(task.images, task.labels, task.pixels[0])
        loader = DataLoader(dataset, task.batch_size, sampler=task.order[0].tolist(), num_workers=0, drop_last=True)
        self._batches: Iterator[list[Tensor]] = iter(loader)
        self.tasks += 1
        self.steps_left = task.steps
        self.loss, self.hits = 0.0, 0

    def step(self) -> int:
        """Takes one step. Returns: 1."""
        x, y = (tensor.to(self.device) for tensor in next(self._batches))
        self.optimizer.zero_grad()
        logits = self.network(x)
        loss = cross_entropy(logits, y)
        loss.backward()
        self.optimizer.step()
        self.loss += loss.item()
        self.hits += int((logits.argmax(dim=1) == y).sum().item())
        self.steps_left -= 1
        return 1


class CarefulLoop(Loop):
    """A loop with care: images permuted once a task, batches taken by index, metrics added up without being read."""

    def __init__(self, hidden: int, stream: PermutedStream, device: str = "cpu") -> None:
        super().__init__(hidden, stream, device)
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=STEP_SIZES["sgd"], foreach=True)

    def start_task(self) -> None:
        """Goes on to the next task."""
        task = self.stream.task(self.tasks)
        images = task.images[:, task.pixels[0]]
        self._images = images.to(self.device).float().div_(255)
        self._labels, self._order = task.labels.to(self.device), task.order[0].to(self.device)
        self._at, self._batch_size = 0, task.batch_size
        self.tasks += 1
        self.steps_left = task.steps
        self.loss = torch.zeros((), dtype=torch.float64, device=self.device)
        self.hits = torch.zeros((), dtype=torch.int64, device=self.device)

    def step(self) -> int:
        """Takes one step. Returns: 1."""
        chosen = self._order[self._at : self._at + self._batch_size]
        x, y = self._images[chosen], self._labels[chosen]
        self.optimizer.zero_grad()
        logits = self.network(x)
        loss = cross_entropy(logits, y)
        loss.backward()
        self.optimizer.step()
        self.loss += loss.detach()
        self.hits += (logits.argmax(dim=1) == y).sum()
        self._at += self._batch_size
        self.steps_left -= 1
        return 1
