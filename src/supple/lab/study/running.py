"""Running a study, or what is missing of it, into a results folder."""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from supple.lab import limits
from supple.lab.study import claims, fitness
from supple.lab.study.errors import StudyError
from supple.lab.study.executor import Executor, Processes
from supple.lab.study.manifest import Manifest, differences, open_manifest, united
from supple.lab.study.pool import Outcome, WorkerPool
from supple.lab.study.problems import open_problem
from supple.lab.study.progress import Watcher
from supple.lab.study.results import holds_results
from supple.lab.study.run_config import RunConfig, fitting, usual_part_size
from supple.lab.study.spec import Study

GRACE = 20.0
"""Seconds that workers beside others have for the stage that they are learning when they are to stop; schedulers give
30 before they kill."""

_MANIFEST_WAIT = 120.0
"""Seconds to wait for others that write the manifest."""


def prepare(config: RunConfig) -> tuple[Manifest, list[int]]:
    """Finds out what is to be trained beside others, as :func:`plan` does, and writes what the manifest lacks.

    The folder has to be claimed. A manifest that has all parts stays as it is.
    """
    manifest, parts, new = plan(config)
    if new:
        manifest.sessions.append(session(config))
        manifest.write()
    return manifest, parts


def plan(config: RunConfig) -> tuple[Manifest, list[int], bool]:
    """Finds out what is to be trained into a results folder, and writes nothing.

    Returned are the manifest, the parts that the run is about, and whether it says what that of the folder does not.
    StudyError shows how results that the folder holds do not match; ValueError if the folder is of another version, or
    not even one network fits into the memory.
    """
    study = config.study
    problem = open_problem(study, **config.problem_options)
    problem.check(study.run.tasks, study.columns, study.run.seeds)
    outcome = problem.outcome.model_dump()
    if holds_results(config.folder):
        manifest = open_manifest(config.folder)
        identity = problem.identity(manifest.columns[0], manifest.study.run.seeds[0])
        found = differences(manifest, study, identity, outcome)
        if found:
            raise StudyError(
                f"{config.folder} holds results that this study would not give:\n  "
                + "\n  ".join(found)
                + "\nGive another folder with --out, or put the study back as it was."
            )
        before = manifest.study, len(manifest.parts), manifest.outcome
        # The values stay what they are where it is put right whether lower is better.
        manifest.outcome = outcome
        manifest.study = united(manifest.study, study)
        manifest.part_size = config.part_size or manifest.part_size
    else:
        size = usual_part_size(config)
        manifest = Manifest(config.folder, config.name, study, [], problem.identity(), {}, size, outcome)
        before = None
    manifest.steps = problem.steps(manifest.study.run.tasks, manifest.study.run.seeds)
    manifest.scaled = scaled(config.original or study, manifest.study)
    limits.check_disk(config.folder, len(study.columns) * len(study.run.seeds) * study.run.tasks)
    manifest.add_missing(study.columns, study.run.seeds, fitting(config, problem, manifest.part_size))
    wanted = {(column.text, seed) for column in study.columns for seed in study.run.seeds}
    keys = [column.text for column in manifest.columns]
    parts = [
        number
        for number, part in enumerate(manifest.parts)
        if any((keys[column], seed) in wanted for column in part["columns"] for seed in part["seeds"])
    ]
    return manifest, parts, before != (manifest.study, len(manifest.parts), manifest.outcome)


def run(
    config: RunConfig,
    watcher: Watcher | None = None,
    stop: threading.Event | None = None,
    executor: Executor | None = None,
) -> Outcome:
    """Runs a study, or what is missing of it; the watcher is told how it goes.

    The executor has the workers; None: processes of this machine.

    It may be stopped, by setting ``stop``, or killed at any moment; the same call then goes on where it was, and ends
    with the results that it would have given without, bit for bit on the same kind of processor.

    :class:`supple.lab.study.claims.Busy` if another process writes into the folder; else it raises what
    :func:`plan` and the executor do.
    """
    watcher, stop = watcher or Watcher(), stop or threading.Event()
    executor = executor or Processes(config.process_count)
    with (
        closing(executor),
        emptied(config.folder),
        claims.claimed(config.folder),
        fitness.token(config.folder) as token,
    ):
        executor.check(config, token)
        manifest, parts, _ = plan(config)
        executor.prepare(config, manifest)
        manifest.sessions.append(session(config))
        manifest.write()
        began = time.monotonic()
        workers = WorkerPool(config, manifest, parts, executor, watcher, stop, token)
        try:
            return workers.train()
        finally:
            manifest.sessions[-1]["halved"] = workers.outcome.halved
            manifest.sessions[-1]["seconds"] = round(time.monotonic() - began, 1)
            manifest.note_holders()
            manifest.write()


def join(
    config: RunConfig,
    shard: tuple[int, int],
    watcher: Watcher | None = None,
    stop: threading.Event | None = None,
    whole: bool = False,
) -> Outcome:
    """Trains what is missing of one share of a study, (which, of how many), beside others that train the other shares.

    The first one makes the folder. ``whole``: the folder is there, and each takes parts of all as they come, those of
    its share first. Parts that others are training are left to them. It raises what :func:`run` does.
    """
    watcher, stop = watcher or Watcher(), stop or threading.Event()
    which, count = shard
    with emptied(config.folder), claims.claimed(config.folder, _MANIFEST_WAIT):
        manifest, parts = prepare(config)
        fitness.compare(manifest.sessions[-1].get("versions", {}))
    first = (
        parts[len(parts) * which // count :] + parts[: len(parts) * which // count] if whole else parts[which::count]
    )
    workers = WorkerPool(
        config,
        manifest,
        first,
        Processes(config.process_count),
        watcher,
        stop,
        together=True,
        shared=whole,
        grace=GRACE,
    )
    outcome = workers.train()
    # Who comes last writes down what ran where.
    with suppress(claims.Busy), claims.claimed(config.folder, _MANIFEST_WAIT if outcome.complete else 0):
        manifest = open_manifest(config.folder)
        manifest.sessions[-1]["halved"] += outcome.halved
        manifest.note_holders()
        manifest.write()
    return outcome


@contextmanager
def emptied(folder: Path) -> Iterator[None]:
    """Makes a folder, and takes it away again where it is refused, with a ValueError or an OSError, and empty."""
    was_there = folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except (OSError, ValueError):
        if not was_there:
            with suppress(OSError):
                folder.rmdir()
        raise


def scaled(original: Study, run: Study) -> dict[str, list[Any]]:
    """What is run otherwise than a study file says: for each of "tasks", "seeds" and the like what it says, and is."""
    pairs: dict[str, tuple[Any, Any]] = {
        "tasks": (original.run.tasks, run.run.tasks),
        "seeds": (list(original.run.seeds), list(run.run.seeds)),
        "methods": (list(original.methods), list(run.methods)),
    }
    for name, section in (("data", "problem"), ("precision", "network"), ("epochs", "problem")):
        before, after = (getattr(getattr(one, section), name, None) for one in (original, run))
        if isinstance(before, str | int) and isinstance(after, type(before)):
            pairs[name] = before, after
    return {name: list(pair) for name, pair in pairs.items() if pair[0] != pair[1]}


def session(config: RunConfig) -> dict[str, Any]:
    """When, where and by which command a study is run, with the versions that the results depend on."""
    return {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "seconds": 0.0,
        "command": config.command,
        "processes": config.process_count,
        "graphs": config.graphs,
        "machine": {
            "system": platform.system(),
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "device": fitness.device(config.device)["device"],
        },
        "versions": fitness.installed(),
    }
