"""The methods of a folder, each at the best of its settings, compared seed by seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from supple.lab.escaping import file_name, short
from supple.lab.report.measures import Measured, finite
from supple.lab.report.statistics import (
    Array,
    CrossFit,
    Interval,
    cross_fit,
    differences,
    holm,
    mean_interval,
    paired_p,
)
from supple.lab.report.style import Style
from supple.lab.report.texts import gap_text, level, listed, number, setting_words, spanned
from supple.lab.report.verdicts import unanimous
from supple.lab.study.methods import defaults
from supple.lab.study.schema import Outcome


def by_seed(runs: pl.DataFrame, group: str, column: str) -> tuple[list[str], list[int], Array]:
    """The settings that the column ``group`` has as text, in the order of the runs, the seeds in order, and an outcome
    of runs [settings, seeds], NaN where nothing was run.
    """
    settings = runs[group].unique(maintain_order=True).to_list()
    seeds = runs["seed"].unique().sort().to_list()
    places = runs.select(
        pl.col(group).replace_strict(settings, range(len(settings)), return_dtype=pl.Int64),
        pl.col("seed").replace_strict(seeds, range(len(seeds)), return_dtype=pl.Int64),
        value=pl.col(column).cast(pl.Float64).fill_null(float("nan")),
    )
    table = np.full((len(settings), len(seeds)), np.nan)
    table[places[group].to_numpy(), places["seed"].to_numpy()] = places["value"].to_numpy()
    return settings, seeds, table


def chosen(runs: pl.DataFrame, group: str, fit: CrossFit, column: str) -> dict[int, float]:
    """An outcome for each seed, at the setting that the other half of the seeds chose; only where it is finite."""
    _, seeds, table = by_seed(runs, group, column)
    return {seed: value for seed, value in zip(seeds, fit.of(table).tolist(), strict=True) if np.isfinite(value)}


@dataclass(frozen=True, eq=False)
class Line:
    """One row of a comparison: a method, by the name that the study gives it and by its own, its ``kind``.

    ``settings`` are those at its best point that are not usual, by the method's defaults or the study's network and
    optimizer, with all that its grid varies; ``stated`` has also those that the study states although they are usual.
    ``grid`` has the settings of several values, ``points`` its points as text. ``late`` [points, seeds] is final
    accuracy, NaN where it was not run, and ``fit`` the choice of a point by it. ``what`` is what accuracy stands for.
    """

    name: str
    kind: str
    style: Style
    runs: pl.DataFrame
    settings: Mapping[str, Any]
    stated: Mapping[str, Any]
    grid: Mapping[str, Sequence[Any]]
    points: Sequence[str]
    seeds: Sequence[int]
    late: Array
    fit: CrossFit
    what: Outcome = field(default_factory=Outcome)

    @cached_property
    def best(self) -> pl.DataFrame:
        """The runs of the best point."""
        return self.runs.filter(pl.col("point") == self.points[self.fit.best])

    def outcome(self, column: str) -> dict[int, float]:
        """An outcome for each seed, at the point that the other half of the seeds chose."""
        return chosen(self.runs, "point", self.fit, column)

    def interval(self, column: str) -> Interval:
        """Mean and interval of an outcome over seeds."""
        return mean_interval(list(self.outcome(column).values()))

    def average(self, column: str) -> float:
        """The mean of an outcome over the runs of the best point, those that are finite."""
        mean = self.best.select(finite(column).mean()).item()
        return float("nan") if mean is None else float(mean)

    @property
    def swept(self) -> bool:
        """Whether it was run at several settings."""
        return len(self.points) > 1

    @property
    def diverged(self) -> int:
        """How many of its runs diverged."""
        return int(self.runs["diverged"].sum())


def settings_text(settings: Mapping[str, Any]) -> str:
    """Settings as text, such as "frequency 512, factor 1e-6"."""
    return ", ".join(f"{setting_words(name)} {number(value)}" for name, value in settings.items())


@dataclass(frozen=True, eq=False)
class Comparison:
    """The methods of a folder; ``key`` names its files and anchors.

    ``p`` is for each line the p-value of its difference from the first, adjusted by Holm's method; NaN for the first.
    """

    key: str
    measured: Measured
    lines: Sequence[Line]
    p: Array

    @property
    def title(self) -> str:
        """What the folder is called."""
        return short(self.measured.study.title, 200)

    @property
    def outcome(self) -> Outcome:
        """What runs are compared by."""
        return self.measured.outcome

    @property
    def first(self) -> Line:
        """What the others are compared with: plain training where it was run."""
        return self.lines[0]

    @property
    def subject(self) -> str:
        """What the first is called in a sentence."""
        return "plain training" if self.first.name == "base" else self.first.style.label

    def gap(self, line: Line, other: Line) -> Interval:
        """The final accuracy of a method minus that of another, seed by seed."""
        return mean_interval(differences(line.outcome("late"), other.outcome("late")))

    def lead(self, best: Line, others: Sequence[Line], called: str) -> str:
        """Which others are not clearly behind the best, such as "; CBP is not clearly behind it"; empty if all are."""
        near = []
        for other in others:
            d = _sign(self.outcome) * differences(best.outcome("late"), other.outcome("late"))
            # What every pair says is clear, however wide one run that diverged makes the interval.
            if other is not best and not unanimous(d) and mean_interval(d).low <= 0:
                near.append(other.style.label)
        named = f"{len(near)} others" if len(near) > 4 else listed(near)
        return f"; {named} {'are' if len(near) > 1 else 'is'} not clearly behind {called}" if near else ""

    @property
    def runs(self) -> list[int]:
        """Numbers of the runs at the best points."""
        return [run for line in self.lines for run in line.best["run"]]

    def values(self, column: str, minus: Line | None = None) -> pl.DataFrame:
        """An outcome, or what it is above another line's, of each seed, as rows of "line", "seed" and "value"."""
        reference = minus.outcome(column) if minus is not None else {}
        rows = [
            (line.name, seed, value - reference.get(seed, 0.0))
            for line in self.lines
            for seed, value in line.outcome(column).items()
            if minus is None or (line is not minus and seed in reference)
        ]
        return pl.DataFrame(rows, {"line": pl.String, "seed": pl.Int64, "value": pl.Float64}, orient="row")


def compare(measured: Measured, styles: Mapping[str, Style], key: str) -> Comparison:
    """Compares the methods of a folder, each shown in the style of its name; ``key`` names its files and anchors."""
    groups = measured.runs.group_by("method", maintain_order=True)
    lines = [_line(str(name), runs, styles[str(name)], measured) for (name,), runs in groups]
    # Plain training comes first, then what else is trained plainly, such as another network.
    lines.sort(key=lambda line: 2 if line.kind != "base" else line.name != "base")
    reference = lines[0].outcome("late")
    p = [paired_p(differences(line.outcome("late"), reference)) for line in lines[1:]]
    return Comparison(key, measured, lines, holm([np.nan, *p]))


def _line(name: str, runs: pl.DataFrame, style: Style, measured: Measured) -> Line:
    given = [column for column in measured.settings if runs[column].null_count() < len(runs)]
    grid = {column: runs[column].unique().sort().to_list() for column in given if runs[column].n_unique() > 1}
    points, seeds, late = by_seed(runs, "point", "late")
    fit = cross_fit(_sign(measured.outcome) * late)
    best = runs.filter(pl.col("point") == points[fit.best]).row(0, named=True)
    try:
        usual = {**defaults(str(best["kind"])), **measured.usual}
    except ValueError:
        # A method of somebody's own that is not here.
        usual = measured.usual
    settings = {
        column: best[column]
        for column in given
        if best[column] is not None and (column in grid or best[column] != usual.get(column))
    }
    entry = measured.study.methods.get(name, {})
    stated = {column: best[column] for column in given if column in settings or column in entry}
    kind, what = str(best["kind"]), measured.outcome
    return Line(name, kind, style, runs, settings, stated, grid, points, seeds, late, fit, what)


def _sign(outcome: Outcome) -> int:
    """What an outcome is multiplied by so that higher is better."""
    return -1 if outcome.lower else 1


def fate(comparison: Comparison, early: range, late: range) -> str:
    """What became of the first method, and of the best of the others, over tasks that are equally hard.

    A fall, a rise or a difference is called one only if its interval leaves out 0.
    """
    first, others = comparison.first, comparison.lines[1:]
    change, outcome = first.interval("change"), comparison.outcome
    worse = change.low > 0 if outcome.lower else change.high < 0
    lost = " (loss of plasticity)" if worse else ""
    move = _move(first, f" in {spanned(early)}", f" in {spanned(late)}")
    text = f"The {outcome.name} of {comparison.subject} {move}{lost}"
    if others:
        best = best_of(others)
        text += (
            f", while {best.style.label}, on average the best method at the end, {_move(best)} and ended "
            f"{gap_text(comparison.gap(best, first), share=outcome.share)}{comparison.lead(best, others, 'it')}"
        )
    return f"{text}."


def best_of(lines: Sequence[Line]) -> Line:
    """The line of the highest final accuracy, or of the lowest where lower is better."""
    return max(lines, key=lambda line: _sign(line.what) * line.interval("late").mean)


def _move(line: Line, first: str = "", last: str = "") -> str:
    """From where to where the accuracy went."""
    change = line.interval("change")
    early, late = (level(line.interval(name).mean, line.what.share) for name in ("early", "late"))
    ends = f"from {early}{first} to {late}{last}"
    if not change.known:
        return f"went {ends}"
    return f"{'rose' if change.mean > 0 else 'fell'} {ends}" if change.clear else f"went {ends} (no clear change)"


def groups(lines: Sequence[Line], together: int = 8) -> list[tuple[str, str, list[Line]]]:
    """Which methods share a figure of curves: for each an ending of its name, one of its title, and its methods.

    Up to so many share one. Of more, the methods under their own names share the first, and the variants of each kind
    one or more, each with the first method and the kind's own.
    """
    if len(lines) <= together:
        return [("", "", list(lines))]
    first = lines[0]
    own = [line for line in lines if line is first or line.name == line.kind]
    found = [("", "", own)] if len(own) > 1 else []
    for kind in dict.fromkeys(line.kind for line in lines):
        variants = [line for line in lines if line.kind == kind and line not in own]
        known = [line for line in own if line is first or line.kind == kind]
        label = next((line.style.label for line in known if line.name == kind), kind)
        what = {"base": "networks", "reset": "resets"}.get(kind, f"variants of {label}")
        room = together + 1 - len(known)
        for k in range(0, len(variants), room):
            part = f"-{k // room + 1}" if len(variants) > room else ""
            plain = file_name(kind.rpartition(":")[2])
            found.append((f"-{plain}{part}", f": {what}", [*known, *variants[k : k + room]]))
    return found
