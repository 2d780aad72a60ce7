"""Writes folders of class-incremental results whose effects are known; see docs/results-format.md."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from fake_folder import generator, write_folder
from fake_results import METHOD_SETTINGS

from supple.lab.study import results as form

SETTINGS: dict[str, dict[str, Any]] = {
    **METHOD_SETTINGS,
    "reset": {"parts": "network"},
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

OPTIMIZER = {"name": "sgd", "step_size": 0.01, "momentum": 0.9, "weight_decay": 6e-6, "cycle_momentum": False}


@dataclass
class Row:
    """A method: what it is ahead of a network trained from scratch grows from 0 to ``gain`` over the additions.

    Args:
        name: the name of the row.
        gain: test accuracy at the last addition minus that of a network trained from scratch.
        kind: the method's own name; None: as the row's.
        settings: settings beside the usual ones of the kind.
        grid: points, each a pair of settings and what they add to the accuracy.
        diverged: seeds that diverge halfway.
        dead: share of dormant units at the last addition, on the new classes.
        seeds: its seeds in the order of its runs; None: as many as the folder has, from 0.
    """

    name: str
    gain: float = 0.0
    kind: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    grid: list[tuple[dict[str, Any], float]] = field(default_factory=list)
    diverged: tuple[int, ...] = ()
    dead: float = 0.1
    seeds: tuple[int, ...] | None = None


def write(
    folder: Path,
    rows: list[Row],
    *,
    name: str = "incremental_cifar100/regular",
    additions: int = 20,
    seeds: int = 6,
    done: int | dict[int, int] | None = None,
    problem: dict[str, Any] | None = None,
    network: dict[str, Any] | None = None,
    optimizer: dict[str, Any] | None = None,
    noise: float = 0.004,
    own_noise: float = 0.001,
    part_runs: int = 16,
    scaled: dict[str, Any] | None = None,
) -> Path:
    """Writes a folder; ``noise`` is common to a seed and addition, ``own_noise`` is each run's.

    Args:
        folder: where to.
        rows: the methods.
        name: of the study.
        additions: numbers of classes of a run.
        seeds: runs a point.
        done: additions learned, of all runs or by part; None: all.
        problem: settings of the problem that differ from the paper's.
        network: settings of the network that differ from the paper's.
        optimizer: settings of the optimizer that differ from the paper's.
        noise: standard deviation of what runs of a seed have in common.
        own_noise: standard deviation of the rest.
        part_runs: runs a part.
        scaled: what the study file says, as it was run.

    Returns:
        The folder.
    """
    problem, network = {**PROBLEM, **(problem or {})}, {**NETWORK, **(network or {})}
    optimizer = {**OPTIMIZER, **(optimizer or {})}

    def frames(run: int, row: Row, gain: float, seed: int, learned: int) -> dict[str, pl.DataFrame]:
        made = _run(run, row, gain, seed, additions, learned, noise, own_noise, problem)
        return dict(zip((form.TASKS, form.EPOCHS), made, strict=True))

    measure = {"examples": 1000}
    return write_folder(
        folder,
        rows,
        frames,
        name=name,
        study={"problem": problem, "network": network, "optimizer": optimizer, "measure": measure},
        settings=SETTINGS,
        seeds_of=lambda row: row.seeds if row.seeds is not None else range(seeds),
        tasks=additions,
        seeds=seeds,
        steps=[problem["epochs"] * 5 * (k + 1) for k in range(additions)],
        images=60_000,
        done=done,
        part_runs=part_runs,
        scaled=scaled,
        session={"seconds": 7261.0, "cores": 8, "device": "cuda"},
    )


def _run(run, row, gain, seed, additions, learned, noise, own_noise, problem):
    at = np.arange(additions) / max(1, additions - 1)
    common = noise * generator("seed", seed).normal(size=additions)
    own = own_noise * generator("run", row.name, gain, seed).normal(size=additions)
    accuracy = 0.9 - 0.25 * at + (row.gain + gain) * at + common + own
    gone = (at >= 0.5) & (seed in row.diverged)
    tasks, epochs = [], []
    acts = (row.kind or row.name) in ("cbp", "redo", "swr")
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
                "class_accuracy": [] if lost else _by_class(end, classes),
            }
        )
        for e in range(problem["epochs"]):
            share = 1 - 0.35 * np.exp(-6 * e / problem["epochs"])
            loss = np.nan if lost else 2.5 * (1 - share * end)
            epochs.append(
                {
                    "run": run,
                    "task": k,
                    "epoch": k * problem["epochs"] + e,
                    "classes": classes,
                    "loss": loss,
                    "accuracy": share * end,
                    "validation_loss": loss,
                    "validation_accuracy": share * end,
                    "test_loss": loss,
                    "test_accuracy": share * end,
                    "reinitialized": 0,
                }
            )
    return (
        pl.DataFrame(tasks, schema=dict(form.ADDITIONS_SCHEMA), strict=False),
        pl.DataFrame(epochs, schema=dict(form.EPOCHS_SCHEMA), strict=False),
    )


def _by_class(mean: float, classes: int) -> list[float]:
    """Accuracies with this mean that rise by a tenth from the class that came first to the last."""
    return list(mean + 0.1 * (np.arange(classes) / max(1, classes - 1) - 0.5))
