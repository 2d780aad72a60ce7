"""The runs that claims are tested on: which they are, what is missing, and their outcomes seed by seed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl

from supple.lab.report.bootstrap import IntervalKind, interval_of
from supple.lab.report.paired import differences
from supple.lab.report.settings import SETTINGS, Trials, trials_of
from supple.lab.report.statistics import Array
from supple.lab.report.style import STYLES
from supple.lab.report.sweep import cross_fit
from supple.lab.report.verdicts import Judged, Statement, Verdict, judge, together

USUAL = {
    "swr": {"utility": "gradient", "pruning": "threshold", "reinit": "resample"},
    "cbp": {"utility": "contribution"},
    "redo": {"utility": "activation"},
}
"""What a method is unless a study says otherwise."""


@dataclass(frozen=True)
class Missing:
    """Runs that a claim needs and that are not there.

    Args:
        what: which.
        command: what would run them.
    """

    what: str
    command: str


@dataclass(frozen=True, eq=False)
class Claim:
    """A claim of the paper and what the runs say about it.

    Args:
        id: such as "C1".
        text: the claim.
        tested: how it is tested.
        verdict: what follows from the runs.
        evidence: its statements, judged.
        missing: runs that are not there.
        scale: for each setting that was smaller than the paper's, how much.
    """

    id: str
    text: str
    tested: str
    verdict: Verdict
    evidence: Sequence[Judged]
    missing: Sequence[Missing] = ()
    scale: Mapping[str, str] = field(default_factory=dict)


class Collector:
    """Gathers the statements of one claim, and what is missing for them.

    Args:
        runs: from :func:`supple.lab.report.settings.all_trials`.
    """

    def __init__(self, runs: pl.DataFrame) -> None:
        self.runs = runs
        self.statements: list[Statement] = []
        self.missing: list[Missing] = []
        self.scale: dict[str, str] = {}
        self.found: dict[str, Trials] = {}

    def trials(
        self,
        setting: str,
        kinds: Sequence[str],
        optional: bool = False,
        study: str | None = None,
        variety: Sequence[str] = ("kind",),
    ) -> Trials | None:
        """The runs of a setting; what is missing is noted.

        Args:
            setting: a key of SETTINGS.
            kinds: the methods that are compared.
            optional: whether nothing is noted.
            study: name of the study that has them; None: that of the setting.
            variety: the columns in which what is compared differs.

        Returns:
            The runs; None if there are none.
        """
        found = trials_of(self.runs, setting, kinds, variety)
        there = set() if found is None else set(found.runs["kind"])
        lacking = [kind for kind in kinds if kind not in there]
        if found is not None:
            self.found[setting] = found
            if found.scale:
                self.scale[SETTINGS[setting].words] = found.scale
        if lacking and not optional:
            self.lacks(setting, _listed([STYLES[kind].label for kind in lacking]), study)
        return found

    def lacks(self, setting: str, what: str, study: str | None = None) -> None:
        """Notes that runs are missing.

        Args:
            setting: a key of SETTINGS.
            what: which runs, without the setting.
            study: name of the study that has them; None: that of the setting.
        """
        study, found = study or SETTINGS[setting].study, self.found.get(setting)
        # What is there already is gone on with, at its scale, where it is a study that has all methods.
        command = found.same_seeds if found is not None and found.study == study else f"supple run {study}"
        self.missing.append(Missing(f"{what} in the {SETTINGS[setting].words}", command))

    def add(self, setting: str, statement: Statement) -> None:
        """Adds a statement about a setting.

        Args:
            setting: a key of SETTINGS.
            statement: the statement, without the place it is about.
        """
        self.statements.append(replace(statement, place=SETTINGS[setting].words))

    def claim(self, name: str, text: str, tested: str, kind: IntervalKind) -> Claim:
        """The claim with its verdict.

        Args:
            name: such as "C1".
            text: the claim.
            tested: how it is tested.
            kind: of the intervals.

        Returns:
            The claim.
        """
        judged = judge(self.statements, interval_of(kind))
        missing = [*self.missing, *_more_seeds(judged, self.found)]
        verdict = together([one.verdict for one in judged], bool(self.missing))
        shown = missing if verdict is Verdict.NOT_ENOUGH else self.missing
        return Claim(name, text, tested, verdict, judged, shown, self.scale)


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _more_seeds(judged: Sequence[Judged], found: Mapping[str, Trials]) -> Iterator[Missing]:
    """What undecided statements need: more seeds."""
    for key, trials in found.items():
        setting = SETTINGS[key]
        open_ones = [
            one for one in judged if one.verdict is Verdict.NOT_ENOUGH and one.statement.place == setting.words
        ]
        if open_ones:
            needed = [one.needed for one in open_ones]
            known = [n for n in needed if n is not None]
            seeds = max(known) if len(known) == len(needed) else 2 * trials.runs["seed"].n_unique()
            about = f"about {seeds} seeds" if len(known) == len(needed) else "more seeds"
            yield Missing(f"{about} in the {setting.words}", f"{trials.command} --seeds {seeds}")


def final(trials: Trials, rows: pl.DataFrame, column: str = "late") -> tuple[dict[int, float], str]:
    """An outcome for each seed, at the setting that the other half of the seeds chose by final accuracy.

    Settings that were run with fewer seeds than others take no part, such as those of a sweep beside a full study.

    Args:
        trials: the runs of a setting.
        rows: those of one method among them.
        column: the outcome.

    Returns:
        (a value for each seed; a note on settings and diverged runs).
    """
    counts = rows.group_by("configuration", maintain_order=True).agg(pl.col("seed").n_unique())
    most = counts.filter(pl.col("seed") == pl.col("seed").max())
    rows = rows.filter(pl.col("configuration").is_in(most["configuration"].to_list()))
    configurations = most["configuration"].to_list()
    seeds = rows["seed"].unique().sort().to_list()
    at = {name: k for k, name in enumerate(configurations)}, {seed: k for k, seed in enumerate(seeds)}
    late = np.full((len(configurations), len(seeds)), np.nan)
    wanted = late.copy()
    for configuration, seed, value, outcome in rows.select("configuration", "seed", "late", outcome=column).iter_rows():
        place = at[0][configuration], at[1][seed]
        late[place], wanted[place] = value, np.nan if outcome is None else outcome
    chosen = cross_fit(late)
    values = {seed: float(wanted[chosen.chosen[k], k]) for k, seed in enumerate(seeds)}
    notes = []
    if len(configurations) > 1:
        honest = "each seed at the one that other seeds chose" if chosen.honest else "chosen on the same seeds"
        notes.append(f"best of {len(configurations)} settings, {honest}")
    diverged = int(rows["diverged"].sum())
    if diverged:
        notes.append(f"{diverged} of {len(rows)} runs diverged")
    return {seed: value for seed, value in values.items() if not np.isnan(value)}, "; ".join(notes)


def usual(trials: Trials, kind: str) -> pl.DataFrame:
    """The runs of a method as it usually is: its row of the same name, or those with the usual utility.

    Args:
        trials: the runs of a setting.
        kind: the method.

    Returns:
        Its runs; none if it was not run like that.
    """
    rows = trials.runs.filter(pl.col("kind") == kind)
    named = rows.filter(pl.col("method") == kind)
    for name, value in USUAL.get(kind, {}).items():
        if name in rows.columns:
            rows = rows.filter(pl.col(name).is_null() | (pl.col(name) == value))
    return rows if named.is_empty() else named


def pair(
    trials: Trials, first: str, second: str, column: str = "late", without: Collection[int] = ()
) -> tuple[Array, str]:
    """Differences of two methods seed by seed, each as it usually is and at its best setting.

    Args:
        trials: the runs of a setting.
        first: a method.
        second: the one that is subtracted.
        column: the outcome.
        without: seeds that are left out.

    Returns:
        (differences [pairs]; a note on settings and diverged runs).
    """
    one, one_note = final(trials, usual(trials, first), column)
    other, other_note = final(trials, usual(trials, second), column)
    notes = ((STYLES[first].label, one_note), (STYLES[second].label, other_note))
    kept = {seed: value for seed, value in one.items() if seed not in without}
    return differences(kept, other), "; ".join(f"{label}: {note}" for label, note in notes if note)


def has(trials: Trials, *kinds: str) -> bool:
    """Whether methods were run as they usually are.

    Args:
        trials: the runs of a setting.
        kinds: the methods.

    Returns:
        Whether all were.
    """
    return all(not usual(trials, kind).is_empty() for kind in kinds)
