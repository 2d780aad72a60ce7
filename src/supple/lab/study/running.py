"""Running a study, or what is missing of it, into a results folder."""

from __future__ import annotations

import os
import platform
import threading
import time
from datetime import datetime, timezone
from typing import Any

import polars as pl
import torch

import supple
from supple.lab.study import files, limits
from supple.lab.study.errors import StudyError
from supple.lab.study.manifest import Manifest, differences, open_manifest, united
from supple.lab.study.pool import Outcome, WorkerPool
from supple.lab.study.problems import open_problem
from supple.lab.study.progress import Watcher
from supple.lab.study.results import holds_results
from supple.lab.study.run_config import RunConfig, fitting, usual_part_size
from supple.lab.study.schema import ClassIncremental
from supple.lab.study.spec import Study


def prepare(config: RunConfig) -> tuple[Manifest, list[int]]:
    """Makes or opens the results folder, which has to be locked, and finds out what is to be trained.

    Returned are the manifest, written, and the parts that the run is about. StudyError shows how results that the
    folder holds do not match; ValueError if the folder is of another version, or not even one network fits into the
    memory.
    """
    study = config.study
    problem = open_problem(study, config.data_dir, config.verify, **config.runtime)
    identity = problem.identity
    if holds_results(config.folder):
        manifest = open_manifest(config.folder)
        found = differences(manifest, study, identity)
        if found:
            raise StudyError(
                f"{config.folder} holds results that this study would not give:\n  "
                + "\n  ".join(found)
                + "\nGive another folder with --out, or put the study back as it was."
            )
        manifest.study = united(manifest.study, study)
        manifest.part_size = config.part_size or manifest.part_size
    else:
        manifest = Manifest(config.folder, config.name, study, [], identity, {}, usual_part_size(config))
    manifest.steps = problem.steps(manifest.study.run.tasks, manifest.study.run.seeds)
    manifest.scaled = scaled(config.original or study, manifest.study)
    limits.check_disk(config.folder, len(study.columns) * len(study.run.seeds) * study.run.tasks)
    manifest.add_missing(study.columns, study.run.seeds, fitting(config, problem, manifest.part_size))
    manifest.sessions.append(session(config))
    manifest.write()
    wanted = {(column.text, seed) for column in study.columns for seed in study.run.seeds}
    keys = [column.text for column in manifest.columns]
    parts = [
        number
        for number, part in enumerate(manifest.parts)
        if any((keys[column], seed) in wanted for column in part["columns"] for seed in part["seeds"])
    ]
    return manifest, parts


def run(config: RunConfig, watcher: Watcher | None = None, stop: threading.Event | None = None) -> Outcome:
    """Runs a study, or what is missing of it; the watcher is told how it goes.

    It may be stopped, by setting ``stop``, or killed at any moment; the same call then goes on where it was, and ends
    with the results that it would have given without, bit for bit on the same machine.

    :class:`supple.lab.study.files.Busy` if another process writes into the folder; else it raises what
    :func:`prepare` does.
    """
    watcher, stop = watcher or Watcher(), stop or threading.Event()
    config.folder.mkdir(parents=True, exist_ok=True)
    with files.locked(config.folder):
        manifest, parts = prepare(config)
        began = time.monotonic()
        workers = WorkerPool(config, manifest, parts, watcher, stop)
        try:
            return workers.train()
        finally:
            manifest.sessions[-1]["halved"] = workers.outcome.halved
            manifest.sessions[-1]["seconds"] = round(time.monotonic() - began, 1)
            manifest.write()


def scaled(original: Study, run: Study) -> dict[str, list[Any]]:
    """What is run otherwise than a study file says: for each of "tasks", "seeds" and the like what it says, and is."""
    pairs: dict[str, tuple[Any, Any]] = {
        "tasks": (original.run.tasks, run.run.tasks),
        "seeds": (list(original.run.seeds), list(run.run.seeds)),
        "methods": (list(original.methods), list(run.methods)),
        "data": (original.problem.data, run.problem.data),
        "precision": (original.network.precision, run.network.precision),
    }
    if isinstance(original.problem, ClassIncremental) and isinstance(run.problem, ClassIncremental):
        pairs["epochs"] = original.problem.epochs, run.problem.epochs
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
            "device": "CPU" if config.device == "cpu" else torch.cuda.get_device_name(),
        },
        "versions": {
            "supple": supple.__version__,
            "torch": torch.__version__,
            "polars": pl.__version__,
            "python": platform.python_version(),
        },
    }
