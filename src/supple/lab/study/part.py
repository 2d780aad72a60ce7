"""Training one part of a study: what was trained together, from where it had come to, with its results on disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl

from supple.lab.study import checkpoint, files
from supple.lab.study.problem import Problem, Trainer
from supple.lab.study.results import CHECKPOINT, TASKS, part_folder, read_table
from supple.lab.study.spec import Column

_SHARE = 0.01
"""Share of the time that writing may take: a checkpoint is written when the time since the last has earned it."""


class Stopped(Exception):
    """The run was asked to stop."""


class Part:
    """Some runs of a study that are trained together.

    They are those of C columns and S seeds; their numbers follow the first, seed-first.
    """

    def __init__(self, folder: Path, number: int, first: int, columns: Sequence[Column], seeds: Sequence[int]) -> None:
        self.number, self.columns, self.seeds = number, columns, seeds
        self.folder = part_folder(folder, number)
        self.size = len(columns) * len(seeds)
        self.runs = range(first, first + self.size)

    @property
    def done(self) -> int:
        """How many tasks have been learned and are on the disk."""
        path = self.folder / TASKS
        return len(read_table(path, ["run"])) // self.size if path.exists() else 0

    def reached(self, stages: int) -> float:
        """How many tasks of so many stages have been learned, with the part of the last one."""
        path = self.folder / CHECKPOINT
        if stages == 1 or not path.exists():
            return self.done
        return checkpoint.number(path, "epoch") / stages

    def complete(self, tasks: int) -> bool:
        """Whether so many tasks have been learned, and all of their results are on the disk.

        A checkpoint is written last; results whose checkpoint was taken away count as they are.
        """
        path = self.folder / CHECKPOINT
        return self.done >= tasks and (not path.exists() or checkpoint.number(path, "tasks") >= tasks)

    def train(
        self,
        problem: Problem,
        tasks: int,
        on_step: Callable[[int, int], object] = lambda task, step: None,
        on_stage: Callable[[float, Sequence[float]], object] = lambda done, accuracy: None,
    ) -> None:
        """Learns what has not been learned yet of so many tasks; OSError if results cannot be written.

        ``on_step`` is called after each step with (task, steps of it); what stops a run raises :class:`Stopped` there.
        ``on_stage`` is called after each stage with (tasks that have been learned, with the part of the last one;
        accuracy of each column).
        """
        if self.complete(tasks):
            return
        trainer = problem.trainer(self.columns, self.seeds, self.runs)
        if (self.folder / CHECKPOINT).exists():
            trainer.load_state_dict(checkpoint.load(self.folder / CHECKPOINT))
        frames = {name: self._read(name, problem, trainer.stage) for name in problem.schemas}
        new: dict[str, list[pl.DataFrame]] = {name: [] for name in frames}
        saved, cost = time.monotonic(), 0.0
        for stage in range(trainer.stage, tasks * problem.stages):
            result = trainer.learn(lambda step, task=stage // problem.stages: on_step(task, step))  # type: ignore[misc]
            for name, rows in result.rows.items():
                new[name].append(rows)
            on_stage(trainer.stage / problem.stages, result.accuracy)
            if stage + 1 == tasks * problem.stages or time.monotonic() - saved >= cost / _SHARE:
                began = time.monotonic()
                for name in frames:
                    frames[name] = pl.concat([frames[name], *new[name]])
                    new[name] = []
                self._save(trainer, frames)
                saved = time.monotonic()
                cost = saved - began

    def _read(self, name: str, problem: Problem, stage: int) -> pl.DataFrame:
        """A frame of earlier stages; rows beyond the checkpoint are left out, since they will come again."""
        path, schema = self.folder / name, problem.schemas[name]
        if not stage or not path.exists():
            return pl.DataFrame(schema=dict(schema))
        known = pl.col("epoch") < stage if "epoch" in schema else pl.col("task") < stage // problem.stages
        return pl.read_parquet(path).filter(known)

    def _save(self, trainer: Trainer, frames: dict[str, pl.DataFrame]) -> None:
        """Writes the tables, that of the tasks last, and then the checkpoint.

        What a reader finds of the tasks is then all there is of them, and rows that the checkpoint does not know of are
        left out when it goes on.
        """
        for name, frame in frames.items():
            files.replace(self.folder / name, lambda new, frame=frame: frame.write_parquet(new, compression_level=3))  # type: ignore[misc]
        checkpoint.save(self.folder / CHECKPOINT, trainer.state_dict())
