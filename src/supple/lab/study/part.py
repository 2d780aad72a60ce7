"""Training one part of a study: what was trained together, from where it had come to, with its results on disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import polars as pl

from supple.lab.study import checkpoint, files
from supple.lab.study.problem import StudyProblem, Trainer
from supple.lab.study.results import CHECKPOINT, SCHEMAS, check_part, dump_table, part_folder, read_table
from supple.lab.study.spec import Column

_SHARE = 0.01
"""Share of the time that writing may take: a checkpoint is written when the time since the last has earned it."""


class Stopped(Exception):
    """The run was asked to stop."""


class Part:
    """Some runs of a study of a kind that are trained together.

    They are those of C columns and S seeds; their numbers follow the first, seed-first.
    """

    def __init__(
        self,
        folder: Path,
        number: int,
        first: int,
        columns: Sequence[Column],
        seeds: Sequence[int],
        kind: str = "permuted",
    ) -> None:
        self.number, self.columns, self.seeds = number, columns, seeds
        self.folder = part_folder(folder, number)
        self.size = len(columns) * len(seeds)
        self.runs = range(first, first + self.size)
        self._schemas = SCHEMAS[kind]

    @property
    def done(self) -> int:
        """How many tasks have been learned and are on the disk; ``Damaged`` if that cannot be said."""
        return min(check_part(self.folder, self._schemas, self.runs).values())

    def reached(self, stages: int) -> float:
        """How many tasks of so many stages have been learned, with the part of the last one; 0 if files are damaged."""
        path = self.folder / CHECKPOINT
        try:
            return self.done if stages == 1 or not path.exists() else checkpoint.number(path, "epoch") / stages
        except files.Damaged:
            return 0

    def complete(self, tasks: int) -> bool:
        """Whether so many tasks have been learned, and all of their results are on the disk; ``Damaged`` as above.

        A checkpoint is written last; results whose checkpoint was taken away count as they are.
        """
        if self.done < tasks:
            return False
        path = self.folder / CHECKPOINT
        if not path.exists():
            return True
        files.content(path, checkpoint.REMEDY)
        return checkpoint.number(path, "tasks") >= tasks

    def train(
        self,
        problem: StudyProblem,
        tasks: int,
        on_step: Callable[[int, int], object] = lambda task, step: None,
        on_stage: Callable[[float, Sequence[float]], object] = lambda done, accuracy: None,
        on_damage: Callable[[str], object] = lambda message: None,
        on_save: Callable[[], object] = lambda: None,
        ending: Callable[[], bool] = lambda: False,
    ) -> None:
        """Learns what has not been learned yet of so many tasks; OSError if results cannot be written.

        ``on_step`` is called after each step with (task, steps of it); what stops a run raises :class:`Stopped` there.
        ``on_stage`` is called after each stage with (tasks that have been learned, with the part of the last one;
        accuracy of each column). Where files are damaged, which ``on_damage`` is told, all tasks are learned again.
        ``on_save`` is called before files are written; what it raises leaves them as they are. Where ``ending`` says so
        after a stage, a checkpoint is written and :class:`Stopped` raised.
        """
        try:
            if self.complete(tasks):
                return
            state = checkpoint.load(self.folder / CHECKPOINT) if (self.folder / CHECKPOINT).exists() else None
        except files.Damaged as error:
            state, named = None, f"{error.path} is {error.reason}"
            with suppress(files.Damaged):
                if error.path.name == CHECKPOINT:
                    error.path.unlink()
                    if self.complete(tasks):
                        on_damage(f"{named}; the results of its part are whole, and stay: it was for more tasks only")
                        return
            on_damage(f"{named}; the runs of its part are trained again from the first task")
        if state is None:
            self._discard()
        trainer = problem.trainer(self.columns, self.seeds, self.runs)
        if state is not None:
            trainer.load_state_dict(state)
        frames = {name: self._read(name, problem, trainer.stage) for name in problem.schemas}
        new: dict[str, list[pl.DataFrame]] = {name: [] for name in frames}
        saved, cost = time.monotonic(), 0.0
        for stage in range(trainer.stage, tasks * problem.stages):
            result = trainer.learn(lambda step, task=stage // problem.stages: on_step(task, step))  # type: ignore[misc]
            for name, rows in result.rows.items():
                new[name].append(rows)
            on_stage(trainer.stage / problem.stages, result.accuracy)
            last, stopping = stage + 1 == tasks * problem.stages, ending()
            if last or stopping or time.monotonic() - saved >= cost / _SHARE:
                on_save()
                began = time.monotonic()
                for name in frames:
                    frames[name] = pl.concat([frames[name], *new[name]])
                    new[name] = []
                self._save(trainer, frames)
                saved = time.monotonic()
                cost = saved - began
            if stopping and not last:
                raise Stopped

    def _read(self, name: str, problem: StudyProblem, stage: int) -> pl.DataFrame:
        """A frame of earlier stages; rows beyond the checkpoint are left out, since they will come again."""
        schema = problem.schemas[name]
        if not stage:
            return pl.DataFrame(schema=dict(schema))
        known = pl.col("epoch") < stage if "epoch" in schema else pl.col("task") < stage // problem.stages
        return read_table(self.folder / name, schema).filter(known)

    def _save(self, trainer: Trainer, frames: dict[str, pl.DataFrame]) -> None:
        """Writes the tables, that of the tasks last, and then the checkpoint.

        What a reader finds of the tasks is then all there is of them, and rows that the checkpoint does not know of are
        left out when it goes on.
        """
        tables = {name: dump_table(frame) for name, frame in frames.items()}
        files.write(self.folder, {**tables, CHECKPOINT: checkpoint.dump(trainer.state_dict())})

    def _discard(self) -> None:
        """Takes all files away, in an order in which those that are left never look like results."""
        for name in (*reversed(list(self._schemas)), CHECKPOINT, files.DIGESTS):
            (self.folder / name).unlink(missing_ok=True)
