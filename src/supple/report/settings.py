"""The settings of the paper's study by name, and which runs of any folders belong to each."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from supple.report.measured import Measured

PAPER_TASKS = 1000
"""Tasks of a run in arXiv 2508.00212."""

LEAST_TASKS = 10
"""Runs of fewer tasks are not compared: 10% of them is less than one task."""

PAPER_IMAGES = 60_000
"""Images of a task there."""

PAPER_BATCH = 30
"""Images of a batch there."""

_OUTCOMES = ("seed", "early", "late", "change", "diverged")
_DISTURBANCES = ("loss", "gradient", "mean", "std")
_NOT_SETTINGS = {"run", "method", "kind", "seed", "point", "part", "done", "dead", "rank", "weight_magnitude"}
_NOT_SETTINGS |= {"reinitialized", *_OUTCOMES}


@dataclass(frozen=True)
class Setting:
    """A network and an optimizer that the paper compares methods in.

    Args:
        words: what people call it.
        study: name of the study that runs it.
        hidden: units of a hidden layer.
        layer_norm: whether there is layer normalization.
        optimizer: "sgd", "momentum" or "adamw".
    """

    words: str
    study: str
    hidden: int
    layer_norm: bool = False
    optimizer: str = "sgd"


SETTINGS = {
    "small": Setting("small network", "permuted_mnist/small", 10),
    "small_layer_norm": Setting("small network, layer norm", "permuted_mnist/small_layer_norm", 10, layer_norm=True),
    "large": Setting("large network", "permuted_mnist/large", 100),
    "large_layer_norm": Setting("large network, layer norm", "permuted_mnist/large_layer_norm", 100, layer_norm=True),
    "large_momentum": Setting("large network, momentum", "permuted_mnist/large_momentum", 100, optimizer="momentum"),
    "large_adam": Setting("large network, Adam", "permuted_mnist/large_adam", 100, optimizer="adamw"),
}
"""The settings. Source: Hernandez-Garcia et al., arXiv 2508.00212."""


@dataclass(frozen=True, eq=False)
class Trials:
    """Runs that can be compared: one network, optimizer and problem, and as many tasks each.

    Args:
        tasks: tasks of a run that are counted.
        images: images of a task; 0 where it is not known.
        data: name of the images.
        batch_size: images a batch; 0 where it is not known.
        study: name of the study that the first of them are from.
        command: what goes on with it, without its seeds.
        runs: a row a run: "kind", "method", "seed", "configuration" (the method's settings as text), its settings under
            their names, "early", "late", "change", "diverged", and what its reinitializations changed ("loss",
            "gradient", "mean", "std"; null where nothing was measured).
    """

    tasks: int
    images: int
    data: str
    batch_size: int
    study: str
    command: str
    runs: pl.DataFrame

    @property
    def same_seeds(self) -> str:
        """The command with the seeds of these runs."""
        return f"{self.command} --seeds {_seeds(self.runs['seed'].unique().sort().to_list())}"

    @property
    def scale(self) -> str:
        """How much smaller than the paper's these runs are; empty where they are not."""
        parts = []
        if self.tasks < PAPER_TASKS:
            parts.append(f"{self.tasks:,} of the paper's {PAPER_TASKS:,} tasks")
        if self.images and self.images != PAPER_IMAGES:
            parts.append(f"{self.images:,} instead of {PAPER_IMAGES:,} images a task")
        if self.data not in ("mnist", "mnist10k"):
            parts.append(f"images of {self.data}")
        if self.batch_size not in (0, PAPER_BATCH):
            parts.append(f"batches of {self.batch_size} instead of {PAPER_BATCH}")
        return ", ".join(parts)


def all_trials(folders: Iterable[Measured]) -> pl.DataFrame:
    """The runs of several folders in one frame, described in the same columns.

    A run that is in two folders, with the same settings and seed, counts once.

    Args:
        folders: the folders.

    Returns:
        A row a run, with the columns of :class:`Trials`, and those that say what belongs together: "setting", a key of
        :data:`SETTINGS` or null, and "world", everything else that runs compared must have in common.
    """
    frames = [_described(measured) for measured in folders]
    together = pl.concat(frames, how="diagonal_relaxed") if frames else pl.DataFrame()
    # Of equal runs the one whose row bears the method's own name, and then one with disturbances.
    first = together.sort(
        pl.col("method") == pl.col("kind"), pl.col("loss").is_not_null(), descending=True, maintain_order=True
    )
    return first.unique(["world", "kind", "configuration", "seed"], keep="first", maintain_order=True)


def trials_of(
    runs: pl.DataFrame, setting: str, kinds: Sequence[str], variety: Sequence[str] = ("kind",)
) -> Trials | None:
    """The runs of a setting that are to be compared with each other.

    Runs that differ in anything but the method are not compared. Where a setting was run in several ways, such as with
    several step sizes or at several scales, it is the way in which most of what is compared was run; of several that
    with the most tasks, and then with the most runs.

    Args:
        runs: from :func:`all_trials`.
        setting: a key of :data:`SETTINGS`.
        kinds: the kinds that are to be compared.
        variety: the columns in which what is compared differs.

    Returns:
        The runs; None if there are none of :data:`LEAST_TASKS` tasks or more.
    """
    here = runs.filter(pl.col("setting") == setting, pl.col("kind").is_in(list(kinds)), pl.col("tasks") >= LEAST_TASKS)
    if here.is_empty():
        return None
    compared = pl.struct([name for name in variety if name in here.columns] or ["kind"])
    ranked = (
        here.group_by("world")
        .agg(compared.n_unique().alias("compared"), pl.col("tasks").first(), pl.len())
        .sort("compared", "tasks", "len", "world", descending=True)
    )
    found = here.filter(pl.col("world") == ranked["world"][0])
    first = found.row(0, named=True)
    facts = ("tasks", "images", "data", "batch_size", "study", "command")
    return Trials(runs=found, **{name: first[name] for name in facts})


def going_on(measured: Measured, seeds: bool = True) -> str:
    """The command that goes on with a study as it was run, with all of its methods.

    Args:
        measured: its results.
        seeds: whether with the seeds of the folder, where they are not those of the study.

    Returns:
        The command.
    """
    manifest, folder = measured.results.manifest, measured.results.folder
    scaled = manifest.get("scaled") or {}
    words = shlex.split(((manifest.get("sessions") or [{}])[-1]).get("command") or "")
    if words[:2] == ["supple", "run"] and len(words) > 2:
        command = words[:3] + _without(words[3:], ("--seeds", "--methods", "--out"))
    else:
        command = ["supple", "run", measured.name]
        for name in ("tasks", "data"):
            command += [f"--{name}", str(scaled[name][1])] if name in scaled else []
    if seeds and "seeds" in scaled:
        command += ["--seeds", _seeds(scaled["seeds"][1])]
    if folder != Path("supple-results") / measured.name:
        command += ["--out", str(folder)]
    return shlex.join(command)


def _without(words: Sequence[str], options: Sequence[str]) -> list[str]:
    """The words of a command without some options and their values."""
    kept: list[str] = []
    skip = False
    for word in words:
        if not skip and word.partition("=")[0] not in options:
            kept.append(word)
        skip = not skip and word in options
    return kept


def _seeds(seeds: Sequence[int]) -> str:
    """Seeds as the command line takes them."""
    return str(len(seeds)) if list(seeds) == list(range(len(seeds))) else ",".join(map(str, seeds))


def image_count(manifest: Mapping[str, Any]) -> int:
    """Images of a task.

    Args:
        manifest: of a folder of results.

    Returns:
        The number; 0 where it is not known.
    """
    images = manifest.get("images") or 0
    return int(images.get("count", 0) if isinstance(images, Mapping) else images)


def _described(measured: Measured) -> pl.DataFrame:
    """The runs of a folder in the common columns."""
    manifest, runs = measured.results.manifest, measured.runs
    study = manifest.get("study") or {}
    network = _settings(runs, study, "network")
    optimizer = _settings(runs, study, "optimizer")
    problem = {**(study.get("problem") or {}), "images": image_count(manifest), "tasks": measured.tasks}
    own = [name for name in runs.columns if "." not in name and name not in _NOT_SETTINGS]
    given = runs.select(own).iter_rows() if own else [()] * len(runs)
    worlds = [
        (setting_of({**n, **o}), _text({**n, **o, **problem}), _text(dict(zip(own, values, strict=True))))
        for n, o, values in zip(network, optimizer, given, strict=True)
    ]
    columns = {name: [row[k] for row in worlds] for k, name in enumerate(("setting", "world", "configuration"))}
    frame = runs.select("run", "method", "kind", *_OUTCOMES, *own).with_columns(
        tasks=pl.lit(measured.tasks),
        images=pl.lit(image_count(manifest)),
        study=pl.lit(measured.name),
        command=pl.lit(going_on(measured, seeds=False)),
        data=pl.lit(str(problem.get("data", ""))),
        batch_size=pl.lit(int(problem.get("batch_size", 0))),
        **{name: pl.Series(values, dtype=pl.String) for name, values in columns.items()},
    )
    return frame.join(measured.disturbances().select("run", *_DISTURBANCES), on="run", how="left").drop("run")


def _settings(runs: pl.DataFrame, study: dict[str, Any], group: str) -> list[dict[str, Any]]:
    """The settings of network or optimizer of each run: what the study says, or the run's own column."""
    common = {f"{group}.{name}": value for name, value in (study.get(group) or {}).items()}
    columns = [name for name in runs.columns if name.startswith(f"{group}.")]
    if not columns:
        return [common] * len(runs)
    return [{**common, **dict(zip(columns, values, strict=True))} for values in runs.select(columns).iter_rows()]


def setting_of(given: Mapping[str, Any]) -> str | None:
    """Which of the paper's settings a network and optimizer belong to.

    Args:
        given: their settings, under names such as "network.hidden".

    Returns:
        A key of :data:`SETTINGS`; None for any other.
    """
    name = str(given.get("optimizer.name", "sgd"))
    optimizer = "momentum" if name == "sgd" and given.get("optimizer.momentum") else name
    plain = (
        given.get("network.activation") in (None, "relu")
        and not given.get("network.skip")
        and not given.get("network.reparameterized")
    )
    norm = given.get("network.layer_norm")
    usual = plain and given.get("network.depth") in (None, 3) and norm in (None, "", "none", "after")
    described = (given.get("network.hidden"), norm == "after", optimizer)
    for key, setting in SETTINGS.items():
        if usual and described == (setting.hidden, setting.layer_norm, setting.optimizer):
            return key
    return None


def _text(settings: dict[str, Any]) -> str:
    """Settings as text that is the same for the same settings; those that are null are left out."""
    return ", ".join(f"{name}={settings[name]}" for name in sorted(settings) if settings[name] is not None)
