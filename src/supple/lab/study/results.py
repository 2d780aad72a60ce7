"""Results of a study: a folder of Parquet files, and what says how they came about.

``supple run`` writes::

    FOLDER/
      manifest.json                      the study as it was run, its parts, versions, machines, commands
      runs.parquet                       a row a run: one network, with one seed and one set of settings
      parts/0000/tasks.parquet           a row a run and task
      parts/0000/disturbances.parquet    a row a run and measured reinitialization, where images are permuted
      parts/0000/epochs.parquet          a row a run and epoch, where classes are added
      parts/0000/checkpoint.safetensors  where the part goes on
      digests.json, parts/0000/digests.json   a SHA-256 of each file beside them

A part is what was trained together in one population. :func:`export` puts the rows of all parts into one file a table,
beside the manifest, and leaves the checkpoints out. docs/results-format.md describes every column.
"""

from __future__ import annotations

import io
import itertools
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, TypeVar

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from supple.lab.study import checkpoint, files
from supple.lab.study.run_config import PART_SIZE
from supple.lab.study.schema import Outcome
from supple.lab.study.spec import Study, kind_of, study_class
from supple.lab.study.summary import summary_of
from supple.structure.description import format_row, html_table

RAN = ("host", "processor", "device")
"""What the manifest says of each machine that trained a part."""

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


OWN_SCHEMA: Mapping[str, Any] = {**TASKS_SCHEMA, "metric": pl.Float32}
"""Columns of the frame of tasks of a problem of one's own; "metric" is what it is compared by, where that is neither
accuracy nor loss."""

SCHEMAS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "permuted": {DISTURBANCES: DISTURBANCES_SCHEMA, TASKS: TASKS_SCHEMA},
    "class_incremental": {EPOCHS: EPOCHS_SCHEMA, TASKS: ADDITIONS_SCHEMA},
    "own": {TASKS: OWN_SCHEMA},
}
"""The tables of a part, by the kind of study, in the order in which they are written."""

_STAGES = {TASKS: ("task", "tasks"), EPOCHS: ("epoch", "epoch")}
"""Tables that have a row a run and stage: the column of stages, and what a checkpoint calls their number."""

_Count = Annotated[int, Field(ge=0)]
_Number = Annotated[int, Field(ge=1)]
_Value = TypeVar("_Value")
_Pair = Annotated[tuple[_Value, _Value], Field(strict=False)]


class _Record(BaseModel):
    """A table of the manifest; what another version says beyond it is left out."""

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)


class Start(_Record):
    """What the first run of a problem of one's own begins with: a SHA-256 of its first batches and of what its network
    and optimizer are, and on the first batch its loss, the norm of the gradient and the metric.
    """

    digest: str
    loss: float | None = None
    gradient: float | None = None
    metric: float | None = None


class Images(_Record):
    """The images that tasks were made of: how many, and a SHA-256 of their pixels and labels."""

    count: _Count = 0
    digest: str = ""
    start: Start | None = None


class Machine(_Record):
    """What trained; ``device`` is "CPU", or the name of a GPU."""

    system: str = ""
    processor: str = ""
    cores: int | None = None
    device: str = ""


class Session(_Record):
    """One time that ``supple run`` ran: when it started (ISO 8601), for how long, by which command, and where.

    ``halved`` is how often a part was halved because memory ran out.
    """

    started: str = ""
    seconds: float = Field(default=0.0, ge=0, lt=1e12)
    command: str = ""
    processes: int | None = None
    halved: _Count = 0
    graphs: bool = False
    machine: Machine = Machine()
    versions: dict[str, str] = {}


class Scaled(_Record):
    """What was changed on the command line: what the study file says, and what was run."""

    tasks: _Pair[int] | None = None
    seeds: _Pair[list[int]] | None = None
    methods: _Pair[list[str]] | None = None
    data: _Pair[str] | None = None
    precision: _Pair[str] | None = None
    epochs: _Pair[int] | None = None


class ColumnRecord(_Record):
    """What was compared: as :meth:`supple.lab.study.spec.Column.key` gives it, with its point of a grid."""

    method: str
    kind: str
    settings: dict[str, bool | int | float | str]
    network: dict[str, Any]
    optimizer: dict[str, Any]
    point: str


class PartRecord(_Record):
    """What was trained together: the number of the first run, columns by their numbers, and seeds.

    ``ran`` says on what: a "host", its "processor" and "device", in the order in which they had it.
    """

    first: _Count
    columns: list[_Count] = Field(min_length=1)
    seeds: list[Annotated[int, Field(ge=-(2**63), lt=2**63)]] = Field(min_length=1)

    ran: list[dict[str, str]] = []

    @property
    def size(self) -> int:
        """How many runs it has."""
        return len(self.columns) * len(self.seeds)


class ManifestRecord(_Record):
    """What a manifest says; docs/results-format.md describes it."""

    name: str
    study: Study
    tasks: _Number
    steps: _Number | list[_Number]
    images: Images
    outcome: Outcome = Outcome()
    scaled: Scaled
    part_size: _Number | None = PART_SIZE
    columns: list[ColumnRecord] = []
    parts: list[PartRecord] = []
    sessions: list[Session] = []

    @model_validator(mode="before")
    @classmethod
    def _of_its_kind(cls, content: Any) -> Any:
        """Reads the study by its kind; not its columns, since those that were run stand beside it."""
        if isinstance(content, dict) and isinstance(content.get("study"), dict):
            return {**content, "study": study_class(content["study"].get("problem"))(**content["study"])}
        return content

    @model_validator(mode="after")
    def _fits(self) -> ManifestRecord:
        if self.tasks != self.study.run.tasks or (isinstance(self.steps, list) and len(self.steps) != self.tasks):
            raise ValueError("tasks, steps and study.run.tasks do not agree")
        if any(number >= len(self.columns) for part in self.parts for number in part.columns):
            raise ValueError("parts have columns that are not there")
        sizes = [(part.first, part.size) for part in sorted(self.parts, key=lambda part: part.first)]
        starts = itertools.accumulate((size for _, size in sizes), initial=0)
        if any(first != start for (first, _), start in zip(sizes, starts, strict=False)):
            raise ValueError("parts do not have every run once")
        return self


@dataclass(frozen=True, repr=False)
class Results:
    """What a folder holds; printed, and in a notebook, as a row a method.

    ``study`` is as it was run: ``study.run.tasks`` is how many tasks a run has when it is complete; ``steps`` are the
    optimizer steps of each task. ``scaled`` is what was changed on the command line ("tasks", "seeds" and the like),
    each with what the study file says and what was run; ``outcome`` is what runs are compared by. ``runs`` has a row a
    run, as docs/results-format.md describes, with "done", how many tasks it has learned. ``tables`` are the frames
    below by the names of their files, which are read when they are collected where :func:`scan` found them.
    """

    folder: Path
    name: str
    study: Study
    steps: tuple[int, ...]
    images: Images
    outcome: Outcome
    scaled: Mapping[str, tuple[Any, Any]]
    sessions: tuple[Session, ...]
    runs: pl.DataFrame
    tables: Mapping[str, pl.LazyFrame]

    @property
    def command(self) -> str:
        """The command that ran it last, or would run it, each word of it quoted so that a shell takes it as a word."""
        try:
            given = shlex.split(self.sessions[-1].command) if self.sessions else []
        except ValueError:
            given = []
        return shlex.join(
            given if given[:2] in (["supple", "run"], ["supple", "demo"]) else ["supple", "run", self.name]
        )

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

    def __repr__(self) -> str:
        rows = summary_of(self)
        return "\n".join([f"{self.study.title} ({self.folder})", *(format_row(row, rows) for row in rows)])

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return html_table(summary_of(self))


def load(folder: str | PathLike[str]) -> Results:
    """Reads the results of a study, finished or not; while it runs, what was there at this moment.

    FileNotFoundError if the folder holds none, ValueError if they are of another version, damaged or not complete.

    Example:
        >>> results = supple.lab.load("results/small")  # doctest: +SKIP
        >>> late = results.tasks.filter(pl.col("task") >= 900).join(results.runs, on="run")  # doctest: +SKIP
        >>> late.group_by("method").agg(pl.mean("accuracy"))  # doctest: +SKIP
    """
    # A run writes the tasks last, so that whoever reads them first misses nothing of them in the others.
    found = scan(folder)
    tables = {name: found.tables[name].collect() for name in (TASKS, DISTURBANCES, EPOCHS)}
    done = tables[TASKS].group_by("run").agg(done=pl.len().cast(pl.Int32))
    runs = found.runs.drop("done").join(done, on="run", how="left", maintain_order="left")
    runs = runs.with_columns(pl.col("done").fill_null(0))
    return replace(found, runs=runs, tables={name: frame.lazy() for name, frame in tables.items()})


def scan(folder: str | PathLike[str]) -> Results:
    """As :func:`load`, but the rows of tables stay in their files until they are asked for.

    What is summed up by run then never is in memory as a whole; a run that goes on meanwhile may have learned more.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    study, steps, schemas = manifest.study, manifest.steps, SCHEMAS[kind_of(manifest.study)]
    runs = _read_runs(folder, manifest)
    places = {folder: runs}
    if not is_export(folder):
        places = {part_folder(folder, part): some for (part,), some in runs.group_by("part", maintain_order=True)}
    done: dict[int, int] = {}
    for place, some in places.items():
        done |= check_part(place, schemas, some["run"].to_list())
    runs = runs.with_columns(done=pl.Series(map(done.get, runs["run"]), dtype=pl.Int32))
    uneven = runs.group_by("part").agg(pl.n_unique("done")).filter(pl.col("done") > 1)
    if len(uneven) or max(runs["done"]) > manifest.tasks:
        raise files.Damaged(folder / RUNS, "at odds with the tables of tasks, in which runs have other numbers of them")
    orders = {TASKS: ["run", "task"], DISTURBANCES: ["run", "task", "step"], EPOCHS: ["run", "epoch"]}
    other = {DISTURBANCES: DISTURBANCES_SCHEMA, EPOCHS: EPOCHS_SCHEMA}
    return Results(
        folder=folder,
        name=manifest.name,
        study=study,
        steps=(steps,) * manifest.tasks if isinstance(steps, int) else tuple(steps),
        images=manifest.images,
        outcome=manifest.outcome,
        scaled=manifest.scaled.model_dump(exclude_none=True),
        sessions=tuple(manifest.sessions),
        runs=runs,
        tables={name: _table(list(places), name, {**other, **schemas}[name], order) for name, order in orders.items()},
    )


def export(folder: str | PathLike[str], out: str | PathLike[str], *, csv: bool = False) -> Results:
    """Copies results into a small folder: a file a table instead of a file a part, and no checkpoints.

    :func:`load` reads the copy like the original; ``supple run`` cannot go on from it. With ``csv`` each table is there
    as text as well, lists of numbers in one cell, with spaces between them.

    ValueError if ``out`` holds results that ``supple run`` can go on from; an earlier copy there is replaced.
    """
    # Before the tables, so that it tells of no parts that they do not have.
    read_manifest(Path(folder))
    text = files.read(Path(folder) / MANIFEST, bytes)
    results, out = load(folder), Path(out)
    if (out / MANIFEST).exists() and not is_export(out):
        raise ValueError(f"{out} holds results that supple run goes on from; give another folder for the copy")
    tables = {
        RUNS: results.runs.drop("done"),
        DISTURBANCES: results.disturbances,
        EPOCHS: results.epochs,
        TASKS: results.tasks,
    }
    kept = {name: dump_table(table, 22) for name, table in tables.items() if len(table) or name == TASKS}
    texts = {_csv(name): _flat(tables[name]).write_csv().encode() for name in kept if csv}
    for name in {*tables, *map(_csv, tables)} - {*kept, *texts}:
        (out / name).unlink(missing_ok=True)
    files.write(out, {**kept, **texts, MANIFEST: text})
    return results


def _csv(name: str) -> str:
    """What the file of a table is called as text."""
    return f"{Path(name).stem}.csv"


def _flat(table: pl.DataFrame) -> pl.DataFrame:
    """A table without lists, which CSV has none of."""
    return table.with_columns(pl.col(pl.List(pl.Float32)).cast(pl.List(pl.String)).list.join(" "))


def is_export(folder: Path) -> bool:
    """Whether :func:`export` wrote a folder; it has no checkpoints to go on from."""
    return (folder / TASKS).exists() or TASKS in (files.digests(folder) or {})


def holds_results(folder: Path) -> bool:
    """Whether there are results in a folder, also where its manifest has been lost."""
    written = None not in (files.digests(folder) or {}).get(MANIFEST, [None])
    return (folder / MANIFEST).exists() or written or (folder / "parts").exists()


def read_manifest(folder: Path) -> ManifestRecord:
    """Reads the manifest of a folder; FileNotFoundError if there is none, ValueError if it is of another version."""
    path = folder / MANIFEST
    if not holds_results(folder):
        raise FileNotFoundError(
            f"{folder} holds no results: there is no {MANIFEST} in it; supple run makes such folders"
        )
    remedy = f"{files.COPY}; if it was changed on purpose, delete {folder / files.DIGESTS}"
    content = files.read(path, lambda text: {"format": None, **json.loads(text)}, remedy)
    if content["format"] != FORMAT:
        raise ValueError(
            f"{folder} holds results of format {content['format']}, written by supple "
            f"{content.get('supple', 'unknown')}; this supple reads format {FORMAT}. Use that version for this folder, "
            "or run the study into another one"
        )
    try:
        return ManifestRecord(**content)
    except ValidationError as error:
        first = error.errors()[0]
        reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": ")
        raise files.Damaged(path, f"damaged ({reason})", remedy) from error


def part_folder(folder: Path, part: int) -> Path:
    """Where the files of a part of the results in a folder lie."""
    return folder / "parts" / f"{part:04d}"


def check_part(place: Path, schemas: Mapping[str, Mapping[str, Any]], runs: Sequence[int]) -> dict[int, int]:
    """How many tasks each of the runs of a part, or of a copy, has learned.

    Its tables are compared with their digests, or read as a whole where they have none, and their numbers of rows with
    each other and with the checkpoint; :class:`supple.lab.study.files.Damaged` if one is missing or they do not agree.
    """
    remedy = f"supple run trains the runs of its part again; to go without them, delete {place}"
    remedy = files.COPY if (place / MANIFEST).exists() else remedy
    saved, done = place / CHECKPOINT, dict.fromkeys(runs, 0)
    # It is written last, so that tables which are read after it have as much or more.
    there = saved.exists()
    least = {name: checkpoint.number(saved, key) for name, (_, key) in _STAGES.items() if there and name in schemas}
    # The tasks first: they are written last, so that the other tables know of as many.
    for name, schema in reversed(list(schemas.items())):
        path = place / name
        content = files.content(path, remedy)
        if content is None:
            if there:
                raise files.Damaged(path, "missing", remedy)
            continue
        trusted = files.has_digests(place)
        stage, _ = _STAGES.get(name, ("task", ""))
        table = files.parsed(
            path, partial(_parse, content, schema, ["run", stage] if trusted else None), remedy, trusted
        )
        if not set(table["run"].unique()) <= set(runs):
            raise files.Damaged(path, "damaged (it has rows of other runs)", remedy)
        if name not in _STAGES:
            continue  # it has as many rows as something happened
        different = pl.col(stage).drop_nulls().n_unique()
        rows = table.group_by("run").agg(pl.len(), different, first=pl.min(stage), last=pl.max(stage))
        count = pl.col("len")
        whole = rows.filter(pl.col("first") == 0, pl.col("last") + 1 == count, pl.col(stage) == count)
        counts = {**dict.fromkeys(runs, 0), **dict(whole.select("run", "len").iter_rows())}
        if len(whole) < len(rows):
            raise files.Damaged(path, f"damaged (not every run has each {stage} once)", remedy)
        if name == TASKS:
            done = counts
        if any(counts[run] < max(least.get(name, 0), done[run]) for run in runs):
            raise files.Damaged(path, f"incomplete ({CHECKPOINT} or {TASKS} has more)", remedy)
    return done


def read_table(path: Path, schema: Mapping[str, Any] | None = None) -> pl.DataFrame:
    """Reads a table that has such columns; ValueError if it is missing or damaged."""
    return files.read(path, lambda content: _parse(content, schema))


def dump_table(table: pl.DataFrame, level: int = 3) -> bytes:
    """The file of a table, compressed as much as the level says."""
    buffer = io.BytesIO()
    table.write_parquet(buffer, compression_level=level)
    return buffer.getvalue()


def _parse(content: bytes, schema: Mapping[str, Any] | None, columns: list[str] | None = None) -> pl.DataFrame:
    table = pl.read_parquet(io.BytesIO(content), columns=columns)
    if schema is not None and columns is None and dict(table.schema) != dict(schema):
        raise ValueError(f"its columns are {', '.join(table.columns)}, and not {', '.join(schema)}, or of other types")
    return table


def _read_runs(folder: Path, manifest: ManifestRecord) -> pl.DataFrame:
    """The table of runs, which may know of more than the manifest, as it is written before."""

    def parse(content: bytes) -> pl.DataFrame:
        runs = _parse(content, None)
        kinds = {pl.Int64: ("run", "seed", "part"), pl.String: ("method", "kind", "point")}
        for kind, names in kinds.items():
            if not all(runs[name].dtype.is_integer() or runs[name].dtype == kind for name in names):
                raise ValueError(f"one of {', '.join(names)} is of another type")
        identity = runs.select(*kinds[pl.Int64], *kinds[pl.String])
        if identity.null_count().sum_horizontal().item() or runs["run"].to_list() != list(range(len(runs))):
            raise ValueError("it does not have each run once")
        if len(runs) < sum(part.size for part in manifest.parts) or any(one.is_nested() for one in runs.dtypes):
            raise ValueError(f"{MANIFEST} has other runs")
        return runs

    remedy = files.COPY if is_export(folder) else "supple run writes it again"
    return files.read(folder / RUNS, parse, remedy)


def _table(places: Sequence[Path], name: str, schema: Mapping[str, Any], order: Sequence[str]) -> pl.LazyFrame:
    """The rows of a table from all folders that have it, sorted where that is asked for by collecting them."""
    # An absolute path, which no name of a folder turns into a pattern, or a home directory.
    paths = [(place / name).absolute() for place in places if (place / name).exists()]
    options: Any = {"glob": False, "hive_partitioning": False}
    frame = pl.scan_parquet(paths, **options) if paths else pl.LazyFrame(schema=dict(schema))
    return frame.sort(order, maintain_order=True)
