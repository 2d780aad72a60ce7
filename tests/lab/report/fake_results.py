"""Writes folders of results whose effects are known, in the form that docs/results-format.md describes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from fake_folder import generator, write_folder

from supple.lab.study import results as form

METHOD_SETTINGS: dict[str, dict[str, Any]] = {
    "base": {},
    "l2": {"l2": 1e-4},
    "shrink_and_perturb": {"l2": 1e-4, "variance": 1e-9},
    "cbp": {"maturity": 5, "replacement_rate": 1e-3, "utility": "contribution"},
    "redo": {"frequency": 8, "threshold": 1e-2, "utility": "activation"},
    "swr": {"frequency": 2048, "factor": 1e-6, "utility": "gradient", "pruning": "threshold", "reinit": "resample"},
}


@dataclass
class Row:
    """A method of a study: its accuracy goes from ``early`` to ``late`` over the tasks, on average over seeds.

    Args:
        name: the name of the row.
        early: accuracy of the first tasks.
        late: accuracy at the end.
        kind: the method's own name; None: as the row's.
        settings: settings beside the usual ones of the kind; keys with a dot are those of network and optimizer.
        grid: points, each a pair of settings and what they add to the accuracy.
        diverged: seeds whose loss becomes NaN halfway.
        disturbance: size of what a reinitialization changes; None: none is measured.
        dead: share of dead units at the end.
    """

    name: str
    early: float
    late: float
    kind: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    grid: list[tuple[dict[str, Any], float]] = field(default_factory=list)
    diverged: tuple[int, ...] = ()
    disturbance: float | None = None
    dead: float = 0.1


def write(
    folder: Path,
    rows: list[Row],
    *,
    name: str = "permuted_mnist/small",
    tasks: int = 60,
    seeds: int = 6,
    done: int | dict[int, int] | None = None,
    network: dict[str, Any] | None = None,
    optimizer: dict[str, Any] | None = None,
    noise: float = 0.004,
    own_noise: float = 0.001,
    part_runs: int = 16,
    steps: int = 2000,
    data: str = "mnist",
    scaled: dict[str, Any] | None = None,
) -> Path:
    """Writes a folder; ``noise`` is common to a seed and task, ``own_noise`` is each run's.

    Args:
        folder: where to.
        rows: the methods.
        name: of the study.
        tasks: tasks of a run.
        seeds: runs a point.
        done: tasks learned, of all runs or by part; None: all.
        network: settings of the network that differ from the small one's.
        optimizer: settings of the optimizer that differ from plain SGD.
        noise: standard deviation of what runs of a seed have in common.
        own_noise: standard deviation of the rest.
        part_runs: runs a part.
        steps: steps a task.
        data: name of the images.
        scaled: what the study file says, as it was run.

    Returns:
        The folder.
    """
    network = {"hidden": 10, "depth": 3, "activation": "relu", "layer_norm": None, "skip": None, **(network or {})}
    plain = {"name": "sgd", "step_size": 0.05, "momentum": 0.0, "betas": [0.9, 0.999], "weight_decay": 0.0}
    optimizer = {**plain, **(optimizer or {})}

    def frames(run: int, row: Row, gain: float, seed: int, learned: int) -> dict[str, pl.DataFrame]:
        found = {form.TASKS: _tasks(run, row, gain, seed, tasks, learned, noise, own_noise, network)}
        if row.disturbance is not None:
            found[form.DISTURBANCES] = _disturbances(run, row, seed)
        return found

    problem = {"kind": "permuted", "data": data, "batch_size": 30}
    return write_folder(
        folder,
        rows,
        frames,
        name=name,
        study={"problem": problem, "network": network, "optimizer": optimizer},
        settings=METHOD_SETTINGS,
        seeds_of=lambda row: range(seeds),
        tasks=tasks,
        seeds=seeds,
        steps=steps,
        images=30 * steps,
        done=done,
        part_runs=part_runs,
        scaled=scaled,
        session={"seconds": 61.0, "cores": 2, "device": "cpu"},
    )


def _tasks(run, row, gain, seed, tasks, learned, noise, own_noise, network):
    at = np.arange(learned) / max(1, tasks - 1)
    common = noise * (generator("seed", seed).normal() + generator("tasks", seed).normal(size=tasks)[:learned])
    own = own_noise * generator("run", row.name, gain, seed).normal(size=tasks)[:learned]
    accuracy = row.early + (row.late - row.early) * at + gain + common + own
    loss = 2.5 * (1 - accuracy)
    magnitude = 0.1 + 0.1 * at
    if seed in row.diverged:
        loss[at >= 0.5], magnitude[at >= 0.5], accuracy[at >= 0.5] = np.nan, np.nan, 0.1
    acts = (row.kind or row.name) in ("cbp", "redo", "swr")
    columns = {
        "run": np.full(learned, run),
        "task": np.arange(learned),
        "accuracy": accuracy,
        "loss": loss,
        "dead": row.dead * at,
        "rank": np.round(9 - 4 * row.dead * at).astype(int),
        "weight_magnitude": magnitude,
        "scale_magnitude": np.full(learned, np.nan) if network["layer_norm"] is None else 1 + 0.2 * at,
        "gradient_magnitude": 0.01 * (1 + at),
        "reinitialized": np.full(learned, 3 if acts else 0),
    }
    frame = pl.DataFrame(columns)
    if network["layer_norm"] is None:
        frame = frame.with_columns(scale_magnitude=pl.lit(None))
    return frame.cast(dict(form.TASKS_SCHEMA))


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
