"""Running a study: which parts there are, worker processes that train them, and what is told meanwhile."""

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
from supple.lab.study import files
from supple.lab.study.courses import open_course
from supple.lab.study.crew import Crew, Outcome, Watcher
from supple.lab.study.manifest import Manifest, differences, open_manifest, united
from supple.lab.study.mistakes import StudyError
from supple.lab.study.order import Order, part_size, process_count
from supple.lab.study.results import MANIFEST
from supple.lab.study.spec import Study
from supple.lab.study.tables import ClassIncremental


def prepare(order: Order) -> tuple[Manifest, list[int]]:
    """Makes or opens the results folder and finds out what is to be trained; the folder has to be locked.

    Args:
        order: what is to be run.

    Returns:
        (the manifest, written; the parts that the order is about).

    Raises:
        StudyError: if the folder holds results that do not match; the message shows the difference.
        ValueError: if the folder is of another version, or not even one network fits into the memory.
        OSError: if the images cannot be read or the folder not be written.
    """
    study = order.study
    course = open_course(study, order.data_dir, order.verify)
    identity = course.identity
    if (order.folder / MANIFEST).exists():
        manifest = open_manifest(order.folder)
        found = differences(manifest, study, identity)
        if found:
            raise StudyError(
                f"{order.folder} holds results that this study would not give:\n  "
                + "\n  ".join(found)
                + "\nGive another folder with --out, or put the study back as it was."
            )
        manifest.study = united(manifest.study, study)
    else:
        manifest = Manifest(order.folder, order.name, study, [], identity, {})
    manifest.steps = course.steps(manifest.study.run.tasks, manifest.study.run.seeds)
    manifest.scaled = scaled(order.original or study, manifest.study)
    manifest.add_missing(study.columns, study.run.seeds, part_size(order, course))
    manifest.sessions.append(
        {
            "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "seconds": 0.0,
            "command": order.command,
            "processes": process_count(order),
            "machine": machine(order.device),
            "versions": versions(),
        }
    )
    manifest.write()
    wanted = {(column.text, seed) for column in study.columns for seed in study.run.seeds}
    keys = [column.text for column in manifest.columns]
    parts = [
        number
        for number, part in enumerate(manifest.parts)
        if any((keys[column], seed) in wanted for column in part["columns"] for seed in part["seeds"])
    ]
    return manifest, parts


def run(order: Order, watcher: Watcher | None = None, stop: threading.Event | None = None) -> Outcome:
    """Runs a study, or what is missing of it, into a results folder.

    It may be stopped or killed at any moment; the same call then goes on where it was, and ends with the results that
    it would have given without, bit for bit on the same machine.

    Args:
        order: what is to be run.
        watcher: what is told how it goes.
        stop: stops the run when it is set; what has been learned stays.

    Returns:
        How it ended.

    Raises:
        Busy: if another process writes into the folder.
        StudyError: as :func:`prepare`.
        ValueError: as :func:`prepare`.
        OSError: as :func:`prepare`.
    """
    watcher, stop = watcher or Watcher(), stop or threading.Event()
    order.folder.mkdir(parents=True, exist_ok=True)
    with files.locked(order.folder):
        manifest, parts = prepare(order)
        began = time.monotonic()
        try:
            return Crew(order, manifest, parts, watcher, stop).train()
        finally:
            manifest.sessions[-1]["seconds"] = round(time.monotonic() - began, 1)
            manifest.write()


def scaled(original: Study, run: Study) -> dict[str, list[Any]]:
    """What of a study is run otherwise than its file says.

    Args:
        original: the study as its file says it.
        run: the study as it is run.

    Returns:
        For each of "tasks", "epochs", "seeds", "methods" and "data" that differs what the file says, and what is run.
    """
    pairs: dict[str, tuple[Any, Any]] = {
        "tasks": (original.run.tasks, run.run.tasks),
        "seeds": (list(original.run.seeds), list(run.run.seeds)),
        "methods": (list(original.methods), list(run.methods)),
        "data": (original.problem.data, run.problem.data),
    }
    if isinstance(original.problem, ClassIncremental) and isinstance(run.problem, ClassIncremental):
        pairs["epochs"] = original.problem.epochs, run.problem.epochs
    return {name: list(pair) for name, pair in pairs.items() if pair[0] != pair[1]}


def machine(device: str) -> dict[str, Any]:
    """What trains.

    Args:
        device: "cpu" or "cuda".

    Returns:
        "system", "processor", "cores" and "device".
    """
    return {
        "system": platform.system(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "device": "CPU" if device == "cpu" else torch.cuda.get_device_name(),
    }


def versions() -> dict[str, str]:
    """Versions of what the results depend on.

    Returns:
        The version by name.
    """
    return {
        "supple": supple.__version__,
        "torch": torch.__version__,
        "polars": pl.__version__,
        "python": platform.python_version(),
    }
