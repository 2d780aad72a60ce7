"""What a report says about one folder: its methods, each at its best setting, compared seed by seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import polars as pl

from supple.lab.report.bootstrap import IntervalKind, interval_of
from supple.lab.report.comparison import Summary, sentence
from supple.lab.report.drawing import number
from supple.lab.report.measured import Measured, Windows
from supple.lab.report.paired import differences, holm, paired_p
from supple.lab.report.statistics import Array, Interval
from supple.lab.report.style import MethodStyle
from supple.lab.report.sweep import cross_fit
from supple.lab.report.variants import words
from supple.lab.report.verdicts import unanimous
from supple.lab.study.manifest import as_cell
from supple.lab.study.methods import defaults as method_defaults

_NO_SETTINGS = {"run", "method", "kind", "seed", "point", "part", "done", "early", "late", "change", "diverged"}
_NO_SETTINGS |= {"dead", "rank", "weight_magnitude", "reinitialized"}


@dataclass(frozen=True, eq=False)
class Row:
    """A method of a study.

    Args:
        name: the name that the study gives it.
        kind: the method's own name.
        style: how it is shown.
        settings: its settings at the best point, by name, where they are not the method's defaults or, of network and
            optimizer, not the study's.
        grid: settings that have several values, with their values in order.
        points: for each point of the grid the values of the settings in ``grid``.
        late: [points, seeds], final accuracy; NaN where it was not run.
        seeds: the seeds.
        best: the point with the highest mean.
        honest: whether each seed reports a point that other seeds chose.
        runs: numbers of the runs of the best point.
        outcome: for "early", "late" and "change" a value for each seed, at the point that the other half of the seeds
            chose.
        count: runs of all points.
        diverged: how many of them diverged.
        dead: share of dead units at the last task, at the best point.
        rank: rank of the last features there.
        reinitialized: entries or units reinitialized in a run there.
    """

    name: str
    kind: str
    style: MethodStyle
    settings: Mapping[str, Any]
    grid: Mapping[str, Sequence[Any]]
    points: Sequence[Mapping[str, Any]]
    late: Array
    seeds: Sequence[int]
    best: int
    honest: bool
    runs: Sequence[int]
    outcome: Mapping[str, Mapping[int, float]]
    count: int
    diverged: int
    dead: float
    rank: float
    reinitialized: float

    @property
    def settings_text(self) -> str:
        """The settings as text."""
        return ", ".join(f"{setting_words(name)} {number(value)}" for name, value in self.settings.items())


@dataclass(frozen=True, eq=False)
class Section:
    """A folder, ready to be shown.

    Args:
        key: names its files and anchors.
        measured: its numbers.
        rows: its methods; the first is what the others are compared with.
        summaries: of the rows, in order.
        p: for each row the p-value of its difference from the first, adjusted by Holm's method; NaN for the first.
        kind: of the intervals.
    """

    key: str
    measured: Measured
    rows: Sequence[Row]
    summaries: Sequence[Summary]
    p: Array
    kind: IntervalKind
    unit: ClassVar[str] = "tasks"

    @property
    def styles(self) -> dict[str, MethodStyle]:
        """How each row is shown."""
        return {row.name: row.style for row in self.rows}

    @property
    def answer(self) -> str:
        """What the folder shows, in plain words."""
        windows, first = self.measured.windows, self.rows[0]
        text = sentence(
            list(self.summaries),
            {row.name: row.style.label for row in self.rows},
            self.gap,
            f" in {Windows.words(windows.early)}",
            f" in {Windows.words(windows.late)}",
            "plain training" if first.name == "base" else first.style.label,
        )
        diverged, count = sum(row.diverged for row in self.rows), sum(row.count for row in self.rows)
        if diverged:
            text += f" {diverged:,} of {count:,} runs diverged."
        if max(len(row.seeds) for row in self.rows) == 1:
            text += " One seed gives no interval, so this may be chance."
        return text

    def gap(self, best: str, other: str) -> Interval:
        """The final accuracy of a method minus that of another, seed by seed.

        Args:
            best: the name of a row.
            other: the name of the row that is subtracted.

        Returns:
            The difference.
        """
        outcomes = {row.name: row.outcome["late"] for row in self.rows}
        d = differences(outcomes[best], outcomes[other])
        found = interval_of(self.kind)(d) if len(d) else nothing()
        # What every pair says is clear, however wide one run that diverged makes the interval.
        return found._replace(low=np.maximum(found.low, d.min())) if unanimous(d) else found

    @property
    def so_far(self) -> str:
        """How far the runs of a study that is not finished have come."""
        measured = self.measured
        return f"first {measured.tasks:,} of {measured.results.manifest['tasks']:,} tasks"

    @property
    def partial(self) -> str:
        """What is missing of a study that is not finished; empty where nothing is."""
        measured = self.measured
        if measured.complete:
            return ""
        wanted, runs = measured.results.manifest["tasks"], len(measured.runs)
        tasks = f"their {self.so_far}" if measured.tasks < wanted else f"all {self.unit}"
        more = f"; {measured.left_out:,} others are not so far yet" if measured.left_out else ""
        lacking = [name for name in measured.methods if name not in self.styles]
        nothing = f" There is nothing of {', '.join(lacking)} yet." if lacking else ""
        return f"This is about the {runs:,} runs that have learned {tasks}{more}.{nothing}"


def make_section(
    measured: Measured, styles: Mapping[str, MethodStyle], key: str, kind: IntervalKind = "student"
) -> Section:
    """Compares the methods of a folder.

    Args:
        measured: its numbers.
        styles: for each name of a method how it is shown.
        key: names its files and anchors.
        kind: of the intervals.

    Returns:
        The section.
    """
    usual = (measured.results.manifest.get("study") or {}) if measured.results.manifest else {}
    rows = []
    for (name,), frame in measured.runs.group_by("method", maintain_order=True):
        rows.append(_row(str(name), frame, styles[str(name)], usual))
    # Plain training comes first, as what the others are compared with; without it the first row that is plain.
    rows.sort(key=lambda row: 0 if row.name == row.kind == "base" else 1 if row.kind == "base" else 2)
    if rows[0].name != "base":
        first = next((row for row in rows if row.kind == "base"), rows[0])
        rows = [first, *(row for row in rows if row is not first)]
    interval = interval_of(kind)
    gains = [differences(row.outcome["late"], rows[0].outcome["late"]) for row in rows]
    summaries = [
        Summary(
            row.name,
            early=interval(list(row.outcome["early"].values())),
            late=interval(list(row.outcome["late"].values())),
            change=interval(list(row.outcome["change"].values())),
            gain=interval(gain) if len(gain) else nothing(),
            dead=row.dead,
            reinitialized=row.reinitialized,
        )
        for row, gain in zip(rows, gains, strict=True)
    ]
    p = holm([np.nan, *(float(paired_p(gain)) for gain in gains[1:])])
    return Section(key, measured, rows, summaries, p, kind)


def setting_words(name: str) -> str:
    """A setting as people write it: "optimizer.step_size" is "step size".

    Args:
        name: the name of its column.

    Returns:
        The words.
    """
    return words(name.rpartition(".")[2]) if name != "l2" else "L2"


def nothing() -> Interval:
    """The interval of no values.

    Returns:
        NaN.
    """
    return Interval(*(np.array(np.nan),) * 3)


def _row(name: str, frame: pl.DataFrame, style: MethodStyle, study: Mapping[str, Any]) -> Row:
    """One method: its points, the best of them, and what it is worth."""
    columns = [c for c in frame.columns if c not in _NO_SETTINGS and frame[c].null_count() < len(frame)]
    grid = {c: frame[c].unique().sort().to_list() for c in columns if frame[c].n_unique() > 1}
    seeds = frame["seed"].unique().sort().to_list()
    texts = frame["point"].unique(maintain_order=True).to_list()
    place = {text: k for k, text in enumerate(texts)}, {seed: k for k, seed in enumerate(seeds)}
    table = {c: np.full((len(texts), len(seeds)), np.nan) for c in ("early", "late", "change")}
    at = (
        [place[0][text] for text in frame["point"]],
        [place[1][seed] for seed in frame["seed"]],
    )
    for column, values in table.items():
        values[at] = frame[column].to_numpy()
    firsts = frame.unique("point", keep="first", maintain_order=True)
    points = firsts.select(list(grid)).to_dicts() if grid else [{}] * len(texts)
    chosen = cross_fit(table["late"])
    best = frame.filter(pl.col("point") == texts[chosen.best])
    outcome = {
        column: {
            seed: float(values[chosen.chosen[k], k])
            for k, seed in enumerate(seeds)
            if np.isfinite(values[chosen.chosen[k], k])
        }
        for column, values in table.items()
    }
    return Row(
        name, str(frame["kind"][0]), style, _shown_settings(best, columns, grid, study), grid, points, table["late"],
        seeds, chosen.best, chosen.honest, best["run"].to_list(), outcome, len(frame), int(frame["diverged"].sum()),
        _mean(best["dead"]), _mean(best["rank"]), _mean(best["reinitialized"]),
    )  # fmt: skip


def _shown_settings(
    frame: pl.DataFrame, columns: Sequence[str], grid: Mapping[str, Any], study: Mapping[str, Any]
) -> dict[str, Any]:
    """The settings of a point that are not usual: by the method's defaults, or the study's network and optimizer."""
    try:
        defaults = method_defaults(str(frame["kind"][0]))
    except ValueError:  # of a method that is not here
        defaults = {}
    found = {}
    for column in columns:
        value = frame[column][0]
        group, _, name = column.rpartition(".")
        common = as_cell((study.get(group) or {}).get(name)) if group else defaults.get(name)
        if value is not None and (column in grid or value != common):
            found[column] = value
    return found


def _mean(values: pl.Series) -> float:
    finite = values.cast(pl.Float64).drop_nulls().drop_nans()
    return float(finite.to_numpy().mean()) if len(finite) else float("nan")
