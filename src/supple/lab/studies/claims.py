"""What the paper of the studies claims, as tests on runs: C1 to C7 of arXiv 2508.00212.

"Final accuracy" and "after 10% of tasks" are those of every report. Methods are compared seed by seed, each at the best
of the settings that were run, chosen on other seeds. A difference of half a point of accuracy is the largest that does
not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import polars as pl

from supple.lab.report.measures import Measured
from supple.lab.report.statistics import differences
from supple.lab.report.style import label_of
from supple.lab.report.texts import listed
from supple.lab.report.trials import Trials, comparable, final, pair, pooled
from supple.lab.report.verdicts import Claim, Judged, Missing, Says, Statement, Verdict, judge, together
from supple.lab.studies.paper import SETTINGS, scale_of, setting_of

SOURCE = "arXiv 2508.00212"
"""Hernandez-Garcia, Dohare, Luo and Sutton, "Reinitializing weights vs units for maintaining plasticity in neural
networks"."""

MARGIN = 0.005
"""The largest difference of accuracy that does not matter: half a point."""

UNIT_METHODS = ("cbp", "redo")
"""The methods that reinitialize whole units."""

OTHER_OPTIMIZERS = ("large_momentum", "large_adam")
"""Settings that count where they were run."""

USUAL = {
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


def check_claims(folders: Sequence[Measured]) -> list[Claim]:
    """Tests all claims on all runs of some folders; the claims in order."""
    runs = pooled(folders)
    names = sorted({name for setting in SETTINGS.values() for name in setting.values} & set(runs.columns))
    worlds = runs.unique("world", maintain_order=True).select("world", "folder", *names)
    keys = {
        row["world"]: setting_of(row, folders[row["folder"]].study.problem.kind) for row in worlds.iter_rows(named=True)
    }
    runs = runs.with_columns(setting=pl.col("world").replace_strict(keys, return_dtype=pl.String))
    claims = []
    for k, (text, gather, tested) in enumerate(_CLAIMS, start=1):
        evidence = _Evidence(runs, folders)
        gather(evidence)
        claims.append(evidence.claim(f"C{k}", text, tested))
    return claims


class _Evidence:
    """Gathers the statements of one claim, and what is missing for them."""

    def __init__(self, runs: pl.DataFrame, folders: Sequence[Measured]) -> None:
        self.runs, self.folders = runs, folders
        self.statements: list[Statement] = []
        self.missing: list[Missing] = []
        self.found: dict[str, Trials] = {}

    def trials(
        self, key: str, kinds: Sequence[str] = ("swr", *UNIT_METHODS), optional: bool = False, variants: bool = False
    ) -> Trials | None:
        """The runs of a setting, or of variants of SWR in it; what is missing is noted, unless it is optional."""
        runs = self.runs.filter(pl.col("setting") == key, pl.col("tasks") >= SETTINGS[key].least)
        found = comparable(runs, self.folders, kinds, list(VARIANTS[0]) if variants else ["kind"])
        if found is not None:
            self.found[key] = found
        there = set() if found is None else set(found.runs["kind"])
        lacking = [label_of(kind) for kind in kinds if kind not in there]
        if lacking and not optional:
            self.lacks(key, listed(lacking), variants)
        return found

    def lacks(self, key: str, what: str, variants: bool = False) -> None:
        """Notes that runs of a setting, or of variants of SWR in it, are missing, and which study has them."""
        study = f"permuted_mnist/swr_variants_{key}" if variants else SETTINGS[key].study
        found = self.found.get(key)
        # What is there already is gone on with, at its scale, where it is a study that has all methods.
        begun = found is not None and found.measured.results.name == study
        command = found.command() if found is not None and begun else f"supple run {study}"
        self.missing.append(Missing(f"{what} in the {SETTINGS[key].words}", command))

    def add(self, key: str, statement: Statement) -> None:
        """Adds a statement about a setting."""
        self.statements.append(replace(statement, place=SETTINGS[key].words))

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
        scales = {SETTINGS[key].words: scale_of(trials) for key, trials in self.found.items()}
        scale = {words: smaller for words, smaller in scales.items() if smaller}
        return Claim(name, text, tested, verdict, judged, [*self.missing, *more], scale, SOURCE)

    def _more_seeds(self, judged: Sequence[Judged]) -> Iterator[Missing]:
        """What undecided statements need: more seeds."""
        undecided = [one for one in judged if one.verdict is Verdict.NOT_ENOUGH]
        for key, trials in self.found.items():
            words = SETTINGS[key].words
            needed = [one.needed for one in undecided if one.statement.place == words]
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


def _against_units(says: Says, *keys: str) -> Callable[[_Evidence], None]:
    def gather(evidence: _Evidence) -> None:
        for key in keys:
            trials = evidence.trials(key, optional=key in OTHER_OPTIMIZERS)
            if trials is None:
                continue
            for other in UNIT_METHODS:
                if has(trials, "swr", other):
                    d, note = pair(usual(trials, "swr"), usual(trials, other))
                    words = f"final accuracy, SWR − {label_of(other)}"
                    evidence.add(key, Statement(words, d, says, MARGIN, note=note))
            if says is Says.ABOVE and has(trials, "swr"):
                evidence.kept(key, trials, "swr", Says.NOT_BELOW, MARGIN)

    return gather


def _base_loses(evidence: _Evidence) -> None:
    for key in ("small", "large", *OTHER_OPTIMIZERS):
        # The runs that the methods are compared in, where there are several step sizes.
        trials = evidence.trials(key, ("base", "swr", *UNIT_METHODS), optional=True)
        if trials is not None and has(trials, "base"):
            evidence.kept(key, trials, "base", Says.BELOW, 0.0)
        elif key not in OTHER_OPTIMIZERS:
            evidence.lacks(key, "base")


def _best_variant(evidence: _Evidence) -> None:
    best = "/".join(VARIANTS[0].values())
    for key in ("large", "small"):
        trials = evidence.trials(key, ("swr",), optional=key == "small", variants=True)
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
                evidence.lacks(key, f"SWR with {'/'.join(variant.values())}", variants=True)
        for words, (values, note) in found.items():
            if words != best and best in found:
                d = differences(found[best][0], values)
                evidence.add(key, Statement(f"final accuracy, SWR {best} − {words}", d, Says.ABOVE, note=note))


def _gentle(evidence: _Evidence) -> None:
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


def _transformer(evidence: _Evidence) -> None:
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


_CLAIMS = (
    (
        "In a small network, SWR maintains plasticity and is better than CBP and ReDo.",
        _against_units(Says.ABOVE, "small"),
        "final accuracy, SWR minus each, above 0; SWR's final accuracy not more than half a point below that after 10% "
        "of tasks",
    ),
    (
        "With layer normalization, SWR maintains plasticity and is better than CBP and ReDo.",
        _against_units(Says.ABOVE, "small_layer_norm", "large_layer_norm"),
        "as C1, in the small and in the large network",
    ),
    (
        "In a large network without layer normalization, reinitializing weights and units does equally well.",
        _against_units(Says.WITHIN, "large", *OTHER_OPTIMIZERS),
        "final accuracy, SWR minus each, within half a point; with momentum and Adam too where they were run",
    ),
    (
        "Without layer normalization, plain training loses plasticity.",
        _base_loses,
        "base: final accuracy below that after 10% of tasks; with momentum and Adam too where they were run",
    ),
    (
        "Gradient utility with resampling is the best variant of SWR.",
        _best_variant,
        "final accuracy of gradient utility, threshold pruning and resampling minus that of each of the seven other "
        "variants, above 0, in the large network; in the small one too for those that were run",
    ),
    (
        "With layer normalization, SWR reinitializes more gently: unit methods disturb activations and loss more.",
        _gentle,
        "mean absolute change across a reinitialization, on the batch of its step, of the loss and of the mean and "
        "standard deviation of the activations over units: unit method minus SWR, above 0",
    ),
    (
        "In the vision transformer, SWR keeps test accuracy at least at the level of CBP and ReDo, with fewer "
        "diverging runs.",
        _transformer,
        "final test accuracy, SWR minus each, not more than half a point below 0, without seeds of which both "
        "diverged; SWR does not diverge more often than each, by the exact sign test on seeds of which one of the two "
        "diverged; with regular and with reparameterized layer norm. Where nothing diverged only that and accuracy "
        "were tested, not that SWR diverges less often",
    ),
)
"""C1 to C7: the claim, what gathers evidence for it, and how it is tested."""
