"""What kinds of studies differ in: how the runs of a part are trained, and what that takes."""

from __future__ import annotations

import hashlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
import torch

from supple.lab.data import LabelledImages
from supple.lab.study.spec import Column


@dataclass(frozen=True)
class Learned:
    """What came of one stage of training.

    Args:
        rows: for each file of a part the new rows; files without new rows may be left out.
        accuracy: [C], accuracy of each column, averaged over seeds.
    """

    rows: Mapping[str, pl.DataFrame]
    accuracy: Sequence[float]


class Trainer(ABC):
    """Trains the runs of one part, stage by stage.

    Attributes:
        stage: the next stage; also the number of those that have been learned.
    """

    stage: int = 0

    @abstractmethod
    def learn(self, on_step: Callable[[int], object]) -> Learned:
        """Learns the next stage.

        Args:
            on_step: called after each step with the steps of the task that have been taken. What it raises ends the
                training; then the trainer is of no use any more.

        Returns:
            What came of it.
        """

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on as if never stopped, as :func:`supple.lab.study.checkpoint.save` takes it."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes back what :meth:`state_dict` gave.

        Args:
            state: the state.
        """


class Course(ABC):
    """The problem of a study with its images: what trains the runs of a part, and what they take.

    A task is learned in one stage or several; a stage is what is learned between two points where training can go on.

    Attributes:
        stages: stages a task.
        tables: for each file of a part the columns of its table. The last is that of the tasks, which has a row a run
            and task; the others have a column "task" or "epoch", a stage, too.
        images: the sets of images.
    """

    stages: int
    tables: Mapping[str, Mapping[str, Any]]
    images: Sequence[LabelledImages]

    @property
    def identity(self) -> dict[str, Any]:
        """The number of images, and a digest of them, by which it is seen that results are of the same ones."""
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
        """Optimizer steps of each task.

        Args:
            tasks: how many tasks.
            seeds: the seeds of the runs.

        Returns:
            A number a task, of the first seed where they differ by seed.

        Raises:
            StudyError: if the images do not suffice; the message says what would do.
        """

    @abstractmethod
    def part_memory(self, column: Column, seeds: int, columns: int) -> int:
        """Memory that training a part takes beside the images, Python and torch.

        Args:
            column: one of its columns.
            seeds: number of seeds.
            columns: number of columns.

        Returns:
            Bytes.
        """

    @abstractmethod
    def most(self, column: Column, device: str) -> int | None:
        """The most runs that are trained together, if memory allows.

        Args:
            column: one of their columns.
            device: "cpu" or "cuda".

        Returns:
            The number; None: as many as there are.
        """

    @abstractmethod
    def multiply_adds(self, column: Column) -> int:
        """Multiply-adds of the matrix products of a training step, for each image.

        Args:
            column: a column.

        Returns:
            The number; everything that is no product of matrices is left out.
        """

    @abstractmethod
    def trainer(self, columns: Sequence[Column], seeds: Sequence[int], runs: Sequence[int], device: str) -> Trainer:
        """What trains a part.

        Args:
            columns: C columns.
            seeds: S seeds.
            runs: numbers of the S * C runs, seed-first.
            device: "cpu" or "cuda".

        Returns:
            The trainer, before the first stage.
        """

    @abstractmethod
    def rate(self, columns: Sequence[Column], seeds: Sequence[int], device: str, seconds: float) -> float:
        """Measures how fast a part is trained.

        Args:
            columns: its columns.
            seeds: its seeds.
            device: "cpu" or "cuda".
            seconds: about how long to measure.

        Returns:
            Network steps a second, with what is measured between steps.
        """


def timed(work: Callable[[], object], device: str) -> float:
    """Does something and waits until the device has done it.

    Args:
        work: what is done.
        device: "cpu" or "cuda".

    Returns:
        Seconds that it took.
    """
    began = time.perf_counter()
    work()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - began
