"""What a class-incremental folder holds beside what every folder does: epochs, and accuracies of single classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl

from supple.lab.report.measured import Measured, Windows
from supple.lab.report.statistics import Array, bin_width

EPOCH_BINS = 400
"""The most points, about, that a curve over epochs has; with 20 times 100 epochs each averages over 5."""


@dataclass(frozen=True, eq=False)
class EpochCurves:
    """Test accuracy over epochs.

    Args:
        ends: [points], for each point how many epochs were learned, on average over its epochs.
        accuracy: [points, runs], 0 to 1.
        bounds: [additions + 1], epochs that were learned before each addition, and in all.
        classes: [additions], classes seen from then on.
        width: epochs that a point averages over.
    """

    ends: Array
    accuracy: Array
    bounds: Array
    classes: Array
    width: int


def classes_seen(measured: Measured) -> list[int]:
    """Classes seen at each addition, the first classes counting as one.

    Args:
        measured: a folder.

    Returns:
        For each addition that the report is about the number of classes.
    """
    found = (
        measured.results.tasks.lazy().filter(pl.col("task") < measured.tasks).group_by("task").agg(pl.max("classes"))
    )
    return found.sort("task").collect(engine="streaming")["classes"].to_list()


def final_words(measured: Measured) -> str:
    """The numbers of classes that final accuracy averages over.

    Args:
        measured: a folder.

    Returns:
        Such as "95 and 100 classes".
    """
    sizes = classes_seen(measured)[slice(*Windows(measured.tasks).late)]
    joint = " and " if len(sizes) == 2 else " to "
    return f"{sizes[0]}{joint}{sizes[-1]} classes" if len(sizes) > 1 else f"{sizes[0]} classes"


def epoch_curves(measured: Measured, runs: Sequence[int]) -> EpochCurves | None:
    """Test accuracy over epochs, in bins that begin anew at each addition.

    Args:
        measured: a folder.
        runs: numbers of the runs.

    Returns:
        The curves; None if the folder has no epochs.
    """
    epoch = pl.col("epoch")
    epochs = measured.results.epochs.lazy().filter(pl.col("task") < measured.tasks, pl.col("run").is_in(list(runs)))
    additions = epochs.group_by("task").agg(start=epoch.min(), stop=epoch.max() + 1, classes=pl.max("classes"))
    sizes = additions.sort("task").collect(engine="streaming")
    if sizes.is_empty():
        return None
    width = bin_width(int((sizes["stop"] - sizes["start"]).sum()), EPOCH_BINS)
    binned = (
        epochs.join(additions.select("task", "start"), on="task")
        .group_by("run", "task", bin=(epoch - pl.col("start")) // width)
        .agg(end=epoch.mean() + 1, accuracy=pl.col("test_accuracy").fill_nan(0.0).mean())
        .collect(engine="streaming")
    )
    points = binned.group_by("task", "bin").agg(pl.mean("end")).sort("task", "bin").with_row_index("point")
    rows = binned.join(points.select("task", "bin", "point"), on=["task", "bin"])
    accuracy = np.full((len(points), len(runs)), np.nan)
    place = {run: k for k, run in enumerate(runs)}
    accuracy[rows["point"].to_numpy(), [place[run] for run in rows["run"]]] = rows["accuracy"].to_numpy()
    bounds = np.array([*sizes["start"], sizes["stop"][-1]], dtype=np.float64)
    return EpochCurves(points["end"].to_numpy(), accuracy, bounds, sizes["classes"].to_numpy(), width)


def class_accuracy(measured: Measured, runs: Sequence[int]) -> tuple[Array, Array]:
    """Test accuracy of the last addition's network, averaged over the classes that came together.

    Args:
        measured: a folder.
        runs: numbers of the runs.

    Returns:
        (centre [additions] of the classes of each, counted from 1 in order of arrival; accuracy [additions, runs], 0
        for a run that diverged).
    """
    bounds = [0, *classes_seen(measured)]
    last = measured.results.tasks.lazy().filter(pl.col("task") == measured.tasks - 1, pl.col("run").is_in(list(runs)))
    lists: dict[int, list[Any]] = dict(last.select("run", "class_accuracy").collect().iter_rows())
    found = np.zeros((measured.tasks, len(runs)))
    for column, run in enumerate(runs):
        # A network that diverged has no accuracies; it classifies nothing rightly.
        each = np.array(lists.get(run) or [0.0] * bounds[-1], dtype=np.float64)
        for k in range(measured.tasks):
            found[k, column] = each[bounds[k] : bounds[k + 1]].mean()
    centres = np.array([(start + 1 + stop) / 2 for start, stop in pairwise(bounds)])
    return centres, found
