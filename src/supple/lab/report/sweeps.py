"""Sweeps: final accuracy of a method over its settings, as curves and a map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure as Drawing
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from supple.lab.escaping import file_name
from supple.lab.report.comparison import Line
from supple.lab.report.figures import Canvas, Figure, finish, subplots
from supple.lab.report.statistics import intervals
from supple.lab.report.style import Style, luminance, shades
from supple.lab.report.texts import counted, level, listed, number, percents, setting_words
from supple.lab.study.schema import Outcome


@dataclass(frozen=True, eq=False)
class Sweep:
    """Final accuracy over the one or two settings of a line that have most values, all in order.

    The first is the axis, the second has a curve for each value, one if it is not there; ``fixed`` are other settings
    of the sweep, at their values of the best point. Rows of ``means`` have "x" and "y", places of the values, and the
    mean and interval there.
    """

    names: Sequence[str]
    values: tuple[Sequence[Any], Sequence[Any]]
    fixed: Mapping[str, Any]
    means: pl.DataFrame
    best: tuple[int, int]


def sweep_of(line: Line) -> Sweep:
    """The sweep of a line that has a grid."""
    names = sorted(line.grid, key=lambda name: -len(line.grid[name]))[:2]
    best = line.best.row(0, named=True)
    fixed = {name: best[name] for name in line.grid if name not in names}
    values = (line.grid[names[0]], line.grid[names[1]] if len(names) > 1 else [None])
    places = [
        pl.col(name).replace_strict(list(some), range(len(some)), return_dtype=pl.Int64).alias(axis)
        for axis, name, some in zip("xy", names, values, strict=False)
    ]
    runs = line.runs.filter(pl.lit(True), *(pl.col(name) == value for name, value in fixed.items()))
    runs = runs.with_columns(pl.lit(0).alias("y"), value="late").with_columns(places)
    at = [list(some).index(best[name]) for name, some in zip(names, values, strict=False)]
    return Sweep(names, values, fixed, intervals(runs, ["x", "y"]), (at[0], at[1] if len(at) > 1 else 0))


def sweep_figure(key: str, line: Line, first: Line) -> Figure:
    """Final accuracy of a line over its settings; a dashed line is the first method, at the best of its own."""
    sweep = sweep_of(line)
    styles = shades(line.style, len(sweep.values[1]))
    reading = [f"Point: mean of {counted(len(line.seeds), 'seed')}"]
    if len(line.seeds) > 1:
        reading.append("bar: 95% interval")
    fixed = [f"{setting_words(name)} {number(value)}" for name, value in sweep.fixed.items()]
    reading += ["circle: best", *([", ".join(fixed)] if fixed else [])]
    title = f"{line.style.label}: final {line.what.name} over its settings"
    reference = None if line is first else first
    return Figure(
        f"{key}-sweep-{file_name(line.name)}",
        f"Final {line.what.name} of {line.style.label} over {listed([*map(setting_words, sweep.names)])}. The best is "
        "marked.",
        [*styles, first.style],
        lambda canvas: draw_sweep(canvas, sweep, styles, reference, title, reading, line.what),
    )


def draw_sweep(
    canvas: Canvas, sweep: Sweep, styles: Sequence[Style], first: Line | None, title: str, reading: Sequence[str],
    what: Outcome,
) -> Drawing:  # fmt: skip
    """Draws a sweep: curves, and with two settings a map beside or below them."""
    two = len(sweep.names) == 2
    tall = 3.0, 0.9 + 0.3 * len(sweep.values[1])
    shape = {"width_ratios": (1.1, 1)} if two and not canvas.narrow else {"height_ratios": tall} if two else {}
    rows, columns = (2, 1) if two and canvas.narrow else (1, 2 if two else 1)
    drawing, grid = subplots(canvas, rows, columns, gridspec_kw=shape)
    _sweep_curves(canvas, grid[0], sweep, styles, first, what)
    handles = []
    if two:
        _sweep_map(grid[1], sweep, what)
        labels = [f"{setting_words(sweep.names[1])} {number(value)}" for value in sweep.values[1]]
        handles = [
            Line2D([], [], color=canvas.theme.of(style), marker=style.marker, markersize=4.5, label=label)
            for style, label in zip(styles, labels, strict=True)
        ]
    return finish(canvas, drawing, title, reading, sum(tall) if rows == 2 else max(tall), handles)


def _sweep_curves(
    canvas: Canvas, axes: Axes, sweep: Sweep, styles: Sequence[Style], first: Line | None, what: Outcome
) -> None:
    for (y,), points in sweep.means.group_by("y", maintain_order=True):
        # Neighbours beside each other, so that bars of different lines do not hide each other.
        k, count = int(str(y)), len(styles)
        shift = 0.3 * (k / (count - 1) - 0.5) if count > 1 else 0.0
        points = points.sort("x").with_columns(pl.col("x") + shift)
        x, mean, colour = points["x"], points["mean"], canvas.theme.of(styles[k])
        axes.vlines(x, points["low"], points["high"], color=colour, linewidth=1.2, alpha=0.6, zorder=2)
        axes.plot(x, mean, color=colour, marker=styles[k].marker, markersize=4.5, linewidth=1.5, zorder=3)
        if k == sweep.best[1]:
            at = points.row(by_predicate=pl.col("x") == sweep.best[0] + shift, named=True)
            ink = canvas.theme.ink
            axes.plot(at["x"], at["mean"], marker="o", color="none", markersize=12, markeredgecolor=ink, zorder=4)
    if first is not None:
        level = first.average("late")
        axes.axhline(level, color=canvas.theme.of(first.style), linewidth=1.3, linestyle=(0, (4, 1.6)), zorder=1)
        place: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
        text: dict[str, Any] = {"color": canvas.theme.muted, "ha": "right", "va": "bottom", "fontsize": 8.5}
        axes.annotate(first.style.label, (1, level), xytext=(0, 2), **place, **text)
    axes.set_xlim(-0.5, len(sweep.values[0]) - 0.5)
    axes.set_xticks(range(len(sweep.values[0])), [number(value) for value in sweep.values[0]])
    axes.set_xlabel(setting_words(sweep.names[0]))
    axes.yaxis.set_major_formatter(percents if what.share else number)


def _sweep_map(axes: Axes, sweep: Sweep, what: Outcome) -> None:
    shape = len(sweep.values[1]), len(sweep.values[0])
    mean = np.full(shape, np.nan)
    mean[sweep.means["y"].to_numpy(), sweep.means["x"].to_numpy()] = sweep.means["mean"].to_numpy()
    cells = axes.pcolormesh(np.ma.masked_invalid(mean), cmap="cividis", zorder=1)
    for (y, x), value in np.ndenumerate(mean):
        best = (x, y) == sweep.best
        if np.isfinite(value):
            ink = "#fefefe" if luminance(to_hex(tuple(cells.to_rgba(value)))) < 0.2 else "#101010"
            text, weight = level(value, what.share).removesuffix("%"), "bold" if best else "normal"
            axes.text(x + 0.5, y + 0.5, text, color=ink, ha="center", va="center", fontsize=8, weight=weight, zorder=3)
            if best:
                corner = x + 0.04, y + 0.04
                axes.add_patch(Rectangle(corner, 0.92, 0.92, fill=False, edgecolor=ink, linewidth=1.6, zorder=2))
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    axes.set_xticks(np.arange(shape[1]) + 0.5, [number(value) for value in sweep.values[0]])
    axes.set_yticks(np.arange(shape[0]) + 0.5, [number(value) for value in sweep.values[1]])
    axes.set_xlabel(setting_words(sweep.names[0]))
    axes.set_title(f"{setting_words(sweep.names[1])} (up), final {what.name}{', %' if what.share else ''}")
