"""What a problem has to say of itself, so that a study can run it: what trains the runs of a part, and what that takes.

A part is what is trained together. A task is learned in one stage or several; a stage is what is learned between two
points where training can go on.
"""

from __future__ import annotations

import hashlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import polars as pl
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from supple.lab.data import LabelledImages
from supple.lab.limits import out_of_memory
from supple.lab.nn.stack import applied
from supple.lab.study.schema import Outcome
from supple.lab.study.spec import Column, Study


@dataclass(frozen=True)
class StageResult:
    """What came of one stage of training.

    ``rows`` are the new ones of each file of a part, where it has some; accuracies [C] are averaged over seeds.
    """

    rows: Mapping[str, pl.DataFrame]
    accuracy: Sequence[float]


class Trainer(ABC):
    """Trains the runs of one part, stage by stage."""

    stage: int = 0
    """The next stage; also the number of those that have been learned."""

    @abstractmethod
    def learn(self, on_step: Callable[[int], object]) -> StageResult:
        """Learns the next stage.

        ``on_step`` is called after each step with the steps of the task that have been taken. What it raises ends the
        training; then the trainer is of no use any more.
        """

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on as if never stopped; "tasks" is the number of those learned."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes back what :meth:`state_dict` gave."""


class StudyProblem(ABC):
    """The problem of a study, with its images where it has such, on the device that trains.

    The images are the sets named by :attr:`sets`; with ``graphs`` equal steps are replayed as a CUDA graph.
    """

    sets: ClassVar[Sequence[str]] = ()
    """Which sets of images it takes: "train", "test"."""
    schemas: ClassVar[Mapping[str, Mapping[str, Any]]]
    """For each file of a part the columns of its table. The last is that of the tasks, which has a row a run and task;
    the others have a column "task" or "epoch", a stage, too."""

    def __init__(self, study: Study, *images: LabelledImages, device: str = "cpu", graphs: bool = False) -> None:
        self.study, self.images, self.device, self.graphs = study, images, device, graphs

    @property
    def stages(self) -> int:
        """Stages a task."""
        return self.study.problem.stages

    @property
    def outcome(self) -> Outcome:
        """What runs are compared by."""
        return Outcome()

    def check(self, tasks: int, columns: Sequence[Column], seeds: Sequence[int]) -> None:
        """Finds out, before anything is trained, what would go wrong; StudyError says what and where."""
        return

    def identity(self, column: Column | None = None, seed: int | None = None) -> dict[str, Any]:
        """The number of images, and a digest of them, by which it is seen that results are of the same ones.

        Of a problem of one's own also what a run of a column and a seed, the first ones of the study, begins with.
        """
        digest = hashlib.sha256()
        for some in self.images:
            digest.update(some.images.numpy().tobytes())
            digest.update(some.labels.numpy().tobytes())
        return {"count": len(self.images[0]), "digest": digest.hexdigest()}

    @property
    def images_memory(self) -> int:
        """Bytes that the images take in each process."""
        return sum(some.images.numel() + 8 * len(some) for some in self.images)

    @abstractmethod
    def steps(self, tasks: int, seeds: Sequence[int]) -> list[int]:
        """Optimizer steps of each task, of the first seed where they differ by seed.

        StudyError if the images do not suffice; the message says what would do.
        """

    @abstractmethod
    def part_memory(self, column: Column, seeds: int, columns: int) -> int:
        """Bytes that training a part of so many seeds and columns takes beside the images, Python and torch."""

    @abstractmethod
    def most(self, column: Column) -> int | None:
        """The most runs that are trained together, if memory allows; None: as many as there are."""

    @abstractmethod
    def multiply_adds(self, column: Column) -> int:
        """Multiply-adds of the matrix products of a training step; all else is left out."""

    @abstractmethod
    def trainer(self, columns: Sequence[Column], seeds: Sequence[int], runs: Sequence[int]) -> Trainer:
        """What trains a part of C columns and S seeds; the numbers of its S * C runs are seed-first."""

    @abstractmethod
    def rate(self, columns: Sequence[Column], seeds: Sequence[int], seconds: float) -> float:
        """Measures for some seconds how fast a part is trained: network steps a second, with what is measured."""


def step_cost(network: nn.Module, loss: Callable[..., Tensor], inputs: Any, targets: Tensor) -> tuple[int, int]:
    """Multiply-adds of a training step, as torch counts them, and the bytes that it keeps for the backward pass.

    Networks and batches on the meta device take neither time nor memory. Both are 0 where it cannot be counted, as of a
    network that takes gradients itself.
    """
    kept = 0

    def note(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.numel() * tensor.element_size()
        return tensor

    try:
        with FlopCounterMode(display=False) as counter:
            with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
                found = loss(applied(network, inputs), targets)
            found.backward()
    except RuntimeError as error:
        if out_of_memory(error):
            raise
        return 0, 0
    finally:
        network.zero_grad()
    return int(counter.get_total_flops()) // 2, kept


def timed(work: Callable[[], object], device: str) -> float:
    """Seconds that something takes, until the device has done it."""
    began = time.perf_counter()
    work()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - began
