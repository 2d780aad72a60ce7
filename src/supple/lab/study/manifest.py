"""The manifest of a results folder: what was run, in which parts; and what is missing of a study."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

import supple
from supple.lab.study import claims, files
from supple.lab.study.assembly import groups
from supple.lab.study.methods import check_settings, settings_in_full
from supple.lab.study.part import Part
from supple.lab.study.results import (
    FORMAT,
    MANIFEST,
    RAN,
    RUNS,
    ColumnRecord,
    dump_table,
    is_export,
    part_folder,
    read_manifest,
)
from supple.lab.study.run_config import PartSize, cut
from supple.lab.study.schema import Outcome, Section
from supple.lab.study.spec import Column, Study, kind_of


@dataclass
class Manifest:
    """What a results folder says of itself.

    ``steps`` are the optimizer steps of each task, ``images`` their "count" and "digest". A part has the number of its
    "first" run, its "columns" (numbers of those here) and its "seeds"; new ones have at most so many runs as
    ``part_size``, None: as fit into memory. ``scaled`` is as :func:`supple.lab.study.running.scaled` gives it;
    ``sessions`` say when, where and by which command it was run.
    """

    folder: Path
    name: str
    study: Study
    steps: Sequence[int]
    images: Mapping[str, Any]
    scaled: Mapping[str, Any]
    part_size: int | None = None
    outcome: Mapping[str, Any] = field(default_factory=lambda: Outcome().model_dump())
    columns: list[Column] = field(default_factory=list)
    parts: list[dict[str, Any]] = field(default_factory=list)
    sessions: list[dict[str, Any]] = field(default_factory=list)

    def part(self, number: int) -> Part:
        """A part, ready to be trained."""
        entry = self.parts[number]
        return Part(
            self.folder,
            number,
            entry["first"],
            [self.columns[column] for column in entry["columns"]],
            entry["seeds"],
            kind_of(self.study),
        )

    def add_missing(self, columns: Sequence[Column], seeds: Sequence[int], size: PartSize) -> None:
        """Adds parts for the runs of these columns and seeds that the folder does not have."""
        numbers = {column.text: number for number, column in enumerate(self.columns)}
        for column in columns:
            if column.text not in numbers:
                numbers[column.text] = len(self.columns)
                self.columns.append(column)
        here = {(column, seed) for part in self.parts for column in part["columns"] for seed in part["seeds"]}
        first = sum(len(part["columns"]) * len(part["seeds"]) for part in self.parts)
        for group in groups(columns):
            # Columns that lack the same seeds are trained together.
            lacking: dict[tuple[int, ...], list[int]] = defaultdict(list)
            for column in group:
                number = numbers[column.text]
                lacking[tuple(seed for seed in seeds if (number, seed) not in here)].append(number)
            for missing, members in lacking.items():
                if not missing:
                    continue
                counts = len(missing), len(members)
                for some, which in cut(*counts, size(group[0], *counts)):
                    part: dict[str, Any] = {"first": first, "columns": members[which], "seeds": list(missing[some])}
                    self.parts.append(part)
                    first += len(part["columns"]) * len(part["seeds"])

    def halve(self, number: int) -> int:
        """Cuts a part of two runs or more in two, which are trained from the first task on.

        The part becomes the first half; returned is the number of the second.
        """
        entry = self.parts[number]
        columns, seeds, first = entry["columns"], entry["seeds"], entry["first"]
        if len(seeds) > 1:
            middle = (len(seeds) + 1) // 2
            halves = [(columns, seeds[:middle]), (columns, seeds[middle:])]
        else:
            middle = (len(columns) + 1) // 2
            halves = [(columns[:middle], seeds), (columns[middle:], seeds)]
        made = []
        for columns, seeds in halves:
            made.append({"first": first, "columns": columns, "seeds": seeds})
            first += len(columns) * len(seeds)
        self.parts[number] = made[0]
        self.parts.append(made[1])
        return len(self.parts) - 1

    def note_holders(self) -> None:
        """Notes for each part on what it was trained, as its claims say."""
        for number, part in enumerate(self.parts):
            claim = claims.read(part_folder(self.folder, number))
            found = [] if claim is None else [{name: one.get(name, "") for name in RAN} for one in claim.holders]
            part["ran"] = [one for k, one in enumerate(found) if one not in found[:k]]

    def write(self) -> None:
        """Writes the manifest and the table of runs."""
        content = {
            "format": FORMAT,
            "supple": supple.__version__,
            "name": self.name,
            "study": self.study.model_dump(mode="json"),
            "tasks": self.study.run.tasks,
            "steps": self.steps[0] if len(set(self.steps)) == 1 else list(self.steps),
            "images": dict(self.images),
            "outcome": dict(self.outcome),
            "scaled": dict(self.scaled),
            "part_size": self.part_size,
            "columns": [{**column.key(), "point": column.point} for column in self.columns],
            "parts": self.parts,
            "sessions": self.sessions,
        }
        text = json.dumps(content, indent=1)
        files.write(self.folder, {RUNS: dump_table(self._runs()), MANIFEST: text.encode()})

    def _runs(self) -> pl.DataFrame:
        rows = []
        for part, entry in enumerate(self.parts):
            places = [(seed, column) for seed in entry["seeds"] for column in entry["columns"]]
            for run, (seed, number) in enumerate(places, start=entry["first"]):
                column = self.columns[number]
                rows.append(
                    {
                        "run": run,
                        "method": column.method,
                        "kind": column.kind,
                        "seed": seed,
                        "point": column.point,
                        "part": part,
                        **_all_settings(column),
                    }
                )
        frame = pl.DataFrame(rows, infer_schema_length=None)
        return frame.cast({"run": pl.Int32, "part": pl.Int32, "seed": pl.Int64}).sort("run")


def as_cell(value: Any) -> Any:
    """A setting of a study file or a manifest as one value of a frame: several numbers become a text."""
    return ", ".join(map(str, value)) if isinstance(value, tuple | list) else value


def _all_settings(column: Column) -> dict[str, Any]:
    """The settings of a column as a row of the table of runs has them, such as "factor" and "network.hidden"."""
    sections = {"network": column.network, "optimizer": column.optimizer}
    return {
        **column.settings,
        **{
            f"{name}.{key}": as_cell(value)
            for name, section in sections.items()
            for key, value in section.model_dump().items()
        },
    }


def open_manifest(folder: Path) -> Manifest:
    """Reads the manifest of a folder; FileNotFoundError if there is none, ValueError if no run can go on from it."""
    record = read_manifest(folder)
    if is_export(folder):
        raise ValueError(
            f"{folder} is a copy that supple export made, without the checkpoints that a run would go on from; give "
            "another folder with --out"
        )
    study, steps, whole = record.study, record.steps, files.has_digests(folder)

    def column(entry: ColumnRecord) -> Column:
        check_settings(entry.kind, entry.settings)
        settings = settings_in_full(entry.kind, entry.settings)
        network, optimizer = type(study.network)(**entry.network), type(study.optimizer)(**entry.optimizer)
        return Column(entry.method, entry.kind, settings, network, optimizer, entry.point)

    return Manifest(
        folder,
        record.name,
        study,
        [steps] * record.tasks if isinstance(steps, int) else steps,
        record.images.model_dump(exclude_none=True),
        record.scaled.model_dump(exclude_none=True),
        record.part_size,
        record.outcome.model_dump(),
        files.parsed(folder / MANIFEST, lambda: [column(entry) for entry in record.columns], files.COPY, whole),
        [part.model_dump() for part in record.parts],
        [session.model_dump() for session in record.sessions],
    )


def differences(manifest: Manifest, study: Study, images: Mapping[str, Any], outcome: Mapping[str, Any]) -> list[str]:
    """What of a study does not match the results that a folder holds, a line a difference.

    Methods and seeds may be added, and tasks; and methods that are not run this time do not matter.
    """
    lines = []
    sections: list[tuple[str, Section, Section]] = [
        ("problem", manifest.study.problem, study.problem),
        ("measure", manifest.study.measure, study.measure),
    ]
    for name, old, new in sections:
        before, after = old.model_dump(), new.model_dump()
        changed = [key for key in after if before.get(key) != after[key]]
        lines += [_difference(f"{name}.{key}", before.get(key), after[key]) for key in changed]
    if not same_data(manifest.images, images) and not lines:
        what = "network, optimizer, loss or stream" if kind_of(study) == "own" else "images"
        lines.append(f"the {what} are not the same, though the problem has the same name")
    if outcome["column"] != manifest.outcome["column"]:
        lines.append(_difference("what runs are compared by", manifest.outcome["column"], outcome["column"]))
    if study.run.tasks < manifest.study.run.tasks:
        lines.append(_difference("run.tasks", manifest.study.run.tasks, study.run.tasks) + " (it may only grow)")
    wanted: dict[str, list[Column]] = defaultdict(list)
    for column in study.columns:
        wanted[column.method].append(column)
    for column in manifest.columns:
        here = wanted.get(column.method)
        if here and column.text not in {one.text for one in here}:
            lines += _column_differences(column, here)
    return lines


def same_data(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two problems have one identity, as far as the first tells; loss and metric may differ by rounding."""
    known, found = one.get("start") or {}, other.get("start") or {}
    close = all(
        value == found.get(name)
        if isinstance(value, str)
        else math.isclose(value, found.get(name, math.inf), rel_tol=1e-3, abs_tol=1e-6)
        for name, value in known.items()
    )
    return close and {**one, "start": None} == {**other, "start": None}


def united(old: Study, new: Study) -> Study:
    """What a folder holds when two studies of one problem have been run into it.

    It is the second with the methods and seeds of both; methods that only the first has keep its network and optimizer.
    """
    before, content = old.model_dump(mode="json"), new.model_dump(mode="json")
    content["run"]["seeds"] = list(dict.fromkeys((*old.run.seeds, *new.run.seeds)))
    kept = {name: _with_sections(entry, before, content) for name, entry in old.methods.items()}
    return type(new)(**{**content, "methods": {**kept, **new.methods}})


def _with_sections(entry: Mapping[str, Any], before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """A method's entry with what a network and an optimizer were before and are no longer."""
    found = dict(entry)
    for section in ("network", "optimizer"):
        changed = {name: value for name, value in before[section].items() if after[section][name] != value}
        if changed:
            found[section] = {**changed, **entry.get(section, {})}
    return found


def _column_differences(old: Column, wanted: Sequence[Column]) -> list[str]:
    """How a column of the folder differs from the nearest that is wanted."""

    def differing(new: Column) -> list[str]:
        before, after = ({**_all_settings(column), "kind": column.kind} for column in (old, new))
        changed = [key for key in {**before, **after} if before.get(key) != after.get(key)]
        return [_difference(f"methods.{old.method}.{key}", before.get(key), after.get(key)) for key in changed]

    return min((differing(new) for new in wanted), key=len)


def _difference(name: str, old: Any, new: Any) -> str:
    return f"{name}: the results have {old!r}, the study now has {new!r}"
