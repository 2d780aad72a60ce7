"""Which figures a folder of results is shown in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from supple.lab.report.bootstrap import interval_of
from supple.lab.report.correlates import correlates, drawn_panels
from supple.lab.report.dots import Panel, dots
from supple.lab.report.drawing import number, percents, reading_of, spans_decades
from supple.lab.report.figures import binned_accuracy
from supple.lab.report.section import Row, Section, setting_words
from supple.lab.report.sensitivity import Sweep, drawn_styles, sensitivity
from supple.lab.report.statistics import Array, finite_interval
from supple.lab.report.style import MethodStyle, Theme
from supple.lab.report.variants import colour_pairs

TOGETHER = 8
"""The most methods that share a figure of curves."""

_CHANGES = {
    "loss": "loss, nats",
    "gradient": "mean |gradient|",
    "mean": "mean of activations",
    "std": "std of activations",
}


@dataclass(frozen=True, eq=False)
class Drawn:
    """A figure that can be drawn in any size and theme.

    Args:
        key: names its file.
        alt: what it shows, for those who cannot see it.
        draw: draws it, from width and height in inches and the theme.
        pairs: for each of its colours in the light theme the one in the dark theme.
    """

    key: str
    alt: str
    draw: Callable[[tuple[float, float], Theme], Figure]
    pairs: Mapping[str, str]


def section_figures(section: Section) -> Iterator[Drawn]:
    """The figures of a folder: curves and correlates, disturbances, sweeps.

    Args:
        section: the folder.

    Yields:
        The figures, in the order of the page.
    """
    runs = [run for row in section.rows for run in row.runs]
    centres, curves = section.measured.curves(runs)
    place = {run: k for k, run in enumerate(runs)}
    by_row = {
        name: {row.name: values[:, [place[run] for run in row.runs]] for row in section.rows}
        for name, values in curves.items()
    }
    groups = row_groups(section.rows)
    if len(groups) > 1:
        change = Panel("change, points", {s.method: s.change for s in section.summaries}, points)
        yield overview(section, change, "its change since 10% of tasks")
    for key, title, rows in groups:
        chosen = {name: {row.name: values[row.name] for row in rows} for name, values in by_row.items()}
        yield from _over_tasks(section, f"{section.key}{key}", title, rows, centres, chosen)
    yield from _disturbances(section)
    for row in section.rows:
        if row.grid:
            yield sweep_figure(section, row)


def row_groups(rows: Sequence[Row]) -> list[tuple[str, str, list[Row]]]:
    """Which methods share a figure of curves.

    Up to :data:`TOGETHER` of them do. Of more, the methods under their own names share the first, and the variants of
    each kind one or more, each with the first method and the kind's own.

    Args:
        rows: the methods; the first is what the others are compared with.

    Returns:
        For each figure an ending of its file's name, an ending of its title, and its methods.
    """
    if len(rows) <= TOGETHER:
        return [("", "", list(rows))]
    first = rows[0]
    own = [row for row in rows if row is first or row.name == row.kind]
    groups = [("", "", own)] if len(own) > 1 else []
    for kind in dict.fromkeys(row.kind for row in rows):
        variants = [row for row in rows if row.kind == kind and row not in own]
        known = [row for row in own if row is first or row.kind == kind]
        room = TOGETHER + 1 - len(known)
        for k in range(0, len(variants), room):
            part = f"-{k // room + 1}" if len(variants) > room else ""
            what = {"base": "networks", "reset": "resets"}.get(kind, f"variants of {_kind_label(rows, kind)}")
            groups.append((f"-{kind.replace('_', '-')}{part}", f": {what}", [*known, *variants[k : k + room]]))
    return groups


def _kind_label(rows: Sequence[Row], kind: str) -> str:
    return next((row.style.label for row in rows if row.name == kind), kind)


def seeds_reading(rows: Sequence[Row], width: int, unit: str = "task") -> list[str]:
    """How lines and bands of some methods came about.

    Args:
        rows: the methods.
        width: tasks that a point averages over.
        unit: what a task is called.

    Returns:
        The words, in parts.
    """
    counts = {len(row.runs) for row in rows}
    reading = reading_of(width, max(counts), unit)
    if len(counts) > 1:
        reading[0] = reading[0].replace(f"{max(counts)} seeds", f"{min(counts)} to {max(counts)} seeds")
    if any(len(row.points) > 1 for row in rows):
        reading.append("best settings")
    return reading


def _over_tasks(
    section: Section,
    key: str,
    title: str,
    rows: Sequence[Row],
    centres: Array,
    curves: Mapping[str, Mapping[str, Array]],
) -> Iterator[Drawn]:
    """Accuracy, and what was measured beside it, of some methods."""
    styles = {row.name: row.style for row in rows}
    pairs = colour_pairs(list(styles.values()))
    reading = seeds_reading(rows, section.measured.bin_width)
    named = ", ".join(row.style.label for row in rows)
    yield Drawn(
        f"{key}-accuracy",
        f"Accuracy over tasks of {named}. The numbers are in the table.",
        lambda size, theme: binned_accuracy(
            centres, curves["accuracy"], styles, f"Accuracy over tasks{title}", reading, theme, size
        ),
        pairs,
    )
    if drawn_panels(curves):
        yield Drawn(
            f"{key}-correlates",
            f"Dead units, feature rank, magnitudes and reinitializations over tasks of {named}.",
            lambda size, theme: correlates(
                centres, curves, styles, f"What goes along with it{title}", reading, theme, size
            ),
            pairs,
        )


def overview(section: Section, beside: Panel, what: str) -> Drawn:
    """Final accuracy of all methods, and one number more.

    Args:
        section: the folder.
        beside: the other number.
        what: what it is, in words.

    Returns:
        The figure.
    """
    values = {summary.method: summary.late for summary in section.summaries}
    order = sorted(section.rows, key=lambda row: -float(values[row.name].mean))
    styles = {row.name: row.style for row in order}
    panels = [Panel("final accuracy", values, percents), beside]
    return Drawn(
        f"{section.key}-overview",
        f"Final accuracy of all methods, and {what}. The numbers are in the table.",
        lambda size, theme: dots(
            panels, styles, "All methods, from the best", ["Point: mean over seeds", "bar: 95% interval"], theme, size
        ),
        colour_pairs(list(styles.values())),
    )


def points(share: float, place: float | None = None) -> str:
    """A difference of shares as a tick's label in points.

    Args:
        share: the difference.
        place: where the tick is; not used.

    Returns:
        Such as "+2.5".
    """
    return f"{100 * share:+.3g}".replace("-", "−") if share else "0"


def _disturbances(section: Section) -> Iterator[Drawn]:
    """What a reinitialization changes, method by method."""
    changes = section.measured.disturbances()
    rows = [row for row in section.rows if changes["run"].is_in(row.runs).any()]
    if not rows:
        return
    panels = []
    for column, title in _CHANGES.items():
        values = {}
        for row in rows:
            found = changes.filter(pl.col("run").is_in(row.runs))[column].drop_nulls().to_numpy()
            if len(found):
                values[row.name] = interval_of(section.kind)(found)
        if values:
            means = np.array([float(interval.mean) for interval in values.values()])
            logarithmic = bool((means > 0).all()) and spans_decades(means)
            panels.append(Panel(title, values, None if logarithmic else _plain, logarithmic))
    styles: dict[str, MethodStyle] = {row.name: row.style for row in rows}
    yield Drawn(
        f"{section.key}-disturbances",
        "Mean absolute change of loss, gradient and activations across a reinitialization, for each method.",
        lambda size, theme: dots(
            panels,
            styles,
            "What a reinitialization changes at once",
            ["Mean absolute change on the batch of its step", "bar: 95% interval over seeds"],
            theme,
            size,
        ),
        colour_pairs(list(styles.values())),
    )


def _plain(value: float, place: float | None = None) -> str:
    return number(value)


def sweep_of(row: Row) -> Sweep:
    """The sweep of a method over the one or two of its settings that have most values.

    Args:
        row: the method, which has a grid.

    Returns:
        The sweep; settings that are left out are at their values of the best point.
    """
    names = sorted(row.grid, key=lambda name: -len(row.grid[name]))[:2]
    best = row.points[row.best]
    fixed = {name: best[name] for name in row.grid if name not in names}
    values = [row.grid[name] for name in names] + [[None]] * (2 - len(names))
    late = np.full((len(values[0]), len(values[1]), len(row.seeds)), np.nan)
    for k, point in enumerate(row.points):
        if all(point[name] == value for name, value in fixed.items()):
            late[_place(point, names, values)] = row.late[k]
    return Sweep(
        tuple(setting_words(name) for name in names),
        tuple(values[: len(names)]),
        late,
        _place(best, names, values),
        {setting_words(name): value for name, value in fixed.items()},
    )


def _place(point: Mapping[str, object], names: Sequence[str], values: Sequence[Sequence[object]]) -> tuple[int, int]:
    at = [values[k].index(point[name]) for k, name in enumerate(names)]
    return at[0], at[1] if len(at) > 1 else 0


def sweep_figure(section: Section, row: Row) -> Drawn:
    """Final accuracy of one method over its settings.

    Args:
        section: the folder.
        row: the method, which has a grid.

    Returns:
        The figure.
    """
    sweep = sweep_of(row)
    first = section.rows[0]
    reference = None
    if row is not first:
        reference = (first.style, float(finite_interval(first.late[first.best][:, None]).mean[0]))
    reading = [f"Point: mean of {len(row.seeds)} seed{'s' * (len(row.seeds) > 1)}"]
    if len(row.seeds) > 1:
        reading.append("bar: 95% interval")
    reading.append("circle: best")
    if sweep.fixed:
        reading.append(", ".join(f"{name} {number(value)}" for name, value in sweep.fixed.items()))
    title = f"{row.style.label}: final accuracy over its settings"
    lines = drawn_styles(sweep, row.style)
    return Drawn(
        f"{section.key}-sweep-{row.name.replace('_', '-')}",
        f"Final accuracy of {row.style.label} over {' and '.join(sweep.names)}. The best is marked.",
        lambda size, theme: sensitivity(sweep, row.style, reference, title, reading, theme, size),
        colour_pairs([*lines, first.style]),
    )
