"""Runs of several folders that can be compared with each other, and their outcomes seed by seed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from supple.lab.report.comparison import by_seed, chosen
from supple.lab.report.facts import going_on, seeds_option
from supple.lab.report.measures import Measured
from supple.lab.report.statistics import Array, cross_fit, differences
from supple.lab.report.style import label_of


def pooled(folders: Iterable[Measured]) -> pl.DataFrame:
    """The runs of several folders in one frame; one that is in two folders, with the same settings and seed, once.

    Beside the columns of :attr:`Measured.runs` and :attr:`Measured.disturbances` there are "folder", its place,
    "tasks", "configuration", the method's settings as text, and "world", all else that runs compared have in common.
    """
    frames = [_described(place, measured) for place, measured in enumerate(folders)]
    together = pl.concat(frames, how="diagonal_relaxed") if frames else pl.DataFrame()
    # Of equal runs the one whose row bears the method's own name, and then one with disturbances.
    first = together.sort(
        pl.col("method") == pl.col("kind"), pl.col("loss").is_not_null(), descending=True, maintain_order=True
    )
    return first.unique(["world", "kind", "configuration", "seed"], keep="first", maintain_order=True)


def _described(place: int, measured: Measured) -> pl.DataFrame:
    problem = {**measured.study.problem.model_dump(), "images": measured.results.images.count, "tasks": measured.tasks}
    own = [name for name in measured.settings if "." not in name]
    # What runs do not say, such as a setting that came later than they, is as their study has it.
    lacking = {name: value for name, value in measured.usual.items() if name not in measured.settings}
    runs = measured.runs.with_columns(pl.lit(value).alias(name) for name, value in lacking.items())
    shared = [name for name in runs.columns if "." in name]
    frame = runs.with_columns(
        folder=pl.lit(place),
        tasks=pl.lit(measured.tasks),
        world=pl.format("{}, {}", _text(shared), pl.lit(", ".join(f"{k}={v}" for k, v in sorted(problem.items())))),
        configuration=_text(own),
    )
    return frame.join(measured.disturbances, on="run", how="left", maintain_order="left")


def _text(names: Sequence[str]) -> pl.Expr:
    """Settings as text that is the same for the same settings; those that are null are left out."""
    each = [pl.format("{}={}", pl.lit(name), pl.col(name).cast(pl.String)) for name in sorted(names)]
    return pl.concat_str(each, separator=", ", ignore_nulls=True) if each else pl.lit("")


@dataclass(frozen=True, eq=False)
class Trials:
    """Runs that can be compared, rows of :func:`pooled` of one network, optimizer, problem and number of tasks.

    ``measured`` is the folder that the first of them are from.
    """

    runs: pl.DataFrame
    measured: Measured

    def command(self, seeds: str | None = None) -> str:
        """What goes on with them, with their seeds or others."""
        seeds = seeds or seeds_option(self.runs["seed"].unique().sort().to_list())
        return f"{going_on(self.measured, seeds=False)} --seeds {seeds}"

    def usual(self, kind: str, settings: Mapping[str, Any]) -> pl.DataFrame:
        """The runs of a method as it usually is: its row of the same name, or those with the usual settings."""
        rows = self.runs.filter(pl.col("kind") == kind)
        named = rows.filter(pl.col("method") == kind)
        if not named.is_empty():
            return named
        known = {name: value for name, value in settings.items() if name in rows.columns}
        return rows.filter(*(pl.col(name).is_null() | (pl.col(name) == value) for name, value in known.items()))


def comparable(
    runs: pl.DataFrame, folders: Sequence[Measured], kinds: Sequence[str], variety: Sequence[str]
) -> Trials | None:
    """The runs of some kinds of methods that differ in nothing but the method; None if there are none.

    Of several ways to run them, such as step sizes or scales, it is that in which most of what is compared, which
    differs in the columns ``variety``, was run; then that with the most tasks, and with the most runs.
    """
    here = runs.filter(pl.col("kind").is_in(list(kinds)))
    if here.is_empty():
        return None
    compared = pl.struct([name for name in variety if name in here.columns] or ["kind"])
    ranked = (
        here.group_by("world")
        .agg(compared.n_unique().alias("compared"), pl.col("tasks").first(), pl.len())
        .sort("compared", "tasks", "len", "world", descending=True)
    )
    found = here.filter(pl.col("world") == ranked["world"][0])
    return Trials(found, folders[found["folder"][0]])


def final(rows: pl.DataFrame, column: str = "late") -> tuple[dict[int, float], str]:
    """An outcome of a method for each seed, at the setting that the other half chose, and a note on how.

    Settings that were run with fewer seeds than others take no part, such as those of a sweep beside a full study.
    """
    counts = rows.group_by("configuration", maintain_order=True).agg(pl.col("seed").n_unique())
    most = counts.filter(pl.col("seed") == pl.col("seed").max())["configuration"]
    rows = rows.filter(pl.col("configuration").is_in(most.to_list()))
    fit = cross_fit(by_seed(rows, "configuration", "late")[2])
    notes = []
    if len(most) > 1:
        honest = "each seed at the one that other seeds chose" if fit.honest else "chosen on the same seeds"
        notes.append(f"best of {len(most)} settings, {honest}")
    diverged = int(rows["diverged"].sum())
    if diverged:
        notes.append(f"{diverged} of {len(rows)} runs diverged")
    return chosen(rows, "configuration", fit, column), "; ".join(notes)


def pair(
    first: pl.DataFrame, second: pl.DataFrame, column: str = "late", without: Collection[int] = ()
) -> tuple[Array, str]:
    """Differences [pairs] of the runs of two methods seed by seed, each at its best setting, and a note on how."""
    one, one_note = final(first, column)
    other, other_note = final(second, column)
    notes = ((label_of(first["kind"][0]), one_note), (label_of(second["kind"][0]), other_note))
    kept = {seed: value for seed, value in one.items() if seed not in without}
    return differences(kept, other), "; ".join(f"{label}: {note}" for label, note in notes if note)
