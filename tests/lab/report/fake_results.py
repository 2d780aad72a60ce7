"""Writes folders of results whose effects are known, in the form that docs/results-format.md describes."""

from __future__ import annotations

import json
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from supple.lab.study import results as form

USUAL: dict[str, dict[str, Any]] = {
    "base": {},
    "reset": {"parts": "network"},
    "l2": {"l2": 1e-4},
    "shrink_and_perturb": {"l2": 1e-4, "variance": 1e-9},
    "cbp": {"maturity": 5, "replacement_rate": 1e-3, "utility": "contribution"},
    "redo": {"frequency": 8, "threshold": 1e-2, "utility": "activation"},
    "swr": {"frequency": 2048, "factor": 1e-6, "utility": "gradient", "pruning": "threshold", "reinit": "resample"},
}
"""Settings of methods in permuted images; others have none."""

USUAL_WHERE_CLASSES_ARE_ADDED: dict[str, dict[str, Any]] = {
    **USUAL,
    "cbp": {"maturity": 10000, "replacement_rate": 1e-7, "utility": "contribution"},
    "redo": {"frequency": 128, "threshold": 5e-4, "utility": "activation"},
    "swr": {"frequency": 128, "factor": 5e-4, "utility": "gradient", "pruning": "threshold", "reinit": "resample"},
}

PROBLEM = {
    "kind": "class_incremental", "data": "cifar100", "first": 5, "step": 5, "epochs": 100, "batch_size": 90,
    "validation": 50, "train_images": None, "test_images": None, "restore": True, "flip": 0.5, "padding": 4,
    "rotation": 15.0,
}  # fmt: skip

NETWORK = {
    "patch_size": 4, "depth": 8, "heads": 12, "width": 384, "hidden": 1536, "dropout": 0.1, "reparameterized": False,
    "precision": "float32", "compiled": False,
}  # fmt: skip

ACTING = ("cbp", "redo", "swr")


@dataclass
class Row:
    """A method of a study.

    Args:
        name: the name of the row.
        early: accuracy of the first tasks.
        late: accuracy at the end; where classes are added, test accuracy at the last addition minus that of a network
            trained from scratch, which grows from 0.
        kind: the method's own name; None: as the row's.
        settings: settings beside the usual ones of the kind; keys with a dot are those of network and optimizer.
        grid: points, each a pair of settings and what they add to the accuracy.
        diverged: seeds whose loss becomes NaN halfway.
        disturbance: size of what a reinitialization changes; None: none is measured.
        dead: share of dead units at the end.
        seeds: its seeds in the order of its runs; None: as many as the folder has, from 0.
    """

    name: str
    early: float = 0.9
    late: float = 0.9
    kind: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    grid: list[tuple[dict[str, Any], float]] = field(default_factory=list)
    diverged: tuple[int, ...] = ()
    disturbance: float | None = None
    dead: float = 0.1
    seeds: tuple[int, ...] | None = None


def ahead(name: str, gain: float = 0.0, **more: Any) -> Row:
    """A method that ends this far ahead of a network trained from scratch, where classes are added."""
    return Row(name, 0.0, gain, **more)


def write(
    folder: Path,
    rows: Sequence[Row],
    *,
    name: str = "permuted_mnist/small",
    tasks: int = 60,
    seeds: int = 6,
    problem: Mapping[str, Any] | None = None,
    network: Mapping[str, Any] | None = None,
    optimizer: Mapping[str, Any] | None = None,
    noise: float = 0.004,
    own_noise: float = 0.001,
    steps: int = 2000,
    **more: Any,
) -> Path:
    """Writes a folder of permuted images.

    Args:
        folder: where to.
        rows: the methods.
        name: of the study.
        tasks: tasks of a run.
        seeds: runs a point.
        problem: settings of the problem that differ from the usual.
        network: settings of the network that differ from the small one's.
        optimizer: settings of the optimizer that differ from plain SGD.
        noise: standard deviation of what runs of a seed and task have in common.
        own_noise: standard deviation of the rest.
        steps: steps a task.
        more: as :func:`_write` takes it.

    Returns:
        The folder.
    """
    network = {"hidden": 10, "depth": 3, "activation": "relu", "layer_norm": None, "skip": None} | dict(network or {})
    network = {"reparameterized": False, "precision": "float32", **network}
    plain = {"name": "sgd", "step_size": 0.05, "momentum": 0.0, "betas": [0.9, 0.999], "weight_decay": 0.0}

    def frames(run: int, row: Row, gain: float, seed: int, learned: int) -> Mapping[str, pl.DataFrame]:
        found = {form.TASKS: _tasks(run, row, gain, seed, tasks, learned, noise, own_noise, network["layer_norm"])}
        if row.disturbance is not None:
            found[form.DISTURBANCES] = _disturbances(run, row, seed)
        return found

    study = {
        "problem": {"kind": "permuted", "data": "mnist", "batch_size": 30, **(problem or {})},
        "network": network,
        "optimizer": {**plain, **(optimizer or {})},
        "run": {"tasks": tasks, "seeds": list(range(seeds))},
    }
    facts = {"name": name, "steps": steps, "images": {"count": 30 * steps, "digest": "0"}}
    return _write(folder, rows, frames, study, USUAL, facts, **more)


def write_additions(
    folder: Path,
    rows: Sequence[Row],
    *,
    name: str = "incremental_cifar100/regular",
    additions: int = 20,
    seeds: int = 6,
    problem: Mapping[str, Any] | None = None,
    network: Mapping[str, Any] | None = None,
    optimizer: Mapping[str, Any] | None = None,
    noise: float = 0.004,
    own_noise: float = 0.001,
    **more: Any,
) -> Path:
    """Writes a folder of classes that come a few at a time, with settings that differ from the paper's.

    Args:
        folder: where to.
        rows: the methods, as :func:`ahead` makes them.
        name: of the study.
        additions: numbers of classes of a run.
        seeds: runs a point.
        problem: settings of the problem.
        network: settings of the network.
        optimizer: settings of the optimizer.
        noise: standard deviation of what runs of a seed and addition have in common.
        own_noise: standard deviation of the rest.
        more: as :func:`_write` takes it.

    Returns:
        The folder.
    """
    given = {**PROBLEM, **(problem or {})}
    cycled = {"name": "sgd", "step_size": 0.01, "momentum": 0.9, "weight_decay": 6e-6, "cycle_momentum": False}

    def frames(run: int, row: Row, gain: float, seed: int, learned: int) -> Mapping[str, pl.DataFrame]:
        made = _additions(run, row, gain, seed, additions, learned, noise, own_noise, given)
        return dict(zip((form.TASKS, form.EPOCHS), made, strict=True))

    study = {
        "problem": given,
        "network": {**NETWORK, **(network or {})},
        "optimizer": {**cycled, **(optimizer or {})},
        "run": {"tasks": additions, "seeds": list(range(seeds))},
    }
    steps = [given["epochs"] * 5 * (k + 1) for k in range(additions)]
    facts = {"name": name, "steps": steps, "images": {"count": 60_000, "digest": "0"}}
    machine = {"cores": 8, "device": "cuda"}
    return _write(
        folder, rows, frames, study, USUAL_WHERE_CLASSES_ARE_ADDED, facts, seconds=7261.0, machine=machine, **more
    )


def _write(
    folder: Path,
    rows: Sequence[Row],
    frames: Any,
    study: Mapping[str, Any],
    usual: Mapping[str, Mapping[str, Any]],
    facts: Mapping[str, Any],
    *,
    done: int | dict[int, int] | None = None,
    part_runs: int = 16,
    scaled: Mapping[str, Any] | None = None,
    command: str | None = None,
    seconds: float = 61.0,
    machine: Mapping[str, Any] | None = None,
) -> Path:
    """Writes a folder.

    Args:
        folder: where to.
        rows: the methods.
        frames: makes the rows of a run's files from its number, the row, what its point adds, its seed and its tasks.
        study: its tables, beside title and methods.
        usual: settings of each kind of method.
        facts: what else the manifest says.
        done: tasks learned, of all runs or by part; None: all.
        part_runs: runs a part.
        scaled: what the study file says, as it was run.
        command: of the session.
        seconds: that it took.
        machine: where.
    """
    tasks, seeds = study["run"]["tasks"], study["run"]["seeds"]
    shared = {f"{part}.{name}": cell(value) for part in ("network", "optimizer") for name, value in study[part].items()}
    runs, traits = [], []
    for row in rows:
        kind = row.kind or row.name
        for point, gain in row.grid or [({}, 0.0)]:
            text = ", ".join(f"{key}={value}" for key, value in point.items())
            for seed in row.seeds if row.seeds is not None else seeds:
                which = {"run": len(runs), "method": row.name, "kind": kind, "seed": seed, "point": text}
                settings = {**shared, **usual.get(kind, {}), **row.settings, **point}
                runs.append({**which, "part": len(runs) // part_runs, **settings})
                traits.append((row, gain, seed))
    manifest = {
        "format": form.FORMAT,
        "supple": "0.1.0",
        **facts,
        "study": {
            "title": f"The study {facts['name']}",
            **study,
            "methods": {row.name: {"kind": row.kind or row.name} for row in rows},
        },
        "tasks": tasks,
        "scaled": scaled or {},
        "parts": [],
        "sessions": [
            {
                "started": "2026-01-02T03:04:05",
                "seconds": seconds,
                "command": command or f"supple run {facts['name']}",
                "machine": {"system": "Linux", "processor": "x86_64", "cores": 2, "device": "cpu", **(machine or {})},
                "versions": {"supple": "0.1.0", "torch": "2.13.0", "python": "3.12.0", "polars": "2.1.0"},
            }
        ],
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / form.MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    pl.DataFrame(runs, infer_schema_length=None).write_parquet(folder / form.RUNS)
    for part in range(1 + (len(runs) - 1) // part_runs):
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


def cell(value: Any) -> Any:
    """A setting as a cell of the table of runs."""
    return ", ".join(map(str, value)) if isinstance(value, list) else value


def generator(*of: Any) -> np.random.Generator:
    """Random numbers that are a function of what they are of."""
    return np.random.default_rng(zlib.crc32(repr(of).encode()))


def _tasks(run, row, gain, seed, tasks, learned, noise, own_noise, layer_norm):
    at = np.arange(learned) / max(1, tasks - 1)
    common = noise * (generator("seed", seed).normal() + generator("tasks", seed).normal(size=tasks)[:learned])
    own = own_noise * generator("run", row.name, gain, seed).normal(size=tasks)[:learned]
    accuracy = row.early + (row.late - row.early) * at + gain + common + own
    loss = 2.5 * (1 - accuracy)
    magnitude = 0.1 + 0.1 * at
    if seed in row.diverged:
        loss[at >= 0.5], magnitude[at >= 0.5], accuracy[at >= 0.5] = np.nan, np.nan, 0.1
    columns = {
        "run": np.full(learned, run),
        "task": np.arange(learned),
        "accuracy": accuracy,
        "loss": loss,
        "dead": row.dead * at,
        "rank": np.round(9 - 4 * row.dead * at).astype(int),
        "weight_magnitude": magnitude,
        "scale_magnitude": [None] * learned if layer_norm is None else 1 + 0.2 * at,
        "gradient_magnitude": 0.01 * (1 + at),
        "reinitialized": np.full(learned, 3 if (row.kind or row.name) in ACTING else 0),
    }
    return pl.DataFrame(columns).cast(dict(form.TASKS_SCHEMA))


def _disturbances(run, row, seed, count=5):
    size = row.disturbance * (1 + 0.05 * generator("disturbance", row.name, seed).normal(size=count))
    return pl.DataFrame(
        {
            "run": np.full(count, run),
            "task": np.arange(count),
            "step": np.full(count, 7),
            "reinitialized": [1] * (count - 1) + [0],
            "loss_before": np.full(count, 1.0),
            # The last step reinitialized nothing, and has a change that must not count.
            "loss_after": 1.0 + np.where(np.arange(count) < count - 1, size, 100.0),
            "gradient_before": np.full(count, 0.01),
            "gradient_after": 0.01 * (1 + size),
            "mean_change": [[s, 2 * s, 3 * s] for s in size],
            "std_change": [[s, s, s] for s in size],
        }
    ).cast(dict(form.DISTURBANCES_SCHEMA))


def _additions(run, row, gain, seed, additions, learned, noise, own_noise, problem):
    at = np.arange(additions) / max(1, additions - 1)
    common = noise * generator("seed", seed).normal(size=additions)
    own = own_noise * generator("run", row.name, gain, seed).normal(size=additions)
    accuracy = 0.9 - 0.25 * at + (row.late + gain) * at + common + own
    gone = (at >= 0.5) & (seed in row.diverged)
    tasks, epochs = [], []
    acts = (row.kind or row.name) in ACTING
    for k in range(learned):
        classes = min(problem["first"] + k * problem["step"], 100 if problem["data"] == "cifar100" else 10)
        lost = bool(gone[k])
        end = 0.0 if lost else float(accuracy[k])
        tasks.append(
            {
                "run": run,
                "task": k,
                "accuracy": end,
                "loss": np.nan if lost else 2.5 * (1 - end),
                "dead": None if lost else row.dead * at[k],
                "rank": None if lost else round(60 - 40 * row.dead * at[k]),
                "weight_magnitude": None if lost else 0.03 + 0.02 * at[k] * (1 + row.dead),
                "scale_magnitude": None if lost else 1 - 0.4 * at[k] * row.dead,
                "gradient_magnitude": None,
                "reinitialized": 300 + k if acts and not lost else 0,
                "classes": classes,
                "dead_before": None if lost or not k else 0.5 * row.dead * at[k],
                "rank_before": None if lost or not k else round(70 - 30 * row.dead * at[k]),
                "best_epoch": None if lost else (k + 1) * problem["epochs"] - 1,
                "validation_accuracy": end,
                # Accuracies that rise by a tenth from the class that came first to the last.
                "class_accuracy": [] if lost else list(end + 0.1 * (np.arange(classes) / max(1, classes - 1) - 0.5)),
            }
        )
        learning = 1 - 0.35 * np.exp(-6 * np.arange(problem["epochs"]) / problem["epochs"])
        values = learning * end
        loss = np.full(len(values), np.nan) if lost else 2.5 * (1 - values)
        epochs.append(
            {
                "run": np.full(len(values), run),
                "task": np.full(len(values), k),
                "epoch": k * problem["epochs"] + np.arange(len(values)),
                "classes": np.full(len(values), classes),
                **dict.fromkeys(("loss", "validation_loss", "test_loss"), loss),
                **dict.fromkeys(("accuracy", "validation_accuracy", "test_accuracy"), values),
                "reinitialized": np.zeros(len(values), dtype=int),
            }
        )
    schema = dict(form.EPOCHS_SCHEMA)
    return (
        pl.DataFrame(tasks, schema=dict(form.ADDITIONS_SCHEMA), strict=False),
        pl.concat([pl.DataFrame(one).select(list(schema)).cast(schema) for one in epochs]),
    )
