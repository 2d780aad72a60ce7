"""Training one part of a study: what was trained together, from where it had come to, with its results on disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from torch import Tensor

from supple.data import LabelledImages
from supple.population import Disturbance, Population, TaskMetrics
from supple.study import checkpoint, files
from supple.study.assembly import assemble
from supple.study.results import (
    CHECKPOINT,
    DISTURBANCES,
    DISTURBANCES_SCHEMA,
    TASKS,
    TASKS_SCHEMA,
    part_folder,
    tasks_done,
)
from supple.study.spec import Column, Measure, Problem

_SHARE = 0.01
"""Share of the time that writing may take: a checkpoint is written when the time since the last has earned it."""


class Stopped(Exception):
    """The run was asked to stop."""


class Part:
    """Some runs of a study that are trained together.

    Args:
        folder: that of the results.
        number: number of the part.
        first: number of its first run; the others follow, seed-first.
        columns: C columns.
        seeds: S seeds.
        problem: the tasks.
        measure: what is measured.
    """

    def __init__(
        self,
        folder: Path,
        number: int,
        first: int,
        columns: Sequence[Column],
        seeds: Sequence[int],
        problem: Problem,
        measure: Measure,
    ) -> None:
        self.number, self.columns, self.seeds = number, columns, seeds
        self.problem, self.measure = problem, measure
        self.folder = part_folder(folder, number)
        self.size = len(columns) * len(seeds)
        self.runs = pl.Series("run", range(first, first + self.size), dtype=pl.Int32)

    @property
    def done(self) -> int:
        """How many tasks have been learned and are on the disk."""
        return tasks_done(self.folder, self.size)

    def complete(self, tasks: int) -> bool:
        """Whether so many tasks have been learned, and all of their results are on the disk.

        Args:
            tasks: how many.

        Returns:
            The answer. A checkpoint is written last; results whose checkpoint was taken away count as they are.
        """
        path = self.folder / CHECKPOINT
        return self.done >= tasks and (not path.exists() or checkpoint.number(path, "tasks") >= tasks)

    def train(
        self,
        images: LabelledImages,
        tasks: int,
        device: str = "cpu",
        on_step: Callable[[int, int], object] = lambda task, step: None,
        on_task: Callable[[int, TaskMetrics], object] = lambda task, metrics: None,
    ) -> None:
        """Learns the tasks that have not been learned yet.

        Args:
            images: what the tasks are made of.
            tasks: how many tasks there are in all.
            device: where to train.
            on_step: called after each step with (task, steps of it); what stops the run raises :class:`Stopped` here.
            on_task: called after each task with (task, what was measured).

        Raises:
            Stopped: what ``on_step`` raised; what was on the disk stays there.
            OSError: if results cannot be written.
        """
        if self.complete(tasks):
            return
        population = assemble(images, self.columns, self.seeds, self.problem, self.measure, device)
        start = self._resume(population)
        # The checkpoint comes last, and the table whose rows are counted before it: what a reader finds of the tasks is
        # then all there is of them, and rows that the checkpoint does not know of are left out when it goes on.
        frames = {
            DISTURBANCES: self._read(DISTURBANCES, DISTURBANCES_SCHEMA, start),
            TASKS: self._read(TASKS, TASKS_SCHEMA, start),
        }
        new: dict[str, list[pl.DataFrame]] = {name: [] for name in frames}
        saved, cost = time.monotonic(), 0.0
        for task in range(start, tasks):
            metrics = population.train_task(task, lambda step, task=task: on_step(task, step))  # type: ignore[misc]
            new[TASKS].append(tasks_frame(self.runs, task, metrics))
            new[DISTURBANCES] += [disturbances_frame(self.runs, task, one) for one in metrics.disturbances]
            on_task(task, metrics)
            if task + 1 == tasks or time.monotonic() - saved >= cost / _SHARE:
                began = time.monotonic()
                for name in frames:
                    frames[name] = pl.concat([frames[name], *new[name]])
                    new[name] = []
                self._save(population, task + 1, frames)
                saved = time.monotonic()
                cost = saved - began

    def _read(self, name: str, schema: Any, tasks: int) -> pl.DataFrame:
        """A frame of earlier tasks; rows beyond the checkpoint are left out, since they will come again."""
        path = self.folder / name
        if not tasks or not path.exists():
            return pl.DataFrame(schema=schema)
        return pl.read_parquet(path).filter(pl.col("task") < tasks)

    def _resume(self, population: Population) -> int:
        """Puts a population where the checkpoint says; returns the number of tasks it has learned."""
        path = self.folder / CHECKPOINT
        if not path.exists():
            return 0
        state = checkpoint.load(path)
        population.network.load_state_dict(state["network"])
        population.optimizer.load_state_dict(state["optimizer"])
        if population.method is not None:
            population.method.load_state_dict(state["method"])
        return int(state["tasks"])

    def _save(self, population: Population, tasks: int, frames: dict[str, pl.DataFrame]) -> None:
        for name, frame in frames.items():
            files.replace(self.folder / name, lambda new, frame=frame: frame.write_parquet(new, compression_level=3))  # type: ignore[misc]
        checkpoint.save(
            self.folder / CHECKPOINT,
            {
                "tasks": tasks,
                "network": dict(population.network.state_dict()),
                "optimizer": population.optimizer.state_dict(),
                "method": None if population.method is None else population.method.state_dict(),
            },
        )


def tasks_frame(runs: pl.Series, task: int, metrics: TaskMetrics) -> pl.DataFrame:
    """What was measured of one task.

    Args:
        runs: numbers of the R runs.
        task: which task.
        metrics: what was measured.

    Returns:
        A row a run, with the columns of :data:`supple.study.results.TASKS_SCHEMA`.
    """
    columns: dict[str, Any] = {"run": runs, "task": task}
    for name in list(TASKS_SCHEMA)[2:]:
        value = getattr(metrics, name)
        columns[name] = None if value is None else _numpy(value)
    return pl.DataFrame(columns).cast(pl.Schema(TASKS_SCHEMA)).select(list(TASKS_SCHEMA))


def disturbances_frame(runs: pl.Series, task: int, measured: Disturbance) -> pl.DataFrame:
    """What one reinitialization changed.

    Args:
        runs: numbers of the R runs.
        task: which task.
        measured: what was measured.

    Returns:
        A row for each run in which something was reinitialized, with the columns of
        :data:`supple.study.results.DISTURBANCES_SCHEMA`.
    """
    columns: dict[str, Any] = {"run": runs, "task": task, "step": measured.step}
    for name in list(DISTURBANCES_SCHEMA)[3:]:
        value = _numpy(getattr(measured, name))
        columns[name] = value if value.ndim == 1 else value.tolist()
    frame = pl.DataFrame(columns).cast(pl.Schema(DISTURBANCES_SCHEMA)).select(list(DISTURBANCES_SCHEMA))
    return frame.filter(pl.col("reinitialized") > 0)


def _numpy(value: Tensor) -> Any:
    return value.detach().to("cpu").numpy()
