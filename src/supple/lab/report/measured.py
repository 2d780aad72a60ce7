"""What a folder of results holds, in the numbers that a report is about: a row a run, and curves of chosen runs.

Only sums over tasks leave the Parquet files; the rows of all runs and tasks are never in memory together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from supple.lab.report.statistics import Array, bin_width
from supple.lab.study.results import Results, problem_of

SHARE = 0.1
"""The share of a run's tasks that its final accuracy averages over."""

BINS = 100
"""The most points that a curve has; with 1,000 tasks each averages over 10."""

MEASURES = ("accuracy", "dead", "rank", "weight_magnitude", "scale_magnitude", "gradient_magnitude", "reinitialized")
"""The columns of tasks that curves are drawn of."""

_CHANGES = ("loss", "rise", "gradient", "mean", "std")


@dataclass(frozen=True)
class Windows:
    """Which tasks "final" and "after 10% of tasks" mean, counted from 0; both are as many.

    Final are the last 10% of the tasks, at least one. After 10% of tasks are as many around the task at 10%: half of
    them before it. With 1,000 tasks these are tasks 900 to 999 and 50 to 149 (counted from 0).

    Args:
        tasks: tasks of a run.
    """

    tasks: int

    @property
    def size(self) -> int:
        """How many tasks each of the two has."""
        return max(1, round(SHARE * self.tasks))

    @property
    def early(self) -> tuple[int, int]:
        """The first task around 10%, and the one after the last."""
        start = max(0, round(SHARE * self.tasks) - self.size // 2)
        return start, start + self.size

    @property
    def late(self) -> tuple[int, int]:
        """The first of the final tasks, and the one after the last."""
        return self.tasks - self.size, self.tasks

    @staticmethod
    def words(span: tuple[int, int]) -> str:
        """A span of tasks as people count, from 1.

        Args:
            span: the first task, and the one after the last, counted from 0.

        Returns:
            Such as "tasks 901–1000".
        """
        start, stop = span
        return f"task {stop}" if stop - start == 1 else f"tasks {start + 1}–{stop}"


@dataclass(frozen=True, eq=False)
class Measured:
    """A folder of results in numbers.

    Args:
        results: the folder.
        tasks: the number of tasks that all is about; less than the study's where it is not finished.
        runs: a row a run that learned so many: the columns of ``results.runs``, and "early" and "late", the accuracy
            after 10% of tasks and in the end, "change", their difference; "diverged", whether a loss was not finite;
            "dead", "rank" and "weight_magnitude" at the start of the last task; "reinitialized" in all tasks.
        left_out: runs of the study that have not learned so many tasks yet.
    """

    results: Results
    tasks: int
    runs: pl.DataFrame
    left_out: int

    @property
    def windows(self) -> Windows:
        """Which tasks "final" and "after 10% of tasks" mean."""
        return Windows(self.tasks)

    @property
    def complete(self) -> bool:
        """Whether every run of the study learned every task."""
        return not self.left_out and self.tasks == self.results.manifest["tasks"]

    @property
    def name(self) -> str:
        """The name of the study."""
        return str(self.results.manifest.get("name") or self.results.folder.name)

    @property
    def title(self) -> str:
        """The title of the study."""
        return str((self.results.manifest.get("study") or {}).get("title") or self.name)

    @property
    def problem(self) -> Mapping[str, Any]:
        """The settings of the study's problem; none where the folder does not know them."""
        return problem_of(self.results.manifest)

    @property
    def incremental(self) -> bool:
        """Whether tasks are additions of classes, and accuracy is that on test images."""
        return bool(self.problem.get("kind") == "class_incremental")

    @property
    def methods(self) -> list[str]:
        """The names that the study gives its methods, in its order."""
        return self.results.runs["method"].unique(maintain_order=True).to_list()

    @property
    def bin_width(self) -> int:
        """Tasks that a point of a curve averages over."""
        return bin_width(self.tasks, BINS)

    def curves(self, runs: Sequence[int], columns: Sequence[str] = MEASURES) -> tuple[Array, dict[str, Array]]:
        """What was measured over tasks, in bins.

        Args:
            runs: numbers of the runs.
            columns: what; columns of tasks.

        Returns:
            (centre [bins] of each bin, counted from 1; for each column [bins, runs], NaN where nothing finite was
            measured).
        """
        width = self.bin_width
        values = [_finite(column).mean().alias(column) for column in columns]
        frame = (
            self.results.tasks.lazy()
            .filter(pl.col("task") < self.tasks, pl.col("run").is_in(list(runs)))
            .group_by("run", bin=pl.col("task") // width)
            .agg(*values)
            .collect(engine="streaming")
        )
        bins = -(-self.tasks // width)
        place = {run: k for k, run in enumerate(runs)}
        at = (frame["bin"].to_numpy(), np.array([place[run] for run in frame["run"]], dtype=int))
        found = {}
        for column in columns:
            found[column] = np.full((bins, len(place)), np.nan)
            found[column][at] = frame[column].cast(pl.Float64).fill_null(np.nan).to_numpy()
        starts = np.arange(bins) * width
        return (starts + np.minimum(starts + width, self.tasks) + 1) / 2, found

    def disturbances(self) -> pl.DataFrame:
        """What reinitializations changed on the batch of their step.

        Returns:
            A row a run that reinitialized something: "run", and averages over its measured reinitializations: "loss"
            and "gradient", the absolute change of the loss and of the mean absolute gradient, "mean" and "std", the
            absolute change of the mean and the standard deviation of activations, averaged over layers too; "rise", the
            change of the loss with its sign; "count", how many were measured.
        """
        change = pl.col("loss_after") - pl.col("loss_before")
        return (
            self.results.disturbances.lazy()
            .filter(pl.col("reinitialized") > 0, pl.col("task") < self.tasks)
            .select(
                "run",
                loss=change.abs(),
                rise=change,
                gradient=(pl.col("gradient_after") - pl.col("gradient_before")).abs(),
                mean=pl.col("mean_change").list.mean(),
                std=pl.col("std_change").list.mean(),
            )
            .group_by("run")
            .agg(*(_finite(name).mean().alias(name) for name in _CHANGES), count=pl.len())
            .sort("run")
            .collect(engine="streaming")
        )


def measure(results: Results) -> Measured:
    """Takes the numbers out of a folder.

    A folder may be unfinished, some runs far and others hardly begun. The report then is about as many first tasks of
    as many runs as make the most tasks together.

    Args:
        results: the folder.

    Returns:
        Its numbers.

    Raises:
        ValueError: if no task was learned yet.
    """
    tasks = common_tasks(results.runs["done"].to_list())
    if not tasks:
        command = ((results.manifest.get("sessions") or [{}])[-1]).get("command") or "supple run"
        raise ValueError(
            f"{results.folder} holds no task that was learned to its end yet; let it go on with: {command}"
        )
    windows = Windows(tasks)
    kept = results.runs.filter(pl.col("done") >= tasks)
    # A network whose outputs are not numbers classifies nothing rightly.
    accuracy, task = pl.col("accuracy").fill_nan(0.0), pl.col("task")
    last = task == tasks - 1
    numbers = (
        results.tasks.lazy()
        .filter(task < tasks)
        .group_by("run")
        .agg(
            early=accuracy.filter(task.is_between(*windows.early, closed="left")).mean().cast(pl.Float64),
            late=accuracy.filter(task.is_between(*windows.late, closed="left")).mean().cast(pl.Float64),
            diverged=(~pl.col("loss").is_finite()).any(),
            dead=pl.col("dead").filter(last).mean(),
            rank=pl.col("rank").filter(last).mean(),
            weight_magnitude=pl.col("weight_magnitude").filter(last).mean(),
            reinitialized=pl.col("reinitialized").sum(),
        )
        .with_columns(change=pl.col("late") - pl.col("early"))
        .collect(engine="streaming")
    )
    runs = kept.join(numbers, on="run", how="inner", maintain_order="left")
    return Measured(results, tasks, runs, left_out=len(results.runs) - len(kept))


def common_tasks(done: Sequence[int]) -> int:
    """The number of tasks for which runs that learned at least so many make the most tasks together.

    Args:
        done: for each run, the tasks it has learned.

    Returns:
        The number; of several the largest, and 0 if nothing was learned.
    """
    furthest_first = sorted(done, reverse=True)
    return max(((k + 1) * tasks, tasks) for k, tasks in enumerate(furthest_first))[1] if furthest_first else 0


def _finite(column: str) -> pl.Expr:
    """Values without those that are not finite, which a diverged network has."""
    value = pl.col(column).cast(pl.Float64)
    return value.filter(value.is_finite())
