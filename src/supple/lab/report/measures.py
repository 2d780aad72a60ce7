"""What a folder of results holds, in the numbers that a report is about.

Everything comes from one long frame with a row a run and task. Only sums over tasks leave the Parquet files; the rows
of all runs and tasks are never in memory together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import polars as pl

from supple.lab.study.manifest import as_cell
from supple.lab.study.results import DISTURBANCES, TASKS, Results
from supple.lab.study.schema import Outcome
from supple.lab.study.spec import Study

SHARE = 0.1
"""The share of a run's tasks that its final accuracy averages over."""

BINS = 100
"""The most points that a curve has, unless told otherwise; with 1,000 tasks each averages over 10."""

IDENTITY = ("run", "method", "kind", "seed", "point", "part", "done")
"""The columns of runs that say which run it is; all others are settings."""


def final_tasks(tasks: int) -> range:
    """The tasks, counted from 0, that final accuracy averages over: the last 10% of them, at least one."""
    return range(tasks - max(1, round(SHARE * tasks)), tasks)


def early_tasks(tasks: int) -> range:
    """The tasks that "after 10% of tasks" means: as many as final ones, around the one at 10%."""
    size = len(final_tasks(tasks))
    start = max(0, round(SHARE * tasks) - size // 2)
    return range(start, start + size)


def bin_width(count: int, bins: int) -> int:
    """The smallest number of tasks a bin with which there are at most so many bins."""
    return -(-count // bins)


@dataclass(frozen=True, eq=False)
class Measured:
    """A folder of results in numbers, about its first ``tasks``; ``left_out`` runs have not learned so many yet.

    A row of ``runs`` has :data:`IDENTITY`, the settings, and outcomes: "early" and "late", the accuracy (or what else
    runs are compared by) after 10% of tasks and in the end, "change", their difference, and "area", that of all tasks;
    "diverged", whether a loss was not finite; "dead" and "rank" at the start of the last task; "reinitialized" in all
    tasks. A curve has at most so many points as ``bins``.
    """

    results: Results
    tasks: int
    runs: pl.DataFrame
    settings: tuple[str, ...]
    left_out: int
    bins: int = BINS

    @property
    def study(self) -> Study:
        """The study that was run."""
        return self.results.study

    @property
    def outcome(self) -> Outcome:
        """What runs are compared by."""
        return self.results.outcome

    @property
    def usual(self) -> dict[str, Any]:
        """What the study says of network and optimizer, by the columns of runs."""
        parts = {"network": self.study.network, "optimizer": self.study.optimizer}
        return {f"{part}.{name}": as_cell(value) for part, table in parts.items() for name, value in table}

    @property
    def complete(self) -> bool:
        """Whether every run of the study learned every task."""
        return not self.left_out and self.tasks == self.study.run.tasks

    @property
    def width(self) -> int:
        """Tasks that a point of a curve averages over."""
        return bin_width(self.tasks, self.bins)

    def rows(self, table: str, runs: Sequence[int]) -> pl.LazyFrame:
        """The rows of chosen runs in a table of the folder, up to the last task that counts."""
        return self.results.tables[table].filter(pl.col("task") < self.tasks, pl.col("run").is_in(list(runs)))

    def named(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Rows of runs with the names of what is compared: "line", the method, and "seed" in place of "run"."""
        runs = self.runs.select("run", pl.col("method").alias("line"), "seed")
        return runs.join(frame, on="run", maintain_order="left_right").drop("run")

    def curves(self, runs: Sequence[int], columns: Sequence[str]) -> pl.DataFrame:
        """Columns of tasks of some runs, averaged over what is finite in each of at most :attr:`bins` bins.

        A row a run and bin has "line", "seed", "x", the mean number of the bin's tasks, counted from 1, and the
        columns, null where nothing finite was measured.
        """
        width = self.width
        start = pl.col("bin") * width
        binned = (
            self.rows(TASKS, runs)
            .group_by("run", bin=pl.col("task") // width)
            .agg(*(finite(column).mean() for column in columns))
            .with_columns(x=(start + pl.min_horizontal(start + width, self.tasks) + 1) / 2)
            .sort("run", "bin")
            .collect(engine="streaming")
        )
        return self.named(binned.drop("bin"))

    @cached_property
    def disturbances(self) -> pl.DataFrame:
        """What reinitializations changed on the batch of their step.

        A row a run that reinitialized something: "run", and averages over its measured reinitializations of the
        absolute change: "loss", "gradient", and "mean" and "std" of activations, averaged over layers too.
        """
        changes = {
            "loss": (pl.col("loss_after") - pl.col("loss_before")).abs(),
            "gradient": (pl.col("gradient_after") - pl.col("gradient_before")).abs(),
            "mean": pl.col("mean_change").list.mean(),
            "std": pl.col("std_change").list.mean(),
        }
        return (
            self.results.tables[DISTURBANCES]
            .filter(pl.col("reinitialized") > 0, pl.col("task") < self.tasks)
            .select("run", **changes)
            .group_by("run")
            .agg(*(finite(name).mean() for name in changes))
            .sort("run")
            .collect(engine="streaming")
        )


def measure(results: Results, bins: int = BINS) -> Measured:
    """Takes the numbers out of a folder; ValueError if no task was learned yet, or those compared have no outcome.

    Of a folder that is not finished they are about as many first tasks of as many runs as make the most together.
    """
    tasks = common_tasks(results.runs["done"].to_list())
    if not tasks:
        raise ValueError(
            f"{results.folder} holds no task that was learned to its end yet; let it go on with: {results.command}"
        )
    kept = results.runs.filter(pl.col("done") >= tasks)
    task = pl.col("task")
    value = _counting(results, tasks)

    def average(span: range) -> pl.Expr:
        return value.filter(task.is_between(span.start, span.stop, closed="left")).mean().cast(pl.Float64)

    outcomes = (
        results.tables[TASKS]
        .filter(task < tasks)
        .group_by("run")
        .agg(
            early=average(early_tasks(tasks)),
            late=average(final_tasks(tasks)),
            area=average(range(tasks)),
            diverged=(~pl.col("loss").is_finite()).any(),
            dead=pl.col("dead").filter(task == tasks - 1).mean(),
            rank=pl.col("rank").filter(task == tasks - 1).mean(),
            reinitialized=pl.col("reinitialized").sum(),
        )
        .with_columns(change=pl.col("late") - pl.col("early"))
        .collect(engine="streaming")
    )
    runs = kept.join(outcomes, on="run", how="inner", maintain_order="left")
    for name, span in (("early", early_tasks(tasks)), ("late", final_tasks(tasks))):
        # Left out, the others of its method would be compared with those of other seeds.
        for row in runs.filter(pl.col(name).is_null()).head(1).iter_rows(named=True):
            raise ValueError(
                f"{results.folder}: {results.outcome.name} of {row['method']} with seed {row['seed']} is no number in "
                f"any of tasks {span.start} to {span.stop - 1}, so that nothing can be compared there"
            )
    settings = tuple(name for name in kept.columns if name not in IDENTITY)
    return Measured(results, tasks, runs, settings, len(results.runs) - len(kept), bins)


def _counting(results: Results, tasks: int) -> pl.Expr:
    """The outcome of tasks, in which a run that has diverged counts as the worst there is.

    A network whose outputs are not numbers classifies nothing rightly; of what is no share it is the worst value that
    any run has. Where the loss is finite and the outcome not a number, the task has none: null.
    """
    outcome = results.outcome
    value = pl.col(outcome.column)
    worst: float | None = float(outcome.lower)
    if not outcome.share:
        there = finite(outcome.column)
        wanted = there.max() if outcome.lower else there.min()
        worst = results.tables[TASKS].filter(pl.col("task") < tasks).select(wanted).collect(engine="streaming").item()
    failed = value.is_infinite() | (value.is_nan() & ~pl.col("loss").is_finite())
    return pl.when(failed).then(pl.lit(worst)).otherwise(value.fill_nan(None))


def common_tasks(done: Sequence[int]) -> int:
    """The number of tasks for which runs that learned at least so many make the most tasks together.

    Of several it is the largest, and 0 if nothing was learned.
    """
    furthest_first = sorted(done, reverse=True)
    return max(((k + 1) * tasks, tasks) for k, tasks in enumerate(furthest_first))[1] if furthest_first else 0


def finite(column: str) -> pl.Expr:
    """Values without those that are not finite, which a diverged network has."""
    value = pl.col(column).cast(pl.Float64)
    return value.filter(value.is_finite())
