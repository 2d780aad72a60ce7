"""Numbers of class-incremental folders: classes at each addition, test accuracy by epoch and by order of arrival."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import polars as pl

from supple.lab.data import DATA_SETS
from supple.lab.report.measures import Measured, bin_width
from supple.lab.study.results import EPOCHS, TASKS

EPOCH_BINS = 400
"""The most points, about, that a curve over epochs has; with 20 times 100 epochs each averages over 5."""


def classes_after(problem: Any, additions: int) -> int:
    """Classes seen after some additions, the first classes counting as one; the last brings what is left."""
    return min(problem.first + problem.step * (additions - 1), DATA_SETS[problem.data].classes)


def drawn_again(runs: pl.DataFrame) -> set[str]:
    """What the method "reset" draws again in its runs, such as "head+momentum"; the whole network is "network"."""
    given = runs["parts"] if "parts" in runs.columns else [None] * len(runs)
    return {parts or "network" for parts in given}


def whole(drawn: set[str]) -> bool:
    """Whether the whole network is drawn again, whatever else is."""
    return all("network" in parts.split("+") for parts in drawn)


@dataclass(frozen=True, eq=False)
class Epochs:
    """Test accuracy over epochs, in points that average over ``width``.

    The rows of ``curves`` have "line", "seed", "x", how many epochs were learned, and "accuracy"; ``bounds``
    [additions + 1] are the epochs learned before each addition, and in all; ``classes`` [additions] are those seen.
    """

    curves: pl.DataFrame
    bounds: Sequence[int]
    classes: Sequence[int]
    width: int


def epochs_of(measured: Measured, runs: Sequence[int]) -> Epochs | None:
    """Test accuracy of runs over epochs, in bins that begin anew at each addition; None without epochs."""
    epoch = pl.col("epoch")
    epochs = measured.rows(EPOCHS, runs)
    additions = epochs.group_by("task").agg(start=epoch.min(), stop=epoch.max() + 1, classes=pl.max("classes"))
    sizes = additions.sort("task").collect(engine="streaming")
    if sizes.is_empty():
        return None
    width = bin_width(int((sizes["stop"] - sizes["start"]).sum()), EPOCH_BINS)
    bins = ["task", "bin"]
    binned = (
        epochs.join(additions.select("task", "start"), on="task")
        .group_by("run", "task", bin=(epoch - pl.col("start")) // width)
        .agg(x=epoch.mean() + 1, accuracy=pl.col("test_accuracy").fill_nan(0.0).mean())
        .with_columns(x=pl.col("x").mean().over(bins))
        .sort("run", *bins)
        .collect(engine="streaming")
    )
    bounds = [*sizes["start"], sizes["stop"][-1]]
    return Epochs(measured.named(binned.drop(bins)), bounds, sizes["classes"].to_list(), width)


def accuracy_by_arrival(measured: Measured, runs: Sequence[int], classes: Sequence[int]) -> pl.DataFrame:
    """Test accuracy of the last network of each run, averaged over the classes that came together.

    Rows have "line", "seed", "x", the mean place of the classes in their order of arrival, and "accuracy", 0 for a run
    that diverged.
    """
    last = measured.rows(TASKS, runs).filter(pl.col("task") == measured.tasks - 1)
    each = pl.col("class_accuracy").list
    frames = [
        last.select(
            "run",
            x=pl.lit((start + 1 + stop) / 2),
            # A network that diverged has no accuracies; it classifies nothing rightly.
            accuracy=each.slice(start, stop - start).list.mean().cast(pl.Float64).fill_null(0.0),
        )
        for start, stop in pairwise([0, *classes])
    ]
    return measured.named(pl.concat(frames).collect().sort("run", "x"))
