"""What the paper of the studies claims, as tests on runs: C1 to C7 of arXiv 2508.00212.

"Final accuracy" and "after 10% of tasks" are those of every report. Methods are compared seed by seed, each at the best
of the settings that were run, chosen on other seeds. A difference of half a point of accuracy is the largest that does
not matter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from supple.lab.data import DATA_SETS
from supple.lab.report.measures import Measured
from supple.lab.report.statistics import differences
from supple.lab.report.style import label_of
from supple.lab.report.texts import listed, number, setting_words
from supple.lab.report.trials import Trials, comparable, final, pair, pooled
from supple.lab.report.verdicts import Claim, Judged, Missing, Says, Statement, Verdict, judge, together

SOURCE = "arXiv 2508.00212"
"""Hernandez-Garcia, Dohare, Luo and Sutton, "Reinitializing weights vs units for maintaining plasticity in neural
networks"."""

MARGIN = 0.005
"""The largest difference of accuracy that does not matter: half a point."""

UNIT_METHODS = ("cbp", "redo")
"""The methods that reinitialize whole units."""

USUAL: Mapping[str, Mapping[str, str]] = {
    "swr": {"utility": "gradient", "pruning": "threshold", "reinit": "resample"},
    "cbp": {"utility": "contribution"},
    "redo": {"utility": "activation"},
    "base": {},
}
"""What a method is unless a study says otherwise."""

VARIANTS = [
    {"utility": utility, "pruning": pruning, "reinit": reinit}
    for utility in ("gradient", "magnitude")
    for pruning in ("threshold", "proportional")
    for reinit in ("resample", "mean")
]
"""The eight variants of SWR; the first is the one that the paper finds best."""


@dataclass(frozen=True)
class Setting:
    """A network and an optimizer that the paper compares methods in.

    Args:
        words: what people call it.
        study: name of the study that runs it.
        problem: the kind of its problem.
        values: what the columns of its runs are.
        least: how many tasks a run has to have: 10% of fewer than ten is less than one, and the first classes alone are
            no addition.
    """

    words: str
    study: str
    problem: str
    values: Mapping[str, Any]
    least: int = 10


def _permuted(hidden: int, layer_norm: str | None = None, optimizer: str = "sgd", momentum: bool = False) -> Any:
    return {
        "network.hidden": hidden, "network.depth": 3, "network.activation": "relu", "network.skip": None,
        "network.layer_norm": layer_norm, "network.reparameterized": False, "optimizer.name": optimizer,
        "optimizer.momentum": momentum,
    }  # fmt: skip


_MNIST, _CIFAR = "permuted_mnist", "incremental_cifar100"

SETTINGS: Mapping[str, Setting] = {
    "small": Setting("small network", f"{_MNIST}/small", "permuted", _permuted(10)),
    "small_layer_norm": Setting(
        "small network, layer norm", f"{_MNIST}/small_layer_norm", "permuted", _permuted(10, "after")
    ),
    "large": Setting("large network", f"{_MNIST}/large", "permuted", _permuted(100)),
    "large_layer_norm": Setting(
        "large network, layer norm", f"{_MNIST}/large_layer_norm", "permuted", _permuted(100, "after")
    ),
    "large_momentum": Setting(
        "large network, momentum", f"{_MNIST}/large_momentum", "permuted", _permuted(100, momentum=True)
    ),
    "large_adam": Setting("large network, Adam", f"{_MNIST}/large_adam", "permuted", _permuted(100, None, "adamw")),
    "vit": Setting("ViT", f"{_CIFAR}/regular", "class_incremental", {"network.reparameterized": False}, 2),
    "vit_reparameterized": Setting(
        "ViT, reparameterized layer norm",
        f"{_CIFAR}/reparameterized",
        "class_incremental",
        {"network.reparameterized": True},
        2,
    ),
}
"""The settings by name. Source: the paper."""


def setting_of(run: Mapping[str, Any], problem: str) -> str | None:
    """Which of the paper's settings a run, by its columns, belongs to; None for any other."""
    momentum = run.get("optimizer.name") == "sgd" and bool(run.get("optimizer.momentum"))
    given = {**run, "optimizer.momentum": momentum}
    for key, setting in SETTINGS.items():
        if setting.problem == problem and all(given.get(name) == value for name, value in setting.values.items()):
            return key
    return None


def check_claims(folders: Sequence[Measured]) -> list[Claim]:
    """Tests all claims on all runs of some folders; the claims in order."""
    runs = pooled(folders)
    names = sorted({name for setting in SETTINGS.values() for name in setting.values} & set(runs.columns))
    worlds = runs.unique("world", maintain_order=True).select("world", "folder", *names)
    keys = {
        row["world"]: setting_of(row, folders[row["folder"]].study.problem.kind) for row in worlds.iter_rows(named=True)
    }
    runs = runs.with_columns(setting=pl.col("world").replace_strict(keys, return_dtype=pl.String))
    tests = (_small_network, _layer_norm, _large_network, _base_loses, _best_variant, _gentle, _transformer)
    return [test(_Evidence(runs, folders)) for test in tests]


class _Evidence:
    """Gathers the statements of one claim, and what is missing for them."""

    def __init__(self, runs: pl.DataFrame, folders: Sequence[Measured]) -> None:
        self.runs, self.folders = runs, folders
        self.statements: list[Statement] = []
        self.missing: list[Missing] = []
        self.scale: dict[str, str] = {}
        self.found: dict[str, Trials] = {}

    def trials(
        self,
        key: str,
        kinds: Sequence[str] = ("swr", *UNIT_METHODS),
        *,
        optional: bool = False,
        study: str | None = None,
        variety: Sequence[str] = ("kind",),
    ) -> Trials | None:
        """The runs of a setting; what is missing is noted, unless it is optional."""
        setting = SETTINGS[key]
        runs = self.runs.filter(pl.col("setting") == key, pl.col("tasks") >= setting.least)
        found = comparable(runs, self.folders, kinds, variety)
        there = set() if found is None else set(found.runs["kind"])
        if found is not None:
            self.found[key] = found
            scale = scale_of(found)
            if scale:
                self.scale[setting.words] = scale
        lacking = [label_of(kind) for kind in kinds if kind not in there]
        if lacking and not optional:
            self.lacks(key, listed(lacking), study)
        return found

    def lacks(self, key: str, what: str, study: str | None = None) -> None:
        """Notes that runs of a setting are missing, and the study that has them."""
        study, found = study or SETTINGS[key].study, self.found.get(key)
        # What is there already is gone on with, at its scale, where it is a study that has all methods.
        command = (
            found.command() if found is not None and found.measured.results.name == study else f"supple run {study}"
        )
        self.missing.append(Missing(f"{what} in the {SETTINGS[key].words}", command))

    def add(self, key: str, statement: Statement) -> None:
        """Adds a statement about a setting."""
        self.statements.append(replace(statement, place=SETTINGS[key].words))

    def ahead(self, key: str, trials: Trials, says: Says) -> None:
        """Adds what SWR is ahead of each unit method."""
        for other in UNIT_METHODS:
            if has(trials, "swr", other):
                d, note = pair(usual(trials, "swr"), usual(trials, other))
                self.add(key, Statement(f"final accuracy, SWR − {label_of(other)}", d, says, MARGIN, note=note))

    def kept(self, key: str, trials: Trials, kind: str, says: Says, margin: float) -> None:
        """Adds how the accuracy of a method changed over the tasks."""
        change, note = final(usual(trials, kind), "change")
        words = f"{label_of(kind)}, final accuracy − after 10% of tasks"
        self.add(key, Statement(words, np.array(list(change.values())), says, margin, note=note))

    def claim(self, name: str, text: str, tested: str) -> Claim:
        """The claim with its verdict."""
        judged = judge(self.statements)
        verdict = together([one.verdict for one in judged], bool(self.missing))
        more = self._more_seeds(judged) if verdict is Verdict.NOT_ENOUGH else ()
        return Claim(name, text, tested, verdict, judged, [*self.missing, *more], self.scale, SOURCE)

    def _more_seeds(self, judged: Sequence[Judged]) -> Iterator[Missing]:
        """What undecided statements need: more seeds."""
        for key, trials in self.found.items():
            words = SETTINGS[key].words
            needed = [
                one.needed for one in judged if one.verdict is Verdict.NOT_ENOUGH and one.statement.place == words
            ]
            known = [n for n in needed if n is not None]
            if needed:
                all_known = len(known) == len(needed)
                seeds = max(known) if all_known else 2 * trials.runs["seed"].n_unique()
                about = f"about {seeds} seeds" if all_known else "more seeds"
                yield Missing(f"{about} in the {words}", trials.command(str(seeds)))


def usual(trials: Trials, kind: str) -> pl.DataFrame:
    """The runs of a method as it usually is."""
    return trials.usual(kind, USUAL[kind])


def has(trials: Trials, *kinds: str) -> bool:
    """Whether all of some methods were run as they usually are."""
    return not any(usual(trials, kind).is_empty() for kind in kinds)


def _small_network(evidence: _Evidence) -> Claim:
    _beats_units(evidence, ["small"])
    return evidence.claim(
        "C1",
        "In a small network, SWR maintains plasticity and is better than CBP and ReDo.",
        "final accuracy, SWR minus each, above 0; SWR's final accuracy not more than half a point below that after 10% "
        "of tasks",
    )


def _layer_norm(evidence: _Evidence) -> Claim:
    _beats_units(evidence, ["small_layer_norm", "large_layer_norm"])
    return evidence.claim(
        "C2",
        "With layer normalization, SWR maintains plasticity and is better than CBP and ReDo.",
        "as C1, in the small and in the large network",
    )


def _beats_units(evidence: _Evidence, keys: Sequence[str]) -> None:
    for key in keys:
        trials = evidence.trials(key)
        if trials is not None:
            evidence.ahead(key, trials, Says.ABOVE)
            if has(trials, "swr"):
                evidence.kept(key, trials, "swr", Says.NOT_BELOW, MARGIN)


def _large_network(evidence: _Evidence) -> Claim:
    for key in ("large", "large_momentum", "large_adam"):
        trials = evidence.trials(key, optional=key != "large")
        if trials is not None:
            evidence.ahead(key, trials, Says.WITHIN)
    return evidence.claim(
        "C3",
        "In a large network without layer normalization, reinitializing weights and units does equally well.",
        "final accuracy, SWR minus each, within half a point; with momentum and Adam too where they were run",
    )


def _base_loses(evidence: _Evidence) -> Claim:
    for key in ("small", "large", "large_momentum", "large_adam"):
        # The runs that the methods are compared in, where there are several step sizes.
        trials = evidence.trials(key, ("base", "swr", *UNIT_METHODS), optional=True)
        if trials is not None and has(trials, "base"):
            evidence.kept(key, trials, "base", Says.BELOW, 0.0)
        elif key in ("small", "large"):
            evidence.lacks(key, "base")
    return evidence.claim(
        "C4",
        "Without layer normalization, plain training loses plasticity.",
        "base: final accuracy below that after 10% of tasks; with momentum and Adam too where they were run",
    )


def _best_variant(evidence: _Evidence) -> Claim:
    best = "/".join(VARIANTS[0].values())
    for key in ("large", "small"):
        study = f"{_MNIST}/swr_variants_{key}"
        trials = evidence.trials(key, ("swr",), optional=key == "small", study=study, variety=list(VARIANTS[0]))
        if trials is None:
            continue
        found = {}
        for variant in VARIANTS:
            rows = trials.runs.filter(pl.col("kind") == "swr")
            for name, value in variant.items():
                default = pl.lit(USUAL["swr"][name])
                rows = rows.filter((pl.col(name).fill_null(default) if name in rows.columns else default) == value)
            if not rows.is_empty():
                found["/".join(variant.values())] = final(rows)
            elif key == "large":
                evidence.lacks(key, f"SWR with {'/'.join(variant.values())}", study)
        for words, (values, note) in found.items():
            if words != best and best in found:
                d = differences(found[best][0], values)
                evidence.add(key, Statement(f"final accuracy, SWR {best} − {words}", d, Says.ABOVE, note=note))
    return evidence.claim(
        "C5",
        "Gradient utility with resampling is the best variant of SWR.",
        "final accuracy of gradient utility, threshold pruning and resampling minus that of each of the seven other "
        "variants, above 0, in the large network; in the small one too for those that were run",
    )


def _gentle(evidence: _Evidence) -> Claim:
    changes = {
        "loss": ("change of the loss", "nats"),
        "mean": ("change of the activations' mean", ""),
        "std": ("change of the activations' standard deviation", ""),
    }
    for key in ("small_layer_norm", "large_layer_norm"):
        trials = evidence.trials(key)
        if trials is None:
            continue
        there = [name for name in (*UNIT_METHODS, "swr") if has(trials, name)]
        measured = [name for name in there if usual(trials, name)["loss"].is_not_null().any()]
        for name in there:
            if name not in measured:
                evidence.lacks(key, f"what reinitializations of {label_of(name)} change, measured")
        for other in UNIT_METHODS:
            for column, (change, unit) in changes.items():
                if {"swr", other} <= set(measured):
                    d, note = pair(usual(trials, other), usual(trials, "swr"), column)
                    words = f"{change}, {label_of(other)} − SWR"
                    evidence.add(key, Statement(words, d, Says.ABOVE, unit=unit, note=note))
    return evidence.claim(
        "C6",
        "With layer normalization, SWR reinitializes more gently: unit methods disturb activations and loss more.",
        "mean absolute change across a reinitialization, on the batch of its step, of the loss and of the mean and "
        "standard deviation of the activations over units: unit method minus SWR, above 0",
    )


def _transformer(evidence: _Evidence) -> Claim:
    for key in ("vit", "vit_reparameterized"):
        trials = evidence.trials(key)
        for other in UNIT_METHODS:
            if trials is None or not has(trials, "swr", other):
                continue
            label = label_of(other)
            own, others = usual(trials, "swr"), usual(trials, other)
            gone, lost = final(others, "diverged")[0], final(own, "diverged")[0]
            some = any(gone.values()) or any(lost.values())
            # Two accuracies of 0 are equal whatever the methods do.
            both = {seed for seed, diverged in gone.items() if diverged and lost.get(seed)}
            d, note = pair(own, others, without=both)
            more = f"without {len(both)} of which both diverged" if both else "no run that is compared diverged"
            said = "; ".join(filter(None, (note, more))) if both or not some else note
            # A diverged run of the other method makes the interval wide, but SWR no worse.
            words = f"final test accuracy, SWR − {label}"
            evidence.add(key, Statement(words, d, Says.NOT_BELOW, MARGIN, note=said, agreeing=True))
            if some:
                words = f"share of diverging runs, {label} − SWR: SWR does not diverge more often"
                d = differences(gone, lost)
                evidence.add(key, Statement(words, d, Says.NOT_BELOW, note=note, shares=True))
    return evidence.claim(
        "C7",
        "In the vision transformer, SWR keeps test accuracy at least at the level of CBP and ReDo, with fewer "
        "diverging runs.",
        "final test accuracy, SWR minus each, not more than half a point below 0, without seeds of which both "
        "diverged; SWR does not diverge more often than each, by the exact sign test on seeds of which one of the two "
        "diverged; with regular and with reparameterized layer norm. Where nothing diverged only that and accuracy "
        "were tested, not that SWR diverges less often",
    )


_PAPER_PROBLEM = {"first": 5, "step": 5, "validation": 50, "epochs": 100}
_PAPER_TRANSFORMER = {"patch_size": 4, "depth": 8, "heads": 12, "width": 384, "hidden": 1536}


def scale_of(trials: Trials) -> str:
    """How much smaller than the paper's some runs are, in words; empty where they are not."""
    measured = trials.measured
    if measured.study.problem.kind == "permuted":
        return permuted_scale(measured.study.problem, measured.results.images.count, measured.tasks)
    network = {name: trials.runs[f"network.{name}"][0] for name in _PAPER_TRANSFORMER}
    return incremental_scale(measured.study.problem, network, measured.tasks)


def permuted_scale(problem: Any, images: int, tasks: int) -> str:
    """What of a permuted study is smaller than the paper's."""
    return _joined(
        f"{tasks:,} of the paper's 1,000 tasks" if tasks < 1000 else "",
        f"{images:,} instead of 60,000 images a task" if images != 60_000 else "",
        f"images of {problem.data}" if problem.data not in ("mnist", "mnist10k") else "",
        f"batches of {problem.batch_size} instead of 30" if problem.batch_size != 30 else "",
    )


def incremental_scale(problem: Any, network: Mapping[str, Any], additions: int) -> str:
    """What of a class-incremental study is smaller than the paper's."""
    classes = min(problem.first + problem.step * (additions - 1), DATA_SETS[problem.data].classes)
    paper = _PAPER_PROBLEM
    alike = (problem.first, problem.step) == (paper["first"], paper["step"])
    return _joined(
        f"{additions} of the paper's 20 additions" if additions < 20 else "",
        f"{classes} instead of 100 classes" if classes != 100 else "",
        "" if alike else f"{problem.first} classes at first and {problem.step} at each addition instead of 5",
        f"images of {problem.data}" if problem.data != "cifar100" else "",
        f"{problem.train_images:,} training images of a class instead of all" if problem.train_images else "",
        f"{problem.test_images:,} test images of a class instead of all" if problem.test_images else "",
        f"{problem.validation} instead of 50 validation images of a class" if problem.validation != 50 else "",
        f"{problem.epochs} instead of 100 epochs an addition" if problem.epochs != 100 else "",
        *(
            f"{setting_words(name)} {number(network[name])} instead of {size}"
            for name, size in _PAPER_TRANSFORMER.items()
            if network[name] != size
        ),
        f"batches of {problem.batch_size} instead of 90" if problem.batch_size != 90 else "",
    )


def _joined(*parts: str) -> str:
    return ", ".join(filter(None, parts))
