"""Results of a study: a folder of Parquet files, and what says how they came about.

``supple run`` writes::

    FOLDER/
      manifest.json                      the study as it was run, its parts, versions, machines, commands
      runs.parquet                       a row a run: one network, with one seed and one set of settings
      parts/0000/tasks.parquet           a row a run and task
      parts/0000/disturbances.parquet    a row a run and measured reinitialization, where images are permuted
      parts/0000/epochs.parquet          a row a run and epoch, where classes are added
      parts/0000/checkpoint.safetensors  where the part goes on

A part is what was trained together in one population. :func:`export` puts the rows of all parts into one file a table,
beside the manifest, and leaves the checkpoints out. docs/results-format.md describes every column.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict, ValidationError

from supple.lab.study import files
from supple.lab.study.spec import STUDIES, Study

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


class _Record(BaseModel):
    """A table of the manifest; what another version says beyond it is left out."""

    model_config = ConfigDict(frozen=True)


class Images(_Record):
    """The images that tasks were made of: how many, and a SHA-256 of their pixels and labels."""

    count: int = 0
    digest: str = ""


class Machine(_Record):
    """What trained; ``device`` is "CPU", or the name of a GPU."""

    system: str = ""
    processor: str = ""
    cores: int | None = None
    device: str = ""


class Session(_Record):
    """One time that ``supple run`` ran: when it started (ISO 8601), for how long, by which command, and where."""

    started: str = ""
    seconds: float = 0.0
    command: str = ""
    processes: int | None = None
    graphs: bool = False
    machine: Machine = Machine()
    versions: dict[str, str] = {}


@dataclass(frozen=True)
class Results:
    """What a folder holds.

    ``study`` is as it was run: ``study.run.tasks`` is how many tasks a run has when it is complete; ``steps`` are the
    optimizer steps of each task. ``scaled`` is what was changed on the command line ("tasks", "seeds" and the like),
    each with what the study file says and what was run. ``runs`` has a row a run, as docs/results-format.md describes,
    with "done", how many tasks it has learned. ``tables`` are the frames below by the names of their files, which are
    read when they are collected where :func:`scan` found them.
    """

    folder: Path
    name: str
    study: Study
    steps: tuple[int, ...]
    images: Images
    scaled: Mapping[str, tuple[Any, Any]]
    sessions: tuple[Session, ...]
    runs: pl.DataFrame
    tables: Mapping[str, pl.LazyFrame]

    @property
    def tasks(self) -> pl.DataFrame:
        """A row a run and task, sorted by both; :data:`TASKS_SCHEMA`, or :data:`ADDITIONS_SCHEMA`."""
        return self.tables[TASKS].collect()

    @property
    def disturbances(self) -> pl.DataFrame:
        """A row a run and measured reinitialization, sorted by run, task and step; :data:`DISTURBANCES_SCHEMA`."""
        return self.tables[DISTURBANCES].collect()

    @property
    def epochs(self) -> pl.DataFrame:
        """A row a run and epoch, sorted by both, where tasks are additions of classes; :data:`EPOCHS_SCHEMA`."""
        return self.tables[EPOCHS].collect()


def load(folder: str | PathLike[str]) -> Results:
    """Reads the results of a study, finished or not; while it runs, what was there at this moment.

    FileNotFoundError if the folder holds none, ValueError if they are of another version or damaged.

    Example:
        >>> results = supple.lab.load("results/small")  # doctest: +SKIP
        >>> late = results.tasks.filter(pl.col("task") >= 900).join(results.runs, on="run")  # doctest: +SKIP
        >>> late.group_by("method").agg(pl.mean("accuracy"))  # doctest: +SKIP
    """
    # A run writes the tasks last, so that whoever reads them first misses nothing of them in the others.
    found = scan(folder)
    tables = {name: found.tables[name].collect() for name in (TASKS, DISTURBANCES, EPOCHS)}
    runs = _with_done(found.runs.drop("done"), tables[TASKS].lazy())
    return replace(found, runs=runs, tables={name: frame.lazy() for name, frame in tables.items()})


def scan(folder: str | PathLike[str]) -> Results:
    """As :func:`load`, but the rows of tables stay in their files until they are asked for.

    What is summed up by run then never is in memory as a whole; a run that goes on meanwhile may have learned more.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    try:
        study = STUDIES[manifest["study"]["problem"]["kind"]](**manifest["study"])
        steps = manifest["steps"]
        images = Images(**manifest["images"])
        scaled = {name: (file, run) for name, (file, run) in manifest["scaled"].items()}
        sessions = tuple(Session(**one) for one in manifest.get("sessions", ()))
    except (ValidationError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder / MANIFEST} is damaged ({error})") from error
    runs = read_table(folder / RUNS)
    places = [folder] if is_export(folder) else [part_folder(folder, part) for part in sorted(set(runs["part"]))]
    added = study.problem.kind == "class_incremental"
    tables = {
        TASKS: _table(places, TASKS, ADDITIONS_SCHEMA if added else TASKS_SCHEMA, ["run", "task"]),
        DISTURBANCES: _table(places, DISTURBANCES, DISTURBANCES_SCHEMA, ["run", "task", "step"]),
        EPOCHS: _table(places, EPOCHS, EPOCHS_SCHEMA, ["run", "epoch"]),
    }
    return Results(
        folder=folder,
        name=manifest["name"],
        study=study,
        steps=(steps,) * study.run.tasks if isinstance(steps, int) else tuple(steps),
        images=images,
        scaled=scaled,
        sessions=sessions,
        runs=_with_done(runs, tables[TASKS]),
        tables=tables,
    )


def export(folder: str | PathLike[str], out: str | PathLike[str]) -> Results:
    """Copies results into a small folder: a file a table instead of a file a part, and no checkpoints.

    :func:`load` reads the copy like the original; ``supple run`` cannot go on from it.

    ValueError if ``out`` holds results that ``supple run`` can go on from; an earlier copy there is replaced.
    """
    # Before the tables, so that it tells of no parts that they do not have.
    text = json.dumps(read_manifest(Path(folder)), indent=1)
    results, out = load(folder), Path(out)
    if (out / MANIFEST).exists() and not is_export(out):
        raise ValueError(f"{out} holds results that supple run goes on from; give another folder for the copy")
    tables = {
        RUNS: results.runs.drop("done"),
        DISTURBANCES: results.disturbances,
        EPOCHS: results.epochs,
        TASKS: results.tasks,
    }
    for name, table in tables.items():
        if table.is_empty() and name != TASKS:
            (out / name).unlink(missing_ok=True)
        else:
            files.replace(out / name, lambda new, table=table: table.write_parquet(new, compression_level=22))  # type: ignore[misc]
    files.replace(out / MANIFEST, lambda new: new.write_text(text, encoding="utf-8"))
    return results


def is_export(folder: Path) -> bool:
    """Whether :func:`export` wrote a folder; it has no checkpoints to go on from."""
    return (folder / TASKS).exists()


def read_manifest(folder: Path) -> dict[str, Any]:
    """Reads the manifest of a folder; FileNotFoundError if there is none, ValueError if it is of another version."""
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


def part_folder(folder: Path, part: int) -> Path:
    """Where the files of a part of the results in a folder lie."""
    return folder / "parts" / f"{part:04d}"


def _table(places: Sequence[Path], name: str, schema: Mapping[str, Any], order: Sequence[str]) -> pl.LazyFrame:
    """The rows of a table from all folders that have it, sorted where that is asked for by collecting them."""
    paths = [place / name for place in places if (place / name).exists()]
    for path in paths:
        try:
            pl.read_parquet_schema(path)
        except pl.exceptions.PolarsError as error:
            raise ValueError(f"{path} is missing or damaged ({error})") from error
    frame = pl.scan_parquet(paths) if paths else pl.LazyFrame(schema=dict(schema))
    return frame.sort(order, maintain_order=True)


def _with_done(runs: pl.DataFrame, tasks: pl.LazyFrame) -> pl.DataFrame:
    """The runs with how many tasks each has learned."""
    done = tasks.group_by("run").agg(done=pl.len().cast(pl.Int32)).collect(engine="streaming")
    return runs.join(done, on="run", how="left", maintain_order="left").with_columns(pl.col("done").fill_null(0))


def read_table(path: Path, columns: list[str] | None = None) -> pl.DataFrame:
    """Reads a table; ValueError if it is missing or damaged."""
    try:
        return pl.read_parquet(path, columns=columns)
    except (pl.exceptions.PolarsError, FileNotFoundError) as error:
        raise ValueError(f"{path} is missing or damaged ({error})") from error
