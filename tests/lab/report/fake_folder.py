"""What folders of made-up results have in common, whatever their problem."""

from __future__ import annotations

import json
import zlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from supple.lab.study import results as form

Frames = Callable[[int, Any, float, int, int], Mapping[str, pl.DataFrame]]
"""The rows of each file, from a run, the row of its method, what its point adds, its seed and the tasks it learned."""


def write_folder(
    folder: Path,
    rows: Sequence[Any],
    frames: Frames,
    *,
    name: str,
    study: Mapping[str, Any],
    settings: Mapping[str, Mapping[str, Any]],
    seeds_of: Callable[[Any], Sequence[int]],
    tasks: int,
    seeds: int,
    steps: int | Sequence[int],
    images: int,
    done: int | dict[int, int] | None,
    part_runs: int,
    scaled: Mapping[str, Any] | None,
    session: Mapping[str, Any],
) -> Path:
    """Writes a folder.

    Args:
        folder: where to.
        rows: the methods, with "name", "kind", "settings" and "grid".
        frames: makes the rows of a run's files.
        name: of the study.
        study: its tables, beside those that follow from the rest.
        settings: usual settings of each kind of method.
        seeds_of: the seeds of a method.
        tasks: tasks of a run.
        seeds: how many seeds the study says.
        steps: steps a task.
        images: number of images.
        done: tasks learned, of all runs or by part; None: all.
        part_runs: runs a part.
        scaled: what the study file says, as it was run.
        session: "seconds", "cores" and "device" of the session.

    Returns:
        The folder.
    """
    runs, traits = [], []
    for row in rows:
        kind = row.kind or row.name
        for point, gain in row.grid or [({}, 0.0)]:
            for seed in seeds_of(row):
                runs.append(
                    {
                        "run": len(runs),
                        "method": row.name,
                        "kind": kind,
                        "seed": seed,
                        "point": ", ".join(f"{key}={value}" for key, value in point.items()),
                        "part": len(runs) // part_runs,
                        **{f"network.{key}": value for key, value in study["network"].items()},
                        **{
                            f"optimizer.{key}": ", ".join(map(str, value)) if isinstance(value, list) else value
                            for key, value in study["optimizer"].items()
                        },
                        **{**settings[kind], **row.settings, **point},
                    }
                )
                traits.append((row, gain, seed))
    parts = 1 + (len(runs) - 1) // part_runs
    manifest = {
        "format": form.FORMAT,
        "supple": "0.1.0",
        "name": name,
        "study": {
            "title": f"The study {name}",
            **study,
            "run": {"tasks": tasks, "seeds": list(range(seeds))},
            "methods": {row.name: {"kind": row.kind or row.name} for row in rows},
        },
        "tasks": tasks,
        "steps": steps,
        "images": {"count": images, "digest": "0"},
        "scaled": scaled or {},
        "parts": [{"runs": part_runs}] * parts,
        "sessions": [
            {
                "started": "2026-01-02T03:04:05",
                "seconds": session["seconds"],
                "command": f"supple run {name}",
                "machine": {
                    "system": "Linux", "processor": "x86_64", "cores": session["cores"], "device": session["device"]
                },
                "versions": {"supple": "0.1.0", "torch": "2.13.0", "python": "3.12.0", "polars": "2.1.0"},
            }
        ],
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / form.MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    pl.DataFrame(runs, infer_schema_length=None).write_parquet(folder / form.RUNS)
    for part in range(parts):
        learned = tasks if done is None else done.get(part, 0) if isinstance(done, dict) else done
        if not learned:
            continue
        place = form.part_folder(folder, part)
        place.mkdir(parents=True, exist_ok=True)
        made: dict[str, list[pl.DataFrame]] = defaultdict(list)
        for run in range(part * part_runs, min((part + 1) * part_runs, len(runs))):
            for file, frame in frames(run, *traits[run], learned).items():
                made[file].append(frame)
        for file, some in made.items():
            pl.concat(some).write_parquet(place / file)
    return folder


def generator(*of: Any) -> np.random.Generator:
    """Random numbers that are a function of what they are of.

    Args:
        of: what.

    Returns:
        Their generator.
    """
    return np.random.default_rng(zlib.crc32(repr(of).encode()))
