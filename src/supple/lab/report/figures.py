"""Figures: curves over tasks, a dot a method, sweeps of settings; and how they become files.

matplotlib lays everything out; a figure says what is drawn, not where.
"""

from __future__ import annotations

import io
import math
import re
import textwrap
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import matplotlib
import polars as pl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import XAxis, YAxis
from matplotlib.figure import Figure as Drawing
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from supple.lab.escaping import short
from supple.lab.report.comparison import Line
from supple.lab.report.statistics import intervals
from supple.lab.report.style import LIGHT, Style, Theme, colour_pairs
from supple.lab.report.texts import counted, number

Label = Callable[[float, float | None], str]
"""Makes the label of a tick."""


@dataclass(frozen=True)
class Canvas:
    """What a figure is drawn for: a theme, and a screen or, narrow, a phone. Letters have one size on both."""

    theme: Theme = LIGHT
    narrow: bool = False

    @property
    def width(self) -> float:
        """Width in inches."""
        return 4.4 if self.narrow else 8.0

    @property
    def sheet(self) -> dict[Any, Any]:
        """The style sheet."""
        theme = self.theme
        return {
            **_FILES, "font.size": 9.5, "axes.facecolor": theme.background, "figure.facecolor": theme.background,
            "text.color": theme.ink, "axes.labelcolor": theme.muted, "axes.edgecolor": theme.muted,
            "axes.titlecolor": theme.ink, "axes.titlesize": 9.5, "axes.titlelocation": "left",
            "axes.spines.top": False, "axes.spines.left": False, "axes.spines.right": False, "axes.axisbelow": True,
            "axes.grid": True, "axes.grid.axis": "y", "grid.color": theme.grid, "grid.linewidth": 0.8,
            "xtick.color": theme.muted, "ytick.color": theme.muted, "xtick.major.size": 0, "ytick.major.size": 0,
            "xtick.minor.size": 0, "ytick.minor.size": 0, "legend.frameon": False, "legend.handlelength": 2.2,
            "legend.columnspacing": 1.2, "lines.solid_capstyle": "round", "lines.solid_joinstyle": "round",
        }  # fmt: skip


_FILES: dict[Any, Any] = {
    "font.family": "DejaVu Sans", "svg.fonttype": "path", "svg.hashsalt": "supple",
    # A dollar sign in a name is one.
    "text.parse_math": False, "text.usetex": False,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Figure:
    """A figure, drawn on any canvas by ``artists``; its caption is also for those who cannot see it."""

    name: str
    caption: str
    styles: Sequence[Style]
    artists: Callable[[Canvas], Drawing]

    def draw(self, canvas: Canvas) -> Drawing:
        """Draws it with the style sheet of a canvas."""
        with matplotlib.rc_context(canvas.sheet), without_glyphs():
            return self.artists(canvas)


@contextmanager
def without_glyphs() -> Iterator[None]:
    """Lets a letter that the font does not have be drawn as a box without a warning for each size of it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        yield


@dataclass(frozen=True, eq=False)
class Panel:
    """What one panel shows: rows of "line", "seed" and "value", and of curves "x"; null where nothing was measured.

    The axis begins at ``bottom``, or below the lines; it ends ``within`` these at the latest, for what a diverged run
    makes a very wide band of; it is ``logarithmic`` only where values span decades. Panels with the same word
    ``alike`` have the same vertical axis.
    """

    title: str
    values: pl.DataFrame
    label: Label = number
    bottom: float | None = None
    logarithmic: bool = False
    within: tuple[float, float] = (-math.inf, math.inf)
    alike: str = ""

    @cached_property
    def intervals(self) -> pl.DataFrame:
        """Mean and interval over seeds of each line, and of curves at each "x"."""
        return intervals(self.values, ["line", "x"] if "x" in self.values.columns else ["line"])

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return self.intervals.is_empty()


def panel(title: str, frame: pl.DataFrame, column: str = "accuracy", **options: Any) -> Panel:
    """A panel of one column of a frame of curves."""
    return Panel(title, frame.select("line", "seed", "x", value=column), **options)


def reading_of(lines: Sequence[Line], width: int, unit: str = "task") -> list[str]:
    """How points that average over so many tasks, and their bands, came about, in parts.

    ``unit`` is what a task is called; several words are taken as they are.
    """
    counts = sorted({len(line.best) for line in lines})
    seeds = f"{counts[0]} to {counts[-1]} seeds" if len(counts) > 1 else counted(counts[0], "seed")
    one = unit if " " in unit else f"one {unit}"
    point = f"Each point: {f'mean of {width} {unit}s' if width > 1 else one}, {'one seed' if counts == [1] else seeds}"
    band = ["band: 95% interval over seeds"] if counts[-1] > 1 else []
    return [point, *band, *(["best settings"] if any(line.swept for line in lines) else [])]


def whole_axis(label: str, low: float, high: float) -> Callable[[Axes, Canvas], None]:
    """Makes the horizontal axis one of whole numbers."""

    def make(axes: Axes, canvas: Canvas) -> None:
        axes.set_xlim(low - (low == high), high + (low == high))
        axes.xaxis.set_major_locator(MaxNLocator(3 if canvas.narrow else 5, steps=[1, 2, 2.5, 5, 10], integer=True))
        axes.set_xlabel(label)

    return make


def curves(
    canvas: Canvas,
    panels: Sequence[Panel],
    styles: Mapping[str, Style],
    title: str,
    reading: Sequence[str],
    axis: Callable[[Axes, Canvas], None],
    *,
    columns: int = 3,
    tall: float = 1.8,
) -> Drawing:
    """Draws lines of means, with bands of 95% intervals over seeds, in a panel for each measurement.

    ``reading`` says in parts how they came about, and ``axis`` makes the horizontal axis. On a screen there are so many
    ``columns`` of panels, on a phone at most two; a panel is ``tall`` inches high with its title and axis.
    """
    alone = len(panels) == 1
    beside = min(len(panels), columns, 2 if canvas.narrow and tall < 2.5 else columns if not canvas.narrow else 1)
    rows = -(-len(panels) // beside)
    drawing, grid = subplots(canvas, rows, beside)
    for k, (one, axes) in enumerate(zip(panels, grid, strict=False)):
        _curve_panel(canvas, axes, one, styles, alone)
        axis(axes, canvas)
        if k + beside < len(panels):
            axes.set_xlabel("")
        if not alone:
            axes.set_title(one.title)
    for word in {one.alike for one in panels if one.alike}:
        alike = [axes for one, axes in zip(panels, grid, strict=False) if one.alike == word]
        lows, highs = zip(*(axes.get_ylim() for axes in alike), strict=True)
        for axes in alike:
            axes.set_ylim(min(lows), max(highs))
    shown = {name: style for name, style in styles.items() if any((one.values["line"] == name).any() for one in panels)}
    if alone:
        # The legend reads from the highest line to the lowest.
        last = panels[0].intervals.group_by("line").agg(pl.col("mean").sort_by("x").last())
        ends = dict(last.iter_rows())
        shown = dict(sorted(shown.items(), key=lambda one: -ends.get(one[0], -math.inf)))
    handles = [
        Line2D(
            [], [], color=canvas.theme.of(style), linestyle=style.dash, linewidth=2, label=style.label,
            marker=style.marker if alone else "", markersize=5,
        )
        for style in shown.values()
    ]  # fmt: skip
    if alone and not canvas.narrow:
        drawing.legend(handles=handles, loc="outside right upper")
        handles = []
    return finish(canvas, drawing, title, reading, rows * tall, handles)


def _curve_panel(canvas: Canvas, axes: Axes, one: Panel, styles: Mapping[str, Style], large: bool) -> None:
    """Draws the lines of one panel; in a large one, markers tell them apart for who sees no colours."""
    found = one.intervals
    logarithmic = one.logarithmic and spans_decades(one.values["value"])
    if logarithmic:
        found = found.filter(pl.col("mean") > 0)
    lines = found.group_by("line", maintain_order=True)
    for place, ((name,), line) in enumerate(lines):
        style, colour = styles[str(name)], canvas.theme.of(styles[str(name)])
        x, mean = line["x"].to_numpy(), line["mean"].to_numpy()
        low, high = line["low"].to_numpy(), line["high"].to_numpy()
        axes.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0, zorder=2)
        marker = style.marker if large or len(x) == 1 else ""
        every = max(1, len(x) // 8)  # of other points on each line, so that none hides another
        axes.plot(
            x, mean, color=colour, linewidth=2.0 if large else 1.6, linestyle=style.dash, zorder=3,
            marker=marker, markersize=5, markevery=(place % every, every),
        )  # fmt: skip
    if logarithmic:
        powers_of_ten(axes.yaxis)
        return
    axes.yaxis.set_major_locator(MaxNLocator(6 if large else 4, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(one.label)
    # A band may take as much room above and below as the lines take: that of a method of which one run failed would
    # leave them none. A line at the very edge would be cut in half.
    lowest, highest = float(found["mean"].min()), float(found["mean"].max())  # type: ignore[arg-type]
    room = max(highest - lowest, 0.01 if math.isfinite(one.within[0]) else 0.0)
    edge, (bottom, top) = 0.02 * room, axes.get_ylim()
    if room:
        axes.set_ylim(max(bottom, lowest - room, one.within[0] - edge), min(top, highest + room, one.within[1] + edge))
    if one.bottom is not None:
        axes.set_ylim(bottom=one.bottom)


def dots(
    canvas: Canvas, panels: Sequence[Panel], styles: Mapping[str, Style], title: str, reading: Sequence[str]
) -> Drawing:
    """Draws a row for each line, from the top, and a panel for each measurement: a point with its interval."""
    beside = min(len(panels), 2 if canvas.narrow else 4)
    rows = -(-len(panels) // beside)
    drawing, grid = subplots(canvas, rows, beside, sharey=True)
    places = {name: place for place, name in enumerate(styles)}
    for one, axes in zip(panels, grid, strict=False):
        means = one.intervals["mean"]
        logarithmic = one.logarithmic and bool((means > 0).all()) and spans_decades(means)
        for name, mean, low, high in one.intervals.iter_rows():
            style, colour = styles[name], canvas.theme.of(styles[name])
            if low > 0 or (math.isfinite(low) and not logarithmic):
                axes.plot((low, high), [places[name]] * 2, color=colour, linewidth=2, solid_capstyle="butt")
            axes.plot(mean, places[name], marker=style.marker, color=colour, markersize=6, linestyle="")
        axes.grid(axis="y", visible=False)
        axes.grid(axis="x", visible=True)
        axes.spines["bottom"].set_visible(False)
        if logarithmic:
            powers_of_ten(axes.xaxis)
        else:
            axes.xaxis.set_major_locator(MaxNLocator(3 if canvas.narrow else 4, steps=[1, 2, 2.5, 5, 10]))
            axes.xaxis.set_major_formatter(one.label)
            axes.margins(x=0.08)
        axes.set_title(one.title)
    grid[0].set_ylim(len(styles) - 0.4, -0.6)
    length = 22 if canvas.narrow else 40
    grid[0].set_yticks(range(len(styles)), [short(style.label, length) for style in styles.values()])
    for axes in grid:
        axes.tick_params(axis="y", labelcolor=canvas.theme.ink)
    return finish(canvas, drawing, title, reading, rows * (0.26 * len(styles) + 0.75))


def spans_decades(values: pl.Series) -> bool:
    """Whether the largest value is 20 times the smallest of those above 0, or more: better on a logarithmic axis."""
    positive = values.cast(pl.Float64).filter(values.is_finite() & (values > 0))
    return len(positive) > 0 and positive.max() >= 20 * positive.min()


_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def powers_of_ten(axis: XAxis | YAxis) -> None:
    """Makes an axis logarithmic, with a few powers of ten for ticks."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.set_major_locator(LogLocator(numticks=5))
    axis.set_major_formatter(lambda value, place: "10" + str(round(math.log10(value))).translate(_RAISED))
    axis.set_minor_formatter(NullFormatter())


def subplots(canvas: Canvas, rows: int, columns: int, **options: Any) -> tuple[Drawing, list[Axes]]:
    """An empty figure and its axes, row by row, which matplotlib lays out when it is finished."""
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08, wspace=0.02, hspace=0.02)
    drawing = Drawing(figsize=(canvas.width, 4), layout=layout)
    return drawing, list(drawing.subplots(rows, columns, squeeze=False, **options).flat)


def finish(
    canvas: Canvas,
    drawing: Drawing,
    title: str,
    reading: Sequence[str],
    tall: float,
    handles: Sequence[Artist] = (),
) -> Drawing:
    """Adds the title, how to read the figure, and which line is which, and makes room for them."""
    for axes in drawing.axes:
        if not axes.has_data():
            axes.set_visible(False)
    drawing.suptitle(title, x=0.1 / canvas.width, ha="left", size=13, weight="bold")
    parts = reading if canvas.narrow else ["; ".join(reading)]
    text = "\n".join(textwrap.fill(part, 62 if canvas.narrow else 118) for part in parts)
    for columns in range(max(1, len(handles)), 0, -1):
        legend = drawing.legend(
            handles=handles, ncols=columns, loc="outside lower left", title=text, alignment="left", title_fontsize=9
        )
        legend.get_title().set_color(canvas.theme.muted)
        box = legend.get_window_extent()
        if box.width <= drawing.bbox.width or columns == 1:
            break
        legend.remove()
    drawing.set_size_inches(canvas.width, 0.5 + tall + box.height / drawing.dpi)
    # It is laid out once; drawing it into several files does not have to find the places again.
    layout = drawing.get_layout_engine()
    assert layout is not None
    layout.execute(drawing)
    drawing.set_layout_engine("none")
    return drawing


_METADATA: Mapping[str, dict[str, Any]] = {
    "svg": {"Creator": None, "Date": None, "Format": None, "Type": None},
    "png": {"Software": None},
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
}


def to_file(drawing: Drawing, form: str) -> bytes:
    """A figure as "svg", "png" with 200 pixels an inch, or "pdf"; the same figure always gives the same bytes."""
    content = io.BytesIO()
    with matplotlib.rc_context(_FILES), without_glyphs():
        drawing.savefig(content, format=form, dpi=200, facecolor=drawing.get_facecolor(), metadata=_METADATA[form])
    return content.getvalue()


def to_themed_svg(drawing: Drawing, styles: Iterable[Style]) -> bytes:
    """A figure in the light theme, as SVG that follows the reader's choice of a light or dark one."""
    return themed(to_file(drawing, "svg").decode(), styles).encode()


def themed(svg: str, styles: Iterable[Style]) -> str:
    """What :func:`to_themed_svg` makes of a figure in the light theme that is SVG already."""
    pairs = colour_pairs(styles)
    names = {light: f"--c{k}" for k, light in enumerate(pairs)}
    # Hundredths of a point are enough for a line; the digits that follow make half of the file.
    svg = re.sub(r' d="[^"]+"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), svg)
    svg = re.sub(
        r"(?<=: )#[0-9a-f]{6}\b", lambda found: f"var({names[found[0]]})" if found[0] in names else found[0], svg
    )

    def rule(theme: int) -> str:
        return "svg{" + ";".join(f"{names[pair[0]]}:{pair[theme]}" for pair in pairs.items()) + "}"

    style = f"<style>{rule(0)}@media(prefers-color-scheme:dark){{{rule(1)}}}</style>"
    return re.sub(r"(<svg\b[^>]*>)", rf"\1{style}", svg, count=1)
