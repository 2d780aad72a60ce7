"""The settings of the paper's study by name, and which runs of any folders belong to each."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from supple.lab.report.measured import Measured
from supple.lab.report.scale import incremental_scale, permuted_scale

LEAST_TASKS = 10
"""Runs of fewer tasks are not compared: 10% of them is less than one task."""

_OUTCOMES = ("seed", "early", "late", "change", "diverged")
_DISTURBANCES = ("loss", "gradient", "mean", "std")
_NOT_SETTINGS = {"run", "method", "kind", "seed", "point", "part", "done", "dead", "rank", "weight_magnitude"}
_NOT_SETTINGS |= {"reinitialized", *_OUTCOMES}


@dataclass(frozen=True)
class Setting:
    """A network that the paper compares methods in.

    Args:
        words: what people call it.
        study: name of the study that runs it.
        least: how many tasks a run has to have.
    """

    words: str
    study: str
    least: int = field(default=LEAST_TASKS, kw_only=True)


@dataclass(frozen=True)
class PermutedSetting(Setting):
    """A network and an optimizer for permuted images.

    Args:
        hidden: units of a hidden layer.
        layer_norm: whether there is layer normalization.
        optimizer: "sgd", "momentum" or "adamw".
    """

    hidden: int
    layer_norm: bool = False
    optimizer: str = "sgd"


@dataclass(frozen=True)
class IncrementalSetting(Setting):
    """A vision transformer for class-incremental images.

    Args:
        reparameterized: whether the scale of its layer normalization is 1 + weight.
    """

    reparameterized: bool
    # The first classes alone are no addition yet.
    least: int = field(default=2, kw_only=True)


PERMUTED = {
    "small": PermutedSetting("small network", "permuted_mnist/small", 10),
    "small_layer_norm": PermutedSetting(
        "small network, layer norm", "permuted_mnist/small_layer_norm", 10, layer_norm=True
    ),
    "large": PermutedSetting("large network", "permuted_mnist/large", 100),
    "large_layer_norm": PermutedSetting(
        "large network, layer norm", "permuted_mnist/large_layer_norm", 100, layer_norm=True
    ),
    "large_momentum": PermutedSetting(
        "large network, momentum", "permuted_mnist/large_momentum", 100, optimizer="momentum"
    ),
    "large_adam": PermutedSetting("large network, Adam", "permuted_mnist/large_adam", 100, optimizer="adamw"),
}
"""The settings with permuted images. Source: Hernandez-Garcia et al., arXiv 2508.00212."""

INCREMENTAL = {
    "vit": IncrementalSetting("ViT", "incremental_cifar100/regular", reparameterized=False),
    "vit_reparameterized": IncrementalSetting(
        "ViT, reparameterized layer norm", "incremental_cifar100/reparameterized", reparameterized=True
    ),
}
"""The settings with class-incremental images. Source: the same."""

SETTINGS: Mapping[str, Setting] = {**PERMUTED, **INCREMENTAL}
"""All settings."""


@dataclass(frozen=True, eq=False)
class Trials:
    """Runs that can be compared: one network, optimizer and problem, and as many tasks each.

    Args:
        tasks: tasks of a run that are counted.
        scale: how much smaller than the paper's they are; empty where they are not.
        study: name of the study that the first of them are from.
        command: what goes on with it, without its seeds.
        runs: a row a run: "kind", "method", "seed", "configuration" (the method's settings as text), its settings under
            their names, "early", "late", "change", "diverged", and what its reinitializations changed ("loss",
            "gradient", "mean", "std"; null where nothing was measured).
    """

    tasks: int
    scale: str
    study: str
    command: str
    runs: pl.DataFrame

    @property
    def same_seeds(self) -> str:
        """The command with the seeds of these runs."""
        return f"{self.command} --seeds {_seeds(self.runs['seed'].unique().sort().to_list())}"


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
        The runs; None if there are none of as many tasks as the setting needs.
    """
    enough = pl.col("tasks") >= SETTINGS[setting].least
    here = runs.filter(pl.col("setting") == setting, pl.col("kind").is_in(list(kinds)), enough)
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
    facts = ("tasks", "scale", "study", "command")
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
    problem = {**measured.problem, "images": image_count(manifest), "tasks": measured.tasks}
    own = [name for name in runs.columns if "." not in name and name not in _NOT_SETTINGS]
    given = runs.select(own).iter_rows() if own else [()] * len(runs)
    worlds = [
        (
            setting_of({**n, **o}, str(problem.get("kind", "permuted"))),
            _text({**n, **o, **problem}),
            _text(dict(zip(own, values, strict=True))),
            _scale(measured, n),
        )
        for n, o, values in zip(network, optimizer, given, strict=True)
    ]
    names = ("setting", "world", "configuration", "scale")
    columns = {name: [row[k] for row in worlds] for k, name in enumerate(names)}
    frame = runs.select("run", "method", "kind", *_OUTCOMES, *own).with_columns(
        tasks=pl.lit(measured.tasks),
        study=pl.lit(measured.name),
        command=pl.lit(going_on(measured, seeds=False)),
        **{name: pl.Series(values, dtype=pl.String) for name, values in columns.items()},
    )
    return frame.join(measured.disturbances().select("run", *_DISTURBANCES), on="run", how="left").drop("run")


def _scale(measured: Measured, network: Mapping[str, Any]) -> str:
    if measured.incremental:
        plain = {name.removeprefix("network."): value for name, value in network.items()}
        return incremental_scale(measured.problem, plain, measured.tasks)
    return permuted_scale(measured.problem, image_count(measured.results.manifest), measured.tasks)


def _settings(runs: pl.DataFrame, study: dict[str, Any], group: str) -> list[dict[str, Any]]:
    """The settings of network or optimizer of each run: what the study says, or the run's own column."""
    common = {f"{group}.{name}": value for name, value in (study.get(group) or {}).items()}
    columns = [name for name in runs.columns if name.startswith(f"{group}.")]
    if not columns:
        return [common] * len(runs)
    return [{**common, **dict(zip(columns, values, strict=True))} for values in runs.select(columns).iter_rows()]


def setting_of(given: Mapping[str, Any], problem: str = "permuted") -> str | None:
    """Which of the paper's settings a network and optimizer belong to.

    Args:
        given: their settings, under names such as "network.hidden".
        problem: the kind of problem.

    Returns:
        A key of :data:`SETTINGS`; None for any other.
    """
    if problem == "class_incremental":
        norm = bool(given.get("network.reparameterized"))
        return next(key for key, setting in INCREMENTAL.items() if setting.reparameterized == norm)
    name = str(given.get("optimizer.name", "sgd"))
    optimizer = "momentum" if name == "sgd" and given.get("optimizer.momentum") else name
    plain = (
        given.get("network.activation") in (None, "relu")
        and not given.get("network.skip")
        and not given.get("network.reparameterized")
    )
    place = given.get("network.layer_norm")
    usual = plain and given.get("network.depth") in (None, 3) and place in (None, "", "none", "after")
    described = (given.get("network.hidden"), place == "after", optimizer)
    for key, setting in PERMUTED.items():
        if usual and described == (setting.hidden, setting.layer_norm, setting.optimizer):
            return key
    return None


def _text(settings: dict[str, Any]) -> str:
    """Settings as text that is the same for the same settings; those that are null are left out."""
    return ", ".join(f"{name}={settings[name]}" for name in sorted(settings) if settings[name] is not None)
