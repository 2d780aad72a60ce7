"""Results of a study: one folder of Parquet files, and what says how they came about.

::

    FOLDER/
      manifest.json                      the study as it was run, its parts, versions, machines, commands
      runs.parquet                       a row a run: one network, with one seed and one set of settings
      parts/0000/tasks.parquet           a row a run and task
      parts/0000/disturbances.parquet    a row a run and measured reinitialization, where images are permuted
      parts/0000/epochs.parquet          a row a run and epoch, where classes are added
      parts/0000/checkpoint.safetensors  where the part goes on

docs/results-format.md describes every column. A part is what was trained together in one population.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import polars as pl

FORMAT = 1
"""Version of the folder's form; a folder of another version is refused."""

MANIFEST = "manifest.json"
RUNS = "runs.parquet"
TASKS = "tasks.parquet"
DISTURBANCES = "disturbances.parquet"
EPOCHS = "epochs.parquet"
CHECKPOINT = "checkpoint.safetensors"

TASKS_SCHEMA: Mapping[str, Any] = {
    "run": pl.Int32,
    "task": pl.Int32,
    "accuracy": pl.Float32,
    "loss": pl.Float32,
    "dead": pl.Float32,
    "rank": pl.Int32,
    "weight_magnitude": pl.Float32,
    "scale_magnitude": pl.Float32,
    "gradient_magnitude": pl.Float32,
    "reinitialized": pl.Int64,
}
"""Columns of the frame of tasks; see :class:`supple.lab.population.TaskMetrics`."""

ADDITIONS_SCHEMA: Mapping[str, Any] = {
    **TASKS_SCHEMA,
    "classes": pl.Int32,
    "dead_before": pl.Float32,
    "rank_before": pl.Int32,
    "best_epoch": pl.Int32,
    "validation_accuracy": pl.Float32,
    "class_accuracy": pl.List(pl.Float32),
}
"""Columns of the frame of tasks where classes are added; see ``AdditionStart`` and ``AdditionEnd`` in
:mod:`supple.lab.population.class_incremental_metrics`. ``dead`` and ``rank`` are those on the new classes."""

EPOCHS_SCHEMA: Mapping[str, Any] = {
    "run": pl.Int32,
    "task": pl.Int32,
    "epoch": pl.Int32,
    "classes": pl.Int32,
    "loss": pl.Float32,
    "accuracy": pl.Float32,
    "validation_loss": pl.Float32,
    "validation_accuracy": pl.Float32,
    "test_loss": pl.Float32,
    "test_accuracy": pl.Float32,
    "reinitialized": pl.Int64,
}
"""Columns of the frame of epochs; see :class:`supple.lab.population.class_incremental_metrics.EpochMetrics`."""

DISTURBANCES_SCHEMA: Mapping[str, Any] = {
    "run": pl.Int32,
    "task": pl.Int32,
    "step": pl.Int32,
    "reinitialized": pl.Int64,
    "loss_before": pl.Float32,
    "loss_after": pl.Float32,
    "gradient_before": pl.Float32,
    "gradient_after": pl.Float32,
    "mean_change": pl.List(pl.Float32),
    "std_change": pl.List(pl.Float32),
}
"""Columns of the frame of disturbances; see :class:`supple.lab.population.Disturbance`."""


@dataclass(frozen=True)
class Results:
    """What a folder holds.

    Attributes:
        folder: the folder.
        manifest: the study as it was run ("study", "tasks", "steps", "scaled"), its "parts", and "sessions": when,
            where and by which command it was run.
        runs: a row a run: "run", its number; "method", the name that the study gives it; "kind", the method's own name
            (base, l2, shrink_and_perturb, cbp, redo, swr, reset); "seed"; "point", the settings of a grid as text,
            empty where there is no grid; "part"; "done", how many tasks it has learned; and a column a setting: the
            method's under its own name, such as "frequency", the others as "network.hidden" or "optimizer.step_size".
        tasks: a row a run and task, with the columns of :data:`TASKS_SCHEMA`, or of :data:`ADDITIONS_SCHEMA` where
            tasks are additions of classes, read when it is collected.
        disturbances: a row a run and measured reinitialization, with the columns of :data:`DISTURBANCES_SCHEMA`, read
            when it is collected.
        epochs: a row a run and epoch, with the columns of :data:`EPOCHS_SCHEMA`, read when it is collected; none where
            tasks are no additions of classes.
    """

    folder: Path
    manifest: dict[str, Any]
    runs: pl.DataFrame
    tasks: pl.LazyFrame
    disturbances: pl.LazyFrame
    epochs: pl.LazyFrame


def load(folder: str | PathLike[str]) -> Results:
    """Reads the results of a study, finished or not; while it runs, what was there at this moment.

    Args:
        folder: the folder that ``supple run`` wrote.

    Returns:
        The results.

    Raises:
        FileNotFoundError: if it holds no results.
        ValueError: if its results are of another version or damaged.

    Example:
        >>> results = supple.lab.study.load("supple-results/small")  # doctest: +SKIP
        >>> late = results.tasks.filter(pl.col("task") >= 900)  # doctest: +SKIP
        >>> late = late.group_by("run").agg(pl.mean("accuracy"))  # doctest: +SKIP
        >>> results.runs.join(late.collect(), on="run").group_by("method").agg(pl.mean("accuracy"))  # doctest: +SKIP
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    runs = _read(folder / RUNS)
    sizes = dict(runs.group_by("part").len().iter_rows())
    places = {part: part_folder(folder, part) for part in sorted(sizes)}
    added = problem_of(manifest).get("kind") == "class_incremental"
    growing = [part for part, place in places.items() if tasks_done(place, sizes[part]) < manifest["tasks"]]
    places |= _as_it_is(folder, {part: places[part] for part in growing})
    done = {part: tasks_done(place, sizes[part]) for part, place in places.items()}
    return Results(
        folder,
        manifest,
        runs.with_columns(done=pl.col("part").replace_strict(done, return_dtype=pl.Int32)),
        _scan(places.values(), TASKS, ADDITIONS_SCHEMA if added else TASKS_SCHEMA),
        _scan(places.values(), DISTURBANCES, DISTURBANCES_SCHEMA),
        _scan(places.values(), EPOCHS, EPOCHS_SCHEMA),
    )


_SNAPSHOTS: list[tempfile.TemporaryDirectory[str]] = []
"""Links to files as they were; they go when the process ends, since frames read them when they are collected."""


def _as_it_is(folder: Path, places: Mapping[int, Path]) -> dict[int, Path]:
    """Links to the files of parts, so that frames read what is there now while a run replaces them.

    Where there can be no links, as in a folder that cannot be written to, the files themselves are read.
    """
    if not places:
        return {}
    try:
        _remove_old(folder)
        snapshot = tempfile.TemporaryDirectory(prefix=".reading-", dir=folder, ignore_cleanup_errors=True)
        _SNAPSHOTS.append(snapshot)
        linked = {part: Path(snapshot.name) / f"{part:04d}" for part in places}
        for part, place in places.items():
            linked[part].mkdir()
            # A run writes the tasks last, so that whoever takes them first misses nothing of them in the others.
            for name in (TASKS, DISTURBANCES, EPOCHS):
                if (place / name).exists():
                    os.link(place / name, linked[part] / name)
    except OSError:
        return dict(places)
    return linked


def _remove_old(folder: Path, days: int = 1) -> None:
    """Removes what processes that were killed left behind."""
    for left in folder.glob(".reading-*"):
        if time.time() - left.stat().st_mtime > days * 86400:
            shutil.rmtree(left, ignore_errors=True)


def read_manifest(folder: Path) -> dict[str, Any]:
    """What says how the results of a folder came about.

    Args:
        folder: the folder.

    Returns:
        The manifest.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is of another version, or no manifest.
    """
    path = folder / MANIFEST
    if not path.exists():
        raise FileNotFoundError(
            f"{folder} holds no results: there is no {MANIFEST} in it; supple run makes such folders"
        )
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        found = manifest["format"]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is damaged or no manifest of results ({error})") from error
    if found != FORMAT:
        raise ValueError(
            f"{folder} holds results of format {found}, written by supple {manifest.get('supple', 'unknown')}; this "
            f"supple reads format {FORMAT}. Use that version for this folder, or run the study into another one"
        )
    return dict(manifest)


def problem_of(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings of a study's problem.

    Args:
        manifest: that of the folder.

    Returns:
        The settings by name; none where the folder does not know them.
    """
    return (manifest.get("study") or {}).get("problem") or {}


def part_folder(folder: Path, part: int) -> Path:
    """Where the files of a part lie.

    Args:
        folder: that of the results.
        part: its number.

    Returns:
        Its folder.
    """
    return folder / "parts" / f"{part:04d}"


def tasks_done(place: Path, runs: int) -> int:
    """How many tasks the runs of a part have learned.

    Args:
        place: the folder of the part.
        runs: how many runs it has.

    Returns:
        The number of tasks.
    """
    path = place / TASKS
    return len(_read(path, ["run"])) // runs if path.exists() else 0


def _read(path: Path, columns: list[str] | None = None) -> pl.DataFrame:
    try:
        return pl.read_parquet(path, columns=columns)
    except (pl.exceptions.PolarsError, FileNotFoundError) as error:
        raise ValueError(f"{path} is missing or damaged ({error})") from error


def _scan(places: Iterable[Path], name: str, schema: Mapping[str, Any]) -> pl.LazyFrame:
    files = [place / name for place in places if (place / name).exists()]
    return pl.scan_parquet(files) if files else pl.LazyFrame(schema=schema)
